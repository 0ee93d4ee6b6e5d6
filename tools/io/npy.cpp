#include "tools/io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <minizip/unzip.h>
#include <minizip/zip.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <string_view>

#include "tools/error.h"
#include "tools/io/file.h"

namespace heed::tools {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are held as the files hold them");

struct TypeRow {
  ArrayType type;
  const char* name;
  const char* code;  // of the header's descr, without byte order
  uint32_t bytes;
};
constexpr TypeRow types[] = {
    {ArrayType::boolean, "bool", "b1", 1}, {ArrayType::i8, "int8", "i1", 1},     {ArrayType::u8, "uint8", "u1", 1},
    {ArrayType::i16, "int16", "i2", 2},    {ArrayType::u16, "uint16", "u2", 2},  {ArrayType::i32, "int32", "i4", 4},
    {ArrayType::u32, "uint32", "u4", 4},   {ArrayType::i64, "int64", "i8", 8},   {ArrayType::u64, "uint64", "u8", 8},
    {ArrayType::f16, "float16", "f2", 2},  {ArrayType::f32, "float32", "f4", 4}, {ArrayType::f64, "float64", "f8", 8},
};

const TypeRow& row(ArrayType type) {
  return types[static_cast<size_t>(type)];
}

constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t largest_header = 1 << 16;  // of version 1; later versions allow more only for types with named fields

/// Bytes in order: fills what it is given as far as the source has bytes, and says how many those were.
using Source = std::function<size_t(std::span<std::byte>)>;

[[noreturn]] void malformed(const std::string& where, const std::string& what) {
  throw Error(Fault::model, where + ": " + what);
}

/// What the header says, a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class Header {
 public:
  Header(std::string_view text, const std::string& where) : rest_(text), where_(where) { read(); }

  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;

 private:
  void read() {
    std::set<std::string> seen;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (!seen.insert(key).second) malformed(where_, fmt::format("the header has '{}' twice", key));
      if (key == "descr") {
        skip();
        if (!rest_.empty() && rest_.front() == '[') malformed(where_, "arrays of records are not supported");
        descr = string();
      } else if (key == "fortran_order") {
        fortran_order = boolean();
      } else if (key == "shape") {
        shape = tuple();
      } else {
        malformed(where_, fmt::format("the header has an unknown key '{}'", key));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip();
    if (!rest_.empty()) malformed(where_, "something follows the header's dictionary");
    for (const char* key : {"descr", "fortran_order", "shape"})
      if (!seen.count(key)) malformed(where_, fmt::format("the header lacks '{}'", key));
  }

  void skip() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n')) rest_.remove_prefix(1);
  }
  bool accept(char c) {
    skip();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) malformed(where_, fmt::format("the header has no '{}' where one is due", c));
  }
  std::string string() {
    skip();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"'))
      malformed(where_, "the header has no string where one is due");
    const size_t end = rest_.find(rest_.front(), 1);
    if (end == rest_.npos) malformed(where_, "a string of the header does not end");
    std::string text(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    skip();
    for (const std::string_view word : {"True", "False"}) {
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return word == "True";
    }
    malformed(where_, "'fortran_order' is neither True nor False");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> values;
    expect('(');
    while (!accept(')')) {
      skip();
      if (rest_.empty() || rest_.front() < '0' || rest_.front() > '9')
        malformed(where_, "'shape' is no tuple of sizes");
      int64_t value = 0;
      for (; !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; rest_.remove_prefix(1))
        if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
            __builtin_add_overflow(value, int64_t{rest_.front() - '0'}, &value))
          malformed(where_, "a size in 'shape' is too large");
      values.push_back(value);
      if (values.size() > 32) malformed(where_, "'shape' has more than 32 axes");
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }

  std::string_view rest_;
  const std::string& where_;
};

/// Fortran order to C order.
void transpose(Array& array) {
  const size_t size = size_of(array.type), rank = array.dims.size();
  const auto count = static_cast<size_t>(array.count());
  if (rank < 2 || count == 0) return;
  std::vector<std::byte> data(array.data.size());
  std::vector<int64_t> index(rank, 0);
  for (size_t i = 0; i < count; ++i) {
    size_t from = 0;
    for (size_t axis = rank; axis-- > 0;)
      from = from * static_cast<size_t>(array.dims[axis]) + static_cast<size_t>(index[axis]);
    std::memcpy(data.data() + i * size, array.data.data() + from * size, size);
    for (size_t axis = rank; axis-- > 0;) {
      if (++index[axis] < array.dims[axis]) break;
      index[axis] = 0;
    }
  }
  array.data = std::move(data);
}

/// Reads one array; `where` names file and key.
Array parse(const Source& source, const std::string& where) {
  std::byte start[12];
  const auto want = [&](std::span<std::byte> bytes, const char* what) {
    if (source(bytes) != bytes.size()) malformed(where, fmt::format("ends within {}", what));
  };
  want({start, 8}, "the first 8 bytes");
  if (std::memcmp(start, magic.data(), magic.size()) != 0) malformed(where, "is not an .npy array");
  const int major = static_cast<int>(start[6]);
  if (major < 1 || major > 3) malformed(where, fmt::format("is of version {}, known are 1 to 3", major));
  size_t length = 0;
  const size_t length_bytes = major == 1 ? 2 : 4;
  want({start + 8, length_bytes}, "the header's length");
  std::memcpy(&length, start + 8, length_bytes);
  if (length > largest_header)
    malformed(where, fmt::format("the header has {} bytes, at most {} are read", length, largest_header));
  std::string text(length, '\0');
  want(std::as_writable_bytes(std::span(text)), "the header");
  const Header header(text, where);

  const std::string& descr = header.descr;
  const bool has_order = !descr.empty() && std::strchr("<>=|", descr.front()) != nullptr;
  const TypeRow* type = nullptr;
  for (const TypeRow& candidate : types)
    if (std::string_view(descr).substr(has_order ? 1 : 0) == candidate.code) type = &candidate;
  if (type == nullptr || (descr.front() == '|' && type->bytes > 1))
    malformed(
        where,
        fmt::format("has elements of type '{}'; known are bool, int8 to int64, uint8 to uint64, float16 to float64",
                    descr));

  Array array{type->type, header.shape, {}};
  int64_t bytes = type->bytes;
  for (int64_t size : array.dims)
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) malformed(where, "'shape' is too large");
  if (std::find(array.dims.begin(), array.dims.end(), 0) != array.dims.end()) bytes = 0;

  // Grows with what is there, so that a size that lies takes no memory.
  constexpr int64_t step = 1 << 22;
  for (int64_t done = 0; done < bytes;) {
    const int64_t part = std::min(step, bytes - done);
    array.data.resize(static_cast<size_t>(done + part));
    const size_t got = source({array.data.data() + done, static_cast<size_t>(part)});
    if (got != static_cast<size_t>(part))
      malformed(where, fmt::format("{} [{}] takes {} bytes, {} are there", type->name, fmt::join(array.dims, ", "),
                                   bytes, done + static_cast<int64_t>(got)));
    done += part;
  }
  std::byte more;
  if (source({&more, 1}) != 0)
    malformed(where,
              fmt::format("{} [{}] takes {} bytes, more are there", type->name, fmt::join(array.dims, ", "), bytes));

  if (descr.front() == '>')
    for (size_t i = 0; i < array.data.size(); i += type->bytes)
      std::reverse(array.data.begin() + static_cast<ptrdiff_t>(i),
                   array.data.begin() + static_cast<ptrdiff_t>(i + type->bytes));
  if (header.fortran_order) transpose(array);
  if (array.type == ArrayType::boolean)
    for (std::byte& value : array.data) value = std::byte{value != std::byte{0}};
  return array;
}

std::vector<std::byte> header_of(const Array& array) {
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                 row(array.type).bytes == 1 ? '|' : '<', row(array.type).code,
                                 fmt::join(array.dims, ", "), array.dims.size() == 1 ? "," : "");
  // The data begins at a multiple of 64, as numpy writes it.
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  text += '\n';
  std::string head(magic);
  head += '\x01';
  head += '\0';
  head += static_cast<char>(text.size() & 255);
  head += static_cast<char>(text.size() >> 8);
  head += text;
  const auto bytes = std::as_bytes(std::span(head));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

uint32_t size_of(ArrayType type) {
  return row(type).bytes;
}
const char* name(ArrayType type) {
  return row(type).name;
}

int64_t Array::count() const {
  int64_t count = 1;
  for (int64_t size : dims) count *= size;
  return count;
}

Array read_npy(const std::filesystem::path& path) {
  const MappedFile file(path);
  std::span<const std::byte> rest = file.bytes();
  return parse(
      [&](std::span<std::byte> to) {
        const size_t count = std::min(to.size(), rest.size());
        if (count > 0) std::memcpy(to.data(), rest.data(), count);
        rest = rest.subspan(count);
        return count;
      },
      path.string());
}

NamedArrays read_npz(const std::filesystem::path& path) {
  { const MappedFile readable(path); }  // minizip does not say why it cannot open
  const std::unique_ptr<void, int (*)(unzFile)> zip(unzOpen64(path.c_str()), unzClose);
  if (!zip) malformed(path.string(), "is not an .npz archive, or an empty one");
  NamedArrays arrays;
  for (int status = unzGoToFirstFile(zip.get()); status != UNZ_END_OF_LIST_OF_FILE;
       status = unzGoToNextFile(zip.get())) {
    unz_file_info64 info;
    std::string key(65535, '\0');  // as long as a name can be
    if (status != UNZ_OK ||
        unzGetCurrentFileInfo64(zip.get(), &info, key.data(), key.size(), nullptr, 0, nullptr, 0) != UNZ_OK)
      malformed(path.string(), "its table of contents is damaged");
    key.resize(info.size_filename);
    const std::string where =
        fmt::format("{}: '{}'", path.string(), key.ends_with(".npy") ? key.substr(0, key.size() - 4) : key);
    if (!key.ends_with(".npy")) malformed(where, "is no .npy array");
    key.resize(key.size() - 4);
    for (const auto& [other, array] : arrays)
      if (other == key) malformed(where, "is there twice");
    if (info.flag & 1) malformed(where, "is encrypted");
    if (info.compression_method != 0 && info.compression_method != Z_DEFLATED)
      malformed(where, fmt::format("is compressed by method {}; known are 0 (stored) and 8 (deflated)",
                                   info.compression_method));
    if (unzOpenCurrentFile(zip.get()) != UNZ_OK) malformed(where, "its entry is damaged");
    Array array = parse(
        [&](std::span<std::byte> to) {
          size_t done = 0;
          while (done < to.size()) {
            const int got = unzReadCurrentFile(zip.get(), to.data() + done, static_cast<unsigned>(to.size() - done));
            if (got < 0) malformed(where, "its entry is damaged");
            if (got == 0) break;
            done += static_cast<size_t>(got);
          }
          return done;
        },
        where);
    if (unzCloseCurrentFile(zip.get()) != UNZ_OK) malformed(where, "its check sum is wrong");
    arrays.emplace_back(std::move(key), std::move(array));
  }
  return arrays;
}

void write_npy(const std::filesystem::path& path, const Array& array) {
  std::vector<std::byte> bytes = header_of(array);
  bytes.insert(bytes.end(), array.data.begin(), array.data.end());
  write_file(path, bytes);
}

void write_npz(const std::filesystem::path& path, const NamedArrays& arrays) {
  NewFile file(path);
  bool ok = true;
  zipFile zip = zipOpen64(file.temporary().c_str(), APPEND_STATUS_CREATE);
  ok = zip != nullptr;
  for (const auto& [key, array] : arrays) {
    zip_fileinfo info{};
    info.dosDate = 33 << 16;  // 1 January 1980: the same arrays are the same bytes
    const std::vector<std::byte> header = header_of(array);
    const bool large = array.data.size() > std::numeric_limits<int32_t>::max();
    ok = ok && zipOpenNewFileInZip64(zip, (key + ".npy").c_str(), &info, nullptr, 0, nullptr, 0, nullptr, 0, 0,
                                     large) == ZIP_OK;
    ok = ok && zipWriteInFileInZip(zip, header.data(), static_cast<unsigned>(header.size())) == ZIP_OK;
    constexpr size_t step = 1 << 30;
    for (size_t done = 0; ok && done < array.data.size(); done += step)
      ok = zipWriteInFileInZip(zip, array.data.data() + done,
                               static_cast<unsigned>(std::min(step, array.data.size() - done))) == ZIP_OK;
    ok = ok && zipCloseFileInZip(zip) == ZIP_OK;
  }
  ok = (zip == nullptr || zipClose(zip, nullptr) == ZIP_OK) && ok;
  if (!ok) throw Error(Fault::machine, fmt::format("cannot write {}: the disk may be full", path.string()));
  file.commit();
}

}  // namespace heed::tools

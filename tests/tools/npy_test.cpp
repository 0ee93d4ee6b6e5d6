#include "tools/io/npy.h"

#include <doctest/doctest.h>
#include <minizip/zip.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>
#include <span>
#include <string>

#include "tools/error.h"

namespace heed::tools {
namespace {

/// A folder of its own, gone afterwards.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "heed-npy-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path operator/(const char* name) const { return path / name; }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()));
  }
};

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

std::string little_endian(size_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

/// The bytes of a file whose header says `dictionary`.
std::string npy(const std::string& dictionary, const std::vector<std::byte>& data, int version = 1) {
  std::string text("\x93NUMPY");
  text += static_cast<char>(version);
  text += '\0';
  text += little_endian(dictionary.size(), version == 1 ? 2 : 4);
  text += dictionary;
  text.append(reinterpret_cast<const char*>(data.data()), data.size());
  return text;
}

std::string dictionary(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

void store(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string load(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Array read_bytes(const std::string& bytes) {
  const Folder folder;
  store(folder / "a.npy", bytes);
  return read_npy(folder / "a.npy");
}

/// What the refusal of these bytes says, after the file's name.
std::string refusal(const std::string& bytes) {
  const Folder folder;
  store(folder / "a.npy", bytes);
  try {
    read_npy(folder / "a.npy");
  } catch (const Error& error) {
    CHECK(error.fault() == Fault::model);
    const std::string text = error.what(), file = (folder / "a.npy").string() + ": ";
    CHECK(text.starts_with(file));
    return text.substr(std::min(file.size(), text.size()));
  }
  return "none";
}

const std::vector<std::byte> six = bytes_of(std::vector<int16_t>{1, 2, 3, 4, 5, 6});

TEST_CASE("every type comes back as it was written") {
  const Folder folder;
  for (int type = 0; type <= static_cast<int>(ArrayType::f64); ++type)
    for (const std::vector<int64_t>& dims :
         {std::vector<int64_t>{}, std::vector<int64_t>{3}, std::vector<int64_t>{2, 3, 4}, std::vector<int64_t>{2, 0}}) {
      Array array{static_cast<ArrayType>(type), dims, {}};
      array.data.resize(static_cast<size_t>(array.count()) * size_of(array.type));
      for (size_t i = 0; i < array.data.size(); ++i)
        array.data[i] = static_cast<std::byte>(array.type == ArrayType::boolean ? i % 2 : i * 37);
      write_npy(folder / "a.npy", array);
      const Array back = read_npy(folder / "a.npy");
      CAPTURE(name(array.type));
      CHECK(back.type == array.type);
      CHECK(back.dims == array.dims);
      CHECK(back.data == array.data);
    }
}

TEST_CASE("what is written is what numpy writes") {
  const Folder folder;
  write_npy(folder / "a.npy", {ArrayType::i16, {2, 3}, six});
  std::string header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }";
  header.resize(117, ' ');
  CHECK(load(folder / "a.npy") == npy(header + "\n", six));
  write_npy(folder / "v.npy", {ArrayType::i16, {6}, six});
  CHECK(load(folder / "v.npy").find("'shape': (6,), }") != std::string::npos);
}

TEST_CASE("an archive keeps names and order, and the same arrays are the same bytes") {
  const Folder folder;
  const NamedArrays arrays{{"window", {ArrayType::i16, {2, 3}, six}},
                           {"ids/0", {ArrayType::u8, {1}, bytes_of(std::vector<uint8_t>{7})}},
                           {"a", {ArrayType::f32, {}, bytes_of(std::vector<float>{1.5f})}}};
  write_npz(folder / "a.npz", arrays);
  write_npz(folder / "b.npz", arrays);
  CHECK(load(folder / "a.npz") == load(folder / "b.npz"));
  const NamedArrays back = read_npz(folder / "a.npz");
  REQUIRE(back.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(back[i].first == arrays[i].first);
    CHECK(back[i].second.dims == arrays[i].second.dims);
    CHECK(back[i].second.data == arrays[i].second.data);
  }
  CHECK(folder.files() == 2);
  const std::string name(5000, 'k');
  write_npz(folder / "b.npz", {{name, arrays[0].second}});
  CHECK(read_npz(folder / "b.npz")[0].first == name);
}

TEST_CASE("the examples' archives can be read") {
  const NamedArrays arrays = read_npz(HEED_SOURCE_DIR "/examples/stock_forecast/expected.npz");
  REQUIRE(!arrays.empty());
  CHECK(arrays[0].first == "window");
  CHECK(arrays[0].second.type == ArrayType::f32);
  CHECK(arrays[0].second.dims == std::vector<int64_t>{64, 5});
}

TEST_CASE("versions 1 to 3, byte orders, Fortran order") {
  for (int version = 1; version <= 3; ++version)
    CHECK(read_bytes(npy(dictionary("<i2", "False", "(2, 3)"), six, version)).data == six);
  const std::vector<std::byte> swapped = bytes_of(std::vector<uint16_t>{0x100, 0x200, 0x300, 0x400, 0x500, 0x600});
  CHECK(read_bytes(npy(dictionary(">i2", "False", "(2, 3)"), swapped)).data == six);
  // [[1, 3, 5], [2, 4, 6]]
  CHECK(read_bytes(npy(dictionary("<i2", "True", "(2, 3)"), six)).data ==
        bytes_of(std::vector<int16_t>{1, 3, 5, 2, 4, 6}));
  const Array cube = read_bytes(npy(dictionary("<i2", "True", "(1, 2, 3)"), six));
  CHECK(cube.data == bytes_of(std::vector<int16_t>{1, 3, 5, 2, 4, 6}));
  CHECK(cube.dims == std::vector<int64_t>{1, 2, 3});
  CHECK(read_bytes(npy(dictionary("|b1", "False", "(2,)"), bytes_of(std::vector<uint8_t>{0, 9}))).data ==
        bytes_of(std::vector<uint8_t>{0, 1}));
  CHECK(read_bytes(npy("{\"shape\":(6,),\"fortran_order\":False,\"descr\":\"<i2\"}", six)).dims ==
        std::vector<int64_t>{6});
}

TEST_CASE("what is malformed is refused, and the refusal says what is wrong") {
  const std::string good = npy(dictionary("<i2", "False", "(2, 3)"), six);
  CHECK(refusal("") == "ends within the first 8 bytes");
  CHECK(refusal("hello, world") == "is not an .npy array");
  CHECK(refusal(good.substr(0, 9)) == "ends within the header's length");
  CHECK(refusal(good.substr(0, 30)) == "ends within the header");
  CHECK(refusal(good.substr(0, good.size() - 1)) == "int16 [2, 3] takes 12 bytes, 11 are there");
  CHECK(refusal(good + "x") == "int16 [2, 3] takes 12 bytes, more are there");
  CHECK(refusal(npy(dictionary("<i2", "False", "(2, 3)"), six, 9)) == "is of version 9, known are 1 to 3");
  CHECK(refusal(npy(std::string(70000, ' '), six, 2)) == "the header has 70000 bytes, at most 65536 are read");
  CHECK(refusal(npy(dictionary("<U4", "False", "(1,)"), six)) ==
        "has elements of type '<U4'; known are bool, int8 to int64, uint8 to uint64, float16 to float64");
  CHECK(refusal(npy(dictionary("|O", "False", "(1,)"), six)).starts_with("has elements of type '|O'"));
  CHECK(refusal(npy(dictionary("|i2", "False", "(1,)"), six)).starts_with("has elements of type '|i2'"));
  CHECK(refusal(npy(dictionary("", "False", "(1,)"), six)).starts_with("has elements of type ''"));
  CHECK(refusal(npy("{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (6,)}", six)) ==
        "arrays of records are not supported");
  CHECK(refusal(npy(dictionary("<i2", "0", "(2, 3)"), six)) == "'fortran_order' is neither True nor False");
  CHECK(refusal(npy(dictionary("<i2", "False", "(2, -3)"), six)) == "'shape' is no tuple of sizes");
  CHECK(refusal(npy(dictionary("<i2", "False", "(99999999999999999999,)"), six)) == "a size in 'shape' is too large");
  CHECK(refusal(npy(dictionary("<i2", "False", "(4294967296, 4294967296)"), six)) == "'shape' is too large");
  // A size that lies takes no memory.
  CHECK(refusal(npy(dictionary("<i2", "False", "(1000000000000,)"), six)) ==
        "int16 [1000000000000] takes 2000000000000 bytes, 12 are there");
  CHECK(refusal(npy("{'descr': '<i2', 'shape': (6,)}", six)) == "the header lacks 'fortran_order'");
  CHECK(refusal(npy("{'descr': '<i2', 'descr': '<i2'}", six)) == "the header has 'descr' twice");
  CHECK(refusal(npy("{'colour': 'red'}", six)) == "the header has an unknown key 'colour'");
  CHECK(refusal(npy("{'descr': '<i2", six)) == "a string of the header does not end");
  CHECK(refusal(npy("[]", six)) == "the header has no '{' where one is due");
  CHECK(refusal(npy(dictionary("<i2", "False", "(2, 3)") + "x", six)) == "something follows the header's dictionary");
}

TEST_CASE("archives name the array that is wrong") {
  const Folder folder;
  const auto zip = [&](const std::vector<std::pair<std::string, std::string>>& entries) {
    zipFile file = zipOpen64((folder / "a.npz").c_str(), APPEND_STATUS_CREATE);
    for (const auto& [name, bytes] : entries) {
      zip_fileinfo info{};
      zipOpenNewFileInZip64(file, name.c_str(), &info, nullptr, 0, nullptr, 0, nullptr, Z_DEFLATED, Z_BEST_SPEED, 0);
      zipWriteInFileInZip(file, bytes.data(), static_cast<unsigned>(bytes.size()));
      zipCloseFileInZip(file);
    }
    zipClose(file, nullptr);
  };
  const auto refused = [&] {
    try {
      read_npz(folder / "a.npz");
    } catch (const Error& error) {
      CHECK(error.fault() == Fault::model);
      return std::string(error.what()).substr((folder / "a.npz").string().size());
    }
    return std::string("none");
  };
  const std::string good = npy(dictionary("<i2", "False", "(2, 3)"), six);
  zip({{"x.npy", good}, {"y.npy", good}});
  CHECK(read_npz(folder / "a.npz").size() == 2);
  zip({{"x.npy", good}, {"y.npy", good.substr(0, good.size() - 2)}});
  CHECK(refused() == ": 'y': int16 [2, 3] takes 12 bytes, 10 are there");
  zip({{"x.npy", good}, {"x.npy", good}});
  CHECK(refused() == ": 'x': is there twice");
  zip({{"readme.txt", "hello"}});
  CHECK(refused() == ": 'readme.txt': is no .npy array");
  store(folder / "a.npz", "no archive");
  CHECK(refused() == ": is not an .npz archive, or an empty one");
  store(folder / "a.npz", "");
  CHECK(refused() == ": is not an .npz archive, or an empty one");

  // Stored, so that a flipped byte is one of the array's and only its check sum tells.
  write_npz(folder / "a.npz", {{"x", {ArrayType::i16, {2, 3}, six}}});
  std::string bytes = load(folder / "a.npz");
  const size_t place = bytes.find(std::string("\x01\x00\x02\x00\x03\x00", 6));
  REQUIRE(place != std::string::npos);
  bytes[place] = 5;
  store(folder / "a.npz", bytes);
  CHECK(refused() == ": 'x': its check sum is wrong");
}

TEST_CASE("mutations and truncations are read or refused") {
  const Folder folder;
  write_npz(folder / "a.npz",
            {{"x", {ArrayType::i16, {2, 3}, six}}, {"y", {ArrayType::f64, {}, std::vector<std::byte>(8)}}});
  const std::string whole = load(folder / "a.npz");
  std::mt19937 random(1);
  int refused = 0;
  const auto attempt = [&](const std::string& bytes) {
    store(folder / "b.npz", bytes);
    try {
      read_npz(folder / "b.npz");
    } catch (const Error& error) {
      refused += error.fault() == Fault::model;
    }
  };
  int truncated = 0;
  for (size_t size = 0; size + 22 <= whole.size(); size += 7, ++truncated) attempt(whole.substr(0, size));
  CHECK(refused == truncated);
  for (int i = 0; i < 300; ++i) {
    std::string bytes = whole;
    for (uint32_t flips = 1 + random() % 3; flips-- > 0;) bytes[random() % bytes.size()] = static_cast<char>(random());
    attempt(bytes);
  }
}

TEST_CASE("files that cannot be read or written") {
  const Folder folder;
  const auto fault = [](auto&& action) {
    try {
      action();
    } catch (const Error& error) {
      return static_cast<int>(error.fault());
    }
    return 0;
  };
  CHECK(fault([&] { read_npy(folder / "none.npy"); }) == 2);
  CHECK(fault([&] { read_npz(folder / "none.npz"); }) == 2);
  CHECK(fault([&] { read_npy(folder.path); }) == 2);
  const Array array{ArrayType::i16, {2, 3}, six};
  CHECK(fault([&] { write_npy(folder / "none" / "a.npy", array); }) == 3);
  CHECK(fault([&] { write_npy(folder.path, array); }) == 3);
  CHECK(fault([&] { write_npz("/dev/null", {{"a", array}}); }) == 3);
  CHECK(folder.files() == 0);
}

}  // namespace
}  // namespace heed::tools

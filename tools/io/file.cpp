#include "tools/io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include "tools/error.h"

namespace heed::tools {
namespace {

[[noreturn]] void fail(Fault fault, const char* doing, const std::filesystem::path& path, int error) {
  throw Error(fault, fmt::format("{} {}: {}", doing, path.string(), std::generic_category().message(error)));
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? Fault::command_line : Fault::machine, "cannot read", path, error);
  }
  struct stat status {};
  void* address = nullptr;
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(status.st_mode)) error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  const auto size = static_cast<size_t>(status.st_size);
  if (error == 0 && size > 0) {
    address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) error = errno;
  }
  ::close(descriptor);
  if (error != 0)
    fail(error == EISDIR || error == EINVAL ? Fault::command_line : Fault::machine, "cannot read", path, error);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::forget() const {
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

NewFile::NewFile(std::filesystem::path path) : path_(std::move(path)) {
  // What a link points to is replaced, not the link; what is no file (a folder, /dev/null) never is.
  constexpr int most_links = 40;
  for (int i = 0; i < most_links && std::filesystem::is_symlink(path_); ++i)
    path_ = path_.parent_path() / std::filesystem::read_symlink(path_);
  if (std::filesystem::exists(path_) && !std::filesystem::is_regular_file(path_))
    throw Error(Fault::machine, fmt::format("cannot write {}: it is not a regular file", path_.string()));
  std::string name = (path_.parent_path() / ("." + path_.filename().string() + ".XXXXXX")).string();
  const int descriptor = ::mkstemp(name.data());
  if (descriptor < 0) fail(Fault::machine, "cannot write", path_, errno);
  temporary_ = name;
  // mkstemp lets nobody else read; the finished file has the permissions of any other.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(descriptor, 0666 & ~mask);
  ::close(descriptor);
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::commit() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(Fault::machine, "cannot write", path_, errno);
  temporary_.clear();
}

void check_output(const char* option, const std::filesystem::path& output,
                  const std::vector<std::filesystem::path>& inputs) {
  if (output == "-")
    throw Error(Fault::command_line, fmt::format("{} -: is no file; standard output is for the report", option));
  for (const std::filesystem::path& input : inputs)
    if (std::error_code error; std::filesystem::equivalent(output, input, error))
      throw Error(Fault::command_line,
                  fmt::format("{} {}: is {} itself, which would be lost", option, output.string(), input.string()));
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  NewFile file(path);
  const int descriptor = ::open(file.temporary().c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) fail(Fault::machine, "cannot write", path, errno);
  int error = 0;
  while (!bytes.empty() && error == 0) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written >= 0)
      bytes = bytes.subspan(static_cast<size_t>(written));
    else if (errno != EINTR)
      error = errno;
  }
  if (::close(descriptor) != 0 && error == 0) error = errno;
  if (error != 0) fail(Fault::machine, "cannot write", path, error);
  file.commit();
}

}  // namespace heed::tools

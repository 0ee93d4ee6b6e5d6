#pragma once
/// Files as the tools read and write them: mapped, or written beside their place and renamed, so that no reader ever
/// sees half a file.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace heed::tools {

/// A whole file, mapped for reading; its bytes begin at a multiple of a page.
class MappedFile {
 public:
  /// Throws Error: command_line where there is no such file, machine where it cannot be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  /// Gives the memory of what was read back; what is read again comes from the file again.
  void forget() const;

 private:
  std::span<const std::byte> bytes_;
};

/// A file in the making: `temporary()` stands beside `path` and takes its place at commit(); without one it is removed.
class NewFile {
 public:
  /// Throws Error(machine) where the folder cannot be written to.
  explicit NewFile(std::filesystem::path path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
};

/// Throws Error(command_line), naming the option, where a file may not be written: it is one of those being read, or it
/// is `-`, which names no file.
void check_output(const char* option, const std::filesystem::path& output,
                  const std::vector<std::filesystem::path>& inputs);

/// All at once. Throws Error(machine), then `path` is as it was.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace heed::tools

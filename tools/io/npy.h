#pragma once
/// Arrays in numpy's files: .npy (one array) and .npz (a zip of them, by name).
///
/// Read: versions 1 to 3, stored or deflated, C or Fortran order, either byte order. Written: version 1, stored, C
/// order, little-endian.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace heed::tools {

enum class ArrayType : uint8_t { boolean, i8, u8, i16, u16, i32, u32, i64, u64, f16, f32, f64 };

uint32_t size_of(ArrayType type);
/// numpy's name: "float32", "bool".
const char* name(ArrayType type);

/// Row-major, little-endian, without gaps.
struct Array {
  ArrayType type = ArrayType::f32;
  std::vector<int64_t> dims;
  std::vector<std::byte> data;

  int64_t count() const;
};

/// In the order of the file; every name once.
using NamedArrays = std::vector<std::pair<std::string, Array>>;

/// Throw Error: model (file and key are named) where the content is not what it should be, else as MappedFile does.
Array read_npy(const std::filesystem::path& path);
NamedArrays read_npz(const std::filesystem::path& path);

/// Throw Error(machine); `path` then is as it was.
void write_npy(const std::filesystem::path& path, const Array& array);
void write_npz(const std::filesystem::path& path, const NamedArrays& arrays);

}  // namespace heed::tools

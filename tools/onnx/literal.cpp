// TensorProto's many ways to hold elements, as literals of the converter.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <utility>

#include "tools/error.h"
#include "tools/onnx/model.h"

static_assert(std::endian::native == std::endian::little, "raw_data is little-endian");

namespace heed::tools::onnx {
namespace {

float from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16;
  const int exponent = bits >> 10 & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0) return std::copysign(std::ldexp(float(fraction), -24), std::bit_cast<float>(sign | 0x3f800000));
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  return std::bit_cast<float>(sign | uint32_t(exponent + 112) << 23 | fraction << 13);
}

float from_bf16(uint16_t bits) {
  return std::bit_cast<float>(uint32_t(bits) << 16);
}

[[noreturn]] void refuse(const Tensor& tensor, const std::string& what) {
  throw Error(Fault::model, fmt::format("tensor '{}'{}: {}", tensor.name,
                                        tensor.external.empty() ? "" : fmt::format(" in '{}'", tensor.external), what));
}

/// Elements by the dims, checked against overflow and against `found`, what the file holds.
void check_count(const Tensor& tensor, size_t found) {
  uint64_t count = 1;
  for (const int64_t dim : tensor.dims) {
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(dim), &count))
      count = UINT64_MAX;  // stays there unless a dim is 0
  }
  if (std::find(tensor.dims.begin(), tensor.dims.end(), 0) != tensor.dims.end()) count = 0;
  if (count != found) refuse(tensor, fmt::format("its dimensions make {} elements, the file holds {}", count, found));
}

/// Every element of raw_data, of type `Stored`, through `convert`.
template <class Stored, class Result, class Convert>
std::vector<Result> from_raw(const Tensor& tensor, Convert convert) {
  const std::span<const std::byte> raw = *tensor.raw;
  if (raw.size() % sizeof(Stored) != 0) {
    refuse(tensor, fmt::format("it has {} bytes, no multiple of {}", raw.size(), sizeof(Stored)));
  }
  check_count(tensor, raw.size() / sizeof(Stored));
  std::vector<Result> values(raw.size() / sizeof(Stored));
  for (size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, raw.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = static_cast<Result>(convert(stored));
  }
  return values;
}

/// Every element of a typed field through `convert`.
template <class Result, class Stored, class Convert>
std::vector<Result> from_field(const Tensor& tensor, const std::vector<Stored>& field, Convert convert) {
  check_count(tensor, field.size());
  std::vector<Result> values(field.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<Result>(convert(field[i]));
  return values;
}

/// raw_data as it lies in the file, where its address allows.
template <class T>
std::optional<Literal> in_place(const Tensor& tensor, Type type) {
  if (!tensor.raw || reinterpret_cast<uintptr_t>(tensor.raw->data()) % alignof(T) != 0) return std::nullopt;
  if (tensor.raw->size() % sizeof(T) != 0) return std::nullopt;
  check_count(tensor, tensor.raw->size() / sizeof(T));
  return Literal{type, tensor.dims, tensor.owner, tensor.raw->data()};
}

template <class T>
Literal integers(const Tensor& tensor) {
  const auto same = [](T x) { return x; };
  if (tensor.raw) return Literal::of(tensor.dims, from_raw<T, int64_t>(tensor, same));
  return Literal::of(tensor.dims, from_field<int64_t>(tensor, tensor.integers, [](int64_t x) { return T(x); }));
}

Literal halves(const Tensor& tensor, float (*convert)(uint16_t)) {
  if (tensor.raw) return Literal::of(tensor.dims, from_raw<uint16_t, float>(tensor, convert));
  return Literal::of(tensor.dims,
                     from_field<float>(tensor, tensor.integers, [=](int64_t x) { return convert(uint16_t(x)); }));
}

}  // namespace

std::string name(DataType type) {
  static constexpr const char* names[] = {
      "undefined", "float32",    "uint8",      "int8",         "uint16",         "int16",      "int32",
      "int64",     "string",     "bool",       "float16",      "float64",        "uint32",     "uint64",
      "complex64", "complex128", "bfloat16",   "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz",
      "uint4",     "int4",       "float4e2m1", "float8e8m0",   "uint2",          "int2"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(names) ? names[number] : fmt::format("type {}", static_cast<int32_t>(type));
}

std::optional<Type> device_type(DataType type) {
  switch (type) {
    case DataType::f32:
    case DataType::f16:
    case DataType::bf16:
    case DataType::f64:
      return Type::f32;
    case DataType::u8:
    case DataType::i8:
    case DataType::u16:
    case DataType::i16:
    case DataType::i32:
    case DataType::i64:
    case DataType::u32:
    case DataType::u64:
      return Type::i32;
    case DataType::boolean:
      return Type::boolean;
    default:
      return std::nullopt;
  }
}

Literal literal(const Tensor& tensor) {
  switch (tensor.type) {
    case DataType::f32:
      if (const auto placed = in_place<float>(tensor, Type::f32)) return *placed;
      if (tensor.raw) return Literal::of(tensor.dims, from_raw<float, float>(tensor, [](float x) { return x; }));
      check_count(tensor, tensor.floats.size());
      return Literal::of(tensor.dims, tensor.floats);
    case DataType::f16:
      return halves(tensor, from_f16);
    case DataType::bf16:
      return halves(tensor, from_bf16);
    case DataType::f64: {
      // What is finite stays finite: masks write the lowest double.
      const auto rounded = [](double x) { return std::isinf(x) ? x : std::clamp<double>(x, -FLT_MAX, FLT_MAX); };
      if (tensor.raw) return Literal::of(tensor.dims, from_raw<double, float>(tensor, rounded));
      return Literal::of(tensor.dims, from_field<float>(tensor, tensor.doubles, rounded));
    }
    case DataType::i64:
      if (const auto placed = in_place<int64_t>(tensor, Type::i32)) return *placed;
      return integers<int64_t>(tensor);
    case DataType::u8:
      return integers<uint8_t>(tensor);
    case DataType::i8:
      return integers<int8_t>(tensor);
    case DataType::u16:
      return integers<uint16_t>(tensor);
    case DataType::i16:
      return integers<int16_t>(tensor);
    case DataType::i32:
      return integers<int32_t>(tensor);
    case DataType::u32:
      return integers<uint32_t>(tensor);
    case DataType::u64:
      return integers<uint64_t>(tensor);
    case DataType::boolean: {
      if (tensor.raw) {
        return Literal::of_booleans(tensor.dims, from_raw<uint8_t, uint8_t>(tensor, [](uint8_t x) { return x != 0; }));
      }
      return Literal::of_booleans(tensor.dims,
                                  from_field<uint8_t>(tensor, tensor.integers, [](int64_t x) { return x != 0; }));
    }
    default:
      refuse(tensor, fmt::format("elements of type {} are not supported", name(tensor.type)));
  }
}

}  // namespace heed::tools::onnx

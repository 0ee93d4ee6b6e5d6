#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/inline.h"

namespace heed {

/// Element types on the device.
enum class Type : uint8_t { f32, i32, boolean, i8, u8 };

/// Bytes of one element.
HEED_INLINE constexpr uint32_t size_of(Type type) {
  return type == Type::f32 || type == Type::i32 ? 4 : 1;
}

const char* name(Type type);

inline constexpr int max_rank = 8;
/// Most elements of a tensor, axes of size 0 counted as 1: loops that step by vectors and blocks stay within int32.
inline constexpr int32_t max_elements = 1 << 30;

/// What is known of a tensor without its data: fixed width, so that tables have one size on every target.
struct Shape {
  Type type;
  uint8_t rank;      // 0 is a scalar
  uint8_t constant;  // 1: the data lies in the file and may not be written
  uint8_t reserved;
  int32_t dims[max_rank];     // dims[0 .. rank), 0 <= dim <= max_elements
  int32_t strides[max_rank];  // in elements; 0 broadcasts, negative flips (inputs only)
};

/// One operand at run time. The shape has been checked against the buffer: every element that dims and strides reach
/// lies inside it. An absent optional operand has neither shape nor data.
struct Tensor {
  std::byte* data;     // address of the element at index 0 of every axis
  const Shape* shape;  // null where the operand is absent

  explicit operator bool() const { return shape != nullptr; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

/// Product of the dimensions, at most max_elements in shapes that reach a kernel.
HEED_INLINE int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int axis = 0; axis < shape.rank; ++axis) count *= shape.dims[axis];
  return count;
}

/// True where the elements lie row-major without gaps (axes of size 1 may have any stride).
bool is_dense(const Shape& shape);

}  // namespace heed

#include "kernels/tensor.h"

namespace heed {

const char* name(Type type) {
  switch (type) {
    case Type::f32:
      return "f32";
    case Type::i32:
      return "i32";
    case Type::boolean:
      return "bool";
    case Type::i8:
      return "i8";
    case Type::u8:
      return "u8";
  }
  return "?";
}

bool is_dense(const Shape& shape) {
  int64_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    if (shape.dims[axis] == 0) return true;
    if (shape.dims[axis] != 1 && shape.strides[axis] != stride) return false;
    stride *= shape.dims[axis];
  }
  return true;
}

}  // namespace heed

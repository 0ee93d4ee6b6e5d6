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
  bool in_order = true;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    in_order &= shape.dims[axis] == 1 || shape.strides[axis] == stride;
    stride *= shape.dims[axis];
  }
  return in_order || stride == 0;  // no element, no gap
}

}  // namespace heed

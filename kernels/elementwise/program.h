#pragma once
/// What the contract and the interpreter must agree on. Internal linkage: see simd.h.
#include "kernels/elementwise/elementwise.h"

namespace heed {
namespace {

constexpr int lane_bytes = 4;

/// Registers 0 .. count - 1 are used.
inline int register_count(const ElementwiseParams& params) {
  const Program program = program_of(params);
  int count = 0;
  for (int s = 0; s < params.instruction_count; ++s)
    count = program.instructions[s].result >= count ? program.instructions[s].result + 1 : count;
  return count;
}

/// Scratch of a register, or of an input that is gathered: a block of lanes, or the whole tensor where it is smaller.
inline int64_t slot_bytes(int64_t elements) {
  return (elements < elementwise_block ? (elements + 15) / 16 * 16 : elementwise_block) * lane_bytes;
}

/// One value for all elements.
inline bool is_scalar(const Shape& shape) {
  for (int axis = 0; axis < shape.rank; ++axis)
    if (shape.dims[axis] != 1 && shape.strides[axis] != 0) return false;
  return true;
}

}  // namespace
}  // namespace heed

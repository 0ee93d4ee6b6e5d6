#pragma once
/// Quantised tensors in lowerings: integers with a scale and a zero point, which broadcast against them.
#include "tools/onnx/lowering.h"

namespace heed::tools {

/// A scale or zero point for the axis of x that it goes along: one number, a vector, or (with `block`) a tensor that
/// repeats each of its elements `block` times along it.
ValueId along(Lowering& l, ValueId parameter, ValueId x, int axis, int64_t block = 0);

/// Operand i, or zero; of the type of operand `of`.
ValueId zero_point(Lowering& l, size_t i);
ValueId zero_point(Lowering& l, size_t i, size_t of);

/// round(x / scale) + zero, saturated to the type.
ValueId quantize(Lowering& l, ValueId x, ValueId scale, ValueId zero, onnx::DataType type);
/// (q - zero) * scale. What only picks from or reorders a constant does so after it.
ValueId dequantize(Lowering& l, ValueId q, ValueId scale, ValueId zero, onnx::DataType type);
/// Operands i, i + 1 and i + 2 as floats.
ValueId dequantize(Lowering& l, size_t i);
/// q - zero.
ValueId centred(Lowering& l, ValueId q, ValueId zero);

/// numpy's matmul: of floats, of bytes less bytes (`of_bytes`), or of any integers, whose sums wrap.
ValueId matrix_product(Lowering& l, ValueId a, ValueId b, bool of_bytes = false);

}  // namespace heed::tools

#pragma once
/// y[outer] = reduction over the last `axes` axes of x[outer.., reduced..]; the elements of one output count i = 0, 1,
/// ... row-major over the reduced axes.
///
/// sum, mean, sum_square: 16 accumulators (element i in accumulator i mod 16; squares enter by one fused multiply-add)
/// and the fixed tree; mean is the sum times 1/n rounded. product: the same with 1 as the start. max, min: NaN
/// propagates, +0 above -0, a subnormal is zero. arg_max, arg_min: the first (or last) index along one reduced axis; a
/// NaN wins. Empty reductions: 0, NaN, 0, 1, -inf, +inf, 0, 0.
///
/// inputs: 0 x f32 or i32 (sum, product, max, min; integers wrap), any strides: the converter turns an axis order into
///   strides
/// outputs: 0 y, the outer axes of x, dense; i32 for arg. scratch: none. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

enum class Reduction : uint8_t { sum, mean, sum_square, product, max, min, arg_max, arg_min };

struct ReduceParams {
  Reduction kind;
  uint8_t axes;        // how many of the last axes are reduced, from 1
  uint8_t last_index;  // arg: of equal extremes the last one, not the first
  uint8_t reserved;
};

struct ReduceArgs {
  const Shape* x_shape;
  const std::byte* x;
  std::byte* y;
  int64_t first, last;  // outputs [first, last), counted row-major
  ReduceParams params;
};

HEED_DECLARE_VARIANTS(reduce, ReduceArgs)

}  // namespace heed

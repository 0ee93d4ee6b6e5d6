#pragma once
/// softmax     y[i] = exp(x[i] - max) * (1 / sum of exp(x[j] - max))
/// log-softmax y[i] = (x[i] - max) - log(sum of exp(x[j] - max))
///
/// over the last axis; the sum is 16 accumulators (element i in accumulator i mod 16) and the fixed tree. A row of -inf
/// alone gives NaN, as the formula does.
///
/// inputs: 0 x f32 [.., N], last stride 1. outputs: 0 y, shape of x, last stride 1. scratch: none. in place: x and y.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct SoftmaxParams {
  uint8_t log;
  uint8_t reserved[3];
};

struct SoftmaxArgs {
  const float* x;
  float* y;
  int32_t rows, n;
  int64_t x_row, y_row;
  bool log;
};

HEED_DECLARE_VARIANTS(softmax, SoftmaxArgs)

}  // namespace heed

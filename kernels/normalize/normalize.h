#pragma once
/// layer  y = (x - mean) * rstd * scale + bias, rstd = 1 / sqrt(mean of (x - mean)^2 + epsilon)      (Ba et al. 2016)
/// rms    y = x * rstd * scale (+ bias),        rstd = 1 / sqrt(mean of x^2 + epsilon)               (Zhang, Sennrich
/// 2019)
///
/// over the last axis. Sums are 16 accumulators (element i in accumulator i mod 16; squares enter by one fused
/// multiply-add) and the fixed tree; the mean is the sum times 1/N rounded; y is ((x - mean) * rstd), then * scale,
/// then + bias as one fused multiply-add where both are present.
///
/// inputs: 0 x f32 [.., N] last stride 1, 1 scale f32 [N] optional, 2 bias f32 [N] optional
/// outputs: 0 y, shape of x, absent where only q is wanted; 1 q i8, shape of x, and 2 q_scale f32 [.., G], both or
///   neither, and 3 q_zero i32 [.., G] optional with them: y as int8 (kernels/quantize/quantize.h). Last strides 1.
/// scratch: f32 [8, N] where q is wanted and y is not. in place: x and y.
#include "kernels/operator.h"
#include "kernels/quantize/quantize.h"
#include "kernels/variants.h"

namespace heed {

enum class Normalization : uint8_t { layer, rms };

struct NormalizeParams {
  Normalization kind;
  uint8_t reserved[3];
  float epsilon;
};

inline constexpr int most_normalized_rows = 8;  // at a time

/// Rows that lie at one stride.
struct NormalizeArgs {
  const float* x;
  const float *scale, *bias;  // [n] or null
  float *y, *scratch;         // y: or null, where scratch is [most_normalized_rows, n]
  RowsI8 to;
  int32_t rows, n;
  int64_t x_row, y_row;
  NormalizeParams params;
};

HEED_DECLARE_VARIANTS(normalize, NormalizeArgs)

}  // namespace heed

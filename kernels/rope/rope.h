#pragma once
/// Rotary position embedding: each pair of channels is turned by an angle that grows with the position.
/// (Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 34)
///
///   y[i] = x[i] * cos[i] + x[partner of i] * sin[i]   for i < R
///   y[i] = x[i]                                       for R <= i < D
///
/// half: the partner of i is i + R/2 in the first half of R, i - R/2 in the second. interleaved: 2i and 2i + 1 are
/// partners. cos and sin are of R channels, with the formula's minus in sin. x[partner] * sin is rounded, then one
/// fused multiply-add.
///
/// inputs: 0 x f32 [.., D]; 1 cos, 2 sin f32 [.., R], R even, in the leading axes like x (strides of 0 repeat a table
/// over the heads, wherever their axis stands). Last strides 1.
/// outputs: 0 y, shape of x, last stride 1. scratch: none. in place: x and y.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

enum class Pairing : uint8_t { half, interleaved };

struct RopeParams {
  Pairing pairing;
  uint8_t reserved[3];
};

/// Tokens at one stride; the heads of a token share its cos and sin.
struct RopeArgs {
  const float *x, *cos, *sin;
  float* y;
  int64_t tokens, heads;
  int64_t x_token, cos_token, sin_token, y_token;
  int64_t x_head, y_head;
  int32_t channels, rotated;  // D, R
  Pairing pairing;
};

HEED_DECLARE_VARIANTS(rope, RopeArgs)

}  // namespace heed

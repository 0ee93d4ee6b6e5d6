#pragma once
/// y[n, o, m] = activation(sum over k, c of x[n, o * stride + k * dilation - before, c] * w[k, c, m] + bias[m]
///                         + residual[n, o, m])
///
/// o (positions) and k (taps) count over depth, height and width. Elements of x outside of the image are +0, terms like
/// all others. The sum is one chain of fused multiply-adds over the taps, row-major, and the channels of each,
/// ascending, from +0; then + bias, then + residual, then the activation, each its own rounding, as in matmul. With
/// groups, each group of M / groups output channels sees its own C / groups input channels. The weights are either
///   panels     [groups * ceil(M / groups / 16)][taps * C / groups][16], columns past a group's last are zeros; or
///   depthwise  [taps][C], where groups, C and M are the same.
///
/// inputs: 0 x f32 [N, D, H, W, C], last stride 1; 1 w, dense; 2 bias f32 [M] optional; 3 residual f32, shape of y,
/// optional, last stride 1. outputs: 0 y f32 [N, D', H', W', M], last stride 1.
/// scratch: panels: `block` positions' elements with their padding, in floats [kernel depth * height][(block - 1) *
/// stride + reach of the width][C]; depthwise: none. in place: the residual and y.
///
/// A converter picks `block`: positions at an image's edge share tiles up to so many at a time; 0 where no window
/// reaches outside.
#include "kernels/activation.h"
#include "kernels/operator.h"
#include "kernels/variants.h"
#include "kernels/window.h"

namespace heed {

struct ConvParams {
  Activation activation;
  uint8_t depthwise;
  uint8_t block;
  uint8_t reserved;
  int32_t groups;
  Window window;
};

/// Some positions of one line of outputs.
struct ConvArgs {
  WindowLine line;
  const float *w, *bias, *residual;  // bias [M] or null; residual: position 0 of the line, or null
  float* y;                          // position 0 of the line
  int32_t channels, outputs;         // C, M
  int64_t residual_step, y_step;     // from one position to the next
  ConvParams params;
  float* scratch;
};

HEED_DECLARE_VARIANTS(conv, ConvArgs)

}  // namespace heed

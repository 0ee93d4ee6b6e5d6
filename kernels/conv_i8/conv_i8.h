#pragma once
/// The convolution of kernels/conv/conv.h in int8. The window of each output position (of each group) is one row: the
/// taps, row-major, and the channels of each, outside of the image zeros. It becomes int8 with one scale and zero point
/// as `quantize` makes it (kernels/quantize/quantize.h), so neither depends on more than the window; then
///
///   y[n, o, m] = activation(fma(float(sum over k, c of (x8[n, o, k, c] - x_zero[n, o]) * w[k, c, m]),
///                               x_scale[n, o] * w_scale[m], bias[m]) + residual[n, o, m])
///
/// The sum is exact in int32. Depthwise convolutions stay in float.
///
/// inputs: 0 x f32 [N, D, H, W, C], last stride 1; 1 w i8 [groups * ceil(M / groups / 16)][ceil(K/4)][16][4] with K =
///         taps * C / groups, a constant in [-127, 127] laid out as kernels/matmul_i8 has it, 2 w_scale f32 and 3 w_sum
///         i32 [panels, 16], the sum over k; 4 bias f32 [M] optional; 5 residual f32, shape of y, optional, last stride
///         1
/// outputs: 0 y f32 [N, D', H', W', M], last stride 1
/// scratch: of `block_rows` positions: windows as int16 and as int8, each [K to 16], their scales f32 and zero points
/// i32
/// in place: the residual and y.
#include "kernels/activation.h"
#include "kernels/operator.h"
#include "kernels/variants.h"
#include "kernels/window.h"

namespace heed {

struct ConvI8Params {
  Activation activation;
  uint8_t block_rows;  // from 1
  uint8_t reserved[2];
  int32_t groups;
  Window window;
};

/// Some positions of one line of outputs.
struct ConvI8Args {
  WindowLine line;
  const int8_t* w;
  const float* w_scale;
  const int32_t* w_sum;
  const float *bias, *residual;   // bias [M] or null; residual: position 0 of the line, or null
  float* y;                       // position 0 of the line
  int32_t channels, outputs;      // C, M
  int64_t residual_step, y_step;  // from one position to the next
  ConvI8Params params;
  // The parts of the scratch.
  int16_t* converted;
  int8_t* rows;
  float* scale;
  int32_t* zero;
};

HEED_DECLARE_I8_VARIANTS(conv_i8, ConvI8Args)

}  // namespace heed

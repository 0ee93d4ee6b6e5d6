#pragma once
/// Recurrent layers (kernels/recurrent/recurrent.h) with both products in int8:
///
///   W x = fma(float(sum over i of x8[i] * w8[i]), x_scale * w_scale, b)
///   R h = fma(float(sum over u of h8[u] * r8[u]), h_scale * r_scale, rb), or without rb the product alone
///
/// The sums are exact in int32. h8 and h_scale are what `quantize` makes of the row h before each step
/// (kernels/quantize/quantize.h; GRU without linear_before_reset: of the row r * h as well). All else is as in float:
/// activations, c and h itself, which is what goes out. So a row's scale depends on that row alone, and a sequence may
/// be cut anywhere. The GRU with linear_before_reset has its br in rb, not as a fourth b.
///
/// Weights are panels of 16 units in which the gates of the same 16 units are neighbours, laid out as kernels/matmul_i8
/// has them, constants in [-127, 127]:
///   w  i8 [directions][U/16][gates][ceil(I/4)][16][4]   r  i8 [directions][U/16][gates][ceil(H/4)][16][4]
///   of each their scales f32 and sums over k i32 [directions][U/16][gates][16]; so also b and rb f32
///
/// inputs: 0 x i8 [T, B, I] in [-127, 127] any strides, last 1; 1 x_scale f32 [T, B, 1]; 2 w, 3 w_scale, 4 w_sum; 5 r,
/// 6 r_scale, 7 r_sum; 8 b; 9 rb optional; 10 initial h, 11 initial c and the outputs as in float
/// scratch: that of the float layer, then
///   converted i16 [block][the larger of I and H, to 16]   block = chunk * B, at most 24
///   h8        i8  [B][U]      h_scale  f32 [B]
/// Not in place.
#include "kernels/recurrent/recurrent.h"

namespace heed {

using RecurrentI8Params = RecurrentParams;

/// Weights of one direction.
struct PanelsI8 {
  const int8_t* weights;
  const float* scale;
  const int32_t* sum;
  const float* bias;  // or null
};

struct RecurrentI8Args : RecurrentLayer {
  const int8_t* x;       // [T, batch, I]
  const float* x_scale;  // [T, batch]
  int64_t scale_step, scale_batch;
  PanelsI8 w, r;
  int32_t block_rows;
  // More parts of the scratch, as above.
  int16_t* converted;
  int8_t* h8;
  float* h_scale;
};

HEED_DECLARE_I8_VARIANTS(recurrent_i8, RecurrentI8Args)

}  // namespace heed

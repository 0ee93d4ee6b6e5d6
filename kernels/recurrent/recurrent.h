#pragma once
/// Recurrent layers over time, gates as in ONNX (onnx.ai/onnx/operators, LSTM, GRU, RNN; activations sigmoid and tanh):
///
///   lstm  i, f, o = sigmoid(Wx + Rh + b), g = tanh(Wx + Rh + b); c' = f * c + i * g; h' = o * tanh(c')
///   gru   z, r = sigmoid(Wx + Rh + b); n = tanh(Wx + bw + r * (Rh + br)) (linear_before_reset) or
///         tanh(Wx + R(r * h) + b); h' = (1 - z) * n + z * h
///   rnn   h' = tanh(Wx + Rh + b)
///
/// W x is a chain of fused multiply-adds over the input's channels, ascending, from +0, then + b: computed for all
/// steps of a chunk of time before the first one ("hoisted"). R h is a chain of its own from +0 over the units, and is
/// added to that. Three results are fused multiply-adds: c' is fma(f, c, i * g); h' of the GRU is fma(z, h - n, n); and
/// n's argument with linear_before_reset is fma(r, Rh + br, Wx + bw).
///
/// Weights are panels of 16 units in which the gates of the same 16 units are neighbours:
///   w  f32 [directions][U/16][gates][I][16]  r  f32 [directions][U/16][gates][H][16]  b  f32
///   [directions][U/16][biases][16]
/// with U = H rounded up to 16, the units past H zeros; gates in the order lstm i, f, g, o; gru z, r, n; rnn one. There
/// are as many biases as gates; the GRU with linear_before_reset has a fourth, br.
///
/// inputs: 0 x f32 [T, B, I] any strides, last 1; 1 w; 2 r; 3 b; 4 initial h [directions, B, H] optional; 5 initial c,
/// lstm, optional. Initial values left out are zeros; any strides. outputs: 0 y [T, directions, B, H]
/// optional; 1 last h [directions, B, H] optional; 2 last c, lstm, optional; last stride 1 scratch, in floats:
///   product  [chunk][B][U * gates]  the hoisted product
///   sums     [B][U * gates]         R h of one step
///   h        [B][U]
///   c        [B][U]                 lstm: c; gru without linear_before_reset: r * h; others: none
/// Not in place.
///
/// A converter picks `chunk`: w is read once for each chunk, so a few dozen rows (chunk * B) are as fast as more.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

enum class Cell : uint8_t { lstm, gru, rnn };
enum class Direction : uint8_t { forward, reverse, both };

struct RecurrentParams {
  Cell cell;
  Direction direction;
  uint8_t linear_before_reset;
  uint8_t reserved;
  int32_t hidden;  // H
  int32_t chunk;   // steps whose input product is held in scratch at once, chosen by the converter
};

HEED_INLINE constexpr int gates_of(Cell cell) {
  return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
}

/// H rounded up to whole panels.
HEED_INLINE constexpr int units_of(const RecurrentParams& params) {
  return (params.hidden + 15) / 16 * 16;
}

/// One direction of the whole sequence for some batch elements, of any element type; pointers are to the first of them.
struct RecurrentLayer {
  const float *h0, *c0;  // [batch, H] of this direction, or null: zeros
  float *y, *h, *c;      // y [T, batch, H] of this direction, h and c [batch, H]; each may be null
  int32_t steps, batch, inputs;
  int64_t x_step, x_batch, y_step, y_batch, h0_batch, h0_unit, c0_batch, c0_unit, h_batch, c_batch;
  bool reverse;
  RecurrentParams params;
  // The parts of the scratch, as above.
  float *product, *sums, *h_now, *c_now;

  /// Where in x and y a step is.
  HEED_INLINE int32_t time(int32_t step) const { return reverse ? steps - 1 - step : step; }
};

struct RecurrentArgs : RecurrentLayer {
  const float* x;          // [T, batch, I]
  const float *w, *r, *b;  // this direction's
};

HEED_DECLARE_VARIANTS(recurrent, RecurrentArgs)

}  // namespace heed

#pragma once
/// Recurrent layers over time, gates as in ONNX (onnx.ai/onnx/operators, LSTM, GRU, RNN; activations sigmoid and tanh):
///
///   lstm  i, f, o = sigmoid(Wx + Rh + b), g = tanh(Wx + Rh + b); c' = f * c + i * g; h' = o * tanh(c')
///   gru   z, r = sigmoid(Wx + Rh + b); n = tanh(Wx + bw + r * (Rh + br)) (linear_before_reset) or tanh(Wx + R(r * h) + b);
///         h' = (1 - z) * n + z * h
///   rnn   h' = tanh(Wx + Rh + b)
///
/// W x is a chain of fused multiply-adds over the input's channels, ascending, from +0, then + b: computed for all steps of a
/// chunk of time before the first one ("hoisted"). R h is a chain of its own from +0, and the two are added. c' is
/// fma(f, c, i * g); h' of the GRU is fma(z, h - n, n).
///
/// Weights are panels of 16 units in which the gates of the same 16 units are neighbours:
///   w  f32 [directions][U/16][gates][I][16]    r  f32 [directions][U/16][gates][H][16]    b  f32 [directions][U/16][gates][16]
/// with U = H rounded up to 16, the units past H zeros; gates in the order lstm i, f, g, o; gru z, r, n; rnn one. The GRU with
/// linear_before_reset has a fourth bias vector, br of n, at gates index 3 of b.
///
/// inputs: 0 x f32 [T, B, I] any strides, last 1; 1 w; 2 r; 3 b; 4 initial h [directions, B, H] optional; 5 initial c, lstm, optional
/// outputs: 0 y [T, directions, B, H] optional, last stride 1; 1 last h [directions, B, H] optional; 2 last c optional
/// scratch: the hoisted product of `chunk` steps, and h and c of one step, see scratch(). Not in place.
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

/// One direction of the whole sequence for batch elements [first, last).
struct RecurrentArgs {
  const float* x;          // [T, B, I]
  const float *w, *r, *b;  // this direction's
  const float *h0, *c0;    // [B, H] of this direction, or null: zeros
  float *y, *h, *c;        // y [T, B, H] of this direction, h and c [B, H]; each may be null
  int32_t steps, batch_first, batch_last, inputs;
  int64_t x_step, x_batch, y_step, y_batch, h0_batch, c0_batch, h_batch, c_batch;
  bool reverse;
  RecurrentParams params;
  std::byte* scratch;
};

HEED_DECLARE_VARIANTS(recurrent, RecurrentArgs)

}  // namespace heed

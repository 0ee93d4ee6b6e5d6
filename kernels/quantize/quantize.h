#pragma once
/// Rows of floats as int8 with a scale for each group of columns, found from the group itself (symmetric, dynamic):
///
///   top      = the largest magnitude of the group, NaN where an element is
///   scale    = top / 127                            q = round(x * (127 / top))      rounded once, halves to even
///
/// A group whose top is below 2^-100 has scale 0 and zeros; one that holds an infinity or NaN has scale NaN and zeros,
/// so that whatever it is multiplied into is NaN.
///
/// Or all with one scale and zero point that are given (asymmetric, static):
///
///   q = round(x / scale) + zero, brought into [-128, 127]; NaN as 0 / scale
///
/// inputs: 0 x f32 [.., N], last stride 1; 1 given f32 [2] optional: the scale and the zero point
/// outputs: 0 q i8, shape of x, last stride 1, found scales: in [-127, 127]; 1 scale f32 [.., G] last stride 1, N a
///         multiple of G, absent where it is given
/// scratch: none. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct QuantizeParams {};

/// Rows that lie at one stride.
struct QuantizeArgs {
  const float* x;
  int8_t* q;
  float* scale;
  const float* given;  // null: the scales are found
  int32_t rows, n, groups;
  int64_t x_row, q_row, scale_row;
};

HEED_DECLARE_VARIANTS(quantize, QuantizeArgs)

}  // namespace heed

#pragma once
/// Rows of floats as int8 with a scale for each group of columns, found from the group itself (symmetric, dynamic):
///
///   top      = the largest magnitude of the group, NaN where an element is
///   scale    = top / 127                            q = round(x * (127 / top))      rounded once, halves to even
///
/// A group whose top is below 2^-100 has scale 0 and zeros; one that holds an infinity or NaN has scale NaN and zeros,
/// so that whatever it is multiplied into is NaN.
///
/// inputs: 0 x f32 [.., N], last stride 1
/// outputs: 0 q i8, shape of x, last stride 1, in [-127, 127]; 1 scale f32 [.., G] last stride 1, N a multiple of G
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
  int32_t rows, n, groups;
  int64_t x_row, q_row, scale_row;
};

HEED_DECLARE_VARIANTS(quantize, QuantizeArgs)

}  // namespace heed

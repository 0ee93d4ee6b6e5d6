#pragma once
/// Rows of floats as int8 with a scale for each group of columns, found from the group itself (symmetric, dynamic):
///
///   top      = the largest magnitude of the group, NaN where an element is
///   scale    = top / 127                            q = round(x * (127 / top))      rounded once, halves to even
///
/// or, where a zero point is asked for too (asymmetric, dynamic):
///
///   low      = the lowest element, at most 0; high = the highest, at least 0
///   scale    = (high - low) / 253                   zero = round(-126.25 - low * (253 / (high - low)))
///   q        = round(x * (253 / (high - low)) + zero)
///
/// each rounded as one expression, halves to even; all of it is in [-127, 127], and 0 is the zero point exactly. A
/// group whose top or high - low is below 2^-100 has scale 0 and zeros; one that holds an infinity or NaN, or whose
/// difference is infinite, has scale NaN and zeros, so that whatever it is multiplied into is NaN.
///
/// Or all with one scale and zero point that are given (asymmetric, static):
///
///   q = round(x / scale) + zero, brought into [-128, 127]; NaN as 0 / scale
///
/// inputs: 0 x f32 [.., N], last stride 1; 1 given f32 [2] optional: the scale and the zero point
/// outputs: 0 q i8, shape of x, last stride 1, found scales: in [-127, 127]; 1 scale f32 [.., G] last stride 1, N a
///         multiple of G, absent where it is given; 2 zero i32 [.., G] last stride 1, optional, with scale
/// scratch: none. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct QuantizeParams {};

/// Where rows of int8 and what is found with them go, at one stride each.
struct RowsI8 {
  int8_t* q;  // null: not wanted
  float* scale;
  int32_t* zero;  // null: zeros
  int64_t q_row, scale_row, zero_row;
  int32_t groups;

  RowsI8 from(int64_t row) const {
    RowsI8 rest = *this;
    if (q != nullptr) rest.q += row * q_row;
    if (scale != nullptr) rest.scale += row * scale_row;
    if (zero != nullptr) rest.zero += row * zero_row;
    return rest;
  }
};

/// Rows that lie at one stride.
struct QuantizeArgs {
  const float* x;
  RowsI8 to;
  const float* given;  // null: the scales are found
  int32_t rows, n;
  int64_t x_row;
};

HEED_DECLARE_VARIANTS(quantize, QuantizeArgs)

}  // namespace heed

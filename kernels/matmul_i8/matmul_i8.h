#pragma once
/// The matrix product of rows of int8 with a constant of int8:
///
///   y[.., m, n] = activation(fma(float(sum over k of (a[.., m, k] - a_zero[.., m]) * (b[k, n] - b_zero[n])),
///                                a_scale[.., m] * b_scale[n], bias[n]) + residual[.., m, n])
///
/// The sum is exact in int32, and becomes a float to the nearest, halves to even. Where q is asked for, the rows of y
/// become int8 as `quantize` makes them (kernels/quantize/quantize.h), with a scale for each of G groups of columns;
/// or, where `given` is, all with its scale and zero point.
///
/// inputs: 0 a i8 [batch.., M, K], last stride 1; 1 a_scale f32 [batch.., M, 1]
///         2 b i8 [ceil(N/16)][ceil(K/4)][16][4], a constant in [-127, 127], from -128 where b_zero is given: element
///           (k, n) at [n/16][k/4][n%16][k%4], zeros past K and N
///         3 b_scale f32 [ceil(N/16), 16], and 4 b_sum i32 [ceil(N/16), 16], the sum over k: constants, zeros past N
///         5 bias f32 [N] optional, 6 residual f32, shape of y, optional, last stride 1
///         7 a_zero i32 [batch.., M, 1] optional, in [-128, 127]; 8 b_zero i32 [ceil(N/16), 16] optional, a constant in
///           [-128, 127]; 9 given f32 [2] optional: the scale and the zero point of q
/// outputs: 0 y f32 [batch.., M, N], absent where only q is wanted; 1 q i8, shape of y; 2 q_scale f32 [batch.., M, G]
///         with q, but where the scale is given; 3 q_zero i32 [batch.., M, G] optional, with q_scale. Last strides 1.
/// scratch: of `block_rows` rows: a as int16, [ceil(K/16)][16], or joined in pairs; where q is wanted and y is not: y,
///         [ceil(N/16)][16]; where b_zero is given: the sums of a - a_zero over k
/// in place: the residual and y.
///
/// A converter picks block_rows: all of b goes by once for each block, and q is made while the block's rows of y are
/// near. 24 is a whole number of tiles on every instruction set.
#include "kernels/activation.h"
#include "kernels/operator.h"
#include "kernels/quantize/quantize.h"
#include "kernels/variants.h"

namespace heed {

/// Sums of so many products of numbers of these magnitudes fit int32. A difference of two bytes is up to 255.
constexpr int32_t most_terms_i8(int a = 127, int b = 127) {
  return INT32_MAX / (a * b);
}

struct MatmulI8Params {
  Activation activation;
  uint8_t block_rows;  // from 1
  uint8_t reserved[2];
};

/// A block of rows of one product: rows x N outputs.
struct MatmulI8Args {
  const int8_t* a;
  const float* a_scale;
  const int8_t* b;
  const float* b_scale;
  const int32_t* b_sum;
  const float *bias, *residual;    // null: none
  const int32_t *a_zero, *b_zero;  // null: zeros
  const float* given;              // null: the scales of q are found
  float* y;                        // null: not wanted
  RowsI8 to;
  int32_t rows, n, k, block_rows;
  int64_t a_row, a_scale_row, a_zero_row, residual_row, y_row;
  Activation activation;
  int16_t* converted;  // the parts of the scratch
  float* sums;
  int32_t* row_sums;
};

HEED_DECLARE_I8_VARIANTS(matmul_i8, MatmulI8Args)

}  // namespace heed

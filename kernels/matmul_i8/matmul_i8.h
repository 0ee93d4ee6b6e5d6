#pragma once
/// The matrix product of rows of int8 with a constant of int8:
///
///   y[.., m, n] = activation(fma(float(sum over k of a[.., m, k] * b[k, n]), a_scale[.., m] * b_scale[n], bias[n])
///                            + residual[.., m, n])
///
/// The sum is exact in int32, and becomes a float to the nearest, halves to even. Where q is asked for, the rows of y
/// become int8 as `quantize` makes them (kernels/quantize/quantize.h), with a scale for each of G groups of columns.
///
/// inputs: 0 a i8 [batch.., M, K] in [-127, 127], last stride 1; 1 a_scale f32 [batch.., M, 1]
///         2 b i8 [ceil(N/16)][ceil(K/4)][16][4], a constant in [-127, 127]: element (k, n) at [n/16][k/4][n%16][k%4],
///           zeros past K and N
///         3 b_scale f32 [ceil(N/16), 16], and 4 b_sum i32 [ceil(N/16), 16], the sum over k: constants, zeros past N
///         5 bias f32 [N] optional, 6 residual f32, shape of y, optional, last stride 1
/// outputs: 0 y f32 [batch.., M, N], absent where only q is wanted; 1 q i8, shape of y, and 2 q_scale f32
///         [batch.., M, G], both or neither. Last strides 1.
/// scratch: of `block_rows` rows: a as int16, [ceil(K/16)][16]; where q is wanted and y is not: y, [ceil(N/16)][16]
/// in place: the residual and y.
///
/// A converter picks block_rows: all of b goes by once for each block, and q is made while the block's rows of y are
/// near. 24 is a whole number of tiles on every instruction set.
#include "kernels/activation.h"
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

/// Sums of so many products of two numbers in [-127, 127] fit int32.
inline constexpr int32_t most_terms_i8 = INT32_MAX / (127 * 127);

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
  const float *bias, *residual;  // null: none
  float* y;                      // null: not wanted
  int8_t* q;                     // null: not wanted
  float* q_scale;
  int32_t rows, n, k, groups, block_rows;
  int64_t a_row, a_scale_row, residual_row, y_row, q_row, q_scale_row;
  Activation activation;
  int16_t* expanded;  // the parts of the scratch
  float* sums;
};

HEED_DECLARE_I8_VARIANTS(matmul_i8, MatmulI8Args)

}  // namespace heed

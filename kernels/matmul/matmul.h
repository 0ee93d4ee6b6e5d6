#pragma once
/// y[.., m, n] = activation(sum over k of a[.., m, k] * b[.., k, n] + bias[n] + residual[.., m, n])
///
/// The sum is one chain of fused multiply-adds over k, ascending, from +0; then + bias, then + residual, then the
/// activation, each its own rounding. b is either
///   packed   a constant in panels, [N/16][K][16] (ceil(N/16) panels, columns past N are zeros), one for all of a; or
///   strided  any view [.., K, N], constant or computed, whose leading axes match y's (stride 0 broadcasts).
///
/// inputs: 0 a f32 [batch.., M, K], 1 b, 2 bias f32 [N] optional, 3 residual f32, shape of y, optional, last stride 1
/// outputs: 0 y f32 [batch.., M, N], last stride 1. a, b, residual and y have the same rank, 2 or more (packed b: 3).
/// scratch: packed b: none; strided b: one panel [K][16], into which each is copied. in place: the residual and y.
#include "kernels/activation.h"
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct MatmulParams {
  Activation activation;
  uint8_t packed;  // 1: b is in panels
  uint8_t reserved[2];
};

/// A block of rows of one matrix product: rows x N outputs.
struct MatmulArgs {
  const float* a;         // [rows, K], strides below
  const float* b;         // packed: [ceil(N/16)][K][16]; strided: [K, N]
  const float* bias;      // [N] or null
  const float* residual;  // [rows, N] or null
  float* y;               // [rows, N]
  int32_t rows, n, k;
  int64_t a_row, a_k;  // strides of a
  int64_t b_k, b_n;    // strides of b where it is strided
  int64_t residual_row, y_row;
  bool packed;
  Activation activation;
  std::byte* scratch;
};

HEED_DECLARE_VARIANTS(matmul, MatmulArgs)

}  // namespace heed

#pragma once
/// What follows the sums of a register tile (matmul, conv), for <op>.simd.cpp files:
/// y = activation(sum + bias + residual).
#include "kernels/activation.h"
#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

struct Epilogue {
  const float* bias;      // [n] or null
  const float* residual;  // [rows, n] or null
  float* y;               // [rows, n]
  int n;
  ptrdiff_t residual_row, y_row;
  Activation activation;

  /// The tile whose first output is y[row, column]; columns past n are dropped.
  template <int rows, int vectors>
  HEED_INLINE void store(const Tile<rows, vectors>& tile, int row, int column) const;
};

/// y = activation(x + residual) for a block of outputs; x [rows][x_row] holds sums and biases, and may be y itself,
/// with the residual already added: null here.
template <Activation activation>
void finish(const Epilogue& to, const float* x, ptrdiff_t x_row, const float* residual, int row, int rows, int column,
            int columns) {
  float* y = to.y + row * to.y_row + column;
  for (; rows > 0; --rows, x += x_row, y += to.y_row) {
    int i = 0;
    for (; i + W <= columns; i += W) {
      F v = load(x + i);
      if (residual != nullptr) v = v + load(residual + i);
      HEED_ISA::store(y + i, activate<activation>(v));
    }
    if (const int left = columns - i; left > 0) {
      F v = load_first(x + i, left);
      if (residual != nullptr) v = v + load_first(residual + i, left);
      store_first(y + i, activate<activation>(v), left);
    }
    if (residual != nullptr) residual += to.residual_row;
  }
}

using Finish = void (*)(const Epilogue&, const float*, ptrdiff_t, const float*, int, int, int, int);
constexpr Finish finish_of[activation_count] = {
    finish<Activation::none>, finish<Activation::relu>,    finish<Activation::gelu>, finish<Activation::gelu_tanh>,
    finish<Activation::silu>, finish<Activation::sigmoid>, finish<Activation::tanh>, finish<Activation::gelu_i8>};

template <int rows, int vectors>
HEED_INLINE void Epilogue::store(const Tile<rows, vectors>& tile, int row, int column) const {
  const int left = n - column, columns = left < vectors * W ? left : vectors * W;
  // Nearly always straight to y; an activation in each tile would be much code, so it follows in a pass over L1.
  const bool straight = columns == vectors * W;
  alignas(64) float sums[rows * vectors * W];
  float* to = straight ? y + row * y_row + column : sums;
  const ptrdiff_t to_row = straight ? y_row : vectors * W;
  const float* added = residual == nullptr ? nullptr : residual + row * residual_row + column;
  unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
    F b = splat(-0.0f);  // which changes nothing
    if (bias != nullptr) b = load_first(bias + column + v * W, left - v * W);
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      F sum = tile.sum[r * vectors + v] + b;
      if (straight && added != nullptr) sum = sum + load(added + r * residual_row + v * W);
      HEED_ISA::store(to + r * to_row + v * W, sum);
    });
  });
  if (straight && activation == Activation::none) return;
  finish_of[static_cast<int>(activation)](*this, to, to_row, straight ? nullptr : added, row, rows, column, columns);
}

}  // namespace
}  // namespace heed::HEED_ISA

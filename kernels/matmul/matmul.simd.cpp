#include "kernels/matmul/matmul.h"

#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// y = activation(x + bias + residual) for a block of outputs; x [rows][x_row] holds the sums.
template <Activation activation>
void finish(const MatmulArgs& args, const float* x, int x_row, int row, int rows, int column, int columns) {
  for (int r = row; r < row + rows; ++r, x += x_row) {
    const float* residual = args.residual == nullptr ? nullptr : args.residual + r * args.residual_row + column;
    float* y = args.y + r * args.y_row + column;
    const auto vector = [&](int i, auto get, auto put) HEED_INLINE_LAMBDA {
      F v = load(x + i);
      if (args.bias != nullptr) v = v + get(args.bias + column + i);
      if (residual != nullptr) v = v + get(residual + i);
      put(y + i, activate<activation>(v));
    };
    int i = 0;
    for (; i + W <= columns; i += W) {
      vector(
          i, [](const float* p) HEED_INLINE_LAMBDA { return load(p); },
          [](float* p, F v) HEED_INLINE_LAMBDA { store(p, v); });
    }
    if (const int left = columns - i; left > 0) {
      vector(
          i, [left](const float* p) HEED_INLINE_LAMBDA { return load_first(p, left); },
          [left](float* p, F v) HEED_INLINE_LAMBDA { store_first(p, v, left); });
    }
  }
}

using Finish = void (*)(const MatmulArgs&, const float*, int, int, int, int, int);
constexpr Finish finish_of[activation_count] = {
    finish<Activation::none>, finish<Activation::relu>,    finish<Activation::gelu>, finish<Activation::gelu_tanh>,
    finish<Activation::silu>, finish<Activation::sigmoid>, finish<Activation::tanh>};

struct Product {
  const MatmulArgs& args;
  const float* panels;  // [..][K][16], from column `first` on
  int first;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    const ptrdiff_t k = args.k;
    Tile<rows, vectors> tile;
    tile.add(args.a + row * args.a_row, args.a_row, args.a_k, panels + (column - first) / 16 * k * 16 + column % 16, 16,
             k * 16, k);
    alignas(64) float sums[rows * vectors * W];  // stays in L1: smaller than an epilogue in each tile, and as fast
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { store(sums + i * W, tile.sum[i]); });
    const int left = args.n - column;
    finish_of[static_cast<int>(args.activation)](args, sums, vectors * W, row, rows, column,
                                                 left < vectors * W ? left : vectors * W);
  }
};

}  // namespace

void matmul(const MatmulArgs& args) {
  if (args.packed) {
    // Rows of a that stay in the second cache level while all of b passes by.
    constexpr int cached = 1 << 15, least = 4 * max_rows;
    const int block = args.k > cached / least ? least : cached / (args.k + 1);
    for (int row = 0; row < args.rows; row += block) {
      const int rows = args.rows - row < block ? args.rows - row : block;
      Tiling<Product>::run({args, args.b, 0}, row, rows, 0, args.n);
    }
    return;
  }
  auto* panel = reinterpret_cast<float*>(args.scratch);
  for (int column = 0; column < args.n; column += 16) {
    const int end = args.n - column < 16 ? args.n : column + 16;
    pack_panel(args.b + column * args.b_n, args.b_k, args.b_n, args.k, end - column, panel);
    Tiling<Product>::run({args, panel, column}, 0, args.rows, column, end);
  }
}

}  // namespace heed::HEED_ISA

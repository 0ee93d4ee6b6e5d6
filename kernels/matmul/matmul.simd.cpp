#include "kernels/matmul/matmul.h"

#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// y = activation(x + residual) for a block of outputs; x [rows][x_row] holds sums and biases, and may be y itself.
template <Activation activation>
void finish(const MatmulArgs& args, const float* x, ptrdiff_t x_row, int row, int rows, int column, int columns) {
  for (int r = row; r < row + rows; ++r, x += x_row) {
    const float* residual = args.residual == nullptr ? nullptr : args.residual + r * args.residual_row + column;
    float* y = args.y + r * args.y_row + column;
    int i = 0;
    for (; i + W <= columns; i += W) {
      F v = load(x + i);
      if (residual != nullptr) v = v + load(residual + i);
      store(y + i, activate<activation>(v));
    }
    if (const int left = columns - i; left > 0) {
      F v = load_first(x + i, left);
      if (residual != nullptr) v = v + load_first(residual + i, left);
      store_first(y + i, activate<activation>(v), left);
    }
  }
}

using Finish = void (*)(const MatmulArgs&, const float*, ptrdiff_t, int, int, int, int);
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
    const int left = args.n - column, columns = left < vectors * W ? left : vectors * W;
    // Nearly always straight to y; an epilogue in each tile would be much code, so what is more follows in a pass over
    // L1.
    const bool straight = columns == vectors * W && args.residual == nullptr;
    alignas(64) float sums[rows * vectors * W];
    float* to = straight ? args.y + row * args.y_row + column : sums;
    const ptrdiff_t to_row = straight ? static_cast<ptrdiff_t>(args.y_row) : vectors * W;
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      F bias = splat(-0.0f);  // which changes nothing
      if (args.bias != nullptr) bias = load_first(args.bias + column + v * W, left - v * W);
      unroll<rows>([&](auto r)
                       HEED_INLINE_LAMBDA { store(to + r * to_row + v * W, tile.sum[r * vectors + v] + bias); });
    });
    if (straight && args.activation == Activation::none) return;
    finish_of[static_cast<int>(args.activation)](args, to, to_row, row, rows, column, columns);
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

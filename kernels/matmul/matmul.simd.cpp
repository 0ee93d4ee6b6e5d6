#include "kernels/matmul/matmul.h"

#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// y = activation(x + bias + residual) for a block of outputs; x [rows][x_row] holds the sums.
template <Activation activation>
void finish(const MatmulArgs& args, const float* x, int x_row, int row, int rows, int column, int columns) {
  for (int r = row; r < row + rows; ++r, x += x_row) {
    const float* residual = args.residual + r * args.residual_row + column;
    float* y = args.y + r * args.y_row + column;
    const auto vector = [&](int i, auto get, auto put) HEED_INLINE_LAMBDA {
      F v = load(x + i);
      if (args.bias != nullptr) v = v + get(args.bias + column + i);
      if (args.residual != nullptr) v = v + get(residual + i);
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

/// The outputs of one tile; w is the panel that holds `column`, offset to it.
template <int rows, int vectors>
void run_tile(const MatmulArgs& args, int row, int column, const float* w) {
  Tile<rows, vectors> tile;
  tile.add(args.a + row * args.a_row, args.a_row, args.a_k, w, 16, ptrdiff_t{args.k} * 16, args.k);
  alignas(64) float sums[rows * vectors * W];  // stays in L1: cheaper than an epilogue of its own in each tile
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { store(sums + i * W, tile.sum[i]); });
  const int left = args.n - column;
  finish_of[static_cast<int>(args.activation)](args, sums, vectors * W, row, rows, column,
                                               left < vectors * W ? left : vectors * W);
}

using RunTile = void (*)(const MatmulArgs&, int, int, const float*);

/// at[rows][log2 of vectors]; null where the tile would be too wide.
struct Tiles {
  RunTile at[max_rows + 1][4];
};
template <int rows, int vectors>
constexpr RunTile tile_or_null() {
  if constexpr (rows > 0 && vectors >= least_vectors && vectors <= tile_vectors(rows)) return run_tile<rows, vectors>;
  return nullptr;
}
template <int... rows>
constexpr Tiles all_tiles(std::integer_sequence<int, rows...>) {
  return {{{tile_or_null<rows, 1>(), tile_or_null<rows, 2>(), tile_or_null<rows, 4>(), tile_or_null<rows, 8>()}...}};
}
constexpr Tiles tiles = all_tiles(std::make_integer_sequence<int, max_rows + 1>{});

/// Outputs [row, row + rows) x [column, end); `panels` holds the columns from `column` on, a multiple of 16.
void product(const MatmulArgs& args, int row, int rows, int column, int end, const float* panels) {
  // Tiles of nearly equal height: a low one at the end would wait for its few chains.
  const int count = (rows + max_rows - 1) / max_rows, low = rows / count, high_count = rows % count;
  int log2_vectors = 3;
  while (1 << log2_vectors > tile_vectors(low + (high_count > 0))) --log2_vectors;
  const int first = column;
  while (column < end) {
    constexpr int least = least_vectors * W;
    while (W << log2_vectors > (end - column + least - 1) / least * least) --log2_vectors;
    const float* w = panels + ptrdiff_t{(column - first) / 16} * args.k * 16 + (column - first) % 16;
    // The tile's columns of w stay in cache while the rows pass by.
    for (int i = 0, r = row; i < count; ++i) {
      const int height = low + (i < high_count);
      tiles.at[height][log2_vectors](args, r, column, w);
      r += height;
    }
    column += W << log2_vectors;
  }
}

}  // namespace

void matmul(const MatmulArgs& args) {
  // Rows of a that stay in the second cache level while all of b passes by.
  constexpr int cached = 1 << 15;
  const int block = args.k > cached / (4 * max_rows) ? 4 * max_rows : cached / (args.k + 1);
  for (int row = 0; row < args.rows; row += block) {
    const int rows = args.rows - row < block ? args.rows - row : block;
    if (args.packed) {
      product(args, row, rows, 0, args.n, args.b);
      continue;
    }
    auto* panel = reinterpret_cast<float*>(args.scratch);
    for (int column = 0; column < args.n; column += 16) {
      const int end = args.n - column < 16 ? args.n : column + 16;
      pack_panel(args.b + column * args.b_n, args.b_k, args.b_n, args.k, end - column, panel);
      product(args, row, rows, column, end, panel);
    }
  }
}

}  // namespace heed::HEED_ISA

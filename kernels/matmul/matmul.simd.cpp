#include "kernels/matmul/matmul.h"

#include "kernels/matmul/epilogue.h"

namespace heed::HEED_ISA {
namespace {

struct Product {
  const MatmulArgs& args;
  const float* panels;  // [..][K][16], from column `first_column` on
  int first_column, first_row, rows_in_all;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    const ptrdiff_t k = args.k;
    const float* w = panels + (column - first_column) / 16 * k * 16 + column % 16;
    using Rows = Tile<rows, vectors>;
    Rows tile;
    tile.add(args.a + row * args.a_row, args.a_row, args.a_k, w, 16, k * 16, k, AllTerms{},
             typename Rows::Next(w, k, row - first_row, rows_in_all));
    const Epilogue epilogue{args.bias,
                            args.residual,
                            args.y,
                            args.n,
                            static_cast<ptrdiff_t>(args.residual_row),
                            static_cast<ptrdiff_t>(args.y_row),
                            args.activation};
    epilogue.store(tile, row, column);
  }
};

}  // namespace

void matmul(const MatmulArgs& args) {
  if (args.packed) {
    const int block = cached_rows(args.rows, args.k);
    for (int row = 0; row < args.rows; row += block) {
      const int rows = args.rows - row < block ? args.rows - row : block;
      Tiling<Product>::run({args, args.b, 0, row, rows}, row, rows, 0, args.n);
    }
    return;
  }
  auto* panel = reinterpret_cast<float*>(args.scratch);
  for (int column = 0; column < args.n; column += 16) {
    const int end = args.n - column < 16 ? args.n : column + 16;
    pack_panel(args.b + column * args.b_n, args.b_k, args.b_n, args.k, end - column, panel);
    Tiling<Product>::run({args, panel, column, 0, args.rows}, 0, args.rows, column, end);
  }
}

}  // namespace heed::HEED_ISA

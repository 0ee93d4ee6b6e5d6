#include "kernels/matmul_i8/matmul_i8.h"

#include "kernels/matmul/epilogue.h"
#include "kernels/matmul_i8/pairs_i8.h"
#include "kernels/matmul_i8/tile_i8.h"
#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {
namespace {

/// A block of rows, from args.a's first on.
struct ProductI8 {
  const MatmulI8Args& args;
  const int8_t* a;  // as the tile reads them
  ptrdiff_t a_row;
  Epilogue epilogue;
  int rows_in_all;

  template <int rows, int vectors, bool joined = false>
  HEED_INLINE void run(int row, int column) const {
    const ptrdiff_t groups = (ptrdiff_t{args.k} + 3) / 4, panel = groups * 64;
    const int8_t* w = args.b + column / 16 * panel + column % 16 * 4;
    using Rows = TileI8<rows, vectors>;
    Rows sums;
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if constexpr (joined)
      multiply_joined<rows, vectors>(sums.sum, a + row * a_row, w, panel, args.k);
    else
#endif
      sums.multiply(a + row * a_row, a_row, w, panel, args.b_sum + column, args.k,
                    typename Rows::Next(reinterpret_cast<const float*>(w), static_cast<int>(groups), row, rows_in_all),
                    args.b_zero == nullptr);
    if (args.a_zero != nullptr)
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        const I column_sum = load(args.b_sum + column + v * W);
        unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
          I& sum = sums.sum[r * vectors + v];
          sum = sum - splat(args.a_zero[(row + r) * args.a_zero_row]) * column_sum;
        });
      });
    if (args.b_zero != nullptr)
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        const I zero = load(args.b_zero + column + v * W);
        unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
          I& sum = sums.sum[r * vectors + v];
          sum = sum - splat(args.row_sums[row + r]) * zero;
        });
      });
    Tile<rows, vectors> tile;
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const F scale = load(args.b_scale + column + v * W);
      F bias = splat(-0.0f);  // which changes nothing
      if (args.bias != nullptr) bias = load_first(args.bias + column + v * W, args.n - column - v * W);
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        const F row_scale = splat(args.a_scale[(row + r) * args.a_scale_row]);
        tile.sum[r * vectors + v] = fma(to_f(sums.sum[r * vectors + v]), row_scale * scale, bias);
      });
    });
    epilogue.store(tile, row, column);
  }
};

#if defined(__ARM_FEATURE_MATMUL_INT8)

/// Of rows that join_rows wrote: tiles begin at even rows, and the last may end with half a pair.
struct JoinedI8 {
  ProductI8 product;

  template <int pairs, int vectors>
  HEED_INLINE void run(int pair, int column) const {
    if (2 * (pair + pairs) > product.rows_in_all)
      product.run<2 * pairs - 1, vectors, true>(2 * pair, column);
    else
      product.run<2 * pairs, vectors, true>(2 * pair, column);
  }
};

#endif

int32_t sum_of(const int8_t* a, int n) {
  I sums = splat(0);
  int i = 0;
  for (; i + W <= n; i += W) sums = sums + load(a + i);
  int32_t lanes[W], sum = 0;
  store(lanes, sums);
  for (const int32_t lane : lanes) sum += lane;
  for (; i < n; ++i) sum += a[i];
  return sum;
}

}  // namespace

void matmul_i8(const MatmulI8Args& args) {
  const ptrdiff_t sums_row = (ptrdiff_t{args.n} + 15) / 16 * 16;
  MatmulI8Args block = args;
  for (int row = 0; row < args.rows; row += args.block_rows) {
    block.rows = args.rows - row < args.block_rows ? args.rows - row : args.block_rows;
    block.a = args.a + row * args.a_row;
    block.a_scale = args.a_scale + row * args.a_scale_row;
    if (args.a_zero != nullptr) block.a_zero = args.a_zero + row * args.a_zero_row;
    if (args.b_zero != nullptr)
      for (int r = 0; r < block.rows; ++r)  // as the zeros wrap, so does this
        args.row_sums[r] = static_cast<int32_t>(
            static_cast<uint32_t>(sum_of(block.a + r * args.a_row, args.k)) -
            static_cast<uint32_t>(args.k) *
                static_cast<uint32_t>(args.a_zero == nullptr ? 0 : block.a_zero[r * args.a_zero_row]));
    const int8_t* a = block.a;
    ptrdiff_t a_row = args.a_row;
    if constexpr (converts_rows) {
      auto* converted = reinterpret_cast<RowElement*>(args.converted);
      for (int r = 0; r < block.rows; ++r) convert_row(a + r * a_row, args.k, converted + r * row_elements(args.k));
      a = reinterpret_cast<const int8_t*>(converted);
      a_row = row_elements(args.k) * ptrdiff_t{sizeof(RowElement)};
    }
    float* y = args.y == nullptr ? args.sums : args.y + row * args.y_row;
    const ptrdiff_t y_row = args.y == nullptr ? sums_row : args.y_row;
    const float* residual = args.residual == nullptr ? nullptr : args.residual + row * args.residual_row;
    const Epilogue epilogue{nullptr, residual,       y, args.n, static_cast<ptrdiff_t>(args.residual_row),
                            y_row,   args.activation};
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if (block.rows > 1) {
      auto* joined = reinterpret_cast<int8_t*>(args.converted);
      join_rows(a, a_row, block.rows, args.k, joined);
      Tiling<JoinedI8, ShapesOfPairs>::run({{block, joined, row_elements(args.k), epilogue, block.rows}}, 0,
                                           (block.rows + 1) / 2, 0, args.n);
    } else {
      Tiling<ProductI8, ShapesOfOneRow>::run({block, a, a_row, epilogue, 1}, 0, 1, 0, args.n);
    }
#else
    Tiling<ProductI8, ShapesI8>::run({block, a, a_row, epilogue, block.rows}, 0, block.rows, 0, args.n);
#endif
    if (args.to.q == nullptr) continue;
    const RowsI8 to = args.to.from(row);
    if (args.given != nullptr)
      for (int r = 0; r < block.rows; ++r) quantize_given(y + r * y_row, args.n, args.given, to.q + r * to.q_row);
    else
      quantize_rows(y, y_row, block.rows, args.n, to);
  }
}

}  // namespace heed::HEED_ISA

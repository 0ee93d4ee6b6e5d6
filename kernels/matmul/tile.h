#pragma once
/// The register tile of the float products (matmul, attention, recurrent), for <op>.simd.cpp files.
///
/// A tile is rows x vectors vectors of outputs in registers. Each output is one chain of fused multiply-adds over k,
/// ascending, from +0; so how outputs are gathered in tiles changes no bit.
#include <cstddef>

#include "kernels/simd.h"

namespace heed::HEED_ISA {
namespace {

// Rows of the tallest tile, and the vectors beside each other in a tile of that many rows. The accumulators take what
// registers the weights' line and the rows' broadcasts leave, and are 8 or more where that is possible: two
// multiply-adds start in a cycle and take four.
#if defined(__AVX512F__)
inline constexpr int max_rows = 8;
constexpr int tile_vectors(int rows) {
  return rows == 1 ? 8 : rows <= 4 ? 4 : 2;
}
#elif defined(__AVX2__)
inline constexpr int max_rows = 6;
constexpr int tile_vectors(int rows) {
  return rows == 1 ? 8 : rows <= 3 ? 4 : 2;
}
#elif defined(__aarch64__)
inline constexpr int max_rows = 5;  // with 6, g++ 12 loads all rows' elements first, and spills
constexpr int tile_vectors(int rows) {
  return rows <= 2 ? 8 : 4;
}
#else
inline constexpr int max_rows = 6;
constexpr int tile_vectors(int rows) {
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}
#endif
inline constexpr int panel_vectors = 16 / W;
inline constexpr int least_vectors = panel_vectors < 2 ? panel_vectors : 2;

/// One element of the left operand, ready to be multiplied with vectors. On aarch64 the multiply-add takes it from lane
/// 0 of a plain load: a broadcast would take one of the two pipes that multiply.
struct Scalar {
#if defined(__aarch64__)
  float v;
  HEED_INLINE explicit Scalar(const float* p) : v(*p) {}
#else
  F v;
  HEED_INLINE explicit Scalar(const float* p) : v(splat(*p)) {
    pin(v);
  }
#endif
};

/// a * w + c
HEED_INLINE F fma(Scalar a, F w, F c) {
#if defined(__aarch64__)
  asm("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(c.v) : "w"(w.v), "w"(a.v));
  return c;
#else
  return fma(a.v, w, c);
#endif
}

template <int rows, int vectors>
struct Tile {
  F sum[rows * vectors];

  HEED_INLINE Tile() {
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { sum[i] = zero(); });
  }

  /// Adds a[r][i] * w[i][..] for i in [0, k). Element i of row r is a[r * a_row + i * a_k]; the tile's columns are
  /// w[i * w_k ..], and each 16 columns w_panel after the 16 before.
  HEED_INLINE void add(const float* a, ptrdiff_t a_row, ptrdiff_t a_k, const float* w, ptrdiff_t w_k, ptrdiff_t w_panel,
                       ptrdiff_t k) {
    for (; k > 0; --k) {
      F line[vectors];
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        line[v] = load(w + v * W / 16 * w_panel + v * W % 16);
        pin(line[v]);  // one load, not one folded into each row's multiply-add
      });
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        const Scalar x(a + r * a_row);
        unroll<vectors>([&](auto v)
                            HEED_INLINE_LAMBDA { sum[r * vectors + v] = fma(x, line[v], sum[r * vectors + v]); });
      });
      a += a_k;
      w += w_k;
    }
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { pin(sum[i]); });  // what follows stays out of the loop
  }
};

/// Writes `columns` columns of a strided matrix as one panel [k][16], filled up with zeros.
inline void pack_panel(const float* b, ptrdiff_t b_k, ptrdiff_t b_n, ptrdiff_t k, int columns, float* panel) {
  for (; k > 0; --k, b += b_k, panel += 16) {
    int n = 0;
    for (; n < columns; ++n) panel[n] = b[n * b_n];
    for (; n < 16; ++n) panel[n] = 0.0f;
  }
}

}  // namespace
}  // namespace heed::HEED_ISA

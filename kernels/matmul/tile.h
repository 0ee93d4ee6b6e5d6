#pragma once
/// The register tile of the float products (matmul, attention, recurrent), for <op>.simd.cpp files.
///
/// A tile is rows x vectors vectors of outputs in registers. Each output is one chain of fused multiply-adds over k,
/// ascending, from +0; so how outputs are gathered in tiles changes no bit.
#include <cstddef>
#include <cstdint>

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

/// Which tiles there are.
struct ShapesF32 {
  static constexpr int max_rows = HEED_ISA::max_rows, least_vectors = panel_vectors < 2 ? panel_vectors : 2;
  static constexpr int vectors(int rows) { return tile_vectors(rows); }
};

/// One element of the left operand, ready to be multiplied with vectors. On aarch64 the multiply-add takes it from lane
/// 0 of a plain load: a broadcast would take one of the two pipes that multiply.
class Scalar {
 public:
#if defined(__aarch64__)
  HEED_INLINE explicit Scalar(const float* p) : v_(*p) {}
  HEED_INLINE F vector() const {
    return splat(v_);
  }
#else
  HEED_INLINE explicit Scalar(const float* p) : v_(splat(*p)) {
    pin(v_);
  }
  HEED_INLINE F vector() const {
    return v_;
  }
#endif

  /// This element * w + c
  HEED_INLINE F fma(F w, F c) const {
#if defined(__aarch64__)
    asm("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(c.v) : "w"(w.v), "w"(v_));
    return c;
#else
    return HEED_ISA::fma(v_, w, c);
#endif
  }

 private:
#if defined(__aarch64__)
  float v_;
#else
  F v_;
#endif
};

/// Lets Tile::add pass over some terms; this one passes over none.
struct AllTerms {
  /// The columns' elements of step i.
  HEED_INLINE F line(F w, ptrdiff_t) const { return w; }
  /// Those elements for a row whose own is a.
  HEED_INLINE F operator()(Scalar, F w) const { return w; }
};

/// Brings memory into the second cache level while a tile is computed; this one brings none.
struct Nothing {
  HEED_INLINE static constexpr ptrdiff_t begin(ptrdiff_t) { return 0; }
  HEED_INLINE void step() {}
};

/// A tile's share of the panels that the next columns will read, as each tile of the rows brings its own: the first of
/// those tiles need not wait for memory, and memory does not wait for the others. Low tiles bring nothing: they wait
/// for memory all the time.
template <int rows, int lines>  // a panel's line is 64 bytes: as many as the tile reads in a step
class NextPanels {
 public:
  /// `w`: panels [..][k][16] of a tile that begins at `row`, one of those of `all` rows from 0 on.
  HEED_INLINE NextPanels(const float* w, int k, int row, int all) {
    if constexpr (rows < 4) return;
    // A step asks for a quarter of a line or more: more steps would ask for the same again.
    const int share = all <= rows ? 64 : 64 * rows / all;
    bytes_ = share < 16 ? 16 : static_cast<uintptr_t>(share);
    steps_ = share < 16 ? ptrdiff_t{k} * share / 16 + 1 : k;
    at_ = reinterpret_cast<uintptr_t>(w + lines * ptrdiff_t{k} * 16) +
          static_cast<uintptr_t>(int64_t{row / rows} * share * lines * k);
  }
  /// In how many of the next `steps` steps something is brought.
  HEED_INLINE ptrdiff_t begin(ptrdiff_t steps) {
    if constexpr (rows < 4) return 0;
    const ptrdiff_t count = steps < steps_ ? steps : steps_;
    steps_ -= count;
    return count;
  }
  HEED_INLINE void step() {
    unroll<lines>([&](auto) HEED_INLINE_LAMBDA {
      __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);  // behind the last panel too: no address is wrong
      at_ += bytes_;
    });
  }

 private:
  uintptr_t at_, bytes_;
  ptrdiff_t steps_;
};

template <int rows, int vectors>
struct Tile {
  using Next = NextPanels<rows, (vectors + panel_vectors - 1) / panel_vectors>;

  F sum[rows * vectors];

  HEED_INLINE Tile() {
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { sum[i] = zero(); });
  }

  /// Adds a[r][i] * w[i][..] for i in [0, k). Element i of row r is a[r * a_row + i * a_k]; the tile's columns are
  /// w[i * w_k ..], and each 16 columns w_panel after the 16 before.
  template <class Terms = AllTerms, class Prefetch = Nothing>
  HEED_INLINE void add(const float* a, ptrdiff_t a_row, ptrdiff_t a_k, const float* w, ptrdiff_t w_k, ptrdiff_t w_panel,
                       ptrdiff_t k, Terms terms = {}, Prefetch&& prefetch = {}) {
    ptrdiff_t i = 0;
    const auto step = [&]() HEED_INLINE_LAMBDA {
      F line[vectors];
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        line[v] = terms.line(load(w + v * W / 16 * w_panel + v * W % 16), i);
        if constexpr (rows > 1) pin(line[v]);  // one load, not one folded into each row's multiply-add
      });
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        const Scalar x(a + r * a_row);
        unroll<vectors>(
            [&](auto v) HEED_INLINE_LAMBDA { sum[r * vectors + v] = x.fma(terms(x, line[v]), sum[r * vectors + v]); });
      });
      a += a_k;
      w += w_k;
    };
    for (const ptrdiff_t end = prefetch.begin(k); i < end; ++i) {
      step();
      prefetch.step();
    }
    for (; i < k; ++i) step();
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { pin(sum[i]); });  // what follows stays out of the loop
  }
};

/// Covers outputs with tiles: Job::run<rows, vectors>(row, column) computes the tile that begins there.
template <class Job, class Shapes = ShapesF32>
class Tiling {
 public:
  /// Rows [row, row + rows), columns [column, end), where `column` begins a panel. The last tile may reach past `end`,
  /// but not past the end of its panel.
  static void run(const Job& job, int row, int rows, int column, int end) {
    if (rows <= 0) return;
    // Tiles of nearly equal height: a low one at the end would wait for its few chains.
    const int count = (rows + Shapes::max_rows - 1) / Shapes::max_rows, low = rows / count, high_count = rows % count;
    int log2_vectors = 3;
    while (1 << log2_vectors > Shapes::vectors(low + (high_count > 0))) --log2_vectors;
    while (column < end) {
      constexpr int least = Shapes::least_vectors * W;
      while (W << log2_vectors > (end - column + least - 1) / least * least) --log2_vectors;
      // The columns' operand stays in cache while the rows pass by.
      for (int i = 0, r = row; i < count; ++i) {
        const int height = low + (i < high_count);
        table.at[height][log2_vectors](job, r, column);
        r += height;
      }
      column += W << log2_vectors;
    }
  }

 private:
  using Run = void (*)(const Job&, int, int);
  struct Table {
    Run at[Shapes::max_rows + 1][4];  // by rows and log2 of vectors; null where the tile would be too wide
  };
  template <int rows, int vectors>
  static constexpr Run tile() {
    if constexpr (rows > 0 && vectors >= Shapes::least_vectors && vectors <= Shapes::vectors(rows)) {
      return [](const Job& job, int row, int column) { job.template run<rows, vectors>(row, column); };
    }
    return nullptr;
  }
  template <int... rows>
  static constexpr Table all(std::integer_sequence<int, rows...>) {
    return {{{tile<rows, 1>(), tile<rows, 2>(), tile<rows, 4>(), tile<rows, 8>()}...}};
  }
  static constexpr Table table = all(std::make_integer_sequence<int, Shapes::max_rows + 1>{});
};

/// Rows of `length` elements that stay in the second cache level while all columns pass by: blocks of nearly equal
/// height, in whole tiles.
inline int cached_rows(int rows, int64_t length) {
  constexpr int cached = 1 << 15, least = 4 * max_rows;
  const int most = length > cached / least ? least : cached / static_cast<int>(length + 1);
  const int blocks = (rows + most - 1) / most, even = (rows + blocks - 1) / (blocks < 1 ? 1 : blocks);
  return (even + max_rows - 1) / max_rows * max_rows;
}

/// Four rows of four, turned: row i of `to` gets element i of each row of `from`.
HEED_INLINE void transpose4(const float* from, ptrdiff_t from_row, float* to, ptrdiff_t to_row) {
  using Quad = float __attribute__((vector_size(16)));
  Quad a, b, c, d;
  __builtin_memcpy(&a, from, 16);
  __builtin_memcpy(&b, from + from_row, 16);
  __builtin_memcpy(&c, from + 2 * from_row, 16);
  __builtin_memcpy(&d, from + 3 * from_row, 16);
  const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  d = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
  __builtin_memcpy(to, &a, 16);
  __builtin_memcpy(to + to_row, &b, 16);
  __builtin_memcpy(to + 2 * to_row, &c, 16);
  __builtin_memcpy(to + 3 * to_row, &d, 16);
}

/// Writes `columns` columns of a strided matrix as one panel [k][16], filled up with zeros.
inline void pack_panel(const float* b, ptrdiff_t b_k, ptrdiff_t b_n, ptrdiff_t k, int columns, float* panel) {
  ptrdiff_t i = 0;
  if (b_k == 1 && columns == 16) {  // the rows of a transposed matrix
    for (; i + 4 <= k; i += 4) {
      unroll<4>([&](auto n) HEED_INLINE_LAMBDA { transpose4(b + n * 4 * b_n + i, b_n, panel + i * 16 + n * 4, 16); });
    }
  }
  for (; i < k; ++i) {
    for (int n = 0; n < 16; ++n) panel[i * 16 + n] = n < columns ? b[i * b_k + n * b_n] : 0.0f;
  }
}

}  // namespace
}  // namespace heed::HEED_ISA

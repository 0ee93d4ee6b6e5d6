#pragma once
/// The register tile of rows in pairs, as smmla multiplies them: [rows/2][ceil(K/16)][2][2 rows][8 k], zeros past K.
/// TileI8 joins rows in its loop, each time in the place of a product on the pipes that multiply; rows that meet many
/// columns are joined once.
#include "kernels/matmul_i8/tile_i8.h"

namespace heed::HEED_ISA {
namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8)

struct ShapesOfPairs {
  static constexpr int max_rows = 6, least_vectors = 2;  // in pairs: with 12 rows of 8 columns, 24 accumulators
  static constexpr int vectors(int pairs) { return pairs <= 2 ? 4 : 2; }
};

struct ShapesOfOneRow {
  static constexpr int max_rows = 1, least_vectors = 2;
  static constexpr int vectors(int) { return 4; }
};

/// Writes `rows` rows of k elements in pairs, 2 * row_elements(k) bytes each.
HEED_INLINE void join_rows(const int8_t* a, ptrdiff_t a_row, int rows, int k, int8_t* to) {
  const auto put = [&](const int8_t* first, const int8_t* second) HEED_INLINE_LAMBDA {
    const int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(first)), y = vreinterpretq_s64_s8(vld1q_s8(second));
    vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(x, y)));
    vst1q_s8(to + 16, vreinterpretq_s8_s64(vzip2q_s64(x, y)));
    to += 32;
  };
  for (int row = 0; row < rows; row += 2, a += 2 * a_row) {
    const int8_t* second = row + 1 < rows ? a + a_row : a;  // the last is joined with itself, and that is left out
    int i = 0;
    for (; i + 16 <= k; i += 16) put(a + i, second + i);
    if (i < k) {
      alignas(16) int8_t last[2][16] = {};
      __builtin_memcpy(last[0], a + i, static_cast<size_t>(k - i));
      __builtin_memcpy(last[1], second + i, static_cast<size_t>(k - i));
      put(last[0], last[1]);
    }
  }
}

/// As TileI8::multiply, of rows that join_rows wrote.
template <int rows, int vectors>
HEED_INLINE void multiply_joined(I* sum, const int8_t* a, const int8_t* w, ptrdiff_t w_panel, int k) {
  constexpr int pairs = (rows + 1) / 2;
  const ptrdiff_t a_pair = 2 * row_elements(k);
  const int8_t* lines[(vectors + 3) / 4];
  unroll<(vectors + 3) / 4>([&](auto p) HEED_INLINE_LAMBDA { lines[p] = w + p * w_panel; });
  int32x4_t part[pairs * vectors * 2];
  unroll<pairs * vectors * 2>([&](auto i) HEED_INLINE_LAMBDA { part[i] = vdupq_n_s32(0); });
  const auto step = [&](auto whole) HEED_INLINE_LAMBDA {
    int8x16_t line[vectors * 2];
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const int8_t* at = lines[v / 4] + v % 4 * 16;
      const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(at));
      int32x4_t high = vdupq_n_s32(0);
      if constexpr (whole) high = vreinterpretq_s32_s8(vld1q_s8(at + 64));
      line[2 * v] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      line[2 * v + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
    });
    unroll<pairs>([&](auto p) HEED_INLINE_LAMBDA {
      // Two pairs at a time: g++ 12 would load all of them first, and spill sums.
      const int8_t* at = a + p * a_pair;
      if constexpr (p >= 2)
        unroll<vectors * 2>([&](auto c) HEED_INLINE_LAMBDA {
          asm("" : "+r"(at), "+w"(part[(p - 2) * vectors * 2 + c]));
        });
      const int8x16_t x = vld1q_s8(at);
      unroll<vectors * 2>([&](auto c) HEED_INLINE_LAMBDA {
        int32x4_t& to = part[p * vectors * 2 + c];
        to = vmmlaq_s32(to, x, line[c]);
      });
    });
    unroll<(vectors + 3) / 4>([&](auto p) HEED_INLINE_LAMBDA { lines[p] += 128; });
    a += 16;
  };
  ptrdiff_t groups = (ptrdiff_t{k} + 3) / 4;
  for (; groups >= 2; groups -= 2) step(std::true_type{});
  if (groups > 0) step(std::false_type{});
  unroll<pairs * vectors>([&](auto i) HEED_INLINE_LAMBDA {
    constexpr int p = i / vectors, v = i % vectors;
    const int64x2_t low = vreinterpretq_s64_s32(part[i * 2]), high = vreinterpretq_s64_s32(part[i * 2 + 1]);
    sum[2 * p * vectors + v].v = vreinterpretq_s32_s64(vzip1q_s64(low, high));
    if constexpr (2 * p + 1 < rows) sum[(2 * p + 1) * vectors + v].v = vreinterpretq_s32_s64(vzip2q_s64(low, high));
  });
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { pin(sum[i]); });
}

#endif

}  // namespace
}  // namespace heed::HEED_ISA

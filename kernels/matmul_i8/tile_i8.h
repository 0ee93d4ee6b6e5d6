#pragma once
/// The register tile of the int8 products, for <op>_i8.simd.cpp files.
///
/// A tile is rows x vectors vectors of int32 outputs in registers. Sums are exact as long as no more than
/// `most_terms_i8` products of two int8 meet, so neither their order nor the machine's own grouping
/// changes a bit. Weights lie in panels [..][K/4][16][4]: a line of 64 bytes holds four k of 16 columns.
///
/// The rows as the tile reads them (RowElement), four elements of k (a group) at a time:
///   avx2      int16 in the order 0, 2, 1, 3, written beforehand, since vpmaddwd multiplies int16. vpmaddubsw would
///             add pairs in saturating int16, and 127 * 255 * 2 does not fit.
///   vnni      element + 128, written beforehand: the dot product takes unsigned ones, and 128 times the column's sum
///             is taken off. Where 512 bits leave two ports, a conversion in the loop would take the multiplier's.
///   others    the bytes themselves.
#include "kernels/matmul/tile.h"

namespace heed::HEED_ISA {
namespace {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define HEED_VNNI 1
#endif

struct ShapesI8 {
#if defined(__AVX512VNNI__)
  static constexpr int max_rows = 8, least_vectors = 1;
  static constexpr int vectors(int rows) {
    return rows == 1 ? 1 : rows <= 4 ? 4 : 2;
  }
#elif defined(__AVX2__)
  static constexpr int max_rows = 6, least_vectors = 2;
  static constexpr int vectors(int) {
    return 2;
  }
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr int max_rows = 8, least_vectors = 2;
  static constexpr int vectors(int rows) {
    return rows <= 4 ? 4 : 2;
  }
#elif defined(__aarch64__)
  static constexpr int max_rows = 4, least_vectors = 2;
  static constexpr int vectors(int) {
    return 2;
  }
#else
  static constexpr int max_rows = 2, least_vectors = 2;
  static constexpr int vectors(int) {
    return 2;
  }
#endif
};

#if defined(HEED_VNNI)
using RowElement = uint8_t;
#elif defined(__AVX2__)
using RowElement = int16_t;
#else
using RowElement = int8_t;
#endif
/// Whether rows have to be written as the tile reads them.
inline constexpr bool converts_rows = !std::is_same_v<RowElement, int8_t>;
/// Bytes of a group of a row.
inline constexpr int group_bytes = 4 * sizeof(RowElement);
/// Elements of a row of k, to whole vectors of 16.
constexpr ptrdiff_t row_elements(int k) {
  return (ptrdiff_t{k} + 15) / 16 * 16;
}

/// Whether there are products of unsigned rows and signed weights. Else it is weights + 128, and 128 times the row's
/// sum is taken off at the end.
#if defined(__AVX2__) || defined(__ARM_FEATURE_MATMUL_INT8)
inline constexpr bool mixed_signs = true;
#else
inline constexpr bool mixed_signs = false;
#endif

/// Four elements of a row as one word; the first n of four, the others 0.
HEED_INLINE int32_t word_at(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return word;
}
HEED_INLINE int32_t word_at(const int8_t* p, int n) {
  uint32_t word = 0;
  for (int i = 0; i < n; ++i) word |= static_cast<uint32_t>(static_cast<uint8_t>(p[i])) << (8 * i);
  return static_cast<int32_t>(word);
}

/// A row of k int8 as the tile reads it, row_elements(k).
HEED_INLINE void convert_row(const int8_t* a, int k, RowElement* to) {
#if defined(__AVX2__)
#if defined(HEED_VNNI)
  const auto convert = [](__m128i bytes) HEED_INLINE_LAMBDA { return _mm_xor_si128(bytes, _mm_set1_epi8(-128)); };
#else
  const auto convert = [](__m128i bytes) HEED_INLINE_LAMBDA {
    const __m256i words = _mm256_cvtepi8_epi16(bytes);
    return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);
  };
#endif
  using Vector = decltype(convert(__m128i{}));
  const auto put = [&](int i, const int8_t* p) HEED_INLINE_LAMBDA {
    const Vector v = convert(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    __builtin_memcpy(to + i, &v, sizeof v);
  };
  int i = 0;
  for (; i + 16 <= k; i += 16) put(i, a + i);
  if (i < k) {
    alignas(16) int8_t last[16] = {};
    __builtin_memcpy(last, a + i, static_cast<size_t>(k - i));
    put(i, last);
  }
#else
  __builtin_memcpy(to, a, static_cast<size_t>(k));
#endif
}

/// `unsigned_rows`: the rows hold 0 to 255.
template <int rows, int vectors, bool unsigned_rows = false>
struct TileI8 {
  using Next = NextPanels<rows, (vectors + panel_vectors - 1) / panel_vectors>;

  I sum[rows * vectors];

  /// sum[r][c] = sum over i < k of a[r][i] * w[i][c]. Row r begins a_row bytes after the one before; `w` is the line of
  /// the first group at the tile's first column, and each 16 columns begin w_panel bytes after the 16 before. `sums`:
  /// those of the columns over all k, from the tile's first on; of unsigned rows those of the rows, where not
  /// mixed_signs. `pairs`: no weight is -128, so that two products fit int16.
  template <class Prefetch = Nothing>
  HEED_INLINE void multiply(const int8_t* a, ptrdiff_t a_row, const int8_t* w, ptrdiff_t w_panel, const int32_t* sums,
                            ptrdiff_t k, Prefetch&& prefetch = {}, bool pairs = true);

 private:
  HEED_INLINE static const int8_t* line_of(const int8_t* w, ptrdiff_t w_panel, int v) {
    return w + v * W / 16 * w_panel + v * W % 16 * 4;
  }
};

#if defined(HEED_VNNI)

HEED_INLINE I dot(I sum, I a, I w) {
#if defined(__AVX512VNNI__)
  return {_mm512_dpbusd_epi32(sum.v, a.v, w.v)};
#else
  return {_mm256_dpbusd_avx_epi32(sum.v, a.v, w.v)};
#endif
}

template <int rows, int vectors, bool unsigned_rows>
template <class Prefetch>
HEED_INLINE void TileI8<rows, vectors, unsigned_rows>::multiply(const int8_t* a, ptrdiff_t a_row, const int8_t* w,
                                                                ptrdiff_t w_panel, const int32_t* sums, ptrdiff_t k,
                                                                Prefetch&& prefetch, bool) {
  // A dot product takes four or five cycles and two start in each: few chains are split over k.
  constexpr int chains = rows * vectors, splits = chains >= 8 ? 1 : chains >= 4 ? 2 : chains >= 2 ? 4 : 8;
  I part[splits * chains];
  unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
    const I start = unsigned_rows ? splat(0) : splat(0) - shl<7>(load(sums + v * W));
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      part[r * vectors + v] = start;
      unroll<splits - 1>([&](auto s) HEED_INLINE_LAMBDA { part[(s + 1) * chains + r * vectors + v] = splat(0); });
    });
  });
  const auto step = [&](auto s) HEED_INLINE_LAMBDA {
    I line[vectors];
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      line[v] = load(reinterpret_cast<const int32_t*>(line_of(w, w_panel, v)));
      pin(line[v]);
    });
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      const I x = splat(word_at(a + r * a_row));
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        I& to = part[s * chains + r * vectors + v];
        to = dot(to, x, line[v]);
      });
    });
    w += 64;
    a += 4;
  };
  ptrdiff_t i = 0;
  const ptrdiff_t groups = (k + 3) / 4;
  for (const ptrdiff_t end = prefetch.begin(groups / splits) * splits; i < end; i += splits) {
    unroll<splits>(step);
    prefetch.step();
  }
  for (; i + splits <= groups; i += splits) unroll<splits>(step);
  for (; i < groups; ++i) step(std::integral_constant<int, 0>{});
  unroll<chains>([&](auto c) HEED_INLINE_LAMBDA {
    sum[c] = part[c];
    unroll<splits - 1>([&](auto s) HEED_INLINE_LAMBDA { sum[c] = sum[c] + part[(s + 1) * chains + c]; });
    pin(sum[c]);
  });
}

#elif defined(__AVX2__)

template <int rows, int vectors, bool unsigned_rows>
template <class Prefetch>
HEED_INLINE void TileI8<rows, vectors, unsigned_rows>::multiply(const int8_t* a, ptrdiff_t a_row, const int8_t* w,
                                                                ptrdiff_t w_panel, const int32_t*, ptrdiff_t k,
                                                                Prefetch&& prefetch, bool) {
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { sum[i] = splat(0); });
  // The even elements of each column's four, then the odd ones: few registers hold weights. An odd element is the upper
  // byte of a word; so is an even one, of the words that begin a byte before. That byte is the line's before.
  const auto half = [&](auto odd, auto first) HEED_INLINE_LAMBDA {
    I line[vectors];
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const auto* at = reinterpret_cast<const __m256i*>(line_of(w, w_panel, v) - (odd || first ? 0 : 1));
      __m256i words = _mm256_loadu_si256(at);
      if constexpr (!odd && first) words = _mm256_slli_epi16(words, 8);
      line[v].v = _mm256_srai_epi16(words, 8);
      pin(line[v]);
    });
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      I x = splat(word_at(a + r * a_row + 4 * odd));
      pin(x);
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        I& to = sum[r * vectors + v];
        to = to + I{_mm256_madd_epi16(x.v, line[v].v)};
        if constexpr (!odd) pin(to);
      });
    });
  };
  const auto step = [&](auto first) HEED_INLINE_LAMBDA {
    half(std::false_type{}, first);
    half(std::true_type{}, first);
    w += 64;
    a += group_bytes;
  };
  const ptrdiff_t groups = (k + 3) / 4;
  if (groups > 0) step(std::true_type{});
  ptrdiff_t i = 1;
  for (const ptrdiff_t end = prefetch.begin(groups - 1); i <= end; ++i) {
    step(std::false_type{});
    prefetch.step();
  }
  for (; i < groups; ++i) step(std::false_type{});
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { pin(sum[i]); });
}

#else  // NEON

template <bool unsigned_rows>
HEED_INLINE int8x16_t line_at(const int8_t* p) {
  int8x16_t line = vld1q_s8(p);
  if constexpr (unsigned_rows && !mixed_signs) line = veorq_s8(line, vdupq_n_s8(-128));
  asm("" : "+w"(line));  // one load, not one for each row
  return line;
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

/// Rows in pairs: a 2 x 8 by 8 x 2 product at a time.
template <int rows, int vectors, bool unsigned_rows>
HEED_INLINE void multiply_pairs(I* sum, const int8_t* a, ptrdiff_t a_row, const int8_t* (&lines)[vectors],
                                ptrdiff_t groups) {
  constexpr int pairs = (rows + 1) / 2;
  int32x4_t part[pairs * vectors * 2];
  unroll<pairs * vectors * 2>([&](auto i) HEED_INLINE_LAMBDA { part[i] = vdupq_n_s32(0); });
  for (ptrdiff_t i = 0; i + 2 <= groups; i += 2) {
    int8x16_t line[vectors * 2];
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(lines[v])),
                      high = vreinterpretq_s32_s8(vld1q_s8(lines[v] + 64));
      line[2 * v] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      line[2 * v + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
      lines[v] += 128;
    });
    unroll<pairs>([&](auto p) HEED_INLINE_LAMBDA {
      constexpr int second = 2 * p + 1 < rows ? 2 * p + 1 : 2 * p;
      const int8x16_t x = vcombine_s8(vld1_s8(a + 2 * p * a_row), vld1_s8(a + second * a_row));
      unroll<vectors * 2>([&](auto c) HEED_INLINE_LAMBDA {
        int32x4_t& to = part[p * vectors * 2 + c];
        if constexpr (unsigned_rows)
          to = vusmmlaq_s32(to, vreinterpretq_u8_s8(x), line[c]);
        else
          to = vmmlaq_s32(to, x, line[c]);
      });
    });
    a += 8;
  }
  unroll<pairs * vectors>([&](auto i) HEED_INLINE_LAMBDA {
    constexpr int p = i / vectors, v = i % vectors;
    const int64x2_t low = vreinterpretq_s64_s32(part[i * 2]), high = vreinterpretq_s64_s32(part[i * 2 + 1]);
    sum[2 * p * vectors + v].v = vreinterpretq_s32_s64(vzip1q_s64(low, high));
    if constexpr (2 * p + 1 < rows) sum[(2 * p + 1) * vectors + v].v = vreinterpretq_s32_s64(vzip2q_s64(low, high));
  });
}

#endif

#if !defined(__ARM_FEATURE_DOTPROD)

/// Products of the upper halves, which aarch64 need not move down first.
HEED_INLINE int16x8_t multiply_high(int8x16_t a, int8x16_t b) {
#if defined(__aarch64__)
  return vmull_high_s8(a, b);
#else
  return vmull_s8(vget_high_s8(a), vget_high_s8(b));
#endif
}
HEED_INLINE int16x8_t multiply_add_high(int16x8_t sum, int8x16_t a, int8x16_t b) {
#if defined(__aarch64__)
  return vmlal_high_s8(sum, a, b);
#else
  return vmlal_s8(sum, vget_high_s8(a), vget_high_s8(b));
#endif
}

#else

/// Four columns more of four terms: with all of x, or with the four bytes of one of its lanes.
template <bool unsigned_rows>
HEED_INLINE int32x4_t dot(int32x4_t sum, int8x16_t line, int8x16_t x) {
  if constexpr (!unsigned_rows) return vdotq_s32(sum, line, x);
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return vusdotq_s32(sum, vreinterpretq_u8_s8(x), line);
#else
  return vreinterpretq_s32_u32(
      vdotq_u32(vreinterpretq_u32_s32(sum), vreinterpretq_u8_s8(line), vreinterpretq_u8_s8(x)));
#endif
}
template <bool unsigned_rows, int lane>
HEED_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t line, int8x16_t x) {
  if constexpr (!unsigned_rows) return vdotq_laneq_s32(sum, line, x, lane);
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return vsudotq_laneq_s32(sum, line, vreinterpretq_u8_s8(x), lane);
#else
  return vreinterpretq_s32_u32(
      vdotq_laneq_u32(vreinterpretq_u32_s32(sum), vreinterpretq_u8_s8(line), vreinterpretq_u8_s8(x), lane));
#endif
}

#endif

template <int rows, int vectors, bool unsigned_rows>
template <class Prefetch>
HEED_INLINE void TileI8<rows, vectors, unsigned_rows>::multiply(const int8_t* a, ptrdiff_t a_row, const int8_t* w,
                                                                ptrdiff_t w_panel, const int32_t* sums, ptrdiff_t k,
                                                                Prefetch&&, [[maybe_unused]] bool pairs) {
  const int8_t* lines[vectors];
  unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA { lines[v] = line_of(w, w_panel, v); });
  ptrdiff_t groups = k / 4;
#if defined(__ARM_FEATURE_DOTPROD)
  const auto dot_words = [&](auto word) HEED_INLINE_LAMBDA {
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const int8x16_t line = line_at<unsigned_rows>(lines[v]);
      lines[v] += 64;
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        I& to = sum[r * vectors + v];
        to.v = dot<unsigned_rows>(to.v, line, vreinterpretq_s8_s32(vdupq_n_s32(word(r))));
      });
    });
  };
  constexpr bool paired = mixed_signs && rows > 1;
  if constexpr (paired) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    multiply_pairs<rows, vectors, unsigned_rows>(sum, a, a_row, lines, groups);
#endif
    a += groups / 2 * 8;
    groups %= 2;
  } else {
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { sum[i] = splat(0); });
    for (; groups >= 4; groups -= 4) {
      int8x16_t x[rows];
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { x[r] = vld1q_s8(a + r * a_row); });
      unroll<4>([&](auto lane) HEED_INLINE_LAMBDA {
        unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
          const int8x16_t line = line_at<unsigned_rows>(lines[v] + lane * 64);
          unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
            I& to = sum[r * vectors + v];
            to.v = dot_lane<unsigned_rows, lane>(to.v, line, x[r]);
          });
        });
      });
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA { lines[v] += 256; });
      a += 16;
    }
  }
  for (; groups > 0; --groups, a += 4) dot_words([&](auto r) HEED_INLINE_LAMBDA { return word_at(a + r * a_row); });
  if (k % 4 != 0) dot_words([&](auto r) HEED_INLINE_LAMBDA { return word_at(a + r * a_row, static_cast<int>(k % 4)); });
#else
  // Pairs of a column's four in the lanes of an accumulator, two columns in each. Two products of 128 * 127 fit int16;
  // of unsigned ones one fits.
  int32x4_t part[rows * vectors * 2];
  unroll<rows * vectors * 2>([&](auto i) HEED_INLINE_LAMBDA { part[i] = vdupq_n_s32(0); });
  const auto step = [&]<int count>(std::integral_constant<int, count>, auto word) HEED_INLINE_LAMBDA {
    int8x16_t line[vectors * count];
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      unroll<count>([&](auto g)
                        HEED_INLINE_LAMBDA { line[v * count + g] = line_at<unsigned_rows>(lines[v] + g * 64); });
      lines[v] += 64 * count;
    });
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      const int8_t* at = a + r * a_row;
      // Two rows at a time: g++ 12 would start the products of all four first, and spill sums.
      if constexpr (rows > 3 && r >= 2)
        unroll<vectors * 2>([&](auto c) HEED_INLINE_LAMBDA {
          asm("" : "+r"(at), "+w"(part[(r - 2) * vectors * 2 + c]));
        });
      int8x16_t x[count];
      unroll<count>([&](auto g) HEED_INLINE_LAMBDA { x[g] = vreinterpretq_s8_s32(vdupq_n_s32(word(at, g))); });
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        int32x4_t* to = part + (r * vectors + v) * 2;
        const int8x16_t* own = line + v * count;
        if constexpr (unsigned_rows) {
          unroll<count>([&](auto g) HEED_INLINE_LAMBDA {
            const auto add = [&](int32x4_t& sum, int8x8_t half) HEED_INLINE_LAMBDA {
              const uint16x8_t product = vmull_u8(vreinterpret_u8_s8(half), vreinterpret_u8_s8(vget_low_s8(x[g])));
              sum = vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(sum), product));
            };
            add(to[0], vget_low_s8(own[g]));
            add(to[1], vget_high_s8(own[g]));
          });
        } else {
          int16x8_t low = vmull_s8(vget_low_s8(own[0]), vget_low_s8(x[0])), high = multiply_high(own[0], x[0]);
          if constexpr (count > 1) {
            low = vmlal_s8(low, vget_low_s8(own[1]), vget_low_s8(x[1]));
            high = multiply_add_high(high, own[1], x[1]);
          }
          to[0] = vpadalq_s16(to[0], low);
          to[1] = vpadalq_s16(to[1], high);
        }
      });
    });
    a += 4 * count;
  };
  using One = std::integral_constant<int, 1>;
  const auto word = [&](const int8_t* row, auto g) HEED_INLINE_LAMBDA { return word_at(row + 4 * g); };
  for (; pairs && groups >= 2; groups -= 2) step(std::integral_constant<int, 2>{}, word);
  for (; groups > 0; --groups) step(One{}, word);
  if (k % 4 != 0)
    step(One{}, [&](const int8_t* row, auto) HEED_INLINE_LAMBDA { return word_at(row, static_cast<int>(k % 4)); });
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA {
#if defined(__aarch64__)
    sum[i].v = vpaddq_s32(part[2 * i], part[2 * i + 1]);
#else
    const auto fold = [](int32x4_t p) HEED_INLINE_LAMBDA { return vpadd_s32(vget_low_s32(p), vget_high_s32(p)); };
    sum[i].v = vcombine_s32(fold(part[2 * i]), fold(part[2 * i + 1]));
#endif
  });
#endif
  if constexpr (unsigned_rows && !mixed_signs) {
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      const I shift = splat(sums[r] << 7);
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA { sum[r * vectors + v] = sum[r * vectors + v] - shift; });
    });
  }
  unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { pin(sum[i]); });
}

#endif

}  // namespace
}  // namespace heed::HEED_ISA

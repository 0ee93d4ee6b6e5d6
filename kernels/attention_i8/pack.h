#pragma once
/// One head's keys and values in panels, and what else attention_i8 makes of their scales. After kernels/simd.h or
/// kernels/scalar.h.
#include "kernels/attention_i8/attention_i8.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

inline constexpr float hidden_log = -0x1p126f;  // of a value that no query sees
inline constexpr float log2_e = exponential::log2_e;

/// NaNs are one NaN: the exponent's arithmetic below keeps its bits.
HEED_INLINE F one_nan(F x) {
  return select(less_equal(x, x), x, splat(__builtin_nanf("")));
}

/// Four rows of int8 (null: zeros), n bytes each, passed on 16 columns at a time: body(column, rows, true_type where
/// all 16 are there).
using Bytes16 = int8_t __attribute__((vector_size(16)));
template <class Body>
HEED_INLINE void four_rows(const int8_t* const (&from)[4], int n, Body body) {
  int c = 0;
  if (from[0] != nullptr && from[1] != nullptr && from[2] != nullptr && from[3] != nullptr) {
    const int8_t *a = from[0], *b = from[1], *d = from[2], *e = from[3];
    for (; c + 16 <= n; c += 16) {
      Bytes16 rows[4];
      __builtin_memcpy(&rows[0], a + c, 16);
      __builtin_memcpy(&rows[1], b + c, 16);
      __builtin_memcpy(&rows[2], d + c, 16);
      __builtin_memcpy(&rows[3], e + c, 16);
      body(c, rows, std::true_type{});
    }
  }
  for (; c < n; c += 16) {
    Bytes16 rows[4] = {};
    const size_t count = static_cast<size_t>(n - c < 16 ? n - c : 16);
    for (int i = 0; i < 4; ++i)
      if (from[i] != nullptr) __builtin_memcpy(&rows[i], from[i] + c, count);
    body(c, rows, std::false_type{});
  }
}

/// Whether key j is there and not padding.
HEED_INLINE bool is_key(const AttentionI8Args& args, int j) {
  return j < args.tk && (args.key_padding == nullptr || args.key_padding[j * args.padding_key] != 0);
}

/// `keys`: T, here and below.
inline void pack_keys(const AttentionI8Args& args, int keys) {
  using Words = int32_t __attribute__((vector_size(16)));
  const int groups = (args.d + 3) / 4;
  for (int j = 0; j < keys; j += 4) {
    int8_t* const to = args.keys + ptrdiff_t{j / 16} * groups * 64 + j % 16 * 4;
    const int8_t* from[4];
    unroll<4>([&](auto i) HEED_INLINE_LAMBDA { from[i] = j + i < args.tk ? args.k + (j + i) * args.k_row : nullptr; });
    four_rows(from, args.d, [&](int column, const Bytes16(&rows)[4], auto whole) HEED_INLINE_LAMBDA {
      const Words a = (Words)rows[0], b = (Words)rows[1], c = (Words)rows[2], d = (Words)rows[3];
      const Words ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                  ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                  cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const Words lines[4] = {__builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                              __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                              __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
      unroll<4>([&](auto g) HEED_INLINE_LAMBDA {
        if (whole || column / 4 + g < groups) __builtin_memcpy(to + ptrdiff_t{column / 4 + g} * 64, &lines[g], 16);
      });
    });
  }
  for (int j = 0; j < keys; ++j) args.key_scale[j] = is_key(args, j) ? args.k_scale[j * args.k_scale_row] : 0.0f;
  for (int j = 0; j < keys; j += W) store(args.key_scale + j, one_nan(load(args.key_scale + j)));
}

/// `place(i)`: the key, among 16, whose value is element i % 4 of group i / 4.
template <class Place>
HEED_INLINE void pack_values(const AttentionI8Args& args, int keys, Place place) {
  using Pairs = int16_t __attribute__((vector_size(16)));
  for (int j = 0; j < keys; j += 4) {
    const int8_t* from[4];
    unroll<4>([&](auto i) HEED_INLINE_LAMBDA {
      const int key = j / 16 * 16 + place(j % 16 + i);
      from[i] = key < args.tk ? args.v + key * args.v_row : nullptr;
    });
    four_rows(from, args.dv, [&](int column, const Bytes16(&rows)[4], auto) HEED_INLINE_LAMBDA {
      const auto low = [](Bytes16 x, Bytes16 y) HEED_INLINE_LAMBDA {
        return (Pairs)__builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      };
      const auto high = [](Bytes16 x, Bytes16 y) HEED_INLINE_LAMBDA {
        return (Pairs)__builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      };
      const Pairs ab = low(rows[0], rows[1]), cd = low(rows[2], rows[3]), ab_high = high(rows[0], rows[1]),
                  cd_high = high(rows[2], rows[3]);
      const Pairs lines[4] = {__builtin_shufflevector(ab, cd, 0, 8, 1, 9, 2, 10, 3, 11),
                              __builtin_shufflevector(ab, cd, 4, 12, 5, 13, 6, 14, 7, 15),
                              __builtin_shufflevector(ab_high, cd_high, 0, 8, 1, 9, 2, 10, 3, 11),
                              __builtin_shufflevector(ab_high, cd_high, 4, 12, 5, 13, 6, 14, 7, 15)};
      int8_t* const to = args.values + ptrdiff_t{column} * keys + ptrdiff_t{j} * 16;
      unroll<4>([&](auto i) HEED_INLINE_LAMBDA { __builtin_memcpy(to + i * 16, &lines[i], 16); });
    });
  }
  for (int j = 0; j < keys; ++j) args.value_log[j] = is_key(args, j) ? args.v_scale[j * args.v_scale_row] : -1.0f;
  for (int j = 0; j < keys; j += W) {
    const F scale = one_nan(load(args.value_log + j)), v = max_fast(splat(0x1p-60f), scale);
    const M hidden = less(scale, zero());
    store(args.value_log + j, select(hidden, splat(hidden_log), log(v) * splat(log2_e)));
    // Of NaN too: its logarithm is enough, and a query that does not see the key must not meet it.
    store(args.value_inverse + j, select(less_equal(zero(), scale), div(splat(1.0f), v), zero()));
  }
}

/// What makes a row's products scores.
HEED_INLINE float factor_of(const AttentionI8Args& args, int row) {
  return first_lane(one_nan(splat(args.q_scale[row * args.q_scale_row] * args.params.scale * log2_e)));
}

/// 255 * 2^t for t in [-100, 0]; of the one NaN NaN.
HEED_INLINE F exp2_255(F t) {
  const F magic = splat(exponential::round_magic), z = t + magic, f = t - (z - magic);
  const F p = polynomial(f, 254.981654f, 176.781555f, 61.8659325f, 14.0688076f);
  return as_f(add(as_i(p), shl<23>(as_i(z))));
}

}  // namespace
}  // namespace heed::HEED_ISA

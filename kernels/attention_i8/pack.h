#pragma once
/// One head's keys and values in panels of int8, and what else attention_i8 makes of its rows. After kernels/simd.h or
/// kernels/scalar.h.
#include "kernels/attention_i8/attention_i8.h"

#include "kernels/math.h"
#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {
namespace {

inline constexpr float hidden_log = -0x1p126f;  // of a value that no query sees
inline constexpr float log2_e = exponential::log2_e;

/// A row of n floats at a stride as int8; its scale.
inline float quantize_row(const AttentionI8Args& args, const float* x, int64_t stride, int n, int8_t* q) {
  if (stride != 1) {
    for (int i = 0; i < n; ++i) args.row[i] = x[i * stride];
    x = args.row;
  }
  return quantize_group(x, n, q);
}

/// Four rows of 16 bytes as 16 columns of four.
HEED_INLINE void interleave4(const int8_t* rows, ptrdiff_t stride, int8_t* to) {
  using Bytes = int8_t __attribute__((vector_size(16)));
  Bytes a, b, c, d;
  __builtin_memcpy(&a, rows, 16);
  __builtin_memcpy(&b, rows + stride, 16);
  __builtin_memcpy(&c, rows + 2 * stride, 16);
  __builtin_memcpy(&d, rows + 3 * stride, 16);
  const auto low = [](Bytes x, Bytes y) HEED_INLINE_LAMBDA {
    return __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  };
  const auto high = [](Bytes x, Bytes y) HEED_INLINE_LAMBDA {
    return __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  };
  using Pairs = int16_t __attribute__((vector_size(16)));
  const Pairs ab_low = (Pairs)low(a, b), cd_low = (Pairs)low(c, d), ab_high = (Pairs)high(a, b),
              cd_high = (Pairs)high(c, d);
  const Pairs out[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 8, 1, 9, 2, 10, 3, 11),
                        __builtin_shufflevector(ab_low, cd_low, 4, 12, 5, 13, 6, 14, 7, 15),
                        __builtin_shufflevector(ab_high, cd_high, 0, 8, 1, 9, 2, 10, 3, 11),
                        __builtin_shufflevector(ab_high, cd_high, 4, 12, 5, 13, 6, 14, 7, 15)};
  __builtin_memcpy(to, out, 64);
}

/// Whether key j is there and not padding.
HEED_INLINE bool is_key(const AttentionI8Args& args, int j) {
  return j < args.tk && (args.key_padding == nullptr || args.key_padding[j * args.padding_key] != 0);
}

inline void pack_keys(const AttentionI8Args& args, int keys) {
  const int groups = (args.d + 3) / 4;
  int8_t* row = args.rows;
  for (int j = 0; j < keys; ++j) {
    __builtin_memset(row, 0, static_cast<size_t>(groups) * 4);
    args.key_scale[j] = is_key(args, j) ? quantize_row(args, args.k + j * args.k_row, args.k_d, args.d, row) : 0.0f;
    int8_t* to = args.keys + ptrdiff_t{j / 16} * groups * 64 + j % 16 * 4;
    int32_t sum = 0;
    for (int g = 0; g < groups; ++g) {
      __builtin_memcpy(to + ptrdiff_t{g} * 64, row + g * 4, 4);
      for (int i = 0; i < 4; ++i) sum += row[g * 4 + i];
    }
    args.key_sum[j] = sum;
  }
}

inline void pack_values(const AttentionI8Args& args, int keys) {
  const int width = (args.dv + 15) / 16 * 16;
  for (int j = 0; j < keys; j += 4) {
    __builtin_memset(args.rows, 0, static_cast<size_t>(width) * 4);
    for (int i = 0; i < 4; ++i) {
      float scale = 0.0f;
      const bool seen = is_key(args, j + i);
      if (seen) scale = quantize_row(args, args.v + (j + i) * args.v_row, args.v_d, args.dv, args.rows + i * width);
      // Its logarithm and inverse follow for many keys at once.
      args.value_log[j + i] = seen ? scale : -1.0f;
    }
    for (int c = 0; c < width; c += 16)
      interleave4(args.rows + c, width, args.values + ptrdiff_t{c} * keys + ptrdiff_t{j} * 16);
  }
  for (int j = 0; j < keys; j += W) {
    const F scale = load(args.value_log + j), v = max_fast(splat(0x1p-60f), scale);
    const M hidden = less(scale, zero());
    store(args.value_log + j, select(hidden, splat(hidden_log), log(v) * splat(log2_e)));
    // Of NaN too: its logarithm is enough, and a query that does not see the key must not meet it.
    store(args.value_inverse + j, select(less_equal(zero(), scale), div(splat(1.0f), v), zero()));
  }
}

/// 255 * 2^t for t in [-100, 0].
HEED_INLINE F exp2_255(F t) {
  const F magic = splat(exponential::round_magic), z = t + magic, f = t - (z - magic);
  const F p = polynomial(f, 254.981654f, 176.781555f, 61.8659325f, 14.0688076f);
  return as_f(add(as_i(p), shl<23>(as_i(z))));
}

}  // namespace
}  // namespace heed::HEED_ISA

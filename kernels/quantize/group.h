#pragma once
/// Groups of int8 from floats: kernels/quantize/quantize.h has the formula. After kernels/simd.h or kernels/scalar.h.
#include <cstddef>

#include "kernels/inline.h"

namespace heed::HEED_ISA {
namespace {

/// What a group's largest magnitude makes of its elements.
struct Quantizer {
  float scale;
  F inverse;
  I keep;  // the lowest byte, or nothing where the group becomes zeros

  /// `top`: the bits of the largest magnitude; as integers NaNs come after infinity, which comes after all numbers.
  HEED_INLINE static Quantizer of(int32_t top) {
    const I bits = splat(top);
    const F largest = as_f(bits);
    const M usable = both(less(splat(0x0d7fffff), bits), less(bits, splat(0x7f800000)));  // from 2^-100 on, finite
    const F none = largest * zero();
    Quantizer q;
    q.scale = first_lane(select(usable, div(largest, splat(127.0f)), none));
    q.inverse = select(usable, div(splat(127.0f), largest), zero());
    q.keep = bits_of(usable) & splat(255);
    return q;
  }

  /// In the lowest byte of each lane; the others are 0.
  HEED_INLINE I operator()(F x) const { return as_i(fma(x, inverse, splat(12582912.0f))) & keep; }
};

/// The largest magnitude of n floats, as bits. Integers: their order does not matter.
HEED_INLINE int32_t top_of(const float* x, int n) {
  constexpr int chains = 4;
  I top[chains];
  unroll<chains>([&](auto c) HEED_INLINE_LAMBDA { top[c] = splat(0); });
  int i = 0;
  for (; i + chains * W <= n; i += chains * W)
    unroll<chains>([&](auto c) HEED_INLINE_LAMBDA { top[c] = max(top[c], as_i(abs(load(x + i + c * W)))); });
  for (; i < n; i += W) top[0] = max(top[0], as_i(abs(load_first(x + i, n - i))));
  return fold_max(max(max(top[0], top[1]), max(top[2], top[3])));
}

/// q [n] from x [n]; the scale.
HEED_INLINE float quantize_group(const float* x, int n, int8_t* q) {
  const Quantizer quantizer = Quantizer::of(top_of(x, n));
  int i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    store_bytes(q + i, quantizer(load(x + i)), quantizer(load(x + i + W)), quantizer(load(x + i + 2 * W)),
                quantizer(load(x + i + 3 * W)));
  if (i < n) {
    alignas(64) int8_t last[4 * W];
    unroll<4>([&](auto v) HEED_INLINE_LAMBDA {
      store_low(reinterpret_cast<uint8_t*>(last) + v * W, quantizer(load_first(x + i + v * W, n - i - v * W)));
    });
    __builtin_memcpy(q + i, last, static_cast<size_t>(n - i));
  }
  return quantizer.scale;
}

/// q [n] and scale [groups] from x [n].
HEED_INLINE void quantize_groups(const float* x, int n, int groups, int8_t* q, float* scale) {
  const int each = n / groups;
  for (int group = 0; group < groups; ++group)
    scale[group] = quantize_group(x + ptrdiff_t{group} * each, each, q + ptrdiff_t{group} * each);
}

}  // namespace
}  // namespace heed::HEED_ISA

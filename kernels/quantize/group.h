#pragma once
/// Groups of int8 from floats: kernels/quantize/quantize.h has the formula; those of a given scale are
/// kernels/matmul_i8/matmul_i8.h's. After kernels/simd.h or kernels/scalar.h.
#include <cstddef>

#include "kernels/inline.h"

namespace heed::HEED_ISA {
namespace {

/// What the largest magnitudes of groups, as bits, make of them: a lane for each. As integers NaNs come after infinity,
/// which comes after all numbers.
struct Quantizers {
  F scale, inverse;
  I keep;  // the lowest byte, or nothing where the group becomes zeros

  HEED_INLINE explicit Quantizers(I top) {
    const F largest = as_f(top);
    const M usable = both(less(splat(0x0d7fffff), top), less(top, splat(0x7f800000)));  // from 2^-100 on, finite
    scale = select(usable, div(largest, splat(127.0f)), largest * zero());
    inverse = select(usable, div(splat(127.0f), largest), zero());
    keep = bits_of(usable) & splat(255);
  }
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

/// To the scale of a group.
struct Quantizer {
  F inverse;
  I keep;

  /// In the lowest byte of each lane; the others are 0.
  HEED_INLINE I operator()(F x) const { return as_i(fma(x, inverse, splat(12582912.0f))) & keep; }
};

/// To a scale and zero that are given.
struct GivenQuantizer {
  F scale, low, high;
  I zero;

  HEED_INLINE explicit GivenQuantizer(const float* given) {
    // Nothing but a file steers the zero, so it is brought into its range.
    const I at = min(max(to_i(splat(given[1])), splat(-128)), splat(127));
    scale = splat(given[0]);
    low = to_f(sub(splat(-128), at));
    high = to_f(sub(splat(127), at));
    zero = sub(at, splat(0x4b400000));
  }

  /// In the lowest byte of each lane; the others are 0.
  HEED_INLINE I operator()(F x) const {
    F t = div(x, scale);
    t = select(is_nan(t), HEED_ISA::zero(), t);
    t = select(less(low, t), t, low);
    t = select(less(t, high), t, high);
    return add(as_i(t + splat(12582912.0f)), zero) & splat(255);
  }
};

/// q [n] from x [n].
template <class To>
HEED_INLINE void quantize_with(const To& quantizer, const float* x, int n, int8_t* q) {
  int i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    store_bytes(q + i, quantizer(load(x + i)), quantizer(load(x + i + W)), quantizer(load(x + i + 2 * W)),
                quantizer(load(x + i + 3 * W)));
  for (; i + W <= n; i += W) store_low(reinterpret_cast<uint8_t*>(q + i), quantizer(load(x + i)));
  if (i < n) {
    alignas(64) uint8_t last[W];
    store_low(last, quantizer(load_first(x + i, n - i)));
    __builtin_memcpy(q + i, last, static_cast<size_t>(n - i));
  }
}

/// q [n] from x [n] with the scale given[0] and the zero given[1].
HEED_INLINE void quantize_given(const float* x, int n, const float* given, int8_t* q) {
  quantize_with(GivenQuantizer(given), x, n, q);
}

/// `groups` groups of n floats, x_step apart, as int8, q_step apart, and their scales, scale_step apart.
HEED_INLINE void quantize_groups(const float* x, ptrdiff_t x_step, int n, int groups, int8_t* q, ptrdiff_t q_step,
                                 float* scale, ptrdiff_t scale_step) {
  // Divisions are slow: one for the groups of a vector.
  for (int g = 0; g < groups; g += W) {
    const int count = groups - g < W ? groups - g : W;
    alignas(64) int32_t tops[W] = {}, keeps[W];
    alignas(64) float scales[W], inverses[W];
    for (int i = 0; i < count; ++i) tops[i] = top_of(x + (g + i) * x_step, n);
    const Quantizers made(load(tops));
    store(scales, made.scale);
    store(inverses, made.inverse);
    store(keeps, made.keep);
    for (int i = 0; i < count; ++i) {
      scale[(g + i) * scale_step] = scales[i];
      quantize_with(Quantizer{splat(inverses[i]), splat(keeps[i])}, x + (g + i) * x_step, n, q + (g + i) * q_step);
    }
  }
}

/// Rows of n floats in `groups` groups each: kernels/quantize/quantize.h.
HEED_INLINE void quantize_rows(const float* x, ptrdiff_t x_row, int rows, int n, int groups, int8_t* q, ptrdiff_t q_row,
                               float* scale, ptrdiff_t scale_row) {
  if (groups == 1) return quantize_groups(x, x_row, n, rows, q, q_row, scale, scale_row);
  const int each = n / groups;
  for (int row = 0; row < rows; ++row)
    quantize_groups(x + row * x_row, each, each, groups, q + row * q_row, each, scale + row * scale_row, 1);
}

}  // namespace
}  // namespace heed::HEED_ISA

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
  for (; i + W <= n; i += W) top[0] = max(top[0], as_i(abs(load(x + i))));
  if (i < n) top[1] = max(top[1], as_i(abs(load_first(x + i, n - i))));
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

/// Rows of n floats in `groups` groups each, as int8, and their scales, side by side: kernels/quantize/quantize.h.
HEED_INLINE void quantize_rows(const float* x, ptrdiff_t x_row, int rows, int n, int groups, int8_t* q, ptrdiff_t q_row,
                               float* scale, ptrdiff_t scale_row) {
  // Divisions are slow: one for the groups of a vector. And what is written lane by lane and read as a vector has to
  // wait, so all of a batch is written before.
  constexpr int batch = 4 * W;
  const int each = n / groups;
  const auto for_each = [&](int count, int& row, int& group, auto body) HEED_INLINE_LAMBDA {
    for (int i = 0; i < count; ++i) {
      body(i, row, group);
      if (++group == groups) ++row, group = 0;
    }
  };
  int row = 0, group = 0, to_row = 0, to_group = 0;  // whose scale is found next, and which is quantised next
  for (int left = rows * groups; left > 0; left -= batch) {
    const int count = left < batch ? left : batch;
    alignas(64) int32_t tops[batch], keeps[batch];
    alignas(64) float scales[batch], inverses[batch];
    for_each(count, row, group, [&](int i, int r, int g) HEED_INLINE_LAMBDA { tops[i] = top_of(x + r * x_row + g * each, each); });
    for (int i = count; i % W != 0; ++i) tops[i] = 0;
    for (int i = 0; i < count; i += W) {
      const Quantizers made(load(tops + i));
      store(scales + i, made.scale);
      store(inverses + i, made.inverse);
      store(keeps + i, made.keep);
    }
    for_each(count, to_row, to_group, [&](int i, int r, int g) HEED_INLINE_LAMBDA {
      scale[r * scale_row + g] = scales[i];
      quantize_with(Quantizer{splat(inverses[i]), splat(keeps[i])}, x + r * x_row + g * each, each,
                    q + r * q_row + g * each);
    });
  }
}

}  // namespace
}  // namespace heed::HEED_ISA

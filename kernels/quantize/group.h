#pragma once
/// Groups of int8 from floats: kernels/quantize/quantize.h has the formula; those of a given scale are
/// kernels/matmul_i8/matmul_i8.h's. After kernels/simd.h or kernels/scalar.h.
#include <cstddef>

#include "kernels/inline.h"
#include "kernels/quantize/quantize.h"

namespace heed::HEED_ISA {
namespace {

/// What the extents of groups make of them: a lane for each.
struct Quantizers {
  F scale, inverse;
  I zero, keep;  // keep: the lowest byte, or nothing where the group becomes zeros

  /// Of the largest magnitudes, as bits. As integers NaNs come after infinity, which comes after all numbers.
  HEED_INLINE static Quantizers symmetric(I top) {
    Quantizers made(as_f(top), 127.0f);
    made.zero = splat(0);
    return made;
  }
  /// Of the highest and the lowest elements, as Extents has them.
  HEED_INLINE static Quantizers asymmetric(I high, I low) {
    const F depth = abs(as_f(low));
    Quantizers made(as_f(high) + depth, 253.0f);
    const F start = fma(depth, made.inverse, splat(-126.25f)) + splat(12582912.0f);
    made.zero = select(equal(made.keep, splat(0)), splat(0), sub(as_i(start), splat(0x4b400000)));
    return made;
  }

 private:
  HEED_INLINE Quantizers(F width, float steps) {
    const I bits = as_i(width);
    const M usable = both(less(splat(0x0d7fffff), bits), less(bits, splat(0x7f800000)));  // from 2^-100 on, finite
    scale = select(usable, div(width, splat(steps)), width * HEED_ISA::zero());
    inverse = select(usable, div(splat(steps), width), HEED_ISA::zero());
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

/// The highest and the lowest of elements and 0, as bits: the largest of signed and of unsigned integers. NaNs come
/// after infinity, whatever their sign.
struct Extents {
  I high[4], low[4];

  HEED_INLINE Extents() {
    unroll<4>([&](auto c) HEED_INLINE_LAMBDA { high[c] = splat(0), low[c] = splat(INT32_MIN); });
  }
  HEED_INLINE void take(const float* x, int n) {
    const auto take = [&](auto c, F a) HEED_INLINE_LAMBDA {
      high[c] = max(high[c], as_i(a));
      low[c] = max_unsigned(low[c], as_i(a));
    };
    constexpr std::integral_constant<int, 0> first;
    int i = 0;
    for (; i + 4 * W <= n; i += 4 * W) unroll<4>([&](auto c) HEED_INLINE_LAMBDA { take(c, load(x + i + c * W)); });
    for (; i + W <= n; i += W) take(first, load(x + i));
    if (i < n) take(first, load_first(x + i, n - i));
  }
  struct Bits {
    int32_t high, low;
  };
  HEED_INLINE Bits fold() const {
    // All of `low` is below 0 as signed integers, in the same order.
    return {fold_max(max(max(high[0], high[1]), max(high[2], high[3]))),
            fold_max(max(max(low[0], low[1]), max(low[2], low[3])))};
  }
};

/// To the scale and zero point of a group.
struct Quantizer {
  F inverse, zero;
  I keep;

  HEED_INLINE Quantizer(F inverse_of, I zero_of, I keep_of)
      : inverse(inverse_of), zero(as_f(add(zero_of, splat(0x4b400000)))), keep(keep_of) {}
  /// In the lowest byte of each lane; the others are 0.
  HEED_INLINE I operator()(F x) const { return as_i(fma(x, inverse, zero)) & keep; }
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

/// Rows of n floats: kernels/quantize/quantize.h.
HEED_INLINE void quantize_rows(const float* x, ptrdiff_t x_row, int rows, int n, const RowsI8& to) {
  // Divisions are slow: one for the groups of a vector. And what is written lane by lane and read as a vector has to
  // wait, so all of a batch is written before.
  constexpr int batch = 4 * W;
  const int each = n / to.groups;
  const auto for_each = [&](int count, int& row, int& group, auto body) HEED_INLINE_LAMBDA {
    for (int i = 0; i < count; ++i) {
      body(i, row, group);
      if (++group == to.groups) ++row, group = 0;
    }
  };
  int row = 0, group = 0, to_row = 0, to_group = 0;  // whose scale is found next, and which is quantised next
  for (int left = rows * to.groups; left > 0; left -= batch) {
    const int count = left < batch ? left : batch;
    alignas(64) int32_t tops[batch], lows[batch], zeros[batch], keeps[batch];
    alignas(64) float scales[batch], inverses[batch];
    for_each(count, row, group, [&](int i, int r, int g) HEED_INLINE_LAMBDA {
      const float* from = x + r * x_row + g * each;
      if (to.zero == nullptr) {
        tops[i] = top_of(from, each);
      } else {
        Extents extents;
        extents.take(from, each);
        const auto [high, low] = extents.fold();
        tops[i] = high, lows[i] = low;
      }
    });
    for (int i = count; i % W != 0; ++i) tops[i] = lows[i] = 0;
    for (int i = 0; i < count; i += W) {
      const Quantizers made = to.zero == nullptr ? Quantizers::symmetric(load(tops + i))
                                                 : Quantizers::asymmetric(load(tops + i), load(lows + i));
      store(scales + i, made.scale);
      store(inverses + i, made.inverse);
      store(zeros + i, made.zero);
      store(keeps + i, made.keep);
    }
    for_each(count, to_row, to_group, [&](int i, int r, int g) HEED_INLINE_LAMBDA {
      to.scale[r * to.scale_row + g] = scales[i];
      if (to.zero != nullptr) to.zero[r * to.zero_row + g] = zeros[i];
      quantize_with(Quantizer(splat(inverses[i]), splat(zeros[i]), splat(keeps[i])), x + r * x_row + g * each, each,
                    to.q + r * to.q_row + g * each);
    });
  }
}

}  // namespace
}  // namespace heed::HEED_ISA

#pragma once
/// The names of simd.h for one lane: float, int32_t and bool. Reference loops are written with these, so a map's
/// reference is its SIMD template at width 1, and the same header math.h serves both.
#include <bit>
#include <cstdint>

#include "kernels/inline.h"

namespace heed::portable {
namespace {

inline constexpr int W = 1;
using F = float;
using I = int32_t;
using M = bool;

// clang-format off

HEED_INLINE I as_i(F a) { return std::bit_cast<I>(a); }
HEED_INLINE F as_f(I a) { return std::bit_cast<F>(a); }

// Memory holds the one or the other type as the caller says: copied, never aliased.
template <class V>
HEED_INLINE V copy_in(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
HEED_INLINE F load(const float* p) { return copy_in<F>(p); }
HEED_INLINE I load(const int32_t* p) { return copy_in<I>(p); }
HEED_INLINE I load(const int8_t* p) { return *p; }
HEED_INLINE I load(const uint8_t* p) { return *p; }
HEED_INLINE void store_low(uint8_t* p, I a) { *p = static_cast<uint8_t>(a); }
HEED_INLINE void store_bytes(int8_t* p, I a, I b, I c, I d) {
  p[0] = static_cast<int8_t>(a), p[1] = static_cast<int8_t>(b), p[2] = static_cast<int8_t>(c), p[3] = static_cast<int8_t>(d);
}
HEED_INLINE F load_first(const float* p, int n) { return n > 0 ? load(p) : 0.0f; }
HEED_INLINE I load_first(const int32_t* p, int n) { return n > 0 ? load(p) : 0; }
HEED_INLINE void store(float* p, F a) { __builtin_memcpy(p, &a, sizeof a); }
HEED_INLINE void store(int32_t* p, I a) { __builtin_memcpy(p, &a, sizeof a); }
HEED_INLINE void store_first(float* p, F a, int n) { if (n > 0) store(p, a); }
HEED_INLINE void store_first(int32_t* p, I a, int n) { if (n > 0) store(p, a); }
HEED_INLINE F splat(float a) { return a; }
HEED_INLINE I splat(int32_t a) { return a; }
HEED_INLINE F zero() { return 0.0f; }
HEED_INLINE I iota() { return 0; }
HEED_INLINE M first_lanes(int n) { return n > 0; }
#if defined(__x86_64__)
HEED_INLINE void pin(F& a) { asm("" : "+x"(a)); }
#elif defined(__aarch64__)
HEED_INLINE void pin(F& a) { asm("" : "+w"(a)); }
#elif defined(__ARM_FP)
HEED_INLINE void pin(F& a) { asm("" : "+t"(a)); }
#else
HEED_INLINE void pin(F& a) { asm("" : "+m"(a)); }
#endif

HEED_INLINE M less(F a, F b) { return a < b; }
HEED_INLINE M less_equal(F a, F b) { return a <= b; }
HEED_INLINE M equal(F a, F b) { return a == b; }
HEED_INLINE M less(I a, I b) { return a < b; }
HEED_INLINE M less_equal(I a, I b) { return a <= b; }
HEED_INLINE M equal(I a, I b) { return a == b; }
HEED_INLINE M both(M a, M b) { return a && b; }
HEED_INLINE M either(M a, M b) { return a || b; }
HEED_INLINE F select(M m, F a, F b) { return m ? a : b; }
HEED_INLINE I select(M m, I a, I b) { return m ? a : b; }
HEED_INLINE I bits_of(M m) { return -static_cast<I>(m); }
HEED_INLINE M sign_of(I a) { return a < 0; }

HEED_INLINE F neg(F a) { return as_f(as_i(a) ^ INT32_MIN); }
HEED_INLINE F abs(F a) { return as_f(as_i(a) & INT32_MAX); }
HEED_INLINE F copy_sign(F a, F sign) { return as_f(as_i(a) | (as_i(sign) & INT32_MIN)); }  // a >= 0
HEED_INLINE M is_nan(F a) { return as_i(abs(a)) > 0x7f800000; }

// Integers wrap: the sums are taken unsigned.
HEED_INLINE I add(I a, I b) { return static_cast<I>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }
HEED_INLINE I sub(I a, I b) { return static_cast<I>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)); }
HEED_INLINE I mul(I a, I b) { return static_cast<I>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b)); }
HEED_INLINE I min(I a, I b) { return a < b ? a : b; }
HEED_INLINE I max(I a, I b) { return a < b ? b : a; }
HEED_INLINE I max_unsigned(I a, I b) { return static_cast<uint32_t>(a) < static_cast<uint32_t>(b) ? b : a; }
HEED_INLINE I fold_max(I a) { return a; }
HEED_INLINE F first_lane(F a) { return a; }
HEED_INLINE I shl(I a, I n) { return static_cast<I>(static_cast<uint32_t>(a) << (n & 31)); }
HEED_INLINE I shr(I a, I n) { return a >> (n & 31); }
template <int n> HEED_INLINE I shl(I a) { return shl(a, n); }
template <int n> HEED_INLINE I shr(I a) { return shr(a, n); }
template <int n> HEED_INLINE I shr_logical(I a) { return static_cast<I>(static_cast<uint32_t>(a) >> n); }

// clang-format on

/// a * b + c, rounded once.
HEED_INLINE F fma(F a, F b, F c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  // In double the product is exact; the sum is rounded to odd (its error, found by Knuth's two-sum, sets the last bit),
  // so that rounding to float again gives what one rounding would have given (Boldo, Melquiond 2008, "Emulation of FMA
  // and correctly rounded sums: proved algorithms using rounding to odd"). An infinite or NaN sum has a NaN error,
  // which moves nothing.
  const double p = static_cast<double>(a) * b, s = p + c;
  const double r = s - p, error = (p - (s - r)) + (c - r);
  const int64_t bits = std::bit_cast<int64_t>(s);
  const int64_t away = (error > 0) == (s > 0) ? 1 : -1;
  const int64_t inexact = (error > 0) | (error < 0);
  return static_cast<float>(std::bit_cast<double>(bits + (away & -(inexact & ~bits & 1))));
#endif
}

HEED_INLINE F div(F a, F b) {
  return a / b;
}
HEED_INLINE F sqrt(F a) {
  return __builtin_sqrtf(a);
}
HEED_INLINE F max_fast(F a, F b) {
  return a > b ? a : b;
}
HEED_INLINE F min_fast(F a, F b) {
  return a < b ? a : b;
}

/// The same value, but a subnormal is zero. (The pinned -0 keeps the compiler from dropping the sum.)
HEED_INLINE F flush(F a) {
  F none = splat(-0.0f);
  pin(none);
  return a + none;
}

/// The larger, NaN if an operand is NaN; +0 is larger than -0; a subnormal counts as zero and becomes it.
HEED_INLINE F max(F a, F b) {
  const I zeros = as_i(a) & as_i(b);
  const F c = a > b ? a : a < b ? b : as_f(zeros);
  return flush(a <= b || b < a ? c : as_f(0x7fc00000));
}

/// The smaller, NaN if an operand is NaN; -0 is smaller than +0; a subnormal counts as zero and becomes it.
HEED_INLINE F min(F a, F b) {
  const I zeros = as_i(a) | as_i(b);
  const F c = a < b ? a : a > b ? b : as_f(zeros);
  return flush(a <= b || b < a ? c : as_f(0x7fc00000));
}

/// To the nearest integer, halves to even: 2^23 is added and taken off.
HEED_INLINE F round_even(F a) {
  const F magnitude = abs(a);
  return magnitude < 8388608.0f ? copy_sign((magnitude + 8388608.0f) - 8388608.0f, a) : a;
}
HEED_INLINE F floor(F a) {
  const F r = round_even(a);
  return as_f(as_i(r - (a < r ? 1.0f : 0.0f)) | (as_i(a) & INT32_MIN));
}
HEED_INLINE F ceil(F a) {
  const F r = round_even(a);
  return as_f(as_i(r + (r < a ? 1.0f : 0.0f)) | (as_i(a) & INT32_MIN));
}

HEED_INLINE F to_f(I a) {
  return static_cast<F>(a);
}

/// Toward zero; out of range saturates, NaN is 0.
HEED_INLINE I to_i(F a) {
  const F inside = a >= -2147483648.0f ? a < 2147483648.0f ? a : 0.0f : 0.0f;
  return static_cast<I>(inside) | (a >= 2147483648.0f ? INT32_MAX : 0) | (a < -2147483648.0f ? INT32_MIN : 0);
}

/// The 16 accumulators over which every reduction is defined: element i goes to accumulator i mod 16, and the
/// accumulators are joined by one tree: i and i + 8, then i + 4, i + 2, i + 1.
struct Lanes16 {
  float v[16];

  HEED_INLINE static Lanes16 splat(float a) {
    Lanes16 lanes;
    for (float& lane : lanes.v) lane = a;
    return lanes;
  }
  HEED_INLINE static Lanes16 zero() { return splat(0.0f); }
  HEED_INLINE void add(const float* x) { add_first(x, 16); }
  HEED_INLINE void add_first(const float* x, int n) {
    for (int i = 0; i < n; ++i) v[i] += x[i];
  }
  template <class Join>
  HEED_INLINE float fold(Join join) const {
    float t[16];
    for (int i = 0; i < 16; ++i) t[i] = v[i];
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) t[i] = join(t[i], t[i + half]);
    return t[0];
  }
  HEED_INLINE float fold_sum() const {
    return fold([](float a, float b) { return a + b; });
  }
  HEED_INLINE float fold_max() const {
    return fold([](float a, float b) { return max(a, b); });
  }
};

}  // namespace
}  // namespace heed::portable

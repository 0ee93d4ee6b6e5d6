#pragma once
/// Vectors of the instruction set HEED_ISA, for <op>.simd.cpp files alone; scalar.h has the same names for one lane.
///
/// Every function gives the same bits on every instruction set, lane by lane, NaN's sign and payload aside. xsimd
/// supplies the vector type, loads, stores, plain arithmetic, comparisons and bit operations; heed's own are fused
/// multiply-add, division, square root, rounding, conversion to int, min and max, where xsimd's differ between
/// instruction sets.
///
/// Everything has internal linkage: files of different flags must not share a symbol, or the linker could give baseline
/// code a function with instructions that its processor lacks.
#include <cstdint>
#include <xsimd/xsimd.hpp>

#include "kernels/inline.h"

namespace heed::HEED_ISA {
namespace {

using FBatch = xsimd::batch<float>;
using IBatch = xsimd::batch<int32_t>;
using MBatch = FBatch::batch_bool_type;
using IMBatch = IBatch::batch_bool_type;

/// Lanes of a vector.
inline constexpr int W = static_cast<int>(FBatch::size);
static_assert(16 % W == 0 && W == static_cast<int>(IBatch::size));

struct F {
  FBatch::register_type v;
};
struct I {
  IBatch::register_type v;
};
struct M {
  MBatch::register_type v;
};  // true or false in each lane

// clang-format off

// Bits.
#if defined(__AVX512F__)
HEED_INLINE I as_i(F a) { return {_mm512_castps_si512(a.v)}; }
HEED_INLINE F as_f(I a) { return {_mm512_castsi512_ps(a.v)}; }
HEED_INLINE M to_m(IMBatch a) { return {a}; }
#elif defined(__AVX2__)
HEED_INLINE I as_i(F a) { return {_mm256_castps_si256(a.v)}; }
HEED_INLINE F as_f(I a) { return {_mm256_castsi256_ps(a.v)}; }
HEED_INLINE M to_m(IMBatch a) { return {_mm256_castsi256_ps(a)}; }
#else
HEED_INLINE I as_i(F a) { return {vreinterpretq_s32_f32(a.v)}; }
HEED_INLINE F as_f(I a) { return {vreinterpretq_f32_s32(a.v)}; }
HEED_INLINE M to_m(IMBatch a) { return {a}; }
#endif

// Loads, stores, constants: no alignment is asked for.
HEED_INLINE F load(const float* p) { return {FBatch::load_unaligned(p)}; }
HEED_INLINE I load(const int32_t* p) { return {IBatch::load_unaligned(p)}; }
HEED_INLINE void store(float* p, F a) { FBatch(a.v).store_unaligned(p); }
HEED_INLINE void store(int32_t* p, I a) { IBatch(a.v).store_unaligned(p); }
HEED_INLINE F splat(float a) { return {FBatch(a)}; }
HEED_INLINE I splat(int32_t a) { return {IBatch(a)}; }
HEED_INLINE F zero() { return splat(0.0f); }

/// 0, 1, ..., W - 1
HEED_INLINE I iota() {
  alignas(64) static constexpr int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(lanes);
}

// Arithmetic; int32 wraps.
HEED_INLINE F operator+(F a, F b) { return {FBatch(a.v) + FBatch(b.v)}; }
HEED_INLINE F operator-(F a, F b) { return {FBatch(a.v) - FBatch(b.v)}; }
HEED_INLINE F operator*(F a, F b) { return {FBatch(a.v) * FBatch(b.v)}; }
HEED_INLINE I operator+(I a, I b) { return {IBatch(a.v) + IBatch(b.v)}; }
HEED_INLINE I operator-(I a, I b) { return {IBatch(a.v) - IBatch(b.v)}; }
HEED_INLINE I operator*(I a, I b) { return {IBatch(a.v) * IBatch(b.v)}; }
HEED_INLINE I add(I a, I b) { return a + b; }
HEED_INLINE I sub(I a, I b) { return a - b; }
HEED_INLINE I mul(I a, I b) { return a * b; }
HEED_INLINE I operator&(I a, I b) { return {IBatch(a.v) & IBatch(b.v)}; }
HEED_INLINE I operator|(I a, I b) { return {IBatch(a.v) | IBatch(b.v)}; }
HEED_INLINE I operator^(I a, I b) { return {IBatch(a.v) ^ IBatch(b.v)}; }
HEED_INLINE F operator&(F a, F b) { return as_f(as_i(a) & as_i(b)); }
HEED_INLINE F operator|(F a, F b) { return as_f(as_i(a) | as_i(b)); }
HEED_INLINE F operator^(F a, F b) { return as_f(as_i(a) ^ as_i(b)); }

// Comparisons: false where an operand is NaN.
HEED_INLINE M less(F a, F b) { return {FBatch(a.v) < FBatch(b.v)}; }
HEED_INLINE M less_equal(F a, F b) { return {FBatch(a.v) <= FBatch(b.v)}; }
HEED_INLINE M equal(F a, F b) { return {FBatch(a.v) == FBatch(b.v)}; }
HEED_INLINE M less(I a, I b) { return to_m(IBatch(a.v) < IBatch(b.v)); }
HEED_INLINE M less_equal(I a, I b) { return to_m(IBatch(a.v) <= IBatch(b.v)); }
HEED_INLINE M equal(I a, I b) { return to_m(IBatch(a.v) == IBatch(b.v)); }
HEED_INLINE M both(M a, M b) { return {MBatch(a.v) & MBatch(b.v)}; }
HEED_INLINE M either(M a, M b) { return {MBatch(a.v) | MBatch(b.v)}; }
HEED_INLINE M operator!(M a) { return {~MBatch(a.v)}; }

#if defined(__AVX512F__)

HEED_INLINE void pin(F& a) { asm("" : "+v"(a.v)); }
HEED_INLINE void pin(I& a) { asm("" : "+v"(a.v)); }
HEED_INLINE M first_lanes(int n) { return {static_cast<__mmask16>(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1)}; }
HEED_INLINE F load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n).v, p)}; }
HEED_INLINE I load_first(const int32_t* p, int n) { return {_mm512_maskz_loadu_epi32(first_lanes(n).v, p)}; }
HEED_INLINE void store_first(float* p, F a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n).v, a.v); }
HEED_INLINE void store_first(int32_t* p, I a, int n) { _mm512_mask_storeu_epi32(p, first_lanes(n).v, a.v); }
HEED_INLINE F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
HEED_INLINE F div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
HEED_INLINE F sqrt(F a) { return {_mm512_sqrt_ps(a.v)}; }
HEED_INLINE F max_fast(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
HEED_INLINE F min_fast(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
HEED_INLINE F round_even(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F floor(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F ceil(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F select(M m, F a, F b) { return {_mm512_mask_mov_ps(b.v, m.v, a.v)}; }
HEED_INLINE I select(M m, I a, I b) { return {_mm512_mask_mov_epi32(b.v, m.v, a.v)}; }
HEED_INLINE I bits_of(M m) { return {_mm512_movm_epi32(m.v)}; }
HEED_INLINE M sign_of(I a) { return {_mm512_movepi32_mask(a.v)}; }
HEED_INLINE F to_f(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
HEED_INLINE I min(I a, I b) { return {_mm512_min_epi32(a.v, b.v)}; }
HEED_INLINE I max(I a, I b) { return {_mm512_max_epi32(a.v, b.v)}; }
HEED_INLINE I max_unsigned(I a, I b) { return {_mm512_max_epu32(a.v, b.v)}; }
template <int n> HEED_INLINE I shl(I a) { return {_mm512_slli_epi32(a.v, n)}; }
template <int n> HEED_INLINE I shr(I a) { return {_mm512_srai_epi32(a.v, n)}; }
template <int n> HEED_INLINE I shr_logical(I a) { return {_mm512_srli_epi32(a.v, n)}; }
HEED_INLINE I shl(I a, I n) { return {_mm512_sllv_epi32(a.v, (n & splat(31)).v)}; }
HEED_INLINE I shr(I a, I n) { return {_mm512_srav_epi32(a.v, (n & splat(31)).v)}; }
HEED_INLINE I load(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
HEED_INLINE I load(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
HEED_INLINE void store_low(uint8_t* p, I a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v)); }
// store_bytes: 4 W lanes of 0 to 255 each, as bytes.
HEED_INLINE void store_bytes(int8_t* p, I a, I b, I c, I d) {
  const __m512i bytes = _mm512_packus_epi16(_mm512_packus_epi32(a.v, b.v), _mm512_packus_epi32(c.v, d.v));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, bytes));
}
HEED_INLINE F swap_pairs(F a) { return {_mm512_permute_ps(a.v, 0xb1)}; }
HEED_INLINE float first_lane(F a) { return _mm512_cvtss_f32(a.v); }
template <int n> HEED_INLINE F down(F a) {
  if constexpr (n == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
  else if constexpr (n == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
  else return {_mm512_permute_ps(a.v, n == 2 ? 0x4e : 0xb1)};
}

#elif defined(__AVX2__)

HEED_INLINE void pin(F& a) { asm("" : "+x"(a.v)); }
HEED_INLINE void pin(I& a) { asm("" : "+x"(a.v)); }
HEED_INLINE M first_lanes(int n) { return less(iota(), splat(n)); }
HEED_INLINE F load_first(const float* p, int n) { return {_mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n).v))}; }
HEED_INLINE I load_first(const int32_t* p, int n) { return {_mm256_maskload_epi32(p, _mm256_castps_si256(first_lanes(n).v))}; }
// In parts: a masked store takes a dozen cycles on AMD's cores.
HEED_INLINE void store_first(float* p, F a, int n) {
  if (n >= 8) return _mm256_storeu_ps(p, a.v);
  __m128 part = _mm256_castps256_ps128(a.v);
  if (n >= 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps(a.v, 1);
    p += 4;
    n -= 4;
  }
  if (n >= 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
    n -= 2;
  }
  if (n >= 1) _mm_store_ss(p, part);
}
HEED_INLINE void store_first(int32_t* p, I a, int n) { store_first(reinterpret_cast<float*>(p), as_f(a), n); }
HEED_INLINE F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
HEED_INLINE F div(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
HEED_INLINE F sqrt(F a) { return {_mm256_sqrt_ps(a.v)}; }
HEED_INLINE F max_fast(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
HEED_INLINE F min_fast(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }
HEED_INLINE F round_even(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F floor(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F ceil(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
HEED_INLINE F select(M m, F a, F b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
HEED_INLINE I select(M m, I a, I b) { return as_i(select(m, as_f(a), as_f(b))); }
HEED_INLINE I bits_of(M m) { return {_mm256_castps_si256(m.v)}; }
HEED_INLINE M sign_of(I a) { return {_mm256_castsi256_ps(_mm256_srai_epi32(a.v, 31))}; }
HEED_INLINE F to_f(I a) { return {_mm256_cvtepi32_ps(a.v)}; }
HEED_INLINE I min(I a, I b) { return {_mm256_min_epi32(a.v, b.v)}; }
HEED_INLINE I max(I a, I b) { return {_mm256_max_epi32(a.v, b.v)}; }
HEED_INLINE I max_unsigned(I a, I b) { return {_mm256_max_epu32(a.v, b.v)}; }
template <int n> HEED_INLINE I shl(I a) { return {_mm256_slli_epi32(a.v, n)}; }
template <int n> HEED_INLINE I shr(I a) { return {_mm256_srai_epi32(a.v, n)}; }
template <int n> HEED_INLINE I shr_logical(I a) { return {_mm256_srli_epi32(a.v, n)}; }
HEED_INLINE I shl(I a, I n) { return {_mm256_sllv_epi32(a.v, (n & splat(31)).v)}; }
HEED_INLINE I shr(I a, I n) { return {_mm256_srav_epi32(a.v, (n & splat(31)).v)}; }
HEED_INLINE I load(const int8_t* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
HEED_INLINE I load(const uint8_t* p) { return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
HEED_INLINE void store_low(uint8_t* p, I a) {
  const __m256i low = _mm256_shuffle_epi8(a.v, _mm256_set1_epi32(0x0c080400));  // the low bytes of each half's four lanes
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), both);
}
HEED_INLINE void store_bytes(int8_t* p, I a, I b, I c, I d) {
  const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(a.v, b.v), _mm256_packus_epi32(c.v, d.v));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, order));
}
HEED_INLINE F swap_pairs(F a) { return {_mm256_permute_ps(a.v, 0xb1)}; }
HEED_INLINE float first_lane(F a) { return _mm256_cvtss_f32(a.v); }
template <int n> HEED_INLINE F down(F a) {
  if constexpr (n == 4) return {_mm256_permute2f128_ps(a.v, a.v, 1)};
  else return {_mm256_permute_ps(a.v, n == 2 ? 0x4e : 0xb1)};
}

#else  // NEON

HEED_INLINE void pin(F& a) { asm("" : "+w"(a.v)); }
HEED_INLINE void pin(I& a) { asm("" : "+w"(a.v)); }
HEED_INLINE M first_lanes(int n) { return less(iota(), splat(n)); }
HEED_INLINE F load_first(const float* p, int n) {
  if (n >= 4) return load(p);
  F a = zero();
  if (n > 0) a.v = vld1q_lane_f32(p, a.v, 0);
  if (n > 1) a.v = vld1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) a.v = vld1q_lane_f32(p + 2, a.v, 2);
  return a;
}
HEED_INLINE I load_first(const int32_t* p, int n) { return as_i(load_first(reinterpret_cast<const float*>(p), n)); }
HEED_INLINE void store_first(float* p, F a, int n) {
  if (n >= 4) return store(p, a);
  if (n > 0) vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}
HEED_INLINE void store_first(int32_t* p, I a, int n) { store_first(reinterpret_cast<float*>(p), as_f(a), n); }
HEED_INLINE F fma(F a, F b, F c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
HEED_INLINE F max_fast(F a, F b) { return {vmaxq_f32(a.v, b.v)}; }
HEED_INLINE F min_fast(F a, F b) { return {vminq_f32(a.v, b.v)}; }
HEED_INLINE F select(M m, F a, F b) { return {vbslq_f32(m.v, a.v, b.v)}; }
HEED_INLINE I select(M m, I a, I b) { return {vbslq_s32(m.v, a.v, b.v)}; }
HEED_INLINE I bits_of(M m) { return {vreinterpretq_s32_u32(m.v)}; }
HEED_INLINE M sign_of(I a) { return {vreinterpretq_u32_s32(vshrq_n_s32(a.v, 31))}; }
HEED_INLINE F to_f(I a) { return {vcvtq_f32_s32(a.v)}; }
HEED_INLINE I min(I a, I b) { return {vminq_s32(a.v, b.v)}; }
HEED_INLINE I max(I a, I b) { return {vmaxq_s32(a.v, b.v)}; }
HEED_INLINE I max_unsigned(I a, I b) { return {vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a.v), vreinterpretq_u32_s32(b.v)))}; }
template <int n> HEED_INLINE I shl(I a) { return {vshlq_n_s32(a.v, n)}; }
template <int n> HEED_INLINE I shr(I a) { return {vshrq_n_s32(a.v, n)}; }
template <int n> HEED_INLINE I shr_logical(I a) { return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), n))}; }
HEED_INLINE I shl(I a, I n) { return {vshlq_s32(a.v, (n & splat(31)).v)}; }
HEED_INLINE I shr(I a, I n) { return {vshlq_s32(a.v, vnegq_s32((n & splat(31)).v))}; }
HEED_INLINE I load(const int8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return {vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))))};
}
HEED_INLINE I load(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))))};
}
HEED_INLINE void store_low(uint8_t* p, I a) {
  const uint16x4_t half = vmovn_u32(vreinterpretq_u32_s32(a.v));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(half, half))), 0);
  __builtin_memcpy(p, &four, 4);
}
HEED_INLINE void store_bytes(int8_t* p, I a, I b, I c, I d) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v), vmovn_s32(b.v)), high = vcombine_s16(vmovn_s32(c.v), vmovn_s32(d.v));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
HEED_INLINE F swap_pairs(F a) { return {vrev64q_f32(a.v)}; }
HEED_INLINE float first_lane(F a) { return vgetq_lane_f32(a.v, 0); }
template <int n> HEED_INLINE F down(F a) { return {vextq_f32(a.v, a.v, n)}; }

#if defined(__aarch64__)
HEED_INLINE F div(F a, F b) { return {vdivq_f32(a.v, b.v)}; }
HEED_INLINE F sqrt(F a) { return {vsqrtq_f32(a.v)}; }
HEED_INLINE F round_even(F a) { return {vrndnq_f32(a.v)}; }
HEED_INLINE F floor(F a) { return {vrndmq_f32(a.v)}; }
HEED_INLINE F ceil(F a) { return {vrndpq_f32(a.v)}; }
#else
// ARMv7's vectors have only estimates: VFP divides lane by lane. Nor do they round to integers: 2^23 is added and taken off.
HEED_INLINE F div(F a, F b) { return {a.v / b.v}; }
HEED_INLINE F sqrt(F a) {
  return {float32x4_t{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}};
}
HEED_INLINE F round_even(F a) {
  const F sign = a & splat(-0.0f), magnitude = a ^ sign, magic = splat(8388608.0f);
  return select(less(magnitude, magic), ((magnitude + magic) - magic) | sign, a);
}
HEED_INLINE F floor(F a) {
  const F r = round_even(a);
  return (r - (as_f(bits_of(less(a, r))) & splat(1.0f))) | (a & splat(-0.0f));
}
HEED_INLINE F ceil(F a) {
  const F r = round_even(a);
  return (r + (as_f(bits_of(less(r, a))) & splat(1.0f))) | (a & splat(-0.0f));
}
#endif

#endif

HEED_INLINE F neg(F a) { return a ^ splat(-0.0f); }
HEED_INLINE F abs(F a) { return as_f(as_i(a) & splat(0x7fffffff)); }
HEED_INLINE F copy_sign(F a, F sign) { return a | (sign & splat(-0.0f)); }  // a >= 0
HEED_INLINE M is_nan(F a) { return less(splat(0x7f800000), as_i(abs(a))); }

// clang-format on

/// Toward zero; out of range saturates, NaN is 0.
HEED_INLINE I to_i(F a) {
#if defined(__AVX512F__)
  // The machine gives 0x80000000 for all it cannot represent.
  const I r{_mm512_maskz_cvttps_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_ORD_Q), a.v)};
  return select(less_equal(splat(2147483648.0f), a), splat(0x7fffffff), r);
#elif defined(__AVX2__)
  const I r{_mm256_and_si256(_mm256_cvttps_epi32(a.v), _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_ORD_Q)))};
  return r ^ bits_of(less_equal(splat(2147483648.0f), a));
#else
  return {vcvtq_s32_f32(a.v)};
#endif
}

/// The same value, but a subnormal is zero. (The pinned -0 keeps the compiler from dropping the sum.)
HEED_INLINE F flush(F a) {
  F none = splat(-0.0f);
  pin(none);
  return a + none;
}

/// The larger, NaN if an operand is NaN; +0 is larger than -0; a subnormal counts as zero and becomes it.
HEED_INLINE F max(F a, F b) {
#if defined(__AVX2__)
  // The machine returns its second operand where one is NaN or both are zeros: both orders give both operands there.
  const F c = max_fast(a, b) & max_fast(b, a);
  return flush(select(either(less_equal(a, b), less(b, a)), c, as_f(splat(0x7fc00000))));
#else
  return max_fast(a, b);
#endif
}

/// The smaller, NaN if an operand is NaN; -0 is smaller than +0; a subnormal counts as zero and becomes it.
HEED_INLINE F min(F a, F b) {
#if defined(__AVX2__)
  return flush(min_fast(a, b) | min_fast(b, a));
#else
  return min_fast(a, b);
#endif
}

HEED_INLINE int32_t first_lane(I a) {
  return __builtin_bit_cast(int32_t, first_lane(as_f(a)));
}
template <int n>
HEED_INLINE I down(I a) {
  return as_i(down<n>(as_f(a)));
}

/// 16 accumulators, element i in lane i mod 16, joined by the fixed tree: i and i + 8, then i + 4, i + 2, i + 1.
template <class V, class Join>
HEED_INLINE auto fold16(const V (&v)[16 / W], Join join) {
  V x = v[0];
  if constexpr (W == 16) x = join(x, down<8>(x));
  if constexpr (W == 8) x = join(v[0], v[1]);
  if constexpr (W == 4) x = join(join(v[0], v[2]), join(v[1], v[3]));
  if constexpr (W >= 8) x = join(x, down<4>(x));
  x = join(x, down<2>(x));
  x = join(x, down<1>(x));
  return first_lane(x);
}

/// The largest lane.
HEED_INLINE int32_t fold_max(I a) {
  if constexpr (W == 16) a = max(a, down<8>(a));
  if constexpr (W >= 8) a = max(a, down<4>(a));
  a = max(a, down<2>(a));
  return first_lane(max(a, down<1>(a)));
}

/// The 16 accumulators over which every reduction is defined: element i goes to accumulator i mod 16, and the
/// accumulators are joined by one tree: i and i + 8, then i + 4, i + 2, i + 1.
struct Lanes16 {
  F v[16 / W];

  HEED_INLINE static Lanes16 splat(float a) {
    Lanes16 lanes;
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { lanes.v[j] = HEED_ISA::splat(a); });
    return lanes;
  }
  HEED_INLINE static Lanes16 zero() { return splat(0.0f); }

  /// Adds 16 elements.
  HEED_INLINE void add(const float* x) {
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { v[j] = v[j] + load(x + j * W); });
  }
  /// Adds the first n of 16 elements. (An accumulator that started at +0 is never -0: the +0 added elsewhere changes
  /// nothing.)
  HEED_INLINE void add_first(const float* x, int n) {
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { v[j] = v[j] + load_first(x + j * W, n - j * W); });
  }

  template <class Join>
  HEED_INLINE float fold(Join join) const {
    return fold16(v, join);
  }
  HEED_INLINE float fold_sum() const {
    return fold([](F a, F b) HEED_INLINE_LAMBDA { return a + b; });
  }
  HEED_INLINE float fold_max() const {
    return fold([](F a, F b) HEED_INLINE_LAMBDA { return max(a, b); });
  }
};

}  // namespace
}  // namespace heed::HEED_ISA

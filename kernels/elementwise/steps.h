#pragma once
/// What each step computes, over the vectors of simd.h or scalar.h and math.h, which were included before. Booleans are
/// lanes of all ones or all zeros.
#include "kernels/elementwise/elementwise.h"

namespace heed::HEED_ISA {
namespace {

HEED_INLINE F truncate(F a) {
  return copy_sign(floor(abs(a)), a);
}

/// The remainder of |a| / |b| with the sign of a, exact for |a / b| up to 2^46; beyond, the bits are defined, no more.
HEED_INLINE F remainder(F a, F b) {
  const F divisor = abs(b), infinity = as_f(splat(0x7f800000));
  F r = abs(a);
  for (int round = 0; round < 2; ++round) r = fma(neg(floor(div(r, divisor))), divisor, r);
  r = select(less(r, zero()), r + divisor, r);  // the quotient had been rounded up
  r = copy_sign(abs(r), a);
  return select(both(equal(divisor, infinity), less(abs(a), infinity)), flush(a), r);
}

/// The quotient toward zero of two integers, found in double, which holds it exactly; 0 where b is 0, and it wraps.
HEED_INLINE int32_t quotient_lane(int32_t a, int32_t b) {
  const bool one = (b == 0) | ((b == -1) & (a == INT32_MIN));  // no branch on data
  const int32_t q = static_cast<int32_t>(static_cast<double>(a) / static_cast<double>(one ? 1 : b));
  return b == 0 ? 0 : q;
}
HEED_INLINE I quotient(I a, I b) {
  int32_t lanes[2][W];
  store(lanes[0], a);
  store(lanes[1], b);
  for (int i = 0; i < W; ++i) lanes[0][i] = quotient_lane(lanes[0][i], lanes[1][i]);
  return load(lanes[0]);
}
HEED_INLINE I remainder(I a, I b) {
  return select(equal(b, splat(0)), b, sub(a, mul(quotient(a, b), b)));
}

/// One vector of a step. Operands that it lacks are not looked at.
template <Step step, class A, class B, class C>
HEED_INLINE auto compute(A a, B b, C c) {
  using enum Step;
  if constexpr (step == f_add)
    return a + b;
  else if constexpr (step == f_sub)
    return a - b;
  else if constexpr (step == f_mul)
    return a * b;
  else if constexpr (step == f_div)
    return div(a, b);
  else if constexpr (step == f_fma)
    return fma(a, b, c);
  else if constexpr (step == f_min || step == i_min)
    return min(a, b);
  else if constexpr (step == f_max || step == i_max)
    return max(a, b);
  else if constexpr (step == f_pow)
    return pow(a, b);
  else if constexpr (step == f_mod) {
    const F r = remainder(a, b);
    return select(either(both(less(r, zero()), less(zero(), b)), both(less(zero(), r), less(b, zero()))), r + b, r);
  } else if constexpr (step == f_fmod || step == i_fmod)
    return remainder(a, b);
  else if constexpr (step == f_neg)
    return neg(a);
  else if constexpr (step == f_abs)
    return abs(a);
  else if constexpr (step == f_sign)  // zeros and NaN stay
    return select(less(zero(), a), splat(1.0f), select(less(a, zero()), splat(-1.0f), a * zero()));
  else if constexpr (step == f_sqrt)
    return sqrt(a);
  else if constexpr (step == f_reciprocal)
    return div(splat(1.0f), a);
  else if constexpr (step == f_floor)
    return floor(a);
  else if constexpr (step == f_ceil)
    return ceil(a);
  else if constexpr (step == f_round)
    return round_even(a);
  else if constexpr (step == f_exp)
    return exp(a);
  else if constexpr (step == f_log)
    return log(a);
  else if constexpr (step == f_sin)
    return sin(a);
  else if constexpr (step == f_cos)
    return cos(a);
  else if constexpr (step == f_tanh)
    return tanh(a);
  else if constexpr (step == f_erf)
    return erf(a);
  else if constexpr (step == f_sigmoid)
    return sigmoid(a);
  else if constexpr (step == f_relu)
    return relu(a);
  else if constexpr (step == f_gelu)
    return gelu(a);
  else if constexpr (step == f_gelu_tanh)
    return gelu_tanh(a);
  else if constexpr (step == f_silu)
    return silu(a);
  else if constexpr (step == f_softplus)
    return softplus(a);
  else if constexpr (step == f_select || step == i_select || step == b_select)
    return select(sign_of(a), b, c);
  else if constexpr (step == f_equal || step == i_equal)
    return equal(a, b);
  else if constexpr (step == f_less || step == i_less)
    return less(a, b);
  else if constexpr (step == f_less_equal || step == i_less_equal)
    return less_equal(a, b);
  else if constexpr (step == f_is_nan)
    return is_nan(a);
  else if constexpr (step == f_is_inf)
    return equal(as_i(abs(a)), splat(0x7f800000));
  else if constexpr (step == f_to_i)
    return to_i(a);
  else if constexpr (step == f_to_b)
    return !equal(a, zero());
  else if constexpr (step == i_add)
    return add(a, b);
  else if constexpr (step == i_sub)
    return sub(a, b);
  else if constexpr (step == i_mul)
    return mul(a, b);
  else if constexpr (step == i_div)
    return quotient(a, b);
  else if constexpr (step == i_mod) {
    const I r = remainder(a, b);
    return select(both(sign_of(r ^ b), !equal(r, splat(0))), add(r, b), r);
  } else if constexpr (step == i_neg)
    return sub(splat(0), a);
  else if constexpr (step == i_abs)
    return max(a, sub(splat(0), a));
  else if constexpr (step == i_sign)
    return max(splat(-1), min(splat(1), a));
  else if constexpr (step == i_and || step == b_and)
    return a & b;
  else if constexpr (step == i_or || step == b_or)
    return a | b;
  else if constexpr (step == i_xor || step == b_xor)
    return a ^ b;
  else if constexpr (step == i_not || step == b_not)
    return a ^ splat(-1);
  else if constexpr (step == i_shift_left)
    return shl(a, b);
  else if constexpr (step == i_shift_right)
    return shr(a, b);
  else if constexpr (step == i_to_f)
    return to_f(a);
  else if constexpr (step == i_to_b)
    return !equal(a, splat(0));
  else if constexpr (step == b_to_f)
    return as_f(a & splat(0x3f800000));
  else if constexpr (step == b_to_i)
    return a & splat(1);
}

}  // namespace
}  // namespace heed::HEED_ISA

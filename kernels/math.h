#pragma once
/// Elementary functions, the same bits on every instruction set. Included after simd.h or scalar.h, in whose namespace
/// it defines them.
///
/// The error beside each function is the largest found over all of float's range against double precision, in units of
/// the last place (ulp) of the result, with subnormals taken as zero. NaN gives NaN. Polynomials are minimax fits with
/// the coefficients rounded one after another, lowest order first.
#include "kernels/activation.h"

namespace heed::HEED_ISA {
namespace {

/// c[0] + c[1] x + ... by Horner's scheme in fused multiply-adds.
HEED_INLINE F polynomial(F, float last) {
  return splat(last);
}
template <class... Higher>
HEED_INLINE F polynomial(F x, float c, Higher... higher) {
  return fma(polynomial(x, higher...), x, splat(c));
}

/// `x` limited to [low, high]; NaN stays (the machine's own min and max give their second operand or NaN).
HEED_INLINE F clamp(F x, float low, float high) {
  return min_fast(splat(high), max_fast(splat(low), x));
}

namespace exponential {
inline constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: its sum with a small number rounds that to an integer
inline constexpr float log2_e = 1.442695041f;
// ln 2 in two parts, the first with 16 bits: its product with an exponent is exact.
inline constexpr float ln2_high = 0.693145752f, ln2_low = 1.42860677e-06f;

/// e^r = 1 + r + r^2 q(r) for |r| <= ln 2 / 2; q's error is 0.05 ulp of the result.
HEED_INLINE F reduced(F r) {
  const F q = polynomial(r, 0.49999994f, 0.166665211f, 0.0416682884f, 0.00836870354f, 0.00138189446f);
  return fma(q, r * r, r) + splat(1.0f);
}
}  // namespace exponential

/// e^x for x <= 0, the same bits as exp.
HEED_INLINE F exp_nonpositive(F x) {
  namespace e = exponential;
  const F c = max_fast(splat(-60.0f), x);
  const F m = fma(c, splat(e::log2_e), splat(e::round_magic));  // its low bits are the exponent
  const F k = m - splat(e::round_magic);
  const F r = fma(k, splat(-e::ln2_low), fma(k, splat(-e::ln2_high), c));
  const F y = as_f(add(as_i(e::reduced(r)), shl<23>(as_i(m))));
  return select(less_equal(splat(-44.3614197f), x), y, c - c);  // c - c is 0, or NaN where x is
}

/// e^x: 1.0 ulp. 0 for x below -44.3614 (2^-64), inf above 88.7228.
HEED_INLINE F exp(F x) {
  namespace e = exponential;
  const F c = clamp(x, -60.0f, 89.0f);
  const F m = fma(c, splat(e::log2_e), splat(e::round_magic));
  const F k = m - splat(e::round_magic);
  const F r = fma(k, splat(-e::ln2_low), fma(k, splat(-e::ln2_high), c));
  // Past the largest float the sum of the bits runs into the NaNs: there it is infinite.
  const F y = as_f(min(add(as_i(e::reduced(r)), shl<23>(as_i(m))), splat(0x7f800000)));
  return select(less_equal(splat(-44.3614197f), x), y, c - c);
}

namespace logarithm {
/// x = 2^exponent * (1 + f), 1 + f in [sqrt 1/2, sqrt 2)
struct Parts {
  F exponent, f;
};
HEED_INLINE Parts split(F x) {
  constexpr int32_t sqrt_half = 0x3f3504f3;
  const I offset = sub(as_i(x), splat(sqrt_half));
  const F m = as_f(add(offset & splat(0x007fffff), splat(sqrt_half)));
  return {to_f(shr<23>(offset)), m - splat(1.0f)};
}
/// log(1 + f) = f - f^2 / 2 + f^3 p(f); p's error is 0.1 ulp of the result.
HEED_INLINE F tail(F f) {
  return polynomial(f, 0.333333313f, -0.250008196f, 0.200012416f, -0.166234106f, 0.142015859f, -0.131595999f,
                    0.127621442f, -0.0763635635f);
}
/// What is left of y = log |x| at the ends: log 0 = -inf (subnormals too), log inf = inf, log of a negative number NaN.
HEED_INLINE F at_the_ends(F x, F y) {
  const F infinity = as_f(splat(0x7f800000));
  y = select(less(x, infinity), y, x);  // inf and NaN
  y = select(less(x, splat(0.0f)), as_f(splat(0x7fc00000)), y);
  return select(equal(x, splat(0.0f)), neg(infinity), y);
}
}  // namespace logarithm

/// Natural logarithm.
HEED_INLINE F log(F x) {
  namespace e = exponential;
  const auto [k, f] = logarithm::split(x);
  const F f2 = f * f;
  F y = fma(k, splat(e::ln2_low), (f2 * f) * logarithm::tail(f));
  y = fma(f2, splat(-0.5f), y) + f;
  return logarithm::at_the_ends(x, fma(k, splat(e::ln2_high), y));
}

/// a^b as C has it: 1 for b = 0 and for a = 1; a negative a takes an integer b, else NaN. The whole range of float.
HEED_INLINE F pow(F a, F b) {
  namespace e = exponential;
  const F one = splat(1.0f), infinity = as_f(splat(0x7f800000)), magnitude = abs(a);
  // log |a| as high + low.
  const auto [k, f] = logarithm::split(magnitude);
  const F square = f * f, square_error = fma(f, f, neg(square)), half = square * splat(-0.5f);
  const F head = f + half,
          tail = (half - (head - f)) + fma(square_error, splat(-0.5f), square * f * logarithm::tail(f));
  const F shift = k * splat(e::ln2_high), sum = shift + head;
  const F rest = fma(k, splat(e::ln2_low), (head - (sum - shift)) + tail);
  const F high = sum + rest, low = rest - (high - sum);
  // y = b * log |a|, and its exponential.
  const F y = b * logarithm::at_the_ends(magnitude, high);
  const F inside = abs(y), y_error = fma(b, high, neg(y)) + b * low;
  const F c = clamp(y, -88.0f, 89.0f);
  const F m = fma(c, splat(e::log2_e), splat(e::round_magic)), n = m - splat(e::round_magic);
  const F reduced = fma(n, splat(-e::ln2_low), fma(n, splat(-e::ln2_high), c));
  const F r = reduced + select(less(inside, splat(89.0f)), y_error, zero());
  F result = as_f(min(add(as_i(e::reduced(r)), shl<23>(as_i(m))), splat(0x7f800000)));
  result = flush(select(less(y, splat(-87.3365479f)), zero(), result));
  result = select(is_nan(y), y, result);
  // Ends and signs.
  result = select(both(equal(magnitude, one), equal(b, b)), one, result);
  const F half_b = b * splat(0.5f);
  const M whole = equal(floor(b), b), odd = both(whole, !equal(floor(half_b), half_b));
  result = select(both(odd, sign_of(as_i(a))), neg(result), result);
  result = select(both(both(less(a, zero()), less(neg(infinity), a)), !whole), as_f(splat(0x7fc00000)), result);
  return select(either(equal(b, zero()), equal(a, one)), one, result);
}

/// Hyperbolic tangent, a rational function of degree 9 / 8: 4.6 ulp, also near zero; never beyond -1 and 1.
HEED_INLINE F tanh(F x) {
  const F c = clamp(x, -8.93f, 8.93f), t = c * c;
  const F p = polynomial(t, 1.0f, 0.133855894f, 0.00350101478f, 2.06987188e-05f, 1.34798013e-08f);
  const F q = polynomial(t, 1.0f, 0.467189074f, 0.0258976109f, 0.000329452247f, 7.8275599e-07f);
  return clamp(div(c * p, q), -1.0f, 1.0f);
}

/// Error function: 4.0 ulp, also near zero; -1 and 1 from |x| = 3.95 on, never beyond.
HEED_INLINE F erf(F x) {
  const F c = clamp(x, -3.95f, 3.95f), u = fma(c * c, splat(0.128184587f), splat(-1.0f));
  const F p = polynomial(u, 0.358000755f, -0.178769618f, 0.133178055f, -0.10863445f, 0.0904595107f, -0.0743580684f,
                         0.0591143705f, -0.0441533551f, 0.0304805916f, -0.0213172752f, 0.0152589083f, -0.00759539008f,
                         0.00187558401f, -0.00193013484f, 0.00240407092f, -0.000848990458f);
  return clamp(c * p, -1.0f, 1.0f);
}

/// 1 / (1 + e^-x)
HEED_INLINE F sigmoid(F x) {
  return div(splat(1.0f), splat(1.0f) + exp(neg(x)));
}

/// x * sigmoid(x); -0 below -88.7.
HEED_INLINE F silu(F x) {
  return div(max_fast(splat(-100.0f), x), splat(1.0f) + exp(neg(x)));
}

/// x * (1 + erf(x / sqrt 2)) / 2: 2.4 ulp for x > 0, below that 6e-7 absolute; x above 5.45, -0 below -5.45.
HEED_INLINE F gelu(F x) {
  const F low = max_fast(splat(-5.45f), x), c = min_fast(splat(5.45f), low);
  const F u = fma(c * c, splat(0.0673343986f), splat(-1.0f));
  const F p = polynomial(u, 0.129729271f, -0.0647459328f, 0.0481178127f, -0.0390007794f, 0.0321070142f, -0.0259437636f,
                         0.0199816246f, -0.0143093728f, 0.0100411372f, -0.00721669244f, 0.00397816487f, -0.00118420157f,
                         0.00091590907f, -0.00119876966f, 0.000471691485f);
  return low * select(less(splat(-5.45f), x), fma(c, p, splat(0.5f)), splat(0.0f));
}

/// gelu to 8.2e-5 absolute in half the time; x above 4.16 to 1e-6, -7e-5 below -4.16.
HEED_INLINE F gelu_i8(F x) {
  const F low = max_fast(splat(-4.16f), x), c = min_fast(splat(4.16f), low);
  const F p = polynomial(c * c, 0.398497581f, -0.0655807257f, 0.00932710152f, -0.000958072138f, 6.78972865e-05f,
                         -3.11232088e-06f, 8.22401276e-08f, -9.44968992e-10f);
  return low * fma(c, p, splat(0.5f));
}

/// x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, which is x / (1 + e^-2(..))
HEED_INLINE F gelu_tanh(F x) {
  const F p = fma(x * x, splat(-0.0713548163f), splat(-1.59576912f));
  return div(max_fast(splat(-20.0f), x), splat(1.0f) + exp(x * p));
}

/// max(x, 0); -0 and subnormals give +0.
HEED_INLINE F relu(F x) {
  return select(less_equal(x, splat(0.0f)), splat(0.0f), x);
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
HEED_INLINE F softplus(F x) {
  const F e = exp_nonpositive(as_f(as_i(x) | splat(INT32_MIN)));
  const F u = splat(1.0f) + e;
  // What 1 + e lost in rounding comes back to first order.
  return relu(x) + (log(u) + (e - (u - splat(1.0f))));
}

namespace circle {
/// r = x - k * pi / 2 in [-pi/4, pi/4] as high + low, and k in the low bits of `quadrant`; good to the last bit of r
/// for |x| to 2^15.
struct Reduced {
  F high, low;
  I quadrant;
};
HEED_INLINE Reduced reduce(F x) {
  constexpr float pi_2_high = 1.57079637f, pi_2_middle = -4.37113883e-08f, pi_2_low = -1.71512451e-15f;
  const F m = fma(x, splat(0.636619747f), splat(exponential::round_magic));
  const F k = m - splat(exponential::round_magic);
  const F a = fma(k, splat(-pi_2_high), x);  // exact
  const F p = k * splat(-pi_2_middle), p_error = fma(k, splat(-pi_2_middle), neg(p));
  const F high = a + p, b = high - a;  // Knuth's two-sum: a and p may cancel
  const F error = (a - (high - b)) + (p - b);
  const F low = fma(k, splat(-pi_2_low), error + p_error);
  return {clamp(high, -1.0f, 1.0f), low, as_i(m)};
}
HEED_INLINE F sine(Reduced r) {
  const F t = r.high * r.high;
  const F s = polynomial(t, -0.166666672f, 0.0083333794f, -0.000198530644f, 2.83251006e-06f);
  return r.high + fma(t * r.high, s, r.low);
}
HEED_INLINE F cosine(Reduced r) {
  const F t = r.high * r.high;
  const F c = polynomial(t, 0.0416666679f, -0.001388898f, 2.48220076e-05f, -2.8878452e-07f);
  return splat(1.0f) + fma(t, splat(-0.5f), fma(t * t, c, neg(r.high * r.low)));
}
/// The sine of r plus quadrant quarter turns.
HEED_INLINE F turned(Reduced r, I quadrant) {
  const F y = select(sign_of(shl<31>(quadrant)), cosine(r), sine(r));
  return clamp(as_f(as_i(y) ^ (shl<30>(quadrant) & splat(INT32_MIN))), -1.0f, 1.0f);
}
}  // namespace circle

/// Sine and cosine for |x| to 2^15. Beyond, the bits are still defined and in [-1, 1], but no sine. NaN at infinity.
HEED_INLINE F sin(F x) {
  const circle::Reduced r = circle::reduce(x);
  return circle::turned(r, r.quadrant);
}
HEED_INLINE F cos(F x) {
  const circle::Reduced r = circle::reduce(x);
  return circle::turned(r, add(r.quadrant, splat(1)));
}

/// The activation of a matrix product's epilogue: the same bits as the elementwise step of that name.
template <Activation activation>
HEED_INLINE F activate(F x) {
  using enum Activation;
  if constexpr (activation == relu)
    return HEED_ISA::relu(x);
  else if constexpr (activation == gelu)
    return HEED_ISA::gelu(x);
  else if constexpr (activation == gelu_tanh)
    return HEED_ISA::gelu_tanh(x);
  else if constexpr (activation == silu)
    return HEED_ISA::silu(x);
  else if constexpr (activation == sigmoid)
    return HEED_ISA::sigmoid(x);
  else if constexpr (activation == tanh)
    return HEED_ISA::tanh(x);
  else if constexpr (activation == gelu_i8)
    return HEED_ISA::gelu_i8(x);
  else
    return x;
}

/// The same for an activation known at run time only.
HEED_INLINE F apply(Activation activation, F x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return relu(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::silu:
      return silu(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::gelu_i8:
      return gelu_i8(x);
  }
  return x;
}

}  // namespace
}  // namespace heed::HEED_ISA

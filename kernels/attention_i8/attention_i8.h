#pragma once
/// Scaled dot-product attention (kernels/attention/attention.h) with both products in int8. q, k and v are rows with a
/// scale each (kernels/quantize/quantize.h), qs, ks and vs; v' = max(vs, 2^-60). Softmax is in base 2, with the scale
/// of each row of v inside the exponent, so that each query's probabilities use all of eight bits:
///
///   b[i][j]   = the sum of the terms that are added to scores there (slope, toeplitz, bias), * log2 e, within 2^126
///   u[i][j]   = fma(float(q[i] . k[j]) * ks[j], (qs[i] * scale) * log2 e, log(v'[j]) * log2 e + b[i][j])
///   e[i][j]   = 255 * 2^max(u - top, -100), top the largest u of the row and -2^126; a polynomial of degree 3,
///               7.5e-5 relative
///   y[i]      = float(sum over j of round(e[i][j]) * v[j]) / sum over j of e[i][j] * (1 / v'[j])
///
/// The dot products and the sum over j are exact in int32. The denominator is 16 accumulators (key j in accumulator
/// j mod 16, one fused multiply-add each) and the fixed tree; y is fma(sum, 1 / denominator, +0). Without terms the
/// addend is log(v'[j]) * log2 e alone. Masks are those of the float operator. A row that sees a NaN (a scale or a
/// term) is NaN as a whole.
///
/// inputs: 0 to 6 as of kernels/attention/attention.h, q, k and v i8 in [-127, 127] with last strides 1
///         7 q_scale f32 [B, H, Tq, 1]    8 k_scale f32 [B, Hkv, Tk, 1]    9 v_scale f32 [B, Hkv, Tk, 1]
/// outputs: 0 y f32 [B, H, Tq, Dv] as there
/// scratch, with T = Tk rounded up to 16, D4 = D rounded up to 4, D16 = D rounded up to 16:
///   keys        i8  [T/16][D4/4][16][4]        one head's keys in panels
///   values      i8  [ceil(Dv/16)][T/4][16][4]  one head's values in panels; an instruction set has its own order of
///                                              the keys within 16
///   key_scale   f32 [T]      key_sum i32 [T]   value_log f32 [T]      value_inverse f32 [T]
///   addend      f32 [T]                        value_log and what is added to all queries' scores of a key
///   queries     i16 [block_rows][D16]
///   keep        i32 [T]                        for one row of a boolean bias; where it is given
///   scores      f32 [block_rows + 1][T]        never keys by keys; the last row is for a tap
/// Not in place.
#include "kernels/attention/attention.h"

namespace heed {

using AttentionI8Params = AttentionParams;

struct AttentionI8Args : AttentionOperands {
  const int8_t *q, *k, *v;
  const float *q_scale, *k_scale, *v_scale;  // of this head's rows, strides below
  int64_t q_scale_row, k_scale_row, v_scale_row;
  // The parts of the scratch, as above; keep is null where there is none.
  int8_t *keys, *values;
  float* key_scale;
  int32_t* key_sum;
  float *value_log, *value_inverse, *addend;
  int16_t* queries;
  int32_t* keep;
  float* scores;
};

HEED_DECLARE_I8_VARIANTS(attention_i8, AttentionI8Args)

}  // namespace heed

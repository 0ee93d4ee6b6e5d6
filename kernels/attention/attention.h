#pragma once
/// Scaled dot-product attention (Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1):
///
///   s[i][j] = scale * (q[i] . k[j]) + slope[h] * (j - i - offset) + toeplitz[h][j - i + Tq - 1] + bias[b][h][i][j]
///   y[i]    = sum over j of exp(s[i][j] - max) * v[j] / sum over j of exp(s[i][j] - max)
///
/// Float arithmetic, each step one rounding: the product is one chain of fused multiply-adds over the head's channels,
/// ascending, from +0; times scale; then + the slope's term (itself a product), + toeplitz, + bias, those that are
/// present. The denominator is 16 accumulators (key j in accumulator j mod 16) and the fixed tree. The weighted sum is
/// one chain of fused multiply-adds over keys, ascending, from +0; y is fma(sum, 1 / denominator, +0), so that no zero
/// is negative.
///
/// A key is masked for a query by: causal (j > i + offset), window (j < i + offset - left or j > i + offset + right),
/// key_padding[b][j] == 0, or a boolean bias that is 0. A masked key contributes no term, whatever its value (NaN too);
/// a row with every key masked is zeros. An additive bias is a number like any other.
///
/// inputs (f32 unless said; any strides, no packing asked of the graph):
///   0 q [B, H, Tq, D]    1 k [B, Hkv, Tk, D]    2 v [B, Hkv, Tk, Dv]; H is a multiple of Hkv: head h reads h / (H /
///   Hkv) 3 bias [B, H, Tq, Tk], f32 or boolean, stride 0 broadcasts, optional     4 key_padding boolean [B, Tk],
///   optional 5 slope [H], optional                                                  6 toeplitz [H, Tq + Tk - 1],
///   optional
/// outputs: 0 y [B, H, Tq, Dv], last stride 1, other strides any (heads may lie side by side in [B, T, H * Dv])
/// scratch, in floats, with T = Tk rounded up to 16:
///   keys     [T/16][D][16]          one head's keys in panels
///   values   [ceil(Dv/16)][Tk][16]  one head's values in panels; where they cannot be read in place: Dv < 16, or gaps
///   padding  [T]                    key_padding as all bits or none; where it is given
///   keep     [T]                    the same for one row of a boolean bias; where it is given
///   scores   [block_rows][T]        never keys by keys
/// Not in place.
///
/// A converter picks block_rows: a row costs 4 T bytes, rows of a block share what is read of keys and values, and fill
/// the register tiles (5, 6 or 8 rows, by instruction set). 24 rows are as fast as more, 12 nearly; below 6 it gets
/// slow. More than Tq are never used.
#include "kernels/inline.h"
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct AttentionParams {
  float scale;
  uint8_t causal;       // 1: keys after the query's own position are masked
  uint8_t window;       // 1: window_left and window_right hold
  uint16_t block_rows;  // query rows that share one pass over the keys, from 1; chosen by the converter, see below
  int32_t offset;       // position of query 0 among the keys (Tk - Tq for queries that end where the keys end)
  int32_t window_left, window_right;
};

/// Query rows of one head of one batch element, whatever the type of q, k and v.
struct AttentionOperands {
  const void* bias;            // f32 or boolean (uint8_t), or null
  const uint8_t* key_padding;  // [Tk], stride below, or null
  const float* slope;          // this head's, or null
  const float* toeplitz;       // this head's [Tq + Tk - 1], or null
  float* y;
  int32_t tq, tk, d, dv;
  int64_t q_row, q_d, k_row, k_d, v_row, v_d, bias_row, bias_key, padding_key, toeplitz_key, y_row;
  bool bias_is_boolean;
  bool packed;  // keys, values and padding are in the scratch from the call before, for a head that reads the same
  AttentionParams params;
  int32_t first_row, last_row;  // the query rows to compute: [first_row, last_row)
  const WeightTap* tap;
  int32_t batch, head;  // for the tap
};

struct AttentionArgs : AttentionOperands {
  const float *q, *k, *v;
  // The parts of the scratch, as above; values, padding and keep are null where there are none.
  float *keys, *values;
  int32_t *padding, *keep;
  float* scores;
};

namespace {

/// The keys [first, last) that causal and window leave to query `row`.
struct KeyRange {
  int32_t first, last;
};
HEED_INLINE KeyRange keys_of(const AttentionOperands& args, int32_t row) {
  const AttentionParams& p = args.params;
  const int64_t position = int64_t{row} + p.offset;
  int64_t first = 0, last = args.tk;
  if (p.causal && position + 1 < last) last = position + 1;
  if (p.window) {
    if (position - p.window_left > first) first = position - p.window_left;
    if (position + p.window_right + 1 < last) last = position + p.window_right + 1;
  }
  if (first > args.tk) first = args.tk;
  if (last < first) last = first;
  return {static_cast<int32_t>(first), static_cast<int32_t>(last)};
}

}  // namespace

HEED_DECLARE_VARIANTS(attention, AttentionArgs)

}  // namespace heed

#pragma once
/// Scaled dot-product attention (Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1):
///
///   s[i][j] = scale * (q[i] . k[j]) + slope[h] * (j - i - offset) + toeplitz[h][j - i + Tq - 1] + bias[b][h][i][j]
///   y[i]    = sum over j of exp(s[i][j] - max) * v[j] / sum over j of exp(s[i][j] - max)
///
/// Float arithmetic, each line one rounding: the product is one chain of fused multiply-adds over the head's channels,
/// ascending, from +0; times scale; then + slope term, + toeplitz, + bias, in that order, those that are present. The
/// denominator is 16 accumulators (key j in accumulator j mod 16) and the fixed tree; the weighted sum is one chain of fused
/// multiply-adds over keys, ascending, from +0; times 1 / denominator.
///
/// A key is masked for a query by: causal (j > i + offset), window (j < i + offset - left or j > i + offset + right),
/// key_padding[b][j] == 0, or a boolean bias that is 0. A masked key contributes no term, whatever its value (NaN too); a
/// row with every key masked is zeros. An additive bias is a number like any other.
///
/// inputs (f32 unless said; any strides, no packing asked of the graph):
///   0 q [B, H, Tq, D]    1 k [B, Hkv, Tk, D]    2 v [B, Hkv, Tk, Dv]; H is a multiple of Hkv: head h reads h / (H / Hkv)
///   3 bias [B, H, Tq, Tk], f32 or boolean, stride 0 broadcasts, optional     4 key_padding boolean [B, Tk], optional
///   5 slope [H], optional                                                  6 toeplitz [H, Tq + Tk - 1], optional
/// outputs: 0 y [B, H, Tq, Dv], last stride 1, other strides any (heads may lie side by side in [B, T, H * Dv])
/// scratch: the packed keys of one head, and block_rows rows of Tk scores; never keys by keys. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct AttentionParams {
  float scale;
  uint8_t causal;        // 1: keys after the query's own position are masked
  uint8_t window;        // 1: window_left and window_right hold
  uint16_t block_rows;   // query rows that share one pass over the keys; chosen by the converter
  int32_t offset;        // position of query 0 among the keys (Tk - Tq for queries that end where the keys end)
  int32_t window_left, window_right;
};

/// All query rows of one head of one batch element.
struct AttentionArgs {
  const float *q, *k, *v;
  const void* bias;             // f32 or boolean (uint8_t), or null
  const uint8_t* key_padding;   // [Tk], stride below, or null
  const float* slope;           // this head's, or null
  const float* toeplitz;        // this head's [Tq + Tk - 1], or null
  float* y;
  int32_t tq, tk, d, dv;
  int64_t q_row, q_d, k_row, k_d, v_row, v_d, bias_row, bias_key, padding_key, toeplitz_key, y_row;
  bool bias_is_boolean;
  AttentionParams params;
  int32_t first_row, last_row;  // the query rows to compute: [first_row, last_row)
  std::byte* scratch;
  const WeightTap* tap;
  int32_t batch, head;          // for the tap
};

HEED_DECLARE_VARIANTS(attention, AttentionArgs)

}  // namespace heed

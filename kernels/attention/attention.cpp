#include "kernels/attention/attention.h"

#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {
namespace {

bool masked(const AttentionArgs& args, int i, int j) {
  const KeyRange range = keys_of(args, i);
  if (j < range.first || j >= range.last) return true;
  if (args.key_padding != nullptr && args.key_padding[j * args.padding_key] == 0) return true;
  return args.bias_is_boolean && static_cast<const uint8_t*>(args.bias)[i * args.bias_row + j * args.bias_key] == 0;
}

float score(const AttentionArgs& args, int i, int j) {
  float s = 0.0f;
  for (int d = 0; d < args.d; ++d) {
    s = fma(args.q[i * args.q_row + d * args.q_d], args.k[j * args.k_row + d * args.k_d], s);
  }
  s *= args.params.scale;
  if (args.slope != nullptr) s += *args.slope * to_f(j - i - args.params.offset);
  if (args.toeplitz != nullptr) s += args.toeplitz[(j - i + args.tq - 1) * args.toeplitz_key];
  if (args.bias != nullptr && !args.bias_is_boolean) {
    s += static_cast<const float*>(args.bias)[i * args.bias_row + j * args.bias_key];
  }
  return s;
}

}  // namespace

void attention(const AttentionArgs& args) {
  float* p = args.scores;  // one row
  for (int i = args.first_row; i < args.last_row; ++i) {
    float top = -__builtin_inff();
    for (int j = 0; j < args.tk; ++j) {
      p[j] = score(args, i, j);
      if (!masked(args, i, j)) top = max(top, p[j]);
    }
    Lanes16 sum = Lanes16::zero();
    for (int j = 0; j < args.tk; ++j) {
      if (masked(args, i, j)) continue;
      p[j] = exp(p[j] - top);
      sum.v[j % 16] += p[j];
    }
    const float denominator = sum.fold_sum(), inverse = denominator == 0.0f ? 0.0f : 1.0f / denominator;
    for (int d = 0; d < args.dv; ++d) {
      float y = 0.0f;
      for (int j = 0; j < args.tk; ++j) {
        if (!masked(args, i, j)) y = fma(p[j], args.v[j * args.v_row + d * args.v_d], y);
      }
      args.y[i * args.y_row + d] = fma(y, inverse, 0.0f);
    }
    if (args.tap == nullptr) continue;
    for (int j = 0; j < args.tk; ++j) p[j] = masked(args, i, j) ? 0.0f : p[j] * inverse;
    args.tap->row(args.tap->context, args.batch, args.head, i, p, args.tk);
  }
}

}  // namespace portable

namespace {

const AttentionParams& params_of(const void* params) {
  return *static_cast<const AttentionParams*>(params);
}

enum Input { q_input, k_input, v_input, bias_input, padding_input, slope_input, toeplitz_input, input_count };

Violation check(const Contract& contract) {
  const AttentionParams& params = params_of(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 0, input_count, contract.input_count - 1, "too many inputs");
  check.equal(contract.output_count, 1, output_operand, "not one output");
  check.in_range(params.causal, 0, 1, q_input, "causal is neither 0 nor 1");
  check.in_range(params.window, 0, 1, q_input, "window is neither 0 nor 1");
  check.holds(params.block_rows >= 1, "a block has no rows", q_input, params.block_rows, 1);
  if (params.window) {
    check.holds(params.window_left >= 0, "the window begins after the query", q_input, params.window_left, 0);
    check.holds(params.window_right >= 0, "the window ends before the query", q_input, params.window_right, 0);
  }
  const Shape* bias = contract.input(bias_input);
  const Type bias_type = bias != nullptr && bias->type == Type::boolean ? Type::boolean : Type::f32;
  if (!check.operand(q_input, 4) || !check.operand(k_input, 4) || !check.operand(v_input, 4) ||
      !check.operand(output_operand, 4) || !check.optional(bias_input, 4, bias_type) ||
      !check.optional(padding_input, 2, Type::boolean) || !check.optional(slope_input, 1) ||
      !check.optional(toeplitz_input, 2)) {
    return check.violation();
  }

  const Shape &q = *contract.input(q_input), &k = *contract.input(k_input), &v = *contract.input(v_input);
  const int32_t batch = q.dims[0], heads = q.dims[1], tq = q.dims[2], tk = k.dims[2];
  check.dim(k_input, 0, batch, "q and k differ in batch");
  check.dim(v_input, 0, batch, "q and v differ in batch");
  check.dim(v_input, 1, k.dims[1], "k and v differ in heads");
  check.holds(k.dims[1] > 0 ? heads % k.dims[1] == 0 : heads == 0, "q's heads are no multiple of k's", q_input, heads,
              k.dims[1]);
  check.dim(v_input, 2, tk, "k and v differ in length");
  check.dim(k_input, 3, q.dims[3], "q and k differ in channels");
  check.dim(output_operand, 0, batch, "y and q differ in batch");
  check.dim(output_operand, 1, heads, "y and q differ in heads");
  check.dim(output_operand, 2, tq, "y and q differ in length");
  check.dim(output_operand, 3, v.dims[3], "y and v differ in channels");
  check.last_stride(output_operand);
  check.dim(bias_input, 0, batch, "bias and q differ in batch");
  check.dim(bias_input, 1, heads, "bias and q differ in heads");
  check.dim(bias_input, 2, tq, "bias and q differ in length");
  check.dim(bias_input, 3, tk, "bias and k differ in length");
  check.dim(padding_input, 0, batch, "key_padding and q differ in batch");
  check.dim(padding_input, 1, tk, "key_padding and k differ in length");
  check.dim(slope_input, 0, heads, "slope and q differ in heads");
  check.dim(toeplitz_input, 0, heads, "toeplitz and q differ in heads");
  check.dim(toeplitz_input, 1, int64_t{tq} + tk - 1, "toeplitz is not as long as q and k and one less");
  // Distances are floats, exactly.
  constexpr int64_t most = 1 << 23;
  check.in_range(tq, 0, most, q_input, "too many queries");
  check.in_range(tk, 0, most, k_input, "too many keys");
  check.in_range(params.offset, -most, most, q_input, "offset is too far");
  return check.violation();
}

/// The parts of the scratch, in floats from its begin; an absent part is empty.
struct Parts {
  Size values, padding, keep, scores, total;
  bool has_values;
};
Parts parts_of(const Shape& q, const Shape& k, const Shape& v, const Shape* bias, const Shape* padding,
               const AttentionParams& params) {
  const auto whole_panels = [](int64_t count) { return Size((count + 15) / 16 * 16); };
  const int32_t tk = k.dims[2], dv = v.dims[3];
  const Size keys = whole_panels(tk), none = 0;
  const bool has_values = dv < 16 || v.strides[3] != 1;
  const Size values = keys * q.dims[3];
  const Size padding_at = values + (has_values ? whole_panels(dv) * tk : none);
  const Size keep = padding_at + (padding != nullptr ? keys : none);
  const Size scores = keep + (bias != nullptr && bias->type == Type::boolean ? keys : none);
  return {values, padding_at, keep, scores, scores + params.block_rows * keys, has_values};
}

uint64_t scratch(const Contract& contract) {
  const Parts at = parts_of(*contract.input(q_input), *contract.input(k_input), *contract.input(v_input),
                            contract.input(bias_input), contract.input(padding_input), params_of(contract.params));
  return (sizeof(float) * at.total).value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const AttentionParams& params = params_of(call.params);
  const Tensor q = call.input(q_input), k = call.input(k_input), v = call.input(v_input), bias = call.input(bias_input);
  const Tensor padding = call.input(padding_input), slope = call.input(slope_input);
  const Tensor toeplitz = call.input(toeplitz_input), y = call.output(0);
  const Parts at = parts_of(*q.shape, *k.shape, *v.shape, bias.shape, padding.shape, params);
  const int32_t batches = q.shape->dims[0], heads = q.shape->dims[1], shared_heads = k.shape->dims[1];
  if (element_count(*y.shape) == 0) return;

  AttentionArgs common{};
  common.tq = q.shape->dims[2];
  common.tk = k.shape->dims[2];
  common.d = q.shape->dims[3];
  common.dv = v.shape->dims[3];
  common.q_row = q.shape->strides[2];
  common.q_d = q.shape->strides[3];
  common.k_row = k.shape->strides[2];
  common.k_d = k.shape->strides[3];
  common.v_row = v.shape->strides[2];
  common.v_d = v.shape->strides[3];
  common.y_row = y.shape->strides[2];
  common.bias_row = bias ? bias.shape->strides[2] : 0;
  common.bias_key = bias ? bias.shape->strides[3] : 0;
  common.bias_is_boolean = bias && bias.shape->type == Type::boolean;
  common.padding_key = padding ? padding.shape->strides[1] : 0;
  common.toeplitz_key = toeplitz ? toeplitz.shape->strides[1] : 0;
  common.params = params;
  common.tap = call.tap;

  const auto kernel = attention_variants[call.isa];
  const auto run_head = [&](int32_t b, int32_t h, int32_t first, int32_t last, bool packed, std::byte* scratch) {
    const auto start = [b](const Tensor& tensor, int32_t head) {
      const int32_t* strides = tensor.shape->strides;
      return tensor.as<float>() + int64_t{b} * strides[0] + int64_t{head} * strides[1];
    };
    const int32_t shared = h / (heads / shared_heads);
    AttentionArgs args = common;
    args.q = start(q, h);
    args.k = start(k, shared);
    args.v = start(v, shared);
    args.y = start(y, h);
    if (bias) {
      const int64_t offset = int64_t{b} * bias.shape->strides[0] + int64_t{h} * bias.shape->strides[1];
      args.bias = bias.data + offset * size_of(bias.shape->type);
    }
    if (padding) args.key_padding = padding.as<uint8_t>() + int64_t{b} * padding.shape->strides[0];
    if (slope) args.slope = slope.as<float>() + int64_t{h} * slope.shape->strides[0];
    if (toeplitz) args.toeplitz = toeplitz.as<float>() + int64_t{h} * toeplitz.shape->strides[0];
    auto* floats = reinterpret_cast<float*>(scratch);
    args.keys = floats;
    args.values = at.has_values ? floats + at.values.value : nullptr;
    args.padding = padding ? reinterpret_cast<int32_t*>(floats + at.padding.value) : nullptr;
    args.keep = common.bias_is_boolean ? reinterpret_cast<int32_t*>(floats + at.keep.value) : nullptr;
    args.scores = floats + at.scores.value;
    args.packed = packed;
    args.first_row = first;
    args.last_row = last;
    args.batch = b;
    args.head = h;
    kernel(args);
  };

  // A task is the heads that share keys, which are packed once, or a part of them where that gives too few tasks.
  // Waking a thread costs about as much as `least` multiply-accumulates.
  constexpr int64_t least = 1 << 16;
  const int64_t macs = int64_t{common.tq} * common.tk * (int64_t{common.d} + common.dv) * batches * heads;
  const int64_t threads = call.parallel == nullptr ? 1 : call.parallel->threads;
  const bool split = threads > 1 && macs >= 2 * least;
  const int32_t group = heads / shared_heads;
  int32_t heads_each = group, rows_each = common.tq;
  if (split && int64_t{batches} * shared_heads < 2 * threads) heads_each = 1;
  if (split && int64_t{batches} * heads < 2 * threads) {
    const int64_t parts = (2 * threads + batches * heads - 1) / (batches * heads);
    rows_each = static_cast<int32_t>((common.tq + parts - 1) / parts);
    if (rows_each < params.block_rows) rows_each = params.block_rows;
  }
  const uint32_t row_parts = static_cast<uint32_t>((common.tq + rows_each - 1) / rows_each);
  const uint32_t head_parts = static_cast<uint32_t>(heads / heads_each);
  const auto task = [&](uint32_t index, std::byte* scratch) {
    const int32_t first = static_cast<int32_t>(index % row_parts) * rows_each;
    const int32_t last = common.tq - first < rows_each ? common.tq : first + rows_each;
    index /= row_parts;
    const int32_t head = static_cast<int32_t>(index % head_parts) * heads_each;
    const int32_t b = static_cast<int32_t>(index / head_parts);
    for (int32_t h = head; h < head + heads_each; ++h) run_head(b, h, first, last, h > head, scratch);
  };
  const uint32_t tasks = static_cast<uint32_t>(batches) * head_parts * row_parts;
  if (split) {
    call.for_each(tasks, task);
  } else {
    for (uint32_t index = 0; index < tasks; ++index) task(index, call.scratch);
  }
}

Isa variant(Isa ceiling) {
  return attention_variants.level(ceiling);
}

}  // namespace

const Operator attention_operator = {"attention", check, scratch, in_place, run, variant};

}  // namespace heed

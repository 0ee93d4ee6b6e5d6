#pragma once
/// What the attention of every element type shares: the contract, and the walk over batch, heads and rows.
#include "kernels/attention/attention.h"
#include "kernels/contract.h"

namespace heed {
namespace {

inline const AttentionParams& attention_params(const void* params) {
  return *static_cast<const AttentionParams*>(params);
}

namespace attention_input {
enum { q, k, v, bias, padding, slope, toeplitz, count };
}

/// `type`: of q, k and v. `inputs`: how many an operator has at most.
inline Violation check_attention(const Contract& contract, Type type, int inputs) {
  namespace in = attention_input;
  const AttentionParams& params = attention_params(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 0, inputs, contract.input_count - 1, "too many inputs");
  check.equal(contract.output_count, 1, output_operand, "not one output");
  check.in_range(params.causal, 0, 1, in::q, "causal is neither 0 nor 1");
  check.in_range(params.window, 0, 1, in::q, "window is neither 0 nor 1");
  check.holds(params.block_rows >= 1, "a block has no rows", in::q, params.block_rows, 1);
  if (params.window) {
    check.holds(params.window_left >= 0, "the window begins after the query", in::q, params.window_left, 0);
    check.holds(params.window_right >= 0, "the window ends before the query", in::q, params.window_right, 0);
  }
  const Shape* bias = contract.input(in::bias);
  const Type bias_type = bias != nullptr && bias->type == Type::boolean ? Type::boolean : Type::f32;
  if (!check.operand(in::q, 4, type) || !check.operand(in::k, 4, type) || !check.operand(in::v, 4, type) ||
      !check.operand(output_operand, 4) || !check.optional(in::bias, 4, bias_type) ||
      !check.optional(in::padding, 2, Type::boolean) || !check.optional(in::slope, 1) ||
      !check.optional(in::toeplitz, 2)) {
    return check.violation();
  }

  const Shape &q = *contract.input(in::q), &k = *contract.input(in::k), &v = *contract.input(in::v);
  const int32_t batch = q.dims[0], heads = q.dims[1], tq = q.dims[2], tk = k.dims[2];
  check.dim(in::k, 0, batch, "q and k differ in batch");
  check.dim(in::v, 0, batch, "q and v differ in batch");
  check.dim(in::v, 1, k.dims[1], "k and v differ in heads");
  check.holds(k.dims[1] > 0 ? heads % k.dims[1] == 0 : heads == 0, "q's heads are no multiple of k's", in::q, heads,
              k.dims[1]);
  check.dim(in::v, 2, tk, "k and v differ in length");
  check.dim(in::k, 3, q.dims[3], "q and k differ in channels");
  check.dim(output_operand, 0, batch, "y and q differ in batch");
  check.dim(output_operand, 1, heads, "y and q differ in heads");
  check.dim(output_operand, 2, tq, "y and q differ in length");
  check.dim(output_operand, 3, v.dims[3], "y and v differ in channels");
  check.last_stride(output_operand);
  check.dim(in::bias, 0, batch, "bias and q differ in batch");
  check.dim(in::bias, 1, heads, "bias and q differ in heads");
  check.dim(in::bias, 2, tq, "bias and q differ in length");
  check.dim(in::bias, 3, tk, "bias and k differ in length");
  check.dim(in::padding, 0, batch, "key_padding and q differ in batch");
  check.dim(in::padding, 1, tk, "key_padding and k differ in length");
  check.dim(in::slope, 0, heads, "slope and q differ in heads");
  check.dim(in::toeplitz, 0, heads, "toeplitz and q differ in heads");
  check.dim(in::toeplitz, 1, int64_t{tq} + tk - 1, "toeplitz is not as long as q and k and one less");
  // Distances are floats, exactly.
  constexpr int64_t most = 1 << 23;
  check.in_range(tq, 0, most, in::q, "too many queries");
  check.in_range(tk, 0, most, in::k, "too many keys");
  check.in_range(params.offset, -most, most, in::q, "offset is too far");
  return check.violation();
}

template <class T>
T* head_of(const Tensor& tensor, int32_t batch, int32_t head) {
  const int32_t* strides = tensor.shape->strides;
  return tensor.as<std::remove_const_t<T>>() + int64_t{batch} * strides[0] + int64_t{head} * strides[1];
}

/// `Args` extends AttentionOperands by q, k and v, which are set, and by what place(args, shared_head, scratch) sets:
/// `shared_head` is the one of k and v.
template <class Args, class Place>
void run_attention(const Invocation& call, void (*kernel)(const Args&), Place place) {
  namespace in = attention_input;
  const AttentionParams& params = attention_params(call.params);
  const Tensor q = call.input(in::q), k = call.input(in::k), v = call.input(in::v), bias = call.input(in::bias);
  const Tensor padding = call.input(in::padding), slope = call.input(in::slope);
  const Tensor toeplitz = call.input(in::toeplitz), y = call.output(0);
  const int32_t batches = q.shape->dims[0], heads = q.shape->dims[1], shared_heads = k.shape->dims[1];
  if (element_count(*y.shape) == 0) return;

  Args common{};
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

  const auto run_head = [&](int32_t b, int32_t h, int32_t first, int32_t last, bool packed, std::byte* scratch) {
    const int32_t shared = h / (heads / shared_heads);
    Args args = common;
    args.q = head_of<std::remove_pointer_t<decltype(args.q)>>(q, b, h);
    args.k = head_of<std::remove_pointer_t<decltype(args.k)>>(k, b, shared);
    args.v = head_of<std::remove_pointer_t<decltype(args.v)>>(v, b, shared);
    args.y = head_of<float>(y, b, h);
    args.batch = b;
    args.head = h;
    if (bias) {
      const int64_t offset = int64_t{b} * bias.shape->strides[0] + int64_t{h} * bias.shape->strides[1];
      args.bias = bias.data + offset * size_of(bias.shape->type);
    }
    if (padding) args.key_padding = padding.as<uint8_t>() + int64_t{b} * padding.shape->strides[0];
    if (slope) args.slope = slope.as<float>() + int64_t{h} * slope.shape->strides[0];
    if (toeplitz) args.toeplitz = toeplitz.as<float>() + int64_t{h} * toeplitz.shape->strides[0];
    place(args, shared, scratch);
    args.packed = packed;
    args.first_row = first;
    args.last_row = last;
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
  call.for_each(tasks, task, split);
}

}  // namespace
}  // namespace heed

// Operators on quantised tensors: ONNX's, and com.microsoft's as onnxruntime writes them. Sums of products stay
// integers; what else is done with quantised tensors is done with the numbers that they stand for.
#include "tools/onnx/quantized.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

namespace heed::tools {

using onnx::DataType;

namespace {

struct Range {
  int64_t lowest, highest;
};

Range range_of(DataType type) {
  switch (type) {
    case DataType::u8:
      return {0, UINT8_MAX};
    case DataType::i8:
      return {INT8_MIN, INT8_MAX};
    case DataType::u16:
      return {0, UINT16_MAX};
    case DataType::i16:
      return {INT16_MIN, INT16_MAX};
    default:
      refuse("quantisation to {} is not supported", onnx::name(type));
  }
}

bool is_one(Lowering& l, ValueId x) {
  return count(l.dims(x)).is_constant(1);
}

/// A scale that is known is positive and finite, or 0 where it only multiplies: of a channel without weights.
void check_scale(Lowering& l, ValueId scale, bool divides) {
  const auto& known = l.graph.value(scale).constant;
  if (!known || known->type != Type::f32) return;
  for (const float each : known->floats())
    if (!std::isfinite(each) || !(each > 0 || (each == 0 && !divides)))
      refuse("a scale of {}, where a number {} is expected", each, divides ? "above 0" : "from 0 on");
}

}  // namespace

ValueId along(Lowering& l, ValueId parameter, ValueId x, int axis, int64_t block) {
  if (is_one(l, parameter) && block == 0) return l.reshape(parameter, {});
  const Dims own = l.dims(parameter), dims = l.dims(x);
  const auto at = static_cast<size_t>(axis);
  if (block == 0) {
    if (own.size() != 1 || at >= dims.size())
      refuse("scales or zero points of shape {}, for {}", text(own), text(dims));
    Dims result(dims.size(), 1);
    result[at] = own[0];
    return l.reshape(parameter, result);
  }
  if (own.size() != dims.size()) refuse("scales or zero points of shape {}, in blocks of {}", text(own), text(dims));
  Dims wide = own, merged = own;
  wide.insert(wide.begin() + axis + 1, block);
  merged[at] = own[at] * block;
  return l.slice(l.reshape(l.expand(l.unsqueeze(parameter, axis + 1), wide), merged), axis, 0, dims[at]);
}

ValueId zero_point(Lowering& l, size_t i) {
  const ValueId zero = l.optional(i).id;
  return zero == no_value ? l.integer_constant(0) : zero;
}
ValueId zero_point(Lowering& l, size_t i, size_t of) {
  if (l.has(i) && l.operand(i).type != l.operand(of).type)
    refuse("a zero point (operand {}) of type {}, for an operand {} of type {}", i, onnx::name(l.operand(i).type), of,
           onnx::name(l.operand(of).type));
  return zero_point(l, i);
}

ValueId quantize(Lowering& l, ValueId x, ValueId scale, ValueId zero, DataType type) {
  const Range range = range_of(type);
  check_scale(l, scale, true);
  return l.add(QuantizeLinear{range.lowest, range.highest}, {x, scale, zero});
}

ValueId dequantize(Lowering& l, ValueId q, ValueId scale, ValueId zero, DataType type) {
  check_scale(l, scale, false);
  const NodeId producer = l.graph.value(q).producer;
  if (producer >= 0 && is_one(l, scale) && is_one(l, zero)) {
    const Node node = l.graph.node(producer);
    const bool picks =
        std::holds_alternative<Gather>(node.operation) || std::holds_alternative<Reshape>(node.operation);
    if (picks && l.graph.value(node.inputs[0]).constant) {
      std::vector<ValueId> inputs = node.inputs;
      inputs[0] = dequantize(l, inputs[0], scale, zero, type);
      return l.add(node.operation, inputs);
    }
  }
  const ValueId y = l.add(DequantizeLinear{}, {q, scale, zero});
  const auto& known = l.graph.value(scale).constant;
  if (auto& constant = l.graph.value(y).constant; constant && known && (type == DataType::u8 || type == DataType::i8))
    constant->scale = std::make_shared<const Literal>(*known);
  return y;
}

ValueId dequantize(Lowering& l, size_t i) {
  const Operand q = l.operand(i);
  return dequantize(l, q.id, along(l, l.value(i + 1), q.id, 0), along(l, zero_point(l, i + 2, i), q.id, 0), q.type);
}

ValueId centred(Lowering& l, ValueId q, ValueId zero) {
  return l.map(Step::i_sub, {q, zero});
}

namespace {

// --- ONNX's ----------------------------------------------------------------------------------------------

struct Along {
  ValueId scale, zero;
};

Along parameters(Lowering& l, ValueId x) {
  const ValueId scale = l.value(1), zero = zero_point(l, 2);
  const int rank = l.rank(x);
  const bool one = is_one(l, scale) && l.rank(scale) < 2;
  if (l.has(2) && l.dims(scale) != l.dims(zero) && !(is_one(l, scale) && is_one(l, zero)))
    refuse("scales of shape {} and zero points of shape {}", text(l.dims(scale)), text(l.dims(zero)));
  const int64_t given = l.integer("axis", 1), block = l.integer("block_size", 0);
  if (block < 0 || block > INT32_MAX) refuse("a block_size of {}", block);
  const int axis = one ? 0 : Lowering::axis(given, rank);
  return {along(l, scale, x, axis, block), l.has(2) ? along(l, zero, x, axis, block) : zero};
}

void quantize_linear(Lowering& l) {
  const Operand x = l.operand(0);
  const auto [scale, zero] = parameters(l, x.id);
  auto type = static_cast<DataType>(l.integer("output_dtype", 0));
  if (type == DataType::undefined) type = l.has(2) ? l.operand(2).type : DataType::u8;
  l.ignore("saturate");   // of 8-bit floats, which are refused
  l.ignore("precision");  // all is computed in float32
  const ValueId real = l.type(x.id) == Type::f32 ? x.id : l.map(Step::i_to_f, {x.id});
  l.result(0, quantize(l, real, scale, zero, type), type);
}

void dequantize_linear(Lowering& l) {
  const Operand q = l.operand(0);
  if (l.type(q.id) != Type::i32) refuse("an operand of type {}", onnx::name(q.type));
  (void)zero_point(l, 2, 0);
  const auto [scale, zero] = parameters(l, q.id);
  auto type = static_cast<DataType>(l.integer("output_dtype", 0));
  if (type == DataType::undefined) type = l.operand(1).type;
  l.result(0, dequantize(l, q.id, scale, zero, q.type), type);
}

struct ByItsRange {
  ValueId q, scale, zero;
};

/// Scale 1 of what is all zeros, as onnxruntime has it; the formula divides by 0 there.
ByItsRange by_its_range(Lowering& l, ValueId x) {
  std::vector<int> axes(static_cast<size_t>(l.rank(x)));
  std::iota(axes.begin(), axes.end(), 0);
  const Term most = l.term(l.reduce(Reduction::max, x, axes, false)).max(0),
             least = l.term(l.reduce(Reduction::min, x, axes, false)).min(0);
  const Term range = most - least;
  const Term scale = choose(l.map(Step::f_equal, {range.id(), l.real_constant(0)}), range.constant(1), range / 255.0f);
  const Term zero = (scale.constant(0) - least / scale).max(0).min(255).apply(Step::f_round);
  const ValueId zero_point = l.map(Step::f_to_i, {zero.id()});
  return {quantize(l, x, scale.id(), zero_point, DataType::u8), scale.id(), zero_point};
}

void dynamic_quantize_linear(Lowering& l) {
  const auto [q, scale, zero] = by_its_range(l, l.value(0));
  l.result(0, q, DataType::u8);
  l.result(1, scale, DataType::f32);
  l.result(2, zero, DataType::u8);
}

/// A parameter for each row: a vector stands upright.
ValueId by_row(Lowering& l, ValueId parameter) {
  if (is_one(l, parameter)) return l.reshape(parameter, {});
  return l.rank(parameter) == 1 ? l.unsqueeze(parameter, 1) : parameter;
}
ValueId by_column(Lowering& l, ValueId parameter) {
  return is_one(l, parameter) ? l.reshape(parameter, {}) : parameter;
}

/// a at operand `i`, b at operand `k`, their zero points at `i_zero` and `k_zero`.
ValueId integer_product(Lowering& l, size_t i, size_t k, size_t i_zero, size_t k_zero) {
  return matrix_product(l, centred(l, l.value(i), by_row(l, zero_point(l, i_zero, i))),
                        centred(l, l.value(k), by_column(l, zero_point(l, k_zero, k))), true);
}

void matmul_integer(Lowering& l) {
  l.result(0, integer_product(l, 0, 1, 2, 3), DataType::i32);
}

ValueId scaled(Lowering& l, ValueId sums, ValueId scale) {
  return l.add(DequantizeLinear{}, {sums, scale, l.integer_constant(0)});
}

/// The result, quantised with the scale at operand `i` and the zero point behind it.
void quantized_result(Lowering& l, ValueId y, size_t i) {
  const DataType type = l.optional(i + 1).id == no_value ? DataType::u8 : l.operand(i + 1).type;
  l.result(0, quantize(l, y, along(l, l.value(i), y, 0), along(l, zero_point(l, i + 1), y, 0), type), type);
}

void qlinear_matmul(Lowering& l) {
  const Term scale = l.term(by_row(l, l.value(1))) * l.term(by_column(l, l.value(4)));
  quantized_result(l, scaled(l, integer_product(l, 0, 3, 2, 5), scale.id()), 6);
}

// --- com.microsoft's products ----------------------------------------------------------------------------

void qgemm(Lowering& l) {
  const auto side = [&](size_t i, const char* turned) {
    const ValueId x = l.value(i);
    if (l.rank(x) != 2) refuse("an operand of rank {}, where matrices are expected", l.rank(x));
    return centred(l, l.integer(turned, 0) != 0 ? l.swap_last(x) : x, by_column(l, zero_point(l, i + 2, i)));
  };
  const ValueId sums = matrix_product(l, side(0, "transA"), side(3, "transB"), true);
  const Term scale = l.term(by_row(l, l.value(1))) * l.term(by_column(l, l.value(4))) * l.real("alpha", 1);
  ValueId y = scaled(l, sums, scale.id());
  if (const ValueId c = l.optional(6).id; c != no_value) y = l.map(Step::f_add, {y, scaled(l, c, scale.id())});
  if (l.has(7)) return quantized_result(l, y, 7);
  l.result(0, y, DataType::f32);
}

Term with_bias(Lowering& l, const Term& y, size_t i) {
  const ValueId bias = l.optional(i).id;
  return bias == no_value ? y : y + l.term(bias);
}

void matmul_integer_to_float(Lowering& l) {
  const Term scale = l.term(by_row(l, l.value(2))) * l.term(by_column(l, l.value(3)));
  const Term y = l.term(l.map(Step::i_to_f, {integer_product(l, 0, 1, 4, 5)})) * scale;
  l.result(0, with_bias(l, y, 6).id(), DataType::f32);
}

/// The results of an ONNX operator for other operands.
std::vector<Operand> lower_as(Lowering& l, std::string_view op, std::vector<Operand> operands, int64_t opset) {
  for (const auto part : {map_lowerings(), shape_lowerings(), sum_lowerings(), sequence_lowerings(), window_lowerings(),
                          quantized_lowerings()})
    for (const LoweringRow& row : part) {
      if (row.op != op || !row.domain.empty()) continue;
      Lowering inner(l.graph, l.node, opset, l.name, std::move(operands));
      row.lower(inner);
      if (inner.results().empty()) refuse("no output");
      l.ignore_as(inner);
      return inner.results();
    }
  refuse("there is no {}", op);
}

constexpr int64_t usual_opset = 17;

/// a quantised by its own range, as DynamicQuantizeLinear does it.
void dynamic_quantize_matmul(Lowering& l) {
  const auto [a, a_scale, a_zero] = by_its_range(l, l.value(0));
  const ValueId sums =
      matrix_product(l, centred(l, a, a_zero), centred(l, l.value(1), by_column(l, zero_point(l, 3, 1))), true);
  const Term scale = l.term(a_scale) * l.term(by_column(l, l.value(2)));
  l.result(0, with_bias(l, l.term(l.map(Step::i_to_f, {sums})) * scale, 4).id(), DataType::f32);
}

// --- com.microsoft's others: the float operator between dequantised operands and a quantised result --------

constexpr const char* add = "Add";
constexpr const char* mul = "Mul";
constexpr const char* sigmoid = "Sigmoid";
constexpr const char* leaky_relu = "LeakyRelu";

template <const char* const& Op>
void binary(Lowering& l) {
  const std::vector<Operand> y = lower_as(
      l, Op, {{dequantize(l, size_t{0}), DataType::f32}, {dequantize(l, size_t{3}), DataType::f32}}, usual_opset);
  quantized_result(l, y[0].id, 6);
}

template <const char* const& Op>
void unary(Lowering& l) {
  quantized_result(l, lower_as(l, Op, {{dequantize(l, size_t{0}), DataType::f32}}, usual_opset)[0].id, 3);
}

void qlinear_softmax(Lowering& l) {
  const int64_t opset = l.integer("opset");
  quantized_result(l, lower_as(l, "Softmax", {{dequantize(l, size_t{0}), DataType::f32}}, opset)[0].id, 3);
}

/// Poolings take channels second, or last.
ValueId pooled(Lowering& l, std::string_view op) {
  const bool last = l.integer("channels_last", 0) != 0;
  ValueId x = dequantize(l, size_t{0});
  std::vector<int> second(static_cast<size_t>(l.rank(x)));
  std::iota(second.begin(), second.end(), 0);
  std::vector<int> back = second;
  if (last && second.size() > 2) {
    std::rotate(second.begin() + 1, second.end() - 1, second.end());
    std::rotate(back.begin() + 1, back.begin() + 2, back.end());
  }
  return l.transpose(lower_as(l, op, {{l.transpose(x, second), DataType::f32}}, usual_opset)[0].id, back);
}
void qlinear_average_pool(Lowering& l) {
  quantized_result(l, pooled(l, "AveragePool"), 3);
}
void qlinear_global_average_pool(Lowering& l) {
  quantized_result(l, pooled(l, "GlobalAveragePool"), 3);
}

void qlinear_concat(Lowering& l) {
  std::vector<Operand> parts;
  for (size_t i = 2; i + 1 < l.count(); i += 3) parts.push_back({dequantize(l, i), DataType::f32});
  quantized_result(l, lower_as(l, "Concat", parts, usual_opset)[0].id, 0);
}

void qlinear_where(Lowering& l) {
  quantized_result(l, l.select(l.value(0), dequantize(l, size_t{1}), dequantize(l, size_t{4})), 7);
}

// --- com.microsoft's layers ------------------------------------------------------------------------------

/// What the scores of [B, H, T, T] get added for the mask at operand `i`: one number for each key, or how many keys
/// there are.
ValueId attention_bias(Lowering& l, size_t i, ValueId scores, float filter, bool causal) {
  const Dims dims = l.dims(scores);
  ValueId y = scores;
  if (const ValueId mask = l.optional(i).id; mask != no_value) {
    const ValueId keys = l.iota({1, 1, 1, dims[3]}, 3);
    ValueId seen = no_value;
    if (l.rank(mask) == 2)
      seen = l.map(Step::i_less, {l.integer_constant(0), l.reshape(mask, {dims[0], 1, 1, dims[3]})});
    else if (l.rank(mask) == 1)
      seen = l.map(Step::i_less, {keys, l.reshape(mask, {dims[0], 1, 1, 1})});
    else
      refuse("a mask of rank {}", l.rank(mask));
    y = l.map(Step::f_add, {y, l.select(seen, l.real_constant(0), l.real_constant(filter))});
  }
  if (!causal) return y;
  const ValueId later = l.map(Step::i_less, {l.iota({1, 1, dims[2], 1}, 2), l.iota({1, 1, 1, dims[3]}, 3)});
  return l.select(later, l.real_constant(-INFINITY), y);
}

/// Attention over the projections [B, T, 3 * heads * D], the bias added; the mask stands at operand `mask`.
void attend(Lowering& l, const Term& projected, size_t mask) {
  const int64_t heads = l.integer("num_heads");
  const bool causal = l.integer("unidirectional", 0) != 0;
  const float filter = l.real("mask_filter_value", -10000);
  l.expect("do_rotary", 0);
  l.expect("past_present_share_buffer", 0);
  const Dims dims = l.dims(projected.id());
  const auto columns = dims.back().constant();
  if (dims.size() != 3 || heads < 1 || !columns || *columns % (3 * heads) != 0)
    refuse("projections of shape {} for {} heads", text(dims), heads);
  if (const auto sizes = l.integers("qkv_hidden_sizes"); sizes && *sizes != std::vector<int64_t>(3, *columns / 3))
    refuse("attribute 'qkv_hidden_sizes' = {} is not supported", text(*sizes));
  const int64_t depth = *columns / (3 * heads);
  const float scale = l.real("scale", 0);
  const auto part = [&](int64_t i) {
    const ValueId own = l.slice(projected.id(), 2, i * heads * depth, heads * depth);
    return l.transpose(l.reshape(own, {dims[0], dims[1], heads, depth}), {0, 2, 1, 3});
  };
  const Term scores = l.term(matrix_product(l, part(0), l.swap_last(part(1)))) *
                      (scale == 0 ? 1 / std::sqrt(static_cast<float>(depth)) : scale);
  const ValueId weights = l.add(Softmax{3}, {attention_bias(l, mask, scores.id(), filter, causal)});
  const ValueId y = l.transpose(matrix_product(l, weights, part(2)), {0, 2, 1, 3});
  l.result(0, l.reshape(y, {dims[0], dims[1], heads * depth}), DataType::f32);
}

void attention(Lowering& l) {
  attend(l, with_bias(l, l.term(matrix_product(l, l.value(0), l.value(1))), 2), 3);
}

void qattention(Lowering& l) {
  const Term scale = l.term(by_column(l, l.value(3))) * l.term(by_column(l, l.value(4)));
  const ValueId sums = integer_product(l, 0, 1, 6, 7);
  attend(l, with_bias(l, l.term(l.map(Step::i_to_f, {sums})) * scale, 2), 5);
}

/// Words, positions and segments (none: no_value), added and normalised. Output 1: how many keys the mask leaves.
void embed(Lowering& l, ValueId words, ValueId positions, ValueId segments, ValueId gamma, ValueId beta, size_t mask,
           ValueId position) {
  const Operand ids = l.operand(0);
  const Dims dims = l.dims(ids.id);
  if (dims.size() != 2) refuse("ids of rank {}", dims.size());
  if (position == no_value) position = l.iota({dims[1]}, 0);
  Term sum = l.term(l.add(Gather{0}, {words, ids.id})) + l.term(l.add(Gather{0}, {positions, position}));
  if (segments != no_value) sum = sum + l.term(l.add(Gather{0}, {segments, l.value(1)}));
  l.result(0, l.add(Normalize{Normalization::layer, l.real("epsilon", 1e-12f)}, {sum.id(), gamma, beta}),
           DataType::f32);
  const ValueId seen = l.optional(mask).id;
  if (!l.wants(1)) return;
  l.result(1,
           seen == no_value ? l.expand(l.integer_constant(0), {dims[0]}) : l.reduce(Reduction::sum, seen, {1}, false),
           DataType::i32);
}

void embed_layer_norm(Lowering& l) {
  l.expect("mask_index_type", 0);
  const ValueId segments = l.optional(4).id;
  if (segments == no_value) l.optional(1);
  embed(l, l.value(2), l.value(3), segments, l.value(5), l.value(6), 7, l.optional(8).id);
}

void qembed_layer_norm(Lowering& l) {
  const auto table = [&](size_t i) {
    const Operand q = l.operand(2 + i);
    return dequantize(l, q.id, along(l, l.value(8 + i), q.id, 0), along(l, zero_point(l, 13 + i), q.id, 0), q.type);
  };
  const bool segmented = l.has(4);
  if (!segmented) l.optional(1), l.optional(10), l.optional(15);
  embed(l, table(0), table(1), segmented ? table(2) : no_value, table(3), table(4), 7, no_value);
}

/// In float, with the weights that the integers stand for: w [D, I, 4H] and r [D, H, 4H] lie the other way round.
void dynamic_quantize_lstm(Lowering& l) {
  const auto weights = [&](size_t i, size_t scale) {
    const Operand q = l.operand(i);
    const auto by_gate = [&](ValueId parameter) {  // [D] or [D, 4H]
      Dims dims = l.dims(parameter);
      if (dims.size() == 1) dims.push_back(1);
      dims.insert(dims.begin() + 1, 1);
      return l.reshape(parameter, dims);
    };
    return Operand{l.swap_last(dequantize(l, q.id, by_gate(l.value(scale)), by_gate(l.value(scale + 1)), q.type)),
                   DataType::f32};
  };
  std::vector<Operand> operands = {l.operand(0), weights(1, 8), weights(2, 10)};
  for (size_t i = 3; i < 8; ++i) operands.push_back(l.optional(i));
  const std::vector<Operand> results = lower_as(l, "LSTM", operands, usual_opset);
  for (size_t i = 0; i < results.size(); ++i)
    if (l.wants(i)) l.result(i, results[i].id, DataType::f32);
}

constexpr LoweringRow rows[] = {
    {"", "DequantizeLinear", 10, dequantize_linear},
    {"", "DynamicQuantizeLinear", 11, dynamic_quantize_linear},
    {"", "MatMulInteger", 10, matmul_integer},
    {"", "QLinearMatMul", 10, qlinear_matmul},
    {"", "QuantizeLinear", 10, quantize_linear},
    {"com.microsoft", "Attention", 1, attention},
    {"com.microsoft", "DequantizeLinear", 1, dequantize_linear},
    {"com.microsoft", "DynamicQuantizeLSTM", 1, dynamic_quantize_lstm},
    {"com.microsoft", "DynamicQuantizeMatMul", 1, dynamic_quantize_matmul},
    {"com.microsoft", "EmbedLayerNormalization", 1, embed_layer_norm},
    {"com.microsoft", "MatMulIntegerToFloat", 1, matmul_integer_to_float},
    {"com.microsoft", "QAttention", 1, qattention},
    {"com.microsoft", "QEmbedLayerNormalization", 1, qembed_layer_norm},
    {"com.microsoft", "QGemm", 1, qgemm},
    {"com.microsoft", "QLinearAdd", 1, binary<add>},
    {"com.microsoft", "QLinearAveragePool", 1, qlinear_average_pool},
    {"com.microsoft", "QLinearConcat", 1, qlinear_concat},
    {"com.microsoft", "QLinearGlobalAveragePool", 1, qlinear_global_average_pool},
    {"com.microsoft", "QLinearLeakyRelu", 1, unary<leaky_relu>},
    {"com.microsoft", "QLinearMul", 1, binary<mul>},
    {"com.microsoft", "QLinearSigmoid", 1, unary<sigmoid>},
    {"com.microsoft", "QLinearSoftmax", 1, qlinear_softmax},
    {"com.microsoft", "QLinearWhere", 1, qlinear_where},
    {"com.microsoft", "QuantizeLinear", 1, quantize_linear},
};

}  // namespace

std::span<const LoweringRow> quantized_lowerings() {
  return rows;
}

}  // namespace heed::tools

// Operators over sequences: recurrent layers, attention, rotary positions.
#include <algorithm>
#include <cmath>

#include "tools/graph/channels.h"
#include "tools/onnx/lowering.h"

namespace heed::tools {
namespace {

using onnx::DataType;

// --- Recurrent layers ------------------------------------------------------------------------------------

Direction direction_of(Lowering& l) {
  const std::string text = l.text("direction", "forward");
  if (text == "forward") return Direction::forward;
  if (text == "reverse") return Direction::reverse;
  if (text == "bidirectional") return Direction::both;
  refuse("attribute 'direction' = '{}'", text);
}

void expect_activations(Lowering& l, std::vector<std::string> usual, Direction direction) {
  if (direction == Direction::both) {
    const std::vector<std::string> once = usual;
    usual.insert(usual.end(), once.begin(), once.end());
  }
  const auto given = l.texts("activations");
  if (!given || given->empty()) return;
  const auto same = [](const std::string& a, const std::string& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
  };
  if (given->size() != usual.size() || !std::equal(given->begin(), given->end(), usual.begin(), same)) {
    refuse("attribute 'activations' = '{}' is not supported, only '{}'", fmt::join(*given, ", "),
           fmt::join(usual, ", "));
  }
}

/// Lengths of the batch's sequences are honoured where all are the whole length.
void expect_whole_sequences(Lowering& l, const Expression& steps) {
  if (!l.has(4)) return;
  const auto known = l.graph.value(l.value(4)).constant;
  const auto length = steps.constant();
  bool whole = known && known->type == Type::i32 && length;
  for (size_t i = 0; whole && i < known->integers().size(); ++i) whole = known->integers()[i] == *length;
  if (!whole)
    refuse("operand 4, '{}' (sequence_lens), is supported only where it is the whole length", l.node.inputs[4]);
}

void expect_no_peepholes(Lowering& l) {
  if (!l.has(7)) return;
  const auto known = l.graph.value(l.value(7)).constant;
  bool zero = known.has_value() && known->type == Type::f32;
  for (size_t i = 0; zero && i < known->floats().size(); ++i) zero = known->floats()[i] == 0;
  if (!zero) refuse("operand 7, '{}' (peepholes), is not supported", l.node.inputs[7]);
}

template <Cell Kind>
void recurrent(Lowering& l) {
  const Operand x = l.operand(0);
  const bool batch_first = l.integer("layout", 0) != 0;
  const Direction direction = direction_of(l);
  const auto front = [&](ValueId v) {  // the batch's axis, first in the model where `layout` is 1, to its place behind
    return batch_first && v != no_value ? l.transpose(v, {1, 0, 2}) : v;
  };
  if (l.rank(x.id) != 3) refuse("a tensor of rank {}, not 3", l.rank(x.id));
  const ValueId sequence = front(x.id);
  const ValueId w = l.value(1), r = l.value(2), b = l.optional(3).id;
  const auto hidden = l.rank(r) == 3 ? l.dims(r)[2].constant() : std::nullopt;
  if (!hidden) refuse("operand 2, the recurrent weights, has to be of rank 3 and of known size");
  if (l.integer("hidden_size", *hidden) != *hidden) {
    refuse("attribute 'hidden_size' is {}, the weights are for {}", l.integer("hidden_size"), *hidden);
  }
  for (const size_t state : {5, 6})
    if (const auto size = l.has(state) ? l.dims(l.value(state)).back().constant() : hidden; size != hidden)
      refuse(
          "operand {}, '{}', has states of size {}, the weights are for {}: projections (proj_size) are not supported",
          state, l.node.inputs[state], *size, *hidden);
  expect_whole_sequences(l, l.dims(sequence)[0]);
  std::vector<ValueId> operands = {sequence, w, r, b, front(l.optional(5).id)};
  bool linear_before_reset = false;
  if (Kind == Cell::lstm) {
    expect_activations(l, {"Sigmoid", "Tanh", "Tanh"}, direction);
    l.expect("input_forget", 0);
    operands.push_back(front(l.optional(6).id));
    expect_no_peepholes(l);
  } else if (Kind == Cell::gru) {
    expect_activations(l, {"Sigmoid", "Tanh"}, direction);
    linear_before_reset = l.integer("linear_before_reset", 0) != 0;
  } else {
    expect_activations(l, {"Tanh"}, direction);
  }
  while (operands.back() == no_value) operands.pop_back();
  const NodeId id = l.graph.add(Recurrent{Kind, direction, linear_before_reset, *hidden}, operands, l.name, {l.name});
  const std::vector<ValueId> outputs = l.graph.node(id).outputs;
  l.result(0, batch_first ? l.transpose(outputs[0], {2, 0, 1, 3}) : outputs[0], x.type);
  for (size_t i = 1; i < outputs.size(); ++i) {
    if (l.wants(i)) l.result(i, front(outputs[i]), x.type);
  }
}

// --- Attention -------------------------------------------------------------------------------------------

/// [B, T, H * D] as [B, H, T, D]; a tensor of rank 4 is so already.
ValueId split_heads(Lowering& l, ValueId x, int64_t heads) {
  const Dims dims = l.dims(x);
  if (dims.size() == 4) return x;
  if (dims.size() != 3 || heads < 1) refuse("an operand of rank {} with {} heads", dims.size(), heads);
  const Expression depth = l.simplify(Expression::divide(dims[2], heads));
  return l.transpose(l.reshape(x, {dims[0], dims[1], heads, depth}), {0, 2, 1, 3});
}

/// The mask as [B, H, Tq, Tk] with axes of size 1 in front; keys that it does not reach are masked.
ValueId full_mask(Lowering& l, ValueId mask, const Expression& keys) {
  Dims dims = l.dims(mask);
  if (dims.size() < 2 || dims.size() > 4) refuse("a mask of rank {}", dims.size());
  if (l.type(mask) == Type::i32) refuse("a mask of integers");
  dims.insert(dims.begin(), 4 - dims.size(), 1);
  ValueId y = l.reshape(mask, dims);
  const Expression missing = l.simplify(keys - dims[3]);
  if (dims[3].is_constant(1) || l.range(missing).lower <= 0) return y;
  const bool logic = l.type(y) == Type::boolean;
  if (logic) y = l.map(Step::b_to_i, {y});
  y = l.add(Pad{{0, 0, 0, 0}, {0, 0, 0, missing}, logic ? 0 : -INFINITY}, {y});
  return logic ? l.map(Step::i_to_b, {y}) : y;
}

/// [B, H, T, D] with every head repeated for its group of queries' heads.
ValueId repeat_heads(Lowering& l, ValueId x, const Expression& heads) {
  const Dims dims = l.dims(x);
  if (dims[1] == heads) return x;
  const Expression group = l.simplify(Expression::divide(heads, dims[1]));
  const ValueId wide = l.expand(l.unsqueeze(x, 2), {dims[0], dims[1], group, dims[2], dims[3]});
  return l.reshape(wide, {dims[0], heads, dims[2], dims[3]});
}

/// The formula, step by step: masks, repeated heads and scales are read from it as from anybody's own.
void attention(Lowering& l) {
  const Operand q_in = l.operand(0);
  const bool flat = l.rank(q_in.id) == 3;
  const int64_t heads = l.integer("q_num_heads", 0), shared = l.integer("kv_num_heads", 0);
  const ValueId q = split_heads(l, q_in.id, heads);
  ValueId k = split_heads(l, l.value(1), shared), v = split_heads(l, l.value(2), shared);
  if (l.has(4) != l.has(5)) refuse("only one of past_key and past_value is given");
  const bool causal = l.integer("is_causal", 0) != 0;
  Expression past = 0;  // queries stand behind the keys of the past
  if (l.has(4)) {
    k = l.add(Concat{2}, {l.value(4), k});
    v = l.add(Concat{2}, {l.value(5), v});
    past = l.dims(l.value(4))[2];
  }
  if (l.wants(1)) l.result(1, k, l.operand(1).type);
  if (l.wants(2)) l.result(2, v, l.operand(2).type);
  if (l.real("softcap", 0) != 0) refuse("attribute 'softcap' is not supported");
  l.ignore("softmax_precision");      // always float32
  l.ignore("qk_matmul_output_mode");  // of output 3, which is refused
  const auto depth = l.dims(q)[3].constant();
  if (!l.has_attribute("scale") && !depth) refuse("the size of a head is not known");
  const float scale =
      l.has_attribute("scale") ? l.real("scale") : static_cast<float>(1 / std::sqrt(static_cast<double>(*depth)));
  const Expression keys = l.dims(k)[2], queries = l.dims(q)[2], all_heads = l.dims(q)[1];

  const ValueId product = l.map(Step::f_mul, {q, l.real_constant(scale)});
  ValueId scores = l.add(Matmul{}, {product, l.swap_last(repeat_heads(l, k, all_heads))});
  const auto keep = [&](ValueId mask) { scores = l.select(mask, scores, l.real_constant(-INFINITY)); };
  if (l.has(3)) {
    const ValueId mask = full_mask(l, l.value(3), keys);
    if (l.type(mask) == Type::boolean)
      keep(mask);
    else
      scores = l.map(Step::f_add, {scores, mask});
  }
  if (causal) {
    const ValueId last = l.map(Step::i_add, {l.iota({queries, 1}, 0), l.add(Size{past}, {})});
    keep(l.map(Step::i_less_equal, {l.iota({1, keys}, 1), last}));
  }
  if (l.has(6)) {
    if (l.rank(l.value(6)) != 1) refuse("operand 6 (nonpad_kv_seqlen) is of rank {}, not 1", l.rank(l.value(6)));
    const ValueId lengths = l.reshape(l.value(6), {l.dims(l.value(6))[0], 1, 1, 1});
    keep(l.map(Step::i_less, {l.iota({1, 1, 1, keys}, 3), lengths}));
  }
  const ValueId y = l.add(Matmul{}, {l.add(Softmax{3}, {scores}), repeat_heads(l, v, all_heads)});
  const Dims dims = l.dims(y);
  if (!flat) {
    l.result(0, y, q_in.type);
    return;
  }
  l.result(0, l.reshape(l.transpose(y, {0, 2, 1, 3}), {dims[0], dims[2], dims[1] * dims[3]}), q_in.type);
}

// --- Rotary positions ------------------------------------------------------------------------------------

/// Half-width cosines or sines [.., R / 2] as rope's table [.., R]; `minus`: in sin, of the first of each pair.
ValueId rope_table(Lowering& l, ValueId half_table, Pairing pairing, bool minus) {
  const auto half = l.dims(half_table).back().constant();
  if (!half) refuse("the number of channels that are rotated is not known");
  std::vector<Channel> channels;
  for (int64_t i = 0; i < 2 * *half; ++i) {
    const bool interleaved = pairing == Pairing::interleaved;
    channels.push_back({interleaved ? i / 2 : i % *half, minus && (interleaved ? i % 2 == 0 : i < *half)});
  }
  return pick_channels(l.graph, half_table, l.rank(half_table) - 1, channels);
}

/// x is [B, H, T, D] or [B, T, H * D]; tables [positions, R / 2] with `positions` [B, T], else [B, T, R / 2].
void rotary(Lowering& l, ValueId cos, ValueId sin, ValueId positions) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const auto pairing = static_cast<Pairing>(l.integer("interleaved", 0) != 0);
  const int64_t heads = l.integer("num_heads", 0), rotated = l.integer("rotary_embedding_dim", 0);
  const auto table = [&](ValueId half, bool minus) {
    const auto channels = l.dims(half).back().constant();
    if (rotated != 0 && channels && *channels != rotated / 2)
      refuse("attribute 'rotary_embedding_dim' is {}, the tables are for {}", rotated, 2 * *channels);
    ValueId whole = rope_table(l, half, pairing, minus);
    if (positions != no_value) whole = l.add(Gather{0}, {whole, positions});
    return l.unsqueeze(whole, dims.size() == 4 ? 1 : 2);
  };
  ValueId split = x.id;
  if (dims.size() == 3) {
    const auto channels = dims[2].constant(), pairs = l.dims(cos).back().constant();
    if (!channels || !pairs || *pairs == 0) refuse("the size of a head is not known");
    const int64_t count = heads > 0 ? heads : *channels / (2 * *pairs);
    if (count == 0 || *channels % count != 0) refuse("{} channels with {} heads", *channels, count);
    split = l.reshape(x.id, {dims[0], dims[1], count, *channels / count});
  } else if (dims.size() != 4) {
    refuse("a tensor of rank {}", dims.size());
  }
  const ValueId y = l.add(Rope{pairing}, {split, table(cos, false), table(sin, true)});
  l.result(0, l.reshape(y, dims), x.type);
}

void rotary_embedding(Lowering& l) {
  const ValueId cos = l.value(1), sin = l.value(2);
  rotary(l, cos, sin, l.optional(3).id);
}

/// com.microsoft's: the positions stand before the tables, and may be one number, that of the first token.
void rotary_embedding_of_offset(Lowering& l) {
  ValueId positions = l.value(1);
  const ValueId cos = l.value(2), sin = l.value(3);
  l.expect("is_packed_batching", 0);
  if (l.real("scale", 1) != 1) refuse("attribute 'scale' is not supported");
  if (l.rank(positions) == 1) {
    const Dims dims = l.dims(l.value(0));
    if (dims.size() < 3) refuse("a tensor of rank {}", dims.size());
    const Expression tokens = dims[dims.size() == 4 ? 2 : 1];
    positions = l.map(Step::i_add, {l.iota({1, tokens}, 1), l.unsqueeze(positions, 0)});
  }
  rotary(l, cos, sin, positions);
}

constexpr LoweringRow rows[] = {
    {"", "Attention", 23, attention},
    {"", "GRU", 7, recurrent<Cell::gru>},
    {"", "LSTM", 7, recurrent<Cell::lstm>},
    {"", "RNN", 7, recurrent<Cell::rnn>},
    {"", "RotaryEmbedding", 23, rotary_embedding},
    {"com.microsoft", "RotaryEmbedding", 1, rotary_embedding_of_offset},
};

}  // namespace

std::span<const LoweringRow> sequence_lowerings() {
  return rows;
}

}  // namespace heed::tools

/// Layers whose weights are constant, in int8: weights with a scale for each output channel, rows of activations with
/// a scale found as they are made.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "kernels/matmul_i8/matmul_i8.h"
#include "tools/error.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

/// Below so many terms a sum costs more to quantise than int8 saves.
constexpr int64_t least_terms = 16;
/// Elements of a table below which its bytes are not worth what rounding costs.
constexpr int64_t least_table = 1 << 16;

/// Whether int8 is faster than float on AVX2 without dot products, where it gains least: measured, one layer at a time
/// (float / int8 of matmul, its rows quantised for it alone: 64 x 32 .65 to .95, 64 x 64 .95 to 1.1, 128 x 128 1.25 to
/// 1.3, of one row 64 x 128 .75, 128 x 128 1.25; of attention, queries x head dim: 32 x 32 .85, 64 x 16 .9, 64 x 32
/// 1.05, 128 x 16 1.05, 256 x 64 1.35; of conv: 16 outputs .5 to .9, 32 .9 to 1.1, 64 1.2 to 1.6, 128 1.4 to 1.6; of
/// LSTM and GRU: 32 and 32 .5 to 1, 64 and 64 1.05 to 1.2, 128 and 128 1.4 to 1.7; of GRU without
/// linear_before_reset: 64 .7 to 1, 128 1 to 1.2).
bool gains(const Graph& graph, const Node& layer) {
  const auto most = [&](const Expression& size) { return size.range(graph.dimensions).upper; };
  const Dims& x = graph.value(layer.inputs[0]).dims;
  if (std::holds_alternative<Attention>(layer.operation)) {  // keys and values are packed for all queries together
    const int64_t queries = most(x[2]), head_dim = most(x[3]);
    return queries >= 64 && head_dim >= 16 && queries * head_dim >= 2048;
  }
  if (std::holds_alternative<Matmul>(layer.operation)) {
    const std::vector<int64_t>& w = graph.value(layer.inputs[1]).constant->dims;
    const int64_t n = w.back(), k = *(w.end() - 2);
    const bool few_rows = std::all_of(x.begin(), x.end() - 1, [&](const Expression& rows) { return most(rows) < 8; });
    return std::min(n, k) >= 32 && n * k >= (few_rows ? 1 << 14 : 1 << 12);
  }
  if (const auto* conv = std::get_if<Conv>(&layer.operation)) {
    const std::vector<int64_t>& w = graph.value(layer.inputs[1]).constant->dims;
    return w.back() / conv->groups >= 64;  // what a window's quantisation is shared by
  }
  if (const auto* recurrent = std::get_if<Recurrent>(&layer.operation)) {
    const bool twice = recurrent->cell == Cell::gru && !recurrent->linear_before_reset;  // rows of h are quantised
    return graph.value(layer.inputs[1]).constant->dims[2] + recurrent->hidden >= (twice ? 256 : 128);
  }
  return true;
}

Literal with_dims(Literal literal, std::vector<int64_t> dims) {
  literal.dims = std::move(dims);
  return literal;
}

template <class... Operations>
bool is_one_of(const Operation& operation) {
  return (std::holds_alternative<Operations>(operation) || ...);
}

/// Steps after which values of all magnitudes are of one. A logarithm's first coefficients still drown the others.
bool levels(Step step) {
  return step == Step::f_tanh || step == Step::f_sigmoid;
}

bool goes_by(const Node& layer, const std::string& glob) {
  const auto matches = [&](const std::string& name) {
    return name == glob || fnmatch(glob.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
  };
  return matches(layer.name) || std::any_of(layer.absorbed.begin(), layer.absorbed.end(), matches);
}

/// Whether a product with these weights has an int8 form.
bool is_layer(const Graph& graph, const Node& node) {
  if (!std::holds_alternative<Matmul>(node.operation)) return false;
  const auto& weights = graph.value(node.inputs[1]).constant;
  if (!weights || graph.value(node.inputs[0]).constant || weights->dims.size() < 2) return false;
  const int64_t n = weights->dims.back(), k = *(weights->dims.end() - 2);
  const std::span<const float> w = weights->floats();
  return weights->count() == k * n && k >= least_terms && k <= most_terms_i8(255, 127) &&
         std::all_of(w.begin(), w.end(), [](float each) { return std::isfinite(each); });
}

class Quantization {
 public:
  Quantization(Graph& graph, const Int8Options& options, std::map<ValueId, Range> ranges, Report& report)
      : graph_(graph), options_(options), ranges_(std::move(ranges)), report_(report) {}

  void run() {
    find_raw();
    check_globs();
    std::vector<NodeId> layers;
    for (const NodeId id : graph_.order()) {
      const Node& layer = graph_.node(id);
      if (can_be_int8(layer) && !stays_float(layer)) layers.push_back(id);
    }
    if (options_.calibration) layers = smooth(graph_, std::move(layers), *options_.calibration, report_);
    for (const NodeId id : layers) {
      const Node& layer = graph_.node(id);
      report_.int8_layers.push_back(layer.name);
      if (std::holds_alternative<Attention>(layer.operation))
        attention(id);
      else if (std::holds_alternative<Matmul>(layer.operation))
        matmul(id);
      else if (std::holds_alternative<Conv>(layer.operation))
        conv(id);
      else
        recurrent(id);
    }
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<Gather>(graph_.node(id).operation)) gather(id);
    if (!kept_.empty()) report_.notes.push_back(fmt::format("kept in float: {}", fmt::join(kept_, ", ")));
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<Quantize>(graph_.node(id).operation)) into_maker(id);
    for (const auto& [why, names] : in_float_) {
      constexpr size_t told = 4;
      std::string list;
      for (size_t i = 0; i < names.size() && i < told; ++i) list += (i > 0 ? ", '" : " '") + names[i] + "'";
      if (names.size() > told) list += " and " + std::to_string(names.size() - told) + " more";
      report_.notes.push_back("in float, " + why + ":" + list);
    }
  }

 private:
  /// Values made of the model's inputs before any layer that sets their scale: signals and their spectra. Small ones
  /// mean as much as large ones there, and one scale for a row would drown them.
  void find_raw() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      const bool is_state = std::any_of(graph_.states.begin(), graph_.states.end(),
                                        [&](const State& state) { return state.input == static_cast<int>(i); });
      if (!is_state) raw_[graph_.inputs[i].value] = Raw::handed_in;
    }
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      const auto is_raw = [&](ValueId input) { return raw_.count(input) != 0; };
      if (!std::any_of(node.inputs.begin(), node.inputs.end(), is_raw)) continue;
      const bool moves = is_one_of<Reshape, Transpose, Slice, Expand, Concat, Pad>(node.operation);
      if (!moves && !keeps_raw(node)) continue;
      const auto first = raw_.find(node.inputs[0]);
      const Raw made = moves && first != raw_.end() ? first->second : Raw::computed;
      for (const ValueId output : node.outputs)
        if (graph_.value(output).type != Type::boolean) raw_[output] = made;  // conditions are of one magnitude
    }
  }
  bool keeps_raw(const Node& node) const {
    if (const auto* map = std::get_if<Map>(&node.operation)) return !levels(map->step);
    if (const auto* matmul = std::get_if<Matmul>(&node.operation))
      return matmul->activation == Activation::none && node.inputs.size() == 2;
    if (const auto* conv = std::get_if<Conv>(&node.operation))
      return conv->activation == Activation::none && node.inputs.size() == 2;
    if (std::holds_alternative<Gather>(node.operation))
      return raw_.count(node.inputs[0]) != 0;  // frames, not embeddings
    return is_one_of<Reduce, Pool>(node.operation);
  }
  /// Rows that are handed in are features, which their maker scaled, to a product; a convolution reads a signal, and a
  /// recurrent layer carries what it loses from step to step.
  bool reads_raw(const Node& layer) const {
    if (std::holds_alternative<Attention>(layer.operation)) return false;
    const auto raw = raw_.find(layer.inputs[0]);
    return raw != raw_.end() && (raw->second == Raw::computed || !std::holds_alternative<Matmul>(layer.operation));
  }

  /// A glob that no node goes by is a mistake.
  void check_globs() {
    std::vector<std::string> problems;
    const std::vector<NodeId> order = graph_.order();
    for (const std::string& glob : options_.keep_float) {
      if (std::any_of(order.begin(), order.end(), [&](NodeId id) { return goes_by(graph_.node(id), glob); })) continue;
      std::vector<std::string> layers;
      for (const NodeId id : order) {
        const Node& node = graph_.node(id);
        if (can_be_int8(node) ? !reads_raw(node) && gains(graph_, node) : has_large_table(node))
          layers.push_back(node.name);
      }
      problems.push_back(fmt::format("--keep-float {}: no layer and no ONNX node has such a name; int8 would be {}",
                                     glob, layers.empty() ? "none" : likest_first(glob, std::move(layers))));
    }
    if (!problems.empty()) throw Error(Fault::command_line, problems);
  }

  /// Whether an int8 form of a node exists.
  bool can_be_int8(const Node& node) const {
    if (std::holds_alternative<Attention>(node.operation)) return true;
    if (std::holds_alternative<Recurrent>(node.operation))
      return are_weights(node.inputs[1]) && are_weights(node.inputs[2]) &&
             fits(graph_.value(node.inputs[1]).constant->dims[2]) && fits(std::get<Recurrent>(node.operation).hidden) &&
             (operand(node, 3) == no_value || are_weights(node.inputs[3]));
    const auto* conv = std::get_if<Conv>(&node.operation);
    if ((conv == nullptr && !std::holds_alternative<Matmul>(node.operation)) || graph_.value(node.inputs[0]).constant ||
        !are_weights(node.inputs[1]))
      return false;
    const Literal& weights = *graph_.value(node.inputs[1]).constant;
    if (weights.dims.size() < 2) return false;
    const int64_t n = weights.dims.back(),
                  k = conv != nullptr ? weights.count() / std::max<int64_t>(n, 1) : *(weights.dims.end() - 2);
    return weights.count() == k * n && fits(k);
  }
  bool are_weights(ValueId id) const {
    const auto& literal = graph_.value(id).constant;
    if (!literal || literal->type != Type::f32) return false;
    const std::span<const float> w = literal->floats();
    return std::all_of(w.begin(), w.end(), [](float each) { return std::isfinite(each); });
  }
  static bool fits(int64_t terms) { return terms >= least_terms && terms <= most_terms_i8(255, 127); }

  /// What is asked for, and what had better.
  bool stays_float(const Node& layer) {
    const auto& globs = options_.keep_float;
    const bool is_raw = reads_raw(layer);
    if (std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) { return goes_by(layer, glob); }))
      kept_.push_back(layer.name);
    else if (is_raw || !gains(graph_, layer))
      in_float_[is_raw ? "reading the model's inputs before a layer sets their scale" : "too small to gain from int8"]
          .push_back(layer.name);
    else
      return false;
    return true;
  }

  /// Rows as int8, the scales of their groups, and their zero points (no_value: 0).
  struct Rows {
    ValueId q, scale, zero = no_value;
  };

  /// The last axis of a value as int8 in `groups` groups, made once for all their readers. What only arranges rows or
  /// groups goes behind: whoever makes the elements may quantise them then.
  Rows rows_of(ValueId x, int64_t groups, const std::string& name, bool asymmetric = false) {
    const auto [entry, is_new] = rows_.try_emplace({x, groups, asymmetric});
    if (is_new) entry->second = arranged(x, groups, name, asymmetric);
    return entry->second;
  }

  Rows arranged(ValueId x, int64_t groups, const std::string& name, bool asymmetric) {
    const auto with_groups = [&](Dims dims) {
      dims.back() = groups;
      return dims;
    };
    if (const auto* transpose = made_by<Transpose>(graph_, x);
        transpose != nullptr && transpose->permutation.back() + 1 == static_cast<int>(transpose->permutation.size())) {
      const Transpose op = *transpose;
      const auto [q, scale, zero] = rows_of(producer(graph_, x)->inputs[0], groups, name, asymmetric);
      return {graph_.add_value(op, {q}, name), graph_.add_value(op, {scale}, name),
              zero == no_value ? no_value : graph_.add_value(op, {zero}, name)};
    }
    if (made_by<Reshape>(graph_, x) != nullptr) {
      // [.., H * D] -> [.., H, D], or the last axis as it is.
      const ValueId from = producer(graph_, x)->inputs[0];
      const Dims own = graph_.value(x).dims, before = graph_.value(from).dims;
      const auto heads = own.size() > 1 ? own[own.size() - 2].constant() : std::nullopt;
      const bool splits = heads && !before.empty() && before.size() + 1 == own.size() &&
                          before.back() == own.back() * *heads &&
                          std::equal(before.begin(), before.end() - 1, own.begin());
      if (splits || (!before.empty() && before.back() == own.back())) {
        const auto [q, scale, zero] = rows_of(from, splits ? groups * *heads : groups, name, asymmetric);
        const Reshape as_groups{with_groups(own)};
        return {graph_.add_value(Reshape{own}, {q}, name), graph_.add_value(as_groups, {scale}, name),
                zero == no_value ? no_value : graph_.add_value(as_groups, {zero}, name)};
      }
    }
    const std::vector<ValueId>& made = graph_.node(graph_.add(Quantize{groups, asymmetric}, {x}, name)).outputs;
    return {made[0], made[1], asymmetric ? made[2] : no_value};
  }

  /// What a product reads: in a range where one is given.
  Rows operand_of(ValueId x, const std::string& name) {
    const auto range = ranges_.find(x);
    if (range == ranges_.end() || !usable(range->second)) return rows_of(x, 1, name, has_zeros(x));
    const auto [entry, is_new] = given_.try_emplace(x);
    if (is_new) entry->second = in_range(x, range->second, name);
    return entry->second;
  }

  /// Whether a value's rows have zero points: products alone read them in int8, which know what to do with those, and
  /// no table has them.
  bool has_zeros(ValueId x) const {
    if (rows_.count({x, 1, false}) != 0 || made_by<Gather>(graph_, x) != nullptr) return false;
    const std::vector<NodeId> readers = graph_.readers(x);
    return std::none_of(readers.begin(), readers.end(), [&](NodeId id) {
      return id >= 0 && is_one_of<Attention, Recurrent>(graph_.node(id).operation);
    });
  }

  static bool usable(const Range& range) {
    const float width = std::max(range.highest, 0.0f) - std::min(range.lowest, 0.0f);
    return width >= 0x1p-100f && std::isfinite(width);
  }

  /// 0 is a step: padding and what an activation cuts off stay what they are.
  Rows in_range(ValueId x, const Range& range, const std::string& name) {
    const float low = std::min(range.lowest, 0.0f), scale = (std::max(range.highest, 0.0f) - low) / 255;
    const auto zero = std::clamp<int64_t>(std::lround(-128 - double{low} / scale), -128, 127);
    const ValueId s = graph_.constant(name + " scale", Literal::of({}, std::vector<float>{scale})),
                  z = graph_.constant(name + " zero", Literal::of({}, std::vector<int64_t>{zero}));
    Dims rows = graph_.value(x).dims;
    rows.back() = 1;
    const auto for_rows = [&](ValueId parameter) { return graph_.add_value(Expand{rows}, {parameter}, name); };
    return {graph_.add_value(QuantizeLinear{-128, 127, true}, {x, s, z}, name), for_rows(s),
            zero == 0 ? no_value : for_rows(z)};
  }

  void attention(NodeId id) {
    const Node node = graph_.node(id);
    Attention op = std::get<Attention>(node.operation);
    op.int8 = true;
    std::vector<ValueId> inputs = node.inputs;
    inputs.resize(7, no_value);
    for (size_t i = 0; i < 3; ++i) {
      const Rows rows = rows_of(inputs[i], 1, node.name);
      inputs[i] = rows.q;
      inputs.push_back(rows.scale);
    }
    const NodeId made = graph_.add(op, std::move(inputs), node.name, node.absorbed);
    graph_.node(made).mark = node.mark;
    graph_.replace(node.outputs[0], graph_.node(made).outputs[0]);
    report_.fused.push_back({"int8 attention", node.name, node.absorbed, 0});
  }

  void matmul(NodeId id) {
    const Node node = graph_.node(id);
    const Value weights = graph_.value(node.inputs[1]);
    const std::vector<int64_t> dims(weights.constant->dims.end() - 2, weights.constant->dims.end());
    const auto [q, scale, zero] = operand_of(node.inputs[0], node.name);
    const auto [b, b_scale] = by_last_axis(weights, dims);
    const ValueId y = replace(node, MatmulI8{std::get<Matmul>(node.operation).activation},
                              {q, scale, b, b_scale, operand(node, 2), operand(node, 3), zero})[0];
    if (const auto range = ranges_.find(node.outputs[0]); range != ranges_.end()) ranges_[y] = range->second;
    report_.fused.push_back({"int8 matmul", node.name, node.absorbed, 0});
  }

  void conv(NodeId id) {
    const Node node = graph_.node(id);
    const Value weights = graph_.value(node.inputs[1]);
    const auto [w, w_scale] = by_last_axis(weights, weights.constant->dims);
    replace(node, ConvI8{std::get<Conv>(node.operation)},
            {node.inputs[0], w, w_scale, operand(node, 2), operand(node, 3)});
    report_.fused.push_back({"int8 conv", node.name, node.absorbed, 0});
  }

  void recurrent(NodeId id) {
    const Node node = graph_.node(id);
    const Value w = graph_.value(node.inputs[1]), r = graph_.value(node.inputs[2]);  // the graph's own move
    const auto [x, x_scale, none] = rows_of(node.inputs[0], 1, node.name);
    const auto [w8, w_scale] = by_rows(w);
    const auto [r8, r_scale] = by_rows(r);
    replace(node, RecurrentI8{std::get<Recurrent>(node.operation)},
            {x, x_scale, w8, w_scale, r8, r_scale, operand(node, 3), operand(node, 4), operand(node, 5)});
    report_.fused.push_back({"int8 recurrent", node.name, node.absorbed, 0});
  }

  /// Rows of a large table, or of one that a product has in int8 anyway, which is then stored once.
  void gather(NodeId id) {
    const Node node = graph_.node(id);
    if (!has_table(node)) return;
    const auto [rows, scale] = by_rows(graph_.value(node.inputs[0]));
    if ((!has_large_table(node) && !is_in_product(*graph_.value(rows).constant)) || stays_float(node)) return;
    report_.int8_layers.push_back(node.name);
    replace(node, Gather{0}, {rows, node.inputs[1], scale});
    report_.fused.push_back({"int8 gather", node.name, node.absorbed, 0});
  }
  bool has_table(const Node& node) const {
    const auto* gather = std::get_if<Gather>(&node.operation);
    if (gather == nullptr || gather->axis != 0 || node.inputs.size() > 2 || !are_weights(node.inputs[0])) return false;
    const std::vector<int64_t>& dims = graph_.value(node.inputs[0]).constant->dims;
    return dims.size() == 2 && fits(dims[1]);
  }
  bool has_large_table(const Node& node) const {
    return has_table(node) && graph_.value(node.inputs[0]).constant->count() >= least_table;
  }
  bool is_in_product(const Literal& rows) {
    const int64_t entries = rows.dims[0], k = rows.dims[1];
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (!std::holds_alternative<MatmulI8>(node.operation)) continue;
      const Literal& b = *graph_.value(node.inputs[2]).constant;
      if (b.dims != std::vector<int64_t>{k, entries}) continue;
      bool same = true;
      for (int64_t i = 0; same && i < rows.count(); ++i)
        same = rows.bytes()[static_cast<size_t>(i)] == b.bytes()[static_cast<size_t>(i % k * entries + i / k)];
      if (same) return true;
    }
    return false;
  }

  static ValueId operand(const Node& node, size_t i) { return i < node.inputs.size() ? node.inputs[i] : no_value; }

  /// What computes the same results; its outputs.
  std::vector<ValueId> replace(const Node& node, Operation operation, std::vector<ValueId> inputs) {
    const std::vector<ValueId> made =
        graph_.node(graph_.add(std::move(operation), std::move(inputs), node.name, node.absorbed)).outputs;
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] != no_value)
        graph_.replace(node.outputs[i], made[i]);
      else
        graph_.node(graph_.value(made[i]).producer).outputs[i] = no_value;
    return made;
  }

  /// Weights as int8 and the scales of their channels, which step along the last axis.
  std::pair<ValueId, ValueId> by_last_axis(const Value& weights, const std::vector<int64_t>& dims) {
    const int64_t n = dims.back();
    return by_channel(weights, dims, {n}, [n](int64_t i) { return i % n; });
  }
  /// The same of channels that are rows along it.
  std::pair<ValueId, ValueId> by_rows(const Value& weights) {
    const std::vector<int64_t>& dims = weights.constant->dims;
    const int64_t length = dims.back();
    return by_channel(weights, dims, {dims.begin(), dims.end() - 1}, [length](int64_t i) { return i / length; });
  }
  template <class Channel>
  std::pair<ValueId, ValueId> by_channel(const Value& weights, const std::vector<int64_t>& dims,
                                         const std::vector<int64_t>& channels, Channel channel) {
    const std::span<const float> w = weights.constant->floats();
    std::vector<float> scales(
        static_cast<size_t>(std::accumulate(channels.begin(), channels.end(), int64_t{1}, std::multiplies<>())));
    const auto count = static_cast<int64_t>(w.size());
    for (int64_t i = 0; i < count; ++i) {
      float& top = scales[static_cast<size_t>(channel(i))];
      top = std::max(top, std::abs(w[static_cast<size_t>(i)]));
    }
    std::vector<int8_t> bytes(w.size());
    for (int64_t i = 0; i < count; ++i)
      if (const double top = scales[static_cast<size_t>(channel(i))]; top > 0)
        bytes[static_cast<size_t>(i)] = static_cast<int8_t>(std::nearbyint(w[static_cast<size_t>(i)] * 127 / top));
    for (float& scale : scales) scale /= 127;
    const std::string scale_name = weights.name + " scale";
    const ValueId q = graph_.constant(weights.name, Literal::of(dims, std::move(bytes)));
    return {q, graph_.constant(scale_name, Literal::of(channels, std::move(scales)))};
  }

  /// Products and normalizations write their rows as int8 themselves, and a table of int8 has them.
  void into_maker(NodeId id) {
    const Node quantize = graph_.node(id);
    const Quantize rows = std::get<Quantize>(quantize.operation);
    const ValueId x = quantize.inputs[0];
    const Node* maker = producer(graph_, x);
    if (maker == nullptr) return;
    if (made_by<Gather>(graph_, x) != nullptr && maker->inputs.size() > 2 && rows.groups == 1 && !rows.asymmetric &&
        !is_in_product(*graph_.value(maker->inputs[0]).constant)) {
      const Node gather = *maker;
      const int64_t entries = graph_.value(gather.inputs[2]).constant->count();
      const ValueId scales =
          graph_.constant(gather.name + " scale", with_dims(*graph_.value(gather.inputs[2]).constant, {entries, 1}));
      graph_.replace(quantize.outputs[0],
                     graph_.add_value(Gather{0}, {gather.inputs[0], gather.inputs[1]}, gather.name, gather.absorbed));
      graph_.replace(quantize.outputs[1],
                     graph_.add_value(Gather{0}, {scales, gather.inputs[1]}, gather.name + " scale"));
      return;
    }
    Node both = *maker;
    const auto takes = [&](auto* op) {
      if (op == nullptr || op->groups > 0) return false;
      op->groups = rows.groups;
      op->asymmetric = rows.asymmetric;
      return true;
    };
    auto* product = std::get_if<MatmulI8>(&both.operation);
    if (product != nullptr && both.inputs.size() > 8) return;  // to a scale that is given
    if (!takes(product) && !takes(std::get_if<Normalize>(&both.operation))) return;
    const NodeId into = graph_.add(both.operation, both.inputs, both.name, both.absorbed);
    const std::vector<ValueId> made = graph_.node(into).outputs;
    graph_.replace(x, made[0]);
    for (size_t i = 0; i < quantize.outputs.size(); ++i) graph_.replace(quantize.outputs[i], made[i + 1]);
    graph_.drop(std::array{id});
    if (product != nullptr && product->activation == Activation::gelu && graph_.readers(made[0]).empty())
      std::get<MatmulI8>(graph_.node(into).operation).activation = Activation::gelu_i8;
  }

  Graph& graph_;
  const Int8Options& options_;
  std::map<ValueId, Range> ranges_;
  Report& report_;
  std::map<std::tuple<ValueId, int64_t, bool>, Rows> rows_;  // by value, groups, and whether asymmetric
  std::map<ValueId, Rows> given_;
  std::vector<std::string> kept_;
  enum class Raw { handed_in, computed };
  std::map<ValueId, Raw> raw_;
  std::map<std::string, std::vector<std::string>> in_float_;  // names by the reason
};

}  // namespace

std::vector<ValueId> quantizable(const Graph& graph) {
  std::set<ValueId> found;
  for (size_t i = 0; i < graph.node_count(); ++i)
    if (const Node& node = graph.node(static_cast<NodeId>(i)); !node.dead && is_layer(graph, node))
      found.insert(node.inputs[0]);
  return {found.begin(), found.end()};
}

void quantize(Graph& graph, Report& report, const Int8Options& options, const std::map<ValueId, Range>& ranges) {
  Quantization(graph, options, ranges, report).run();
}

}  // namespace heed::tools

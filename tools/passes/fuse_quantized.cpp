/// Models that are quantised already. As they are imported, each integer has its exact meaning: QuantizeLinear and
/// DequantizeLinear between floats, products of integers. Before the fusions settle_quantized() brings products with
/// weights to one form, floats that DequantizeLinear makes times weights that know their scale; after them
/// fuse_quantized() makes that int8 products with zero points, and expand_quantized() steps of programs of the rest.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "kernels/matmul_i8/matmul_i8.h"
#include "tools/error.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

bool is_one(const Graph& graph, ValueId id) {
  return count(graph.value(id).dims).is_constant(1);
}

/// Equal for sure: the same value, or constants of the same elements.
bool same(const Graph& graph, ValueId a, ValueId b) {
  const auto &x = graph.value(a).constant, &y = graph.value(b).constant;
  if (a == b || !x || !y || x->type != y->type || x->count() != 1 || y->count() != 1) return a == b;
  return x->type == Type::f32 ? x->floats()[0] == y->floats()[0] : x->integers()[0] == y->integers()[0];
}

const Node* dequantised(const Graph& graph, ValueId id) {
  return made_by<DequantizeLinear>(graph, id) ? producer(graph, id) : nullptr;
}

/// What a value is a view of, in the end.
ValueId below_views(const Graph& graph, ValueId id) {
  while (is_view(graph, id)) id = producer(graph, id)->inputs[0];
  return id;
}

/// The same views of another value.
ValueId with_views(Graph& graph, ValueId id, ValueId base, ValueId replaced) {
  if (id == base) return replaced;
  const Node view = *producer(graph, id);
  return graph.add_value(view.operation, {with_views(graph, view.inputs[0], base, replaced)}, view.name, view.absorbed);
}

/// The quantisation to 8 bits that a value is, or is a view of.
const Node* eight_bits(const Graph& graph, ValueId id) {
  id = below_views(graph, id);
  const auto* op = made_by<QuantizeLinear>(graph, id);
  return op != nullptr && op->lowest >= INT8_MIN && op->highest - op->lowest <= UINT8_MAX && op->highest <= UINT8_MAX
             ? producer(graph, id)
             : nullptr;
}

/// A product of integers: its operands less their zero points.
struct IntegerProduct {
  ValueId a, a_zero, b, b_zero;  // zeros: no_value where there are none
};
std::optional<IntegerProduct> integer_product(const Graph& graph, ValueId id) {
  if (!made_by<Matmul>(graph, id) || graph.value(id).type != Type::i32) return std::nullopt;
  const auto side = [&](ValueId x) -> std::pair<ValueId, ValueId> {
    const auto* difference = operands_of(graph, x, Step::i_sub);
    return difference == nullptr ? std::pair(x, no_value) : std::pair((*difference)[0], (*difference)[1]);
  };
  const std::vector<ValueId>& operands = producer(graph, id)->inputs;
  const auto [a, a_zero] = side(operands[0]);
  const auto [b, b_zero] = side(operands[1]);
  return IntegerProduct{a, a_zero, b, b_zero};
}

// --- Before the fusions ----------------------------------------------------------------------------------------------

class Settling {
 public:
  Settling(Graph& graph, Report& report) : graph_(graph), report_(report) {}

  void run(bool relax) {
    for (const NodeId id : graph_.order()) views_after(id);
    for (const NodeId id : graph_.order()) quantised_again(id);
    for (const NodeId id : graph_.order()) weights(id);
    if (relax) relax_attention();
  }

 private:
  ValueId one(const std::string& name) { return graph_.constant(name, Literal::of({}, std::vector<float>{1})); }
  ValueId zero_of(ValueId zero, const std::string& name) {
    return zero != no_value ? zero : graph_.constant(name, Literal::of({}, std::vector<int64_t>{0}));
  }

  /// Dequantised as a whole, viewed then.
  void views_after(NodeId id) {
    const Node node = graph_.node(id);
    if (!std::holds_alternative<DequantizeLinear>(node.operation) || !is_view(graph_, node.inputs[0]) ||
        !is_one(graph_, node.inputs[1]) || !is_one(graph_, node.inputs[2]))
      return;
    const ValueId base = below_views(graph_, node.inputs[0]);
    const ValueId whole =
        graph_.add_value(DequantizeLinear{}, {base, node.inputs[1], node.inputs[2]}, node.name, node.absorbed);
    graph_.replace(node.outputs[0], with_views(graph_, node.inputs[0], base, whole));
  }

  /// What is dequantised and quantised alike has not changed.
  void quantised_again(NodeId id) {
    const Node node = graph_.node(id);
    const auto* op = std::get_if<QuantizeLinear>(&node.operation);
    if (op == nullptr) return;
    const ValueId base = below_views(graph_, node.inputs[0]);
    const Node* before = dequantised(graph_, base);
    if (before == nullptr || !same(graph_, before->inputs[1], node.inputs[1]) ||
        !same(graph_, before->inputs[2], node.inputs[2]))
      return;
    const ValueId q = before->inputs[0];
    const auto* first = made_by<QuantizeLinear>(graph_, below_views(graph_, q));
    if (first == nullptr || first->lowest != op->lowest || first->highest != op->highest) return;
    graph_.replace(node.outputs[0], with_views(graph_, node.inputs[0], base, q));
  }

  /// Sums of integer products with weights, times a scale: DequantizeLinear(sums), or float(sums) * scale.
  void weights(NodeId id) {
    const Node node = graph_.node(id);
    ValueId sums = no_value, scale = no_value;
    if (const Node* whole = dequantised(graph_, node.outputs[0])) {
      if (uniform_zero(whole->inputs[2])) sums = whole->inputs[0], scale = whole->inputs[1];
    } else if (const auto* product = operands_of(graph_, node.outputs[0], Step::f_mul)) {
      for (size_t i = 0; i < 2; ++i)
        if (const auto* floats = operands_of(graph_, (*product)[i], Step::i_to_f))
          sums = (*floats)[0], scale = (*product)[1 - i];
    }
    if (sums == no_value) return;
    const auto product = integer_product(graph_, sums);
    if (!product || eight_bits(graph_, product->a) == nullptr || product->b_zero != no_value ||
        (product->a_zero != no_value && !is_one(graph_, product->a_zero)))
      return;
    const std::optional<Literal> integers = graph_.value(product->b).constant;
    if (!integers || integers->dims.size() != 2) return;
    const auto scales = split(scale, node.name);
    if (!scales) return;
    const auto [a_scale, b_scale] = *scales;
    const Literal& columns = *graph_.value(b_scale).constant;
    const int64_t n = integers->dims[1];
    if (columns.count() != 1 && (columns.count() != n || columns.dims.back() != n)) return;
    std::vector<float> values(static_cast<size_t>(integers->count()));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(integers->integers()[i]) *
                  columns.floats()[columns.count() == 1 ? 0 : i % static_cast<size_t>(n)];
    Literal w = Literal::of(integers->dims, std::move(values));
    w.scale = std::make_shared<const Literal>(columns);
    const ValueId x = graph_.add_value(DequantizeLinear{}, {product->a, a_scale, zero_of(product->a_zero, node.name)},
                                       node.name, node.absorbed);
    const std::string name = graph_.value(product->b).name;
    graph_.replace(node.outputs[0],
                   graph_.add_value(Matmul{}, {x, graph_.constant(name, std::move(w))}, node.name, node.absorbed));
  }

  bool uniform_zero(ValueId id) const { return uniform_integer(id) == 0; }
  std::optional<int64_t> uniform_integer(ValueId id) const {
    const auto& constant = graph_.value(id).constant;
    if (!constant || constant->count() != 1) return std::nullopt;
    return constant->integers()[0];
  }

  /// A scale as one number times a constant.
  std::optional<std::pair<ValueId, ValueId>> split(ValueId scale, const std::string& name) {
    if (graph_.value(scale).constant) return std::pair(one(name), scale);
    if (const auto* product = operands_of(graph_, scale, Step::f_mul))
      for (size_t i = 0; i < 2; ++i)
        if (graph_.value((*product)[1 - i]).constant && is_one(graph_, (*product)[i]))
          return std::pair((*product)[i], (*product)[1 - i]);
    if (is_one(graph_, scale)) return std::pair(scale, one(name));
    return std::nullopt;
  }

  // --- --qdq relax: what stands between the two products of an attention

  void relax_attention() {
    int attentions = 0;
    size_t pairs = 0;
    for (const NodeId id : graph_.order()) {
      if (!std::holds_alternative<Softmax>(graph_.node(id).operation)) continue;
      const Between before = behind(graph_.node(id).inputs[0]), after = ahead(graph_.node(id).outputs[0]);
      if (before.products.empty() || after.products.empty()) continue;
      std::set<ValueId> all = before.pairs;
      all.insert(after.pairs.begin(), after.pairs.end());
      for (const auto& products : {before.products, after.products})
        for (const ValueId product : products)
          if (graph_.value(product).type == Type::i32) in_floats(product, all);
      attentions += !all.empty();
      pairs += all.size();
      for (const ValueId pair : all) drop_pair(pair);
    }
    if (pairs > 0)
      report_.notes.push_back(
          fmt::format("{} quantisations between the two products of {} attentions are dropped "
                      "(--qdq keep keeps them, and the attentions in parts)",
                      pairs, attentions));
  }

  struct Between {
    std::set<ValueId> products, pairs;  // pairs: what DequantizeLinear makes of quantised floats
  };

  bool is_pair(ValueId id) const {
    const Node* node = dequantised(graph_, id);
    return node != nullptr && eight_bits(graph_, node->inputs[0]) != nullptr;
  }
  bool of_activations(ValueId id) const {
    const Node* node = producer(graph_, id);
    return node != nullptr && std::holds_alternative<Matmul>(node->operation) &&
           !graph_.value(node->inputs[0]).constant && !graph_.value(node->inputs[1]).constant;
  }

  /// From scores back to the products that they come from.
  Between behind(ValueId scores) const {
    Between found;
    std::set<ValueId> seen;
    for (std::vector<ValueId> open{scores}; !open.empty();) {
      const ValueId id = open.back();
      open.pop_back();
      const Node* node = producer(graph_, id);
      if (node == nullptr || !seen.insert(id).second) continue;
      if (of_activations(id)) {
        found.products.insert(id);
      } else if (const Node* whole = dequantised(graph_, id)) {
        if (is_pair(id)) found.pairs.insert(id);
        open.push_back(is_pair(id) ? eight_bits(graph_, whole->inputs[0])->inputs[0] : whole->inputs[0]);
      } else if (is_view(graph_, id)) {
        open.push_back(node->inputs[0]);
      } else if (std::holds_alternative<Map>(node->operation) && graph_.value(id).type == Type::f32) {
        for (const ValueId input : node->inputs)
          if (graph_.value(input).type == Type::f32) open.push_back(input);
      }
    }
    return found;
  }

  /// From weights on to the products that they go into.
  Between ahead(ValueId weights) const {
    Between found;
    for (std::vector<ValueId> open{weights}; !open.empty();) {
      const ValueId id = open.back();
      open.pop_back();
      for (const NodeId reader : graph_.readers(id)) {
        if (reader < 0) continue;
        const Node& node = graph_.node(reader);
        const ValueId out = node.outputs[0];
        const Map* map = std::get_if<Map>(&node.operation);
        if (of_activations(out)) {
          found.products.insert(out);
        } else if (std::holds_alternative<QuantizeLinear>(node.operation) ||
                   std::holds_alternative<DequantizeLinear>(node.operation) || is_view(graph_, out) ||
                   (map != nullptr && (map->step == Step::i_sub || map->step == Step::f_select))) {
          if (is_pair(out)) found.pairs.insert(out);
          open.push_back(out);
        }
      }
    }
    return found;
  }

  /// A product of two quantised activations, whose sums are dequantised, as one of floats.
  void in_floats(ValueId id, std::set<ValueId>& pairs) {
    const auto product = integer_product(graph_, id);
    const std::vector<NodeId> readers = graph_.readers(id);
    if (!product || readers.size() != 1 || readers[0] < 0) return;
    const Node whole = graph_.node(readers[0]);
    if (!std::holds_alternative<DequantizeLinear>(whole.operation)) return;
    ValueId scale = whole.inputs[1];
    const auto floats = [&](ValueId q, ValueId zero) {
      const Node* from = eight_bits(graph_, q);
      const bool known = from != nullptr && is_one(graph_, from->inputs[1]);
      const ValueId own = known ? from->inputs[1] : one(whole.name);
      const bool weights = from != nullptr && made_by<Softmax>(graph_, below_views(graph_, from->inputs[0]));
      scale = graph_.add_value(Map{Step::f_div}, {scale, own}, whole.name, whole.absorbed);
      const ValueId y = graph_.add_value(DequantizeLinear{}, {q, own, zero_of(zero, whole.name)}, whole.name);
      if (weights) pairs.insert(y);
      return y;
    };
    const ValueId a = floats(product->a, product->a_zero), b = floats(product->b, product->b_zero);
    const ValueId sums = graph_.add_value(Matmul{}, {a, b}, whole.name, whole.absorbed);
    graph_.replace(whole.outputs[0], graph_.add_value(Map{Step::f_mul}, {sums, scale}, whole.name, whole.absorbed));
  }

  /// (q - zero) * scale of what was quantised with the same zero: the floats, by the ratio of the scales.
  void drop_pair(ValueId id) {
    const Node whole = *producer(graph_, id);
    const ValueId base = below_views(graph_, whole.inputs[0]);
    const Node quantised = *producer(graph_, base);
    if (!same(graph_, quantised.inputs[2], whole.inputs[2])) return;
    ValueId y = with_views(graph_, whole.inputs[0], base, quantised.inputs[0]);
    if (!same(graph_, quantised.inputs[1], whole.inputs[1]))
      y = graph_.add_value(
          Map{Step::f_mul},
          {y, graph_.add_value(Map{Step::f_div}, {whole.inputs[1], quantised.inputs[1]}, whole.name, whole.absorbed)},
          whole.name, whole.absorbed);
    graph_.replace(id, y);
  }

  Graph& graph_;
  Report& report_;
};

// --- After the fusions -----------------------------------------------------------------------------------------------

class Fusing {
 public:
  explicit Fusing(Graph& graph) : graph_(graph) {}

  void run(Report& report) {
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<DequantizeLinear>(graph_.node(id).operation)) narrow(id);
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<Matmul>(graph_.node(id).operation)) product(id, report);
  }

  void expand() {
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<QuantizeLinear>(graph_.node(id).operation)) into_product(id);
    for (const NodeId id : graph_.order())
      std::visit(
          Overloaded{[&](const Matmul&) { in_parts(id); }, [&](const Conv&) { in_parts(id); }, [](const auto&) {}},
          graph_.node(id).operation);
    for (const NodeId id : graph_.order())
      std::visit(
          Overloaded{[&](const QuantizeLinear& op) { in_steps(QuantizeLinear(op), id); },
                     [&](const DequantizeLinear& op) { in_steps(DequantizeLinear(op), id); }, [](const auto&) {}},
          graph_.node(id).operation);
  }

 private:
  ValueId whole(int64_t value, const std::string& name) {
    return graph_.constant(name, Literal::of({}, std::vector<int64_t>{value}));
  }
  ValueId map(const Node& node, Map op, std::vector<ValueId> operands) {
    return graph_.add_value(op, std::move(operands), node.name, node.absorbed);
  }
  /// x - y, or x where y is nothing.
  ValueId less(const Node& node, ValueId x, ValueId y) {
    const auto& constant = graph_.value(y).constant;
    return constant && constant->count() == 1 && constant->integers()[0] == 0 ? x : map(node, {Step::i_sub}, {x, y});
  }

  /// 8 bits as i8: unsigned ones less 128, and so their zero point.
  void narrow(NodeId id) {
    const Node node = graph_.node(id);
    const Node* from = eight_bits(graph_, node.inputs[0]);
    if (from == nullptr || graph_.value(node.inputs[0]).type == Type::i8) return;
    const ValueId base = from->outputs[0];
    const auto& op = std::get<QuantizeLinear>(from->operation);
    const ValueId shift = whole(op.lowest >= 0 ? 128 : 0, node.name);
    const auto [entry, is_new] = narrowed_.try_emplace(base);
    if (is_new) {
      const Node old = *from;
      const int64_t by = op.lowest >= 0 ? 128 : 0;
      const QuantizeLinear bytes{op.lowest - by, op.highest - by, true};
      entry->second = graph_.add_value(bytes, {old.inputs[0], old.inputs[1], less(old, old.inputs[2], shift)}, old.name,
                                       old.absorbed);
    }
    const ValueId q = with_views(graph_, node.inputs[0], base, entry->second);
    graph_.replace(node.outputs[0],
                   graph_.add_value(DequantizeLinear{}, {q, node.inputs[1], less(node, node.inputs[2], shift)},
                                    node.name, node.absorbed));
  }

  /// Dequantised int8 times weights that are whole multiples of a scale.
  void product(NodeId id, Report& report) {
    const Node node = graph_.node(id);
    const auto& weights = graph_.value(node.inputs[1]).constant;
    if (graph_.value(node.outputs[0]).type != Type::f32 || !weights || weights->dims.size() != 2 || !weights->scale)
      return;
    const ValueId base = below_views(graph_, node.inputs[0]);
    const Node* from = dequantised(graph_, base);
    if (from == nullptr || graph_.value(from->inputs[0]).type != Type::i8 || !is_one(graph_, from->inputs[1]) ||
        !is_one(graph_, from->inputs[2]))
      return;
    const Node dequantise = *from;
    const int64_t k = weights->dims[0], n = weights->dims[1];
    const Literal& scale = *weights->scale;
    const auto columns = static_cast<size_t>(n);
    if (n == 0 || (scale.count() != 1 && (scale.count() != n || scale.dims.back() != n))) return;

    std::vector<float> b_scale(columns);
    for (size_t j = 0; j < columns; ++j) b_scale[j] = scale.floats()[scale.count() == 1 ? 0 : j];
    std::vector<int64_t> steps(static_cast<size_t>(k * n)), lowest(columns), highest(columns);
    for (size_t i = 0; i < steps.size(); ++i) {
      const double step = b_scale[i % columns], w = weights->floats()[i];
      const double q = step == 0 ? 0 : std::nearbyint(w / step);
      if (!(std::abs(q) <= UINT8_MAX) || !(std::abs(w - q * step) <= 1e-6 * std::abs(w))) return;
      steps[i] = static_cast<int64_t>(q);
      lowest[i % columns] = std::min(lowest[i % columns], steps[i]);
      highest[i % columns] = std::max(highest[i % columns], steps[i]);
    }
    // A zero where the weights of a column do not fit without.
    std::vector<int64_t> b_zero(columns);
    for (size_t j = 0; j < columns; ++j) {
      if (lowest[j] >= -127 && highest[j] <= 127) continue;
      if (highest[j] - lowest[j] > UINT8_MAX) return;
      b_zero[j] = std::clamp<int64_t>(0, -128 - lowest[j], 127 - highest[j]);
    }
    const bool zeros = std::any_of(b_zero.begin(), b_zero.end(), [](int64_t zero) { return zero != 0; });
    if (k > most_terms_i8(255, zeros ? 255 : 127)) return;
    std::vector<int8_t> bytes(steps.size());
    for (size_t i = 0; i < steps.size(); ++i) bytes[i] = static_cast<int8_t>(steps[i] + b_zero[i % columns]);

    const std::string name = graph_.value(node.inputs[1]).name;
    Dims rows = graph_.value(node.inputs[0]).dims;
    rows.back() = 1;
    const auto for_rows = [&](ValueId parameter) {
      const ValueId scalar = graph_.add_value(Reshape{Dims()}, {parameter}, node.name);
      return graph_.add_value(Expand{rows}, {scalar}, node.name);
    };
    const auto operand = [&](size_t i) { return i < node.inputs.size() ? node.inputs[i] : no_value; };
    std::vector<ValueId> inputs = {with_views(graph_, node.inputs[0], base, dequantise.inputs[0]),
                                   for_rows(dequantise.inputs[1]),
                                   graph_.constant(name, Literal::of({k, n}, std::move(bytes))),
                                   graph_.constant(name + " scale", Literal::of({n}, std::move(b_scale))),
                                   operand(2),
                                   operand(3)};
    const auto& a_zero = graph_.value(dequantise.inputs[2]).constant;
    inputs.push_back(a_zero && a_zero->integers()[0] == 0 ? no_value : for_rows(dequantise.inputs[2]));
    if (zeros) inputs.push_back(graph_.constant(name + " zero", Literal::of({n}, std::move(b_zero))));
    const ValueId y =
        graph_.add_value(MatmulI8{std::get<Matmul>(node.operation).activation}, inputs, node.name, node.absorbed);
    graph_.replace(node.outputs[0], y);
    report.fused.push_back({"int8 matmul", node.name, node.absorbed, 0});
  }

  /// Whether a quantisation is to all of i8 with one scale and zero point.
  bool is_given(const Node& node) const {
    const auto& op = std::get<QuantizeLinear>(node.operation);
    const auto& zero = graph_.value(node.inputs[2]).constant;
    return op.narrow && op.lowest == INT8_MIN && op.highest == INT8_MAX && is_one(graph_, node.inputs[1]) &&
           is_one(graph_, node.inputs[2]) && !graph_.value(node.inputs[0]).dims.empty() &&
           !(zero && (zero->integers()[0] < INT8_MIN || zero->integers()[0] > INT8_MAX));
  }
  /// Its scale and zero point as an operator takes them.
  ValueId given(const Node& node) {
    const auto number = [&](ValueId id) { return graph_.add_value(Reshape{{1}}, {id}, node.name, node.absorbed); };
    return graph_.add_value(Concat{0}, {number(node.inputs[1]), number(map(node, {Step::i_to_f}, {node.inputs[2]}))},
                            node.name, node.absorbed);
  }

  /// A product quantises its result itself.
  void into_product(NodeId id) {
    const Node quantise = graph_.node(id);
    const ValueId base = below_views(graph_, quantise.inputs[0]);
    const auto* made = made_by<MatmulI8>(graph_, base);
    if (made == nullptr || made->groups > 0 || !is_given(quantise) || !graph_.value(quantise.inputs[1]).constant ||
        !graph_.value(quantise.inputs[2]).constant)
      return;
    const Node old = *producer(graph_, base);
    const MatmulI8 op = *made;
    if (old.inputs.size() > 8) return;
    std::vector<ValueId> inputs = old.inputs;
    inputs.resize(8, no_value);
    inputs.push_back(given(quantise));
    const std::vector<ValueId> results = graph_.node(graph_.add(op, inputs, old.name, old.absorbed)).outputs;
    const ValueId q = with_views(graph_, quantise.inputs[0], base, results[1]);
    graph_.replace(base, results[0]);
    graph_.replace(quantise.outputs[0], q);
  }

  // --- What is left

  /// Sums of integers as sums of floats, exact below 2^24. Operands are bytes less bytes; weights in parts of so few
  /// bits that no sum grows larger.
  void in_parts(NodeId id) {
    const Node node = graph_.node(id);
    if (graph_.value(node.outputs[0]).type != Type::i32) return;
    constexpr int64_t most = (int64_t{1} << 24) / UINT8_MAX;  // of the weights' magnitudes
    const ValueId x = node.inputs[0], w = node.inputs[1];
    const Dims& dims = graph_.value(w).dims;
    const auto columns = dims.back().constant(), all = count(dims).constant();
    const bool is_conv = std::holds_alternative<Conv>(node.operation);
    const auto terms = is_conv ? (all ? std::optional(*all / std::max<int64_t>(*columns, 1)) : std::nullopt)
                               : dims[dims.size() - 2].range(graph_.dimensions).upper;
    const auto& constant = graph_.value(w).constant;
    // The part of a weight that begins at a bit; the last one has its sign, so each is up to 2^bits.
    const auto part_of = [](int64_t weight, int64_t at, int64_t bits) {
      return at + bits < 8 ? weight >> at & ((1 << bits) - 1) : weight >> at;
    };
    const auto is_exact = [&](int64_t bits) {
      if (!constant || !columns) return terms && *terms << bits <= most;
      std::vector<int64_t> sums(static_cast<size_t>(std::max<int64_t>(*columns, 1)));
      for (int64_t at = 0; at < 8; at += bits) {
        std::fill(sums.begin(), sums.end(), 0);
        for (size_t i = 0; i < constant->integers().size(); ++i)
          sums[i % sums.size()] += std::abs(part_of(constant->integers()[i], at, bits));
        if (*std::max_element(sums.begin(), sums.end()) > most) return false;
      }
      return true;
    };
    int64_t bits = 8;
    while (bits > 0 && !is_exact(bits)) bits /= 2;
    if (bits == 0)
      throw Error(Fault::model, fmt::format("node '{}' sums {} products of integers: too many to be exact in float32",
                                            node.name, terms ? std::to_string(*terms) : "any number of"));
    ValueId y = no_value;
    for (int64_t at = 8 - bits; at >= 0; at -= bits) {
      ValueId part = w;
      if (at > 0) part = map(node, {Step::i_shift_right}, {part, whole(at, node.name)});
      if (at + bits < 8) part = map(node, {Step::i_and}, {part, whole((1 << bits) - 1, node.name)});
      const ValueId sums =
          map(node, {Step::f_to_i},
              {graph_.add_value(node.operation, {map(node, {Step::i_to_f}, {x}), map(node, {Step::i_to_f}, {part})},
                                node.name, node.absorbed)});
      y = y == no_value ? sums
                        : map(node, {Step::i_add}, {map(node, {Step::i_mul}, {y, whole(1 << bits, node.name)}), sums});
    }
    graph_.replace(node.outputs[0], y);
  }

  /// Whether an operator reads the bytes, and not only programs do.
  bool is_operand(ValueId id) const {
    for (const NodeId reader : graph_.readers(id)) {
      if (reader < 0) continue;
      const Node& node = graph_.node(reader);
      if (std::holds_alternative<MatmulI8>(node.operation)) return true;
      if (is_view(graph_, node.outputs[0]) && is_operand(node.outputs[0])) return true;
    }
    return false;
  }

  void in_steps(const QuantizeLinear& op, NodeId id) {
    const Node node = graph_.node(id);
    if (is_given(node) && is_operand(node.outputs[0])) {
      graph_.replace(node.outputs[0],
                     graph_.add_value(Quantize{}, {node.inputs[0], given(node)}, node.name, node.absorbed));
      return;
    }
    const ValueId zero = node.inputs[2];
    const auto bound = [&](int64_t end) { return less(node, whole(end, node.name), zero); };
    ValueId y = map(node, {Step::f_round}, {map(node, {Step::f_div}, {node.inputs[0], node.inputs[1]})});
    y = map(node, {Step::i_max}, {map(node, {Step::f_to_i}, {y}), bound(op.lowest)});
    const auto& known = graph_.value(zero).constant;
    const bool no_zero = known && known->count() == 1 && known->integers()[0] == 0;
    y = map(node, {Step::i_min, op.narrow && no_zero}, {y, bound(op.highest)});
    if (!no_zero) y = map(node, {Step::i_add, op.narrow}, {y, zero});
    graph_.replace(node.outputs[0], y);
  }

  void in_steps(const DequantizeLinear&, NodeId id) {
    const Node node = graph_.node(id);
    const ValueId steps = map(node, {Step::i_to_f}, {less(node, node.inputs[0], node.inputs[2])});
    graph_.replace(node.outputs[0], map(node, {Step::f_mul}, {steps, node.inputs[1]}));
  }

  Graph& graph_;
  std::map<ValueId, ValueId> narrowed_;
};

}  // namespace

void settle_quantized(Graph& graph, bool relax, Report& report) {
  Settling(graph, report).run(relax);
}

void fuse_quantized(Graph& graph, Report& report) {
  Fusing(graph).run(report);
}

void expand_quantized(Graph& graph) {
  Fusing(graph).expand();
}

}  // namespace heed::tools

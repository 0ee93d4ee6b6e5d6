#pragma once
/// Graphs written by hand, and their results on the host.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::test {

using namespace heed::tools;
using Sizes = std::map<std::string, int64_t>;

/// Writes a graph the way formulas are read.
class Written {
 public:
  Graph graph;

  Expression dimension(const std::string& name, int64_t lower, int64_t upper) {
    graph.dimensions[name] = {name, lower, upper};
    return Expression::dimension(name);
  }
  ValueId input(const std::string& name, Dims dims, Type type = Type::f32) {
    const ValueId id = graph.input(name, type, std::move(dims));
    graph.inputs.push_back({name, id, 1});
    return id;
  }
  void output(ValueId id) { graph.outputs.push_back({"y", id, 1}); }

  ValueId add_node(Operation operation, std::vector<ValueId> inputs) {
    return graph.add_value(std::move(operation), std::move(inputs), "n" + std::to_string(++nodes_));
  }
  ValueId map(Step step, std::vector<ValueId> operands) { return add_node(Map{step}, std::move(operands)); }
  ValueId number(float value, std::vector<int64_t> dims = {}) {
    Literal shape;
    shape.dims = dims;
    return graph.constant("c", Literal::of(dims, std::vector<float>(static_cast<size_t>(shape.count()), value)));
  }
  ValueId weights(std::vector<int64_t> dims, float scale = 1) {
    Literal shape;
    shape.dims = dims;
    std::vector<float> values(static_cast<size_t>(shape.count()));
    for (float& value : values) value = scale * std::normal_distribution<float>()(random_);
    return graph.constant("w", Literal::of(dims, std::move(values)));
  }

  ValueId add(ValueId a, ValueId b) { return map(Step::f_add, {a, b}); }
  ValueId sub(ValueId a, ValueId b) { return map(Step::f_sub, {a, b}); }
  ValueId mul(ValueId a, ValueId b) { return map(Step::f_mul, {a, b}); }
  ValueId div(ValueId a, ValueId b) { return map(Step::f_div, {a, b}); }
  ValueId plus(ValueId a, float b) { return add(a, number(b)); }
  ValueId times(ValueId a, float b) { return mul(a, number(b)); }
  ValueId over(ValueId a, float b) { return div(a, number(b)); }
  ValueId pow(ValueId a, float b) { return map(Step::f_pow, {a, number(b)}); }
  ValueId one(Step step, ValueId a) { return map(step, {a}); }
  ValueId select(ValueId condition, ValueId yes, ValueId no) { return map(Step::f_select, {condition, yes, no}); }
  ValueId reshape(ValueId x, Dims dims) { return add_node(Reshape{std::move(dims)}, {x}); }
  ValueId transpose(ValueId x, std::vector<int> permutation) {
    return add_node(Transpose{std::move(permutation)}, {x});
  }
  ValueId expand(ValueId x, Dims dims) { return add_node(Expand{std::move(dims)}, {x}); }
  ValueId matmul(ValueId a, ValueId b) { return add_node(Matmul{}, {a, b}); }
  ValueId softmax(ValueId x) { return add_node(Softmax{static_cast<int>(graph.value(x).dims.size()) - 1}, {x}); }
  ValueId mean(ValueId x, int axes = 1) { return reduce(Reduction::mean, x, axes); }
  ValueId reduce(Reduction kind, ValueId x, int axes = 1) {
    const auto rank = static_cast<int>(graph.value(x).dims.size());
    std::vector<int> last;
    for (int axis = rank - axes; axis < rank; ++axis) last.push_back(axis);
    return add_node(Reduce{kind, last, true}, {x});
  }
  /// True where key <= query + offset, as [queries, keys].
  ValueId causal(const Expression& queries, const Expression& keys, int64_t offset = 0) {
    const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
    const ValueId distance = graph.constant("o", Literal::of({}, std::vector<int64_t>{offset}));
    return map(Step::i_less_equal, {key, map(Step::i_add, {query, distance})});
  }

 private:
  int nodes_ = 0;
  std::mt19937 random_{3};
};

/// The outputs of a graph for random inputs that depend on the seed only.
inline std::vector<Literal> results(Graph& graph, const Sizes& sizes, uint32_t seed = 1) {
  std::map<ValueId, Literal> values;
  std::mt19937 random(seed);
  for (const Border& input : graph.inputs) {
    const Value& value = graph.value(input.value);
    Literal shape;
    shape.dims = evaluate_dims(value.dims, sizes);
    const auto count = static_cast<size_t>(shape.count());
    if (value.type == Type::boolean) {
      std::vector<uint8_t> booleans(count);
      for (size_t i = 0; i < count; ++i) booleans[i] = i == 0 || random() % 3 != 0;
      values.emplace(input.value, Literal::of_booleans(shape.dims, booleans));
    } else {
      std::vector<float> floats(count);
      for (float& each : floats) each = std::normal_distribution<float>()(random);
      values.emplace(input.value, Literal::of(shape.dims, floats));
    }
  }
  const auto at = [&](ValueId id) -> const Literal* {
    if (id == no_value) return nullptr;
    return graph.value(id).constant ? &*graph.value(id).constant : &values.at(id);
  };
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::vector<const Literal*> inputs;
    for (const ValueId input : node.inputs) inputs.push_back(at(input));
    auto made = evaluate(node, inputs, sizes);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] != no_value) values.emplace(node.outputs[i], std::move(made[i]));
  }
  std::vector<Literal> outputs;
  for (const Border& output : graph.outputs) outputs.push_back(*at(output.value));
  return outputs;
}

/// Roundings of two orders of the same few float operations.
struct Reordered {
  static constexpr double absolute = 1e-5, relative = 1e-5;
  static bool holds(double found, double expected) {
    return std::isnan(expected) || std::abs(found - expected) <= absolute + relative * std::abs(expected);
  }
};

inline void check_same(const std::vector<Literal>& found, const std::vector<Literal>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i].dims == expected[i].dims);
    for (size_t j = 0; j < found[i].floats().size(); ++j)
      if (!Reordered::holds(found[i].floats()[j], expected[i].floats()[j])) {
        CHECK(found[i].floats()[j] == expected[i].floats()[j]);
        return;
      }
  }
}

/// Optimises a graph, checks that its results stay the same, and counts.
struct Optimised {
  Report report;

  Optimised(Written& written, const Sizes& sizes) : graph(written.graph) {
    Graph before = graph;
    optimise(graph, report);
    check_same(results(graph, sizes), results(before, sizes));
  }

  int fused(const std::string& concept_name) const {
    return static_cast<int>(std::count_if(report.fused.begin(), report.fused.end(),
                                          [&](const auto& each) { return each.concept_name == concept_name; }));
  }
  template <class Op>
  int nodes() {
    int count = 0;
    for (const NodeId id : graph.order()) count += std::holds_alternative<Op>(graph.node(id).operation);
    return count;
  }
  /// The only node of a kind.
  template <class Op>
  const Node& the() {
    REQUIRE(nodes<Op>() == 1);
    for (const NodeId id : graph.order())
      if (std::holds_alternative<Op>(graph.node(id).operation)) return graph.node(id);
    return graph.node(0);
  }
  template <class Op>
  const Op& attributes() {
    return std::get<Op>(the<Op>().operation);
  }

  Graph& graph;
};

}  // namespace heed::test

#include "tools/passes/pattern.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>

namespace heed::tools {
namespace {

// The number that every element of a constant is.
std::optional<double> uniform(const Literal& literal) {
  if (literal.count() == 0) return std::nullopt;
  const auto same = [](const auto& values) -> std::optional<double> {
    const auto first = values[0];
    const bool all = std::all_of(values.begin(), values.end(), [&](auto value) { return value == first; });
    return all ? std::optional(static_cast<double>(first)) : std::nullopt;
  };
  if (literal.type == Type::f32) return same(literal.floats());
  return literal.type == Type::i32 ? same(literal.integers()) : same(literal.booleans());
}

}  // namespace

const Node* producer(const Graph& graph, ValueId id) {
  if (id == no_value || graph.value(id).producer < 0 || graph.value(id).constant) return nullptr;
  return &graph.node(graph.value(id).producer);
}

bool is_view(const Graph& graph, ValueId id) {
  return made_by<Reshape>(graph, id) || made_by<Transpose>(graph, id) || made_by<Expand>(graph, id) ||
         made_by<Slice>(graph, id);
}

bool is_product(const Graph& graph, ValueId id) {
  return made_by<Matmul>(graph, id) || made_by<Conv>(graph, id);
}

Activation activation_of(const Graph& graph, ValueId product) {
  const auto* matmul = made_by<Matmul>(graph, product);
  return matmul != nullptr ? matmul->activation : made_by<Conv>(graph, product)->activation;
}

Operation with_activation(const Operation& product, Activation activation) {
  Operation result = product;
  if (auto* matmul = std::get_if<Matmul>(&result)) matmul->activation = activation;
  if (auto* conv = std::get_if<Conv>(&result)) conv->activation = activation;
  return result;
}

const std::vector<ValueId>* operands_of(const Graph& graph, ValueId id, Step step) {
  const Map* map = made_by<Map>(graph, id);
  return map != nullptr && map->step == step ? &producer(graph, id)->inputs : nullptr;
}

std::string in_words(const Operation& operation) {
  const auto* map = std::get_if<Map>(&operation);
  if (map == nullptr) return std::string("a ") + name(operation);
  const std::string step = std::string(info(map->step).name).substr(2);  // behind the type's letter
  if (step == "add") return "an addition";
  if (step == "sub") return "a subtraction";
  if (step == "mul") return "a multiplication";
  if (step == "div") return "a division";
  if (step == "neg") return "a negation";
  if (step == "select") return "a selection";
  return step;
}

std::string in_words(const Graph& graph, ValueId id) {
  const Node* node = producer(graph, id);
  const Value& value = graph.value(id);
  const std::string what = node != nullptr  ? in_words(node->operation)
                           : value.constant ? "a constant"
                                            : "the input '" + value.name + "'";
  return what + " of shape " + text(value.dims);
}

std::optional<double> uniform(const Graph& graph, ValueId id) {
  for (;;) {
    const Value& value = graph.value(id);
    if (value.constant) return uniform(*value.constant);
    if (!is_view(graph, id)) return std::nullopt;
    id = producer(graph, id)->inputs[0];
  }
}

std::optional<Scaled> scaled(const Graph& graph, ValueId id) {
  const Dims& dims = graph.value(id).dims;
  const auto found = [&](ValueId x, double factor) -> std::optional<Scaled> {
    return graph.value(x).dims == dims ? std::optional(Scaled{x, factor}) : std::nullopt;
  };
  if (const auto* product = operands_of(graph, id, Step::f_mul)) {
    if (const auto c = uniform(graph, (*product)[1])) return found((*product)[0], *c);
    if (const auto c = uniform(graph, (*product)[0])) return found((*product)[1], *c);
  }
  if (const auto* ratio = operands_of(graph, id, Step::f_div))
    if (const auto c = uniform(graph, (*ratio)[1]); c && *c != 0) return found((*ratio)[0], 1 / *c);
  if (const auto* negated = operands_of(graph, id, Step::f_neg)) return found((*negated)[0], -1);
  return std::nullopt;
}

std::vector<Ratio> ratios(const Graph& graph, ValueId id) {
  std::vector<Ratio> all;
  if (const auto* ratio = operands_of(graph, id, Step::f_div)) all.push_back({(*ratio)[0], (*ratio)[1]});
  if (const auto* product = operands_of(graph, id, Step::f_mul))
    for (size_t i = 0; i < 2; ++i)
      if (const auto* below = operands_of(graph, (*product)[i], Step::f_reciprocal))
        all.push_back({(*product)[1 - i], (*below)[0]});
  return all;
}

bool depends_on_dimensions_only(const Graph& graph, ValueId id) {
  return id == no_value || !graph.value(id).data;
}

Literal evaluate_at(const Graph& graph, ValueId id, const std::map<std::string, int64_t>& sizes) {
  std::map<ValueId, Literal> values;
  const std::function<const Literal&(ValueId)> compute = [&](ValueId at) -> const Literal& {
    if (graph.value(at).constant) return *graph.value(at).constant;
    if (const auto found = values.find(at); found != values.end()) return found->second;
    const Node& node = *producer(graph, at);
    std::vector<const Literal*> inputs;
    for (const ValueId input : node.inputs) inputs.push_back(input == no_value ? nullptr : &compute(input));
    auto results = evaluate(node, inputs, sizes);
    const auto which = std::find(node.outputs.begin(), node.outputs.end(), at) - node.outputs.begin();
    return values.emplace(at, std::move(results[static_cast<size_t>(which)])).first->second;
  };
  return compute(id);
}

bool permits(const Graph& graph, const std::map<std::string, int64_t>& sizes) {
  return std::all_of(graph.constraints.begin(), graph.constraints.end(), [&](const Constraint& c) {
    const int64_t left = c.left.evaluate(sizes), right = c.right.evaluate(sizes);
    return c.relation == Constraint::Relation::equal ? left == right : left <= right;
  });
}

std::vector<std::map<std::string, int64_t>> settings(const Graph& graph) {
  std::vector<std::map<std::string, int64_t>> all;
  for (int kind = 0; kind < 4; ++kind) {
    std::map<std::string, int64_t> sizes;
    int64_t next = 3;
    for (const auto& [name, dimension] : graph.dimensions) {
      const int64_t wanted = kind == 0 ? dimension.lower : kind == 1 ? 7 : kind == 2 ? next++ : 64 - next++;
      sizes[name] = std::clamp(wanted, dimension.lower, dimension.upper);
    }
    if (permits(graph, sizes)) all.push_back(std::move(sizes));
  }
  return all;
}

bool read_once(const Graph& graph, ValueId id) {
  return graph.readers(id).size() == 1;
}

std::vector<NodeId> region(const Graph& graph, const std::vector<ValueId>& roots, const std::vector<ValueId>& leaves) {
  const std::unordered_set<ValueId> ends(leaves.begin(), leaves.end());
  std::vector<NodeId> sorted;
  std::unordered_set<NodeId> seen;
  struct Visit {
    NodeId id;
    size_t next;
  };
  std::vector<Visit> stack;  // graphs of unrolled loops are deep
  const auto enter = [&](ValueId id) {
    if (producer(graph, id) == nullptr || ends.count(id) != 0) return;
    if (seen.insert(graph.value(id).producer).second) stack.push_back({graph.value(id).producer, 0});
  };
  for (const ValueId root : roots) {
    enter(root);
    while (!stack.empty()) {
      auto& [id, next] = stack.back();
      const std::vector<ValueId>& inputs = graph.node(id).inputs;
      if (next < inputs.size()) {
        enter(inputs[next++]);
      } else {
        sorted.push_back(id);
        stack.pop_back();
      }
    }
  }
  return sorted;
}

std::vector<ValueId> built_on(const Graph& graph, const Replacements& replacements, NodeId first_new) {
  std::vector<ValueId> leaves;
  std::vector<ValueId> stack;
  for (const auto& [before, after] : replacements) stack.push_back(after);
  while (!stack.empty()) {
    const ValueId id = stack.back();
    stack.pop_back();
    if (id == no_value || std::find(leaves.begin(), leaves.end(), id) != leaves.end()) continue;
    const NodeId node = graph.value(id).producer;
    if (node < first_new || graph.value(id).constant)
      leaves.push_back(id);
    else
      stack.insert(stack.end(), graph.node(node).inputs.begin(), graph.node(node).inputs.end());
  }
  return leaves;
}

// --- Building --------------------------------------------------------------------------------------------------------

Builder::Builder(Graph& graph, ValueId replaced, const std::vector<ValueId>& also) : graph(graph) {
  if (const Node* node = producer(graph, replaced)) {
    name_ = node->name;
    absorbed_ = node->absorbed;
  }
  for (const ValueId id : also)
    if (const Node* node = producer(graph, id))
      for (const std::string& name : node->absorbed)
        if (std::find(absorbed_.begin(), absorbed_.end(), name) == absorbed_.end()) absorbed_.push_back(name);
}

ValueId Builder::reshape(ValueId x, Dims dims) const {
  if (made_by<Reshape>(graph, x)) x = producer(graph, x)->inputs[0];
  return add(Reshape{std::move(dims)}, {x});
}

ValueId Builder::transpose(ValueId x, std::vector<int> permutation) const {
  if (const auto* first = made_by<Transpose>(graph, x)) {
    for (int& axis : permutation) axis = first->permutation[static_cast<size_t>(axis)];
    x = producer(graph, x)->inputs[0];
  }
  return add(Transpose{std::move(permutation)}, {x});
}

ValueId Builder::swap_last(ValueId x) const {
  std::vector<int> permutation(dims(x).size());
  std::iota(permutation.begin(), permutation.end(), 0);
  std::swap(permutation.back(), permutation[permutation.size() - 2]);
  return transpose(x, std::move(permutation));
}

ValueId Builder::expand(ValueId x, Dims dims) const {
  return add(Expand{std::move(dims)}, {x});
}

}  // namespace heed::tools

/// LayerNorm, RMSNorm and softmax, written out.
#include <algorithm>

#include "tools/passes/check.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr int deepest =
    9;  // maps between 1 / sqrt(variance) and the end of the affine tail, in the forms that are known

// What lies under a square root of x's variance (or mean square): the ingredients of a normalisation, not yet its
// proof.
struct Spread {
  Normalization kind;
  ValueId x;
  int axes;  // how many of the last ones
  double epsilon;
};

const Node* mean(const Graph& graph, ValueId id) {
  const auto* reduce = made_by<Reduce>(graph, id);
  return reduce != nullptr && reduce->kind == Reduction::mean && trailing_axes(graph, *producer(graph, id))
             ? producer(graph, id)
             : nullptr;
}

// x of a mean of x * x over the last axes.
std::optional<ValueId> mean_square(const Graph& graph, ValueId id) {
  const Node* node = mean(graph, id);
  if (node == nullptr) return std::nullopt;
  const auto* square = operands_of(graph, node->inputs[0], Step::f_mul);
  return square != nullptr && (*square)[0] == (*square)[1] ? std::optional((*square)[0]) : std::nullopt;
}

std::optional<Spread> spread(const Graph& graph, ValueId root) {
  const auto* operand = operands_of(graph, root, Step::f_sqrt);
  if (operand == nullptr) return std::nullopt;
  ValueId variance = (*operand)[0];
  double epsilon = 0;
  if (const auto* sum = operands_of(graph, variance, Step::f_add)) {
    const auto number = uniform(graph, (*sum)[1]);
    if (!number) return std::nullopt;
    epsilon = *number;
    variance = (*sum)[0];
  }
  if (const auto* clamped = operands_of(graph, variance, Step::f_max)) variance = (*clamped)[0];
  if (const auto* relu = operands_of(graph, variance, Step::f_relu)) variance = (*relu)[0];
  if (const auto x = mean_square(graph, variance)) {
    const int axes = *trailing_axes(graph, *producer(graph, variance));
    if (const auto* difference = operands_of(graph, *x, Step::f_sub))
      if (const Node* average = mean(graph, (*difference)[1]); average && average->inputs[0] == (*difference)[0])
        return Spread{Normalization::layer, (*difference)[0], axes, epsilon};
    return Spread{Normalization::rms, *x, axes, epsilon};
  }
  // E[x * x] - mean * mean
  if (const auto* difference = operands_of(graph, variance, Step::f_sub))
    if (const auto x = mean_square(graph, (*difference)[0])) {
      const auto* square = operands_of(graph, (*difference)[1], Step::f_mul);
      const Node* average = square != nullptr && (*square)[0] == (*square)[1] ? mean(graph, (*square)[0]) : nullptr;
      if (average != nullptr && average->inputs[0] == *x)
        return Spread{Normalization::layer, *x, *trailing_axes(graph, *average), epsilon};
    }
  return std::nullopt;
}

// The square root that a value is made of by arithmetic alone.
std::optional<Spread> find_spread(const Graph& graph, ValueId root) {
  std::vector<std::pair<ValueId, int>> stack{{root, 0}};
  while (!stack.empty()) {
    const auto [id, depth] = stack.back();
    stack.pop_back();
    if (const auto found = spread(graph, id)) return found;
    const Map* map = made_by<Map>(graph, id);
    if (map == nullptr || depth == deepest) continue;
    for (const Step step : {Step::f_add, Step::f_sub, Step::f_mul, Step::f_div, Step::f_neg, Step::f_reciprocal})
      if (map->step == step)
        for (const ValueId input : producer(graph, id)->inputs) stack.emplace_back(input, depth + 1);
  }
  return std::nullopt;
}

// The constants of the affine tail: what is multiplied is the scale, what is added the bias.
struct Affine {
  ValueId scale = no_value, bias = no_value;
  bool simple = true;  // at most one of each, and nothing else that is not a number
};

Affine affine(const Graph& graph, ValueId root, const Spread& spread) {
  Affine found;
  const Dims& dims = graph.value(spread.x).dims;
  const Dims row(dims.end() - spread.axes, dims.end());
  for (const NodeId id : region(graph, root, {spread.x})) {
    const Node& node = graph.node(id);
    const auto* map = std::get_if<Map>(&node.operation);
    if (map == nullptr) {
      found.simple = found.simple && trailing_axes(graph, node);
      continue;
    }
    for (const ValueId input : node.inputs) {
      const Value& value = graph.value(input);
      if (value.producer >= 0 && !value.constant) continue;
      if (input == spread.x || (uniform(graph, input) && count(value.dims).is_constant(1))) continue;
      const bool adds = map->step == Step::f_add || map->step == Step::f_sub;
      ValueId& place = adds ? found.bias : found.scale;
      const bool fits = value.constant && value.dims.size() >= row.size() && value.dims.size() <= dims.size() &&
                        std::equal(row.begin(), row.end(), value.dims.end() - spread.axes) &&
                        count(value.dims) == count(row);
      found.simple =
          found.simple && fits && (place == no_value || place == input) && (adds || map->step == Step::f_mul);
      place = input;
    }
  }
  return found;
}

// The end of a normalisation is found from its last map back: a longer candidate comes first, and only a proven one is
// offered.
std::optional<ValueId> fuse(Graph& graph, ValueId root, Normalization kind, std::optional<Miss>& miss) {
  if (const auto lone = spread(graph, root); lone && lone->kind == kind)
    miss = Miss{producer(graph, root)->name,
                "the square root of a variance is not used as (x - mean) / sqrt(variance + epsilon)"};
  const Map* map = made_by<Map>(graph, root);
  if (map == nullptr ||
      (map->step != Step::f_add && map->step != Step::f_sub && map->step != Step::f_mul && map->step != Step::f_div))
    return std::nullopt;
  const auto found = find_spread(graph, root);
  if (!found || found->kind != kind) return std::nullopt;
  const Dims dims = graph.value(found->x).dims;
  if (!(graph.value(root).dims == dims)) return std::nullopt;
  const Affine tail = affine(graph, root, *found);
  if (!tail.simple) return std::nullopt;

  const auto first_new = static_cast<NodeId>(graph.node_count());
  const Builder build(graph, root);
  const Dims row(dims.end() - found->axes, dims.end());
  Dims merged(dims.begin(), dims.end() - found->axes);
  merged.push_back(count(row));
  std::vector<ValueId> inputs{build.reshape(found->x, merged)};
  for (const ValueId constant : {tail.scale, tail.bias})
    inputs.push_back(constant == no_value ? no_value : build.reshape(constant, {count(row)}));
  const ValueId result = build.reshape(build.add(Normalize{kind, static_cast<float>(found->epsilon)}, inputs), dims);
  if (!check_fusion(graph, root, result, first_new).same) return std::nullopt;
  return result;
}

}  // namespace

std::optional<ValueId> fuse_layer_norm(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Normalization::layer, miss);
}
std::optional<ValueId> fuse_rms_norm(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Normalization::rms, miss);
}

// exp(x - max) / sum of exp(x - max), over one axis; also without the maximum, which only guards against overflow.
std::optional<ValueId> fuse_softmax(Graph& graph, ValueId root, std::optional<Miss>&) {
  for (const auto& [above, below] : ratios(graph, root)) {
    const auto* exponential = operands_of(graph, above, Step::f_exp);
    const auto* sum = made_by<Reduce>(graph, below);
    if (exponential == nullptr || sum == nullptr || sum->kind != Reduction::sum || !sum->keep ||
        sum->axes.size() != 1 || producer(graph, below)->inputs[0] != above)
      continue;
    const int axis = sum->axes[0];
    ValueId x = (*exponential)[0];
    if (const auto* difference = operands_of(graph, x, Step::f_sub)) {
      const auto* most = made_by<Reduce>(graph, (*difference)[1]);
      if (most != nullptr && most->kind == Reduction::max && most->axes == std::vector<int>{axis} &&
          producer(graph, (*difference)[1])->inputs[0] == (*difference)[0])
        x = (*difference)[0];
    }
    return Builder(graph, root).add(Softmax{axis}, {x});
  }
  return std::nullopt;
}

}  // namespace heed::tools

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
  std::vector<int> axes;  // ascending
  double epsilon;
};

const Node* mean(const Graph& graph, ValueId id) {
  const auto* reduce = made_by<Reduce>(graph, id);
  const bool is_mean = reduce != nullptr && reduce->kind == Reduction::mean && reduce->keep && !reduce->axes.empty();
  return is_mean ? producer(graph, id) : nullptr;
}

// x of a mean of x * x. The squares of a reshaped x are reshaped squares: then x is its other reshape.
std::optional<ValueId> mean_square(const Graph& graph, ValueId id) {
  const Node* node = mean(graph, id);
  if (node == nullptr) return std::nullopt;
  const ValueId operand = node->inputs[0];
  const bool reshaped = made_by<Reshape>(graph, operand) != nullptr;
  const auto* square = operands_of(graph, reshaped ? producer(graph, operand)->inputs[0] : operand, Step::f_mul);
  if (square == nullptr || (*square)[0] != (*square)[1]) return std::nullopt;
  if (!reshaped) return (*square)[0];
  for (const NodeId reader : graph.readers((*square)[0]))
    if (reader >= 0 && std::holds_alternative<Reshape>(graph.node(reader).operation) &&
        graph.value(graph.node(reader).outputs[0]).dims == graph.value(operand).dims)
      return graph.node(reader).outputs[0];
  return std::nullopt;
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
    const std::vector<int> axes = made_by<Reduce>(graph, variance)->axes;
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
        return Spread{Normalization::layer, *x, std::get<Reduce>(average->operation).axes, epsilon};
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
    if (depth == deepest) continue;
    if (made_by<Reshape>(graph, id)) stack.emplace_back(producer(graph, id)->inputs[0], depth + 1);
    const Map* map = made_by<Map>(graph, id);
    if (map == nullptr) continue;
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
  std::vector<ValueId> leaves{spread.x};
  if (made_by<Reshape>(graph, spread.x)) leaves.push_back(producer(graph, spread.x)->inputs[0]);  // of reshaped squares
  for (const NodeId id : region(graph, root, leaves)) {
    const Node& node = graph.node(id);
    const auto* map = std::get_if<Map>(&node.operation);
    if (std::holds_alternative<Reshape>(node.operation)) continue;
    if (map == nullptr) {
      const auto* reduce = std::get_if<Reduce>(&node.operation);
      found.simple = found.simple && reduce != nullptr && reduce->keep && reduce->axes == spread.axes;
      continue;
    }
    for (const ValueId input : node.inputs) {
      const Value& value = graph.value(input);
      if (value.producer >= 0 && !value.constant) continue;
      if (input == spread.x || (uniform(graph, input) && count(value.dims).is_constant(1))) continue;
      const bool adds = map->step == Step::f_add || map->step == Step::f_sub;
      ValueId& place = adds ? found.bias : found.scale;
      found.simple =
          found.simple && value.constant && (place == no_value || place == input) && (adds || map->step == Step::f_mul);
      place = input;
    }
  }
  return found;
}

Dims without_ones(Dims dims) {
  std::erase_if(dims, [](const Expression& size) { return size.is_constant(1); });
  return dims;
}

// Whether a constant has an element for each of the normalised ones, the same everywhere else.
bool is_row(const Graph& graph, ValueId constant, const Spread& spread, bool aligned) {
  const Dims &dims = graph.value(spread.x).dims, &own = graph.value(constant).dims;
  if (!aligned) {  // x has other axes of size 1 than what the constant is applied to
    Dims row;
    for (const int axis : spread.axes) row.push_back(dims[static_cast<size_t>(axis)]);
    return without_ones(own) == without_ones(row);
  }
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const bool inside = std::find(spread.axes.begin(), spread.axes.end(), static_cast<int>(axis)) != spread.axes.end();
    const size_t ahead = dims.size() - own.size();
    const Expression size = axis < ahead ? Expression(1) : own[axis - ahead];
    if (!(size == (inside ? dims[axis] : Expression(1)))) return false;
  }
  return true;
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
  const bool aligned = graph.value(root).dims == dims;
  if (!aligned && !(without_ones(graph.value(root).dims) == without_ones(dims))) return std::nullopt;
  const Affine tail = affine(graph, root, *found);
  if (!tail.simple) return std::nullopt;

  const auto first_new = static_cast<NodeId>(graph.node_count());
  const Builder build(graph, root);
  // The normalised axes last, as one.
  std::vector<int> order;
  for (int axis = 0; axis < static_cast<int>(dims.size()); ++axis)
    if (std::find(found->axes.begin(), found->axes.end(), axis) == found->axes.end()) order.push_back(axis);
  const auto others = static_cast<std::ptrdiff_t>(order.size());
  order.insert(order.end(), found->axes.begin(), found->axes.end());
  Dims turned;
  std::vector<int> back(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    turned.push_back(dims[static_cast<size_t>(order[i])]);
    back[static_cast<size_t>(order[i])] = static_cast<int>(i);
  }
  Dims merged(turned.begin(), turned.begin() + others);
  merged.push_back(count({turned.begin() + others, turned.end()}));

  // Constants of another shape, one for each channel over time say, come behind.
  const auto inside = [&](ValueId constant) {
    return constant == no_value || is_row(graph, constant, *found, aligned);
  };
  const bool with_scale = inside(tail.scale), with_bias = with_scale && inside(tail.bias);
  if (!aligned && !(with_scale && with_bias)) return std::nullopt;
  ValueId x = found->x;  // a reshape is made anew, for the check to begin where the squares do
  if (made_by<Reshape>(graph, x)) x = build.add(Reshape{dims}, {producer(graph, x)->inputs[0]});
  std::vector<ValueId> inputs{settled(graph, build.reshape(settled(graph, build.transpose(x, order)), merged))};
  for (const ValueId constant : {with_scale ? tail.scale : no_value, with_bias ? tail.bias : no_value})
    inputs.push_back(constant == no_value ? no_value : build.reshape(constant, {merged.back()}));
  ValueId result = build.add(Normalize{kind, static_cast<float>(found->epsilon)}, inputs);
  result = build.transpose(build.reshape(result, turned), back);
  if (!with_scale) result = build.map(Step::f_mul, {result, tail.scale});
  if (!with_bias && tail.bias != no_value) result = build.map(Step::f_add, {result, tail.bias});
  result = build.reshape(result, build.dims(root));
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

/// LayerNorm, RMSNorm and softmax, written out.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

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

// --- Where it stops
// --------------------------------------------------------------------------------------------------

constexpr const char* formulas[] = {"(x - mean(x)) / sqrt(variance(x) + epsilon)", "x / sqrt(mean(x * x) + epsilon)"};

const char* formula(Normalization kind) {
  return formulas[kind == Normalization::layer ? 0 : 1];
}

std::string axes(const Reduce& reduce) {
  return text(std::vector<int64_t>(reduce.axes.begin(), reduce.axes.end()));
}

// The first value back from `id` through maps and views alone that is of a kind.
std::optional<ValueId> behind_maps(const Graph& graph, ValueId id, const std::function<bool(ValueId)>& is) {
  std::vector<ValueId> stack{id};
  for (int visited = 0; !stack.empty() && visited < 32; ++visited) {
    const ValueId at = stack.back();
    stack.pop_back();
    if (is(at)) return at;
    if (made_by<Map>(graph, at) || is_view(graph, at))
      stack.insert(stack.end(), producer(graph, at)->inputs.rbegin(), producer(graph, at)->inputs.rend());
  }
  return std::nullopt;
}

Dims normalised(const Graph& graph, const Spread& spread) {
  Dims sizes;
  for (const int axis : spread.axes) sizes.push_back(graph.value(spread.x).dims[static_cast<size_t>(axis)]);
  return sizes;
}

// Whether something is divided by a value, maybe after an addition.
bool divides(const Graph& graph, ValueId id, int depth = 0) {
  const std::vector<NodeId> readers = graph.readers(id);
  return std::any_of(readers.begin(), readers.end(), [&](NodeId reader) {
    if (reader < 0) return false;
    const Node& node = graph.node(reader);
    const auto* map = std::get_if<Map>(&node.operation);
    if (map != nullptr && (map->step == Step::f_reciprocal || (map->step == Step::f_div && node.inputs[1] == id)))
      return true;
    const bool goes_on = (map != nullptr && map->step == Step::f_add) || is_view(graph, node.outputs[0]);
    return goes_on && depth < 4 && divides(graph, node.outputs[0], depth + 1);
  });
}

// A square root that divides, over squares that are summed up, but not as a spread: told for the kind that it is.
std::optional<Miss> unlike_spread(const Graph& graph, ValueId root, Normalization kind) {
  ValueId id = (*operands_of(graph, root, Step::f_sqrt))[0];
  if (!divides(graph, root)) return {};
  const auto reduces = [&](ValueId at) { return made_by<Reduce>(graph, at) != nullptr; };
  std::optional<Miss> miss;
  bool difference = false;  // E[x * x] - mean * mean
  for (;;) {
    if (const auto times = scaled(graph, id)) {
      const auto* sum = made_by<Reduce>(graph, times->x);
      if (sum != nullptr && (sum->kind == Reduction::sum_square || sum->kind == Reduction::mean))
        miss = Miss{id, fmt::format("{:.6g} times {}", times->factor, in_words(graph, times->x)),
                    "the mean of the squares over all elements, divided by their number",
                    "a variance without Bessel's correction: unbiased=False, correction=0"};
      id = times->x;
    } else if (const auto* sum = operands_of(graph, id, Step::f_add)) {
      const size_t above = behind_maps(graph, (*sum)[0], reduces) ? 0 : 1;
      if (!uniform(graph, (*sum)[1 - above]))
        miss = Miss{id, "an epsilon that is " + in_words(graph, (*sum)[1 - above]), "an epsilon that is a number"};
      id = (*sum)[above];
    } else if (operands_of(graph, id, Step::f_max) || operands_of(graph, id, Step::f_relu) || is_view(graph, id)) {
      id = producer(graph, id)->inputs[0];
    } else if (!difference && operands_of(graph, id, Step::f_sub)) {
      id = producer(graph, id)->inputs[0];
      difference = true;
    } else {
      break;
    }
  }
  const auto* reduce = made_by<Reduce>(graph, id);
  if (reduce == nullptr || (reduce->kind != Reduction::mean && reduce->kind != Reduction::sum_square)) return {};
  ValueId operand = producer(graph, id)->inputs[0];
  const Dims dims = graph.value(operand).dims;
  while (is_view(graph, operand)) operand = producer(graph, operand)->inputs[0];
  const auto* square = operands_of(graph, operand, Step::f_mul);
  if (reduce->kind == Reduction::mean && (square == nullptr || (*square)[0] != (*square)[1])) return {};
  const ValueId squared = reduce->kind == Reduction::mean ? (*square)[0] : operand;
  const bool subtracts = operands_of(graph, squared, Step::f_sub) != nullptr, centred = difference || subtracts;
  if (centred != (kind == Normalization::layer)) return {};
  if (!miss && reduce->kind == Reduction::mean && !reduce->keep)
    miss = Miss{id, fmt::format("a mean over axes {} of {}, which are dropped", axes(*reduce), text(dims)),
                "axes that are kept as size 1", "keepdims=True"};
  if (!miss) miss = Miss{root, in_words(graph, root) + " of what is no variance, nor a mean of squares", formula(kind)};
  miss->from = subtracts ? (*operands_of(graph, squared, Step::f_sub))[0] : squared;
  return miss;
}

// What follows the square root of a spread is followed to the first node that does not belong to the formula.
Miss unlike_division(const Graph& graph, ValueId root, const Spread& spread) {
  const Dims& dims = graph.value(spread.x).dims;
  const Dims row = normalised(graph, spread);
  bool divided = false;
  ValueId id = root;
  for (int depth = 0; depth <= deepest; ++depth) {
    const std::vector<NodeId> readers = graph.readers(id);
    if (readers.empty() || readers[0] < 0) break;
    const Node& node = graph.node(readers[0]);
    const ValueId out = node.outputs[0];
    const auto* map = std::get_if<Map>(&node.operation);
    if (map == nullptr) break;
    const auto miss = [&](std::string found, std::string expected, std::string advice = "") {
      return Miss{out, std::move(found), std::move(expected), std::move(advice), spread.x};
    };
    const bool inverts = map->step == Step::f_reciprocal || (map->step == Step::f_div && node.inputs[1] == id);
    const bool arithmetic = map->step == Step::f_add || map->step == Step::f_sub || map->step == Step::f_mul ||
                            map->step == Step::f_div || map->step == Step::f_neg;
    if (!divided && !inverts) {
      const bool epsilon = map->step == Step::f_add && uniform(graph, node.inputs[node.inputs[0] == id ? 1 : 0]);
      return miss(in_words(graph, out) + (epsilon ? ", an epsilon behind the square root" : ", behind the square root"),
                  !epsilon                              ? "a division by it"
                  : spread.kind == Normalization::layer ? "the epsilon under it: sqrt(variance + epsilon)"
                                                        : "the epsilon under it: sqrt(mean(x * x) + epsilon)",
                  epsilon ? "use the framework's own normalisation layer" : "");
    }
    divided = true;
    if (!arithmetic && !inverts) break;
    for (const ValueId other : node.inputs) {
      if (other == id || other == spread.x || uniform(graph, other)) continue;
      const auto nodes = region(graph, other, {spread.x});
      const bool of_x = std::any_of(nodes.begin(), nodes.end(), [&](NodeId each) {
        const auto& inputs = graph.node(each).inputs;
        return std::find(inputs.begin(), inputs.end(), spread.x) != inputs.end();
      });
      if (of_x) {
        for (const NodeId each : nodes) {
          const auto* reduce = std::get_if<Reduce>(&graph.node(each).operation);
          if (reduce == nullptr || graph.node(each).inputs[0] != spread.x || reduce->axes == spread.axes) continue;
          return Miss{
              graph.node(each).outputs[0],
              fmt::format("a {} over axes {} of {}", name(graph.node(each).operation), axes(*reduce), text(dims)),
              "the mean over the axes of the variance, of sizes " + text(row), "", spread.x};
        }
        continue;
      }
      const bool adds = map->step == Step::f_add || map->step == Step::f_sub;
      const Value& value = graph.value(other);
      if (inverts && map->step == Step::f_div)
        return miss("a division of " + in_words(graph, other), formula(spread.kind));
      if (!value.constant || !(count(value.dims) == count(row)))
        return miss(fmt::format("{} {}", adds ? "a bias that is" : "a scale that is", in_words(graph, other)),
                    "a constant of shape " + text(row),
                    value.constant ? "" : "it runs as several operators; a scale known at conversion would fuse");
    }
    id = out;
  }
  return {id,
          divided ? in_words(graph, id) + ", where the arithmetic so far is not the formula"
                  : in_words(graph, id) + ", which divides nothing",
          formula(spread.kind), "", spread.x};
}

// The end of a normalisation is found from its last map back: a longer candidate comes first, and only a proven one
// is offered.
std::optional<ValueId> fuse(Graph& graph, ValueId root, Normalization kind, std::optional<Miss>& miss) {
  if (const auto lone = spread(graph, root))
    miss = lone->kind == kind ? std::optional(unlike_division(graph, root, *lone)) : std::nullopt;
  else if (operands_of(graph, root, Step::f_sqrt))
    miss = unlike_spread(graph, root, kind);
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
  if (!check_fusion(graph, {{root, result}}, first_new).same) return std::nullopt;
  return result;
}

// Something with an exponential in it over something with its own sum in it.
std::optional<Miss> unlike_softmax(const Graph& graph, ValueId above, ValueId below) {
  const auto e = behind_maps(graph, above, [&](ValueId id) { return operands_of(graph, id, Step::f_exp) != nullptr; });
  const auto sum = behind_maps(graph, below, [&](ValueId id) { return made_by<Reduce>(graph, id) != nullptr; });
  if (!e || !sum) return {};
  const auto* reduce = made_by<Reduce>(graph, *sum);
  if (reduce->kind != Reduction::sum ||
      !behind_maps(graph, producer(graph, *sum)->inputs[0], [&](ValueId id) { return id == *e; }))
    return {};
  if (*e != above)
    return Miss{above, in_words(graph, above) + " of the exponentials", "exp(x) over its own sum",
                "a mask is added to x, as 0 and -inf", *e};
  while (is_view(graph, below)) below = producer(graph, below)->inputs[0];
  if (*sum != below)
    return Miss{below, in_words(graph, below) + " of the sum", "the sum of the exponentials as it is",
                "without an epsilon: the largest exponential is 1", *e};
  return Miss{*sum,
              fmt::format("a sum over axes {} of {}{}", axes(*reduce), text(graph.value(*e).dims),
                          reduce->keep ? "" : ", which are dropped"),
              "a sum over one axis, kept as size 1", "", *e};
}

}  // namespace

std::optional<Offer> fuse_layer_norm(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Normalization::layer, miss);
}
std::optional<Offer> fuse_rms_norm(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Normalization::rms, miss);
}

// exp(x - max) / sum of exp(x - max), over one axis; also without the maximum, which only guards against overflow.
std::optional<Offer> fuse_softmax(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  for (const auto& [above, below] : ratios(graph, root)) {
    const auto* exponential = operands_of(graph, above, Step::f_exp);
    const auto* sum = made_by<Reduce>(graph, below);
    if (exponential == nullptr || sum == nullptr || sum->kind != Reduction::sum || !sum->keep ||
        sum->axes.size() != 1 || producer(graph, below)->inputs[0] != above) {
      if (!miss) miss = unlike_softmax(graph, above, below);
      continue;
    }
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

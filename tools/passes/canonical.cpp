/// The canonical form: exact algebra that makes many ways to write a thing one. Each rewrite looks at one node and
/// gives what its result may be replaced by. docs/converter.md lists them.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <unordered_map>

#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr int most_sweeps =
    100;  // each rewrite shrinks the graph or moves a view towards the outputs; this only guards

using Result = std::optional<ValueId>;

bool is_uniform(const Graph& graph, ValueId id, double number) {
  return uniform(graph, id) == number;
}

// x where it has the shape of the result, so that it may stand in its place.
Result alone(const Graph& graph, ValueId result, ValueId x) {
  return graph.value(x).dims == graph.value(result).dims ? Result(x) : std::nullopt;
}

// --- Arithmetic ------------------------------------------------------------------------------------------------------

bool commutes(Step step) {
  switch (step) {
    case Step::f_add:
    case Step::f_mul:
    case Step::f_min:
    case Step::f_max:
    case Step::f_equal:
    case Step::i_add:
    case Step::i_mul:
    case Step::i_min:
    case Step::i_max:
    case Step::i_equal:
    case Step::i_and:
    case Step::i_or:
    case Step::i_xor:
    case Step::b_and:
    case Step::b_or:
    case Step::b_xor:
      return true;
    default:
      return false;
  }
}

Result constants_last(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr || !commutes(map->step)) return std::nullopt;
  const ValueId a = producer(graph, out)->inputs[0], b = producer(graph, out)->inputs[1];
  const auto constant = [&](ValueId id) { return graph.value(id).constant || uniform(graph, id); };
  if (!constant(a) || constant(b)) return std::nullopt;
  const Step step = map->step;
  return Builder(graph, out).map(step, {b, a});
}

Result neutral_operands(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr || info(map->step).operands != 2) return std::nullopt;
  const ValueId x = producer(graph, out)->inputs[0], c = producer(graph, out)->inputs[1];
  switch (map->step) {
    case Step::f_add:
    case Step::f_sub:
    case Step::i_add:
    case Step::i_sub:
    case Step::b_or:
    case Step::b_xor:
      return is_uniform(graph, c, 0) ? alone(graph, out, x) : std::nullopt;
    case Step::f_mul:
    case Step::f_div:
    case Step::f_pow:
    case Step::i_mul:
    case Step::i_div:
    case Step::b_and:
      return is_uniform(graph, c, 1) ? alone(graph, out, x) : std::nullopt;
    case Step::f_max:
      return is_uniform(graph, c, -INFINITY) ? alone(graph, out, x) : std::nullopt;
    case Step::f_min:
      return is_uniform(graph, c, INFINITY) ? alone(graph, out, x) : std::nullopt;
    default:
      return std::nullopt;
  }
}

// Zeros times finite weights are zeros.
Result products_of_zeros(Graph& graph, ValueId out) {
  if (!made_by<Matmul>(graph, out) || producer(graph, out)->inputs.size() != 2) return std::nullopt;
  const auto& weights = graph.value(producer(graph, out)->inputs[1]).constant;
  if (made_by<Matmul>(graph, out)->activation != Activation::none || !weights ||
      !is_uniform(graph, producer(graph, out)->inputs[0], 0) ||
      !std::all_of(weights->floats().begin(), weights->floats().end(), [](float each) { return std::isfinite(each); }))
    return std::nullopt;
  const Builder build(graph, out);
  return build.expand(build.scalar(0), build.dims(out));
}

// (x + c) + d is x + (c + d).
Result constant_sums(Graph& graph, ValueId out) {
  const auto* outer = operands_of(graph, out, Step::f_add);
  if (outer == nullptr || !graph.value((*outer)[1]).constant || !read_once(graph, (*outer)[0])) return std::nullopt;
  const ValueId sum = (*outer)[0], d = (*outer)[1];
  const auto* inner = operands_of(graph, sum, Step::f_add);
  if (inner == nullptr || !graph.value((*inner)[1]).constant || !alone(graph, out, sum)) return std::nullopt;
  const ValueId x = (*inner)[0], c = (*inner)[1];
  const Builder build(graph, out, {sum});
  return build.map(Step::f_add, {x, build.map(Step::f_add, {c, d})});
}

Result powers(Graph& graph, ValueId out) {
  const auto* operands = operands_of(graph, out, Step::f_pow);
  if (operands == nullptr) return std::nullopt;
  const ValueId x = (*operands)[0];
  const auto exponent = uniform(graph, (*operands)[1]);
  if (!exponent || !alone(graph, out, x)) return std::nullopt;
  const Builder build(graph, out);
  if (*exponent == 2) return build.map(Step::f_mul, {x, x});
  if (*exponent == 3) return build.map(Step::f_mul, {build.map(Step::f_mul, {x, x}), x});
  if (*exponent == 0.5) return build.map(Step::f_sqrt, {x});
  if (*exponent == -0.5) return build.map(Step::f_reciprocal, {build.map(Step::f_sqrt, {x})});
  if (*exponent == -1) return build.map(Step::f_reciprocal, {x});
  return std::nullopt;
}

Result reciprocals(Graph& graph, ValueId out) {
  const auto* operands = operands_of(graph, out, Step::f_div);
  if (operands == nullptr || !is_uniform(graph, (*operands)[0], 1) || !alone(graph, out, (*operands)[1]))
    return std::nullopt;
  const ValueId x = (*operands)[1];
  return Builder(graph, out).map(Step::f_reciprocal, {x});
}

Result negations(Graph& graph, ValueId out) {
  for (const auto& [step, other] : {std::pair(Step::f_add, Step::f_sub), std::pair(Step::f_sub, Step::f_add)})
    if (const auto* operands = operands_of(graph, out, step))
      for (size_t i = step == Step::f_add ? 0 : 1; i < 2; ++i)
        if (const auto* negated = operands_of(graph, (*operands)[i], Step::f_neg)) {
          const ValueId a = (*operands)[1 - i], b = (*negated)[0];
          return Builder(graph, out, {(*operands)[i]}).map(other, {a, b});
        }
  if (const auto* outer = operands_of(graph, out, Step::f_neg))
    if (const auto* inner = operands_of(graph, (*outer)[0], Step::f_neg)) return (*inner)[0];
  return std::nullopt;
}

// Sums over n elements times 1/n, and sums of squares.
Result means_and_squares(Graph& graph, ValueId out) {
  if (const auto times = scaled(graph, out)) {
    const auto* sum = made_by<Reduce>(graph, times->x);
    const bool squares = sum != nullptr && sum->kind == Reduction::sum_square;
    if (sum == nullptr || (sum->kind != Reduction::sum && !squares)) return std::nullopt;
    const ValueId x = producer(graph, times->x)->inputs[0];
    Expression size = 1;
    for (const int axis : sum->axes) size = size * graph.value(x).dims[static_cast<size_t>(axis)];
    const auto count = size.constant();
    if (!count || std::abs(times->factor * static_cast<double>(*count) - 1) > 1e-6) return std::nullopt;
    Reduce mean = *sum;
    mean.kind = Reduction::mean;
    const Builder build(graph, out, {times->x});
    return build.add(mean, {squares ? build.map(Step::f_mul, {x, x}) : x});
  }
  const auto* reduce = made_by<Reduce>(graph, out);
  if (reduce == nullptr || reduce->kind != Reduction::sum) return std::nullopt;
  const ValueId operand = producer(graph, out)->inputs[0];
  const auto* square = operands_of(graph, operand, Step::f_mul);
  if (square == nullptr || (*square)[0] != (*square)[1]) return std::nullopt;
  const ValueId x = (*square)[0];
  Reduce sum = *reduce;
  sum.kind = Reduction::sum_square;
  return Builder(graph, out, {operand}).add(sum, {x});
}

// Reduced axes stay as size 1, and are dropped by a reshape.
Result reductions_keep_axes(Graph& graph, ValueId out) {
  const auto* reduce = made_by<Reduce>(graph, out);
  if (reduce == nullptr || reduce->keep) return std::nullopt;
  Reduce kept = *reduce;
  kept.keep = true;
  const ValueId x = producer(graph, out)->inputs[0];
  const Dims dims = graph.value(out).dims;
  const Builder build(graph, out);
  return build.reshape(build.add(kept, {x}), dims);
}

Result reductions_of_one(Graph& graph, ValueId out) {
  const auto* reduce = made_by<Reduce>(graph, out);
  if (reduce == nullptr || reduce->kind == Reduction::sum_square || graph.value(out).type == Type::i32)
    return std::nullopt;
  const ValueId x = producer(graph, out)->inputs[0];
  const Dims& dims = graph.value(x).dims;
  for (const int axis : reduce->axes)
    if (!dims[static_cast<size_t>(axis)].is_constant(1)) return std::nullopt;
  return Builder(graph, out).reshape(x, graph.value(out).dims);
}

// --- Booleans --------------------------------------------------------------------------------------------------------

Result booleans(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr) return std::nullopt;
  const std::vector<ValueId> operands = producer(graph, out)->inputs;
  switch (map->step) {
    case Step::b_not:
      if (const auto* inner = operands_of(graph, operands[0], Step::b_not)) return (*inner)[0];
      return std::nullopt;
    case Step::f_to_b:
      if (const auto* inner = operands_of(graph, operands[0], Step::b_to_f)) return (*inner)[0];
      return std::nullopt;
    case Step::i_to_b:
      if (const auto* inner = operands_of(graph, operands[0], Step::b_to_i)) return (*inner)[0];
      return std::nullopt;
    case Step::f_equal:  // boolean as a number == 0
      if (const auto* inner = operands_of(graph, operands[0], Step::b_to_f);
          inner && is_uniform(graph, operands[1], 0)) {
        const ValueId x = (*inner)[0];
        return Builder(graph, out, {operands[0]}).map(Step::b_not, {x});
      }
      return std::nullopt;
    case Step::i_equal:
      if (const auto* inner = operands_of(graph, operands[0], Step::b_to_i);
          inner && is_uniform(graph, operands[1], 0)) {
        const ValueId x = (*inner)[0];
        return Builder(graph, out, {operands[0]}).map(Step::b_not, {x});
      }
      return std::nullopt;
    case Step::f_select:
    case Step::i_select:
    case Step::b_select: {
      const Step step = map->step;
      if (const auto condition = uniform(graph, operands[0]))
        return alone(graph, out, operands[*condition != 0 ? 1 : 2]);
      const auto* inverse = operands_of(graph, operands[0], Step::b_not);
      if (inverse == nullptr) return std::nullopt;
      const ValueId condition = (*inverse)[0];
      return Builder(graph, out, {operands[0]}).map(step, {condition, operands[2], operands[1]});
    }
    default:
      return std::nullopt;
  }
}

// A function of a boolean and numbers is a select of two numbers.
Result functions_of_booleans(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr || info(map->step).from != Type::f32 || info(map->step).to != Type::f32) return std::nullopt;
  if (map->step == Step::f_select) return std::nullopt;
  ValueId condition = no_value;
  std::vector<Literal> if_true, if_false;
  std::vector<ValueId> also;
  for (const ValueId id : producer(graph, out)->inputs) {
    const auto number = [](double value) { return Literal::of({}, std::vector<float>{static_cast<float>(value)}); };
    if (const auto value = uniform(graph, id)) {
      if_true.push_back(number(*value));
      if_false.push_back(number(*value));
      continue;
    }
    std::optional<double> yes, no;
    ValueId own = no_value;
    if (const auto* cast = operands_of(graph, id, Step::b_to_f)) {
      own = (*cast)[0], yes = 1, no = 0;
    } else if (const auto* select = operands_of(graph, id, Step::f_select)) {
      own = (*select)[0], yes = uniform(graph, (*select)[1]), no = uniform(graph, (*select)[2]);
    }
    if (!yes || !no || (condition != no_value && condition != own) || !alone(graph, out, own)) return std::nullopt;
    condition = own;
    also.push_back(id);
    if_true.push_back(number(*yes));
    if_false.push_back(number(*no));
  }
  if (condition == no_value) return std::nullopt;
  const auto value = [&](const std::vector<Literal>& operands) {
    std::vector<const Literal*> inputs;
    for (const Literal& operand : operands) inputs.push_back(&operand);
    return evaluate(*producer(graph, out), inputs, {})[0].floats()[0];
  };
  const float yes = value(if_true), no = value(if_false);
  const Builder build(graph, out, also);
  return build.map(Step::f_select, {condition, build.scalar(yes), build.scalar(no)});
}

// --- Views -----------------------------------------------------------------------------------------------------------

// Which consecutive axes of `from` each axis of `to` is the product of; nothing where it is no mere merging. Sizes of 1
// go to the left.
std::optional<std::vector<std::vector<int>>> merged_axes(const Dims& from, const Dims& to) {
  std::vector<std::vector<int>> groups;
  size_t next = 0;
  for (const Expression& size : to) {
    std::vector<int> group;
    Expression product = 1;
    while (!(product == size)) {
      if (next == from.size()) return std::nullopt;
      product = product * from[next];
      group.push_back(static_cast<int>(next++));
    }
    groups.push_back(std::move(group));
  }
  for (; next < from.size(); ++next) {
    if (!from[next].is_constant(1) || groups.empty()) return std::nullopt;
    groups.back().push_back(static_cast<int>(next));
  }
  return groups;
}

// The result of a transpose with its axes split, `groups` as of merged_axes(split, its dims), as the transpose of split
// axes.
ValueId split_before(const Graph& graph, ValueId turned, const Dims& split, const std::vector<std::vector<int>>& groups,
                     const Builder& build) {
  const std::vector<int> permutation = made_by<Transpose>(graph, turned)->permutation;
  std::vector<size_t> from(permutation.size());  // where the axes of the operand go
  for (size_t axis = 0; axis < permutation.size(); ++axis) from[static_cast<size_t>(permutation[axis])] = axis;
  Dims operand;
  std::vector<int> fine(split.size());
  for (const size_t axis : from)
    for (const int part : groups[axis]) {
      fine[static_cast<size_t>(part)] = static_cast<int>(operand.size());
      operand.push_back(split[static_cast<size_t>(part)]);
    }
  return build.transpose(build.reshape(producer(graph, turned)->inputs[0], operand), fine);
}

// A constant that broadcasts against `to`, as it does against `from`, where the two differ in axes of size 1 alone.
Result without_ones(Graph& graph, ValueId out, ValueId x, const Dims& from, const Dims& to) {
  const Dims own = graph.value(x).dims;
  if (own.size() > to.size() || !graph.value(x).constant) return std::nullopt;
  Dims result;
  size_t next = 0;  // of `to`
  const auto skip = [&] {
    while (next < to.size() && to[next].is_constant(1)) ++next;
  };
  for (const Expression& size : from) {
    if (size.is_constant(1)) {
      result.emplace_back(1);
      continue;
    }
    skip();
    if (next == to.size() || !(to[next] == size)) return std::nullopt;
    const size_t ahead = to.size() - own.size();
    result.push_back(next < ahead ? Expression(1) : own[next - ahead]);
    ++next;
  }
  skip();
  if (next != to.size() || !(count(result) == count(own))) return std::nullopt;
  return Builder(graph, out).reshape(x, result);
}

Result views_of_views(Graph& graph, ValueId out) {
  if (producer(graph, out) == nullptr || producer(graph, out)->inputs.empty()) return std::nullopt;
  const ValueId x = producer(graph, out)->inputs[0];
  const Dims dims = graph.value(out).dims;
  if (made_by<Reshape>(graph, out) && made_by<Reshape>(graph, x)) return Builder(graph, out, {x}).reshape(x, dims);
  if (made_by<Expand>(graph, out) && made_by<Expand>(graph, x))
    return Builder(graph, out, {x}).expand(producer(graph, x)->inputs[0], dims);
  // Axes are split before they are turned: what had merged them may stand right behind, and the two cancel.
  if (made_by<Reshape>(graph, out) && made_by<Transpose>(graph, x)) {
    const Dims turned = graph.value(x).dims;
    const auto groups = merged_axes(dims, turned);
    if (!groups || merged_axes(turned, dims)) return std::nullopt;
    return split_before(graph, x, dims, *groups, Builder(graph, out, {x}));
  }
  const auto* transpose = made_by<Transpose>(graph, out);
  if (transpose == nullptr) return std::nullopt;
  const std::vector<int> permutation = transpose->permutation;
  if (made_by<Transpose>(graph, x)) return Builder(graph, out, {x}).transpose(x, permutation);
  // Between two transposes axes are split: the first one is of the split axes too.
  if (made_by<Reshape>(graph, x) && made_by<Transpose>(graph, producer(graph, x)->inputs[0])) {
    const ValueId turned = producer(graph, x)->inputs[0];
    const Dims split = graph.value(x).dims;
    if (const auto groups = merged_axes(split, graph.value(turned).dims)) {
      const Builder build(graph, out, {x});
      return build.transpose(split_before(graph, turned, split, *groups, build), permutation);
    }
  }
  // Only axes of size 1 change places: nothing moves.
  const Dims from = graph.value(x).dims;
  int last = -1;
  bool moves = false;
  for (const int axis : permutation) {
    if (from[static_cast<size_t>(axis)].is_constant(1)) continue;
    moves = moves || axis < last;
    last = axis;
  }
  if (!moves) return Builder(graph, out, {x}).reshape(x, dims);
  // The transpose of merged axes is merged afterwards: reshapes meet below and cancel.
  if (made_by<Reshape>(graph, x)) {
    const ValueId inner = producer(graph, x)->inputs[0];
    const auto groups = merged_axes(graph.value(inner).dims, from);
    if (!groups) return std::nullopt;
    std::vector<int> fine;
    for (const int axis : permutation) {
      const auto& group = (*groups)[static_cast<size_t>(axis)];
      fine.insert(fine.end(), group.begin(), group.end());
    }
    const Builder build(graph, out, {x});
    return build.reshape(build.transpose(inner, fine), dims);
  }
  return std::nullopt;
}

// x as the operand of a map before its result is transposed; nothing where that would move elements of x, which are
// not known yet.
Result turned_back(Graph& graph, ValueId out, ValueId x, const std::vector<int>& permutation) {
  Dims dims = graph.value(x).dims;
  if (dims.size() > permutation.size()) return std::nullopt;
  dims.insert(dims.begin(), permutation.size() - dims.size(), 1);
  std::vector<int> back(permutation.size());
  for (size_t i = 0; i < back.size(); ++i) back[static_cast<size_t>(permutation[i])] = static_cast<int>(i);
  Dims result;
  int last = -1;
  bool moves = false;
  for (const int axis : back) {
    result.push_back(dims[static_cast<size_t>(axis)]);
    if (result.back().is_constant(1)) continue;
    moves = moves || axis < last;
    last = axis;
  }
  const Builder build(graph, out);
  if (!moves) return build.reshape(x, result);
  if (!graph.value(x).constant) return std::nullopt;
  return build.transpose(build.reshape(x, dims), back);
}

// A view that every operand of a map shares, what costs nothing to turn aside, is taken of the result instead.
Result views_sink_below_maps(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr) return std::nullopt;
  const Step step = map->step;
  const std::vector<ValueId> operands = producer(graph, out)->inputs;
  const Dims dims = graph.value(out).dims;
  std::optional<std::vector<int>> permutation;
  std::optional<Dims> inner_dims;  // of reshapes
  std::vector<ValueId> inner, views;
  for (const ValueId id : operands) {
    const auto* transpose = made_by<Transpose>(graph, id);
    const bool shared = (transpose || made_by<Reshape>(graph, id)) && graph.value(id).dims == dims && !dims.empty();
    if (shared && transpose && !inner_dims && (!permutation || *permutation == transpose->permutation)) {
      permutation = transpose->permutation;
    } else if (shared && !transpose && !permutation) {
      const Dims from = graph.value(producer(graph, id)->inputs[0]).dims;
      if (inner_dims && *inner_dims != from) return std::nullopt;
      inner_dims = from;
    }
  }
  if (!permutation && !inner_dims) return std::nullopt;
  const bool same_last = inner_dims && !inner_dims->empty() && inner_dims->back() == dims.back();
  for (const ValueId id : operands) {
    const Value& value = graph.value(id);
    const bool view = permutation ? made_by<Transpose>(graph, id) && value.dims == dims &&
                                        made_by<Transpose>(graph, id)->permutation == *permutation
                                  : made_by<Reshape>(graph, id) && value.dims == dims &&
                                        graph.value(producer(graph, id)->inputs[0]).dims == *inner_dims;
    const bool one =
        count(value.dims).is_constant(1) && value.dims.size() <= (permutation ? dims.size() : inner_dims->size());
    const bool row = same_last && value.constant && value.dims.size() == 1 && value.dims[0] == dims.back();
    Result turned;
    if (!view && !one && !row)
      turned =
          permutation ? turned_back(graph, out, id, *permutation) : without_ones(graph, out, id, *inner_dims, dims);
    if (!view && !one && !row && !turned) return std::nullopt;
    inner.push_back(view ? producer(graph, id)->inputs[0] : turned.value_or(id));
    if (view) views.push_back(id);
  }
  const ValueId result = Builder(graph, out).map(step, inner);
  const Builder view(graph, views.front(), views);  // keeps its name
  return permutation ? view.transpose(result, *permutation) : view.reshape(result, dims);
}

// What moves no element along an axis, or treats axes alike, is done before a transpose.
Result transposes_sink(Graph& graph, ValueId out) {
  const Node* node = producer(graph, out);
  if (node == nullptr || node->inputs.empty()) return std::nullopt;
  const ValueId first = node->inputs[0];
  const auto* transpose = made_by<Transpose>(graph, first);
  if (transpose == nullptr) return std::nullopt;
  std::vector<int> permutation = transpose->permutation;
  const std::vector<ValueId> operands = node->inputs;
  Operation operation = node->operation;
  const auto from = [&](size_t axis) { return static_cast<size_t>(permutation[axis]); };
  const auto turned = [&](auto& list) {
    auto result = list;
    for (size_t i = 0; i < list.size(); ++i) result[from(i)] = list[i];
    list = result;
  };
  std::vector<ValueId> inner = {producer(graph, first)->inputs[0]}, views = {first};
  if (auto* slice = std::get_if<Slice>(&operation)) {
    turned(slice->starts), turned(slice->steps), turned(slice->dims);
  } else if (auto* pad = std::get_if<Pad>(&operation)) {
    turned(pad->before), turned(pad->after);
  } else if (auto* concat = std::get_if<Concat>(&operation)) {
    concat->axis = permutation[static_cast<size_t>(concat->axis)];
    for (size_t i = 1; i < operands.size(); ++i) {
      const auto* other = made_by<Transpose>(graph, operands[i]);
      const bool alike = other != nullptr && other->permutation == permutation;
      const Result back =
          alike ? producer(graph, operands[i])->inputs[0] : turned_back(graph, out, operands[i], permutation);
      if (!back) return std::nullopt;
      inner.push_back(*back);
      if (alike) views.push_back(operands[i]);
    }
  } else if (std::holds_alternative<Rope>(operation)) {
    if (permutation.back() != static_cast<int>(permutation.size()) - 1) return std::nullopt;
    for (size_t i = 1; i < operands.size(); ++i) {
      const Result table = turned_back(graph, out, operands[i], permutation);
      if (!table) return std::nullopt;
      inner.push_back(*table);
    }
  } else if (auto* reduce = std::get_if<Reduce>(&operation)) {
    std::vector<int> left;  // axes of the operand that stay
    for (size_t i = 0; i < permutation.size(); ++i)
      if (std::find(reduce->axes.begin(), reduce->axes.end(), static_cast<int>(i)) == reduce->axes.end())
        left.push_back(permutation[i]);
    for (int& axis : reduce->axes) axis = permutation[static_cast<size_t>(axis)];
    std::sort(reduce->axes.begin(), reduce->axes.end());
    if (!reduce->keep) {
      std::vector<int> sorted = left;
      std::sort(sorted.begin(), sorted.end());
      for (int& axis : left) axis = static_cast<int>(std::find(sorted.begin(), sorted.end(), axis) - sorted.begin());
      permutation = left;
    }
  } else {
    return std::nullopt;
  }
  const ValueId result = Builder(graph, out).add(operation, inner);
  return Builder(graph, first, views).transpose(result, permutation);  // keeps its name
}

// A slice that lies within one operand of a concatenation is a slice of that.
Result slices_of_joins(Graph& graph, ValueId out) {
  const auto* found = made_by<Slice>(graph, out);
  const Node* joined = found == nullptr ? nullptr : producer(graph, producer(graph, out)->inputs[0]);
  const auto* concat = joined == nullptr ? nullptr : std::get_if<Concat>(&joined->operation);
  if (concat == nullptr) return std::nullopt;
  Slice slice = *found;
  const auto axis = static_cast<size_t>(concat->axis);
  const auto start = slice.starts[axis].constant(), size = slice.dims[axis].constant();
  if (!start || !size || *size < 1) return std::nullopt;
  const int64_t last = *start + (*size - 1) * slice.steps[axis];
  int64_t offset = 0;
  for (const ValueId operand : joined->inputs) {
    const Expression& own = graph.value(operand).dims[axis];
    if (std::min(*start, last) >= offset && std::max(*start, last) < offset + own.range(graph.dimensions).lower) {
      slice.starts[axis] = *start - offset;
      return Builder(graph, out).add(slice, {operand});
    }
    if (!own.constant()) return std::nullopt;
    offset += *own.constant();
  }
  return std::nullopt;
}

// Steps of a tensor (slices of size 1 along an axis, reshaped or not) that are stacked in their order are a slice of
// it.
Result stacks_of_slices(Graph& graph, ValueId out) {
  const auto* concat = made_by<Concat>(graph, out);
  if (concat == nullptr || producer(graph, out)->inputs.size() < 2) return std::nullopt;
  const std::vector<ValueId> steps = producer(graph, out)->inputs;
  const auto along = static_cast<size_t>(concat->axis);
  const auto slice_of = [&](ValueId id) {
    if (made_by<Reshape>(graph, id)) id = producer(graph, id)->inputs[0];
    return made_by<Slice>(graph, id) ? producer(graph, id) : nullptr;
  };
  const Node *first = slice_of(steps[0]), *second = slice_of(steps[1]);
  if (first == nullptr || second == nullptr || first->inputs != second->inputs) return std::nullopt;
  const ValueId x = first->inputs[0];
  Slice slice = std::get<Slice>(first->operation);
  const std::vector<Expression>& next_starts = std::get<Slice>(second->operation).starts;
  size_t axis = 0;
  while (axis < next_starts.size() && slice.starts[axis] == next_starts[axis]) ++axis;
  if (axis == next_starts.size() || !slice.dims[axis].is_constant(1)) return std::nullopt;
  const auto start = slice.starts[axis].constant(), next = next_starts[axis].constant();
  const Dims own = graph.value(steps[0]).dims;
  if (!start || !next || !own[along].is_constant(1)) return std::nullopt;
  for (size_t i = 0; i < steps.size(); ++i) {
    std::vector<Expression> starts = slice.starts;
    starts[axis] = *start + static_cast<int64_t>(i) * (*next - *start);
    const Node* node = slice_of(steps[i]);
    if (node == nullptr || node->inputs[0] != x || !(graph.value(steps[i]).dims == own)) return std::nullopt;
    const auto& each = std::get<Slice>(node->operation);
    if (!(each.starts == starts) || !(each.dims == slice.dims) || each.steps != slice.steps) return std::nullopt;
  }
  const auto without_ones = [](const Dims& dims, size_t end) {
    Dims kept;
    std::copy_if(dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(end), std::back_inserter(kept),
                 [](const Expression& size) { return !size.is_constant(1); });
    return kept;
  };
  if (!(without_ones(slice.dims, slice.dims.size()) == without_ones(own, own.size()))) return std::nullopt;
  std::vector<int> order;  // of x's axes: that of the steps goes where they are stacked
  for (size_t i = 0; i < slice.dims.size(); ++i)
    if (i != axis) order.push_back(static_cast<int>(i));
  auto place = order.begin();
  for (size_t ahead = without_ones(own, along).size(); ahead > 0; ++place)
    ahead -= !slice.dims[static_cast<size_t>(*place)].is_constant(1);
  order.insert(place, static_cast<int>(axis));
  slice.steps[axis] = *next - *start;
  slice.dims[axis] = static_cast<int64_t>(steps.size());
  const Builder build(graph, out);
  return build.reshape(build.transpose(build.add(slice, {x}), order), build.dims(out));
}

// Rows of a product with constant weights stay in the shape they came in.
Result reshapes_sink_below_products(Graph& graph, ValueId out) {
  const auto* matmul = made_by<Matmul>(graph, out);
  if (matmul == nullptr) return std::nullopt;
  const Matmul op = *matmul;
  std::vector<ValueId> inputs = producer(graph, out)->inputs;
  if (!made_by<Reshape>(graph, inputs[0]) || graph.value(inputs[1]).dims.size() != 2 || inputs.size() > 3)
    return std::nullopt;
  const ValueId inner = producer(graph, inputs[0])->inputs[0];
  const Dims from = graph.value(inner).dims, to = graph.value(inputs[0]).dims;
  if (from.size() < 2 || !(from.back() == to.back())) return std::nullopt;
  inputs[0] = inner;
  const Dims dims = graph.value(out).dims;
  const Builder view(graph, producer(graph, out)->inputs[0]);  // keeps its name
  return view.reshape(Builder(graph, out).add(op, inputs), dims);
}

// A reduction of what only has other axes of size 1.
Result reshapes_sink_below_reductions(Graph& graph, ValueId out) {
  const auto* reduce = made_by<Reduce>(graph, out);
  if (reduce == nullptr || !reduce->keep || !made_by<Reshape>(graph, producer(graph, out)->inputs[0]))
    return std::nullopt;
  const ValueId view = producer(graph, out)->inputs[0], x = producer(graph, view)->inputs[0];
  const Dims from = graph.value(x).dims, to = graph.value(view).dims, dims = graph.value(out).dims;
  Reduce inner = *reduce;
  inner.axes.clear();
  size_t axis = 0;  // of `from`
  for (size_t i = 0; i <= to.size(); ++i) {
    if (i < to.size() && to[i].is_constant(1)) continue;
    while (axis < from.size() && from[axis].is_constant(1)) ++axis;
    if ((i == to.size()) != (axis == from.size())) return std::nullopt;
    if (i == to.size()) break;
    if (!(from[axis] == to[i])) return std::nullopt;
    if (std::find(reduce->axes.begin(), reduce->axes.end(), static_cast<int>(i)) != reduce->axes.end())
      inner.axes.push_back(static_cast<int>(axis));
    ++axis;
  }
  if (inner.axes.empty()) return std::nullopt;
  const Builder keeps_its_name(graph, view);
  return keeps_its_name.reshape(Builder(graph, out).add(inner, {x}), dims);
}

Result needless_expands(Graph& graph, ValueId out) {
  const Node* node = producer(graph, out);
  const bool map = made_by<Map>(graph, out), matmul = made_by<Matmul>(graph, out);
  if (!map && !matmul) return std::nullopt;
  const Operation operation = node->operation;
  std::vector<ValueId> inputs = node->inputs;
  const Dims dims = graph.value(out).dims;
  for (size_t i = 0; i < std::min<size_t>(inputs.size(), map ? 3 : 2); ++i) {
    if (!made_by<Expand>(graph, inputs[i])) continue;
    const ValueId inner = producer(graph, inputs[i])->inputs[0];
    std::vector<ValueId> without = inputs;
    without[i] = inner;
    const size_t rank = graph.value(inner).dims.size();
    if (matmul) {
      const Dims &a = graph.value(inner).dims, &b = graph.value(inputs[i]).dims;
      if (rank < 2 || !(a[rank - 1] == b[b.size() - 1]) || !(a[rank - 2] == b[b.size() - 2])) continue;
    }
    // Only a literal 1 broadcasts: the other operands have to carry the sizes.
    Dims result(matmul ? dims.size() - 2 : dims.size(), Expression(1));
    for (size_t operand = 0; operand < (map ? without.size() : 2); ++operand) {
      Dims own = graph.value(without[operand]).dims;
      if (matmul) own.resize(own.size() - 2);
      for (size_t axis = 0; axis < own.size(); ++axis)
        if (!own[axis].is_constant(1)) result[result.size() - own.size() + axis] = own[axis];
    }
    if (std::equal(result.begin(), result.end(), dims.begin())) return Builder(graph, out).add(operation, without);
  }
  return std::nullopt;
}

// An operand of a map without axes of size 1 that a reshape put in front or took away there.
Result needless_reshapes(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr) return std::nullopt;
  const Step step = map->step;
  std::vector<ValueId> operands = producer(graph, out)->inputs;
  for (ValueId& operand : operands) {
    if (!made_by<Reshape>(graph, operand)) continue;
    const ValueId x = producer(graph, operand)->inputs[0];
    const Dims &own = graph.value(x).dims, &dims = graph.value(operand).dims;
    const Dims &longer = own.size() > dims.size() ? own : dims, &shorter = own.size() > dims.size() ? dims : own;
    const auto ahead = static_cast<std::ptrdiff_t>(longer.size() - shorter.size());
    if (own.size() > graph.value(out).dims.size() || ahead == 0 ||
        !std::equal(shorter.begin(), shorter.end(), longer.begin() + ahead) ||
        !count({longer.begin(), longer.begin() + ahead}).is_constant(1))
      continue;
    const ValueId view = operand;
    operand = x;
    const Dims dims_out = graph.value(out).dims;
    const ValueId result = Builder(graph, out, {view}).map(step, operands);
    if (count(graph.value(result).dims) == count(dims_out)) return Builder(graph, view).reshape(result, dims_out);
    operand = view;
  }
  return std::nullopt;
}

// A product over one element, [.., m, 1] with [.., 1, n], sums nothing. Where both depend on data it may be one of an
// attention, where b is constant it is a layer.
Result outer_products(Graph& graph, ValueId out) {
  const auto* matmul = made_by<Matmul>(graph, out);
  if (matmul == nullptr || matmul->activation != Activation::none || producer(graph, out)->inputs.size() > 2)
    return std::nullopt;
  const ValueId a = producer(graph, out)->inputs[0], b = producer(graph, out)->inputs[1];
  if (!graph.value(a).dims.back().is_constant(1) || graph.value(b).constant) return std::nullopt;
  if (!depends_on_dimensions_only(graph, a) && !depends_on_dimensions_only(graph, b)) return std::nullopt;
  return Builder(graph, out).map(Step::f_mul, {a, b});
}

// Softmax runs over the last axis.
Result softmax_last(Graph& graph, ValueId out) {
  const auto* softmax = made_by<Softmax>(graph, out);
  const auto rank = static_cast<int>(graph.value(out).dims.size());
  if (softmax == nullptr || softmax->axis == rank - 1) return std::nullopt;
  const ValueId x = producer(graph, out)->inputs[0];
  std::vector<int> swap(static_cast<size_t>(rank));
  std::iota(swap.begin(), swap.end(), 0);
  std::swap(swap[static_cast<size_t>(softmax->axis)], swap.back());
  const bool log = softmax->log;
  const Builder build(graph, out);
  return build.transpose(build.add(Softmax{rank - 1, log}, {build.transpose(x, swap)}), swap);
}

// exp of a log-softmax.
Result exponentials(Graph& graph, ValueId out) {
  const auto* exponential = operands_of(graph, out, Step::f_exp);
  const auto* softmax = exponential == nullptr ? nullptr : made_by<Softmax>(graph, (*exponential)[0]);
  if (softmax == nullptr || !softmax->log) return std::nullopt;
  const int axis = softmax->axis;
  const ValueId logarithm = (*exponential)[0], x = producer(graph, logarithm)->inputs[0];
  return Builder(graph, out, {logarithm}).add(Softmax{axis}, {x});
}

// Softmax weights that are the second operand of a product: A W = (W' A')', so that they always come first.
Result weights_first(Graph& graph, ValueId out) {
  const auto* matmul = made_by<Matmul>(graph, out);
  if (matmul == nullptr || matmul->activation != Activation::none || producer(graph, out)->inputs.size() != 2)
    return std::nullopt;
  const ValueId a = producer(graph, out)->inputs[0], b = producer(graph, out)->inputs[1];
  const auto weights = [&](ValueId id) {
    while (is_view(graph, id)) id = producer(graph, id)->inputs[0];
    return made_by<Softmax>(graph, id) != nullptr;
  };
  if (weights(a) || !weights(b)) return std::nullopt;
  const Builder build(graph, out);
  return build.swap_last(build.add(Matmul{}, {build.swap_last(b), build.swap_last(a)}));
}

// A product with constant weights (and a bias) times a number, or a number for each of its columns, has that in its
// weights.
Result scales_into_weights(Graph& graph, ValueId out) {
  ValueId x = no_value, factor = no_value;
  const Dims dims = graph.value(out).dims;
  if (const auto times = scaled(graph, out)) {
    x = times->x;
  } else if (const auto* operands = operands_of(graph, out, Step::f_mul)) {
    const Value& value = graph.value((*operands)[1]);
    if (!value.constant || !(count(value.dims) == dims.back()) || !(value.dims.back() == dims.back()))
      return std::nullopt;
    x = (*operands)[0];
    factor = (*operands)[1];
  } else {
    return std::nullopt;
  }
  ValueId product = x, bias = no_value;
  if (const auto* sum = operands_of(graph, x, Step::f_add)) product = (*sum)[0], bias = (*sum)[1];
  if (!is_product(graph, product) || !read_once(graph, product) || !read_once(graph, x)) return std::nullopt;
  const Operation op = producer(graph, product)->operation;
  std::vector<ValueId> inputs = producer(graph, product)->inputs;
  if (activation_of(graph, product) != Activation::none || inputs.size() > 2 || !graph.value(inputs[1]).constant ||
      !(graph.value(product).dims == dims) || (bias != no_value && !graph.value(bias).constant))
    return std::nullopt;
  const Builder build(graph, out, {x, product});
  if (factor == no_value) factor = build.scalar(static_cast<float>(scaled(graph, out)->factor));
  if (!graph.value(factor).dims.empty()) factor = build.reshape(factor, {dims.back()});
  inputs[1] = build.map(Step::f_mul, {inputs[1], factor});
  const ValueId y = build.add(op, inputs);
  return bias == no_value ? y : build.map(Step::f_add, {y, build.map(Step::f_mul, {bias, factor})});
}

// A map of the rows of a table is the rows of a mapped table, where the table is the smaller one.
Result maps_into_tables(Graph& graph, ValueId out) {
  const Map* map = made_by<Map>(graph, out);
  if (map == nullptr || info(map->step).from != Type::f32 || info(map->step).to != Type::f32) return std::nullopt;
  const Step step = map->step;
  std::vector<ValueId> operands = producer(graph, out)->inputs;
  const Dims dims = graph.value(out).dims;
  size_t rows = operands.size();
  for (size_t i = 0; i < operands.size(); ++i) {
    const Value& value = graph.value(operands[i]);
    const auto* gather = made_by<Gather>(graph, operands[i]);
    if (gather != nullptr && gather->axis == 0 && rows == operands.size() && read_once(graph, operands[i])) {
      const Value& table = graph.value(producer(graph, operands[i])->inputs[0]);
      if (!table.constant || table.dims.size() != 2 || !(value.dims == dims)) return std::nullopt;
      if (table.constant->count() > count(dims).range(graph.dimensions).lower) return std::nullopt;
      rows = i;
    } else if (!value.constant || !(count(value.dims).is_constant(1) ||
                                    (count(value.dims) == dims.back() && value.dims.back() == dims.back()))) {
      return std::nullopt;
    }
  }
  if (rows == operands.size()) return std::nullopt;
  const ValueId gathered = operands[rows], index = producer(graph, gathered)->inputs[1];
  operands[rows] = producer(graph, gathered)->inputs[0];
  const Builder build(graph, out, {gathered});
  for (size_t i = 0; i < operands.size(); ++i)
    if (i != rows) operands[i] = build.reshape(operands[i], {count(build.dims(operands[i]))});
  return build.add(Gather{0}, {build.map(step, operands), index});
}

using Rewrite = Result (*)(Graph& graph, ValueId out);
constexpr Rewrite rewrites[] = {
    constants_last,
    neutral_operands,
    products_of_zeros,
    constant_sums,
    powers,
    reciprocals,
    negations,
    means_and_squares,
    reductions_keep_axes,
    reductions_of_one,
    booleans,
    functions_of_booleans,
    views_of_views,
    views_sink_below_maps,
    transposes_sink,
    slices_of_joins,
    stacks_of_slices,
    reshapes_sink_below_products,
    reshapes_sink_below_reductions,
    needless_expands,
    needless_reshapes,
    outer_products,
    counting_gathers,
    softmax_last,
    exponentials,
    weights_first,
    scales_into_weights,
    maps_into_tables,
};

// --- Whole graph -----------------------------------------------------------------------------------------------------

// Everything that decides a node's results: equal text, equal results.
std::string signature(const Graph& graph, const Node& node) {
  std::string text = name(node.operation);
  const auto add = [&](const auto& part) { text += '|' + std::to_string(part); };
  Operation operation = node.operation;
  for_each_expression(operation, [&](const Expression& e) { text += '|' + e.text(); });
  std::visit(Overloaded{[&](const Iota& op) { add(op.axis); },
                        [&](const Transpose& op) { std::for_each(op.permutation.begin(), op.permutation.end(), add); },
                        [&](const Slice& op) { std::for_each(op.steps.begin(), op.steps.end(), add); },
                        [&](const Concat& op) { add(op.axis); }, [&](const Pad& op) { add(op.value); },
                        [&](const Gather& op) { add(op.axis); },
                        [&](const Matmul& op) { add(static_cast<int>(op.activation)); },
                        [&](const Softmax& op) { add(op.axis), add(op.log); },
                        [&](const Reduce& op) {
                          add(static_cast<int>(op.kind)), add(op.keep), add(op.last_index);
                          std::for_each(op.axes.begin(), op.axes.end(), add);
                        },
                        [&](const Map& op) { add(op.narrow); },
                        [&](const QuantizeLinear& op) { add(op.lowest), add(op.highest), add(op.narrow); },
                        [](const DequantizeLinear&) {}, [](const Size&) {}, [](const Reshape&) {}, [](const Expand&) {},
                        // Each of these is its own: they are seldom equal and have many attributes.
                        [&](const auto&) { add(node.outputs[0]); }},
             operation);
  for (const ValueId id : node.inputs) {
    text += ';';
    const auto* constant = id == no_value || !graph.value(id).constant ? nullptr : &*graph.value(id).constant;
    if (constant == nullptr || constant->count() > 16) {
      text += std::to_string(id);
      continue;
    }
    text += 'c' + tools::text(constant->dims) + heed::name(constant->type);
    const size_t bytes = constant->type == Type::f32 ? 4 : constant->type == Type::i32 ? 8 : 1;
    text.append(reinterpret_cast<const char*>(constant->data), static_cast<size_t>(constant->count()) * bytes);
  }
  return text;
}

// Equal nodes are made one.
bool merge_equal(Graph& graph) {
  std::unordered_map<std::string, NodeId> known;
  bool changed = false;
  for (const NodeId id : graph.order()) {
    const auto [first, added] = known.emplace(signature(graph, graph.node(id)), id);
    if (added) continue;
    const Node& kept = graph.node(first->second);
    for (size_t i = 0; i < kept.outputs.size(); ++i) graph.replace(graph.node(id).outputs[i], kept.outputs[i]);
    changed = true;
  }
  return changed;
}

// A recurrent layer that starts from zeros has no initial state.
bool drop_zero_states(Graph& graph) {
  bool changed = false;
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    if (!std::holds_alternative<Recurrent>(node.operation)) continue;
    for (size_t i = 4; i < node.inputs.size(); ++i)
      if (node.inputs[i] != no_value && is_uniform(graph, node.inputs[i], 0)) node.inputs[i] = no_value, changed = true;
  }
  return changed;
}

}  // namespace

ValueId settled(Graph& graph, ValueId id) {
  for (int round = 0; round < most_sweeps; ++round) {
    Result better;
    for (const Rewrite& rewrite : rewrites)
      if (better = rewrite(graph, id); better) break;
    if (!better || *better == id) break;
    id = *better;
  }
  return id;
}

void canonicalise(Graph& graph) {
  for (int sweep = 0; sweep < most_sweeps; ++sweep) {
    bool changed = drop_zero_states(graph);
    changed = merge_equal(graph) || changed;
    for (const NodeId id : graph.order()) {
      if (graph.node(id).outputs.size() != 1) continue;
      const ValueId out = graph.node(id).outputs[0];
      for (const Rewrite& rewrite : rewrites)
        if (const Result better = rewrite(graph, out); better && *better != out) {
          graph.replace(out, *better);
          changed = true;
          break;
        }
    }
    graph.order();
    if (!changed) return;
  }
}

}  // namespace heed::tools

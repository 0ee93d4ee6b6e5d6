/// Index tensors that count: gathering by them is a slice.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr int64_t most = int64_t{1} << 31;  // beyond it is no index, and nothing here overflows below it

// A tensor of integers whose element at i is start + sum of steps[axis] * i[axis].
struct Counting {
  Expression start;
  std::vector<Expression> steps;

  bool uniform() const {
    return std::all_of(steps.begin(), steps.end(), [](const Expression& step) { return step.is_constant(0); });
  }
};

bool is_small(const Graph& graph, const Expression& step) {
  const Expression::Range range = step.range(graph.dimensions);
  return range.lower > -most && range.upper < most;
}

std::optional<Counting> counted(const Literal& literal) {
  const auto values = literal.integers();
  const auto is_index = [](int64_t value) { return value > -most && value < most; };
  if (values.empty() || !std::all_of(values.begin(), values.end(), is_index)) return std::nullopt;
  std::vector<int64_t> strides(literal.dims.size(), 1);
  for (size_t axis = strides.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * literal.dims[axis];
  std::vector<int64_t> steps(strides.size(), 0);
  for (size_t axis = 0; axis < strides.size(); ++axis)
    if (literal.dims[axis] > 1) steps[axis] = values[static_cast<size_t>(strides[axis])] - values[0];
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t expected = values[0];
    for (size_t axis = 0; axis < strides.size(); ++axis)
      expected += steps[axis] * (static_cast<int64_t>(i) / strides[axis] % literal.dims[axis]);
    if (values[i] != expected) return std::nullopt;
  }
  return Counting{values[0], {steps.begin(), steps.end()}};
}

// Where axes of size 1 come or go. Other reshapes only where all elements are alike.
std::optional<Counting> reshaped(const Counting& x, const Dims& from, const Dims& to) {
  Counting result{x.start, std::vector<Expression>(to.size(), 0)};
  if (x.uniform()) return result;
  size_t axis = 0;
  const auto skip_ones = [&] {
    while (axis < from.size() && from[axis].is_constant(1)) ++axis;
  };
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i].is_constant(1)) continue;
    skip_ones();
    if (axis == from.size() || !(from[axis] == to[i])) return std::nullopt;
    result.steps[i] = x.steps[axis++];
  }
  skip_ones();
  return axis == from.size() ? std::optional(result) : std::nullopt;
}

// Numpy's broadcasting: axes are aligned at the end, and an axis of size 1 is repeated.
Counting expanded(const Counting& x, const Dims& from, const Dims& to) {
  Counting result{x.start, std::vector<Expression>(to.size(), 0)};
  for (size_t axis = 0; axis < from.size(); ++axis)
    if (!from[axis].is_constant(1)) result.steps[to.size() - from.size() + axis] = x.steps[axis];
  return result;
}

std::optional<Counting> sum(const Graph& graph, const Counting& a, const Counting& b, int64_t times_b) {
  Counting result{a.start + b.start * times_b, a.steps};
  for (size_t axis = 0; axis < result.steps.size(); ++axis) {
    result.steps[axis] = result.steps[axis] + b.steps[axis] * times_b;
    if (!is_small(graph, result.steps[axis])) return std::nullopt;
  }
  return result;
}

// Times a number that is the same everywhere.
std::optional<Counting> product(const Graph& graph, const Counting& a, const Counting& b) {
  if (!b.uniform()) return a.uniform() ? product(graph, b, a) : std::nullopt;
  Counting result{a.start * b.start, a.steps};
  if (!a.uniform() && !is_small(graph, b.start)) return std::nullopt;
  for (Expression& step : result.steps) {
    step = step * b.start;
    if (!is_small(graph, step)) return std::nullopt;
  }
  return result;
}

bool never_negative(const Graph& graph, const Counting& x) {
  return x.start.range(graph.dimensions).lower >= 0 &&
         std::all_of(x.steps.begin(), x.steps.end(),
                     [&](const Expression& step) { return step.range(graph.dimensions).lower >= 0; });
}

using Known = std::map<ValueId, std::optional<Counting>>;  // a value may be read twice at each of many levels

std::optional<Counting> counting(const Graph& graph, ValueId id, Known& known);

// A select by `x < 0` of an x that never is: where negative indices would be counted from the end.
std::optional<Counting> without_negatives(const Graph& graph, const std::vector<ValueId>& select, const Dims& dims,
                                          Known& known) {
  const auto* compared = operands_of(graph, select[0], Step::i_less);
  if (compared == nullptr || uniform(graph, (*compared)[1]) != 0) return std::nullopt;
  const auto x = counting(graph, (*compared)[0], known), index = counting(graph, select[2], known);
  if (!x || !index || !never_negative(graph, *x)) return std::nullopt;
  return expanded(*index, graph.value(select[2]).dims, dims);
}

std::optional<Counting> found(const Graph& graph, ValueId id, Known& known) {
  const Value& value = graph.value(id);
  if (value.type != Type::i32) return std::nullopt;
  if (value.constant) return counted(*value.constant);
  const Node* node = producer(graph, id);
  if (node == nullptr) return std::nullopt;
  if (const auto* select = operands_of(graph, id, Step::i_select))
    return without_negatives(graph, *select, value.dims, known);
  std::vector<Counting> operands;
  for (const ValueId input : node->inputs) {
    const auto operand = input == no_value ? std::nullopt : counting(graph, input, known);
    if (!operand) return std::nullopt;
    operands.push_back(*operand);
  }
  const auto dims_of = [&](size_t operand) { return graph.value(node->inputs[operand]).dims; };
  using Outcome = std::optional<Counting>;
  return std::visit(Overloaded{[&](const Iota& op) -> Outcome {
                                 Counting result{0, std::vector<Expression>(value.dims.size(), 0)};
                                 result.steps[static_cast<size_t>(op.axis)] = 1;
                                 return result;
                               },
                               [&](const Size& op) -> Outcome {
                                 return Counting{op.value, {}};
                               },
                               [&](const Reshape&) -> Outcome { return reshaped(operands[0], dims_of(0), value.dims); },
                               [&](const Expand&) -> Outcome { return expanded(operands[0], dims_of(0), value.dims); },
                               [&](const Transpose& op) -> Outcome {
                                 Counting result = operands[0];
                                 for (size_t axis = 0; axis < result.steps.size(); ++axis)
                                   result.steps[axis] = operands[0].steps[static_cast<size_t>(op.permutation[axis])];
                                 return result;
                               },
                               [&](const Slice& op) -> Outcome {
                                 Counting result = operands[0];
                                 for (size_t axis = 0; axis < result.steps.size(); ++axis) {
                                   result.start = result.start + op.starts[axis] * result.steps[axis];
                                   if (std::abs(op.steps[axis]) >= most) return std::nullopt;
                                   result.steps[axis] = result.steps[axis] * op.steps[axis];
                                   if (!is_small(graph, result.steps[axis])) return std::nullopt;
                                 }
                                 return result;
                               },
                               [&](const Map& op) -> Outcome {
                                 for (size_t i = 0; i < operands.size(); ++i)
                                   operands[i] = expanded(operands[i], dims_of(i), value.dims);
                                 if (op.step == Step::i_add) return sum(graph, operands[0], operands[1], 1);
                                 if (op.step == Step::i_sub) return sum(graph, operands[0], operands[1], -1);
                                 if (op.step == Step::i_mul) return product(graph, operands[0], operands[1]);
                                 if (op.step == Step::i_max)
                                   for (const size_t zero : {0, 1})
                                     if (operands[zero].uniform() && operands[zero].start.is_constant(0) &&
                                         never_negative(graph, operands[1 - zero]))
                                       return operands[1 - zero];
                                 return std::nullopt;
                               },
                               [](const auto&) -> Outcome { return std::nullopt; }},
                    node->operation);
}

std::optional<Counting> counting(const Graph& graph, ValueId id, Known& known) {
  if (const auto before = known.find(id); before != known.end()) return before->second;
  return known.emplace(id, found(graph, id, known)).first->second;
}

}  // namespace

std::optional<ValueId> counting_gathers(Graph& graph, ValueId out) {
  const auto* gather = made_by<Gather>(graph, out);
  if (gather == nullptr) return std::nullopt;
  const auto along = static_cast<size_t>(gather->axis);
  const ValueId table = producer(graph, out)->inputs[0], index = producer(graph, out)->inputs[1];
  Known known;
  const auto count = counting(graph, index, known);
  if (!count) return std::nullopt;
  const Dims sizes = graph.value(index).dims;
  std::optional<Expression> counted_by;  // the step between neighbours
  Expression length = 1;
  std::vector<bool> moving(sizes.size(), false);  // axes along which the index counts, as one axis that was split
  for (size_t axis = sizes.size(); axis-- > 0;) {
    if (count->steps[axis].is_constant(0) || sizes[axis].is_constant(1)) continue;
    if (!counted_by) counted_by = count->steps[axis];
    if (!(count->steps[axis] == *counted_by * length)) return std::nullopt;
    moving[axis] = true;
    length = length * sizes[axis];
  }
  const auto constant_step = counted_by.value_or(1).constant();
  if (!constant_step) return std::nullopt;
  const int64_t step = *constant_step;

  // Within the table whatever the dimensions are, or, as ONNX demands it, by a constraint.
  Dims dims = graph.value(table).dims;
  const Expression size = dims[along];
  Expression first = count->start;
  if (first.range(graph.dimensions).upper < 0) first = first + size;
  const Expression last = first + (length - 1) * step;
  const Expression &low = step > 0 ? first : last, &high = step > 0 ? last : first;
  if (length.range(graph.dimensions).lower < 1 || low.range(graph.dimensions).lower < 0) return std::nullopt;
  const auto room = (size - 1 - high).range(graph.dimensions);
  if (room.upper < 0) return std::nullopt;
  if (room.lower < 0) {
    graph.constraints.push_back({Constraint::Relation::less_equal, high, size - 1});
    graph.notes.push_back(
        fmt::format("node '{}' (gather): {} <= {}", graph.value(out).name, high.text(), (size - 1).text()));
  }

  Slice slice{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), {}};
  slice.starts[along] = first;
  slice.steps[along] = step;
  dims[along] = length;
  slice.dims = dims;
  const Dims full = graph.value(out).dims;
  Dims repeated = full;  // with 1 where the index only repeats
  for (size_t axis = 0; axis < sizes.size(); ++axis)
    if (!moving[axis]) repeated[along + axis] = 1;
  const Builder build(graph, out);
  return build.expand(build.reshape(build.add(slice, {table}), repeated), full);
}

}  // namespace heed::tools

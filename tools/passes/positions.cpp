/// Values that positions and dimensions alone decide: index tensors that count, by which gathering is a slice, and
/// masks that depend on the distance between query and key. Both are read from how they are made, so that what is found
/// holds for all sizes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>

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

using Outcome = std::optional<Counting>;

// What x is in a view of it; nothing where `id` is none, or one that mixes axes.
Outcome viewed(const Graph& graph, ValueId id, const Counting& x) {
  const Node& node = *producer(graph, id);
  const Dims &from = graph.value(node.inputs[0]).dims, &to = graph.value(id).dims;
  return std::visit(Overloaded{[&](const Reshape&) -> Outcome { return reshaped(x, from, to); },
                               [&](const Expand&) -> Outcome { return expanded(x, from, to); },
                               [&](const Transpose& op) -> Outcome {
                                 Counting result = x;
                                 for (size_t axis = 0; axis < result.steps.size(); ++axis)
                                   result.steps[axis] = x.steps[static_cast<size_t>(op.permutation[axis])];
                                 return result;
                               },
                               [&](const Slice& op) -> Outcome {
                                 Counting result = x;
                                 for (size_t axis = 0; axis < result.steps.size(); ++axis) {
                                   result.start = result.start + op.starts[axis] * result.steps[axis];
                                   if (std::abs(op.steps[axis]) >= most) return std::nullopt;
                                   result.steps[axis] = result.steps[axis] * op.steps[axis];
                                   if (!is_small(graph, result.steps[axis])) return std::nullopt;
                                 }
                                 return result;
                               },
                               [](const auto&) -> Outcome { return std::nullopt; }},
                    node.operation);
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
  if (operands.size() == 1 && !std::holds_alternative<Map>(node->operation)) return viewed(graph, id, operands[0]);
  const auto dims_of = [&](size_t operand) { return graph.value(node->inputs[operand]).dims; };
  return std::visit(Overloaded{[&](const Iota& op) -> Outcome {
                                 Counting result{0, std::vector<Expression>(value.dims.size(), 0)};
                                 result.steps[static_cast<size_t>(op.axis)] = 1;
                                 return result;
                               },
                               [&](const Size& op) -> Outcome {
                                 return Counting{op.value, {}};
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

// --- Functions of a distance -----------------------------------------------------------------------------------------

// An element is values[n] where `place` counts from at[n - 1] on, up to before at[n]; `at` ascends whatever the
// dimensions are.
struct Steps {
  Counting place;
  std::vector<Expression> at;
  Literal values;
};

double number(const Literal& literal, size_t i) {
  if (literal.type == Type::f32) return literal.floats()[i];
  return literal.type == Type::i32 ? static_cast<double>(literal.integers()[i]) : literal.booleans()[i];
}

Literal run(const Operation& operation, const std::vector<const Literal*>& operands) {
  return evaluate(Node{operation, {}, {}, {}, {}, {}, false}, operands, {})[0];
}

Literal picked(Literal values, const std::vector<int64_t>& which) {
  values.dims = {values.count()};
  const Literal index = Literal::of({static_cast<int64_t>(which.size())}, which);
  return run(Gather{0}, {&values, &index});
}

// Reads a value as a function of one distance. A comparison between what depends on dimensions only, and whose outcome
// their bounds leave open, is none: at some sizes the value would be another.
class DistanceReader {
 public:
  explicit DistanceReader(const Graph& graph) : graph_(graph) {}

  using Found = std::optional<Steps>;

  Found read(ValueId id) {
    if (const auto before = read_.find(id); before != read_.end()) return before->second;
    Found steps = read_anew(id);
    if (steps) steps = settled(std::move(*steps), graph_.value(id).dims);
    return read_.emplace(id, std::move(steps)).first->second;
  }

  // Only steps and thresholds that a value of these dims has, steps towards larger keys.
  Found settled(Steps x, const Dims& dims) const {
    std::vector<Expression>& steps = x.place.steps;
    int64_t last = 0;
    Expression low, high;
    for (size_t axis = 0; axis < steps.size(); ++axis) {
      if (dims[axis].is_constant(1)) steps[axis] = 0;
      const auto step = steps[axis].constant();
      if (!step) return std::nullopt;
      if (*step != 0) last = *step;
      (*step < 0 ? low : high) = (*step < 0 ? low : high) + *step * (dims[axis] - 1);
    }
    for (Expression& at : x.at) at = at - x.place.start;
    x.place.start = 0;
    std::vector<int64_t> all(x.at.size() + 1);
    std::iota(all.begin(), all.end(), 0);
    if (last < 0) {
      for (Expression* each : {&low, &high}) *each = Expression(0) - *each;
      std::swap(low, high);
      for (Expression& step : steps) step = Expression(0) - step;
      for (Expression& at : x.at) at = 1 - at;
      std::reverse(x.at.begin(), x.at.end());
      std::reverse(all.begin(), all.end());
    }
    std::vector<Expression> at;
    std::vector<int64_t> kept{all[0]};
    for (size_t i = 0; i < x.at.size(); ++i) {
      if ((x.at[i] - high).range(graph_.dimensions).lower > 0) break;
      const bool starts = (x.at[i] - low).range(graph_.dimensions).upper <= 0;
      const bool same =
          number(x.values, static_cast<size_t>(all[i + 1])) == number(x.values, static_cast<size_t>(kept.back()));
      if (starts) at.clear(), kept = {all[i + 1]};
      if (starts || same) continue;
      at.push_back(x.at[i]);
      kept.push_back(all[i + 1]);
    }
    if (!at.empty() && last == 0) return std::nullopt;
    if (at.empty()) steps.assign(steps.size(), 0);
    return Steps{std::move(x.place), std::move(at), picked(x.values, kept)};
  }

 private:
  Found read_anew(ValueId id) {
    const Value& value = graph_.value(id);
    if (value.constant) return of(*value.constant);
    const Node* node = producer(graph_, id);
    if (node == nullptr) return std::nullopt;
    if (const auto* map = std::get_if<Map>(&node->operation)) {
      if (Found compared = comparison(map->step, node->inputs, value.dims)) return compared;
      std::vector<Steps> operands;
      for (const ValueId input : node->inputs) {
        const Found operand = read(input);
        if (!operand) return std::nullopt;
        operands.push_back(
            {expanded(operand->place, graph_.value(input).dims, value.dims), operand->at, operand->values});
      }
      return mapped(map->step, operands);
    }
    if (node->inputs.size() != 1) return std::nullopt;
    Found x = read(node->inputs[0]);
    if (!x) return std::nullopt;
    const auto place = viewed(graph_, id, x->place);
    if (!place) return std::nullopt;
    return Steps{*place, x->at, x->values};
  }

  // A constant that is the same along its diagonals, in few stripes.
  static Found of(const Literal& literal) {
    constexpr size_t most_stripes = 8;
    const size_t rank = literal.dims.size();
    const int64_t all = literal.count(), columns = rank == 0 ? 1 : literal.dims.back(),
                  rows = rank < 2 ? 1 : literal.dims[rank - 2];
    if (all == 0) return std::nullopt;
    Steps x{{0, std::vector<Expression>(rank, 0)}, {}, {}};
    if (rank > 0) x.place.steps[rank - 1] = 1;
    if (rank > 1) x.place.steps[rank - 2] = -1;
    std::vector<int64_t> seen(static_cast<size_t>(rows + columns - 1), -1);  // the first element at each distance
    for (int64_t i = 0; i < all; ++i) {
      int64_t& first = seen[static_cast<size_t>(i % columns - i / columns % rows + rows - 1)];
      if (first < 0) first = i;
      if (number(literal, static_cast<size_t>(i)) != number(literal, static_cast<size_t>(first))) return std::nullopt;
    }
    std::vector<int64_t> stripes;
    for (size_t i = 0; i < seen.size(); ++i) {
      const auto value = number(literal, static_cast<size_t>(seen[i]));
      if (!stripes.empty() && value == number(literal, static_cast<size_t>(stripes.back()))) continue;
      if (!stripes.empty()) x.at.push_back(static_cast<int64_t>(i) - rows + 1);
      stripes.push_back(seen[i]);
      if (stripes.size() > most_stripes) return std::nullopt;
    }
    x.values = picked(literal, stripes);
    return x;
  }

  // Where in `at` a threshold stands, or belongs; nothing where that differs with the sizes.
  std::optional<size_t> place_of(const std::vector<Expression>& at, const Expression& threshold, bool& there) const {
    for (size_t i = 0; i < at.size(); ++i) {
      const auto [lower, upper] = (threshold - at[i]).range(graph_.dimensions);
      there = lower == 0 && upper == 0;
      if (there || upper <= 0) return i;
      if (lower < 0) return std::nullopt;
    }
    return at.size();
  }

  // A map of functions of one distance, threshold by threshold.
  Found mapped(Step step, const std::vector<Steps>& operands) const {
    Steps result = operands[0];
    bool there = false;
    for (const Steps& operand : operands) {
      if (operand.at.empty()) continue;
      if (result.at.empty()) result = operand;
      if (!(operand.place.steps == result.place.steps)) return std::nullopt;
      for (const Expression& at : operand.at) {
        const auto place = place_of(result.at, at, there);
        if (!place) return std::nullopt;
        if (!there) result.at.insert(result.at.begin() + static_cast<std::ptrdiff_t>(*place), at);
      }
    }
    std::vector<Literal> values;
    std::vector<const Literal*> pointers;
    for (const Steps& operand : operands) {
      std::vector<int64_t> which(result.at.size() + 1, 0);
      for (const Expression& at : operand.at)
        for (size_t i = *place_of(result.at, at, there) + 1; i < which.size(); ++i) ++which[i];
      values.push_back(picked(operand.values, which));
    }
    for (const Literal& each : values) pointers.push_back(&each);
    result.values = run(Map{step}, pointers);
    return result;
  }

  // Comparisons by the sign of the difference, in integers, also where they are written as floats.
  Found comparison(Step step, const std::vector<ValueId>& inputs, const Dims& dims) {
    const Literal zero = Literal::of({1}, std::vector<int64_t>{0});
    switch (step) {
      case Step::i_less:
      case Step::i_less_equal:
      case Step::i_equal:
        break;
      case Step::f_less:
        step = Step::i_less;
        break;
      case Step::f_less_equal:
        step = Step::i_less_equal;
        break;
      case Step::f_equal:
        step = Step::i_equal;
        break;
      default:
        return std::nullopt;
    }
    Found sign = sign_of_difference(inputs[0], inputs[1], dims);
    if (sign) sign->values = run(Map{step}, {&sign->values, &zero});
    return sign;
  }

  // The sign of a - b; |x| is the larger of x and -x.
  Found sign_of_difference(ValueId a, ValueId b, const Dims& dims) {
    for (const bool swapped : {false, true}) {
      const auto* absolute = operands_of(graph_, swapped ? b : a, Step::i_abs);
      if (absolute == nullptr) continue;
      const auto x = whole((*absolute)[0], dims), y = whole(swapped ? a : b, dims);
      if (!x || !y) return std::nullopt;
      const Found up = sign_of(*y, *x, 1, swapped, dims), down = sign_of(*y, *x, -1, swapped, dims);
      return up && down ? mapped(swapped ? Step::i_min : Step::i_max, {*up, *down}) : std::nullopt;
    }
    const auto x = whole(a, dims), y = whole(b, dims);
    return x && y ? sign_of(*y, *x, 1, false, dims) : std::nullopt;
  }

  // Of times * x - y, or of y - times * x.
  Found sign_of(const Counting& y, const Counting& x, int64_t times, bool negated, const Dims& dims) const {
    const Counting none{0, std::vector<Expression>(dims.size(), 0)};
    const auto scaled_x = sum(graph_, none, x, negated ? -times : times);
    const auto difference = scaled_x ? sum(graph_, *scaled_x, y, negated ? 1 : -1) : std::nullopt;
    if (!difference) return std::nullopt;
    return settled({*difference, {0, 1}, Literal::of({3}, std::vector<int64_t>{-1, 0, 1})}, dims);
  }

  // Whole numbers that count, in the dims of a result.
  std::optional<Counting> whole(ValueId id, const Dims& dims) {
    constexpr int64_t exact = int64_t{1} << 24;  // floats beyond are rounded
    if (const auto c = uniform(graph_, id); c && *c == std::floor(*c) && std::abs(*c) < exact)
      return Counting{static_cast<int64_t>(*c), std::vector<Expression>(dims.size(), 0)};
    const auto* cast = operands_of(graph_, id, Step::i_to_f);
    const ValueId integers = cast == nullptr ? id : (*cast)[0];
    const auto x = counting(graph_, integers, known_);
    if (!x) return std::nullopt;
    const Dims& own = graph_.value(integers).dims;
    Expression low = x->start, high = x->start;
    for (size_t axis = 0; axis < own.size(); ++axis) {
      const Expression reach = x->steps[axis] * (own[axis] - 1);
      const auto range = reach.range(graph_.dimensions);
      if (range.lower < 0) low = low + reach;
      if (range.upper > 0) high = high + reach;
    }
    if (cast != nullptr &&
        (low.range(graph_.dimensions).lower <= -exact || high.range(graph_.dimensions).upper >= exact))
      return std::nullopt;
    return expanded(*x, own, dims);
  }

  const Graph& graph_;
  Known known_;
  std::map<ValueId, Found> read_;
};

}  // namespace

std::optional<ByDistance> by_distance(const Graph& graph, ValueId id, const Dims& scores) {
  if (!depends_on_dimensions_only(graph, id) || graph.value(id).dims.size() > scores.size()) return std::nullopt;
  DistanceReader reader(graph);
  auto found = reader.read(id);
  if (!found) return std::nullopt;
  found->place = expanded(found->place, graph.value(id).dims, scores);
  found = reader.settled(std::move(*found), scores);
  if (!found) return std::nullopt;
  if (!found->at.empty()) {
    Counting distance{0, std::vector<Expression>(scores.size(), 0)};
    distance.steps.back() = 1;
    if (!scores[scores.size() - 2].is_constant(1)) distance.steps[scores.size() - 2] = -1;
    if (!(found->place.steps == distance.steps)) return std::nullopt;
  }
  return ByDistance{std::move(found->at), std::move(found->values)};
}

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

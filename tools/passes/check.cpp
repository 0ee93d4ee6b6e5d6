#include "tools/passes/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <random>

#include "tools/error.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

using Sizes = std::map<std::string, int64_t>;

// A permitted value for every dimension, small but not 1 where that may be, or else anywhere; nothing where none was
// found. One dimension after another takes the nearest value that the constraints leave possible.
std::optional<Sizes> draw_sizes(const Graph& graph, bool small, std::mt19937& random) {
  int64_t budget = int64_t{1} << 16;
  auto ranges = graph.dimensions;
  const std::function<bool(std::map<std::string, Dimension>::iterator)> choose = [&](auto at) {
    if (at == ranges.end()) return true;
    Dimension& range = at->second;
    const Dimension whole = range;
    const int64_t least = std::clamp<int64_t>(2, whole.lower, whole.upper);
    const int64_t most = small ? std::min(whole.upper, least + 6) : whole.upper;
    const int64_t first = std::uniform_int_distribution<int64_t>(least, most)(random);
    const auto take = [&](int64_t value) {
      range.lower = range.upper = value;
      return std::all_of(graph.constraints.begin(), graph.constraints.end(),
                         [&](const Constraint& constraint) { return possible(constraint, ranges); }) &&
             choose(std::next(at));
    };
    for (int64_t value = first; value >= whole.lower && --budget >= 0; --value)
      if (take(value)) return true;
    for (int64_t value = first + 1; value <= whole.upper && --budget >= 0; ++value)
      if (take(value)) return true;
    range = whole;
    return false;
  };
  if (!choose(ranges.begin())) return std::nullopt;
  Sizes sizes;
  for (const auto& [name, range] : ranges) sizes[name] = range.lower;
  return sizes;
}

// Whether a boolean hides where it is true: the replacement negates it, or selects a large negative number by it.
bool hides(const Graph& graph, ValueId id, NodeId first_new) {
  for (const NodeId reader : graph.readers(id)) {
    if (reader < first_new) continue;
    const Node& node = graph.node(reader);
    if (std::holds_alternative<Reshape>(node.operation) && hides(graph, node.outputs[0], first_new)) return true;
    const auto* map = std::get_if<Map>(&node.operation);
    if (map == nullptr) continue;
    if (map->step == Step::b_not) return true;
    if (map->step == Step::f_select && node.inputs[0] == id && uniform(graph, node.inputs[1]).value_or(0) < 0)
      return true;
  }
  return false;
}

// `likely` is what a boolean mostly is: always at the start of a row, so that every row of a mask leaves something.
Literal draw(Type type, std::vector<int64_t> dims, bool uneven, bool likely, std::mt19937& random) {
  Literal shape;
  shape.dims = dims;
  const auto count = static_cast<size_t>(shape.count());
  if (type == Type::i32) {
    std::vector<int64_t> values(count);
    for (int64_t& value : values) value = std::uniform_int_distribution<int64_t>(0, 7)(random);
    return Literal::of(std::move(dims), std::move(values));
  }
  if (type == Type::boolean) {
    std::vector<uint8_t> values(count);
    const auto columns = static_cast<size_t>(dims.empty() ? 1 : std::max<int64_t>(dims.back(), 1));
    for (size_t i = 0; i < count; ++i)
      values[i] = (i % columns == 0 || std::bernoulli_distribution(0.7)(random)) == likely;
    return Literal::of_booleans(std::move(dims), std::move(values));
  }
  std::vector<float> values(count);
  const size_t row = dims.empty() ? 1 : static_cast<size_t>(std::max<int64_t>(dims.back(), 1));
  double scale = 1;
  for (size_t i = 0; i < count; ++i) {
    if (uneven && i % row == 0) scale = std::pow(10, std::uniform_real_distribution<double>(-2.5, 0.5)(random));
    values[i] = static_cast<float>(scale * std::normal_distribution<double>()(random));
  }
  return Literal::of(std::move(dims), std::move(values));
}

// Values of one trial, each computed or drawn once.
class Trial {
 public:
  Trial(const Graph& graph, Sizes sizes, bool uneven, NodeId first_new, std::mt19937& random)
      : graph_(graph), sizes_(std::move(sizes)), uneven_(uneven), first_new_(first_new), random_(random) {}

  const Literal& leaf(ValueId id) {
    const Value& value = graph_.value(id);
    if (value.constant || depends_on_dimensions_only(graph_, id)) return compute(id);
    const bool likely = value.type != Type::boolean || !hides(graph_, id, first_new_);
    return values_.emplace(id, draw(value.type, evaluate_dims(value.dims, sizes_), uneven_, likely, random_))
        .first->second;
  }

  const Literal& compute(ValueId id) {
    if (const auto found = values_.find(id); found != values_.end()) return found->second;
    const Value& value = graph_.value(id);
    if (value.constant) return *value.constant;
    if (value.producer < 0) return leaf(id);
    const Node& node = graph_.node(value.producer);
    std::vector<const Literal*> inputs;
    for (const ValueId input : node.inputs) inputs.push_back(input == no_value ? nullptr : &compute(input));
    std::vector<Literal> results = evaluate(node, inputs, sizes_);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] != no_value) values_.emplace(node.outputs[i], std::move(results[i]));
    return values_.at(id);
  }

  std::string sizes_text() const {
    std::string text;
    for (const auto& [name, size] : sizes_) text += fmt::format("{}{} = {}", text.empty() ? " at " : ", ", name, size);
    return text;
  }

 private:
  const Graph& graph_;
  const Sizes sizes_;
  const bool uneven_;
  const NodeId first_new_;
  std::mt19937& random_;
  std::map<ValueId, Literal> values_;
};

double number(const Literal& literal, size_t i) {
  if (literal.type == Type::f32) return literal.floats()[i];
  return literal.type == Type::i32 ? static_cast<double>(literal.integers()[i]) : literal.booleans()[i];
}

// The error, or what disagrees; nothing where too little was finite to tell.
std::optional<Check> compare(const Literal& before, const Literal& after, const std::string& sizes) {
  Check result;
  if (before.type != after.type || before.dims != after.dims) {
    result.problem = fmt::format("the shape is {} instead of {}", text(after.dims), text(before.dims));
    return result;
  }
  const auto count = static_cast<size_t>(before.count());
  size_t compared = 0;
  double magnitude = 0, worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const double expected = number(before, i), found = number(after, i);
    if (std::isnan(expected)) continue;
    ++compared;
    if (expected == found) {
      if (std::isfinite(expected)) magnitude = std::max(magnitude, std::abs(expected));
      continue;
    }
    if (!std::isfinite(expected) || !std::isfinite(found)) {
      result.problem = fmt::format("element {} is {} instead of {}{}", i, found, expected, sizes);
      result.error = INFINITY;
      return result;
    }
    magnitude = std::max(magnitude, std::abs(expected));
    if (std::abs(expected - found) > worst) worst = std::abs(expected - found), at = i;
  }
  if (compared * 4 < count) return std::nullopt;
  result.error = worst == 0 ? 0 : worst / magnitude;
  result.same = result.error <= fusion_tolerance;
  if (!result.same)
    result.problem =
        fmt::format("element {} is {:.7g} instead of {:.7g}, an error of {:.2g} of the largest value, above {:.0e}{}",
                    at, number(after, at), number(before, at), result.error, fusion_tolerance, sizes);
  return result;
}

}  // namespace

Check check_fusion(const Graph& graph, const Replacements& replacements, NodeId first_new) {
  const std::vector<ValueId> leaves = built_on(graph, replacements, first_new);
  // A view of another leaf has that one's elements: drawn by itself, it would have others.
  std::vector<ValueId> drawn;
  for (const ValueId leaf : leaves) {
    ValueId id = leaf;
    bool own = true;
    while (own && is_view(graph, id)) {
      id = producer(graph, id)->inputs[0];
      own = std::find(leaves.begin(), leaves.end(), id) == leaves.end();
    }
    if (own) drawn.push_back(leaf);
  }
  std::mt19937 random(20170612);
  Check worst;
  worst.same = true;
  for (int trial = 0; trial < 2; ++trial) {
    std::optional<Check> result;
    std::string problem = "no permitted sizes of the dimensions were found";
    for (int attempt = 0; attempt < 8 && !result; ++attempt) {
      const auto sizes = draw_sizes(graph, attempt < 4, random);
      if (!sizes) return {false, false, 0, problem};
      try {
        Trial run(graph, *sizes, trial == 1, first_new, random);
        for (const ValueId leaf : drawn) run.leaf(leaf);
        for (const auto& [before, after] : replacements) {
          const auto next = compare(run.compute(before), run.compute(after), run.sizes_text());
          if (!next || !next->same || !result || next->error > result->error) result = next;
          if (!next || !next->same) break;
        }
        problem = "nearly everything is NaN on random data";
      } catch (const Error& error) {  // sizes that some slice does not permit
        problem = error.what();
      }
    }
    if (!result) return {false, true, 0, problem};
    if (!result->same) return *result;
    worst.error = std::max(worst.error, result->error);
  }
  return worst;
}

}  // namespace heed::tools

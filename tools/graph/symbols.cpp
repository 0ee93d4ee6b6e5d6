/// Shape arithmetic: follows the elements of small integer tensors as expressions over the dimensions.
#include <algorithm>
#include <numeric>

#include "tools/graph/graph.h"

namespace heed::tools {
namespace {

using Elements = std::vector<Expression>;
constexpr int64_t most_elements = 64;

// Elements of an operand: symbols, or a small constant of booleans.
std::optional<Elements> elements_of(const Value& value) {
  if (value.symbols) return value.symbols;
  if (!value.constant || value.constant->type != Type::boolean || value.constant->count() > most_elements)
    return std::nullopt;
  const auto booleans = value.constant->booleans();
  return Elements(booleans.begin(), booleans.end());
}

Literal numbered(const std::vector<int64_t>& dims, int64_t first) {
  Literal shape;
  shape.dims = dims;
  std::vector<int64_t> values(static_cast<size_t>(shape.count()));
  std::iota(values.begin(), values.end(), first);
  return Literal::of(dims, std::move(values));
}

class Arithmetic {
 public:
  explicit Arithmetic(const std::map<std::string, Dimension>& dimensions) : dimensions_(dimensions) {}

  /// One step on one element; nothing where the result is no expression or the ranges leave it open.
  std::optional<Expression> apply(Step step, const Expression& a, const Expression& b, const Expression& c) const {
    switch (step) {
      case Step::i_add:
        return a + b;
      case Step::i_sub:
        return a - b;
      case Step::i_mul:
        return a * b;
      case Step::i_neg:
        return Expression(0) - a;
      case Step::i_div:
      case Step::i_fmod: {
        if (range(b).lower <= 0 || range(a).lower < 0) return std::nullopt;  // they round toward zero
        return simple(step == Step::i_div ? Expression::divide(a, b) : Expression::modulo(a, b));
      }
      case Step::i_mod:
        return range(b).lower > 0 ? std::optional(simple(Expression::modulo(a, b))) : std::nullopt;
      case Step::i_min:
        return simple(Expression::minimum(a, b));
      case Step::i_max:
        return simple(Expression::maximum(a, b));
      case Step::i_abs:
        if (range(a).lower >= 0) return a;
        return range(a).upper <= 0 ? std::optional(Expression(0) - a) : std::nullopt;
      case Step::i_sign:
        if (range(a).lower > 0) return 1;
        return range(a).upper < 0 ? std::optional<Expression>(-1) : std::nullopt;
      case Step::i_equal: {
        const auto [lower, upper] = range(a - b);
        if (lower > 0 || upper < 0) return 0;
        return lower == 0 && upper == 0 ? std::optional<Expression>(1) : std::nullopt;
      }
      case Step::i_less:
        return decided(range(a - b), 0);
      case Step::i_less_equal:
        return decided(range(a - b), 1);
      case Step::i_to_b: {
        const auto [lower, upper] = range(a);
        if (lower > 0 || upper < 0) return 1;
        return lower == 0 && upper == 0 ? std::optional<Expression>(0) : std::nullopt;
      }
      case Step::i_select:
      case Step::b_select:
        return a.is_constant(0) ? c : b;
      case Step::b_to_i:
        return a;
      default:
        return std::nullopt;
    }
  }

 private:
  Expression::Range range(const Expression& e) const { return e.range(dimensions_); }
  Expression simple(const Expression& e) const { return e.simplify(dimensions_); }

  // difference < limit for all of its values, or for none.
  static std::optional<Expression> decided(Expression::Range difference, int64_t limit) {
    if (difference.upper < limit) return 1;
    return difference.lower >= limit ? std::optional<Expression>(0) : std::nullopt;
  }

  const std::map<std::string, Dimension>& dimensions_;
};

}  // namespace

std::optional<std::vector<Expression>> infer_symbols(const Graph& graph, const Node& node, const Inferred& output) {
  const auto dims = constant_dims(output.dims);
  if (output.type == Type::f32 || !dims) return std::nullopt;
  if (const auto* size = std::get_if<Size>(&node.operation)) return Elements{size->value};
  Literal result;
  result.dims = *dims;
  if (result.count() > most_elements) return std::nullopt;

  std::vector<Elements> operands;
  Elements all;                  // of every operand, one after another
  std::vector<Literal> numbers;  // each operand with the number of its elements in `all` in their places
  for (const ValueId id : node.inputs) {
    if (id == no_value) return std::nullopt;
    auto elements = elements_of(graph.value(id));
    if (!elements) return std::nullopt;
    numbers.push_back(numbered(*constant_dims(graph.value(id).dims), static_cast<int64_t>(all.size())));
    all.insert(all.end(), elements->begin(), elements->end());
    operands.push_back(std::move(*elements));
  }
  const auto moved = [&](const Operation& operation, const std::vector<const Literal*>& inputs) {
    return evaluate(Node{operation, {}, {}, {}, {}, {}, false}, inputs, {})[0];
  };

  if (const auto* map = std::get_if<Map>(&node.operation)) {
    std::vector<Literal> wide;
    for (const Literal& operand : numbers) wide.push_back(moved(Expand{output.dims}, {&operand}));
    Elements symbols;
    for (size_t i = 0; i < static_cast<size_t>(result.count()); ++i) {
      const auto element = [&](size_t operand) {
        return operand < wide.size() ? all[static_cast<size_t>(wide[operand].integers()[i])] : Expression();
      };
      const auto symbol = Arithmetic(graph.dimensions).apply(map->step, element(0), element(1), element(2));
      if (!symbol) return std::nullopt;
      symbols.push_back(*symbol);
    }
    return symbols;
  }

  if (const auto* reduce = std::get_if<Reduce>(&node.operation)) {
    const bool sum = reduce->kind == Reduction::sum, product = reduce->kind == Reduction::product;
    const bool maximum = reduce->kind == Reduction::max;
    if ((!sum && !product && !maximum && reduce->kind != Reduction::min) || all.empty()) return std::nullopt;
    // Where each result's elements lie: the operand with the reduced axes moved to the end.
    std::vector<int> order;
    for (int axis = 0; axis < static_cast<int>(numbers[0].dims.size()); ++axis)
      if (std::find(reduce->axes.begin(), reduce->axes.end(), axis) == reduce->axes.end()) order.push_back(axis);
    order.insert(order.end(), reduce->axes.begin(), reduce->axes.end());
    const Literal sorted = moved(Transpose{order}, {&numbers[0]});
    const size_t results = static_cast<size_t>(result.count()), each = results == 0 ? 0 : all.size() / results;
    Elements symbols;
    for (size_t i = 0; i < results; ++i) {
      Expression total = all[static_cast<size_t>(sorted.integers()[i * each])];
      for (size_t j = 1; j < each; ++j) {
        const Expression& next = all[static_cast<size_t>(sorted.integers()[i * each + j])];
        total = sum       ? total + next
                : product ? total * next
                : maximum ? Expression::maximum(total, next)
                          : Expression::minimum(total, next);
      }
      symbols.push_back(total);
    }
    return symbols;
  }

  // What only moves elements is run on their numbers.
  std::vector<const Literal*> inputs;
  for (const Literal& operand : numbers) inputs.push_back(&operand);
  Operation operation = node.operation;
  Expression filling;
  if (std::holds_alternative<Gather>(operation)) {
    if (!graph.value(node.inputs[1]).constant) return std::nullopt;
    inputs[1] = &*graph.value(node.inputs[1]).constant;
  } else if (auto* pad = std::get_if<Pad>(&operation)) {
    filling = static_cast<int64_t>(pad->value);
    pad->value = -1;
  } else if (!std::holds_alternative<Reshape>(operation) && !std::holds_alternative<Transpose>(operation) &&
             !std::holds_alternative<Slice>(operation) && !std::holds_alternative<Expand>(operation) &&
             !std::holds_alternative<Concat>(operation)) {
    return std::nullopt;
  }
  bool constant = true;
  for_each_expression(operation, [&](Expression& e) { constant = constant && e.constant(); });
  if (!constant) return std::nullopt;
  const Literal places = moved(operation, inputs);
  Elements symbols;
  for (const int64_t place : places.integers())
    symbols.push_back(place < 0 ? filling : all[static_cast<size_t>(place)]);
  return symbols;
}

}  // namespace heed::tools

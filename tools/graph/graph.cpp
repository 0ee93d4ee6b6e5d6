#include "tools/graph/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "tools/error.h"

namespace heed::tools {
namespace {

constexpr int64_t largest_symbolic = 64;               // elements of a tensor that counts as shape arithmetic
constexpr int64_t largest_fold = int64_t{1} << 26;     // elements; a larger constant is computed on the device
constexpr int64_t largest_repeat = 1024;               // a constant that only repeats another is stored up to here
constexpr int64_t largest_product = int64_t{1} << 30;  // multiply-accumulates
// All that is folded together: a small file must not ask for more memory than there is.
constexpr int64_t most_folded = int64_t{1} << 26, most_folded_of_given = 16;

int64_t product(const std::vector<int64_t>& dims) {
  int64_t count = 1;
  for (const int64_t dim : dims)
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count))
      throw Error(Fault::model, fmt::format("a tensor has impossible dimensions {}", text(dims)));
  return count;
}

template <class T>
Literal literal(Type type, std::vector<int64_t> dims, std::vector<T> values) {
  if (product(dims) != static_cast<int64_t>(values.size()))
    throw Error(Fault::model, fmt::format("a constant of shape {} has {} elements", text(dims), values.size()));
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  const auto* data = reinterpret_cast<const std::byte*>(owner->data());
  return {type, std::move(dims), std::move(owner), data};
}

// Symbols of a constant, where it is small.
std::optional<std::vector<Expression>> symbols_of(const Literal& literal) {
  if (literal.type != Type::i32 || literal.count() > largest_symbolic) return std::nullopt;
  const auto integers = literal.integers();
  return std::vector<Expression>(integers.begin(), integers.end());
}

// The constant that symbols without dimensions are.
std::optional<Literal> constant_of(const std::vector<int64_t>& dims, const std::vector<Expression>& symbols) {
  std::vector<int64_t> values;
  for (const Expression& symbol : symbols) {
    const auto value = symbol.constant();
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return Literal::of(dims, std::move(values));
}

bool is_zero(const std::vector<Expression>& all) {
  return std::all_of(all.begin(), all.end(), [](const Expression& e) { return e.is_constant(0); });
}

// True where the operation gives its first operand back.
bool changes_nothing(const Node& node, const Value& x, const Dims& dims) {
  const bool same_dims = x.dims == dims;
  return std::visit(
      Overloaded{[&](const Reshape&) { return same_dims; }, [&](const Expand&) { return same_dims; },
                 [](const Transpose& op) { return std::is_sorted(op.permutation.begin(), op.permutation.end()); },
                 [&](const Slice& op) {
                   return same_dims && is_zero(op.starts) &&
                          std::all_of(op.steps.begin(), op.steps.end(), [](int64_t step) { return step == 1; });
                 },
                 [](const Pad& op) { return is_zero(op.before) && is_zero(op.after); },
                 [&](const Concat&) { return node.inputs.size() == 1; },
                 [](const Reduce& op) { return op.axes.empty() && op.kind != Reduction::sum_square; },
                 [](const auto&) { return false; }},
      node.operation);
}

// What a constant's elements are multiples of, where it is a transpose, reshape or product of one that knows.
std::shared_ptr<const Literal> scale_of(const Node& node, const std::vector<const Literal*>& operands,
                                        const Literal& result) {
  const Literal* from = operands.empty() ? nullptr : operands[0]->scale.get();
  if (from == nullptr) return nullptr;
  const auto computed = [&](const Operation& operation, std::vector<const Literal*> inputs) {
    Node of_scale = node;
    of_scale.operation = operation;
    return std::make_shared<const Literal>(evaluate(of_scale, inputs, {})[0]);
  };
  if (std::holds_alternative<Transpose>(node.operation))
    return from->count() == 1 ? operands[0]->scale : computed(node.operation, {from});
  if (std::holds_alternative<Reshape>(node.operation)) {
    if (from->count() == 1) return operands[0]->scale;
    if (from->dims.back() != from->count() || result.dims.empty() || result.dims.back() != from->count())
      return nullptr;
    Dims dims(result.dims.size(), 1);
    dims.back() = from->count();
    return computed(Reshape{dims}, {from});
  }
  const auto* map = std::get_if<Map>(&node.operation);
  if (map == nullptr || map->step != Step::f_mul || operands[1]->count() != 1) return nullptr;
  return computed(node.operation, {from, operands[1]});
}

bool only_repeats(const Operation& operation) {
  return std::holds_alternative<Expand>(operation) || std::holds_alternative<Pad>(operation) ||
         std::holds_alternative<Gather>(operation);
}

}  // namespace

// --- Literal ---------------------------------------------------------------------------------------------------------

int64_t Literal::count() const {
  return product(dims);
}
std::span<const float> Literal::floats() const {
  return {reinterpret_cast<const float*>(data), static_cast<size_t>(count())};
}
std::span<const int64_t> Literal::integers() const {
  return {reinterpret_cast<const int64_t*>(data), static_cast<size_t>(count())};
}
std::span<const uint8_t> Literal::booleans() const {
  return {reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(count())};
}
std::span<const int8_t> Literal::bytes() const {
  return {reinterpret_cast<const int8_t*>(data), static_cast<size_t>(count())};
}
Literal Literal::of(std::vector<int64_t> dims, std::vector<float> values) {
  return literal(Type::f32, std::move(dims), std::move(values));
}
Literal Literal::of(std::vector<int64_t> dims, std::vector<int64_t> values) {
  return literal(Type::i32, std::move(dims), std::move(values));
}
Literal Literal::of_booleans(std::vector<int64_t> dims, std::vector<uint8_t> values) {
  return literal(Type::boolean, std::move(dims), std::move(values));
}
Literal Literal::of(std::vector<int64_t> dims, std::vector<int8_t> values) {
  return literal(Type::i8, std::move(dims), std::move(values));
}

// --- Values ----------------------------------------------------------------------------------------------------------

ValueId Graph::append(Value value) {
  values_.push_back(std::move(value));
  readers_.emplace_back();
  return static_cast<ValueId>(values_.size()) - 1;
}

ValueId Graph::input(std::string name, Type type, Dims dims) {
  for (Expression& dim : dims) dim = current(std::move(dim));
  Value value;
  value.name = std::move(name);
  value.type = type;
  value.dims = std::move(dims);
  value.data = true;
  return append(std::move(value));
}

ValueId Graph::constant(std::string name, Literal literal) {
  Value value;
  value.name = std::move(name);
  value.type = literal.type;
  value.dims = Dims(literal.dims.begin(), literal.dims.end());
  value.symbols = symbols_of(literal);
  given_ += literal.count();
  value.constant = std::move(literal);
  return append(std::move(value));
}

// --- Nodes -----------------------------------------------------------------------------------------------------------

std::optional<ValueId> Graph::simplified(const Node& node, const std::vector<Inferred>& outputs) {
  if (outputs.size() != 1) return std::nullopt;
  const Inferred& output = outputs[0];
  if (!node.inputs.empty() && changes_nothing(node, value(node.inputs[0]), output.dims)) return node.inputs[0];

  std::vector<const Literal*> operands;
  int64_t largest_operand = 0;
  bool foldable = true;
  for (const ValueId id : node.inputs) {
    operands.push_back(nullptr);
    if (id == no_value) continue;
    foldable = foldable && value(id).constant;
    if (!foldable) break;
    operands.back() = &*value(id).constant;
    largest_operand = std::max(largest_operand, operands.back()->count());
  }
  Operation operation = node.operation;
  for_each_expression(operation, [&](const Expression& e) { foldable = foldable && e.constant(); });
  const auto dims = constant_dims(output.dims);
  if (foldable && dims) {
    const int64_t count = product(*dims);
    const bool repeats = only_repeats(node.operation) && count > std::max(largest_operand, largest_repeat);
    const bool long_product = std::holds_alternative<Matmul>(node.operation) &&
                              count > largest_product / std::max<int64_t>(operands[0]->dims.back(), 1);
    if (std::holds_alternative<Conv>(node.operation) || std::holds_alternative<Pool>(node.operation))
      return std::nullopt;  // the device computes those fast enough
    if (count > largest_fold || folded_ + count > most_folded + most_folded_of_given * given_ || repeats ||
        long_product)
      return std::nullopt;
    folded_ += count;
    given_ -= count;  // constant() counts it
    Literal result = evaluate(node, operands, {})[0];
    result.scale = scale_of(node, operands, result);
    return constant(node.name, std::move(result));
  }
  return std::nullopt;
}

// Shape arithmetic that came to constants, or to one size.
std::optional<ValueId> Graph::from_symbols(const Node& node, const Inferred& output,
                                           const std::vector<Expression>& symbols) {
  const std::vector<int64_t> dims = *constant_dims(output.dims);
  if (output.type == Type::boolean) {
    std::vector<uint8_t> booleans;
    for (const Expression& symbol : symbols) booleans.push_back(symbol.is_constant(1));
    return constant(node.name, Literal::of_booleans(dims, std::move(booleans)));
  }
  if (auto literal = constant_of(dims, symbols)) return constant(node.name, std::move(*literal));
  const bool restated = std::holds_alternative<Reshape>(node.operation);
  if (symbols.size() != 1 || restated) return std::nullopt;
  return add_value(Reshape{output.dims}, {add_value(Size{symbols[0]}, {}, node.name)}, node.name);
}

NodeId Graph::add(Operation operation, std::vector<ValueId> inputs, std::string name,
                  std::vector<std::string> absorbed) {
  for_each_expression(operation, [&](Expression& e) { e = current(std::move(e)); });
  if (absorbed.empty() && !name.empty()) absorbed.push_back(name);
  // The node stands in the graph while its shapes are inferred: a dimension that takes another's place then does so in
  // it too.
  nodes_.push_back({std::move(operation), std::move(name), std::move(absorbed), std::move(inputs), {}, {}, false});
  const auto id = static_cast<NodeId>(nodes_.size()) - 1;
  std::vector<Inferred> outputs;
  std::optional<ValueId> result;
  std::optional<std::vector<Expression>> symbols;
  try {
    outputs = infer(*this, nodes_.back());
    for (Inferred& output : outputs)
      for (Expression& dim : output.dims) dim = current(std::move(dim));
    if (auto* expand = std::get_if<Expand>(&nodes_.back().operation)) expand->dims = outputs[0].dims;
    const Node copy = nodes_.back();  // simplified() may add nodes
    result = simplified(copy, outputs);
    if (!result && outputs.size() == 1) symbols = infer_symbols(*this, copy, outputs[0]);
    if (symbols && !std::holds_alternative<Size>(copy.operation)) result = from_symbols(copy, outputs[0], *symbols);
  } catch (...) {
    nodes_.resize(static_cast<size_t>(id));
    throw;
  }
  Node& node = nodes_[static_cast<size_t>(id)];
  if (result) {
    node.dead = true;
    node.outputs = {*result};
    return id;
  }
  for (const ValueId input : node.inputs)
    if (input != no_value) readers_[static_cast<size_t>(input)].push_back(id);
  for (size_t i = 0; i < outputs.size(); ++i) {
    Value value;
    value.data = depends_on_data(node);
    value.name = outputs.size() == 1 ? node.name : fmt::format("{}/{}", node.name, i);
    value.type = outputs[i].type;
    value.dims = std::move(outputs[i].dims);
    value.producer = id;
    value.symbols = symbols;
    node.outputs.push_back(append(std::move(value)));
  }
  return id;
}

ValueId Graph::add_value(Operation operation, std::vector<ValueId> inputs, std::string name,
                         std::vector<std::string> absorbed) {
  return node(add(std::move(operation), std::move(inputs), std::move(name), std::move(absorbed))).outputs[0];
}

bool Graph::depends_on_data(const Node& node) const {
  return std::any_of(node.inputs.begin(), node.inputs.end(),
                     [&](ValueId input) { return input != no_value && value(input).data; });
}

void Graph::renew_data(std::vector<ValueId> changed) {
  while (!changed.empty()) {
    const std::vector<NodeId> readers = readers_[static_cast<size_t>(changed.back())];
    changed.pop_back();
    for (const NodeId id : readers)
      for (const ValueId output : node(id).outputs)
        if (output != no_value && value(output).producer == id && !value(output).constant &&
            value(output).data != depends_on_data(node(id))) {
          value(output).data = !value(output).data;
          changed.push_back(output);
        }
  }
}

void Graph::replace(ValueId old_value, ValueId new_value) {
  if (old_value == new_value) return;
  std::vector<NodeId>& readers = readers_[static_cast<size_t>(new_value)];
  for (const NodeId id : std::exchange(readers_[static_cast<size_t>(old_value)], {})) {
    std::replace(node(id).inputs.begin(), node(id).inputs.end(), old_value, new_value);
    readers.push_back(id);
  }
  for (Border& border : outputs)
    if (border.value == old_value) border.value = new_value;
  if (value(old_value).data != value(new_value).data) renew_data({new_value});
}

std::vector<NodeId> Graph::order() {
  enum class State : uint8_t { unseen, open, done };
  std::vector<State> states(nodes_.size(), State::unseen);
  std::vector<NodeId> sorted;
  struct Visit {
    NodeId id;
    size_t next;
  };
  for (const Border& border : outputs) {
    std::vector<Visit> stack;
    const auto enter = [&](ValueId value_id) {
      if (value_id == no_value) return;
      const NodeId id = value(value_id).producer;
      if (id < 0 || states[static_cast<size_t>(id)] == State::done) return;
      if (states[static_cast<size_t>(id)] == State::open)
        throw Error(Fault::model, fmt::format("the node '{}' depends on its own result", node(id).name));
      states[static_cast<size_t>(id)] = State::open;
      stack.push_back({id, 0});
    };
    enter(border.value);
    while (!stack.empty()) {
      auto& [id, next] = stack.back();
      const Node& current_node = node(id);
      if (next < current_node.inputs.size()) {
        enter(current_node.inputs[next++]);
      } else {
        states[static_cast<size_t>(id)] = State::done;
        sorted.push_back(id);
        stack.pop_back();
      }
    }
  }
  for (size_t i = 0; i < nodes_.size(); ++i) nodes_[i].dead = states[i] != State::done;
  return sorted;
}

void Graph::drop(std::span<const NodeId> operands_first) {
  for (size_t i = operands_first.size(); i-- > 0;) {
    Node& each = node(operands_first[i]);
    each.dead = each.dead || std::all_of(each.outputs.begin(), each.outputs.end(),
                                         [&](ValueId output) { return output == no_value || readers(output).empty(); });
  }
}

std::vector<NodeId> Graph::readers(ValueId id) const {
  std::vector<NodeId> all;
  for (const NodeId reader : readers_[static_cast<size_t>(id)]) {
    const std::vector<ValueId>& inputs = node(reader).inputs;
    if (!node(reader).dead && std::find(inputs.begin(), inputs.end(), id) != inputs.end()) all.push_back(reader);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  for (const Border& border : outputs)
    if (border.value == id) all.push_back(-1);
  return all;
}

// --- Dimensions ------------------------------------------------------------------------------------------------------

Expression Graph::current(Expression expression) const {
  for (const auto& [name, value] : substitutions_) expression = expression.substitute(name, value);
  return expression;
}

std::map<std::string, Expression> Graph::replaced() const {
  std::map<std::string, Expression> all;
  for (const auto& [name, value] : substitutions_) all[name] = current(value);
  return all;
}

void Graph::substitute(const std::string& name, const Expression& value) {
  substitutions_.emplace_back(name, value);
  dimensions.erase(name);
  renew([&](Expression& e) { e = e.substitute(name, value); });
}

void Graph::renew(const std::function<void(Expression&)>& renew) {
  std::vector<ValueId> no_data;
  for (size_t i = 0; i < values_.size(); ++i) {
    Value& each = values_[i];
    std::for_each(each.dims.begin(), each.dims.end(), renew);
    if (!each.symbols || each.constant) continue;
    std::for_each(each.symbols->begin(), each.symbols->end(), renew);
    each.constant = constant_of(*constant_dims(each.dims), *each.symbols);
    if (each.constant && std::exchange(each.data, false)) no_data.push_back(static_cast<ValueId>(i));
  }
  renew_data(std::move(no_data));
  for (Node& each : nodes_) for_each_expression(each.operation, renew);
  if (position) renew(position->step);
  std::vector<Constraint> kept;
  for (Constraint& constraint : constraints) {
    renew(constraint.left);
    renew(constraint.right);
    const auto left = constraint.left.constant(), right = constraint.right.constant();
    const bool equal = constraint.relation == Constraint::Relation::equal;
    if (left && right && (equal ? *left != *right : *left > *right))
      throw Error(Fault::model,
                  fmt::format("the sizes cannot be chosen so that {} {} {}", *left, equal ? "=" : "<=", *right));
    if (!(constraint.left == constraint.right) && !(left && right)) kept.push_back(std::move(constraint));
  }
  constraints = std::move(kept);
}

bool Graph::bound(const Expression& a, const Expression& b, const std::string& where) {
  std::vector<std::string> names;
  a.collect(names);
  b.collect(names);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() != 1 || (position && position->name == names[0])) return false;
  Dimension& dimension = dimensions.at(names[0]);
  const auto same_up_to = [&](int64_t upper) {
    const std::map<std::string, Dimension> bounded{{names[0], {names[0], dimension.lower, upper}}};
    return a.simplify(bounded) == b.simplify(bounded);
  };
  int64_t holds = dimension.lower + 1, fails = dimension.upper;
  if (holds >= fails || !same_up_to(holds)) return false;
  while (fails - holds > 1) {
    const int64_t middle = holds + (fails - holds) / 2;
    (same_up_to(middle) ? holds : fails) = middle;
  }
  dimension.upper = holds;
  notes.push_back(fmt::format("{}: '{}' is {} at most", where, names[0], holds));
  renew([&](Expression& e) { e = e.simplify(dimensions); });
  return true;
}

void Graph::unify(const Expression& first, const Expression& second, const std::string& where) {
  const Expression a = current(first), b = current(second);
  if (a == b || a.simplify(dimensions) == b.simplify(dimensions)) return;
  const auto disagree = [&] {
    return Error(Fault::model, fmt::format("{}: the sizes {} and {} differ", where, a.text(), b.text()));
  };
  const auto possible = (a - b).range(dimensions);
  if (possible.lower > 0 || possible.upper < 0) throw disagree();
  if (bound(a, b, where)) return;
  const Expression shared = Expression::common_divisor(a, b);
  if (!shared.is_constant(1) && shared.range(dimensions).lower > 0)
    return unify(Expression::divide(a, shared), Expression::divide(b, shared), where);

  // A dimension that is nothing but a name takes the other's place: a number or a longer expression stays, of two names
  // the first.
  const auto name_of = [&](const Expression& e) -> std::optional<std::string> {
    std::vector<std::string> names;
    e.collect(names);
    if (names.size() == 1 && e == Expression::dimension(names[0])) return names[0];
    return std::nullopt;
  };
  const auto named_a = name_of(a), named_b = name_of(b);
  const auto depends = [](const Expression& e, const std::string& name) {
    std::vector<std::string> names;
    e.collect(names);
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto stays = [&](const std::string& name) { return position && position->name == name; };
  const bool take_b = named_b && !depends(a, *named_b) && !stays(*named_b);
  const bool take_a = !take_b && named_a && !depends(b, *named_a) && !stays(*named_a);
  if (!take_a && !take_b) {
    // What both have leaves: of past + t and other + t, past and other are one.
    const Expression difference = a - b;
    Expression left, right;
    for (const Expression::Term& term : difference.terms())
      (term.coefficient > 0 ? left : right) =
          (term.coefficient > 0 ? left : right) + Expression::of(term.factors, std::abs(term.coefficient));
    if ((name_of(left) || name_of(right)) && !(left == a && right == b) && !(left == b && right == a))
      return unify(left, right, where);
    const auto is_known = [&](const Constraint& c) {
      return c.relation == Constraint::Relation::equal && c.left == a && c.right == b;
    };
    if (std::any_of(constraints.begin(), constraints.end(), is_known)) return;
    constraints.push_back({Constraint::Relation::equal, a, b});
    notes.push_back(fmt::format("{}: {} and {} must be equal", where, a.text(), b.text()));
    return;
  }
  const std::string gone = take_b ? *named_b : *named_a;
  const Expression& kept = take_b ? a : b;
  const Dimension old = dimensions.at(gone);
  const auto kept_name = take_b ? named_a : named_b;
  if (kept_name) {
    Dimension& dimension = dimensions.at(*kept_name);
    dimension.lower = std::max(dimension.lower, old.lower);
    dimension.upper = std::min(dimension.upper, old.upper);
    if (dimension.lower > dimension.upper) throw disagree();
    notes.push_back(fmt::format("{}: '{}' and '{}' are one dimension, '{}'", where, *kept_name, gone, *kept_name));
  } else {
    notes.push_back(fmt::format("{}: the dimension '{}' is {}", where, gone, kept.text()));
  }
  substitute(gone, kept);
  if (!kept_name && !kept.constant()) {
    const auto range = kept.range(dimensions);
    if (range.upper > old.upper) constraints.push_back({Constraint::Relation::less_equal, kept, old.upper});
    if (range.lower < old.lower) constraints.push_back({Constraint::Relation::less_equal, old.lower, kept});
  }
}

bool possible(const Constraint& constraint, const std::map<std::string, Dimension>& dimensions) {
  const Expression::Range left = constraint.left.range(dimensions), right = constraint.right.range(dimensions);
  if (left.lower > right.upper) return false;
  return constraint.relation == Constraint::Relation::less_equal || right.lower <= left.upper;
}

// --- Small helpers ---------------------------------------------------------------------------------------------------

void for_each_expression(Operation& operation, const std::function<void(Expression&)>& visit) {
  const auto all = [&](std::vector<Expression>& list) { std::for_each(list.begin(), list.end(), visit); };
  std::visit(Overloaded{[&](Iota& op) { all(op.dims); }, [&](Size& op) { visit(op.value); },
                        [&](Reshape& op) { all(op.dims); }, [&](Expand& op) { all(op.dims); },
                        [&](Slice& op) { all(op.starts), all(op.dims); },
                        [&](Pad& op) { all(op.before), all(op.after); }, [&](Attention& op) { visit(op.offset); },
                        [&](Elementwise& op) {
                          all(op.dims);
                          for (auto& source : op.sources) visit(source.value);
                        },
                        [](auto&) {}},
             operation);
}

const char* name(const Operation& operation) {
  static constexpr const char* names[] = {"map",
                                          "iota",
                                          "size",
                                          "reshape",
                                          "transpose",
                                          "slice",
                                          "expand",
                                          "concat",
                                          "pad",
                                          "gather",
                                          "matmul",
                                          "softmax",
                                          "reduce",
                                          "attention",
                                          "normalize",
                                          "recurrent",
                                          "conv",
                                          "pool",
                                          "rope",
                                          "quantize",
                                          "quantize_linear",
                                          "dequantize_linear",
                                          "matmul_i8",
                                          "conv_i8",
                                          "recurrent_i8",
                                          "elementwise"};
  static_assert(std::size(names) == std::variant_size_v<Operation>);
  if (const auto* map = std::get_if<Map>(&operation)) return info(map->step).name;
  return names[operation.index()];
}

std::string text(const Dims& dims) {
  std::string joined;
  for (const Expression& dim : dims) joined += (joined.empty() ? "" : ", ") + dim.text();
  return "[" + joined + "]";
}

std::string text(const std::vector<int64_t>& dims) {
  return text(Dims(dims.begin(), dims.end()));
}

Expression count(const Dims& dims) {
  Expression count = 1;
  for (const Expression& dim : dims) count = count * dim;
  return count;
}

std::optional<std::vector<int64_t>> constant_dims(const Dims& dims) {
  std::vector<int64_t> result;
  for (const Expression& dim : dims) {
    const auto value = dim.constant();
    if (!value) return std::nullopt;
    result.push_back(*value);
  }
  return result;
}

std::vector<int64_t> evaluate_dims(const Dims& dims, const std::map<std::string, int64_t>& dimensions) {
  std::vector<int64_t> result;
  for (const Expression& dim : dims) result.push_back(dim.evaluate(dimensions));
  return result;
}

const StepInfo& info(Step step) {
  constexpr Type f = Type::f32, i = Type::i32, b = Type::boolean;
  static constexpr StepInfo table[] = {
#define HEED_STEP(name, operands, from, to) {#name, operands, from, to},
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
  };
  return table[static_cast<size_t>(step)];
}

Type operand_type(Step step, int operand) {
  const bool select = step == Step::f_select || step == Step::i_select || step == Step::b_select;
  return select && operand == 0 ? Type::boolean : info(step).from;
}

}  // namespace heed::tools

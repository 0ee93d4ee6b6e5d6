#include "tools/onnx/lowering.h"

#include <algorithm>
#include <cmath>

#include "tools/error.h"

namespace heed::tools {

using onnx::Attribute;
using onnx::DataType;

Lowering::Lowering(Graph& graph, const onnx::Node& node, int64_t opset, std::string name, std::vector<Operand> operands)
    : graph(graph),
      node(node),
      opset(opset),
      name(std::move(name)),
      operands_(std::move(operands)),
      operand_read_(operands_.size()),
      results_(node.outputs.size()) {}

// --- Operands --------------------------------------------------------------------------------------------

Operand Lowering::operand(size_t i) {
  const Operand found = optional(i);
  if (found.id == no_value) refuse("operand {} is missing", i);
  return found;
}

Operand Lowering::optional(size_t i) {
  if (i >= operands_.size()) return {};
  operand_read_[i] = true;
  return operands_[i];
}

std::vector<Expression> Lowering::sizes(size_t i) {
  const Value& v = graph.value(value(i));
  if (v.type != Type::i32)
    refuse("operand {} is of type {}, where integers are expected", i, onnx::name(operand(i).type));
  if (v.symbols) return *v.symbols;
  if (v.constant) {
    const std::span<const int64_t> elements = v.constant->integers();
    return {elements.begin(), elements.end()};
  }
  refuse("operand {}, '{}', depends on data; it has to be known at conversion", i, node.inputs[i]);
}

Dims Lowering::shape(size_t i) {
  const std::vector<Expression> elements = sizes(i);
  for (const Expression& e : elements) expect_size(e);
  return elements;
}

std::vector<int64_t> Lowering::numbers(size_t i) {
  std::vector<int64_t> result;
  for (const Expression& e : sizes(i)) {
    const auto constant = e.constant();
    if (!constant) refuse("operand {}, '{}', is {}; it has to be a number", i, node.inputs[i], e.text());
    result.push_back(*constant);
  }
  return result;
}

Expression Lowering::size(size_t i) {
  const std::vector<Expression> all = sizes(i);
  if (all.size() != 1) refuse("operand {} has {} elements, where one is expected", i, all.size());
  return all[0];
}

int64_t Lowering::number(size_t i) {
  const std::vector<int64_t> all = numbers(i);
  if (all.size() != 1) refuse("operand {} has {} elements, where one is expected", i, all.size());
  return all[0];
}

Literal Lowering::constant(size_t i) {
  const Value& v = graph.value(value(i));
  if (!v.constant) refuse("operand {}, '{}', depends on data; it has to be a constant", i, node.inputs[i]);
  return *v.constant;
}

Literal Lowering::literal(const onnx::Tensor& tensor) {
  try {
    return onnx::literal(tensor);
  } catch (const Error& e) {
    refuse("{}", e.what());
  }
}

// --- Attributes ------------------------------------------------------------------------------------------

bool Lowering::has_attribute(std::string_view name) const {
  return std::any_of(node.attributes.begin(), node.attributes.end(),
                     [&](const Attribute& a) { return a.name == name; });
}

const Attribute* Lowering::find(std::string_view name, Attribute::Kind kind, const char* kind_name) {
  ignore(name);
  for (const Attribute& a : node.attributes) {
    if (a.name != name) continue;
    if (a.kind != kind) refuse("attribute '{}' is not {}", name, kind_name);
    return &a;
  }
  return nullptr;
}

int64_t Lowering::integer(std::string_view name, std::optional<int64_t> fallback) {
  if (const Attribute* a = find(name, Attribute::Kind::integer, "an integer")) return a->integer;
  if (!fallback) refuse("attribute '{}' is missing", name);
  return *fallback;
}

float Lowering::real(std::string_view name, std::optional<float> fallback) {
  if (const Attribute* a = find(name, Attribute::Kind::real, "a float")) return a->real;
  if (!fallback) refuse("attribute '{}' is missing", name);
  return *fallback;
}

std::string Lowering::text(std::string_view name, std::optional<std::string> fallback) {
  if (const Attribute* a = find(name, Attribute::Kind::string, "a string")) return std::string(a->string);
  if (!fallback) refuse("attribute '{}' is missing", name);
  return *fallback;
}

std::optional<std::vector<int64_t>> Lowering::integers(std::string_view name) {
  if (const Attribute* a = find(name, Attribute::Kind::integers, "a list of integers")) return a->integers;
  return std::nullopt;
}

std::optional<std::vector<float>> Lowering::reals(std::string_view name) {
  if (const Attribute* a = find(name, Attribute::Kind::reals, "a list of floats")) return a->reals;
  return std::nullopt;
}

std::optional<std::vector<std::string>> Lowering::texts(std::string_view name) {
  if (const Attribute* a = find(name, Attribute::Kind::strings, "a list of strings")) {
    return std::vector<std::string>(a->strings.begin(), a->strings.end());
  }
  return std::nullopt;
}

const onnx::Tensor* Lowering::tensor(std::string_view name) {
  const Attribute* a = find(name, Attribute::Kind::tensor, "a tensor");
  return a == nullptr ? nullptr : a->tensor.get();
}

void Lowering::ignore(std::string_view name) {
  attributes_read_.push_back(name);
}

void Lowering::ignore_as(const Lowering& other) {
  attributes_read_.insert(attributes_read_.end(), other.attributes_read_.begin(), other.attributes_read_.end());
}

void Lowering::expect(std::string_view name, int64_t value) {
  const int64_t found = integer(name, value);
  if (found != value) refuse("attribute '{}' = {} is not supported, only {}", name, found, value);
}

// --- Results ---------------------------------------------------------------------------------------------

void Lowering::result(size_t i, ValueId id, DataType type) {
  if (graph.value(id).dims.size() > most_axes) refuse("a result of {} axes", graph.value(id).dims.size());
  if (i < results_.size()) results_[i] = {id, type};
}

std::vector<std::string> Lowering::leftovers() const {
  std::vector<std::string> found;
  for (const Attribute& a : node.attributes) {
    if (std::find(attributes_read_.begin(), attributes_read_.end(), a.name) == attributes_read_.end()) {
      found.push_back(fmt::format("attribute '{}' is not supported", a.name));
    }
  }
  for (size_t i = 0; i < operands_.size(); ++i) {
    if (has(i) && !operand_read_[i])
      found.push_back(fmt::format("operand {}, '{}', is not supported", i, node.inputs[i]));
  }
  for (size_t i = 0; i < results_.size(); ++i) {
    if (wants(i) && results_[i].id == no_value) {
      found.push_back(fmt::format("output {}, '{}', is not supported", i, node.outputs[i]));
    }
  }
  return found;
}

// --- Building --------------------------------------------------------------------------------------------

int Lowering::axis(int64_t axis, int rank, bool end) {
  const int64_t counted = axis < 0 ? axis + rank : axis;
  if (counted < 0 || counted >= rank + end) refuse("axis {} of a tensor of rank {}", axis, rank);
  return static_cast<int>(counted);
}

ValueId Lowering::add(Operation operation, std::vector<ValueId> inputs) {
  return graph.add_value(std::move(operation), std::move(inputs), name, {name});
}

std::string Lowering::type_name(ValueId id) const {
  for (const Operand& operand : operands_)
    if (operand.id == id) return onnx::name(operand.type);
  return heed::name(type(id));
}

ValueId Lowering::arithmetic(Step real, Step whole, std::initializer_list<ValueId> operands) {
  const Type first = type(*operands.begin());
  for (const ValueId id : operands) {
    if (type(id) != first) refuse("operands of types {} and {}", type_name(*operands.begin()), type_name(id));
  }
  const Step step = first == Type::f32 ? real : first == Type::i32 ? whole : Step::count;
  if (step == Step::count) refuse("operands of type {} are not supported", heed::name(first));
  return map(step, operands);
}

ValueId Lowering::select(ValueId condition, ValueId yes, ValueId no) {
  if (type(condition) != Type::boolean) refuse("the condition is of type {}, not bool", heed::name(type(condition)));
  if (type(yes) != type(no)) refuse("operands of types {} and {}", type_name(yes), type_name(no));
  const Step step = type(yes) == Type::f32 ? Step::f_select : type(yes) == Type::i32 ? Step::i_select : Step::b_select;
  return map(step, {condition, yes, no});
}

ValueId Lowering::real_constant(float value) {
  return graph.constant(name, Literal::of({}, std::vector<float>{value}));
}

ValueId Lowering::integer_constant(int64_t value) {
  return graph.constant(name, Literal::of({}, std::vector<int64_t>{value}));
}

ValueId Lowering::boolean_constant(bool value) {
  return graph.constant(name, Literal::of_booleans({}, std::vector<uint8_t>{value}));
}

ValueId Lowering::sizes_constant(const Dims& sizes) {
  if (sizes.empty()) return graph.constant(name, Literal::of({0}, std::vector<int64_t>{}));
  std::vector<ValueId> elements;
  for (const Expression& size : sizes) elements.push_back(reshape(add(Size{size}, {}), {1}));
  return add(Concat{0}, elements);
}

ValueId Lowering::swap_last(ValueId x) {
  const int rank = this->rank(x);
  std::vector<int> permutation(static_cast<size_t>(rank));
  for (int i = 0; i < rank; ++i) permutation[static_cast<size_t>(i)] = i;
  std::swap(permutation[static_cast<size_t>(rank - 1)], permutation[static_cast<size_t>(rank - 2)]);
  return transpose(x, permutation);
}

void Lowering::unify(const Expression& a, const Expression& b) {
  graph.unify(a, b, fmt::format("node '{}' ({})", name, node.op));
}

void Lowering::expect_size(const Expression& e) {
  const auto [lower, upper] = range(e);
  if (upper < 0) refuse("a size of {}", e.text());
  if (lower < 0) graph.constraints.push_back({Constraint::Relation::less_equal, 0, graph.current(e)});
}

ValueId Lowering::slice(ValueId x, int axis, Expression start, Expression length) {
  expect_size(length);
  Dims dims = this->dims(x);
  std::vector<Expression> starts(dims.size());
  starts[static_cast<size_t>(axis)] = std::move(start);
  dims[static_cast<size_t>(axis)] = std::move(length);
  return add(Slice{std::move(starts), std::vector<int64_t>(dims.size(), 1), dims}, {x});
}

ValueId Lowering::unsqueeze(ValueId x, int axis) {
  Dims dims = this->dims(x);
  dims.insert(dims.begin() + axis, 1);
  return reshape(x, dims);
}

ValueId Lowering::element(ValueId x, int64_t i) {
  return reshape(slice(x, 0, i, 1), {});
}

ValueId Lowering::reduce(Reduction kind, ValueId x, std::vector<int> axes, bool keep) {
  return add(Reduce{kind, std::move(axes), keep}, {x});
}

ValueId Lowering::cast(ValueId x, DataType from, DataType to) {
  const auto target = onnx::device_type(to);
  if (!target) refuse("a cast to {} is not supported", onnx::name(to));
  const Type source = type(x);
  if (source == *target) return *target == Type::i32 && from != to ? wrap(x, to) : x;
  switch (*target) {
    case Type::f32:
      return map(source == Type::i32 ? Step::i_to_f : Step::b_to_f, {x});
    case Type::i32:
      if (const auto& constant = graph.value(x).constant; constant && source == Type::f32) {
        const auto fits = [](float value) { return value >= -0x1p63F && value < 0x1p63F; };
        const auto floats = constant->floats();
        const auto first = std::find_if_not(floats.begin(), floats.end(), fits);
        if (first != floats.end())
          graph.notes.push_back(fmt::format("'{}' casts the constant {} to {}, which it does not fit: it is {} here",
                                            name, *first, onnx::name(to),
                                            std::isnan(*first) ? "0"
                                            : *first < 0       ? "the smallest"
                                                               : "the largest"));
      }
      return source == Type::f32 ? wrap(map(Step::f_to_i, {x}), to) : map(Step::b_to_i, {x});
    default:
      return map(source == Type::f32 ? Step::f_to_b : Step::i_to_b, {x});
  }
}

ValueId Lowering::wrap(ValueId x, DataType type) {
  const auto low_bits = [&](int64_t mask) { return map(Step::i_and, {x, integer_constant(mask)}); };
  const auto sign_extended = [&](int64_t half) {  // ((x & mask) ^ half) - half
    const ValueId flipped = map(Step::i_xor, {low_bits(2 * half - 1), integer_constant(half)});
    return map(Step::i_sub, {flipped, integer_constant(half)});
  };
  switch (type) {
    case DataType::u8:
      return low_bits(0xff);
    case DataType::u16:
      return low_bits(0xffff);
    case DataType::i8:
      return sign_extended(0x80);
    case DataType::i16:
      return sign_extended(0x8000);
    default:
      return x;
  }
}

Term Lowering::term(ValueId x) {
  if (type(x) != Type::f32) refuse("an operand of type {}, where floats are expected", heed::name(type(x)));
  return {*this, x};
}

}  // namespace heed::tools

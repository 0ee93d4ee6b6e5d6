#pragma once
/// What a lowering sees of one ONNX node, and what it builds with.
///
/// A lowering reads operands and attributes, adds operations and names results. What it does not read is found by the
/// importer afterwards: an attribute, operand or wanted output that no lowering honours is refused by name, so that
/// nothing is dropped silently. The tables of the lower_*.cpp files say which function lowers which operator.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/onnx/model.h"

namespace heed::tools {

/// A value of the ONNX graph: where it is in ours, and its ONNX type.
struct Operand {
  ValueId id = no_value;
  onnx::DataType type = onnx::DataType::undefined;
};

/// Why a node cannot be lowered; the importer adds which node.
struct Refusal {
  std::string what;
};

/// More axes than any model has on the way; on the device there are at most `max_rank`.
inline constexpr size_t most_axes = 32;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) {
  throw Refusal{fmt::format(text, std::forward<Args>(args)...)};
}

class Term;

class Lowering {
 public:
  Lowering(Graph& graph, const onnx::Node& node, int64_t opset, std::string name, std::vector<Operand> operands);

  Graph& graph;
  const onnx::Node& node;
  const int64_t opset;  // of the node's domain
  const std::string name;

  // --- Operands. `i` counts the node's inputs; an index past the end or an empty name is absent.
  size_t count() const { return operands_.size(); }
  bool has(size_t i) const { return i < operands_.size() && operands_[i].id != no_value; }
  Operand operand(size_t i);   // refuses where it is absent
  Operand optional(size_t i);  // no_value where it is absent
  ValueId value(size_t i) { return operand(i).id; }
  void ignore_operand(size_t i) { operand_read_[i] = true; }

  /// Elements of an integer operand, known at conversion. Refuses where they depend on data.
  std::vector<Expression> sizes(size_t i);
  /// The same as a shape: refuses what is negative.
  Dims shape(size_t i);
  /// The same, as numbers. Refuses where they depend on dimensions too.
  std::vector<int64_t> numbers(size_t i);
  Expression size(size_t i);  // of one element
  int64_t number(size_t i);   // of one element
  Literal constant(size_t i);
  Literal literal(const onnx::Tensor& tensor);  // of an attribute

  // --- Attributes; each read is noted.
  bool has_attribute(std::string_view name) const;
  int64_t integer(std::string_view name, std::optional<int64_t> fallback = {});  // without fallback: required
  float real(std::string_view name, std::optional<float> fallback = {});
  std::string text(std::string_view name, std::optional<std::string> fallback = {});
  std::optional<std::vector<int64_t>> integers(std::string_view name);
  std::optional<std::vector<float>> reals(std::string_view name);
  std::optional<std::vector<std::string>> texts(std::string_view name);
  const onnx::Tensor* tensor(std::string_view name);
  /// An attribute that changes nothing here.
  void ignore(std::string_view name);
  /// The attributes that another lowering of the same node has read.
  void ignore_as(const Lowering& other);
  /// An attribute that is honoured for one value only.
  void expect(std::string_view name, int64_t value);

  // --- Results.
  void result(size_t i, ValueId id, onnx::DataType type);
  bool wants(size_t i) const { return i < node.outputs.size() && !node.outputs[i].empty(); }
  const std::vector<Operand>& results() const { return results_; }

  /// What was not honoured: sentences.
  std::vector<std::string> leftovers() const;

  // --- Building.
  Type type(ValueId id) const { return graph.value(id).type; }
  std::string type_name(ValueId id) const;  // the model's own of an operand
  Dims dims(ValueId id) const { return graph.value(id).dims; }
  int rank(ValueId id) const { return static_cast<int>(graph.value(id).dims.size()); }
  /// `axis` of `rank` axes, counted from the front. Refuses what is out of range; `rank` itself is allowed where `end`
  /// is.
  static int axis(int64_t axis, int rank, bool end = false);

  ValueId add(Operation operation, std::vector<ValueId> inputs);
  ValueId map(Step step, std::initializer_list<ValueId> operands) { return add(Map{step}, operands); }
  /// The step for the operands' type, f32 or i32 (Step::count: there is none).
  ValueId arithmetic(Step real, Step whole, std::initializer_list<ValueId> operands);
  ValueId select(ValueId condition, ValueId yes, ValueId no);

  ValueId real_constant(float value);  // scalars
  ValueId integer_constant(int64_t value);
  ValueId boolean_constant(bool value);
  ValueId sizes_constant(const Dims& sizes);  // i32 [n]

  ValueId reshape(ValueId x, Dims dims) { return add(Reshape{std::move(dims)}, {x}); }
  ValueId transpose(ValueId x, std::vector<int> permutation) { return add(Transpose{std::move(permutation)}, {x}); }
  ValueId swap_last(ValueId x);  // the last two axes
  ValueId expand(ValueId x, Dims dims) { return add(Expand{std::move(dims)}, {x}); }
  ValueId slice(ValueId x, int axis, Expression start, Expression length);
  ValueId unsqueeze(ValueId x, int axis);
  ValueId element(ValueId x, int64_t i);  // of a tensor with one axis: a scalar
  ValueId reduce(Reduction kind, ValueId x, std::vector<int> axes, bool keep);
  ValueId iota(Dims dims, int axis) { return add(Iota{std::move(dims), axis}, {}); }

  ValueId cast(ValueId x, onnx::DataType from, onnx::DataType to);
  /// An i32 result brought back into the range of a narrower ONNX type, as its arithmetic wraps.
  ValueId wrap(ValueId x, onnx::DataType type);

  Term term(ValueId x);
  /// Two sizes that have to agree.
  void unify(const Expression& a, const Expression& b);
  /// A size that has to be 0 or more: refused, or a constraint on the dimensions.
  void expect_size(const Expression& e);
  // Sizes may have been made one since `e` was read.
  Expression simplify(const Expression& e) const { return graph.current(e).simplify(graph.dimensions); }
  Expression::Range range(const Expression& e) const { return graph.current(e).range(graph.dimensions); }

 private:
  const onnx::Attribute* find(std::string_view name, onnx::Attribute::Kind kind, const char* kind_name);

  std::vector<Operand> operands_;
  std::vector<bool> operand_read_;
  std::vector<std::string_view> attributes_read_;
  std::vector<Operand> results_;
};

/// A float value in a formula, so that lowerings read as the formulas of ONNX's documentation.
class Term {
 public:
  Term(Lowering& lowering, ValueId id) : lowering_(&lowering), id_(id) {}
  ValueId id() const { return id_; }

  Term apply(Step step) const { return {*lowering_, lowering_->map(step, {id_})}; }
  Term apply(Step step, const Term& other) const { return {*lowering_, lowering_->map(step, {id_, other.id_})}; }
  Term constant(float value) const { return {*lowering_, lowering_->real_constant(value)}; }

  friend Term operator+(const Term& a, const Term& b) { return a.apply(Step::f_add, b); }
  friend Term operator-(const Term& a, const Term& b) { return a.apply(Step::f_sub, b); }
  friend Term operator*(const Term& a, const Term& b) { return a.apply(Step::f_mul, b); }
  friend Term operator/(const Term& a, const Term& b) { return a.apply(Step::f_div, b); }
  friend Term operator+(const Term& a, float b) { return a + a.constant(b); }
  friend Term operator-(const Term& a, float b) { return a - a.constant(b); }
  friend Term operator*(const Term& a, float b) { return a * a.constant(b); }
  friend Term operator/(const Term& a, float b) { return a / a.constant(b); }
  Term min(float bound) const { return apply(Step::f_min, constant(bound)); }
  Term max(float bound) const { return apply(Step::f_max, constant(bound)); }
  ValueId below(float bound) const { return apply(Step::f_less, constant(bound)).id_; }  // booleans
  ValueId above(float bound) const { return constant(bound).apply(Step::f_less, *this).id_; }
  friend Term choose(ValueId condition, const Term& yes, const Term& no) {
    return {*yes.lowering_, yes.lowering_->select(condition, yes.id_, no.id_)};
  }

 private:
  Lowering* lowering_;
  ValueId id_;
};

using Lower = void (*)(Lowering&);

/// One row of the importer's table.
struct LoweringRow {
  std::string_view domain, op;
  int64_t since;  // the operator set that brought it
  Lower lower;
};

// By theme, one file each.
std::span<const LoweringRow> map_lowerings();
std::span<const LoweringRow> shape_lowerings();
std::span<const LoweringRow> sum_lowerings();
std::span<const LoweringRow> sequence_lowerings();
std::span<const LoweringRow> window_lowerings();
std::span<const LoweringRow> quantized_lowerings();

}  // namespace heed::tools

/// Types and dims of every operation's results: the only place on any machine that infers shapes.
#include <fmt/format.h>

#include <algorithm>

#include "tools/error.h"
#include "tools/graph/graph.h"

namespace heed::tools {
namespace {

class Inference {
 public:
  Inference(Graph& graph, const Node& node)
      : graph_(graph), node_(node), where_(fmt::format("node '{}' ({})", node.name, name(node.operation))) {}

  std::vector<Inferred> run() {
    return std::visit([this](const auto& op) { return infer(op); }, node_.operation);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw Error(Fault::model, where_ + ": " + what); }

  bool has(size_t i) const { return i < node_.inputs.size() && node_.inputs[i] != no_value; }
  const Value& input(size_t i) const {
    if (!has(i)) refuse(fmt::format("operand {} is missing", i));
    return graph_.value(node_.inputs[i]);
  }
  const Value& input(size_t i, Type type) const {
    const Value& value = input(i);
    if (value.type != type)
      refuse(fmt::format("operand {} ('{}') is {}, not {}", i, value.name, type_name(value.type), type_name(type)));
    return value;
  }
  const Value& integers(size_t i) const { return input(i).type == Type::i8 ? input(i) : input(i, Type::i32); }
  // Dims of an operand of a fixed rank.
  Dims dims(size_t i, size_t rank) const {
    const Value& value = input(i);
    if (value.dims.size() != rank)
      refuse(fmt::format("operand {} ('{}') has shape {}, not rank {}", i, value.name, text(value.dims), rank));
    return value.dims;
  }
  static const char* type_name(Type type) {
    return type == Type::f32 ? "float" : type == Type::boolean ? "boolean" : type == Type::i8 ? "int8" : "integer";
  }

  void equal(const Expression& a, const Expression& b, const Dims& x, const Dims& y) {
    graph_.unify(a, b, fmt::format("{} on shapes {} and {}", where_, text(x), text(y)));
  }
  void equal(const Dims& x, const Dims& y) {
    if (x.size() != y.size()) refuse(fmt::format("the shapes {} and {} differ in rank", text(x), text(y)));
    for (size_t i = 0; i < x.size(); ++i) equal(x[i], y[i], x, y);
  }
  Dims together(const Dims& a, const Dims& b) { return broadcast(graph_, a, b, where_); }

  size_t axis(int axis, size_t rank) const {
    if (axis < 0 || static_cast<size_t>(axis) >= rank)
      refuse(fmt::format("there is no axis {} in rank {}", axis, rank));
    return static_cast<size_t>(axis);
  }
  void takes(size_t least, size_t most) const {
    if (node_.inputs.size() < least || node_.inputs.size() > most)
      refuse(fmt::format("has {} operands, not {} to {}", node_.inputs.size(), least, most));
  }

  std::vector<Inferred> infer(const Map& op) {
    const StepInfo& step = info(op.step);
    takes(static_cast<size_t>(step.operands), static_cast<size_t>(step.operands));
    Dims result;
    for (size_t i = 0; i < node_.inputs.size(); ++i) {
      const Type type = operand_type(op.step, static_cast<int>(i));
      result = together(result, (type == Type::i32 ? integers(i) : input(i, type)).dims);
    }
    return {{op.narrow ? Type::i8 : step.to, result}};
  }

  std::vector<Inferred> infer(const Iota& op) {
    axis(op.axis, op.dims.size());
    return {{Type::i32, op.dims}};
  }

  std::vector<Inferred> infer(const Size&) { return {{Type::i32, {}}}; }

  std::vector<Inferred> infer(const Reshape& op) {
    takes(1, 1);
    Dims from = input(0).dims, to = op.dims;
    for (size_t i = 0; i < from.size();) {  // sizes that stand on both sides cancel
      const auto same = std::find(to.begin(), to.end(), from[i]);
      if (same == to.end() || from[i].is_constant(0)) {
        ++i;
        continue;
      }
      to.erase(same);
      from.erase(from.begin() + static_cast<std::ptrdiff_t>(i));
    }
    equal(count(from), count(to), input(0).dims, op.dims);
    return {{input(0).type, op.dims}};
  }

  std::vector<Inferred> infer(const Transpose& op) {
    takes(1, 1);
    const Dims& x = input(0).dims;
    std::vector<int> sorted = op.permutation;
    std::sort(sorted.begin(), sorted.end());
    bool legal = sorted.size() == x.size();
    for (size_t i = 0; legal && i < sorted.size(); ++i) legal = sorted[i] == static_cast<int>(i);
    if (!legal) refuse(fmt::format("the permutation does not fit the shape {}", text(x)));
    Dims result;
    for (const int from : op.permutation) result.push_back(x[static_cast<size_t>(from)]);
    return {{input(0).type, result}};
  }

  std::vector<Inferred> infer(const Slice& op) {
    takes(1, 1);
    const Dims& x = input(0).dims;
    if (op.starts.size() != x.size() || op.steps.size() != x.size() || op.dims.size() != x.size())
      refuse(fmt::format("starts, steps and sizes are not of the rank of the shape {}", text(x)));
    for (size_t i = 0; i < x.size(); ++i) {
      if (op.steps[i] == 0) refuse(fmt::format("the step of axis {} is 0", i));
      const Expression last = op.starts[i] + (op.dims[i] - 1) * op.steps[i];
      const auto never = [&](const Expression& e) { return e.range(graph_.dimensions).upper < 0; };
      if (!never(op.dims[i] - 1) &&
          (never(op.starts[i]) || never(last) || never(x[i] - 1 - op.starts[i]) || never(x[i] - 1 - last)))
        refuse(fmt::format("elements {} to {} of axis {} lie outside of the shape {}", op.starts[i].text(), last.text(),
                           i, text(x)));
    }
    return {{input(0).type, op.dims}};
  }

  std::vector<Inferred> infer(const Expand& op) {
    takes(1, 1);
    return {{input(0).type, together(input(0).dims, op.dims)}};
  }

  std::vector<Inferred> infer(const Concat& op) {
    if (node_.inputs.empty()) refuse("has no operands");
    const Dims first = input(0).dims;
    const size_t along = axis(op.axis, first.size());
    Expression sum;
    for (size_t i = 0; i < node_.inputs.size(); ++i) {
      Dims same = dims(i, first.size());
      sum = sum + input(i, input(0).type).dims[along];
      same[along] = first[along];
      equal(first, same);
    }
    Dims result = input(0).dims;
    result[along] = sum;
    return {{input(0).type, result}};
  }

  std::vector<Inferred> infer(const Pad& op) {
    takes(1, 1);
    Dims result = input(0).dims;
    if (op.before.size() != result.size() || op.after.size() != result.size())
      refuse(fmt::format("the padding is not of the rank of the shape {}", text(result)));
    for (size_t i = 0; i < result.size(); ++i) result[i] = result[i] + op.before[i] + op.after[i];
    return {{input(0).type, result}};
  }

  std::vector<Inferred> infer(const Gather& op) {
    takes(2, 3);
    if (has(2)) equal(input(2, Type::f32).dims, {dims(0, 2)[0]});
    const Dims &table = input(0).dims, &index = input(1, Type::i32).dims;
    const auto along = static_cast<std::ptrdiff_t>(axis(op.axis, table.size()));
    Dims result(table.begin(), table.begin() + along);
    result.insert(result.end(), index.begin(), index.end());
    result.insert(result.end(), table.begin() + along + 1, table.end());
    return {{has(2) ? Type::f32 : input(0).type, result}};
  }

  std::vector<Inferred> infer(const Matmul&) {
    takes(2, 4);
    const Type type = product_type();
    const Dims a = input(0, type).dims, b = input(1, type).dims;
    if (a.size() < 2 || b.size() < 2) refuse(fmt::format("the shapes {} and {} need two axes each", text(a), text(b)));
    equal(a[a.size() - 1], b[b.size() - 2], a, b);
    Dims result = broadcast(graph_, Dims(a.begin(), a.end() - 2), Dims(b.begin(), b.end() - 2),
                            fmt::format("{} on shapes {} and {}", where_, text(a), text(b)));
    result.push_back(a[a.size() - 2]);
    result.push_back(b[b.size() - 1]);
    if (has(2)) equal(input(2, Type::f32).dims, {result.back()});
    if (has(3)) equal(input(3, Type::f32).dims, result);
    return {{type, result}};
  }
  Type product_type() const {
    if (input(0).type != Type::i32) return input(0, Type::f32).type;
    takes(2, 2);
    return Type::i32;
  }

  std::vector<Inferred> infer(const Softmax& op) {
    takes(1, 1);
    axis(op.axis, input(0, Type::f32).dims.size());
    return {{Type::f32, input(0).dims}};
  }

  std::vector<Inferred> infer(const Reduce& op) {
    takes(1, 1);
    const Value& x = input(0);
    const bool arg = op.kind == Reduction::arg_max || op.kind == Reduction::arg_min;
    const bool also_integer = op.kind == Reduction::sum || op.kind == Reduction::product || op.kind == Reduction::max ||
                              op.kind == Reduction::min;
    if (x.type == Type::boolean || (x.type == Type::i32 && !also_integer))
      refuse(fmt::format("does not take the {} operand '{}'", type_name(x.type), x.name));
    if (arg && op.axes.size() != 1) refuse("takes one axis");
    Dims result;
    size_t next = 0;
    for (size_t i = 0; i < x.dims.size(); ++i) {
      const bool reduced = next < op.axes.size() && op.axes[next] == static_cast<int>(i);
      if (reduced) ++next;
      if (!reduced)
        result.push_back(x.dims[i]);
      else if (op.keep)
        result.push_back(1);
    }
    if (next != op.axes.size()) refuse(fmt::format("its axes do not fit the shape {}", text(x.dims)));
    return {{arg ? Type::i32 : x.type, result}};
  }

  std::vector<Inferred> infer(const Attention& op) {
    takes(op.int8 ? 10 : 3, op.int8 ? 10 : 7);
    const Dims q = dims(0, 4), k = dims(1, 4), v = dims(2, 4);
    for (size_t i = 0; i < 3; ++i) input(i, op.int8 ? Type::i8 : Type::f32);
    for (size_t i = 0; i < 3 && op.int8; ++i) {
      const Dims rows = dims(i, 4);
      equal(input(7 + i, Type::f32).dims, {rows[0], rows[1], rows[2], 1});
    }
    equal(q[0], k[0], q, k);
    equal(k[0], v[0], k, v);
    equal(k[1], v[1], k, v);
    equal(q[3], k[3], q, k);
    equal(k[2], v[2], k, v);
    const auto heads = q[1].constant(), shared = k[1].constant();
    if (!heads || !shared ? !(q[1] == k[1]) : *shared == 0 || *heads % *shared != 0)
      refuse(
          fmt::format("{} heads of {} do not divide the {} heads of {}", k[1].text(), text(k), q[1].text(), text(q)));
    const auto fits = [&](size_t i, const Dims& full) {
      const Dims own = dims(i, full.size());
      for (size_t axis = 0; axis < full.size(); ++axis)
        if (!own[axis].is_constant(1)) equal(own[axis], full[axis], own, full);
    };
    if (has(3)) fits(3, {q[0], q[1], q[2], k[2]});
    if (has(3) && input(3).type == Type::i32) input(3, Type::f32);
    if (has(4)) fits(4, {q[0], input(4, Type::boolean).dims.empty() ? Expression(1) : k[2]});
    if (has(5)) equal(input(5, Type::f32).dims, {q[1]});
    if (has(6)) equal(input(6, Type::f32).dims, {q[1], q[2] + k[2] - 1});
    return {{Type::f32, {q[0], q[1], q[2], v[3]}}};
  }

  std::vector<Inferred> infer(const Normalize& op) {
    takes(1, 3);
    const Dims x = input(0, Type::f32).dims;
    if (x.empty()) refuse("has no axis to normalise");
    for (size_t i = 1; i < 3; ++i)
      if (has(i)) equal(input(i, Type::f32).dims, {x.back()});
    std::vector<Inferred> results{{Type::f32, x}};
    if (op.groups > 0) add_rows(results, x, op);
    return results;
  }

  std::vector<Inferred> infer(const Recurrent& op) {
    takes(3, 6);
    for (size_t i = 0; i < node_.inputs.size(); ++i)
      if (has(i)) input(i, Type::f32);
    return layer(op, 1, 2, 3);
  }

  std::vector<Inferred> infer(const RecurrentI8& op) {
    takes(6, 9);
    for (size_t i = 0; i < node_.inputs.size(); ++i)
      if (has(i)) input(i, i == 0 || i == 2 || i == 4 ? Type::i8 : Type::f32);
    equal(dims(1, 3), scales(dims(0, 3), 1));
    for (const size_t i : {2, 4}) equal(dims(i + 1, 2), Dims{dims(i, 3)[0], dims(i, 3)[1]});
    return layer(op, 2, 4, 6);
  }

  /// Of a recurrent layer whose weights are operands w and r, and whose bias and first states are b and those after it.
  std::vector<Inferred> layer(const Recurrent& op, size_t w, size_t r, size_t b) {
    const Expression gates = op.cell == Cell::lstm ? 4 : op.cell == Cell::gru ? 3 : 1;
    const Expression directions = op.direction == Direction::both ? 2 : 1, hidden = op.hidden;
    const Dims x = dims(0, 3);
    equal(dims(w, 3), {directions, gates * hidden, x[2]});
    equal(dims(r, 3), {directions, gates * hidden, hidden});
    if (has(b)) equal(dims(b, 2), {directions, 2 * gates * hidden});
    const Dims state = {directions, x[1], hidden};
    for (size_t i = b + 1; i < b + 3; ++i)
      if (has(i)) equal(dims(i, 3), state);
    std::vector<Inferred> results = {{Type::f32, {x[0], directions, x[1], hidden}}, {Type::f32, state}};
    if (op.cell == Cell::lstm) results.push_back({Type::f32, state});
    return results;
  }

  // Sizes of the spatial axes of x [N, spatial.., C] after a window.
  Dims windows(const std::vector<WindowAxis>& axes, bool ceil) {
    const Dims x = dims(0, axes.size() + 2);
    Dims result = {x[0]};
    for (size_t i = 0; i < axes.size(); ++i) {
      const WindowAxis& axis = axes[i];
      if (axis.kernel < 1 || axis.stride < 1 || axis.dilation < 1 || axis.before < 0 || axis.after < 0)
        refuse(fmt::format("a window of size {}, stride {}, dilation {}, padding {} and {}", axis.kernel, axis.stride,
                           axis.dilation, axis.before, axis.after));
      const Expression room = x[i + 1] + (axis.before + axis.after - axis.reach());
      if (room.range(graph_.dimensions).upper < 0)
        refuse(fmt::format("a window of {} does not fit the shape {} with its padding", axis.reach(), text(x)));
      Expression size = Expression::divide(room + (ceil ? axis.stride - 1 : 0), axis.stride) + 1;
      if (ceil) size = Expression::minimum(size, Expression::divide(x[i + 1] + (axis.before - 1), axis.stride) + 1);
      result.push_back(size.simplify(graph_.dimensions));
      if (room.range(graph_.dimensions).lower < 0)
        graph_.constraints.push_back({Constraint::Relation::less_equal, 0, room});
    }
    return result;
  }

  std::vector<Inferred> infer(const Conv& op) {
    takes(2, 4);
    input(1, product_type());
    return convolution(op, 2);
  }

  std::vector<Inferred> infer(const ConvI8& op) {
    takes(3, 5);
    input(1, Type::i8);
    equal(input(2, Type::f32).dims, {input(1).dims.back()});
    return convolution(op, 3);
  }

  /// Of one whose bias and residual are operands `bias` and the one after it.
  std::vector<Inferred> convolution(const Conv& op, size_t bias) {
    Dims result = windows(op.axes, false);
    const Type type = product_type();
    const Dims x = input(0).dims, w = input(1).dims;
    if (w.size() != x.size()) refuse(fmt::format("the weights {} do not fit the shape {}", text(w), text(x)));
    for (size_t i = 0; i < op.axes.size(); ++i) equal(w[i], op.axes[i].kernel, x, w);
    const auto outputs = w.back().constant();
    if (op.groups < 1 || !outputs || *outputs % op.groups != 0)
      refuse(fmt::format("{} groups do not divide the weights {}", op.groups, text(w)));
    equal(x.back(), w[w.size() - 2] * op.groups, x, w);
    result.push_back(w.back());
    if (has(bias)) equal(input(bias, Type::f32).dims, {result.back()});
    if (has(bias + 1)) equal(input(bias + 1, Type::f32).dims, result);
    return {{type, result}};
  }

  std::vector<Inferred> infer(const Pool& op) {
    takes(1, 1);
    input(0, Type::f32);
    Dims result = windows(op.axes, op.ceil);
    result.push_back(input(0).dims.back());
    return {{Type::f32, result}};
  }

  std::vector<Inferred> infer(const Rope&) {
    takes(3, 3);
    const Dims x = input(0, Type::f32).dims, cos = input(1, Type::f32).dims, sin = input(2, Type::f32).dims;
    if (x.empty() || cos.empty() || cos.size() > x.size())
      refuse(fmt::format("the tables {} do not fit the shape {}", text(cos), text(x)));
    equal(cos.back(), sin.back(), cos, sin);
    const auto rotated = cos.back().constant(), channels = x.back().constant();
    if (!rotated || *rotated % 2 != 0 || !channels || *rotated > *channels)
      refuse(fmt::format("{} channels of {} cannot be rotated in pairs", cos.back().text(), text(x)));
    for (const Dims& table : {cos, sin}) {
      const Dims lead(x.begin(), x.end() - 1);
      const Dims together = broadcast(graph_, lead, Dims(table.begin(), table.end() - 1), where_);
      if (together != lead)
        refuse(fmt::format("the table {} does not broadcast to the shape {}", text(table), text(x)));
    }
    return {{Type::f32, x}};
  }

  std::vector<Inferred> infer(const Quantize& op) {
    takes(1, 2);
    const Dims x = input(0, Type::f32).dims;
    if (has(1)) {
      equal(input(1, Type::f32).dims, {2});
      return {{Type::i8, x}};
    }
    std::vector<Inferred> results;
    add_rows(results, x, op);
    return results;
  }

  std::vector<Inferred> infer(const QuantizeLinear& op) {
    return {{op.narrow ? Type::i8 : Type::i32, quantised(input(0, Type::f32).dims)}};
  }
  std::vector<Inferred> infer(const DequantizeLinear&) { return {{Type::f32, quantised(integers(0).dims)}}; }
  Dims quantised(const Dims& x) {
    takes(3, 3);
    for (const Dims& parameter : {input(1, Type::f32).dims, input(2, Type::i32).dims})
      if (parameter.size() > x.size() || together(x, parameter) != x)
        refuse(fmt::format("scale or zero point {} does not broadcast to the shape {}", text(parameter), text(x)));
    return input(0).dims;
  }

  std::vector<Inferred> infer(const MatmulI8& op) {
    takes(4, 9);
    Dims y = input(0, Type::i8).dims;
    input(2, Type::i8);
    const Dims a = y, b = dims(2, 2);
    equal(input(1, Type::f32).dims, scales(a, 1));
    equal(a.back(), b[0], a, b);
    y.back() = b[1];
    equal(dims(3, 1), {b[1]});
    if (has(4)) equal(dims(4, 1), {b[1]});
    if (has(5)) equal(input(5, Type::f32).dims, y);
    if (has(6)) equal(input(6, Type::i32).dims, scales(a, 1));
    if (has(7)) equal(input(7, Type::i32).dims, {b[1]});
    std::vector<Inferred> results{{Type::f32, y}};
    if (has(8)) {
      equal(input(8, Type::f32).dims, {2});
      results.push_back({Type::i8, y});
    } else if (op.groups > 0) {
      add_rows(results, y, op);
    }
    return results;
  }

  /// Rows of int8 and what is found with them.
  template <class Op>
  void add_rows(std::vector<Inferred>& results, const Dims& x, const Op& op) {
    results.push_back({Type::i8, x});
    results.push_back({Type::f32, scales(x, op.groups)});
    if (op.asymmetric) results.push_back({Type::i32, scales(x, op.groups)});
  }

  Dims scales(Dims x, int64_t groups) {
    if (x.empty()) refuse("a scalar has no rows");
    const auto columns = x.back().constant();
    if (groups < 1 || (groups > 1 && (!columns || *columns % groups != 0)))
      refuse(fmt::format("{} columns are no {} groups", x.back().text(), groups));
    x.back() = groups;
    return x;
  }

  std::vector<Inferred> infer(const Elementwise& op) {
    size_t tensors = 0;
    std::vector<Type> sources;
    for (const auto& source : op.sources) {
      if (source.kind == SourceKind::tensor) {
        const Dims result = together(input(tensors).dims, op.dims);
        if (result != op.dims)
          refuse(fmt::format("the operand {} does not fit {}", text(input(tensors).dims), text(op.dims)));
        sources.push_back(input(tensors++).type);
      } else {
        sources.push_back(Type::i32);
      }
    }
    takes(tensors, tensors);
    std::vector<Type> registers(elementwise_registers, Type::f32);
    for (const Instruction& instruction : op.instructions) registers[instruction.result] = info(instruction.step).to;
    std::vector<Inferred> results;
    for (size_t i = 0; i < op.results.size(); ++i) {
      const uint8_t result = op.results[i];
      const Type type = result < operand::inputs ? registers[result] : sources.at(result - operand::inputs);
      results.push_back({i < op.narrow.size() && op.narrow[i] ? Type::i8 : type, op.dims});
    }
    return results;
  }

  Graph& graph_;
  const Node& node_;
  const std::string where_;
};

}  // namespace

Dims broadcast(Graph& graph, const Dims& a, const Dims& b, const std::string& where) {
  const Dims &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
  Dims result = longer;
  const size_t ahead = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    Expression& size = result[ahead + i];
    if (size.is_constant(1))
      size = shorter[i];
    else if (!shorter[i].is_constant(1))
      graph.unify(size, shorter[i], fmt::format("{} on shapes {} and {}", where, text(a), text(b)));
  }
  for (Expression& size : result) size = graph.current(std::move(size));
  return result;
}

std::vector<Inferred> infer(Graph& graph, const Node& node) {
  return Inference(graph, node).run();
}

}  // namespace heed::tools

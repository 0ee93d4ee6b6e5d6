#include "tools/plan/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "tools/error.h"
#include "tools/plan/bounds.h"
#include "tools/plan/pack.h"

namespace heed::tools {
namespace {

template <class Operation>
const Operation* as(const Node& node) {
  return std::get_if<Operation>(&node.operation);
}

/// Operations that compute nothing: their result is a view, or parts that others write.
bool is_arrangement(const Node& node) {
  return as<Reshape>(node) || as<Transpose>(node) || as<Slice>(node) || as<Expand>(node) || as<Concat>(node) ||
         as<Pad>(node);
}

template <class T>
std::vector<std::byte> bytes_of(std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}
template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  return bytes_of(std::span<const T>(values));
}

/// As the device holds it.
std::vector<std::byte> bytes_of(const Literal& literal, const std::string& name) {
  if (literal.type == Type::f32) return bytes_of(literal.floats());
  if (literal.type == Type::boolean) return bytes_of(literal.booleans());
  if (literal.type == Type::i8) return bytes_of(literal.bytes());
  using Limits = std::numeric_limits<int32_t>;
  std::vector<int32_t> values;
  for (const int64_t value : literal.integers()) {
    if (value < Limits::min() || value > Limits::max())
      throw Error(Fault::model,
                  fmt::format("constant '{}' holds {}, which does not fit the device's 32 bits", name, value));
    values.push_back(static_cast<int32_t>(value));
  }
  return bytes_of(values);
}

class Lowering {
 public:
  explicit Lowering(Graph graph) : graph_(std::move(graph)) {}

  Lowered run() {
    order_ = graph_.order();
    homes_.resize(graph_.value_count());
    views_.resize(graph_.value_count());
    count_readers();
    out_.dimensions = graph_.dimensions;
    for (const Constraint& constraint : graph_.constraints)
      if (can_fail(constraint)) out_.constraints.push_back(constraint);

    out_.position = graph_.position;
    std::vector<View> wanted(graph_.outputs.size());
    std::vector<bool> hidden(graph_.inputs.size()), hidden_output(graph_.outputs.size());
    for (const State& state : graph_.states) {
      hidden[static_cast<size_t>(state.input)] = hidden_output[static_cast<size_t>(state.output)] = true;
      wanted[static_cast<size_t>(state.output)] = place(state);
    }
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      if (hidden[i]) continue;
      const Border& border = graph_.inputs[i];
      const Value& value = graph_.value(border.value);
      views_[index(border.value)] = dense_view(workspace(value.name, value), value.type, value.dims);
      inputs_[border.value] = static_cast<int>(out_.inputs.size());
      out_.inputs.push_back({border.name, tensor(*views_[index(border.value)], border.name), border.type});
    }
    for (size_t i = 0; i < graph_.outputs.size(); ++i) {
      const Border& border = graph_.outputs[i];
      const Value& value = graph_.value(border.value);
      if (!hidden_output[i]) wanted[i] = dense_view(workspace(border.name, value), value.type, value.dims);
      claim(border.value, wanted[i]);
      if (!hidden_output[i]) out_.outputs.push_back({border.name, tensor(wanted[i], border.name), border.type});
    }
    for (size_t i = order_.size(); i-- > 0;) arrange(graph_.node(order_[i]));
    for (const NodeId id : order_)
      if (!is_arrangement(graph_.node(id))) emit(graph_.node(id));
    for (size_t i = 0; i < wanted.size(); ++i) {
      const View from = view_of(graph_.outputs[i].value);
      if (!same_elements(from, wanted[i])) copy(from, wanted[i], graph_.outputs[i].name, {});
    }
    for (size_t i = 0; i < graph_.states.size(); ++i)
      settle(out_.states[i], wanted[static_cast<size_t>(graph_.states[i].output)]);
    put_position_last();
    bound(out_);
    return std::move(out_);
  }

 private:
  static size_t index(ValueId id) { return static_cast<size_t>(id); }

  void count_readers() {
    read_.assign(graph_.value_count(), false);
    for (const NodeId id : order_)
      for (const ValueId input : graph_.node(id).inputs)
        if (input != no_value) read_[index(input)] = true;
    for (const Border& border : graph_.outputs) read_[index(border.value)] = true;
  }

  bool can_fail(const Constraint& constraint) const {
    const Expression difference = constraint.right - constraint.left;
    const Expression::Range range = difference.range(graph_.dimensions);
    return constraint.relation == Constraint::Relation::equal ? range.lower != 0 || range.upper != 0 : range.lower < 0;
  }

  // --- State
  // ----------------------------------------------------------------------------------------------------------

  /// The state's storage and the view that a run finds; the view that the next value is to be written to.
  View place(const State& state) {
    const Border &border = graph_.inputs[static_cast<size_t>(state.input)],
                 &next = graph_.outputs[static_cast<size_t>(state.output)];
    const Value &old_value = graph_.value(border.value), &new_value = graph_.value(next.value);
    const auto bounded = [&](const Value& value, int storage) {
      View view = dense_view(storage, value.type, value.dims);
      view.strides = dense_strides(bounds(new_value.dims));
      return view;
    };
    const int storage = state_storage(border.name, new_value);
    out_.storages.back().state = true;
    views_[index(border.value)] = bounded(old_value, storage);
    const int first = state.first ? constant(border.name, bytes_of(*state.first, border.name)) : -1;
    out_.states.push_back({border.name, next.name, tensor(*views_[index(border.value)], border.name), first, false});
    const bool appended = state.axis >= 0 && appends(next.value, border.value, state.axis);
    return bounded(new_value, appended ? storage : state_storage(next.name, new_value));
  }

  int state_storage(const std::string& name, const Value& value) {
    Value whole;
    whole.type = value.type;
    whole.dims = bounds(value.dims);
    return workspace(name, whole);
  }

  Dims bounds(const Dims& dims) const {
    Dims most;
    for (const Expression& size : dims) most.push_back(bound_of(size));
    return most;
  }
  Expression bound_of(const Expression& size) const {
    const auto grown =
        graph_.position ? Expression::dimension(graph_.position->name) + graph_.position->step : Expression();
    return graph_.position && size == grown ? graph_.position->capacity : size.range(graph_.dimensions).upper;
  }

  /// Whether the next value is the last one and something behind it.
  bool appends(ValueId next, ValueId last, int axis) const {
    const NodeId producer = graph_.value(next).producer;
    const Concat* concat = producer < 0 ? nullptr : as<Concat>(graph_.node(producer));
    return concat != nullptr && concat->axis == axis && graph_.node(producer).inputs[0] == last;
  }

  /// Gives the next value the storage of the last one, or copies it there.
  void settle(Lowered::State& state, const View& next) {
    const int old_storage = storage_of(state.tensor), new_storage = next.storage;
    if (old_storage == new_storage) return;
    size_t last_read = 0, first_write = out_.operators.size();
    for (size_t i = 0; i < out_.operators.size(); ++i) {
      const LoweredOperator& op = out_.operators[i];
      const auto touches = [&](const std::vector<int>& operands, int storage) {
        return std::any_of(operands.begin(), operands.end(),
                           [&](int number) { return number != -1 && storage_of(number) == storage; });
      };
      if (touches(op.inputs, old_storage)) last_read = i + 1;
      if (touches(op.outputs, new_storage)) first_write = std::min(first_write, i);
    }
    const bool at_once =
        first_write + 1 == last_read && replaces(out_.operators[first_write], old_storage, new_storage);
    state.copied = first_write < last_read && !at_once;
    if (state.copied) {
      View target = next;
      target.storage = old_storage;
      copy(next, target, state.name, {});
      return;
    }
    for (LoweredTensor& each : out_.tensors)
      if (each.view.storage == new_storage) each.view.storage = old_storage;
  }

  /// Whether an operator may write the new value over the old one that it reads.
  bool replaces(const LoweredOperator& op, int old_storage, int new_storage) const {
    const Points points = points_of(out_.dimensions, out_.constraints);
    const ShapeTable table(out_);
    for (const Point& point : {points.all.front(), points.all.back()}) {
      const std::vector<Shape> shapes = table.at(point);
      const ContractAt at(op, shapes, point);
      for (size_t i = 0; i < op.inputs.size(); ++i)
        for (size_t o = 0; o < op.outputs.size(); ++o) {
          if (op.inputs[i] == -1 || op.outputs[o] == -1 || storage_of(op.inputs[i]) != old_storage ||
              storage_of(op.outputs[o]) != new_storage)
            continue;
          View old_view = out_.tensors[static_cast<size_t>(op.inputs[i])].view;
          old_view.storage = new_storage;
          if (!same_elements(old_view, out_.tensors[static_cast<size_t>(op.outputs[o])].view) ||
              !operator_of(op.kind).in_place(at.contract(), static_cast<int>(i), static_cast<int>(o)))
            return false;
        }
    }
    return true;
  }

  int storage_of(int number) const { return out_.tensors[static_cast<size_t>(number)].view.storage; }

  void put_position_last() {
    if (!graph_.position) return;
    std::vector<int> order(out_.tensors.size()), place(out_.tensors.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_partition(order.begin(), order.end(), [&](int number) {
      return !depends_on(out_.tensors[static_cast<size_t>(number)].view, graph_.position->name);
    });
    std::vector<LoweredTensor> tensors;
    for (const int number : order) {
      place[static_cast<size_t>(number)] = static_cast<int>(tensors.size());
      tensors.push_back(std::move(out_.tensors[static_cast<size_t>(number)]));
    }
    out_.tensors = std::move(tensors);
    const auto renew = [&](int& number) { number = number == -1 ? -1 : place[static_cast<size_t>(number)]; };
    for (LoweredOperator& op : out_.operators) {
      std::for_each(op.inputs.begin(), op.inputs.end(), renew);
      std::for_each(op.outputs.begin(), op.outputs.end(), renew);
    }
    for (auto* borders : {&out_.inputs, &out_.outputs})
      for (Lowered::Border& border : *borders) renew(border.tensor);
    for (Lowered::State& state : out_.states) renew(state.tensor);
  }

  // --- Storages and tensors ------------------------------------------------------------------------------------------

  int workspace(const std::string& name, const Value& value) {
    Storage storage;
    storage.name = name;
    storage.bytes = count(value.dims) * static_cast<int64_t>(size_of(value.type));
    out_.storages.push_back(std::move(storage));
    return static_cast<int>(out_.storages.size()) - 1;
  }

  /// Equal bytes are stored once.
  int constant(const std::string& name, std::vector<std::byte> data) {
    const size_t hash = std::hash<std::string_view>{}({reinterpret_cast<const char*>(data.data()), data.size()});
    for (auto [row, end] = constants_.equal_range(hash); row != end; ++row)
      if (out_.storages[static_cast<size_t>(row->second)].data == data) return row->second;
    Storage storage;
    storage.name = name;
    storage.constant = true;
    storage.data = std::move(data);
    out_.storages.push_back(std::move(storage));
    constants_.emplace(hash, static_cast<int>(out_.storages.size()) - 1);
    return static_cast<int>(out_.storages.size()) - 1;
  }

  View constant_view(const std::string& name, Type type, const Dims& dims, std::vector<std::byte> data) {
    return dense_view(constant(name, std::move(data)), type, dims);
  }

  int tensor(View view, const std::string& name) {
    if (view.dims.size() > max_rank)
      throw Error(Fault::model,
                  fmt::format("'{}' has rank {}; at most {} run on the device", name, view.dims.size(), max_rank));
    std::string key = fmt::format("{} {} {}", view.storage, static_cast<int>(view.type), view.offset.text());
    Expression inner = 1;  // an axis of size 1 steps as a dense one would
    for (size_t axis = view.dims.size(); axis-- > 0;) {
      if (view.dims[axis].is_constant(1)) view.strides[axis] = inner;
      inner = view.strides[axis] * view.dims[axis];
      key += fmt::format(" {}:{}", view.dims[axis].text(), view.strides[axis].text());
    }
    const auto [entry, is_new] = tensors_.try_emplace(key, static_cast<int>(out_.tensors.size()));
    if (is_new) out_.tensors.push_back({name, std::move(view)});
    return entry->second;
  }

  // --- Backwards: where values are to be written --------------------------------------------------------------------

  /// Has `id` computed straight into `where`, if its producer can write such a view and nobody wants it elsewhere.
  bool claim(ValueId id, const View& where) {
    const Value& value = graph_.value(id);
    if (homes_[index(id)] || value.producer < 0) return false;
    const Node& node = graph_.node(value.producer);
    const auto within = [&](ValueId part, const std::vector<Expression>& starts) {
      const Dims& dims = graph_.value(part).dims;
      return slice(where, starts, std::vector<int64_t>(dims.size(), 1), dims);
    };
    if (as<Reshape>(node)) {
      const auto before = reshape(where, graph_.value(node.inputs[0]).dims);
      return before && claim(node.inputs[0], *before);
    }
    if (const auto* op = as<Transpose>(node)) return claim(node.inputs[0], transpose(where, inverse(op->permutation)));
    if (as<Slice>(node) || as<Expand>(node)) return false;
    if (const auto* op = as<Concat>(node)) {
      homes_[index(id)] = where;
      std::vector<Expression> starts(value.dims.size(), 0);
      for (const ValueId part : node.inputs) {
        claim(part, within(part, starts));
        const auto axis = static_cast<size_t>(op->axis);
        starts[axis] = starts[axis] + graph_.value(part).dims[axis];
      }
      return true;
    }
    if (const auto* op = as<Pad>(node)) {
      homes_[index(id)] = where;
      claim(node.inputs[0], within(node.inputs[0], op->before));
      return true;
    }
    if (!can_write(node, where)) return false;
    homes_[index(id)] = where;
    return true;
  }

  /// Claims dense memory of its own for `id`, so that it need not be copied there.
  void claim_dense(ValueId id) {
    const Value& value = graph_.value(id);
    const View where = dense_view(workspace(value.name, value), value.type, value.dims);
    if (!claim(id, where)) out_.storages.pop_back();
  }

  static bool can_write(const Node& node, const View& where) {
    if (as<Elementwise>(node) && node.outputs.size() > 1) return is_dense(where);
    if (as<Elementwise>(node) || as<Reduce>(node)) return dense_order(where).has_value();
    if (as<Gather>(node)) return is_dense(where);
    if (const auto* op = as<Softmax>(node))
      return last_is_packed(transpose(where, axis_last(where.dims.size(), op->axis)));
    return last_is_packed(where);
  }

  /// Where a value lies as far as it is known yet; what is not known is dense. The storage means nothing.
  View expected(ValueId id) const {
    if (homes_[index(id)]) return *homes_[index(id)];
    const Value& value = graph_.value(id);
    if (value.producer >= 0) {
      const Node& node = graph_.node(value.producer);
      if (const auto* op = as<Reshape>(node)) {
        if (const auto view = reshape(expected(node.inputs[0]), op->dims)) return *view;
      } else if (const auto* op = as<Transpose>(node)) {
        return transpose(expected(node.inputs[0]), op->permutation);
      } else if (const auto* op = as<Slice>(node)) {
        return slice(expected(node.inputs[0]), op->starts, op->steps, op->dims);
      } else if (as<Expand>(node)) {
        return broadcast(expected(node.inputs[0]), value.dims);
      } else if (const auto* op = as<Softmax>(node)) {
        return softmax_view(-1, value, op->axis);
      }
    }
    return dense_view(-1, value.type, value.dims);
  }

  /// What one node would have its operands like: asked for by claims, which may be refused.
  void arrange(const Node& node) {
    const ValueId result = node.outputs[0];
    if (as<Concat>(node) || as<Pad>(node)) {
      if (!homes_[index(result)]) claim_dense(result);
    } else if (const auto* op = as<Reshape>(node)) {
      if (!reshape(expected(node.inputs[0]), op->dims)) claim_dense(result);
    } else if (as<Elementwise>(node) || as<Reduce>(node)) {
      for (const ValueId input : node.inputs)
        if (!in_order(expected(input))) claim_dense(input);
    } else if (as<Matmul>(node) && graph_.value(node.inputs[1]).constant) {
      if (!rows_merge(expected(node.inputs[0]))) claim_dense(node.inputs[0]);
      if (operand(node, 3) != no_value && !rows_merge(expected(node.inputs[3]))) claim_dense(node.inputs[3]);
    } else if (as<Normalize>(node) || as<Recurrent>(node) || as<Conv>(node) || as<ConvI8>(node) || as<Pool>(node) ||
               as<Rope>(node)) {
      if (!last_is_packed(expected(node.inputs[0]))) claim_dense(node.inputs[0]);
    }
  }

  /// Read from front to back, repetitions aside.
  static bool in_order(const View& view) {
    View without = view;
    without.dims.clear();
    without.strides.clear();
    for (size_t axis = 0; axis < view.dims.size(); ++axis) {
      if (view.strides[axis].is_constant(0)) continue;
      without.dims.push_back(view.dims[axis]);
      without.strides.push_back(view.strides[axis]);
    }
    return is_dense(without);
  }

  static bool rows_merge(const View& view) {
    View merged = view;
    merge_axes({&merged}, 0, merged.dims.size() - 1);
    return merged.dims.size() <= 2 && last_is_packed(view);
  }

  static ValueId operand(const Node& node, size_t i) { return i < node.inputs.size() ? node.inputs[i] : no_value; }

  static std::vector<int> axis_last(size_t rank, int axis) {
    std::vector<int> permutation;
    for (int i = 0; i < static_cast<int>(rank); ++i)
      if (i != axis) permutation.push_back(i);
    permutation.push_back(axis);
    return permutation;
  }

  static View softmax_view(int storage, const Value& value, int axis) {
    const std::vector<int> permutation = axis_last(value.dims.size(), axis);
    Dims dims;
    for (const int from : permutation) dims.push_back(value.dims[static_cast<size_t>(from)]);
    return transpose(dense_view(storage, value.type, dims), inverse(permutation));
  }

  // --- Forwards: operators ------------------------------------------------------------------------------------------

  /// Where a value lies; what has to be moved for that is moved now.
  View view_of(ValueId id) {
    if (!views_[index(id)]) views_[index(id)] = locate(id);
    return *views_[index(id)];
  }

  View locate(ValueId id) {
    const Value& value = graph_.value(id);
    if (value.constant) return constant_view(value.name, value.type, value.dims, bytes_of(*value.constant, value.name));
    const Node& node = graph_.node(value.producer);
    if (const auto* op = as<Reshape>(node)) {
      const View from = view_of(node.inputs[0]);
      if (const auto view = reshape(from, op->dims)) return *view;
      return *reshape(copy_of(from, value.name, node.absorbed), op->dims);
    }
    if (const auto* op = as<Transpose>(node)) return transpose(view_of(node.inputs[0]), op->permutation);
    if (const auto* op = as<Slice>(node)) return slice(view_of(node.inputs[0]), op->starts, op->steps, op->dims);
    if (as<Expand>(node)) return broadcast(view_of(node.inputs[0]), value.dims);

    const View home = *homes_[index(id)];
    std::vector<Expression> starts(value.dims.size(), 0);
    const auto part = [&](const View& from, const std::vector<Expression>& begin) {
      const View to = slice(home, begin, std::vector<int64_t>(begin.size(), 1), from.dims);
      if (!same_elements(from, to)) copy(from, to, value.name, node.absorbed);
    };
    if (const auto* op = as<Concat>(node)) {
      for (const ValueId input : node.inputs) {
        part(view_of(input), starts);
        const auto axis = static_cast<size_t>(op->axis);
        starts[axis] = starts[axis] + graph_.value(input).dims[axis];
      }
    } else {
      pad(*as<Pad>(node), view_of(node.inputs[0]), home, value, node);
    }
    return home;
  }

  /// The middle, and slabs before and after it along each axis that do not overlap.
  void pad(const Pad& op, const View& from, const View& home, const Value& value, const Node& node) {
    const std::vector<Expression>&before = op.before, &after = op.after;
    const std::vector<int64_t> steps(before.size(), 1);
    std::vector<Expression> starts(before.size(), 0);
    Dims dims = value.dims;
    const View filling = broadcast(scalar(value.type, op.value), value.dims);
    const auto fill = [&]() {
      const View to = slice(home, starts, steps, dims);
      View source = filling;
      source.dims = dims;
      copy(source, to, value.name, node.absorbed);
    };
    for (size_t axis = 0; axis < before.size(); ++axis) {
      if (!before[axis].is_constant(0)) {
        dims[axis] = before[axis];
        fill();
      }
      if (!after[axis].is_constant(0)) {
        starts[axis] = before[axis] + from.dims[axis];
        dims[axis] = after[axis];
        fill();
      }
      starts[axis] = before[axis];
      dims[axis] = from.dims[axis];
    }
    const View to = slice(home, starts, steps, dims);
    if (!same_elements(from, to)) copy(from, to, value.name, node.absorbed);
  }

  View scalar(Type type, float value) {
    if (type == Type::f32) return constant_view("scalar", type, {}, bytes_of(std::vector{value}));
    if (type == Type::i32) return constant_view("scalar", type, {}, bytes_of(std::vector{static_cast<int32_t>(value)}));
    return constant_view("scalar", type, {}, bytes_of(std::vector{static_cast<uint8_t>(value != 0)}));
  }

  void copy(View from, View to, const std::string& name, const std::vector<std::string>& absorbed) {
    if (from.storage == to.storage) from = copy_of(from, name, absorbed);  // a row of a cache written again behind it
    merge_axes({&from, &to}, 0, from.dims.size());
    add(OperatorKind::copy, name, absorbed, CopyParams{}, {from}, {to}, 0);
  }

  /// The same elements, dense; made once for each view.
  View copy_of(const View& view, const std::string& name, const std::vector<std::string>& absorbed) {
    const int source = tensor(view, name);
    if (const auto found = copies_.find(source); found != copies_.end()) return found->second;
    Value value;
    value.type = view.type;
    value.dims = view.dims;
    const View dense = dense_view(workspace(name, value), view.type, view.dims);
    copy(view, dense, name, absorbed);
    return copies_[source] = dense;
  }

  View packed(const View& view, const Node& node) { return last_is_packed(view) ? view : copy_of(view, node.name, {}); }

  using Optional = std::optional<View>;

  LoweredOperator& add(OperatorKind kind, const std::string& name, const std::vector<std::string>& absorbed,
                       LoweredParams params, const std::vector<Optional>& inputs, const std::vector<Optional>& outputs,
                       Expression macs) {
    LoweredOperator op;
    op.kind = kind;
    op.name = name;
    op.absorbed = absorbed;
    op.params = std::move(params);
    op.macs = std::move(macs);
    const auto number = [&](const Optional& view) {
      if (!view) return -1;
      const Storage& storage = out_.storages[static_cast<size_t>(view->storage)];
      return tensor(*view, storage.name);
    };
    for (const Optional& view : inputs) op.inputs.push_back(number(view));
    for (const Optional& view : outputs) op.outputs.push_back(number(view));
    while (!op.inputs.empty() && op.inputs.back() == -1) op.inputs.pop_back();
    while (!op.outputs.empty() && op.outputs.back() == -1) op.outputs.pop_back();
    out_.operators.push_back(std::move(op));
    return out_.operators.back();
  }

  /// A node's operands as views, and where its results go.
  struct Places {
    const Node& node;
    std::vector<Optional> inputs, outputs;
  };

  void emit(const Node& node) {
    Places places{node, {}, {}};
    for (size_t i = 0; i < node.inputs.size(); ++i)
      places.inputs.push_back(operand(node, i) == no_value || in_panels(node, i) ? Optional()
                                                                                 : view_of(node.inputs[i]));
    for (const ValueId output : node.outputs) {
      places.outputs.emplace_back();
      if (output == no_value || !read_[index(output)]) continue;
      Optional& place = places.outputs.back();
      place = homes_[index(output)];
      // Who claimed the place finds the value elsewhere and copies it.
      if (!place || std::any_of(places.inputs.begin(), places.inputs.end(),
                                [&](const Optional& input) { return input && input->storage == place->storage; }))
        place = own_place(node, output);
      views_[index(output)] = place;
    }
    std::visit([&](const auto& op) { lower(op, places); }, node.operation);
  }

  View own_place(const Node& node, ValueId output) {
    const Value& value = graph_.value(output);
    const int storage = workspace(value.name, value);
    if (const auto* op = as<Softmax>(node)) return softmax_view(storage, value, op->axis);
    return dense_view(storage, value.type, value.dims);
  }

  template <class Operation>
  void lower(const Operation&, Places& places) {
    throw Error(Fault::model, fmt::format("node '{}' ({}) has no operator on the device", places.node.name,
                                          heed::tools::name(places.node.operation)));
  }

  void lower(const Elementwise& op, Places& places) {
    Elementwise program = op;
    // A program stores every result: one that nobody reads has a place of its own.
    for (size_t i = 0; i < places.outputs.size(); ++i)
      if (!places.outputs[i]) places.outputs[i] = own_place(places.node, places.node.outputs[i]);
    for (Optional& input : places.inputs) input = broadcast(*input, op.dims);

    // In an order of the axes in which the output is dense; several outputs are dense as they are.
    std::vector<int> order(op.dims.size());
    std::iota(order.begin(), order.end(), 0);
    if (places.outputs.size() == 1) order = *dense_order(*places.outputs[0]);
    const std::vector<int> place = inverse(order);
    std::vector<View*> views;
    for (Optional& output : places.outputs) views.push_back(&*output);
    for (Optional& input : places.inputs) views.push_back(&*input);
    for (View* view : views) *view = transpose(*view, order);
    std::vector<int> axes(program.sources.size(), -1);
    std::vector<int*> keep;
    for (size_t i = 0; i < axes.size(); ++i)
      if (program.sources[i].kind == SourceKind::iota) {
        axes[i] = place[static_cast<size_t>(program.sources[i].axis)];
        keep.push_back(&axes[i]);
      }
    merge_axes(views, 0, op.dims.size(), keep);
    for (size_t i = 0; i < axes.size(); ++i)
      if (axes[i] >= 0) program.sources[i].axis = axes[i];
    program.dims = views.front()->dims;
    add(OperatorKind::elementwise, places.node.name, places.node.absorbed, std::move(program), places.inputs,
        places.outputs, 0);
  }

  void lower(const Gather& op, Places& places) {
    const int axis = op.axis;
    GatherParams params{static_cast<uint8_t>(axis)};
    if (const Node* product = tied_to(places.node)) {
      const int64_t entries = graph_.value(places.node.inputs[0]).constant->dims[0];
      if (places.inputs.size() > 2) {
        const std::span<const float> scale = graph_.value(places.node.inputs[2]).constant->floats();
        std::vector<float> padded(scale.begin(), scale.end());
        padded.resize(static_cast<size_t>((entries + 15) / 16 * 16));
        places.inputs[0] = matmul_panels_i8(*product)[0];
        places.inputs[2] = constant_view("scale", Type::f32, {(entries + 15) / 16, 16}, bytes_of(padded));
      } else {
        places.inputs[0] = panels(graph_.value(product->inputs[1]));
      }
      params.packed = 1;
      params.fill = static_cast<uint8_t>((16 - entries % 16) % 16);
    }
    add(OperatorKind::gather, places.node.name, places.node.absorbed, params, places.inputs, places.outputs, 0);
    check_index(places.node.inputs[1], graph_.value(places.node.inputs[0]).dims[static_cast<size_t>(axis)]);
  }

  /// The product whose weights are the columns that a table is the rows of.
  const Node* tied_to(const Node& gather) const {
    const auto& table = graph_.value(gather.inputs[0]).constant;
    const bool scaled = gather.inputs.size() > 2;
    if (!table || (!scaled && table->type != Type::f32) || table->dims.size() != 2 || as<Gather>(gather)->axis != 0)
      return nullptr;
    const int64_t entries = table->dims[0], k = table->dims[1], size = size_of(table->type);
    if (entries == 0) return nullptr;
    for (const NodeId id : order_) {
      const Node& node = graph_.node(id);
      if (scaled ? as<MatmulI8>(node) == nullptr : as<Matmul>(node) == nullptr) continue;
      const auto& weights = graph_.value(node.inputs[scaled ? 2 : 1]).constant;
      if (!weights || weights->dims != std::vector<int64_t>{k, entries}) continue;
      bool same = true;
      for (int64_t i = 0; same && i < entries; ++i)
        for (int64_t c = 0; same && c < k; ++c)
          same = std::memcmp(table->data + (i * k + c) * size, weights->data + (c * entries + i) * size,
                             static_cast<size_t>(size)) == 0;
      if (same) return &node;
    }
    return nullptr;
  }

  /// Whether an operand is weights that only their panels are read of.
  bool in_panels(const Node& node, size_t i) const {
    const Value& weights = graph_.value(node.inputs[i]);
    if (!weights.constant) return false;
    const std::vector<int64_t>& dims = weights.constant->dims;
    if (as<Matmul>(node)) return i == 1 && weights.constant->count() == dims[dims.size() - 2] * dims.back();
    if (as<MatmulI8>(node)) return i == 2 || i == 3 || i == 7;
    if (as<Gather>(node)) return i != 1 && tied_to(node) != nullptr;
    if (as<ConvI8>(node)) return i == 1 || i == 2;
    if (as<RecurrentI8>(node)) return i >= 2 && i <= 6;
    return (as<Conv>(node) && i == 1) || (as<Recurrent>(node) && i >= 1 && i <= 3);
  }

  /// Weights [K, N] as a matmul wants them.
  View panels(const Value& weights) {
    const int64_t rows = weights.constant->dims[weights.constant->dims.size() - 2],
                  columns = weights.constant->dims.back();
    return constant_view(weights.name, Type::f32, {(columns + 15) / 16, rows, 16},
                         bytes_of(matmul_panels(weights.constant->floats(), rows, columns)));
  }

  /// An index that is an input of the model, whole and unchanged, is checked before each run.
  void check_index(ValueId id, const Expression& bound) {
    for (;;) {
      const NodeId producer = graph_.value(id).producer;
      if (producer < 0 || !(as<Reshape>(graph_.node(producer)) || as<Transpose>(graph_.node(producer)))) break;
      id = graph_.node(producer).inputs[0];
    }
    const auto input = inputs_.find(id);
    if (input == inputs_.end()) return;
    const bool known = std::any_of(out_.index_checks.begin(), out_.index_checks.end(), [&](const auto& check) {
      return check.input == input->second && check.bound == bound;
    });
    if (!known) out_.index_checks.push_back({input->second, bound});
  }

  void lower(const Matmul& op, Places& places) {
    View a = *places.inputs[0], y = *places.outputs[0];
    Optional bias = places.inputs.size() > 2 ? places.inputs[2] : Optional();
    Optional residual = places.inputs.size() > 3 ? places.inputs[3] : Optional();
    const size_t rank = y.dims.size();
    const Expression m = y.dims[rank - 2], n = y.dims[rank - 1], k = a.dims.back();
    const Expression macs = count(y.dims) * k;
    if (bias) bias = packed(*bias, places.node);
    if (residual) residual = packed(*residual, places.node);
    const auto batched = [&](const View& view, const Expression& rows, const Expression& columns) {
      Dims dims = y.dims;
      dims[rank - 2] = rows;
      dims[rank - 1] = columns;
      return broadcast(view, dims);
    };
    a = batched(a, m, k);

    const bool is_packed = in_panels(places.node, 1);
    View b = is_packed ? panels(graph_.value(places.node.inputs[1])) : batched(*places.inputs[1], k, n);
    const bool one_b = is_packed || std::all_of(b.strides.begin(), b.strides.end() - 2,
                                                [](const Expression& s) { return s.is_constant(0); });
    std::vector<View*> views{&a, &y};
    if (residual) views.push_back(&*residual);
    if (one_b) {  // then all rows are rows of one product, as far as they lie at one stride
      merge_axes(views, 0, rank - 1);
      if (!is_packed) {
        View one = b;
        one.dims.erase(one.dims.begin(), one.dims.end() - 2);
        one.strides.erase(one.strides.begin(), one.strides.end() - 2);
        Dims dims(y.dims.begin(), y.dims.end() - 2);
        dims.push_back(k);
        dims.push_back(n);
        b = broadcast(one, dims);
      }
    } else {
      views.push_back(&b);
      merge_axes(views, 0, rank - 2);
    }
    add(OperatorKind::matmul, places.node.name, places.node.absorbed, MatmulParams{op.activation, is_packed, {}},
        {a, b, bias, residual}, {y}, macs);
  }

  void lower(const Quantize&, Places& places) {
    const View x = packed(*places.inputs[0], places.node);
    for (size_t i = 0; i < places.outputs.size(); ++i)
      if (!places.outputs[i]) places.outputs[i] = own_place(places.node, places.node.outputs[i]);
    const Optional given = places.inputs.size() > 1 ? places.inputs[1] : Optional();
    add(OperatorKind::quantize, places.node.name, places.node.absorbed, QuantizeParams{}, {x, given}, places.outputs,
        0);
  }

  void lower(const MatmulI8& op, Places& places) {
    const std::vector<int64_t>& b = graph_.value(places.node.inputs[2]).constant->dims;
    const int64_t k = b[0], panels = (b[1] + 15) / 16;
    const auto as_it_lies = [&](size_t i) { return i < places.inputs.size() ? places.inputs[i] : Optional(); };
    const auto optional = [&](size_t i) {
      const Optional view = as_it_lies(i);
      return view ? Optional(packed(*view, places.node)) : Optional();
    };
    Optional b_zero;
    if (const ValueId zeros = operand(places.node, 7); zeros != no_value) {
      const auto integers = graph_.value(zeros).constant->integers();
      std::vector<int32_t> values(integers.begin(), integers.end());
      values.resize(static_cast<size_t>(panels * 16));
      b_zero = constant_view(graph_.value(zeros).name, Type::i32, {panels, 16}, bytes_of(values));
    }
    const Value& y = graph_.value(places.node.outputs[0]);
    if (op.groups > 0)  // a q whose scale is given is read, or never asked for
      for (size_t i = 1; i < places.outputs.size(); ++i)
        if (!places.outputs[i]) places.outputs[i] = own_place(places.node, places.node.outputs[i]);
    Expression rows = 1;
    for (size_t axis = 0; axis + 1 < y.dims.size(); ++axis) rows = rows * y.dims[axis];
    const auto block = static_cast<uint8_t>(std::clamp<int64_t>(rows.range(graph_.dimensions).upper, 1, 24));
    add(OperatorKind::matmul_i8, places.node.name, places.node.absorbed, MatmulI8Params{op.activation, block, {}},
        with_panels({optional(0), *places.inputs[1]}, matmul_panels_i8(places.node),
                    {optional(4), optional(5), as_it_lies(6), b_zero, as_it_lies(8)}),
        places.outputs, count(y.dims) * k);
  }

  /// Weights of int8 in panels, the scales of their columns and the sums.
  using ViewsI8 = std::array<Optional, 3>;

  /// Of operand i and the scales behind it; pack.h. `panels`: the axes of the panels.
  ViewsI8 panels_i8(const Node& node, size_t i, int64_t k, int64_t k_step, int64_t column_step,
                    const std::vector<int64_t>& columns, const Dims& panels) {
    const Value &w = graph_.value(node.inputs[i]), &scale = graph_.value(node.inputs[i + 1]);
    const PanelsI8 packed =
        tools::panels_i8(w.constant->bytes(), scale.constant->floats(), k, k_step, column_step, columns);
    const auto view = [&](const char* what, Type type, std::initializer_list<Expression> inner, const auto& values) {
      Dims dims = panels;
      dims.insert(dims.end(), inner);
      return Optional(constant_view(w.name + what, type, dims, bytes_of(values)));
    };
    return {view("", Type::i8, {(k + 3) / 4, 16, 4}, packed.weights), view(" scale", Type::f32, {16}, packed.scale),
            view(" sum", Type::i32, {16}, packed.sum)};
  }
  ViewsI8 matmul_panels_i8(const Node& node) {
    const std::vector<int64_t>& b = graph_.value(node.inputs[2]).constant->dims;
    return panels_i8(node, 2, b[0], b[1], 1, columns_of(b[1], 1), {(b[1] + 15) / 16});
  }
  static std::vector<Optional> with_panels(std::vector<Optional> operands, const ViewsI8& panels,
                                           const std::vector<Optional>& rest) {
    operands.insert(operands.end(), panels.begin(), panels.end());
    operands.insert(operands.end(), rest.begin(), rest.end());
    return operands;
  }

  void lower(const Attention& op, Places& places) {
    const Dims &q = places.inputs[0]->dims, &k = places.inputs[1]->dims, &v = places.inputs[2]->dims;
    if (places.inputs.size() > 3 && places.inputs[3])
      places.inputs[3] = broadcast(*places.inputs[3], {q[0], q[1], q[2], k[2]});
    if (places.inputs.size() > 4 && places.inputs[4]) places.inputs[4] = broadcast(*places.inputs[4], {q[0], k[2]});
    for (size_t i = 0; i < 3 && op.int8; ++i) places.inputs[i] = packed(*places.inputs[i], places.node);
    AttentionLowered params{};
    params.params.scale = op.scale;
    params.params.causal = op.causal;
    params.params.window = op.window;
    params.params.window_left = static_cast<int32_t>(std::min<int64_t>(op.window_left, INT32_MAX / 2));
    params.params.window_right = static_cast<int32_t>(std::min<int64_t>(op.window_right, INT32_MAX / 2));
    params.params.block_rows = block_rows(q[2], k[2]);
    params.offset = op.offset;
    mark(places.node);
    const Expression macs = q[0] * q[1] * q[2] * k[2] * (q[3] + v[3]);
    LoweredParams lowered = params;
    if (op.int8) lowered = AttentionI8Lowered{params};
    add(op.int8 ? OperatorKind::attention_i8 : OperatorKind::attention, places.node.name, places.node.absorbed,
        std::move(lowered), places.inputs, places.outputs, macs);
  }

  /// Query rows that share one pass over the keys: 24 are as fast as more and fill every instruction set's tiles, 12
  /// nearly; 12 where the scores of 24 rows would take more than 64 KiB.
  uint16_t block_rows(const Expression& queries, const Expression& keys) const {
    const int64_t rows = keys.range(graph_.dimensions).upper * 24 * 4 > 65536 ? 12 : 24;
    return static_cast<uint16_t>(std::clamp<int64_t>(queries.range(graph_.dimensions).upper, 1, rows));
  }

  void mark(const Node& node) {
    if (node.mark)
      out_.marks.push_back({static_cast<int>(out_.operators.size()), node.name, node.mark->queries, node.mark->keys});
  }

  void lower(const Normalize& op, Places& places) {
    View x = packed(*places.inputs[0], places.node);
    if (op.groups > 0)
      for (size_t i = 1; i < places.outputs.size(); ++i)
        if (!places.outputs[i]) places.outputs[i] = own_place(places.node, places.node.outputs[i]);
    std::vector<View*> rows{&x};
    for (Optional& output : places.outputs)
      if (output) rows.push_back(&*output);
    merge_axes(rows, 0, x.dims.size() - 1);
    std::vector<Optional> inputs{x};
    for (size_t i = 1; i < places.inputs.size(); ++i)
      inputs.push_back(places.inputs[i] ? packed(*places.inputs[i], places.node) : Optional());
    add(OperatorKind::normalize, places.node.name, places.node.absorbed, NormalizeParams{op.kind, {}, op.epsilon},
        inputs, places.outputs, 0);
  }

  void lower(const Softmax& op, Places& places) {
    const std::vector<int> order = axis_last(places.inputs[0]->dims.size(), op.axis);
    View x = packed(transpose(*places.inputs[0], order), places.node), y = transpose(*places.outputs[0], order);
    if (!places.node.mark) merge_axes({&x, &y}, 0, x.dims.size() - 1);  // a mark needs the axes
    mark(places.node);
    add(OperatorKind::softmax, places.node.name, places.node.absorbed, SoftmaxParams{op.log, {}}, {x}, {y}, 0);
  }

  void lower(const Reduce& op, Places& places) {
    View x = *places.inputs[0], y = *places.outputs[0];
    const auto reduced = [&](size_t axis) {
      return std::find(op.axes.begin(), op.axes.end(), static_cast<int>(axis)) != op.axes.end();
    };
    // y without the axes that only stand for reduced ones, in an order in which it is dense; x in that order, reduced
    // axes last.
    std::vector<int> outer, inner, kept;
    for (size_t axis = 0; axis < x.dims.size(); ++axis)
      (reduced(axis) ? inner : outer).push_back(static_cast<int>(axis));
    if (op.keep) {
      kept = outer;
      kept.insert(kept.end(), inner.begin(), inner.end());
      y = transpose(y, kept);
      y.dims.resize(outer.size());
      y.strides.resize(outer.size());
    }
    const std::vector<int> order = *dense_order(y);
    y = transpose(y, order);
    std::vector<int> permutation;
    for (const int place : order) permutation.push_back(outer[static_cast<size_t>(place)]);
    permutation.insert(permutation.end(), inner.begin(), inner.end());
    x = transpose(x, permutation);

    View outer_x = x, inner_x = x;
    const auto split = static_cast<std::ptrdiff_t>(outer.size());
    outer_x.dims.erase(outer_x.dims.begin() + split, outer_x.dims.end());
    outer_x.strides.erase(outer_x.strides.begin() + split, outer_x.strides.end());
    inner_x.dims.erase(inner_x.dims.begin(), inner_x.dims.begin() + split);
    inner_x.strides.erase(inner_x.strides.begin(), inner_x.strides.begin() + split);
    merge_axes({&outer_x, &y}, 0, outer.size());
    merge_axes({&inner_x}, 0, inner.size());
    x.dims = outer_x.dims;
    x.strides = outer_x.strides;
    x.dims.insert(x.dims.end(), inner_x.dims.begin(), inner_x.dims.end());
    x.strides.insert(x.strides.end(), inner_x.strides.begin(), inner_x.strides.end());
    add(OperatorKind::reduce, places.node.name, places.node.absorbed,
        ReduceParams{op.kind, static_cast<uint8_t>(inner_x.dims.size()), op.last_index, 0}, {x}, {y}, 0);
  }

  /// Zeros, however they were made: what an absent state is.
  bool is_zero(ValueId id) const {
    for (;;) {
      const Value& value = graph_.value(id);
      if (value.constant) {
        const auto values = value.constant->floats();
        return std::all_of(values.begin(), values.end(), [](float x) { return x == 0; });
      }
      if (value.producer < 0 || !is_arrangement(graph_.node(value.producer)) ||
          as<Concat>(graph_.node(value.producer)) || as<Pad>(graph_.node(value.producer)))
        return false;
      id = graph_.node(value.producer).inputs[0];
    }
  }

  /// A first state, operand i of a recurrent layer.
  Optional first_state(const Places& places, size_t i) const {
    if (operand(places.node, i) == no_value || is_zero(places.node.inputs[i])) return std::nullopt;
    return *places.inputs[i];
  }

  RecurrentParams recurrent_params(const Recurrent& op, const View& x) const {
    const int64_t columns = gates_of(op.cell) * ((op.hidden + 15) / 16) * 16;
    return {op.cell,
            op.direction,
            op.linear_before_reset,
            0,
            static_cast<int32_t>(op.hidden),
            chunk(x.dims[0], x.dims[1], columns)};
  }
  static Expression recurrent_macs(const Recurrent& op, const View& x) {
    const int64_t directions = op.direction == Direction::both ? 2 : 1;
    return x.dims[0] * x.dims[1] * (directions * gates_of(op.cell) * op.hidden) * (x.dims[2] + op.hidden);
  }

  void lower(const Recurrent& op, Places& places) {
    const Node& node = places.node;
    const auto literal = [&](size_t i) -> std::span<const float> {
      const ValueId id = operand(node, i);
      if (id == no_value) return {};
      const Value& value = graph_.value(id);
      if (!value.constant)
        throw Error(Fault::model, fmt::format("node '{}': the weights '{}' of a recurrent layer are not constant",
                                              node.name, value.name));
      return value.constant->floats();
    };
    const int64_t directions = op.direction == Direction::both ? 2 : 1;
    const int64_t gates = gates_of(op.cell);
    const int64_t blocks = (op.hidden + 15) / 16;
    const Expression inputs = places.inputs[0]->dims[2];
    const int64_t channels = *inputs.constant();
    const bool separate = op.cell == Cell::gru && op.linear_before_reset;
    const View w = constant_view(node.name + ".w", Type::f32, {directions, blocks, gates, channels, 16},
                                 bytes_of(recurrent_panels(literal(1), op.cell, directions, op.hidden, channels)));
    const View r = constant_view(node.name + ".r", Type::f32, {directions, blocks, gates, op.hidden, 16},
                                 bytes_of(recurrent_panels(literal(2), op.cell, directions, op.hidden, op.hidden)));
    const View b = constant_view(node.name + ".b", Type::f32, {directions, blocks, gates + (separate ? 1 : 0), 16},
                                 bytes_of(recurrent_bias(literal(3), op.cell, directions, op.hidden, separate)));
    const View x = packed(*places.inputs[0], node);
    add(OperatorKind::recurrent, node.name, node.absorbed, recurrent_params(op, x),
        {x, w, r, b, first_state(places, 4), first_state(places, 5)}, places.outputs, recurrent_macs(op, x));
  }

  void lower(const RecurrentI8& op, Places& places) {
    const Node& node = places.node;
    const int64_t directions = op.direction == Direction::both ? 2 : 1, gates = gates_of(op.cell);
    const View x = packed(*places.inputs[0], node);
    const std::vector<int64_t> columns = recurrent_columns(op.cell, directions, op.hidden);
    const Dims panels{directions, (op.hidden + 15) / 16, gates};
    const int64_t inputs = *x.dims[2].constant();
    // The GRU with linear_before_reset has the recurrent bias of its last gate within R h.
    const bool separate = op.cell == Cell::gru && op.linear_before_reset && operand(node, 6) != no_value;
    std::vector<float> bias = recurrent_bias(
        operand(node, 6) == no_value ? std::span<const float>() : graph_.value(node.inputs[6]).constant->floats(),
        op.cell, directions, op.hidden, separate);
    std::vector<float> of_state;
    if (separate) {
      std::vector<float> of_input;
      for (size_t at = 0; at < bias.size(); at += 64) {
        const auto row = bias.begin() + static_cast<std::ptrdiff_t>(at);
        of_input.insert(of_input.end(), row, row + 48);
        of_state.insert(of_state.end(), 32, 0.0f);
        of_state.insert(of_state.end(), row + 48, row + 64);
      }
      bias = std::move(of_input);
    }
    const auto bias_view = [&](const char* name, const std::vector<float>& values) {
      return Optional(
          constant_view(node.name + name, Type::f32, {panels[0], panels[1], panels[2], 16}, bytes_of(values)));
    };
    const std::vector<Optional> of_input =
        with_panels({x, *places.inputs[1]}, panels_i8(node, 2, inputs, 1, inputs, columns, panels), {});
    add(OperatorKind::recurrent_i8, node.name, node.absorbed, RecurrentI8Lowered{recurrent_params(op, x)},
        with_panels(of_input, panels_i8(node, 4, op.hidden, 1, op.hidden, columns, panels),
                    {bias_view(".b", bias), separate ? bias_view(".rb", of_state) : Optional(), first_state(places, 7),
                     first_state(places, 8)}),
        places.outputs, recurrent_macs(op, x));
  }

  std::span<const float> constant_weights(const Node& node) const {
    const Value& weights = graph_.value(node.inputs[1]);
    if (!weights.constant)
      throw Error(Fault::model, fmt::format("node '{}': the weights '{}' of a convolution are not constant", node.name,
                                            weights.name));
    return weights.constant->floats();
  }

  /// The spatial axes as depth, height and width: those of size 1 go, and such come in front where there are too few.
  /// `views`: [N, spatial.., C].
  static std::array<WindowAxis, 3> spatial(const Node& node, const std::vector<WindowAxis>& axes,
                                           const std::vector<View*>& views) {
    std::vector<size_t> kept;
    for (size_t i = 0; i < axes.size(); ++i) {
      const bool one = std::all_of(views.begin(), views.end(), [&](View* v) { return v->dims[i + 1].is_constant(1); });
      if (!one || axes[i].kernel != 1 || axes[i].before != 0) kept.push_back(i);
    }
    if (kept.size() > 3)
      throw Error(Fault::model,
                  fmt::format("node '{}': a window over {} axes; at most 3 run on the device", node.name, kept.size()));
    std::array<WindowAxis, 3> result;
    const size_t front = 3 - kept.size();
    for (size_t k = 0; k < kept.size(); ++k) result[front + k] = axes[kept[k]];
    for (View* view : views) {
      const View whole = *view;
      view->dims.assign(5, 1);
      view->strides.assign(5, 1);
      const auto place = [&](size_t to, size_t from) {
        view->dims[to] = whole.dims[from];
        view->strides[to] = whole.strides[from];
      };
      place(0, 0);
      for (size_t k = 0; k < kept.size(); ++k) place(1 + front + k, 1 + kept[k]);
      place(4, whole.dims.size() - 1);
    }
    return result;
  }

  static Window window_of(const std::array<WindowAxis, 3>& axes) {
    Window window{};
    for (size_t i = 0; i < 3; ++i) {
      window.kernel[i] = static_cast<int32_t>(axes[i].kernel);
      window.strides[i] = static_cast<int32_t>(axes[i].stride);
      window.dilations[i] = static_cast<int32_t>(axes[i].dilation);
      window.before[i] = static_cast<int32_t>(axes[i].before);
    }
    return window;
  }

  void lower(const Conv& op, Places& places) {
    const Node& node = places.node;
    const std::span<const float> weights = constant_weights(node);
    View x = packed(*places.inputs[0], node), y = *places.outputs[0];
    const Optional bias = places.inputs.size() > 2 && places.inputs[2] ? packed(*places.inputs[2], node) : Optional();
    Optional residual = places.inputs.size() > 3 ? Optional(packed(*places.inputs[3], node)) : Optional();
    std::vector<View*> views{&x, &y};
    if (residual) views.push_back(&*residual);
    const int64_t channels = *x.dims.back().constant(), outputs = *y.dims.back().constant();
    const Expression macs = count(y.dims) * (static_cast<int64_t>(weights.size()) / outputs);
    const bool depthwise = op.groups > 1 && op.groups == channels && op.groups == outputs;
    // Windows that reach outside share tiles and scratch up to a few full tiles.
    const bool reaches_out = std::any_of(op.axes.begin(), op.axes.end(),
                                         [](const WindowAxis& axis) { return axis.before > 0 || axis.after > 0; });
    const int64_t width = y.dims[y.dims.size() - 2].range(graph_.dimensions).upper;
    const auto block = static_cast<uint8_t>(reaches_out && !depthwise ? std::clamp<int64_t>(width, 1, 12) : 0);
    const int64_t k = static_cast<int64_t>(weights.size()) / outputs;
    const std::string name = graph_.value(node.inputs[1]).name;
    const View w = depthwise ? constant_view(name, Type::f32, {k, channels}, bytes_of(weights))
                             : constant_view(name, Type::f32, {op.groups * ((outputs / op.groups + 15) / 16), k, 16},
                                             bytes_of(conv_panels(weights, k, outputs, op.groups)));
    const Window window = window_of(spatial(node, op.axes, views));
    const ConvParams params{op.activation, depthwise, block, 0, static_cast<int32_t>(op.groups), window};
    add(OperatorKind::conv, node.name, node.absorbed, params, {x, w, bias, residual}, {y}, macs);
  }

  void lower(const ConvI8& op, Places& places) {
    const Node& node = places.node;
    const auto optional = [&](size_t i) {
      return i < places.inputs.size() && places.inputs[i] ? Optional(packed(*places.inputs[i], node)) : Optional();
    };
    View x = packed(*places.inputs[0], node), y = *places.outputs[0];
    const Optional bias = optional(3);
    Optional residual = optional(4);
    std::vector<View*> views{&x, &y};
    if (residual) views.push_back(&*residual);
    const Literal& w = *graph_.value(node.inputs[1]).constant;
    const int64_t outputs = w.dims.back(), k = w.count() / outputs;
    const Expression macs = count(y.dims) * k;
    const Window window = window_of(spatial(node, op.axes, views));
    const auto block = static_cast<uint8_t>(std::clamp<int64_t>(y.dims[3].range(graph_.dimensions).upper, 1, 24));
    const std::vector<int64_t> columns = columns_of(outputs, op.groups);
    const ViewsI8 panels = panels_i8(node, 1, k, outputs, 1, columns, {static_cast<int64_t>(columns.size()) / 16});
    add(OperatorKind::conv_i8, node.name, node.absorbed,
        ConvI8Params{op.activation, block, {}, static_cast<int32_t>(op.groups), window},
        with_panels({x}, panels, {bias, residual}), {y}, macs);
  }

  void lower(const Pool& op, Places& places) {
    View x = packed(*places.inputs[0], places.node), y = *places.outputs[0];
    const std::array<WindowAxis, 3> axes = spatial(places.node, op.axes, {&x, &y});
    PoolParams params{op.kind, {}, window_of(axes), {}, {}};
    for (size_t i = 0; i < 3 && op.counts_padding; ++i) {
      params.count_before[i] = static_cast<int32_t>(axes[i].before);
      params.count_after[i] = static_cast<int32_t>(axes[i].after);
    }
    add(OperatorKind::pool, places.node.name, places.node.absorbed, params, {x}, {y}, 0);
  }

  void lower(const Rope& op, Places& places) {
    View x = packed(*places.inputs[0], places.node), y = *places.outputs[0];
    const auto table = [&](size_t i) {
      const View view = packed(*places.inputs[i], places.node);
      Dims dims = x.dims;
      dims.back() = view.dims.back();
      return broadcast(view, dims);
    };
    View cos = table(1), sin = table(2);
    merge_axes({&x, &y, &cos, &sin}, 0, x.dims.size() - 1);
    add(OperatorKind::rope, places.node.name, places.node.absorbed, RopeParams{op.pairing, {}}, {x, cos, sin}, {y}, 0);
  }

  /// Steps of a recurrent layer whose input product is computed at once. Some 32 rows hide the reading of the weights,
  /// which the smallest batch decides; the largest one decides what that takes, which stays within half a mebibyte.
  int32_t chunk(const Expression& steps, const Expression& batch, int64_t columns) const {
    const Expression::Range rows = batch.range(graph_.dimensions);
    const int64_t fewest = std::max<int64_t>(1, rows.lower), most = std::max<int64_t>(1, rows.upper);
    const int64_t wanted = (32 + fewest - 1) / fewest, affordable = (int64_t{1} << 19) / (most * columns * 4);
    const int64_t all = steps.range(graph_.dimensions).upper;
    return static_cast<int32_t>(std::max<int64_t>(1, std::min({wanted, affordable, all})));
  }

  Graph graph_;
  Lowered out_;
  std::vector<NodeId> order_;
  std::vector<std::optional<View>> homes_;          // of values: the place they are to be written to
  std::vector<std::optional<View>> views_;          // of values: where they lie
  std::vector<bool> read_;                          // of values: by anybody
  std::unordered_multimap<size_t, int> constants_;  // storages by the hash of their bytes
  std::map<std::string, int> tensors_;
  std::map<int, View> copies_;     // by the tensor that was copied
  std::map<ValueId, int> inputs_;  // of the file, by their values
};

}  // namespace

Lowered lower(Graph graph) {
  return Lowering(std::move(graph)).run();
}

}  // namespace heed::tools

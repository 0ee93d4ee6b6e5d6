#include "tools/graph/channels.h"

#include <algorithm>
#include <cstring>

namespace heed::tools {
namespace {

using Channels = std::vector<Channel>;

bool any_negative(const Channels& channels) {
  return std::any_of(channels.begin(), channels.end(), [](const Channel& channel) { return channel.negative; });
}

Channels positive(Channels channels) {
  for (Channel& channel : channels) channel.negative = false;
  return channels;
}

class Picker {
 public:
  explicit Picker(Graph& graph) : graph_(graph) {}

  ValueId pick(ValueId x, size_t axis, const Channels& channels) {
    const Value& value = graph_.value(x);
    if (!value.constant && value.producer >= 0) {
      const Node node = graph_.node(value.producer);  // a copy: nodes are added
      if (const auto found =
              std::visit([&](const auto& op) { return below(op, node, x, axis, channels); }, node.operation))
        return *found;
    }
    bool same = value.dims[axis] == static_cast<int64_t>(channels.size());
    for (size_t i = 0; same && i < channels.size(); ++i)
      same = channels[i].from == static_cast<int64_t>(i) && !channels[i].negative;
    return same ? x : with_signs(gathered(x, axis, channels), axis, channels);
  }

 private:
  const Dims& dims(ValueId id) const { return graph_.value(id).dims; }
  /// In the place of `node`.
  ValueId add(const Node& node, Operation operation, std::vector<ValueId> inputs) {
    return graph_.add_value(std::move(operation), std::move(inputs), node.name, node.absorbed);
  }

  /// Equal constants are one value, so that what is computed from them is found to be equal.
  ValueId constant(Literal literal) {
    const size_t element = literal.type == Type::f32 ? 4 : literal.type == Type::i32 ? 8 : 1;
    const size_t bytes = static_cast<size_t>(literal.count()) * element;
    for (ValueId id = 0; id < static_cast<ValueId>(graph_.value_count()); ++id) {
      const auto& known = graph_.value(id).constant;
      if (known && known->type == literal.type && known->dims == literal.dims &&
          std::memcmp(known->data, literal.data, bytes) == 0)
        return id;
    }
    return graph_.constant("", std::move(literal));
  }

  ValueId gathered(ValueId x, size_t axis, const Channels& channels) {
    std::vector<int64_t> places;
    for (const Channel& channel : channels) places.push_back(channel.from);
    const Literal index = Literal::of({static_cast<int64_t>(places.size())}, places);
    const Gather gather{static_cast<int>(axis)};
    return computed(gather, x, index);
  }

  ValueId with_signs(ValueId x, size_t axis, const Channels& channels) {
    if (!any_negative(channels)) return x;
    std::vector<float> signs;
    for (const Channel& channel : channels) signs.push_back(channel.negative ? -1.0f : 1.0f);
    std::vector<int64_t> shape(dims(x).size() - axis, 1);
    shape[0] = static_cast<int64_t>(signs.size());
    const Literal factors = Literal::of(shape, signs);
    return computed(Map{Step::f_mul}, x, factors);
  }

  ValueId computed(const Operation& operation, ValueId x, const Literal& second) {
    Node node;
    node.operation = operation;
    node.name = graph_.value(x).name;
    if (!graph_.value(x).constant) return add(node, operation, {x, constant(second)});
    return constant(evaluate(node, {&*graph_.value(x).constant, &second}, {})[0]);
  }

  // --- Picked from the operands of an operation, where it treats channels one by one.

  using Found = std::optional<ValueId>;

  /// The axis of operand i that broadcasts to an axis of the result; nothing where it only repeats along it.
  std::optional<size_t> operand_axis(ValueId operand, ValueId result, size_t axis) const {
    const size_t missing = dims(result).size() - dims(operand).size();
    if (axis < missing || dims(operand)[axis - missing].is_constant(1)) return std::nullopt;
    return axis - missing;
  }

  Found below(const Map& op, const Node& node, ValueId x, size_t axis, const Channels& channels) {
    if (dims(x)[axis].is_constant(1)) return std::nullopt;
    const bool all_signed =
        op.step == Step::f_neg || op.step == Step::f_sin || op.step == Step::f_add || op.step == Step::f_sub;
    bool one_signed = op.step == Step::f_mul || op.step == Step::f_div;
    const bool takes_signs =
        one_signed || (all_signed && std::all_of(node.inputs.begin(), node.inputs.end(),
                                                 [&](ValueId id) { return operand_axis(id, x, axis).has_value(); }));
    std::vector<ValueId> inputs = node.inputs;
    for (size_t i = inputs.size(); i-- > 0;) {  // constants stand last: the signs go there
      const auto own = operand_axis(inputs[i], x, axis);
      if (!own) continue;
      const bool is_signed = takes_signs && (all_signed || one_signed);
      one_signed = false;
      inputs[i] = pick(inputs[i], *own, is_signed ? channels : positive(channels));
    }
    const ValueId picked = add(node, op, inputs);
    return takes_signs ? picked : with_signs(picked, axis, channels);
  }

  Found below(const Reshape&, const Node& node, ValueId x, size_t axis, const Channels& channels) {
    const Dims from = dims(node.inputs[0]), to = dims(x);
    const auto after = [](const Dims& all, size_t at) {
      return count(Dims(all.begin() + static_cast<std::ptrdiff_t>(at) + 1, all.end()));
    };
    for (size_t own = 0; own < from.size(); ++own) {
      if (from[own].is_constant(1) || !(from[own] == to[axis]) || !(after(from, own) == after(to, axis))) continue;
      Dims result = to;
      result[axis] = static_cast<int64_t>(channels.size());
      return add(node, Reshape{result}, {pick(node.inputs[0], own, channels)});
    }
    return std::nullopt;
  }

  Found below(const Transpose& op, const Node& node, ValueId, size_t axis, const Channels& channels) {
    return add(node, op, {pick(node.inputs[0], static_cast<size_t>(op.permutation[axis]), channels)});
  }

  Found below(const Expand& op, const Node& node, ValueId x, size_t axis, const Channels& channels) {
    const auto own = operand_axis(node.inputs[0], x, axis);
    if (!own) return std::nullopt;
    Dims result = op.dims;
    result[axis] = static_cast<int64_t>(channels.size());
    return add(node, Expand{result}, {pick(node.inputs[0], *own, channels)});
  }

  Found below(const Slice& op, const Node& node, ValueId, size_t axis, const Channels& channels) {
    const auto start = op.starts[axis].constant();
    if (!start) return std::nullopt;
    Channels own = channels;
    for (Channel& channel : own) channel.from = *start + channel.from * op.steps[axis];
    Slice slice = op;
    slice.starts[axis] = 0;
    slice.steps[axis] = 1;
    slice.dims[axis] = static_cast<int64_t>(channels.size());
    return add(node, slice, {pick(node.inputs[0], axis, own)});
  }

  Found below(const Concat& op, const Node& node, ValueId, size_t axis, const Channels& channels) {
    std::vector<ValueId> inputs = node.inputs;
    if (static_cast<size_t>(op.axis) != axis) {
      for (ValueId& input : inputs) input = pick(input, axis, channels);
      return add(node, op, inputs);
    }
    // Which operand each channel is of; those beside each other in one are picked at once.
    std::vector<std::pair<ValueId, Channels>> parts;
    for (const Channel& channel : channels) {
      int64_t at = channel.from;
      size_t operand = 0;
      for (;; ++operand) {
        const auto size = dims(inputs[operand])[axis].constant();
        if (!size) return std::nullopt;
        if (at < *size) break;
        at -= *size;
      }
      if (parts.empty() || parts.back().first != inputs[operand]) parts.emplace_back(inputs[operand], Channels());
      parts.back().second.push_back({at, channel.negative});
    }
    std::vector<ValueId> picked;
    for (const auto& [input, own] : parts) picked.push_back(pick(input, axis, own));
    return picked.size() == 1 ? picked[0] : add(node, op, picked);
  }

  Found below(const Gather& op, const Node& node, ValueId, size_t axis, const Channels& channels) {
    const auto along = static_cast<size_t>(op.axis), index = dims(node.inputs[1]).size();
    if (axis >= along && axis < along + index) return std::nullopt;
    const size_t own = axis < along ? axis : axis + 1 - index;
    return add(node, op, {pick(node.inputs[0], own, channels), node.inputs[1]});
  }

  template <class Operation>
  Found below(const Operation&, const Node&, ValueId, size_t, const Channels&) {
    return std::nullopt;
  }

  Graph& graph_;
};

}  // namespace

ValueId pick_channels(Graph& graph, ValueId x, int axis, const std::vector<Channel>& channels) {
  return Picker(graph).pick(x, static_cast<size_t>(axis), channels);
}

}  // namespace heed::tools

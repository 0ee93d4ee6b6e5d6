#include "tools/plan/narrow.h"

#include <algorithm>
#include <array>
#include <optional>

namespace heed::tools {
namespace {

class Narrowing {
 public:
  explicit Narrowing(Graph& graph) : graph_(graph) {}

  void run() {
    for (bool again = true; again;) {
      again = false;
      // Readers first; a slice that has gone up goes on from there.
      for (std::vector<NodeId> open = graph_.order(); !open.empty();) {
        const NodeId id = open.back();
        open.pop_back();
        const size_t first_new = graph_.node_count();
        if (graph_.node(id).dead || !move_up(id)) continue;
        for (size_t i = first_new; i < graph_.node_count(); ++i) open.push_back(static_cast<NodeId>(i));
        again = true;
      }
    }
  }

 private:
  bool move_up(NodeId id) {
    const Node slicing = graph_.node(id);
    const Slice* slice = std::get_if<Slice>(&slicing.operation);
    if (slice == nullptr ||
        std::any_of(slice->steps.begin(), slice->steps.end(), [](int64_t step) { return step < 1; }))
      return false;
    const ValueId from = slicing.inputs[0];
    const NodeId producer = graph_.value(from).producer;
    if (producer < 0 || graph_.readers(from) != std::vector<NodeId>{id}) return false;
    const Node maker = graph_.node(producer);
    if (maker.outputs.size() != 1) return false;
    fits_ = true;
    const Dims dims = graph_.value(from).dims;  // a copy: values are added
    const auto operands = std::visit([&](const auto& op) { return parts(op, maker, *slice, dims); }, maker.operation);
    if (!operands || !fits_) return false;
    const NodeId narrow = graph_.add(maker.operation, *operands, maker.name, maker.absorbed);
    graph_.node(narrow).mark = maker.mark;
    const ValueId result = graph_.node(narrow).outputs[0];
    graph_.value(result).name = graph_.value(slicing.outputs[0]).name;
    graph_.replace(slicing.outputs[0], result);
    graph_.drop(std::array{producer, id});
    return true;
  }

  using Operands = std::optional<std::vector<ValueId>>;

  static bool cuts(const Slice& slice, const Dims& dims, size_t axis) {
    return !(slice.starts[axis].is_constant(0) && slice.steps[axis] == 1 && slice.dims[axis] == dims[axis]);
  }

  /// The part of an operand: axis i of it is axis axes[i] of the result; -1, or a size that repeats, stays whole.
  ValueId part(ValueId operand, const std::vector<int>& axes, const Slice& slice, const Dims& result) {
    if (operand == no_value) return no_value;
    const Value& value = graph_.value(operand);
    Slice own{std::vector<Expression>(axes.size(), 0), std::vector<int64_t>(axes.size(), 1), value.dims};
    bool whole = true;
    for (size_t i = 0; i < axes.size(); ++i) {
      if (axes[i] < 0) continue;
      const auto axis = static_cast<size_t>(axes[i]);
      if (!cuts(slice, result, axis)) continue;
      if (!(value.dims[i] == result[axis])) {
        fits_ = fits_ && value.dims[i].is_constant(1);
        continue;
      }
      own.starts[i] = slice.starts[axis];
      own.steps[i] = slice.steps[axis];
      own.dims[i] = slice.dims[axis];
      whole = false;
    }
    if (whole) return operand;
    // Two readers of one part share it: then it is the only reader, and goes on.
    for (const NodeId reader : graph_.readers(operand)) {
      if (reader < 0) continue;
      const Slice* other = std::get_if<Slice>(&graph_.node(reader).operation);
      if (other != nullptr && other->starts == own.starts && other->steps == own.steps && other->dims == own.dims)
        return graph_.node(reader).outputs[0];
    }
    return graph_.add_value(std::move(own), {operand}, value.name);
  }

  /// Axes of an operand that broadcasts against the last axes of the result.
  std::vector<int> from_the_right(ValueId operand, size_t rank, size_t skipped = 0) const {
    std::vector<int> axes;
    if (operand == no_value) return axes;
    const size_t own = graph_.value(operand).dims.size();
    for (size_t i = 0; i < own; ++i) axes.push_back(static_cast<int>(i + rank - own));
    for (size_t i = own - std::min(own, skipped); i < own; ++i) axes[i] = -1;
    return axes;
  }

  template <class Operation>
  Operands parts(const Operation&, const Node&, const Slice&, const Dims&) {
    return std::nullopt;
  }

  Operands parts(const Map&, const Node& node, const Slice& slice, const Dims& result) {
    std::vector<ValueId> operands;
    for (const ValueId input : node.inputs)
      operands.push_back(part(input, from_the_right(input, result.size()), slice, result));
    return operands;
  }

  Operands parts(const Matmul&, const Node& node, const Slice& slice, const Dims& result) {
    const int last = static_cast<int>(result.size()) - 1;
    std::vector<ValueId> operands = node.inputs;
    std::vector<int> a = from_the_right(node.inputs[0], result.size()),
                     b = from_the_right(node.inputs[1], result.size(), 2);
    a.back() = -1;
    b.back() = last;
    operands[0] = part(node.inputs[0], a, slice, result);
    operands[1] = part(node.inputs[1], b, slice, result);
    if (operands.size() > 2) operands[2] = part(node.inputs[2], {last}, slice, result);
    if (operands.size() > 3)
      operands[3] = part(node.inputs[3], from_the_right(node.inputs[3], result.size()), slice, result);
    return operands;
  }

  Operands parts(const Normalize&, const Node& node, const Slice& slice, const Dims& result) {
    if (cuts(slice, result, result.size() - 1)) return std::nullopt;
    std::vector<ValueId> operands = node.inputs;
    operands[0] = part(node.inputs[0], from_the_right(node.inputs[0], result.size()), slice, result);
    return operands;
  }

  Operands parts(const Softmax& op, const Node& node, const Slice& slice, const Dims& result) {
    if (node.mark || cuts(slice, result, static_cast<size_t>(op.axis))) return std::nullopt;
    return std::vector{part(node.inputs[0], from_the_right(node.inputs[0], result.size()), slice, result)};
  }

  Operands parts(const Reduce& op, const Node& node, const Slice& slice, const Dims& result) {
    std::vector<int> axes;
    int next = 0;
    for (size_t axis = 0; axis < graph_.value(node.inputs[0]).dims.size(); ++axis) {
      const bool reduced = std::find(op.axes.begin(), op.axes.end(), static_cast<int>(axis)) != op.axes.end();
      axes.push_back(reduced ? -1 : next);
      if (!reduced || op.keep) ++next;
    }
    return std::vector{part(node.inputs[0], axes, slice, result)};
  }

  Graph& graph_;
  bool fits_ = true;  // the sizes of the operands at hand are those of the result, or 1
};

}  // namespace

void narrow(Graph& graph) {
  Narrowing(graph).run();
}

}  // namespace heed::tools

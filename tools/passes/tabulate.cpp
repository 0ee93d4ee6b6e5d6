/// Tables of functions of positions: what depends on dimensions only, and is the beginning of the same at larger ones.
#include <algorithm>

#include "tools/error.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr int64_t most_elements = int64_t{1} << 18;  // 1 MiB in the file

// Whether computing it takes longer than reading it.
bool is_costly(const Graph& graph, ValueId id) {
  constexpr Step costly[] = {Step::f_sin, Step::f_cos, Step::f_exp, Step::f_log, Step::f_pow, Step::f_tanh};
  const std::vector<NodeId> nodes = region(graph, id, {});
  return std::any_of(nodes.begin(), nodes.end(), [&](NodeId node) {
    const auto* map = std::get_if<Map>(&graph.node(node).operation);
    return map != nullptr && std::find(std::begin(costly), std::end(costly), map->step) != std::end(costly);
  });
}

// Whether its elements at some place are the same at all sizes that have the place: no size is a number in it, and
// nothing runs over an axis that varies, or moves along one by a size.
bool stays_in_place(const Graph& graph, ValueId id) {
  const auto constant = [](const std::vector<Expression>& all) {
    return std::all_of(all.begin(), all.end(), [](const Expression& e) { return e.constant().has_value(); });
  };
  const std::vector<NodeId> nodes = region(graph, id, {});
  return std::all_of(nodes.begin(), nodes.end(), [&](NodeId number) {
    const Node& node = graph.node(number);
    const Dims from = node.inputs.empty() ? Dims{} : graph.value(node.inputs[0]).dims;
    return std::visit(
        Overloaded{[](const Size&) { return false; },
                   [&](const Slice& op) {
                     return constant(op.starts) &&
                            std::all_of(op.steps.begin(), op.steps.end(), [](int64_t step) { return step > 0; });
                   },
                   [&](const Concat& op) {  // what follows an operand that grows would move
                     return std::all_of(node.inputs.begin(), node.inputs.end() - 1, [&](ValueId input) {
                       return graph.value(input).dims[static_cast<size_t>(op.axis)].constant();
                     });
                   },
                   [&](const Pad& op) { return constant(op.before) && constant(op.after); },
                   [&](const Matmul&) { return from.back().constant().has_value(); },
                   [&](const Reduce& op) {
                     return std::all_of(op.axes.begin(), op.axes.end(),
                                        [&](int axis) { return from[static_cast<size_t>(axis)].constant(); });
                   },
                   [](const auto& op) {
                     using Op = std::decay_t<decltype(op)>;
                     return std::is_same_v<Op, Map> || std::is_same_v<Op, Iota> || std::is_same_v<Op, Reshape> ||
                            std::is_same_v<Op, Transpose> || std::is_same_v<Op, Expand> || std::is_same_v<Op, Gather>;
                   }},
        node.operation);
  });
}

bool begins(const Literal& whole, const Literal& part) {
  std::vector<int64_t> at(part.dims.size(), 0);
  for (const float value : part.floats()) {
    int64_t place = 0;
    for (size_t axis = 0; axis < at.size(); ++axis) place = place * whole.dims[axis] + at[axis];
    if (whole.floats()[static_cast<size_t>(place)] != value) return false;
    for (size_t axis = at.size(); axis-- > 0 && ++at[axis] == part.dims[axis];) at[axis] = 0;
  }
  return true;
}

std::optional<Literal> table(const Graph& graph, ValueId id) {
  std::map<std::string, int64_t> largest;
  for (const auto& [name, dimension] : graph.dimensions) largest[name] = dimension.upper;
  try {
    if (count(graph.value(id).dims).evaluate(largest) > most_elements) return std::nullopt;
    const Literal whole = evaluate_at(graph, id, largest);
    auto points = settings(graph);
    for (const bool half : {true, false}) {  // and near the largest
      points.emplace_back();
      for (const auto& [name, dimension] : graph.dimensions)
        points.back()[name] = half ? dimension.lower + (dimension.upper - dimension.lower) / 2
                                   : std::max(dimension.lower, dimension.upper - 1);
    }
    for (const auto& sizes : points) {
      const Literal part = evaluate_at(graph, id, sizes);
      for (size_t axis = 0; axis < part.dims.size(); ++axis)
        if (part.dims[axis] > whole.dims[axis]) return std::nullopt;
      if (!begins(whole, part)) return std::nullopt;
    }
    return whole;
  } catch (const Error&) {  // sizes that some slice does not permit
    return std::nullopt;
  }
}

}  // namespace

bool tabulate(Graph& graph) {
  bool changed = false;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const ValueId value = node.outputs[0];
    if (value == no_value || std::holds_alternative<Expand>(node.operation) || graph.value(value).type != Type::f32 ||
        !depends_on_dimensions_only(graph, value) || !is_costly(graph, value) || !stays_in_place(graph, value))
      continue;
    const std::vector<NodeId> readers = graph.readers(value);
    const bool ends = std::any_of(readers.begin(), readers.end(), [&](NodeId reader) {
      return reader < 0 || std::holds_alternative<Expand>(graph.node(reader).operation) ||
             !depends_on_dimensions_only(graph, graph.node(reader).outputs[0]);
    });
    if (!ends) continue;
    const auto whole = table(graph, value);
    if (!whole) continue;
    const Dims dims = graph.value(value).dims;
    const Builder build(graph, value);
    const Slice slice{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), dims};
    graph.replace(value, build.add(slice, {graph.constant(graph.value(value).name, *whole)}));
    changed = true;
  }
  return changed;
}

}  // namespace heed::tools

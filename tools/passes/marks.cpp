/// Finds every softmax whose result weights a sum.
#include <algorithm>

#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// The name a person knows a tensor by: of what stands behind its views.
std::string source_name(const Graph& graph, ValueId id) {
  while (made_by<Reshape>(graph, id) || made_by<Transpose>(graph, id) || made_by<Expand>(graph, id))
    id = producer(graph, id)->inputs[0];
  return graph.value(id).name;
}

// The values that a softmax's weights meet in a sum, through views, guards and scales; no_value where they meet none.
ValueId weighted_by(const Graph& graph, ValueId weights, int depth = 0) {
  if (depth > 8) return no_value;
  for (const NodeId id : graph.readers(weights)) {
    if (id < 0) continue;
    const Node& node = graph.node(id);
    if (std::holds_alternative<Matmul>(node.operation) && node.inputs[0] == weights) return node.inputs[1];
    const auto* map = std::get_if<Map>(&node.operation);
    const bool view = std::holds_alternative<Reshape>(node.operation) ||
                      std::holds_alternative<Transpose>(node.operation) ||
                      std::holds_alternative<Expand>(node.operation);
    if (map != nullptr && map->step == Step::f_mul) {
      const ValueId other = node.inputs[node.inputs[0] == weights ? 1 : 0];
      for (const NodeId next : graph.readers(node.outputs[0]))
        if (next >= 0)
          if (const auto* sum = std::get_if<Reduce>(&graph.node(next).operation); sum && sum->kind == Reduction::sum)
            return other;
    }
    if (!view && map == nullptr) continue;
    if (const ValueId found = weighted_by(graph, node.outputs[0], depth + 1); found != no_value) return found;
  }
  return no_value;
}

}  // namespace

void mark_weights(Graph& graph) {
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    if (std::holds_alternative<Attention>(node.operation)) {
      node.mark = Mark{source_name(graph, node.inputs[0]), source_name(graph, node.inputs[1]), 3};
    } else if (const auto* softmax = std::get_if<Softmax>(&node.operation); softmax && !softmax->log) {
      const ValueId values = weighted_by(graph, node.outputs[0]);
      if (values != no_value)
        node.mark = Mark{source_name(graph, node.inputs[0]), source_name(graph, values), softmax->axis};
    }
  }
}

}  // namespace heed::tools

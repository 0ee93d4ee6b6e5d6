/// Finds every softmax whose result weights a sum.
#include <fmt/format.h>

#include <algorithm>

#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// The name a person knows a tensor by: of what stands behind its views.
std::string source_name(const Graph& graph, ValueId id) {
  while (is_view(graph, id) && !made_by<Slice>(graph, id)) id = producer(graph, id)->inputs[0];
  return graph.value(id).name;
}

// A product of two tensors, scales and views aside.
bool plain_scores(const Graph& graph, ValueId id) {
  for (;;) {
    if (is_view(graph, id))
      id = producer(graph, id)->inputs[0];
    else if (const auto times = scaled(graph, id))
      id = times->x;
    else
      return made_by<Matmul>(graph, id) && !graph.value(producer(graph, id)->inputs[1]).constant;
  }
}

// Where a softmax's weights meet values in a sum, through views, guards and scales.
struct Sum {
  ValueId values;
  NodeId node;
  NodeId through = -1;  // the first on the way that computes something
};
std::optional<Sum> sum_of(const Graph& graph, ValueId weights, int depth = 0) {
  if (depth > 8) return std::nullopt;
  for (const NodeId id : graph.readers(weights)) {
    if (id < 0) continue;
    const Node& node = graph.node(id);
    const ValueId other = node.inputs.size() < 2 ? no_value : node.inputs[node.inputs[0] == weights ? 1 : 0];
    if (std::holds_alternative<Matmul>(node.operation) && (node.inputs[0] == weights || node.inputs[1] == weights))
      return Sum{other, id};
    const auto* map = std::get_if<Map>(&node.operation);
    if (map != nullptr && map->step == Step::f_mul)
      for (const NodeId next : graph.readers(node.outputs[0]))
        if (next >= 0)
          if (const auto* sum = std::get_if<Reduce>(&graph.node(next).operation); sum && sum->kind == Reduction::sum)
            return Sum{other, next};
    if (!is_view(graph, node.outputs[0]) && map == nullptr) continue;
    if (auto found = sum_of(graph, node.outputs[0], depth + 1)) {
      if (map != nullptr) found->through = id;
      return found;
    }
  }
  return std::nullopt;
}

}  // namespace

void mark_weights(Graph& graph, Report& report) {
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    const auto* softmax = std::get_if<Softmax>(&node.operation);
    if (std::holds_alternative<Attention>(node.operation)) {
      node.mark = Mark{source_name(graph, node.inputs[0]), source_name(graph, node.inputs[1]), 3};
      ++report.attentions;
    } else if (softmax && !softmax->log) {
      const auto sum = sum_of(graph, node.outputs[0]);
      if (!sum) continue;
      node.mark = Mark{source_name(graph, node.inputs[0]), source_name(graph, sum->values), softmax->axis};
      ++report.attentions;
    }
  }
}

void explain_weights(Graph& graph, Report& report) {
  const auto told = [&](const Sum& sum) {
    return std::any_of(report.missed.begin(), report.missed.end(), [&](const Report::Missed& missed) {
      return missed.concept_name == "attention" && missed.nodes.back() == graph.node(sum.node).name;
    });
  };
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const auto* softmax = std::get_if<Softmax>(&node.operation);
    const auto sum = softmax && !softmax->log ? sum_of(graph, node.outputs[0]) : std::nullopt;
    if (!sum || told(*sum)) continue;
    const ValueId end = graph.node(sum->node).outputs[0], weights = node.outputs[0], scores = node.inputs[0];
    if (sum->through >= 0) {
      const ValueId at = graph.node(sum->through).outputs[0];
      tell(graph, "attention", end,
           {at, in_words(graph, at) + " between the softmax and the sum",
            "the softmax's weights as they are, or set to 0 where they are NaN",
            "a mask is added to the scores before the softmax, as 0 and -inf; dropout is for training", weights},
           report);
    } else if (plain_scores(graph, scores)) {
      tell(graph, "attention", end,
           {weights, fmt::format("a softmax over axis {} of {}", softmax->axis, text(graph.value(weights).dims)),
            "a softmax over the keys, the axis that the sum with the values runs over", ""},
           report);
    } else {
      tell(graph, "attention", end, unlike_scores(graph, scores), report);
    }
  }
}

}  // namespace heed::tools

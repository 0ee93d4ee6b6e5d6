#include "tools/passes/passes.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tools/error.h"
#include "tools/passes/check.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// Larger concepts before their parts: SiLU before sigmoid; attention before a mask could become a product's residual,
// and behind the sums that may be its products.
constexpr Fusion fusions[] = {
    {"gelu", fuse_gelu},
    {"gelu_tanh", fuse_gelu_tanh},
    {"silu", fuse_silu},
    {"softplus", fuse_softplus},
    {"sigmoid", fuse_sigmoid},
    {"relu", fuse_relu},
    {"softmax", fuse_softmax},
    {"gather", fuse_one_hot},
    {"conv", fuse_windows},
    {"layer_norm", fuse_layer_norm},
    {"rms_norm", fuse_rms_norm},
    {"rope", fuse_rope},
    {"weighted sum", fuse_weighted_sum},
    {"attention", fuse_attention},
    {"matmul epilogue", fuse_matmul},
};

// The new node that computes the concept: the last that is no view.
NodeId main_node(const Graph& graph, ValueId after, NodeId first_new) {
  while (is_view(graph, after)) after = producer(graph, after)->inputs[0];
  return producer(graph, after) != nullptr && graph.value(after).producer >= first_new ? graph.value(after).producer
                                                                                       : -1;
}

// Puts `after` in the place of `before` and collects the names of the ONNX nodes that are computed by it now. Where a
// product or softmax of the region is still needed (somebody else reads it), the fusion would compute it twice: nothing
// changes, and `kept` is that node.
std::vector<std::string> install(Graph& graph, ValueId before, ValueId after, NodeId first_new, NodeId& kept) {
  const std::vector<NodeId> old = region(graph, before, {});
  const NodeId main = main_node(graph, after, first_new);
  graph.replace(before, after);
  graph.order();
  kept = -1;
  std::vector<std::string> absorbed;
  const std::vector<NodeId> needed = main < 0 ? std::vector<NodeId>{} : region(graph, graph.node(main).outputs[0], {});
  for (const NodeId id : old) {
    if (!graph.node(id).dead) {
      const Operation& operation = graph.node(id).operation;
      const bool heavy = std::holds_alternative<Matmul>(operation) || std::holds_alternative<Conv>(operation) ||
                         std::holds_alternative<Softmax>(operation);
      if (heavy && main >= 0 && std::find(needed.begin(), needed.end(), id) == needed.end()) kept = id;
      continue;
    }
    for (const std::string& name : graph.node(id).absorbed)
      if (std::find(absorbed.begin(), absorbed.end(), name) == absorbed.end()) absorbed.push_back(name);
  }
  if (kept >= 0) {
    graph.replace(after, before);
    graph.order();
    return {};
  }
  if (main >= 0) graph.node(main).absorbed = absorbed;
  return absorbed;
}

}  // namespace

void apply(Graph& graph, const Fusion& fusion, Report& report) {
  std::vector<NodeId> order = graph.order();
  std::reverse(order.begin(), order.end());
  std::vector<std::pair<ValueId, Miss>> misses;
  for (const NodeId id : order) {
    if (graph.node(id).dead || graph.node(id).outputs.size() != 1) continue;
    const ValueId root = graph.node(id).outputs[0];
    const std::string name = graph.node(id).name;
    const auto first_new = static_cast<NodeId>(graph.node_count());
    std::optional<Miss> miss;
    const auto offer = fusion.fuse(graph, root, miss);
    if (miss) misses.emplace_back(root, *miss);
    if (offer && *offer != root) {
      const Check check = check_fusion(graph, root, *offer, first_new);
      if (check.same) {
        NodeId kept = -1;
        const auto absorbed = install(graph, root, *offer, first_new, kept);
        if (kept < 0)
          report.fused.push_back({fusion.concept_name, name, absorbed, check.error});
        else
          report.missed.push_back(
              {fusion.concept_name, graph.node(kept).name, "its result is needed on its own", name});
      } else {
        report.missed.push_back({fusion.concept_name, name, "undone, the results differ: " + check.problem, name});
      }
    }
    if (static_cast<NodeId>(graph.node_count()) != first_new) graph.order();  // offers that were not taken are dead
  }
  std::set<std::string> told;
  for (const auto& [root, miss] : misses) {
    const NodeId id = graph.value(root).producer;
    if (id >= 0 && !graph.node(id).dead && told.insert(miss.node).second)
      report.missed.push_back({fusion.concept_name, miss.node, miss.reason, graph.node(id).name});
  }
}

void optimise(Graph& graph, Report& report, const Progress& progress) {
  const auto tell = [&](const std::string& stage, double share) {
    if (progress) progress(stage, share);
  };
  tell("canonical form", 0);
  canonicalise(graph);
  if (tabulate(graph)) canonicalise(graph);
  double done = 0;
  for (const Fusion& fusion : fusions) {
    tell(fmt::format("fuse {}", fusion.concept_name), ++done / (std::size(fusions) + 1));
    const size_t before = report.fused.size();
    apply(graph, fusion, report);
    if (report.fused.size() != before) canonicalise(graph);
  }
  tell("mark weights", 1);
  mark_weights(graph, report);
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    if (node.outputs.size() == 1) continue;
    for (ValueId& output : node.outputs)
      if (output != no_value && graph.readers(output).empty()) output = no_value;
  }
}

}  // namespace heed::tools

#include "tools/passes/passes.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "tools/error.h"
#include "tools/passes/check.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// Larger concepts before their parts: SiLU before sigmoid; attention behind the sums that may be its products.
constexpr Fusion concepts[] = {
    {"gelu", fuse_gelu},           {"gelu_tanh", fuse_gelu_tanh},
    {"silu", fuse_silu},           {"softplus", fuse_softplus},
    {"sigmoid", fuse_sigmoid},     {"relu", fuse_relu},
    {"softmax", fuse_softmax},     {"gather", fuse_one_hot},
    {"conv", fuse_windows},        {"layer_norm", fuse_layer_norm},
    {"rms_norm", fuse_rms_norm},   {"rope", fuse_rope},
    {"recurrent", fuse_recurrent}, {"weighted sum", fuse_weighted_sum},
    {"attention", fuse_attention},
};
// Last, so that no mask becomes a product's residual, and what was left of a concept is explained as it was written.
constexpr Fusion epilogue{"matmul epilogue", fuse_matmul};

// The new node that computes the concept: the last that is no view.
NodeId main_node(const Graph& graph, ValueId after, NodeId first_new) {
  while (is_view(graph, after)) after = producer(graph, after)->inputs[0];
  return producer(graph, after) != nullptr && graph.value(after).producer >= first_new ? graph.value(after).producer
                                                                                       : -1;
}

// What is left of an offer that was not taken.
void drop_from(Graph& graph, NodeId first) {
  std::vector<NodeId> offered(graph.node_count() - static_cast<size_t>(first));
  std::iota(offered.begin(), offered.end(), first);
  graph.drop(offered);
}

// Puts what comes after in the place of what was before and collects the names of the ONNX nodes that are computed by
// it now. Where a product or softmax of the region is still needed (somebody else reads it), the fusion would compute
// it twice: nothing changes, and `kept` is that node.
std::vector<std::string> install(Graph& graph, const Replacements& replacements, NodeId first_new, NodeId& kept) {
  std::vector<ValueId> all;
  for (const auto& [before, after] : replacements) all.push_back(before);
  const std::vector<NodeId> old = region(graph, all, built_on(graph, replacements, first_new));
  const NodeId main = main_node(graph, replacements[0].second, first_new);
  for (const auto& [before, after] : replacements) graph.replace(before, after);
  drop_from(graph, first_new);
  graph.drop(old);
  kept = -1;
  std::vector<std::string> absorbed;
  std::optional<std::vector<NodeId>> needed;
  for (const NodeId id : old) {
    if (!graph.node(id).dead) {
      const Operation& operation = graph.node(id).operation;
      const bool heavy = std::holds_alternative<Matmul>(operation) || std::holds_alternative<Conv>(operation) ||
                         std::holds_alternative<Softmax>(operation);
      if (!heavy || main < 0) continue;
      if (!needed) needed = region(graph, graph.node(main).outputs[0], {});
      if (std::find(needed->begin(), needed->end(), id) == needed->end()) kept = id;
      continue;
    }
    for (const std::string& name : graph.node(id).absorbed)
      if (std::find(absorbed.begin(), absorbed.end(), name) == absorbed.end()) absorbed.push_back(name);
  }
  if (kept >= 0) {
    for (const auto& [before, after] : replacements) graph.replace(after, before);
    for (const NodeId id : old) graph.node(id).dead = false;
    drop_from(graph, first_new);
    return {};
  }
  if (main >= 0) graph.node(main).absorbed = absorbed;
  return absorbed;
}

// Nodes from `first`'s readers to the one that makes `last`, operands before readers.
std::vector<NodeId> between(const Graph& graph, ValueId first, ValueId last) {
  std::vector<NodeId> found;
  std::set<ValueId> reached{first};
  for (const NodeId id : region(graph, last, {first})) {
    const Node& node = graph.node(id);
    if (std::none_of(node.inputs.begin(), node.inputs.end(), [&](ValueId input) { return reached.count(input) != 0; }))
      continue;
    reached.insert(node.outputs.begin(), node.outputs.end());
    found.push_back(id);
  }
  return found;
}

std::vector<std::string> names(const Graph& graph, const std::vector<NodeId>& nodes) {
  std::vector<std::string> all;
  for (const NodeId id : nodes)
    for (const std::string& name : graph.node(id).absorbed)
      if (std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  return all;
}

// Nodes that looked like a concept from `root` on.
std::vector<NodeId> group(const Graph& graph, ValueId root, const Miss& miss) {
  std::vector<NodeId> nodes = between(graph, miss.from == no_value ? miss.at : miss.from, root);
  const NodeId at = producer(graph, miss.at) == nullptr ? -1 : graph.value(miss.at).producer;
  if (at >= 0 && std::find(nodes.begin(), nodes.end(), at) == nodes.end())
    nodes.insert(miss.from == no_value ? nodes.begin() : nodes.end(), at);
  if (nodes.empty() || (miss.from == no_value && nodes.back() != graph.value(root).producer))
    nodes.push_back(graph.value(root).producer);
  return nodes;
}

// Tries a fusion at every value, from the outputs back. With `explains` it also reports where it stopped.
void visit(Graph& graph, const Fusion& fusion, bool explains, Report& report) {
  std::vector<NodeId> order = graph.order();
  std::reverse(order.begin(), order.end());
  std::set<NodeId> told;  // nodes of the groups so far: the end of a group comes first
  std::set<ValueId> differs;
  const auto explain = [&](ValueId root, const Miss& miss) {
    if (!explains || told.count(graph.value(root).producer) != 0 || !differs.insert(miss.at).second) return;
    for (const NodeId id : group(graph, root, miss)) told.insert(id);
    tell(graph, fusion.concept_name, root, miss, report);
  };
  for (const NodeId id : order) {
    if (graph.node(id).dead || graph.node(id).outputs.size() != 1) continue;
    const ValueId root = graph.node(id).outputs[0];
    const std::string name = graph.node(id).name;
    const auto first_new = static_cast<NodeId>(graph.node_count());
    std::optional<Miss> miss;
    const auto offer = fusion.fuse(graph, root, miss);
    if (offer && offer->value != root) {
      Replacements replacements{{root, offer->value}};
      replacements.insert(replacements.end(), offer->others.begin(), offer->others.end());
      const Check check = check_fusion(graph, replacements, first_new);
      if (check.same) {
        NodeId kept = -1;
        const auto absorbed = install(graph, replacements, first_new, kept);
        if (kept < 0)
          report.fused.push_back({fusion.concept_name, name, absorbed, check.error});
        else
          explain(root, {graph.node(kept).outputs[0],
                         in_words(graph, graph.node(kept).outputs[0]) + ", needed on its own by another reader",
                         "nothing but the " + std::string(fusion.concept_name) + " reads it",
                         "if it is an output that nobody needs, leave it out of the export"});
      } else if (!check.tried) {
        explain(root, {root, "undone, it could not be checked: " + check.problem, "sizes that all constraints permit",
                       "bound the dimensions closer with --dim and --limit"});
      } else {
        explain(root, {root, "undone, the fused form gives other numbers on random data: " + check.problem,
                       fmt::format("equality to {:.0e} of the largest value", fusion_tolerance),
                       "please report this: a pattern of the converter is wrong, the model is not"});
      }
    } else if (miss) {
      explain(root, *miss);
    }
    drop_from(graph, first_new);
  }
}

}  // namespace

void apply(Graph& graph, const Fusion& fusion, Report& report) {
  visit(graph, fusion, false, report);
}

void explain(Graph& graph, const Fusion& fusion, Report& report) {
  visit(graph, fusion, true, report);
}

void tell(const Graph& graph, const char* concept_name, ValueId root, const Miss& miss, Report& report) {
  const Node* at = producer(graph, miss.at);
  report.missed.push_back({concept_name, at == nullptr ? graph.value(miss.at).name : at->name, miss.found,
                           miss.expected, miss.advice, names(graph, group(graph, root, miss))});
}

void optimise(Graph& graph, Report& report, const Progress& progress) {
  const auto tell = [&](const std::string& stage, double share) {
    if (progress) progress(stage, share);
  };
  double done = 0;
  const auto fuse = [&](const Fusion& fusion) {
    tell(fmt::format("fuse {}", fusion.concept_name), ++done / (std::size(concepts) + 3));
    const size_t before = report.fused.size();
    apply(graph, fusion, report);
    if (report.fused.size() != before) canonicalise(graph);
  };
  tell("canonical form", 0);
  canonicalise(graph);
  if (tabulate(graph)) canonicalise(graph);
  for (const Fusion& fusion : concepts) fuse(fusion);
  tell("explain", ++done / (std::size(concepts) + 3));
  for (const Fusion& fusion : concepts) explain(graph, fusion, report);
  explain_weights(graph, report);
  fuse(epilogue);
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

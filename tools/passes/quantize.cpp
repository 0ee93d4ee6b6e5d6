/// Layers whose weights are constant, in int8: weights with a scale for each output channel, rows of activations with
/// a scale found as they are made.
#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/matmul_i8/matmul_i8.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

/// Below so many terms a sum costs more to quantise than int8 saves.
constexpr int64_t least_terms = 16;

class Quantization {
 public:
  Quantization(Graph& graph, Report& report) : graph_(graph), report_(report) {}

  void run() {
    for (const NodeId id : graph_.order()) {
      if (std::holds_alternative<Matmul>(graph_.node(id).operation)) matmul(id);
      if (auto* attention = std::get_if<Attention>(&graph_.node(id).operation)) attention->int8 = true;
    }
    for (const NodeId id : graph_.order())
      if (std::holds_alternative<Quantize>(graph_.node(id).operation)) into_product(id);
  }

 private:
  /// The rows of a value as int8 and their scales, made once for all their readers.
  std::pair<ValueId, ValueId> rows_of(ValueId x, const std::string& name) {
    const auto [entry, is_new] = rows_.try_emplace(x);
    if (is_new) {
      const std::vector<ValueId>& made = graph_.node(graph_.add(Quantize{}, {x}, name)).outputs;
      entry->second = {made[0], made[1]};
    }
    return entry->second;
  }

  void matmul(NodeId id) {
    const Node node = graph_.node(id);
    const Value& weights = graph_.value(node.inputs[1]);
    if (!weights.constant || graph_.value(node.inputs[0]).constant || weights.constant->dims.size() < 2) return;
    const int64_t n = weights.constant->dims.back(), k = *(weights.constant->dims.end() - 2);
    if (weights.constant->count() != k * n || k < least_terms || k > most_terms_i8) return;

    const std::span<const float> w = weights.constant->floats();
    std::vector<float> scales(static_cast<size_t>(n));
    for (int64_t i = 0; i < k * n; ++i) {
      float& top = scales[static_cast<size_t>(i % n)];
      const float magnitude = std::abs(w[static_cast<size_t>(i)]);
      if (!std::isfinite(magnitude)) return;
      top = std::max(top, magnitude);
    }
    std::vector<int8_t> bytes(w.size());
    for (int64_t i = 0; i < k * n; ++i)
      if (const double top = scales[static_cast<size_t>(i % n)]; top > 0)
        bytes[static_cast<size_t>(i)] = static_cast<int8_t>(std::nearbyint(w[static_cast<size_t>(i)] * 127 / top));
    for (float& scale : scales) scale /= 127;

    const std::string name = weights.name;
    const auto [q, scale] = rows_of(node.inputs[0], node.name);
    const auto operand = [&](size_t i) { return i < node.inputs.size() ? node.inputs[i] : no_value; };
    const ValueId b = graph_.constant(name, Literal::of({k, n}, std::move(bytes)));
    const ValueId b_scale = graph_.constant(name + " scale", Literal::of({n}, std::move(scales)));
    const ValueId y = graph_.add_value(MatmulI8{std::get<Matmul>(node.operation).activation},
                                       {q, scale, b, b_scale, operand(2), operand(3)}, node.name, node.absorbed);
    graph_.replace(node.outputs[0], y);
    report_.fused.push_back({"int8 matmul", node.name, node.absorbed, 0});
  }

  /// A product writes its rows as int8 itself.
  void into_product(NodeId id) {
    const Node quantize = graph_.node(id);
    const ValueId x = quantize.inputs[0];
    const Node* maker = producer(graph_, x);
    const auto* product = made_by<MatmulI8>(graph_, x);
    if (product == nullptr || product->groups > 0) return;
    MatmulI8 both = *product;
    both.groups = std::get<Quantize>(quantize.operation).groups;
    const Node old = *maker;
    const std::vector<ValueId> made = graph_.node(graph_.add(both, old.inputs, old.name, old.absorbed)).outputs;
    graph_.replace(x, made[0]);
    graph_.replace(quantize.outputs[0], made[1]);
    graph_.replace(quantize.outputs[1], made[2]);
  }

  Graph& graph_;
  Report& report_;
  std::map<ValueId, std::pair<ValueId, ValueId>> rows_;
};

}  // namespace

void quantize(Graph& graph, Report& report) {
  Quantization(graph, report).run();
}

}  // namespace heed::tools

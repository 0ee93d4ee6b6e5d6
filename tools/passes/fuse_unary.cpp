/// Functions of one value, however they are written: a tree of maps over one value and numbers is recognised by what it
/// computes.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr size_t most_nodes = 16;  // the tanh form of GELU has 10

// Where the function is compared: densely where it bends, then far out.
const std::vector<float>& grid() {
  static const std::vector<float> points = [] {
    std::vector<float> all;
    for (int i = -640; i <= 640; ++i) all.push_back(static_cast<float>(i) / 64);
    for (const float far : {20.0f, 50.0f, 200.0f, 1e3f, 1e4f}) all.insert(all.end(), {far, -far});
    return all;
  }();
  return points;
}

// What a map sees of its operands: numbers have no shape here.
class OnGrid {
 public:
  OnGrid(const Graph& graph, ValueId x) : graph_(graph) {
    values_.emplace(x, Literal::of({static_cast<int64_t>(grid().size())}, grid()));
  }
  const Literal& compute(ValueId id) {
    if (const auto found = values_.find(id); found != values_.end()) return found->second;
    if (const auto number = uniform(graph_, id)) {
      const Type type = graph_.value(id).type;
      return values_
          .emplace(id, type == Type::f32   ? Literal::of({}, std::vector<float>{static_cast<float>(*number)})
                       : type == Type::i32 ? Literal::of({}, std::vector<int64_t>{static_cast<int64_t>(*number)})
                                           : Literal::of_booleans({}, {static_cast<uint8_t>(*number)}))
          .first->second;
    }
    const Node& node = *producer(graph_, id);
    std::vector<const Literal*> inputs;
    for (const ValueId input : node.inputs) inputs.push_back(&compute(input));
    return values_.emplace(id, evaluate(node, inputs, {})[0]).first->second;
  }

 private:
  const Graph& graph_;
  std::map<ValueId, Literal> values_;
};

// Two functions are one where they agree to float precision. Where the tree overflows, it is only the worse way to
// write it.
bool agree(const Literal& found, Step step) {
  const Literal x = Literal::of({static_cast<int64_t>(grid().size())}, grid());
  Node node;
  node.operation = Map{step};
  const Literal expected = evaluate(node, {&x}, {})[0];
  if (found.dims != expected.dims) return false;
  for (size_t i = 0; i < grid().size(); ++i) {
    const double a = found.floats()[i], b = expected.floats()[i];
    const double absolute = step == Step::f_relu ? 0 : 1e-6;  // max(x, 0) + 1e-6 guards a root: it is no relu
    if (std::isfinite(a) && std::abs(a - b) > absolute + 2e-6 * std::abs(b)) return false;
  }
  return true;
}

bool uses(const Graph& graph, const std::vector<NodeId>& nodes, std::initializer_list<Step> steps) {
  return std::any_of(nodes.begin(), nodes.end(), [&](NodeId id) {
    const auto* map = std::get_if<Map>(&graph.node(id).operation);
    return map != nullptr && std::find(steps.begin(), steps.end(), map->step) != steps.end();
  });
}

// The values that a tree of maps ending in `root` is a function of, the nearest last.
std::vector<ValueId> arguments(const Graph& graph, ValueId root) {
  std::vector<ValueId> found, front{root};
  const auto reaches = [&](ValueId from, ValueId to) {  // through maps alone
    std::vector<ValueId> stack{from};
    std::set<ValueId> seen;
    while (!stack.empty() && seen.size() < 4 * most_nodes) {
      const ValueId id = stack.back();
      stack.pop_back();
      if (id == to) return true;
      if (made_by<Map>(graph, id) && seen.insert(id).second)
        stack.insert(stack.end(), producer(graph, id)->inputs.begin(), producer(graph, id)->inputs.end());
    }
    return false;
  };
  for (size_t nodes = 0; nodes < most_nodes; ++nodes) {
    // Open the value that no other one of the front is made of, so that the front closes again where the tree does.
    const auto next = std::find_if(front.begin(), front.end(), [&](ValueId id) {
      return made_by<Map>(graph, id) && graph.value(id).type != Type::i32 &&
             std::none_of(front.begin(), front.end(), [&](ValueId other) { return other != id && reaches(other, id); });
    });
    if (next == front.end()) break;
    const ValueId opened = *next;
    front.erase(next);
    for (const ValueId input : producer(graph, opened)->inputs)
      if (!uniform(graph, input) && std::find(front.begin(), front.end(), input) == front.end()) front.push_back(input);
    if (front.size() == 1 && graph.value(front[0]).dims == graph.value(root).dims) found.push_back(front[0]);
  }
  std::reverse(found.begin(), found.end());
  return found;
}

std::optional<ValueId> fuse(Graph& graph, ValueId root, Step step, std::initializer_list<Step> ingredients) {
  const Map* map = made_by<Map>(graph, root);
  if (map == nullptr || map->step == step || graph.value(root).type != Type::f32) return std::nullopt;
  for (const ValueId x : arguments(graph, root)) {
    if (graph.value(x).type != Type::f32 || !uses(graph, region(graph, root, {x}), ingredients)) continue;
    if (agree(OnGrid(graph, x).compute(root), step)) return Builder(graph, root).map(step, {x});
  }
  return std::nullopt;
}

}  // namespace

std::optional<ValueId> fuse_sigmoid(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_sigmoid, {Step::f_exp, Step::f_tanh});
}
std::optional<ValueId> fuse_softplus(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_softplus, {Step::f_log});
}
std::optional<ValueId> fuse_silu(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_silu, {Step::f_sigmoid, Step::f_exp, Step::f_tanh});
}
std::optional<ValueId> fuse_gelu_tanh(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_gelu_tanh, {Step::f_tanh, Step::f_sigmoid, Step::f_exp});
}
std::optional<ValueId> fuse_relu(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_relu, {Step::f_max, Step::f_select});
}
std::optional<ValueId> fuse_gelu(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  if (const auto found = fuse(graph, root, Step::f_gelu, {Step::f_erf})) return found;
  if (operands_of(graph, root, Step::f_erf))
    miss = Miss{producer(graph, root)->name, "its erf is not part of x * (1 + erf(x / sqrt(2))) / 2"};
  return std::nullopt;
}

}  // namespace heed::tools

/// Functions of one value, however they are written: a tree of maps over one value and numbers is recognised by what it
/// computes.
#include <fmt/format.h>
#include <fmt/ranges.h>

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
  static std::map<Step, Literal> known;
  Literal& expected = known[step];
  if (expected.data == nullptr) {
    const Literal x = Literal::of({static_cast<int64_t>(grid().size())}, grid());
    Node node;
    node.operation = Map{step};
    expected = evaluate(node, {&x}, {})[0];
  }
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

// Whether a tree of so few maps that ends in `root` can have one of the steps: cheaper than to look for the tree.
bool may_use(const Graph& graph, ValueId root, std::initializer_list<Step> steps) {
  std::vector<ValueId> seen{root};  // breadth first
  for (size_t depth = 0, next = 0; depth < most_nodes && seen.size() < 4 * most_nodes; ++depth)
    for (const size_t end = seen.size(); next < end; ++next) {
      const Map* map = made_by<Map>(graph, seen[next]);
      if (map == nullptr) continue;
      if (std::find(steps.begin(), steps.end(), map->step) != steps.end()) return true;
      for (const ValueId input : producer(graph, seen[next])->inputs)
        if (std::find(seen.begin(), seen.end(), input) == seen.end()) seen.push_back(input);
    }
  return seen.size() >= 4 * most_nodes;
}

// The values that a tree of maps ending in `root` is a function of, the nearest last.
std::vector<ValueId> arguments(const Graph& graph, ValueId root) {
  std::vector<ValueId> found, front{root}, stack, seen;
  const auto reaches = [&](ValueId from, ValueId to) {  // through maps alone
    stack.assign(1, from);
    seen.clear();
    while (!stack.empty() && seen.size() < 4 * most_nodes) {
      const ValueId id = stack.back();
      stack.pop_back();
      if (id == to) return true;
      if (!made_by<Map>(graph, id) || std::find(seen.begin(), seen.end(), id) != seen.end()) continue;
      seen.push_back(id);
      stack.insert(stack.end(), producer(graph, id)->inputs.begin(), producer(graph, id)->inputs.end());
    }
    return false;
  };
  const auto opens = [&](ValueId id) { return made_by<Map>(graph, id) && graph.value(id).type != Type::i32; };
  for (size_t nodes = 0; nodes < most_nodes; ++nodes) {
    if (std::count_if(front.begin(), front.end(), opens) + 1 < std::ssize(front)) break;  // it closes no more
    // Open the value that no other one of the front is made of, so that the front closes again where the tree does.
    const auto next = std::find_if(front.begin(), front.end(), [&](ValueId id) {
      return opens(id) &&
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
  if (map == nullptr || map->step == step || graph.value(root).type != Type::f32 || !may_use(graph, root, ingredients))
    return std::nullopt;
  for (const ValueId x : arguments(graph, root)) {
    if (graph.value(x).type != Type::f32 || !uses(graph, region(graph, root, {x}), ingredients)) continue;
    if (agree(OnGrid(graph, x).compute(root), step)) return Builder(graph, root).map(step, {x});
  }
  return std::nullopt;
}

// --- Where it stops --------------------------------------------------------------------------------------------------

// A function that is multiplied by its argument, x * f(x), and the tree that f and its inner part are of.
struct Gated {
  Step step;            // of f
  const char* formula;  // of the concept
  const char* inner;    // what f is of there
  double (*expected)(double x);
};
constexpr Gated gelu{Step::f_erf, "x * (1 + erf(x / sqrt(2))) / 2", "x / sqrt(2)",
                     [](double x) { return x / 1.4142135623730951; }};
constexpr Gated gelu_tanh{Step::f_tanh, "x * (1 + tanh(0.797885 * (x + 0.044715 * x^3))) / 2",
                          "0.797885 * (x + 0.044715 * x^3)",
                          [](double x) { return 0.7978845608028654 * (x + 0.044715 * x * x * x); }};
constexpr Gated silu{Step::f_sigmoid, "x * sigmoid(x)", "x", [](double x) { return x; }};

// A sum or product has parentheses, where it stands alone it needs none.
std::string alone(const std::string& formula) {
  return formula.front() == '(' ? formula.substr(1, formula.size() - 2) : formula;
}

// A tree of maps over x, as people write it.
std::string formula(const Graph& graph, ValueId id, ValueId x) {
  if (id == x) return "x";
  if (const auto number = uniform(graph, id)) return fmt::format("{:.6g}", *number);
  const Node& node = *producer(graph, id);
  const Step step = std::get<Map>(node.operation).step;
  std::vector<std::string> parts;
  for (const ValueId input : node.inputs) parts.push_back(formula(graph, input, x));
  constexpr std::pair<Step, const char*> signs[] = {
      {Step::f_add, " + "}, {Step::f_sub, " - "}, {Step::f_mul, " * "}, {Step::f_div, " / "}};
  for (const auto& [sign, text] : signs)
    if (step == sign) return "(" + parts[0] + text + parts[1] + ")";
  for (std::string& part : parts) part = alone(part);
  return fmt::format("{}({})", std::string(info(step).name).substr(2), fmt::join(parts, ", "));
}

// Where a function of one value that has the ingredients of a concept is another one.
std::optional<Miss> unlike(const Graph& graph, ValueId root, const Gated& concept_) {
  if (!made_by<Map>(graph, root) || graph.value(root).type != Type::f32 || !may_use(graph, root, {concept_.step}))
    return std::nullopt;
  for (const ValueId x : arguments(graph, root)) {
    const auto nodes = region(graph, root, {x});
    const auto f = std::find_if(nodes.begin(), nodes.end(), [&](NodeId id) {
      return operands_of(graph, graph.node(id).outputs[0], concept_.step) != nullptr;
    });
    if (f == nodes.end()) continue;
    const ValueId of_x = graph.node(*f).outputs[0], inner = graph.node(*f).inputs[0];
    // Something made of f times something made of x.
    std::set<ValueId> with_f{of_x}, with_x{x};
    ValueId next = no_value;
    bool gated = false;
    for (const NodeId id : region(graph, root, {x, of_x})) {
      const Node& node = graph.node(id);
      const auto any = [&](const std::set<ValueId>& of) {
        return std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId input) { return of.count(input) != 0; });
      };
      const Step step = std::get<Map>(node.operation).step;
      gated = gated || (any(with_f) && any(with_x) && (step == Step::f_mul || step == Step::f_div));
      if (any(with_f)) with_f.insert(node.outputs[0]);
      if (any(with_x)) with_x.insert(node.outputs[0]);
      if (next == no_value && any({of_x})) next = node.outputs[0];
    }
    if (!gated) continue;
    const std::string whole = alone(formula(graph, root, x)), f_name = std::string(info(concept_.step).name).substr(2);
    const Literal found = OnGrid(graph, x).compute(inner);
    for (size_t i = 0; i < grid().size(); ++i) {
      const double expected = concept_.expected(grid()[i]);
      if (std::abs(found.floats()[i] - expected) <= 1e-6 + 1e-5 * std::abs(expected)) continue;
      return Miss{inner == x ? of_x : inner,
                  fmt::format("{} of {}, in {}", f_name, alone(formula(graph, inner, x)), whole),
                  fmt::format("{} of {}, as in {}", f_name, concept_.inner, concept_.formula), "", x};
    }
    return Miss{next, whole, concept_.formula, "", x};
  }
  return std::nullopt;
}

// A concept, or where it stops.
std::optional<ValueId> fuse(Graph& graph, ValueId root, Step step, std::initializer_list<Step> ingredients,
                            const Gated& concept_, std::optional<Miss>& miss) {
  const auto found = fuse(graph, root, step, ingredients);
  if (!found) miss = unlike(graph, root, concept_);
  return found;
}

}  // namespace

std::optional<Offer> fuse_sigmoid(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_sigmoid, {Step::f_exp, Step::f_tanh});
}
std::optional<Offer> fuse_softplus(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_softplus, {Step::f_log});
}
std::optional<Offer> fuse_silu(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Step::f_silu, {Step::f_sigmoid, Step::f_exp, Step::f_tanh}, silu, miss);
}
std::optional<Offer> fuse_gelu_tanh(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return fuse(graph, root, Step::f_gelu_tanh, {Step::f_tanh, Step::f_sigmoid, Step::f_exp}, gelu_tanh, miss);
}
std::optional<Offer> fuse_relu(Graph& graph, ValueId root, std::optional<Miss>&) {
  return fuse(graph, root, Step::f_relu, {Step::f_max, Step::f_select});
}
std::optional<Offer> fuse_gelu(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  const auto found = fuse(graph, root, Step::f_gelu, {Step::f_erf}, gelu, miss);
  if (!found && !miss && operands_of(graph, root, Step::f_erf))
    miss = Miss{root, in_words(graph, root) + " that is not multiplied by its own argument", gelu.formula, "",
                producer(graph, root)->inputs[0]};
  return found;
}

}  // namespace heed::tools

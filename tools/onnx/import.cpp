#include "tools/onnx/import.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "tools/error.h"
#include "tools/onnx/dimensions.h"
#include "tools/onnx/lowering.h"
#include "tools/onnx/settings.h"
#include "tools/onnx/state.h"

namespace heed::tools {
namespace {

using onnx::DataType;

// Calls of functions are expanded: a file of a few kilobytes could ask for more nodes than there is memory.
constexpr int deepest_call = 32;
constexpr int64_t most_nodes = 500'000;
// An unsupported operator names so many of its nodes.
constexpr size_t most_names = 6;

const LoweringRow* find_row(std::string_view domain, std::string_view op) {
  static const auto table = [] {
    std::map<std::pair<std::string_view, std::string_view>, const LoweringRow*> rows;
    for (const auto part : {map_lowerings(), shape_lowerings(), sum_lowerings(), sequence_lowerings(),
                            window_lowerings(), quantized_lowerings()}) {
      for (const LoweringRow& row : part) rows[{row.domain, row.op}] = &row;
    }
    return rows;
  }();
  const auto found = table.find({domain, op});
  return found == table.end() ? nullptr : found->second;
}

std::string full_name(const onnx::Node& node) {
  return node.domain.empty() ? std::string(node.op) : fmt::format("{}.{}", node.domain, node.op);
}

const onnx::Graph* branch_of(const onnx::Node& node, std::string_view name) {
  for (const onnx::Attribute& a : node.attributes)
    if (a.name == name && a.kind == onnx::Attribute::Kind::graph) return a.graph.get();
  return nullptr;
}

bool is_if(const onnx::Node& node) {
  return node.domain.empty() && node.op == "If";
}

/// Calls visit with every name that a node, or a node inside its branches, reads.
template <class Visit>
void for_each_read(const onnx::Node& node, const Visit& visit) {
  for (const std::string_view input : node.inputs) visit(input);
  for (const onnx::Attribute& a : node.attributes) {
    if (a.graph == nullptr) continue;
    for (const onnx::Node& inner : a.graph->nodes) for_each_read(inner, visit);
    for (const onnx::ValueInfo& output : a.graph->outputs) visit(output.name);
  }
}

/// Names of values and attributes where a node stands: the graph, a call of a function, or a branch.
struct Scope {
  /// An operand without a value is absent (a function's optional input); nothing stands for a value that could not be
  /// computed.
  std::map<std::string_view, std::optional<Operand>> values;
  std::map<std::string_view, const onnx::Attribute*> attributes;  // of the call
  const onnx::Opsets* opsets;
  std::string prefix;  // of the names of nodes
  int depth = 0;
  Scope* outer = nullptr;  // of a branch, which sees its values too
};

/// left (step) right over dimensions, or its opposite.
struct Condition {
  Step step;  // i_equal, i_less, i_less_equal
  Expression left, right;
  bool negated = false;

  std::string text() const {
    const char* sign = step == Step::i_equal  ? (negated ? "!=" : "==")
                       : step == Step::i_less ? (negated ? ">=" : "<")
                                              : (negated ? ">" : "<=");
    return fmt::format("{} {} {}", left.text(), sign, right.text());
  }
};

class Importer {
 public:
  Importer(const onnx::Model& model, const ConvertOptions& options, std::vector<std::string>& notes)
      : model_(model), options_(options), notes_(notes) {
    for (const onnx::Function& f : model.functions) functions_[{f.domain, f.name, f.overload}] = &f;
    for (const onnx::Tensor& t : model.graph.initializers) {
      if (!initializers_.try_emplace(t.name, &t).second) problem("initializer '{}' is there twice", t.name);
    }
  }

  Graph run() {
    std::vector<std::string> wrong;  // options
    const Settings settings(model_.graph.inputs, options_.sets, wrong);
    const std::vector<StatePair> pairs = pair_states(model_.graph.inputs, model_.graph.outputs, options_.states, wrong);
    for (const onnx::ValueInfo& input : settings.inputs()) {
      const bool state =
          std::any_of(pairs.begin(), pairs.end(), [&](const auto& pair) { return pair.input == input.name; });
      // A default that nobody overrides, but what a state may start from.
      if (!initializers_.count(input.name) || state || settings.has(input.name)) inputs_.push_back(&input);
    }
    check_opset();
    find_live_nodes();
    check_operators(model_.graph.nodes, live_, model_.opsets, "");
    check_inputs();
    refuse_problems();
    Scope scope{{}, {}, &model_.opsets, "", 0, nullptr};
    add_inputs(settings, std::move(wrong), scope);
    lower_all(model_.graph.nodes, live_, scope);
    add_outputs(scope);
    refuse_problems();
    declare_states(graph_, pairs);
    set_first_values();
    notes_.insert(notes_.end(), graph_.notes.begin(), graph_.notes.end());
    return std::move(graph_);
  }

 private:
  template <class... Args>
  void problem(fmt::format_string<Args...> text, Args&&... args) {
    problems_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  void refuse_problems() {
    for (const auto& [op, names] : missing_) {
      const std::span<const std::string> shown(names.data(), std::min(names.size(), most_names));
      problem("operator {} is not supported: {} node{}: {}{}", op, names.size(), names.size() == 1 ? "" : "s",
              fmt::join(shown, ", "), names.size() > shown.size() ? ", ..." : "");
    }
    if (!problems_.empty()) throw Error(Fault::model, problems_);
  }

  using Results = std::vector<std::optional<Operand>>;

  // --- Before anything is lowered ------------------------------------------------------------------------

  static bool is_known_domain(std::string_view domain) { return domain.empty() || domain == "com.microsoft"; }

  static int64_t version_of(const onnx::Opsets& opsets, std::string_view domain) {
    const auto found = opsets.find(domain);
    return found == opsets.end() ? 1 : found->second;
  }

  void check_opset() {
    const auto found = model_.opsets.find("");
    if (found == model_.opsets.end()) return;
    if (found->second > newest_opset) {
      problem("operator set {} is newer than the newest that is known, {}", found->second, newest_opset);
    }
  }

  const onnx::Function* find_function(const onnx::Node& node) const {
    const auto found = functions_.find({node.domain, node.op, node.overload});
    return found == functions_.end() ? nullptr : found->second;
  }

  /// Notes every operator that has no lowering. What stands in a branch is looked at once the branch is taken.
  void check_operators(const std::vector<onnx::Node>& nodes, const std::vector<bool>& live, const onnx::Opsets& opsets,
                       const std::string& prefix) {
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (!live[i] || is_if(nodes[i])) continue;
      const onnx::Node& node = nodes[i];
      const std::string name = node_name(node, i, prefix);
      const int64_t version = version_of(opsets, node.domain);
      if (const LoweringRow* row = find_row(node.domain, node.op)) {
        if (version >= row->since) continue;
        missing_[fmt::format("{} as of operator set {} (from {} on it is)", full_name(node), version, row->since)]
            .push_back(name);
      } else if (const onnx::Function* function = find_function(node)) {
        if (!checked_.insert(function).second) continue;
        check_operators(function->nodes, std::vector<bool>(function->nodes.size(), true), function->opsets,
                        fmt::format("{}/", function->name));
      } else {
        missing_[full_name(node)].push_back(name);
      }
    }
  }

  void check_inputs() {
    std::set<std::string_view> seen;
    for (const onnx::ValueInfo* input : inputs_) {
      if (!seen.insert(input->name).second) problem("input '{}' is there twice", input->name);
      if (!input->is_tensor) {
        problem("input '{}' is no tensor", input->name);
      } else if (!onnx::device_type(input->type)) {
        problem("input '{}' is of type {}, which is not supported", input->name, onnx::name(input->type));
      } else if (!input->axes) {
        problem("input '{}' has no shape, not even a rank", input->name);
      } else if (input->axes->size() > most_axes) {
        problem("input '{}' has {} axes", input->name, input->axes->size());
      }
    }
    if (model_.graph.outputs.empty()) problem("the graph has no outputs");
  }

  void add_inputs(const Settings& settings, std::vector<std::string> wrong, Scope& scope) {
    BoundInputs bound = bind_dimensions(inputs_, {options_.dims, options_.limits, settings.pinned(), options_.command},
                                        std::move(wrong), notes_);
    graph_.dimensions = std::move(bound.dimensions);
    for (const Constraint& limit : bound.limits) {
      if (limit.relation == Constraint::Relation::equal)
        graph_.unify(limit.left, limit.right, "--limit");  // or a size of --set
      else
        graph_.constraints.push_back(limit);
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::string name(inputs_[i]->name);
      ValueId id = no_value;
      if (settings.has(name)) {
        id = graph_.constant(name, settings.value(name));
        if (graph_.value(id).dims.empty()) id = graph_.add_value(Expand{bound.dims[i]}, {id}, name);
      } else {
        id = graph_.input(name, *onnx::device_type(inputs_[i]->type), bound.dims[i]);
        graph_.inputs.push_back({name, id, static_cast<uint8_t>(inputs_[i]->type)});
      }
      scope.values[inputs_[i]->name] = Operand{id, inputs_[i]->type};
    }
  }

  /// An input's default is what a state starts from.
  void set_first_values() {
    for (State& state : graph_.states) {
      const Border& border = graph_.inputs[static_cast<size_t>(state.input)];
      const auto initializer = initializers_.find(border.name);
      if (initializer == initializers_.end()) continue;
      Literal first = onnx::literal(*initializer->second);
      const Dims& dims = graph_.value(border.value).dims;
      if (Dims(first.dims.begin(), first.dims.end()) != dims)
        throw Error(Fault::model, fmt::format("the state '{}' is {}, and its first value {}", border.name,
                                              heed::tools::text(dims), heed::tools::text(first.dims)));
      state.first = std::move(first);
    }
  }

  /// Finds the nodes that an output depends on, and values that are computed twice.
  void find_live_nodes() {
    const std::vector<onnx::Node>& nodes = model_.graph.nodes;
    for (size_t i = 0; i < nodes.size(); ++i) {
      for (const std::string_view output : nodes[i].outputs) {
        if (output.empty()) continue;
        const bool is_new = producers_.try_emplace(output, i).second;
        if (!is_new || initializers_.count(output))
          problem("'{}' is computed twice, again by node '{}'", output, node_name(nodes[i], i, ""));
      }
    }
    live_ = live_nodes(model_.graph);
  }

  static std::vector<bool> live_nodes(const onnx::Graph& graph) {
    std::map<std::string_view, size_t> producers;
    for (size_t i = 0; i < graph.nodes.size(); ++i)
      for (const std::string_view output : graph.nodes[i].outputs) producers.try_emplace(output, i);
    std::vector<bool> live(graph.nodes.size());
    std::vector<size_t> open;
    const auto enter = [&](std::string_view value) {
      const auto found = producers.find(value);
      if (value.empty() || found == producers.end() || live[found->second]) return;
      live[found->second] = true;
      open.push_back(found->second);
    };
    for (const onnx::ValueInfo& output : graph.outputs) enter(output.name);
    while (!open.empty()) {
      const size_t i = open.back();
      open.pop_back();
      for_each_read(graph.nodes[i], enter);
    }
    return live;
  }

  // --- Nodes ---------------------------------------------------------------------------------------------

  static std::string node_name(const onnx::Node& node, size_t index, const std::string& prefix) {
    return prefix + (node.name.empty() ? fmt::format("{}_{}", node.op, index) : std::string(node.name));
  }

  void lower_all(const std::vector<onnx::Node>& nodes, const std::vector<bool>& live, Scope& scope) {
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (!live[i]) continue;
      const std::string name = node_name(nodes[i], i, scope.prefix);
      std::vector<Operand> operands;
      bool complete = true;
      for (const std::string_view input : nodes[i].inputs) {
        const std::optional<Operand> found = input.empty() ? Operand{} : find_value(input, scope, name);
        operands.push_back(found.value_or(Operand{}));
        complete = complete && found;
      }
      Results results;
      if (complete) results = lower(nodes[i], name, std::move(operands), scope);
      results.resize(nodes[i].outputs.size());
      for (size_t k = 0; results.size() > 1 && k < results.size(); ++k)  // told apart
        if (results[k] && results[k]->id != no_value && graph_.value(results[k]->id).name == name)
          graph_.value(results[k]->id).name = fmt::format("{}/{}", name, k);
      for (size_t k = 0; k < results.size(); ++k) {
        const std::string_view output = nodes[i].outputs[k];
        if (!output.empty()) scope.values.try_emplace(output, results[k]);
      }
    }
  }

  /// Nothing where the value is not to be had; the reason is among the problems then.
  std::optional<Operand> find_value(std::string_view value, Scope& scope, const std::string& reader) {
    if (scope.outer != nullptr && !scope.values.count(value)) return find_value(value, *scope.outer, reader);
    const auto [entry, is_new] = scope.values.try_emplace(value);
    if (!is_new) return entry->second;
    const auto initializer = scope.depth == 0 ? initializers_.find(value) : initializers_.end();
    if (initializer != initializers_.end()) {
      try {
        const onnx::Tensor& tensor = *initializer->second;
        if (tensor.dims.size() > most_axes)
          throw Error(Fault::model, fmt::format("tensor '{}' has {} axes", value, tensor.dims.size()));
        entry->second = {graph_.constant(std::string(value), onnx::literal(tensor)), tensor.type};
      } catch (const Error& e) {
        problem("{}", e.what());
      }
    } else if (scope.depth == 0 && producers_.count(value)) {
      problem("node '{}' reads '{}', which a later node computes: the graph has a cycle or is not in order", reader,
              value);
    } else {
      problem("'{}', read by '{}', is computed by no node and is no input", value, reader);
    }
    return entry->second;
  }

  Results lower(const onnx::Node& written, const std::string& name, std::vector<Operand> operands, Scope& scope) {
    if (++lowered_ > most_nodes) throw Error(Fault::model, fmt::format("the model has more than {} nodes", most_nodes));
    const onnx::Node node = with_attributes(written, scope);
    if (is_if(node)) return lower_if(node, name, operands, scope);
    const LoweringRow* row = find_row(node.domain, node.op);
    if (row == nullptr) return find_function(node) == nullptr ? Results() : call(node, name, operands, scope);
    try {
      Lowering lowering(graph_, node, version_of(*scope.opsets, node.domain), name, std::move(operands));
      row->lower(lowering);
      const std::vector<std::string> leftovers = lowering.leftovers();
      for (const std::string& leftover : leftovers) problem("node '{}' ({}): {}", name, full_name(node), leftover);
      if (leftovers.empty()) return {lowering.results().begin(), lowering.results().end()};
    } catch (const Refusal& refusal) {
      problem("node '{}' ({}): {}", name, full_name(node), refusal.what);
    } catch (const Error& e) {
      problems_.insert(problems_.end(), e.problems().begin(), e.problems().end());
    }
    return {};
  }

  /// The node with attributes of the call in the place of references to them.
  static onnx::Node with_attributes(onnx::Node node, const Scope& scope) {
    std::vector<onnx::Attribute> attributes;
    for (onnx::Attribute& a : node.attributes) {
      if (a.reference.empty()) {
        attributes.push_back(std::move(a));
        continue;
      }
      const auto found = scope.attributes.find(a.reference);
      if (found == scope.attributes.end()) continue;  // not given by the call: absent
      attributes.push_back(*found->second);
      attributes.back().name = a.name;
    }
    node.attributes = std::move(attributes);
    return node;
  }

  Results call(const onnx::Node& node, const std::string& name, const std::vector<Operand>& operands, Scope& caller) {
    const onnx::Function& function = *find_function(node);
    if (caller.depth >= deepest_call) {
      throw Error(Fault::model, fmt::format("function '{}' calls itself, or calls are nested more than {} deep",
                                            function.name, deepest_call));
    }
    if (operands.size() > function.inputs.size()) {
      problem("node '{}': {} operands for function '{}' of {}", name, operands.size(), function.name,
              function.inputs.size());
      return {};
    }
    Scope scope{{}, {}, &function.opsets, name + "/", caller.depth + 1, nullptr};
    for (size_t i = 0; i < function.inputs.size(); ++i) {
      scope.values[function.inputs[i]] = i < operands.size() ? operands[i] : Operand{};
    }
    for (const onnx::Attribute& a : function.defaults) scope.attributes[a.name] = &a;
    for (const onnx::Attribute& a : node.attributes) scope.attributes[a.name] = &a;
    lower_all(function.nodes, std::vector<bool>(function.nodes.size(), true), scope);
    Results results;
    for (size_t i = 0; i < node.outputs.size() && i < function.outputs.size(); ++i) {
      results.push_back(find_value(function.outputs[i], scope, fmt::format("the end of function {}", function.name)));
    }
    return results;
  }

  // --- Branches ------------------------------------------------------------------------------------------

  /// The branch that is taken, by a condition that is known, or that the dimensions' bounds decide; else the only one
  /// whose shapes are valid, with the constraint that it is the one.
  Results lower_if(const onnx::Node& node, const std::string& name, const std::vector<Operand>& operands,
                   Scope& scope) {
    const onnx::Graph *yes = branch_of(node, "then_branch"), *no = branch_of(node, "else_branch");
    if (yes == nullptr || no == nullptr || operands.size() != 1 || operands[0].id == no_value) {
      problem("node '{}' (If): a condition, a then_branch and an else_branch are wanted", name);
      return {};
    }
    const Value& condition = graph_.value(operands[0].id);
    if (condition.type != Type::boolean || count(condition.dims).constant() != 1) {
      problem("node '{}' (If): the condition '{}' is not one boolean", name, node.inputs[0]);
      return {};
    }
    if (condition.constant) return branch(condition.constant->booleans()[0] != 0 ? *yes : *no, name, scope);
    const auto known = read_condition(operands[0].id);
    if (!known) {
      problem(
          "node '{}' (If): the condition '{}' depends on data; it has to be known at conversion (--set NAME=VALUE "
          "makes an input a constant)",
          name, node.inputs[0]);
      return {};
    }
    return only_valid_branch(*yes, *no, *known, name, scope);
  }

  std::optional<Condition> read_condition(ValueId id) const {
    Condition condition{Step::i_equal, 0, 0, false};
    for (;;) {
      const NodeId producer = graph_.value(id).producer;
      if (producer < 0) return std::nullopt;
      const Node& node = graph_.node(producer);
      const auto* map = std::get_if<Map>(&node.operation);
      if (std::holds_alternative<Reshape>(node.operation)) {
        id = node.inputs[0];
      } else if (map != nullptr && map->step == Step::b_not) {
        condition.negated = !condition.negated;
        id = node.inputs[0];
      } else if (map != nullptr &&
                 (map->step == Step::i_equal || map->step == Step::i_less || map->step == Step::i_less_equal)) {
        const auto &left = graph_.value(node.inputs[0]).symbols, &right = graph_.value(node.inputs[1]).symbols;
        if (!left || !right || left->size() != 1 || right->size() != 1) return std::nullopt;
        condition.step = map->step;
        condition.left = (*left)[0];
        condition.right = (*right)[0];
        return condition;
      } else {
        return std::nullopt;
      }
    }
  }

  /// Each branch is lowered to see whether its shapes are valid for all sizes; of the one that is not, nothing stays.
  Results only_valid_branch(const onnx::Graph& yes, const onnx::Graph& no, const Condition& condition,
                            const std::string& name, Scope& scope) {
    // What the branches read has to be there before either is tried.
    for (const onnx::Graph* graph : {&yes, &no})
      for (const onnx::Node& node : graph->nodes)
        for_each_read(node, [&](std::string_view value) {
          if (is_outside(value, scope)) (void)find_value(value, scope, name);
        });
    struct Attempt {
      Graph graph;
      Results results;
      std::vector<std::string> problems;
      std::map<std::string, std::vector<std::string>> missing;
      bool valid;
    };
    const Graph before = graph_;
    const auto problems = problems_;
    const auto missing = missing_;
    const auto attempt = [&](const onnx::Graph& graph) {
      Results results = branch(graph, name, scope);
      const auto same = [](const auto& a, const auto& b) {
        return a.second.lower == b.second.lower && a.second.upper == b.second.upper && a.first == b.first;
      };
      const bool valid = problems_ == problems && missing_ == missing &&
                         graph_.constraints.size() == before.constraints.size() &&
                         std::equal(graph_.dimensions.begin(), graph_.dimensions.end(), before.dimensions.begin(),
                                    before.dimensions.end(), same);
      Attempt made{std::move(graph_), std::move(results), problems_, missing_, valid};
      graph_ = before;
      problems_ = problems;
      missing_ = missing;
      return made;
    };
    Attempt first = attempt(yes), second = attempt(no);
    if (first.valid == second.valid) {
      problem(
          "node '{}' (If): {} for some of the sizes and not for others, and {} of its branches {} valid for all; "
          "--dim and --limit can decide it",
          name, condition.text(), first.valid ? "both" : "none", first.valid ? "are" : "is");
      return {};
    }
    Attempt& taken = first.valid ? first : second;
    graph_ = std::move(taken.graph);
    Condition held = condition;
    if (!first.valid) held.negated = !held.negated;
    if (!constrain(held, name))
      problem("node '{}' (If): only one branch has valid shapes, where {}; --dim and --limit can decide it", name,
              held.text());
    return std::move(taken.results);
  }

  /// False where the sizes for which it does not hold lie amid the others.
  bool constrain(const Condition& c, const std::string& name) {
    const auto at_most = [&](const Expression& left, const Expression& right) {
      graph_.constraints.push_back({Constraint::Relation::less_equal, left, right});
      graph_.notes.push_back(fmt::format("node '{}' (If): {}", name, c.text()));
      return true;
    };
    if (c.step == Step::i_less) return c.negated ? at_most(c.right, c.left) : at_most(c.left + 1, c.right);
    if (c.step == Step::i_less_equal) return c.negated ? at_most(c.right + 1, c.left) : at_most(c.left, c.right);
    if (!c.negated) {
      graph_.unify(c.left, c.right, fmt::format("node '{}' (If)", name));
      return true;
    }
    const auto [lower, upper] = (c.left - c.right).range(graph_.dimensions);
    if (lower == 0) return at_most(c.right + 1, c.left);
    return upper == 0 && at_most(c.left + 1, c.right);
  }

  bool is_outside(std::string_view value, const Scope& scope) const {
    for (const Scope* s = &scope; s != nullptr; s = s->outer) {
      if (s->values.count(value)) return true;
      if (s->depth == 0 && initializers_.count(value)) return true;
    }
    return false;
  }

  Results branch(const onnx::Graph& graph, const std::string& name, Scope& outer) {
    Scope scope{{}, outer.attributes, outer.opsets, outer.prefix, outer.depth + 1, &outer};
    if (scope.depth > deepest_call)
      throw Error(Fault::model, fmt::format("node '{}': branches are nested more than {} deep", name, deepest_call));
    for (const onnx::Tensor& t : graph.initializers) {
      try {
        scope.values[t.name] = Operand{graph_.constant(std::string(t.name), onnx::literal(t)), t.type};
      } catch (const Error& e) {
        problem("{}", e.what());
        scope.values[t.name] = std::nullopt;
      }
    }
    const std::vector<bool> live = live_nodes(graph);
    check_operators(graph.nodes, live, *scope.opsets, scope.prefix);
    lower_all(graph.nodes, live, scope);
    Results results;
    for (const onnx::ValueInfo& output : graph.outputs)
      results.push_back(find_value(output.name, scope, fmt::format("the end of a branch of '{}'", name)));
    return results;
  }

  void add_outputs(Scope& scope) {
    std::set<std::string_view> seen;
    for (const onnx::ValueInfo& output : model_.graph.outputs) {
      if (!seen.insert(output.name).second) problem("output '{}' is there twice", output.name);
      const auto found = find_value(output.name, scope, "the graph's output");
      if (!found) continue;
      graph_.outputs.push_back({std::string(output.name), found->id, static_cast<uint8_t>(found->type)});
      note_contradiction(output, graph_.value(found->id).dims);
    }
  }

  void note_contradiction(const onnx::ValueInfo& output, const Dims& dims) {
    if (!output.axes) return;
    bool same = output.axes->size() == dims.size();
    Dims declared;
    for (const onnx::Axis& axis : *output.axes) {
      const bool fixed = axis.size && *axis.size >= 0;
      declared.push_back(fixed ? Expression(*axis.size)
                               : Expression::dimension(axis.text.empty() ? "?" : std::string(axis.text)));
      if (same && fixed && dims[declared.size() - 1].constant()) same = declared.back() == dims[declared.size() - 1];
    }
    if (!same)
      notes_.push_back(
          fmt::format("output '{}' is declared as {}, the graph computes {}", output.name, text(declared), text(dims)));
  }

  const onnx::Model& model_;
  const ConvertOptions& options_;
  std::vector<std::string>& notes_;
  std::map<std::array<std::string_view, 3>, const onnx::Function*> functions_;  // by domain, name, overload
  std::map<std::string_view, const onnx::Tensor*> initializers_;
  std::map<std::string_view, size_t> producers_;  // nodes of the graph by what they compute
  std::vector<bool> live_;                        // of the graph's nodes
  std::vector<const onnx::ValueInfo*> inputs_;
  std::vector<std::string> problems_;
  std::map<std::string, std::vector<std::string>> missing_;  // operators without a lowering: their nodes
  std::set<const onnx::Function*> checked_;
  int64_t lowered_ = 0;
  Graph graph_;
};

}  // namespace

Graph import(const onnx::Model& model, const ConvertOptions& options, std::vector<std::string>& notes) {
  return Importer(model, options, notes).run();
}

std::map<std::string, int> count_operators(const onnx::Model& model) {
  std::map<std::string, int> counts;
  for (const onnx::Node& node : model.graph.nodes) ++counts[full_name(node)];
  return counts;
}

}  // namespace heed::tools

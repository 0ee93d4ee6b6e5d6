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
    for (const auto part : {map_lowerings(), shape_lowerings(), sum_lowerings(), sequence_lowerings()}) {
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

/// Names of values and attributes where a node stands: the graph, or a call of a function.
struct Scope {
  /// An operand without a value is absent (a function's optional input); nothing stands for a value that could not be
  /// computed.
  std::map<std::string_view, std::optional<Operand>> values;
  std::map<std::string_view, const onnx::Attribute*> attributes;  // of the call
  const onnx::Opsets* opsets;
  std::string prefix;  // of the names of nodes
  int depth = 0;
};

class Importer {
 public:
  Importer(const onnx::Model& model, const ConvertOptions& options, std::vector<std::string>& notes)
      : model_(model), options_(options), notes_(notes) {
    for (const onnx::Function& f : model.functions) functions_[{f.domain, f.name, f.overload}] = &f;
    for (const onnx::Tensor& t : model.graph.initializers) {
      if (!initializers_.try_emplace(t.name, &t).second) problem("initializer '{}' is there twice", t.name);
    }
    for (const onnx::ValueInfo& input : model.graph.inputs) {
      if (!initializers_.count(input.name)) inputs_.push_back(&input);  // else a default that nobody overrides
    }
  }

  Graph run() {
    check_opset();
    find_live_nodes();
    check_operators();
    check_inputs();
    refuse_problems();
    add_inputs();
    Scope scope{{}, {}, &model_.opsets, "", 0};
    for (size_t i = 0; i < inputs_.size(); ++i) {
      scope.values[inputs_[i]->name] = Operand{graph_.inputs[i].value, inputs_[i]->type};
    }
    lower_all(model_.graph.nodes, live_, scope);
    add_outputs(scope);
    refuse_problems();
    notes_.insert(notes_.end(), graph_.notes.begin(), graph_.notes.end());
    return std::move(graph_);
  }

 private:
  template <class... Args>
  void problem(fmt::format_string<Args...> text, Args&&... args) {
    problems_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  void refuse_problems() const {
    if (!problems_.empty()) throw Error(Fault::model, problems_);
  }

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

  /// Every operator that has no lowering, once, with its nodes.
  void check_operators() {
    std::map<std::string, std::vector<std::string>> missing;
    std::vector<const onnx::Function*> called;
    std::set<const onnx::Function*> seen;
    const auto check = [&](const onnx::Node& node, const onnx::Opsets& opsets, const std::string& name) {
      const int64_t version = version_of(opsets, node.domain);
      if (const LoweringRow* row = find_row(node.domain, node.op)) {
        if (version >= row->since) return;
        missing[fmt::format("{} as of operator set {} (from {} on it is)", full_name(node), version, row->since)]
            .push_back(name);
      } else if (const onnx::Function* function = find_function(node)) {
        if (seen.insert(function).second) called.push_back(function);
      } else {
        missing[full_name(node)].push_back(name);
      }
    };
    for (size_t i = 0; i < model_.graph.nodes.size(); ++i) {
      if (live_[i]) check(model_.graph.nodes[i], model_.opsets, node_name(model_.graph.nodes[i], i, ""));
    }
    for (size_t k = 0; k < called.size(); ++k) {
      const onnx::Function& function = *called[k];
      for (size_t i = 0; i < function.nodes.size(); ++i) {
        check(function.nodes[i], function.opsets, node_name(function.nodes[i], i, fmt::format("{}/", function.name)));
      }
    }
    for (const auto& [op, names] : missing) {
      const std::span<const std::string> shown(names.data(), std::min(names.size(), most_names));
      problem("operator {} is not supported: {} node{}: {}{}", op, names.size(), names.size() == 1 ? "" : "s",
              fmt::join(shown, ", "), names.size() > shown.size() ? ", ..." : "");
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

  void add_inputs() {
    BoundInputs bound = bind_dimensions(inputs_, options_.dims, options_.command, notes_);
    graph_.dimensions = std::move(bound.dimensions);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::string name(inputs_[i]->name);
      const ValueId id = graph_.input(name, *onnx::device_type(inputs_[i]->type), bound.dims[i]);
      graph_.inputs.push_back({name, id, static_cast<uint8_t>(inputs_[i]->type)});
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
    live_.resize(nodes.size());
    std::vector<size_t> open;
    const auto enter = [&](std::string_view value) {
      const auto found = producers_.find(value);
      if (found == producers_.end() || live_[found->second]) return;
      live_[found->second] = true;
      open.push_back(found->second);
    };
    for (const onnx::ValueInfo& output : model_.graph.outputs) enter(output.name);
    while (!open.empty()) {
      const size_t i = open.back();
      open.pop_back();
      for (const std::string_view input : nodes[i].inputs) enter(input);
    }
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
      std::vector<std::optional<Operand>> results;
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

  std::vector<std::optional<Operand>> lower(const onnx::Node& written, const std::string& name,
                                            std::vector<Operand> operands, Scope& scope) {
    if (++lowered_ > most_nodes) throw Error(Fault::model, fmt::format("the model has more than {} nodes", most_nodes));
    const onnx::Node node = with_attributes(written, scope);
    const LoweringRow* row = find_row(node.domain, node.op);
    if (row == nullptr) return call(node, name, operands, scope);
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

  std::vector<std::optional<Operand>> call(const onnx::Node& node, const std::string& name,
                                           const std::vector<Operand>& operands, Scope& caller) {
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
    Scope scope{{}, {}, &function.opsets, name + "/", caller.depth + 1};
    for (size_t i = 0; i < function.inputs.size(); ++i) {
      scope.values[function.inputs[i]] = i < operands.size() ? operands[i] : Operand{};
    }
    for (const onnx::Attribute& a : function.defaults) scope.attributes[a.name] = &a;
    for (const onnx::Attribute& a : node.attributes) scope.attributes[a.name] = &a;
    lower_all(function.nodes, std::vector<bool>(function.nodes.size(), true), scope);
    std::vector<std::optional<Operand>> results;
    for (size_t i = 0; i < node.outputs.size() && i < function.outputs.size(); ++i) {
      results.push_back(find_value(function.outputs[i], scope, fmt::format("the end of function {}", function.name)));
    }
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

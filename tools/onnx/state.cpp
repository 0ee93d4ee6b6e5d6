#include "tools/onnx/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>

#include "tools/error.h"

namespace heed::tools {
namespace {

/// What the stars of a pattern stand for in a name.
std::optional<std::vector<std::string>> match(std::string_view pattern, std::string_view name) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name ? std::optional(std::vector<std::string>{}) : std::nullopt;
  if (name.substr(0, star) != pattern.substr(0, star)) return std::nullopt;
  for (size_t length = 1; star + length <= name.size(); ++length) {
    auto rest = match(pattern.substr(star + 1), name.substr(star + length));
    if (!rest) continue;
    rest->insert(rest->begin(), std::string(name.substr(star, length)));
    return rest;
  }
  return std::nullopt;
}

std::string fill(std::string_view pattern, const std::vector<std::string>& stars) {
  std::string text;
  size_t next = 0;
  for (const char c : pattern) {
    if (c == '*')
      text += stars[next++];
    else
      text += c;
  }
  return text;
}

/// Whether a name's words tell that it is carried along: names such as "x_in" alone do not.
bool names_state(std::string_view name) {
  static constexpr std::string_view words[] = {"h",     "c",   "hc",     "hidden", "cell", "state",
                                               "cache", "mem", "memory", "lstm",   "gru",  "rnn"};
  for (size_t begin = 0; begin < name.size();) {
    size_t end = begin;
    while (end < name.size() && std::isalpha(static_cast<unsigned char>(name[end]))) ++end;
    std::string word(name.substr(begin, end - begin));
    for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (word.size() > 3 && word.back() == 's') word.pop_back();
    if (std::find(std::begin(words), std::end(words), word) != std::end(words)) return true;
    begin = end + 1;
  }
  return false;
}

struct Usual {
  std::string_view input, output;
  bool tells = false;  // the pattern is enough; else the name has to be that of a state
};
constexpr Usual usual[] = {
    {"past_key_values.*", "present.*", true},
    {"past_key_values.*", "present_key_values.*", true},
    {"past.*", "present.*", true},
    {"past_*", "present_*", true},
    {"*_in", "*_out"},
    {"in_*", "out_*"},
    {"input_*", "output_*"},
    {"*", "*_out"},
    {"*", "*N"},
    {"*", "*n"},
    {"*0", "*n"},
    {"*_0", "*_n"},
    {"*", "new_*"},
    {"*", "next_*"},
    {"*_prev", "*"},
};

const onnx::ValueInfo* find(const std::vector<onnx::ValueInfo>& all, std::string_view name) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.name == name; });
  return found == all.end() ? nullptr : &*found;
}

std::string names(const std::vector<onnx::ValueInfo>& all, std::string_view wrong) {
  std::vector<std::string> list;
  for (const onnx::ValueInfo& each : all) list.emplace_back(each.name);
  return likest_first(wrong, std::move(list));
}

/// Sizes that are numbers on both sides agree.
bool may_be_one(const onnx::ValueInfo& a, const onnx::ValueInfo& b) {
  if (a.type != b.type || !a.axes || !b.axes || a.axes->size() != b.axes->size()) return false;
  for (size_t i = 0; i < a.axes->size(); ++i)
    if ((*a.axes)[i].size && (*b.axes)[i].size && *(*a.axes)[i].size != *(*b.axes)[i].size) return false;
  return true;
}

class Pairing {
 public:
  Pairing(const std::vector<onnx::ValueInfo>& inputs, const std::vector<onnx::ValueInfo>& outputs)
      : inputs_(inputs), outputs_(outputs) {}

  std::vector<StatePair> run(const std::vector<std::string>& options, std::vector<std::string>& problems) {
    bool by_name = true;
    for (const std::string& option : options) {
      if (option == "none")
        by_name = false;
      else
        asked_for(option, problems);
    }
    if (by_name) {
      for (const Usual& form : usual) look_for(form);
      look_for_stacks();
    }
    return std::move(pairs_);
  }

 private:
  void asked_for(const std::string& option, std::vector<std::string>& problems) {
    const auto wrong = [&](const std::string& what) {
      problems.push_back(fmt::format("--state {}: {}", option, what));
    };
    const size_t equals = option.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == option.size())
      return wrong("write IN=OUT, with as many * on both sides, or none");
    const std::string in = option.substr(0, equals), out = option.substr(equals + 1);
    if (std::count(in.begin(), in.end(), '*') != std::count(out.begin(), out.end(), '*'))
      return wrong("the two sides have different numbers of *");
    bool any = false;
    std::vector<std::string> absent;
    for (const onnx::ValueInfo& input : inputs_) {
      const auto stars = match(in, input.name);
      if (!stars) continue;
      any = true;
      const std::string output = fill(out, *stars);
      if (find(outputs_, output) == nullptr)
        absent.push_back(output);
      else if (!add(input, output, option))
        wrong(fmt::format("'{}' or '{}' is in another pair already", input.name, output));
    }
    if (!absent.empty())
      wrong(fmt::format("there is no output '{}'{}; this model has {}", absent[0],
                        absent.size() > 1 ? fmt::format(" (nor {} more)", absent.size() - 1) : "",
                        names(outputs_, absent[0])));
    if (!any) wrong(fmt::format("there is no input '{}'; this model has {}", in, names(inputs_, in)));
  }

  void look_for(const Usual& form) {
    for (const onnx::ValueInfo& input : inputs_) {
      const auto stars = match(form.input, input.name);
      if (!stars || !(form.tells || names_state(input.name))) continue;
      const std::string output = fill(form.output, *stars);
      const onnx::ValueInfo* found = find(outputs_, output);
      if (found != nullptr && found->type == input.type) add(input, output, "");
    }
  }

  /// Keras names inputs by number, and an output by the stack of states that made it.
  void look_for_stacks() {
    for (const onnx::ValueInfo& output : outputs_) {
      if (output.name.find("_stack") == std::string_view::npos) continue;
      const onnx::ValueInfo* only = nullptr;
      int count = 0;
      for (const onnx::ValueInfo& input : inputs_)
        if (may_be_one(input, output)) only = &input, ++count;
      if (count == 1) add(*only, std::string(output.name), "");
    }
  }

  bool add(const onnx::ValueInfo& input, const std::string& output, const std::string& option) {
    for (const StatePair& pair : pairs_)
      if (pair.input == input.name || pair.output == output) return false;
    pairs_.push_back({std::string(input.name), output, option});
    return true;
  }

  const std::vector<onnx::ValueInfo>&inputs_, &outputs_;
  std::vector<StatePair> pairs_;
};

std::optional<std::string> name_of(const Expression& size) {
  std::vector<std::string> names;
  size.collect(names);
  if (names.size() == 1 && size == Expression::dimension(names[0])) return names[0];
  return std::nullopt;
}

bool depends(const Expression& size, const std::string& name) {
  std::vector<std::string> names;
  size.collect(names);
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The most that `size` comes to under the constraints.
int64_t largest(const Graph& graph, const Expression& size) {
  int64_t most = size.range(graph.dimensions).upper;
  for (const Constraint& constraint : graph.constraints) {
    const auto beside = (constraint.left - size).constant();
    if (beside) most = std::min(most, constraint.right.range(graph.dimensions).upper - *beside);
  }
  return most;
}

class Declaration {
 public:
  explicit Declaration(Graph& graph) : graph_(graph) {}

  void run(const std::vector<StatePair>& pairs) {
    std::vector<std::string> problems;
    for (const StatePair& pair : pairs) {
      const std::string problem = declare(pair);
      if (problem.empty()) continue;
      if (pair.option.empty())
        graph_.notes.push_back(
            fmt::format("'{}' and '{}' are named like a state, but {}", pair.input, pair.output, problem));
      else
        problems.push_back(fmt::format("--state {}: {}", pair.option, problem));
    }
    if (!problems.empty()) throw Error(Fault::command_line, problems);
    if (graph_.position) {
      const Expression after = Expression::dimension(graph_.position->name) + graph_.position->step;
      graph_.position->capacity = largest(graph_, after);
      graph_.notes.push_back(fmt::format("state: '{}' is the position, no dimension; there is room for {}",
                                         graph_.position->name, graph_.position->capacity));
    }
  }

 private:
  /// Why the pair is no state; empty where it is one now.
  std::string declare(const StatePair& pair) {
    const auto index = [](const std::vector<Border>& borders, const std::string& name) {
      const auto found = std::find_if(borders.begin(), borders.end(), [&](const Border& b) { return b.name == name; });
      return found == borders.end() ? -1 : static_cast<int>(found - borders.begin());
    };
    State state{index(graph_.inputs, pair.input), index(graph_.outputs, pair.output), -1, {}};
    if (state.input < 0) return fmt::format("'{}' is a constant here", pair.input);
    const Value& in = graph_.value(graph_.inputs[static_cast<size_t>(state.input)].value);
    const Value& out = graph_.value(graph_.outputs[static_cast<size_t>(state.output)].value);
    const std::string shapes = fmt::format("the input's shape is {}, the output's {}", text(in.dims), text(out.dims));
    if (in.type != out.type) {
      const auto type = [](const Border& border) { return onnx::name(static_cast<onnx::DataType>(border.type)); };
      return fmt::format("'{}' is {}, '{}' is {}", pair.input, type(graph_.inputs[static_cast<size_t>(state.input)]),
                         pair.output, type(graph_.outputs[static_cast<size_t>(state.output)]));
    }
    if (in.dims.size() != out.dims.size()) return shapes;
    for (size_t axis = 0; axis < in.dims.size(); ++axis) {
      if (in.dims[axis] == out.dims[axis]) continue;
      if (state.axis >= 0) return shapes + ": they differ in more than one axis";
      state.axis = static_cast<int>(axis);
    }
    if (state.axis >= 0) {
      const auto axis = static_cast<size_t>(state.axis);
      const std::string problem = grow(in.dims[axis], out.dims[axis]);
      if (!problem.empty()) return fmt::format("{}: {}", shapes, problem);
    }
    graph_.states.push_back(std::move(state));
    return "";
  }

  std::string grow(const Expression& before, const Expression& after) {
    const auto name = name_of(before);
    if (!name)
      return fmt::format("the axis that grows has the size {}, where a dimension of its own is wanted{}", before.text(),
                         before.constant() ? ": give it a range, --dim NAME=LO..HI" : "");
    const Expression step = after - before;
    if (depends(step, *name)) return fmt::format("what a run adds, {}, depends on the size before it", step.text());
    if (step.range(graph_.dimensions).lower < 0) return fmt::format("a run would add {}", step.text());
    if (!graph_.position) {
      graph_.position = Position{*name, step, 0};
      return "";
    }
    if (!(step == graph_.position->step))
      return fmt::format("a run adds {} here and {} to another state", step.text(), graph_.position->step.text());
    if (*name != graph_.position->name) {
      try {
        graph_.unify(Expression::dimension(graph_.position->name), before, "states grow together");
      } catch (const Error& e) {
        return e.what();
      }
    }
    return "";
  }

  Graph& graph_;
};

}  // namespace

std::vector<StatePair> pair_states(const std::vector<onnx::ValueInfo>& inputs,
                                   const std::vector<onnx::ValueInfo>& outputs, const std::vector<std::string>& options,
                                   std::vector<std::string>& problems) {
  return Pairing(inputs, outputs).run(options, problems);
}

void declare_states(Graph& graph, const std::vector<StatePair>& pairs) {
  Declaration(graph).run(pairs);
}

}  // namespace heed::tools

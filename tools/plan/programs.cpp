#include "tools/plan/programs.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>

#include "tools/error.h"

namespace heed::tools {
namespace {

template <class Operation>
const Operation* as(const Node& node) {
  return std::get_if<Operation>(&node.operation);
}

/// Steps of one instruction or two for a vector.
bool is_cheap(Step step) {
  switch (step) {
    case Step::f_add:
    case Step::f_sub:
    case Step::f_mul:
    case Step::f_fma:
    case Step::f_min:
    case Step::f_max:
    case Step::f_neg:
    case Step::f_abs:
    case Step::f_relu:
    case Step::f_select:
    case Step::f_equal:
    case Step::f_less:
    case Step::f_less_equal:
    case Step::i_add:
    case Step::i_sub:
    case Step::i_mul:
    case Step::i_min:
    case Step::i_max:
    case Step::i_neg:
    case Step::i_select:
    case Step::i_equal:
    case Step::i_less:
    case Step::i_less_equal:
    case Step::i_to_f:
    case Step::b_and:
    case Step::b_or:
    case Step::b_not:
    case Step::b_select:
    case Step::b_to_f:
    case Step::b_to_i:
      return true;
    default:
      return false;
  }
}

// What one more step costs on a block of 512 elements is some 15 ns, one more operator some 50 ns.
constexpr int recomputed_steps = 4;
constexpr int64_t recomputed_elements = 4096;

uint32_t immediate_of(const Literal& literal) {
  if (literal.type == Type::f32) return std::bit_cast<uint32_t>(literal.floats()[0]);
  if (literal.type == Type::boolean) return literal.booleans()[0] ? 0xffffffffU : 0U;
  using Limits = std::numeric_limits<int32_t>;
  const int64_t value = std::clamp<int64_t>(literal.integers()[0], Limits::min(), Limits::max());
  return static_cast<uint32_t>(static_cast<int32_t>(value));
}

class Programs {
 public:
  explicit Programs(Graph& graph) : graph_(graph) {}

  void run() {
    order_ = graph_.order();
    index_readers();
    choose_recomputed();
    group();
    for (size_t g = 0; g < groups_.size(); ++g)
      if (!groups_[g].empty()) replace(groups_[g]);
    leftovers();
  }

 private:
  using Group = std::vector<NodeId>;  // maps of equal dims, in the graph's order

  /// A program before registers are given to it.
  struct Draft {
    struct Operand {
      enum Kind : uint8_t { none, step, source, immediate } kind = none;
      int index = 0;
      auto operator<=>(const Operand&) const = default;
    };
    struct Line {
      Step step;
      std::array<Operand, 3> operands;
    };
    Dims dims;
    std::vector<Elementwise::Source> sources;
    std::vector<ValueId> source_values;  // of every source; no_value where it is none
    std::vector<uint32_t> immediates;
    std::vector<Line> lines;
    std::vector<Operand> results;
    std::vector<ValueId> result_values;
  };

  const Value& result(NodeId id) const { return graph_.value(graph_.node(id).outputs[0]); }

  void index_readers() {
    readers_.assign(graph_.value_count(), {});
    place_.assign(graph_.node_count(), 0);
    level_.assign(graph_.node_count(), 0);
    for (size_t i = 0; i < order_.size(); ++i) place_[static_cast<size_t>(order_[i])] = static_cast<int>(i);
    for (size_t i = 0; i < order_.size(); ++i)
      for (const ValueId input : graph_.node(order_[i]).inputs)
        if (input != no_value) readers_[static_cast<size_t>(input)].push_back(order_[i]);
    for (const Border& output : graph_.outputs) readers_[static_cast<size_t>(output.value)].push_back(-1);
  }

  const std::vector<NodeId>& readers(ValueId id) const { return readers_[static_cast<size_t>(id)]; }

  // --- Which maps are computed again in their readers ----------------------------------------------------------------

  void choose_recomputed() {
    // Readers first: a chain is taken in from its end.
    for (size_t i = order_.size(); i-- > 0;) {
      const NodeId id = order_[i];
      const Map* map = as<Map>(graph_.node(id));
      if (map == nullptr || !is_cheap(map->step)) continue;
      const bool into_small_maps =
          std::all_of(readers(graph_.node(id).outputs[0]).begin(), readers(graph_.node(id).outputs[0]).end(),
                      [&](NodeId reader) { return reader >= 0 && as<Map>(graph_.node(reader)) && is_small(reader); });
      if (!into_small_maps || steps_of(id, recomputed_steps) > recomputed_steps) continue;
      const bool widens = std::any_of(
          readers(graph_.node(id).outputs[0]).begin(), readers(graph_.node(id).outputs[0]).end(),
          [&](NodeId reader) { return recomputed_.count(reader) || !(result(reader).dims == result(id).dims); });
      if (widens) recomputed_.insert(id);
    }
  }

  bool is_small(NodeId id) const {
    return count(result(id).dims).range(graph_.dimensions).upper <= recomputed_elements;
  }

  /// Steps of a map and of the cheap maps before it that have no other readers; of more than `most` only that it is
  /// more.
  int steps_of(NodeId id, int most) const {
    int steps = 1;
    for (const ValueId input : graph_.node(id).inputs) {
      if (steps > most) break;
      const NodeId producer = graph_.value(input).producer;
      if (producer >= 0 && as<Map>(graph_.node(producer)) && is_cheap(as<Map>(graph_.node(producer))->step) &&
          readers(input).size() == 1)
        steps += steps_of(producer, most - steps);
    }
    return steps;
  }

  // --- Groups --------------------------------------------------------------------------------------------------------

  void group() {
    for (const NodeId id : order_) {
      if (recomputed_.count(id)) continue;
      for (const ValueId operand : operands({id}))
        if (const NodeId producer = graph_.value(operand).producer; producer >= 0)
          level(id) = std::max(level(id), level(producer));
      ++level(id);
      if (!as<Map>(graph_.node(id))) continue;
      int own = static_cast<int>(groups_.size());
      groups_.push_back({id});
      group_of_[id] = own;
      std::set<ValueId> frontier = operands({id});
      for (const ValueId operand : frontier) {
        const auto found = group_of_.find(graph_.value(operand).producer);
        if (found == group_of_.end() || found->second == own) continue;
        const int other = found->second;
        if (!(result(groups_[static_cast<size_t>(other)].front()).dims == result(id).dims)) continue;
        Group both = groups_[static_cast<size_t>(other)];
        both.insert(both.end(), groups_[static_cast<size_t>(own)].begin(), groups_[static_cast<size_t>(own)].end());
        if (!fits(both) || makes_cycle(other, own)) continue;
        for (const NodeId member : groups_[static_cast<size_t>(own)]) group_of_[member] = other;
        groups_[static_cast<size_t>(own)].clear();
        groups_[static_cast<size_t>(other)] = std::move(both);
        own = other;
        lift(groups_[static_cast<size_t>(own)].front(), level(id));
      }
    }
  }

  /// The members and what is recomputed for them.
  std::set<NodeId> parts(const Group& members) const {
    std::set<NodeId> all(members.begin(), members.end());
    std::vector<NodeId> pending = members;
    while (!pending.empty()) {
      const NodeId id = pending.back();
      pending.pop_back();
      for (const ValueId input : graph_.node(id).inputs) {
        const NodeId producer = input == no_value ? -1 : graph_.value(input).producer;
        if (producer >= 0 && recomputed_.count(producer) && all.insert(producer).second) pending.push_back(producer);
      }
    }
    return all;
  }

  /// What the members read from outside, through what is recomputed.
  std::set<ValueId> operands(const Group& members) const {
    const std::set<NodeId> inside = parts(members);
    std::set<ValueId> result;
    for (const NodeId id : inside)
      for (const ValueId input : graph_.node(id).inputs)
        if (input != no_value && !inside.count(graph_.value(input).producer)) result.insert(input);
    return result;
  }

  int place(NodeId id) const { return place_[static_cast<size_t>(id)]; }

  /// Greater than those of what a node, or its whole group, depends on; 0: not seen yet.
  int& level(NodeId id) { return level_[static_cast<size_t>(id)]; }

  /// Lifts a node with its group to a level, and what depends on it above that.
  void lift(NodeId id, int to) {
    std::vector<std::pair<NodeId, int>> pending{{id, to}};
    while (!pending.empty()) {
      const auto [next, least] = pending.back();
      pending.pop_back();
      if (level(next) == 0 || level(next) >= least) continue;
      const Group members = group_with(next);
      for (const NodeId member : members) level(member) = least;
      Group open = members;  // and what is recomputed in readers
      while (!open.empty()) {
        const std::vector<ValueId>& outputs = graph_.node(open.back()).outputs;
        open.pop_back();
        for (const ValueId output : outputs) {
          if (output == no_value) continue;
          for (const NodeId reader : readers(output)) {
            if (reader >= 0 && recomputed_.count(reader))
              open.push_back(reader);
            else if (reader >= 0 && std::find(members.begin(), members.end(), reader) == members.end())
              pending.emplace_back(reader, least + 1);
          }
        }
      }
    }
  }

  /// A node that is in a group stands for the whole group.
  Group group_with(NodeId id) const {
    const auto found = group_of_.find(id);
    return found == group_of_.end() ? Group{id} : groups_[static_cast<size_t>(found->second)];
  }

  /// Whether one of two groups, made one, would depend on itself through something outside: what stands no higher than
  /// either depends on neither.
  bool makes_cycle(int a, int b) {
    const auto inside = [&](NodeId id) {
      const auto found = group_of_.find(id);
      return found != group_of_.end() && (found->second == a || found->second == b);
    };
    Group both = groups_[static_cast<size_t>(a)];
    both.insert(both.end(), groups_[static_cast<size_t>(b)].begin(), groups_[static_cast<size_t>(b)].end());
    int floor = level(both.front());
    for (const NodeId id : both) floor = std::min(floor, level(id));
    std::vector<NodeId> pending;
    std::set<NodeId> seen;
    const auto push = [&](const std::set<ValueId>& values, bool from_inside) {
      for (const ValueId value : values) {
        const NodeId producer = graph_.value(value).producer;
        if (producer < 0) continue;
        if (inside(producer)) {
          if (!from_inside) return true;
        } else if (level(producer) > floor && seen.insert(producer).second) {
          pending.push_back(producer);
        }
      }
      return false;
    };
    push(operands(both), true);
    while (!pending.empty()) {
      const NodeId id = pending.back();
      pending.pop_back();
      if (push(operands(group_with(id)), false)) return true;
    }
    return false;
  }

  bool fits(const Group& members) const {
    Elementwise program;
    return allocate(draft(members), program);
  }

  // --- Programs ------------------------------------------------------------------------------------------------------

  /// True where somebody outside of the members wants the value; what is recomputed counts as where it is recomputed.
  bool wanted_outside(ValueId value, const std::set<NodeId>& members) const {
    return std::any_of(readers(value).begin(), readers(value).end(), [&](NodeId reader) {
      if (reader < 0) return true;
      if (recomputed_.count(reader)) return wanted_outside(graph_.node(reader).outputs[0], members);
      return members.count(reader) == 0;
    });
  }

  Draft draft(const Group& group) const {
    Draft draft;
    draft.dims = result(group.front()).dims;
    const std::set<NodeId> members(group.begin(), group.end());
    std::map<ValueId, Draft::Operand> known;
    std::map<std::tuple<Step, std::array<Draft::Operand, 3>>, int> lines;

    std::function<Draft::Operand(ValueId)> operand_of = [&](ValueId value) -> Draft::Operand {
      if (const auto found = known.find(value); found != known.end()) return found->second;
      const NodeId producer = graph_.value(value).producer;
      const Map* map = producer >= 0 ? as<Map>(graph_.node(producer)) : nullptr;
      if (map == nullptr || !(members.count(producer) || recomputed_.count(producer)))
        return known[value] = leaf(draft, value);
      Draft::Line line{map->step, {}};
      const auto& inputs = graph_.node(producer).inputs;
      for (size_t i = 0; i < inputs.size(); ++i) line.operands[i] = operand_of(inputs[i]);
      const auto [entry, is_new] = lines.try_emplace({line.step, line.operands}, static_cast<int>(draft.lines.size()));
      if (is_new) draft.lines.push_back(line);
      return known[value] = {Draft::Operand::step, entry->second};
    };

    for (const NodeId id : group) {
      const ValueId value = graph_.node(id).outputs[0];
      if (!wanted_outside(value, members)) continue;
      draft.results.push_back(operand_of(value));
      draft.result_values.push_back(value);
    }
    return draft;
  }

  /// A value from outside: an immediate, a source without memory, or a tensor.
  Draft::Operand leaf(Draft& draft, ValueId id) const {
    const auto source = [&](SourceKind kind, int axis, Expression value, ValueId tensor) -> Draft::Operand {
      for (size_t i = 0; i < draft.sources.size(); ++i) {
        const auto& s = draft.sources[i];
        if (s.kind == kind && s.axis == axis && s.value == value && draft.source_values[i] == tensor)
          return {Draft::Operand::source, static_cast<int>(i)};
      }
      draft.sources.push_back({kind, axis, value});
      draft.source_values.push_back(tensor);
      return {Draft::Operand::source, static_cast<int>(draft.sources.size()) - 1};
    };
    const auto immediate = [&](uint32_t bits) -> Draft::Operand {
      auto found = std::find(draft.immediates.begin(), draft.immediates.end(), bits);
      if (found == draft.immediates.end()) found = draft.immediates.insert(found, bits);
      return {Draft::Operand::immediate, static_cast<int>(found - draft.immediates.begin())};
    };
    for (;;) {  // what only repeats elements is not needed: a program broadcasts by itself
      const NodeId producer = graph_.value(id).producer;
      if (producer < 0 || !as<Expand>(graph_.node(producer))) break;
      id = graph_.node(producer).inputs[0];
    }
    const Value& value = graph_.value(id);
    if (value.constant && value.constant->count() == 1) return immediate(immediate_of(*value.constant));
    if (value.type == Type::i32 && value.symbols && value.symbols->size() == 1) {
      const Expression& size = value.symbols->front();
      if (const auto number = size.constant()) return immediate(immediate_of(Literal::of({}, std::vector{*number})));
      return source(SourceKind::dimension, 0, size, no_value);
    }
    if (const auto axis = iota_axis(id)) {
      const size_t missing = draft.dims.size() - value.dims.size();
      const size_t place = missing + static_cast<size_t>(*axis);
      if (value.dims[static_cast<size_t>(*axis)] == draft.dims[place])
        return source(SourceKind::iota, static_cast<int>(place), 0, no_value);
    }
    return source(SourceKind::tensor, 0, 0, id);
  }

  /// The axis along which a value counts its index, seen through views that keep it whole.
  std::optional<int> iota_axis(ValueId id) const {
    const NodeId producer = graph_.value(id).producer;
    if (producer < 0) return std::nullopt;
    const Node& node = graph_.node(producer);
    if (const Iota* iota = as<Iota>(node)) return iota->axis;
    if (!as<Reshape>(node) && !as<Transpose>(node) && !as<Expand>(node)) return std::nullopt;
    const std::optional<int> from = iota_axis(node.inputs[0]);
    if (!from) return std::nullopt;
    const Dims &before = graph_.value(node.inputs[0]).dims, &after = graph_.value(id).dims;
    if (const Transpose* transpose = as<Transpose>(node)) {
      const auto found = std::find(transpose->permutation.begin(), transpose->permutation.end(), *from);
      return static_cast<int>(found - transpose->permutation.begin());
    }
    if (as<Expand>(node)) {
      const size_t place = after.size() - before.size() + static_cast<size_t>(*from);
      if (!(before[static_cast<size_t>(*from)] == after[place])) return std::nullopt;
      return static_cast<int>(place);
    }
    // A reshape that only adds or drops axes of size 1.
    const auto longer_than_one = [](const Dims& dims) {
      std::vector<size_t> axes;
      for (size_t axis = 0; axis < dims.size(); ++axis)
        if (!dims[axis].is_constant(1)) axes.push_back(axis);
      return axes;
    };
    const auto a = longer_than_one(before), b = longer_than_one(after);
    if (a.size() != b.size()) return std::nullopt;
    for (size_t i = 0; i < a.size(); ++i)
      if (!(before[a[i]] == after[b[i]])) return std::nullopt;
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i] == static_cast<size_t>(*from)) return static_cast<int>(b[i]);
    return std::nullopt;
  }

  /// Gives out registers in one pass; false where the program exceeds what the kernel holds.
  static bool allocate(const Draft& draft, Elementwise& program) {
    using Operand = Draft::Operand;
    const auto tensors = std::count_if(draft.sources.begin(), draft.sources.end(),
                                       [](const auto& s) { return s.kind == SourceKind::tensor; });
    if (tensors > max_inputs || draft.sources.size() > elementwise_sources || draft.results.size() > max_outputs ||
        draft.immediates.size() > elementwise_immediates || draft.lines.size() > elementwise_steps)
      return false;
    program.dims = draft.dims;
    program.sources = draft.sources;
    program.immediates = draft.immediates;

    const size_t never = draft.lines.size();
    std::vector<size_t> last_use(draft.lines.size(), 0);
    for (size_t i = 0; i < draft.lines.size(); ++i)
      for (const Operand& o : draft.lines[i].operands)
        if (o.kind == Operand::step) last_use[static_cast<size_t>(o.index)] = i;
    for (const Operand& o : draft.results)
      if (o.kind == Operand::step) last_use[static_cast<size_t>(o.index)] = never;

    std::vector<uint8_t> register_of(draft.lines.size());
    std::vector<bool> taken(elementwise_registers, false);
    const auto code = [&](const Operand& o) -> uint8_t {
      switch (o.kind) {
        case Operand::step:
          return operand::registers + register_of[static_cast<size_t>(o.index)];
        case Operand::source:
          return static_cast<uint8_t>(operand::inputs + o.index);
        case Operand::immediate:
          return static_cast<uint8_t>(operand::immediates + o.index);
        case Operand::none:
          break;
      }
      return operand::none;
    };
    for (size_t i = 0; i < draft.lines.size(); ++i) {
      Instruction instruction{draft.lines[i].step, 0, {}, {}};
      for (size_t o = 0; o < 3; ++o) instruction.operands[o] = code(draft.lines[i].operands[o]);
      for (const Operand& o : draft.lines[i].operands)
        if (o.kind == Operand::step && last_use[static_cast<size_t>(o.index)] == i)
          taken[register_of[static_cast<size_t>(o.index)]] = false;
      const auto free = std::find(taken.begin(), taken.end(), false);
      if (free == taken.end()) return false;
      *free = true;
      register_of[i] = static_cast<uint8_t>(free - taken.begin());
      instruction.result = register_of[i];
      program.instructions.push_back(instruction);
    }
    for (const Operand& o : draft.results) program.results.push_back(code(o));
    return true;
  }

  void replace(const Group& group) {
    const Draft program = draft(group);
    std::vector<std::string> absorbed;
    const auto absorb = [&](NodeId id) {
      for (const std::string& name : graph_.node(id).absorbed)
        if (std::find(absorbed.begin(), absorbed.end(), name) == absorbed.end()) absorbed.push_back(name);
    };
    const std::set<NodeId> inside = parts(group);
    std::vector<NodeId> sorted(inside.begin(), inside.end());
    std::sort(sorted.begin(), sorted.end(), [&](NodeId a, NodeId b) { return place(a) < place(b); });
    std::for_each(sorted.begin(), sorted.end(), absorb);
    add(program, graph_.node(group.back()).name, std::move(absorbed));
  }

  void add(const Draft& draft, const std::string& name, std::vector<std::string> absorbed) {
    Elementwise program;
    if (!allocate(draft, program)) throw Error(Fault::model, name + ": one map exceeds a program's limits");
    std::vector<ValueId> inputs;
    for (const ValueId value : draft.source_values)
      if (value != no_value) inputs.push_back(value);
    for (const ValueId value : draft.result_values) program.narrow.push_back(graph_.value(value).type == Type::i8);
    const NodeId id = graph_.add(std::move(program), std::move(inputs), name, std::move(absorbed));
    for (size_t i = 0; i < draft.result_values.size(); ++i) {
      const ValueId old_value = draft.result_values[i], new_value = graph_.node(id).outputs[i];
      graph_.value(new_value).name = graph_.value(old_value).name;
      graph_.replace(old_value, new_value);
    }
  }

  /// Iota and sizes that something else than a map reads.
  void leftovers() {
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (!as<Iota>(node) && !as<Size>(node)) continue;
      Draft draft;
      draft.dims = graph_.value(node.outputs[0]).dims;
      if (const Iota* iota = as<Iota>(node))
        draft.sources.push_back({SourceKind::iota, iota->axis, 0});
      else
        draft.sources.push_back({SourceKind::dimension, 0, as<Size>(node)->value});
      draft.source_values = {no_value};
      draft.results = {{Draft::Operand::source, 0}};
      draft.result_values = {node.outputs[0]};
      add(draft, std::string(node.name), node.absorbed);
    }
  }

  Graph& graph_;
  std::vector<NodeId> order_;
  std::vector<int> place_;  // of each node in the order
  std::vector<int> level_;  // of each node
  std::vector<std::vector<NodeId>> readers_;
  std::set<NodeId> recomputed_;
  std::vector<Group> groups_;
  std::map<NodeId, int> group_of_;
};

}  // namespace

void make_programs(Graph& graph) {
  Programs(graph).run();
}

}  // namespace heed::tools

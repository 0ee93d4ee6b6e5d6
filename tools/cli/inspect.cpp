#include <fmt/format.h>

#include <algorithm>

#include "tools/cli/json.h"
#include "tools/cli/loaded.h"
#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"

namespace heed::tools {
namespace {

/// Inputs that an operator overwrites with its output: both begin at the same byte of the workspace.
std::string in_place(const Session& session, const OperatorInfo& info) {
  std::string text;
  for (int o = 0; o < info.output_count; ++o)
    for (int i = 0; i < info.input_count; ++i)
      if (info.outputs[o] >= 0 && info.inputs[i] >= 0 &&
          session.tensor(static_cast<uint32_t>(info.outputs[o])).data ==
              session.tensor(static_cast<uint32_t>(info.inputs[i])).data)
        text += fmt::format("{}{}", text.empty() ? "in place of input " : ", ", i);
  return text;
}

void print_ports(const char* heading, const Model& model, uint32_t count, Port (Model::*port_of)(uint32_t) const) {
  Table table({heading, "type", "shape", "on the device"});
  for (uint32_t i = 0; i < count; ++i) {
    const Port port = (model.*port_of)(i);
    table.add(
        {std::string(port.name), border_dtype(port), shape_text(model, model.tensor(port.tensor)), dtype(port.type)});
  }
  table.print();
  fmt::print("\n");
}

void print_states(const Model& model) {
  if (model.state_count() == 0) return;
  Table table({"state", "becomes", "type", "shape", ">bytes"});
  for (uint32_t i = 0; i < model.state_count(); ++i) {
    const State state = model.state(i);
    const TensorInfo tensor = model.tensor(state.tensor);
    table.add({std::string(state.name), std::string(state.output), dtype(tensor.type), shape_text(model, tensor),
               grouped(state_bytes(model, state))});
  }
  table.print();
  if (const auto position = model.position())
    fmt::print("  '{}' is the position: from {}, a run adds {}, room for {}\n", printable(std::string(position->name)),
               position->lower, expression_text(model, position->step), position->capacity);
  fmt::print("\n");
}

void print_operators(const Model& model, const Session& session) {
  Table table({">#", "operator", "name", "inputs", "output", ">MACs", ""});
  for (uint32_t i = 0; i < model.operator_count(); ++i) {
    const OperatorInfo info = model.operator_info(i);
    std::string inputs, outputs;
    for (int k = 0; k < info.input_count; ++k)
      if (info.inputs[k] >= 0)
        inputs += (inputs.empty() ? "" : " ") + shape_text(model, model.tensor(static_cast<uint32_t>(info.inputs[k])));
    for (int k = 0; k < info.output_count; ++k)
      if (info.outputs[k] >= 0)
        outputs +=
            (outputs.empty() ? "" : " ") + shape_text(model, model.tensor(static_cast<uint32_t>(info.outputs[k])));
    table.add({std::to_string(i), operator_of(info.kind).name, std::string(info.name), inputs, outputs,
               grouped(static_cast<uint64_t>(session.value(info.macs))), in_place(session, info)});
  }
  table.print();
}

void print_tensors(const Model& model, const Session& session) {
  Table table({">#", "tensor", "type", "shape", ">bytes", "where"});
  for (uint32_t i = 0; i < model.tensor_count(); ++i) {
    const TensorInfo tensor = model.tensor(i);
    const std::string where = tensor.buffer < 0 ? fmt::format("file + {}", grouped(tensor.constant_offset))
                                                : fmt::format("buffer {}", tensor.buffer);
    const uint64_t bytes = tensor.buffer < 0 ? tensor.constant_bytes : byte_count(session.tensor(i));
    table.add({std::to_string(i), std::string(tensor.name), dtype(tensor.type), shape_text(model, tensor),
               grouped(bytes), where});
  }
  fmt::print("\n");
  table.print();
}

/// One row for each buffer, one column for each operator (or several where there are too many for a line).
void print_plan(const Model& model) {
  constexpr uint32_t columns = 96;
  const uint32_t operators = std::max(model.operator_count(), 1u);
  const uint32_t step = (operators + columns - 1) / columns;
  std::vector<bool> scratch(model.buffer_count(), false);
  for (uint32_t i = 0; i < model.operator_count(); ++i)
    if (const int32_t buffer = model.operator_info(i).scratch; buffer >= 0) scratch[static_cast<size_t>(buffer)] = true;
  std::string ruler;
  for (uint32_t column = 0; column * step < operators; ++column) {
    const std::string label = std::to_string(column * step);
    if (column % 10 == 0 && ruler.size() <= column) ruler += std::string(column - ruler.size(), ' ') + label;
  }
  std::vector<uint32_t> order(model.buffer_count());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return model.buffer(a).offset < model.buffer(b).offset; });
  Table table({">buffer", ">offset", ">bytes", ruler});
  for (uint32_t i : order) {
    const BufferInfo buffer = model.buffer(i);
    std::string life;
    for (uint32_t op = 0; op < operators; op += step)
      life += buffer.first < op + step && buffer.last >= op ? (scratch[i] ? '+' : '#') : '.';
    table.add({std::to_string(i), grouped(buffer.offset), grouped(buffer.capacity), life});
  }
  fmt::print("\n");
  table.print();
  fmt::print("  # alive at operator, + scratch{}\n", step > 1 ? fmt::format("; {} operators in a column", step) : "");
}

void print_text(const Model& model, const Session& session, const std::string& path, bool tensors) {
  fmt::print("{}  {} bytes", bold(printable(path)), grouped(model.bytes().size()));
  if (!model.producer().empty()) fmt::print(", written by {}", printable(std::string(model.producer())));
  fmt::print("\ncontent hash: {}\n\n", hash_text(model));
  if (model.dimension_count() > 0) {
    Table table({"dimension", ">from", ">to", ">start"});
    for (uint32_t i = 0; i < model.dimension_count(); ++i) {
      const Dimension dimension = model.dimension(i);
      table.add({std::string(dimension.name), std::to_string(dimension.lower), std::to_string(dimension.upper),
                 std::to_string(dimension.start)});
    }
    table.print();
    for (uint32_t i = 0; i < model.constraint_count(); ++i)
      fmt::print("  {}\n", printable(std::string(model.constraint(i).text)));
    fmt::print("\n");
  }
  print_ports("input", model, model.input_count(), &Model::input);
  print_ports("output", model, model.output_count(), &Model::output);
  print_states(model);

  const Memory& memory = model.memory();
  Table regions({"memory", ">bytes", ""});
  regions.add({"constants", grouped(memory.constants), "in the file, used in place"});
  regions.add({"state", grouped(memory.state), ""});
  regions.add({"workspace", grouped(memory.workspace), against_lower_bound(memory.workspace, memory.lower_bound)});
  regions.add({"tables", grouped(memory.tables), ""});
  regions.add({"total", grouped(memory.total()),
               fmt::format("one thread; each further one adds {}", grouped(memory.per_thread))});
  regions.print();

  uint64_t macs = 0;
  for (uint32_t i = 0; i < model.operator_count(); ++i)
    macs += static_cast<uint64_t>(session.value(model.operator_info(i).macs));
  fmt::print("\n{} multiply-accumulates", grouped(macs));
  for (uint32_t i = 0; i < model.dimension_count(); ++i)
    fmt::print("{}{} = {}", i == 0 ? " at " : ", ", printable(std::string(model.dimension(i).name)),
               model.dimension(i).start);
  fmt::print("\n\n");
  if (model.fusion_count() > 0) {
    Table table({"fused", ">count"});
    for (uint32_t i = 0; i < model.fusion_count(); ++i)
      table.add({std::string(model.fusion(i).name), std::to_string(model.fusion(i).count)});
    table.print();
    fmt::print("\n");
  }
  print_operators(model, session);
  if (tensors) print_tensors(model, session);
  print_plan(model);
}

}  // namespace

void inspect(const InspectCommand& command) {
  const LoadedModel loaded(command.model);
  Runner runner(loaded, {});
  if (command.json)
    fmt::print("{}\n", dump(describe(loaded.model(), runner.session())));
  else
    print_text(loaded.model(), runner.session(), loaded.path(), command.tensors);
}

}  // namespace heed::tools

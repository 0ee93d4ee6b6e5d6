#include "tools/cli/json.h"

#include <fmt/format.h>

#include "tools/cli/loaded.h"

namespace heed::tools {
namespace {

Json json_port(const Model& model, const Port& port) {
  const TensorInfo tensor = model.tensor(port.tensor);
  Json shape = Json::array();
  for (uint32_t axis = 0; axis < tensor.rank; ++axis) {
    const ExpressionNode node = model.expression(tensor.dims[axis]);
    if (node.op == ExpressionNode::Op::constant)
      shape.push_back(node.a);
    else
      shape.push_back(expression_text(model, tensor.dims[axis]));
  }
  return {{"name", port.name}, {"dtype", border_dtype(port)}, {"device_dtype", dtype(port.type)}, {"shape", shape}};
}

Type operator_type(const Model& model, const OperatorInfo& info) {
  return info.output_count > 0 && info.outputs[0] >= 0 ? model.tensor(static_cast<uint32_t>(info.outputs[0])).type
                                                       : Type::f32;
}

}  // namespace

std::string hash_text(const Model& model) {
  std::string text;
  for (std::byte byte : model.content_hash()) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

uint64_t state_bytes(const Model& model, const State& state) {
  return model.buffer(static_cast<uint32_t>(model.tensor(state.tensor).buffer)).capacity;
}

Json describe(const Model& model, const Session& session) {
  const Memory& memory = model.memory();
  Json json;
  json["producer"] = model.producer();
  json["memory"] = {{"constants", memory.constants},   {"state", memory.state},
                    {"workspace", memory.workspace},   {"tables", memory.tables},
                    {"total", memory.total()},         {"lower_bound", memory.lower_bound},
                    {"per_thread", memory.per_thread}, {"file", model.bytes().size()}};
  json["dimensions"] = Json::array();
  for (uint32_t i = 0; i < model.dimension_count(); ++i) {
    const Dimension dimension = model.dimension(i);
    json["dimensions"].push_back(
        {{"name", dimension.name}, {"lower", dimension.lower}, {"upper", dimension.upper}, {"start", dimension.start}});
  }
  json["constraints"] = Json::array();
  for (uint32_t i = 0; i < model.constraint_count(); ++i) json["constraints"].push_back(model.constraint(i).text);
  json["inputs"] = Json::array();
  for (uint32_t i = 0; i < model.input_count(); ++i) json["inputs"].push_back(json_port(model, model.input(i)));
  json["outputs"] = Json::array();
  for (uint32_t i = 0; i < model.output_count(); ++i) json["outputs"].push_back(json_port(model, model.output(i)));
  json["states"] = Json::array();
  for (uint32_t i = 0; i < model.state_count(); ++i) {
    const State state = model.state(i);
    Json row = json_port(model, {state.name, 0, model.tensor(state.tensor).type, 0, state.tensor});
    row.erase("device_dtype");
    row["output"] = state.output;
    row["bytes"] = state_bytes(model, state);
    json["states"].push_back(row);
  }
  if (const auto position = model.position())
    json["position"] = {{"name", position->name},
                        {"lower", position->lower},
                        {"upper", position->upper},
                        {"capacity", position->capacity},
                        {"step", expression_text(model, position->step)}};
  int64_t macs = 0;
  json["operators"] = Json::array();
  for (uint32_t i = 0; i < model.operator_count(); ++i) {
    const OperatorInfo info = model.operator_info(i);
    const int64_t own = session.value(info.macs);
    macs += own;
    json["operators"].push_back({{"index", i},
                                 {"type", operator_of(info.kind).name},
                                 {"name", info.name},
                                 {"macs", own},
                                 {"dtype", dtype(operator_type(model, info))}});
  }
  json["macs"] = macs;
  json["fusions"] = Json::object();
  for (uint32_t i = 0; i < model.fusion_count(); ++i)
    json["fusions"][std::string(model.fusion(i).name)] = model.fusion(i).count;
  json["made_with"] = Json::array();
  for (uint32_t i = 0; i < model.made_with_count(); ++i) json["made_with"].push_back(model.made_with(i));
  json["hash"] = hash_text(model);
  return json;
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace heed::tools

#pragma once
/// ONNX files built by hand, and graphs run on the host: what the tests of the reader and of the lowerings share.
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <protozero/pbf_writer.hpp>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "tools/onnx/import.h"
#include "tools/onnx/model.h"

namespace heed::tools::test {

using onnx::DataType;

template <class T>
constexpr DataType data_type() {
  if constexpr (std::is_same_v<T, float>) return DataType::f32;
  if constexpr (std::is_same_v<T, double>) return DataType::f64;
  if constexpr (std::is_same_v<T, bool>) return DataType::boolean;
  if constexpr (std::is_same_v<T, int8_t>) return DataType::i8;
  if constexpr (std::is_same_v<T, uint8_t>) return DataType::u8;
  if constexpr (std::is_same_v<T, int32_t>) return DataType::i32;
  if constexpr (std::is_same_v<T, int64_t>) return DataType::i64;
}

/// A TensorProto with raw_data.
inline std::string tensor_of_bytes(const std::string& name, DataType type, const std::vector<int64_t>& dims,
                                   const std::string& raw) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_packed_int64(1, dims.begin(), dims.end());
  w.add_int32(2, static_cast<int32_t>(type));
  w.add_string(8, name);
  w.add_bytes(9, raw);
  return bytes;
}

template <class T>
std::string tensor(const std::string& name, const std::vector<int64_t>& dims, const std::vector<T>& values) {
  std::string raw;
  for (const T value : values) raw.append(reinterpret_cast<const char*>(&value), sizeof(T));
  return tensor_of_bytes(name, data_type<T>(), dims, raw);
}

struct TensorBytes {
  std::string bytes;
};
struct GraphBytes {
  std::string bytes;
};
using AttributeValue = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                                    std::vector<std::string>, TensorBytes, GraphBytes>;
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

inline std::string attribute(const std::string& name, const AttributeValue& value) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_string(1, name);
  if (const auto* i = std::get_if<int64_t>(&value)) w.add_int64(3, *i), w.add_int32(20, 2);
  if (const auto* f = std::get_if<float>(&value)) w.add_float(2, *f), w.add_int32(20, 1);
  if (const auto* s = std::get_if<std::string>(&value)) w.add_bytes(4, *s), w.add_int32(20, 3);
  if (const auto* t = std::get_if<TensorBytes>(&value)) w.add_message(5, t->bytes), w.add_int32(20, 4);
  if (const auto* g = std::get_if<GraphBytes>(&value)) w.add_message(6, g->bytes), w.add_int32(20, 5);
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    for (const int64_t i : *list) w.add_int64(8, i);
    w.add_int32(20, 7);
  }
  if (const auto* list = std::get_if<std::vector<float>>(&value)) {
    w.add_packed_float(7, list->begin(), list->end());
    w.add_int32(20, 6);
  }
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    for (const std::string& s : *list) w.add_bytes(9, s);
    w.add_int32(20, 8);
  }
  return bytes;
}

using Names = std::vector<std::string>;

inline std::string node(const std::string& op, const Names& inputs, const Names& outputs,
                        const Attributes& attributes = {}, const std::string& name = "",
                        const std::string& domain = "") {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  for (const std::string& input : inputs) w.add_string(1, input);
  for (const std::string& output : outputs) w.add_string(2, output);
  if (!name.empty()) w.add_string(3, name);
  w.add_string(4, op);
  for (const auto& [key, value] : attributes) w.add_message(5, attribute(key, value));
  if (!domain.empty()) w.add_string(7, domain);
  return bytes;
}

inline std::string opset_import(const std::string& domain, int64_t version) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_string(1, domain);
  w.add_int64(2, version);
  return bytes;
}

/// An axis of an input: a size, a name, or "" for neither.
using AxisText = std::variant<int, const char*>;

using Axes = std::vector<AxisText>;

/// Without axes the rank is not stated.
inline std::string value_info(const std::string& name, DataType type, const std::optional<Axes>& axes) {
  std::string shape, tensor_type, type_proto, bytes;
  for (const AxisText& axis : axes.value_or(Axes{})) {
    std::string dim;
    protozero::pbf_writer w(dim);
    if (const int* size = std::get_if<int>(&axis)) {
      w.add_int64(1, *size);
    } else if (std::get<const char*>(axis)[0] != 0) {
      w.add_string(2, std::get<const char*>(axis));
    }
    protozero::pbf_writer(shape).add_message(1, dim);
  }
  protozero::pbf_writer t(tensor_type);
  t.add_int32(1, static_cast<int32_t>(type));
  if (axes) t.add_message(2, shape);
  protozero::pbf_writer(type_proto).add_message(1, tensor_type);
  protozero::pbf_writer w(bytes);
  w.add_string(1, name);
  w.add_message(2, type_proto);
  return bytes;
}

/// A model in the making; `bytes()` is the file.
class OnnxBuilder {
 public:
  explicit OnnxBuilder(int64_t opset = 20) : opset_(opset) {}

  OnnxBuilder& input(const std::string& name, DataType type, const Axes& axes) {
    return part(11, value_info(name, type, axes));
  }
  OnnxBuilder& output(const std::string& name, DataType type = DataType::f32, const std::optional<Axes>& axes = {}) {
    return part(12, value_info(name, type, axes));
  }
  template <class T>
  OnnxBuilder& initializer(const std::string& name, const std::vector<int64_t>& dims, const std::vector<T>& values) {
    return part(5, tensor(name, dims, values));
  }
  OnnxBuilder& node(const std::string& op, const Names& inputs, const Names& outputs, const Attributes& attributes = {},
                    const std::string& name = "", const std::string& domain = "") {
    return part(1, test::node(op, inputs, outputs, attributes, name, domain));
  }
  /// Any field of the graph.
  OnnxBuilder& part(uint32_t field, const std::string& message) {
    protozero::pbf_writer(graph_).add_message(field, message);
    return *this;
  }
  /// Any field of the model.
  OnnxBuilder& model_part(uint32_t field, const std::string& message) {
    protozero::pbf_writer(rest_).add_message(field, message);
    return *this;
  }

  /// The graph alone: a branch.
  GraphBytes branch() const { return {graph_}; }

  std::string bytes() const {
    std::string model;
    protozero::pbf_writer w(model);
    w.add_int64(1, 9);
    w.add_message(7, graph_);
    w.add_message(8, opset_import("", opset_));
    w.add_message(8, opset_import("com.microsoft", 1));
    return model + rest_;
  }

 private:
  int64_t opset_;
  std::string graph_, rest_;
};

inline onnx::Model parse_bytes(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return onnx::parse(std::as_bytes(std::span(*owner)), owner, ".");
}

inline Graph import_with(const std::string& bytes, const ConvertOptions& options) {
  std::vector<std::string> notes;
  return import(parse_bytes(bytes), options, notes);
}
inline Graph import_bytes(const std::string& bytes, const std::vector<std::string>& dims = {}) {
  return import_with(bytes, ConvertOptions{dims, {}, {}, {}});
}

/// A few bytes changed or put in, at places among those given.
inline std::string mutated(std::string bytes, std::span<const size_t> places, std::mt19937& random) {
  for (uint32_t n = 1 + random() % 4; n-- > 0;) {
    const size_t at = places[random() % places.size()];
    switch (random() % 3) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
        break;
      default:
        bytes.insert(at, 1, static_cast<char>(random()));
        break;
    }
  }
  return bytes;
}

/// The graph's outputs for the given inputs, by the converter's reference.
inline std::vector<Literal> run_graph(Graph& graph, const std::vector<Literal>& inputs,
                                      const std::map<std::string, int64_t>& dimensions = {}) {
  std::map<ValueId, Literal> known;
  for (size_t i = 0; i < inputs.size(); ++i) known[graph.inputs[i].value] = inputs[i];
  const auto find = [&](ValueId id) -> const Literal* {
    if (id == no_value) return nullptr;
    if (graph.value(id).constant) return &*graph.value(id).constant;
    return &known.at(id);
  };
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::vector<const Literal*> operands;
    for (const ValueId operand : node.inputs) operands.push_back(find(operand));
    const std::vector<Literal> results = evaluate(node, operands, dimensions);
    for (size_t i = 0; i < results.size() && i < node.outputs.size(); ++i) known[node.outputs[i]] = results[i];
  }
  std::vector<Literal> outputs;
  for (const Border& border : graph.outputs) outputs.push_back(*find(border.value));
  return outputs;
}

}  // namespace heed::tools::test

#pragma once
/// An ONNX file as plain structs, close to onnx.proto; names and weights are views into the mapped file.
///
/// Goals: every malformed byte is an Error that names where; nothing is trusted or copied that need not be. Non-goals:
/// shapes and meaning of operators (that is the importer's), training, sequences, maps and sparse tensors (noted, so
/// that the importer can refuse them by name).
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/io/file.h"

namespace heed::tools::onnx {

/// TensorProto.DataType. Values that are not listed are types of later ONNX releases.
enum class DataType : int32_t {
  undefined = 0,
  f32 = 1,
  u8 = 2,
  i8 = 3,
  u16 = 4,
  i16 = 5,
  i32 = 6,
  i64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  c64 = 14,
  c128 = 15,
  bf16 = 16,
};
std::string name(DataType type);

/// What the type is computed in on the device; nothing where heed has no such type.
std::optional<Type> device_type(DataType type);

struct Tensor {
  std::string_view name;
  DataType type = DataType::undefined;
  std::vector<int64_t> dims;
  std::optional<std::span<const std::byte>> raw;  // raw_data, or the bytes of an external file
  std::string external;                           // that file
  std::vector<float> floats;                      // float_data
  std::vector<int64_t> integers;                  // int32_data, int64_data, uint64_data
  std::vector<double> doubles;                    // double_data
  std::shared_ptr<const void> owner;              // keeps `raw` alive
};

struct Graph;

struct Attribute {
  /// AttributeProto.AttributeType.
  enum class Kind : int32_t { undefined = 0, real, integer, string, tensor, graph, reals, integers, strings };

  std::string_view name;
  std::string_view reference;  // in a function: the attribute of the call that it takes its value from
  Kind kind = Kind::undefined;
  float real = 0;
  int64_t integer = 0;
  std::string_view string;
  std::vector<float> reals;
  std::vector<int64_t> integers;
  std::vector<std::string_view> strings;
  std::shared_ptr<const Tensor> tensor;
  std::shared_ptr<const Graph> graph;
};

struct Node {
  std::string_view name, op, domain, overload;
  std::vector<std::string_view> inputs, outputs;  // an empty name: absent
  std::vector<Attribute> attributes;
};

/// One axis of a graph's input: a size, a text ("batch", "2*batch + 1"), or neither.
struct Axis {
  std::optional<int64_t> size;
  std::string_view text;
};

struct ValueInfo {
  std::string_view name;
  bool is_tensor = false;  // else a sequence, map, optional or sparse tensor
  DataType type = DataType::undefined;
  std::optional<std::vector<Axis>> axes;  // nothing: of unknown rank
};

struct Graph {
  std::string_view name;
  std::vector<Node> nodes;
  std::vector<Tensor> initializers;
  std::vector<ValueInfo> inputs, outputs;
  bool has_sparse_initializers = false;
};

/// Versions of the operator sets by domain; the default domain is "".
using Opsets = std::map<std::string_view, int64_t>;

/// A function that the model brings along: calls are replaced by its nodes.
struct Function {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs, attributes;
  std::vector<Attribute> defaults;
  std::vector<Node> nodes;
  Opsets opsets;
};

struct Model {
  int64_t ir_version = 0;
  Opsets opsets;
  Graph graph;
  std::vector<Function> functions;
  std::shared_ptr<const void> owner;       // keeps all views alive
  std::shared_ptr<const MappedFile> file;  // of read()
};

/// Reads a file, with what it keeps in external files beside it. Throws Error: command_line where there is no such
/// file, model where anything in it is malformed or an external file is missing, short or outside the model's folder.
Model read(const std::filesystem::path& path);

/// The same from bytes in memory that `owner` keeps alive; external files are looked for in `folder`.
Model parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::filesystem::path& folder);

/// The tensor's elements in the converter's types (f16, bf16 and f64 become f32, all integers 64 bits), in place where
/// they lie so in the file. Throws Error where the type is not supported or the number of elements is not that of the
/// dims.
Literal literal(const Tensor& tensor);

}  // namespace heed::tools::onnx

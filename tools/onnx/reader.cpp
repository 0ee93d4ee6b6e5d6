// ONNX's protobuf, field by field. Numbers of fields are those of onnx.proto; fields that are not named here
// (documentation, metadata, training) are skipped.
#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <system_error>
#include <utility>

#include "tools/error.h"
#include "tools/io/file.h"
#include "tools/onnx/model.h"

namespace heed::tools::onnx {
namespace {

// A graph inside an attribute of a node of a graph inside ...: real models stop at three.
constexpr int deepest = 16;

/// What is wrong, and the way to it, which each level on the way up puts its name before.
struct Malformed {
  std::string where, what;
  bool damaged = false;  // not even the encoding is right
};

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : 0;
    if (more == 0 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t point = lead & (0x3fu >> more);
    for (int k = 0; k < more; ++k) {
      const auto next = static_cast<uint8_t>(text[i++]);
      if (next >> 6 != 2) return false;
      point = point << 6 | (next & 0x3f);
    }
    if (point < (more == 1 ? 0x80u : more == 2 ? 0x800u : 0x10000u) || point > 0x10ffff || point >> 11 == 0x1b)
      return false;
  }
  return true;
}

/// protozero's reader with wire types checked before each value is taken (protozero itself only asserts them).
class Message {
 public:
  explicit Message(protozero::data_view bytes) : reader_(bytes) {}
  explicit Message(std::span<const std::byte> bytes)
      : reader_(reinterpret_cast<const char*>(bytes.data()), bytes.size()) {}

  bool next() { return reader_.next(); }
  uint32_t field() const { return reader_.tag(); }
  void skip() { reader_.skip(); }

  int64_t integer() {
    expect(protozero::pbf_wire_type::varint);
    return reader_.get_int64();
  }
  int32_t integer32() {
    const int64_t value = integer();
    if (value < INT32_MIN || value > INT32_MAX) throw Malformed{"", fmt::format("{} does not fit 32 bits", value)};
    return static_cast<int32_t>(value);
  }
  float real() {
    expect(protozero::pbf_wire_type::fixed32);
    return reader_.get_float();
  }
  protozero::data_view view() {
    expect(protozero::pbf_wire_type::length_delimited);
    return reader_.get_view();
  }
  Message message() { return Message{view()}; }
  std::string_view bytes() {
    const protozero::data_view v = view();
    return {v.data(), v.size()};
  }
  std::string_view text() {
    const std::string_view v = bytes();
    if (!is_utf8(v)) throw Malformed{"", "a name is not UTF-8"};
    return v;
  }

  // Repeated numbers come packed or one by one.
  void append(std::vector<int64_t>& values) {
    if (reader_.wire_type() == protozero::pbf_wire_type::varint) {
      values.push_back(reader_.get_int64());
      return;
    }
    const protozero::data_view packed = view();
    const char* p = packed.data();
    const char* const end = p + packed.size();
    while (p != end) values.push_back(static_cast<int64_t>(protozero::decode_varint(&p, end)));
  }
  void append(std::vector<float>& values) { append_fixed(values, protozero::pbf_wire_type::fixed32); }
  void append(std::vector<double>& values) { append_fixed(values, protozero::pbf_wire_type::fixed64); }

 private:
  void expect(protozero::pbf_wire_type type) const {
    if (reader_.wire_type() != type) {
      throw Malformed{"",
                      fmt::format("field {} has wire type {}, not {}", field(), int(reader_.wire_type()), int(type))};
    }
  }

  template <class T>
  void append_fixed(std::vector<T>& values, protozero::pbf_wire_type single) {
    if (reader_.wire_type() == single) {
      if constexpr (sizeof(T) == 4) {
        values.push_back(reader_.get_float());
      } else {
        values.push_back(reader_.get_double());
      }
      return;
    }
    const protozero::data_view packed = view();
    if (packed.size() % sizeof(T) != 0) {
      throw Malformed{"", fmt::format("field {} has {} bytes, no multiple of {}", field(), packed.size(), sizeof(T))};
    }
    const size_t before = values.size();
    values.resize(before + packed.size() / sizeof(T));
    std::memcpy(values.data() + before, packed.data(), packed.size());
  }

  protozero::pbf_reader reader_;
};

/// Runs `body`; what goes wrong in it is said to be in `where()`.
template <class Where, class Body>
auto within(Where&& where, Body&& body) {
  try {
    return body();
  } catch (Malformed& m) {
    m.where = m.where.empty() ? where() : where() + ", " + m.where;
    throw;
  } catch (const protozero::end_of_buffer_exception&) {
    throw Malformed{where(), "the data ends in the middle of a field", true};
  } catch (const protozero::exception&) {
    throw Malformed{where(), "a field is of no known form", true};
  }
}

/// The path of an external file: relative, and nowhere above the model's folder.
std::filesystem::path external_path(const std::filesystem::path& folder, std::string_view location) {
  const std::filesystem::path relative = std::filesystem::path(location).lexically_normal();
  if (location.empty() || relative.is_absolute() || *relative.begin() == "..") {
    throw Malformed{"", fmt::format("external file '{}' is not inside the model's folder", location)};
  }
  return folder / relative;
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& folder) : folder_(folder) {}

  void model(Message m, Model& model) {
    bool has_graph = false;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          model.ir_version = m.integer();
          break;
        case 7:
          has_graph = true;
          within([] { return std::string("graph"); }, [&] { graph(m.message(), model.graph, 0); });
          break;
        case 8:
          opset(m.message(), model.opsets);
          break;
        case 25: {
          const size_t index = model.functions.size();
          Function& f = model.functions.emplace_back();
          within([&] { return fmt::format("function {} '{}'", index, f.name); }, [&] { function(m.message(), f); });
          break;
        }
        default:
          m.skip();
      }
    }
    if (!has_graph) throw Malformed{"", "no graph: is this an ONNX file?"};
    if (model.opsets.empty()) throw Malformed{"", "no operator set is named (opset_import)"};
  }

 private:
  static void opset(Message m, Opsets& opsets) {
    std::string_view domain;
    int64_t version = 0;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          domain = m.text();
          break;
        case 2:
          version = m.integer();
          break;
        default:
          m.skip();
      }
    }
    opsets[domain == "ai.onnx" ? std::string_view() : domain] = version;
  }

  void graph(Message m, Graph& graph, int depth) {
    if (depth > deepest) throw Malformed{"", fmt::format("graphs are nested more than {} deep", deepest)};
    while (m.next()) {
      switch (m.field()) {
        case 1:
          nodes(m.message(), graph.nodes, depth);
          break;
        case 2:
          graph.name = m.text();
          break;
        case 5: {
          const size_t index = graph.initializers.size();
          Tensor& t = graph.initializers.emplace_back();
          within([&] { return fmt::format("initializer {} '{}'", index, t.name); }, [&] { tensor(m.message(), t); });
          break;
        }
        case 11:
          value(m.message(), "input", graph.inputs);
          break;
        case 12:
          value(m.message(), "output", graph.outputs);
          break;
        case 15:
          graph.has_sparse_initializers = true;
          m.skip();
          break;
        default:
          m.skip();
      }
    }
  }

  void nodes(Message m, std::vector<Node>& nodes, int depth) {
    const size_t index = nodes.size();
    Node& node = nodes.emplace_back();
    within([&] { return fmt::format("node {} '{}' ({})", index, node.name, node.op); },
           [&] {
             while (m.next()) {
               switch (m.field()) {
                 case 1:
                   node.inputs.push_back(m.text());
                   break;
                 case 2:
                   node.outputs.push_back(m.text());
                   break;
                 case 3:
                   node.name = m.text();
                   break;
                 case 4:
                   node.op = m.text();
                   break;
                 case 5:
                   attribute(m.message(), node.attributes, depth);
                   break;
                 case 7:
                   node.domain = m.text();
                   break;
                 case 8:
                   node.overload = m.text();
                   break;
                 default:
                   m.skip();
               }
             }
             if (node.domain == "ai.onnx") node.domain = {};
             if (node.op.empty()) throw Malformed{"", "it names no operator"};
           });
  }

  void attribute(Message m, std::vector<Attribute>& attributes, int depth) {
    using Kind = Attribute::Kind;
    Attribute& a = attributes.emplace_back();
    Kind found = Kind::undefined;
    within([&] { return fmt::format("attribute '{}'", a.name); },
           [&] {
             while (m.next()) {
               switch (m.field()) {
                 case 1:
                   a.name = m.text();
                   break;
                 case 2:
                   a.real = m.real();
                   found = Kind::real;
                   break;
                 case 3:
                   a.integer = m.integer();
                   found = Kind::integer;
                   break;
                 case 4:
                   a.string = m.bytes();
                   found = Kind::string;
                   break;
                 case 5: {
                   auto t = std::make_shared<Tensor>();
                   a.tensor = t;
                   tensor(m.message(), *t);
                   found = Kind::tensor;
                   break;
                 }
                 case 6: {
                   auto g = std::make_shared<Graph>();
                   a.graph = g;
                   graph(m.message(), *g, depth + 1);
                   found = Kind::graph;
                   break;
                 }
                 case 7:
                   m.append(a.reals);
                   found = Kind::reals;
                   break;
                 case 8:
                   m.append(a.integers);
                   found = Kind::integers;
                   break;
                 case 9:
                   a.strings.push_back(m.bytes());
                   found = Kind::strings;
                   break;
                 case 20:
                   a.kind = static_cast<Kind>(m.integer32());
                   break;
                 case 21:
                   a.reference = m.text();
                   break;
                 default:
                   m.skip();
               }
             }
             if (a.kind == Kind::undefined) a.kind = found;  // files of the first ONNX versions do not say
             if (found != Kind::undefined && a.kind != found && a.kind <= Kind::strings) {
               throw Malformed{"", fmt::format("it says type {} and holds type {}", int(a.kind), int(found))};
             }
             if (a.kind == Kind::tensor && a.tensor == nullptr && a.reference.empty()) throw Malformed{"", "no tensor"};
             if (a.kind == Kind::graph && a.graph == nullptr && a.reference.empty()) throw Malformed{"", "no graph"};
           });
  }

  void tensor(Message m, Tensor& tensor) {
    bool external = false;
    std::string_view location, offset, length;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          m.append(tensor.dims);
          break;
        case 2:
          tensor.type = static_cast<DataType>(m.integer32());
          break;
        case 3:
          throw Malformed{"", "tensors in segments are not supported"};
        case 4:
          m.append(tensor.floats);
          break;
        case 5:
        case 7:
        case 11:
          m.append(tensor.integers);
          break;
        case 8:
          tensor.name = m.text();
          break;
        case 9: {
          const std::string_view bytes = m.bytes();
          tensor.raw = std::as_bytes(std::span(bytes.data(), bytes.size()));
          tensor.owner = owner;
          break;
        }
        case 10:
          m.append(tensor.doubles);
          break;
        case 13: {
          std::string_view key, value;
          for (Message entry = m.message(); entry.next();) {
            switch (entry.field()) {
              case 1:
                key = entry.text();
                break;
              case 2:
                value = entry.text();
                break;
              default:
                entry.skip();
            }
          }
          if (key == "location") location = value;
          if (key == "offset") offset = value;
          if (key == "length") length = value;
          break;
        }
        case 14:
          external = m.integer() == 1;
          break;
        default:
          m.skip();
      }
    }
    for (const int64_t dim : tensor.dims) {
      if (dim < 0) throw Malformed{"", fmt::format("a dimension is {}", dim)};
    }
    if (external) read_external(tensor, location, offset, length);
  }

  void read_external(Tensor& tensor, std::string_view location, std::string_view offset, std::string_view length) {
    const std::filesystem::path path = external_path(folder_, location);
    auto [entry, is_new] = files_.try_emplace(path);
    if (is_new) {
      std::error_code error;
      if (!std::filesystem::exists(path, error)) {
        throw Malformed{"", fmt::format("external file '{}' is missing", path.string())};
      }
      entry->second = std::make_shared<MappedFile>(path);
    }
    const std::span<const std::byte> bytes = entry->second->bytes();
    const uint64_t first = offset.empty() ? 0 : number(offset, "offset");
    const uint64_t size =
        length.empty() ? bytes.size() - std::min<uint64_t>(first, bytes.size()) : number(length, "length");
    if (first > bytes.size() || size > bytes.size() - first) {
      throw Malformed{"", fmt::format("external file '{}' has {} bytes, the tensor wants {} from {} on", path.string(),
                                      bytes.size(), size, first)};
    }
    tensor.raw = bytes.subspan(first, size);
    tensor.external = path.string();
    tensor.owner = entry->second;
  }

  static uint64_t number(std::string_view text, const char* what) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      throw Malformed{"", fmt::format("external data: {} '{}' is not a number", what, text)};
    }
    return value;
  }

  static void value(Message m, const char* what, std::vector<ValueInfo>& values) {
    const size_t index = values.size();
    ValueInfo& info = values.emplace_back();
    within([&] { return fmt::format("{} {} '{}'", what, index, info.name); },
           [&] {
             while (m.next()) {
               switch (m.field()) {
                 case 1:
                   info.name = m.text();
                   break;
                 case 2:
                   value_type(m.message(), info);
                   break;
                 default:
                   m.skip();
               }
             }
             if (info.name.empty()) throw Malformed{"", "it has no name"};
           });
  }

  static void value_type(Message m, ValueInfo& info) {
    while (m.next()) {
      if (m.field() != 1) {
        m.skip();
        continue;
      }
      info.is_tensor = true;
      for (Message t = m.message(); t.next();) {
        switch (t.field()) {
          case 1:
            info.type = static_cast<DataType>(t.integer32());
            break;
          case 2: {
            info.axes.emplace();
            for (Message shape = t.message(); shape.next();) {
              if (shape.field() != 1) {
                shape.skip();
                continue;
              }
              Axis& axis = info.axes->emplace_back();
              for (Message dim = shape.message(); dim.next();) {
                switch (dim.field()) {
                  case 1:
                    axis.size = dim.integer();
                    break;
                  case 2:
                    axis.text = dim.text();
                    break;
                  default:
                    dim.skip();
                }
              }
            }
            break;
          }
          default:
            t.skip();
        }
      }
    }
  }

  void function(Message m, Function& f) {
    while (m.next()) {
      switch (m.field()) {
        case 1:
          f.name = m.text();
          break;
        case 4:
          f.inputs.push_back(m.text());
          break;
        case 5:
          f.outputs.push_back(m.text());
          break;
        case 6:
          f.attributes.push_back(m.text());
          break;
        case 7:
          nodes(m.message(), f.nodes, 0);
          break;
        case 9:
          opset(m.message(), f.opsets);
          break;
        case 10:
          f.domain = m.text();
          break;
        case 11:
          attribute(m.message(), f.defaults, 0);
          break;
        case 13:
          f.overload = m.text();
          break;
        default:
          m.skip();
      }
    }
  }

 public:
  std::shared_ptr<const void> owner;

 private:
  const std::filesystem::path& folder_;
  std::map<std::filesystem::path, std::shared_ptr<const MappedFile>> files_;
};

}  // namespace

Model parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::filesystem::path& folder) {
  Model model;
  model.owner = std::move(owner);
  Reader reader(folder);
  reader.owner = model.owner;
  try {
    within([] { return std::string("model"); }, [&] { reader.model(Message(bytes), model); });
  } catch (const Malformed& m) {
    const char* damaged = m.damaged ? "is damaged, or not an ONNX file: " : "";
    throw Error(Fault::model, damaged + m.where + ": " + m.what);
  }
  return model;
}

Model read(const std::filesystem::path& path) {
  const auto file = std::make_shared<MappedFile>(path);
  try {
    Model model = parse(file->bytes(), file, path.parent_path());
    model.file = file;
    return model;
  } catch (const Error& e) {
    throw Error(e.fault(), path.string() + ": " + e.what());
  }
}

}  // namespace heed::tools::onnx

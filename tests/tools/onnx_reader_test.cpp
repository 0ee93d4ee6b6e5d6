#include <doctest/doctest.h>

#include <cfloat>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "tests/tools/onnx_builder.h"
#include "tools/error.h"

namespace heed::tools::test {
namespace {

namespace fs = std::filesystem;

std::string file_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The error that reading these bytes ends in; empty where it ends well.
std::string problem_of(const std::string& bytes) {
  try {
    parse_bytes(bytes);
    return "";
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::model);
    return e.what();
  }
}

/// The literal of a tensor of one of the typed fields.
template <class Fill>
Literal literal_of(DataType type, const std::vector<int64_t>& dims, Fill fill) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_packed_int64(1, dims.begin(), dims.end());
  w.add_int32(2, static_cast<int32_t>(type));
  w.add_string(8, "t");
  fill(w);
  const onnx::Model model = parse_bytes(OnnxBuilder().part(5, bytes).bytes());
  return onnx::literal(model.graph.initializers.at(0));
}

std::vector<float> floats(const Literal& x) {
  return {x.floats().begin(), x.floats().end()};
}
std::vector<int64_t> integers(const Literal& x) {
  return {x.integers().begin(), x.integers().end()};
}

/// A folder of its own, removed at the end.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("heed_onnx_test_" + std::to_string(std::random_device{}()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
  }
};

/// A model with one external tensor of two floats, in the field order that exporters use.
std::string external_model(const std::string& location, const std::string& offset, const std::string& length) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_int64(1, 2);
  w.add_int32(2, 1);
  w.add_string(8, "w");
  for (const auto& [key, value] : {std::pair{"location", location}, {"offset", offset}, {"length", length}}) {
    if (value.empty()) continue;
    std::string entry;
    protozero::pbf_writer e(entry);
    e.add_string(1, key);
    e.add_string(2, value);
    w.add_message(13, entry);
  }
  w.add_int32(14, 1);
  return OnnxBuilder().input("x", DataType::f32, {2}).output("y").node("Add", {"x", "w"}, {"y"}).part(5, bytes).bytes();
}

TEST_CASE("a model's parts are read") {
  OnnxBuilder builder(17);
  builder.input("x", DataType::f32, {"batch", 3, ""}).output("y").initializer<float>("w", {2}, {1, 2});
  builder.node("Foo", {"x", "", "w"}, {"y"},
               {{"axis", int64_t{-1}}, {"scale", 0.5f}, {"mode", "fast"}, {"pads", std::vector<int64_t>{1, -2}}}, "foo",
               "my.domain");
  const onnx::Model model = parse_bytes(builder.bytes());
  CHECK(model.opsets.at("") == 17);
  REQUIRE(model.graph.inputs.size() == 1);
  const std::vector<onnx::Axis>& axes = *model.graph.inputs[0].axes;
  REQUIRE(axes.size() == 3);
  CHECK(axes[0].text == "batch");
  CHECK(axes[1].size == 3);
  CHECK((!axes[2].size && axes[2].text.empty()));
  const onnx::Node& node = model.graph.nodes.at(0);
  CHECK(node.op == "Foo");
  CHECK(node.domain == "my.domain");
  CHECK(node.inputs == std::vector<std::string_view>{"x", "", "w"});
  REQUIRE(node.attributes.size() == 4);
  CHECK(node.attributes[0].integer == -1);
  CHECK(node.attributes[1].real == 0.5f);
  CHECK(node.attributes[2].string == "fast");
  CHECK(node.attributes[3].integers == std::vector<int64_t>{1, -2});
  CHECK(floats(onnx::literal(model.graph.initializers.at(0))) == std::vector<float>{1, 2});
}

TEST_CASE("elements of every type and field become the converter's") {
  const auto packed = [](uint32_t field, std::vector<int64_t> values) {
    return [=](protozero::pbf_writer& w) { w.add_packed_int64(field, values.begin(), values.end()); };
  };
  const auto raw = [](std::string bytes) { return [=](protozero::pbf_writer& w) { w.add_bytes(9, bytes); }; };
  CHECK(integers(literal_of(DataType::i64, {2}, packed(7, {-5, INT64_MAX}))) == std::vector<int64_t>{-5, INT64_MAX});
  CHECK(integers(literal_of(DataType::i32, {2}, packed(5, {-5, 7}))) == std::vector<int64_t>{-5, 7});
  CHECK(integers(literal_of(DataType::u8, {1}, packed(5, {255}))) == std::vector<int64_t>{255});
  CHECK(integers(literal_of(DataType::i8, {2}, raw("\xff\x7f"))) == std::vector<int64_t>{-1, 127});
  CHECK(integers(literal_of(DataType::u8, {2}, raw("\xff\x7f"))) == std::vector<int64_t>{255, 127});
  CHECK(integers(literal_of(DataType::i16, {1}, raw("\xfe\xff"))) == std::vector<int64_t>{-2});
  CHECK(floats(literal_of(DataType::f16, {3}, packed(5, {0x3c00, 0xc000, 0x0001}))) ==
        std::vector<float>{1, -2, 0x1p-24f});
  CHECK(floats(literal_of(DataType::f16, {2}, raw(std::string("\x00\x7c\x00\xfc", 4)))) ==
        std::vector<float>{INFINITY, -INFINITY});
  CHECK(floats(literal_of(DataType::bf16, {1}, packed(5, {0x3f80}))) == std::vector<float>{1});
  const std::vector<double> doubles = {0.5, -1.7e308};
  CHECK(floats(literal_of(DataType::f64, {2}, [&](protozero::pbf_writer& w) {
          w.add_packed_double(10, doubles.begin(), doubles.end());
        })) == std::vector<float>{0.5, -FLT_MAX});
  CHECK(floats(literal_of(DataType::f32, {}, [](protozero::pbf_writer& w) { w.add_float(4, 2.5f); })) ==
        std::vector<float>{2.5f});
  const Literal logic = literal_of(DataType::boolean, {2}, packed(5, {1, 0}));
  CHECK(logic.type == Type::boolean);
  CHECK(logic.booleans()[0] == 1);
  CHECK(logic.booleans()[1] == 0);
  CHECK(literal_of(DataType::f32, {0, 5}, raw("")).count() == 0);

  CHECK_THROWS_WITH_AS(literal_of(static_cast<DataType>(22), {2}, raw("\x12")),
                       "tensor 't': elements of type int4 are not supported", Error);
  CHECK_THROWS_WITH_AS(literal_of(DataType::f32, {3}, raw("12345678")),
                       "tensor 't': its dimensions make 3 elements, the file holds 2", Error);
  CHECK_THROWS_AS(literal_of(DataType::f32, {INT64_MAX, INT64_MAX, 16}, raw("")), Error);
  CHECK_THROWS_AS(literal_of(DataType::f32, {2}, raw("1234567")), Error);
}

TEST_CASE("weights are read in place where their address allows") {
  // Four copies at all addresses modulo four: one of them is aligned.
  int in_place = 0;
  for (const std::string name : {"w", "ww", "www", "wwww"}) {
    const onnx::Model model = parse_bytes(OnnxBuilder().initializer<float>(name, {2}, {1, 2}).bytes());
    const onnx::Tensor& tensor = model.graph.initializers[0];
    const Literal literal = onnx::literal(tensor);
    CHECK(floats(literal) == std::vector<float>{1, 2});
    in_place += literal.data == tensor.raw->data();
  }
  CHECK(in_place == 1);
}

TEST_CASE("external files") {
  const Folder folder;
  folder.write("weights.bin", std::string(8, '\0') + std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  const auto read = [&](const std::string& location, const std::string& offset, const std::string& length) {
    folder.write("model.onnx", external_model(location, offset, length));
    return onnx::read(folder.path / "model.onnx");
  };
  CHECK(floats(onnx::literal(read("weights.bin", "8", "8").graph.initializers[0])) == std::vector<float>{1, 2});
  CHECK(floats(onnx::literal(read("./weights.bin", "8", "").graph.initializers[0])) == std::vector<float>{1, 2});
  const auto problem = [&](const std::string& location, const std::string& offset,
                           const std::string& length) -> std::string {
    try {
      read(location, offset, length);
      return "";
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::model);
      return e.what();
    }
  };
  CHECK(problem("none.bin", "", "").find("none.bin' is missing") != std::string::npos);
  CHECK(problem("../weights.bin", "", "").find("not inside the model's folder") != std::string::npos);
  CHECK(problem("a/../../weights.bin", "", "").find("not inside the model's folder") != std::string::npos);
  CHECK(problem("/etc/passwd", "", "").find("not inside the model's folder") != std::string::npos);
  CHECK(problem("", "", "").find("not inside the model's folder") != std::string::npos);
  CHECK(problem("weights.bin", "12", "8").find("has 16 bytes, the tensor wants 8 from 12 on") != std::string::npos);
  CHECK(problem("weights.bin", "18446744073709551615", "8") != "");
  CHECK(problem("weights.bin", "-1", "8").find("offset '-1' is not a number") != std::string::npos);
  CHECK(problem("weights.bin", "8", "").empty());
  try {  // shorter than the tensor, where no length is stated
    onnx::literal(read("weights.bin", "12", "").graph.initializers[0]);
    FAIL("was taken");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("weights.bin'") != std::string::npos);
  }

  try {
    onnx::read(folder.path / "no_such.onnx");
    FAIL("read a file that is not there");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::command_line);
  }
}

TEST_CASE("malformed files are errors that say where") {
  CHECK(problem_of("") == "model: no graph: is this an ONNX file?");
  CHECK(problem_of("hello, this is some text").find("is damaged, or not an ONNX file: model: ") == 0);
  const std::string node = test::node("Add", {"x", "x"}, {"y"}, {}, "sum");
  CHECK(problem_of(OnnxBuilder().part(1, node.substr(0, node.size() - 1)).bytes()) ==
        "is damaged, or not an ONNX file: model, graph, node 0 'sum' (): the data ends in the middle of a field");
  CHECK(problem_of(OnnxBuilder().part(1, "").bytes()) == "model, graph, node 0 '' (): it names no operator");
  CHECK(problem_of(OnnxBuilder().node("Add\xff", {"x"}, {"y"}).bytes()) ==
        "model, graph, node 0 '' (): a name is not UTF-8");
  std::string wrong_type;
  protozero::pbf_writer(wrong_type).add_int64(4, 7);  // op_type as a number
  CHECK(problem_of(OnnxBuilder().part(1, wrong_type).bytes()) ==
        "model, graph, node 0 '' (): field 4 has wire type 0, not 2");

  // Graphs inside of attributes, deeper than anything real: refused without using up the stack.
  std::string graph;
  for (int depth = 0; depth < 2000; ++depth) {
    std::string attribute, node_bytes, next;
    protozero::pbf_writer a(attribute), n(node_bytes), g(next);
    a.add_string(1, "body");
    a.add_message(6, graph);
    n.add_string(4, "If");
    n.add_message(5, attribute);
    g.add_message(1, node_bytes);
    graph = next;
  }
  std::string model;
  protozero::pbf_writer w(model);
  w.add_message(7, graph);
  w.add_message(8, opset_import("", 20));
  CHECK(problem_of(model).find("graphs are nested more than") != std::string::npos);
}

/// Small, and with something of everything.
std::string sample() {
  OnnxBuilder b;
  b.input("x", DataType::f32, {"batch", 4}).output("y").output("n", DataType::i64);
  b.initializer<float>("w", {4, 4}, std::vector<float>(16, 0.25f)).initializer<int64_t>("shape", {3}, {0, 2, -1});
  b.initializer<int64_t>("zero", {1}, {0}).initializer<int64_t>("end", {1}, {INT64_MAX});
  b.initializer<int64_t>("wide", {3}, {3, 1, 2}).initializer<float>("ones", {2}, {1, 1});
  b.node("Gemm", {"x", "w"}, {"a"}, {{"alpha", 0.5f}, {"transB", int64_t{1}}}).node("Reshape", {"a", "shape"}, {"b"});
  b.node("Transpose", {"b"}, {"c"}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
  b.node("Softmax", {"c"}, {"d"}, {{"axis", int64_t{-1}}}).node("MatMul", {"d", "b"}, {"e"});
  b.node("ReduceMean", {"e", "zero"}, {"f"}, {{"keepdims", int64_t{1}}});
  b.node("Slice", {"f", "zero", "end"}, {"g"}).node("Expand", {"g", "wide"}, {"h"});
  b.node("Pad", {"h", "pads"}, {"i"}).initializer<int64_t>("pads", {6}, {0, 1, 0, 0, 0, -1});
  b.node("LayerNormalization", {"h", "ones"}, {"y"});
  b.node("Shape", {"x"}, {"m"}).node("Concat", {"m", "zero"}, {"n"}, {{"axis", int64_t{0}}});
  return b.bytes();
}

void must_end_in_an_error_or_well(const std::string& bytes) {
  try {
    import_bytes(bytes, {});
  } catch (const Error&) {
  }
}

TEST_CASE("truncated and mutated files end in an error or well") {
  const fs::path examples = fs::path(HEED_SOURCE_DIR) / "examples";
  const std::string small = file_bytes(examples / "attention_by_hand/attention_by_hand_steps.onnx");
  REQUIRE(!small.empty());
  for (const char* name : {"stock_forecast/lstm_attention.onnx", "stock_forecast/transformer.onnx"}) {
    const std::string whole = file_bytes(examples / name);
    for (size_t size = 0; size < whole.size(); size += 64) CHECK(!problem_of(whole.substr(0, size)).empty());
  }
  REQUIRE_NOTHROW(import_bytes(sample()));
  std::mt19937 random(1);
  for (const std::string& original : {small, sample()}) {
    for (size_t size = 0; size < original.size(); ++size) must_end_in_an_error_or_well(original.substr(0, size));
    std::vector<size_t> places(original.size());
    std::iota(places.begin(), places.end(), size_t{0});
    for (int trial = 0; trial < 5000; ++trial) must_end_in_an_error_or_well(mutated(original, places, random));
  }
}

}  // namespace
}  // namespace heed::tools::test

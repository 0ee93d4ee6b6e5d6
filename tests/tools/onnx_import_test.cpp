#include <doctest/doctest.h>

#include <filesystem>

#include "tests/tools/onnx_builder.h"
#include "tools/error.h"
#include "tools/io/npy.h"

namespace heed::tools::test {
namespace {

namespace fs = std::filesystem;

const fs::path examples = fs::path(HEED_SOURCE_DIR) / "examples";

/// The error that importing ends in; empty where it ends well.
std::vector<std::string> problems_of(const std::string& bytes, Fault fault, const std::vector<std::string>& dims = {}) {
  try {
    import_bytes(bytes, dims);
    return {};
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    return e.problems();
  }
}

using Problems = std::vector<std::string>;

// --- Dimensions
// -------------------------------------------------------------------------------------------------------

OnnxBuilder identity(const std::vector<AxisText>& axes) {
  OnnxBuilder builder;
  return builder.input("x", DataType::f32, axes).output("y").node("Relu", {"x"}, {"y"});
}

std::string shape_of(const std::vector<AxisText>& axes, const std::vector<std::string>& dims) {
  const Graph graph = import_bytes(identity(axes).bytes(), dims);
  return text(graph.value(graph.inputs[0].value).dims);
}

TEST_CASE("dimensions are bound by --dim") {
  CHECK(shape_of({2, 3}, {}) == "[2, 3]");
  CHECK(shape_of({"tokens", 3}, {"tokens=1..8"}) == "[tokens, 3]");
  CHECK(shape_of({"tokens", 3}, {"tokens=8"}) == "[8, 3]");
  CHECK(shape_of({"tokens", 3}, {"x:0=8"}) == "[8, 3]");
  CHECK(shape_of({"past + 1", "2*past", "past"}, {"past=0..7"}) == "[past + 1, 2 * past, past]");
  CHECK(shape_of({"past + 1", "past"}, {"past=3"}) == "[4, 3]");
  CHECK(shape_of({"", 3}, {"x:0=1..4"}) == "[x:0, 3]");
  CHECK(shape_of({3, "seq-length"}, {"seq-length=1..4"}) == "[3, seq_length]");
  CHECK(shape_of({"batch", 3}, {"batch=1..4"}) == "[batch, 3]");

  const Graph graph = import_bytes(identity({"tokens", 3}).bytes(), {"tokens=2..8"});
  CHECK(graph.dimensions.at("tokens").lower == 2);
  CHECK(graph.dimensions.at("tokens").upper == 8);
}

TEST_CASE("a leading batch that is left unbound is one") {
  std::vector<std::string> notes;
  const Graph graph = import(parse_bytes(identity({"batch_size", 3}).bytes()), {}, notes);
  CHECK(text(graph.value(graph.inputs[0].value).dims) == "[1, 3]");
  CHECK(notes == Problems{"dimension 'batch_size' is 1 (--dim batch_size=LO..HI makes it variable)"});
  CHECK(shape_of({"N", 3}, {}) == "[1, 3]");
  CHECK(!problems_of(identity({3, "batch"}).bytes(), Fault::command_line).empty());
}

TEST_CASE("unbound dimensions are asked for at once") {
  CHECK(
      problems_of(identity({"batch", "frames", "", "frames"}).bytes(), Fault::command_line) ==
      Problems{"bounds are needed for frames (x axis 1, x axis 3), x:2 (x axis 2); with your own numbers: heed convert "
               "MODEL.onnx --dim frames=1..128 --dim x:2=1..128"});
  OnnxBuilder builder;
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) builder.input(name, DataType::f32, {"past + t"});
  builder.output("y").node("Sum", {"a", "b", "c", "d", "e", "f"}, {"y"});
  CHECK(
      problems_of(builder.bytes(), Fault::command_line, {"t=1"}) ==
      Problems{"bounds are needed for past (a axis 0: past + t, b axis 0: past + t, c axis 0: past + t, d axis 0: past "
               "+ t and 2 more); with your own numbers: heed convert MODEL.onnx --dim past=1..128"});
}

TEST_CASE("one dimension may be bound by each of its inputs, alike") {
  OnnxBuilder builder;
  builder.input("a", DataType::f32, {"batch", 4}).input("b", DataType::f32, {"batch", 4}).output("y");
  builder.node("Add", {"a", "b"}, {"y"});
  const Graph graph = import_bytes(builder.bytes(), {"a:0=1..8", "b:0=1..8", "batch=1..8"});
  CHECK(graph.dimensions.at("batch").upper == 8);
  CHECK(problems_of(builder.bytes(), Fault::command_line, {"a:0=1..8", "b:0=1..9"}) ==
        Problems{"--dim b:0=1..9: 'batch' has other bounds by --dim a:0=1..8"});
}

TEST_CASE("wrong options of all kinds are told at once, with the names that are most alike first") {
  ConvertOptions options;
  options.sets = {"flagg=1"};
  options.states = {"h=hh"};
  options.dims = {"tokns=1..8"};
  OnnxBuilder builder;
  builder.input("x", DataType::f32, {"frames", "tokens"})
      .input("h", DataType::f32, {4})
      .input("flag", DataType::f32, {});
  builder.output("y").output("h_out").node("Mul", {"x", "flag"}, {"y"}).node("Neg", {"h"}, {"h_out"});
  try {
    std::vector<std::string> notes;
    import(parse_bytes(builder.bytes()), options, notes);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::command_line);
    CHECK(e.problems() == Problems{"--set flagg=1: there is no input 'flagg'; this model has flag, x, h",
                                   "--state h=hh: there is no output 'hh'; this model has y, h_out",
                                   "--dim tokns=1..8: there is no dimension 'tokns'; this model has tokens, frames"});
  }
}

TEST_CASE("wrong --dim options are all named") {
  const std::string model = identity({"tokens", "heads", 3}).bytes();
  CHECK(problems_of(model, Fault::command_line,
                    {"tokns=1..8", "tokens=8..1", "tokens=a..b", "tokens", "heads=1..9999999999", "x:7=1", "x:2=4",
                     "tokens=1", "tokens=2", "heads=-1..4", "x=2"}) ==
        Problems{"--dim tokns=1..8: there is no dimension 'tokns'; this model has tokens, heads",
                 "--dim tokens=8..1: 8 is larger than 1",
                 "--dim tokens=a..b: 'a..b' is neither a number nor a range LO..HI",
                 "--dim tokens: write NAME=N, NAME=LO..HI or INPUT:AXIS=LO..HI",
                 "--dim heads=1..9999999999: sizes are from 0 to 2147483647", "--dim x:7=1: input 'x' has axes 0 to 2",
                 "--dim x:2=4: this axis is 3, no dimension of its own",
                 "--dim tokens=2: 'tokens' has other bounds by --dim tokens=1",
                 "--dim heads=-1..4: sizes are from 0 to 2147483647",
                 "--dim x=2: 'x' is an input: write x:AXIS=N or x:AXIS=LO..HI"});
  CHECK(problems_of(identity({2}).bytes(), Fault::command_line, {"n=1"}) ==
        Problems{"--dim n=1: all sizes of this model are fixed"});
  CHECK(problems_of(identity({"past - 2"}).bytes(), Fault::command_line, {"past=0..8"}) ==
        Problems{"input 'x': axis 0, past - 2, runs from -2 to 6 under the given bounds"});
}

TEST_CASE("a constant that an integer cannot hold is told") {
  const auto notes_of = [](std::vector<float> values, int64_t to) {
    OnnxBuilder builder;
    builder.input("x", DataType::i64, {2}).output("y").initializer<float>("c", {2}, values);
    builder.node("Cast", {"c"}, {"whole"}, {{"to", to}}, "cast").node("Add", {"x", "whole"}, {"y"});
    return import_bytes(builder.bytes()).notes;
  };
  CHECK(notes_of({1, -5e18f}, 7).empty());
  CHECK(notes_of({1, 3e19f}, 7) ==
        Problems{"'cast' casts the constant 3e+19 to int64, which it does not fit: it is the largest here"});
  CHECK(notes_of({NAN, 1}, 7) ==
        Problems{"'cast' casts the constant nan to int64, which it does not fit: it is 0 here"});
}

// --- Refusals
// ---------------------------------------------------------------------------------------------------------

TEST_CASE("every problem of a model is reported at once") {
  OnnxBuilder builder;
  builder.input("x", DataType::f32, {2, 3}).output("y").output("z");
  builder.node("Foo", {"x"}, {"a"}, {}, "first")
      .node("Foo", {"a"}, {"b"})
      .node("Bar", {"b"}, {"y"}, {}, "", "my.domain");
  builder.node("Swish", {"x"}, {"z"}).node("Unused", {"x"}, {"unused"});
  CHECK(problems_of(builder.bytes(), Fault::model) ==
        Problems{"operator Foo is not supported: 2 nodes: first, Foo_1",
                 "operator Swish as of operator set 20 (from 24 on it is) is not supported: 1 node: Swish_3",
                 "operator my.domain.Bar is not supported: 1 node: Bar_2"});

  OnnxBuilder nodes;
  nodes.input("x", DataType::f32, {2, 3}).output("y").output("z").output("u").output("v").output("w");
  nodes.node("Relu", {"x"}, {"y"}, {{"slope", 1.0f}}).node("Softmax", {"x"}, {"z"}, {{"axis", 1.0f}}, "soft");
  nodes.node("Sigmoid", {"y"}, {"u"});  // says nothing: its operand is missing for a reason that is told already
  nodes.node("MatMul", {"x", "x"}, {"v"}, {}, "product").node("Reshape", {"x", "shape"}, {"w"});
  nodes.input("shape", DataType::i64, {2});
  CHECK(problems_of(nodes.bytes(), Fault::model) ==
        Problems{"node 'Relu_0' (Relu): attribute 'slope' is not supported",
                 "node 'soft' (Softmax): attribute 'axis' is not an integer",
                 "node 'product' (matmul) on shapes [2, 3] and [2, 3]: the sizes 3 and 2 differ",
                 "node 'Reshape_4' (Reshape): operand 1, 'shape', depends on data; it has to be known at conversion"});
}

TEST_CASE("malformed graphs") {
  const auto base = [] { return OnnxBuilder().input("x", DataType::f32, {2}).output("y"); };
  CHECK(problems_of(base().bytes(), Fault::model) ==
        Problems{"'y', read by 'the graph's output', is computed by no node and is no input"});
  CHECK(problems_of(base().node("Add", {"x", "ghost"}, {"y"}).bytes(), Fault::model) ==
        Problems{"'ghost', read by 'Add_0', is computed by no node and is no input"});
  CHECK(problems_of(base().node("Add", {"x", "b"}, {"y"}, {}, "one").node("Relu", {"y"}, {"b"}, {}, "two").bytes(),
                    Fault::model) ==
        Problems{"node 'one' reads 'b', which a later node computes: the graph has a cycle or is not in order"});
  CHECK(problems_of(base().node("Relu", {"x"}, {"y"}).node("Neg", {"x"}, {"y"}).bytes(), Fault::model) ==
        Problems{"'y' is computed twice, again by node 'Neg_1'"});
  CHECK(problems_of(base().input("x", DataType::f32, {2}).node("Relu", {"x"}, {"y"}).bytes(), Fault::model) ==
        Problems{"input 'x' is there twice"});
  CHECK(problems_of(base().node("Add", {"x"}, {"y"}).bytes(), Fault::model) ==
        Problems{"node 'Add_0' (Add): operand 1 is missing"});
  CHECK(problems_of(base().node("Not", {"x"}, {"y"}).bytes(), Fault::model).size() == 1);
  CHECK(problems_of(OnnxBuilder().input("x", DataType::string, {2}).output("y").node("Identity", {"x"}, {"y"}).bytes(),
                    Fault::model) == Problems{"input 'x' is of type string, which is not supported"});
  CHECK(problems_of(OnnxBuilder(99).input("x", DataType::f32, {2}).output("y").node("Relu", {"x"}, {"y"}).bytes(),
                    Fault::model) == Problems{"operator set 99 is newer than the newest that is known, 28"});
}

TEST_CASE("hostile sizes cost neither memory nor time") {
  const auto model = [](const std::string& op, const Names& inputs, const Attributes& attributes = {}) {
    OnnxBuilder builder;
    builder.input("x", DataType::f32, {2}).output("y").initializer<int64_t>("huge", {1}, {int64_t{1} << 45});
    builder.initializer<int64_t>("pads", {2}, {0, int64_t{1} << 45}).initializer<int64_t>("zero", {}, {0});
    builder.initializer<int64_t>("end", {}, {int64_t{1} << 45}).initializer<int64_t>("one", {}, {1});
    builder.initializer<int64_t>("steps", {1}, {INT64_MIN}).initializer<float>("big", {}, {3e38f});
    builder.initializer<float>("tiny", {}, {1e-38f}).initializer<float>("w", {1}, {1});
    return builder.node(op, inputs, {"y"}, attributes).bytes();
  };
  const auto ends = [](const std::string& bytes) {
    try {
      import_bytes(bytes);
    } catch (const Error&) {
    }
  };
  ends(model("ConstantOfShape", {"huge"}));
  ends(model("Expand", {"w", "huge"}));
  ends(model("Tile", {"w", "huge"}));
  ends(model("Pad", {"w", "pads"}));
  ends(model("Range", {"zero", "end", "one"}));
  ends(model("Range", {"tiny", "big", "tiny"}));
  ends(model("OneHot", {"zero", "end", "pads"}));
  ends(model("Reshape", {"x", "huge"}));
  ends(model("Slice", {"x", "steps", "huge", "zero", "steps"}));
  ends(model("Slice", {"x", "huge", "steps"}));
  ends(model("Unsqueeze", {"x", "huge"}));
  ends(model("Split", {"x"}, {{"num_outputs", INT64_MAX}}));
  ends(model("DepthToSpace", {"x"}, {{"blocksize", INT64_MAX}}));
  ends(model("Gather", {"x", "end"}));
  ends(model("Trilu", {"x", "end"}));

  // A long range, doubled again and again: what is folded is bounded for the whole model.
  OnnxBuilder chain;
  chain.input("x", DataType::f32, {2}).output("y").initializer<int64_t>("zero", {}, {0});
  chain.initializer<int64_t>("end", {}, {1 << 25}).initializer<int64_t>("one", {}, {1});
  chain.node("Range", {"zero", "end", "one"}, {"r0"});
  for (int i = 0; i < 100; ++i) {
    chain.node("Add", {"r" + std::to_string(i), "one"}, {"r" + std::to_string(i + 1)});
  }
  chain.node("Size", {"r100"}, {"y"});
  const Graph graph = import_bytes(chain.bytes());
  int64_t elements = 0;
  for (ValueId id = 0; id < static_cast<ValueId>(graph.value_count()); ++id) {
    if (graph.value(id).constant) elements += graph.value(id).constant->count();
  }
  CHECK(elements <= int64_t{1} << 27);
}

// --- Functions
// --------------------------------------------------------------------------------------------------------

/// A function of the model: y = activation(x * scale).
std::string function_bytes(const std::string& name, const std::vector<std::string>& nodes) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  w.add_string(1, name);
  w.add_string(4, "a");
  w.add_string(4, "b");
  w.add_string(5, "r");
  w.add_string(6, "alpha");
  for (const std::string& node : nodes) w.add_message(7, node);
  w.add_message(9, opset_import("", 20));
  w.add_message(9, opset_import("mine", 1));
  w.add_string(10, "mine");
  return bytes;
}

TEST_CASE("a model's own functions are expanded") {
  // LeakyRelu whose alpha is the call's.
  std::string reference, leaky = test::node("LeakyRelu", {"s"}, {"r"});
  protozero::pbf_writer r(reference);
  r.add_string(1, "alpha");
  r.add_int32(20, 1);
  r.add_string(21, "alpha");
  protozero::pbf_writer(leaky).add_message(5, reference);
  OnnxBuilder builder;
  builder.input("x", DataType::f32, {2}).output("y").initializer<float>("two", {}, {2});
  builder.node("Scaled", {"x", "two"}, {"y"}, {{"alpha", 0.5f}}, "call", "mine");
  builder.model_part(25, function_bytes("Scaled", {test::node("Mul", {"a", "b"}, {"s"}, {}, "mul"), leaky}));
  Graph graph = import_bytes(builder.bytes());
  const Literal y = run_graph(graph, {Literal::of({2}, std::vector<float>{-3, 1})})[0];
  CHECK(y.floats()[0] == -3);
  CHECK(y.floats()[1] == 2);
  CHECK(graph.node(graph.order()[0]).name == "call/mul");
}

TEST_CASE("functions that call themselves, or multiply without end, are refused") {
  OnnxBuilder itself;
  itself.input("x", DataType::f32, {2}).output("y").node("F", {"x"}, {"y"}, {}, "", "mine");
  itself.model_part(25, function_bytes("F", {test::node("F", {"a"}, {"r"}, {}, "", "mine")}));
  CHECK(problems_of(itself.bytes(), Fault::model) ==
        Problems{"function 'F' calls itself, or calls are nested more than 32 deep"});

  OnnxBuilder many;
  many.input("x", DataType::f32, {2}).output("y").node("F0", {"x"}, {"y"}, {}, "", "mine");
  for (int i = 0; i < 30; ++i) {
    const std::string next = "F" + std::to_string(i + 1);
    many.model_part(25, function_bytes("F" + std::to_string(i), {test::node(next, {"a"}, {"t"}, {}, "", "mine"),
                                                                 test::node(next, {"t"}, {"r"}, {}, "", "mine")}));
  }
  many.model_part(25, function_bytes("F30", {test::node("Relu", {"a"}, {"r"})}));
  CHECK(problems_of(many.bytes(), Fault::model).size() == 1);
}

// --- Whole models
// -----------------------------------------------------------------------------------------------------

Literal literal_of(const Array& array) {
  const auto* data = reinterpret_cast<const float*>(array.data.data());
  return Literal::of(array.dims, std::vector<float>(data, data + array.count()));
}

TEST_CASE("the example models give what the framework they came from gave") {
  const NamedArrays arrays = read_npz(examples / "stock_forecast/expected.npz");
  const auto find = [&](const std::string& name) -> const Array& {
    for (const auto& [key, array] : arrays) {
      if (key == name) return array;
    }
    throw std::runtime_error(name);
  };
  const Literal window = literal_of(find("window"));
  for (const char* name : {"lstm_attention", "transformer"}) {
    CAPTURE(name);
    std::vector<std::string> notes;
    const onnx::Model model = onnx::read(examples / "stock_forecast" / (std::string(name) + ".onnx"));
    Graph graph = import(model, {{"batch=1..64"}}, notes);
    CHECK(text(graph.value(graph.outputs[0].value).dims) == "[batch, 1]");
    const Literal forecast = run_graph(graph, {window}, {{"batch", window.dims[0]}})[0];
    const Array& expected = find(name);
    REQUIRE(forecast.count() == expected.count());
    const auto* numbers = reinterpret_cast<const double*>(expected.data.data());
    for (int64_t i = 0; i < expected.count(); ++i) {
      CHECK(static_cast<double>(forecast.floats()[static_cast<size_t>(i)]) ==
            doctest::Approx(numbers[i]).epsilon(1e-5));
    }
  }
}

TEST_CASE("operators are counted") {
  const onnx::Model model = onnx::read(examples / "attention_by_hand/attention_by_hand.onnx");
  CHECK(count_operators(model) ==
        std::map<std::string, int>{{"Div", 1}, {"MatMul", 2}, {"Softmax", 1}, {"Transpose", 1}});
}

}  // namespace
}  // namespace heed::tools::test

// Each lowering: the shape and the values of small cases worked out by hand, from data (so that nothing folds) and from
// constants.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/tools/onnx_builder.h"
#include "tools/error.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools::test {
namespace {

/// An operand: the caller's data, or a constant of the model.
struct In {
  DataType type;
  Literal value;
  std::string file;  // as an initializer; empty: an input of the graph
};

std::vector<int64_t> dims_or(std::vector<int64_t> dims, size_t count) {
  return dims.size() == 1 && dims[0] < 0 ? std::vector<int64_t>{static_cast<int64_t>(count)} : dims;
}

const std::vector<int64_t> line = {-1};  // one axis of as many as there are

In floats(const std::vector<float>& values, const std::vector<int64_t>& dims = line) {
  return {DataType::f32, Literal::of(dims_or(dims, values.size()), values), ""};
}
In integers(const std::vector<int64_t>& values, const std::vector<int64_t>& dims = line) {
  return {DataType::i64, Literal::of(dims_or(dims, values.size()), values), ""};
}
In booleans(const std::vector<uint8_t>& values, const std::vector<int64_t>& dims = line) {
  return {DataType::boolean, Literal::of_booleans(dims_or(dims, values.size()), values), ""};
}
/// The same as a constant of the model.
In fixed(In in, const std::string& name) {
  const Literal& v = in.value;
  const size_t size = v.type == Type::f32 ? 4 : v.type == Type::i32 ? 8 : 1;
  const std::string raw(reinterpret_cast<const char*>(v.data), size * static_cast<size_t>(v.count()));
  in.file = tensor_of_bytes(name, in.type, v.dims, raw);
  return in;
}
const In absent = {DataType::undefined, {}, ""};

struct Call {
  std::string op;
  std::vector<In> operands;  // those at an index of `constants` become initializers
  Attributes attributes = {};
  std::vector<size_t> constants = {};
  int64_t opset = 20;
  size_t outputs = 1;
  std::string domain = "";
};

std::vector<Literal> run(const Call& call) {
  OnnxBuilder builder(call.opset);
  Names names, outputs;
  std::vector<Literal> inputs;
  for (size_t i = 0; i < call.operands.size(); ++i) {
    const In& in = call.operands[i];
    names.push_back(in.type == DataType::undefined ? "" : "x" + std::to_string(i));
    if (in.type == DataType::undefined) continue;
    if (std::find(call.constants.begin(), call.constants.end(), i) != call.constants.end()) {
      builder.part(5, fixed(in, names.back()).file);
      continue;
    }
    std::vector<AxisText> axes;
    for (const int64_t dim : in.value.dims) axes.push_back(static_cast<int>(dim));
    builder.input(names.back(), in.type, axes);
    inputs.push_back(in.value);
  }
  for (size_t i = 0; i < call.outputs; ++i) {
    outputs.push_back("y" + std::to_string(i));
    builder.output(outputs.back());
  }
  builder.node(call.op, names, outputs, call.attributes, "", call.domain);
  Graph graph = import_bytes(builder.bytes());
  return run_graph(graph, inputs);
}

/// Elements as numbers, whatever their type.
std::vector<double> numbers(const Literal& x) {
  if (x.type == Type::f32) return {x.floats().begin(), x.floats().end()};
  if (x.type == Type::i32) return {x.integers().begin(), x.integers().end()};
  return {x.booleans().begin(), x.booleans().end()};
}

void check(const Call& call, const std::vector<int64_t>& dims, const std::vector<double>& values, size_t output = 0) {
  CAPTURE(call.op);
  const std::vector<Literal> results = run(call);
  CHECK(results.at(output).dims == dims);
  const std::vector<double> found = numbers(results[output]);
  REQUIRE(found.size() == values.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    if (std::isnan(values[i])) {
      CHECK(std::isnan(found[i]));
    } else if (std::isinf(values[i])) {
      CHECK(found[i] == values[i]);
    } else {
      CHECK(found[i] == doctest::Approx(values[i]).epsilon(1e-5));
    }
  }
}

/// What importing the call is refused with.
std::string refusal(const Call& call) {
  try {
    run(call);
    return "";
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::model);
    return e.what();
  }
}

using Ints = std::vector<int64_t>;

TEST_CASE("one-step operators take floats and integers") {
  const In a = floats({-3, 0.5f, 4}), b = floats({2, 2, 0.5f}), m = integers({-7, 7, 6}), n = integers({2, -2, 4});
  check({"Add", {a, b}}, {3}, {-1, 2.5, 4.5});
  check({"Add", {m, n}}, {3}, {-5, 5, 10});
  check({"Sub", {a, floats({1}, {1, 1})}}, {1, 3}, {-4, -0.5, 3});
  check({"Div", {a, b}}, {3}, {-1.5, 0.25, 8});
  check({"Div", {m, n}}, {3}, {-3, -3, 1});
  check({"Pow", {a, floats({2}, {})}}, {3}, {9, 0.25, 16});
  check({"Pow", {integers({2, 3}), integers({10, 3})}}, {2}, {1024, 27});
  check({"Mod", {m, n}}, {3}, {1, -1, 2});
  check({"Mod", {m, n}, {{"fmod", int64_t{1}}}}, {3}, {-1, 1, 2});
  check({"Mod", {a, b}, {{"fmod", int64_t{1}}}}, {3}, {-1, 0.5, 0});
  check({"Min", {a, b, floats({1}, {})}}, {3}, {-3, 0.5, 0.5});
  check({"Max", {m, n}}, {3}, {2, 7, 6});
  check({"Sum", {a, b, a}}, {3}, {-4, 3, 8.5});
  check({"Mean", {a, b}}, {3}, {-0.5, 1.25, 2.25});
  check({"Neg", {m}}, {3}, {7, -7, -6});
  check({"Round", {floats({0.5f, 1.5f, -2.5f})}}, {3}, {0, 2, -2});
  check({"Sign", {a}}, {3}, {-1, 1, 1});
  check({"Sqrt", {floats({4, 0})}}, {2}, {2, 0});
  check({"Erf", {floats({1})}}, {1}, {0.8427007929});
  check({"Relu", {m}}, {3}, {0, 7, 6});
  check({"Clip", {a, floats({0}, {}), floats({1}, {})}, {}, {1, 2}}, {3}, {0, 0.5, 1});
  check({"Clip", {m, absent, integers({3}, {})}}, {3}, {-7, 3, 3});
  check({"Identity", {m}}, {3}, {-7, 7, 6});
  CHECK(refusal({"Sum", {m, n}}) == "node 'Sum_0' (Sum): operands of type i32 are not supported");
  CHECK(refusal({"Add", {a, m}}) == "node 'Add_0' (Add): operands of types float32 and int64");
}

TEST_CASE("bits, comparisons and choices") {
  const In m = integers({-7, 7, 6}), n = integers({2, 7, 4}), p = booleans({1, 0, 1}), q = booleans({1, 1, 0});
  check({"BitwiseAnd", {m, n}}, {3}, {-7 & 2, 7, 4});
  check({"BitwiseNot", {m}}, {3}, {6, -8, -7});
  check({"BitShift", {integers({1, 16}), integers({3, 2})}, {{"direction", "LEFT"}}}, {2}, {8, 64});
  check({"BitShift", {integers({-8, 16}), integers({99, 2})}, {{"direction", "RIGHT"}}}, {2}, {-1, 4});
  check({"Equal", {m, n}}, {3}, {0, 1, 0});
  check({"Equal", {p, q}}, {3}, {1, 0, 0});
  check({"Greater", {m, n}}, {3}, {0, 0, 1});
  check({"GreaterOrEqual", {m, n}}, {3}, {0, 1, 1});
  check({"Less", {m, n}}, {3}, {1, 0, 0});
  check({"LessOrEqual", {floats({1, 2}), floats({1, 1})}}, {2}, {1, 0});
  check({"And", {p, q}}, {3}, {1, 0, 0});
  check({"Xor", {p, q}}, {3}, {0, 1, 1});
  check({"Not", {p}}, {3}, {0, 1, 0});
  check({"Where", {p, m, n}}, {3}, {-7, 7, 6});
  check({"Where", {p, floats({1}, {}), floats({1, 2, 3})}}, {3}, {1, 2, 1});
  const In odd = floats({NAN, INFINITY, -INFINITY, 0});
  check({"IsNaN", {odd}}, {4}, {1, 0, 0, 0});
  check({"IsInf", {odd}}, {4}, {0, 1, 1, 0});
  check({"IsInf", {odd}, {{"detect_negative", int64_t{0}}}}, {4}, {0, 1, 0, 0});
  check({"IsInf", {odd}, {{"detect_positive", int64_t{0}}}}, {4}, {0, 0, 1, 0});
}

TEST_CASE("casts bring values into the range of their type") {
  const auto to = [](DataType type) { return Attributes{{"to", static_cast<int64_t>(type)}}; };
  check({"Cast", {floats({-1.7f, 2.7f, 0})}, to(DataType::i32)}, {3}, {-1, 2, 0});
  check({"Cast", {floats({-1.7f, 2.7f, 0})}, to(DataType::boolean)}, {3}, {1, 1, 0});
  check({"Cast", {integers({-1, 258, 127})}, to(DataType::u8)}, {3}, {255, 2, 127});
  check({"Cast", {integers({-129, 128, -1})}, to(DataType::i8)}, {3}, {127, -128, -1});
  check({"Cast", {integers({3})}, to(DataType::f32)}, {1}, {3});
  check({"Cast", {booleans({1, 0})}, to(DataType::i64)}, {2}, {1, 0});
  check({"CastLike", {floats({2.5f}), integers({1})}}, {1}, {2});
  CHECK(refusal({"Cast", {floats({1})}, to(DataType::string)}) ==
        "node 'Cast_0' (Cast): a cast to string is not supported");
}

TEST_CASE("activations") {
  const In x = floats({-2, 0.5f, 3});
  const auto each = [](double (*f)(double)) { return std::vector<double>{f(-2), f(0.5), f(3)}; };
  check({"HardSigmoid", {x}}, {3}, {0.1, 0.6, 1});
  check({"HardSwish", {x}}, {3}, {-2 * (1. / 6), 0.5 * (0.5 / 6 + 0.5), 3});
  check({"LeakyRelu", {x}, {{"alpha", 0.1f}}}, {3}, {-0.2, 0.5, 3});
  check({"PRelu", {x, floats({0.5f})}}, {3}, {-1, 0.5, 3});
  check({"Elu", {x}, {{"alpha", 2.0f}}}, {3}, {2 * std::expm1(-2), 0.5, 3});
  check({"Selu", {x}}, {3},
        {1.0507009873554805 * 1.6732632423543772 * std::expm1(-2), 0.5 * 1.0507009873554805, 3 * 1.0507009873554805});
  check({"Celu", {x}, {{"alpha", 2.0f}}}, {3}, {2 * std::expm1(-1), 0.5, 3});
  check({"ThresholdedRelu", {x}}, {3}, {0, 0, 3});
  check({"Shrink", {x}, {{"lambd", 1.0f}, {"bias", 0.5f}}}, {3}, {-1.5, 0, 2.5});
  check({"Softplus", {x}}, {3}, each([](double v) { return std::log1p(std::exp(v)); }));
  check({"Softsign", {x}}, {3}, {-2. / 3, 1. / 3, 0.75});
  check({"Gelu", {x}}, {3}, each([](double v) { return v * (1 + std::erf(v / std::sqrt(2))) / 2; }));
  check({"Gelu", {x}, {{"approximate", "tanh"}}}, {3},
        each([](double v) { return v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))) / 2; }));
  check({"Mish", {x}}, {3}, each([](double v) { return v * std::tanh(std::log1p(std::exp(v))); }));
  check({"Swish", {x}, {}, {}, 24}, {3}, each([](double v) { return v / (1 + std::exp(-v)); }));
  check({"Swish", {x}, {{"alpha", 2.0f}}, {}, 24}, {3}, each([](double v) { return v / (1 + std::exp(-2 * v)); }));
  check({"Tan", {x}}, {3}, each([](double v) { return std::tan(v); }));
  check({"QuickGelu", {x}, {}, {}, 20, 1, "com.microsoft"}, {3},
        each([](double v) { return v / (1 + std::exp(-1.702 * v)); }));
  check({"BiasGelu", {x, floats({1})}, {}, {}, 20, 1, "com.microsoft"}, {3},
        each([](double v) { return (v + 1) * (1 + std::erf((v + 1) / std::sqrt(2))) / 2; }));
  CHECK(refusal({"Gelu", {x}, {{"approximate", "fast"}}}) == "node 'Gelu_0' (Gelu): attribute 'approximate' = 'fast'");
}

TEST_CASE("dropout does nothing") {
  const In x = floats({1, 2});
  check({"Dropout", {x, floats({0.5f}, {}), booleans({0}, {})}, {{"seed", int64_t{7}}}, {1, 2}, 20, 2}, {2}, {1, 2});
  check({"Dropout", {x}, {}, {}, 20, 2}, {2}, {1, 1}, 1);
  CHECK(refusal({"Dropout", {x, floats({0.5f}, {}), booleans({1}, {})}, {}, {1, 2}}) ==
        "node 'Dropout_0' (Dropout): training_mode is true; only inference is supported");
}

TEST_CASE("shapes as data") {
  const In x = floats(std::vector<float>(6), {1, 2, 3});
  check({"Shape", {x}}, {3}, {1, 2, 3});
  check({"Shape", {x}, {{"start", int64_t{-2}}, {"end", int64_t{2}}}}, {1}, {2});
  check({"Shape", {x}, {{"start", int64_t{2}}, {"end", int64_t{1}}}}, {0}, {});
  check({"Size", {x}}, {}, {6});
  check({"ConstantOfShape", {integers({2, 2})}, {{"value", TensorBytes{tensor<int64_t>("", {1}, {7})}}}, {0}}, {2, 2},
        {7, 7, 7, 7});
  check({"ConstantOfShape", {integers({})}, {}, {0}}, {}, {0});
  check({"Constant", {}, {{"value_ints", Ints{1, 2}}}}, {2}, {1, 2});
  check({"Constant", {}, {{"value_float", 1.5f}}}, {}, {1.5});
  check({"Constant", {}, {{"value_floats", std::vector<float>{1, 2}}}}, {2}, {1, 2});
  check({"Constant", {}, {{"value", TensorBytes{tensor<bool>("", {2}, {true, false})}}}}, {2}, {1, 0});
  CHECK(refusal({"Constant", {}, {{"value_string", "a"}}}).find("attribute 'value_string' is not supported") !=
        std::string::npos);
}

TEST_CASE("views") {
  const In x = floats({1, 2, 3, 4, 5, 6}, {1, 2, 3});
  const std::vector<double> same = {1, 2, 3, 4, 5, 6};
  check({"Reshape", {x, integers({0, -1})}, {}, {1}}, {1, 6}, same);
  check({"Reshape", {x, integers({3, -1, 1})}, {}, {1}}, {3, 2, 1}, same);
  check({"Reshape", {floats({}, {0, 3}), integers({3, 0})}, {{"allowzero", int64_t{1}}}, {1}}, {3, 0}, {});
  check({"Squeeze", {x}}, {2, 3}, same);
  check({"Squeeze", {x, integers({-3})}, {}, {1}}, {2, 3}, same);
  check({"Squeeze", {x}, {{"axes", Ints{0}}}, {}, 11}, {2, 3}, same);
  check({"Unsqueeze", {x, integers({-1, 0})}, {}, {1}}, {1, 1, 2, 3, 1}, same);
  check({"Unsqueeze", {x}, {{"axes", Ints{1}}}, {}, 11}, {1, 1, 2, 3}, same);
  check({"Flatten", {x}}, {1, 6}, same);
  check({"Flatten", {x}, {{"axis", int64_t{3}}}}, {6, 1}, same);
  check({"Flatten", {x}, {{"axis", int64_t{-1}}}}, {2, 3}, same);
  check({"Transpose", {x}}, {3, 2, 1}, {1, 4, 2, 5, 3, 6});
  check({"Transpose", {x}, {{"perm", Ints{0, 2, 1}}}}, {1, 3, 2}, {1, 4, 2, 5, 3, 6});
  check({"Expand", {x, integers({2, 1, 1})}, {}, {1}}, {2, 2, 3}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6});
  check({"Tile", {floats({1, 2}, {1, 2}), integers({2, 2})}, {}, {1}}, {2, 4}, {1, 2, 1, 2, 1, 2, 1, 2});
  CHECK(refusal({"Reshape", {x, integers({4, -1})}, {}, {1}}) != "");
  CHECK(refusal({"Reshape", {x, integers({-2, -3})}, {}, {1}}) == "node 'Reshape_0' (Reshape): a size of -2");
  CHECK(refusal({"Expand", {x, integers({-1, 2, 3})}, {}, {1}}) == "node 'Expand_0' (Expand): a size of -1");
  CHECK(refusal({"Squeeze", {x, integers({1})}, {}, {1}}).find("the sizes 2 and 1 differ") != std::string::npos);
  CHECK(refusal({"Transpose", {x}, {{"perm", Ints{0, 0, 1}}}}) ==
        "node 'Transpose_0' (Transpose): attribute 'perm' names axis 0 twice");
  CHECK(refusal({"Flatten", {x}, {{"axis", int64_t{4}}}}) ==
        "node 'Flatten_0' (Flatten): axis 4 of a tensor of rank 3");
}

TEST_CASE("slices") {
  const In x = floats({0, 1, 2, 3, 4, 5}, {2, 3}), v = floats({0, 1, 2, 3, 4});
  const auto slice = [](In in, Ints starts, Ints ends, Ints axes, Ints steps) {
    return Call{"Slice", {in, integers(starts), integers(ends), integers(axes), integers(steps)}, {}, {1, 2, 3, 4}};
  };
  check({"Slice", {x, integers({1}), integers({INT64_MAX})}, {}, {1, 2}}, {1, 3}, {3, 4, 5});
  check(slice(x, {1, -2}, {2, 100}, {0, -1}, {1, 1}), {1, 2}, {4, 5});
  check(slice(v, {-1}, {INT64_MIN}, {0}, {-1}), {5}, {4, 3, 2, 1, 0});
  check(slice(v, {3}, {0}, {0}, {-2}), {2}, {3, 1});
  check(slice(v, {100}, {-100}, {0}, {-2}), {3}, {4, 2, 0});
  check(slice(v, {0}, {5}, {0}, {2}), {3}, {0, 2, 4});
  check(slice(v, {3}, {1}, {0}, {1}), {0}, {});
  check(slice(v, {7}, {9}, {0}, {1}), {0}, {});
  CHECK(refusal(slice(v, {0}, {5}, {0}, {0})) == "node 'Slice_0' (Slice): the step of axis 0 is 0");
  CHECK(refusal({"Slice", {v, integers({0}), integers({1})}}).find("'x1', depends on data") != std::string::npos);
}

TEST_CASE("split, concat, pad") {
  const In x = floats({0, 1, 2, 3, 4}), m = floats({1, 2, 3, 4}, {2, 2});
  check({"Split", {x, integers({2, 3})}, {}, {1}, 20, 2}, {3}, {2, 3, 4}, 1);
  check({"Split", {x}, {{"num_outputs", int64_t{2}}}, {}, 20, 2}, {2}, {3, 4}, 1);
  check({"Split", {x}, {{"split", Ints{1, 4}}}, {}, 11, 2}, {4}, {1, 2, 3, 4}, 1);
  check({"Split", {m}, {{"axis", int64_t{1}}}, {}, 13, 2}, {2, 1}, {2, 4}, 1);
  CHECK(refusal({"Split", {x, integers({2, 2})}, {}, {1}, 20, 2}).find("the sizes 4 and 5 differ") !=
        std::string::npos);
  check({"Concat", {m, m}, {{"axis", int64_t{-1}}}}, {2, 4}, {1, 2, 1, 2, 3, 4, 3, 4});
  check({"Pad", {m, integers({0, 1, 1, -1}), floats({9}, {})}, {}, {1, 2}}, {3, 2}, {9, 1, 9, 3, 9, 9});
  check({"Pad", {m, integers({1, 0}), absent, integers({-1})}, {}, {1, 3}}, {2, 3}, {0, 1, 2, 0, 3, 4});
  check({"Pad", {booleans({1}), integers({1, 0})}, {}, {1}}, {2}, {0, 1});
  CHECK(refusal({"Pad", {x, integers({-3, -3})}, {}, {1}}) == "node 'Pad_0' (Pad): a size of -1");
  check({"Pad", {x, integers({2, 3})}, {{"mode", "reflect"}}, {1}}, {10}, {2, 1, 0, 1, 2, 3, 4, 3, 2, 1});
  check({"Pad", {m, integers({0, 1, 1, 0})}, {{"mode", "reflect"}}, {1}}, {3, 3}, {2, 1, 2, 4, 3, 4, 2, 1, 2});
  check({"Pad", {m, integers({0, 2, 1, 0})}, {{"mode", "edge"}}, {1}}, {3, 4}, {1, 1, 1, 2, 3, 3, 3, 4, 3, 3, 3, 4});
  CHECK(refusal({"Pad", {x, integers({5, 0})}, {{"mode", "reflect"}}, {1}}) ==
        "node 'Pad_0' (Pad): mode 'reflect' with the padding 5 of an axis of size 5: at most 4");
  CHECK(refusal({"Pad", {x, integers({-1, 0})}, {{"mode", "edge"}}, {1}}) ==
        "node 'Pad_0' (Pad): mode 'edge' with the negative padding -1");
  CHECK(refusal({"Pad", {x, integers({1, 1})}, {{"mode", "wrap"}}, {1}}) ==
        "node 'Pad_0' (Pad): attribute 'mode' = 'wrap' is not supported, only 'constant', 'reflect' and 'edge'");
}

TEST_CASE("spaces and depths") {
  const In depth = floats({0, 1, 2, 3, 4, 5, 6, 7}, {1, 8, 1, 1});
  check({"DepthToSpace", {depth}, {{"blocksize", int64_t{2}}}}, {1, 2, 2, 2}, {0, 2, 4, 6, 1, 3, 5, 7});
  check({"DepthToSpace", {depth}, {{"blocksize", int64_t{2}}, {"mode", "CRD"}}}, {1, 2, 2, 2},
        {0, 1, 2, 3, 4, 5, 6, 7});
  check({"SpaceToDepth", {floats({0, 1, 2, 3}, {1, 1, 2, 2})}, {{"blocksize", int64_t{2}}}}, {1, 4, 1, 1},
        {0, 1, 2, 3});
}

TEST_CASE("indexing and positions") {
  const In table = floats({0, 1, 2, 3, 4, 5}, {3, 2});
  check({"Gather", {table, integers({2, -3}, {1, 2})}}, {1, 2, 2}, {4, 5, 0, 1});
  check({"Gather", {table, integers({-1}, {})}, {{"axis", int64_t{1}}}, {1}}, {3}, {1, 3, 5});
  CHECK(refusal({"Gather", {table, integers({0, -4}, {2})}, {}, {1}}) ==
        "node 'Gather_0' (Gather): index -4 of an axis of size 3");
  CHECK(refusal({"Gather", {table, integers({3}, {})}, {}, {1}}) ==
        "node 'Gather_0' (Gather): index 3 of an axis of size 3");
  check({"OneHot", {integers({1, -1}), integers({3}, {}), floats({0, 5})}, {}, {1}}, {2, 3}, {0, 5, 0, 0, 0, 5});
  check({"OneHot", {integers({1, 0}), integers({2}, {}), floats({0, 5})}, {{"axis", int64_t{0}}}, {1}}, {2, 2},
        {0, 5, 5, 0});
  check({"Range", {integers({3}, {}), integers({9}, {}), integers({3}, {})}, {}, {0, 1, 2}}, {2}, {3, 6});
  check({"Range", {integers({3}, {}), integers({-3}, {}), integers({-2}, {})}, {}, {0, 1, 2}}, {3}, {3, 1, -1});
  check({"Range", {floats({0}, {}), floats({1}, {}), floats({0.4f}, {})}, {}, {0, 1, 2}}, {3}, {0, 0.4, 0.8});
  CHECK(refusal({"Range", {integers({3}, {}), integers({9}, {}), integers({3}, {})}}).find("depends on data") !=
        std::string::npos);
  check({"EyeLike", {table}, {{"k", int64_t{-1}}}}, {3, 2}, {0, 0, 1, 0, 0, 1});
  const In square = floats({1, 2, 3, 4, 5, 6, 7, 8, 9}, {3, 3});
  check({"Trilu", {square}}, {3, 3}, {1, 2, 3, 0, 5, 6, 0, 0, 9});
  check({"Trilu", {square, integers({1}, {})}, {{"upper", int64_t{0}}}}, {3, 3}, {1, 2, 0, 4, 5, 6, 7, 8, 9});
  check({"Trilu", {booleans({1, 1, 1, 1}, {2, 2})}}, {2, 2}, {1, 1, 0, 1});
}

TEST_CASE("a float Range over a size is as long as it") {
  OnnxBuilder b;
  b.input("x", DataType::f32, {2, "t"}).output("y").initializer<int64_t>("one", {}, {1});
  b.initializer<float>("start", {}, {-1}).initializer<float>("step", {}, {2});
  b.node("Shape", {"x"}, {"shape"}).node("Gather", {"shape", "one"}, {"size"});
  b.node("Cast", {"size"}, {"limit"}, {{"to", int64_t{1}}}).node("Range", {"start", "limit", "step"}, {"y"});
  const Graph graph = import_bytes(b.bytes(), {"t=1..8"});
  const ValueId y = graph.outputs[0].value;
  CHECK(text(graph.value(y).dims) == "[(t // 2) + 1]");
  const Literal found = evaluate_at(graph, y, {{"t", 4}});
  CHECK(std::vector<float>(found.floats().begin(), found.floats().end()) == std::vector<float>{-1, 1, 3});
}

TEST_CASE("matrix products") {
  const In a = floats({1, 2, 3, 4}, {2, 2}), b = floats({5, 6, 7, 8}, {2, 2}), v = floats({1, 2});
  check({"MatMul", {a, b}}, {2, 2}, {19, 22, 43, 50});
  check({"MatMul", {a, v}}, {2}, {5, 11});
  check({"MatMul", {v, a}}, {2}, {7, 10});
  check({"MatMul", {v, v}}, {}, {5});
  check({"MatMul", {floats({1, 0, 0, 1, 2, 0, 0, 2}, {2, 2, 2}), b}}, {2, 2, 2}, {5, 6, 7, 8, 10, 12, 14, 16});
  check({"Gemm", {a, b}}, {2, 2}, {19, 22, 43, 50});
  check({"Gemm",
         {
             a,
             b,
             floats({1, 2}),
         },
         {{"alpha", 2.0f}, {"beta", 10.0f}, {"transA", int64_t{1}}}},
        {2, 2}, {62, 80, 86, 108});
  check({"Gemm", {a, b, v}, {{"transB", int64_t{1}}}}, {2, 2}, {18, 25, 40, 55});
  check({"FusedMatMul", {a, b}, {{"alpha", 0.5f}, {"transB", int64_t{1}}}, {}, 20, 1, "com.microsoft"}, {2, 2},
        {8.5, 11.5, 19.5, 26.5});
}

TEST_CASE("einsum") {
  const auto einsum = [](const std::string& equation, std::vector<In> in) {
    return Call{"Einsum", std::move(in), {{"equation", equation}}};
  };
  const In a = floats({1, 2, 3, 4}, {2, 2}), b = floats({5, 6, 7, 8}, {2, 2}), v = floats({1, 2});
  check(einsum("ij,jk->ik", {a, b}), {2, 2}, {19, 22, 43, 50});
  check(einsum("ij, jk", {a, b}), {2, 2}, {19, 22, 43, 50});
  check(einsum("ij->ji", {a}), {2, 2}, {1, 3, 2, 4});
  check(einsum("ij->i", {a}), {2}, {3, 7});
  check(einsum("ij,ij->", {a, b}), {}, {70});
  check(einsum("i,j->ji", {v, v}), {2, 2}, {1, 2, 2, 4});
  check(einsum("ij,j,k->ki", {a, v, v}), {2, 2}, {5, 11, 10, 22});
  check(einsum("bij,bkj->bik", {floats({1, 2, 3, 4}, {2, 1, 2}), floats({5, 6, 7, 8}, {2, 1, 2})}), {2, 1, 1},
        {17, 53});
  check(einsum("...ij,...jk->...ik", {floats({1, 2, 3, 4}, {1, 2, 2}), b}), {1, 2, 2}, {19, 22, 43, 50});
  CHECK(refusal(einsum("ii->i", {a})) == "node 'Einsum_0' (Einsum): 'ii' takes a diagonal, which is not supported");
  CHECK(refusal(einsum("ij->iz", {a})) != "");
  CHECK(refusal(einsum("ijk->i", {a})) == "node 'Einsum_0' (Einsum): 'ijk' does not fit a tensor of rank 2");
}

TEST_CASE("softmax flattens up to operator set 12") {
  const In x = floats({0, 0, 0, 0, 0, 0, 0, std::log(9.0f)}, {2, 2, 2});
  const double third = 1. / 12, big = 9. / 12;
  check({"Softmax", {x}, {{"axis", int64_t{1}}}, {}, 12}, {2, 2, 2}, {.25, .25, .25, .25, third, third, third, big});
  check({"Softmax", {x}, {{"axis", int64_t{1}}}, {}, 13}, {2, 2, 2}, {.5, .5, .5, .5, .5, .1, .5, .9});
  check({"Softmax", {x}, {}, {}, 13}, {2, 2, 2}, {.5, .5, .5, .5, .5, .5, .1, .9});
  check({"LogSoftmax", {floats({0, 0})}}, {2}, {-std::log(2), -std::log(2)});
}

TEST_CASE("cumulative sums") {
  const In x = floats({1, 2, 3, 4, 5, 6}, {2, 3}), rows = integers({0}, {}), columns = integers({-1}, {});
  const Attributes exclusive = {{"exclusive", int64_t{1}}}, reverse = {{"reverse", int64_t{1}}};
  check({"CumSum", {x, rows}, {}, {1}}, {2, 3}, {1, 2, 3, 5, 7, 9});
  check({"CumSum", {x, columns}, {}, {1}}, {2, 3}, {1, 3, 6, 4, 9, 15});
  check({"CumSum", {x, columns}, exclusive, {1}}, {2, 3}, {0, 1, 3, 0, 4, 9});
  check({"CumSum", {integers({1, 2, 3}), rows}, reverse, {1}}, {3}, {6, 5, 3});
}

TEST_CASE("reductions") {
  const In x = floats({1, -2, 3, 4}, {2, 2});
  const auto over = [](const std::string& op, In in, int64_t axis) {
    return Call{op, {in, integers({axis})}, {{"keepdims", int64_t{0}}}, {1}, 18};
  };
  check({"ReduceSum", {x}}, {1, 1}, {6});
  check({"ReduceSum", {x, integers({})}, {{"noop_with_empty_axes", int64_t{1}}}, {1}}, {2, 2}, {1, -2, 3, 4});
  check({"ReduceMean", {x}, {{"axes", Ints{-1}}, {"keepdims", int64_t{0}}}, {}, 11}, {2}, {-0.5, 3.5});
  check({"ReduceMean", {integers({1, 2, 4, 9}, {2, 2}), integers({1})}, {}, {1}, 18}, {2, 1}, {1, 6});
  check(over("ReduceMax", x, 0), {2}, {3, 4});
  check(over("ReduceMin", x, 0), {2}, {1, -2});
  check(over("ReduceProd", x, 1), {2}, {-2, 12});
  check(over("ReduceL1", x, 1), {2}, {3, 7});
  check(over("ReduceL2", x, 1), {2}, {std::sqrt(5), 5});
  check(over("ReduceSumSquare", x, 1), {2}, {5, 25});
  check(over("ReduceLogSum", floats({1, 2, 3, 4}, {2, 2}), 1), {2}, {std::log(3), std::log(7)});
  check(over("ReduceLogSumExp", x, 1), {2}, {1 + std::log1p(std::exp(-3)), 4 + std::log1p(std::exp(-1))});
  check(over("ReduceLogSumExp", floats({1000, 1000, -INFINITY, -INFINITY}, {2, 2}), 1), {2},
        {1000 + std::log(2), -INFINITY});
  check({"ReduceMax", {booleans({0, 1})}, {}, {}, 20}, {1}, {1});
  check({"ArgMax", {floats({1, 3, 3})}}, {1}, {1});
  check({"ArgMax", {floats({1, 3, 3})}, {{"select_last_index", int64_t{1}}, {"keepdims", int64_t{0}}}}, {}, {2});
  check({"ArgMin", {integers({4, 1, 1})}, {{"keepdims", int64_t{0}}}}, {}, {1});
  check({"ArgMin", {integers({4, 1, 1})}, {{"select_last_index", int64_t{1}}}}, {1}, {2});
  check({"GlobalAveragePool", {floats({1, 2, 3, 4}, {1, 2, 1, 2})}}, {1, 2, 1, 1}, {1.5, 3.5});
}

TEST_CASE("normalisations") {
  const In x = floats({1, 3, 2, 6}, {2, 2}), scale = floats({1, 2}), bias = floats({0, 1});
  const double e = 1e-5, a = 1 / std::sqrt(1 + e), b = 2 / std::sqrt(4 + e);
  check({"LayerNormalization", {x, scale, bias}}, {2, 2}, {-a, 2 * a + 1, -b, 2 * b + 1});
  check({"LayerNormalization", {x, floats({1}, {1, 1})}}, {2, 2}, {-a, a, -b, b});
  check({"LayerNormalization", {x, scale}, {}, {}, 20, 3}, {2, 1}, {2, 4}, 1);
  check({"LayerNormalization", {x, scale}, {}, {}, 20, 3}, {2, 1}, {a, b / 2}, 2);
  const double all = 1 / std::sqrt(3.5 + e);
  check({"LayerNormalization", {x, floats({1, 1, 1, 1}, {2, 2})}, {{"axis", int64_t{0}}}}, {2, 2},
        {-2 * all, 0, -all, 3 * all});
  check({"RMSNormalization", {floats({3, 4}), floats({1, 1})}, {{"epsilon", 0.0f}}, {}, 23}, {2},
        {3 / std::sqrt(12.5), 4 / std::sqrt(12.5)});
  check({"SkipLayerNormalization", {floats({0, 1}), floats({1, 2}), floats({1, 1})}, {}, {}, 20, 4, "com.microsoft"},
        {2}, {1, 3}, 3);
  check({"BatchNormalization",
         {floats({1, 2}, {1, 2}), floats({2, 2}), floats({1, 1}), floats({0, 1}), floats({4, 4})},
         {{"epsilon", 0.0f}},
         {1, 2, 3, 4}},
        {1, 2}, {2, 2});
  CHECK(refusal({"BatchNormalization",
                 {floats({1, 2}, {1, 2}), floats({2, 2}), floats({1, 1}), floats({0, 1}), floats({4, 4})},
                 {{"training_mode", int64_t{1}}}}) ==
        "node 'BatchNormalization_0' (BatchNormalization): attribute 'training_mode' = 1 is not supported, only 0");
  check({"InstanceNormalization", {floats({1, 3, 2, 6}, {1, 2, 2}), scale, bias}}, {1, 2, 2},
        {-a, a, -2 * b + 1, 2 * b + 1});
  check({"GroupNormalization",
         {floats({1, 3, 2, 6}, {1, 4, 1}), floats({1, 1, 2, 2}), floats({0, 0, 0, 0})},
         {{"num_groups", int64_t{2}}},
         {},
         21},
        {1, 4, 1}, {-a, a, -2 * b, 2 * b});
  check({"GroupNormalization",
         {floats({1, 3, 2, 6}, {1, 4, 1}), floats({1, 2}), floats({0, 0})},
         {{"num_groups", int64_t{2}}},
         {},
         18},
        {1, 4, 1}, {-a, a, -2 * b, 2 * b});
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST_CASE("recurrent layers") {
  // One unit, one input, W = 1, R = 0.5, no bias; two steps of x = 1, -1.
  const In x = floats({1, -1}, {2, 1, 1}), w = floats({1}, {1, 1, 1}), r = floats({0.5f}, {1, 1, 1});
  const double h1 = std::tanh(1), h2 = std::tanh(-1 + h1 / 2);
  const Attributes size = {{"hidden_size", int64_t{1}}};
  check({"RNN", {x, w, r}, size}, {2, 1, 1, 1}, {h1, h2});
  check({"RNN", {x, w, r}, size, {}, 20, 2}, {1, 1, 1}, {h2}, 1);
  check({"RNN", {x, w, r, absent, absent, floats({2}, {1, 1, 1})}, size}, {2, 1, 1, 1},
        {std::tanh(2), std::tanh(-1 + std::tanh(2) / 2)});
  Attributes reverse = size;
  reverse.emplace_back("direction", "reverse");
  const double b2 = std::tanh(-1), b1 = std::tanh(1 + b2 / 2);
  check({"RNN", {x, w, r}, reverse}, {2, 1, 1, 1}, {b1, b2});
  Attributes both = size;
  both.emplace_back("direction", "bidirectional");
  check({"RNN", {x, floats({1, 1}, {2, 1, 1}), floats({.5f, .5f}, {2, 1, 1})}, both}, {2, 2, 1, 1}, {h1, b1, h2, b2});
  Attributes batch_first = size;
  batch_first.emplace_back("layout", int64_t{1});
  check({"RNN", {floats({1, -1}, {1, 2, 1}), w, r}, batch_first, {}, 20, 2}, {1, 2, 1, 1}, {h1, h2});

  const double c1 = sigmoid(1) * std::tanh(1), l1 = sigmoid(1) * std::tanh(c1);
  const In w4 = floats({1, 1, 1, 1}, {1, 4, 1}), r4 = floats({.5f, .5f, .5f, .5f}, {1, 4, 1});
  const double g = -1 + l1 / 2, c2 = sigmoid(g) * c1 + sigmoid(g) * std::tanh(g);
  check({"LSTM", {x, w4, r4}, size}, {2, 1, 1, 1}, {l1, sigmoid(g) * std::tanh(c2)});
  check({"LSTM", {x, w4, r4}, size, {}, 20, 3}, {1, 1, 1}, {c2}, 2);
  check({"LSTM", {x, w4, r4, absent, integers({2}), absent, absent, floats({0, 0, 0}, {1, 3})}, size, {4, 7}},
        {2, 1, 1, 1}, {l1, sigmoid(g) * std::tanh(c2)});

  const In w3 = floats({1, 1, 1}, {1, 3, 1}), r3 = floats({.5f, .5f, .5f}, {1, 3, 1});
  const double z1 = (1 - sigmoid(1)) * std::tanh(1), u = -1 + z1 / 2;
  Attributes linear = size;
  linear.emplace_back("linear_before_reset", int64_t{1});
  const double n = std::tanh(-1 + sigmoid(u) * z1 / 2);
  check({"GRU", {x, w3, r3}, size}, {2, 1, 1, 1}, {z1, (1 - sigmoid(u)) * n + sigmoid(u) * z1});
  check({"GRU", {x, w3, r3}, linear}, {2, 1, 1, 1}, {z1, (1 - sigmoid(u)) * n + sigmoid(u) * z1});

  const auto with = [&](const std::string& key, AttributeValue value) {
    Attributes attributes = size;
    attributes.emplace_back(key, value);
    return refusal({"LSTM", {x, w4, r4}, attributes});
  };
  CHECK(with("clip", 1.0f) == "node 'LSTM_0' (LSTM): attribute 'clip' is not supported");
  CHECK(with("input_forget", int64_t{1}) ==
        "node 'LSTM_0' (LSTM): attribute 'input_forget' = 1 is not supported, only 0");
  CHECK(with("activations", std::vector<std::string>{"Relu", "Tanh", "Tanh"}) ==
        "node 'LSTM_0' (LSTM): attribute 'activations' = 'Relu, Tanh, Tanh' is not supported, only 'Sigmoid, Tanh, "
        "Tanh'");
  CHECK(with("activations", std::vector<std::string>{"sigmoid", "tanh", "TANH"}).empty());
  CHECK(refusal({"LSTM", {x, w4, r4, absent, integers({1})}, size, {4}}) ==
        "node 'LSTM_0' (LSTM): operand 4, 'x4' (sequence_lens), is supported only where it is the whole length");
  CHECK(refusal({"LSTM", {x, w4, r4, absent, absent, absent, absent, floats({1, 0, 0}, {1, 3})}, size, {7}}) ==
        "node 'LSTM_0' (LSTM): operand 7, 'x7' (peepholes), is not supported");
  const In narrow = floats({1}, {1, 1, 1}), wide = floats({1, 1}, {1, 1, 2});
  CHECK(refusal({"LSTM", {x, w4, r4, absent, absent, narrow, wide}, size, {5, 6}})
            .find("operand 6, 'x6', has states of size 2, the weights are for 1: projections (proj_size)") !=
        std::string::npos);
}

TEST_CASE("convolutions") {
  const In x = floats({1, 2, 3, 4, 5}, {1, 1, 5}), w = floats({1, 10, 100}, {1, 1, 3});
  check({"Conv", {x, w}, {}, {1}}, {1, 1, 3}, {321, 432, 543});
  check({"Conv", {x, w, floats({1000})}, {{"pads", Ints{1, 1}}}, {1}}, {1, 1, 5}, {1210, 1321, 1432, 1543, 1054});
  check({"Conv", {x, w}, {{"pads", Ints{0, 2}}, {"strides", Ints{2}}}, {1}}, {1, 1, 3}, {321, 543, 5});
  check({"Conv", {x, w}, {{"dilations", Ints{2}}, {"kernel_shape", Ints{3}}}, {1}}, {1, 1, 1}, {531});
  check({"Conv", {x, floats({1, 10}, {1, 1, 2})}, {{"auto_pad", "SAME_UPPER"}}, {1}}, {1, 1, 5}, {21, 32, 43, 54, 5});
  check({"Conv", {x, floats({1, 10}, {1, 1, 2})}, {{"auto_pad", "SAME_LOWER"}}, {1}}, {1, 1, 5}, {10, 21, 32, 43, 54});
  check({"Conv", {x, w}, {{"auto_pad", "SAME_UPPER"}, {"strides", Ints{2}}}, {1}}, {1, 1, 3}, {210, 432, 54});
  check({"Conv", {x, w}, {{"auto_pad", "VALID"}}, {1}}, {1, 1, 3}, {321, 432, 543});
  // One element at a time, every second of them; two groups; two axes.
  const In pair = floats({1, 2, 3, 4, 5, 6}, {1, 2, 3});
  check({"Conv", {pair, floats({1, 10}, {1, 2, 1})}, {{"strides", Ints{2}}}, {1}}, {1, 1, 2}, {41, 63});
  check({"Conv", {pair, floats({1, 10, 2, 20}, {2, 1, 2})}, {{"group", int64_t{2}}}, {1}}, {1, 2, 2},
        {21, 32, 108, 130});
  const In image = floats({1, 2, 3, 4, 5, 6}, {1, 1, 2, 3});
  check({"Conv", {image, floats({1, 10, 100, 1000}, {1, 1, 2, 2})}, {{"pads", Ints{0, 0, 0, 1}}}, {1}}, {1, 1, 1, 3},
        {5421, 6532, 603});

  CHECK(refusal({"Conv", {x, w}}) ==
        "node 'Conv_0' (Conv): operand 1, 'x1', the weights, depends on data; it has to be a constant");
  CHECK(refusal({"Conv", {x, w}, {{"kernel_shape", Ints{2}}}, {1}}) ==
        "node 'Conv_0' (Conv): attribute 'kernel_shape' = [2] does not fit the weights' [3]");
  CHECK(refusal({"Conv", {x, w}, {{"strides", Ints{0}}}, {1}}) ==
        "node 'Conv_0' (Conv): attribute 'strides' holds 0, which is not in 1 to 65536");
  CHECK(refusal({"Conv", {x, w}, {{"pads", Ints{1}}}, {1}}) ==
        "node 'Conv_0' (Conv): attribute 'pads' has 1 numbers for 1 spatial axes");
  CHECK(refusal({"Conv", {x, w}, {{"group", int64_t{2}}}, {1}}) ==
        "node 'Conv_0' (Conv): 2 groups do not divide 1 channels");
  CHECK(refusal({"Conv", {floats({1, 2}, {1, 1, 2}), w}, {}, {1}}) ==
        "node 'Conv_0' (conv): a window of 3 does not fit the shape [1, 2, 1] with its padding");
}

TEST_CASE("transposed convolutions") {
  const In x = floats({1, 2}, {1, 1, 2}), w = floats({1, 10, 100}, {1, 1, 3});
  const auto with = [&](const Attributes& attributes) { return Call{"ConvTranspose", {x, w}, attributes, {1}}; };
  check(with({}), {1, 1, 4}, {1, 12, 120, 200});
  check(with({{"pads", Ints{1, 1}}}), {1, 1, 2}, {12, 120});
  check(with({{"strides", Ints{2}}}), {1, 1, 5}, {1, 10, 102, 20, 200});
  check(with({{"strides", Ints{2}}, {"pads", Ints{0, 1}}, {"output_padding", Ints{1}}}), {1, 1, 5},
        {1, 10, 102, 20, 200});
  check(with({{"strides", Ints{3}}, {"output_shape", Ints{6}}}), {1, 1, 6}, {1, 10, 100, 2, 20, 200});
  check(with({{"strides", Ints{2}}, {"auto_pad", "SAME_UPPER"}}), {1, 1, 4}, {1, 10, 102, 20});
  check(with({{"dilations", Ints{2}}}), {1, 1, 6}, {1, 2, 10, 20, 100, 200});
  check(with({{"strides", Ints{2}}, {"dilations", Ints{3}}}), {1, 1, 9}, {1, 0, 2, 10, 0, 20, 100, 0, 200});
  check(with({{"strides", Ints{4}}}), {1, 1, 7}, {1, 10, 100, 0, 2, 20, 200});
  check({"ConvTranspose", {x, w, floats({1000})}, {{"strides", Ints{2}}}, {1}}, {1, 1, 5},
        {1001, 1010, 1102, 1020, 1200});
  // Two groups, which take the way of one convolution for each phase.
  check({"ConvTranspose",
         {floats({1, 2, 3, 4}, {1, 2, 2}), floats({1, 10, 2, 20}, {2, 1, 2})},
         {{"strides", Ints{2}}, {"group", int64_t{2}}},
         {1}},
        {1, 2, 4}, {1, 10, 2, 20, 6, 60, 8, 80});
  // Two axes: outer products do not overlap.
  check({"ConvTranspose",
         {floats({1, 3}, {1, 1, 2, 1}), floats({1, 10, 100, 1000}, {1, 1, 2, 2})},
         {{"strides", Ints{2, 2}}},
         {1}},
        {1, 1, 4, 2}, {1, 10, 100, 1000, 3, 30, 300, 3000});
  CHECK(
      refusal({"ConvTranspose", {x, w}}) ==
      "node 'ConvTranspose_0' (ConvTranspose): operand 1, 'x1', the weights, depends on data; it has to be a constant");
}

TEST_CASE("poolings") {
  const In x = floats({1, -2, 3, 8, 5}, {1, 1, 5});
  const auto with = [&](Attributes more) {
    more.emplace_back("kernel_shape", Ints{2});
    return more;
  };
  check({"MaxPool", {x}, with({})}, {1, 1, 4}, {1, 3, 8, 8});
  check({"MaxPool", {x}, with({{"strides", Ints{2}}, {"ceil_mode", int64_t{1}}})}, {1, 1, 3}, {1, 8, 5});
  check({"MaxPool", {x}, with({{"pads", Ints{1, 0}}, {"dilations", Ints{2}}})}, {1, 1, 4}, {-2, 3, 8, 5});
  check({"MaxPool", {integers({1, 9, 3}, {1, 1, 3})}, with({})}, {1, 1, 2}, {9, 9});
  check({"AveragePool", {x}, with({{"pads", Ints{1, 0}}})}, {1, 1, 5}, {1, -0.5, 0.5, 5.5, 6.5});
  check({"AveragePool", {x}, with({{"pads", Ints{1, 0}}, {"count_include_pad", int64_t{1}}})}, {1, 1, 5},
        {0.5, -0.5, 0.5, 5.5, 6.5});
  check({"LpPool", {x}, with({{"strides", Ints{3}}})}, {1, 1, 2}, {std::sqrt(5), std::sqrt(89)});
  check({"GlobalMaxPool", {floats({1, 5, 2, 4}, {1, 2, 1, 2})}}, {1, 2, 1, 1}, {5, 4});
  CHECK(refusal({"MaxPool", {x}, with({}), {}, 20, 2}) ==
        "node 'MaxPool_0' (MaxPool): output 1, 'y1', is not supported");
  CHECK(refusal({"MaxPool", {x}}) == "node 'MaxPool_0' (MaxPool): attribute 'kernel_shape' is missing");
}

TEST_CASE("elements gathered at their own places") {
  const In x = floats({0, 1, 2, 3, 4, 5}, {3, 2});
  check({"GatherElements", {x, integers({1, 0, -1, 2}, {2, 2})}}, {2, 2}, {2, 1, 4, 5});
  check({"GatherElements",
         {
             x,
             integers({1, 0, -1}, {3, 1}),
         },
         {{"axis", int64_t{1}}}},
        {3, 1}, {1, 2, 5});
  check({"GatherElements", {floats({7, 8, 9}), integers({-1, 0})}}, {2}, {9, 7});
}

TEST_CASE("constant indices say where updates go") {
  const In x = floats({0, 1, 2, 3, 4, 5}, {3, 2});
  check({"ScatterND", {x, integers({1}, {1, 1}), floats({8, 9}, {1, 2})}, {}, {1}}, {3, 2}, {0, 1, 8, 9, 4, 5});
  check({"ScatterND", {x, integers({1, 1, 2, 1}, {2, 2}), floats({8, 9})}, {}, {1}}, {3, 2}, {0, 1, 2, 8, 4, 9});
  check({"ScatterND", {x, integers({-1, 0}, {2, 1}), floats({6, 7, 8, 9}, {2, 2})}, {}, {1}}, {3, 2},
        {8, 9, 2, 3, 6, 7});
  check({"ScatterND", {x, integers({1, 1}, {2, 1}), floats({6, 7, 8, 9}, {2, 2})}, {}, {1}}, {3, 2},
        {0, 1, 8, 9, 4, 5});
  CHECK(refusal({"ScatterND", {x, integers({3}, {1, 1}), floats({8, 9}, {1, 2})}, {}, {1}}) ==
        "node 'ScatterND_0' (ScatterND): index 3 of an axis of size 3");
  CHECK(refusal({"ScatterND", {x, integers({1}, {1, 1}), floats({8, 9}, {1, 2})}}) ==
        "node 'ScatterND_0' (ScatterND): operand 1, 'x1', depends on data; it has to be a constant");
  CHECK(refusal({"ScatterND", {x, integers({1}, {1, 1}), floats({8, 9}, {1, 2})}, {{"reduction", "add"}}, {1}}) ==
        "node 'ScatterND_0' (ScatterND): attribute 'reduction' = 'add' is not supported, only 'none'");
}

TEST_CASE("attention") {
  // Scores 0 and log 3: the weights are 1/4 and 3/4.
  const float l3 = std::log(3.0f);
  const In q = floats({1, 0}, {1, 1, 1, 2}), k = floats({0, 5, l3, 7}, {1, 1, 2, 2}), v = floats({4, 8}, {1, 1, 2, 1});
  const Attributes one = {{"scale", 1.0f}};
  check({"Attention", {q, k, v}, one, {}, 23}, {1, 1, 1, 1}, {7});
  check({"Attention", {q, k, v, booleans({1, 0}, {1, 2})}, one, {}, 23}, {1, 1, 1, 1}, {4});
  check({"Attention", {q, k, v, booleans({1}, {1, 1})}, one, {}, 23}, {1, 1, 1, 1}, {7});
  check({"Attention", {q, k, v, floats({l3, 0}, {1, 2})}, one, {}, 23}, {1, 1, 1, 1}, {6});
  check({"Attention", {q, k, v}, {{"scale", 1.0f}, {"is_causal", int64_t{1}}}, {}, 23}, {1, 1, 1, 1}, {4});
  check({"Attention", {q, k, v, absent, floats({0, 0}, {1, 1, 1, 2}), floats({0}, {1, 1, 1, 1})}, one, {}, 23, 2},
        {1, 1, 1, 1}, {28. / 5});
  // The default scale is 1 / sqrt 2; two heads in one axis.
  const In flat = floats({1, 0, 1, 0}, {1, 1, 4}), keys = floats({0, 0, 0, 0, l3, 0, l3, 0}, {1, 2, 4}),
           values = floats({0, 0, 1, 1}, {1, 2, 2});
  const double share = sigmoid(std::log(3) / std::sqrt(2));
  check({"Attention", {flat, keys, values}, {{"q_num_heads", int64_t{2}}, {"kv_num_heads", int64_t{2}}}, {}, 23},
        {1, 1, 2}, {share, share});
  CHECK(refusal({"Attention", {q, k, v}, {{"softcap", 2.0f}}, {}, 23}) ==
        "node 'Attention_0' (Attention): attribute 'softcap' is not supported");
  CHECK(refusal({"Attention", {q, k, v}, one, {}, 23, 4}) ==
        "node 'Attention_0' (Attention): output 3, 'y3', is not supported");
}

TEST_CASE("the operator Attention is fused as what others write out") {
  OnnxBuilder model(23);
  model.input("q", DataType::f32, {"batch", 4, "tokens", 8}).output("y");
  for (const char* name : {"k", "v"}) model.input(name, DataType::f32, {"batch", 2, "tokens", 8});
  for (const char* name : {"past_k", "past_v"}) model.input(name, DataType::f32, {"batch", 2, "past", 8});
  model.input("keep", DataType::boolean, {"batch", 1, 1, "keys"});
  model.node("Attention", {"q", "k", "v", "keep", "past_k", "past_v"}, {"y", "key", "value"},
             {{"is_causal", int64_t{1}}});
  for (const char* name : {"key", "value"}) model.output(name);
  Graph graph = import_with(model.bytes(), {{"batch=1..4", "tokens=1..16", "past=0..16", "keys=1..32"}, {"none"}});
  Report report;
  optimise(graph, report);
  CHECK(report.fused.size() == 1);
  int found = 0;
  for (const NodeId id : graph.order()) {
    CHECK(!std::holds_alternative<Expand>(graph.node(id).operation));  // of repeated heads
    const auto* attention = std::get_if<Attention>(&graph.node(id).operation);
    if (attention == nullptr) continue;
    ++found;
    CHECK(attention->causal);
    CHECK(attention->offset == Expression::dimension("past"));
    REQUIRE(graph.node(id).inputs.size() == 5);
    CHECK(graph.value(graph.node(id).inputs[1]).dims[1] == 2);
    CHECK(graph.value(graph.node(id).inputs[4]).dims.size() == 2);
  }
  CHECK(found == 1);
}

TEST_CASE("rotary positions") {
  const Attributes pairs = {{"interleaved", int64_t{1}}};
  const In x = floats({1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 2, 4});  // [B, H, T, D]
  const In cos = floats({1, 1, 0, 0}, {2, 2}), sin = floats({0, 0, 1, 1}, {2, 2});
  const In positions = integers({0, 1}, {1, 2}), back = integers({1, 0}, {1, 2});
  check({"RotaryEmbedding", {x, cos, sin, positions}, {}, {}, 23}, {1, 1, 2, 4}, {1, 2, 3, 4, -7, -8, 5, 6});
  check({"RotaryEmbedding", {x, cos, sin, back}, {}, {}, 23}, {1, 1, 2, 4}, {-3, -4, 1, 2, 5, 6, 7, 8});
  check({"RotaryEmbedding", {x, cos, sin, positions}, pairs, {}, 23}, {1, 1, 2, 4}, {1, 2, 3, 4, -6, 5, -8, 7});
  const In own_cos = floats({1, 0}, {1, 2, 1}), own_sin = floats({0, 1}, {1, 2, 1});
  check({"RotaryEmbedding", {x, own_cos, own_sin}, {{"rotary_embedding_dim", int64_t{2}}}, {}, 23}, {1, 1, 2, 4},
        {1, 2, 3, 4, -6, 5, 7, 8});
  const In flat = floats({1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 4});  // two heads of two
  check({"RotaryEmbedding", {flat, own_cos, own_sin}, {{"num_heads", int64_t{2}}}, {}, 23}, {1, 2, 4},
        {1, 2, 3, 4, -6, 5, -8, 7});
  CHECK(refusal({"RotaryEmbedding", {x, cos, sin, positions}, {{"rotary_embedding_dim", int64_t{2}}}, {}, 23}) ==
        "node 'RotaryEmbedding_0' (RotaryEmbedding): attribute 'rotary_embedding_dim' is 2, the tables are for 4");
}

}  // namespace
}  // namespace heed::tools::test

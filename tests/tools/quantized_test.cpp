// Models that are quantised already, as onnxruntime's quantiser writes them: what each operator means, worked out in
// integers here, and that int8 operators give the same on the device.
#include <limits>

#include "tests/tools/device.h"
#include "tests/tools/onnx_builder.h"
#include "tools/error.h"
#include "tools/passes/passes.h"

namespace heed::test {
namespace {

using namespace heed::tools::test;

constexpr const char* microsoft = "com.microsoft";

template <class T>
std::vector<T> random_integers(size_t count, std::mt19937& random, int lowest, int highest) {
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(std::uniform_int_distribution<int>(lowest, highest)(random));
  return values;
}
std::vector<float> random_floats(size_t count, std::mt19937& random) {
  std::vector<float> values(count);
  for (float& value : values) value = std::normal_distribution<float>()(random);
  return values;
}

/// A model as it is imported, and as it is converted.
struct Both {
  Graph imported, converted;
  Report report;

  explicit Both(const OnnxBuilder& builder, bool relax = true) : imported(import_bytes(builder.bytes())) {
    converted = import_bytes(builder.bytes());
    settle_quantized(converted, relax, report);
    optimise(converted, report);
    fuse_quantized(converted, report);
    expand_quantized(converted);
  }

  /// Integers may differ by `steps`, floats by that many scales of `step`.
  File check(const std::vector<Literal>& inputs, int steps = 0, double step = 0) {
    const File file(converted);
    const auto expected = on_host(imported, inputs, {}), found = on_device(file.bytes, inputs, {});
    if (steps == 0) {
      check_close(found, expected);
      return file;
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      REQUIRE(found[i].dims == expected[i].dims);
      for (size_t k = 0; k < static_cast<size_t>(expected[i].count()); ++k)
        if (expected[i].type == Type::i32)
          CHECK(std::abs(found[i].integers()[k] - expected[i].integers()[k]) <= steps);
        else
          CHECK(std::abs(found[i].floats()[k] - expected[i].floats()[k]) <= steps * step * 1.001 + 1e-5);
    }
    return file;
  }
};

/// DynamicQuantizeLinear, MatMulInteger, Cast, Mul, Add: what quantize_dynamic makes of a MatMul with a bias.
template <class Weight>
OnnxBuilder dynamic_product(int m, int k, int n, const std::vector<Weight>& w, const std::vector<Weight>& zero,
                            const std::vector<float>& scale, const std::vector<float>& bias) {
  OnnxBuilder b;
  const auto columns = static_cast<int64_t>(scale.size());
  const std::vector<int64_t> parameter = columns == 1 ? std::vector<int64_t>{} : std::vector<int64_t>{columns};
  b.input("x", DataType::f32, {1, m, k})
      .initializer("w", {k, n}, w)
      .initializer("w_zero", parameter, zero)
      .initializer("w_scale", parameter, scale)
      .initializer("bias", {n}, bias);
  b.node("DynamicQuantizeLinear", {"x"}, {"q", "scale", "zero"})
      .node("MatMulInteger", {"q", "w", "zero", "w_zero"}, {"sums"})
      .node("Cast", {"sums"}, {"floats"}, {{"to", int64_t{1}}})
      .node("Mul", {"scale", "w_scale"}, {"scales"})
      .node("Mul", {"floats", "scales"}, {"product"})
      .node("Add", {"bias", "product"}, {"y"})
      .node("Relu", {"y"}, {"z"});
  b.output("z", DataType::f32);
  return b;
}

TEST_CASE("quantised: products of dynamically quantised rows are int8, with the zero points of both sides") {
  std::mt19937 random(1);
  for (const bool each_column : {false, true})
    for (const bool is_signed : {false, true}) {
      const int m = 7, k = 45, n = 34;
      const size_t columns = each_column ? n : 1;
      const std::vector<float> bias = random_floats(n, random);
      std::vector<float> scale(columns);
      for (float& each : scale) each = std::uniform_real_distribution<float>(0.005f, 0.02f)(random);
      const auto build = [&] {
        if (is_signed)
          return dynamic_product(m, k, n, random_integers<int8_t>(k * n, random, -128, 127),
                                 std::vector<int8_t>(columns), scale, bias);
        return dynamic_product(m, k, n, random_integers<uint8_t>(k * n, random, 0, 255),
                               random_integers<uint8_t>(columns, random, 0, 255), scale, bias);
      };
      Both both(build());
      const File file = both.check({random_literal(Type::f32, {1, m, k}, random)});
      CHECK(file.count(OperatorKind::matmul_i8) == 1);
      CHECK(file.count(OperatorKind::matmul) == 0);
      CHECK(file.count(OperatorKind::elementwise) <= 3);  // scale and zero point, q, the sign of its zero point
    }
}

// 255 * 255 * 2 is more than int16 holds: where an instruction saturates, sums of such products show it. (onnxruntime's
// own do, with unsigned rows and signed weights on processors without VNNI.)
TEST_CASE("quantised: the extremes are exact") {
  const int m = 5, k = 300, n = 20;
  for (const int low : {0, 255})
    for (const int weight : {0, 255, -128, 127}) {
      OnnxBuilder b;
      b.input("a", DataType::f32, {m, k}).initializer("one", {}, std::vector<float>{1});
      b.initializer("a_zero", {}, std::vector<uint8_t>{static_cast<uint8_t>(255 - low)});
      const bool is_unsigned = weight == 0 || weight == 255;
      if (is_unsigned)
        b.initializer("w", {k, n}, std::vector<uint8_t>(k * n, static_cast<uint8_t>(weight)))
            .initializer("w_zero", {}, std::vector<uint8_t>{static_cast<uint8_t>(255 - weight)});
      else
        b.initializer("w", {k, n}, std::vector<int8_t>(k * n, static_cast<int8_t>(weight)))
            .initializer("w_zero", {}, std::vector<int8_t>{static_cast<int8_t>(-1 - weight)});
      b.node("QuantizeLinear", {"a", "one", "a_zero"}, {"q"})
          .node("MatMulInteger", {"q", "w", "a_zero", "w_zero"}, {"sums"})
          .node("Cast", {"sums"}, {"floats"}, {{"to", int64_t{1}}})
          .node("Mul", {"floats", "one"}, {"y"});
      b.output("y", DataType::f32).output("sums", DataType::i32);
      Both both(b);
      const File file(both.converted);
      const float value = low == 0 ? -1000.0f : 1000.0f;
      const auto y =
          on_device(file.bytes, {Literal::of({m, k}, std::vector<float>(static_cast<size_t>(m * k), value))}, {});
      const int64_t a = low - (255 - low), w = is_unsigned ? weight - (255 - weight) : weight - (-1 - weight);
      for (const float found : y[0].floats()) REQUIRE(found == static_cast<float>(a * w * k));
      for (const int64_t found : y[1].integers()) REQUIRE(found == a * w * k);
    }
}

/// Weights, activations and their scales for a product of [m, k] and [k, n].
struct Parts {
  int m = 9, k = 40, n = 37;
  std::mt19937 random{3};
  std::vector<int8_t> w = random_integers<int8_t>(static_cast<size_t>(k) * n, random, -127, 127);
  std::vector<float> w_scale = std::vector<float>(static_cast<size_t>(n), 0.01f);
};

TEST_CASE("quantised: QDQ around a layer is int8 from end to end") {
  Parts p;
  for (float& scale : p.w_scale) scale = std::uniform_real_distribution<float>(0.005f, 0.02f)(p.random);
  OnnxBuilder b;
  b.input("x", DataType::f32, {1, p.m, p.k})
      .initializer("w", {p.k, p.n}, p.w)
      .initializer("w_scale", {p.n}, p.w_scale)
      .initializer("w_zero", {p.n}, std::vector<int8_t>(static_cast<size_t>(p.n)))
      .initializer("bias", {p.n}, random_integers<int32_t>(static_cast<size_t>(p.n), p.random, -4000, 4000))
      .initializer("bias_scale", {p.n}, p.w_scale)
      .initializer("v", {p.n, 16}, random_integers<int8_t>(static_cast<size_t>(p.n) * 16, p.random, -128, 127))
      .initializer("scale", {}, std::vector<float>{0.03f})
      .initializer("zero", {}, std::vector<uint8_t>{121})
      .initializer("v_zero", {}, std::vector<int8_t>{0})
      .initializer("h_scale", {}, std::vector<float>{0.05f})
      .initializer("h_zero", {}, std::vector<uint8_t>{0});
  b.node("QuantizeLinear", {"x", "scale", "zero"}, {"q"})
      .node("DequantizeLinear", {"q", "scale", "zero"}, {"xd"})
      .node("DequantizeLinear", {"w", "w_scale", "w_zero"}, {"wd"}, {{"axis", int64_t{1}}})
      .node("DequantizeLinear", {"bias", "bias_scale"}, {"bd"}, {{"axis", int64_t{0}}})
      .node("MatMul", {"xd", "wd"}, {"product"})
      .node("Add", {"product", "bd"}, {"sum"})
      .node("Relu", {"sum"}, {"h"})
      .node("QuantizeLinear", {"h", "h_scale", "h_zero"}, {"hq"})
      .node("DequantizeLinear", {"hq", "h_scale", "h_zero"}, {"hd"})
      .node("DequantizeLinear", {"v", "scale", "v_zero"}, {"vd"})
      .node("MatMul", {"hd", "vd"}, {"y"});
  b.output("hq", DataType::u8).output("y", DataType::f32);
  Both both(b);
  const File file = both.check({random_literal(Type::f32, {1, p.m, p.k}, p.random)}, 1, 0.05 * 0.03 * 128 * 3);
  CHECK(file.count(OperatorKind::matmul_i8) == 2);
  CHECK(file.count(OperatorKind::matmul) == 0);
}

TEST_CASE("quantised: integers between operators need no floats") {
  Parts p;
  OnnxBuilder b;
  b.input("x", DataType::f32, {p.m, p.k})
      .initializer("w", {p.k, p.n}, p.w)
      .initializer("v", {p.n, 16}, random_integers<uint8_t>(static_cast<size_t>(p.n) * 16, p.random, 0, 255))
      .initializer("scale", {}, std::vector<float>{0.03f})
      .initializer("zero", {}, std::vector<int8_t>{-7})
      .initializer("none", {}, std::vector<int8_t>{0})
      .initializer("v_zero", {}, std::vector<uint8_t>{131});
  b.node("QuantizeLinear", {"x", "scale", "zero"}, {"q"})
      .node("QLinearMatMul", {"q", "scale", "zero", "w", "scale", "none", "scale", "zero"}, {"h"})
      .node("QLinearMatMul", {"h", "scale", "zero", "v", "scale", "v_zero", "scale", "zero"}, {"y"})
      .node("DequantizeLinear", {"y", "scale", "zero"}, {"z"});
  b.output("z", DataType::f32);
  Both both(b);
  const File file = both.check({random_literal(Type::f32, {p.m, p.k}, p.random)});
  CHECK(file.count(OperatorKind::matmul_i8) == 2);
  CHECK(file.count(OperatorKind::quantize) == 1);  // what stands at the two ends
  CHECK(file.count(OperatorKind::elementwise) == 1);
  CHECK(file.lowered.operators.size() == 4);
  int in_float = 0;
  for (const LoweredOperator& op : file.lowered.operators)
    if (op.kind == OperatorKind::matmul_i8) in_float += op.outputs[0] != -1;
  CHECK(in_float == 0);
}

TEST_CASE("quantised: a product of two activations, exact as long as it is not attention's") {
  Parts p;
  for (const int k : {300, 5000}) {
    OnnxBuilder b;
    b.input("a", DataType::f32, {2, p.m, k}).input("b", DataType::f32, {2, k, p.n});
    b.initializer("scale", {}, std::vector<float>{0.02f})
        .initializer("out", {}, std::vector<float>{0.2f})
        .initializer("zero", {}, std::vector<uint8_t>{130});
    b.node("QuantizeLinear", {"a", "scale", "zero"}, {"aq"}).node("QuantizeLinear", {"b", "scale", "zero"}, {"bq"});
    b.node("QLinearMatMul", {"aq", "scale", "zero", "bq", "scale", "zero", "out", "zero"}, {"y"});
    b.output("y", DataType::u8);
    Both both(b);
    both.check({random_literal(Type::f32, {2, p.m, k}, p.random), random_literal(Type::f32, {2, k, p.n}, p.random)});
  }
}

/// Attention with everything quantised, as QDQ or as operators on integers.
OnnxBuilder quantised_attention(bool operators) {
  OnnxBuilder b;
  for (const char* name : {"q", "k", "v"}) b.input(name, DataType::f32, {1, 2, 12, 16});
  b.initializer("scale", {}, std::vector<float>{0.02f})
      .initializer("zero", {}, std::vector<uint8_t>{128})
      .initializer("s_scale", {}, std::vector<float>{0.1f})
      .initializer("p_scale", {}, std::vector<float>{1.0f / 255})
      .initializer("p_zero", {}, std::vector<uint8_t>{0});
  for (const std::string name : {"q", "k", "v"}) b.node("QuantizeLinear", {name, "scale", "zero"}, {name + "_q"});
  b.node("Transpose", {"k_q"}, {"kt_q"}, {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
  if (operators) {
    b.node("QLinearMatMul", {"q_q", "scale", "zero", "kt_q", "scale", "zero", "s_scale", "zero"}, {"s_q"})
        .node("QLinearSoftmax", {"s_q", "s_scale", "zero", "p_scale", "p_zero"}, {"p_q"},
              {{"axis", int64_t{-1}}, {"opset", int64_t{13}}}, "", microsoft)
        .node("QLinearMatMul", {"p_q", "p_scale", "p_zero", "v_q", "scale", "zero", "scale", "zero"}, {"y_q"});
  } else {
    for (const std::string name : {"q", "kt", "v"})
      b.node("DequantizeLinear", {name + "_q", "scale", "zero"}, {name + "_d"});
    b.node("MatMul", {"q_d", "kt_d"}, {"s"})
        .node("QuantizeLinear", {"s", "s_scale", "zero"}, {"s_q"})
        .node("DequantizeLinear", {"s_q", "s_scale", "zero"}, {"s_d"})
        .node("Softmax", {"s_d"}, {"p"})
        .node("QuantizeLinear", {"p", "p_scale", "p_zero"}, {"p_q"})
        .node("DequantizeLinear", {"p_q", "p_scale", "p_zero"}, {"p_d"})
        .node("MatMul", {"p_d", "v_d"}, {"y"})
        .node("QuantizeLinear", {"y", "scale", "zero"}, {"y_q"});
  }
  b.node("DequantizeLinear", {"y_q", "scale", "zero"}, {"z"});
  b.output("z", DataType::f32);
  return b;
}

TEST_CASE("quantised: what stands between attention's products goes, or stays where it is to be kept") {
  std::mt19937 random(5);
  std::vector<Literal> inputs;
  for (int i = 0; i < 3; ++i) inputs.push_back(random_literal(Type::f32, {1, 2, 12, 16}, random));
  for (const bool operators : {false, true}) {
    CAPTURE(operators);
    Both relaxed(quantised_attention(operators));
    CHECK(relaxed.report.notes.size() == 1);
    const File one = relaxed.check(inputs, 3, 0.02);  // scores and weights had steps of their own
    CHECK(one.count(OperatorKind::attention) == 1);
    Both kept(quantised_attention(operators), false);
    CHECK(kept.report.notes.empty());
    const File parts = kept.check(inputs, 1, 0.02);
    CHECK(parts.count(OperatorKind::attention) == 0);
    CHECK(parts.count(OperatorKind::softmax) == 1);
  }
}

TEST_CASE("quantised: a convolution of integers is exact, with padding that stands for nothing") {
  // 9 * 40 products of 255 * 255 are more than a float's 24 bits, and so are 9 * 520 of 255 * 15.
  for (const auto& [channels, parts] : {std::pair(40, 2), std::pair(520, 4)}) {
    std::mt19937 random(6);
    OnnxBuilder b;
    const int outputs = 6;
    b.input("x", DataType::f32, {1, channels, 5, 7})
        .initializer("w", {outputs, channels, 3, 3},
                     std::vector<uint8_t>(static_cast<size_t>(outputs * channels * 9), 255))
        .initializer("scale", {}, std::vector<float>{0.02f})
        .initializer("zero", {}, std::vector<uint8_t>{3})
        .initializer("w_zero", {}, std::vector<uint8_t>{0});
    b.node("QuantizeLinear", {"x", "scale", "zero"}, {"q"})
        .node("ConvInteger", {"q", "w", "zero", "w_zero"}, {"y"}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
    b.output("y", DataType::i32);
    Both both(b);
    std::vector<float> x(static_cast<size_t>(channels) * 35);
    for (float& each : x) each = std::uniform_real_distribution<float>(4, 6)(random);
    const File file = both.check({Literal::of({1, channels, 5, 7}, x)});
    CHECK(file.count(OperatorKind::conv) == parts);
  }
}

TEST_CASE("quantised: com.microsoft's products are what their integers stand for") {
  const int m = 9, k = 70, n = 70;
  std::mt19937 random(8);
  const auto w = random_integers<int8_t>(size_t{k} * n, random, -128, 127);
  const auto w_zero = random_integers<int8_t>(n, random, -20, 20);
  const std::vector<float> bias = random_floats(n, random);
  std::vector<float> w_scale(n);
  for (float& each : w_scale) each = std::uniform_real_distribution<float>(0.005f, 0.02f)(random);
  // [m, n] of rows of integers less their zero point, the weights of column j at `place`, and what is added.
  const auto expected = [&](const std::vector<int64_t>& a, int64_t a_zero, double a_scale, auto place, auto added) {
    std::vector<double> y(size_t{m} * n);
    for (size_t i = 0; i < size_t{m}; ++i)
      for (size_t j = 0; j < size_t{n}; ++j) {
        int64_t sum = 0;
        for (size_t c = 0; c < size_t{k}; ++c) sum += (a[i * size_t{k} + c] - a_zero) * (w[place(c, j)] - w_zero[j]);
        y[i * size_t{n} + j] = (static_cast<double>(sum) + added(j)) * a_scale * double{w_scale[j]};
      }
    return y;
  };
  const auto check = [](const Literal& found, const std::vector<double>& y) {
    for (size_t i = 0; i < y.size(); ++i) CHECK(found.floats()[i] == doctest::Approx(y[i]).epsilon(1e-5));
  };
  SUBCASE("QGemm, its weights turned") {
    OnnxBuilder b;
    std::vector<int32_t> c(n);
    for (int32_t& each : c) each = std::uniform_int_distribution<int32_t>(-3000, 3000)(random);
    b.input("x", DataType::f32, {m, k}).initializer("x_scale", {}, std::vector<float>{0.02f});
    b.initializer("x_zero", {}, std::vector<uint8_t>{100}).initializer("w", {n, k}, w).initializer("c", {n}, c);
    b.initializer("w_scale", {n}, w_scale).initializer("w_zero", {n}, w_zero);
    b.node("QuantizeLinear", {"x", "x_scale", "x_zero"}, {"q"});
    b.node("QGemm", {"q", "x_scale", "x_zero", "w", "w_scale", "w_zero", "c"}, {"y"}, {{"transB", int64_t{1}}}, "gemm",
           microsoft);
    b.output("y", DataType::f32);
    const Literal x = random_literal(Type::f32, {m, k}, random);
    std::vector<int64_t> q;
    for (const float each : x.floats()) q.push_back(static_cast<int64_t>(std::nearbyint(each / 0.02f)) + 100);
    for (int64_t& each : q) each = std::clamp<int64_t>(each, 0, 255);
    check(on_device(File(Both(b).converted).bytes, {x}, {})[0],
          expected(
              q, 100, double{0.02f}, [&](size_t row, size_t column) { return column * size_t{k} + row; },
              [&](size_t j) { return c[j]; }));
  }
  SUBCASE("DynamicQuantizeMatMul") {
    OnnxBuilder b;
    b.input("x", DataType::f32, {m, k}).initializer("w", {k, n}, w).initializer("bias", {n}, bias);
    b.initializer("w_scale", {n}, w_scale).initializer("w_zero", {n}, w_zero);
    b.node("DynamicQuantizeMatMul", {"x", "w", "w_scale", "w_zero", "bias"}, {"y"}, {}, "product", microsoft);
    b.output("y", DataType::f32);
    const Literal x = random_literal(Type::f32, {m, k}, random);
    const auto [least, most] = std::minmax_element(x.floats().begin(), x.floats().end());
    const float scale = (*most - *least) / 255.0f;
    const auto zero = static_cast<int64_t>(std::nearbyint(-*least / scale));
    std::vector<int64_t> q;
    for (const float each : x.floats()) q.push_back(static_cast<int64_t>(std::nearbyint(each / scale)) + zero);
    std::vector<double> y = expected(
        q, zero, scale, [&](size_t row, size_t column) { return row * size_t{n} + column; }, [](size_t) { return 0; });
    for (size_t i = 0; i < y.size(); ++i) y[i] += double{bias[i % size_t{n}]};
    const File file(Both(b).converted);
    CHECK(file.count(OperatorKind::matmul_i8) == 1);
    check(on_device(file.bytes, {x}, {})[0], y);
  }
}

TEST_CASE("quantised: products of integers that are no bytes wrap") {
  OnnxBuilder b;
  b.input("a", DataType::i32, {2, 4, 5}).input("b", DataType::i32, {5, 3}).output("y", DataType::i32);
  b.node("MatMul", {"a", "b"}, {"y"});
  const auto numbers = [](size_t count) {
    std::vector<int64_t> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<int64_t>(i * 7919 % 60001) - 30000;
    return values;
  };
  const std::vector<int64_t> a = numbers(40), c = numbers(15);
  const Literal y =
      on_device(File(Both(b).converted).bytes, {Literal::of({2, 4, 5}, a), Literal::of({5, 3}, c)}, {})[0];
  for (size_t i = 0; i < 8; ++i)
    for (size_t j = 0; j < 3; ++j) {
      int64_t sum = 0;
      for (size_t k = 0; k < 5; ++k) sum += a[i * 5 + k] * c[k * 3 + j];
      CHECK(y.integers()[i * 3 + j] == static_cast<int32_t>(static_cast<uint32_t>(sum)));
    }
}

TEST_CASE("quantised: onnxruntime's operators on integers are the float ones between two quantisations") {
  const std::vector<float> x = {-2, -0.5f, 0, 0.25f, 1, 3}, y = {0.5f, -1, 2, 0, -0.25f, 1};
  struct Case {
    std::string op;
    Names operands;
    Attributes attributes;
    std::function<double(double, double)> expected;
  };
  const std::vector<Case> cases = {
      {"QLinearAdd", {"a", "s", "z", "b", "s", "z", "o", "u"}, {}, [](double a, double c) { return a + c; }},
      {"QLinearMul", {"a", "s", "z", "b", "s", "z", "o", "u"}, {}, [](double a, double c) { return a * c; }},
      {"QLinearSigmoid", {"a", "s", "z", "o", "u"}, {}, [](double a, double) { return 1 / (1 + std::exp(-a)); }},
      {"QLinearLeakyRelu",
       {"a", "s", "z", "o", "u"},
       {{"alpha", 0.5f}},
       [](double a, double) { return a < 0 ? a / 2 : a; }},
  };
  for (const Case& each : cases) {
    CAPTURE(each.op);
    OnnxBuilder b;
    b.input("x", DataType::f32, {6}).input("y", DataType::f32, {6});
    b.initializer("s", {}, std::vector<float>{0.03125f})
        .initializer("z", {}, std::vector<uint8_t>{100})
        .initializer("o", {}, std::vector<float>{0.05f})
        .initializer("u", {}, std::vector<uint8_t>{90});
    b.node("QuantizeLinear", {"x", "s", "z"}, {"a"}).node("QuantizeLinear", {"y", "s", "z"}, {"b"});
    b.node(each.op, each.operands, {"r"}, each.attributes, "", microsoft).output("r", DataType::u8);
    Both both(b);
    const std::vector<Literal> inputs = {Literal::of({6}, x), Literal::of({6}, y)};
    const File file = both.check(inputs);
    const auto r = on_device(file.bytes, inputs, {});
    for (size_t i = 0; i < x.size(); ++i)
      CHECK(r[0].integers()[i] ==
            std::clamp(std::nearbyint(static_cast<float>(each.expected(x[i], y[i])) / 0.05f) + 90, 0.0f, 255.0f));
  }
}

TEST_CASE("quantised: QAttention and QEmbedLayerNormalization") {
  std::mt19937 random(8);
  OnnxBuilder b;
  b.input("ids", DataType::i32, {2, 5}).input("mask", DataType::i32, {2, 5});
  const auto table = [&](const std::string& name, const std::vector<int64_t>& dims) {
    b.initializer(
        name, dims,
        random_integers<int8_t>(static_cast<size_t>(dims[0] * (dims.size() > 1 ? dims[1] : 1)), random, -127, 127));
    b.initializer(name + "_s", {}, std::vector<float>{0.01f}).initializer(name + "_z", {}, std::vector<int8_t>{0});
  };
  table("words", {9, 32});
  table("places", {7, 32});
  table("gamma", {32});
  table("beta", {32});
  table("w", {32, 96});
  b.initializer("bias", {96}, random_floats(96, random));
  b.node("QEmbedLayerNormalization",
         {"ids", "", "words", "places", "", "gamma", "beta", "mask", "words_s", "places_s", "", "gamma_s", "beta_s",
          "words_z", "places_z", "", "gamma_z", "beta_z"},
         {"x", "lengths"}, {{"epsilon", 1e-12f}}, "", microsoft);
  b.node("DynamicQuantizeLinear", {"x"}, {"q", "q_s", "q_z"});
  b.node("QAttention", {"q", "w", "bias", "q_s", "w_s", "lengths", "q_z", "w_z"}, {"y"}, {{"num_heads", int64_t{4}}},
         "", microsoft);
  b.output("y", DataType::f32).output("lengths", DataType::i32);
  Both both(b);
  const std::vector<int64_t> ids = {1, 4, 8, 0, 2, 3, 3, 5, 7, 1}, mask = {1, 1, 1, 0, 0, 1, 1, 1, 1, 1};
  const std::vector<Literal> inputs = {Literal::of({2, 5}, ids), Literal::of({2, 5}, mask)};
  const File file = both.check(inputs);
  CHECK(file.count(OperatorKind::attention) == 1);
  CHECK(file.count(OperatorKind::matmul_i8) == 1);
  const auto y = on_device(file.bytes, inputs, {});
  CHECK(y[1].integers()[0] == 3);
  CHECK(y[1].integers()[1] == 5);
}

TEST_CASE("quantised: a layer of LSTM with quantised weights is the float one of what they stand for") {
  std::mt19937 random(9);
  const int hidden = 5, inputs = 3;
  const auto w = random_integers<int8_t>(static_cast<size_t>(inputs * 4 * hidden), random, -127, 127),
             r = random_integers<int8_t>(static_cast<size_t>(hidden * 4 * hidden), random, -127, 127);
  OnnxBuilder b;
  b.input("x", DataType::f32, {4, 1, inputs})
      .initializer("w", {1, inputs, 4 * hidden}, w)
      .initializer("r", {1, hidden, 4 * hidden}, r)
      .initializer("s", {1}, std::vector<float>{0.01f})
      .initializer("z", {1}, std::vector<int8_t>{0});
  b.node("DynamicQuantizeLSTM", {"x", "w", "r", "", "", "", "", "", "s", "z", "s", "z"}, {"y"},
         {{"hidden_size", int64_t{hidden}}}, "", microsoft);
  b.output("y", DataType::f32);
  const auto turned = [&](const std::vector<int8_t>& from, int rows) {
    std::vector<float> to(from.size());
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < 4 * hidden; ++j)
        to[static_cast<size_t>(j * rows + i)] =
            static_cast<float>(from[static_cast<size_t>(i * 4 * hidden + j)]) * 0.01f;
    return to;
  };
  OnnxBuilder f;
  f.input("x", DataType::f32, {4, 1, inputs})
      .initializer("w", {1, 4 * hidden, inputs}, turned(w, inputs))
      .initializer("r", {1, 4 * hidden, hidden}, turned(r, hidden));
  f.node("LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", int64_t{hidden}}}).output("y", DataType::f32);
  const std::vector<Literal> x = {random_literal(Type::f32, {4, 1, inputs}, random)};
  check_close(on_host(import_bytes(b.bytes()), x, {}), on_host(import_bytes(f.bytes()), x, {}));
}

TEST_CASE("quantised: what is refused says why") {
  OnnxBuilder b;
  b.input("x", DataType::f32, {4, 4}).initializer("s", {3}, std::vector<float>{1, 1, 1});
  b.node("QuantizeLinear", {"x", "s"}, {"y"}, {}, "quantise").output("y", DataType::u8);
  CHECK_THROWS_WITH_AS(import_bytes(b.bytes()), doctest::Contains("quantise"), Error);
  OnnxBuilder half;
  half.input("x", DataType::f32, {4, 4}).initializer("s", {}, std::vector<float>{1});
  half.node("QuantizeLinear", {"x", "s"}, {"y"}, {{"output_dtype", int64_t{21}}}, "quantise").output("y");
  CHECK_THROWS_WITH_AS(import_bytes(half.bytes()), doctest::Contains("quantisation to uint4 is not supported"), Error);
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float scale : {0.0f, -0.5f, nan, std::numeric_limits<float>::infinity()}) {
    OnnxBuilder to, from;
    to.input("x", DataType::f32, {4, 4}).initializer("s", {}, std::vector<float>{scale});
    to.node("QuantizeLinear", {"x", "s"}, {"y"}, {}, "quantise").output("y", DataType::u8);
    CHECK_THROWS_WITH_AS(import_bytes(to.bytes()), doctest::Contains("where a number above 0 is expected"), Error);
    from.input("q", DataType::u8, {4, 4}).initializer("s", {}, std::vector<float>{scale});
    from.node("DequantizeLinear", {"q", "s"}, {"y"}, {}, "dequantise").output("y");
    if (scale == 0)
      CHECK_NOTHROW(import_bytes(from.bytes()));
    else
      CHECK_THROWS_WITH_AS(import_bytes(from.bytes()), doctest::Contains("dequantise"), Error);
  }
  OnnxBuilder mixed;
  mixed.input("a", DataType::u8, {4, 16}).initializer("w", {16, 8}, std::vector<int8_t>(128, 1));
  mixed.initializer("z", {}, std::vector<int8_t>{1});
  mixed.node("MatMulInteger", {"a", "w", "z"}, {"y"}, {}, "product").output("y", DataType::i32);
  CHECK_THROWS_WITH_AS(import_bytes(mixed.bytes()),
                       doctest::Contains("a zero point (operand 2) of type int8, for an operand 0 of type uint8"),
                       Error);
  for (const int64_t size : {int64_t{-1}, int64_t{1} << 40}) {
    OnnxBuilder blocks;
    blocks.input("x", DataType::f32, {4, 4}).initializer("s", {4, 1}, std::vector<float>{1, 1, 1, 1});
    blocks.node("QuantizeLinear", {"x", "s"}, {"y"}, {{"block_size", size}}, "quantise").output("y", DataType::u8);
    CHECK_THROWS_WITH_AS(import_bytes(blocks.bytes()), doctest::Contains("quantise"), Error);
  }
  OnnxBuilder shapes;
  shapes.input("q", DataType::u8, {4, 4}).initializer("s", {4}, std::vector<float>{1, 1, 1, 1});
  shapes.initializer("z", {}, std::vector<uint8_t>{1});
  shapes.node("DequantizeLinear", {"q", "s", "z"}, {"y"}, {}, "dequantise").output("y");
  CHECK_THROWS_WITH_AS(import_bytes(shapes.bytes()), doctest::Contains("scales of shape [4] and zero points of shape"),
                       Error);
}

}  // namespace
}  // namespace heed::test

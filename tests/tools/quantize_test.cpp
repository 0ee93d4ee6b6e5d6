// What --quantize int8 makes of a graph, and that the device computes it as the host does.
#include "tests/tools/device.h"
#include "tools/passes/passes.h"

namespace heed::test {
namespace {

Report quantised(Built& built) {
  Report report;
  quantize(built.graph, report);
  return report;
}

TEST_CASE("quantize: products in int8, the rows between two of them too") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 40);
  const ValueId x = b.input({2, tokens, 32});
  const ValueId hidden = b.add(Matmul{Activation::gelu}, {x, b.constant({32, 70}), b.constant({70})});
  b.output(b.add(Matmul{}, {hidden, b.constant({70, 32}), b.constant({32}), x}));
  const Report report = quantised(b);
  CHECK(report.fused.size() == 2);
  const File file = b.check({{{"tokens", 1}}, {{"tokens", 7}}, {{"tokens", 40}}});
  CHECK(file.count(OperatorKind::matmul_i8) == 2);
  CHECK(file.count(OperatorKind::quantize) == 1);  // of x; the first product writes what the second reads
  CHECK(file.count(OperatorKind::matmul) == 0);
  CHECK(file.count(OperatorKind::copy) == 0);
}

TEST_CASE("quantize: readers of one value share its rows, and others read it in float") {
  Built b;
  const ValueId x = b.input({5, 64});
  const ValueId y = b.add(Matmul{Activation::relu}, {x, b.constant({64, 48})});
  for (int i = 0; i < 3; ++i) b.output(b.add(Matmul{}, {y, b.constant({48, 16})}));
  b.output(y);
  quantised(b);
  const File file = b.check();
  CHECK(file.count(OperatorKind::matmul_i8) == 4);
  CHECK(file.count(OperatorKind::quantize) == 1);
}

TEST_CASE("quantize: what stays in float") {
  Built b;
  const ValueId x = b.input({5, 64}), few = b.input({5, 8}), other = b.input({64, 20});
  b.output(b.add(Matmul{}, {x, other}));                  // no weights
  b.output(b.add(Matmul{}, {few, b.constant({8, 20})}));  // few terms
  const ValueId batch = b.input({3, 5, 64});
  b.output(b.add(Matmul{}, {batch, b.constant({3, 64, 20})}));  // a matrix for each of the batch
  std::vector<float> broken(64 * 20, 1.0f);
  broken[70] = INFINITY;
  b.output(b.add(Matmul{}, {x, b.graph.constant("broken", Literal::of({64, 20}, broken))}));
  CHECK(quantised(b).fused.empty());
  CHECK(File(b.graph).count(OperatorKind::matmul) == 4);
}

TEST_CASE("quantize: columns and rows of zeros") {
  Built b;
  const ValueId x = b.input({3, 20});
  std::vector<float> weights(20 * 18);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = i % 18 == 4 ? 0.0f : static_cast<float>(i % 7) - 3;
  b.output(b.add(Matmul{}, {x, b.graph.constant("w", Literal::of({20, 18}, weights))}));
  quantised(b);
  const File file(b.graph);
  std::vector<float> rows(60, 0.0f);
  rows[25] = 2.0f;
  const std::vector<Literal> y = on_device(file.bytes, {Literal::of({3, 20}, rows)}, {});
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 18; ++j) {
      const float expected = i == 1 ? 2 * weights[static_cast<size_t>(5 * 18 + j)] : 0.0f;
      CHECK(y[0].floats()[static_cast<size_t>(i * 18 + j)] == doctest::Approx(expected).epsilon(0.02));  // weights of 255 steps
    }
}

TEST_CASE("quantize: attention in int8 is near the float one") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 64);
  const auto heads = [&] { return b.input({1, 4, tokens, 32}); };
  const ValueId q = heads(), k = heads(), v = heads();
  Attention attention;
  attention.scale = 0.17f;
  attention.causal = true;
  b.output(b.add(attention, {q, k, v}));
  const File in_float(b.graph);
  quantised(b);
  const File in_int8(b.graph);
  CHECK(in_float.count(OperatorKind::attention) == 1);
  CHECK(in_int8.count(OperatorKind::attention_i8) == 1);
  for (const int64_t length : {1, 50}) {
    std::vector<Literal> inputs;
    for (int i = 0; i < 3; ++i) inputs.push_back(random_literal(Type::f32, {1, 4, length, 32}, b.random));
    const auto expected = on_device(in_float.bytes, inputs, {{"tokens", length}}),
               found = on_device(in_int8.bytes, inputs, {{"tokens", length}});
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < expected[0].floats().size(); ++i) {
      const double a = found[0].floats()[i], b = expected[0].floats()[i];
      ab += a * b, aa += a * a, bb += b * b;
    }
    CHECK(ab / std::sqrt(aa * bb) > 0.9995);
  }
}

}  // namespace
}  // namespace heed::test

// What --quantize int8 makes of a graph, and that the device computes it as the host does.
#include "tests/tools/device.h"
#include "tools/calibrate.h"
#include "tools/passes/passes.h"

namespace heed::test {
namespace {

Report quantised(Built& built, const Int8Options& options = {}) {
  Report report;
  quantize(built.graph, report, options);
  return report;
}

TEST_CASE("quantize: products in int8, the rows between two of them too") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 40);
  const ValueId x = b.input({2, tokens, 64});
  const ValueId hidden = b.add(Matmul{Activation::gelu}, {x, b.constant({64, 70}), b.constant({70})});
  b.output(b.add(Matmul{}, {hidden, b.constant({70, 64}), b.constant({64}), x}));
  const Report report = quantised(b);
  CHECK(report.fused.size() == 2);
  const File file = b.check({{{"tokens", 1}}, {{"tokens", 7}}, {{"tokens", 40}}});
  CHECK(file.count(OperatorKind::matmul_i8) == 2);
  CHECK(file.count(OperatorKind::quantize) == 1);  // of x; the first product writes what the second reads
  CHECK(file.count(OperatorKind::matmul) == 0);
  CHECK(file.count(OperatorKind::copy) == 0);
}

TEST_CASE("quantize: with ranges, rows need no scale of their own, nor does what lies between two products") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 40);
  const ValueId x = b.input({2, tokens, 64});
  const ValueId hidden = b.add(Matmul{Activation::relu}, {x, b.constant({64, 70}), b.constant({70})});
  b.output(b.add(Matmul{}, {hidden, b.constant({70, 64}), b.constant({64}), x}));
  CHECK(quantizable(b.graph) == std::vector<ValueId>{x, hidden});
  Report report;
  const Graph in_float = b.graph;
  quantize(b.graph, report, {}, {{x, {-4.015625f, 3.984375f}}, {hidden, {0, 30}}});
  expand_quantized(b.graph);
  const File file = File(b.graph);
  CHECK(file.count(OperatorKind::matmul_i8) == 2);
  CHECK(file.count(OperatorKind::quantize) == 1);
  CHECK(file.lowered.operators.size() == 3);
  for (const LoweredOperator& op : file.lowered.operators) {
    if (op.kind != OperatorKind::matmul_i8) continue;
    const bool first = op.outputs.size() == 2;
    CHECK((op.outputs[0] == -1) == first);  // bytes alone
    REQUIRE(op.inputs.size() == (first ? 10 : 8));
    CHECK((op.inputs[7] == -1) == first);  // what is even about 0 has no zero point; what is never negative has -128
  }
  const std::vector<Literal> input = {random_literal(Type::f32, {2, 7, 64}, b.random)};
  const auto expected = on_host(in_float, input, {{"tokens", 7}}),
             found = on_device(file.bytes, input, {{"tokens", 7}});
  double error = 0, signal = 0;
  for (size_t i = 0; i < expected[0].floats().size(); ++i) {
    const double difference = found[0].floats()[i] - expected[0].floats()[i];
    error += difference * difference, signal += double{expected[0].floats()[i]} * expected[0].floats()[i];
  }
  CHECK(std::sqrt(error / signal) < 0.02);
}

TEST_CASE("quantize: readers of one value share its rows, and others read it in float") {
  Built b;
  const ValueId x = b.input({9, 64});
  const ValueId y = b.add(Matmul{Activation::relu}, {x, b.constant({64, 96})});
  for (int i = 0; i < 3; ++i) b.output(b.add(Matmul{}, {y, b.constant({96, 48})}));
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

/// Rows of a table: no signal, and the same bits on host and device.
ValueId embedded(Built& b, Dims dims) {
  const int64_t columns = *dims.back().constant();
  dims.pop_back();
  return b.add(Gather{0}, {b.constant({4, columns}), b.input(dims, Type::i32)});
}

TEST_CASE("quantize: convolutions") {
  Built b;
  const Expression length = b.dimension("length", 5, 60);
  const ValueId x = embedded(b, {2, length, 24}), residual = b.input({2, length, 64});
  Conv same{{WindowAxis{3, 1, 1, 1, 1}}, 1, Activation::relu};
  b.output(b.add(same, {x, b.constant({3, 24, 64}), b.constant({64}), residual}));
  Conv groups{{WindowAxis{2, 2, 2, 0, 1}}, 2, Activation::none};
  b.output(b.add(groups, {x, b.constant({2, 12, 130})}));
  const ValueId image = embedded(b, {1, 9, 7, 5});
  Conv plane{{WindowAxis{3, 2, 1, 1, 1}, WindowAxis{3, 1, 1, 0, 2}}, 1, Activation::none};
  b.output(b.add(plane, {image, b.constant({3, 3, 5, 70}), b.constant({70})}));
  CHECK(quantised(b).fused.size() == 3);
  const File file = b.check({{{"length", 5}}, {{"length", 31}}, {{"length", 60}}});
  CHECK(file.count(OperatorKind::conv_i8) == 3);
  CHECK(file.count(OperatorKind::conv) == 0);
}

TEST_CASE("quantize: recurrent layers") {
  for (const Cell cell : {Cell::lstm, Cell::gru, Cell::rnn})
    for (const bool before : {false, true})
      for (const Direction direction : {Direction::forward, Direction::reverse, Direction::both}) {
        Built b;
        const int64_t gates = gates_of(cell), hidden = before ? 100 : 136, inputs = 120,
                      directions = direction == Direction::both ? 2 : 1;
        const Expression steps = b.dimension("steps", 1, 4);
        const ValueId x = embedded(b, {steps, 2, inputs});
        std::vector<ValueId> operands{x, b.constant({directions, gates * hidden, inputs}),
                                      b.constant({directions, gates * hidden, hidden})};
        operands.push_back(before ? b.constant({directions, 2 * gates * hidden}) : no_value);
        operands.push_back(b.input({directions, 2, hidden}));
        const NodeId id = b.graph.add(Recurrent{cell, direction, before, hidden}, operands, "layer");
        for (const ValueId output : std::vector<ValueId>(b.graph.node(id).outputs)) b.output(output);
        CHECK(quantised(b).fused.size() == 1);
        // One step: rows of h that the host and the device quantise are the same. More: they may round differently.
        const File file = b.check({{{"steps", 1}}});
        CHECK(file.count(OperatorKind::recurrent_i8) == 1);
        CHECK(file.count(OperatorKind::recurrent) == 0);
      }
}

TEST_CASE("quantize: embeddings") {
  Built b;
  b.index_limit = 40;
  const ValueId ids = b.input({2, 8}, Type::i32);
  const Literal table = random_literal(Type::f32, {70, 64}, b.random);
  std::vector<float> turned(70 * 64);
  for (size_t i = 0; i < 70; ++i)
    for (size_t c = 0; c < 64; ++c) turned[c * 70 + i] = table.floats()[i * 64 + c];
  const ValueId tied = b.add(Gather{0}, {b.graph.constant("tied", table), ids});
  b.output(b.add(Matmul{}, {tied, b.graph.constant("head", Literal::of({64, 70}, turned))}));
  b.output(tied);
  const ValueId large = b.add(Gather{0}, {b.constant({1024, 64}), ids});
  b.output(b.add(Matmul{}, {large, b.constant({64, 64})}));  // reads rows of the table as they are
  b.output(b.add(Gather{0}, {b.constant({70, 32}), ids}));   // small
  b.output(b.add(Gather{1}, {b.constant({32, 4096}), ids}));
  CHECK(quantised(b).fused.size() == 4);
  const File file = b.check();
  CHECK(file.count(OperatorKind::gather) == 5);
  CHECK(file.count(OperatorKind::quantize) == 1);  // of the tied rows, which somebody reads in float too
  int tables = 0;
  for (const Storage& storage : file.lowered.storages) tables += storage.data.size() == 5 * 16 * 64;
  CHECK(tables == 1);  // the panels of the head are those of the table
}

TEST_CASE("quantize: signals and small layers stay in float, and the report says why") {
  Built b;
  const ValueId wave = b.input({1, 400, 1}), rows = b.input({4, 1, 128});
  const Conv frames{{WindowAxis{32, 8}}, 1, Activation::none};
  const ValueId spectrum = b.add(frames, {wave, b.constant({32, 1, 64})});
  const ValueId power = b.map(Step::f_mul, {spectrum, spectrum});
  const ValueId bands = b.add(Matmul{}, {power, b.constant({64, 80})});
  const ValueId features = b.add(Matmul{}, {b.map(Step::f_log, {bands}), b.constant({80, 64}), b.constant({64})});
  b.output(b.add(Matmul{}, {features, b.constant({64, 64})}));  // this one is int8
  b.output(b.add(Matmul{}, {rows, b.constant({128, 128})}));    // this one too
  b.output(b.add(Matmul{}, {rows, b.constant({128, 64})}));     // four rows: too small
  b.output(b.add(Matmul{}, {features, b.constant({64, 40})}));
  const auto layer = [&](ValueId x, int64_t inputs, int64_t hidden) {
    const Recurrent op{Cell::lstm, Direction::forward, false, hidden};
    b.output(b.graph
                 .node(b.graph.add(op, {x, b.constant({1, 4 * hidden, inputs}), b.constant({1, 4 * hidden, hidden})},
                                   "layer"))
                 .outputs[0]);
  };
  const ValueId heads = embedded(b, {1, 2, 40, 32});
  b.output(b.add(Attention{}, {heads, heads, heads}));
  layer(rows, 128, 64);
  layer(embedded(b, {3, 1, 24}), 24, 32);
  b.output(b.add(Conv{{WindowAxis{3}}, 1, Activation::none}, {embedded(b, {1, 20, 32}), b.constant({3, 32, 32})}));
  const Report report = quantised(b);
  CHECK(report.fused.size() == 2);
  REQUIRE(report.notes.size() == 2);
  CHECK(report.notes[0].starts_with("in float, reading the model's inputs before a layer sets their scale: '"));
  CHECK(report.notes[1].starts_with("in float, too small to gain from int8: '"));
  CHECK(report.notes[1].ends_with(" and 1 more"));
}

TEST_CASE("quantize: layers that are kept in float, by their names and by those of what they absorb") {
  const auto model = [] {
    Built b;
    ValueId x = b.input({9, 64});
    for (const char* layer : {"first", "second", "third"})
      x = b.graph.add_value(Matmul{Activation::relu}, {x, b.constant({64, 64})}, std::string(layer) + "/MatMul",
                            {std::string(layer) + "/MatMul", std::string(layer) + "/Add"});
    b.output(x);
    return b;
  };
  using Names = std::vector<std::string>;
  const auto layers = [&](const Names& globs) {
    Built b = model();
    const Report report = quantised(b, {globs});
    CHECK(File(b.graph).count(OperatorKind::matmul_i8) == report.int8_layers.size());
    CHECK(report.notes.empty() == globs.empty());
    return report.int8_layers;
  };
  CHECK(layers({}) == Names{"first/MatMul", "second/MatMul", "third/MatMul"});
  CHECK(layers({"second/MatMul"}) == Names{"first/MatMul", "third/MatMul"});
  CHECK(layers({"third/Add", "first/*"}) == Names{"second/MatMul"});
  CHECK(layers({"*ir*"}) == Names{"second/MatMul"});
  Built b = model();
  const Names problems = [&]() -> Names {
    try {
      quantised(b, {{"secnd/MatMul", "first*", "*/Gelu"}});
    } catch (const Error& error) {
      return error.problems();
    }
    return {};
  }();
  REQUIRE(problems.size() == 2);
  CHECK(problems[0] ==
        "--keep-float secnd/MatMul: no layer and no ONNX node has such a name; int8 would be second/MatMul, "
        "third/MatMul, first/MatMul");
  CHECK(problems[1].starts_with("--keep-float */Gelu: "));
}

TEST_CASE("quantize: channels that are larger than the others are smoothed, where that brings the product nearer") {
  // A normalisation of which some channels are large, read by products that weigh them little, and by a residual.
  const auto model = [] {
    Built b;
    std::vector<float> scale(64, 1), weights(64 * 64);
    for (size_t c = 3; c < 64; c += 20) scale[c] = 30;
    for (size_t i = 0; i < weights.size(); ++i)
      weights[i] = std::normal_distribution<float>()(b.random) / scale[i / 64];
    const ValueId x = b.input({40, 64});
    const ValueId y =
        b.graph.add_value(Normalize{Normalization::layer, 1e-5f},
                          {x, b.graph.constant("scale", Literal::of({64}, scale)), b.constant({64})}, "norm");
    b.output(b.graph.add_value(Matmul{}, {y, b.graph.constant("w", Literal::of({64, 64}, weights))}, "up"));
    b.output(y);
    return b;
  };
  const auto error_of = [&](bool smooth) {
    Built b = model();
    const File in_float(b.graph);
    const std::vector<Literal> inputs{random_literal(Type::f32, {40, 64}, b.random)};
    const std::vector<Literal> expected = on_device(in_float.bytes, inputs, {});
    auto calibration = std::make_shared<Calibration>();
    Activations& seen = calibration->layers["up"];
    seen.rows.assign(expected[1].floats().begin(), expected[1].floats().end());
    seen.top.resize(64);
    for (size_t i = 0; i < seen.rows.size(); ++i) seen.top[i % 64] = std::max(seen.top[i % 64], std::abs(seen.rows[i]));
    Int8Options options;
    if (smooth) options.calibration = calibration;
    quantised(b, options);
    const File in_int8(b.graph);
    CHECK(in_int8.count(OperatorKind::normalize) == (smooth ? 2 : 1));  // the residual's, and another
    const std::vector<Literal> found = on_device(in_int8.bytes, inputs, {});
    CHECK(std::equal(found[1].floats().begin(), found[1].floats().end(), expected[1].floats().begin()));
    double error = 0, signal = 0;
    for (size_t i = 0; i < expected[0].floats().size(); ++i) {
      const double e = expected[0].floats()[i], f = found[0].floats()[i];
      error += (e - f) * (e - f), signal += e * e;
    }
    return std::sqrt(error / signal);
  };
  CHECK(error_of(true) < error_of(false) / 4);
}

TEST_CASE("quantize: columns and rows of zeros") {
  constexpr int64_t rows = 9, k = 70, n = 66;
  Built b;
  const ValueId x = b.input({rows, k});
  std::vector<float> weights(k * n);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = i % n == 4 ? 0.0f : static_cast<float>(i % 7) - 3;
  b.output(b.add(Matmul{}, {x, b.graph.constant("w", Literal::of({k, n}, weights))}));
  quantised(b);
  const File file(b.graph);
  REQUIRE(file.count(OperatorKind::matmul_i8) == 1);
  std::vector<float> values(rows * k, 0.0f);
  values[k + 5] = 2.0f;
  const std::vector<Literal> y = on_device(file.bytes, {Literal::of({rows, k}, values)}, {});
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const float expected = i == 1 ? 2 * weights[static_cast<size_t>(5 * n + j)] : 0.0f;
      CHECK(y[0].floats()[static_cast<size_t>(i * n + j)] ==
            doctest::Approx(expected).epsilon(0.02));  // weights of 255 steps
    }
}

TEST_CASE("quantize: normalizations write rows of int8") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 40);
  const ValueId x = b.input({2, tokens, 64});
  const auto normalized = [&](ValueId of) {
    return b.add(Normalize{Normalization::layer, 1e-5f}, {of, b.constant({64}), b.constant({64})});
  };
  // After a sum, and read by the next; before a product alone.
  const ValueId after = normalized(x);
  const ValueId y = b.add(Matmul{}, {after, b.constant({64, 64}), no_value, after});
  b.output(b.add(Matmul{}, {normalized(y), b.constant({64, 80})}));
  quantised(b);
  const File file = b.check({{{"tokens", 1}}, {{"tokens", 7}}, {{"tokens", 40}}});
  CHECK(file.count(OperatorKind::normalize) == 2);
  CHECK(file.count(OperatorKind::quantize) == 0);
  CHECK(file.count(OperatorKind::copy) == 0);
}

TEST_CASE("quantize: products hand query, key and value over by head") {
  Built b;
  const Expression tokens = b.dimension("tokens", 1, 70);
  const ValueId x = b.input({2, tokens, 64});
  const auto heads = [&](int64_t count) {
    const ValueId y = b.add(Matmul{}, {x, b.constant({64, count * 32})});
    return b.add(Transpose{{0, 2, 1, 3}}, {b.add(Reshape{{2, tokens, count, 32}}, {y})});
  };
  const ValueId q = heads(4), k = heads(2), v = heads(2);
  b.output(b.add(Attention{}, {q, k, v}));
  quantised(b);
  const File file(b.graph);
  CHECK(file.count(OperatorKind::matmul_i8) == 3);
  CHECK(file.count(OperatorKind::attention_i8) == 1);
  CHECK(file.count(OperatorKind::quantize) == 1);  // of x
  CHECK(file.count(OperatorKind::copy) == 0);
}

TEST_CASE("quantize: what all keys have in common is taken off them") {
  Built b;
  const ValueId x = b.input({2, 9, 48});
  const auto layer = [&](const char* name, Matmul operation = {}) {
    return b.graph.add_value(
        operation, {x, b.constant({48, 64}), b.graph.constant("b", Literal::of({64}, std::vector<float>(64, 50.0f)))},
        name);
  };
  const auto heads = [&](ValueId y) { return b.add(Transpose{{0, 2, 1, 3}}, {b.add(Reshape{{2, 9, 4, 16}}, {y})}); };
  const auto attend = [&](ValueId keys) {
    b.output(b.add(Attention{}, {heads(layer("query")), heads(keys), heads(layer("value"))}));
  };
  attend(layer("key"));
  attend(layer("positive key", {.activation = Activation::relu}));  // its bias is not what all keys have in common
  const ValueId shared = layer("shared key");
  attend(shared);
  b.output(shared);
  const std::vector<Literal> inputs{random_literal(Type::f32, {2, 9, 48}, b.random)};
  const File before(b.graph);
  // Rows about 1: their mean is what each column of the weights adds up to.
  Calibration calibration;
  calibration.layers["key"] = {std::vector<float>(48, 1), std::vector<float>(3 * 48, 1)};
  Report report;
  centre_keys(b.graph, &calibration, report);
  CHECK(report.notes == std::vector<std::string>{"the keys of 1 attentions are centred"});
  for (const NodeId id : b.graph.order()) {
    const Node& node = b.graph.node(id);
    if (!std::holds_alternative<Matmul>(node.operation)) continue;
    const std::span<const float> bias = b.graph.value(node.inputs[2]).constant->floats(),
                                 weights = b.graph.value(node.inputs[1]).constant->floats();
    for (size_t i = 0; i < bias.size(); ++i) {
      double sum = 0;
      for (size_t c = 0; c < 48; ++c) sum += weights[c * 64 + i];
      CHECK(bias[i] == doctest::Approx(node.name == "key" ? -sum : 50.0));
    }
  }
  const std::vector<Literal> expected = on_device(before.bytes, inputs, {}),
                             found = on_device(File(b.graph).bytes, inputs, {});
  for (size_t i = 0; i < expected.size(); ++i)
    for (size_t j = 0; j < expected[i].floats().size(); ++j)
      CHECK(found[i].floats()[j] == doctest::Approx(expected[i].floats()[j]).epsilon(1e-4));
}

TEST_CASE("quantize: a bias that differs between keys stays") {
  Built b;
  const auto keys_of = [&](Dims rows, int64_t columns) {
    const ValueId x = b.input(std::move(rows));
    return b.graph.add_value(Matmul{}, {x, b.constant({64, columns}), b.constant({columns})}, "key");
  };
  const auto attend = [&](Dims queries, ValueId keys) {
    b.output(b.add(Attention{}, {b.input(queries), keys, b.input(b.graph.value(keys).dims)}));
  };
  attend({1, 1, 9, 32}, b.add(Transpose{{0, 1, 3, 2}}, {keys_of({1, 1, 32, 64}, 20)}));  // columns are keys
  attend({1, 1, 9, 32}, b.add(Reshape{{1, 1, 20, 32}}, {keys_of({1, 64}, 20 * 32)}));    // all keys from one row
  attend({1, 2, 9, 32}, b.add(Reshape{{1, 2, 20, 32}}, {keys_of({1, 20, 64}, 64)}));     // two heads from one row
  Report report;
  centre_keys(b.graph, nullptr, report);
  CHECK(report.notes.empty());
  // Rows of all samples together, and heads in front.
  attend({2, 2, 9, 32}, b.add(Transpose{{0, 2, 1, 3}}, {b.add(Reshape{{2, 10, 2, 32}}, {keys_of({20, 64}, 64)})}));
  centre_keys(b.graph, nullptr, report);
  CHECK(report.notes.size() == 1);
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

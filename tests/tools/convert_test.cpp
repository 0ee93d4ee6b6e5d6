#include "tools/convert.h"

#include <cstdlib>
#include <filesystem>
#include <set>

#include "tests/tools/device.h"
#include "tools/io/file.h"
#include "tools/passes/passes.h"

using namespace heed;
using namespace heed::test;

namespace {

const std::filesystem::path source = HEED_SOURCE_DIR;

Converted convert_example(const std::string& name, const std::string& dim) {
  return tools::convert(source / "examples" / name,
                        {.dims = dim.empty() ? std::vector<std::string>{} : std::vector{dim}});
}

/// A few layers of every operator, with a dimension, a constraint and an index from the caller.
Graph every_operator() {
  Built g;
  const Expression tokens = g.dimension("tokens", 2, 12);
  g.graph.constraints.push_back({tools::Constraint::Relation::equal, Expression::modulo(tokens, 2), 0});
  const ValueId ids = g.input({1, tokens}, Type::i32), frame = g.input({tokens, 6});
  const ValueId embedded = g.add(Gather{0}, {g.constant({50, 12}), ids});
  const ValueId x = g.add(Concat{2}, {embedded, g.add(Matmul{Activation::silu},
                                                      {g.add(Reshape{{1, tokens, 6}}, {frame}), g.constant({6, 12})})});
  const ValueId normal = g.add(Normalize{Normalization::layer, 1e-5f}, {x, g.constant({24}), g.constant({24})});
  const auto heads = [&](ValueId v, int64_t count) {
    const ValueId projected = g.add(Matmul{}, {v, g.constant({24, count * 8}), g.constant({count * 8})});
    return g.add(Transpose{{0, 2, 1, 3}}, {g.add(Reshape{{1, tokens, count, 8}}, {projected})});
  };
  Attention attention;
  attention.scale = 0.35f;
  attention.causal = true;
  const ValueId cos = g.add(Slice{{0, 0}, {1, 1}, {tokens, 6}}, {g.constant({12, 6})}),
                sin = g.add(Slice{{0, 0}, {1, 1}, {tokens, 6}}, {g.constant({12, 6})});
  const auto turned = [&](ValueId v) { return g.add(Rope{Pairing::half}, {v, cos, sin}); };
  const ValueId mixed = g.add(attention, {turned(heads(normal, 4)), turned(heads(normal, 2)), heads(normal, 2)});
  const ValueId joined = g.add(Reshape{{1, tokens, 32}}, {g.add(Transpose{{0, 2, 1, 3}}, {mixed})});
  const ValueId y = g.add(Matmul{}, {joined, g.constant({32, 24}), no_value, x});
  const NodeId gru = g.graph.add(
      Recurrent{Cell::gru, Direction::both, true, 10},
      {g.add(Transpose{{1, 0, 2}}, {y}), g.weights({2, 30, 24}), g.weights({2, 30, 10}), g.weights({2, 60})}, "gru");
  const ValueId state = g.add(Transpose{{1, 0, 2}}, {g.graph.node(gru).outputs[1]});  // [1, 2, 10]
  const ValueId scores = g.add(Matmul{}, {y, g.add(Transpose{{0, 2, 1}}, {y})});      // [1, tokens, tokens]
  const ValueId distance = g.map(Step::i_sub, {g.add(Iota{{tokens, 1}, 0}, {}), g.add(Iota{{tokens}, 0}, {})});
  const ValueId decay =
      g.map(Step::f_div, {g.map(Step::i_to_f, {distance}), g.map(Step::i_to_f, {g.add(tools::Size{tokens}, {})})});
  const ValueId weights = g.add(Softmax{2}, {g.map(Step::f_fma, {g.map(Step::f_tanh, {scores}), g.scalar(2), decay})});
  const ValueId wide =
      g.add(Conv{{{3, 1, 1, 1, 1}}, 2, Activation::relu}, {y, g.constant({3, 12, 32}), g.constant({32})});
  const ValueId deep = g.add(Conv{{{3, 1, 2, 4, 0}}, 32}, {wide, g.weights({3, 1, 32})});
  g.output(g.add(Pool{Pooling::max, {{2, 2}}}, {deep}));
  g.output(weights);
  g.output(g.add(Reduce{Reduction::mean, {1}, false}, {g.add(Matmul{}, {weights, y})}));
  g.output(g.add(Pad{{0, 0, 1}, {0, 1, 0}, -1}, {state}));
  g.output(g.map(Step::f_less, {state, g.scalar(0.1f)}));
  return g.graph;
}

/// Layers that are large enough to gain from int8.
Graph layers_of_int8() {
  Built g;
  const ValueId heads = g.input({1, 2, 64, 32});
  g.output(g.add(Attention{}, {heads, heads, heads}));
  const ValueId rows = g.add(Gather{0}, {g.constant({4, 128}), g.input({40, 1}, Type::i32)});
  const NodeId lstm = g.graph.add(Recurrent{Cell::lstm, Direction::forward, false, 64},
                                  {rows, g.weights({1, 256, 128}), g.weights({1, 256, 64})}, "lstm");
  g.output(g.graph.node(lstm).outputs[1]);
  g.output(g.add(Matmul{}, {rows, g.weights({128, 64})}));
  g.output(g.add(Conv{{{3, 1, 1, 1, 1}}}, {g.add(Transpose{{1, 0, 2}}, {rows}), g.constant({3, 128, 64})}));
  return g.graph;
}

}  // namespace

TEST_CASE("the same ONNX file gives the same bytes") {
  const std::vector<std::byte> first = convert_example("stock_forecast/transformer.onnx", "batch=1..64").bytes;
  CHECK(first == convert_example("stock_forecast/transformer.onnx", "batch=1..64").bytes);
  CHECK(first != convert_example("stock_forecast/transformer.onnx", "batch=1..63").bytes);
}

TEST_CASE("the report says what the file holds") {
  std::vector<std::string> stages;
  const Converted converted = tools::convert(source / "examples/stock_forecast/transformer.onnx",
                                             {.dims = {"batch=1..64"}}, [&](const std::string& stage, double share) {
                                               CHECK(share >= 0);
                                               CHECK(share <= 1);
                                               if (stages.empty() || stages.back() != stage) stages.push_back(stage);
                                             });
  CHECK(stages.size() >= 7);
  const Report& report = converted.report;
  CHECK(report.file_bytes == converted.bytes.size());
  CHECK(report.onnx_operators.at("LayerNormalization") == 5);
  CHECK(report.heed_operators.at("normalize") == 5);
  CHECK(report.constants > 4 * (64 * 192 + 64 * 64 + 2 * 64 * 128) * 2);
  CHECK(report.constants < report.file_bytes);
  // One token of five leaves the last layer: its output projection and feed-forward layer are of one row.
  const uint64_t rows = 64, wide = 64 * 192, attention = 4 * 5 * 5 * 32, square = 64 * 64, forward = 2 * 64 * 128;
  CHECK(report.macs == rows * (5 * 64 + 2 * 5 * wide + 2 * attention + 6 * square + 6 * forward + 64));
}

TEST_CASE("every operator at once gives what the host computes") {
  Built g;
  g.graph = every_operator();
  const File file = g.check({{{"tokens", 2}}, {{"tokens", 8}}, {{"tokens", 12}}});
  Report report;
  Graph in_int8 = every_operator(), layers = layers_of_int8();
  quantize(in_int8, report);
  quantize(layers, report);
  std::set<OperatorKind> kinds;
  for (const File& each : {file, File(std::move(in_int8)), File(std::move(layers))})
    for (const LoweredOperator& op : each.lowered.operators) kinds.insert(op.kind);
  CHECK(kinds.size() == static_cast<size_t>(OperatorKind::count));
}

// The converter's part of making the golden files anew; tests/runtime/golden_test.cpp writes their hashes.
TEST_CASE("golden files" * doctest::skip(std::getenv("HEED_WRITE_GOLDEN") == nullptr)) {
  const std::filesystem::path folder = source / "tests/golden";
  for (const std::string name : {"attention_by_hand", "attention_by_hand_steps"})
    tools::write_file(folder / (name + ".heed"), convert_example("attention_by_hand/" + name + ".onnx", "").bytes);
  tools::write_file(folder / "every_operator.heed", File(every_operator()).bytes);
}

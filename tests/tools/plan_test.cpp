#include "tools/plan/planner.h"

#include "tests/tools/device.h"
#include "tools/error.h"

using namespace heed;
using namespace heed::test;
using Kind = OperatorKind;

namespace {

std::vector<Lifetime> random_lives(std::mt19937& random, int buffers, int operators) {
  std::vector<Lifetime> lives;
  for (int i = 0; i < buffers; ++i) {
    const int first = static_cast<int>(random() % static_cast<uint32_t>(operators));
    const int length = random() % 8 == 0 ? 40 : static_cast<int>(random() % 5);
    lives.push_back({64 * (1 + random() % 100), first, std::min(first + length, operators)});
  }
  return lives;
}

ValueId heads(Built& g, ValueId x, Dims dims) {
  return g.add(Transpose{{0, 2, 1, 3}}, {g.add(Reshape{std::move(dims)}, {x})});
}

}  // namespace

TEST_CASE("live buffers do not overlap, and the plan stays near its bound") {
  std::mt19937 random(7);
  double sum = 0;
  constexpr int trials = 100;
  for (int trial = 0; trial < trials; ++trial) {
    const auto lives = random_lives(random, 1 + static_cast<int>(random() % 60), 1 + static_cast<int>(random() % 50));
    const auto offsets = place(lives);
    uint64_t end = 0;
    for (size_t i = 0; i < lives.size(); ++i) {
      CHECK(offsets[i] % 64 == 0);
      end = std::max(end, offsets[i] + lives[i].bytes);
      for (size_t k = 0; k < i; ++k) {
        const bool together = lives[i].first <= lives[k].last && lives[k].first <= lives[i].last;
        const bool overlap = offsets[i] < offsets[k] + lives[k].bytes && offsets[k] < offsets[i] + lives[i].bytes;
        REQUIRE(!(together && overlap));
      }
    }
    CHECK(end >= lower_bound(lives));
    sum += static_cast<double>(end) / static_cast<double>(lower_bound(lives));
  }
  CHECK(sum / trials < 1.03);
}

TEST_CASE("the lower bound counts what is alive at one operator") {
  CHECK(lower_bound(std::vector<Lifetime>{}) == 0);
  CHECK(lower_bound(std::vector<Lifetime>{{64, 0, 1}, {128, 1, 2}, {64, 2, 3}}) == 192);
  CHECK(place(std::vector<Lifetime>{}).empty());
}

TEST_CASE("a chain of maps and a softmax run in one buffer") {
  Built g;
  const ValueId x = g.input({4, 64});
  g.output(g.add(Softmax{1}, {g.map(Step::f_exp, {x})}));
  const File file = g.check();
  CHECK(file.lowered.operators.size() == 2);
  CHECK(file.plan.in_place == std::vector<bool>{true, true});
  const auto longer = std::count_if(file.plan.buffers.begin(), file.plan.buffers.end(),
                                    [](const tools::Buffer& buffer) { return buffer.last > buffer.first; });
  CHECK(longer == 1);  // the other is the program's scratch
  CHECK(file.plan.workspace == file.plan.lower_bound);
}

TEST_CASE("what is read again is not overwritten") {
  Built g;
  const ValueId x = g.input({4, 64});
  const ValueId y = g.add(Softmax{1}, {x});
  g.output(g.map(Step::f_add, {g.add(Softmax{1}, {y}), y}));
  const File file = g.check();
  CHECK(file.plan.in_place[1] == false);
}

TEST_CASE("the residual of a matrix product is overwritten, its operand is not") {
  Built g;
  const ValueId x = g.input({8, 32}), r = g.input({8, 32});
  const ValueId w = g.constant({32, 32});
  const ValueId y = g.add(Matmul{}, {x, w, no_value, r});
  const ValueId z = g.add(Matmul{}, {y, w, no_value, y});
  g.output(z);
  const File file = g.check();
  CHECK(file.plan.in_place == std::vector<bool>{true, false});
}

TEST_CASE("a dimension that is 0 leaves parts of storages that begin behind nothing") {
  Built g;
  const Expression batch = g.dimension("batch", 0, 0);
  const ValueId x = g.input({batch, 6, 32});
  const ValueId wide = g.add(Matmul{}, {x, g.constant({32, 96}), g.constant({96})});
  const ValueId k = g.add(Slice{{0, 0, 64}, {1, 1, 1}, {batch, 6, 32}}, {wide});
  g.output(g.add(Softmax{2}, {k}));
  g.output(g.add(Softmax{2}, {wide}));
  g.check({{{"batch", 0}}});
}

TEST_CASE("what is too large is named, with the size that would do") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 1 << 28);
  g.output(g.map(Step::f_exp, {g.input({batch, 64})}));
  try {
    g.check();
    FAIL("was taken");
  } catch (const Error& error) {
    CHECK(error.fault() == Fault::model);
    CHECK(std::string(error.what()).find("'batch' is up to 268435456 and may be up to 16777215") != std::string::npos);
  }
}

TEST_CASE("rows of batches are rows of one product") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 9);
  const ValueId x = g.input({batch, 5, 20}), r = g.input({batch, 5, 33});
  g.output(g.add(Matmul{Activation::gelu}, {x, g.constant({20, 33}), g.constant({33}), r}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 4}}, {{"batch", 9}}});
  REQUIRE(file.lowered.operators.size() == 1);
  const auto& op = file.lowered.operators[0];
  CHECK(file.lowered.tensors[static_cast<size_t>(op.inputs[0])].view.dims == Dims{batch * 5, 20});
  CHECK(file.lowered.tensors[static_cast<size_t>(op.inputs[1])].view.dims == Dims{3, 20, 16});
  CHECK(op.macs == batch * 5 * 20 * 33);
}

TEST_CASE("a residual may repeat") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 9);
  const ValueId x = g.input({batch, 5, 20});
  const ValueId r = g.add(Expand{{batch, 5, 16}}, {g.constant({5, 16})});
  g.output(g.add(Matmul{}, {x, g.constant({20, 16}), no_value, r}));
  CHECK(g.check({{{"batch", 3}}}).lowered.operators.size() == 1);
}

TEST_CASE("products of computed matrices, batched and broadcast") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId a = g.input({batch, 3, 5, 7}), b = g.input({3, 7, 18}), c = g.input({batch, 1, 9, 7});
  g.output(g.add(Matmul{}, {a, b}));
  g.output(g.add(Matmul{}, {a, g.add(Transpose{{0, 1, 3, 2}}, {c})}));
  g.output(g.add(Matmul{}, {a, g.constant({3, 7, 4})}));
  CHECK(g.check({{{"batch", 1}}, {{"batch", 4}}}).lowered.operators.size() == 3);
}

TEST_CASE("heads are views: attention reads and writes them in place, and nothing is copied") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId x = g.input({batch, 6, 32});
  const ValueId qkv = g.add(Matmul{}, {x, g.constant({32, 96}), g.constant({96})});
  std::vector<ValueId> parts;
  for (int i = 0; i < 3; ++i)
    parts.push_back(heads(g, g.add(Slice{{0, 0, 32 * i}, {1, 1, 1}, {batch, 6, 32}}, {qkv}), {batch, 6, 4, 8}));
  Attention attention;
  attention.scale = 0.25f;
  attention.causal = true;
  const ValueId mixed = g.add(attention, {parts[0], parts[1], parts[2]});
  const ValueId joined = g.add(Reshape{{batch, 6, 32}}, {g.add(Transpose{{0, 2, 1, 3}}, {mixed})});
  g.output(g.add(Matmul{}, {joined, g.constant({32, 32}), no_value, x}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 4}}});
  CHECK(file.lowered.operators.size() == 3);
  CHECK(file.count(Kind::copy) == 0);
}

TEST_CASE("attention takes masks and biases") {
  Built g;
  const Expression tokens = g.dimension("tokens", 1, 20);
  const ValueId q = g.input({2, 4, tokens, 8}), k = g.input({2, 2, tokens, 8}), v = g.input({2, 2, tokens, 12});
  const ValueId bias = g.input({1, 1, tokens, tokens}), padding = g.input({2, tokens}, Type::boolean);
  Attention attention;
  attention.window = true;
  attention.window_left = 3;
  attention.window_right = 2;
  g.output(g.add(attention, {q, k, v, bias, padding, g.constant({4})}));
  Attention toeplitz;
  g.output(g.add(toeplitz, {q, k, v, no_value, no_value, no_value,
                            g.add(Slice{{0, 0}, {1, 1}, {4, 2 * tokens - 1}}, {g.constant({4, 39})})}));
  g.check({{{"tokens", 1}}, {{"tokens", 7}}, {{"tokens", 20}}});
}

TEST_CASE("concat and pad are written by their producers") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId x = g.input({batch, 8});
  const ValueId a = g.add(Matmul{}, {x, g.constant({8, 5})}), b = g.add(Matmul{}, {x, g.constant({8, 7})});
  const ValueId joined = g.add(Concat{1}, {a, b});
  const ValueId padded = g.add(Pad{{0, 2}, {1, 3}, 0.5f}, {g.add(Matmul{}, {joined, g.constant({12, 6})})});
  g.output(padded);
  const File file = g.check({{{"batch", 1}}, {{"batch", 4}}});
  CHECK(file.count(Kind::matmul) == 3);
  CHECK(file.count(Kind::copy) == 3);  // of the filling: two slabs of columns and one of rows
}

TEST_CASE("concat copies what cannot be written there") {
  Built g;
  const ValueId x = g.input({3, 8}), y = g.map(Step::f_exp, {x});
  // An input, a constant, a value twice, an elementwise result between columns, a value that another part reads.
  g.output(g.add(Concat{1}, {x, g.constant({3, 2}), y, y, g.add(Softmax{1}, {y})}));
  g.output(g.add(Concat{0}, {g.map(Step::f_neg, {x}), g.add(Pad{{2, 0}, {0, 0}, 2}, {x})}));
  g.check();
}

TEST_CASE("slices, flips, transposes and reshapes of them") {
  Built g;
  const Expression tokens = g.dimension("tokens", 2, 12);
  const ValueId x = g.input({tokens, 4, 6});
  const ValueId flipped = g.add(Slice{{tokens - 1, 0, 1}, {-1, 2, 2}, {tokens, 2, 3}}, {x});
  g.output(flipped);
  g.output(g.add(Reshape{{tokens, 6}}, {flipped}));
  g.output(g.add(Reshape{{6, 4 * tokens}}, {g.add(Transpose{{2, 1, 0}}, {x})}));
  g.output(g.map(Step::f_neg, {g.add(Transpose{{2, 0, 1}}, {x})}));
  g.output(x);
  g.output(g.add(Expand{{2, tokens, 4, 6}}, {x}));
  g.check({{{"tokens", 2}}, {{"tokens", 12}}});
}

TEST_CASE("reductions and softmax over any axes") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId x = g.input({batch, 5, 6, 7});
  g.output(g.add(Reduce{Reduction::sum, {1}, false}, {x}));
  g.output(g.add(Reduce{Reduction::mean, {0, 2}, true}, {x}));
  g.output(g.add(Reduce{Reduction::max, {0, 1, 2, 3}, false}, {x}));
  g.output(g.add(Reduce{Reduction::arg_max, {2}, true}, {x}));
  g.output(g.add(Transpose{{0, 2, 1}}, {g.add(Reduce{Reduction::sum_square, {3}, false}, {x})}));
  g.output(g.add(Softmax{1}, {x}));
  g.output(g.add(Softmax{3, true}, {x}));
  const ValueId column = g.input({batch, 5, 1});
  g.output(g.add(Softmax{1}, {column}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 3}}});
  CHECK(file.count(Kind::softmax) == 3);
}

TEST_CASE("normalization of rows with gaps") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId x = g.input({batch, 5, 12});
  const ValueId last = g.add(Slice{{0, 4, 0}, {1, 1, 1}, {batch, 1, 12}}, {x});
  g.output(g.add(Normalize{Normalization::layer, 1e-5f},
                 {g.add(Reshape{{batch, 12}}, {last}), g.constant({12}), g.constant({12})}));
  g.output(g.add(Normalize{Normalization::rms, 1e-5f}, {g.add(Transpose{{0, 2, 1}}, {x}), g.constant({5})}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 4}}});
  CHECK(file.count(Kind::copy) == 1);
}

TEST_CASE("gather checks what the caller hands in") {
  Built g;
  const Expression tokens = g.dimension("tokens", 1, 9);
  const ValueId index = g.input({1, tokens}, Type::i32);
  g.output(g.add(Gather{0}, {g.constant({4, 6}), index}));
  g.output(g.add(Gather{1}, {g.constant({3, 4}), g.add(Reshape{{tokens}}, {index})}));
  const File file = g.check({{{"tokens", 1}}, {{"tokens", 9}}});
  REQUIRE(file.lowered.index_checks.size() == 1);
  CHECK(file.lowered.index_checks[0].bound == 4);
}

TEST_CASE("an embedding that is a layer's weights too is stored once") {
  Built g;
  const Expression tokens = g.dimension("tokens", 1, 9);
  const ValueId table = g.constant({21, 6}), index = g.input({1, tokens}, Type::i32);
  std::vector<float> turned(21 * 6);
  for (size_t i = 0; i < 21; ++i)
    for (size_t c = 0; c < 6; ++c) turned[c * 21 + i] = g.graph.value(table).constant->floats()[i * 6 + c];
  bool tied = true;
  SUBCASE("as its columns") {}
  SUBCASE("but for one number") {
    turned[17] += 1, tied = false;
  }
  const ValueId weights = g.graph.constant("turned", Literal::of({6, 21}, turned));
  g.index_limit = 21;
  g.output(g.add(Matmul{}, {g.add(Gather{0}, {table, index}), weights}));
  const File file = g.check({{{"tokens", 1}}, {{"tokens", 9}}});
  const auto& operators = file.lowered.operators;
  REQUIRE(operators.size() == 2);
  CHECK((operators[0].inputs[0] == operators[1].inputs[1]) == tied);
}

TEST_CASE("recurrent layers of every kind") {
  for (const Cell cell : {Cell::lstm, Cell::gru, Cell::rnn})
    for (const Direction direction : {Direction::forward, Direction::reverse, Direction::both})
      for (const bool linear : {false, true}) {
        if (linear && cell != Cell::gru) continue;
        CAPTURE(static_cast<int>(cell));
        CAPTURE(static_cast<int>(direction));
        CAPTURE(linear);
        Built g;
        const Expression batch = g.dimension("batch", 1, 3);
        const int64_t directions = direction == Direction::both ? 2 : 1, hidden = 20,
                      gates = cell == Cell::lstm  ? 4
                              : cell == Cell::gru ? 3
                                                  : 1;
        const ValueId x = g.input({batch, 7, 6}), h = g.input({directions, batch, hidden});
        std::vector<ValueId> operands{g.add(Transpose{{1, 0, 2}}, {x}), g.weights({directions, gates * hidden, 6}),
                                      g.weights({directions, gates * hidden, hidden}),
                                      g.weights({directions, 2 * gates * hidden}), h};
        if (cell == Cell::lstm) operands.push_back(g.input({directions, batch, hidden}));
        const NodeId node = g.graph.add(Recurrent{cell, direction, linear, hidden}, operands, "recurrent");
        const auto outputs = g.graph.node(node).outputs;
        g.output(g.add(Transpose{{2, 0, 1, 3}}, {outputs[0]}));
        g.output(outputs[1]);
        if (cell == Cell::lstm) g.output(outputs[2]);
        const File file = g.check({{{"batch", 1}}, {{"batch", 3}}});
        CHECK(file.lowered.operators.size() == 1);  // it writes [batch, time] itself
      }
}

TEST_CASE("convolutions and poolings of one to three axes") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 3), length = g.dimension("length", 4, 40);
  const auto conv = [&](ValueId x, std::vector<int64_t> weights, std::vector<WindowAxis> axes, int64_t groups = 1) {
    const int64_t outputs = weights.back();
    return g.add(Conv{axes, groups, Activation::relu}, {x, g.weights(std::move(weights)), g.constant({outputs})});
  };
  const ValueId signal = g.input({batch, length, 1});
  const ValueId frames = conv(signal, {4, 1, 20}, {{4, 2}});
  g.output(conv(frames, {3, 20, 12}, {{3, 1, 1, 1, 1}}));
  g.output(conv(frames, {3, 1, 20}, {{3, 1, 2, 2, 2}}, 20));  // depthwise
  g.output(conv(frames, {3, 10, 6}, {{3, 2, 1, 3, 0}}, 2));   // in two groups
  g.output(g.add(Pool{Pooling::mean, {{3, 2, 1, 1, 1}}, true, true}, {frames}));
  const ValueId image = g.input({batch, 6, 7, 3});
  const ValueId wide = conv(image, {3, 1, 3, 8}, {{3, 1, 1, 1, 1}, {1, 2}});
  g.output(g.add(Pool{Pooling::max, {{2, 2}, {3, 1, 1, 1, 1}}}, {wide}));
  // [N, C, 9, 1]: the last axis is none, and comes from another order of the axes.
  const ValueId tall = g.add(Transpose{{0, 2, 3, 1}}, {g.input({batch, 5, 9, 1})});
  g.output(g.add(Transpose{{0, 3, 1, 2}}, {conv(tall, {3, 1, 5, 4}, {{3, 1, 1, 1, 1}, {1}})}));
  g.output(conv(g.input({batch, 3, 4, 5, 2}), {2, 2, 2, 2, 6}, {{2}, {2, 1, 1, 1, 0}, {2, 2}}));
  g.check({{{"batch", 1}, {"length", 4}}, {{"batch", 3}, {"length", 40}}, {{"batch", 2}, {"length", 13}}});
}

TEST_CASE("a convolution writes and reads parts of larger tensors") {
  Built g;
  const ValueId x = g.input({1, 20, 12});
  const auto half = [&](int64_t start) { return g.add(Slice{{0, 0, start}, {1, 1, 1}, {1, 20, 6}}, {x}); };
  const auto conv = [&](ValueId part) {
    return g.add(Conv{{{3, 1, 1, 1, 1}}}, {part, g.weights({3, 6, 8}), no_value, g.input({1, 20, 8})});
  };
  g.output(g.add(Concat{2}, {conv(half(0)), conv(half(6))}));
  CHECK(g.check().count(OperatorKind::copy) == 0);
}

TEST_CASE("weights that are not constant are refused") {
  Built g;
  g.output(g.add(Conv{{{3}}}, {g.input({1, 9, 4}), g.input({3, 4, 6})}));
  CHECK_THROWS_WITH(File(g.graph), doctest::Contains("are not constant"));
}

TEST_CASE("a state of zeros is absent") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 3);
  const ValueId zeros =
      g.add(Expand{{1, batch, 16}}, {g.graph.constant("zero", Literal::of({1, 1, 1}, std::vector{0.f}))});
  const NodeId node = g.graph.add(
      Recurrent{Cell::lstm, Direction::forward, false, 16},
      {g.input({4, batch, 3}), g.weights({1, 64, 3}), g.weights({1, 64, 16}), no_value, zeros, zeros}, "lstm");
  g.output(g.graph.node(node).outputs[0]);
  const File file = g.check({{{"batch", 2}}});
  CHECK(file.lowered.operators[0].inputs.size() == 4);
  CHECK(file.lowered.operators[0].outputs.size() == 1);
}

TEST_CASE("equal constants are stored once") {
  Built g;
  const ValueId x = g.input({4, 8});
  const Literal w = random_literal(Type::f32, {8, 8}, g.random);
  const ValueId a = g.add(Matmul{}, {x, g.graph.constant("a", w)});
  g.output(g.add(Matmul{}, {a, g.graph.constant("b", w)}));
  const File file = g.check();
  const auto stored = std::count_if(file.lowered.storages.begin(), file.lowered.storages.end(),
                                    [](const Storage& s) { return s.constant && s.data.size() == 16 * 8 * 4; });
  CHECK(stored == 1);
}

TEST_CASE("capacities hold over the whole range, not only at its ends") {
  Built g;
  const Expression n = g.dimension("n", 0, 10);
  const ValueId x = g.input({10 - n, n});
  g.output(g.map(Step::f_neg, {x}));
  const File file = g.check({{{"n", 0}}, {{"n", 5}}, {{"n", 10}}});
  CHECK(file.plan.buffers[0].capacity == 128);  // 5 * 5 floats
}

TEST_CASE("what is sliced away is not computed") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 4);
  const ValueId x = g.input({batch, 5, 16});
  const ValueId mixed = g.add(Matmul{}, {x, g.constant({16, 16}), g.constant({16}), x});
  const ValueId normal = g.add(Normalize{Normalization::layer, 1e-5f}, {mixed, g.constant({16}), g.constant({16})});
  const ValueId wide =
      g.map(Step::f_mul, {g.add(Matmul{Activation::gelu}, {normal, g.constant({16, 40})}), g.constant({5, 1})});
  const ValueId y = g.add(Matmul{}, {wide, g.constant({40, 16}), no_value, mixed});
  g.output(g.add(Reshape{{batch, 16}}, {g.add(Slice{{0, 4, 0}, {1, 1, 1}, {batch, 1, 16}}, {y})}));
  g.output(g.add(Slice{{0, 0, 3}, {1, 2, 1}, {batch, 3, 7}}, {g.add(Matmul{}, {x, g.constant({16, 20})})}));
  g.output(g.add(Slice{{1, 0}, {1, 1}, {batch - 1, 1}},
                 {g.add(Reduce{Reduction::max, {1}, true}, {g.add(Reshape{{batch, 80}}, {x})})}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 4}}});
  Expression macs;
  for (const LoweredOperator& op : file.lowered.operators) macs = macs + op.macs;
  CHECK(macs == batch * (16 * 16 + 2 * 16 * 40 + 3 * 16 * 7));
}

TEST_CASE("a slice goes up only where nobody else wants the rest") {
  Built g;
  const ValueId x = g.input({5, 16});
  const ValueId y = g.add(Matmul{}, {x, g.constant({16, 8})});
  g.output(g.add(Slice{{4, 0}, {1, 1}, {1, 8}}, {y}));
  g.output(g.add(Softmax{1}, {y}));
  g.output(g.add(Slice{{0, 2}, {1, 1}, {5, 4}}, {g.add(Softmax{1}, {g.map(Step::f_neg, {x})})}));
  const File file = g.check();
  CHECK(file.lowered.operators.size() == 6);  // two copies, for the two slices that are outputs
}

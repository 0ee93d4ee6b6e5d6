#include "tools/plan/programs.h"

#include "tests/tools/device.h"

using namespace heed;
using namespace heed::test;
using Kind = OperatorKind;

namespace {

const Elementwise& program(const File& file, size_t index = 0) {
  return std::get<Elementwise>(file.lowered.operators[index].params);
}

}  // namespace

TEST_CASE("connected maps are one program, equal steps one instruction") {
  Built g;
  const ValueId x = g.input({4, 30}), y = g.input({30});
  const ValueId a = g.map(Step::f_mul, {x, g.scalar(2)}), b = g.map(Step::f_mul, {x, g.scalar(2)});
  g.output(g.map(Step::f_max, {g.map(Step::f_add, {a, y}), g.map(Step::f_sub, {b, g.scalar(1)})}));
  const File file = g.check();
  REQUIRE(file.lowered.operators.size() == 1);
  CHECK(program(file).instructions.size() == 4);
  CHECK(program(file).immediates.size() == 2);
  CHECK(program(file).sources.size() == 2);
}

TEST_CASE("a program stores what others read") {
  Built g;
  const ValueId x = g.input({4, 30});
  const ValueId a = g.map(Step::f_tanh, {x}), b = g.map(Step::f_mul, {a, a});
  g.output(a);
  g.output(g.add(Reduce{Reduction::sum, {1}, false}, {b}));
  const File file = g.check();
  CHECK(file.count(Kind::elementwise) == 1);
  CHECK(program(file).results.size() == 2);
}

TEST_CASE("no cycle arises: a reduction stands between") {
  Built g;
  const ValueId x = g.input({4, 30});
  const ValueId e = g.map(Step::f_tanh, {x});
  const ValueId s = g.add(Reduce{Reduction::sum, {1}, true}, {e});
  g.output(g.map(Step::f_div, {e, s}));
  const File file = g.check();
  CHECK(file.count(Kind::elementwise) == 2);
}

TEST_CASE("a few cheap steps are computed again in small readers") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 64);
  const ValueId x = g.input({batch, 5}), w = g.input({batch, 1});
  const ValueId low = g.add(Reduce{Reduction::min, {1}, true}, {x}),
                high = g.add(Reduce{Reduction::max, {1}, true}, {x});
  const ValueId span = g.map(Step::f_max, {g.map(Step::f_sub, {high, low}), g.scalar(0.01f)});
  const ValueId scaled = g.map(Step::f_div, {g.map(Step::f_sub, {x, low}), span});
  g.output(g.add(Softmax{1}, {scaled}));
  g.output(g.map(Step::f_add, {low, g.map(Step::f_mul, {span, w})}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 64}}});
  CHECK(file.count(Kind::elementwise) == 2);
}

TEST_CASE("exponentials are not computed again for each row") {
  Built g;
  const ValueId x = g.input({16, 64}), y = g.input({64});
  g.output(g.map(Step::f_mul, {x, g.map(Step::f_exp, {y})}));
  CHECK(g.check().count(Kind::elementwise) == 2);
}

TEST_CASE("iota and sizes are sources without memory") {
  Built g;
  const Expression tokens = g.dimension("tokens", 1, 20);
  const ValueId row = g.add(Reshape{{tokens, 1}}, {g.add(Iota{{tokens}, 0}, {})}),
                column = g.add(Iota{{tokens}, 0}, {});
  const ValueId mask = g.map(Step::i_less_equal, {column, row});
  const ValueId scaled = g.map(Step::i_to_f, {g.map(Step::i_mul, {column, g.add(tools::Size{tokens * 2}, {})})});
  g.output(g.map(Step::f_select, {mask, scaled, g.input({tokens, tokens})}));
  g.output(column);
  g.output(g.add(tools::Size{tokens + 1}, {}));
  const File file = g.check({{{"tokens", 1}}, {{"tokens", 20}}});
  const auto& op = file.lowered.operators;
  CHECK(std::all_of(op.begin(), op.end(), [](const LoweredOperator& o) { return o.kind == Kind::elementwise; }));
}

TEST_CASE("a program is written in the order of axes that its reader wants") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 9);
  const ValueId x = g.input({batch, 5, 8});
  const ValueId counted = g.map(Step::f_add, {x, g.map(Step::i_to_f, {g.add(Iota{{batch, 5, 8}, 1}, {})})});
  g.output(g.add(Transpose{{1, 2, 0}}, {counted}));
  const File file = g.check({{{"batch", 1}}, {{"batch", 9}}});
  CHECK(file.lowered.operators.size() == 1);
}

TEST_CASE("booleans and integers go through programs") {
  Built g;
  const ValueId a = g.input({50}, Type::boolean), i = g.input({50}, Type::i32), x = g.input({50});
  const ValueId yes = g.graph.constant("yes", Literal::of_booleans({}, {1}));
  const ValueId both =
      g.map(Step::b_xor,
            {g.map(Step::b_and,
                   {a, g.map(Step::i_less, {i, g.graph.constant("two", Literal::of({}, std::vector<int64_t>{2}))})}),
             yes});
  g.output(both);
  g.output(g.map(Step::i_select,
                 {both, i, g.graph.constant("most", Literal::of({}, std::vector<int64_t>{INT64_MAX >> 32}))}));
  g.output(g.map(Step::f_select, {both, x, g.map(Step::b_to_f, {a})}));
  CHECK(g.check().lowered.operators.size() == 1);
}

TEST_CASE("programs are cut at the kernel's limits") {
  Built g;
  std::vector<ValueId> values;
  for (int i = 0; i < 40; ++i) values.push_back(g.map(Step::f_tanh, {g.input({33})}));
  while (values.size() > 1) {  // a tree: many values alive at once
    std::vector<ValueId> next;
    for (size_t i = 0; i + 1 < values.size(); i += 2) next.push_back(g.map(Step::f_add, {values[i], values[i + 1]}));
    if (values.size() % 2 == 1) next.push_back(values.back());
    values = next;
  }
  g.output(values[0]);
  const File file = g.check();
  CHECK(file.lowered.operators.size() > 1);
  CHECK(file.lowered.operators.size() <= 8);

  Built chain;
  ValueId x = chain.input({33});
  for (int i = 0; i < 300; ++i) x = chain.map(Step::f_mul, {x, chain.scalar(1 + 0.001f * static_cast<float>(i % 7))});
  chain.output(x);
  CHECK(chain.check().lowered.operators.size() == 2);
}

TEST_CASE("random graphs of maps give what they gave before") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    Built g;
    g.random.seed(static_cast<uint32_t>(trial));
    const Expression n = g.dimension("n", 1, 6);
    const std::vector<Dims> shapes = {{}, {8}, {n, 1}, {n, 8}, {3, n, 8}};
    std::vector<ValueId> values;
    for (const Dims& dims : shapes) values.push_back(g.input(dims));
    values.push_back(g.scalar(0.5f));
    values.push_back(g.constant({8}));
    const Step steps[] = {Step::f_add,  Step::f_sub,     Step::f_mul, Step::f_max,
                          Step::f_tanh, Step::f_sigmoid, Step::f_fma, Step::f_neg};
    const int count = 5 + static_cast<int>(random() % 40);
    for (int i = 0; i < count; ++i) {
      const auto any = [&] {
        return values[random() % 2 ? random() % values.size()
                                   : values.size() - 1 - random() % std::min<size_t>(6, values.size())];
      };
      const uint32_t kind = random() % 12;
      const ValueId x = any();
      const auto rank = static_cast<int>(g.graph.value(x).dims.size());
      if (kind == 0 && rank > 0) {
        values.push_back(g.add(Reduce{Reduction::mean, {rank - 1}, true}, {x}));
      } else if (kind == 1 && rank > 0) {
        values.push_back(g.add(Softmax{rank - 1}, {x}));
      } else {
        const Step step = steps[random() % std::size(steps)];
        std::vector<ValueId> operands{x};
        while (static_cast<int>(operands.size()) < info(step).operands) operands.push_back(any());
        ValueId y = g.map(step, operands);
        if (step == Step::f_mul || step == Step::f_fma) y = g.map(Step::f_tanh, {y});  // keeps numbers around 1
        values.push_back(y);
      }
    }
    for (int i = 0; i < 5; ++i) g.output(values[values.size() - 1 - random() % std::min<size_t>(12, values.size())]);
    g.check({{{"n", 1}}, {{"n", 6}}});
  }
}

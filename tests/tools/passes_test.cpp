#include <doctest/doctest.h>

#include <ctime>

#include "tests/tools/written.h"
#include "tools/plan/narrow.h"
#include "tools/plan/programs.h"

using namespace heed;
using namespace heed::test;

namespace {

struct Fixture : Written {
  Expression batch = dimension("batch", 1, 64);
  Sizes sizes{{"batch", 3}};

  // The canonical form of y, which computes the same.
  ValueId canonical(ValueId y) {
    output(y);
    Graph before = graph;
    canonicalise(graph);
    check_same(results(graph, sizes), results(before, sizes));
    return graph.outputs[0].value;
  }
  template <class Op>
  int nodes() {
    int count = 0;
    for (const NodeId id : graph.order()) count += std::holds_alternative<Op>(graph.node(id).operation);
    return count;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "views meet and cancel") {
  const ValueId x = input("x", {batch, 4, 5, 6});
  SUBCASE("transposes") {
    CHECK(canonical(transpose(transpose(x, {0, 2, 1, 3}), {0, 2, 1, 3})) == x);
  }
  SUBCASE("reshapes") {
    CHECK(canonical(reshape(reshape(x, {4 * batch, 30}), {batch, 4, 5, 6})) == x);
  }
  SUBCASE("a transpose of axes of size 1 is a reshape") {
    const ValueId y = canonical(transpose(reshape(x, {batch, 1, 120}), {1, 0, 2}));
    CHECK(made_by<Reshape>(graph, y));
    CHECK(nodes<Transpose>() == 0);
  }
  SUBCASE("a transpose of merged axes") {
    const ValueId turned = transpose(reshape(x, {4 * batch, 5, 6}), {0, 2, 1});
    const ValueId y = canonical(transpose(reshape(turned, {batch, 4, 6, 5}), {0, 1, 3, 2}));
    CHECK(y == x);
  }
  SUBCASE("axes are split before they are turned, and meet what merged them") {
    const ValueId turned = transpose(reshape(x, {batch, 20, 6}), {2, 0, 1});
    const ValueId y = canonical(transpose(reshape(turned, {6, batch, 4, 5}), {1, 2, 3, 0}));
    CHECK(y == x);
  }
  SUBCASE("through maps") {
    const ValueId turned = transpose(x, {0, 1, 3, 2});
    const ValueId y = canonical(transpose(times(one(Step::f_exp, turned), 2), {0, 1, 3, 2}));
    CHECK(nodes<Transpose>() == 0);
    CHECK(operands_of(graph, y, Step::f_mul));
  }
  SUBCASE("two operands turned alike") {
    const ValueId a = transpose(x, {3, 2, 1, 0}), b = transpose(one(Step::f_exp, x), {3, 2, 1, 0});
    canonical(transpose(add(a, b), {3, 2, 1, 0}));
    CHECK(nodes<Transpose>() == 0);
  }
  SUBCASE("not two turned otherwise") {
    const ValueId square = input("square", {6, 6});
    canonical(add(transpose(square, {1, 0}), square));
    CHECK(nodes<Transpose>() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "a transpose goes below what treats axes alike") {
  const ValueId x = transpose(input("x", {batch, 4, 5, 6}), {0, 3, 1, 2});
  const auto turned_back = [&](ValueId y) {
    canonical(transpose(y, {0, 2, 3, 1}));
    CHECK(nodes<Transpose>() == 0);
  };
  SUBCASE("a constant for each channel") {
    turned_back(mul(x, weights({6, 1, 1})));
  }
  SUBCASE("a number for each channel that is computed") {
    turned_back(mul(x, input("scale", {batch, 6, 1, 1})));
  }
  SUBCASE("slices") {
    turned_back(add_node(Slice{{0, 1, 0, 4}, {1, 2, 1, -1}, {batch, 3, 4, 5}}, {x}));
  }
  SUBCASE("padding") {
    turned_back(add_node(Pad{{0, 1, 0, 2}, {0, 0, 3, 0}, 1}, {x}));
  }
  SUBCASE("concatenation") {
    turned_back(add_node(Concat{1}, {x, one(Step::f_exp, x)}));
  }
  SUBCASE("a reduction") {
    turned_back(add_node(Reduce{Reduction::mean, {2, 3}, true}, {x}));
  }
  SUBCASE("a reduction that drops axes") {
    canonical(add_node(Reduce{Reduction::mean, {1, 3}, false}, {x}));
    CHECK(nodes<Transpose>() == 0);
  }
  SUBCASE("not a concatenation with what lies otherwise") {
    canonical(add_node(Concat{1}, {x, input("z", {batch, 6, 4, 5})}));
    CHECK(nodes<Transpose>() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "axes of size 1 that a map broadcasts over are no obstacle") {
  const ValueId x = transpose(input("x", {batch, 5, 1, 6}), {0, 3, 1, 2});
  const ValueId y = add(reshape(x, {batch, 6, 5}), weights({1, 6, 1}));
  const ValueId form = canonical(y);
  CHECK(made_by<Reshape>(graph, form));
}

TEST_CASE_FIXTURE(Fixture, "what scales and shifts a convolution is in its weights") {
  const ValueId x = input("x", {batch, 9, 4});
  const ValueId conv = add_node(Conv{{{3, 1, 1, 1, 1}}}, {x, weights({3, 4, 6})});
  SUBCASE("batch normalisation after a bias") {
    canonical(add(mul(add(conv, weights({6})), weights({6})), weights({1, 1, 6})));
    CHECK(graph.order().size() == 2);
  }
  SUBCASE("a number") {
    canonical(over(conv, 3));
    CHECK(graph.order().size() == 1);
  }
  SUBCASE("not a factor for each position") {
    canonical(mul(conv, weights({9, 1})));
    CHECK(graph.order().size() == 2);
  }
}

TEST_CASE_FIXTURE(Fixture, "exp of a log-softmax is a softmax; weights come first in their product") {
  const ValueId x = input("x", {batch, 4, 5}), values = input("values", {batch, 6, 5});
  const ValueId weights = one(Step::f_exp, add_node(Softmax{2, true}, {x}));
  canonical(matmul(values, transpose(weights, {0, 2, 1})));
  CHECK(nodes<Map>() == 0);
  CHECK(nodes<Softmax>() == 1);
  for (const NodeId id : graph.order())
    if (std::holds_alternative<Matmul>(graph.node(id).operation))
      CHECK(made_by<Softmax>(graph, graph.node(id).inputs[0]));
}

TEST_CASE_FIXTURE(Fixture, "what broadcasts need not be expanded") {
  const ValueId x = input("x", {batch, 4, 5}), row = input("row", {5});
  SUBCASE("an operand") {
    canonical(add(x, expand(row, {batch, 4, 5})));
    CHECK(nodes<Expand>() == 0);
  }
  SUBCASE("unless it makes the size") {
    canonical(add(reshape(expand(row, {4, 5}), {1, 4, 5}), input("z", {1, 1, 5})));
    CHECK(nodes<Expand>() == 1);
  }
  SUBCASE("batches of a product") {
    canonical(matmul(x, expand(input("b", {5, 7}), {batch, 5, 7})));
    CHECK(nodes<Expand>() == 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "arithmetic") {
  const ValueId x = input("x", {batch, 8});
  SUBCASE("nothing") {
    CHECK(canonical(over(times(plus(x, 0), 1), 1)) == x);
  }
  SUBCASE("a neutral operand that makes the shape stays") {
    CHECK(canonical(add(number(0, {4, 1, 1}), x)) != x);
  }
  SUBCASE("powers") {
    const ValueId y = canonical(pow(x, 2));
    REQUIRE(operands_of(graph, y, Step::f_mul));
    CHECK((*operands_of(graph, y, Step::f_mul))[0] == x);
  }
  SUBCASE("a mean") {
    const ValueId y = canonical(times(reduce(Reduction::sum, x), 0.125f));
    REQUIRE(made_by<Reduce>(graph, y));
    CHECK(made_by<Reduce>(graph, y)->kind == Reduction::mean);
  }
  SUBCASE("a sum of squares") {
    const ValueId y = canonical(reduce(Reduction::sum, pow(x, 2)));
    CHECK(made_by<Reduce>(graph, y)->kind == Reduction::sum_square);
    CHECK(producer(graph, y)->inputs[0] == x);
  }
  SUBCASE("negations") {
    const ValueId z = input("z", {batch, 8});
    const ValueId y = canonical(add(one(Step::f_neg, x), z));
    REQUIRE(operands_of(graph, y, Step::f_sub));
    CHECK(*operands_of(graph, y, Step::f_sub) == std::vector<ValueId>{z, x});
  }
  SUBCASE("equal nodes are one") {
    canonical(add(one(Step::f_exp, times(x, 2)), one(Step::f_exp, times(x, 2))));
    CHECK(graph.order().size() == 3);
  }
}

TEST_CASE_FIXTURE(Fixture, "reductions keep their axes, and reshapes of size 1 go below them") {
  const ValueId x = input("x", {batch, 4, 5});
  SUBCASE("one that drops its axis") {
    const ValueId y = canonical(add_node(Reduce{Reduction::max, {1}, false}, {x}));
    CHECK(made_by<Reshape>(graph, y));
    CHECK(made_by<Reduce>(graph, producer(graph, y)->inputs[0])->keep);
  }
  SUBCASE("a view with other axes of size 1") {
    const ValueId wide = reshape(x, {batch, 1, 4, 1, 5});
    const ValueId y = canonical(add_node(Reduce{Reduction::mean, {1, 2}, true}, {wide}));
    const ValueId mean = producer(graph, y)->inputs[0];
    CHECK(producer(graph, mean)->inputs[0] == x);
    CHECK(made_by<Reduce>(graph, mean)->axes == std::vector<int>{1});
  }
  SUBCASE("but not a view that merges axes") {
    const ValueId y = canonical(add_node(Reduce{Reduction::mean, {1}, true}, {reshape(x, {batch, 20})}));
    CHECK(made_by<Reduce>(graph, y));
  }
  SUBCASE("an operand of a map that has an axis too many") {
    const ValueId y = canonical(mul(reshape(x, {1, batch, 4, 5}), input("z", {batch, 1, 5})));
    CHECK(made_by<Reshape>(graph, y));
    CHECK(operands_of(graph, producer(graph, y)->inputs[0], Step::f_mul));
  }
  SUBCASE("the largest of x and -inf") {
    CHECK(canonical(map(Step::f_max, {number(-INFINITY), x})) == x);
  }
}

TEST_CASE_FIXTURE(Fixture, "maps of a table's rows are in the table, where it is the smaller one") {
  const ValueId x = input("x", {batch, 9});
  const ValueId index = one(Step::f_to_i, mul(x, x));
  const auto rows = [&](int64_t entries) { return add_node(Gather{0}, {weights({entries, 3}), index}); };
  SUBCASE("a row and a number") {
    const ValueId y = canonical(times(add(rows(9), weights({1, 3})), 2));
    CHECK(made_by<Gather>(graph, y));
  }
  SUBCASE("a column is none of its") {
    const ValueId y = canonical(add(rows(9), weights({9, 1})));
    CHECK(operands_of(graph, y, Step::f_add));
  }
  SUBCASE("a large table") {
    const ValueId y = canonical(times(rows(10), 2));
    CHECK(operands_of(graph, y, Step::f_mul));
  }
  SUBCASE("rows that others read too") {
    const ValueId both = rows(9);
    const ValueId y = canonical(mul(one(Step::f_exp, both), one(Step::f_tanh, both)));
    CHECK(operands_of(graph, y, Step::f_mul));
  }
}

TEST_CASE_FIXTURE(Fixture, "selects and booleans") {
  const ValueId x = input("x", {batch, 8}), mask = input("mask", {batch, 8}, Type::boolean);
  SUBCASE("double negation through numbers") {
    const ValueId not_mask = map(Step::f_equal, {one(Step::b_to_f, mask), number(0)});
    const ValueId y = canonical(select(not_mask, number(-1), x));
    REQUIRE(operands_of(graph, y, Step::f_select));
    CHECK((*operands_of(graph, y, Step::f_select))[0] == mask);
    CHECK((*operands_of(graph, y, Step::f_select))[1] == x);
  }
  SUBCASE("a condition that is known") {
    const ValueId always = graph.constant("t", Literal::of_booleans({1}, {1}));
    CHECK(canonical(select(always, x, number(0))) == x);
  }
}

TEST_CASE_FIXTURE(Fixture, "indices at equal distances are slices") {
  const ValueId x = input("x", {batch, 8});
  const auto gather = [&](std::vector<int64_t> dims, std::vector<int64_t> places) {
    return add_node(Gather{1}, {x, graph.constant("i", Literal::of(std::move(dims), std::move(places)))});
  };
  SUBCASE("one") {
    canonical(gather({}, {-1}));
  }
  SUBCASE("every other, backwards") {
    canonical(gather({3}, {7, 5, 3}));
  }
  SUBCASE("any") {
    canonical(gather({3}, {7, 5, 4}));
    CHECK(nodes<Gather>() == 1);
    return;
  }
  CHECK(nodes<Gather>() == 0);
  CHECK(nodes<Slice>() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a recurrent layer that starts from zeros has no initial state") {
  const ValueId x = input("x", {5, batch, 3});
  const ValueId zeros = expand(number(0, {1, 1, 1}), {2, batch, 4});
  const ValueId state = add_node(Slice{{1, 0, 0}, {1, 1, 1}, {1, batch, 4}}, {zeros});
  const NodeId lstm = graph.add(Recurrent{Cell::lstm, Direction::forward, false, 4},
                                {x, weights({1, 16, 3}), weights({1, 16, 4}), no_value, state, state}, "lstm");
  output(graph.node(lstm).outputs[0]);
  Report report;
  optimise(graph, report);
  const Node& node = graph.node(lstm);
  CHECK(node.inputs[4] == no_value);
  CHECK(node.inputs[5] == no_value);
  CHECK(node.outputs[1] == no_value);
  CHECK(node.outputs[2] == no_value);
  CHECK(graph.order().size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "gathers by an index that counts are slices") {
  const Expression tokens = dimension("tokens", 1, 100);
  sizes["tokens"] = 7;
  const ValueId table = weights({512, 4});
  const auto number = [&](int64_t value) { return graph.constant("k", Literal::of({}, std::vector<int64_t>{value})); };
  const auto gather = [&](ValueId from, ValueId index, int axis = 0) { return add_node(Gather{axis}, {from, index}); };
  const ValueId position = add_node(Iota{{tokens}, 0}, {});
  SUBCASE("positions from a table") {
    const ValueId y = canonical(gather(table, reshape(position, {1, tokens})));
    CHECK(nodes<Gather>() == 0);
    CHECK(nodes<Slice>() == 1);
    CHECK(graph.value(y).dims == Dims{1, tokens, 4});
    CHECK(graph.constraints.empty());
  }
  SUBCASE("every position of an input is the input") {
    const ValueId x = input("x", {tokens, 3});
    CHECK(canonical(gather(x, position)) == x);
  }
  SUBCASE("an offset, and a constraint where the table could end") {
    canonical(gather(table, map(Step::i_add, {position, number(420)})));
    CHECK(nodes<Slice>() == 1);
    REQUIRE(graph.constraints.size() == 1);
    CHECK(graph.constraints[0].left == tokens + 419);
    CHECK(graph.constraints[0].right == Expression(511));
  }
  SUBCASE("backwards, along another axis") {
    const ValueId x = input("x", {batch, tokens});
    const ValueId last = add_node(tools::Size{tokens - 1}, {});
    canonical(gather(x, map(Step::i_sub, {last, position}), 1));
    CHECK(nodes<Gather>() == 0);
  }
  SUBCASE("as GatherND counts, from the end where an index is negative") {
    const ValueId x = input("x", {1, tokens}), size = add_node(tools::Size{tokens}, {});
    const auto from_end = [&](ValueId index) {
      return map(Step::i_select, {map(Step::i_less, {index, number(0)}), map(Step::i_add, {index, size}), index});
    };
    const ValueId row = expand(number(0), {tokens}), column = map(Step::i_max, {number(0), position});
    const ValueId place = map(Step::i_add, {map(Step::i_mul, {from_end(row), size}), from_end(column)});
    canonical(gather(reshape(x, {tokens}), place));
    CHECK(nodes<Gather>() + nodes<Map>() == 0);
  }
  SUBCASE("rows and columns of a table seen as one axis, of open sizes") {
    const ValueId x = input("x", {batch, tokens}), size = add_node(tools::Size{tokens}, {});
    const ValueId row = add_node(Iota{{batch, 1, 1}, 0}, {}), column = reshape(position, {1, 1, tokens});
    const ValueId place = map(Step::i_add, {map(Step::i_mul, {row, size}), column});
    const ValueId y = canonical(gather(reshape(x, {batch * tokens}), place));
    CHECK(nodes<Gather>() + nodes<Map>() == 0);
    CHECK(made_by<Reshape>(graph, y));
    CHECK(producer(graph, y)->inputs[0] == x);
  }
  SUBCASE("columns before rows stay") {
    const ValueId x = input("x", {tokens, batch}), size = add_node(tools::Size{batch}, {});
    const ValueId row = add_node(Iota{{batch, 1}, 0}, {}), column = reshape(position, {1, tokens});
    canonical(gather(reshape(x, {batch * tokens}), map(Step::i_add, {map(Step::i_mul, {column, size}), row})));
    CHECK(nodes<Gather>() == 1);
  }
  SUBCASE("one place again and again") {
    canonical(gather(table, expand(number(3), {tokens})));
    CHECK(nodes<Gather>() == 0);
  }
  SUBCASE("sums of sums are looked at once") {
    ValueId index = map(Step::i_sub, {position, position});
    for (int level = 0; level < 60; ++level) index = map(Step::i_add, {index, index});
    canonical(gather(table, index));
    CHECK(nodes<Gather>() == 0);
  }
  SUBCASE("what does not count stays") {
    canonical(gather(table, map(Step::i_mul, {position, position})));
    CHECK(nodes<Gather>() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "a slice within one operand of a concatenation") {
  const ValueId x = input("x", {batch, 4}), y = input("y", {batch, 3});
  const ValueId both = add_node(Concat{1}, {x, y});
  const auto part = [&](int64_t start, int64_t step, int64_t size) {
    return canonical(add_node(Slice{{0, start}, {1, step}, {batch, size}}, {both}));
  };
  SUBCASE("all of the second") {
    CHECK(part(4, 1, 3) == y);
  }
  SUBCASE("some of the first, backwards") {
    CHECK(producer(graph, part(3, -2, 2))->inputs[0] == x);
  }
  SUBCASE("across both") {
    CHECK(producer(graph, part(3, 1, 2))->inputs[0] == both);
  }
}

TEST_CASE_FIXTURE(Fixture, "steps of a tensor that are stacked again") {
  const ValueId x = input("x", {batch, 6, 4});
  const auto step = [&](int64_t t) { return add_node(Slice{{0, t, 0}, {1, 1, 1}, {batch, 1, 4}}, {x}); };
  const auto stack = [&](std::vector<int64_t> times, Dims each, int axis) {
    std::vector<ValueId> steps;
    for (const int64_t t : times) steps.push_back(reshape(step(t), each));
    return canonical(add_node(Concat{axis}, steps));
  };
  SUBCASE("where they were") {
    CHECK(stack({0, 1, 2, 3, 4, 5}, {batch, 1, 4}, 1) == x);
  }
  SUBCASE("in front") {
    const ValueId y = stack({0, 1, 2, 3, 4, 5}, {1, batch, 4}, 0);
    CHECK(made_by<Transpose>(graph, y));
    CHECK(producer(graph, y)->inputs[0] == x);
  }
  SUBCASE("behind, with an axis more, every other one, backwards") {
    stack({5, 3, 1}, {batch, 1, 4, 1}, 3);
    CHECK(nodes<Concat>() == 0);
    CHECK(nodes<Slice>() == 1);
  }
  SUBCASE("at distances that differ") {
    stack({0, 1, 3}, {batch, 1, 4}, 1);
    CHECK(nodes<Concat>() == 1);
  }
  SUBCASE("along another axis, each as it was") {
    stack({0, 1, 2}, {batch, 1, 4}, 2);
    CHECK(nodes<Concat>() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "zeros times weights") {
  const ValueId zeros = expand(number(0), {batch, 4});
  SUBCASE("are zeros") {
    canonical(add(input("x", {batch, 3}), matmul(zeros, weights({4, 3}))));
    CHECK(nodes<Matmul>() == 0);
  }
  SUBCASE("unless one is infinite") {
    canonical(add(input("x", {batch, 3}), matmul(zeros, number(INFINITY, {4, 3}))));
    CHECK(nodes<Matmul>() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "a rotation is done before a transpose") {
  const ValueId x = input("x", {batch, 5, 3, 8}), cos = input("cos", {5, 6}), sin = input("sin", {batch, 1, 5, 6});
  const ValueId turned = add_node(Rope{Pairing::half}, {transpose(x, {0, 2, 1, 3}), cos, sin});
  const ValueId y = canonical(transpose(turned, {0, 2, 1, 3}));
  CHECK(made_by<Rope>(graph, y));
  CHECK(producer(graph, y)->inputs[0] == x);
}

TEST_CASE("functions of positions that are others at one size are no tables") {
  Written w;
  const Expression t = w.dimension("t", 1, 64);
  const ValueId odd = w.map(Step::i_equal, {w.add_node(tools::Size{t}, {}),
                                            w.graph.constant("k", Literal::of({}, std::vector<int64_t>{13}))});
  const ValueId scale = w.select(odd, w.number(0.5f), w.number(1));
  const ValueId angle = w.mul(w.one(Step::i_to_f, w.add_node(Iota{{t}, 0}, {})), scale);
  w.output(w.add(w.input("x", {t}), w.one(Step::f_cos, angle)));
  Optimised done(w, {{"t", 13}});
  CHECK(done.nodes<Slice>() == 0);
}

TEST_CASE("functions of positions are tables") {
  Written w;
  const Expression tokens = w.dimension("tokens", 1, 40);
  const ValueId x = w.input("x", {tokens, 8}), position = w.one(Step::i_to_f, w.add_node(Iota{{tokens, 1}, 0}, {}));
  ValueId angle = w.mul(position, w.weights({4}));
  int tables = 2;
  SUBCASE("that begin alike at every size") {}
  SUBCASE("of the size too") {
    angle = w.div(angle, w.one(Step::i_to_f, w.add_node(heed::tools::Size{tokens}, {})));
    tables = 0;
  }
  const auto both = [&](Step step) { return w.add_node(Concat{1}, {w.one(step, angle), w.one(step, angle)}); };
  w.output(w.add(w.mul(x, both(Step::f_cos)), both(Step::f_sin)));
  Optimised done(w, {{"tokens", 9}});
  CHECK(done.nodes<Slice>() == tables);
  CHECK((done.nodes<Iota>() == 0) == (tables > 0));
}

TEST_CASE("the time grows with the nodes of an unrolled loop, not with their square") {
  const auto seconds = [](int64_t steps) {
    Written w;
    const ValueId x = w.input("x", {steps, 8}), from_x = w.weights({8, 16}), from_h = w.weights({8, 16});
    ValueId h = w.input("h", {1, 8});
    for (int64_t t = 0; t < steps; ++t) {
      const ValueId now = w.add_node(Slice{{t, 0}, {1, 1}, {1, 8}}, {x});
      const ValueId gates = w.add(w.matmul(now, from_x), w.matmul(h, from_h));
      const auto part = [&](int64_t i) { return w.add_node(Slice{{0, i * 8}, {1, 1}, {1, 8}}, {gates}); };
      const ValueId open = w.over(w.number(1), 1 + 0.01f * static_cast<float>(t));
      h = w.add(w.mul(w.one(Step::f_sigmoid, part(0)), w.one(Step::f_exp, w.one(Step::f_neg, part(1)))),
                w.mul(h, open));
    }
    w.output(h);
    Report report;
    const std::clock_t start = std::clock();
    optimise(w.graph, report);
    narrow(w.graph);
    make_programs(w.graph);
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  };
  seconds(50);
  const double few = seconds(100), many = seconds(800);
  CHECK(many < 20 * few);  // 8 times the nodes; their square would be 64 times the time
}

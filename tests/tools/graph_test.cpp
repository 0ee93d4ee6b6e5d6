#include "tools/graph/graph.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tools/error.h"

using namespace heed;
using namespace heed::tools;

namespace {

struct Fixture {
  Graph graph;
  Expression batch = dimension("batch", 1, 64), tokens = dimension("tokens", 1, 512);

  Expression dimension(const std::string& name, int64_t lower, int64_t upper) {
    graph.dimensions[name] = {name, lower, upper};
    return Expression::dimension(name);
  }
  ValueId input(Dims dims, Type type = Type::f32) {
    const ValueId id = graph.input("x", type, std::move(dims));
    graph.inputs.push_back({"x", id, 1});
    return id;
  }
  ValueId integers(std::vector<int64_t> values) {
    const auto count = static_cast<int64_t>(values.size());
    return graph.constant("c", Literal::of({count}, std::move(values)));
  }
  // The shape of a tensor, as a lowering of ONNX's Shape makes it.
  ValueId shape(const Dims& dims) {
    std::vector<ValueId> parts;
    for (const Expression& dim : dims)
      parts.push_back(graph.add_value(Reshape{{1}}, {graph.add_value(tools::Size{dim}, {}, "size")}, "size"));
    return graph.add_value(Concat{0}, parts, "shape");
  }
  Dims symbols(ValueId id) const { return graph.value(id).symbols.value_or(Dims{}); }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "constants fold at once") {
  const ValueId a = graph.constant("a", Literal::of({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}));
  const ValueId turned = graph.add_value(Transpose{{1, 0}}, {a}, "turn");
  REQUIRE(graph.value(turned).constant);
  const auto floats = graph.value(turned).constant->floats();
  CHECK(std::vector<float>(floats.begin(), floats.end()) == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(graph.value(turned).producer == -1);
}

TEST_CASE_FIXTURE(Fixture, "a constant is not repeated in the file") {
  const ValueId row = graph.constant("row", Literal::of({1, 64}, std::vector<float>(64, 1.0f)));
  CHECK(!graph.value(graph.add_value(Expand{{4096, 64}}, {row}, "repeat")).constant);
  CHECK(graph.value(graph.add_value(Expand{{4, 64}}, {row}, "repeat")).constant);
}

TEST_CASE_FIXTURE(Fixture, "what changes nothing is its operand") {
  const ValueId x = input({batch, 5, 8});
  CHECK(graph.add_value(Reshape{{batch, 5, 8}}, {x}, "n") == x);
  CHECK(graph.add_value(Transpose{{0, 1, 2}}, {x}, "n") == x);
  CHECK(graph.add_value(Slice{{0, 0, 0}, {1, 1, 1}, {batch, 5, 8}}, {x}, "n") == x);
  CHECK(graph.add_value(Expand{{1, 1, 8}}, {x}, "n") == x);
  CHECK(graph.add_value(Concat{1}, {x}, "n") == x);
  CHECK(graph.add_value(Pad{{0, 0, 0}, {0, 0, 0}, 1}, {x}, "n") == x);
  CHECK(graph.add_value(Slice{{0, 4, 0}, {1, -1, 1}, {batch, 5, 8}}, {x}, "n") != x);
}

TEST_CASE_FIXTURE(Fixture, "shape arithmetic is followed as expressions") {
  // What dynamo writes to turn K: Shape, Slice, Concat, and what TorchScript writes for a view.
  const ValueId whole = shape({batch, 4, tokens, 16});
  const ValueId lead = graph.add_value(Slice{{0}, {1}, {2}}, {whole}, "lead");
  const ValueId folded = graph.add_value(Reduce{Reduction::product, {0}, true}, {lead}, "product");
  CHECK(symbols(folded) == Dims{4 * batch});
  const ValueId tail = graph.add_value(Slice{{3}, {-1}, {2}}, {whole}, "tail");
  CHECK(symbols(graph.add_value(Concat{0}, {folded, tail}, "joined")) == Dims{4 * batch, 16, tokens});
  const ValueId half = graph.add_value(Map{Step::i_div}, {folded, integers({2})}, "half");
  CHECK(symbols(half) == Dims{2 * batch});
  // A single size is a Size, whatever led to it.
  CHECK(std::holds_alternative<Reshape>(graph.node(graph.value(half).producer).operation));
  // What is no dimension any more is a constant.
  const ValueId heads = graph.add_value(Gather{0}, {whole, integers({1})}, "heads");
  REQUIRE(graph.value(heads).constant);
  CHECK(graph.value(heads).constant->integers()[0] == 4);
  const ValueId ratio =
      graph.add_value(Map{Step::i_div}, {folded, graph.add_value(Gather{0}, {whole, integers({0})}, "b")}, "r");
  CHECK(graph.value(ratio).constant);
}

TEST_CASE_FIXTURE(Fixture, "comparisons of sizes are decided by their ranges") {
  const ValueId sizes = shape({batch, tokens});
  // ONNX exporters write Where(shape == -1, 1, shape) before an Expand.
  const ValueId unset = graph.add_value(Map{Step::i_equal}, {sizes, integers({-1})}, "unset");
  REQUIRE(graph.value(unset).constant);
  const ValueId chosen = graph.add_value(Map{Step::i_select}, {unset, integers({1, 1}), sizes}, "chosen");
  CHECK(symbols(chosen) == Dims{batch, tokens});
  CHECK(!graph.value(graph.add_value(Map{Step::i_less}, {sizes, integers({7})}, "open")).constant);
  CHECK(symbols(graph.add_value(Map{Step::i_min}, {sizes, integers({512})}, "min"))[1] == tokens);
}

TEST_CASE_FIXTURE(Fixture, "two names that meet are one dimension, everywhere") {
  const Expression other = dimension("sequence", 5, 1000);
  const ValueId a = input({batch, tokens}), b = input({batch, other});
  const ValueId reshaped = graph.add_value(Reshape{{other, batch}}, {b}, "reshape");
  const ValueId sum = graph.add_value(Map{Step::f_add}, {a, b}, "sum");
  CHECK(graph.value(sum).dims == Dims{batch, tokens});
  CHECK(graph.value(b).dims == Dims{batch, tokens});
  CHECK(graph.value(reshaped).dims == Dims{tokens, batch});
  CHECK(graph.dimensions.count("sequence") == 0);
  CHECK(graph.dimensions.at("tokens").lower == 5);
  CHECK(graph.dimensions.at("tokens").upper == 512);
  REQUIRE(graph.notes.size() == 1);
  CHECK(graph.notes[0].find("'tokens' and 'sequence' are one dimension") != std::string::npos);
  // So are names in two sums with the same rest.
  const Expression past = dimension("past", 0, 9), before = dimension("before", 1, 8);
  graph.unify(tokens + past, before + tokens, "cache");
  CHECK(graph.constraints.empty());
  CHECK(graph.dimensions.count("before") + graph.dimensions.count("past") == 1);
  CHECK(graph.current(past) == graph.current(before));
  // An expression from before is renewed where it is used.
  CHECK(graph.value(graph.add_value(Expand{{other, batch, other}}, {a}, "late")).dims == Dims{tokens, batch, tokens});
}

TEST_CASE_FIXTURE(Fixture, "sizes that are the same up to some size bound their dimension") {
  const Expression few = Expression::minimum(tokens, 100);
  const ValueId a = input({batch, tokens}), b = input({batch, few});
  const ValueId sum = graph.add_value(Map{Step::f_add}, {a, b}, "sum");
  CHECK(graph.value(sum).dims == Dims{batch, tokens});
  CHECK(graph.value(b).dims == Dims{batch, tokens});
  CHECK(graph.dimensions.at("tokens").upper == 100);
  CHECK(graph.constraints.empty());
  REQUIRE(graph.notes.size() == 1);
  CHECK(graph.notes[0].find("'tokens' is 100 at most") != std::string::npos);
  // An expression from before is the same now.
  graph.unify(few, tokens, "late");
  CHECK(graph.notes.size() == 1);
  // From some size on: a constraint, once.
  const Expression many = Expression::maximum(tokens, 10);
  for (int i = 0; i < 2; ++i) graph.unify(many, tokens, "here");
  CHECK(graph.constraints.size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a dimension that meets a number or an expression takes its place, within its range") {
  const ValueId x = input({batch, tokens});
  graph.add(Map{Step::f_add}, {x, graph.constant("c", Literal::of({5}, std::vector<float>(5)))}, "sum");
  CHECK(graph.value(x).dims == Dims{batch, 5});
  CHECK_THROWS_AS(graph.unify(batch, 65, "here"), Error);
  const Expression n = dimension("n", 1, 100), m = dimension("m", 1, 100);
  graph.unify(n, 2 * m, "here");
  CHECK(graph.current(n) == 2 * m);
  REQUIRE(graph.constraints.size() == 1);  // 2 * m <= 100
  CHECK(graph.constraints[0].left == 2 * m);
  CHECK(graph.constraints[0].right == 100);
  graph.unify(m * batch, 3 * batch * batch, "there");
  CHECK(graph.constraints.size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "order holds what the outputs need, operands first") {
  const ValueId x = input({4});
  const ValueId a = graph.add_value(Map{Step::f_exp}, {x}, "a");
  const ValueId unused = graph.add_value(Map{Step::f_log}, {x}, "unused");
  const ValueId b = graph.add_value(Map{Step::f_add}, {a, x}, "b");
  graph.outputs.push_back({"y", b, 1});
  std::vector<std::string> names;
  for (const NodeId id : graph.order()) names.push_back(graph.node(id).name);
  CHECK(names == std::vector<std::string>{"a", "b"});
  CHECK(graph.node(graph.value(unused).producer).dead);
  CHECK(graph.readers(x).size() == 2);
  CHECK(graph.readers(b) == std::vector<NodeId>{-1});
  graph.replace(b, a);
  CHECK(graph.outputs[0].value == a);
}

TEST_CASE_FIXTURE(Fixture, "what nobody reads is dropped, readers before operands") {
  const ValueId x = input({4});
  const ValueId a = graph.add_value(Map{Step::f_exp}, {x}, "a"), b = graph.add_value(Map{Step::f_log}, {a}, "b");
  const ValueId c = graph.add_value(Map{Step::f_add}, {b, a}, "c");
  graph.outputs.push_back({"y", c, 1});
  graph.order();
  const ValueId d = graph.add_value(Map{Step::f_neg}, {x}, "d");
  CHECK(graph.readers(a) == std::vector<NodeId>{1, 2});
  graph.replace(b, d);
  graph.drop(std::vector<NodeId>{0, 1});
  CHECK(graph.node(1).dead);
  CHECK(!graph.node(0).dead);  // c reads it too
  CHECK(graph.readers(a) == std::vector<NodeId>{2});
  CHECK(graph.readers(d) == std::vector<NodeId>{2});
  graph.replace(c, d);
  graph.drop(std::vector<NodeId>{0, 1, 2, 3});
  CHECK(graph.node(0).dead);
  CHECK(!graph.node(3).dead);
  CHECK(graph.readers(d) == std::vector<NodeId>{-1});
}

TEST_CASE_FIXTURE(Fixture, "what depends on data is known at each value") {
  const ValueId x = input({tokens});
  const ValueId counted = graph.add_value(Map{Step::i_to_f}, {graph.add_value(Iota{{tokens}, 0}, {}, "iota")}, "f");
  const ValueId a = graph.add_value(Map{Step::f_exp}, {x}, "a"), b = graph.add_value(Map{Step::f_add}, {a, a}, "b");
  CHECK(graph.value(x).data);
  CHECK(graph.value(b).data);
  CHECK(!graph.value(counted).data);
  CHECK(!graph.value(integers({1})).data);
  graph.replace(a, counted);
  CHECK(!graph.value(b).data);
  graph.replace(counted, x);
  CHECK(graph.value(b).data);
}

TEST_CASE_FIXTURE(Fixture, "a refused node leaves the graph as it was") {
  const ValueId x = input({4, 5});
  const size_t nodes = graph.node_count();
  CHECK_THROWS_AS(graph.add(Matmul{}, {x, x}, "product"), Error);
  CHECK(graph.node_count() == nodes);
}

#include <doctest/doctest.h>

#include "tests/tools/written.h"

using namespace heed;
using namespace heed::test;

namespace {

const float infinity = INFINITY;

// --- Attention -------------------------------------------------------------------------------------------------------

struct Heads : Written {
  Expression batch = dimension("batch", 1, 64), queries = dimension("queries", 1, 32), keys = dimension("keys", 1, 32);
  Sizes sizes{{"batch", 2}, {"queries", 5}, {"keys", 7}};
  ValueId q = input("q", {batch, 4, queries, 16}), k = input("k", {batch, 4, keys, 16}),
          v = input("v", {batch, 4, keys, 8});

  ValueId turned(ValueId x) { return transpose(x, {0, 1, 3, 2}); }
  ValueId scores() { return over(matmul(q, turned(k)), 4); }
  void end(ValueId scores) { output(matmul(softmax(scores), v)); }

  // One attention and nothing else but views of its operands.
  const Node& fused(Optimised& done) {
    CHECK(done.fused("attention") == 1);
    CHECK(done.report.missed.empty());
    CHECK(done.nodes<Softmax>() == 0);
    CHECK(done.nodes<Matmul>() == 0);
    const Node& node = done.the<Attention>();
    CHECK(done.attributes<Attention>().scale == doctest::Approx(0.25));
    REQUIRE(node.mark);
    CHECK(node.mark->queries == "q");
    CHECK(node.mark->keys == "k");
    return node;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Heads, "attention: a scale on the scores") {
  SUBCASE("divided") {
    end(over(matmul(q, turned(k)), 4));
  }
  SUBCASE("multiplied") {
    end(times(matmul(q, turned(k)), 0.25f));
  }
  SUBCASE("as a tensor of one element") {
    end(map(Step::f_mul, {number(0.25f, {1}), matmul(q, turned(k))}));
  }
  SUBCASE("on the queries") {
    end(matmul(times(q, 0.25f), turned(k)));
  }
  SUBCASE("on the keys, before and after they are turned") {
    end(matmul(q, times(turned(times(k, 0.5f)), 0.5f)));
  }
  SUBCASE("split over both") {
    end(matmul(times(q, 0.5f), times(turned(k), 0.5f)));
  }
  SUBCASE("under a negation") {
    end(one(Step::f_neg, matmul(q, times(turned(k), -0.25f))));
  }
  Optimised done(*this, sizes);
  const Node& node = fused(done);
  CHECK(node.inputs == std::vector<ValueId>{q, k, v});
  CHECK(std::find(node.absorbed.begin(), node.absorbed.end(), "n1") != node.absorbed.end());
}

TEST_CASE_FIXTURE(Heads, "attention: keys turned through three dimensions") {
  const ValueId flat = transpose(reshape(k, {4 * batch, keys, 16}), {0, 2, 1});
  end(matmul(times(q, 0.5f), times(reshape(flat, {batch, 4, 16, keys}), 0.5f)));
  Optimised done(*this, sizes);
  CHECK(fused(done).inputs == std::vector<ValueId>{q, k, v});
}

TEST_CASE("attention: any number of leading axes") {
  Written w;
  Dims lead;
  SUBCASE("none") {}
  SUBCASE("a batch") {
    lead = {w.dimension("batch", 1, 8)};
  }
  SUBCASE("three") {
    lead = {w.dimension("batch", 1, 8), 2, 3};
  }
  const auto shape = [&](int64_t time, int64_t channels) {
    Dims dims = lead;
    dims.insert(dims.end(), {Expression(time), Expression(channels)});
    return dims;
  };
  const ValueId q = w.input("q", shape(5, 8)), k = w.input("k", shape(4, 8)), v = w.input("v", shape(4, 6));
  std::vector<int> swap(lead.size() + 2);
  for (size_t i = 0; i < swap.size(); ++i) swap[i] = static_cast<int>(i);
  std::swap(swap[lead.size()], swap[lead.size() + 1]);
  w.output(w.matmul(w.softmax(w.times(w.matmul(q, w.transpose(k, swap)), 0.3f)), v));
  Optimised done(w, {{"batch", 3}});
  CHECK(done.fused("attention") == 1);
  CHECK(done.attributes<Attention>().scale == doctest::Approx(0.3));
}

TEST_CASE_FIXTURE(Heads, "attention: causal masks, however they are made") {
  const auto hidden = [&] { return one(Step::b_not, causal(queries, keys)); };
  SUBCASE("a select with -inf") {
    end(select(causal(queries, keys), scores(), number(-infinity)));
  }
  SUBCASE("its inverse") {
    end(select(hidden(), number(-infinity), scores()));
  }
  SUBCASE("a sum with 0 and -inf") {
    end(add(scores(), select(causal(queries, keys), number(0), number(-infinity))));
  }
  SUBCASE("a sum with a large number") {
    end(add(scores(), times(one(Step::b_to_f, hidden()), -3.4028235e38f)));
  }
  SUBCASE("before the scale") {
    end(over(select(causal(queries, keys), matmul(q, turned(k)), number(-infinity)), 4));
  }
  SUBCASE("expanded to every head") {
    const ValueId mask = expand(reshape(causal(queries, keys), {1, 1, queries, keys}), {batch, 4, queries, keys});
    end(select(mask, scores(), number(-infinity)));
  }
  Optimised done(*this, sizes);
  const Node& node = fused(done);
  CHECK(node.inputs == std::vector<ValueId>{q, k, v});
  CHECK(done.attributes<Attention>().causal);
  CHECK(done.attributes<Attention>().offset == 0);
}

TEST_CASE_FIXTURE(Heads, "attention: a constant causal mask") {
  graph.unify(queries, 6, "test");
  graph.unify(keys, 6, "test");
  std::vector<float> mask(36, 0.0f);
  for (size_t i = 0; i < 36; ++i)
    if (i % 6 > i / 6) mask[i] = -infinity;
  end(add(scores(), graph.constant("mask", Literal::of({1, 1, 6, 6}, mask))));
  Optimised done(*this, {{"batch", 2}});
  CHECK(fused(done).inputs.size() == 3);
  CHECK(done.attributes<Attention>().causal);
}

TEST_CASE_FIXTURE(Heads, "attention: the last query sees every key") {
  // Queries end where the keys end: key <= query + (keys - queries).
  const Expression offset = keys - queries;
  const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
  const ValueId visible = map(Step::i_less_equal, {key, map(Step::i_add, {query, add_node(tools::Size{offset}, {})})});
  end(select(visible, scores(), number(-infinity)));
  Optimised done(*this, sizes);
  CHECK(fused(done).inputs.size() == 3);
  CHECK(done.attributes<Attention>().offset == offset);
}

TEST_CASE("attention: a cache of one sample, and a padding mask whose length has a name of its own") {
  Written w;
  const Expression t = w.dimension("t", 1, 8), past = w.dimension("past", 0, 32), total = w.dimension("total", 1, 40);
  w.graph.constraints.push_back({Constraint::Relation::less_equal, past + t, total});
  const Expression keys = past + t;
  const ValueId q = w.input("q", {1, 2, t, 8}), k = w.input("k", {1, 2, keys, 8}), v = w.input("v", {1, 2, keys, 8});
  const ValueId keep = w.add_node(Slice{{0, 0}, {1, 1}, {1, keys}}, {w.input("keep", {1, total}, Type::boolean)});
  const ValueId query = w.map(Step::i_add, {w.add_node(Iota{{t, 1}, 0}, {}), w.add_node(tools::Size{past}, {})});
  const ValueId seen = w.map(Step::i_less_equal, {w.add_node(Iota{{1, keys}, 1}, {}), query});
  const ValueId mask = w.map(Step::b_and, {w.reshape(seen, {1, 1, t, keys}), w.reshape(keep, {1, 1, 1, keys})});
  w.output(w.matmul(w.softmax(w.select(mask, w.matmul(q, w.transpose(k, {0, 1, 3, 2})), w.number(-infinity))), v));
  Optimised done(w, {{"t", 3}, {"past", 4}, {"total", 9}});
  CHECK(done.fused("attention") == 1);
  CHECK(done.attributes<Attention>().causal);
  CHECK(done.attributes<Attention>().offset == past);
}

TEST_CASE_FIXTURE(Heads, "attention: windows, also such as are wider than small sizes show") {
  const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
  const auto whole = [&](int64_t value) { return graph.constant("k", Literal::of({}, std::vector<int64_t>{value})); };
  const auto behind = [&](int64_t left) {  // key > query - left
    return map(Step::i_less, {map(Step::i_sub, {query, whole(left)}), key});
  };
  int64_t left = 0, right = 0;
  SUBCASE("the last few keys, in one mask") {
    end(select(map(Step::b_and, {causal(queries, keys), behind(3)}), scores(), number(-infinity)));
    left = 2;
  }
  SUBCASE("in two") {
    const ValueId early = select(behind(25), number(0), number(-infinity));
    end(select(causal(queries, keys), add(scores(), early), number(-infinity)));
    left = 24;
  }
  SUBCASE("on both sides") {
    end(select(map(Step::b_and, {causal(queries, keys, 2), behind(5)}), scores(), number(-infinity)));
    left = 6, right = 2;
  }
  Optimised done(*this, sizes);
  CHECK(fused(done).inputs.size() == 3);
  const Attention& attention = done.attributes<Attention>();
  CHECK(attention.causal);
  CHECK(attention.offset == right);
  CHECK(attention.window);
  CHECK(attention.window_left == left);
}

TEST_CASE_FIXTURE(Heads, "attention: a window that begins nowhere, and one that differs with the sample") {
  const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
  SUBCASE("keys from the query on") {
    end(select(map(Step::i_less_equal, {query, key}), scores(), number(-infinity)));
    graph.unify(queries, keys, "test");
    Optimised done(*this, {{"batch", 2}, {"keys", 6}, {"queries", 6}});
    CHECK(fused(done).inputs.size() == 3);
    CHECK(!done.attributes<Attention>().causal);
    CHECK(done.attributes<Attention>().window_left == 0);
  }
  SUBCASE("the same for each sample and head") {
    const ValueId mask = expand(reshape(causal(queries, keys), {1, 1, queries, keys}), {batch, 4, queries, keys});
    const ValueId copies = add_node(Pad{{0, 0, 0, 0}, {0, 0, 0, 0}, 0}, {one(Step::b_to_f, mask)});
    end(select(one(Step::f_to_b, copies), scores(), number(-infinity)));
    Optimised done(*this, sizes);
    CHECK(fused(done).inputs.size() == 3);
  }
  SUBCASE("one for each sample") {
    const ValueId sample = add_node(Iota{{batch, 1, 1, 1}, 0}, {});
    end(select(map(Step::i_less_equal, {key, map(Step::i_add, {query, sample})}), scores(), number(-infinity)));
    Optimised done(*this, sizes);
    CHECK(fused(done).inputs.size() == 4);
    CHECK(!done.attributes<Attention>().causal);
  }
}

TEST_CASE_FIXTURE(Heads, "attention: masks that are causal at most sizes only are tensors, and noted") {
  const auto size = [&](const Expression& e) { return add_node(tools::Size{e}, {}); };
  const auto whole = [&](int64_t value) { return graph.constant("k", Literal::of({}, std::vector<int64_t>{value})); };
  const ValueId seen = causal(queries, keys);
  ValueId mask = seen;
  Sizes other = sizes;
  SUBCASE("but at one size") {
    mask = map(Step::b_or, {seen, map(Step::i_equal, {size(keys), whole(13)})});
    other["keys"] = 13;
  }
  SUBCASE("but at some multiples") {
    const ValueId rest = map(Step::i_mod, {size(keys), whole(11)});
    mask = map(Step::b_or, {seen, map(Step::i_equal, {rest, whole(2)})});
    other["keys"] = 24;
  }
  SUBCASE("a window as wide as the sizes say") {
    const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
    const ValueId third = map(Step::i_div, {size(keys), whole(3)});
    mask = map(Step::i_less_equal, {map(Step::i_sub, {query, key}), map(Step::i_min, {third, whole(9)})});
    mask = map(Step::b_and, {seen, mask});
  }
  end(select(mask, scores(), number(-infinity)));
  Optimised done(*this, other);
  CHECK(fused(done).inputs.size() == 4);
  REQUIRE(graph.notes.size() == 1);
  CHECK(graph.notes[0].find("stays a tensor of shape [") != std::string::npos);
}

TEST_CASE_FIXTURE(Heads, "attention: masks by position are read from how they are made, not from their elements") {
  graph.dimensions["queries"].upper = graph.dimensions["keys"].upper = 1 << 20;
  const ValueId query = add_node(Iota{{queries, 1}, 0}, {}), key = add_node(Iota{{1, keys}, 1}, {});
  const auto whole = [&](int64_t value) { return graph.constant("k", Literal::of({}, std::vector<int64_t>{value})); };
  int64_t left = -1;
  SUBCASE("causal") {
    end(select(causal(queries, keys), scores(), number(-infinity)));
  }
  SUBCASE("a window of the sizes that constraints allow") {
    graph.constraints.push_back({Constraint::Relation::equal, Expression::modulo(keys, 10), 0});
    const ValueId near = map(Step::i_less, {map(Step::i_sub, {query, key}), whole(100)});
    end(select(map(Step::b_and, {causal(queries, keys), near}), scores(), number(-infinity)));
    left = 99;
    sizes["keys"] = 10;
  }
  SUBCASE("the distance without its sign") {
    const ValueId distance = one(Step::i_abs, map(Step::i_sub, {query, key}));
    const ValueId near = map(Step::i_less_equal, {distance, whole(30)});
    end(select(map(Step::b_and, {causal(queries, keys), near}), scores(), number(-infinity)));
    left = 30;
  }
  SUBCASE("a slice of a constant, in numbers, turned") {
    graph.dimensions["queries"].upper = graph.dimensions["keys"].upper = 48;
    std::vector<float> hidden(48 * 48);
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = i / 48 > i % 48;  // [key, query]
    const ValueId table = graph.constant("table", Literal::of({48, 48}, hidden));
    const ValueId part = transpose(add_node(Slice{{0, 0}, {1, 1}, {keys, queries}}, {table}), {1, 0});
    end(add(scores(), times(part, -3.4028235e38f)));
  }
  Optimised done(*this, sizes);
  CHECK(fused(done).inputs.size() == 3);
  CHECK(done.attributes<Attention>().causal);
  CHECK(done.attributes<Attention>().offset == 0);
  CHECK(done.attributes<Attention>().window == (left >= 0));
  if (left >= 0) CHECK(done.attributes<Attention>().window_left == left);
  CHECK(graph.notes.empty());
}

TEST_CASE_FIXTURE(Heads, "attention: padding of keys is a vector, and stands beside causal") {
  const ValueId keep = input("keep", {batch, keys}, Type::boolean);
  const ValueId wide = reshape(keep, {batch, 1, 1, keys});
  bool is_causal = true, is_mean = false;  // of a row whose keys are all hidden
  SUBCASE("alone") {
    is_causal = false;
    end(select(wide, scores(), number(-infinity)));
  }
  SUBCASE("by a large number") {
    is_causal = false;
    is_mean = true;
    end(add(scores(), select(wide, number(0), number(-1e9f))));
  }
  SUBCASE("and causal in one mask") {
    end(select(map(Step::b_and, {causal(queries, keys), wide}), scores(), number(-infinity)));
  }
  SUBCASE("neither hidden nor padding") {
    const ValueId hidden = map(Step::b_or, {one(Step::b_not, causal(queries, keys)), one(Step::b_not, wide)});
    end(select(hidden, number(-infinity), scores()));
  }
  SUBCASE("two sums") {
    const ValueId position = select(causal(queries, keys), number(0), number(-infinity));
    end(add(add(scores(), position), select(wide, number(0), number(-infinity))));
  }
  Optimised done(*this, sizes);
  const Node& node = fused(done);
  REQUIRE(node.inputs.size() == 5);
  CHECK(node.inputs[3] == no_value);
  CHECK(node.inputs[4] == keep);
  CHECK(done.attributes<Attention>().causal == is_causal);
  REQUIRE(graph.notes.size() == is_mean);
  if (is_mean) CHECK(graph.notes[0].find("a row whose keys are all hidden gives zeros") != std::string::npos);
}

TEST_CASE_FIXTURE(Heads, "attention: other masks and biases are tensors") {
  SUBCASE("a boolean for each query") {
    const ValueId mask = input("mask", {batch, 1, queries, keys}, Type::boolean);
    end(select(mask, scores(), number(-infinity)));
    Optimised done(*this, sizes);
    CHECK(fused(done).inputs[3] == mask);
  }
  SUBCASE("a large number keeps its place: a row without keys stays a mean") {
    const ValueId keep = input("keep", {batch, 1, queries, keys}, Type::boolean);
    end(select(keep, scores(), number(-1e9f)));
    Optimised done(*this, sizes);
    const Node& node = fused(done);
    REQUIRE(node.inputs.size() == 4);
    CHECK(graph.value(node.inputs[3]).type == Type::f32);
    CHECK(graph.value(node.inputs[3]).dims == Dims{batch, 1, queries, keys});
  }
  SUBCASE("an additive tensor, scaled after it was added") {
    const ValueId bias = input("bias", {4, queries, keys});
    end(times(add(times(matmul(q, turned(k)), 0.125f), bias), 2));
    Optimised done(*this, sizes);
    const Node& node = fused(done);
    REQUIRE(node.inputs.size() == 4);
    CHECK(graph.value(node.inputs[3]).dims == Dims{1, 4, queries, keys});
  }
}

TEST_CASE_FIXTURE(Heads, "attention: the guard against NaN goes with the mask") {
  const auto guarded = [&](ValueId scores) {
    const ValueId weights = softmax(scores);
    output(matmul(select(one(Step::f_is_nan, weights), number(0), weights), v));
  };
  SUBCASE("boolean: rows without keys are zeros anyway") {
    guarded(select(input("mask", {batch, 1, queries, keys}, Type::boolean), scores(), number(-infinity)));
    Optimised done(*this, sizes);
    fused(done);
    CHECK(done.nodes<Map>() == 0);
  }
  SUBCASE("additive: rows that see nothing are told from the mask") {
    const ValueId mask = input("mask", {batch, 1, queries, keys}, Type::boolean);
    // A float mask from outside, as far as the graph can tell.
    guarded(add(scores(), map(Step::f_log, {one(Step::b_to_f, mask)})));
    Optimised done(*this, sizes);
    CHECK(done.fused("attention") == 1);
    CHECK(done.nodes<Softmax>() == 0);
  }
}

TEST_CASE("attention: groups of heads share keys") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId k = w.input("k", {batch, 2, 5, 16}), v = w.input("v", {batch, 2, 5, 16});
  SUBCASE("repeated by unsqueeze, expand, reshape") {
    const ValueId q = w.input("q", {batch, 6, 5, 16});
    const auto repeated = [&](ValueId x) {
      return w.reshape(w.expand(w.reshape(x, {batch, 2, 1, 5, 16}), {batch, 2, 3, 5, 16}), {batch, 6, 5, 16});
    };
    w.output(w.matmul(w.softmax(w.times(w.matmul(q, w.transpose(repeated(k), {0, 1, 3, 2})), 0.25f)), repeated(v)));
    Optimised done(w, {{"batch", 2}});
    CHECK(done.the<Attention>().inputs == std::vector<ValueId>{q, k, v});
  }
  SUBCASE("an axis of their own") {
    const ValueId q = w.input("q", {batch, 2, 3, 5, 16});
    const auto one = [&](ValueId x) { return w.reshape(x, {batch, 2, 1, 5, 16}); };
    w.output(w.matmul(w.softmax(w.matmul(q, w.transpose(one(k), {0, 1, 2, 4, 3}))), one(v)));
    Optimised done(w, {{"batch", 2}});
    const Node& node = done.the<Attention>();
    CHECK(w.graph.value(node.inputs[0]).dims == Dims{batch, 6, 5, 16});
    CHECK(node.inputs[1] == k);
    CHECK(node.inputs[2] == v);
  }
  SUBCASE("one for all") {
    const ValueId q = w.input("q", {batch, 6, 5, 16}), k1 = w.input("k1", {batch, 1, 5, 16}),
                  v1 = w.input("v1", {batch, 1, 5, 16});
    w.output(w.matmul(w.softmax(w.matmul(q, w.transpose(k1, {0, 1, 3, 2}))), v1));
    Optimised done(w, {{"batch", 2}});
    CHECK(done.the<Attention>().inputs == std::vector<ValueId>{q, k1, v1});
  }
}

TEST_CASE("attention: scores that change between batch and heads on their way") {
  // As torch.bmm makes it: [batch * heads, queries, keys], but the mask is added to [batch, heads, queries, keys].
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId q = w.input("q", {4 * batch, 5, 8}), k = w.input("k", {4 * batch, 5, 8}),
                v = w.input("v", {4 * batch, 5, 8});
  const ValueId keep = w.input("keep", {batch, 1, 1, 5}, Type::boolean);
  const ValueId scores = w.reshape(w.matmul(q, w.transpose(k, {0, 2, 1})), {batch, 4, 5, 5});
  const ValueId masked = w.select(keep, scores, w.number(-infinity));
  w.output(w.reshape(w.matmul(w.softmax(w.reshape(masked, {4 * batch, 5, 5})), v), {batch, 4, 5, 8}));
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("attention") == 1);
  const Node& node = done.the<Attention>();
  CHECK(w.graph.value(node.inputs[0]).dims == Dims{batch, 4, 5, 8});
  CHECK(node.inputs.size() == 5);
}

TEST_CASE("attention: batch and heads that are one axis are told apart where a reshape merged them") {
  // As nn.MultiheadAttention makes it: [time, batch, heads * depth] seen as [time, batch * heads, depth].
  Written w;
  const Expression batch = w.dimension("batch", 1, 8), time = w.dimension("time", 1, 16);
  const ValueId q = w.input("q", {time, batch, 32}), k = w.input("k", {time, batch, 32}),
                v = w.input("v", {time, batch, 32});
  const auto split = [&](ValueId x) { return w.transpose(w.reshape(x, {time, 4 * batch, 8}), {1, 0, 2}); };
  ValueId scores = w.matmul(split(w.times(q, 0.5f)), w.transpose(split(k), {0, 2, 1}));
  bool padded = false;
  SUBCASE("no mask") {}
  SUBCASE("padding, repeated for every head") {
    padded = true;
    const ValueId keep = w.input("keep", {batch, time}, Type::boolean);
    const ValueId wide = w.expand(w.reshape(keep, {batch, 1, 1, time}), {batch, 4, 1, time});
    scores = w.select(w.reshape(wide, {4 * batch, 1, time}), scores, w.number(-infinity));
  }
  w.output(w.reshape(w.transpose(w.matmul(w.softmax(scores), split(v)), {1, 0, 2}), {time, batch, 32}));
  Optimised done(w, {{"batch", 2}, {"time", 5}});
  CHECK(done.fused("attention") == 1);
  const Node& node = done.the<Attention>();
  for (size_t i = 0; i < 3; ++i) CHECK(w.graph.value(node.inputs[i]).dims == Dims{batch, 4, time, 8});
  CHECK(node.inputs.size() == (padded ? 5 : 3));
  if (padded) CHECK(w.graph.value(node.inputs[4]).dims == Dims{batch, time});
  for (size_t i = 0; i < 3; ++i) {  // views that move nothing: one transpose of a split
    const ValueId split_axes = producer(w.graph, node.inputs[i])->inputs[0];
    CHECK(made_by<Transpose>(w.graph, node.inputs[i]));
    CHECK(made_by<Reshape>(w.graph, split_axes));
    CHECK(!is_view(w.graph, producer(w.graph, split_axes)->inputs[0]));
  }
}

TEST_CASE("attention: one query, however its scores and weights are turned") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId query = w.input("query", {batch, 8}), states = w.input("states", {batch, 5, 8});
  const ValueId turned = w.transpose(states, {0, 2, 1});
  ValueId scores = no_value;
  SUBCASE("a column, the weights on the right") {
    scores = w.reshape(w.matmul(states, w.reshape(query, {batch, 8, 1})), {batch, 5});
    const ValueId weights = w.softmax(w.times(scores, 0.25f));
    w.output(w.reshape(w.matmul(turned, w.reshape(weights, {batch, 5, 1})), {batch, 8}));
  }
  SUBCASE("a row without its axis") {
    scores = w.reshape(w.matmul(w.reshape(query, {batch, 1, 8}), turned), {batch, 5});
    const ValueId weights = w.softmax(w.times(scores, 0.25f));
    w.output(w.reshape(w.matmul(w.reshape(weights, {batch, 1, 5}), states), {batch, 8}));
  }
  SUBCASE("states that are a view themselves") {
    const ValueId rows = w.transpose(w.input("rows", {5, batch, 8}), {1, 0, 2});
    scores = w.reshape(w.matmul(rows, w.reshape(query, {batch, 8, 1})), {batch, 5});
    const ValueId weights = w.softmax(w.times(scores, 0.25f));
    w.output(w.reshape(w.matmul(w.transpose(rows, {0, 2, 1}), w.reshape(weights, {batch, 5, 1})), {batch, 8}));
  }
  SUBCASE("a weighted sum, written out") {
    scores = w.reshape(w.matmul(states, w.reshape(query, {batch, 8, 1})), {batch, 5});
    const ValueId weights = w.reshape(w.softmax(w.times(scores, 0.25f)), {batch, 5, 1});
    w.output(w.add_node(Reduce{Reduction::sum, {1}, false}, {w.map(Step::f_mul, {weights, states})}));
  }
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("attention") == 1);
  CHECK(done.attributes<Attention>().scale == doctest::Approx(0.25));
  CHECK(done.nodes<Matmul>() == 0);
  CHECK(done.report.attentions == 1);
  CHECK(done.report.missed.empty());
}

TEST_CASE("attention: the product of keys and queries, turned") {
  Written w;
  const ValueId q = w.input("q", {2, 5, 8}), k = w.input("k", {2, 7, 8}), v = w.input("v", {2, 7, 6});
  const ValueId scores = w.transpose(w.matmul(k, w.transpose(q, {0, 2, 1})), {0, 2, 1});
  w.output(w.matmul(w.transpose(v, {0, 2, 1}), w.transpose(w.softmax(scores), {0, 2, 1})));
  Optimised done(w, {});
  CHECK(done.fused("attention") == 1);
  CHECK(done.the<Attention>().inputs.size() == 3);
}

TEST_CASE_FIXTURE(Heads, "attention: a temperature for each head, or known at run time, is the queries'") {
  ValueId scaled = no_value;
  SUBCASE("a constant for each head") {
    scaled = map(Step::f_mul, {scores(), weights({4, 1, 1})});
  }
  SUBCASE("an input") {
    scaled = map(Step::f_div, {scores(), input("temperature", {1})});
  }
  SUBCASE("an input for each query") {
    scaled = map(Step::f_mul, {input("sharpness", {batch, 1, queries, 1}), scores()});
  }
  end(scaled);
  Optimised done(*this, sizes);
  CHECK(done.fused("attention") == 1);
  CHECK(done.report.missed.empty());
}

TEST_CASE("attention: each that is not fused is listed with the reason, in words") {
  Heads w;
  std::string found;
  SUBCASE("weights that are multiplied") {
    found = "a multiplication of shape [batch, 4, queries, keys] between the softmax and the sum";
    w.output(w.matmul(w.map(Step::f_mul, {w.softmax(w.scores()), w.input("mask", {w.queries, w.keys})}), w.v));
  }
  SUBCASE("another axis") {
    found = "a softmax over axis 3 of [batch, 4, keys, queries]";
    w.output(w.matmul(w.add_node(Softmax{2}, {w.scores()}), w.v));
  }
  SUBCASE("additive") {
    found = "additive attention: scores that are the output of a layer, of shape [batch, 4, keys, 1]";
    const ValueId hidden = w.one(Step::f_tanh, w.matmul(w.k, w.weights({16, 16})));
    const ValueId scores = w.reshape(w.matmul(hidden, w.weights({16, 1})), {w.batch, 4, w.keys});
    w.output(w.matmul(w.reshape(w.softmax(scores), {w.batch, 4, 1, w.keys}), w.v));
  }
  Optimised done(w, w.sizes);
  CHECK(done.fused("attention") == 0);
  CHECK(done.report.attentions == 1);
  REQUIRE(done.report.missed.size() == 1);
  CHECK(done.report.missed[0].concept_name == "attention");
  CHECK(done.report.missed[0].found == found);
  CHECK(done.the<Softmax>().mark);
}

TEST_CASE_FIXTURE(Heads, "attention: what is not fused says where it differs") {
  SUBCASE("scores behind a function") {
    const ValueId capped = one(Step::f_tanh, scores());
    end(capped);
    Optimised done(*this, sizes);
    CHECK(done.fused("attention") == 0);
    REQUIRE(done.report.missed.size() == 1);
    CHECK(done.report.missed[0].concept_name == "attention");
    CHECK(done.report.missed[0].node == "n4");
    CHECK(done.report.missed[0].found == "tanh of shape [batch, 4, queries, keys]");
    CHECK(done.report.missed[0].nodes == std::vector<std::string>{"n4", "n5", "n6"});
    CHECK(done.the<Softmax>().mark);
  }
  SUBCASE("weights that are an output too") {
    const ValueId weights = softmax(scores());
    output(weights);
    output(matmul(weights, v));
    Optimised done(*this, sizes);
    CHECK(done.fused("attention") == 0);
    REQUIRE(done.report.missed.size() == 1);
    CHECK(done.report.missed[0].node == "n4");
    CHECK(done.report.missed[0].found ==
          "a softmax of shape [batch, 4, queries, keys], needed on its own by another reader");
    CHECK(done.the<Softmax>().mark);
  }
  SUBCASE("a classifier is not even looked at") {
    output(softmax(scores()));
    Optimised done(*this, sizes);
    CHECK(done.report.missed.empty());
    CHECK(!done.the<Softmax>().mark);
  }
}

// --- Additive attention ----------------------------------------------------------------------------------------------

TEST_CASE("a weighted sum is a product, and its softmax is marked") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId states = w.input("states", {batch, 5, 8});
  const ValueId scores = w.matmul(w.one(Step::f_tanh, w.matmul(states, w.weights({8, 8}))), w.weights({8, 1}));
  ValueId weights = no_value;
  SUBCASE("softmax over the middle axis") {
    weights = w.add_node(Softmax{1}, {scores});
  }
  SUBCASE("softmax between transposes") {
    weights = w.transpose(w.softmax(w.transpose(scores, {0, 2, 1})), {0, 2, 1});
  }
  w.output(w.add_node(Reduce{Reduction::sum, {1}, false}, {w.mul(weights, states)}));
  Optimised done(w, {{"batch", 3}});
  CHECK(done.fused("weighted sum") == 1);
  CHECK(done.nodes<Reduce>() == 0);
  const Node& softmax = done.the<Softmax>();
  REQUIRE(softmax.mark);
  CHECK(softmax.mark->keys == "states");
  CHECK(done.nodes<Transpose>() == 0);
}

// --- Normalisation ---------------------------------------------------------------------------------------------------

TEST_CASE("layer_norm: any arithmetic that computes it") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 5, 16}), scale = w.weights({16}), bias = w.weights({16});
  const ValueId mean = w.mean(x), d = w.sub(x, mean);
  const ValueId variance = w.mean(w.pow(d, 2));
  const ValueId root = w.one(Step::f_sqrt, w.plus(variance, 1e-5f));
  size_t operands = 3;
  SUBCASE("TorchScript") {
    w.output(w.add(w.mul(w.div(d, root), scale), bias));
  }
  SUBCASE("square as a product, reciprocal root") {
    const ValueId r = w.one(Step::f_reciprocal, w.one(Step::f_sqrt, w.plus(w.mean(w.mul(d, d)), 1e-5f)));
    w.output(w.add(w.mul(w.mul(d, r), scale), bias));
  }
  SUBCASE("pow -0.5, difference computed twice") {
    const ValueId r = w.pow(w.plus(w.mean(w.pow(w.sub(x, mean), 2)), 1e-5f), -0.5f);
    w.output(w.add(bias, w.mul(scale, w.mul(w.sub(x, mean), r))));
  }
  SUBCASE("batch-norm form") {
    const ValueId r = w.mul(w.div(w.number(1), root), scale);
    w.output(w.add(w.mul(x, r), w.sub(bias, w.mul(mean, r))));
  }
  SUBCASE("mean of squares minus square of the mean") {
    const ValueId r = w.one(Step::f_sqrt, w.plus(w.sub(w.mean(w.mul(x, x)), w.mul(mean, mean)), 1e-3f));
    w.output(w.add(w.mul(w.div(d, r), scale), bias));
  }
  SUBCASE("sums divided by their number") {
    const ValueId m = w.over(w.reduce(Reduction::sum, x), 16), e = w.sub(x, m);
    const ValueId v = w.times(w.reduce(Reduction::sum, w.mul(e, e)), 1.0f / 16);
    w.output(w.add(w.mul(w.div(e, w.one(Step::f_sqrt, w.plus(v, 1e-5f))), scale), bias));
  }
  SUBCASE("scale before the division") {
    w.output(w.add(w.div(w.mul(d, scale), root), bias));
  }
  SUBCASE("under a residual sum, which is not part of it") {
    w.output(w.add(x, w.add(w.mul(w.div(d, root), scale), bias)));
  }
  SUBCASE("without scale and bias") {
    w.output(w.div(d, root));
    operands = 1;
  }
  Optimised done(w, {{"batch", 3}});
  CHECK(done.fused("layer_norm") == 1);
  CHECK(done.report.missed.empty());
  const Node& node = done.the<Normalize>();
  CHECK(done.attributes<Normalize>().kind == Normalization::layer);
  CHECK(done.attributes<Normalize>().epsilon ==
        doctest::Approx(done.nodes<Reduce>() == 0 ? done.attributes<Normalize>().epsilon : 0));
  CHECK(done.nodes<Reduce>() == 0);
  CHECK(std::count_if(node.inputs.begin(), node.inputs.end(), [](ValueId id) { return id != no_value; }) ==
        static_cast<int>(operands));
}

TEST_CASE("layer_norm over two axes") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 5, 4});
  const ValueId d = w.sub(x, w.mean(x, 2));
  const ValueId root = w.one(Step::f_sqrt, w.plus(w.mean(w.mul(d, d), 2), 1e-5f));
  w.output(w.add(w.mul(w.div(d, root), w.weights({5, 4})), w.weights({5, 4})));
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("layer_norm") == 1);
  CHECK(w.graph.value(done.the<Normalize>().inputs[1]).dims == Dims{20});
}

TEST_CASE("layer_norm over other axes than the last") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  ValueId x = w.input("x", {batch, 6, 4, 5});
  const auto mean = [&](ValueId of) { return w.add_node(Reduce{Reduction::mean, {1}, true}, {of}); };
  Dims scale{6, 1, 1};
  SUBCASE("images with their channels in front") {}
  SUBCASE("a scale for each place in the normalised rows' neighbours") {
    scale = {4, 1};
  }
  SUBCASE("of what is seen in another shape") {
    x = w.reshape(w.input("rows", {batch, 24, 5}), {batch, 6, 4, 5});
  }
  const ValueId centred = w.sub(x, mean(x));
  ValueId variance = mean(w.mul(centred, centred));
  SUBCASE("the mean of the squares without that of the values, 0 at least") {
    variance = w.map(Step::f_max, {w.sub(mean(w.mul(x, x)), w.mul(mean(x), mean(x))), w.number(0)});
  }
  const auto row = [&] { return w.reshape(w.weights({count(scale).constant().value()}), scale); };
  const ValueId shared = w.mul(w.map(Step::f_reciprocal, {w.one(Step::f_sqrt, w.plus(variance, 1e-5f))}), row());
  w.output(w.add(w.mul(centred, shared), row()));
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("layer_norm") == 1);
  CHECK(done.nodes<Reduce>() == 0);
  CHECK(done.nodes<Map>() == (scale.size() == 2 ? 2 : 0));
}

TEST_CASE("layer_norm whose means have lost their axes, and found them again") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.reshape(w.reduce(Reduction::max, w.input("x", {batch, 12, 5})), {batch, 12});
  const auto mean = [&](ValueId of) {
    const ValueId sum = w.add_node(Reduce{Reduction::sum, {1}, false}, {of});
    return w.times(sum, 1.0f / 12);
  };
  const auto column = [&](ValueId of) { return w.expand(w.reshape(of, {batch, 1}), {batch, 12}); };
  const ValueId average = mean(x), variance = w.sub(mean(w.mul(x, x)), w.mul(average, average));
  const ValueId root = w.one(Step::f_sqrt, w.plus(w.expand(w.reshape(variance, {batch, 1}), {batch, 1}), 1e-5f));
  w.output(w.mul(w.sub(x, column(average)), w.mul(w.map(Step::f_reciprocal, {root}), w.weights({1, 12}))));
  Optimised done(w, {{"batch", 3}});
  CHECK(done.fused("layer_norm") == 1);
  CHECK(done.nodes<Reduce>() == 1);
}

TEST_CASE("rms_norm") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 5, 16}), scale = w.weights({16});
  const ValueId square = w.plus(w.mean(w.pow(x, 2)), 1e-6f);
  SUBCASE("division by the root") {
    w.output(w.mul(scale, w.div(x, w.one(Step::f_sqrt, square))));
  }
  SUBCASE("product with the reciprocal root") {
    w.output(w.mul(w.mul(x, w.div(w.number(1), w.one(Step::f_sqrt, square))), scale));
  }
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("rms_norm") == 1);
  CHECK(done.attributes<Normalize>().kind == Normalization::rms);
  CHECK(done.attributes<Normalize>().epsilon == 1e-6f);
}

TEST_CASE("a deviation that divides nothing is no layer_norm, and the report says so") {
  Written w;
  const ValueId x = w.input("x", {3, 16});
  const ValueId d = w.sub(x, w.mean(x));
  w.output(w.one(Step::f_sqrt, w.plus(w.mean(w.mul(d, d)), 1e-5f)));
  Optimised done(w, {});
  CHECK(done.fused("layer_norm") == 0);
  REQUIRE(done.report.missed.size() == 1);
  CHECK(done.report.missed[0].concept_name == "layer_norm");
  CHECK(done.report.missed[0].found == "sqrt of shape [3, 1], which divides nothing");
}

// --- Functions of one value ------------------------------------------------------------------------------------------

TEST_CASE("functions are recognised by what they compute") {
  Written w;
  const ValueId x = w.input("x", {4, 9});
  const auto erf = [&](ValueId u) { return w.one(Step::f_erf, u); };
  const auto tanh = [&](ValueId u) { return w.one(Step::f_tanh, u); };
  const auto exp = [&](ValueId u) { return w.one(Step::f_exp, u); };
  const float half = 0.5f, root2 = 1.41421356f, c = 0.7978845608f;
  const ValueId cubic = w.add(x, w.times(w.pow(x, 3), 0.044715f));
  std::string expected = "gelu";
  SUBCASE("gelu, TorchScript") {
    w.output(w.times(w.mul(x, w.plus(erf(w.over(x, root2)), 1)), half));
  }
  SUBCASE("gelu, dynamo") {
    w.output(w.mul(x, w.mul(w.number(half), w.plus(erf(w.over(x, root2)), 1))));
  }
  SUBCASE("gelu, half first") {
    w.output(w.mul(w.times(x, half), w.add(w.number(1), erf(w.times(x, 0.70710678f)))));
  }
  SUBCASE("gelu, multiplied out") {
    w.output(w.mul(x, w.plus(w.times(erf(w.over(x, root2)), half), half)));
  }
  SUBCASE("gelu of something scaled") {
    const ValueId y = w.times(x, 3);
    w.output(w.times(w.mul(y, w.plus(erf(w.over(y, root2)), 1)), half));
  }
  SUBCASE("gelu, twice it") {
    w.output(w.plus(w.mul(x, w.plus(erf(w.over(x, root2)), 1)), 0.25f)), expected = "";
  }
  SUBCASE("tanh form") {
    w.output(w.mul(w.times(x, half), w.plus(tanh(w.times(cubic, c)), 1))), expected = "gelu_tanh";
  }
  SUBCASE("tanh form, factored") {
    const ValueId u = w.mul(w.times(x, c), w.plus(w.times(w.mul(x, x), 0.044715f), 1));
    w.output(w.times(w.mul(x, w.plus(tanh(u), 1)), half)), expected = "gelu_tanh";
  }
  SUBCASE("silu") {
    w.output(w.mul(x, w.one(Step::f_sigmoid, x))), expected = "silu";
  }
  SUBCASE("silu as a division") {
    w.output(w.div(x, w.plus(exp(w.one(Step::f_neg, x)), 1))), expected = "silu";
  }
  SUBCASE("sigmoid") {
    w.output(w.div(w.number(1), w.add(w.number(1), exp(w.one(Step::f_neg, x))))), expected = "sigmoid";
  }
  SUBCASE("softplus") {
    w.output(w.one(Step::f_log, w.plus(exp(x), 1))), expected = "softplus";
  }
  SUBCASE("relu") {
    w.output(w.map(Step::f_max, {w.number(0), x})), expected = "relu";
  }
  SUBCASE("another constant is another function") {
    w.output(w.times(w.mul(x, w.plus(erf(w.over(x, 1.4f)), 1)), half)), expected = "";
  }
  Optimised done(w, {});
  CAPTURE(expected);
  CHECK(done.report.fused.size() == (expected.empty() ? 0u : 1u));
  if (!expected.empty()) {
    CHECK(done.fused(expected) == 1);
    CHECK(done.report.missed.empty());
  } else {
    REQUIRE(done.report.missed.size() == 1);
    CHECK(done.report.missed[0].concept_name == "gelu");
  }
}

TEST_CASE("one-hot rows times a matrix are gathered") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.times(w.input("x", {batch, 4}), 4);  // some are beyond the table, on both sides
  const ValueId index = w.reshape(w.one(Step::f_to_i, x), {batch, 4, 1});
  std::vector<int64_t> numbers{0, 1, 2, 3, 4};
  bool same = true;
  const auto equal = [&](ValueId value) {
    return w.map(Step::i_equal, {value, w.graph.constant("range", Literal::of({1, 1, 5}, numbers))});
  };
  ValueId hot = no_value;
  SUBCASE("a comparison as a number") {
    hot = w.one(Step::b_to_f, equal(index));
  }
  SUBCASE("of an index that was repeated") {
    hot = w.one(Step::b_to_f, equal(w.expand(index, {batch, 4, 5})));
  }
  SUBCASE("a select, as the operator OneHot is lowered") {
    hot = w.select(equal(index), w.number(1), w.number(0));
  }
  SUBCASE("numbers in another order") {
    std::swap(numbers[1], numbers[2]);
    same = false;
    hot = w.one(Step::b_to_f, equal(index));
  }
  SUBCASE("twice as hot") {
    same = false;
    hot = w.select(equal(index), w.number(2), w.number(0));
  }
  const ValueId rows = w.matmul(hot, w.weights({5, 3}));
  w.output(w.one(Step::f_tanh, w.add(rows, w.weights({3}))));
  Optimised done(w, {{"batch", 7}});
  CHECK(done.fused("gather") == (same ? 1 : 0));
  CHECK(done.nodes<Gather>() == (same ? 1 : 0));
  CHECK(done.nodes<Matmul>() == (same ? 0 : 1));
}

TEST_CASE("gathered windows times weights are a convolution") {
  Written w;
  const auto index = [&](int64_t taps, int64_t rows, int64_t stride, int64_t dilation) {
    std::vector<int64_t> places;
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t row = 0; row < rows; ++row) places.push_back(row * stride + tap * dilation);
    return w.graph.constant("i", Literal::of({taps, rows}, places));
  };
  ValueId rows = no_value;
  int fused = 1;
  WindowAxis axis{3, 1, 1, 1, 1};
  SUBCASE("channels in front, padded") {  // as torch's unfold is exported
    const ValueId x = w.add_node(Pad{{0, 0, 1}, {0, 0, 1}, 0}, {w.input("x", {1, 4, 9})});
    const ValueId windows = w.add_node(Gather{2}, {x, index(3, 9, 1, 1)});
    rows = w.reshape(w.transpose(windows, {0, 3, 1, 2}), {1, 9, 12});
  }
  SUBCASE("channels behind, with stride and dilation, the taps outside") {
    axis = {3, 2, 3, 0, 0};
    const ValueId windows = w.add_node(Gather{0}, {w.input("x", {11, 4}), index(3, 3, 2, 3)});
    rows = w.reshape(w.transpose(windows, {1, 0, 2}), {1, 3, 12});
  }
  SUBCASE("rows at no equal distances") {
    fused = 0;
    const ValueId places = w.graph.constant("i", Literal::of({3, 3}, std::vector<int64_t>{0, 1, 3, 1, 2, 4, 2, 3, 5}));
    const ValueId windows = w.add_node(Gather{0}, {w.input("x", {11, 4}), places});
    rows = w.reshape(w.transpose(windows, {1, 0, 2}), {1, 3, 12});
  }
  SUBCASE("padding that is no zero") {
    const ValueId x = w.add_node(Pad{{0, 0, 1}, {0, 0, 1}, 5}, {w.input("x", {1, 4, 9})});
    const ValueId windows = w.add_node(Gather{2}, {x, index(3, 9, 1, 1)});
    rows = w.reshape(w.transpose(windows, {0, 3, 1, 2}), {1, 9, 12});
    axis = {3, 1, 1, 0, 0};  // of the padded sequence
  }
  w.output(w.one(Step::f_relu, w.add(w.matmul(rows, w.weights({12, 5})), w.weights({5}))));
  Optimised done(w, {});
  CHECK(done.fused("conv") == fused);
  CHECK(done.nodes<Gather>() == 1 - fused);
  if (fused == 0) return;
  const Conv& conv = done.attributes<Conv>();
  REQUIRE(conv.axes.size() == 1);
  CHECK(conv.axes[0].kernel == axis.kernel);
  CHECK(conv.axes[0].stride == axis.stride);
  CHECK(conv.axes[0].dilation == axis.dilation);
  CHECK(conv.axes[0].before == axis.before);
  CHECK(conv.axes[0].after == axis.after);
  CHECK(conv.activation == heed::Activation::relu);
}

TEST_CASE("softmax, written out") {
  for (const bool guarded : {true, false})
    for (const bool divided : {true, false}) {
      Written w;
      const ValueId x = w.input("x", {3, 4, 9});
      const ValueId shifted = guarded ? w.sub(x, w.reduce(Reduction::max, x)) : x;
      const ValueId e = w.one(Step::f_exp, shifted), sum = w.reduce(Reduction::sum, e);
      w.output(divided ? w.div(e, sum) : w.mul(e, w.one(Step::f_reciprocal, sum)));
      Optimised done(w, {});
      CHECK(done.fused("softmax") == 1);
      CHECK(done.nodes<Map>() == 0);
    }
}

// --- Rotary positions ------------------------------------------------------------------------------------------------

namespace {

struct Rotary : Written {
  static constexpr int64_t heads = 3, depth = 8;
  Expression tokens = dimension("tokens", 1, 32);
  Sizes sizes{{"tokens", 5}};
  ValueId x = input("x", {2, tokens, heads* depth});
  Dims split{2, tokens, heads, depth};

  ValueId part(ValueId id, int64_t start, int64_t size, int64_t step = 1) {
    Dims dims = graph.value(id).dims;
    Slice slice{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), {}};
    slice.starts.back() = start;
    slice.steps.back() = step;
    dims.back() = size;
    slice.dims = dims;
    return add_node(slice, {id});
  }
  ValueId joined(ValueId a, ValueId b) {
    return add_node(Concat{static_cast<int>(graph.value(a).dims.size()) - 1}, {a, b});
  }
  /// Rows of a constant, one for each token.
  ValueId table(int64_t channels) {
    const Dims dims{tokens, channels};
    return reshape(add_node(Slice{{0, 0}, {1, 1}, dims}, {weights({32, channels})}), {tokens, 1, channels});
  }
  ValueId turned(ValueId id, int64_t channels = depth) {
    return joined(one(Step::f_neg, part(id, channels / 2, channels / 2)), part(id, 0, channels / 2));
  }
  ValueId rotate_half(ValueId id, ValueId cos, ValueId sin) { return add(mul(id, cos), mul(turned(id), sin)); }

  /// One rope and nothing else that computes: tables are slices of constants.
  void fused(Pairing pairing, ValueId result) {
    output(result);
    Optimised done(*this, sizes);
    CHECK(done.fused("rope") == 1);
    CHECK(done.report.missed.empty());
    CHECK(done.attributes<Rope>().pairing == pairing);
    CHECK(done.nodes<Map>() + done.nodes<Concat>() + done.nodes<Gather>() == 0);
  }
};

}  // namespace

TEST_CASE_FIXTURE(Rotary, "rope: halves turned as a whole") {
  const ValueId q = reshape(x, split);
  SUBCASE("heads behind the tokens") {
    fused(Pairing::half, rotate_half(q, table(depth), table(depth)));
  }
  SUBCASE("heads first") {
    const auto first = [&](ValueId id) { return reshape(id, {1, tokens, depth}); };
    fused(Pairing::half, rotate_half(transpose(q, {0, 2, 1, 3}), first(table(depth)), first(table(depth))));
  }
  SUBCASE("without heads") {
    fused(Pairing::half, rotate_half(part(x, 5, depth), reshape(table(depth), {tokens, depth}),
                                     reshape(table(depth), {tokens, depth})));
  }
  SUBCASE("tables of half the width, joined") {
    const ValueId cos = table(depth / 2), sin = table(depth / 2);
    fused(Pairing::half, rotate_half(q, joined(cos, cos), joined(sin, sin)));
  }
  SUBCASE("the minus on the other side") {
    const ValueId half = joined(part(q, 4, 4), one(Step::f_neg, part(q, 0, 4)));
    fused(Pairing::half, sub(mul(table(depth), q), mul(table(depth), half)));
  }
}

TEST_CASE_FIXTURE(Rotary, "rope: halves in chunks") {
  const ValueId q = reshape(x, split), cos = table(4), sin = table(4), a = part(q, 0, 4), b = part(q, 4, 4);
  fused(Pairing::half, joined(sub(mul(a, cos), mul(b, sin)), add(mul(b, cos), mul(a, sin))));
}

TEST_CASE_FIXTURE(Rotary, "rope: neighbours") {
  const ValueId cos = table(4), sin = table(4);
  SUBCASE("as an axis of their own") {
    const ValueId pairs = reshape(x, {2, tokens, heads, depth / 2, 2});
    const Dims one_each{2, tokens, heads, depth / 2}, last{2, tokens, heads, depth / 2, 1};
    const ValueId a = reshape(part(pairs, 0, 1), one_each), b = reshape(part(pairs, 1, 1), one_each);
    const ValueId even = sub(mul(a, cos), mul(b, sin)), odd = add(mul(a, sin), mul(b, cos));
    fused(Pairing::interleaved, reshape(joined(reshape(even, last), reshape(odd, last)), split));
  }
  SUBCASE("every second channel") {
    const ValueId q = reshape(x, split), a = part(q, 0, 4, 2), b = part(q, 1, 4, 2);
    const Dims last{2, tokens, heads, depth / 2, 1};
    const ValueId half = reshape(joined(reshape(one(Step::f_neg, b), last), reshape(a, last)), split);
    const auto twice = [&](ValueId id) {
      const ValueId wide = expand(reshape(id, {tokens, 1, 4, 1}), {tokens, 1, 4, 2});
      return reshape(wide, {tokens, 1, depth});
    };
    fused(Pairing::interleaved, add(mul(q, twice(cos)), mul(half, twice(sin))));
  }
}

TEST_CASE_FIXTURE(Rotary, "rope: some of the channels") {
  const ValueId q = reshape(x, split), rotated = part(q, 0, 6), rest = part(q, 6, 2);
  fused(Pairing::half, joined(add(mul(rotated, table(6)), mul(turned(rotated, 6), table(6))), rest));
}

TEST_CASE_FIXTURE(Rotary, "rope: tables computed from positions") {
  const ValueId position = input("position", {2, tokens, 1, 1}), q = reshape(x, split);
  const ValueId angle = mul(position, weights({4})), angles = joined(angle, angle);
  output(rotate_half(q, one(Step::f_cos, angles), one(Step::f_sin, angles)));
  Optimised done(*this, sizes);
  CHECK(done.fused("rope") == 1);
  CHECK(done.nodes<Concat>() == 0);  // the frequencies are joined instead, which are constant
  CHECK(done.nodes<Gather>() == 0);
}

TEST_CASE_FIXTURE(Rotary, "rope: what only resembles it is left") {
  const ValueId q = reshape(x, split), cos = table(depth), sin = table(depth);
  std::string found;
  SUBCASE("other pairs") {
    const ValueId half = joined(one(Step::f_neg, part(q, 2, 4)), joined(part(q, 0, 2), part(q, 6, 2)));
    output(add(mul(q, cos), mul(half, sin)));
    found = "channel 0 made of the channels 0 and 2 of 'n1'";
  }
  SUBCASE("another tensor's channels") {
    output(add(mul(q, cos), mul(turned(reshape(input("other", {2, tokens, heads * depth}), split)), sin)));
    found = "channels that are sums of two products, but of several tensors or several tables";
  }
  Optimised done(*this, sizes);
  CHECK(done.fused("rope") == 0);
  REQUIRE(done.report.missed.size() == 1);
  CHECK(done.report.missed[0].concept_name == "rope");
  CHECK(done.report.missed[0].found == found);
}

// --- Matrix products -------------------------------------------------------------------------------------------------

TEST_CASE("matmul takes bias, residual and activation into its epilogue") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 5, 8}), weights = w.weights({8, 16}), bias = w.weights({16});
  const ValueId residual = w.input("residual", {batch, 5, 16});
  const ValueId product = w.matmul(x, weights);
  Activation activation = Activation::none;
  bool has_bias = true, has_residual = false;
  SUBCASE("bias") {
    w.output(w.add(product, bias));
  }
  SUBCASE("bias first") {
    w.output(w.add(bias, product));
  }
  SUBCASE("bias and residual") {
    w.output(w.add(residual, w.add(product, bias))), has_residual = true;
  }
  SUBCASE("residual, then activation") {
    w.output(w.one(Step::f_relu, w.add(w.add(product, bias), residual)));
    has_residual = true, activation = Activation::relu;
  }
  SUBCASE("decomposed gelu") {
    const ValueId y = w.add(product, bias);
    w.output(w.times(w.mul(y, w.plus(w.one(Step::f_erf, w.over(y, 1.41421356f)), 1)), 0.5f));
    activation = Activation::gelu;
  }
  SUBCASE("silu, no bias") {
    w.output(w.one(Step::f_silu, product)), has_bias = false, activation = Activation::silu;
  }
  SUBCASE("rows flattened for the product") {
    const ValueId flat = w.matmul(w.reshape(x, {5 * batch, 8}), weights);
    w.output(w.add(w.reshape(w.add(flat, bias), {batch, 5, 16}), residual));
    has_residual = true;
  }
  SUBCASE("alpha is in the weights") {
    w.output(w.add(w.times(product, 0.5f), bias));
  }
  Optimised done(w, {{"batch", 3}});
  CHECK(done.fused("matmul epilogue") == 1);
  const Node& node = done.the<Matmul>();
  CHECK(done.graph.order().size() == 1);
  CHECK(done.attributes<Matmul>().activation == activation);
  CHECK((node.inputs.size() > 2 && node.inputs[2] != no_value) == has_bias);
  CHECK((node.inputs.size() > 3 && node.inputs[3] == residual) == has_residual);
}

TEST_CASE("matmul: what others read stays") {
  Written w;
  const ValueId x = w.input("x", {5, 8});
  const ValueId product = w.matmul(x, w.weights({8, 8}));
  w.output(product);
  w.output(w.add(product, w.weights({8})));
  Optimised done(w, {});
  CHECK(done.fused("matmul epilogue") == 0);
}

TEST_CASE("conv: bias, residual and activation are its epilogue") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 6, 9, 4}), residual = w.input("residual", {batch, 6, 9, 8});
  const ValueId conv = w.add_node(Conv{{{3, 1, 1, 1, 1}, {3, 1, 1, 1, 1}}, 2}, {x, w.weights({3, 3, 2, 8})});
  w.output(w.one(Step::f_relu, w.add(w.add(conv, w.weights({8})), residual)));
  Optimised done(w, {{"batch", 2}});
  CHECK(done.fused("matmul epilogue") == 1);
  CHECK(done.graph.order().size() == 1);
  CHECK(done.attributes<Conv>().activation == Activation::relu);
  CHECK(done.the<Conv>().inputs[3] == residual);
}

// --- Unrolled loops --------------------------------------------------------------------------------------------------

namespace {

// Cells written out, step by step, over x [batch, 6, 5].
struct Unrolled : Written {
  static constexpr int64_t steps = 6, inputs = 5, hidden = 4;
  struct State {
    ValueId h, c;
  };
  Expression batch = dimension("batch", 1, 8);
  Sizes sizes{{"batch", 3}};
  ValueId x = input("x", {batch, steps, inputs});
  ValueId w = weights({inputs, 4 * hidden}), r = weights({hidden, 4 * hidden}), b = weights({4 * hidden}),
          rb = weights({4 * hidden});
  State given{input("h", {batch, hidden}), input("c", {batch, hidden})};
  State zero{expand(number(0), {batch, hidden}), expand(number(0), {batch, hidden})};

  ValueId at(int64_t t) {
    return reshape(add_node(Slice{{0, t, 0}, {1, 1, 1}, {batch, 1, inputs}}, {x}), {batch, inputs});
  }
  ValueId part(ValueId value, int64_t gate) {
    return add_node(Slice{{0, gate * hidden}, {1, 1}, {graph.value(value).dims[0], hidden}}, {value});
  }
  ValueId sigmoid(ValueId value) { return one(Step::f_sigmoid, value); }
  ValueId tanh(ValueId value) { return one(Step::f_tanh, value); }

  // Gates as Keras has them: i f g o.
  State lstm_of(ValueId sums, State state) {
    const ValueId kept = mul(sigmoid(part(sums, 1)), state.c);
    const ValueId c = add(kept, mul(sigmoid(part(sums, 0)), tanh(part(sums, 2))));
    return {mul(sigmoid(part(sums, 3)), tanh(c)), c};
  }
  State lstm(ValueId in, State state) { return lstm_of(add(add(matmul(in, w), matmul(state.h, r)), b), state); }
  State gru(ValueId in, State state) {  // z r n, the reset behind the product
    const ValueId of_x = add(matmul(in, w), b), of_h = add(matmul(state.h, r), rb);
    const ValueId z = sigmoid(add(part(of_x, 0), part(of_h, 0))), reset = sigmoid(add(part(of_x, 1), part(of_h, 1)));
    const ValueId n = tanh(add(part(of_x, 2), mul(reset, part(of_h, 2))));
    return {add(mul(z, state.h), mul(sub(number(1), z), n)), no_value};
  }
  ValueId stack(const std::vector<ValueId>& values) {
    std::vector<ValueId> all;
    for (const ValueId value : values) all.push_back(reshape(value, {batch, 1, hidden}));
    return add_node(Concat{1}, all);
  }
  template <class Cell>
  std::vector<State> unroll(State state, Cell cell) {
    std::vector<State> states;
    for (int64_t t = 0; t < steps; ++t) states.push_back(state = cell(t, state));
    return states;
  }
  std::vector<State> lstms(State state) {
    return unroll(state, [&](int64_t t, State before) { return lstm(at(t), before); });
  }
  static std::vector<ValueId> hs(const std::vector<State>& states) {
    std::vector<ValueId> all;
    for (const State& state : states) all.push_back(state.h);
    return all;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Unrolled, "recurrent: an LSTM's cell") {
  State next{};
  SUBCASE("a product each") {
    next = lstm(at(0), given);
  }
  SUBCASE("one product over both side by side") {
    const ValueId both = add_node(Concat{1}, {given.h, at(0)});
    next = lstm_of(add(matmul(both, weights({hidden + inputs, 4 * hidden})), b), given);
  }
  SUBCASE("a product for each gate, two biases, operands the other way round") {
    const auto sum = [&] {
      const ValueId of_h = add(matmul(given.h, weights({hidden, hidden})), weights({hidden}));
      return add(of_h, add(weights({hidden}), matmul(at(0), weights({inputs, hidden}))));
    };
    const ValueId c = add(mul(tanh(sum()), sigmoid(sum())), mul(given.c, sigmoid(sum())));
    next = {mul(tanh(c), sigmoid(sum())), c};
  }
  SUBCASE("sigmoids before the split, gates in another order") {
    const ValueId sums = add(add(matmul(at(0), w), matmul(given.h, r)), number(0.5f));
    const ValueId gates = sigmoid(add_node(Slice{{0, hidden}, {1, 1}, {batch, 3 * hidden}}, {sums}));
    const ValueId c = add(mul(part(gates, 1), given.c), mul(part(gates, 0), tanh(part(sums, 0))));
    next = {mul(part(gates, 2), tanh(c)), c};
  }
  SUBCASE("an input of as many channels as units, and a constant state") {
    const ValueId sums = add(matmul(given.h, r), matmul(number(0.5f, {1, hidden}), weights({hidden, 4 * hidden})));
    next = lstm_of(add(sums, matmul(given.c, weights({hidden, 4 * hidden}))), {no_value, number(0.25f, {1, hidden})});
  }
  output(next.h);
  output(next.c);
  Optimised done(*this, sizes);
  CHECK(done.fused("recurrent") == 1);
  CHECK(done.report.missed.empty());
  CHECK(done.attributes<Recurrent>().cell == Cell::lstm);
  CHECK(done.nodes<Matmul>() + done.nodes<Map>() == 0);
}

TEST_CASE_FIXTURE(Unrolled, "recurrent: an LSTM over all steps") {
  int layers = 1;
  size_t operands = 4;
  SUBCASE("the last states, from given ones") {
    const State last = lstms(given).back();
    output(last.h);
    output(last.c);
    operands = 6;
  }
  SUBCASE("stacked, from zeros") {
    output(stack(hs(lstms(zero))));
  }
  SUBCASE("stacked, and two steps on their own") {
    const auto states = lstms(zero);
    output(stack(hs(states)));
    output(mul(states[2].h, states.back().h));
  }
  SUBCASE("backwards") {
    auto states = unroll(zero, [&](int64_t t, State before) { return lstm(at(steps - 1 - t), before); });
    std::reverse(states.begin(), states.end());
    output(stack(hs(states)));
  }
  SUBCASE("two layers") {
    const std::vector<ValueId> first = hs(lstms(zero));
    w = weights({hidden, 4 * hidden});
    output(
        stack(hs(unroll(zero, [&](int64_t t, State before) { return lstm(first[static_cast<size_t>(t)], before); }))));
    layers = 2;
  }
  SUBCASE("twice with the same weights") {
    output(lstms(zero).back().h);
    x = one(Step::f_neg, x);
    output(lstms(zero).back().h);
    layers = 2;
  }
  Optimised done(*this, sizes);
  CHECK(done.fused("recurrent") == layers);
  CHECK(done.nodes<Recurrent>() == layers);
  CHECK(done.nodes<Matmul>() + done.nodes<Concat>() == 0);
  CHECK(done.report.fused[0].absorbed.size() >= 6 * 10);
  for (const NodeId id : done.graph.order()) {
    const Node& node = done.graph.node(id);
    if (!std::holds_alternative<Recurrent>(node.operation)) continue;
    const auto given = std::count_if(node.inputs.begin(), node.inputs.end(), [](ValueId in) { return in != no_value; });
    CHECK(given == static_cast<std::ptrdiff_t>(operands));
  }
}

TEST_CASE_FIXTURE(Unrolled, "recurrent: a GRU over all steps") {
  w = weights({inputs, 3 * hidden}), r = weights({hidden, 3 * hidden});
  b = weights({3 * hidden}), rb = weights({3 * hidden});
  const ValueId own = weights({hidden, hidden});
  bool after = true;
  State start = zero;
  std::function<State(int64_t, State)> cell = [&](int64_t t, State before) { return gru(at(t), before); };
  SUBCASE("the reset behind the product, from zeros") {}
  SUBCASE("the reset behind the product, from a given state") {
    start = given;
  }
  SUBCASE("the reset before it, n + z * (h - n)") {
    after = false;
    cell = [&](int64_t t, State before) {
      const ValueId of_x = add(matmul(at(t), w), b), of_h = matmul(before.h, r);
      const ValueId z = sigmoid(add(part(of_x, 0), part(of_h, 0))), reset = sigmoid(add(part(of_x, 1), part(of_h, 1)));
      const ValueId n = tanh(add(part(of_x, 2), matmul(mul(reset, before.h), own)));
      return State{add(n, mul(z, sub(before.h, n))), no_value};
    };
  }
  output(stack(hs(unroll(start, cell))));
  Optimised done(*this, sizes);
  CHECK(done.fused("recurrent") == 1);
  CHECK(done.attributes<Recurrent>().cell == Cell::gru);
  CHECK(done.attributes<Recurrent>().linear_before_reset == after);
  CHECK((done.the<Recurrent>().inputs.size() > 4 && done.the<Recurrent>().inputs[4] != no_value) ==
        (start.h == given.h));
  CHECK(done.nodes<Matmul>() + done.nodes<Map>() + done.nodes<Concat>() == 0);
}

TEST_CASE_FIXTURE(Unrolled, "recurrent: what is no loop, or no cell, stays") {
  int cells = 0;
  SUBCASE("an input that depends on the step before") {
    output(stack(hs(unroll(given, [&](int64_t t, State before) {
      return lstm(t == 0 ? at(t) : matmul(before.h, number(1, {hidden, inputs})), before);
    }))));
    cells = steps;
  }
  SUBCASE("an input that depends on two steps before") {  // pairs of steps are loops
    std::vector<ValueId> h;
    output(unroll(given,
                  [&](int64_t t, State before) {
                    const ValueId in =
                        t < 2 ? at(t)
                              : mul(at(t),
                                    one(Step::f_abs, matmul(h[static_cast<size_t>(t - 2)], weights({hidden, inputs}))));
                    const State next = lstm(in, before);
                    h.push_back(next.h);
                    return next;
                  })
               .back()
               .h);
    cells = steps / 2;
  }
  SUBCASE("other weights at each step") {
    output(unroll(given,
                  [&](int64_t t, State before) {
                    r = weights({hidden, 4 * hidden});
                    return lstm(at(t), before);
                  })
               .back()
               .h);
    cells = steps;
  }
  SUBCASE("a cell state that is needed between") {
    const auto states = lstms(given);
    output(states.back().h);
    output(states[2].c);
    cells = 2;
  }
  SUBCASE("a state that comes from elsewhere") {
    output(unroll(given, [&](int64_t t, State before) { return lstm(at(t), {before.h, given.c}); }).back().h);
    cells = steps;
  }
  SUBCASE("a peephole") {
    const ValueId sums = add(add(matmul(at(0), w), matmul(given.h, r)), b);
    const ValueId forget = sigmoid(add(part(sums, 1), mul(given.c, weights({hidden}))));
    const ValueId c = add(mul(forget, given.c), mul(sigmoid(part(sums, 0)), tanh(part(sums, 2))));
    output(mul(sigmoid(part(sums, 3)), tanh(c)));
  }
  SUBCASE("another activation") {
    const ValueId sums = add(add(matmul(at(0), w), matmul(given.h, r)), b);
    const ValueId c = add(mul(sigmoid(part(sums, 1)), given.c), mul(sigmoid(part(sums, 0)), part(sums, 2)));
    output(mul(sigmoid(part(sums, 3)), tanh(c)));
  }
  SUBCASE("gates that see different inputs") {
    const ValueId sums = add(add(matmul(at(0), w), matmul(given.h, r)), b);
    const ValueId others = add(add(matmul(at(1), w), matmul(given.h, r)), b);
    const ValueId c = add(mul(sigmoid(part(sums, 1)), given.c), mul(sigmoid(part(others, 0)), tanh(part(sums, 2))));
    output(mul(sigmoid(part(sums, 3)), tanh(c)));
  }
  SUBCASE("a gate for all units at once") {
    const ValueId sums = add(add(matmul(at(0), w), matmul(given.h, r)), b);
    const ValueId out = add(matmul(at(0), weights({inputs, 1})), matmul(given.h, weights({hidden, 1})));
    const ValueId c = add(mul(sigmoid(part(sums, 1)), given.c), mul(sigmoid(part(sums, 0)), tanh(part(sums, 2))));
    output(mul(sigmoid(out), tanh(c)));
  }
  SUBCASE("a first step for the whole batch") {
    const ValueId first = input("first", {1, inputs});
    output(stack(hs(unroll(zero, [&](int64_t t, State before) {
      if (t > 0) return lstm(at(t), before);
      return lstm(first, {expand(number(0), {1, hidden}), expand(number(0), {1, hidden})});
    }))));
    cells = 1;
  }
  SUBCASE("a GRU whose reset is on a product with the input too") {
    w = weights({inputs, hidden}), r = weights({hidden, hidden});
    const ValueId z = sigmoid(add(matmul(at(0), w), matmul(given.h, r)));
    const ValueId both = add(matmul(at(0), weights({inputs, hidden})), matmul(given.h, r));
    output(add(mul(z, given.h), mul(sub(number(1), z), tanh(add(matmul(at(0), w), mul(z, both))))));
  }
  SUBCASE("a GRU that updates the other way round") {
    w = weights({inputs, hidden}), r = weights({hidden, hidden});
    const ValueId z = sigmoid(add(matmul(at(0), w), matmul(given.h, r)));
    const ValueId n = tanh(add(matmul(at(0), w), mul(z, matmul(given.h, r))));
    output(add(mul(sub(number(1), z), given.h), mul(z, n)));
  }
  Optimised done(*this, sizes);
  CHECK(done.fused("recurrent") == cells);
  CHECK(done.nodes<Recurrent>() == cells);
  CHECK(std::ranges::none_of(done.report.missed, [](const auto& miss) { return miss.concept_name == "recurrent"; }));
}

// --- The check -------------------------------------------------------------------------------------------------------

namespace {

// Each of these takes something for what it is not.
std::optional<Offer> tanh_form_for_erf_form(Graph& graph, ValueId root, std::optional<Miss>&) {
  if (!operands_of(graph, root, Step::f_gelu)) return std::nullopt;
  return Builder(graph, root).map(Step::f_gelu_tanh, {(*operands_of(graph, root, Step::f_gelu))[0]});
}
std::optional<Offer> forgets_the_scale(Graph& graph, ValueId root, std::optional<Miss>&) {
  if (!made_by<Softmax>(graph, root)) return std::nullopt;
  const auto scores = scaled(graph, producer(graph, root)->inputs[0]);
  return scores ? std::optional(Builder(graph, root).add(*made_by<Softmax>(graph, root), {scores->x})) : std::nullopt;
}
std::optional<Offer> other_epsilon(Graph& graph, ValueId root, std::optional<Miss>&) {
  const auto* normalize = made_by<Normalize>(graph, root);
  if (normalize == nullptr || normalize->epsilon != 1e-5f) return std::nullopt;
  return Builder(graph, root).add(Normalize{normalize->kind, 1e-6f}, producer(graph, root)->inputs);
}
std::optional<Offer> other_shape(Graph& graph, ValueId root, std::optional<Miss>&) {
  if (!made_by<Softmax>(graph, root)) return std::nullopt;
  const Builder build(graph, root);
  return build.reshape(build.add(*made_by<Softmax>(graph, root), producer(graph, root)->inputs),
                       {count(build.dims(root))});
}

std::optional<Offer> wrong_beside(Graph& graph, ValueId root, std::optional<Miss>&) {
  if (!made_by<Softmax>(graph, root)) return std::nullopt;
  const Builder build(graph, root);
  Offer offer{build.add(*made_by<Softmax>(graph, root), producer(graph, root)->inputs)};
  const ValueId x = producer(graph, root)->inputs[0];
  offer.others.push_back({x, build.map(Step::f_add, producer(graph, x)->inputs)});
  return offer;
}

}  // namespace

TEST_CASE("a wrong fusion is undone and reported with its numbers") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 16});
  const ValueId normal = w.add_node(Normalize{Normalization::layer, 1e-5f}, {x});
  w.output(w.softmax(w.times(w.one(Step::f_gelu, normal), 0.5f)));
  const auto before = results(w.graph, {{"batch", 3}});
  Report report;
  Fusion wrong{"wrong", nullptr};
  SUBCASE("another function") {
    wrong.fuse = tanh_form_for_erf_form;
  }
  SUBCASE("a forgotten scale") {
    wrong.fuse = forgets_the_scale;
  }
  SUBCASE("another epsilon") {
    wrong.fuse = other_epsilon;
  }
  SUBCASE("another shape") {
    wrong.fuse = other_shape;
  }
  SUBCASE("another value beside it") {
    wrong.fuse = wrong_beside;
  }
  apply(w.graph, wrong, report);
  CHECK(report.fused.empty());
  explain(w.graph, wrong, report);
  REQUIRE(report.missed.size() == 1);
  CHECK(report.missed[0].concept_name == "wrong");
  CHECK(report.missed[0].found.starts_with("undone, "));
  CHECK(report.missed[0].found.find("instead of") != std::string::npos);
  const auto after = results(w.graph, {{"batch", 3}});
  CHECK(std::equal(after[0].floats().begin(), after[0].floats().end(), before[0].floats().begin()));
}

TEST_CASE("fusions are checked at sizes that constraints permit, however few") {
  Written w;
  const Expression t = w.dimension("t", 1, 1024), s = w.dimension("s", 1, 100), r = w.dimension("r", 1, 100);
  Sizes sizes{{"t", 128}, {"s", 3}, {"r", 3}};
  bool possible = true;
  const auto equal = [&](const Expression& a, const Expression& b) {
    w.graph.constraints.push_back({Constraint::Relation::equal, a, b});
  };
  SUBCASE("multiples") {
    equal(Expression::modulo(t, 128), 0);
  }
  SUBCASE("dimensions that are equal") {
    equal(s + r * 2, r * 3);
    equal(t, 100 * s + 11 * r);
    sizes["t"] = 333;
  }
  SUBCASE("none: the reason is that") {
    equal(Expression::modulo(t, 2), 0);
    equal(Expression::modulo(t, 4), 1);
    possible = false;
  }
  const ValueId x = w.input("x", {t, s, r});
  w.output(w.mul(x, w.one(Step::f_sigmoid, x)));
  Report report;
  Graph before = w.graph;
  optimise(w.graph, report);
  CHECK(report.fused.size() == possible);
  if (possible) check_same(results(w.graph, sizes), results(before, sizes));
  if (!possible) {
    REQUIRE(report.missed.size() == 1);
    CHECK(report.missed[0].found == "undone, it could not be checked: no permitted sizes of the dimensions were found");
    CHECK(report.missed[0].advice.find("report this") == std::string::npos);
  }
}

TEST_CASE("a fusion that is right is installed, and names what it absorbed") {
  Written w;
  const ValueId x = w.input("x", {4, 8});
  w.output(w.mul(x, w.one(Step::f_sigmoid, x)));
  Optimised done(w, {});
  REQUIRE(done.report.fused.size() == 1);
  CHECK(done.report.fused[0].node == "n2");
  CHECK(done.report.fused[0].absorbed == std::vector<std::string>{"n1", "n2"});
  CHECK(done.report.fused[0].largest_error < 1e-6);
  CHECK(done.the<Map>().absorbed == std::vector<std::string>{"n1", "n2"});
}

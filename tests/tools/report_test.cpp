/// What is said about groups of nodes that look like a concept and are not: the first node that differs, what stands
/// there and what was expected.
#include <doctest/doctest.h>

#include "tests/tools/written.h"

using namespace heed;
using namespace heed::test;

namespace {

/// The only miss.
const Report::Missed& the_miss(const Optimised& done, const std::string& concept_name) {
  for (const auto& fused : done.report.fused) CHECK(fused.concept_name != concept_name);
  for (const auto& missed : done.report.missed) CAPTURE(missed.found);
  REQUIRE(done.report.missed.size() == 1);
  const Report::Missed& miss = done.report.missed[0];
  CHECK(miss.concept_name == concept_name);
  CHECK(std::find(miss.nodes.begin(), miss.nodes.end(), miss.node) != miss.nodes.end());
  return miss;
}

std::string name_of(const Written& w, ValueId id) {
  return w.graph.node(w.graph.value(id).producer).name;
}

/// The only miss is of `concept_name`, and stops at the node that makes `at`.
void check_miss(Written& w, const Sizes& sizes, const std::string& concept_name, ValueId at, const std::string& found,
                const std::string& expected) {
  const std::string name = name_of(w, at);
  const Optimised done(w, sizes);
  const Report::Missed& miss = the_miss(done, concept_name);
  CHECK(miss.node == name);
  CHECK(miss.found == found);
  CHECK(miss.expected == expected);
}

}  // namespace

TEST_CASE("attention that is not: the node between the scores and the sum that differs") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8), tokens = w.dimension("tokens", 1, 32);
  const Sizes sizes{{"batch", 2}, {"tokens", 5}};
  const ValueId q = w.input("q", {batch, 4, tokens, 16}), k = w.input("k", {batch, 4, tokens, 16}),
                v = w.input("v", {batch, 4, tokens, 16});
  const ValueId product = w.matmul(q, w.transpose(k, {0, 1, 3, 2})), scores = w.over(product, 4);
  ValueId at = no_value;
  std::string found, expected;
  SUBCASE("a soft cap") {
    at = w.one(Step::f_tanh, w.over(scores, 30));
    w.output(w.matmul(w.softmax(w.times(at, 30)), v));
    found = "tanh of shape [batch, 4, tokens, tokens]";
    expected = "the scores, a product of queries and keys; scale, masks and biases may follow";
  }
  SUBCASE("under a bias that is read first") {
    at = w.one(Step::f_abs, scores);
    w.output(w.matmul(w.softmax(w.add(w.one(Step::f_tanh, w.input("bias", {batch, 4, tokens, tokens})), at)), v));
    found = "abs of shape [batch, 4, tokens, tokens]";
    expected = "the scores, a product of queries and keys; scale, masks and biases may follow";
  }
  SUBCASE("distances") {
    const ValueId far = w.sub(w.reshape(q, {batch, 4, tokens, 1, 16}), w.reshape(k, {batch, 4, 1, tokens, 16}));
    at = w.add_node(Reduce{Reduction::sum, {4}, false}, {w.mul(far, far)});
    w.output(w.matmul(w.softmax(w.one(Step::f_neg, at)), v));
    found = "a reduce of shape [batch, 4, tokens, tokens, 1]";
    expected = "the scores, a product of queries and keys; scale, masks and biases may follow";
  }
  SUBCASE("weights under a mask that comes too late") {
    at = w.mul(w.softmax(scores), w.input("mask", {tokens, tokens}));
    w.output(w.matmul(at, v));
    found = "a multiplication of shape [batch, 4, tokens, tokens] between the softmax and the sum";
    expected = "the softmax's weights as they are, or set to 0 where they are NaN";
  }
  SUBCASE("a temperature behind the mask") {
    const ValueId masked = w.select(w.input("mask", {tokens, tokens}, Type::boolean), scores, w.number(-INFINITY));
    at = w.mul(masked, w.input("temperature", {1}));
    w.output(w.matmul(w.softmax(at), v));
    found =
        "a multiplication of shape [batch, 4, tokens, tokens] by a value that is no constant, behind a mask or bias";
    expected = "a scale before masks and biases are added";
  }
  check_miss(w, sizes, "attention", at, found, expected);
}

TEST_CASE("softmax that is not") {
  Written w;
  const ValueId x = w.input("x", {3, 9}), e = w.one(Step::f_exp, x);
  ValueId at = no_value;
  std::string found;
  SUBCASE("a mask on the exponentials") {
    at = w.mul(e, w.input("mask", {3, 9}));
    w.output(w.div(at, w.reduce(Reduction::sum, at)));
    found = "a multiplication of shape [3, 9] of the exponentials";
  }
  SUBCASE("an epsilon on the sum") {
    at = w.plus(w.reduce(Reduction::sum, e), 1e-6f);
    w.output(w.div(e, at));
    found = "an addition of shape [3, 1] of the sum";
  }
  SUBCASE("two axes") {
    at = w.reduce(Reduction::sum, e, 2);
    w.output(w.div(e, at));
    found = "a sum over axes [0, 1] of [3, 9]";
  }
  const std::string name = name_of(w, at);
  Optimised done(w, {});
  CHECK(the_miss(done, "softmax").node == name);
  CHECK(the_miss(done, "softmax").found == found);
}

TEST_CASE("normalisation that is not") {
  Written w;
  const Expression batch = w.dimension("batch", 1, 8);
  const ValueId x = w.input("x", {batch, 5, 16}), scale = w.weights({16}), bias = w.weights({16});
  const ValueId d = w.sub(x, w.mean(x));
  const auto root = [&](ValueId variance) { return w.one(Step::f_sqrt, w.plus(variance, 1e-5f)); };
  const auto end = [&](ValueId normal) { w.output(w.add(w.mul(normal, scale), bias)); };
  std::string kind = "layer_norm", found, expected = "(x - mean(x)) / sqrt(variance(x) + epsilon)";
  ValueId at = no_value;
  SUBCASE("the epsilon behind the root") {
    at = w.plus(w.one(Step::f_sqrt, w.mean(w.mul(d, d))), 1e-6f);
    end(w.div(d, at));
    found = "an addition of shape [batch, 5, 1], an epsilon behind the square root";
    expected = "the epsilon under it: sqrt(variance + epsilon)";
  }
  SUBCASE("Bessel's correction") {
    at = w.over(w.reduce(Reduction::sum, w.mul(d, d)), 15);
    end(w.div(d, root(at)));
    found = "0.0666667 times a reduce of shape [batch, 5, 1]";
    expected = "the mean of the squares over all elements, divided by their number";
  }
  SUBCASE("the mean of other elements") {
    at = w.add_node(Reduce{Reduction::mean, {1}, true}, {x});
    const ValueId e = w.sub(x, at);
    w.output(w.div(e, root(w.sub(w.mean(w.mul(x, x)), w.mul(w.mean(x), w.mean(x))))));
    found = "a reduce over axes [1] of [batch, 5, 16]";
    expected = "the mean over the axes of the variance, of sizes [16]";
  }
  SUBCASE("a scale from outside in the middle") {
    at = w.div(w.input("scale", {batch, 1, 16}), root(w.mean(w.mul(d, d))));
    w.output(w.mul(d, at));
    found = "a division of the input 'scale' of shape [batch, 1, 16]";
  }
  SUBCASE("a bias from outside in the middle") {
    at = w.add(w.one(Step::f_reciprocal, root(w.mean(w.mul(d, d)))), w.input("bias", {1}));
    w.output(w.mul(d, at));
    found = "a bias that is the input 'bias' of shape [1]";
    expected = "a constant of shape [16]";
  }
  SUBCASE("an epsilon for each row") {
    at = w.add(w.mean(w.mul(d, d)), w.input("epsilon", {5, 1}));
    end(w.div(d, w.one(Step::f_sqrt, at)));
    found = "an epsilon that is the input 'epsilon' of shape [5, 1]";
    expected = "an epsilon that is a number";
  }
  SUBCASE("another numerator") {
    at = w.div(w.input("other", {batch, 5, 16}), root(w.mean(w.mul(d, d))));
    end(at);
    found = "a division of the input 'other' of shape [batch, 5, 16]";
  }
  SUBCASE("rms_norm with its epsilon behind the root") {
    kind = "rms_norm";
    at = w.plus(w.one(Step::f_sqrt, w.mean(w.mul(x, x))), 1e-6f);
    w.output(w.mul(w.div(x, at), scale));
    found = "an addition of shape [batch, 5, 1], an epsilon behind the square root";
    expected = "the epsilon under it: sqrt(mean(x * x) + epsilon)";
  }
  check_miss(w, {{"batch", 3}}, kind, at, found, expected);
}

TEST_CASE("activations that are not") {
  Written w;
  const ValueId x = w.input("x", {4, 9});
  const auto erf_of = [&](ValueId u) { return w.plus(w.one(Step::f_erf, u), 1); };
  std::string kind, found, expected;
  ValueId at = no_value;
  SUBCASE("gelu of another width") {
    kind = "gelu";
    at = w.over(x, 1.4f);
    w.output(w.times(w.mul(x, erf_of(at)), 0.5f));
    found = "erf of x / 1.4, in (x * (erf(x / 1.4) + 1)) * 0.5";
    expected = "erf of x / sqrt(2), as in x * (1 + erf(x / sqrt(2))) / 2";
  }
  SUBCASE("gelu of something else") {
    kind = "gelu";
    at = w.one(Step::f_erf, w.over(w.input("y", {4, 9}), 1.41421356f));
    w.output(w.times(w.mul(x, w.plus(at, 1)), 0.5f));
    found = "erf of shape [4, 9] that is not multiplied by its own argument";
    expected = "x * (1 + erf(x / sqrt(2))) / 2";
  }
  SUBCASE("twice gelu_tanh") {
    kind = "gelu_tanh";
    const ValueId u = w.times(w.add(x, w.times(w.pow(x, 3), 0.044715f)), 0.7978845608f);
    at = w.plus(w.one(Step::f_tanh, u), 1);
    w.output(w.mul(x, at));
    found = "x * (tanh((x + (((x * x) * x) * 0.044715)) * 0.797885) + 1)";
    expected = "x * (1 + tanh(0.797885 * (x + 0.044715 * x^3))) / 2";
  }
  SUBCASE("quick gelu") {
    kind = "silu";
    at = w.times(x, 1.702f);
    w.output(w.mul(x, w.one(Step::f_sigmoid, at)));
    found = "sigmoid of x * 1.702, in x * sigmoid(x * 1.702)";
    expected = "sigmoid of x, as in x * sigmoid(x)";
  }
  SUBCASE("a gated layer whose gate is squeezed") {
    kind = "silu";
    const ValueId gate = w.matmul(x, w.weights({9, 6})), up = w.matmul(x, w.weights({9, 6}));
    at = w.times(gate, 2);
    w.output(w.mul(w.mul(gate, w.one(Step::f_sigmoid, at)), up));
    found = "sigmoid of x * 2, in x * sigmoid(x * 2)";
    expected = "sigmoid of x, as in x * sigmoid(x)";
  }
  check_miss(w, {}, kind, at, found, expected);
}

TEST_CASE("what only has the parts of an activation is no miss") {
  Written w;
  const ValueId x = w.input("x", {4, 9}), y = w.input("y", {4, 9});
  SUBCASE("gates") {
    w.output(w.mul(w.one(Step::f_sigmoid, x), w.one(Step::f_tanh, y)));
  }
  SUBCASE("a residual sum") {
    w.output(w.add(x, w.one(Step::f_tanh, x)));
  }
  SUBCASE("a magnitude") {
    w.output(w.div(x, w.one(Step::f_sqrt, w.add(w.mul(x, x), w.mul(y, y)))));
  }
  SUBCASE("a classifier") {
    w.output(w.softmax(x));
  }
  Optimised done(w, {});
  CHECK(done.report.missed.empty());
}

TEST_CASE("each layer's miss is a group of its own") {
  Written w;
  ValueId x = w.input("x", {5, 16});
  for (int layer = 0; layer < 3; ++layer) {
    const ValueId d = w.sub(x, w.mean(x));
    x = w.matmul(w.div(d, w.plus(w.one(Step::f_sqrt, w.mean(w.mul(d, d))), 1e-6f)), w.weights({16, 16}));
  }
  w.output(x);
  Optimised done(w, {});
  REQUIRE(done.report.missed.size() == 3);
  for (size_t i = 0; i < 3; ++i) CHECK(done.report.missed[i].nodes.size() == 6);
  CHECK(done.report.missed[2].nodes.front() == "n1");
}

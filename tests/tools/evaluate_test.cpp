#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tools/error.h"
#include "tools/graph/graph.h"

using namespace heed;
using namespace heed::tools;

namespace {

Literal floats(std::vector<int64_t> dims, std::vector<float> values) {
  return Literal::of(std::move(dims), std::move(values));
}
Literal integers(std::vector<int64_t> dims, std::vector<int64_t> values) {
  return Literal::of(std::move(dims), std::move(values));
}
Literal booleans(std::vector<int64_t> dims, std::vector<uint8_t> values) {
  return Literal::of_booleans(std::move(dims), std::move(values));
}

std::vector<Literal> run(Operation operation, const std::vector<const Literal*>& inputs) {
  Node node;
  node.operation = std::move(operation);
  return evaluate(node, inputs, {{"n", 3}});
}
std::vector<float> result(Operation operation, const std::vector<const Literal*>& inputs) {
  const Literal literal = run(std::move(operation), inputs)[0];
  return {literal.floats().begin(), literal.floats().end()};
}
std::vector<int64_t> whole(Operation operation, const std::vector<const Literal*>& inputs) {
  const Literal literal = run(std::move(operation), inputs)[0];
  return {literal.integers().begin(), literal.integers().end()};
}

using Floats = std::vector<float>;
using Integers = std::vector<int64_t>;
const float infinity = std::numeric_limits<float>::infinity();

void close(const Floats& found, const Floats& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("maps broadcast") {
  const Literal x = floats({2, 2}, {1, 2, 3, 4}), row = floats({2}, {10, 20}), column = floats({2, 1}, {1, -1});
  CHECK(result(Map{Step::f_add}, {&x, &row}) == Floats{11, 22, 13, 24});
  CHECK(result(Map{Step::f_mul}, {&row, &column}) == Floats{10, 20, -10, -20});
  const Literal mask = booleans({2, 1}, {1, 0}), scalar = floats({}, {-5});
  CHECK(result(Map{Step::f_select}, {&mask, &x, &scalar}) == Floats{1, 2, -5, -5});
}

TEST_CASE("integer steps are total") {
  const Literal a = integers({4}, {7, -7, INT64_MIN, 5}), b = integers({4}, {2, 2, -1, 0});
  CHECK(whole(Map{Step::i_div}, {&a, &b}) == Integers{3, -3, INT64_MIN, 0});
  CHECK(whole(Map{Step::i_mod}, {&a, &b}) == Integers{1, 1, 0, 0});
  CHECK(whole(Map{Step::i_fmod}, {&a, &b}) == Integers{1, -1, 0, 0});
  const Literal wild = floats({4}, {NAN, 1e30f, -1e30f, -2.9f});
  CHECK(whole(Map{Step::f_to_i}, {&wild}) == Integers{0, INT64_MAX, INT64_MIN, -2});
}

TEST_CASE("minimum and maximum pass NaN on and tell zeros apart") {
  const Literal a = floats({2}, {NAN, -0.0f}), b = floats({2}, {1, 0.0f});
  const Floats most = result(Map{Step::f_max}, {&a, &b}), least = result(Map{Step::f_min}, {&a, &b});
  CHECK(std::isnan(most[0]));
  CHECK(!std::signbit(most[1]));
  CHECK(std::isnan(least[0]));
  CHECK(std::signbit(least[1]));
}

TEST_CASE("moving elements") {
  const Literal x = integers({2, 3}, {0, 1, 2, 3, 4, 5});
  CHECK(whole(Transpose{{1, 0}}, {&x}) == Integers{0, 3, 1, 4, 2, 5});
  CHECK(whole(Slice{{1, 2}, {1, -2}, {1, 2}}, {&x}) == Integers{5, 3});
  CHECK(whole(Pad{{0, 1}, {1, 0}, 9}, {&x}) == Integers{9, 0, 1, 2, 9, 3, 4, 5, 9, 9, 9, 9});
  CHECK(whole(Concat{1}, {&x, &x}) == Integers{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5});
  const Literal index = integers({2, 1}, {-1, 7});  // from the end; past it
  CHECK(whole(Gather{1}, {&x, &index}) == Integers{2, 2, 5, 5});
  const Literal one = integers({2, 1}, {1, 2});
  CHECK(whole(Expand{{2, Expression::dimension("n")}}, {&one}) == Integers{1, 1, 1, 2, 2, 2});
  CHECK(whole(Iota{{2, 3}, 1}, {}) == Integers{0, 1, 2, 0, 1, 2});
  CHECK(whole(Iota{{2, 3}, 0}, {}) == Integers{0, 0, 0, 1, 1, 1});
  CHECK(whole(tools::Size{2 * Expression::dimension("n")}, {}) == Integers{6});
  CHECK_THROWS_AS(run(Slice{{0, 2}, {1, 1}, {2, 2}}, {&x}), Error);
  const Literal nothing = integers({0, 3}, {});
  CHECK(whole(Transpose{{1, 0}}, {&nothing}).empty());
  CHECK(whole(Concat{0}, {&nothing, &x}) == Integers{0, 1, 2, 3, 4, 5});
}

TEST_CASE("matmul: batches broadcast, bias, residual, activation") {
  const Literal a = floats({2, 1, 2}, {1, 2, 3, 4}), b = floats({2, 2}, {1, 10, 2, 20}),
                bias = floats({2}, {0.5, -100});
  CHECK(result(Matmul{}, {&a, &b}) == Floats{5, 50, 11, 110});
  CHECK(result(Matmul{Activation::relu}, {&a, &b, &bias}) == Floats{5.5, 0, 11.5, 10});
  const Literal residual = floats({2, 1, 2}, {1, 1, 1, 1});
  CHECK(result(Matmul{}, {&a, &b, nullptr, &residual}) == Floats{6, 51, 12, 111});
}

TEST_CASE("reductions") {
  const Literal x = floats({2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(result(Reduce{Reduction::sum, {0, 2}, false}, {&x}) == Floats{14, 22});
  CHECK(result(Reduce{Reduction::mean, {1}, true}, {&x}) == Floats{2, 3, 6, 7});
  CHECK(result(Reduce{Reduction::sum_square, {0, 1, 2}, false}, {&x}) == Floats{204});
  CHECK(result(Reduce{Reduction::product, {2}, false}, {&x}) == Floats{2, 12, 30, 56});
  const Literal ties = floats({5}, {1, 7, 7, NAN, NAN});
  const Literal first = floats({3}, {2, 7, 7});
  CHECK(whole(Reduce{Reduction::arg_max, {0}, false}, {&first}) == Integers{1});
  CHECK(whole(Reduce{Reduction::arg_max, {0}, false, true}, {&first}) == Integers{2});
  CHECK(whole(Reduce{Reduction::arg_min, {0}, false}, {&ties}) == Integers{3});
  const Literal empty = floats({2, 0}, {});
  CHECK(result(Reduce{Reduction::max, {1}, false}, {&empty}) == Floats{-infinity, -infinity});
}

TEST_CASE("softmax along any axis") {
  const Literal x = floats({2, 2}, {0, 1, std::log(3.0f), 1});
  close(result(Softmax{0}, {&x}), {0.25f, 0.5f, 0.75f, 0.5f});
  close(result(Softmax{0, true}, {&x}), {std::log(0.25f), std::log(0.5f), std::log(0.75f), std::log(0.5f)});
}

TEST_CASE("attention: masks leave keys out, a row without keys is zeros") {
  // One head of two queries over two keys; both keys score alike, so that unmasked rows are the mean of the values.
  const Literal q = floats({1, 1, 2, 1}, {1, 2}), k = floats({1, 1, 2, 1}, {1, 1}),
                v = floats({1, 1, 2, 2}, {2, 4, 6, 8});
  close(result(Attention{}, {&q, &k, &v}), {4, 6, 4, 6});
  Attention causal;
  causal.causal = true;
  close(result(causal, {&q, &k, &v}), {2, 4, 4, 6});
  const Literal padding = booleans({1, 2}, {0, 1}), none = booleans({1, 1, 2, 2}, {0, 0, 1, 0});
  close(result(Attention{}, {&q, &k, &v, nullptr, &padding}), {6, 8, 6, 8});
  close(result(Attention{}, {&q, &k, &v, &none}), {0, 0, 2, 4});
  const Literal bias = floats({1, 1, 1, 2}, {0, std::log(3.0f)});
  close(result(Attention{}, {&q, &k, &v, &bias}), {5, 7, 5, 7});
  const Literal toeplitz = floats({1, 3}, {-infinity, 0, std::log(3.0f)});  // of j - i = -1, 0, 1
  close(result(Attention{}, {&q, &k, &v, nullptr, nullptr, nullptr, &toeplitz}), {5, 7, 6, 8});
  // Four heads share two: heads 0, 1 read values 1, heads 2, 3 read values 2.
  const Literal heads = floats({1, 4, 1, 1}, {1, 1, 1, 1}), shared = floats({1, 2, 1, 1}, {1, 2});
  close(result(Attention{}, {&heads, &shared, &shared}), {1, 1, 2, 2});
}

TEST_CASE("normalize") {
  const Literal x = floats({1, 2}, {1, 3}), scale = floats({2}, {10, 10}), bias = floats({2}, {1, 2});
  close(result(Normalize{Normalization::layer, 0}, {&x, &scale, &bias}), {-9, 12});
  close(result(Normalize{Normalization::rms, 0}, {&x, nullptr, nullptr}), {1 / std::sqrt(5.0f), 3 / std::sqrt(5.0f)});
}

TEST_CASE("recurrent layers, one unit by hand") {
  const Literal x = floats({2, 1, 1}, {1, 2});
  const auto sigmoid = [](double z) { return 1 / (1 + std::exp(-z)); };
  SUBCASE("rnn, backwards") {
    const Literal w = floats({1, 1, 1}, {0.5}), r = floats({1, 1, 1}, {0.25}), b = floats({1, 2}, {0.1f, 0.2f});
    const double second = std::tanh(1.0 + 0.3), first = std::tanh(0.5 + 0.3 + 0.25 * second);
    const auto results = run(Recurrent{Cell::rnn, Direction::reverse, false, 1}, {&x, &w, &r, &b});
    CHECK(results[0].floats()[0] == doctest::Approx(first));
    CHECK(results[0].floats()[1] == doctest::Approx(second));
    CHECK(results[1].floats()[0] == doctest::Approx(first));
  }
  SUBCASE("lstm: gates i, o, f, c") {
    const Literal w = floats({1, 4, 1}, {0.1f, 0.2f, 0.3f, 0.4f}), r = floats({1, 4, 1}, {0, 0, 0, 0});
    const Literal h0 = floats({1, 1, 1}, {0}), c0 = floats({1, 1, 1}, {2});
    const double cell = sigmoid(0.3) * 2 + sigmoid(0.1) * std::tanh(0.4);
    const auto results = run(Recurrent{Cell::lstm, Direction::forward, false, 1}, {&x, &w, &r, nullptr, &h0, &c0});
    CHECK(results[0].floats()[0] == doctest::Approx(sigmoid(0.2) * std::tanh(cell)));
    const double next = sigmoid(0.6) * cell + sigmoid(0.2) * std::tanh(0.8);
    CHECK(results[2].floats()[0] == doctest::Approx(next));
  }
  SUBCASE("gru: gates z, r, h, both forms of reset") {
    const Literal w = floats({1, 3, 1}, {0.1f, 0.2f, 0.3f}), r = floats({1, 3, 1}, {0.4f, 0.5f, 0.6f});
    const Literal b = floats({1, 6}, {0, 0, 0.7f, 0, 0, 0.8f}), h0 = floats({1, 1, 1}, {0.5});
    const double z = sigmoid(0.1 + 0.2), reset = sigmoid(0.2 + 0.25);
    const double before = std::tanh(0.3 + 0.7 + reset * (0.3 + 0.8)),
                 after = std::tanh(0.3 + 0.7 + 0.6 * reset * 0.5 + 0.8);
    const auto linear = run(Recurrent{Cell::gru, Direction::forward, true, 1}, {&x, &w, &r, &b, &h0});
    CHECK(linear[0].floats()[0] == doctest::Approx((1 - z) * before + z * 0.5));
    const auto plain = run(Recurrent{Cell::gru, Direction::forward, false, 1}, {&x, &w, &r, &b, &h0});
    CHECK(plain[0].floats()[0] == doctest::Approx((1 - z) * after + z * 0.5));
  }
}

TEST_CASE("rotary positions") {
  const Literal x = floats({2, 1, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  const Literal cos = floats({1, 4}, {1, 1, 10, 10}), sin = floats({2, 1, 4}, {-1, -2, 3, 4, 0, 0, 0, 0});
  CHECK(result(Rope{Pairing::half}, {&x, &cos, &sin}) == Floats{-2, -6, 33, 48, 5, 6, 7, 80, 90, 10});
  CHECK(result(Rope{Pairing::interleaved}, {&x, &cos, &sin}) == Floats{-1, 0, 42, 52, 5, 6, 7, 80, 90, 10});
}

TEST_CASE("an elementwise program equals its maps") {
  const Literal x = floats({2, 3}, {1, -2, 3, -4, 5, -6}), row = floats({3}, {1, 2, 3});
  Elementwise program;
  program.dims = {2, 3};
  program.sources = {{SourceKind::tensor, 0, {}},
                     {SourceKind::tensor, 0, {}},
                     {SourceKind::iota, 1, {}},
                     {SourceKind::dimension, 0, Expression::dimension("n")}};
  program.immediates = {0x40000000};  // 2.0f
  constexpr uint8_t in = operand::inputs, none = operand::none;
  program.instructions = {{Step::f_fma, 0, {in, operand::immediates, in + 1}, {}},  // x * 2 + row
                          {Step::f_relu, 0, {0, none, none}, {}},
                          {Step::i_add, 1, {in + 2, in + 3, none}, {}}};
  program.results = {0, 1};
  const auto results = run(program, {&x, &row});
  CHECK(Floats(results[0].floats().begin(), results[0].floats().end()) == Floats{3, 0, 9, 0, 12, 0});
  CHECK(Integers(results[1].integers().begin(), results[1].integers().end()) == Integers{3, 4, 5, 3, 4, 5});
}

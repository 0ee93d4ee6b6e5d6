#include "tools/graph/expression.h"

#include <doctest/doctest.h>

#include <random>

#include "tools/error.h"

using heed::tools::Dimension;
using heed::tools::Error;
using heed::tools::Expression;

namespace {

const Expression t = Expression::dimension("tokens"), b = Expression::dimension("batch");
const std::map<std::string, Dimension> ranges{{"tokens", {"tokens", 1, 9}}, {"batch", {"batch", 2, 5}}};

int64_t floor_divide(int64_t a, int64_t n) {
  return a / n - (a % n != 0 && (a < 0) != (n < 0));
}

// A random expression and the number it is, computed beside it.
struct Random {
  std::mt19937 generator{7};
  std::map<std::string, int64_t> values;

  int pick(int count) { return static_cast<int>(generator() % static_cast<unsigned>(count)); }

  std::pair<Expression, int64_t> make(int depth) {
    if (depth == 0) {
      const int kind = pick(3);
      if (kind == 0) return {t, values.at("tokens")};
      if (kind == 1) return {b, values.at("batch")};
      const int64_t constant = pick(9) - 4;
      return {constant, constant};
    }
    const auto [x, m] = make(depth - 1);
    const auto [y, n] = make(pick(depth));
    switch (pick(7)) {
      case 0:
        return {x + y, m + n};
      case 1:
        return {x - y, m - n};
      case 2:
        return {x * y, m * n};
      case 3:
        return n == 0 || y.is_constant(0) ? std::pair(x, m) : std::pair(Expression::divide(x, y), floor_divide(m, n));
      case 4:
        return n == 0 || y.is_constant(0) ? std::pair(x, m)
                                          : std::pair(Expression::modulo(x, y), m - n * floor_divide(m, n));
      case 5:
        return {Expression::minimum(x, y), std::min(m, n)};
      default:
        return {Expression::maximum(x, y), std::max(m, n)};
    }
  }
};

}  // namespace

TEST_CASE("equal polynomials have one form") {
  CHECK(2 * t + t == 3 * t);
  CHECK((t + 1) * (t - 1) == t * t - 1);
  CHECK(t * b - b * t == 0);
  CHECK((t - t).constant() == 0);
  CHECK(!t.constant());
}

TEST_CASE("divisions simplify where they can") {
  CHECK(Expression::divide(t * b, b) == t);
  CHECK(Expression::divide(t * t - 1, t + 1) == t - 1);
  CHECK(Expression::divide(64 * t, 16) == 4 * t);
  CHECK(Expression::divide(2 * t + 3, 2) == t + 1);
  CHECK(Expression::divide(Expression::divide(t, 2), 3) == Expression::divide(t, 6));
  CHECK(Expression::divide(2 * t * b, 4 * b) == Expression::divide(t, 2));
  CHECK(Expression::modulo(6 * t + 5, 3) == 2);
  CHECK(Expression::modulo(t * b, t) == 0);
  CHECK(Expression::minimum(t, t + 1) == t);
  CHECK(Expression::maximum(t, Expression::minimum(t, b)) == t);
  CHECK(Expression::minimum(t, b) == Expression::minimum(b, t));
  CHECK_THROWS_AS(Expression::divide(t, 0), Error);
}

TEST_CASE("every operation agrees with numbers, and so do substitution, simplification, ranges and text") {
  Random random;
  int checked = 0;
  for (int round = 0; round < 3000; ++round) {
    random.values = {{"tokens", 1 + random.pick(9)}, {"batch", 2 + random.pick(4)}};
    const auto [expression, value] = random.make(1 + random.pick(4));
    const Expression& e = expression;
    CAPTURE(e.text());
    int64_t evaluated = 0;
    try {
      evaluated = e.evaluate(random.values);
    } catch (const Error&) {
      continue;  // a divisor that simplified to another that is 0 here
    }
    CHECK(evaluated == value);
    const auto parsed = Expression::parse(e.text());
    REQUIRE(parsed);
    CHECK(*parsed == e);
    try {
      CHECK(e.substitute("tokens", random.values["tokens"]).substitute("batch", random.values["batch"]).constant() ==
            value);
      const auto [lower, upper] = e.range(ranges);
      CHECK(lower <= value);
      CHECK(value <= upper);
      CHECK(e.simplify(ranges).evaluate(random.values) == value);
      ++checked;
    } catch (const Error&) {
    }
  }
  CHECK(checked > 2000);
}

TEST_CASE("ranges of monotone sizes are exact") {
  const auto exact = [&](const Expression& e, int64_t lower, int64_t upper) {
    CAPTURE(e.text());
    CHECK(e.range(ranges).lower == lower);
    CHECK(e.range(ranges).upper == upper);
  };
  exact(t * b, 2, 45);
  exact(10 - t, 1, 9);
  exact(t * t - t, 0, 72);
  exact(Expression::divide(t + 1, 2), 1, 5);
  exact(t - 2 * Expression::divide(t, 2), 0, 1);
  exact(Expression::maximum(t, 2 * b), 4, 10);
  CHECK(Expression::minimum(t, 9).simplify(ranges) == t);
  CHECK(Expression::maximum(b, 1).simplify(ranges) == b);
}

TEST_CASE("text is what a person writes") {
  CHECK((2 * t + 1).text() == "2 * tokens + 1");
  CHECK((1 - t).text() == "-tokens + 1");
  CHECK(Expression::divide(t + 1, 2).text() == "(tokens + 1) // 2");
  CHECK((3 * Expression::modulo(t, 4)).text() == "3 * (tokens % 4)");
  CHECK(Expression::parse(" 2*tokens - -1 ") == 2 * t + 1);
  CHECK(Expression::parse("min(tokens, batch)*3") == 3 * Expression::minimum(t, b));
  for (const char* wrong : {"", "tokens +", "(tokens", "tokens batch", "3x", "tokens // 0", "floor(tokens)", "a?b"})
    CHECK(!Expression::parse(wrong));
  CHECK(!Expression::parse(std::string(100'000, '(')));
}

TEST_CASE("arithmetic saturates") {
  const Expression end = INT64_MAX;
  CHECK((end + 1).is_constant(INT64_MAX));
  CHECK((end * end).is_constant(INT64_MAX));
  CHECK(Expression::minimum(end, t).simplify(ranges) == t);
}

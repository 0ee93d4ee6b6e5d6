#include "kernels/softmax/softmax.h"

#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

std::vector<double> exact(std::span<const float> x, int n, bool log) {
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(n)) {
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; ++i) top = std::max<double>(top, x[row + i]);
    for (int i = 0; i < n; ++i) sum += std::exp(x[row + i] - top);
    for (int i = 0; i < n; ++i) y[row + i] = log ? x[row + i] - top - std::log(sum) : std::exp(x[row + i] - top) / sum;
  }
  return y;
}

void run(const SoftmaxParams& params, const Shape& shape, const float* x, float* y, Isa isa, uint32_t threads = 1) {
  Call(softmax_operator, &params).input(shape, x).output(shape, y).run(isa, threads);
}

}  // namespace

TEST_CASE("softmax: the reference is close to double precision") {
  Random random(1);
  for (const uint8_t log : {0, 1}) {
    for (const int n : {1, 2, 5, 17, 100, 1000}) {
      const SoftmaxParams params{log, {}};
      const Shape shape = shape_of(Type::f32, {3, n});
      const auto x = uniform(static_cast<size_t>(3 * n), random, -30, 10);
      std::vector<float> y(x.size());
      run(params, shape, x.data(), y.data(), Isa::portable);
      check_close(y, exact(x, n, log), {2e-6, 1e-6, "exp of a difference up to 40 rounded once, a sum of n terms"},
                  "softmax");
    }
  }
}

TEST_CASE("softmax: every instruction set gives the reference's bits") {
  Random random(2);
  for (const uint8_t log : {0, 1}) {
    const SoftmaxParams params{log, {}};
    for (const int n : sizes()) {
      for (const Edge edge : {Edge::end, Edge::begin}) {
        const Shape shape = shape_of(Type::f32, {3, n});
        auto x = uniform(static_cast<size_t>(3 * n), random, -60, 20);
        if (n > 4) x[static_cast<size_t>(n) + random() % static_cast<unsigned>(n)] = -INFINITY;
        if (n > 2)
          x[static_cast<size_t>(2 * n) + random() % static_cast<unsigned>(n)] = special_floats()[random() % 13];
        std::vector<float> expected(x.size());
        run(params, shape, x.data(), expected.data(), Isa::portable);
        for (const Isa isa : simd_isas()) {
          const Guarded<float> in(x, edge), out(x.size(), edge);
          run(params, shape, in.data(), out.data(), isa);
          check_same(expected, out, name(isa) + std::string(" n ") + std::to_string(n));
          run(params, shape, in.data(), in.data(), isa);
          check_same(expected, in, "in place");
        }
      }
    }
  }
}

TEST_CASE("softmax: rows apart, and threads") {
  Random random(3);
  const SoftmaxParams params{};
  const int rows = 200, n = 300, x_row = 310, y_row = 305;
  const auto x = uniform(rows * x_row, random);
  const Shape x_shape = shape_of(Type::f32, {2, rows / 2, n}, {rows / 2 * x_row, x_row, 1});
  const Shape y_shape = shape_of(Type::f32, {2, rows / 2, n}, {rows / 2 * y_row, y_row, 1});
  std::vector<float> expected(rows * y_row, 7.0f);
  Call(softmax_operator, &params).input(x_shape, x.data()).output(y_shape, expected.data()).run(Isa::portable);
  CHECK(expected[n] == 7.0f);
  for (const Isa isa : isas()) {
    for (const uint32_t threads : {1u, 2u, 3u}) {
      std::vector<float> y(expected.size(), 7.0f);
      Call(softmax_operator, &params).input(x_shape, x.data()).output(y_shape, y.data()).run(isa, threads);
      check_same<float>(expected, y, name(isa));
    }
  }
}

TEST_CASE("softmax: a row of -inf alone, or with NaN, is NaN; one element is 1") {
  for (const Isa isa : isas()) {
    const float x[] = {-INFINITY, -INFINITY, -INFINITY, 1, NAN, 2};
    float y[6];
    run({}, shape_of(Type::f32, {2, 3}), x, y, isa);
    for (const float value : y) CHECK(std::isnan(value));
    run({}, shape_of(Type::f32, {1, 1}), x + 3, y, isa);
    CHECK(y[0] == 1.0f);
  }
}

TEST_CASE("softmax: the contract") {
  const SoftmaxParams params{};
  const Shape x = shape_of(Type::f32, {2, 3}), other = shape_of(Type::f32, {3, 3}), ints = shape_of(Type::i32, {2, 3}),
              gaps = shape_of(Type::f32, {2, 3}, {6, 2}), scalar = shape_of(Type::f32, {});
  float data[32];
  const auto refused = [&](const Shape& a, const Shape& b, const SoftmaxParams& p) {
    return bool(Call(softmax_operator, &p).input(a, data).output(b, data).check());
  };
  CHECK(!refused(x, x, params));
  CHECK(refused(x, other, params));
  CHECK(refused(ints, ints, params));
  CHECK(refused(gaps, x, params));
  CHECK(refused(x, gaps, params));
  CHECK(refused(scalar, scalar, params));
  CHECK(refused(x, x, {2, {}}));
  CHECK(bool(Call(softmax_operator, &params).input(x, data).input(x, data).output(x, data).check()));
  CHECK(bool(Call(softmax_operator, &params).absent().output(x, data).check()));
}

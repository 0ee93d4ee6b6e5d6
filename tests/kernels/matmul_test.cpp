#include "kernels/matmul/matmul.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

constexpr const char* activations[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "gelu_i8"};

/// Each product is rounded once when it is added; the sum of |a b| is below K * 4 here.
Tolerance sum_of(int k) {
  return {1e-6, 4.0 * k * k * 6e-8 + 1e-7, "K roundings of a sum of K terms of at most 4"};
}

/// [K, N] in panels [ceil(N/16)][K][16].
std::vector<float> in_panels(const std::vector<float>& b, int k, int n) {
  const int panels = (n + 15) / 16;
  std::vector<float> packed(static_cast<size_t>(panels) * k * 16);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < k; ++i)
      packed[(static_cast<size_t>(j / 16) * k + i) * 16 + j % 16] = b[static_cast<size_t>(i) * n + j];
  }
  return packed;
}

/// One product of dense operands, run in every way; y of the reference.
struct Product {
  int m, k, n;
  bool packed, bias, residual;
  Activation activation;
  uint32_t threads = 1;

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n) + (packed ? " packed" : " strided") +
           (bias ? " bias" : "") + (residual ? " residual " : " ") + activations[static_cast<int>(activation)];
  }

  void check(Random& random, bool provoke) const {
    const auto data = [&](size_t count) { return provoke ? provoking_floats(count, random) : uniform(count, random); };
    const size_t outputs = static_cast<size_t>(m) * n;
    const std::vector<float> b = data(static_cast<size_t>(k) * n);
    const Guarded<float> a(data(static_cast<size_t>(m) * k)), weights(packed ? in_panels(b, k, n) : b), biases(data(n)),
        residuals(data(outputs));
    const Shape a_shape = shape_of(Type::f32, {m, k}), y_shape = shape_of(Type::f32, {m, n});
    const Shape b_shape = packed ? shape_of(Type::f32, {(n + 15) / 16, k, 16}) : shape_of(Type::f32, {k, n});
    const Shape bias_shape = shape_of(Type::f32, {n});
    const MatmulParams params{activation, packed, {}};
    const auto run = [&](Isa isa, uint32_t count, float* y) {
      Call call(matmul_operator, &params);
      call.input(a_shape, a.data()).input(b_shape, weights.data());
      if (bias || residual) bias ? call.input(bias_shape, biases.data()) : call.absent();
      if (residual) call.input(y_shape, residuals.data());
      call.output(y_shape, y).run(isa, count);
    };
    std::vector<float> expected(outputs);
    run(Isa::portable, 1, expected.data());
    for (Isa isa : simd_isas()) {
      const Guarded<float> y(outputs);
      run(isa, threads, y.data());
      check_same(expected, y, std::string(heed::name(isa)) + " " + name());
    }
    if (provoke || activation != Activation::none) return;
    std::vector<double> exact(outputs);
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int p = 0; p < k; ++p) sum += double{a[i * k + p]} * b[p * n + j];
        if (bias) sum += biases[j];
        if (residual) sum += residuals[i * n + j];
        exact[i * n + j] = sum;
      }
    }
    check_close(expected, exact, sum_of(k), name());
  }
};

TEST_CASE("matmul: every size has the reference's bits, and the reference is near double precision") {
  Random random(1);
  uint32_t turn = 0;
  for (int m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 25}) {
    for (int n : {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 65, 100, 129}) {
      for (int k : {0, 1, 2, 5, 16, 33}) {
        ++turn;  // the rest in turn
        Product{m, k, n, turn % 3 != 0, turn % 5 < 3, turn % 7 < 3, Activation::none}.check(random, turn % 4 == 0);
      }
    }
  }
}

TEST_CASE("matmul: every activation, bias and residual") {
  Random random(2);
  for (int activation = 0; activation < activation_count; ++activation) {
    for (int which = 0; which < 8; ++which) {
      for (int n : {5, 16, 41}) {
        Product{7, 9, n, (which & 1) != 0, (which & 2) != 0, (which & 4) != 0, static_cast<Activation>(activation)}
            .check(random, n == 41);
      }
    }
  }
}

TEST_CASE("matmul: rows in several blocks, long sums") {
  Random random(3);
  Product{130, 600, 20, true, true, false, Activation::none}.check(random, false);
  Product{61, 1100, 33, true, false, true, Activation::none}.check(random, false);
  Product{61, 1100, 33, false, false, true, Activation::none}.check(random, false);
}

TEST_CASE("matmul: threads change nothing") {
  Random random(4);
  for (uint32_t threads : {2u, 3u, 7u}) {
    for (bool packed : {false, true}) {
      Product{130, 32, 48, packed, true, true, Activation::none, threads}.check(random, false);  // by rows
      Product{3, 300, 250, packed, true, true, Activation::none, threads}.check(random, false);  // by columns
      Product{9, 5, 33, packed, true, true, Activation::none, threads}.check(random, false);     // not at all
    }
  }
}

/// A view of [2, 3, m, k] floats in memory of its own: the strides of a permutation of the axes, with gaps.
struct View {
  Shape shape;
  std::vector<float> values;
  int64_t begin = 0;

  View(std::vector<int> dims, std::vector<int> order, Random& random, std::vector<int> broadcast = {},
       std::vector<int> flipped = {}) {
    shape = {};
    shape.rank = static_cast<uint8_t>(dims.size());
    int32_t stride = 1;
    for (int axis : order) {
      shape.dims[axis] = dims[axis];
      const bool repeats = std::find(broadcast.begin(), broadcast.end(), axis) != broadcast.end();
      const bool flips = std::find(flipped.begin(), flipped.end(), axis) != flipped.end();
      shape.strides[axis] = repeats ? 0 : flips ? -stride : stride;
      if (flips) begin += int64_t{stride} * (dims[axis] - 1);
      if (!repeats) stride *= dims[axis] + (axis == order[0] ? 0 : 1);
    }
    values = uniform(static_cast<size_t>(stride), random);
  }
};

TEST_CASE("matmul: strides, leading axes, broadcasting, flipped axes") {
  Random random(5);
  const std::vector<std::vector<int>> orders = {{3, 2, 1, 0}, {2, 3, 0, 1}, {1, 3, 2, 0}, {0, 2, 3, 1}};
  for (bool packed : {false, true}) {
    for (int m : {1, 7}) {
      for (const auto& order : orders) {
        for (const auto& broadcast : std::vector<std::vector<int>>{{}, {0}, {0, 1}}) {
          const int k = 6, n = 21;
          const View a({2, 3, m, k}, order, random, {}, broadcast), b({2, 3, k, n}, order, random, broadcast);
          const View residual({2, 3, m, n}, {3, 0, 2, 1}, random, broadcast);
          const View y({2, 3, m, n}, order[0] == 1 ? std::vector<int>{3, 1, 2, 0} : std::vector<int>{3, 2, 1, 0},
                       random);
          const std::vector<float> panels = in_panels(uniform(static_cast<size_t>(k) * n, random), k, n);
          const Shape panel_shape = shape_of(Type::f32, {2, k, 16});
          const MatmulParams params{Activation::none, packed, {}};
          const auto run = [&](Isa isa, uint32_t threads, float* to) {
            Call call(matmul_operator, &params);
            call.input(a.shape, a.values.data() + a.begin);
            packed ? call.input(panel_shape, panels.data()) : call.input(b.shape, b.values.data() + b.begin);
            call.absent().input(residual.shape, residual.values.data());
            call.output(y.shape, to).run(isa, threads);
          };
          std::vector<float> expected = y.values;
          run(Isa::portable, 1, expected.data());
          // The reference against the formula, element by element.
          for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 3; ++j) {
              for (int r = 0; r < m; ++r) {
                for (int c = 0; c < n; ++c) {
                  const auto at = [&](const View& view, int row, int column) {
                    const int32_t* s = view.shape.strides;
                    return view.values[view.begin + i * s[0] + j * s[1] + row * s[2] + column * s[3]];
                  };
                  double sum = at(residual, r, c);
                  for (int p = 0; p < k; ++p) {
                    sum += double{at(a, r, p)} * (packed ? panels[(c / 16 * k + p) * 16 + c % 16] : at(b, p, c));
                  }
                  const int32_t* s = y.shape.strides;
                  const float found = expected[i * s[0] + j * s[1] + r * s[2] + c * s[3]];
                  REQUIRE(std::abs(found - sum) <= sum_of(k).absolute);
                }
              }
            }
          }
          for (Isa isa : simd_isas()) {
            for (uint32_t threads : {1u, 3u}) {
              const Guarded<float> found(std::span<const float>(y.values));
              run(isa, threads, found.data());
              check_same(expected, found, heed::name(isa));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("matmul: the residual's storage may be y's") {
  Random random(6);
  const int m = 9, k = 12, n = 35;
  const std::vector<float> a = uniform(m * k, random), b = in_panels(uniform(k * n, random), k, n),
                           old = uniform(m * n, random);
  const Shape a_shape = shape_of(Type::f32, {m, k}), b_shape = shape_of(Type::f32, {3, k, 16});
  const Shape y_shape = shape_of(Type::f32, {m, n});
  const MatmulParams params{Activation::gelu, 1, {}};
  std::vector<float> expected(m * n);
  const auto call = [&](const float* residual, float* y) {
    return Call(matmul_operator, &params)
        .input(a_shape, a.data())
        .input(b_shape, b.data())
        .absent()
        .input(y_shape, residual)
        .output(y_shape, y);
  };
  call(old.data(), expected.data()).run(Isa::portable);
  for (Isa isa : isas()) {
    const Guarded<float> y{std::span<const float>(old)};
    const Call in_place = call(y.data(), y.data());
    CHECK(in_place.in_place(3, 0));
    CHECK_FALSE(in_place.in_place(0, 0));
    in_place.run(isa);
    check_same(expected, y, heed::name(isa));
  }
}

TEST_CASE("matmul: nothing to compute, however many rows or columns") {
  for (const int m : {0, INT32_MAX})
    for (const int n : {0, INT32_MAX})
      for (const int k : {0, 3}) {
        if (m > 0 && n > 0) continue;
        for (const uint8_t packed : {0, 1}) {
          const MatmulParams params{Activation::none, packed, {}};
          const Shape a = shape_of(Type::f32, {m, k}, {0, 0}), y = shape_of(Type::f32, {m, n}, {0, 1});
          const Shape b = packed != 0 ? shape_of(Type::f32, {n / 16 + (n % 16 != 0), k, 16}, {16 * k, 16, 1})
                                      : shape_of(Type::f32, {k, n}, {0, 0});
          const Guarded<float> nothing(0);
          for (const Isa isa : isas())
            for (const uint32_t threads : {1u, 3u})
              Call(matmul_operator, &params)
                  .input(a, nothing.data())
                  .input(b, nothing.data())
                  .output(y, nothing.data())
                  .run(isa, threads);
        }
      }
}

TEST_CASE("matmul: scratch is one panel where b is strided") {
  const Shape a = shape_of(Type::f32, {2, 10}), b = shape_of(Type::f32, {10, 40}),
              panels = shape_of(Type::f32, {3, 10, 16});
  const Shape y = shape_of(Type::f32, {2, 40});
  const MatmulParams strided{Activation::none, 0, {}}, packed{Activation::none, 1, {}};
  CHECK(Call(matmul_operator, &strided).input(a, nullptr).input(b, nullptr).output(y, nullptr).scratch() == 640);
  CHECK(Call(matmul_operator, &packed).input(a, nullptr).input(panels, nullptr).output(y, nullptr).scratch() == 0);
}

TEST_CASE("matmul: the contract says what is wrong") {
  const Shape a = shape_of(Type::f32, {2, 5, 7}), b = shape_of(Type::f32, {2, 7, 20}),
              panels = shape_of(Type::f32, {2, 7, 16});
  const Shape y = shape_of(Type::f32, {2, 5, 20}), bias = shape_of(Type::f32, {20});
  const MatmulParams strided{Activation::none, 0, {}}, packed{Activation::none, 1, {}};
  const auto refused = [](const MatmulParams& params, const Shape& a, const Shape& b, const Shape* bias,
                          const Shape* residual, const Shape& y, int operand, const char* what) {
    Call call(matmul_operator, &params);
    call.input(a, nullptr).input(b, nullptr);
    bias != nullptr ? call.input(*bias, nullptr) : call.absent();
    residual != nullptr ? call.input(*residual, nullptr) : call.absent();
    const Violation violation = call.output(y, nullptr).check();
    REQUIRE(violation);
    CHECK(violation.operand == operand);
    CHECK(std::string(violation.what) == what);
  };
  CHECK_FALSE(Call(matmul_operator, &strided).input(a, nullptr).input(b, nullptr).output(y, nullptr).check());
  CHECK_FALSE(Call(matmul_operator, &packed)
                  .input(a, nullptr)
                  .input(panels, nullptr)
                  .input(bias, nullptr)
                  .output(y, nullptr)
                  .check());

  CHECK(std::string(Call(matmul_operator, &strided)
                        .input(a, nullptr)
                        .input(b, nullptr)
                        .output(y, nullptr)
                        .output(y, nullptr)
                        .check()
                        .what) == "not one output");
  Call many(matmul_operator, &strided);
  for (int i = 0; i < 5; ++i) many.input(a, nullptr);
  const Violation violation = many.output(y, nullptr).check();
  CHECK(std::string(violation.what) == "too many inputs");
  CHECK(violation.limit == Violation::Limit::at_most);
  CHECK(violation.found == 5);
  CHECK(violation.expected == 4);

  const MatmulParams unknown{static_cast<Activation>(activation_count), 0, {}};
  refused(unknown, a, b, nullptr, nullptr, y, output_operand, "unknown activation");
  refused(strided, a, b, nullptr, nullptr, shape_of(Type::f32, {5}), output_operand, "y has fewer than two axes");
  refused(strided, a, b, nullptr, nullptr, shape_of(Type::i32, {2, 5, 20}), output_operand, "wrong element type");
  refused(strided, shape_of(Type::f32, {5, 7}), b, nullptr, nullptr, y, 0, "wrong rank");
  refused(strided, a, shape_of(Type::f32, {2, 8, 20}), nullptr, nullptr, y, 1, "inner dimensions of a and b differ");
  refused(strided, a, shape_of(Type::f32, {2, 7, 21}), nullptr, nullptr, y, 1, "b and y differ in columns");
  refused(strided, a, shape_of(Type::f32, {3, 7, 20}), nullptr, nullptr, y, 1, "b and y differ in a leading axis");
  refused(strided, shape_of(Type::f32, {3, 5, 7}), b, nullptr, nullptr, y, 0, "a and y differ in a leading axis");
  refused(strided, shape_of(Type::f32, {2, 6, 7}), b, nullptr, nullptr, y, 0, "a and y differ in rows");
  refused(packed, a, shape_of(Type::f32, {3, 7, 16}), nullptr, nullptr, y, 1, "b has not the panels for y's columns");
  refused(packed, a, shape_of(Type::f32, {2, 7, 8}), nullptr, nullptr, y, 1, "a panel of b is not 16 wide");
  refused(packed, a, shape_of(Type::f32, {2, 7, 16}, {112, 1, 7}), nullptr, nullptr, y, 1, "packed b has gaps");
  const Shape short_bias = shape_of(Type::f32, {19}), wide_bias = shape_of(Type::f32, {20}, {2});
  refused(packed, a, panels, &short_bias, nullptr, y, 2, "bias and y differ in columns");
  refused(packed, a, panels, &wide_bias, nullptr, y, 2, "the last axis has gaps");
  const Shape low_residual = shape_of(Type::f32, {2, 4, 20}),
              wide_residual = shape_of(Type::f32, {2, 5, 20}, {200, 40, 2});
  refused(packed, a, panels, nullptr, &low_residual, y, 3, "residual and y differ in an axis");
  refused(packed, a, panels, nullptr, &wide_residual, y, 3, "the last axis has gaps");
  refused(packed, a, panels, nullptr, nullptr, wide_residual, output_operand, "the last axis has gaps");
}

}  // namespace
}  // namespace heed::test

#include "kernels/matmul_i8/matmul_i8.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

std::vector<int8_t> bytes(size_t count, Random& random, int lowest = -127) {
  std::vector<int8_t> values(count);
  for (int8_t& value : values)
    value = static_cast<int8_t>(static_cast<int>(random() % static_cast<unsigned>(128 - lowest)) + lowest);
  return values;
}

/// Zeros of rows and columns, and what q is made with.
struct Zeros {
  std::vector<int32_t> a, b;  // empty: not given
  std::vector<float> given;
};

/// [K, N] in panels [ceil(N/16)][ceil(K/4)][16][4].
std::vector<int8_t> in_panels(const std::vector<int8_t>& b, int k, int n) {
  const size_t groups = static_cast<size_t>(k + 3) / 4;
  std::vector<int8_t> packed(static_cast<size_t>(n + 15) / 16 * groups * 64);
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < n; ++j)
      packed[(static_cast<size_t>(j / 16) * groups + i / 4) * 64 + j % 16 * 4 + i % 4] =
          b[static_cast<size_t>(i) * n + j];
  return packed;
}

/// What one run gives.
struct Results {
  std::vector<float> y;
  std::vector<int8_t> q;
  std::vector<float> q_scale;
  std::vector<int32_t> q_zero;
};

/// One product of dense operands, run in every way.
struct Product {
  int m, k, n;
  bool bias = true, residual = false;
  Activation activation = Activation::none;
  bool floats = true;  // y is wanted
  int groups = 0;      // of q; 0: not wanted
  bool q_zero = false;
  bool a_zero = false, b_zero = false, given = false;
  uint8_t block_rows = 24;
  uint32_t threads = 1;

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n) + (bias ? " bias" : "") +
           (residual ? " residual" : "") + (floats ? " y" : "") + (groups > 0 ? " q" : "") + (q_zero ? " q_zero" : "") +
           (a_zero ? " a_zero" : "") + (b_zero ? " b_zero" : "") + (given ? " given" : "") + " activation " +
           std::to_string(static_cast<int>(activation));
  }

  void check(Random& random, bool provoke) const {
    std::vector<float> a_scale = uniform(m, random, 0.001f, 0.02f), biases = uniform(n, random),
                       residuals = uniform(static_cast<size_t>(m) * n, random),
                       b_scale = uniform(n, random, 0.001f, 0.02f);
    if (provoke) {
      biases = provoking_floats(n, random);
      residuals = provoking_floats(residuals.size(), random);
    }
    Zeros zeros;
    if (a_zero)
      for (const int8_t zero : bytes(static_cast<size_t>(m), random, -128)) zeros.a.push_back(zero);
    if (b_zero)
      for (const int8_t zero : bytes(static_cast<size_t>(n), random, -128)) zeros.b.push_back(zero);
    if (given) zeros.given = {0.01f, static_cast<float>(static_cast<int>(random() % 256) - 128)};
    check(bytes(static_cast<size_t>(m) * k, random, -128),
          bytes(static_cast<size_t>(k) * n, random, b_zero ? -128 : -127), a_scale, b_scale, biases, residuals, zeros,
          provoke);
  }

  void check(const std::vector<int8_t>& a, const std::vector<int8_t>& b, const std::vector<float>& a_scale,
             std::vector<float> b_scale, const std::vector<float>& biases, const std::vector<float>& residuals,
             Zeros zeros = {}, bool provoke = false) const {
    const int panels = (n + 15) / 16;
    std::vector<int32_t> sums(static_cast<size_t>(panels) * 16);
    for (int i = 0; i < k; ++i)
      for (int j = 0; j < n; ++j) sums[static_cast<size_t>(j)] += b[static_cast<size_t>(i) * n + j];
    b_scale.resize(static_cast<size_t>(panels) * 16);
    if (b_zero) zeros.b.resize(static_cast<size_t>(panels) * 16);
    const Guarded<int32_t> guarded_a_zero(zeros.a), guarded_b_zero(zeros.b);
    const Guarded<float> guarded_given(zeros.given);
    const Guarded<int8_t> guarded_a(a), packed(in_panels(b, k, n));
    const Guarded<float> guarded_a_scale(a_scale), guarded_b_scale(b_scale), guarded_bias(biases),
        guarded_residual(residuals);
    const Guarded<int32_t> guarded_sums(sums);
    const Shape a_shape = shape_of(Type::i8, {m, k}), a_scale_shape = shape_of(Type::f32, {m, 1}),
                b_shape = shape_of(Type::i8, {panels, (k + 3) / 4, 16, 4}), columns = shape_of(Type::f32, {panels, 16}),
                sum_shape = shape_of(Type::i32, {panels, 16}), bias_shape = shape_of(Type::f32, {n}),
                y_shape = shape_of(Type::f32, {m, n}), q_shape = shape_of(Type::i8, {m, n}),
                q_scale_shape = shape_of(Type::f32, {m, groups}), q_zero_shape = shape_of(Type::i32, {m, groups}),
                a_zero_shape = shape_of(Type::i32, {m, 1}), given_shape = shape_of(Type::f32, {2});
    const MatmulI8Params params{activation, block_rows, {}};
    const auto run = [&](Isa isa, uint32_t count) {
      const Guarded<float> y(floats ? residuals.size() : 0), q_scale(given ? 0 : static_cast<size_t>(m) * groups);
      const Guarded<int8_t> q(groups > 0 ? residuals.size() : 0);
      const Guarded<int32_t> zero(q_zero ? q_scale.size() : 0);
      Call call(matmul_i8_operator, &params);
      call.input(a_shape, guarded_a.data()).input(a_scale_shape, guarded_a_scale.data()).input(b_shape, packed.data());
      call.input(columns, guarded_b_scale.data()).input(sum_shape, guarded_sums.data());
      bias ? call.input(bias_shape, guarded_bias.data()) : call.absent();
      residual ? call.input(y_shape, guarded_residual.data()) : call.absent();
      a_zero ? call.input(a_zero_shape, guarded_a_zero.data()) : call.absent();
      b_zero ? call.input(sum_shape, guarded_b_zero.data()) : call.absent();
      if (given) call.input(given_shape, guarded_given.data());
      floats ? call.output(y_shape, y.data()) : call.absent_output();
      if (groups > 0) call.output(q_shape, q.data());
      if (groups > 0 && !given) call.output(q_scale_shape, q_scale.data());
      if (groups > 0 && !given && q_zero) call.output(q_zero_shape, zero.data());
      call.run(isa, count);
      return Results{{y.data(), y.data() + y.size()},
                     {q.data(), q.data() + q.size()},
                     {q_scale.data(), q_scale.data() + q_scale.size()},
                     {zero.data(), zero.data() + zero.size()}};
    };
    const Results expected = run(Isa::portable, 1);
    for (const Isa isa : simd_isas()) {
      const Results found = run(isa, threads);
      const std::string what = std::string(heed::name(isa)) + " " + name();
      check_same(std::span<const float>(expected.y), std::span<const float>(found.y), what);
      check_same(std::span<const int8_t>(expected.q), std::span<const int8_t>(found.q), what);
      check_same(std::span<const float>(expected.q_scale), std::span<const float>(found.q_scale), what);
      check_same(std::span<const int32_t>(expected.q_zero), std::span<const int32_t>(found.q_zero), what);
    }
    if (provoke || activation != Activation::none || !floats) return;
    std::vector<double> exact(residuals.size());
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int p = 0; p < k; ++p)
          sum += (a[static_cast<size_t>(i) * k + p] - (a_zero ? zeros.a[static_cast<size_t>(i)] : 0)) *
                 (b[static_cast<size_t>(p) * n + j] - (b_zero ? zeros.b[static_cast<size_t>(j)] : 0));
        sum *= double{a_scale[i]} * b_scale[j];
        if (bias) sum += biases[j];
        if (residual) sum += residuals[static_cast<size_t>(i) * n + j];
        exact[static_cast<size_t>(i) * n + j] = sum;
      }
    const double largest = 6.5 * k * (a_zero ? 2 : 1) * (b_zero ? 2 : 1);
    check_close(expected.y, exact, {4e-7, 4e-7 * (1 + largest), "four roundings of terms that may cancel"}, name());
    if (given)
      for (size_t i = 0; i < exact.size(); ++i) {
        const double q = std::clamp(expected.y[i] / double{zeros.given[0]} + double{zeros.given[1]}, -128.0, 127.0);
        CHECK_MESSAGE(std::abs(expected.q[i] - q) <= 0.5 + 1e-4, name());
      }
  }
};

TEST_CASE("matmul_i8: every size has the reference's bits, and the reference is near double precision") {
  Random random(1);
  uint32_t turn = 0;
  for (int m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 23, 25})
    for (int n : {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 65, 100})
      for (int k : {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 36, 64}) {
        ++turn;  // the rest in turn
        Product product{m, k, n, turn % 5 < 3, turn % 7 < 3};
        product.floats = turn % 3 != 0;
        product.groups = product.floats && turn % 2 == 0 ? 0 : n % 4 == 0 && turn % 11 < 5 ? 4 : 1;
        product.block_rows = static_cast<uint8_t>(turn % 13 == 0 ? 1 : turn % 29);
        if (product.block_rows == 0) product.block_rows = 24;
        product.a_zero = turn % 6 < 3;
        product.b_zero = turn % 10 < 5;
        product.given = product.groups > 0 && turn % 4 < 2;
        product.q_zero = turn % 9 < 5;
        product.check(random, turn % 4 == 0);
      }
}

TEST_CASE("matmul_i8: every activation, bias and residual") {
  Random random(2);
  for (int activation = 0; activation < activation_count; ++activation)
    for (int which = 0; which < 8; ++which)
      for (int n : {5, 16, 41}) {
        Product product{7, 9, n, (which & 1) != 0, (which & 2) != 0, static_cast<Activation>(activation)};
        product.groups = (which & 4) != 0 ? 1 : 0;
        product.check(random, n == 41);
      }
}

TEST_CASE("matmul_i8: threads change nothing") {
  Random random(3);
  for (uint32_t threads : {2u, 3u, 7u})
    for (int groups : {0, 1}) {
      Product product{130, 128, 96};
      product.groups = groups;
      product.a_zero = product.b_zero = threads == 3;
      product.given = groups > 0 && threads == 7;
      product.q_zero = threads == 3;
      product.threads = threads;
      product.check(random, false);  // by rows
      product.m = 3;
      product.k = 700;
      product.n = 500;
      product.check(random, false);  // by columns, where no row has to be whole
    }
}

// Pairs of such products do not fit int16: instructions that add them there and saturate would show.
TEST_CASE("matmul_i8: the extremes, long sums") {
  Random random(4);
  for (const int k : {1, 2, 3, 4, 5, 64, 401, 20000}) {
    for (const int a_value : {127, -127, -128, 0})
      for (const int b_value : {127, -127, -128, 1}) {
        const int m = k > 1000 ? 2 : 9, n = k > 1000 ? 17 : 40;
        // With zeros at the other end a difference is 255, which is what u8 reaches.
        Product product{m, k, n};
        product.a_zero = a_value != 0;
        product.b_zero = b_value == -128;
        Zeros zeros;
        if (product.a_zero) zeros.a.assign(static_cast<size_t>(m), a_value > 0 ? -128 : 127);
        if (product.b_zero) zeros.b.assign(static_cast<size_t>(n), 127);
        const auto count = [](int rows, int columns) {
          return static_cast<size_t>(rows) * static_cast<size_t>(columns);
        };
        std::vector<int8_t> a(count(m, k), static_cast<int8_t>(a_value)), b(count(k, n), static_cast<int8_t>(b_value));
        product.check(a, b, std::vector<float>(m, 1), std::vector<float>(n, 1), uniform(n, random),
                      uniform(count(m, n), random), zeros);
        const auto turned = [](int8_t x) { return static_cast<int8_t>(std::min(-x, 127)); };
        for (size_t i = 0; i < a.size(); i += 2) a[i] = turned(a[i]);
        for (size_t i = 0; i < b.size(); i += 3) b[i] = turned(b[i]);
        product.check(a, b, std::vector<float>(m, 1), std::vector<float>(n, 1), uniform(n, random),
                      uniform(count(m, n), random), zeros);
      }
  }
}

TEST_CASE("matmul_i8: q is what quantize makes of y") {
  for (const bool asymmetric : {false, true}) {
    Random random(5);
    const int m = 7, k = 20, n = 36, groups = 3;
    const auto a = bytes(m * k, random), b = bytes(k * n, random);
    std::vector<float> b_scale = uniform(48, random, 0.01f, 0.02f);
    std::vector<int32_t> sums(48);
    for (int i = 0; i < k; ++i)
      for (int j = 0; j < n; ++j) sums[static_cast<size_t>(j)] += b[static_cast<size_t>(i * n + j)];
    const std::vector<float> a_scale = uniform(m, random, 0.01f, 0.02f);
    const auto packed = in_panels(b, k, n);
    const Shape a_shape = shape_of(Type::i8, {m, k}), a_scale_shape = shape_of(Type::f32, {m, 1}),
                b_shape = shape_of(Type::i8, {3, 5, 16, 4}), columns = shape_of(Type::f32, {3, 16}),
                sum_shape = shape_of(Type::i32, {3, 16}), y_shape = shape_of(Type::f32, {m, n}),
                q_shape = shape_of(Type::i8, {m, n}), q_scale_shape = shape_of(Type::f32, {m, groups}),
                q_zero_shape = shape_of(Type::i32, {m, groups});
    std::vector<float> y(m * n), q_scale(m * groups), expected_scale(m * groups);
    std::vector<int8_t> q(m * n), expected(m * n);
    std::vector<int32_t> q_zero(m * groups), expected_zero(m * groups);
    const MatmulI8Params params{Activation::gelu, 4, {}};
    Call call(matmul_i8_operator, &params);
    call.input(a_shape, a.data()).input(a_scale_shape, a_scale.data()).input(b_shape, packed.data());
    call.input(columns, b_scale.data()).input(sum_shape, sums.data());
    call.output(y_shape, y.data()).output(q_shape, q.data()).output(q_scale_shape, q_scale.data());
    const QuantizeParams none{};
    Call quantize(quantize_operator, &none);
    quantize.input(y_shape, y.data()).output(q_shape, expected.data()).output(q_scale_shape, expected_scale.data());
    if (asymmetric) {
      call.output(q_zero_shape, q_zero.data());
      quantize.output(q_zero_shape, expected_zero.data());
    }
    call.run(best_isa());
    quantize.run(Isa::portable);
    CHECK(q == expected);
    CHECK(q_scale == expected_scale);
    CHECK(q_zero == expected_zero);
  }
}

TEST_CASE("matmul_i8: the contract says what is wrong") {
  const Shape a = shape_of(Type::i8, {3, 10}), a_scale = shape_of(Type::f32, {3, 1}),
              b = shape_of(Type::i8, {2, 3, 16, 4}), b_scale = shape_of(Type::f32, {2, 16}),
              b_sum = shape_of(Type::i32, {2, 16}), y = shape_of(Type::f32, {3, 20}), q = shape_of(Type::i8, {3, 20}),
              q_scale = shape_of(Type::f32, {3, 4}), q_zero = shape_of(Type::i32, {3, 4});
  const MatmulI8Params good{Activation::none, 24, {}};
  struct Operands {
    const Shape *a, *a_scale, *b, *b_scale, *b_sum, *bias, *residual, *y, *q, *q_scale, *q_zero;
  };
  const Operands all{&a, &a_scale, &b, &b_scale, &b_sum, nullptr, &y, &y, &q, &q_scale, &q_zero};
  const auto check = [](const MatmulI8Params& params, const Operands& o) {
    Call call(matmul_i8_operator, &params);
    for (const Shape* shape : {o.a, o.a_scale, o.b, o.b_scale, o.b_sum, o.bias, o.residual})
      shape == nullptr ? call.absent() : call.input(*shape, nullptr);
    for (const Shape* shape : {o.y, o.q, o.q_scale, o.q_zero})
      shape == nullptr ? call.absent_output() : call.output(*shape, nullptr);
    return call.check();
  };
  CHECK_FALSE(check(good, all));
  const auto refused = [&](const Shape* Operands::*which, const Shape& shape, int operand, const char* what) {
    Operands operands = all;
    operands.*which = &shape;
    const Violation violation = check(good, operands);
    REQUIRE_MESSAGE(violation, what);
    CHECK(std::string(violation.what) == what);
    CHECK(violation.operand == operand);
  };
  refused(&Operands::a, y, 0, "wrong element type");
  refused(&Operands::a, shape_of(Type::i8, {10}), 0, "a has fewer than two axes");
  refused(&Operands::a_scale, shape_of(Type::f32, {3, 2}), 1, "a_scale has not one column");
  refused(&Operands::a_scale, shape_of(Type::f32, {4, 1}), 1, "a and another operand differ in a leading axis");
  refused(&Operands::b, shape_of(Type::i8, {1, 3, 16, 4}), 2, "b has not the panels for y's columns");
  refused(&Operands::b, shape_of(Type::i8, {2, 2, 16, 4}), 2, "inner dimensions of a and b differ");
  refused(&Operands::b, shape_of(Type::i8, {2, 3, 16, 4}, {200, 64, 4, 1}), 2, "b has gaps");
  refused(&Operands::b_scale, shape_of(Type::f32, {1, 16}), 3,
          "b and the scales, sums or zeros of its columns differ in panels");
  refused(&Operands::b_sum, shape_of(Type::i32, {2, 16}, {17, 1}), 4, "b's scales, sums or zeros have gaps");
  refused(&Operands::bias, shape_of(Type::f32, {19}), 5, "bias and y differ in columns");
  refused(&Operands::residual, shape_of(Type::f32, {3, 19}), 6, "y and another operand differ in columns");
  refused(&Operands::q, shape_of(Type::i8, {2, 20}), output_operand + 1,
          "a and another operand differ in a leading axis");
  refused(&Operands::q_scale, shape_of(Type::f32, {3, 3}), output_operand + 2,
          "the columns are no multiple of the groups");
  refused(&Operands::q_zero, shape_of(Type::i32, {3, 1}), output_operand + 3, "q_zero and q_scale differ in groups");
  refused(&Operands::q_zero, shape_of(Type::i32, {2, 4}), output_operand + 3,
          "a and another operand differ in a leading axis");
  refused(&Operands::y, shape_of(Type::f32, {3, 20}, {40, 2}), output_operand, "the last axis has gaps");
  Operands halved = all;
  halved.q_scale = nullptr;
  CHECK(std::string(check(good, halved).what) == "q and its scale are not given together");
  halved.q = nullptr;
  CHECK(std::string(check(good, halved).what) == "a zero point of no q_scale");
  halved.y = nullptr;
  CHECK(std::string(check(good, halved).what) == "an operand is missing");
  CHECK(std::string(check({static_cast<Activation>(activation_count), 24, {}}, all).what) == "unknown activation");
  CHECK(std::string(check({Activation::none, 0, {}}, all).what) == "a block has no rows");
  const int most = most_terms_i8(128);
  const Shape long_a = shape_of(Type::i8, {3, most + 1}), long_b = shape_of(Type::i8, {2, (most + 4) / 4, 16, 4});
  Operands too_long = all;
  too_long.a = &long_a;
  too_long.b = &long_b;
  CHECK(std::string(check(good, too_long).what) == "sums of so many terms do not fit int32");
}

}  // namespace
}  // namespace heed::test

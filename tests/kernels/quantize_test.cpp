#include "kernels/quantize/quantize.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// Rows quantised by an instruction set.
struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> zero;  // where asymmetric
};

Quantized quantized(const std::vector<float>& values, int rows, int n, int groups, bool asymmetric, Isa isa,
                    uint32_t threads = 1) {
  const Guarded<float> x(values), scale(static_cast<size_t>(rows) * groups);
  const Guarded<int32_t> zero(asymmetric ? scale.size() : 0);
  const Guarded<int8_t> q(values.size());
  const Shape shape = shape_of(Type::f32, {rows, n}), q_shape = shape_of(Type::i8, {rows, n}),
              scale_shape = shape_of(Type::f32, {rows, groups}), zero_shape = shape_of(Type::i32, {rows, groups});
  const QuantizeParams params{};
  Call call(quantize_operator, &params);
  call.input(shape, x.data()).output(q_shape, q.data()).output(scale_shape, scale.data());
  if (asymmetric) call.output(zero_shape, zero.data());
  call.run(isa, threads);
  return {{q.data(), q.data() + q.size()},
          {scale.data(), scale.data() + scale.size()},
          {zero.data(), zero.data() + zero.size()}};
}

TEST_CASE("quantize: every size has the reference's bits") {
  Random random(1);
  for (int n : sizes())
    for (int rows : {1, 3})
      for (const auto& [provoke, asymmetric] : {std::pair(false, false), {true, false}, {false, true}, {true, true}}) {
        const int groups = n % 4 == 0 && n > 0 ? 4 : 1;
        const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(n);
        const std::vector<float> x = provoke ? provoking_floats(count, random) : uniform(count, random);
        const Quantized expected = quantized(x, rows, n, groups, asymmetric, Isa::portable);
        for (const Isa isa : simd_isas())
          for (const uint32_t threads : {1u, 3u}) {
            const Quantized found = quantized(x, rows, n, groups, asymmetric, isa, threads);
            const std::string what = std::string(heed::name(isa)) + " " + std::to_string(n);
            check_same(std::span<const int8_t>(expected.q), std::span<const int8_t>(found.q), what);
            check_same(std::span<const float>(expected.scale), std::span<const float>(found.scale), what + " scale");
            check_same(std::span<const int32_t>(expected.zero), std::span<const int32_t>(found.zero), what + " zero");
          }
      }
}

TEST_CASE("quantize: the nearest of 255 steps, the largest exactly") {
  Random random(2);
  for (const float magnitude : {1e-25f, 1e-3f, 1.0f, 1e38f}) {
    std::vector<float> x = uniform(1000, random, -magnitude, magnitude);
    x[17] = -magnitude;
    const Quantized found = quantized(x, 1, 1000, 1, false, Isa::portable);
    CHECK(found.scale[0] == magnitude / 127);
    CHECK(found.q[17] == -127);
    for (size_t i = 0; i < x.size(); ++i) {
      const double step = double{x[i]} / found.scale[0];
      CHECK(std::abs(step - found.q[i]) <= 0.5 + 1e-4);
    }
  }
  // Halves go to even numbers.
  const Quantized halves = quantized({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f}, 1, 7, 1, false, Isa::portable);
  CHECK(halves.q == std::vector<int8_t>{127, 0, 2, 2, 0, -2, -126});
}

TEST_CASE("quantize: with a zero point, 254 steps from the lowest to the highest, 0 exactly") {
  Random random(4);
  for (const float magnitude : {1e-25f, 1e-3f, 1.0f, 1e38f})
    for (const auto& [lowest, highest] :
         {std::pair(-0.17f, 1.0f), {0.0f, 1.0f}, {-1.0f, 0.0f}, {-1.0f, 1.0f}, {0.4f, 1.0f}, {-1.0f, -0.3f}}) {
      std::vector<float> x = uniform(1000, random, lowest * magnitude, highest * magnitude);
      x[17] = lowest * magnitude, x[18] = highest * magnitude, x[19] = lowest < 0 && highest > 0 ? 0 : x[17];
      const Quantized found = quantized(x, 1, 1000, 1, true, Isa::portable);
      const float low = std::min(0.0f, x[17]), high = std::max(0.0f, x[18]);
      const int32_t zero = found.zero[0];
      CHECK(found.scale[0] == (high - low) / 253);
      CHECK(*std::ranges::min_element(found.q) >= -127);
      if (low == 0) CHECK(zero == -126);
      if (high == 0) CHECK(zero == 127);
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK(std::abs(double{x[i]} / found.scale[0] + zero - found.q[i]) <= 0.5 + 1e-4);
        if (x[i] == 0) CHECK(found.q[i] == zero);
      }
    }
}

TEST_CASE("quantize: to a scale and a zero point that are given") {
  Random random(3);
  const QuantizeParams params{};
  for (const int n : sizes())
    for (const auto& [step, zero] : {std::pair(0.02f, 0.0f), std::pair(0.3f, -128.0f), std::pair(1e-3f, 77.0f)}) {
      std::vector<float> values = provoking_floats(static_cast<size_t>(3 * n), random);
      for (size_t i = 0; i < values.size(); i += 2) values[i] = uniform(1, random, -40, 40)[0];
      const Guarded<float> x(values), given(std::vector<float>{step, zero});
      const Shape shape = shape_of(Type::f32, {3, n}), q_shape = shape_of(Type::i8, {3, n}),
                  given_shape = shape_of(Type::f32, {2});
      const auto run = [&](Isa isa) {
        const Guarded<int8_t> q(values.size());
        Call(quantize_operator, &params)
            .input(shape, x.data())
            .input(given_shape, given.data())
            .output(q_shape, q.data())
            .run(isa);
        return std::vector<int8_t>(q.data(), q.data() + q.size());
      };
      const std::vector<int8_t> expected = run(Isa::portable);
      for (size_t i = 0; i < values.size(); ++i) {
        const float steps = std::isnan(values[i]) ? 0 : std::nearbyint(values[i] / step);
        CHECK(expected[i] == std::clamp(steps + zero, -128.0f, 127.0f));
      }
      for (const Isa isa : simd_isas()) {
        const std::vector<int8_t> found = run(isa);
        check_same(std::span<const int8_t>(expected), std::span<const int8_t>(found), heed::name(isa));
      }
    }
}

TEST_CASE("quantize: zeros, tiny groups, infinities and NaN") {
  const std::vector<float> x = {0, -0.0f, 0, 0, 1e-31f, -1e-40f, 0, 0, 1, INFINITY, 2, 3, 1, 2, NAN, -INFINITY};
  for (const bool asymmetric : {false, true}) {
    const Quantized found = quantized(x, 1, 16, 4, asymmetric, Isa::portable);
    CHECK(found.q == std::vector<int8_t>(16));
    CHECK(found.zero == std::vector<int32_t>(asymmetric ? 4 : 0));
    CHECK(found.scale[0] == 0);
    CHECK(found.scale[1] == 0);
    CHECK(std::isnan(found.scale[2]));
    CHECK(std::isnan(found.scale[3]));
  }
  // A width that no float has.
  CHECK(std::isnan(quantized({3e38f, -3e38f}, 1, 2, 1, true, Isa::portable).scale[0]));
}

TEST_CASE("quantize: the contract says what is wrong") {
  const QuantizeParams params{};
  const auto refused = [&](const Shape& x, const Shape& q, const Shape& scale, int operand, const char* what) {
    const Violation violation =
        Call(quantize_operator, &params).input(x, nullptr).output(q, nullptr).output(scale, nullptr).check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(std::string(violation.what) == what);
    CHECK(violation.operand == operand);
  };
  const Shape x = shape_of(Type::f32, {3, 8}), q = shape_of(Type::i8, {3, 8}), scale = shape_of(Type::f32, {3, 2});
  CHECK_FALSE(Call(quantize_operator, &params).input(x, nullptr).output(q, nullptr).output(scale, nullptr).check());
  refused(q, q, scale, 0, "wrong element type");
  refused(x, x, scale, output_operand, "wrong element type");
  refused(x, shape_of(Type::i8, {3, 7}), scale, output_operand, "dimensions differ");
  refused(x, q, shape_of(Type::f32, {2, 2}), output_operand + 1, "q and q_scale differ in a leading axis");
  refused(x, q, shape_of(Type::f32, {3, 3}), output_operand + 1, "the columns are no multiple of the groups");
  refused(x, q, shape_of(Type::f32, {3, 0}), output_operand + 1, "the columns are no multiple of the groups");
  refused(shape_of(Type::f32, {3, 8}, {16, 2}), q, scale, 0, "the last axis has gaps");
  refused(shape_of(Type::f32, {}), q, scale, 0, "x has no axis");
  const Shape given = shape_of(Type::f32, {2}), three = shape_of(Type::f32, {3});
  const auto with = [&](const Shape& parameters) {
    return Call(quantize_operator, &params).input(x, nullptr).input(parameters, nullptr).output(q, nullptr);
  };
  CHECK_FALSE(with(given).check());
  CHECK(std::string(with(three).check().what) == "a scale and a zero point are two numbers");
  CHECK(std::string(with(given).output(scale, nullptr).check().what) ==
        "quantize has two or three outputs, or a scale that is given and one");
  const auto with_zero = [&](const Shape& zero) {
    const Violation violation = Call(quantize_operator, &params)
                                    .input(x, nullptr)
                                    .output(q, nullptr)
                                    .output(scale, nullptr)
                                    .output(zero, nullptr)
                                    .check();
    return std::string(violation ? violation.what : "");
  };
  CHECK(with_zero(shape_of(Type::i32, {3, 2})) == "");
  CHECK(with_zero(scale) == "wrong element type");
  CHECK(with_zero(shape_of(Type::i32, {3, 1})) == "dimensions differ");
}

}  // namespace
}  // namespace heed::test

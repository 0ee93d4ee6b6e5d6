#include "kernels/normalize/normalize.h"
#include "kernels/quantize/quantize.h"

#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

struct Case {
  NormalizeParams params;
  bool scale, bias;
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const auto kind : {Normalization::layer, Normalization::rms})
    for (const bool scale : {false, true})
      for (const bool bias : {false, true}) list.push_back({{kind, {}, 1e-5f}, scale, bias});
  return list;
}

void run(const Case& c, const Shape& shape, const Shape& vector, const float* x, const float* scale, const float* bias,
         float* y, Isa isa, uint32_t threads = 1) {
  Call call(normalize_operator, &c.params);
  call.input(shape, x);
  c.scale ? call.input(vector, scale) : call.absent();
  c.bias ? call.input(vector, bias) : call.absent();
  call.output(shape, y).run(isa, threads);
}

}  // namespace

TEST_CASE("normalize: the reference is close to double precision") {
  Random random(1);
  for (const Case& c : cases()) {
    for (const int n : {1, 2, 7, 64, 384, 1000}) {
      const Shape shape = shape_of(Type::f32, {3, n}), vector = shape_of(Type::f32, {n});
      const auto x = uniform(static_cast<size_t>(3 * n), random, 1, 5), scale = uniform(static_cast<size_t>(n), random),
                 bias = uniform(static_cast<size_t>(n), random);
      std::vector<float> y(x.size());
      std::vector<double> exact(x.size());
      for (int row = 0; row < 3; ++row) {
        const float* in = x.data() + row * n;
        double mean = 0, squares = 0;
        if (c.params.kind == Normalization::layer)
          for (int i = 0; i < n; ++i) mean += in[i] / double(n);
        for (int i = 0; i < n; ++i) squares += (in[i] - mean) * (in[i] - mean) / n;
        const double rstd = 1 / std::sqrt(squares + c.params.epsilon);
        for (int i = 0; i < n; ++i)
          exact[static_cast<size_t>(row * n + i)] =
              (in[i] - mean) * rstd * (c.scale ? scale[i] : 1) + (c.bias ? bias[i] : 0);
      }
      run(c, shape, vector, x.data(), scale.data(), bias.data(), y.data(), Isa::portable);
      check_close(y, exact, {1e-5, 2e-5, "the mean of values up to 5 is rounded before it is taken off"}, "normalize");
    }
  }
}

TEST_CASE("normalize: every instruction set gives the reference's bits") {
  Random random(2);
  for (const Case& c : cases()) {
    for (const int n : sizes()) {
      const Shape shape = shape_of(Type::f32, {2, n}), vector = shape_of(Type::f32, {n});
      auto x = uniform(static_cast<size_t>(2 * n), random);
      if (n > 8) x[static_cast<size_t>(n) + 7] = special_floats()[random() % special_floats().size()];
      const auto scale = uniform(static_cast<size_t>(n), random), bias = uniform(static_cast<size_t>(n), random);
      std::vector<float> expected(x.size());
      run(c, shape, vector, x.data(), scale.data(), bias.data(), expected.data(), Isa::portable);
      for (const Isa isa : simd_isas()) {
        const Edge edge = n % 2 == 0 ? Edge::end : Edge::begin;
        const Guarded<float> in(x, edge), s(scale, edge), b(bias, edge), out(x.size(), edge);
        run(c, shape, vector, in.data(), s.data(), b.data(), out.data(), isa);
        check_same(expected, out, name(isa) + std::string(" n ") + std::to_string(n));
        run(c, shape, vector, in.data(), s.data(), b.data(), in.data(), isa);
        check_same(expected, in, "in place");
      }
    }
  }
}

TEST_CASE("normalize: rows as int8 are those that quantize makes, with and without the floats") {
  Random random(4);
  const Case c{{Normalization::layer, {}, 1e-5f}, true, true};
  for (const int n : {3, 24, 60, 387}) {
    for (const int groups : {1, 3}) {
      const Shape shape = shape_of(Type::f32, {5, n}), vector = shape_of(Type::f32, {n}),
                  bytes = shape_of(Type::i8, {5, n}), scales = shape_of(Type::f32, {5, groups}),
                  zeros = shape_of(Type::i32, {5, groups});
      const auto x = uniform(static_cast<size_t>(5 * n), random), scale = uniform(static_cast<size_t>(n), random),
                 bias = uniform(static_cast<size_t>(n), random);
      std::vector<float> expected(x.size()), q_scale(static_cast<size_t>(5 * groups));
      std::vector<int8_t> q(x.size());
      std::vector<int32_t> q_zero(q_scale.size());
      run(c, shape, vector, x.data(), scale.data(), bias.data(), expected.data(), Isa::portable);
      const bool asymmetric = n % 2 == 0;
      const QuantizeParams params{};
      Call quantize(quantize_operator, &params);
      quantize.input(shape, expected.data()).output(bytes, q.data()).output(scales, q_scale.data());
      if (asymmetric) quantize.output(zeros, q_zero.data());
      quantize.run(Isa::portable);
      for (const Isa isa : isas())
        for (const bool floats : {false, true}) {
          const Guarded<float> y(x.size()), found_scale(q_scale.size());
          const Guarded<int8_t> found(q.size());
          const Guarded<int32_t> found_zero(q_zero.size());
          Call call(normalize_operator, &c.params);
          call.input(shape, x.data()).input(vector, scale.data()).input(vector, bias.data());
          floats ? call.output(shape, y.data()) : call.absent_output();
          call.output(bytes, found.data()).output(scales, found_scale.data());
          if (asymmetric) call.output(zeros, found_zero.data());
          call.run(isa, floats ? 1 : 2);
          CHECK(std::equal(q.begin(), q.end(), found.data()));
          if (asymmetric) CHECK(std::equal(q_zero.begin(), q_zero.end(), found_zero.data()));
          check_same(q_scale, found_scale, name(isa));
          if (floats) check_same(expected, y, name(isa));
        }
    }
  }
}

TEST_CASE("normalize: results do not depend on threads") {
  Random random(3);
  const Case c{{Normalization::layer, {}, 1e-5f}, true, true};
  const Shape shape = shape_of(Type::f32, {300, 130}), vector = shape_of(Type::f32, {130});
  const auto x = uniform(300 * 130, random), scale = uniform(130, random), bias = uniform(130, random);
  std::vector<float> expected(x.size()), y(x.size());
  run(c, shape, vector, x.data(), scale.data(), bias.data(), expected.data(), Isa::portable);
  for (const Isa isa : isas()) {
    for (const uint32_t threads : {2u, 3u}) {
      run(c, shape, vector, x.data(), scale.data(), bias.data(), y.data(), isa, threads);
      check_same<float>(expected, y, name(isa));
    }
  }
}

TEST_CASE("normalize: the contract") {
  const NormalizeParams params{Normalization::layer, {}, 1e-5f}, unknown{static_cast<Normalization>(2), {}, 0};
  const Shape x = shape_of(Type::f32, {2, 3}), vector = shape_of(Type::f32, {3}), longer = shape_of(Type::f32, {4}),
              gaps = shape_of(Type::f32, {2, 3}, {6, 2}), ints = shape_of(Type::i32, {3}),
              scalar = shape_of(Type::f32, {});
  float data[32];
  const auto refused = [&](const Shape& a, const Shape& scale, const Shape& y, const NormalizeParams& p) {
    return bool(Call(normalize_operator, &p).input(a, data).input(scale, data).output(y, data).check());
  };
  CHECK(!refused(x, vector, x, params));
  CHECK(refused(x, longer, x, params));
  CHECK(refused(x, ints, x, params));
  CHECK(refused(x, x, x, params));
  CHECK(refused(gaps, vector, x, params));
  CHECK(refused(x, vector, gaps, params));
  CHECK(refused(scalar, vector, scalar, params));
  CHECK(refused(x, vector, x, unknown));
  const Call call = Call(normalize_operator, &params).input(x, data).input(vector, data).output(x, data);
  const Shape q = shape_of(Type::i8, {2, 3}), one = shape_of(Type::f32, {2, 1}), two = shape_of(Type::f32, {2, 2});
  const auto refused_rows = [&](const Shape& bytes, const Shape& scales) {
    return bool(Call(normalize_operator, &params)
                    .input(x, data)
                    .absent_output()
                    .output(bytes, data)
                    .output(scales, data)
                    .check());
  };
  CHECK(!refused_rows(q, one));
  CHECK(refused_rows(q, two));
  CHECK(refused_rows(x, one));
  CHECK(bool(Call(normalize_operator, &params).input(x, data).output(x, data).output(q, data).check()));
  CHECK(bool(Call(normalize_operator, &params).input(x, data).absent_output().check()));
  CHECK(call.in_place(0, 0));
  CHECK(!call.in_place(1, 0));
}

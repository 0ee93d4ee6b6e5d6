/// The elementary functions against double precision, over all of float's range, and on every instruction set against
/// the reference. The bounds are those stated in kernels/math.h.
#define HEED_ISA portable
#include "kernels/scalar.h"

#include "kernels/math.h"

#include "kernels/elementwise/elementwise.h"
#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

// Emulated targets are a hundred times slower.
#if defined(__x86_64__)
constexpr uint32_t stride = 5003;
#else
constexpr uint32_t stride = 100003;
#endif

struct Function {
  Step step;
  const char* name;
  float (*function)(float);
  double (*exact)(double);
  double ulp;       // of the result, where |x| is in [from, to]
  double absolute;  // may be off by this besides
  float from, to;
};

double sigmoid_of(double x) {
  return 1 / (1 + std::exp(-x));
}
double gelu_of(double x) {
  return x / 2 * std::erfc(-x * M_SQRT1_2);
}
double gelu_tanh_of(double x) {
  return x * sigmoid_of(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
}

constexpr float all = INFINITY;
// Below 2^-64 exp is 0, and what is made of it.
constexpr double tiny = 0x1p-64;
const Function functions[] = {
    {Step::f_exp, "exp", [](float x) { return portable::exp(x); }, [](double x) { return std::exp(x); }, 1.0, tiny, 0,
     all},
    {Step::f_log, "log", [](float x) { return portable::log(x); }, [](double x) { return std::log(x); }, 0.9, 0, 0,
     all},
    {Step::f_tanh, "tanh", [](float x) { return portable::tanh(x); }, [](double x) { return std::tanh(x); }, 4.8, 0, 0,
     all},
    {Step::f_erf, "erf", [](float x) { return portable::erf(x); }, [](double x) { return std::erf(x); }, 4.0, 0, 0,
     all},
    {Step::f_sin, "sin", [](float x) { return portable::sin(x); }, [](double x) { return std::sin(x); }, 1.1, 0, 0,
     32768},
    {Step::f_cos, "cos", [](float x) { return portable::cos(x); }, [](double x) { return std::cos(x); }, 1.1, 0, 0,
     32768},
    {Step::f_sigmoid, "sigmoid", [](float x) { return portable::sigmoid(x); }, sigmoid_of, 2.6, 0, 0, 87},
    {Step::f_silu, "silu", [](float x) { return portable::silu(x); }, [](double x) { return x * sigmoid_of(x); }, 2.9,
     1e-36, 0, all},
    {Step::f_gelu, "gelu", [](float x) { return portable::gelu(x); }, gelu_of, 2.4, 6e-7, 0, all},
    {Step::f_gelu_tanh, "gelu_tanh", [](float x) { return portable::gelu_tanh(x); }, gelu_tanh_of, 2.0, 1e-7, 0, all},
    {Step::f_softplus, "softplus", [](float x) { return portable::softplus(x); },
     [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }, 2.5, tiny, 0, all},
};

}  // namespace

TEST_CASE("math: errors in ulp over all of float") {
  const FlushToZero mode;
  for (const Function& f : functions) {
    double worst = 0;
    float where = 0;
    const auto look = [&](float x) {
      if (std::fpclassify(x) == FP_SUBNORMAL) x = std::copysign(0.0f, x);
      if (!(std::abs(x) >= f.from && std::abs(x) <= f.to)) return;
      const double exact = f.exact(x);
      const float y = f.function(x);
      if (std::isnan(y) && (std::isnan(exact) || std::isinf(x))) return;
      if (y == static_cast<float>(exact)) return;
      const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
      double error = std::max(0.0, std::abs(y - exact) - f.absolute) / ulp;
      if (std::abs(exact) < 0x1p-126 && std::abs(y) <= 0x1p-126) error = 0;
      if (!(error <= worst)) worst = error, where = x;
    };
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += stride)
      look(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    for (int i = -4000; i <= 4000; ++i) look(static_cast<float>(i) * 0.0137f);
    for (const float x : special_floats())
      if (!std::isinf(x)) look(x);
    INFO(f.name << "(" << where << ")");
    CHECK(worst <= f.ulp);
  }
}

TEST_CASE("math: ends of the range") {
  using namespace portable;
  const FlushToZero mode;
  const float inf = INFINITY;
  CHECK(same(portable::exp(-inf), 0.0f));
  CHECK(same(portable::exp(inf), inf));
  CHECK(same(portable::exp(88.7228394f), inf));
  CHECK(portable::exp(88.7228317f) < inf);
  CHECK(portable::exp(-44.3614197f) > 0);
  CHECK(same(portable::exp(-44.3614235f), 0.0f));
  CHECK(same(portable::exp(0), 1.0f));
  CHECK(same(portable::log(0), -inf));
  CHECK(same(portable::log(-0.0f), -inf));
  volatile float subnormal = 1e-40f;  // no constant: the compiler computes those without the mode
  CHECK(same(portable::log(subnormal), -inf));
  CHECK(same(portable::log(inf), inf));
  CHECK(same(portable::log(-1), NAN));
  CHECK(same(portable::log(1), 0.0f));
  for (const float sign : {-1.0f, 1.0f}) {
    CHECK(same(portable::tanh(sign * inf), sign));
    CHECK(same(portable::tanh(sign * 9.2f), sign));
    CHECK(same(portable::erf(sign * inf), sign));
    CHECK(same(portable::tanh(sign * 0.0f), sign * 0.0f));
    CHECK(same(portable::erf(sign * 0.0f), sign * 0.0f));
    CHECK(same(portable::sin(sign * inf), NAN));
    CHECK(same(portable::cos(sign * inf), NAN));
    CHECK(portable::tanh(sign * 1.17549435e-38f) == sign * 1.17549435e-38f);
  }
  CHECK(same(sigmoid(inf), 1.0f));
  CHECK(same(sigmoid(-inf), 0.0f));
  CHECK(same(silu(inf), inf));
  CHECK(silu(-inf) == 0);
  CHECK(same(gelu(inf), inf));
  CHECK(gelu(-inf) == 0);
  CHECK(same(gelu(100), 100.0f));
  CHECK(same(gelu_i8(inf), inf));
  CHECK(std::isnan(gelu_i8(NAN)));
  for (float x = -20; x < 20; x += 1e-3f) REQUIRE(std::abs(gelu_i8(x) - gelu_of(x)) < (x < 8 ? 8.2e-5 : 1e-6 * x));
  CHECK(same(gelu_tanh(inf), inf));
  CHECK(gelu_tanh(-inf) == 0);
  CHECK(same(softplus(inf), inf));
  CHECK(same(softplus(-inf), 0.0f));
  CHECK(same(softplus(100), 100.0f));
  for (const Function& f : functions) CHECK(std::isnan(f.function(NAN)));
  bool bounded = true;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 10 * stride) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (!std::isfinite(x)) continue;
    for (const float y : {portable::sin(x), portable::cos(x), portable::tanh(x), portable::erf(x)})
      bounded &= std::abs(y) <= 1;
    bounded &= same(x > 0 ? portable::exp(-x) : portable::exp(x), exp_nonpositive(x > 0 ? -x : x));
  }
  CHECK(bounded);
}

TEST_CASE("math: pow against double precision, and its special values as in C") {
  const FlushToZero mode;
  Random random(1);
  double worst = 0;
  const auto look = [&](float a, float b) {
    if (std::fpclassify(a) == FP_SUBNORMAL) a = std::copysign(0.0f, a);
    if (std::fpclassify(b) == FP_SUBNORMAL) b = std::copysign(0.0f, b);
    const double exact = std::pow(static_cast<double>(a), static_cast<double>(b));
    const float y = portable::pow(a, b);
    if (std::isnan(exact) || std::isinf(static_cast<float>(exact)) || std::isinf(y)) {
      if (!same(y, static_cast<float>(exact))) worst = INFINITY;
    } else if (std::abs(exact) < 0x1p-126) {
      if (!(std::abs(y) <= 0x1p-126)) worst = INFINITY;
    } else {
      worst = std::max(worst, std::abs(y - exact) / std::ldexp(1.0, std::ilogb(exact) - 23));
    }
  };
  for (const float a : special_floats())
    for (const float b : special_floats()) look(a, b);
  for (int i = 0; i < 100000; ++i) {
    look(uniform(1, random, 0, 10)[0], uniform(1, random, -30, 30)[0]);
    look(std::bit_cast<float>(static_cast<uint32_t>(random())), std::bit_cast<float>(static_cast<uint32_t>(random())));
  }
  CHECK(worst <= 7.5);
}

TEST_CASE("math: the fused multiply-add is the C library's") {
  Random random(2);
  const auto any = [&](int mode) {
    uint32_t bits = static_cast<uint32_t>(random());
    if (mode == 1) bits = (bits & 0x807fffffu) | (120 + static_cast<uint32_t>(random()) % 16) << 23;
    if (mode == 2)
      bits = (bits & 0x8000000fu) | static_cast<uint32_t>(random()) % 256 << 23;  // few bits, every exponent
    return std::bit_cast<float>(bits);
  };
  bool equal = true;
#if defined(__x86_64__)
  constexpr int rounds = 3000000;
#else
  constexpr int rounds = 100000;
#endif
  for (int i = 0; i < rounds; ++i) {
    const float a = any(i % 3), b = any(i % 3);
    float c = any(i % 3);
    if (i % 7 == 0) c = std::bit_cast<float>(std::bit_cast<uint32_t>(-(a * b)) ^ static_cast<uint32_t>(random()) % 4);
    equal &= same(portable::fma(a, b, c), std::fma(a, b, c));
  }
  CHECK(equal);
}

TEST_CASE("math: every instruction set gives the reference's bits over all of float") {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += stride)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<float>(i) * 0.0057f);
  x.insert(x.end(), special_floats().begin(), special_floats().end());
  const Shape shape = shape_of(Type::f32, {static_cast<int>(x.size())});
  std::vector<float> expected(x.size()), y(x.size());
  for (const Function& f : functions) {
    struct {
      ElementwiseParams head{1, 0, 1, 1, {0}};
      Source source{SourceKind::tensor, 0, {}, 0};
      Instruction instruction{};
    } params;
    params.instruction = {f.step, 0, {operand::inputs, operand::none, operand::none}, {}};
    Call(elementwise_operator, &params).input(shape, x.data()).output(shape, expected.data()).run(Isa::portable);
    for (const Isa isa : simd_isas()) {
      Call(elementwise_operator, &params).input(shape, x.data()).output(shape, y.data()).run(isa);
      check_same<float>(expected, y, f.name);
    }
  }
}

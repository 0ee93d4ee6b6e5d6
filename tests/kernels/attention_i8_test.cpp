#include "kernels/attention_i8/attention_i8.h"

#include "tests/kernels/attention_case.h"

namespace heed::test {
namespace {

// attention_test.cpp runs its cases on both attentions; here is what eight bits change.

double cosine(const std::vector<float>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += double{a[i]} * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

TEST_CASE("attention_i8: near double precision where the scales of values differ by a thousand") {
  Random random(1);
  for (const int tk : {16, 128, 500}) {
    const Case c{.heads = 2, .shared_heads = 2, .tq = 40, .tk = tk, .d = 64, .dv = 64};
    for (const float sink : {1.0f, 1e-3f}) {
      Attention attention(c, random);
      attention.scale_value(0, sink);
      std::vector<float> y(attention.outputs());
      attention.run(attention_i8_operator, best_isa(), y.data(), 1, nullptr, 12);
      CHECK(cosine(y, attention.exact(nullptr)) > 0.999);
    }
  }
}

TEST_CASE("attention_i8: probabilities, values and scores at their extremes") {
  Random random(2);
  for (const float value : {3.0f, -3.0f, 1e-20f})
    for (const int tk : {1, 16, 1000}) {
      const Case c{.tq = 7, .tk = tk, .d = 20, .dv = 24};
      Attention attention(c, random);
      attention.set(value);
      check(c, attention);
    }
}

TEST_CASE("attention_i8: the contract knows what int32 holds, and how many scales there are") {
  const AttentionParams params{1.0f, 0, 0, 12, 0, 0, 0};
  const auto violation = [&](int tk, int d, int scales) {
    const Shape q = shape_of(Type::i8, {1, 1, 1, d}), k = shape_of(Type::i8, {1, 1, tk, d}),
                v = shape_of(Type::i8, {1, 1, tk, 1}), y = shape_of(Type::f32, {1, 1, 1, 1}),
                scale = shape_of(Type::f32, {1, 1, scales, 1}), one = shape_of(Type::f32, {1, 1, 1, 1});
    Call call(attention_i8_operator, &params);
    call.input(q, nullptr).input(k, nullptr).input(v, nullptr);
    for (int i = 0; i < 4; ++i) call.absent();
    const Violation found =
        call.input(one, nullptr).input(scale, nullptr).input(scale, nullptr).output(y, nullptr).check();
    return std::string(found ? found.what : "");
  };
  CHECK(violation(66304, 64, 66304) == "");
  CHECK(violation(66305, 64, 66305) == "sums over so many keys do not fit int32");
  CHECK(violation(8, 133144, 8) == "");
  CHECK(violation(8, 133145, 8) == "sums of so many terms do not fit int32");
  CHECK(violation(8, 64, 7) == "rows and their scales differ in number");
}

}  // namespace
}  // namespace heed::test

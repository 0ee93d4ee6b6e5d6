#include "kernels/rope/rope.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// One rotation of x [batch, tokens, heads, D], run in every way.
struct Rotated {
  int batch, tokens, heads, channels, rotated;
  Pairing pairing;
  bool heads_first = false;    // as an attention wants them: [batch, heads, tokens, D]
  bool own_positions = false;  // tables differ over the batch
  int gap = 0;                 // between the rows of x and of y
  uint32_t threads = 1;

  std::string name() const {
    const auto number = [](int value) { return std::to_string(value) + " "; };
    return number(batch) + number(tokens) + number(heads) + number(channels) + "rotated " + number(rotated) +
           (pairing == Pairing::half ? "half" : "interleaved");
  }

  void check(Random& random, bool provoke) const {
    CAPTURE(name());
    const int step = channels + gap;
    Shape shape = shape_of(Type::f32, {batch, tokens, heads, channels}, {tokens * heads * step, heads * step, step, 1});
    const int table_batch = own_positions ? tokens * rotated : 0;
    Shape table = shape_of(Type::f32, {batch, tokens, heads, rotated}, {table_batch, rotated, 0, 1});
    if (heads_first)
      for (Shape* each : {&shape, &table})
        std::swap(each->dims[1], each->dims[2]), std::swap(each->strides[1], each->strides[2]);
    const auto data = [&](int count) {
      return provoke ? provoking_floats(static_cast<size_t>(count), random)
                     : uniform(static_cast<size_t>(count), random);
    };
    const int count = std::max(batch * tokens * heads * step - gap, 0);
    const int table_count = (own_positions ? batch : 1) * tokens * rotated;
    const std::vector<float> before = data(count);
    const Guarded<float> x(before), cos(data(table_count)), sin(data(table_count));
    const RopeParams params{pairing, {}};
    const auto run = [&](Isa isa, uint32_t count, const float* from, float* to) {
      Call call(rope_operator, &params);
      call.input(shape, from).input(table, cos.data()).input(table, sin.data()).output(shape, to);
      CHECK(call.in_place(0, 0));
      CHECK_FALSE(call.in_place(1, 0));
      call.run(isa, count);
    };
    const std::vector<float> empty(static_cast<size_t>(count), 7.0f);
    std::vector<float> expected = empty, in_place = before;
    run(Isa::portable, 1, x.data(), expected.data());
    for (Isa isa : isas()) {
      const Guarded<float> y{std::span<const float>(empty)}, same{std::span<const float>(before)};
      run(isa, threads, x.data(), y.data());
      check_same(expected, y, heed::name(isa));
      run(isa, threads, same.data(), same.data());
      for (int row = 0; gap > 0 && row + 1 < batch * tokens * heads; ++row)  // what lies between rows is x's then
        for (int i = channels; i < step; ++i) same[static_cast<size_t>(row * step + i)] = 7.0f;
      check_same(expected, same, std::string(heed::name(isa)) + " in place");
    }
    if (provoke) return;
    for (int row = 0; row < batch * tokens * heads; ++row) {
      const int at = (row / heads % tokens + (own_positions ? row / heads / tokens * tokens : 0)) * rotated;
      for (int i = 0; i < channels; ++i) {
        const int partner = pairing == Pairing::interleaved ? i ^ 1
                            : i < rotated / 2               ? i + rotated / 2
                                                            : i - rotated / 2;
        const auto element = [&](int channel) { return double{x[static_cast<size_t>(row * step + channel)]}; };
        const double exact = i >= rotated ? element(i)
                                          : element(i) * cos[static_cast<size_t>(at + i)] +
                                                element(partner) * sin[static_cast<size_t>(at + i)];
        REQUIRE(std::abs(expected[static_cast<size_t>(row * step + i)] - exact) <= 1e-6);
      }
    }
  }
};

TEST_CASE("rope: every count of channels, rotated in whole and in part") {
  Random random(1);
  uint32_t turn = 0;
  for (Pairing pairing : {Pairing::half, Pairing::interleaved}) {
    for (int rotated : {0, 2, 4, 6, 8, 10, 14, 16, 18, 30, 32, 34, 48, 62, 64, 66, 96, 126, 128, 130, 256}) {
      for (int rest : {0, 1, 3, 8, 17}) {
        ++turn;
        Rotated each{1 + static_cast<int>(turn % 2),
                     1 + static_cast<int>(turn % 3),
                     1 + static_cast<int>(turn % 5),
                     rotated + rest,
                     rotated,
                     pairing};
        each.heads_first = turn % 2 == 0;
        each.own_positions = turn % 3 == 0;
        each.gap = turn % 4 == 0 ? 5 : 0;
        each.check(random, turn % 3 == 1);
      }
    }
  }
}

TEST_CASE("rope: every count of tokens and heads; threads change nothing") {
  Random random(2);
  for (int tokens : {0, 1, 2, 7, 33})
    for (int heads : {0, 1, 2, 3, 8})
      for (int batch : {1, 3})
        Rotated{batch, tokens, heads, 8, 8, Pairing::interleaved, tokens % 2 == 0, batch == 3}.check(random, false);
  for (uint32_t threads : {2u, 3u, 7u})
    for (bool heads_first : {false, true}) {
      Rotated large{2, 130, 6, 80, 64, Pairing::half, heads_first};
      large.threads = threads;
      large.check(random, false);
    }
}

TEST_CASE("rope: the contract says what is wrong") {
  const Shape x = shape_of(Type::f32, {2, 5, 3, 8}), table = shape_of(Type::f32, {2, 5, 3, 6}, {0, 6, 0, 1});
  const RopeParams good{Pairing::half, {}}, bad{static_cast<Pairing>(2), {}};
  const auto refused = [](const RopeParams& params, const Shape& x, const Shape& cos, const Shape& sin, const Shape& y,
                          int operand, const char* what) {
    const Violation violation = Call(rope_operator, &params)
                                    .input(x, nullptr)
                                    .input(cos, nullptr)
                                    .input(sin, nullptr)
                                    .output(y, nullptr)
                                    .check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(std::string(violation.what) == what);
    CHECK(violation.operand == operand);
  };
  CHECK_FALSE(Call(rope_operator, &good)
                  .input(x, nullptr)
                  .input(table, nullptr)
                  .input(table, nullptr)
                  .output(x, nullptr)
                  .check());
  refused(bad, x, table, table, x, output_operand, "unknown pairing");
  const Shape odd = shape_of(Type::f32, {2, 5, 3, 7}), wide = shape_of(Type::f32, {2, 5, 3, 10});
  refused(good, x, odd, odd, x, 1, "the rotated channels are no pairs");
  refused(good, x, wide, wide, x, 1, "more channels are rotated than there are");
  refused(good, x, shape_of(Type::f32, {2, 4, 3, 6}), table, x, 1, "x and cos differ in an axis");
  refused(good, x, shape_of(Type::f32, {5, 6}), table, x, 1, "wrong rank");
  refused(good, x, table, shape_of(Type::f32, {2, 5, 3, 4}), x, 2, "dimensions differ");
  refused(good, x, table, table, wide, output_operand, "dimensions differ");
  refused(good, x, shape_of(Type::f32, {2, 5, 3, 6}, {0, 1, 0, 5}), table, x, 1, "the last axis has gaps");
  refused(good, shape_of(Type::f32, {}), table, table, shape_of(Type::f32, {}), 0, "x has no axis");
}

}  // namespace
}  // namespace heed::test

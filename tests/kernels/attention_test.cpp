#include "tests/kernels/attention_case.h"

namespace heed::test {
namespace {

TEST_CASE("attention: lengths and channels") {
  Random random(1);
  for (int tq : {1, 2, 5, 6, 7, 13}) {
    for (int tk : {1, 4, 5, 15, 16, 17, 33, 64}) check({.tq = tq, .tk = tk, .d = 8, .dv = 20}, random);
  }
  for (int d : {1, 2, 7, 16, 33, 64}) {
    for (int dv : {1, 4, 8, 9, 15, 16, 17, 24, 31, 32, 40, 64, 72})
      check({.tq = 7, .tk = 19, .d = d, .dv = dv}, random);
  }
}

TEST_CASE("attention: no queries, no keys, no channels") {
  Random random(2);
  check({.tq = 0, .tk = 3}, random);
  check({.batch = 0}, random);
  check({.tq = 3, .tk = 1, .d = 0}, random);
  const Case none{.tq = 3, .tk = 0};
  const Attention attention(none, random);
  for (const auto& [row, tolerance] : attentions)
    for (Isa isa : isas()) {
      const Guarded<float> y(attention.outputs());
      attention.run(row, isa, y.data(), 1, nullptr, 4);
      check_same(std::vector<float>(attention.outputs(), 0.0f), y, "no keys: zeros");
    }
}

TEST_CASE("attention: causal and window") {
  Random random(3);
  for (int block_rows : {1, 4, 12, 24, 40}) {
    for (int offset : {-3, 0, 4, 30}) {
      check({.tq = 41, .tk = 45, .d = 8, .causal = 1, .offset = offset, .block_rows = block_rows}, random);
      for (int width : {0, 1, 5, 20}) {
        check({.tq = 27,
               .tk = 40,
               .d = 4,
               .window = 1,
               .left = width,
               .right = 2,
               .offset = offset,
               .block_rows = block_rows},
              random);
        check({.tq = 27,
               .tk = 40,
               .d = 4,
               .causal = 1,
               .window = 1,
               .left = width,
               .right = 7,
               .offset = offset,
               .block_rows = block_rows},
              random);
      }
    }
  }
  check({.tq = 3, .tk = 5, .causal = 1, .window = 1, .left = INT32_MAX, .right = INT32_MAX, .offset = 1 << 23}, random);
  check({.tq = 3, .tk = 5, .causal = 1, .window = 1, .left = 0, .right = 0, .offset = -(1 << 23)}, random);
}

TEST_CASE("attention: every combination of masks, biases, heads and layouts") {
  Random random(4);
  for (uint32_t bits = 0; bits < 256; ++bits) {
    Case c{.batch = 2,
           .heads = 4,
           .shared_heads = bits & 64 ? 2 : 4,
           .tq = 9,
           .tk = 21,
           .d = 8,
           .dv = bits & 128 ? 8 : 24};
    c.causal = bits & 1;
    c.window = (bits >> 1) & 1;
    c.left = 6;
    c.right = 3;
    c.offset = 5;
    c.padding = bits & 4;
    c.bias = static_cast<Bias>((bits >> 3) % 3);
    c.slope = bits & 8;
    c.toeplitz = bits & 32;
    c.heads_inside = bits & 16;
    c.broadcast = bits & 64;
    c.bias_by_key = bits & 128;
    c.v_gaps = (bits & 3) == 3;
    c.block_rows = bits % 5 * 3 + 1;
    c.nan_in_masked = true;
    check(c, random);
  }
}

TEST_CASE("attention: a masked key contributes nothing, whatever its value") {
  Random random(5);
  for (Bias bias : {Bias::none, Bias::keep}) {
    for (bool padding : {false, true}) {
      for (int window : {0, 1}) {
        const Case c{.tq = 30,
                     .tk = 40,
                     .d = 8,
                     .dv = 17,
                     .causal = 1,
                     .window = window,
                     .left = 9,
                     .right = 0,
                     .offset = 4,
                     .bias = bias,
                     .padding = padding};
        const Attention clean(c, random);
        Attention poisoned = clean;
        poisoned.poison(33);  // seen by some queries only
        for (const auto& [row, tolerance] : attentions) {
          std::vector<float> expected(clean.outputs()), reference(clean.outputs());
          clean.run(row, Isa::portable, expected.data(), 1, nullptr, 12);
          poisoned.run(row, Isa::portable, reference.data(), 1, nullptr, 12);
          int touched = 0;
          for (int i = 0; i < c.tq; ++i) {
            const bool nan = std::isnan(reference[i * c.dv]);
            touched += nan;
            if (!nan)
              for (int n = 0; n < c.dv; ++n) REQUIRE(same(expected[i * c.dv + n], reference[i * c.dv + n]));
            if (i + c.offset < 33 || (window && i + c.offset - 9 > 33)) REQUIRE_FALSE(nan);
          }
          REQUIRE(touched < c.tq);
          for (Isa isa : simd_isas()) {
            const Guarded<float> y(clean.outputs());
            poisoned.run(row, isa, y.data(), 1, nullptr, 12);
            check_same(reference, y, std::string(heed::name(isa)) + " " + c.name());
          }
        }
      }
    }
  }
}

TEST_CASE("attention: infinities, NaN and subnormals as data") {
  Random random(6);
  for (uint32_t bits = 0; bits < 32; ++bits) {
    Case c{.heads = 2, .shared_heads = 1, .tq = 8, .tk = 20, .d = 3, .dv = 19, .provoke = true};
    c.causal = bits & 1;
    c.offset = 6;
    c.padding = bits & 2;
    c.bias = static_cast<Bias>((bits >> 2) % 3);
    c.slope = bits & 16;
    for (int repeat = 0; repeat < 4; ++repeat) check(c, random);
  }
}

TEST_CASE("attention: threads change nothing") {
  Random random(7);
  for (uint32_t threads : {2u, 3u, 8u}) {
    check({.batch = 3,
           .heads = 6,
           .shared_heads = 2,
           .tq = 30,
           .tk = 40,
           .d = 32,
           .dv = 32,
           .causal = 1,
           .offset = 10,
           .padding = true,
           .threads = threads},
          random);
    check({.heads = 2,
           .shared_heads = 1,
           .tq = 70,
           .tk = 50,
           .d = 16,
           .dv = 16,
           .block_rows = 8,
           .bias = Bias::keep,
           .threads = threads},
          random);
    check({.tq = 3, .tk = 4, .d = 4, .dv = 4, .threads = threads}, random);
  }
}

TEST_CASE("attention: scratch grows with the rows of a block, never with queries by keys") {
  const auto scratch = [](int tq, int tk, int d, int dv, int block_rows, bool padding) {
    const AttentionParams params{1.0f, 0, 0, static_cast<uint16_t>(block_rows), 0, 0, 0};
    const Shape q = shape_of(Type::f32, {1, 2, tq, d}), k = shape_of(Type::f32, {1, 2, tk, d});
    const Shape v = shape_of(Type::f32, {1, 2, tk, dv}), keep = shape_of(Type::boolean, {1, tk});
    const Shape y = shape_of(Type::f32, {1, 2, tq, dv});
    Call call(attention_operator, &params);
    call.input(q, nullptr).input(k, nullptr).input(v, nullptr).absent();
    padding ? call.input(keep, nullptr) : call.absent();
    return call.output(y, nullptr).scratch();
  };
  CHECK(scratch(100, 100, 64, 64, 12, false) == 4 * (112 * 64 + 12 * 112));
  CHECK(scratch(900, 100, 64, 64, 12, false) == 4 * (112 * 64 + 12 * 112));
  CHECK(scratch(100, 100, 64, 64, 12, true) == 4 * (112 * 64 + 112 + 12 * 112));
  CHECK(scratch(100, 100, 64, 8, 1, false) == 4 * (112 * 64 + 16 * 100 + 112));
}

TEST_CASE("attention: the contract says what is wrong") {
  struct Shapes {
    Shape q = shape_of(Type::f32, {2, 4, 5, 8}), k = shape_of(Type::f32, {2, 2, 7, 8}),
          v = shape_of(Type::f32, {2, 2, 7, 6});
    Shape bias = shape_of(Type::f32, {2, 4, 5, 7}), padding = shape_of(Type::boolean, {2, 7});
    Shape slope = shape_of(Type::f32, {4}), toeplitz = shape_of(Type::f32, {4, 11}),
          y = shape_of(Type::f32, {2, 4, 5, 6});
    AttentionParams params{1.0f, 0, 0, 4, 0, 0, 0};
    Violation check() const {
      return Call(attention_operator, &params)
          .input(q, nullptr)
          .input(k, nullptr)
          .input(v, nullptr)
          .input(bias, nullptr)
          .input(padding, nullptr)
          .input(slope, nullptr)
          .input(toeplitz, nullptr)
          .output(y, nullptr)
          .check();
    }
  };
  CHECK_FALSE(Shapes{}.check());
  const auto refused = [](auto change, int operand, const char* what) {
    Shapes shapes;
    change(shapes);
    const Violation violation = shapes.check();
    REQUIRE(violation);
    CHECK(violation.operand == operand);
    CHECK(std::string(violation.what) == what);
  };
  refused([](Shapes& s) { s.q.rank = 3; }, 0, "wrong rank");
  refused([](Shapes& s) { s.k.type = Type::i8; }, 1, "wrong element type");
  refused([](Shapes& s) { s.padding.type = Type::f32; }, 4, "wrong element type");
  refused([](Shapes& s) { s.bias.type = Type::i32; }, 3, "wrong element type");
  refused([](Shapes& s) { s.k.dims[0] = 1; }, 1, "q and k differ in batch");
  refused([](Shapes& s) { s.k.dims[1] = s.v.dims[1] = 3; }, 0, "q's heads are no multiple of k's");
  refused([](Shapes& s) { s.k.dims[1] = s.v.dims[1] = 0; }, 0, "q's heads are no multiple of k's");
  refused([](Shapes& s) { s.v.dims[1] = 4; }, 2, "k and v differ in heads");
  refused([](Shapes& s) { s.v.dims[2] = 6; }, 2, "k and v differ in length");
  refused([](Shapes& s) { s.k.dims[3] = 9; }, 1, "q and k differ in channels");
  refused([](Shapes& s) { s.y.dims[1] = 2; }, output_operand, "y and q differ in heads");
  refused([](Shapes& s) { s.y.dims[3] = 8; }, output_operand, "y and v differ in channels");
  refused([](Shapes& s) { s.y.strides[3] = 2; }, output_operand, "the last axis has gaps");
  refused([](Shapes& s) { s.bias.dims[1] = 1; }, 3, "bias and q differ in heads");
  refused([](Shapes& s) { s.bias.dims[3] = 8; }, 3, "bias and k differ in length");
  refused([](Shapes& s) { s.padding.dims[1] = 5; }, 4, "key_padding and k differ in length");
  refused([](Shapes& s) { s.slope.dims[0] = 1; }, 5, "slope and q differ in heads");
  refused([](Shapes& s) { s.toeplitz.dims[1] = 12; }, 6, "toeplitz is not as long as q and k and one less");
  refused([](Shapes& s) { s.params.causal = 2; }, 0, "causal is neither 0 nor 1");
  refused([](Shapes& s) { s.params.block_rows = 0; }, 0, "a block has no rows");
  refused([](Shapes& s) { s.params.window = 1, s.params.window_left = -1; }, 0, "the window begins after the query");
  refused([](Shapes& s) { s.params.window = 1, s.params.window_right = -1; }, 0, "the window ends before the query");
  refused([](Shapes& s) { s.params.offset = INT32_MAX; }, 0, "offset is too far");
}

}  // namespace
}  // namespace heed::test

#include "kernels/attention/attention.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// Probabilities sum to 1, so an output is no larger than the largest value; scores are sums of D terms of at most 4.
constexpr Tolerance near_double = {1e-5, 2e-5, "rounding of scores up to 100, seen through the exponential"};

enum class Bias { none, numbers, keep };

/// One attention over random data: what is present, and how operands lie.
struct Case {
  int batch = 1, heads = 1, shared_heads = 1, tq = 5, tk = 5, d = 16, dv = 16;
  int causal = 0, window = 0, left = 0, right = 0, offset = 0, block_rows = 12;
  Bias bias = Bias::none;
  bool padding = false, slope = false, toeplitz = false;
  bool heads_inside = false;  // q, k, v and y as [B, T, H * D]
  bool v_gaps = false;        // v's channels are not side by side
  bool broadcast = false;     // one bias for all batches and heads, and every second element of toeplitz
  bool nan_in_masked = false, provoke = false;
  uint32_t threads = 1;

  std::string name() const {
    std::string s = std::to_string(batch) + "x" + std::to_string(heads) + "/" + std::to_string(shared_heads) + " " +
                    std::to_string(tq) + "x" + std::to_string(tk) + " d " + std::to_string(d) + "," +
                    std::to_string(dv) + " rows " + std::to_string(block_rows);
    if (causal) s += " causal " + std::to_string(offset);
    if (window) s += " window " + std::to_string(left) + "," + std::to_string(right) + " at " + std::to_string(offset);
    if (bias == Bias::numbers) s += " bias";
    if (bias == Bias::keep) s += " mask";
    if (padding) s += " padding";
    if (slope) s += " slope";
    if (toeplitz) s += " toeplitz";
    if (heads_inside) s += " heads inside";
    return s;
  }
};

/// What a tap saw.
struct Weights {
  int heads, tq, tk;
  std::vector<float> values;
  static void row(void* context, int batch, int head, int query, const float* weights, int keys) {
    auto& self = *static_cast<Weights*>(context);
    REQUIRE(keys == self.tk);
    std::copy_n(weights, keys,
                &self.values[((static_cast<size_t>(batch) * self.heads + head) * self.tq + query) * keys]);
  }
};

class Attention {
 public:
  Attention(const Case& c, Random& random) : c_(c), params_{} {
    params_ = {1.0f / std::sqrt(static_cast<float>(c.d)),
               static_cast<uint8_t>(c.causal),
               static_cast<uint8_t>(c.window),
               static_cast<uint16_t>(c.block_rows),
               c.offset,
               c.left,
               c.right};
    const auto heads_of = [&](int heads, int length, int width, bool gaps) {
      const int step = gaps ? 2 : 1;
      if (!c.heads_inside) {
        return shape_of(Type::f32, {c.batch, heads, length, width},
                        {heads * length * width * step, length * width * step, width * step, step});
      }
      const int row = heads * width * step;
      return shape_of(Type::f32, {c.batch, heads, length, width}, {length * row, width * step, row, step});
    };
    q_shape_ = heads_of(c.heads, c.tq, c.d, false);
    k_shape_ = heads_of(c.shared_heads, c.tk, c.d, false);
    v_shape_ = heads_of(c.shared_heads, c.tk, c.dv, c.v_gaps);
    y_shape_ = heads_of(c.heads, c.tq, c.dv, false);
    const auto numbers = [&](size_t n) { return c.provoke ? provoking_floats(n, random) : uniform(n, random); };
    q_ = numbers(static_cast<size_t>(c.batch) * c.heads * c.tq * c.d);
    k_ = numbers(static_cast<size_t>(c.batch) * c.shared_heads * c.tk * c.d);
    v_ = numbers(static_cast<size_t>(c.batch) * c.shared_heads * c.tk * c.dv * (c.v_gaps ? 2 : 1));
    const Type bias_type = c.bias == Bias::keep ? Type::boolean : Type::f32;
    bias_shape_ = shape_of(bias_type, {c.batch, c.heads, c.tq, c.tk});
    if (c.broadcast) bias_shape_ = shape_of(bias_type, {c.batch, c.heads, c.tq, c.tk}, {0, 0, c.tk, 1});
    const size_t pairs = static_cast<size_t>(c.tq) * c.tk * (c.broadcast ? 1 : c.batch * c.heads);
    bias_ = numbers(c.bias == Bias::numbers ? pairs : 0);
    keep_.resize(c.bias == Bias::keep ? pairs : 0);
    for (uint8_t& keep : keep_) keep = random() % 3 != 0;
    padding_shape_ = shape_of(Type::boolean, {c.batch, c.tk});
    padding_.resize(c.padding ? static_cast<size_t>(c.batch) * c.tk : 0);
    for (uint8_t& keep : padding_) keep = random() % 4 != 0;
    slope_shape_ = shape_of(Type::f32, {c.heads});
    slope_ = numbers(c.heads);
    const int diagonals = c.tq + c.tk - 1, step = c.broadcast ? 2 : 1;
    toeplitz_shape_ = shape_of(Type::f32, {c.heads, diagonals}, {diagonals * step, step});
    toeplitz_ = numbers(static_cast<size_t>(c.heads) * diagonals * step);
    if (c.nan_in_masked) {
      // A key that no query of any head may see has NaN and infinities.
      for (int b = 0; b < c.batch; ++b) {
        for (int j = 0; j < c.tk; ++j) {
          for (int h = 0; h < c.shared_heads; ++h) {
            bool seen = false;
            for (int group = 0; group < c.heads / c.shared_heads; ++group)
              for (int i = 0; i < c.tq; ++i) seen |= !masked(b, h * (c.heads / c.shared_heads) + group, i, j);
            if (seen) continue;
            for (int n = 0; n < c.d; ++n) k_[at(k_shape_, b, h, j, n)] = n % 2 == 0 ? NAN : INFINITY;
            for (int n = 0; n < c.dv; ++n) v_[at(v_shape_, b, h, j, n)] = n % 3 == 0 ? NAN : -INFINITY;
          }
        }
      }
    }
  }

  /// Poisons key j of every head and batch.
  void poison(int j) {
    for (int b = 0; b < c_.batch; ++b) {
      for (int h = 0; h < c_.shared_heads; ++h) {
        for (int n = 0; n < c_.d; ++n) k_[at(k_shape_, b, h, j, n)] = NAN;
        for (int n = 0; n < c_.dv; ++n) v_[at(v_shape_, b, h, j, n)] = n % 2 == 0 ? INFINITY : NAN;
      }
    }
  }

  size_t outputs() const { return static_cast<size_t>(c_.batch) * c_.heads * c_.tq * c_.dv; }

  void run(Isa isa, float* y, uint32_t threads, Weights* weights, int block_rows) const {
    const Guarded<float> q(std::span<const float>{q_}), k(std::span<const float>{k_}), v(std::span<const float>{v_}),
        bias(std::span<const float>{bias_}), toeplitz(std::span<const float>{toeplitz_});
    const Guarded<uint8_t> keep(std::span<const uint8_t>{keep_}), padding(std::span<const uint8_t>{padding_});
    AttentionParams params = params_;
    params.block_rows = static_cast<uint16_t>(block_rows);
    Call call(attention_operator, &params);
    call.input(q_shape_, q.data()).input(k_shape_, k.data()).input(v_shape_, v.data());
    c_.bias == Bias::none ? call.absent()
                          : call.input(bias_shape_, c_.bias == Bias::keep ? static_cast<const void*>(keep.data())
                                                                          : static_cast<const void*>(bias.data()));
    c_.padding ? call.input(padding_shape_, padding.data()) : call.absent();
    c_.slope ? call.input(slope_shape_, slope_.data()) : call.absent();
    c_.toeplitz ? call.input(toeplitz_shape_, toeplitz.data()) : call.absent();
    const WeightTap tap{Weights::row, weights};
    call.output(y_shape_, y).run(isa, threads, weights == nullptr ? nullptr : &tap);
  }

  /// The formula in double precision.
  std::vector<double> exact(std::vector<double>* weights) const {
    std::vector<double> y(outputs());
    for (int b = 0; b < c_.batch; ++b) {
      for (int h = 0; h < c_.heads; ++h) {
        const int shared = h / (c_.heads / c_.shared_heads);
        for (int i = 0; i < c_.tq; ++i) {
          std::vector<double> p(c_.tk, 0.0);
          double top = -INFINITY, sum = 0;
          for (int j = 0; j < c_.tk; ++j) {
            double s = 0;
            for (int n = 0; n < c_.d; ++n)
              s += double{q_[at(q_shape_, b, h, i, n)]} * k_[at(k_shape_, b, shared, j, n)];
            s *= params_.scale;
            if (c_.slope) s += double{slope_[h]} * (j - i - c_.offset);
            if (c_.toeplitz) {
              s += toeplitz_[h * toeplitz_shape_.strides[0] + (j - i + c_.tq - 1) * toeplitz_shape_.strides[1]];
            }
            if (c_.bias == Bias::numbers) s += bias_[at(bias_shape_, b, h, i, j)];
            p[j] = masked(b, h, i, j) ? -INFINITY : s;
            top = std::max(top, p[j]);
          }
          for (double& value : p) sum += value = value == -INFINITY ? 0 : std::exp(value - top);
          for (int j = 0; j < c_.tk; ++j) {
            if (p[j] == 0) continue;
            p[j] /= sum;
            for (int n = 0; n < c_.dv; ++n) y[at(y_shape_, b, h, i, n)] += p[j] * v_[at(v_shape_, b, shared, j, n)];
          }
          if (weights != nullptr) weights->insert(weights->end(), p.begin(), p.end());
        }
      }
    }
    return y;
  }

 private:
  static size_t at(const Shape& shape, int b, int h, int i, int n) {
    return static_cast<size_t>(int64_t{b} * shape.strides[0] + int64_t{h} * shape.strides[1] +
                               int64_t{i} * shape.strides[2] + int64_t{n} * shape.strides[3]);
  }
  bool masked(int b, int h, int i, int j) const {
    const int64_t position = int64_t{i} + c_.offset;
    if (c_.causal && j > position) return true;
    if (c_.window && (j < position - c_.left || j > position + c_.right)) return true;
    if (c_.padding && padding_[static_cast<size_t>(b) * c_.tk + j] == 0) return true;
    return c_.bias == Bias::keep && keep_[at(bias_shape_, b, h, i, j)] == 0;
  }

  Case c_;
  AttentionParams params_;
  Shape q_shape_, k_shape_, v_shape_, y_shape_, bias_shape_, padding_shape_, slope_shape_, toeplitz_shape_;
  std::vector<float> q_, k_, v_, bias_, slope_, toeplitz_;
  std::vector<uint8_t> keep_, padding_;
};

/// The reference is near double precision, and every instruction set has its bits, in y and in what a tap sees.
void check(const Case& c, const Attention& attention) {
  Weights expected_weights{c.heads, c.tq, c.tk,
                           std::vector<float>(static_cast<size_t>(c.batch) * c.heads * c.tq * c.tk)};
  std::vector<float> expected(attention.outputs());
  attention.run(Isa::portable, expected.data(), 1, &expected_weights, c.block_rows);
  if (!c.provoke) {
    std::vector<double> weights;
    const std::vector<double> exact = attention.exact(&weights);
    check_close(expected, exact, near_double, c.name());
    check_close(expected_weights.values, weights, near_double, c.name() + " weights");
  }
  for (Isa isa : simd_isas()) {
    const std::string name = std::string(heed::name(isa)) + " " + c.name();
    const Guarded<float> y(attention.outputs());
    attention.run(isa, y.data(), c.threads, nullptr, c.block_rows);
    check_same(expected, y, name);
    Weights weights = expected_weights;
    std::fill(weights.values.begin(), weights.values.end(), -1.0f);
    attention.run(isa, y.data(), c.threads, &weights, c.block_rows + 1);
    check_same(expected, y, name + ", tapped");
    check_same<float>(expected_weights.values, weights.values, name + " weights");
  }
}
void check(const Case& c, Random& random) {
  check(c, Attention(c, random));
}

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
  for (Isa isa : isas()) {
    const Guarded<float> y(attention.outputs());
    attention.run(isa, y.data(), 1, nullptr, 4);
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
        std::vector<float> expected(clean.outputs()), reference(clean.outputs());
        clean.run(Isa::portable, expected.data(), 1, nullptr, 12);
        poisoned.run(Isa::portable, reference.data(), 1, nullptr, 12);
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
          poisoned.run(isa, y.data(), 1, nullptr, 12);
          check_same(reference, y, std::string(heed::name(isa)) + " " + c.name());
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

#include "kernels/recurrent_i8/recurrent_i8.h"

#include "kernels/matmul_i8/matmul_i8.h"
#include "tests/kernels/i8_case.h"

namespace heed::test {
namespace {

constexpr Tolerance near_double = {1e-5, 5e-6, "rounding of the gates' arguments and a few ulp of sigmoid and tanh"};
constexpr Tolerance one_step = {0, 2e-2, "an element of r * h that is rounded the other way"};

struct Case {
  Cell cell = Cell::lstm;
  Direction direction = Direction::forward;
  bool before = false;  // linear_before_reset
  int steps = 5, batch = 1, inputs = 3, hidden = 16, chunk = 5;
  bool initial = false, rb = false, batch_first = false;
  int value = 0;    // of all weights and of x, but for their signs
  float range = 1;  // of the first states

  std::string name() const {
    return "cell " + std::to_string(static_cast<int>(cell)) + " direction " +
           std::to_string(static_cast<int>(direction)) + (before ? " before" : "") + " T " + std::to_string(steps) +
           " B " + std::to_string(batch) + " I " + std::to_string(inputs) + " H " + std::to_string(hidden) + " chunk " +
           std::to_string(chunk);
  }
};

struct Results {
  std::vector<float> y, h, c;
};

class Layer {
 public:
  Layer(const Case& c, Random& random)
      : c_(c),
        directions_(c.direction == Direction::both ? 2 : 1),
        gates_(gates_of(c.cell)),
        panels_((c.hidden + 15) / 16),
        w_(directions_ * panels_ * gates_, c.inputs, random, c.value),
        r_(directions_ * panels_ * gates_, c.hidden, random, c.value) {
    const int d = directions_, b = c.batch, h = c.hidden;
    x_shape_ = shape_of(Type::i8, {c.steps, b, c.inputs});
    scale_shape_ = shape_of(Type::f32, {c.steps, b, 1});
    y_shape_ = shape_of(Type::f32, {c.steps, d, b, h});
    if (c.batch_first) {  // x [B, T, I], y [B, T, directions * H]
      x_shape_ = shape_of(Type::i8, {c.steps, b, c.inputs}, {c.inputs, c.steps * c.inputs, 1});
      scale_shape_ = shape_of(Type::f32, {c.steps, b, 1}, {1, c.steps, 1});
      y_shape_ = shape_of(Type::f32, {c.steps, d, b, h}, {d * h, h, c.steps * d * h, 1});
    }
    state_shape_ = shape_of(Type::f32, {d, b, h});
    x_ = random_bytes(count(x_shape_), random);
    if (c.value != 0)
      for (int8_t& x : x_) x = static_cast<int8_t>(x < 0 ? -c.value : c.value);
    x_scale_ = uniform(count(scale_shape_), random, 0.001f, 0.02f);
    b_ = uniform(w_.scale.size(), random);
    rb_ = uniform(c.rb ? w_.scale.size() : 0, random);
    h0_ = uniform(c.initial ? count(state_shape_) : 0, random, -c.range, c.range);
    c0_ = uniform(c.cell == Cell::lstm ? h0_.size() : 0, random);
  }

  /// `steps` steps from `from` on; with the states of another run where they are given.
  Results run(Isa isa, uint32_t threads, int from, int steps, const Results* before) const {
    const RecurrentI8Params params{c_.cell, c_.direction, c_.before, 0, c_.hidden, c_.chunk};
    const auto cut = [&](Shape shape) { return shape.dims[0] = steps, shape; };
    const Shape x_shape = cut(x_shape_), scale_shape = cut(scale_shape_), y_shape = cut(y_shape_), w = panels(w_),
                r = panels(r_), columns = shape_of(Type::f32, {directions_, panels_, gates_, 16}),
                sums = shape_of(Type::i32, {directions_, panels_, gates_, 16});
    const std::vector<float>&h0 = before == nullptr ? h0_ : before->h, &c0 = before == nullptr ? c0_ : before->c;
    const Guarded<int8_t> x{std::span<const int8_t>(x_)}, w_bytes{std::span<const int8_t>(w_.weights)},
        r_bytes{std::span<const int8_t>(r_.weights)};
    const Guarded<float> x_scale{std::span<const float>(x_scale_)}, y(count(y_shape_)), h(count(state_shape_)),
        last_c(c_.cell == Cell::lstm ? h.size() : 0);
    Call call(recurrent_i8_operator, &params);
    call.input(x_shape, x.data() + from * x_shape.strides[0])
        .input(scale_shape, x_scale.data() + from * scale_shape.strides[0]);
    call.input(w, w_bytes.data()).input(columns, w_.scale.data()).input(sums, w_.sum.data());
    call.input(r, r_bytes.data()).input(columns, r_.scale.data()).input(sums, r_.sum.data());
    call.input(columns, b_.data());
    rb_.empty() ? call.absent() : call.input(columns, rb_.data());
    h0.empty() ? call.absent() : call.input(state_shape_, h0.data());
    if (!c0.empty()) call.input(state_shape_, c0.data());
    call.output(y_shape, y.data() + from * y_shape.strides[0]).output(state_shape_, h.data());
    if (c_.cell == Cell::lstm) call.output(state_shape_, last_c.data());
    call.run(isa, threads);
    return {{y.data(), y.data() + y.size()},
            {h.data(), h.data() + h.size()},
            {last_c.data(), last_c.data() + last_c.size()}};
  }
  Results run(Isa isa, uint32_t threads = 1) const { return run(isa, threads, 0, c_.steps, nullptr); }

  /// The formulas of one step in double precision.
  std::vector<double> exact() const {
    const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    std::vector<double> y(count(y_shape_));
    for (int d = 0; d < directions_; ++d)
      for (int b = 0; b < c_.batch; ++b) {
        const size_t state = (static_cast<size_t>(d) * c_.batch + b) * c_.hidden;
        const auto from = [&](const std::vector<float>& first) {
          if (first.empty()) return std::vector<float>(c_.hidden);
          return std::vector<float>(first.begin() + static_cast<std::ptrdiff_t>(state),
                                    first.begin() + static_cast<std::ptrdiff_t>(state) + c_.hidden);
        };
        const std::vector<float> h = from(h0_), c = from(c0_);
        const std::vector<int> x(x_.begin() + b * c_.inputs, x_.begin() + (b + 1) * c_.inputs);
        const auto column = [&](int gate, int u) { return ((d * panels_ + u / 16) * gates_ + gate) * 16 + u % 16; };
        const auto wx = [&](int gate, int u) {
          return w_.times(x, x_scale_[static_cast<size_t>(b)], column(gate, u)) +
                 b_[static_cast<size_t>(column(gate, u))];
        };
        const auto rh = [&](int gate, int u, const QuantizedRow& row) {
          return r_.times(row.q, row.scale, column(gate, u)) +
                 (rb_.empty() ? 0.0f : rb_[static_cast<size_t>(column(gate, u))]);
        };
        const QuantizedRow row(h);
        const auto gate = [&](int g, int u) { return wx(g, u) + rh(g, u, row); };
        std::vector<float> reset(h.size());
        for (int u = 0; u < c_.hidden && c_.cell == Cell::gru; ++u)
          reset[static_cast<size_t>(u)] = static_cast<float>(sigmoid(gate(1, u)) * h[static_cast<size_t>(u)]);
        const QuantizedRow reset_row(reset);
        for (int u = 0; u < c_.hidden; ++u) {
          double& next = y[static_cast<size_t>(d * y_shape_.strides[1] + b * y_shape_.strides[2] + u)];
          if (c_.cell == Cell::lstm) {
            const double cell =
                sigmoid(gate(1, u)) * c[static_cast<size_t>(u)] + sigmoid(gate(0, u)) * std::tanh(gate(2, u));
            next = sigmoid(gate(3, u)) * std::tanh(cell);
          } else if (c_.cell == Cell::gru) {
            const double z = sigmoid(gate(0, u));
            const double n =
                std::tanh(wx(2, u) + (c_.before ? sigmoid(gate(1, u)) * rh(2, u, row) : rh(2, u, reset_row)));
            next = (1 - z) * n + z * h[static_cast<size_t>(u)];
          } else {
            next = std::tanh(gate(0, u));
          }
        }
      }
    return y;
  }

 private:
  static size_t count(const Shape& shape) { return static_cast<size_t>(element_count(shape)); }
  Shape panels(const Panels& p) const { return shape_of(Type::i8, {directions_, panels_, gates_, p.groups, 16, 4}); }

  Case c_;
  int directions_, gates_, panels_;
  Panels w_, r_;
  Shape x_shape_, scale_shape_, y_shape_, state_shape_;
  std::vector<int8_t> x_;
  std::vector<float> x_scale_, b_, rb_, h0_, c0_;
};

void check_same_results(const Results& expected, const Results& found, const std::string& what) {
  check_same(std::span<const float>(expected.y), std::span<const float>(found.y), what);
  check_same(std::span<const float>(expected.h), std::span<const float>(found.h), what + " last h");
  check_same(std::span<const float>(expected.c), std::span<const float>(found.c), what + " last c");
}

/// Every instruction set has the reference's bits; of one step these are near double precision.
void check(const Case& c, Random& random, uint32_t threads = 1) {
  const Layer layer(c, random);
  const Results expected = layer.run(Isa::portable);
  for (const Isa isa : simd_isas())
    check_same_results(expected, layer.run(isa, threads), std::string(heed::name(isa)) + " " + c.name());
  if (c.steps != 1) return;
  check_close(expected.y, layer.exact(), c.cell == Cell::gru && !c.before ? one_step : near_double, c.name());
}

constexpr Cell cells[] = {Cell::lstm, Cell::gru, Cell::rnn};

TEST_CASE("recurrent_i8: hidden units, channels, batch, steps") {
  Random random(1);
  uint32_t turn = 0;
  for (const Cell cell : cells)
    for (const bool before : {false, true})
      for (const int hidden : {1, 7, 15, 16, 17, 31, 33, 48, 64, 65})
        for (const int batch : {1, 2, 3, 7}) {
          if (before && cell != Cell::gru) continue;
          ++turn;
          check({.cell = cell,
                 .before = before,
                 .steps = turn % 2 == 0 ? 1 : 4,
                 .batch = batch,
                 .inputs = hidden * 5 % 23,
                 .hidden = hidden,
                 .initial = turn % 4 < 3,
                 .rb = turn % 3 == 0},
                random);
        }
}

TEST_CASE("recurrent_i8: directions, chunks of time, layouts, threads") {
  Random random(2);
  uint32_t turn = 0;
  for (const Cell cell : cells)
    for (const Direction direction : {Direction::forward, Direction::reverse, Direction::both})
      for (const int steps : {0, 1, 2, 7, 16})
        for (const int chunk : {1, 3, 50}) {
          ++turn;
          check({.cell = cell,
                 .direction = direction,
                 .before = turn % 2 == 0,
                 .steps = steps,
                 .batch = 1 + static_cast<int>(turn % 4),
                 .inputs = 5,
                 .hidden = 18,
                 .chunk = chunk,
                 .initial = turn % 3 == 0,
                 .rb = turn % 5 == 0,
                 .batch_first = turn % 7 < 3},
                random);
        }
  check({.batch = 0}, random);
  for (const uint32_t threads : {2u, 3u, 8u})
    check({.direction = Direction::both, .steps = 6, .batch = 9, .inputs = 20, .hidden = 40}, random, threads);
}

TEST_CASE("recurrent_i8: the extremes of weights and rows, states that are not finite") {
  Random random(3);
  for (const Cell cell : cells)
    for (const bool before : {false, true}) {
      check({.cell = cell, .before = before, .batch = 5, .inputs = 200, .hidden = 70, .initial = true, .value = 127},
            random);
      for (const float range : {0.0f, 1e-35f, 1e38f, INFINITY})
        check({.cell = cell, .before = before, .steps = 2, .batch = 3, .initial = true, .range = range}, random);
    }
}

TEST_CASE("recurrent_i8: a sequence may be cut anywhere") {
  Random random(4);
  for (const Cell cell : cells)
    for (const bool before : {false, true}) {
      const Case c{.cell = cell, .before = before, .steps = 6, .batch = 2, .inputs = 20, .hidden = 24, .initial = true};
      const Layer layer(c, random);
      const Results whole = layer.run(best_isa());
      Results part = layer.run(best_isa(), 1, 0, 1, nullptr);
      const size_t row = whole.y.size() / 6;
      for (int step = 1; step < 6; ++step) {
        part = layer.run(best_isa(), 1, step, 1, &part);
        const auto at = [&](const Results& results) {
          return std::span<const float>(results.y).subspan(static_cast<size_t>(step) * row, row);
        };
        check_same(at(whole), at(part), c.name());
      }
      check_same(std::span<const float>(whole.c), std::span<const float>(part.c), c.name());
    }
}

TEST_CASE("recurrent_i8: the contract says what is wrong") {
  struct Shapes {
    RecurrentI8Params params{Cell::lstm, Direction::both, 0, 0, 20, 4};
    Shape x = shape_of(Type::i8, {6, 3, 5}), x_scale = shape_of(Type::f32, {6, 3, 1});
    Shape w = shape_of(Type::i8, {2, 2, 4, 2, 16, 4}), r = shape_of(Type::i8, {2, 2, 4, 5, 16, 4});
    Shape scale = shape_of(Type::f32, {2, 2, 4, 16}), sum = shape_of(Type::i32, {2, 2, 4, 16}), b = scale;
    Shape state = shape_of(Type::f32, {2, 3, 20}), y = shape_of(Type::f32, {6, 2, 3, 20});
    Call call() const {
      Call call(recurrent_i8_operator, &params);
      call.input(x, nullptr).input(x_scale, nullptr).input(w, nullptr).input(scale, nullptr).input(sum, nullptr);
      call.input(r, nullptr).input(scale, nullptr).input(sum, nullptr).input(b, nullptr).absent();
      return call.input(state, nullptr).input(state, nullptr).output(y, nullptr).output(state, nullptr);
    }
  };
  CHECK_FALSE(Shapes{}.call().check());
  // What the float layer takes; then 12 rows as int16 of 32 terms, three rows of h with their scales.
  CHECK(Shapes{}.call().scratch() == 4 * 3 * 32 * (4 * 4 + 4 + 2) + 12 * 32 * 2 + 3 * 32 + 3 * 4);
  const auto refused = [](auto change, int operand, const char* what) {
    Shapes shapes;
    change(shapes);
    const Violation violation = shapes.call().check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(violation.operand == operand);
    CHECK(std::string(violation.what) == what);
  };
  refused([](Shapes& s) { s.params.cell = static_cast<Cell>(3); }, 0, "unknown cell");
  refused([](Shapes& s) { s.x.type = Type::f32; }, 0, "wrong element type");
  refused([](Shapes& s) { s.x_scale.dims[0] = 5; }, 1, "x and x_scale differ in length");
  refused([](Shapes& s) { s.x_scale.dims[1] = 5; }, 1, "x and x_scale differ in batch");
  refused([](Shapes& s) { s.x_scale.dims[2] = 2; }, 1, "x_scale has not one column");
  refused([](Shapes& s) { s.w.dims[0] = 1; }, 2, "weights have not the directions of the layer");
  refused([](Shapes& s) { s.w.dims[4] = 8; }, 2, "a panel is not 16 wide");
  refused([](Shapes& s) { s.w.dims[5] = 8; }, 2, "panels have gaps");
  refused([](Shapes& s) { s.scale.dims[3] = 8; }, 3, "a panel is not 16 wide");
  refused([](Shapes& s) { s.sum.dims[1] = 3; }, 4, "weights have not the panels for the hidden units");
  refused([](Shapes& s) { s.b.dims[2] = 3; }, 8, "weights have not the gates of the cell");
  refused([](Shapes& s) { s.w = shape_of(Type::i8, {2, 2, 4, 3, 16, 4}); }, 2, "x and w differ in channels");
  refused(
      [](Shapes& s) {
        s.r = shape_of(Type::i8, {2, 2, 4, 6, 16, 4});
      },
      5, "r has not the hidden units of the layer");
  refused([](Shapes& s) { s.r = shape_of(Type::i8, {2, 2, 4, 5, 16, 8}); }, 5, "the groups of weights are not of 4");
  refused(
      [](Shapes& s) {
        s.x = shape_of(Type::i8, {1, 1, most_terms_i8() + 1}), s.x_scale = shape_of(Type::f32, {1, 1, 1});
        s.w = shape_of(Type::i8, {2, 2, 4, (most_terms_i8() + 4) / 4, 16, 4});
        s.state.dims[1] = s.y.dims[2] = s.y.dims[0] = 1;
      },
      0, "sums of so many terms do not fit int32");
  refused([](Shapes& s) { s.state.dims[1] = 2; }, 10, "x and a state differ in batch");
}

}  // namespace
}  // namespace heed::test

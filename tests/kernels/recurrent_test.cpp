#include "kernels/recurrent/recurrent.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// States are within [-1, 1], gates' arguments are sums of some dozens of terms below 1; errors shrink from step to
/// step.
constexpr Tolerance near_double = {1e-5, 5e-6, "rounding of the gates' arguments and a few ulp of sigmoid and tanh"};

struct Case {
  Cell cell = Cell::lstm;
  Direction direction = Direction::forward;
  bool before = false;  // linear_before_reset
  int steps = 5, batch = 1, inputs = 3, hidden = 16, chunk = 5;
  bool initial = false, y = true, last = true, batch_first = false, strided = false, provoke = false;
  uint32_t threads = 1;

  std::string name() const {
    constexpr const char* cells[] = {"lstm", "gru", "rnn"};
    constexpr const char* directions[] = {" forward", " reverse", " both"};
    return std::string(cells[static_cast<int>(cell)]) + directions[static_cast<int>(direction)] +
           (before ? " before" : "") + " T " + std::to_string(steps) + " B " + std::to_string(batch) + " I " +
           std::to_string(inputs) + " H " + std::to_string(hidden) + " chunk " + std::to_string(chunk);
  }
};

class Layer {
 public:
  Layer(const Case& c, Random& random)
      : c_(c),
        params_{c.cell, c.direction, c.before, 0, c.hidden, c.chunk},
        directions_(c.direction == Direction::both ? 2 : 1),
        gates_(gates_of(c.cell)),
        biases_(c.cell == Cell::gru && c.before ? 4 : gates_),
        panels_((c.hidden + 15) / 16) {
    const int d = directions_, b = c.batch, h = c.hidden, row = c.inputs;
    x_shape_ = shape_of(Type::f32, {c.steps, b, row});
    y_shape_ = shape_of(Type::f32, {c.steps, d, b, h});
    if (c.batch_first) {  // x [B, T, I], y [B, T, directions * H]
      x_shape_ = shape_of(Type::f32, {c.steps, b, row}, {row, c.steps * row, 1});
      y_shape_ = shape_of(Type::f32, {c.steps, d, b, h}, {d * h, h, c.steps * d * h, 1});
    }
    state_shape_ = shape_of(Type::f32, {d, b, h});
    first_shape_ = c.strided ? shape_of(Type::f32, {d, b, h}, {2 * b * h, 1, 2 * b}) : state_shape_;
    w_shape_ = shape_of(Type::f32, {d, panels_, gates_, row, 16});
    r_shape_ = shape_of(Type::f32, {d, panels_, gates_, h, 16});
    b_shape_ = shape_of(Type::f32, {d, panels_, biases_, 16});
    x_ = c.provoke ? provoking_floats(count(x_shape_), random) : uniform(count(x_shape_), random);
    w_ = weights(w_shape_, row, random);
    r_ = weights(r_shape_, h, random);
    b_ = weights(b_shape_, 1, random);
    const size_t initial = c.initial ? count(state_shape_) * (c.strided ? 2 : 1) : 0;
    h0_ = uniform(initial, random);
    c0_ = uniform(c.cell == Cell::lstm ? initial : 0, random);
  }

  size_t size_of_y() const { return count(y_shape_); }
  size_t size_of_state() const { return count(state_shape_); }

  Call call(const float* x, float* y, float* h, float* c) const {
    Call call(recurrent_operator, &params_);
    call.input(x_shape_, x).input(w_shape_, w_.data()).input(r_shape_, r_.data()).input(b_shape_, b_.data());
    if (!h0_.empty()) call.input(first_shape_, h0_.data());
    if (!c0_.empty()) call.input(first_shape_, c0_.data());
    const auto output = [&](const Shape& shape, float* data) {
      data == nullptr ? call.absent_output() : call.output(shape, data);
    };
    output(y_shape_, y);
    output(state_shape_, h);
    if (c_.cell == Cell::lstm) output(state_shape_, c);
    return call;
  }

  void run(Isa isa, float* y, float* h, float* c, uint32_t threads) const {
    const Guarded<float> x{std::span<const float>{x_}};
    call(x.data(), y, h, c).run(isa, threads);
  }

  /// The formulas in double precision.
  void exact(std::vector<double>& y, std::vector<double>& h_last, std::vector<double>& c_last) const {
    y.assign(size_of_y(), 0.0);
    h_last.assign(size_of_state(), 0.0);
    c_last.assign(size_of_state(), 0.0);
    const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    for (int d = 0; d < directions_; ++d) {
      for (int b = 0; b < c_.batch; ++b) {
        const size_t state = (static_cast<size_t>(d) * c_.batch + b) * c_.hidden;
        std::vector<double> h(c_.hidden, 0.0), c = h;
        for (int u = 0; u < c_.hidden; ++u) {
          const int32_t* strides = first_shape_.strides;
          const size_t at = static_cast<size_t>(d) * strides[0] + b * strides[1] + u * strides[2];
          if (!h0_.empty()) h[u] = h0_[at];
          if (!c0_.empty()) c[u] = c0_[at];
        }
        for (int s = 0; s < c_.steps; ++s) {
          const bool reverse = c_.direction == Direction::reverse || d == 1;
          const int t = reverse ? c_.steps - 1 - s : s;
          const auto bias = [&](int gate, int u) {
            return double{b_[((d * panels_ + u / 16) * biases_ + gate) * 16 + u % 16]};
          };
          const auto panel = [&](const std::vector<float>& w, int rows, int gate, int k, int u) {
            return double{w[(((static_cast<size_t>(d) * panels_ + u / 16) * gates_ + gate) * rows + k) * 16 + u % 16]};
          };
          const auto wx = [&](int gate, int u) {
            double sum = bias(gate, u);
            for (int k = 0; k < c_.inputs; ++k) {
              sum += x_[t * x_shape_.strides[0] + b * x_shape_.strides[1] + k] * panel(w_, c_.inputs, gate, k, u);
            }
            return sum;
          };
          const auto rh = [&](int gate, int u, const std::vector<double>& from) {
            double sum = 0;
            for (int k = 0; k < c_.hidden; ++k) sum += from[k] * panel(r_, c_.hidden, gate, k, u);
            return sum;
          };
          std::vector<double> next(c_.hidden), reset(c_.hidden);
          for (int u = 0; u < c_.hidden; ++u) {
            const auto gate = [&](int g) { return wx(g, u) + rh(g, u, h); };
            if (c_.cell == Cell::lstm) {
              c[u] = sigmoid(gate(1)) * c[u] + sigmoid(gate(0)) * std::tanh(gate(2));
              next[u] = sigmoid(gate(3)) * std::tanh(c[u]);
            } else if (c_.cell == Cell::gru) {
              reset[u] = sigmoid(gate(1)) * (c_.before ? rh(2, u, h) + bias(3, u) : h[u]);
            } else {
              next[u] = std::tanh(gate(0));
            }
          }
          for (int u = 0; u < c_.hidden && c_.cell == Cell::gru; ++u) {
            const double z = sigmoid(wx(0, u) + rh(0, u, h));
            const double n = std::tanh(wx(2, u) + (c_.before ? reset[u] : rh(2, u, reset)));
            next[u] = (1 - z) * n + z * h[u];
          }
          h = next;
          for (int u = 0; u < c_.hidden; ++u) {
            const int32_t* strides = y_shape_.strides;
            y[t * strides[0] + d * strides[1] + b * strides[2] + u] = h[u];
          }
        }
        std::copy(h.begin(), h.end(), h_last.begin() + static_cast<std::ptrdiff_t>(state));
        std::copy(c.begin(), c.end(), c_last.begin() + static_cast<std::ptrdiff_t>(state));
      }
    }
  }

 private:
  static size_t count(const Shape& shape) { return static_cast<size_t>(element_count(shape)); }

  /// Panels with zeros for the units past H.
  std::vector<float> weights(const Shape& shape, int rows, Random& random) const {
    const float range = 2.0f / std::sqrt(static_cast<float>(rows));
    std::vector<float> values = uniform(count(shape), random, -range, range);
    const int gates = shape.dims[2], each = static_cast<int>(values.size()) / (directions_ * panels_ * gates);
    for (int d = 0; d < directions_; ++d) {
      for (int i = (panels_ - 1) * gates * each; i < panels_ * gates * each; ++i) {
        if ((panels_ - 1) * 16 + i % 16 >= c_.hidden) values[d * panels_ * gates * each + i] = 0.0f;
      }
    }
    return values;
  }

  Case c_;
  RecurrentParams params_;
  int directions_, gates_, biases_, panels_;
  Shape x_shape_, y_shape_, state_shape_, first_shape_, w_shape_, r_shape_, b_shape_;
  std::vector<float> x_, w_, r_, b_, h0_, c0_;
};

/// The reference is near double precision, and every instruction set has its bits.
void check(const Case& c, Random& random) {
  const Layer layer(c, random);
  const bool has_c = c.cell == Cell::lstm;
  std::vector<float> y(layer.size_of_y()), h(layer.size_of_state()), last_c(has_c ? h.size() : 0);
  layer.run(Isa::portable, y.data(), h.data(), last_c.data(), 1);
  if (!c.provoke) {
    std::vector<double> exact_y, exact_h, exact_c;
    layer.exact(exact_y, exact_h, exact_c);
    check_close(y, exact_y, near_double, c.name());
    check_close(h, exact_h, near_double, c.name() + " last h");
    if (has_c) check_close(last_c, exact_c, near_double, c.name() + " last c");
  }
  for (Isa isa : simd_isas()) {
    const std::string name = std::string(heed::name(isa)) + " " + c.name();
    const Guarded<float> found_y(y.size()), found_h(h.size()), found_c(last_c.size());
    layer.run(isa, c.y ? found_y.data() : nullptr, c.last ? found_h.data() : nullptr, c.last ? found_c.data() : nullptr,
              c.threads);
    if (c.y) check_same(y, found_y, name);
    if (c.last) check_same(h, found_h, name + " last h");
    if (c.last && has_c) check_same(last_c, found_c, name + " last c");
  }
}

constexpr Cell cells[] = {Cell::lstm, Cell::gru, Cell::rnn};
constexpr Direction all_directions[] = {Direction::forward, Direction::reverse, Direction::both};

TEST_CASE("recurrent: hidden units, channels and batch") {
  Random random(1);
  for (Cell cell : cells) {
    for (bool before : {false, true}) {
      if (before && cell != Cell::gru) continue;
      for (int hidden : {1, 7, 15, 16, 17, 31, 33, 48, 64, 65}) {
        for (int batch : {1, 2, 3, 7}) {
          check({.cell = cell,
                 .before = before,
                 .steps = 3,
                 .batch = batch,
                 .inputs = hidden % 5,
                 .hidden = hidden,
                 .initial = batch % 2 == 0},
                random);
        }
      }
      for (int inputs : {0, 1, 8, 64}) check({.cell = cell, .before = before, .inputs = inputs, .hidden = 20}, random);
    }
  }
}

TEST_CASE("recurrent: directions, chunks of time, layouts, what is left out") {
  Random random(2);
  for (Cell cell : cells) {
    for (Direction direction : all_directions) {
      for (int steps : {0, 1, 2, 7, 16}) {
        for (int chunk : {1, 3, 7, 50}) {
          const int turn = steps + chunk;
          check({.cell = cell,
                 .direction = direction,
                 .before = turn % 2 == 0 && cell == Cell::gru,
                 .steps = steps,
                 .batch = 1 + turn % 4,
                 .inputs = 5,
                 .hidden = 18,
                 .chunk = chunk,
                 .initial = turn % 3 == 0,
                 .y = turn % 5 != 1,
                 .last = turn % 7 != 2,
                 .batch_first = turn % 2 == 1,
                 .strided = chunk >= 7},
                random);
        }
      }
    }
  }
  check({.batch = 0}, random);
}

TEST_CASE("recurrent: infinities, NaN and subnormals as data") {
  Random random(3);
  for (Cell cell : cells) {
    for (bool before : {false, true}) {
      if (before && cell != Cell::gru) continue;
      for (int repeat = 0; repeat < 8; ++repeat) {
        check({.cell = cell, .before = before, .batch = 3, .inputs = 2, .hidden = 20, .provoke = true}, random);
      }
    }
  }
}

TEST_CASE("recurrent: threads change nothing") {
  Random random(4);
  for (uint32_t threads : {2u, 3u, 8u}) {
    check({.direction = Direction::both, .steps = 6, .batch = 9, .inputs = 20, .hidden = 40, .threads = threads},
          random);
    check({.cell = Cell::gru, .steps = 6, .batch = 9, .inputs = 20, .hidden = 40, .threads = threads}, random);
    check({.steps = 2, .batch = 2, .inputs = 2, .hidden = 4, .threads = threads}, random);
  }
}

TEST_CASE("recurrent: scratch is the product of a chunk, one step's sums and the state") {
  const auto scratch = [](Cell cell, bool before) {
    Random random(5);
    const Layer layer({.cell = cell, .before = before, .steps = 9, .batch = 3, .hidden = 20, .chunk = 4}, random);
    float data[1];
    return layer.call(data, data, nullptr, nullptr).scratch();
  };
  CHECK(scratch(Cell::lstm, false) == 4 * 3 * 32 * (4 * 4 + 4 + 2));
  CHECK(scratch(Cell::gru, false) == 4 * 3 * 32 * (4 * 3 + 3 + 2));
  CHECK(scratch(Cell::gru, true) == 4 * 3 * 32 * (4 * 3 + 3 + 1));
  CHECK(scratch(Cell::rnn, false) == 4 * 3 * 32 * (4 + 1 + 1));
}

TEST_CASE("recurrent: the contract says what is wrong") {
  struct Shapes {
    RecurrentParams params{Cell::lstm, Direction::both, 0, 0, 20, 4};
    Shape x = shape_of(Type::f32, {6, 3, 5}), w = shape_of(Type::f32, {2, 2, 4, 5, 16});
    Shape r = shape_of(Type::f32, {2, 2, 4, 20, 16}), b = shape_of(Type::f32, {2, 2, 4, 16});
    Shape state = shape_of(Type::f32, {2, 3, 20}), y = shape_of(Type::f32, {6, 2, 3, 20});
    bool has_c = true;
    Violation check() const {
      Call call(recurrent_operator, &params);
      call.input(x, nullptr).input(w, nullptr).input(r, nullptr).input(b, nullptr).input(state, nullptr);
      if (has_c) call.input(state, nullptr);
      return call.output(y, nullptr).output(state, nullptr).check();
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
  refused([](Shapes& s) { s.params.cell = static_cast<Cell>(3); }, 0, "unknown cell");
  refused([](Shapes& s) { s.params.direction = static_cast<Direction>(3); }, 0, "unknown direction");
  refused([](Shapes& s) { s.params.linear_before_reset = 2; }, 0, "linear_before_reset is neither 0 nor 1");
  refused([](Shapes& s) { s.params.hidden = 0; }, 0, "no hidden units");
  refused([](Shapes& s) { s.params.chunk = 0; }, 0, "a chunk has no steps");
  refused([](Shapes& s) { s.params.chunk = (1 << 24) + 1; }, 0, "a chunk has too many steps");
  refused([](Shapes& s) { s.x.rank = 2; }, 0, "wrong rank");
  refused([](Shapes& s) { s.x.strides[2] = 2; }, 0, "the last axis has gaps");
  refused([](Shapes& s) { s.w.dims[0] = 1; }, 1, "weights have not the directions of the layer");
  refused([](Shapes& s) { s.w.dims[1] = 1; }, 1, "weights have not the panels for the hidden units");
  refused([](Shapes& s) { s.r.dims[2] = 3; }, 2, "weights have not the gates of the cell");
  refused([](Shapes& s) { s.b.dims[3] = 8; }, 3, "a panel is not 16 wide");
  refused([](Shapes& s) { s.w.dims[3] = 6; }, 1, "panels have gaps");
  refused([](Shapes& s) { s.w = shape_of(Type::f32, {2, 2, 4, 6, 16}); }, 1, "x and w differ in channels");
  refused(
      [](Shapes& s) {
        s.r = shape_of(Type::f32, {2, 2, 4, 21, 16});
      },
      2, "r has not the hidden units of the layer");
  refused([](Shapes& s) { s.state.dims[0] = 1; }, 4, "a state has not the directions of the layer");
  refused([](Shapes& s) { s.state.dims[1] = 2; }, 4, "x and a state differ in batch");
  refused([](Shapes& s) { s.state.dims[2] = 21; }, 4, "a state has not the hidden units of the layer");
  refused([](Shapes& s) { s.y.dims[0] = 5; }, output_operand, "x and y differ in length");
  refused([](Shapes& s) { s.y.dims[3] = 40; }, output_operand, "y has not the hidden units of the layer");
  const auto to_gru = [](Shapes& s) {
    s.params.cell = Cell::gru;
    s.w = shape_of(Type::f32, {2, 2, 3, 5, 16});
    s.r = shape_of(Type::f32, {2, 2, 3, 20, 16});
    s.b = shape_of(Type::f32, {2, 2, 3, 16});
  };
  refused(to_gru, 5, "only an LSTM has c");
  refused([&](Shapes& s) { to_gru(s), s.has_c = false, s.params.linear_before_reset = 1; }, 3,
          "weights have not the gates of the cell");
}

}  // namespace
}  // namespace heed::test

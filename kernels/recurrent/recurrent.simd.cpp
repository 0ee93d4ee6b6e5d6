#include "kernels/recurrent/recurrent.h"

#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// to[row][column] = a[row][..] . w[..][column] (+ bias). Panel p of the columns is panel first + p * step of w and of
/// `to`.
struct Product {
  const float* a;
  ptrdiff_t a_row, k;
  const float* w;
  const float* bias;  // or null
  float* to;
  ptrdiff_t to_row;
  int first, step, gates, biases;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    Tile<rows, vectors> tile;
    const int panel = first + column / 16 * step, lane = column % 16;
    tile.add(a + row * a_row, a_row, 1, w + panel * k * 16 + lane, 16, step * k * 16, k);
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const int at = panel + v * W / 16 * step, in_panel = lane + v * W % 16;
      F b = zero();
      if (bias != nullptr) b = load(bias + (at / gates * biases + at % gates) * 16 + in_panel);
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        F sum = tile.sum[r * vectors + v];
        if (bias != nullptr) sum = sum + b;
        store(to + (row + r) * to_row + at * 16 + in_panel, sum);
      });
    });
  }
};

/// Calls body(unit, where the unit's first gate is) for each vector of units.
template <int gates, class Body>
HEED_INLINE void for_each_unit(int units, Body body) {
  for (int panel = 0; panel < units; panel += 16) {
    unroll<panel_vectors>([&](auto v) HEED_INLINE_LAMBDA { body(panel + v * W, panel * gates + v * W); });
  }
}

// One step of one batch element, from x = Wx + b and r = Rh, [units/16][gates][16]; state in h and c.

void lstm(int units, const float* x, const float* r, float* h, float* c) {
  for_each_unit<4>(units, [&](int unit, int gate) HEED_INLINE_LAMBDA {
    const auto argument = [&](int i) HEED_INLINE_LAMBDA { return load(x + gate + i * 16) + load(r + gate + i * 16); };
    const F in = sigmoid(argument(0)), forget = sigmoid(argument(1)), g = tanh(argument(2)), out = sigmoid(argument(3));
    const F cell = fma(forget, load(c + unit), in * g);
    store(c + unit, cell);
    store(h + unit, out * tanh(cell));
  });
}

HEED_INLINE F gru_state(F z, F n, F h) {
  return fma(z, h - n, n);
}

void gru_linear_before_reset(int units, const float* x, const float* r, const float* b, float* h) {
  for_each_unit<3>(units, [&](int unit, int gate) HEED_INLINE_LAMBDA {
    const F z = sigmoid(load(x + gate) + load(r + gate));
    const F reset = sigmoid(load(x + gate + 16) + load(r + gate + 16));
    const F bias = load(b + unit / 16 * 64 + 48 + unit % 16);
    const F n = tanh(fma(reset, load(r + gate + 32) + bias, load(x + gate + 32)));
    store(h + unit, gru_state(z, n, load(h + unit)));
  });
}

/// What R of the gate n is multiplied with.
void gru_reset(int units, const float* x, const float* r, const float* h, float* reset_h) {
  for_each_unit<3>(units, [&](int unit, int gate) HEED_INLINE_LAMBDA {
    store(reset_h + unit, sigmoid(load(x + gate + 16) + load(r + gate + 16)) * load(h + unit));
  });
}

void gru(int units, const float* x, const float* r, float* h) {
  for_each_unit<3>(units, [&](int unit, int gate) HEED_INLINE_LAMBDA {
    const F z = sigmoid(load(x + gate) + load(r + gate));
    const F n = tanh(load(x + gate + 32) + load(r + gate + 32));
    store(h + unit, gru_state(z, n, load(h + unit)));
  });
}

void rnn(int units, const float* x, const float* r, float* h) {
  for_each_unit<1>(
      units, [&](int unit, int gate) HEED_INLINE_LAMBDA { store(h + unit, tanh(load(x + gate) + load(r + gate))); });
}

void copy(int count, const float* from, float* to) {
  int i = 0;
  for (; i + W <= count; i += W) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
}

/// The layer's sizes and the products of a step, for all batch elements at once.
class Layer {
 public:
  explicit Layer(const RecurrentArgs& args)
      : args_(args),
        hidden_(args.params.hidden),
        units_((hidden_ + 15) / 16 * 16),
        gates_(gates_of(args.params.cell)),
        biases_(args.params.cell == Cell::gru && args.params.linear_before_reset ? 4 : gates_) {}

  void run() {
    start(args_.h0, args_.h0_batch, args_.h0_unit, args_.h_now);
    if (args_.params.cell == Cell::lstm) start(args_.c0, args_.c0_batch, args_.c0_unit, args_.c_now);
    const ptrdiff_t width = ptrdiff_t{units_} * gates_;
    for (int first = 0; first < args_.steps; first += args_.params.chunk) {
      const int left = args_.steps - first, steps = left < args_.params.chunk ? left : args_.params.chunk;
      multiply_input(first, steps, width);
      for (int s = 0; s < steps; ++s) step(first + s, args_.product + s * args_.batch * width, width);
    }
    finish(args_.h_now, args_.h, args_.h_batch);
    if (args_.params.cell == Cell::lstm) finish(args_.c_now, args_.c, args_.c_batch);
  }

 private:
  int time(int step) const { return args_.reverse ? args_.steps - 1 - step : step; }

  void start(const float* from, int64_t from_batch, int64_t from_unit, float* state) const {
    const bool packed = from != nullptr && from_unit == 1;
    for (int b = 0; b < args_.batch; ++b) {
      float* to = state + ptrdiff_t{b} * units_;
      for (int i = 0; i < units_; i += W) {
        store(to + i, packed ? load_first(from + b * from_batch + i, hidden_ - i) : zero());
      }
      if (packed || from == nullptr) continue;
      for (int i = 0; i < hidden_; ++i) to[i] = from[b * from_batch + i * from_unit];
    }
  }
  void finish(const float* state, float* to, int64_t to_batch) const {
    if (to == nullptr) return;
    for (int b = 0; b < args_.batch; ++b) copy(hidden_, state + ptrdiff_t{b} * units_, to + b * to_batch);
  }

  /// product = Wx + b for steps [first, first + steps).
  void multiply_input(int first, int steps, ptrdiff_t width) const {
    const int64_t x_step = args_.reverse ? -args_.x_step : args_.x_step;
    const float* x = args_.x + time(first) * args_.x_step;
    Product product{x,
                    static_cast<ptrdiff_t>(args_.x_batch),
                    args_.inputs,
                    args_.w,
                    args_.b,
                    args_.product,
                    width,
                    0,
                    1,
                    gates_,
                    biases_};
    const int columns = static_cast<int>(width);
    if (args_.batch == 1 || x_step == args_.batch * args_.x_batch) {  // rows of all steps at one stride
      if (args_.batch == 1) product.a_row = static_cast<ptrdiff_t>(x_step);
      Tiling<Product>::run(product, 0, steps * args_.batch, 0, columns);
      return;
    }
    for (int s = 0; s < steps; ++s, product.a += x_step, product.to += args_.batch * width) {
      Tiling<Product>::run(product, 0, args_.batch, 0, columns);
    }
  }

  /// sums = R h for the gates first, first + each, first + 2 * each, ... of every panel of units.
  void multiply_state(int step, const float* h, int first, int each) const {
    const ptrdiff_t width = ptrdiff_t{units_} * gates_;
    const Product product{h, units_, hidden_, args_.r, nullptr, args_.sums, width, first, each, gates_, biases_};
    // To and fro, so that what the first cache level holds of R is used twice.
    constexpr int piece = tile_vectors(1) * W;
    const int columns = units_ * gates_ / each, pieces = (columns + piece - 1) / piece;
    for (int i = 0; i < pieces; ++i) {
      const int column = (step % 2 == 0 ? i : pieces - 1 - i) * piece;
      const int end = columns - column < piece ? columns : column + piece;
      Tiling<Product>::run(product, 0, args_.batch, column, end);
    }
  }

  void step(int step, const float* x, ptrdiff_t width) const {
    const bool reset_first = args_.params.cell == Cell::gru && !args_.params.linear_before_reset;
    const auto for_each_element = [&](auto body) HEED_INLINE_LAMBDA {
      for (int b = 0; b < args_.batch; ++b) {
        const ptrdiff_t state = ptrdiff_t{b} * units_;
        body(x + b * width, args_.sums + b * width, args_.h_now + state, args_.c_now + state);
      }
    };
    if (reset_first) {
      for (int gate = 0; gate < 2; ++gate) multiply_state(step, args_.h_now, gate, gates_);
      for_each_element([&](const float* x, const float* r, float* h, float* c) { gru_reset(units_, x, r, h, c); });
      multiply_state(step, args_.c_now, 2, gates_);
    } else {
      multiply_state(step, args_.h_now, 0, 1);
    }
    for_each_element([&](const float* x, const float* r, float* h, float* c) {
      switch (args_.params.cell) {
        case Cell::lstm:
          return lstm(units_, x, r, h, c);
        case Cell::gru:
          return reset_first ? gru(units_, x, r, h) : gru_linear_before_reset(units_, x, r, args_.b, h);
        case Cell::rnn:
          return rnn(units_, x, r, h);
      }
    });
    if (args_.y != nullptr) finish(args_.h_now, args_.y + time(step) * args_.y_step, args_.y_batch);
  }

  const RecurrentArgs& args_;
  int hidden_, units_, gates_, biases_;
};

}  // namespace

void recurrent(const RecurrentArgs& args) {
  Layer(args).run();
}

}  // namespace heed::HEED_ISA

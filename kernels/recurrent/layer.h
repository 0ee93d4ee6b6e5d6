#pragma once
/// What the layers of every element type do around their products, for <op>.cpp and <op>.simd.cpp files: after
/// kernels/simd.h or kernels/scalar.h.
#include <cstddef>

#include "kernels/recurrent/recurrent.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// Calls body(unit, where the unit's first gate is) for each vector of units.
template <int gates, class Body>
HEED_INLINE void for_each_unit(int units, Body body) {
  for (int panel = 0; panel < units; panel += 16) {
    unroll<16 / W>([&](auto v) HEED_INLINE_LAMBDA { body(panel + v * W, panel * gates + v * W); });
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

/// b: the bias of R h, [units/16][4][16] of which the last is meant, or null where r has it already.
void gru_linear_before_reset(int units, const float* x, const float* r, const float* b, float* h) {
  for_each_unit<3>(units, [&](int unit, int gate) HEED_INLINE_LAMBDA {
    const F z = sigmoid(load(x + gate) + load(r + gate));
    const F reset = sigmoid(load(x + gate + 16) + load(r + gate + 16));
    F of_state = load(r + gate + 32);
    if (b != nullptr) of_state = of_state + load(b + unit / 16 * 64 + 48 + unit % 16);
    const F n = tanh(fma(reset, of_state, load(x + gate + 32)));
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

/// One direction of a layer, all batch elements at once. `Products` has
///   input(first, steps)         args.product = W x + b for the steps [first, first + steps)
///   state(step, h, first, each) args.sums = R h for the gates first, first + each, ... of every panel of units
template <class Products>
class Layer {
 public:
  /// `bias`: see gru_linear_before_reset.
  Layer(const RecurrentLayer& args, const Products& products, const float* bias)
      : args_(args),
        products_(products),
        bias_(bias),
        hidden_(args.params.hidden),
        units_(units_of(args.params)),
        gates_(gates_of(args.params.cell)) {}

  void run() {
    start(args_.h0, args_.h0_batch, args_.h0_unit, args_.h_now);
    if (args_.params.cell == Cell::lstm) start(args_.c0, args_.c0_batch, args_.c0_unit, args_.c_now);
    const ptrdiff_t width = ptrdiff_t{units_} * gates_;
    for (int first = 0; first < args_.steps; first += args_.params.chunk) {
      const int left = args_.steps - first, steps = left < args_.params.chunk ? left : args_.params.chunk;
      products_.input(first, steps);
      for (int s = 0; s < steps; ++s) step(first + s, args_.product + s * args_.batch * width, width);
    }
    finish(args_.h_now, args_.h, args_.h_batch);
    if (args_.params.cell == Cell::lstm) finish(args_.c_now, args_.c, args_.c_batch);
  }

 private:
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

  void step(int step, const float* x, ptrdiff_t width) const {
    const bool reset_first = args_.params.cell == Cell::gru && !args_.params.linear_before_reset;
    const auto for_each_element = [&](auto body) HEED_INLINE_LAMBDA {
      for (int b = 0; b < args_.batch; ++b) {
        const ptrdiff_t state = ptrdiff_t{b} * units_;
        body(x + b * width, args_.sums + b * width, args_.h_now + state, args_.c_now + state);
      }
    };
    if (reset_first) {
      for (int gate = 0; gate < 2; ++gate) products_.state(step, args_.h_now, gate, gates_);
      for_each_element([&](const float* x, const float* r, float* h, float* c) { gru_reset(units_, x, r, h, c); });
      products_.state(step, args_.c_now, 2, gates_);
    } else {
      products_.state(step, args_.h_now, 0, 1);
    }
    for_each_element([&](const float* x, const float* r, float* h, float* c) {
      switch (args_.params.cell) {
        case Cell::lstm:
          return lstm(units_, x, r, h, c);
        case Cell::gru:
          return reset_first ? gru(units_, x, r, h) : gru_linear_before_reset(units_, x, r, bias_, h);
        case Cell::rnn:
          return rnn(units_, x, r, h);
      }
    });
    if (args_.y != nullptr) finish(args_.h_now, args_.y + args_.time(step) * args_.y_step, args_.y_batch);
  }

  const RecurrentLayer& args_;
  const Products& products_;
  const float* bias_;
  int hidden_, units_, gates_;
};

}  // namespace
}  // namespace heed::HEED_ISA

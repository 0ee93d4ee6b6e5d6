#include "kernels/recurrent/recurrent.h"

#include "kernels/recurrent/run.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {
namespace {

/// Column (gate, unit) of a . w, a chain from +0.
float product(const float* a, int k, const float* w, int gates, int gate, int unit) {
  const int64_t column = (int64_t{unit / 16} * gates + gate) * k * 16 + unit % 16;
  float sum = 0.0f;
  for (int i = 0; i < k; ++i) sum = fma(a[i], w[column + i * 16], sum);
  return sum;
}

void step(const RecurrentArgs& args, const float* x, float* h, float* c, float* next) {
  const int hidden = args.params.hidden, gates = gates_of(args.params.cell);
  const bool before = args.params.linear_before_reset;
  const int biases = args.params.cell == Cell::gru && before ? 4 : gates;
  const auto bias = [&](int gate, int u) { return args.b[(u / 16 * biases + gate) * 16 + u % 16]; };
  const auto wx = [&](int gate, int u) { return product(x, args.inputs, args.w, gates, gate, u) + bias(gate, u); };
  const auto rh = [&](int gate, int u, const float* h) { return product(h, hidden, args.r, gates, gate, u); };
  const auto sum = [&](int gate, int u) { return wx(gate, u) + rh(gate, u, h); };

  if (args.params.cell == Cell::gru && !before) {
    for (int u = 0; u < hidden; ++u) c[u] = sigmoid(sum(1, u)) * h[u];
  }
  for (int u = 0; u < hidden; ++u) {
    if (args.params.cell == Cell::lstm) {
      const float in = sigmoid(sum(0, u)), forget = sigmoid(sum(1, u)), g = tanh(sum(2, u)), out = sigmoid(sum(3, u));
      c[u] = fma(forget, c[u], in * g);
      next[u] = out * tanh(c[u]);
    } else if (args.params.cell == Cell::gru) {
      const float z = sigmoid(sum(0, u));
      const float n =
          before ? tanh(fma(sigmoid(sum(1, u)), rh(2, u, h) + bias(3, u), wx(2, u))) : tanh(wx(2, u) + rh(2, u, c));
      next[u] = fma(z, h[u] - n, n);
    } else {
      next[u] = tanh(sum(0, u));
    }
  }
  for (int u = 0; u < hidden; ++u) h[u] = next[u];
}

}  // namespace

void recurrent(const RecurrentArgs& args) {
  const int hidden = args.params.hidden;
  float *h = args.h_now, *c = args.c_now, *next = args.sums;
  for (int b = 0; b < args.batch; ++b) {
    for (int u = 0; u < hidden; ++u) h[u] = args.h0 == nullptr ? 0.0f : args.h0[b * args.h0_batch + u * args.h0_unit];
    if (args.params.cell == Cell::lstm) {
      for (int u = 0; u < hidden; ++u) c[u] = args.c0 == nullptr ? 0.0f : args.c0[b * args.c0_batch + u * args.c0_unit];
    }
    for (int s = 0; s < args.steps; ++s) {
      const int t = args.reverse ? args.steps - 1 - s : s;
      step(args, args.x + t * args.x_step + b * args.x_batch, h, c, next);
      if (args.y == nullptr) continue;
      for (int u = 0; u < hidden; ++u) args.y[t * args.y_step + b * args.y_batch + u] = h[u];
    }
    for (int u = 0; u < hidden; ++u) {
      if (args.h != nullptr) args.h[b * args.h_batch + u] = h[u];
      if (args.c != nullptr) args.c[b * args.c_batch + u] = c[u];
    }
  }
}

}  // namespace portable

namespace {

enum Input { x_input, w_input, r_input, b_input, h_input };

Violation check(const Contract& contract) {
  const RecurrentParams& params = recurrent_params(contract.params);
  Check check(contract);
  check_layer(check, contract, Type::f32, h_input);
  if (!check.operand(w_input, 5) || !check.operand(r_input, 5) || !check.operand(b_input, 4)) return check.violation();
  for (int i : {w_input, r_input, b_input})
    check_panels(check, contract, i, i == b_input ? biases_of(params) : gates_of(params.cell));
  check.dim(w_input, 3, contract.input(x_input)->dims[2], "x and w differ in channels");
  check.dim(r_input, 3, params.hidden, "r has not the hidden units of the layer");
  return check.violation();
}

uint64_t scratch(const Contract& contract) {
  return (sizeof(float) * parts_of(recurrent_params(contract.params), contract.input(x_input)->dims[1]).total).value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const Tensor x = call.input(x_input);
  run_layer(call, h_input, recurrent_variants[call.isa],
            [&](RecurrentArgs& args, int direction, int32_t first, std::byte*) {
              args.x = x.as<float>() + first * args.x_batch;
              args.w = of_direction<float>(call, w_input, direction);
              args.r = of_direction<float>(call, r_input, direction);
              args.b = of_direction<float>(call, b_input, direction);
            });
}

Isa variant(Isa ceiling) {
  return recurrent_variants.level(ceiling);
}

}  // namespace

const Operator recurrent_operator = {"recurrent", check, scratch, in_place, run, variant};

}  // namespace heed

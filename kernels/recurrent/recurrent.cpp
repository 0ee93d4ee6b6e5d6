#include "kernels/recurrent/recurrent.h"

#include "kernels/contract.h"
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

enum Input { x_input, w_input, r_input, b_input, h_input, c_input, input_count };
enum Output { y_output = output_operand, h_output, c_output };

const RecurrentParams& params_of(const void* params) {
  return *static_cast<const RecurrentParams*>(params);
}

int directions_of(Direction direction) {
  return direction == Direction::both ? 2 : 1;
}
int biases_of(const RecurrentParams& params) {
  return params.cell == Cell::gru && params.linear_before_reset ? 4 : gates_of(params.cell);
}

Violation check(const Contract& contract) {
  const RecurrentParams& params = params_of(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 0, input_count, contract.input_count - 1, "too many inputs");
  check.in_range(contract.output_count, 0, 3, output_operand + contract.output_count - 1, "too many outputs");
  check.holds(params.cell <= Cell::rnn, "unknown cell", x_input, static_cast<int>(params.cell),
              static_cast<int>(Cell::rnn));
  check.holds(params.direction <= Direction::both, "unknown direction", x_input, static_cast<int>(params.direction),
              static_cast<int>(Direction::both));
  check.in_range(params.linear_before_reset, 0, 1, x_input, "linear_before_reset is neither 0 nor 1");
  check.holds(params.hidden >= 1, "no hidden units", x_input, params.hidden, 1);
  check.in_range(params.hidden, 0, 1 << 24, x_input, "too many hidden units");
  check.holds(params.chunk >= 1, "a chunk has no steps", x_input, params.chunk, 1);
  check.in_range(params.chunk, 0, 1 << 24, x_input, "a chunk has too many steps");
  if (!check.operand(x_input, 3) || !check.operand(w_input, 5) || !check.operand(r_input, 5) ||
      !check.operand(b_input, 4) || !check.optional(h_input, 3) || !check.optional(c_input, 3) ||
      !check.optional(y_output, 4) || !check.optional(h_output, 3) || !check.optional(c_output, 3)) {
    return check.violation();
  }

  const Shape& x = *contract.input(x_input);
  const int directions = directions_of(params.direction), gates = gates_of(params.cell), hidden = params.hidden;
  const int panels = (hidden + 15) / 16;
  for (int i : {w_input, r_input, b_input}) {
    check.dim(i, 0, directions, "weights have not the directions of the layer");
    check.dim(i, 1, panels, "weights have not the panels for the hidden units");
    check.dim(i, 2, i == b_input ? biases_of(params) : gates, "weights have not the gates of the cell");
    check.dim(i, -1, 16, "a panel is not 16 wide");
    check.holds(is_dense(*contract.input(i)), "panels have gaps", i, 0, 1);
  }
  check.dim(w_input, 3, x.dims[2], "x and w differ in channels");
  check.dim(r_input, 3, hidden, "r has not the hidden units of the layer");
  check.last_stride(x_input);
  for (int i : {int{h_input}, int{c_input}, int{h_output}, int{c_output}}) {
    check.dim(i, 0, directions, "a state has not the directions of the layer");
    check.dim(i, 1, x.dims[1], "x and a state differ in batch");
    check.dim(i, 2, hidden, "a state has not the hidden units of the layer");
    if (i >= output_operand) check.last_stride(i);
  }
  check.dim(y_output, 0, x.dims[0], "x and y differ in length");
  check.dim(y_output, 1, directions, "y has not the directions of the layer");
  check.dim(y_output, 2, x.dims[1], "x and y differ in batch");
  check.dim(y_output, 3, hidden, "y has not the hidden units of the layer");
  check.last_stride(y_output);
  if (params.cell != Cell::lstm) {
    check.holds(contract.input(c_input) == nullptr, "only an LSTM has c", c_input, 1, 0);
    check.holds(contract.output(c_output - output_operand) == nullptr, "only an LSTM has c", c_output, 1, 0);
  }
  return check.violation();
}

/// The parts of the scratch, in floats from its begin.
struct Parts {
  Size sums, h, c, total;
};
Parts parts_of(const RecurrentParams& params, int32_t batch) {
  const Size state = Size((params.hidden + 15) / 16 * 16) * batch;
  const Size gates = gates_of(params.cell) * state;
  const bool has_c = params.cell == Cell::lstm || (params.cell == Cell::gru && !params.linear_before_reset);
  const Size sums = params.chunk * gates, h = sums + gates, c = h + state;
  return {sums, h, c, has_c ? c + state : c};
}

uint64_t scratch(const Contract& contract) {
  return (sizeof(float) * parts_of(params_of(contract.params), contract.input(x_input)->dims[1]).total).value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const RecurrentParams& params = params_of(call.params);
  const Tensor x = call.input(x_input), w = call.input(w_input), r = call.input(r_input), b = call.input(b_input);
  const Tensor h0 = call.input(h_input), c0 = call.input(c_input);
  const Tensor y = call.output(0), h = call.output(1), c = call.output(2);
  const int32_t batch = x.shape->dims[1];
  if (batch == 0) return;
  const Parts at = parts_of(params, batch);

  RecurrentArgs common{};
  common.steps = x.shape->dims[0];
  common.inputs = x.shape->dims[2];
  common.x_step = x.shape->strides[0];
  common.x_batch = x.shape->strides[1];
  common.y_step = y ? y.shape->strides[0] : 0;
  common.y_batch = y ? y.shape->strides[2] : 0;
  common.h0_batch = h0 ? h0.shape->strides[1] : 0;
  common.h0_unit = h0 ? h0.shape->strides[2] : 0;
  common.c0_batch = c0 ? c0.shape->strides[1] : 0;
  common.c0_unit = c0 ? c0.shape->strides[2] : 0;
  common.h_batch = h ? h.shape->strides[1] : 0;
  common.c_batch = c ? c.shape->strides[1] : 0;
  common.params = params;

  // Tasks are directions, and parts of the batch where that gives too few; not where there is too little work: waking a
  // thread costs about as much as `least` multiply-accumulates.
  const auto kernel = recurrent_variants[call.isa];
  const int32_t directions = directions_of(params.direction);
  constexpr int64_t least = 1 << 16;
  const int64_t macs = int64_t{common.steps} * batch * directions * params.hidden * gates_of(params.cell) *
                       (int64_t{common.inputs} + params.hidden);
  const int64_t threads = call.parallel == nullptr ? 1 : call.parallel->threads;
  const bool split = threads > 1 && macs >= 2 * least;
  const int64_t wanted = split ? (threads + directions - 1) / directions : 1;
  const int32_t each = static_cast<int32_t>((batch + wanted - 1) / wanted), parts = (batch + each - 1) / each;
  const auto task = [&](uint32_t index, std::byte* scratch) {
    const int32_t direction = static_cast<int32_t>(index) / parts, first = static_cast<int32_t>(index) % parts * each;
    // The address of this direction's and these batch elements' part.
    const auto part = [&](const Tensor& tensor, int direction_axis, int batch_axis) -> float* {
      if (!tensor) return nullptr;
      const int32_t* strides = tensor.shape->strides;
      return tensor.as<float>() + int64_t{direction} * strides[direction_axis] + int64_t{first} * strides[batch_axis];
    };
    const auto weights = [&](const Tensor& tensor) {
      return tensor.as<float>() + element_count(*tensor.shape) / directions * direction;
    };
    RecurrentArgs args = common;
    args.batch = batch - first < each ? batch - first : each;
    args.x = x.as<float>() + first * common.x_batch;
    args.w = weights(w);
    args.r = weights(r);
    args.b = weights(b);
    args.h0 = part(h0, 0, 1);
    args.c0 = part(c0, 0, 1);
    args.y = part(y, 1, 2);
    args.h = part(h, 0, 1);
    args.c = part(c, 0, 1);
    args.reverse = params.direction == Direction::reverse || direction == 1;
    auto* floats = reinterpret_cast<float*>(scratch);
    args.product = floats;
    args.sums = floats + at.sums.value;
    args.h_now = floats + at.h.value;
    args.c_now = floats + at.c.value;
    kernel(args);
  };
  const uint32_t tasks = static_cast<uint32_t>(directions * parts);
  if (split) {
    call.for_each(tasks, task);
  } else {
    for (uint32_t index = 0; index < tasks; ++index) task(index, call.scratch);
  }
}

Isa variant(Isa ceiling) {
  return recurrent_variants.level(ceiling);
}

}  // namespace

const Operator recurrent_operator = {"recurrent", check, scratch, in_place, run, variant};

}  // namespace heed

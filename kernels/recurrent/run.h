#pragma once
/// What the recurrent layers of every element type share: the contract, and the walk over directions and batch.
#include "kernels/contract.h"
#include "kernels/recurrent/recurrent.h"

namespace heed {
namespace {

enum RecurrentOutput { y_output = output_operand, h_output, c_output };

inline const RecurrentParams& recurrent_params(const void* params) {
  return *static_cast<const RecurrentParams*>(params);
}

inline int directions_of(Direction direction) {
  return direction == Direction::both ? 2 : 1;
}
inline int biases_of(const RecurrentParams& params) {
  return params.cell == Cell::gru && params.linear_before_reset ? 4 : gates_of(params.cell);
}

/// The parameters, x (operand 0, of `type`), the first states (operands h_input and the one after it) and the outputs.
inline void check_layer(Check& check, const Contract& contract, Type type, int h_input) {
  const RecurrentParams& params = recurrent_params(contract.params);
  const int c_input = h_input + 1;
  check.in_range(contract.input_count, 0, c_input + 1, contract.input_count - 1, "too many inputs");
  check.in_range(contract.output_count, 0, 3, output_operand + contract.output_count - 1, "too many outputs");
  check.holds(params.cell <= Cell::rnn, "unknown cell", 0, static_cast<int>(params.cell), static_cast<int>(Cell::rnn));
  check.holds(params.direction <= Direction::both, "unknown direction", 0, static_cast<int>(params.direction),
              static_cast<int>(Direction::both));
  check.in_range(params.linear_before_reset, 0, 1, 0, "linear_before_reset is neither 0 nor 1");
  check.holds(params.hidden >= 1, "no hidden units", 0, params.hidden, 1);
  check.in_range(params.hidden, 0, 1 << 24, 0, "too many hidden units");
  check.holds(params.chunk >= 1, "a chunk has no steps", 0, params.chunk, 1);
  check.in_range(params.chunk, 0, 1 << 24, 0, "a chunk has too many steps");
  if (!check.operand(0, 3, type) || !check.optional(h_input, 3) || !check.optional(c_input, 3) ||
      !check.optional(y_output, 4) || !check.optional(h_output, 3) || !check.optional(c_output, 3)) {
    return;
  }
  const Shape& x = *contract.input(0);
  const int directions = directions_of(params.direction);
  check.last_stride(0);
  for (const int i : {h_input, c_input, int{h_output}, int{c_output}}) {
    check.dim(i, 0, directions, "a state has not the directions of the layer");
    check.dim(i, 1, x.dims[1], "x and a state differ in batch");
    check.dim(i, 2, params.hidden, "a state has not the hidden units of the layer");
    if (i >= output_operand) check.last_stride(i);
  }
  check.dim(y_output, 0, x.dims[0], "x and y differ in length");
  check.dim(y_output, 1, directions, "y has not the directions of the layer");
  check.dim(y_output, 2, x.dims[1], "x and y differ in batch");
  check.dim(y_output, 3, params.hidden, "y has not the hidden units of the layer");
  check.last_stride(y_output);
  if (params.cell != Cell::lstm) {
    check.holds(contract.input(c_input) == nullptr, "only an LSTM has c", c_input, 1, 0);
    check.holds(contract.output(c_output - output_operand) == nullptr, "only an LSTM has c", c_output, 1, 0);
  }
}

/// Operand i, of whatever rank it has to be: dense panels [directions][U/16][gates]..
inline void check_panels(Check& check, const Contract& contract, int i, int gates) {
  const RecurrentParams& params = recurrent_params(contract.params);
  check.dim(i, 0, directions_of(params.direction), "weights have not the directions of the layer");
  check.dim(i, 1, units_of(params) / 16, "weights have not the panels for the hidden units");
  check.dim(i, 2, gates, "weights have not the gates of the cell");
  check.dim(i, contract.input(i)->type == Type::i8 ? -2 : -1, 16, "a panel is not 16 wide");
  check.holds(is_dense(*contract.input(i)), "panels have gaps", i, 0, 1);
}

/// The parts of the scratch, in floats from its begin.
struct Parts {
  Size sums, h, c, total;
};
inline Parts parts_of(const RecurrentParams& params, int32_t batch) {
  const Size state = Size(units_of(params)) * batch;
  const Size gates = gates_of(params.cell) * state;
  const bool has_c = params.cell == Cell::lstm || (params.cell == Cell::gru && !params.linear_before_reset);
  const Size sums = params.chunk * gates, h = sums + gates, c = h + state;
  return {sums, h, c, has_c ? c + state : c};
}

/// The part of a dense operand that is of one direction.
template <class T>
const T* of_direction(const Invocation& call, int operand, int direction) {
  const Tensor tensor = call.input(operand);
  if (!tensor) return nullptr;
  return tensor.as<T>() + element_count(*tensor.shape) / tensor.shape->dims[0] * direction;
}

/// Calls the kernel for directions and parts of the batch. place(args, direction, first element of the batch, what
/// follows the parts of the scratch) sets what `Args` adds to a RecurrentLayer.
template <class Args, class Place>
void run_layer(const Invocation& call, int h_input, void (*kernel)(const Args&), Place place) {
  const RecurrentParams& params = recurrent_params(call.params);
  const Tensor x = call.input(0), h0 = call.input(h_input), c0 = call.input(h_input + 1);
  const Tensor y = call.output(0), h = call.output(1), c = call.output(2);
  const int32_t batch = x.shape->dims[1];
  if (batch == 0) return;
  const Parts at = parts_of(params, batch);

  Args common{};
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
    Args args = common;
    args.batch = batch - first < each ? batch - first : each;
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
    place(args, direction, first, reinterpret_cast<std::byte*>(floats + at.total.value));
    kernel(args);
  };
  const uint32_t tasks = static_cast<uint32_t>(directions * parts);
  call.for_each(tasks, task, split);
}

}  // namespace
}  // namespace heed

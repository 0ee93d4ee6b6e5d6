#include "kernels/normalize/normalize.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/quantize/group.h"

namespace heed {
namespace portable {

void normalize(const NormalizeArgs& args) {
  const float one_nth = 1.0f / static_cast<float>(args.n);
  for (int row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_row;
    float* y = args.y != nullptr ? args.y + row * args.y_row : args.scratch;
    float mean = 0.0f;
    if (args.params.kind == Normalization::layer) {
      Lanes16 sums = Lanes16::zero();
      for (int i = 0; i < args.n; ++i) sums.v[i % 16] += x[i];
      mean = sums.fold_sum() * one_nth;
    }
    Lanes16 squares = Lanes16::zero();
    for (int i = 0; i < args.n; ++i) squares.v[i % 16] = fma(x[i] - mean, x[i] - mean, squares.v[i % 16]);
    const float rstd = 1.0f / sqrt(squares.fold_sum() * one_nth + args.params.epsilon);
    for (int i = 0; i < args.n; ++i) {
      const float z = (x[i] - mean) * rstd;
      if (args.scale != nullptr && args.bias != nullptr)
        y[i] = fma(z, args.scale[i], args.bias[i]);
      else if (args.scale != nullptr)
        y[i] = z * args.scale[i];
      else if (args.bias != nullptr)
        y[i] = z + args.bias[i];
      else
        y[i] = z;
    }
    if (args.to.q != nullptr) quantize_rows(y, 0, 1, args.n, args.to.from(row));
  }
}

}  // namespace portable

namespace {

enum Output { y_output, q_output, q_scale_output, q_zero_output, output_count };

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const NormalizeParams*>(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 1, 3, 0, "normalize has one to three inputs");
  check.in_range(contract.output_count, 1, output_count, output_operand, "normalize has one to four outputs");
  check.holds(params.kind <= Normalization::rms, "unknown kind of normalization", output_operand,
              static_cast<int>(params.kind), static_cast<int>(Normalization::rms));
  if (!check.operand(0, -1)) return check.violation();
  const Shape& x = *contract.input(0);
  if (!check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1)) return check.violation();
  const Shape *y = contract.output(y_output), *q = contract.output(q_output);
  check.holds(y != nullptr || q != nullptr, "an operand is missing", output_operand, 0, 1);
  if (check.optional(output_operand, x.rank) && y != nullptr) check.dims_of(output_operand, x);
  check.quantized(output_operand + q_output, x);
  for (const int i : {1, 2}) {
    if (check.optional(i, 1)) check.dim(i, 0, x.dims[x.rank - 1], "scale and bias have the length of the last axis");
    check.last_stride(i);
  }
  check.last_stride(0);
  check.last_stride(output_operand);
  return check.violation();
}

uint64_t scratch(const Contract& contract) {
  const Shape& x = *contract.input(0);
  return contract.output(y_output) == nullptr ? (Size(most_normalized_rows * sizeof(float)) * x.dims[x.rank - 1]).value
                                              : 0;
}

bool in_place(const Contract&, int input, int output) {
  return input == 0 && output == y_output;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), scale = call.input(1), bias = call.input(2), y = call.output(y_output),
               q = call.output(q_output), q_scale = call.output(q_scale_output), q_zero = call.output(q_zero_output);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  if (n == 0) return;
  // An absent operand steps like none.
  enum { x_step, y_step, q_step, q_scale_step, q_zero_step, steps };
  const Tensor operands[steps] = {x, y, q, q_scale, q_zero};
  Axes<steps> rows;
  for (int axis = 0; axis < last; ++axis) {
    int64_t strides[steps];
    for (int i = 0; i < steps; ++i) strides[i] = operands[i] ? operands[i].shape->strides[axis] : 0;
    rows.push(x.shape->dims[axis], strides);
  }
  NormalizeArgs whole{};
  whole.scale = scale ? scale.as<float>() : nullptr;
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.n = n;
  whole.x_row = rows.step(x_step);
  whole.y_row = rows.step(y_step);
  whole.params = *static_cast<const NormalizeParams*>(call.params);
  const auto kernel = normalize_variants[call.isa];
  split(call, rows.count(), 1 + task_elements / n, [&](int64_t first, int64_t end, std::byte* scratch) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[steps], int64_t length) {
      NormalizeArgs args = whole;
      args.x = x.as<float>() + offsets[x_step];
      args.y = y ? y.as<float>() + offsets[y_step] : nullptr;
      args.scratch = reinterpret_cast<float*>(scratch);
      if (q)
        args.to = {q.as<int8_t>() + offsets[q_step],
                   q_scale.as<float>() + offsets[q_scale_step],
                   q_zero ? q_zero.as<int32_t>() + offsets[q_zero_step] : nullptr,
                   rows.step(q_step),
                   rows.step(q_scale_step),
                   rows.step(q_zero_step),
                   q_scale.shape->dims[last]};
      args.rows = static_cast<int32_t>(length);
      kernel(args);
    });
  });
}

Isa variant(Isa ceiling) {
  return normalize_variants.level(ceiling);
}

}  // namespace

constinit const Operator normalize_operator{"normalize", check, scratch, in_place, run, variant};

}  // namespace heed

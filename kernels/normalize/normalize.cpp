#include "kernels/normalize/normalize.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

namespace heed {
namespace portable {

void normalize(const NormalizeArgs& args) {
  const float one_nth = 1.0f / static_cast<float>(args.n);
  for (int row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_row;
    float* y = args.y + row * args.y_row;
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
  }
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const NormalizeParams*>(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 1, 3, 0, "normalize has one to three inputs");
  check.holds(contract.output_count == 1, "normalize has one output", output_operand, contract.output_count, 1);
  check.holds(params.kind <= Normalization::rms, "unknown kind of normalization", output_operand,
              static_cast<int>(params.kind), static_cast<int>(Normalization::rms));
  if (!check.operand(0, -1)) return check.violation();
  const Shape& x = *contract.input(0);
  if (!check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1)) return check.violation();
  check.same_dims(output_operand, 0);
  for (const int i : {1, 2}) {
    if (check.optional(i, 1)) check.dim(i, 0, x.dims[x.rank - 1], "scale and bias have the length of the last axis");
    check.last_stride(i);
  }
  check.last_stride(0);
  check.last_stride(output_operand);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int input, int) {
  return input == 0;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), scale = call.input(1), bias = call.input(2), y = call.output(0);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  if (n == 0) return;
  const Axes<2> rows = axes_of({x.shape, y.shape}, 0, last);
  const auto kernel = normalize_variants[call.isa];
  split(call, rows.count(), 1 + task_elements / n, [&](int64_t first, int64_t end, std::byte*) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[2], int64_t length) {
      NormalizeArgs args{};
      args.x = x.as<float>() + offsets[0];
      args.y = y.as<float>() + offsets[1];
      args.scale = scale ? scale.as<float>() : nullptr;
      args.bias = bias ? bias.as<float>() : nullptr;
      args.rows = static_cast<int32_t>(length);
      args.n = n;
      args.x_row = rows.step(0);
      args.y_row = rows.step(1);
      args.params = *static_cast<const NormalizeParams*>(call.params);
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

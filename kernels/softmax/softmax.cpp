#include "kernels/softmax/softmax.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {

void softmax(const SoftmaxArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_row;
    float* y = args.y + row * args.y_row;
    float top = -__builtin_inff();
    for (int i = 0; i < args.n; ++i) top = max_fast(top, x[i]);
    Lanes16 lanes = Lanes16::zero();
    for (int i = 0; i < args.n; ++i) lanes.v[i % 16] += exp_nonpositive(x[i] - top);
    const float sum = lanes.fold_sum(), log_sum = log(sum), scale = 1.0f / sum;
    for (int i = 0; i < args.n; ++i) y[i] = args.log ? (x[i] - top) - log_sum : exp_nonpositive(x[i] - top) * scale;
  }
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const SoftmaxParams*>(contract.params);
  Check check(contract);
  check.holds(contract.input_count == 1, "softmax has one input", 0, contract.input_count, 1);
  check.holds(contract.output_count == 1, "softmax has one output", output_operand, contract.output_count, 1);
  check.in_range(params.log, 0, 1, output_operand, "log is neither 0 nor 1");
  if (!check.operand(0, -1)) return check.violation();
  const Shape& x = *contract.input(0);
  check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1);
  check.same_dims(output_operand, 0);
  check.last_stride(0);
  check.last_stride(output_operand);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return true;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), y = call.output(0);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  if (n == 0) return;
  const Axes<2> rows = axes_of({x.shape, y.shape}, 0, last);
  const auto kernel = softmax_variants[call.isa];
  const bool log = static_cast<const SoftmaxParams*>(call.params)->log;
  split(call, rows.count(), 1 + task_elements / n, [&](int64_t first, int64_t end, std::byte*) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[2], int64_t length) {
      SoftmaxArgs args{};
      args.x = x.as<float>() + offsets[0];
      args.y = y.as<float>() + offsets[1];
      args.rows = static_cast<int32_t>(length);
      args.n = n;
      args.x_row = rows.step(0);
      args.y_row = rows.step(1);
      args.log = log;
      kernel(args);
    });
  });
}

Isa variant(Isa ceiling) {
  return softmax_variants.level(ceiling);
}

}  // namespace

constinit const Operator softmax_operator{"softmax", check, scratch, in_place, run, variant};

}  // namespace heed

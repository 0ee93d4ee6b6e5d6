#include "kernels/quantize/quantize.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/quantize/group.h"

namespace heed {
namespace portable {

void quantize(const QuantizeArgs& args) {
  for (int32_t row = 0; row < args.rows; ++row)
    quantize_groups(args.x + row * args.x_row, args.n, args.groups, args.q + row * args.q_row,
                    args.scale + row * args.scale_row);
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  Check check(contract);
  check.equal(contract.input_count, 1, 0, "quantize has one input");
  check.equal(contract.output_count, 2, output_operand, "quantize has two outputs");
  if (!check.operand(0, -1)) return check.violation();
  const Shape& x = *contract.input(0);
  if (!check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1)) return check.violation();
  if (!check.operand(output_operand, x.rank, Type::i8) || !check.dims_of(output_operand, x) ||
      !check.operand(output_operand + 1, x.rank)) {
    return check.violation();
  }
  const int last = x.rank - 1;
  const int32_t groups = contract.output(1)->dims[last];
  for (int axis = 0; axis < last; ++axis)
    check.dim(output_operand + 1, axis, x.dims[axis], "x and scale differ in a leading axis");
  check.holds(groups > 0 && x.dims[last] % groups == 0, "the columns are no multiple of the groups", output_operand + 1,
              x.dims[last], groups);
  for (const int operand : {0, output_operand, output_operand + 1}) check.last_stride(operand);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), q = call.output(0), scale = call.output(1);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  const Axes<3> rows = axes_of({x.shape, q.shape, scale.shape}, 0, last);
  const auto kernel = quantize_variants[call.isa];
  split(call, rows.count(), 1 + task_elements / (n + 1), [&](int64_t first, int64_t end, std::byte*) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[3], int64_t length) {
      kernel({x.as<float>() + offsets[0], q.as<int8_t>() + offsets[1], scale.as<float>() + offsets[2],
              static_cast<int32_t>(length), n, scale.shape->dims[last], rows.step(0), rows.step(1), rows.step(2)});
    });
  });
}

Isa variant(Isa ceiling) {
  return quantize_variants.level(ceiling);
}

}  // namespace

constinit const Operator quantize_operator{"quantize", check, scratch, in_place, run, variant};

}  // namespace heed

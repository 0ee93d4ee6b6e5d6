#include "kernels/quantize/quantize.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/quantize/group.h"

namespace heed {
namespace portable {

void quantize(const QuantizeArgs& args) {
  if (args.given == nullptr)
    return quantize_rows(args.x, args.x_row, args.rows, args.n, args.groups, args.q, args.q_row, args.scale,
                         args.scale_row);
  for (int row = 0; row < args.rows; ++row)
    quantize_given(args.x + row * args.x_row, args.n, args.given, args.q + row * args.q_row);
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  Check check(contract);
  check.in_range(contract.input_count, 1, 2, 0, "quantize has one input or two");
  check.equal(contract.output_count, contract.input(1) == nullptr ? 2 : 1, output_operand,
              "quantize has two outputs, or a scale that is given and one");
  if (!check.operand(0, -1) || !check.optional(1, 1)) return check.violation();
  check.dim(1, -1, 2, "a scale and a zero point are two numbers");
  check.last_stride(1);
  const Shape& x = *contract.input(0);
  if (!check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1)) return check.violation();
  if (!check.holds(contract.output(0) != nullptr, "an operand is missing", output_operand, 0, 1)) {
    return check.violation();
  }
  if (contract.input(1) == nullptr)
    check.quantized(output_operand, x);
  else if (check.operand(output_operand, x.rank, Type::i8) && check.dims_of(output_operand, x))
    check.last_stride(output_operand);
  check.last_stride(0);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), given = call.input(1), q = call.output(0), scale = call.output(1);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  // A scale that is given steps like q, and is not written.
  const Axes<3> rows = axes_of({x.shape, q.shape, scale ? scale.shape : q.shape}, 0, last);
  const auto kernel = quantize_variants[call.isa];
  split(call, rows.count(), 1 + task_elements / (n + 1), [&](int64_t first, int64_t end, std::byte*) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[3], int64_t length) {
      kernel({x.as<float>() + offsets[0], q.as<int8_t>() + offsets[1], scale ? scale.as<float>() + offsets[2] : nullptr,
              given ? given.as<float>() : nullptr, static_cast<int32_t>(length), n, scale ? scale.shape->dims[last] : 1,
              rows.step(0), rows.step(1), rows.step(2)});
    });
  });
}

Isa variant(Isa ceiling) {
  return quantize_variants.level(ceiling);
}

}  // namespace

constinit const Operator quantize_operator{"quantize", check, scratch, in_place, run, variant};

}  // namespace heed

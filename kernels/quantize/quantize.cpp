#include "kernels/quantize/quantize.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/quantize/group.h"

namespace heed {
namespace portable {

void quantize(const QuantizeArgs& args) {
  if (args.given == nullptr) return quantize_rows(args.x, args.x_row, args.rows, args.n, args.to);
  for (int row = 0; row < args.rows; ++row)
    quantize_given(args.x + row * args.x_row, args.n, args.given, args.to.q + row * args.to.q_row);
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  Check check(contract);
  check.in_range(contract.input_count, 1, 2, 0, "quantize has one input or two");
  const bool given = contract.input(1) != nullptr;
  check.in_range(contract.output_count, given ? 1 : 2, given ? 1 : 3, output_operand,
                 "quantize has two or three outputs, or a scale that is given and one");
  if (!check.operand(0, -1) || !check.optional(1, 1)) return check.violation();
  check.dim(1, -1, 2, "a scale and a zero point are two numbers");
  check.last_stride(1);
  const Shape& x = *contract.input(0);
  if (!check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1)) return check.violation();
  if (!check.holds(contract.output(0) != nullptr, "an operand is missing", output_operand, 0, 1)) {
    return check.violation();
  }
  if (!given)
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
  const Tensor x = call.input(0), given = call.input(1), q = call.output(0), scale = call.output(1),
               zero = call.output(2);
  const int last = x.shape->rank - 1;
  const int32_t n = x.shape->dims[last];
  // What is not written steps like q.
  const auto step_of = [&](const Tensor& tensor) { return tensor ? tensor.shape : q.shape; };
  const Axes<4> rows = axes_of({x.shape, q.shape, step_of(scale), step_of(zero)}, 0, last);
  const auto kernel = quantize_variants[call.isa];
  split(call, rows.count(), 1 + task_elements / (n + 1), [&](int64_t first, int64_t end, std::byte*) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[4], int64_t length) {
      const RowsI8 to{q.as<int8_t>() + offsets[1],
                      scale ? scale.as<float>() + offsets[2] : nullptr,
                      zero ? zero.as<int32_t>() + offsets[3] : nullptr,
                      rows.step(1),
                      rows.step(2),
                      rows.step(3),
                      scale ? scale.shape->dims[last] : 1};
      kernel({x.as<float>() + offsets[0], to, given ? given.as<float>() : nullptr, static_cast<int32_t>(length), n,
              rows.step(0)});
    });
  });
}

Isa variant(Isa ceiling) {
  return quantize_variants.level(ceiling);
}

}  // namespace

constinit const Operator quantize_operator{"quantize", check, scratch, in_place, run, variant};

}  // namespace heed

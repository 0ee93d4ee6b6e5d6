#include "kernels/gather/gather.h"

#include "kernels/contract.h"
#include "kernels/gather/rows.h"

namespace heed {
namespace portable {

void gather(const GatherArgs& args) {
  const auto copy = [](auto* y, const auto* x, int64_t step, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * step];
  };
  if (args.params.packed)
    gather_columns(args, copy);
  else if (size_of(args.table_shape->type) == 4)
    gather_rows<uint32_t>(args, copy);
  else
    gather_rows<uint8_t>(args, copy);
}

}  // namespace portable

namespace {

Violation check_packed(Check& check, const Contract& contract, const GatherParams& params) {
  if (!check.operand(0, 3)) return check.violation();
  const Shape &table = *contract.input(0), &index = *contract.input(1);
  check.equal(table.dims[2], 16, 0, "a panel of the table is not 16 wide");
  check.holds(is_dense(table), "the table has gaps", 0, 0, 1);
  check.holds(params.axis == 0, "the axis of a packed table is not 0", 0, params.axis, 0);
  check.holds(params.fill < 16 && table.dims[0] > 0, "the last panel has no entry", 0, params.fill, 15);
  if (!check.operand(output_operand, 1 + index.rank)) return check.violation();
  for (int axis = 0; axis < index.rank; ++axis)
    check.dim(output_operand, axis, index.dims[axis], "the index and y differ in an axis");
  check.dim(output_operand, index.rank, table.dims[1], "the table and y differ in an axis");
  check.holds(is_dense(*contract.output(0)), "y has gaps", output_operand, 0, 1);
  return check.violation();
}

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const GatherParams*>(contract.params);
  Check check(contract);
  check.holds(contract.input_count == 2, "gather has two inputs", 0, contract.input_count, 2);
  check.holds(contract.output_count == 1, "gather has one output", output_operand, contract.output_count, 1);
  if (!check.holds(contract.input(0) != nullptr, "an operand is missing", 0, 0, 1) ||
      !check.operand(1, -1, Type::i32)) {
    return check.violation();
  }
  check.in_range(params.packed, 0, 1, 0, "packed is neither 0 nor 1");
  if (params.packed != 0) return check_packed(check, contract, params);
  const Shape &table = *contract.input(0), &index = *contract.input(1);
  check.holds(params.axis < table.rank, "the table has not so many axes", 0, table.rank, params.axis + 1);
  if (!check.operand(output_operand, table.rank - 1 + index.rank, table.type)) return check.violation();
  const int outer = params.axis;
  for (int axis = 0; axis < table.rank; ++axis) {
    if (axis == outer) continue;
    check.dim(output_operand, axis < outer ? axis : axis - 1 + index.rank, table.dims[axis],
              "the table and y differ in an axis");
  }
  for (int axis = 0; axis < index.rank; ++axis)
    check.dim(output_operand, outer + axis, index.dims[axis], "the index and y differ in an axis");
  check.holds(table.dims[outer] > 0 || element_count(index) == 0, "the table is empty", 0, table.dims[outer], 1);
  check.holds(is_dense(*contract.output(0)), "y has gaps", output_operand, 0, 1);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const Tensor table = call.input(0), index = call.input(1), y = call.output(0);
  if (element_count(*y.shape) == 0) return;
  const auto& params = *static_cast<const GatherParams*>(call.params);
  gather_variants[call.isa]({table.shape, index.shape, table.data, index.as<int32_t>(), y.data, params});
}

Isa variant(Isa ceiling) {
  return gather_variants.level(ceiling);
}

}  // namespace

constinit const Operator gather_operator{"gather", check, scratch, in_place, run, variant};

}  // namespace heed

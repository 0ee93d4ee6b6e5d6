#include "kernels/gather/gather.h"

#include "kernels/contract.h"
#include "kernels/gather/rows.h"

namespace heed {
namespace portable {

void gather(const GatherArgs& args) {
  const auto copy = [](auto* y, const auto* x, int64_t step, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * step];
  };
  if (args.scale != nullptr)
    gather_scaled(args);
  else if (args.params.packed)
    gather_columns(args, copy);
  else if (size_of(args.table_shape->type) == 4)
    gather_rows<uint32_t>(args, copy);
  else
    gather_rows<uint8_t>(args, copy);
}

}  // namespace portable

namespace {

/// A table whose entries are the columns of panels, or rows of int8 with scales.
Violation check_entries(Check& check, const Contract& contract, const GatherParams& params) {
  const bool packed = params.packed != 0, scaled = contract.input(2) != nullptr;
  if (!check.operand(0, packed ? scaled ? 4 : 3 : 2, scaled ? Type::i8 : Type::f32) ||
      !check.optional(2, packed ? 2 : 1)) {
    return check.violation();
  }
  const Shape &table = *contract.input(0), &index = *contract.input(1);
  check.holds(is_dense(table), "the table has gaps", 0, 0, 1);
  check.dim(2, 0, table.dims[0], "the table and its scales differ in entries");
  check.holds(!scaled || is_dense(*contract.input(2)), "the scales have gaps", 2, 0, 1);
  if (packed) {
    check.equal(table.dims[2], 16, 0, "a panel of the table is not 16 wide");
    if (scaled) {
      check.equal(table.dims[3], 4, 0, "the table's groups are not of 4");
      check.dim(2, 1, 16, "a panel of scales is not 16 wide");
    }
  }
  check.holds(params.axis == 0, "the axis of a packed or scaled table is not 0", 0, params.axis, 0);
  if (packed)
    check.holds(params.fill < 16 && table.dims[0] > 0, "the last panel has no entry", 0, params.fill, 15);
  else
    check.holds(table.dims[0] > 0 || element_count(index) == 0, "the table is empty", 0, table.dims[0], 1);
  if (!check.operand(output_operand, 1 + index.rank)) return check.violation();
  for (int axis = 0; axis < index.rank; ++axis)
    check.dim(output_operand, axis, index.dims[axis], "the index and y differ in an axis");
  const int64_t k = contract.output(0)->dims[index.rank];
  check.equal(packed && scaled ? (k + 3) / 4 : k, table.dims[1], output_operand, "the table and y differ in an axis");
  check.holds(is_dense(*contract.output(0)), "y has gaps", output_operand, 0, 1);
  return check.violation();
}

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const GatherParams*>(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 2, 3, 0, "gather has two inputs, or three");
  check.holds(contract.output_count == 1, "gather has one output", output_operand, contract.output_count, 1);
  if (!check.holds(contract.input(0) != nullptr, "an operand is missing", 0, 0, 1) ||
      !check.operand(1, -1, Type::i32)) {
    return check.violation();
  }
  check.in_range(params.packed, 0, 1, 0, "packed is neither 0 nor 1");
  if (params.packed != 0 || contract.input(2) != nullptr) return check_entries(check, contract, params);
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
  const Tensor table = call.input(0), index = call.input(1), scale = call.input(2), y = call.output(0);
  if (element_count(*y.shape) == 0) return;
  const auto& params = *static_cast<const GatherParams*>(call.params);
  gather_variants[call.isa]({table.shape, index.shape, table.data, scale ? scale.as<float>() : nullptr,
                             index.as<int32_t>(), y.data, scale ? y.shape->dims[y.shape->rank - 1] : 0, params});
}

Isa variant(Isa ceiling) {
  return gather_variants.level(ceiling);
}

}  // namespace

constinit const Operator gather_operator{"gather", check, scratch, in_place, run, variant};

}  // namespace heed

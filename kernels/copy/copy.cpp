#include "kernels/copy/copy.h"

#include "kernels/axes.h"
#include "kernels/contract.h"

namespace heed {
namespace portable {
namespace {

template <class T>
void copy_axis(const CopyArgs& args, int axis, const T* x, T* y) {
  for (int64_t i = 0; i < args.dims[axis]; ++i, x += args.x_strides[axis], y += args.y_strides[axis]) {
    if (axis + 1 < args.rank)
      copy_axis(args, axis + 1, x, y);
    else
      *y = *x;
  }
}

}  // namespace

void copy(const CopyArgs& args) {
  if (args.element_bytes == 4)
    copy_axis(args, 0, reinterpret_cast<const uint32_t*>(args.x), reinterpret_cast<uint32_t*>(args.y));
  else
    copy_axis(args, 0, reinterpret_cast<const uint8_t*>(args.x), reinterpret_cast<uint8_t*>(args.y));
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  Check check(contract);
  check.holds(contract.input_count == 1, "copy has one input", 0, contract.input_count, 1);
  check.holds(contract.output_count == 1, "copy has one output", output_operand, contract.output_count, 1);
  const Shape* x = contract.input(0);
  if (!check.holds(x != nullptr, "an operand is missing", 0, 0, 1)) return check.violation();
  if (!check.same_dims(output_operand, 0)) return check.violation();
  const Shape& y = *contract.output(0);
  for (int axis = 0; axis < y.rank; ++axis)
    check.holds(y.dims[axis] <= 1 || y.strides[axis] > 0, "y's strides are positive", output_operand, y.strides[axis],
                1);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const Tensor x = call.input(0), y = call.output(0);
  // Axes in the order in which y lies in memory, so that it is written from its beginning to its end.
  int order[max_rank] = {};
  for (int axis = 0; axis < y.shape->rank; ++axis) {
    int at = axis;
    for (; at > 0 && y.shape->strides[order[at - 1]] < y.shape->strides[axis]; --at) order[at] = order[at - 1];
    order[at] = axis;
  }
  Axes<2> axes;
  for (int i = 0; i < y.shape->rank; ++i)
    axes.push(y.shape->dims[order[i]], {x.shape->strides[order[i]], y.shape->strides[order[i]]});
  if (axes.rank == 0) axes.dims[0] = 1, axes.strides[0][0] = axes.strides[1][0] = 0, axes.rank = 1;

  CopyArgs args{};
  args.rank = axes.rank;
  args.element_bytes = static_cast<int32_t>(size_of(x.shape->type));
  for (int axis = 0; axis < axes.rank; ++axis) {
    args.dims[axis] = axes.dims[axis];
    args.x_strides[axis] = axes.strides[0][axis];
    args.y_strides[axis] = axes.strides[1][axis];
  }
  const int64_t count = axes.count();
  if (count == 0) return;
  const auto kernel = copy_variants[call.isa];
  split(call, args.dims[0], 1 + args.dims[0] * task_elements / count, [&](int64_t first, int64_t last, std::byte*) {
    CopyArgs part = args;
    part.dims[0] = last - first;
    part.x = x.data + first * args.x_strides[0] * args.element_bytes;
    part.y = y.data + first * args.y_strides[0] * args.element_bytes;
    kernel(part);
  });
}

Isa variant(Isa ceiling) {
  return copy_variants.level(ceiling);
}

}  // namespace

constinit const Operator copy_operator{"copy", check, scratch, in_place, run, variant};

}  // namespace heed

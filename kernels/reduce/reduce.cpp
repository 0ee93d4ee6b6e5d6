#include "kernels/reduce/reduce.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/reduce/joins.h"

namespace heed {
namespace portable {
namespace {

/// Offset of element `index`, row-major over axes [from, to).
int64_t offset_of(const Shape& shape, int from, int to, int64_t index) {
  int64_t offset = 0;
  for (int axis = to - 1; axis >= from; --axis) {
    offset += index % shape.dims[axis] * shape.strides[axis];
    index /= shape.dims[axis];
  }
  return offset;
}

int64_t reduced_count(const Shape& shape, int outer) {
  int64_t n = 1;
  for (int axis = outer; axis < shape.rank; ++axis) n *= shape.dims[axis];
  return n;
}

template <class Reduction, class T>
void reduce_with(const ReduceArgs& args) {
  const Shape& shape = *args.x_shape;
  const int outer = shape.rank - args.params.axes;
  const int64_t n = reduced_count(shape, outer);
  for (int64_t o = args.first; o < args.last; ++o) {
    const T* x = reinterpret_cast<const T*>(args.x) + offset_of(shape, 0, outer, o);
    T lanes[16];
    for (T& lane : lanes) lane = Reduction::start(T{});
    for (int64_t i = 0; i < n; ++i)
      lanes[i % 16] = Reduction::element(lanes[i % 16], x[offset_of(shape, outer, shape.rank, i)]);
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] = Reduction::join(lanes[i], lanes[i + half]);
    if constexpr (std::is_same_v<T, float>)
      lanes[0] = args.params.kind == heed::Reduction::mean ? lanes[0] * factor(args, n) : lanes[0];
    reinterpret_cast<T*>(args.y)[o] = lanes[0];
  }
}

void arg_extreme(const ReduceArgs& args) {
  const Shape& shape = *args.x_shape;
  const int axis = shape.rank - 1;
  for (int64_t o = args.first; o < args.last; ++o) {
    const float* x = reinterpret_cast<const float*>(args.x) + offset_of(shape, 0, axis, o);
    int32_t best = INT32_MIN, best_index = 0;
    for (int32_t i = 0; i < shape.dims[axis]; ++i) {
      const int32_t key = arg_key(x[int64_t{i} * shape.strides[axis]], args.params.kind == Reduction::arg_max);
      const bool better = key > best || (key == best && args.params.last_index);
      best = better ? key : best;
      best_index = better ? i : best_index;
    }
    reinterpret_cast<int32_t*>(args.y)[o] = best_index;
  }
}

bool is_arg(Reduction kind) {
  return kind == Reduction::arg_max || kind == Reduction::arg_min;
}

}  // namespace

void reduce(const ReduceArgs& args) {
  if (is_arg(args.params.kind)) return arg_extreme(args);
  with_reduction(args, [&](auto reduction, auto t) { reduce_with<decltype(reduction), decltype(t)>(args); });
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const ReduceParams*>(contract.params);
  Check check(contract);
  check.holds(contract.input_count == 1, "reduce has one input", 0, contract.input_count, 1);
  check.holds(contract.output_count == 1, "reduce has one output", output_operand, contract.output_count, 1);
  check.holds(params.kind <= Reduction::arg_min, "unknown reduction", output_operand, static_cast<int>(params.kind),
              static_cast<int>(Reduction::arg_min));
  check.in_range(params.last_index, 0, 1, output_operand, "last_index is neither 0 nor 1");
  const Shape* given = contract.input(0);
  const bool both_types = params.kind == Reduction::sum || params.kind == Reduction::product ||
                          params.kind == Reduction::max || params.kind == Reduction::min;
  const bool i32 = given != nullptr && given->type == Type::i32 && both_types;
  if (!check.operand(0, -1, i32 ? Type::i32 : Type::f32)) return check.violation();
  const Shape& x = *given;
  const bool arg = portable::is_arg(params.kind);
  check.holds(params.axes >= 1 && params.axes <= x.rank, "x has not so many axes to reduce", 0, x.rank, params.axes);
  check.holds(!arg || params.axes == 1, "an index counts along one axis", 0, params.axes, 1);
  if (!check.operand(output_operand, x.rank - params.axes, arg || i32 ? Type::i32 : Type::f32))
    return check.violation();
  for (int axis = 0; axis < x.rank - params.axes; ++axis)
    check.dim(output_operand, axis, x.dims[axis], "x and y differ in an outer axis");
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
  ReduceArgs args{};
  args.params = *static_cast<const ReduceParams*>(call.params);
  args.x_shape = call.input(0).shape;
  args.x = call.input(0).data;
  args.y = call.output(0).data;
  const auto kernel = reduce_variants[call.isa];
  const int64_t n = portable::reduced_count(*args.x_shape, args.x_shape->rank - args.params.axes);
  split(call, element_count(*call.output(0).shape), 1 + task_elements / (n + 1),
        [&](int64_t first, int64_t last, std::byte*) {
          ReduceArgs part = args;
          part.first = first;
          part.last = last;
          kernel(part);
        });
}

Isa variant(Isa ceiling) {
  return reduce_variants.level(ceiling);
}

}  // namespace

constinit const Operator reduce_operator{"reduce", check, scratch, in_place, run, variant};

}  // namespace heed

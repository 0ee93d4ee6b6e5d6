#include "kernels/pool/pool.h"

#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {

void pool(const PoolArgs& args) {
  const bool largest = args.params.kind == Pooling::max;
  for (int32_t o = args.line.first; o < args.line.last; ++o) {
    const PoolTaps taps(args, o);
    for (int32_t c = 0; c < args.channels; ++c) {
      float all = largest ? -__builtin_inff() : 0.0f;
      taps.for_each([&](int64_t at) {
        const float x = args.line.x[at + c];
        all = largest ? max(all, x) : all + x;
      });
      args.y[o * args.y_step + c] = args.params.kind == Pooling::mean ? all * taps.factor : all;
    }
  }
}

}  // namespace portable

namespace {

const PoolParams& params_of(const void* params) {
  return *static_cast<const PoolParams*>(params);
}

Violation check(const Contract& contract) {
  const PoolParams& params = params_of(contract.params);
  Check check(contract);
  check.holds(contract.input_count == 1, "pool has one input", 0, contract.input_count, 1);
  check.holds(contract.output_count == 1, "pool has one output", output_operand, contract.output_count, 1);
  check.holds(params.kind <= Pooling::sum, "unknown pooling", output_operand, static_cast<int>(params.kind),
              static_cast<int>(Pooling::sum));
  check_window(check, contract, params.window);
  for (const auto& counted : {params.count_before, params.count_after})
    for (int axis = 0; axis < 3; ++axis)
      check.in_range(counted[axis], 0, 1 << 16, 0, "a counted padding is out of range");
  if (!check.violation()) check.dim(output_operand, 4, contract.input(0)->dims[4], "x and y differ in channels");
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const PoolParams& params = params_of(call.params);
  const Tensor y = call.output(0);
  PoolArgs whole{};
  whole.channels = y.shape->dims[4];
  whole.y_step = y.shape->strides[3];
  whole.params = params;
  int64_t work = element_count(*y.shape);
  for (int axis = 0; axis < 3; ++axis) {
    const int32_t size = call.input(0).shape->dims[axis + 1], kernel = params.window.kernel[axis];
    work *= size < kernel ? size : kernel;
  }
  const auto kernel = pool_variants[call.isa];
  for_each_line(call, params.window, work, [&](const WindowLine& line, const int64_t(&at)[3], std::byte*) {
    PoolArgs args = whole;
    args.line = line;
    args.y = y.as<float>() + line_offset(*y.shape, at);
    kernel(args);
  });
}

Isa variant(Isa ceiling) {
  return pool_variants.level(ceiling);
}

}  // namespace

constinit const Operator pool_operator{"pool", check, scratch, in_place, run, variant};

}  // namespace heed

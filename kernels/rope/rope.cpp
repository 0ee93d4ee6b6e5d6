#include "kernels/rope/rope.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

namespace heed {
namespace portable {

void rope(const RopeArgs& args) {
  const bool half = args.pairing == Pairing::half;
  const int32_t pairs = args.rotated / 2, apart = half ? pairs : 1;
  for (int64_t token = 0; token < args.tokens; ++token) {
    const float *cos = args.cos + token * args.cos_token, *sin = args.sin + token * args.sin_token;
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.x + token * args.x_token + head * args.x_head;
      float* y = args.y + token * args.y_token + head * args.y_head;
      for (int32_t pair = 0; pair < pairs; ++pair) {
        const int32_t i = half ? pair : 2 * pair, j = i + apart;
        const float a = x[i], b = x[j];  // y may be x
        y[i] = fma(a, cos[i], b * sin[i]);
        y[j] = fma(b, cos[j], a * sin[j]);
      }
      for (int32_t i = args.rotated; i < args.channels; ++i) y[i] = x[i];
    }
  }
}

}  // namespace portable

namespace {

Violation check(const Contract& contract) {
  const auto& params = *static_cast<const RopeParams*>(contract.params);
  Check check(contract);
  check.holds(contract.input_count == 3, "rope has three inputs", 0, contract.input_count, 3);
  check.holds(contract.output_count == 1, "rope has one output", output_operand, contract.output_count, 1);
  check.holds(params.pairing <= Pairing::interleaved, "unknown pairing", output_operand,
              static_cast<int>(params.pairing), static_cast<int>(Pairing::interleaved));
  if (!check.operand(0, -1)) return check.violation();
  const Shape& x = *contract.input(0);
  check.holds(x.rank >= 1, "x has no axis", 0, x.rank, 1);
  check.same_dims(output_operand, 0);
  if (!check.operand(1, x.rank)) return check.violation();
  const int last = x.rank - 1;
  const int32_t rotated = contract.input(1)->dims[last];
  check.holds(rotated % 2 == 0, "the rotated channels are no pairs", 1, rotated, rotated + 1);
  check.in_range(rotated, 0, x.dims[last], 1, "more channels are rotated than there are");
  for (int axis = 0; axis < last; ++axis) check.dim(1, axis, x.dims[axis], "x and cos differ in an axis");
  check.same_dims(2, 1);
  for (const int operand : {0, 1, 2, output_operand}) check.last_stride(operand);
  return check.violation();
}

uint64_t scratch(const Contract&) {
  return 0;
}

bool in_place(const Contract&, int input, int) {
  return input == 0;
}

void run(const Invocation& call) {
  const Shape &x = *call.input(0).shape, &cos = *call.input(1).shape, &sin = *call.input(2).shape,
              &y = *call.output(0).shape;
  const int last = x.rank - 1;
  // The heads: the longest axis over which cos and sin repeat.
  int heads = -1;
  for (int axis = 0; axis < last; ++axis)
    if (cos.strides[axis] == 0 && sin.strides[axis] == 0 && x.dims[axis] > (heads < 0 ? 1 : x.dims[heads]))
      heads = axis;
  Axes<4> tokens;
  for (int axis = 0; axis < last; ++axis)
    if (axis != heads)
      tokens.push(x.dims[axis], {x.strides[axis], cos.strides[axis], sin.strides[axis], y.strides[axis]});
  RopeArgs whole{};
  whole.heads = heads < 0 ? 1 : x.dims[heads];
  whole.x_head = heads < 0 ? 0 : x.strides[heads];
  whole.y_head = heads < 0 ? 0 : y.strides[heads];
  whole.x_token = tokens.step(0);
  whole.cos_token = tokens.step(1);
  whole.sin_token = tokens.step(2);
  whole.y_token = tokens.step(3);
  whole.channels = x.dims[last];
  whole.rotated = cos.dims[last];
  whole.pairing = static_cast<const RopeParams*>(call.params)->pairing;
  const int64_t token_elements = whole.heads * whole.channels;
  if (token_elements == 0) return;
  const auto kernel = rope_variants[call.isa];
  split(call, tokens.count(), 1 + task_elements / token_elements, [&](int64_t first, int64_t end, std::byte*) {
    tokens.for_each_run(first, end, [&](const int64_t(&offsets)[4], int64_t length) {
      RopeArgs args = whole;
      args.x = call.input(0).as<float>() + offsets[0];
      args.cos = call.input(1).as<float>() + offsets[1];
      args.sin = call.input(2).as<float>() + offsets[2];
      args.y = call.output(0).as<float>() + offsets[3];
      args.tokens = length;
      kernel(args);
    });
  });
}

Isa variant(Isa ceiling) {
  return rope_variants.level(ceiling);
}

}  // namespace

constinit const Operator rope_operator{"rope", check, scratch, in_place, run, variant};

}  // namespace heed

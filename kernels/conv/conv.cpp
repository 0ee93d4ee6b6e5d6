#include "kernels/conv/conv.h"

#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {

void conv(const ConvArgs& args) {
  const WindowLine& line = args.line;
  const Window& window = args.params.window;
  const int32_t inputs = args.channels / args.params.groups, outputs = args.outputs / args.params.groups;
  const int64_t panels = (outputs + 15) / 16,
                k = int64_t{window.kernel[0]} * window.kernel[1] * window.kernel[2] * inputs;
  for (int64_t o = line.first; o < line.last; ++o) {
    for (int32_t m = 0; m < args.outputs; ++m) {
      const int32_t group = m / outputs, column = m % outputs;
      const float* w =
          args.params.depthwise ? args.w + m : args.w + (group * panels + column / 16) * k * 16 + column % 16;
      const int32_t w_step = args.params.depthwise ? args.outputs : 16;
      float sum = 0.0f;
      for (int32_t d = 0; d < window.kernel[0]; ++d) {
        for (int32_t h = 0; h < window.kernel[1]; ++h) {
          for (int32_t v = 0; v < window.kernel[2]; ++v) {
            const int64_t at[3] = {line.origin[0] + int64_t{d} * window.dilations[0],
                                   line.origin[1] + int64_t{h} * window.dilations[1],
                                   o * window.strides[2] + int64_t{v} * window.dilations[2] - window.before[2]};
            const float* x = line.x + group * inputs;
            bool inside = true;
            for (int axis = 0; axis < 3; ++axis) {
              inside = inside && at[axis] >= 0 && at[axis] < line.size[axis];
              if (inside) x += at[axis] * line.steps[axis];
            }
            for (int32_t c = 0; c < inputs; ++c, w += w_step) sum = fma(inside ? x[c] : 0.0f, *w, sum);
          }
        }
      }
      if (args.bias != nullptr) sum += args.bias[m];
      if (args.residual != nullptr) sum += args.residual[o * args.residual_step + m];
      args.y[o * args.y_step + m] = apply(args.params.activation, sum);
    }
  }
}

}  // namespace portable

namespace {

const ConvParams& params_of(const void* params) {
  return *static_cast<const ConvParams*>(params);
}

Violation check(const Contract& contract) {
  const ConvParams& params = params_of(contract.params);
  const Window& window = params.window;
  Check check(contract);
  check.in_range(contract.input_count, 0, 4, contract.input_count - 1, "too many inputs");
  check.holds(contract.output_count == 1, "conv has one output", output_operand, contract.output_count, 1);
  check.holds(static_cast<int>(params.activation) < activation_count, "unknown activation", output_operand,
              static_cast<int>(params.activation), activation_count - 1);
  check.in_range(params.depthwise, 0, 1, 1, "depthwise is neither 0 nor 1");
  check_window(check, contract, window);
  if (!check.operand(1, params.depthwise ? 2 : 3) || !check.optional(2, 1) || !check.optional(3, 5))
    return check.violation();
  const Shape &x = *contract.input(0), &w = *contract.input(1), &y = *contract.output(0);
  const int32_t channels = x.dims[4], outputs = y.dims[4], groups = params.groups;
  if (!check.holds(groups >= 1, "there are no groups", 0, groups, 1) ||
      !check.holds(channels % groups == 0, "the groups do not divide x's channels", 0, channels, groups) ||
      !check.holds(outputs % groups == 0, "the groups do not divide y's channels", output_operand, outputs, groups))
    return check.violation();
  const int64_t taps = int64_t{window.kernel[0]} * window.kernel[1] * window.kernel[2];
  check.holds(is_dense(w), "w has gaps", 1, 0, 1);
  if (params.depthwise) {
    check.equal(groups, channels, 0, "depthwise has a group for each channel of x");
    check.equal(groups, outputs, output_operand, "depthwise has a group for each channel of y");
    check.dim(1, 0, taps, "w has not the window's taps");
    check.dim(1, 1, channels, "w and x differ in channels");
  } else {
    int64_t k = 0;
    if (__builtin_mul_overflow(taps, channels / groups, &k)) k = -1;
    check.dim(1, 0, groups * ((int64_t{outputs} / groups + 15) / 16), "w has not the panels for y's channels");
    check.dim(1, 1, k, "w has not the window's taps and channels");
    check.dim(1, 2, 16, "a panel of w is not 16 wide");
    for (int axis = 0; axis < 3 && params.block == 0; ++axis) {
      const int64_t size = x.dims[axis + 1], last = int64_t{y.dims[axis + 1]} - 1;
      check.holds(window.before[axis] == 0, "a window reaches before the image, without scratch", 0,
                  window.before[axis], 0);
      check.holds(last < 0 || last * window.strides[axis] + reach(window, axis) <= size,
                  "a window reaches behind the image, without scratch", output_operand, last, size);
    }
  }
  check.dim(2, 0, outputs, "bias and y differ in channels");
  for (int axis = 0; axis < 5; ++axis) check.dim(3, axis, y.dims[axis], "residual and y differ in an axis");
  check.last_stride(2);
  check.last_stride(3);
  return check.violation();
}

uint64_t scratch(const Contract& contract) {
  const ConvParams& params = params_of(contract.params);
  const Window& window = params.window;
  if (params.depthwise || params.block == 0) return 0;
  const Size length = (int64_t{params.block} - 1) * window.strides[2] + reach(window, 2);
  return (Size(sizeof(float)) * window.kernel[0] * window.kernel[1] * length * contract.input(0)->dims[4]).value;
}

bool in_place(const Contract&, int input, int output) {
  return input == 3 && output == 0;
}

void run(const Invocation& call) {
  const ConvParams& params = params_of(call.params);
  const Tensor x = call.input(0), w = call.input(1), bias = call.input(2), residual = call.input(3), y = call.output(0);
  ConvArgs whole{};
  whole.w = w.as<float>();
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.channels = x.shape->dims[4];
  whole.outputs = y.shape->dims[4];
  whole.residual_step = residual ? residual.shape->strides[3] : 0;
  whole.y_step = y.shape->strides[3];
  whole.params = params;
  const int64_t positions = element_count(*y.shape) / (whole.outputs == 0 ? 1 : whole.outputs);
  const auto kernel = conv_variants[call.isa];
  for_each_line(call, params.window, positions * element_count(*w.shape),
                [&](const WindowLine& line, const int64_t(&at)[3], std::byte* scratch) {
                  ConvArgs args = whole;
                  args.line = line;
                  args.y = y.as<float>() + line_offset(*y.shape, at);
                  args.residual = residual ? residual.as<float>() + line_offset(*residual.shape, at) : nullptr;
                  args.scratch = reinterpret_cast<float*>(scratch);
                  kernel(args);
                });
}

Isa variant(Isa ceiling) {
  return conv_variants.level(ceiling);
}

}  // namespace

constinit const Operator conv_operator{"conv", check, scratch, in_place, run, variant};

}  // namespace heed

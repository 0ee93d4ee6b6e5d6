#include "kernels/conv_i8/conv_i8.h"

#include "kernels/scalar.h"

#include "kernels/conv_i8/windows.h"

namespace heed {
namespace portable {

void conv_i8(const ConvI8Args& args) {
  convolve(args);
}

}  // namespace portable

namespace {

enum Input { x_input, w_input, w_scale_input, w_sum_input, bias_input, residual_input, input_count };

const ConvI8Params& params_of(const void* params) {
  return *static_cast<const ConvI8Params*>(params);
}

/// Terms of a sum; -1 where they are too many to be told.
int64_t terms_of(const Window& window, int32_t channels, int32_t groups) {
  int64_t terms = int64_t{window.kernel[0]} * window.kernel[1] * window.kernel[2];
  return __builtin_mul_overflow(terms, channels / groups, &terms) ? -1 : terms;
}

Violation check(const Contract& contract) {
  const ConvI8Params& params = params_of(contract.params);
  const Window& window = params.window;
  Check check(contract);
  check.in_range(contract.input_count, 0, input_count, contract.input_count - 1, "too many inputs");
  check.equal(contract.output_count, 1, output_operand, "not one output");
  check.in_range(static_cast<int>(params.activation), 0, activation_count - 1, output_operand, "unknown activation");
  check.holds(params.block_rows >= 1, "a block has no rows", x_input, params.block_rows, 1);
  check_window(check, contract, window);
  if (!check.operand(w_input, 4, Type::i8) || !check.operand(w_scale_input, 2) ||
      !check.operand(w_sum_input, 2, Type::i32) || !check.optional(bias_input, 1) ||
      !check.optional(residual_input, 5)) {
    return check.violation();
  }
  const Shape &x = *contract.input(x_input), &y = *contract.output(0);
  const int32_t channels = x.dims[4], outputs = y.dims[4], groups = params.groups;
  if (!check.holds(groups >= 1, "there are no groups", x_input, groups, 1) ||
      !check.holds(channels % groups == 0, "the groups do not divide x's channels", x_input, channels, groups) ||
      !check.holds(outputs % groups == 0, "the groups do not divide y's channels", output_operand, outputs, groups))
    return check.violation();
  const int64_t k = terms_of(window, channels, groups), panels = groups * ((int64_t{outputs} / groups + 15) / 16);
  check.in_range(k, 0, most_terms_i8(255, 127), w_input, "sums of so many terms do not fit int32");
  check.dim(w_input, 0, panels, "w has not the panels for y's channels");
  check.dim(w_input, 1, (k + 3) / 4, "w has not the window's taps and channels");
  check.dim(w_input, 2, 16, "a panel of w is not 16 wide");
  check.dim(w_input, 3, 4, "w's groups are not of 4");
  for (const int operand : {w_scale_input, w_sum_input}) {
    check.dim(operand, 0, panels, "w and the scales or sums of its channels differ in panels");
    check.dim(operand, 1, 16, "a panel of w's scales or sums is not 16 wide");
  }
  for (const int operand : {w_input, w_scale_input, w_sum_input})
    check.holds(is_dense(*contract.input(operand)), "w, its scales or its sums have gaps", operand, 0, 1);
  check.dim(bias_input, 0, outputs, "bias and y differ in channels");
  for (int axis = 0; axis < 5; ++axis)
    check.dim(residual_input, axis, y.dims[axis], "residual and y differ in an axis");
  check.last_stride(bias_input);
  check.last_stride(residual_input);
  return check.violation();
}

/// The parts of the scratch, in bytes from its begin.
struct Parts {
  Size rows, scale, zero, total;
};
Parts parts_of(const ConvI8Params& params, int32_t channels) {
  const Size row = (terms_of(params.window, channels, params.groups) + 15) / 16 * 16, block = params.block_rows;
  const Size rows = Size(sizeof(int16_t)) * block * row, scale = rows + block * row,
             zero = scale + Size(sizeof(float)) * block;
  return {rows, scale, zero, zero + Size(sizeof(int32_t)) * block};
}

uint64_t scratch(const Contract& contract) {
  return parts_of(params_of(contract.params), contract.input(x_input)->dims[4]).total.value;
}

bool in_place(const Contract&, int input, int output) {
  return input == residual_input && output == 0;
}

void run(const Invocation& call) {
  const ConvI8Params& params = params_of(call.params);
  const Tensor x = call.input(x_input), w = call.input(w_input), bias = call.input(bias_input),
               residual = call.input(residual_input), y = call.output(0);
  const Parts at = parts_of(params, x.shape->dims[4]);
  ConvI8Args whole{};
  whole.w = w.as<int8_t>();
  whole.w_scale = call.input(w_scale_input).as<float>();
  whole.w_sum = call.input(w_sum_input).as<int32_t>();
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.channels = x.shape->dims[4];
  whole.outputs = y.shape->dims[4];
  whole.residual_step = residual ? residual.shape->strides[3] : 0;
  whole.y_step = y.shape->strides[3];
  whole.params = params;
  const int64_t positions = element_count(*y.shape) / (whole.outputs == 0 ? 1 : whole.outputs);
  const auto kernel = conv_i8_variants[call.isa];
  for_each_line(call, params.window, positions * element_count(*w.shape),
                [&](const WindowLine& line, const int64_t(&origin)[3], std::byte* scratch) {
                  ConvI8Args args = whole;
                  args.line = line;
                  args.y = y.as<float>() + line_offset(*y.shape, origin);
                  args.residual = residual ? residual.as<float>() + line_offset(*residual.shape, origin) : nullptr;
                  args.converted = reinterpret_cast<int16_t*>(scratch);
                  args.rows = reinterpret_cast<int8_t*>(scratch + at.rows.value);
                  args.scale = reinterpret_cast<float*>(scratch + at.scale.value);
                  args.zero = reinterpret_cast<int32_t*>(scratch + at.zero.value);
                  kernel(args);
                });
}

Isa variant(Isa ceiling) {
  return conv_i8_variants.level(ceiling);
}

}  // namespace

constinit const Operator conv_i8_operator{"conv_i8", check, scratch, in_place, run, variant};

}  // namespace heed

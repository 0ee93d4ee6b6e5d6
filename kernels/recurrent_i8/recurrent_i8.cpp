#include "kernels/recurrent_i8/recurrent_i8.h"

#include "kernels/recurrent/run.h"
#include "kernels/scalar.h"

#include "kernels/recurrent_i8/products.h"

namespace heed {
namespace portable {

void recurrent_i8(const RecurrentI8Args& args) {
  Layer(args, ProductsI8(args), nullptr).run();
}

}  // namespace portable

namespace {

enum Input {
  x_input,
  x_scale_input,
  w_input,
  w_scale_input,
  w_sum_input,
  r_input,
  r_scale_input,
  r_sum_input,
  b_input,
  rb_input,
  h_input
};

Violation check(const Contract& contract) {
  const RecurrentI8Params& params = recurrent_params(contract.params);
  Check check(contract);
  check_layer(check, contract, Type::i8, h_input);
  if (!check.operand(x_scale_input, 3) || !check.operand(w_input, 6, Type::i8) || !check.operand(w_scale_input, 4) ||
      !check.operand(w_sum_input, 4, Type::i32) || !check.operand(r_input, 6, Type::i8) ||
      !check.operand(r_scale_input, 4) || !check.operand(r_sum_input, 4, Type::i32) || !check.operand(b_input, 4) ||
      !check.optional(rb_input, 4)) {
    return check.violation();
  }
  const Shape& x = *contract.input(x_input);
  check.dim(x_scale_input, 0, x.dims[0], "x and x_scale differ in length");
  check.dim(x_scale_input, 1, x.dims[1], "x and x_scale differ in batch");
  check.dim(x_scale_input, 2, 1, "x_scale has not one column");
  for (int i = w_input; i < h_input; ++i)
    if (contract.input(i) != nullptr) check_panels(check, contract, i, gates_of(params.cell));
  for (const int i : {w_input, r_input}) check.dim(i, 5, 4, "the groups of weights are not of 4");
  check.dim(w_input, 3, (int64_t{x.dims[2]} + 3) / 4, "x and w differ in channels");
  check.dim(r_input, 3, (int64_t{params.hidden} + 3) / 4, "r has not the hidden units of the layer");
  check.in_range(x.dims[2], 0, most_terms_i8(), x_input, "sums of so many terms do not fit int32");
  check.in_range(params.hidden, 0, most_terms_i8(), x_input, "sums of so many terms do not fit int32");
  return check.violation();
}

int32_t block_of(const RecurrentI8Params& params, int32_t batch) {
  const int64_t rows = int64_t{params.chunk} * batch;
  return static_cast<int32_t>(rows < 24 ? rows : 24);
}

/// The parts of the scratch, in bytes behind those of the float layer.
struct PartsI8 {
  Size h8, h_scale, total;
};
PartsI8 parts_of(const RecurrentI8Params& params, int32_t batch, int32_t inputs) {
  const int64_t terms = inputs > params.hidden ? inputs : params.hidden;
  const Size h8 = Size(sizeof(int16_t)) * block_of(params, batch) * ((terms + 15) / 16 * 16),
             h_scale = h8 + Size(units_of(params)) * batch;
  return {h8, h_scale, h_scale + Size(sizeof(float)) * batch};
}

uint64_t scratch(const Contract& contract) {
  const RecurrentI8Params& params = recurrent_params(contract.params);
  const int32_t *x = contract.input(x_input)->dims, batch = x[1];
  return (Size(sizeof(float)) * parts_of(params, batch).total + parts_of(params, batch, x[2]).total).value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  const RecurrentI8Params& params = recurrent_params(call.params);
  const Tensor x = call.input(x_input), x_scale = call.input(x_scale_input);
  const int32_t batch = x.shape->dims[1];
  const PartsI8 at = parts_of(params, batch, x.shape->dims[2]);
  run_layer(call, h_input, recurrent_i8_variants[call.isa],
            [&](RecurrentI8Args& args, int direction, int32_t first, std::byte* scratch) {
              const auto panels = [&](int weights, int bias) {
                return PanelsI8{
                    of_direction<int8_t>(call, weights, direction), of_direction<float>(call, weights + 1, direction),
                    of_direction<int32_t>(call, weights + 2, direction), of_direction<float>(call, bias, direction)};
              };
              args.scale_step = x_scale.shape->strides[0];
              args.scale_batch = x_scale.shape->strides[1];
              args.x = x.as<int8_t>() + first * args.x_batch;
              args.x_scale = x_scale.as<float>() + first * args.scale_batch;
              args.w = panels(w_input, b_input);
              args.r = panels(r_input, rb_input);
              args.block_rows = block_of(params, batch);
              args.converted = reinterpret_cast<int16_t*>(scratch);
              args.h8 = reinterpret_cast<int8_t*>(scratch + at.h8.value);
              args.h_scale = reinterpret_cast<float*>(scratch + at.h_scale.value);
            });
}

Isa variant(Isa ceiling) {
  return recurrent_i8_variants.level(ceiling);
}

}  // namespace

constinit const Operator recurrent_i8_operator{"recurrent_i8", check, scratch, in_place, run, variant};

}  // namespace heed

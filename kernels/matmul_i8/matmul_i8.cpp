#include "kernels/matmul_i8/matmul_i8.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/math.h"
#include "kernels/quantize/group.h"

namespace heed {
namespace portable {

void matmul_i8(const MatmulI8Args& args) {
  const int64_t panel = (int64_t{args.k} + 3) / 4 * 64;
  for (int m = 0; m < args.rows; ++m) {
    float* y = args.y == nullptr ? args.sums : args.y + m * args.y_row;
    for (int n = 0; n < args.n; ++n) {
      const int8_t* b = args.b + n / 16 * panel + n % 16 * 4;
      const int32_t a_zero = args.a_zero == nullptr ? 0 : args.a_zero[m * args.a_zero_row],
                    b_zero = args.b_zero == nullptr ? 0 : args.b_zero[n];
      int32_t sum = 0;
      for (int k = 0; k < args.k; ++k)
        sum = add(sum, mul(sub(args.a[m * args.a_row + k], a_zero), sub(b[k / 4 * 64 + k % 4], b_zero)));
      float z = fma(to_f(sum), args.a_scale[m * args.a_scale_row] * args.b_scale[n],
                    args.bias == nullptr ? -0.0f : args.bias[n]);
      if (args.residual != nullptr) z += args.residual[m * args.residual_row + n];
      y[n] = apply(args.activation, z);
    }
    if (args.to.q == nullptr) continue;
    const RowsI8 to = args.to.from(m);
    if (args.given != nullptr)
      quantize_given(y, args.n, args.given, to.q);
    else
      quantize_rows(y, 0, 1, args.n, to);
  }
}

}  // namespace portable

namespace {

const MatmulI8Params& params_of(const void* params) {
  return *static_cast<const MatmulI8Params*>(params);
}

enum Input {
  a_input,
  a_scale_input,
  b_input,
  b_scale_input,
  b_sum_input,
  bias_input,
  residual_input,
  a_zero_input,
  b_zero_input,
  given_input,
  input_count
};
enum Output { y_output, q_output, q_scale_output, q_zero_output, output_count };

Violation check(const Contract& contract) {
  const MatmulI8Params& params = params_of(contract.params);
  constexpr int y_operand = output_operand + y_output, q_operand = output_operand + q_output,
                q_scale_operand = output_operand + q_scale_output, q_zero_operand = output_operand + q_zero_output;
  Check check(contract);
  check.in_range(contract.input_count, 0, input_count, contract.input_count - 1, "too many inputs");
  check.in_range(contract.output_count, 0, output_count, output_operand + contract.output_count - 1,
                 "too many outputs");
  check.in_range(static_cast<int>(params.activation), 0, activation_count - 1, output_operand, "unknown activation");
  check.holds(params.block_rows >= 1, "a block has no rows", a_input, params.block_rows, 1);
  if (!check.operand(a_input, -1, Type::i8)) return check.violation();
  const Shape& a = *contract.input(a_input);
  const int rank = a.rank;
  if (!check.holds(rank >= 2, "a has fewer than two axes", a_input, rank, 2)) return check.violation();
  const Shape *y = contract.output(y_output), *q = contract.output(q_output);
  check.holds(y != nullptr || q != nullptr, "an operand is missing", y_operand, 0, 1);
  if (!check.operand(a_scale_input, rank) || !check.operand(b_input, 4, Type::i8) || !check.operand(b_scale_input, 2) ||
      !check.operand(b_sum_input, 2, Type::i32) || !check.optional(bias_input, 1) ||
      !check.optional(residual_input, rank) || !check.optional(a_zero_input, rank, Type::i32) ||
      !check.optional(b_zero_input, 2, Type::i32) || !check.optional(given_input, 1) ||
      !check.optional(y_operand, rank) || !check.optional(q_operand, rank, Type::i8) ||
      !check.optional(q_scale_operand, rank) || !check.optional(q_zero_operand, rank, Type::i32)) {
    return check.violation();
  }
  const Shape *q_scale = contract.output(q_scale_output), *given = contract.input(given_input);
  check.equal(q_scale != nullptr || given != nullptr, q != nullptr, q_scale_operand,
              "q and its scale are not given together");
  check.holds(q_scale == nullptr || given == nullptr, "a scale that is given is asked for", q_scale_operand, 1, 0);
  if (contract.output(q_zero_output) != nullptr)
    check.holds(q_scale != nullptr, "a zero point of no q_scale", q_zero_operand, 1, 0);
  const Shape& result = y != nullptr ? *y : *q;
  const int32_t k = a.dims[rank - 1], n = result.dims[rank - 1];
  for (int axis = 0; axis < rank - 1; ++axis)
    for (const int operand : {a_scale_input + 0, residual_input + 0, a_zero_input + 0, y_operand, q_operand,
                              q_scale_operand, q_zero_operand})
      check.dim(operand, axis, a.dims[axis], "a and another operand differ in a leading axis");
  for (const int operand : {residual_input + 0, q_operand})
    check.dim(operand, -1, n, "y and another operand differ in columns");
  check.dim(a_scale_input, -1, 1, "a_scale has not one column");
  check.dim(a_zero_input, -1, 1, "a_zero has not one column");
  check.dim(given_input, -1, 2, "a scale and a zero are two numbers");
  const int64_t panels = (int64_t{n} + 15) / 16;
  check.dim(b_input, 0, panels, "b has not the panels for y's columns");
  check.dim(b_input, 1, (int64_t{k} + 3) / 4, "inner dimensions of a and b differ");
  check.dim(b_input, 2, 16, "a panel of b is not 16 wide");
  check.dim(b_input, 3, 4, "b's groups are not of 4");
  for (const int operand : {b_scale_input, b_sum_input, b_zero_input}) {
    check.dim(operand, 0, panels, "b and the scales, sums or zeros of its columns differ in panels");
    check.dim(operand, 1, 16, "a panel of b's scales, sums or zeros is not 16 wide");
    if (const Shape* columns = contract.input(operand); columns != nullptr && !check.violation())
      check.holds(is_dense(*columns), "b's scales, sums or zeros have gaps", operand, 0, 1);
  }
  if (check.violation()) return check.violation();
  check.holds(is_dense(*contract.input(b_input)), "b has gaps", b_input, 0, 1);
  const int a_most = contract.input(a_zero_input) != nullptr ? 255 : 128,
            b_most = contract.input(b_zero_input) != nullptr ? 255 : 127;
  check.in_range(k, 0, most_terms_i8(a_most, b_most), a_input, "sums of so many terms do not fit int32");
  check.dim(bias_input, 0, n, "bias and y differ in columns");
  if (q_scale != nullptr) {
    const int32_t groups = q_scale->dims[rank - 1];
    check.holds(groups > 0 && n % groups == 0, "the columns are no multiple of the groups", q_scale_operand, n, groups);
    check.dim(q_zero_operand, -1, groups, "q_zero and q_scale differ in groups");
  }
  for (const int operand : {a_input + 0, bias_input + 0, residual_input + 0, given_input + 0, y_operand, q_operand,
                            q_scale_operand, q_zero_operand})
    check.last_stride(operand);
  return check.violation();
}

/// Elements of a row of each part of the scratch.
struct Rows {
  int64_t converted, sums;
};
Rows rows_of(const Shape& a, const Shape* y, const Shape* q) {
  const auto whole = [](int64_t count) { return (count + 15) / 16 * 16; };
  return {whole(a.dims[a.rank - 1]), y == nullptr ? whole(q->dims[q->rank - 1]) : 0};
}

uint64_t scratch(const Contract& contract) {
  const Rows rows = rows_of(*contract.input(a_input), contract.output(y_output), contract.output(q_output));
  const int64_t row_sum = contract.input(b_zero_input) != nullptr;
  return (params_of(contract.params).block_rows *
          (Size(sizeof(int16_t)) * rows.converted + Size(sizeof(float)) * (Size(rows.sums) + row_sum)))
      .value;
}

bool in_place(const Contract&, int input, int output) {
  return input == residual_input && output == y_output;
}

void run(const Invocation& call) {
  const MatmulI8Params& params = params_of(call.params);
  const Tensor a = call.input(a_input), a_scale = call.input(a_scale_input), bias = call.input(bias_input),
               residual = call.input(residual_input), a_zero = call.input(a_zero_input),
               b_zero = call.input(b_zero_input), given = call.input(given_input), y = call.output(y_output),
               q = call.output(q_output), q_scale = call.output(q_scale_output), q_zero = call.output(q_zero_output);
  const Shape& result = y ? *y.shape : *q.shape;
  if (element_count(result) == 0) return;
  const int last = result.rank - 1;
  const Rows scratch_rows = rows_of(*a.shape, y.shape, q.shape);
  MatmulI8Args whole{};
  whole.b = call.input(b_input).as<int8_t>();
  whole.b_scale = call.input(b_scale_input).as<float>();
  whole.b_sum = call.input(b_sum_input).as<int32_t>();
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.b_zero = b_zero ? b_zero.as<int32_t>() : nullptr;
  whole.given = given ? given.as<float>() : nullptr;
  whole.n = result.dims[last];
  whole.k = a.shape->dims[last];
  whole.block_rows = params.block_rows;
  whole.activation = params.activation;

  // An absent operand steps like none.
  const Tensor operands[] = {a, a_scale, a_zero, residual, y, q, q_scale, q_zero};
  enum { a_step, a_scale_step, a_zero_step, residual_step, y_step, q_step, q_scale_step, q_zero_step, steps };
  Axes<steps> rows;
  for (int axis = 0; axis < last; ++axis) {
    int64_t strides[steps];
    for (int i = 0; i < steps; ++i) strides[i] = operands[i] ? operands[i].shape->strides[axis] : 0;
    rows.push(result.dims[axis], strides);
  }
  whole.a_row = rows.step(a_step);
  whole.a_scale_row = rows.step(a_scale_step);
  whole.a_zero_row = rows.step(a_zero_step);
  whole.residual_row = rows.step(residual_step);
  whole.y_row = rows.step(y_step);

  const auto kernel = matmul_i8_variants[call.isa];
  const auto run_rows = [&](const int64_t(&offsets)[steps], int64_t length, int column, int columns,
                            std::byte* scratch) {
    const auto at = [&](const Tensor& operand, int step, auto* none) {
      return operand ? operand.as<std::remove_pointer_t<decltype(none)>>() + offsets[step] : none;
    };
    MatmulI8Args args = whole;
    args.rows = static_cast<int32_t>(length);
    args.a = at(a, a_step, args.to.q);
    args.a_scale = at(a_scale, a_scale_step, args.y);
    args.a_zero = at(a_zero, a_zero_step, args.row_sums);
    args.residual = at(residual, residual_step, args.y);
    args.y = at(y, y_step, args.y);
    args.to = {at(q, q_step, args.to.q),
               at(q_scale, q_scale_step, args.to.scale),
               at(q_zero, q_zero_step, args.to.zero),
               rows.step(q_step),
               rows.step(q_scale_step),
               rows.step(q_zero_step),
               q_scale ? q_scale.shape->dims[last] : 1};
    args.converted = reinterpret_cast<int16_t*>(scratch);
    args.sums = reinterpret_cast<float*>(args.converted + args.block_rows * scratch_rows.converted);
    args.row_sums = reinterpret_cast<int32_t*>(args.sums + args.block_rows * scratch_rows.sums);
    args.n = columns;
    args.b += int64_t{column} * 4 * ((args.k + 3) / 4);
    args.b_scale += column;
    args.b_sum += column;
    if (args.b_zero != nullptr) args.b_zero += column;
    if (args.bias != nullptr) args.bias += column;
    if (args.residual != nullptr) args.residual += column;
    if (args.y != nullptr) args.y += column;
    kernel(args);
  };

  // Waking a thread costs about as much as `least` multiply-accumulates. Few rows are split by columns, where no row
  // has to be whole.
  constexpr int64_t least = 1 << 18;
  const int64_t count = rows.count(), row_macs = int64_t{whole.n} * whole.k;
  const int64_t threads = call.parallel == nullptr ? 1 : call.parallel->threads;
  if (threads > 1 && !q && count < 16 * threads && count * row_macs >= 2 * least) {
    const int64_t panels = (int64_t{whole.n} + 15) / 16, parts = count * row_macs / least;
    const int64_t each = (panels + (parts < threads ? parts : threads) - 1) / (parts < threads ? parts : threads);
    call.for_each(static_cast<uint32_t>((panels + each - 1) / each), [&](uint32_t index, std::byte* scratch) {
      const int column = static_cast<int>(index * each * 16);
      const int left = whole.n - column, columns = static_cast<int>(left < each * 16 ? left : each * 16);
      rows.for_each_run(0, count, [&](const int64_t(&offsets)[steps], int64_t length) {
        run_rows(offsets, length, column, columns, scratch);
      });
    });
    return;
  }
  split(call, count, 1 + least / (row_macs + 1), [&](int64_t first, int64_t end, std::byte* scratch) {
    rows.for_each_run(first, end, [&](const int64_t(&offsets)[steps], int64_t length) {
      run_rows(offsets, length, 0, whole.n, scratch);
    });
  });
}

Isa variant(Isa ceiling) {
  return matmul_i8_variants.level(ceiling);
}

}  // namespace

constinit const Operator matmul_i8_operator{"matmul_i8", check, scratch, in_place, run, variant};

}  // namespace heed

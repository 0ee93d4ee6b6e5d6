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
      int32_t sum = 0;
      for (int k = 0; k < args.k; ++k) sum += args.a[m * args.a_row + k] * b[k / 4 * 64 + k % 4];
      float z = fma(to_f(sum), args.a_scale[m * args.a_scale_row] * args.b_scale[n],
                    args.bias == nullptr ? -0.0f : args.bias[n]);
      if (args.residual != nullptr) z += args.residual[m * args.residual_row + n];
      y[n] = apply(args.activation, z);
    }
    if (args.q == nullptr) continue;
    quantize_groups(y, args.n, args.groups, args.q + m * args.q_row, args.q_scale + m * args.q_scale_row);
  }
}

}  // namespace portable

namespace {

const MatmulI8Params& params_of(const void* params) {
  return *static_cast<const MatmulI8Params*>(params);
}

enum Input { a_input, a_scale_input, b_input, b_scale_input, b_sum_input, bias_input, residual_input, input_count };
enum Output { y_output, q_output, q_scale_output, output_count };

Violation check(const Contract& contract) {
  const MatmulI8Params& params = params_of(contract.params);
  constexpr int y_operand = output_operand + y_output, q_operand = output_operand + q_output,
                q_scale_operand = output_operand + q_scale_output;
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
      !check.optional(residual_input, rank) || !check.optional(y_operand, rank) ||
      !check.optional(q_operand, rank, Type::i8) || !check.optional(q_scale_operand, rank)) {
    return check.violation();
  }
  check.equal(contract.output(q_scale_output) != nullptr, q != nullptr, q_scale_operand,
              "q and q_scale are not given together");
  const Shape& result = y != nullptr ? *y : *q;
  const int32_t k = a.dims[rank - 1], n = result.dims[rank - 1];
  for (int axis = 0; axis < rank - 1; ++axis)
    for (const int operand : {a_scale_input + 0, residual_input + 0, y_operand, q_operand, q_scale_operand})
      check.dim(operand, axis, a.dims[axis], "a and another operand differ in a leading axis");
  for (const int operand : {residual_input + 0, q_operand})
    check.dim(operand, -1, n, "y and another operand differ in columns");
  check.dim(a_scale_input, -1, 1, "a_scale has not one column");
  const int64_t panels = (int64_t{n} + 15) / 16;
  check.dim(b_input, 0, panels, "b has not the panels for y's columns");
  check.dim(b_input, 1, (int64_t{k} + 3) / 4, "inner dimensions of a and b differ");
  check.dim(b_input, 2, 16, "a panel of b is not 16 wide");
  check.dim(b_input, 3, 4, "b's groups are not of 4");
  for (const int operand : {b_scale_input, b_sum_input}) {
    check.dim(operand, 0, panels, "b and the scales or sums of its columns differ in panels");
    check.dim(operand, 1, 16, "a panel of b's scales or sums is not 16 wide");
    if (!check.violation())
      check.holds(is_dense(*contract.input(operand)), "b's scales or sums have gaps", operand, 0, 1);
  }
  if (check.violation()) return check.violation();
  check.holds(is_dense(*contract.input(b_input)), "b has gaps", b_input, 0, 1);
  check.in_range(k, 0, most_terms_i8, a_input, "sums of so many terms do not fit int32");
  check.dim(bias_input, 0, n, "bias and y differ in columns");
  if (q != nullptr) {
    const int32_t groups = contract.output(q_scale_output)->dims[rank - 1];
    check.holds(groups > 0 && n % groups == 0, "the columns are no multiple of the groups", q_scale_operand, n, groups);
  }
  for (const int operand : {a_input + 0, bias_input + 0, residual_input + 0, y_operand, q_operand, q_scale_operand})
    check.last_stride(operand);
  return check.violation();
}

/// Elements of a row of each part of the scratch.
struct Rows {
  int64_t expanded, sums;
};
Rows rows_of(const Shape& a, const Shape* y, const Shape* q) {
  const auto whole = [](int64_t count) { return (count + 15) / 16 * 16; };
  return {whole(a.dims[a.rank - 1]), y == nullptr ? whole(q->dims[q->rank - 1]) : 0};
}

uint64_t scratch(const Contract& contract) {
  const Rows rows = rows_of(*contract.input(a_input), contract.output(y_output), contract.output(q_output));
  return (params_of(contract.params).block_rows *
          (Size(sizeof(int16_t)) * rows.expanded + Size(sizeof(float)) * rows.sums))
      .value;
}

bool in_place(const Contract&, int input, int output) {
  return input == residual_input && output == y_output;
}

void run(const Invocation& call) {
  const MatmulI8Params& params = params_of(call.params);
  const Tensor a = call.input(a_input), a_scale = call.input(a_scale_input), bias = call.input(bias_input),
               residual = call.input(residual_input), y = call.output(y_output), q = call.output(q_output),
               q_scale = call.output(q_scale_output);
  const Shape& result = y ? *y.shape : *q.shape;
  if (element_count(result) == 0) return;
  const int last = result.rank - 1;
  const Rows scratch_rows = rows_of(*a.shape, y.shape, q.shape);
  MatmulI8Args whole{};
  whole.b = call.input(b_input).as<int8_t>();
  whole.b_scale = call.input(b_scale_input).as<float>();
  whole.b_sum = call.input(b_sum_input).as<int32_t>();
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.n = result.dims[last];
  whole.k = a.shape->dims[last];
  whole.groups = q ? q_scale.shape->dims[last] : 1;
  whole.block_rows = params.block_rows;
  whole.activation = params.activation;

  // An absent operand steps like none.
  const Tensor operands[] = {a, a_scale, residual, y, q, q_scale};
  enum { a_step, a_scale_step, residual_step, y_step, q_step, q_scale_step, steps };
  Axes<steps> rows;
  for (int axis = 0; axis < last; ++axis) {
    int64_t strides[steps];
    for (int i = 0; i < steps; ++i) strides[i] = operands[i] ? operands[i].shape->strides[axis] : 0;
    rows.push(result.dims[axis], strides);
  }
  whole.a_row = rows.step(a_step);
  whole.a_scale_row = rows.step(a_scale_step);
  whole.residual_row = rows.step(residual_step);
  whole.y_row = rows.step(y_step);
  whole.q_row = rows.step(q_step);
  whole.q_scale_row = rows.step(q_scale_step);

  const auto kernel = matmul_i8_variants[call.isa];
  const auto run_rows = [&](const int64_t(&offsets)[steps], int64_t length, int column, int columns,
                            std::byte* scratch) {
    const auto at = [&](const Tensor& operand, int step, auto* none) {
      return operand ? operand.as<std::remove_pointer_t<decltype(none)>>() + offsets[step] : none;
    };
    MatmulI8Args args = whole;
    args.rows = static_cast<int32_t>(length);
    args.a = at(a, a_step, args.q);
    args.a_scale = at(a_scale, a_scale_step, args.y);
    args.residual = at(residual, residual_step, args.y);
    args.y = at(y, y_step, args.y);
    args.q = at(q, q_step, args.q);
    args.q_scale = at(q_scale, q_scale_step, args.y);
    args.expanded = reinterpret_cast<int16_t*>(scratch);
    args.sums = reinterpret_cast<float*>(args.expanded + args.block_rows * scratch_rows.expanded);
    args.n = columns;
    args.b += int64_t{column} * 4 * ((args.k + 3) / 4);
    args.b_scale += column;
    args.b_sum += column;
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

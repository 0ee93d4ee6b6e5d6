#include "kernels/matmul/matmul.h"

#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {

void matmul(const MatmulArgs& args) {
  for (int m = 0; m < args.rows; ++m) {
    for (int n = 0; n < args.n; ++n) {
      const float* b = args.packed ? args.b + int64_t{n / 16} * args.k * 16 + n % 16 : args.b + n * args.b_n;
      const int64_t b_k = args.packed ? 16 : args.b_k;
      float sum = 0.0f;
      for (int k = 0; k < args.k; ++k) sum = fma(args.a[m * args.a_row + k * args.a_k], b[k * b_k], sum);
      if (args.bias != nullptr) sum += args.bias[n];
      if (args.residual != nullptr) sum += args.residual[m * args.residual_row + n];
      args.y[m * args.y_row + n] = apply(args.activation, sum);
    }
  }
}

}  // namespace portable

namespace {

const MatmulParams& params_of(const void* params) {
  return *static_cast<const MatmulParams*>(params);
}

Violation check(const Contract& contract) {
  const MatmulParams& params = params_of(contract.params);
  Check check(contract);
  check.in_range(contract.input_count, 0, 4, contract.input_count - 1, "too many inputs");
  check.equal(contract.output_count, 1, output_operand, "not one output");
  check.holds(static_cast<int>(params.activation) < activation_count, "unknown activation", output_operand,
              static_cast<int>(params.activation), activation_count - 1);
  check.in_range(params.packed, 0, 1, 1, "packed is neither 0 nor 1");
  if (!check.operand(0, -1) || !check.operand(output_operand, -1)) return check.violation();

  const Shape &a = *contract.input(0), &y = *contract.output(0);
  const int rank = y.rank;
  if (!check.holds(rank >= 2, "y has fewer than two axes", output_operand, rank, 2)) return check.violation();
  if (!check.operand(0, rank) || !check.operand(1, params.packed ? 3 : rank) || !check.optional(2, 1) ||
      !check.optional(3, rank)) {
    return check.violation();
  }
  const Shape& b = *contract.input(1);
  const int32_t rows = y.dims[rank - 2], n = y.dims[rank - 1], k = a.dims[rank - 1];
  check.dim(0, -2, rows, "a and y differ in rows");
  for (int axis = 0; axis < rank; ++axis) {
    const bool batch = axis < rank - 2;
    if (batch) check.dim(0, axis, y.dims[axis], "a and y differ in a leading axis");
    if (batch && !params.packed) check.dim(1, axis, y.dims[axis], "b and y differ in a leading axis");
    check.dim(3, axis, y.dims[axis], "residual and y differ in an axis");
  }
  if (params.packed) {
    check.dim(1, 0, (int64_t{n} + 15) / 16, "b has not the panels for y's columns");
    check.dim(1, 1, k, "inner dimensions of a and b differ");
    check.dim(1, 2, 16, "a panel of b is not 16 wide");
    check.holds(is_dense(b), "packed b has gaps", 1, 0, 1);
  } else {
    check.dim(1, -2, k, "inner dimensions of a and b differ");
    check.dim(1, -1, n, "b and y differ in columns");
  }
  check.dim(2, 0, n, "bias and y differ in columns");
  check.last_stride(2);
  check.last_stride(3);
  check.last_stride(output_operand);
  return check.violation();
}

/// One panel of b, [K][16].
uint64_t scratch(const Contract& contract) {
  if (params_of(contract.params).packed) return 0;
  const Shape& a = *contract.input(0);
  return (Size(16 * sizeof(float)) * a.dims[a.rank - 1]).value;
}

bool in_place(const Contract&, int input, int output) {
  return input == 3 && output == 0;
}

/// One matrix product is split by rows or by columns, into `parts` tasks of `rows` rows or `panels` panels each.
struct Split {
  int parts, rows, panels;
};

Split split_of(const MatmulArgs& args, uint32_t threads, uint32_t batches) {
  const int panels = (args.n + 15) / 16;
  // Waking a thread costs about as much as these multiply-accumulates.
  constexpr int64_t least = 1 << 16;
  const int64_t macs = int64_t{args.rows} * args.n * args.k;
  if (threads <= 1 || batches >= 2 * threads || macs < 2 * least) return {1, args.rows, panels};
  const int wanted = static_cast<int>(macs / least < threads ? macs / least : threads);
  // Each part of rows reads, or packs, all of b: worth it where rows are many, and where panels are too few.
  const bool by_rows = args.packed ? args.rows >= 16 * wanted : panels < wanted;
  const int count = by_rows ? args.rows : panels, each = (count + wanted - 1) / wanted;
  return {(count + each - 1) / each, by_rows ? each : args.rows, by_rows ? panels : each};
}

void run(const Invocation& call) {
  const MatmulParams& params = params_of(call.params);
  const Tensor a = call.input(0), b = call.input(1), bias = call.input(2), residual = call.input(3), y = call.output(0);
  if (element_count(*y.shape) == 0) return;
  const int rank = y.shape->rank;
  const int32_t *a_strides = a.shape->strides, *y_strides = y.shape->strides;
  MatmulArgs whole{};
  whole.a = a.as<float>();
  whole.b = b.as<float>();
  whole.bias = bias ? bias.as<float>() : nullptr;
  whole.residual = residual ? residual.as<float>() : nullptr;
  whole.y = y.as<float>();
  whole.rows = y.shape->dims[rank - 2];
  whole.n = y.shape->dims[rank - 1];
  whole.k = a.shape->dims[rank - 1];
  whole.a_row = a_strides[rank - 2];
  whole.a_k = a_strides[rank - 1];
  whole.y_row = y_strides[rank - 2];
  whole.residual_row = residual ? residual.shape->strides[rank - 2] : 0;
  whole.packed = params.packed;
  whole.activation = params.activation;
  if (!whole.packed) {
    whole.b_k = b.shape->strides[rank - 2];
    whole.b_n = b.shape->strides[rank - 1];
  }

  // Where one b serves all, leading axes whose rows go on at the same stride are more rows.
  enum { a_step, b_step, residual_step, y_step };
  Axes<4> batch;
  for (int axis = 0; axis < (whole.packed ? rank - 1 : rank - 2); ++axis) {
    batch.push(y.shape->dims[axis], {a_strides[axis], whole.packed ? 0 : b.shape->strides[axis],
                                     residual ? residual.shape->strides[axis] : 0, y_strides[axis]});
  }
  if (whole.packed && batch.rank > 0) {
    const int last = --batch.rank;
    whole.rows = static_cast<int32_t>(batch.dims[last]);
    whole.a_row = batch.strides[a_step][last];
    whole.residual_row = batch.strides[residual_step][last];
    whole.y_row = batch.strides[y_step][last];
  }

  const auto kernel = matmul_variants[call.isa];
  const uint32_t batches = static_cast<uint32_t>(batch.count());
  const Split split = split_of(whole, call.parallel == nullptr ? 1 : call.parallel->threads, batches);
  const uint32_t parts = static_cast<uint32_t>(split.parts);
  call.for_each(batches * parts, [&](uint32_t index, std::byte* scratch) {
    MatmulArgs args = whole;
    args.scratch = scratch;
    const int part = static_cast<int>(index % parts);
    index /= parts;
    for (int axis = batch.rank - 1; axis >= 0; --axis) {
      const uint32_t dim = static_cast<uint32_t>(batch.dims[axis]);
      const int64_t at = index % dim;
      index /= dim;
      args.a += at * batch.strides[a_step][axis];
      args.b += at * batch.strides[b_step][axis];
      if (args.residual != nullptr) args.residual += at * batch.strides[residual_step][axis];
      args.y += at * batch.strides[y_step][axis];
    }
    if (split.rows < whole.rows) {
      const int first = part * split.rows;
      args.rows = whole.rows - first < split.rows ? whole.rows - first : split.rows;
      args.a += first * args.a_row;
      if (args.residual != nullptr) args.residual += first * args.residual_row;
      args.y += first * args.y_row;
    } else {
      const int first = part * split.panels * 16, columns = split.panels * 16;
      args.n = whole.n - first < columns ? whole.n - first : columns;
      args.b += args.packed ? int64_t{first} * args.k : first * args.b_n;
      if (args.bias != nullptr) args.bias += first;
      if (args.residual != nullptr) args.residual += first;
      args.y += first;
    }
    kernel(args);
  });
}

Isa variant(Isa ceiling) {
  return matmul_variants.level(ceiling);
}

}  // namespace

const Operator matmul_operator = {"matmul", check, scratch, in_place, run, variant};

}  // namespace heed

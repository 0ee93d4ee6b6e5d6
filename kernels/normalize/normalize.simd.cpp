#include "kernels/normalize/normalize.h"

#include "kernels/matmul/tile.h"
#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {
namespace {

/// Rows whose sums are made side by side: one row's chains of additions would wait for themselves.
inline constexpr int most_rows = most_normalized_rows / panel_vectors;

/// Of each row the 16 accumulators after step(accumulator, row, x[i..]), joined; the lanes past its end are left out.
template <int rows, class Step>
HEED_INLINE void sum_rows(const float* x, int64_t x_row, int n, F (&to)[rows], Step step) {
  Lanes16 sums[rows];
  unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { sums[r] = Lanes16::zero(); });
  int i = 0;
  for (; i + 16 <= n; i += 16)
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      unroll<panel_vectors>(
          [&](auto j) HEED_INLINE_LAMBDA { sums[r].v[j] = step(sums[r].v[j], r, load(x + r * x_row + i + j * W)); });
    });
  if (i < n)
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      unroll<panel_vectors>([&](auto j) HEED_INLINE_LAMBDA {
        const int left = n - i - j * W;
        F& sum = sums[r].v[j];
        sum = select(first_lanes(left), step(sum, r, load_first(x + r * x_row + i + j * W, left)), sum);
      });
    });
  unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { to[r] = splat(sums[r].fold_sum()); });
}

template <bool has_scale, bool has_bias>
HEED_INLINE void finish_row(const NormalizeArgs& args, const float* x, float* y, F mean, F rstd) {
  const auto result = [&](F a, auto read) HEED_INLINE_LAMBDA {
    const F z = (a - mean) * rstd;
    if constexpr (has_scale && has_bias)
      return fma(z, read(args.scale), read(args.bias));
    else if constexpr (has_scale)
      return z * read(args.scale);
    else if constexpr (has_bias)
      return z + read(args.bias);
    else
      return z;
  };
  int i = 0;
  for (; i + W <= args.n; i += W)
    store(y + i, result(load(x + i), [&](const float* p) HEED_INLINE_LAMBDA { return load(p + i); }));
  if (const int left = args.n - i; left > 0) {
    const auto read = [&](const float* p) HEED_INLINE_LAMBDA { return load_first(p + i, left); };
    store_first(y + i, result(read(x), read), left);
  }
}

template <bool has_scale, bool has_bias, int rows>
HEED_INLINE void normalize_rows(const NormalizeArgs& args, int row) {
  const float* x = args.x + row * args.x_row;
  const F one_nth = splat(1.0f / static_cast<float>(args.n)), epsilon = splat(args.params.epsilon);
  F mean[rows], rstd[rows];
  unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { mean[r] = zero(); });
  if (args.params.kind == Normalization::layer) {
    sum_rows(x, args.x_row, args.n, mean, [](F sum, auto, F a) HEED_INLINE_LAMBDA { return sum + a; });
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { mean[r] = mean[r] * one_nth; });
  }
  sum_rows(x, args.x_row, args.n, rstd,
           [&](F sum, auto r, F a) HEED_INLINE_LAMBDA { return fma(a - mean[r], a - mean[r], sum); });
  float means[rows], rstds[rows];
  unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
    means[r] = first_lane(mean[r]);
    rstds[r] = first_lane(div(splat(1.0f), sqrt(rstd[r] * one_nth + epsilon)));
  });
  float* y = args.y != nullptr ? args.y + row * args.y_row : args.scratch;
  const int64_t y_row = args.y != nullptr ? args.y_row : args.n;
  for (int r = 0; r < rows; ++r)
    finish_row<has_scale, has_bias>(args, x + r * args.x_row, y + r * y_row, splat(means[r]), splat(rstds[r]));
  if (args.to.q != nullptr) quantize_rows(y, y_row, rows, args.n, args.to.from(row));
}

template <bool has_scale, bool has_bias>
void normalize_all(const NormalizeArgs& args) {
  int row = 0;
  for (; row + most_rows <= args.rows; row += most_rows) normalize_rows<has_scale, has_bias, most_rows>(args, row);
  for (; row < args.rows; ++row) normalize_rows<has_scale, has_bias, 1>(args, row);
}

}  // namespace

void normalize(const NormalizeArgs& args) {
  if (args.scale != nullptr && args.bias != nullptr)
    normalize_all<true, true>(args);
  else if (args.scale != nullptr)
    normalize_all<true, false>(args);
  else if (args.bias != nullptr)
    normalize_all<false, true>(args);
  else
    normalize_all<false, false>(args);
}

}  // namespace heed::HEED_ISA

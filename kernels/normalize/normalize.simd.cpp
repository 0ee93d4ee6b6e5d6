#include "kernels/normalize/normalize.h"

#include "kernels/simd.h"

#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {
namespace {

/// The 16 accumulators after step(accumulator, x[i..]) over a row; the lanes past its end are left out.
template <class Step>
HEED_INLINE float sum_row(const float* x, int n, Step step) {
  Lanes16 sums = Lanes16::zero();
  int i = 0;
  for (; i + 16 <= n; i += 16)
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { sums.v[j] = step(sums.v[j], load(x + i + j * W)); });
  if (i < n)
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA {
      const int left = n - i - j * W;
      sums.v[j] = select(first_lanes(left), step(sums.v[j], load_first(x + i + j * W, left)), sums.v[j]);
    });
  return sums.fold_sum();
}

template <bool has_scale, bool has_bias>
HEED_INLINE void normalize_row(const NormalizeArgs& args, const float* x, float* y, float one_nth) {
  F mean = zero();
  if (args.params.kind == Normalization::layer)
    mean = splat(sum_row(x, args.n, [](F sum, F a) HEED_INLINE_LAMBDA { return sum + a; })) * splat(one_nth);
  const F squares =
      splat(sum_row(x, args.n, [&](F sum, F a) HEED_INLINE_LAMBDA { return fma(a - mean, a - mean, sum); }));
  const F rstd = div(splat(1.0f), sqrt(squares * splat(one_nth) + splat(args.params.epsilon)));

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

template <bool has_scale, bool has_bias>
void normalize_rows(const NormalizeArgs& args) {
  const float one_nth = 1.0f / static_cast<float>(args.n);
  for (int row = 0; row < args.rows; ++row) {
    float* y = args.y + row * args.y_row;
    normalize_row<has_scale, has_bias>(args, args.x + row * args.x_row, y, one_nth);
    if (args.q != nullptr)
      quantize_rows(y, 0, 1, args.n, args.groups, args.q + row * args.q_row, 0, args.q_scale + row * args.q_scale_row,
                    0);
  }
}

}  // namespace

void normalize(const NormalizeArgs& args) {
  if (args.scale != nullptr && args.bias != nullptr)
    normalize_rows<true, true>(args);
  else if (args.scale != nullptr)
    normalize_rows<true, false>(args);
  else if (args.bias != nullptr)
    normalize_rows<false, true>(args);
  else
    normalize_rows<false, false>(args);
}

}  // namespace heed::HEED_ISA

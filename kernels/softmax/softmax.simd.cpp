#include "kernels/softmax/softmax.h"

#include "kernels/simd.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

constexpr int vectors = 16 / W;

/// One row: the largest element, e^(x - top) kept in y while it is summed, then scaled. Lanes past the end hold -inf,
/// whose exponential is 0.
template <bool log>
HEED_INLINE void softmax_row(const float* x, float* y, int n) {
  const F bottom = splat(-__builtin_inff());
  const int whole = n & ~15, rest = n - whole;
  // NaN in x makes every element NaN through the sum, whatever the largest element is then.
  Lanes16 tops = Lanes16::splat(-__builtin_inff());
  for (int i = 0; i < whole; i += 16)
    unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA { tops.v[j] = max_fast(tops.v[j], load(x + i + j * W)); });
  const auto tail = [&](auto j) HEED_INLINE_LAMBDA {
    const int left = rest - j * W;
    return select(first_lanes(left), load_first(x + whole + j * W, left), bottom);
  };
  if (rest > 0) unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA { tops.v[j] = max_fast(tops.v[j], tail(j)); });
  const F top = splat(tops.fold([](F a, F b) HEED_INLINE_LAMBDA { return max_fast(a, b); }));

  Lanes16 sums = Lanes16::zero();
  for (int i = 0; i < whole; i += 16)
    unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
      const F e = exp_nonpositive(load(x + i + j * W) - top);
      sums.v[j] = sums.v[j] + e;
      if (!log) store(y + i + j * W, e);
    });
  if (rest > 0)
    unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
      const int left = rest - j * W;
      const F e = select(first_lanes(left), exp_nonpositive(tail(j) - top), zero());
      sums.v[j] = sums.v[j] + e;
      if (!log) store_first(y + whole + j * W, e, left);
    });
  const F sum = splat(sums.fold_sum());

  if constexpr (log) {
    const F log_sum = HEED_ISA::log(sum);
    int i = 0;
    for (; i + W <= n; i += W) store(y + i, (load(x + i) - top) - log_sum);
    if (i < n) store_first(y + i, (load_first(x + i, n - i) - top) - log_sum, n - i);
  } else {
    const F scale = div(splat(1.0f), sum);
    int i = 0;
    for (; i + W <= n; i += W) store(y + i, load(y + i) * scale);
    if (i < n) store_first(y + i, load_first(y + i, n - i) * scale, n - i);
  }
}

}  // namespace

void softmax(const SoftmaxArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_row;
    float* y = args.y + row * args.y_row;
    if (args.log)
      softmax_row<true>(x, y, args.n);
    else
      softmax_row<false>(x, y, args.n);
  }
}

}  // namespace heed::HEED_ISA

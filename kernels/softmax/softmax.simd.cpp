#include "kernels/softmax/softmax.h"

#include "kernels/simd.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

constexpr int vectors = 16 / W;

/// One row: the largest element, e^(x - top) kept in y while it is summed, then scaled. What is over after multiples of
/// 16 stays in registers; lanes past the end hold -inf there, whose exponential is 0.
template <bool log>
HEED_INLINE void softmax_row(const float* x, float* y, int n) {
  const F bottom = splat(-__builtin_inff());
  const int whole = n & ~15, rest = n - whole;
  Lanes16 tops = Lanes16::splat(-__builtin_inff()), tail = tops;
  unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
    if (const int left = rest - j * W; left > 0)
      tail.v[j] = select(first_lanes(left), load_first(x + whole + j * W, left), bottom);
  });
  // NaN in x makes every element NaN through the sum, whatever the largest element is then.
  for (int i = 0; i < whole; i += 16)
    unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA { tops.v[j] = max_fast(tops.v[j], load(x + i + j * W)); });
  unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA { tops.v[j] = max_fast(tops.v[j], tail.v[j]); });
  const F top = splat(tops.fold([](F a, F b) HEED_INLINE_LAMBDA { return max_fast(a, b); }));

  Lanes16 sums = Lanes16::zero();
  for (int i = 0; i < whole; i += 16)
    unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
      const F e = exp_nonpositive(load(x + i + j * W) - top);
      sums.v[j] = sums.v[j] + e;
      if (!log) store(y + i + j * W, e);
    });
  unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
    if (const int left = rest - j * W; left > 0) {
      const F difference = tail.v[j] - top, e = exp_nonpositive(difference);
      tail.v[j] = log ? difference : e;
      sums.v[j] = sums.v[j] + select(first_lanes(left), e, zero());  // -inf - top is NaN where top is -inf
    }
  });
  const F sum = splat(sums.fold_sum());

  const F scale = log ? HEED_ISA::log(sum) : div(splat(1.0f), sum);
  for (int i = 0; i < whole; i += W) store(y + i, log ? (load(x + i) - top) - scale : load(y + i) * scale);
  unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
    if (const int left = rest - j * W; left > 0)
      store_first(y + whole + j * W, log ? tail.v[j] - scale : tail.v[j] * scale, left);
  });
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

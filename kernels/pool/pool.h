#pragma once
/// y[n, o, c] = maximum, mean or sum over the taps k of x[n, o * stride + k * dilation - before, c]
///
/// o and k count over depth, height and width. Taps outside of the image contribute nothing. max: from -inf, taps
/// row-major, NaN propagates, +0 above -0, a subnormal is zero. sum: one chain of additions over the taps, row-major,
/// from +0. mean: the sum times 1/n rounded, where n counts the taps inside the image made larger by count_before and
/// count_after on its sides.
///
/// inputs: 0 x f32 [N, D, H, W, C], last stride 1. outputs: 0 y f32 [N, D', H', W', C], last stride 1. scratch: none.
/// Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"
#include "kernels/window.h"

namespace heed {

enum class Pooling : uint8_t { max, mean, sum };

struct PoolParams {
  Pooling kind;
  uint8_t reserved[3];
  Window window;
  int32_t count_before[3], count_after[3];
};

/// Some positions of one line of outputs.
struct PoolArgs {
  WindowLine line;
  float* y;  // position 0 of the line
  int32_t channels;
  int64_t y_step;
  PoolParams params;
};

HEED_DECLARE_VARIANTS(pool, PoolArgs)

namespace {

/// The taps of one position that lie inside, and the mean's factor.
struct PoolTaps {
  TapRange range[3];
  int64_t steps[3];  // from tap to tap
  int64_t start;     // of what would be tap 0, from the image's first element
  float factor = 1.0f;

  HEED_INLINE PoolTaps(const PoolArgs& args, int64_t position) : start(0) {
    const Window& window = args.params.window;
    int64_t counted = 1;
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t origin = axis < 2 ? args.line.origin[axis] : position * window.strides[2] - window.before[2];
      const int64_t before = args.params.count_before[axis], after = args.params.count_after[axis];
      range[axis] = taps_inside(window, axis, origin, args.line.size[axis]);
      const TapRange all = taps_inside(window, axis, origin + before, args.line.size[axis] + before + after);
      counted *= all.last - all.first;
      steps[axis] = window.dilations[axis] * args.line.steps[axis];
      start += origin * args.line.steps[axis];
    }
    if (args.params.kind == Pooling::mean) factor = 1.0f / static_cast<float>(counted);
  }

  /// Calls body(offset from the image's first element) for each.
  template <class Body>
  HEED_INLINE void for_each(Body body) const {
    for (int32_t d = range[0].first; d < range[0].last; ++d)
      for (int32_t h = range[1].first; h < range[1].last; ++h)
        for (int32_t w = range[2].first; w < range[2].last; ++w)
          body(start + d * steps[0] + h * steps[1] + w * steps[2]);
  }
};

}  // namespace
}  // namespace heed

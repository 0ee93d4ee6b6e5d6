#pragma once
/// Windows that move over the depth, height and width of images, channels last: what `conv` and `pool` share. Internal
/// linkage: see simd.h.
#include "kernels/axes.h"
#include "kernels/contract.h"
#include "kernels/inline.h"

namespace heed {

/// Each array is depth, height, width; an axis that a model lacks has size, kernel, stride and dilation 1. Tap k of
/// output o lies at o * stride + k * dilation - before.
struct Window {
  int32_t kernel[3], strides[3], dilations[3], before[3];
};

/// Positions beside each other along the width, and the image they look at.
struct WindowLine {
  const float* x;       // [D, H, W, C]
  int32_t size[3];      // D, H, W
  int64_t steps[3];     // strides of D, H, W; that of C is 1
  int64_t origin[2];    // depth and height of the first tap, outside of the image maybe
  int32_t first, last;  // the positions
};

namespace {

/// Elements from the first to the last tap of an axis, both included.
HEED_INLINE int64_t reach(const Window& window, int axis) {
  return int64_t{window.kernel[axis] - 1} * window.dilations[axis] + 1;
}

struct TapRange {
  int32_t first, last;
};

/// The taps of an axis whose elements lie in [0, size), where tap 0 lies at `origin`.
HEED_INLINE TapRange taps_inside(const Window& window, int axis, int64_t origin, int64_t size) {
  const int64_t dilation = window.dilations[axis];
  const int64_t first = origin < 0 ? (dilation - 1 - origin) / dilation : 0;
  const int64_t last = origin < size ? (size - 1 - origin) / dilation + 1 : 0;
  const int64_t end = last < window.kernel[axis] ? last : window.kernel[axis];
  return {static_cast<int32_t>(first < end ? first : end), static_cast<int32_t>(end)};
}

/// The numbers of a window, and the axes of x and y that it leaves as they are.
inline void check_window(Check& check, const Contract& contract, const Window& window) {
  constexpr int32_t most = 1 << 16;  // products of two fit 64 bits many times over
  for (int axis = 0; axis < 3; ++axis) {
    check.in_range(window.kernel[axis], 1, most, 1, "a kernel's size is out of range");
    check.in_range(window.strides[axis], 1, most, output_operand, "a stride is out of range");
    check.in_range(window.dilations[axis], 1, most, 1, "a dilation is out of range");
    check.in_range(window.before[axis], 0, most, 0, "a padding is out of range");
  }
  if (!check.operand(0, 5) || !check.operand(output_operand, 5)) return;
  check.dim(output_operand, 0, contract.input(0)->dims[0], "x and y differ in images");
  check.last_stride(0);
  check.last_stride(output_operand);
}

/// Calls body(line, offset of the line's image and position 0 in y's strides as indices, scratch) for all of y. `work`:
/// multiply-accumulates, or what takes as long, of the whole.
template <class Body>
void for_each_line(const Invocation& call, const Window& window, int64_t work, Body&& body) {
  const Tensor x = call.input(0);
  const Shape &from = *x.shape, &to = *call.output(0).shape;
  const int64_t lines = int64_t{to.dims[0]} * to.dims[1] * to.dims[2];
  const int32_t width = to.dims[3];
  if (lines == 0 || width == 0) return;
  // Few long lines are cut; a piece fills the tallest tiles a few times.
  constexpr int32_t least_width = 24;
  constexpr int64_t least_work = 1 << 16;  // waking a thread costs about as much
  const int64_t threads = call.parallel == nullptr ? 1 : call.parallel->threads;
  const int64_t wanted = threads <= 1 ? 1 : (4 * threads + lines - 1) / lines;
  const int64_t even = (width + wanted - 1) / wanted;
  const auto each = static_cast<int32_t>(even < least_width ? (width < least_width ? width : least_width) : even);
  const int64_t pieces = (width + each - 1) / each, count = lines * pieces;
  split(call, count, 1 + least_work * count / (work + 1), [&](int64_t begin, int64_t end, std::byte* scratch) {
    for (int64_t index = begin; index < end; ++index) {
      const auto piece = static_cast<int32_t>(index % pieces);
      int64_t rest = index / pieces, at[3];  // image, depth, height of the outputs
      for (int axis = 2; axis >= 0; --axis) at[axis] = rest % to.dims[axis], rest /= to.dims[axis];
      WindowLine line;
      line.x = x.as<float>() + at[0] * from.strides[0];
      for (int axis = 0; axis < 3; ++axis) {
        line.size[axis] = from.dims[axis + 1];
        line.steps[axis] = from.strides[axis + 1];
        if (axis < 2) line.origin[axis] = at[axis + 1] * window.strides[axis] - window.before[axis];
      }
      line.first = piece * each;
      line.last = width - line.first < each ? width : line.first + each;
      body(line, at, scratch);
    }
  });
}

/// The offset of image, depth and height in a tensor of y's dimensions.
HEED_INLINE int64_t line_offset(const Shape& shape, const int64_t (&at)[3]) {
  return at[0] * shape.strides[0] + at[1] * shape.strides[1] + at[2] * shape.strides[2];
}

}  // namespace
}  // namespace heed

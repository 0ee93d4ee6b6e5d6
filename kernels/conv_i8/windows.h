#pragma once
/// The convolution in int8: windows become rows of a product. After kernels/simd.h or kernels/scalar.h.
#include "kernels/conv_i8/conv_i8.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {
namespace {

/// The windows along one line.
class Windows {
 public:
  explicit Windows(const ConvI8Args& args)
      : args_(args), window_(args.params.window), inputs_(args.channels / args.params.groups) {
    for (int axis = 0; axis < 2; ++axis)
      taps_[axis] = taps_inside(window_, axis, args.line.origin[axis], args.line.size[axis]);
    for (int axis = 0; axis < 3; ++axis) step_[axis] = args.line.steps[axis] * window_.dilations[axis];
    // What would be tap 0 of position 0; not to be read where it lies outside.
    origin_ = args.line.x + (args.line.origin[0] * args.line.steps[0] + args.line.origin[1] * args.line.steps[1] -
                             window_.before[2] * args.line.steps[2]);
  }

  /// q [k] of one group of a position's window.
  HEED_INLINE void quantize(int32_t group, int32_t position, int32_t k, int8_t* q, float* scale, int32_t* zero) const {
    const int64_t first = int64_t{position} * window_.strides[2] - window_.before[2], size = args_.line.size[2];
    TapRange taps{0, window_.kernel[2]};
    if (first < 0 || first + reach(window_, 2) > size) taps = taps_inside(window_, 2, first, size);
    const float* x = origin_ + (int64_t{position} * window_.strides[2] * args_.line.steps[2] + group * inputs_);
    Extents extents;
    int32_t inside = 0;
    for_each_run(x, taps, [&](const float* from, int32_t n, int32_t) HEED_INLINE_LAMBDA {
      extents.take(from, n);
      inside += n;
    });
    const auto [high, low] = extents.fold();
    const Quantizers made = Quantizers::asymmetric(splat(high), splat(low));
    const Quantizer quantizer(made.inverse, made.zero, made.keep);
    *scale = first_lane(made.scale);
    *zero = first_lane(made.zero);
    if (inside < k) __builtin_memset(q, *zero, static_cast<size_t>(k));
    for_each_run(x, taps, [&](const float* from, int32_t n, int32_t at) HEED_INLINE_LAMBDA {
      quantize_with(quantizer, from, n, q + at);
    });
  }

 private:
  /// Calls body(first element in memory, how many lie there, the place of the first in the row) for what is inside.
  template <class Body>
  HEED_INLINE void for_each_run(const float* x, TapRange taps, Body body) const {
    const bool together = step_[2] == inputs_;
    const int32_t width = taps.last - taps.first, runs = together ? width > 0 : width;
    for (int32_t d = taps_[0].first; d < taps_[0].last; ++d)
      for (int32_t h = taps_[1].first; h < taps_[1].last; ++h)
        for (int32_t tap = taps.first; tap < taps.first + runs; ++tap)
          body(x + (d * step_[0] + h * step_[1] + tap * step_[2]), together ? width * inputs_ : inputs_,
               ((d * window_.kernel[1] + h) * window_.kernel[2] + tap) * inputs_);
  }

  const ConvI8Args& args_;
  const Window& window_;
  int32_t inputs_;  // channels of a group
  TapRange taps_[2];
  int64_t step_[3];
  const float* origin_;
};

void convolve(const ConvI8Args& args) {
  const Window& window = args.params.window;
  const int32_t outputs = args.outputs / args.params.groups, panels = (outputs + 15) / 16,
                k = window.kernel[0] * window.kernel[1] * window.kernel[2] * (args.channels / args.params.groups);
  const Windows windows(args);
  const int64_t row = (int64_t{k} + 15) / 16 * 16, panel = (int64_t{k} + 3) / 4 * 64;
  for (int32_t first = args.line.first; first < args.line.last; first += args.params.block_rows) {
    const int32_t left = args.line.last - first;
    MatmulI8Args product{};
    product.rows = left < args.params.block_rows ? left : args.params.block_rows;
    product.a = args.rows;
    product.a_scale = args.scale;
    product.a_row = row;
    product.a_scale_row = 1;
    product.a_zero = args.zero;
    product.a_zero_row = 1;
    product.n = outputs;
    product.k = k;
    product.block_rows = args.params.block_rows;
    product.y_row = args.y_step;
    product.residual_row = args.residual_step;
    product.activation = args.params.activation;
    product.converted = args.converted;
    for (int32_t group = 0; group < args.params.groups; ++group) {
      for (int32_t i = 0; i < product.rows; ++i)
        windows.quantize(group, first + i, k, args.rows + i * row, args.scale + i, args.zero + i);
      product.b = args.w + group * panels * panel;
      product.b_scale = args.w_scale + group * panels * 16;
      product.b_sum = args.w_sum + group * panels * 16;
      product.bias = args.bias == nullptr ? nullptr : args.bias + group * outputs;
      product.residual =
          args.residual == nullptr ? nullptr : args.residual + first * args.residual_step + group * outputs;
      product.y = args.y + first * args.y_step + group * outputs;
      matmul_i8(product);
    }
  }
}

}  // namespace
}  // namespace heed::HEED_ISA

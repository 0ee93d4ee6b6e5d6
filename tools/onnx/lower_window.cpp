// Operators that move a window over the spatial axes of [N, C, spatial..]: convolutions and poolings. Ours have the
// channels last; the transposes around each cancel where one follows another (tools/passes/canonical.cpp).
#include <algorithm>
#include <numeric>

#include "tools/onnx/quantized.h"

namespace heed::tools {
namespace {

using onnx::DataType;

constexpr int64_t most = 1 << 16;  // of a kernel, stride, dilation or padding: kernels/window.h

size_t at(int64_t axis) {
  return static_cast<size_t>(axis);
}

/// [N, C, spatial..] as [N, spatial.., C]; `lead` axes stay in front.
ValueId channels_last(Lowering& l, ValueId x, int lead = 1) {
  std::vector<int> permutation(at(l.rank(x)));
  std::iota(permutation.begin(), permutation.end(), 0);
  std::rotate(permutation.begin() + lead, permutation.begin() + lead + 1, permutation.end());
  return l.transpose(x, permutation);
}

ValueId channels_second(Lowering& l, ValueId x) {
  std::vector<int> permutation(at(l.rank(x)));
  std::iota(permutation.begin(), permutation.end(), 0);
  std::rotate(permutation.begin() + 1, permutation.end() - 1, permutation.end());
  return l.transpose(x, permutation);
}

/// An attribute with one number for each spatial axis (or `times` as many), `fallback` where it is absent.
std::vector<int64_t> per_axis(Lowering& l, std::string_view name, size_t axes, int64_t lowest, int64_t fallback,
                              size_t times = 1) {
  const auto given = l.integers(name);
  if (!given || given->empty()) return std::vector<int64_t>(axes * times, fallback);
  if (given->size() != axes * times)
    refuse("attribute '{}' has {} numbers for {} spatial axes", name, given->size(), axes);
  for (const int64_t value : *given)
    if (value < lowest || value > most)
      refuse("attribute '{}' holds {}, which is not in {} to {}", name, value, lowest, most);
  return *given;
}

int64_t round_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Kernel sizes, strides, dilations and paddings of the node. `channels_last_x`: [N, spatial.., C].
std::vector<WindowAxis> window_of(Lowering& l, ValueId channels_last_x, const std::vector<int64_t>& kernel) {
  const size_t count = kernel.size();
  const std::vector<int64_t> strides = per_axis(l, "strides", count, 1, 1);
  const std::vector<int64_t> dilations = per_axis(l, "dilations", count, 1, 1);
  const std::vector<int64_t> pads = per_axis(l, "pads", count, 0, 0, 2);
  const std::string automatic = l.text("auto_pad", "NOTSET");
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  if (!same && automatic != "NOTSET" && automatic != "VALID") refuse("attribute 'auto_pad' = '{}'", automatic);
  std::vector<WindowAxis> axes(count);
  for (size_t i = 0; i < count; ++i) {
    WindowAxis& axis = axes[i] = {kernel[i], strides[i], dilations[i]};
    if (automatic == "NOTSET") axis.before = pads[i], axis.after = pads[i + count];
    if (!same) continue;
    // As many outputs as strides fit the size; what is odd goes behind, or before.
    int64_t total = axis.reach() - 1;
    if (axis.stride > 1) {
      const Expression size = l.dims(channels_last_x)[i + 1];
      const auto known = size.constant();
      if (!known) refuse("attribute 'auto_pad' with a stride needs a size that is known, not {}", size.text());
      total = std::max<int64_t>(0, (round_up(*known, axis.stride) - 1) * axis.stride + axis.reach() - *known);
    }
    axis.before = automatic == "SAME_UPPER" ? total / 2 : total - total / 2;
    axis.after = total - axis.before;
  }
  return axes;
}

/// Spatial axes of x, [N, C, spatial..].
size_t spatial_axes(Lowering& l, ValueId x, Type type = Type::f32) {
  const int rank = l.rank(x);
  if (rank < 3) refuse("a tensor of rank {}, where [N, C, spatial..] is expected", rank);
  if (l.type(x) != type) refuse("an operand of type {}, where {} is expected", heed::name(l.type(x)), heed::name(type));
  return at(rank) - 2;
}

/// The weights: known, of the rank of x and of sizes that fit attribute 'kernel_shape'. Their spatial sizes.
std::vector<int64_t> kernel_of_weights(Lowering& l, size_t axes, size_t operand = 1) {
  const ValueId w = l.value(operand);
  if (!l.graph.value(w).constant)
    refuse("operand {}, '{}', the weights, depends on data; it has to be a constant", operand, l.node.inputs[operand]);
  const std::vector<int64_t> dims = *constant_dims(l.dims(w));
  if (dims.size() != axes + 2) refuse("weights of shape {} for {} spatial axes", text(dims), axes);
  const std::vector<int64_t> kernel(dims.begin() + 2, dims.end());
  if (const auto given = l.integers("kernel_shape"); given && !given->empty() && *given != kernel)
    refuse("attribute 'kernel_shape' = {} does not fit the weights' {}", text(*given), text(kernel));
  for (const int64_t size : kernel)
    if (size < 1 || size > most) refuse("a kernel of size {}", size);
  return kernel;
}

int64_t groups_of(Lowering& l, const Expression& channels) {
  const int64_t groups = l.integer("group", 1);
  if (groups < 1 || groups > most) refuse("attribute 'group' = {}", groups);
  const auto known = channels.constant();
  if (!known) refuse("the number of channels, {}, is not known", channels.text());
  if (*known % groups != 0) refuse("{} groups do not divide {} channels", groups, *known);
  return groups;
}

ValueId with_bias(Lowering& l, ValueId y) {
  return l.has(2) ? l.map(Step::f_add, {y, l.value(2)}) : y;
}

/// x and w [taps.., C / groups, M]. What looks at one element only is a matrix product over the channels.
ValueId convolve(Lowering& l, ValueId x, ValueId w, const std::vector<WindowAxis>& axes, int64_t groups) {
  const bool one = groups == 1 && std::all_of(axes.begin(), axes.end(), [](const WindowAxis& axis) {
                     return axis.kernel == 1 && axis.before == 0 && axis.after == 0;
                   });
  if (!one) return l.add(Conv{axes, groups}, {x, w});
  Dims dims = l.dims(x);
  Slice every{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), {}};
  for (size_t i = 0; i < axes.size(); ++i) {
    every.steps[i + 1] = axes[i].stride;
    dims[i + 1] = l.simplify(Expression::divide(dims[i + 1] + (axes[i].stride - 1), axes[i].stride));
  }
  every.dims = dims;
  const Dims weights = l.dims(w);
  return l.add(Matmul{}, {l.add(every, {x}), l.reshape(w, {weights[weights.size() - 2], weights.back()})});
}

/// x [N, C, spatial..] with weights [M, C / groups, taps..], those of operand `weights` as they are or centred: [N,
/// spatial.., M].
ValueId convolution(Lowering& l, ValueId given, size_t weights, ValueId w) {
  const size_t axes = spatial_axes(l, given, l.type(w));
  const int64_t groups = groups_of(l, l.dims(given)[1]);
  const ValueId x = channels_last(l, given);
  const std::vector<WindowAxis> window = window_of(l, x, kernel_of_weights(l, axes, weights));
  w = channels_last(l, channels_last(l, w, 0), 0);  // [taps.., M, C]
  return convolve(l, x, l.swap_last(w), window, groups);
}

void conv(Lowering& l) {
  const Operand x = l.operand(0);
  l.result(0, channels_second(l, with_bias(l, convolution(l, x.id, 1, l.value(1)))), x.type);
}

/// x at operand 0 and the weights at operand `weights`, less their zero points.
ValueId integer_convolution(Lowering& l, size_t x_zero, size_t weights, size_t weights_zero) {
  const ValueId x = l.value(0), w = l.value(weights);
  return convolution(l, centred(l, x, along(l, zero_point(l, x_zero), x, 1)), weights,
                     centred(l, w, along(l, zero_point(l, weights_zero), w, 0)));
}

void conv_integer(Lowering& l) {
  l.result(0, channels_second(l, integer_convolution(l, 2, 1, 3)), DataType::i32);
}

/// Operands: x, its scale and zero point, w with its, y's, and the bias, of the scale of the sums.
void qlinear_conv(Lowering& l) {
  const ValueId sums = integer_convolution(l, 2, 3, 5);
  const ValueId scale = along(l, (l.term(l.value(1)) * l.term(l.value(4))).id(), sums, l.rank(sums) - 1);
  const ValueId zero = l.integer_constant(0);
  ValueId y = l.add(DequantizeLinear{}, {sums, scale, zero});
  if (const ValueId bias = l.optional(8).id; bias != no_value)
    y = l.map(Step::f_add, {y, l.map(Step::f_mul, {l.map(Step::i_to_f, {bias}), scale})});
  const DataType type = l.operand(7).type;
  y = quantize(l, y, along(l, l.value(6), y, 0), along(l, l.value(7), y, 0), type);
  l.result(0, channels_second(l, y), type);
}

// --- Transposed convolution ------------------------------------------------------------------------------

/// y[i * stride + k * dilation - before] += x[i] w[k]. The outputs at one phase r of a stride, those at q * stride + r,
/// are a convolution of x with every stride-th tap, backwards: one convolution for each phase, interleaved. With one
/// group the phases of the last axis are channels of one convolution, where they lie interleaved already.
class Transposed {
 public:
  /// `axes` are y's; its size along each is (size of x - 1) * stride + `extra`.
  Transposed(Lowering& l, ValueId x, std::vector<WindowAxis> axes, std::vector<int64_t> extra, int64_t groups)
      : l_(l), x_(x), axes_(std::move(axes)), extra_(std::move(extra)), groups_(groups) {
    const Value& w = l.graph.value(l.value(1));
    dims_ = w.constant->dims;
    weights_ = w.constant->floats();
    outputs_ = dims_[1] * groups;
  }

  ValueId run() { return from(0, {}); }

 private:
  using Phases = std::vector<std::vector<int64_t>>;  // of each axis: those computed together

  /// `chosen` says the phases of the axes before `next`.
  ValueId from(size_t next, const Phases& chosen) {
    if (next == axes_.size()) return convolution(chosen);
    const int64_t stride = axes_[next].stride;
    const auto choose = [&](const std::vector<int64_t>& phases) {
      Phases more = chosen;
      more.push_back(phases);
      return from(next + 1, more);
    };
    std::vector<int64_t> all(at(stride));
    std::iota(all.begin(), all.end(), 0);
    const int axis = static_cast<int>(next) + 1;
    ValueId y = no_value;
    if (stride == 1 || (groups_ == 1 && next + 1 == axes_.size())) {
      y = choose(all);
    } else {
      std::vector<ValueId> parts;
      for (const int64_t phase : all) parts.push_back(l_.unsqueeze(choose({phase}), axis + 1));
      y = l_.add(Concat{axis + 1}, parts);
      Dims dims = l_.dims(y);
      dims[at(axis)] = dims[at(axis)] * stride;
      dims.erase(dims.begin() + axis + 1);
      y = l_.reshape(y, dims);
    }
    return l_.slice(y, axis, 0, l_.simplify((l_.dims(x_)[at(axis)] - 1) * stride + extra_[next]));
  }

  /// x[q + distance] is multiplied with this tap for output q * stride + phase; -1: with none.
  static int64_t tap_at(const WindowAxis& axis, int64_t phase, int64_t distance) {
    const int64_t place = phase + axis.before - distance * axis.stride;
    return place >= 0 && place % axis.dilation == 0 && place / axis.dilation < axis.kernel ? place / axis.dilation : -1;
  }

  /// The phases chosen; those of the last axis side by side.
  ValueId convolution(const Phases& chosen) {
    const size_t count = axes_.size();
    const int64_t inputs = dims_[0] / groups_, own = outputs_ / groups_;
    const auto folded = static_cast<int64_t>(chosen.back().size());
    std::vector<WindowAxis> window(count);
    std::vector<int64_t> lowest(count), shape;
    ValueId x = x_;
    for (size_t i = 0; i < count; ++i) {
      // Distances at which some phase has a tap.
      const WindowAxis& axis = axes_[i];
      std::vector<int64_t> distances;
      const int64_t far = (axis.reach() + std::abs(axis.before)) / axis.stride + 1;
      for (int64_t distance = -far; distance <= far; ++distance)
        if (std::any_of(chosen[i].begin(), chosen[i].end(),
                        [&](int64_t phase) { return tap_at(axis, phase, distance) >= 0; }))
          distances.push_back(distance);
      if (distances.empty()) distances.push_back(0);
      int64_t step = 0;
      for (const int64_t distance : distances) step = std::gcd(step, distance - distances[0]);
      window[i].dilation = std::max<int64_t>(step, 1);
      window[i].kernel = (distances.back() - distances[0]) / window[i].dilation + 1;
      lowest[i] = distances[0];
      shape.push_back(window[i].kernel);
      // As many outputs as the longest phase has: x, and `more`. Negative paddings crop.
      const int64_t more = (extra_[i] + axis.stride - 1) / axis.stride - 1;
      const int64_t before = -lowest[i], after = more + window[i].reach() - 1 - before;
      window[i].before = std::max<int64_t>(before, 0);
      window[i].after = std::max<int64_t>(after, 0);
      const int64_t front = std::max<int64_t>(-before, 0), back = std::max<int64_t>(-after, 0);
      x = l_.slice(x, static_cast<int>(i) + 1, front, l_.dims(x)[i + 1] - (front + back));
    }
    int64_t taps = 1, node_taps = 1;
    for (const WindowAxis& axis : window) taps *= axis.kernel;
    for (const WindowAxis& axis : axes_) node_taps *= axis.kernel;
    if (taps * folded > most_weights / std::max<int64_t>(inputs * outputs_, 1)) refuse("the weights become too many");
    std::vector<float> weights(at(taps * inputs * folded * outputs_));
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t f = 0; f < folded; ++f) {
        int64_t place = 0, step = 1, rest = tap;  // of the node's tap
        for (size_t i = count; i-- > 0;) {
          const int64_t phase = i + 1 == count ? chosen[i][at(f)] : chosen[i][0];
          const int64_t own_tap = tap_at(axes_[i], phase, lowest[i] + rest % window[i].kernel * window[i].dilation);
          if (own_tap < 0) place = -1;
          if (place >= 0) place += own_tap * step;
          rest /= window[i].kernel;
          step *= axes_[i].kernel;
        }
        if (place < 0) continue;
        for (int64_t c = 0; c < inputs; ++c)
          for (int64_t m = 0; m < outputs_; ++m) {
            const int64_t from = ((m / own * inputs + c) * own + m % own) * node_taps + place;
            weights[at(((tap * inputs + c) * folded + f) * outputs_ + m)] = weights_[at(from)];
          }
      }
    shape.push_back(inputs);
    shape.push_back(folded * outputs_);
    ValueId y = convolve(l_, x, l_.graph.constant(l_.name, Literal::of(shape, std::move(weights))), window, groups_);
    if (l_.has(2)) {
      const std::vector<ValueId> repeated(at(folded), l_.value(2));
      y = l_.map(Step::f_add, {y, l_.add(Concat{0}, repeated)});
    }
    Dims dims = l_.dims(y);
    dims[count] = dims[count] * folded;
    dims.back() = outputs_;
    return l_.reshape(y, dims);
  }

  static constexpr int64_t most_weights = int64_t{1} << 28;

  Lowering& l_;
  ValueId x_;
  std::vector<WindowAxis> axes_;
  std::vector<int64_t> extra_;
  int64_t groups_, outputs_ = 0;
  std::vector<int64_t> dims_;  // of the weights: [C, M / groups, taps..]
  std::span<const float> weights_;
};

void conv_transpose(Lowering& l) {
  const Operand given = l.operand(0);
  const size_t count = spatial_axes(l, given.id);
  const int64_t groups = groups_of(l, l.dims(given.id)[1]);
  const std::vector<int64_t> kernel = kernel_of_weights(l, count);
  const ValueId x = channels_last(l, given.id);
  l.unify(l.dims(x).back(), l.dims(l.value(1))[0]);
  const std::vector<int64_t> strides = per_axis(l, "strides", count, 1, 1);
  const std::vector<int64_t> dilations = per_axis(l, "dilations", count, 1, 1);
  const std::vector<int64_t> pads = per_axis(l, "pads", count, 0, 0, 2);
  const std::vector<int64_t> output_padding = per_axis(l, "output_padding", count, 0, 0);
  const auto wanted = l.integers("output_shape");
  if (wanted && !wanted->empty() && wanted->size() != count)
    refuse("attribute 'output_shape' has {} numbers for {} spatial axes", wanted->size(), count);
  const std::string automatic = l.text("auto_pad", "NOTSET");
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  if (!same && automatic != "NOTSET" && automatic != "VALID") refuse("attribute 'auto_pad' = '{}'", automatic);
  std::vector<WindowAxis> axes(count);
  std::vector<int64_t> extra(count);
  for (size_t i = 0; i < count; ++i) {
    WindowAxis& axis = axes[i] = {kernel[i], strides[i], dilations[i]};
    const int64_t whole = axis.reach() + output_padding[i];  // the size is (x - 1) * stride + this, less the padding
    if ((wanted && !wanted->empty()) || same) {
      int64_t total = whole - axis.stride;
      if (wanted && !wanted->empty()) {
        const auto size = l.dims(x)[i + 1].constant();
        if (!size) refuse("attribute 'output_shape' needs a size that is known, not {}", l.dims(x)[i + 1].text());
        if ((*wanted)[i] < 1 || (*wanted)[i] > INT32_MAX) refuse("attribute 'output_shape' holds {}", (*wanted)[i]);
        total = (*size - 1) * axis.stride + whole - (*wanted)[i];
      }
      const int64_t half = std::max<int64_t>(total, 0) / 2;  // what is missing comes behind
      axis.before = automatic == "SAME_UPPER" ? half : std::max<int64_t>(total, 0) - half;
      axis.after = total - axis.before;
    } else if (automatic == "NOTSET") {
      axis.before = pads[i], axis.after = pads[i + count];
    }
    if (std::abs(axis.before) > most || std::abs(axis.after) > most) refuse("a padding of {}", axis.before);
    extra[i] = whole - axis.before - axis.after;
  }
  l.result(0, channels_second(l, Transposed(l, x, axes, extra, groups).run()), given.type);
}

// --- Poolings --------------------------------------------------------------------------------------------

/// The kernel's sizes, which poolings have as an attribute.
std::vector<int64_t> kernel_of_attribute(Lowering& l, size_t axes) {
  if (!l.has_attribute("kernel_shape")) refuse("attribute 'kernel_shape' is missing");
  return per_axis(l, "kernel_shape", axes, 1, 1);
}

ValueId pooled(Lowering& l, ValueId x, Pooling kind, bool counts_padding) {
  const size_t axes = spatial_axes(l, x);
  const ValueId last = channels_last(l, x);
  const std::vector<WindowAxis> window = window_of(l, last, kernel_of_attribute(l, axes));
  const bool ceil = l.integer("ceil_mode", 0) != 0;
  return channels_second(l, l.add(Pool{kind, window, counts_padding, ceil}, {last}));
}

void max_pool(Lowering& l) {
  const Operand x = l.operand(0);
  l.ignore("storage_order");        // of output 1, which is refused
  if (l.type(x.id) == Type::i32) {  // 8 bits: exact as floats
    l.result(0, l.map(Step::f_to_i, {pooled(l, l.map(Step::i_to_f, {x.id}), Pooling::max, false)}), x.type);
    return;
  }
  l.result(0, pooled(l, x.id, Pooling::max, false), x.type);
}

void average_pool(Lowering& l) {
  const Operand x = l.operand(0);
  const bool counts_padding = l.integer("count_include_pad", 0) != 0;
  l.result(0, pooled(l, x.id, Pooling::mean, counts_padding), x.type);
}

/// The p-norm of each window.
void lp_pool(Lowering& l) {
  const Operand x = l.operand(0);
  const auto p = static_cast<float>(l.integer("p", 2));
  const Term powers = l.term(x.id).apply(Step::f_abs).apply(Step::f_pow, l.term(l.real_constant(p)));
  const Term sums = l.term(pooled(l, powers.id(), Pooling::sum, false));
  l.result(0, sums.apply(Step::f_pow, l.term(l.real_constant(1 / p))).id(), x.type);
}

constexpr LoweringRow rows[] = {
    {"", "AveragePool", 7, average_pool},     {"", "Conv", 1, conv},      {"", "ConvInteger", 10, conv_integer},
    {"", "ConvTranspose", 1, conv_transpose}, {"", "LpPool", 2, lp_pool}, {"", "MaxPool", 1, max_pool},
    {"", "QLinearConv", 10, qlinear_conv},
};

}  // namespace

std::span<const LoweringRow> window_lowerings() {
  return rows;
}

}  // namespace heed::tools

#include "kernels/conv/conv.h"

#include "kernels/matmul/epilogue.h"

namespace heed::HEED_ISA {
namespace {

Epilogue epilogue_of(const ConvArgs& args, int64_t position) {
  return {args.bias,
          args.residual == nullptr ? nullptr : args.residual + position * args.residual_step,
          args.y + position * args.y_step,
          args.outputs,
          static_cast<ptrdiff_t>(args.residual_step),
          static_cast<ptrdiff_t>(args.y_step),
          args.params.activation};
}

/// Positions along the width whose taps all lie inside: those between; none where a row of taps lies outside.
struct Inside {
  int32_t first, last;

  explicit Inside(const ConvArgs& args) : first(args.line.first), last(args.line.first) {
    const Window& window = args.params.window;
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t origin = args.line.origin[axis];
      if (origin < 0 || origin + reach(window, axis) > args.line.size[axis]) return;
    }
    const int64_t stride = window.strides[2], room = args.line.size[2] + int64_t{window.before[2]} - reach(window, 2);
    const int64_t low = (window.before[2] + stride - 1) / stride, high = room < 0 ? 0 : room / stride + 1;
    if (low >= args.line.last || high <= args.line.first || low >= high) return;
    first = low > first ? static_cast<int32_t>(low) : first;
    last = high < args.line.last ? static_cast<int32_t>(high) : args.line.last;
  }
};

// --- Panels ----------------------------------------------------------------------------------------------------------

/// Where the taps of some positions lie, all of them in memory.
struct Taps {
  const float* x;               // tap 0 of the first position
  ptrdiff_t position, d, h, w;  // steps from one position, from one tap to the next
};

/// The outputs of one group.
struct Product {
  Taps taps;
  const float* panels;
  Epilogue epilogue;
  int32_t depth, height, positions;
  // The taps along the width are `runs` runs of `run` terms each.
  int32_t runs;
  ptrdiff_t run_length, run_step, k;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    const float* w = panels + column / 16 * k * 16 + column % 16;
    using Rows = Tile<rows, vectors>;
    Rows tile;
    typename Rows::Next next(w, k, row, positions);
    const float* x_d = taps.x + row * taps.position;
    for (int32_t d = 0; d < depth; ++d, x_d += taps.d) {
      const float* x_h = x_d;
      for (int32_t h = 0; h < height; ++h, x_h += taps.h) {
        const float* x = x_h;
        for (int32_t i = 0; i < runs; ++i, x += taps.w, w += run_length * 16)
          tile.add(x, taps.position, run_step, w, 16, k * 16, run_length, AllTerms{}, next);
      }
    }
    epilogue.store(tile, row, column);
  }
};

void product(const ConvArgs& args, Taps taps, int32_t first, int32_t last) {
  const Window& window = args.params.window;
  const int32_t groups = args.params.groups, inputs = args.channels / groups, outputs = args.outputs / groups;
  const int32_t width = window.kernel[2];
  Product job{};
  job.depth = window.kernel[0];
  job.height = window.kernel[1];
  job.runs = width;
  job.run_length = inputs;
  job.run_step = 1;
  job.k = ptrdiff_t{job.depth} * job.height * width * inputs;
  if (inputs == 1 || taps.w == inputs) {  // one run, of single elements or without gaps
    job.runs = 1;
    job.run_length = ptrdiff_t{width} * inputs;
    job.run_step = inputs == 1 ? taps.w : 1;
  }
  // Positions share elements where their windows overlap.
  const int64_t own = int64_t{job.depth} * job.height * (taps.position < job.k ? taps.position : job.k);
  const int32_t block = cached_rows(last - first, own);
  for (; first < last; first += block, taps.x += block * taps.position) {
    const int32_t positions = last - first < block ? last - first : block;
    job.taps = taps;
    job.panels = args.w;
    job.epilogue = epilogue_of(args, first);
    job.epilogue.n = outputs;
    job.positions = positions;
    for (int32_t group = 0; group < groups; ++group) {
      Tiling<Product>::run(job, 0, positions, 0, outputs);
      job.taps.x += inputs;
      job.panels += ptrdiff_t{(outputs + 15) / 16} * 16 * job.k;
      job.epilogue.y += outputs;
      if (job.epilogue.bias != nullptr) job.epilogue.bias += outputs;
      if (job.epilogue.residual != nullptr) job.epilogue.residual += outputs;
    }
  }
}

void copy(float* to, const float* from, ptrdiff_t count) {
  ptrdiff_t i = 0;
  for (; i + W <= count; i += W) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, static_cast<int>(count - i)), static_cast<int>(count - i));
}

void clear(float* to, ptrdiff_t count) {
  ptrdiff_t i = 0;
  for (; i + W <= count; i += W) store(to + i, zero());
  if (i < count) store_first(to + i, zero(), static_cast<int>(count - i));
}

/// Positions whose windows reach outside: their elements are copied with the padding around them.
void padded(const ConvArgs& args, int32_t first, int32_t last) {
  const WindowLine& line = args.line;
  const Window& window = args.params.window;
  const ptrdiff_t channels = args.channels;
  for (; first < last; first += args.params.block) {
    const int32_t end = last - first < args.params.block ? last : first + args.params.block;
    const int64_t begin = int64_t{first} * window.strides[2] - window.before[2];  // along the width
    const int64_t length = int64_t{end - first - 1} * window.strides[2] + reach(window, 2);
    const int64_t low = begin < 0 ? (-begin < length ? -begin : length) : 0, room = line.size[2] - begin;
    const int64_t high = room < low ? low : room < length ? room : length;
    float* to = args.scratch;
    for (int32_t d = 0; d < window.kernel[0]; ++d) {
      for (int32_t h = 0; h < window.kernel[1]; ++h, to += length * channels) {
        const int64_t at[2] = {line.origin[0] + int64_t{d} * window.dilations[0],
                               line.origin[1] + int64_t{h} * window.dilations[1]};
        if (at[0] < 0 || at[0] >= line.size[0] || at[1] < 0 || at[1] >= line.size[1]) {
          clear(to, static_cast<ptrdiff_t>(length * channels));
          continue;
        }
        const float* x = line.x + at[0] * line.steps[0] + at[1] * line.steps[1];
        clear(to, static_cast<ptrdiff_t>(low * channels));
        if (line.steps[2] == channels) {
          if (low < high)
            copy(to + low * channels, x + (begin + low) * channels, static_cast<ptrdiff_t>((high - low) * channels));
        } else {
          for (int64_t i = low; i < high; ++i) copy(to + i * channels, x + (begin + i) * line.steps[2], channels);
        }
        clear(to + high * channels, static_cast<ptrdiff_t>((length - high) * channels));
      }
    }
    const auto row = static_cast<ptrdiff_t>(length * channels);
    product(args,
            {args.scratch, window.strides[2] * channels, window.kernel[1] * row, row, window.dilations[2] * channels},
            first, end);
  }
}

void dense(const ConvArgs& args) {
  const WindowLine& line = args.line;
  const Window& window = args.params.window;
  Inside inside(args);
  // A short line with an edge is one piece: few rows would not fill a tile, and each pass reads all weights.
  const bool whole = inside.first == line.first && inside.last == line.last;
  if (!whole && line.last - line.first <= args.params.block) inside.first = inside.last = line.first;
  padded(args, line.first, inside.first);
  if (inside.first < inside.last) {
    const auto step = [&](int axis, int64_t count) { return static_cast<ptrdiff_t>(line.steps[axis] * count); };
    const int64_t begin = int64_t{inside.first} * window.strides[2] - window.before[2];
    product(args,
            {line.x + step(0, line.origin[0]) + step(1, line.origin[1]) + step(2, begin), step(2, window.strides[2]),
             step(0, window.dilations[0]), step(1, window.dilations[1]), step(2, window.dilations[2])},
            inside.first, inside.last);
  }
  padded(args, inside.last, line.last);
}

// --- Depthwise -------------------------------------------------------------------------------------------------------

inline constexpr int depthwise_rows = W == 16 ? 8 : 4;

/// One line, with what all its tiles need at hand: a tile is a few dozen multiply-adds.
struct Depthwise {
  const ConvArgs& args;
  const Epilogue epilogue;
  const int32_t depth, height, width;
  const ptrdiff_t row_step, tap_step, h_step, d_step;
  const float* const origin;  // what would be tap 0 of position 0; not to be read where it lies outside

  explicit Depthwise(const ConvArgs& args)
      : args(args),
        epilogue(epilogue_of(args, 0)),
        depth(args.params.window.kernel[0]),
        height(args.params.window.kernel[1]),
        width(args.params.window.kernel[2]),
        row_step(static_cast<ptrdiff_t>(args.params.window.strides[2] * args.line.steps[2])),
        tap_step(static_cast<ptrdiff_t>(args.params.window.dilations[2] * args.line.steps[2])),
        h_step(static_cast<ptrdiff_t>(args.params.window.dilations[1] * args.line.steps[1])),
        d_step(static_cast<ptrdiff_t>(args.params.window.dilations[0] * args.line.steps[0])),
        origin(args.line.x + (args.line.origin[0] * args.line.steps[0] + args.line.origin[1] * args.line.steps[1] -
                              args.params.window.before[2] * args.line.steps[2])) {}

  /// `rows` positions from `position` on, `vectors` vectors of channels from `channel` on; `whole`: all of them exist.
  template <int rows, int vectors, bool whole>
  HEED_INLINE void inside(int32_t position, int32_t channel) const {
    const int left = args.channels - channel;
    const float *w = args.w + channel, *x_d = origin + (position * row_step + channel);
    Tile<rows, vectors> tile;
    for (int32_t d = 0; d < depth; ++d, x_d += d_step) {
      const float* x_h = x_d;
      for (int32_t h = 0; h < height; ++h, x_h += h_step) {
        const float* x = x_h;
        for (int32_t v = 0; v < width; ++v, x += tap_step, w += args.channels) {
          unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
            const F weights = read<whole>(w, j, left);
            unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
              F& sum = tile.sum[r * vectors + j];
              sum = fma(read<whole>(x + r * row_step, j, left), weights, sum);
            });
          });
        }
      }
    }
    epilogue.store(tile, position, channel);
  }

  /// One position with taps that may lie outside.
  template <int vectors, bool whole>
  void edge(int32_t position, int32_t channel) const {
    const Window& window = args.params.window;
    const WindowLine& line = args.line;
    const int left = args.channels - channel;
    const TapRange d_range = taps_inside(window, 0, line.origin[0], line.size[0]);
    const TapRange h_range = taps_inside(window, 1, line.origin[1], line.size[1]);
    const TapRange range =
        taps_inside(window, 2, int64_t{position} * window.strides[2] - window.before[2], line.size[2]);
    const float *w = args.w + channel, *x = origin + (position * row_step + channel);
    Tile<1, vectors> tile;
    const auto outside = [&](int32_t taps) HEED_INLINE_LAMBDA {
      for (; taps > 0; --taps, w += args.channels)
        unroll<vectors>([&](auto j)
                            HEED_INLINE_LAMBDA { tile.sum[j] = fma(zero(), read<whole>(w, j, left), tile.sum[j]); });
    };
    for (int32_t d = 0; d < depth; ++d) {
      for (int32_t h = 0; h < height; ++h) {
        const bool gone = d < d_range.first || d >= d_range.last || h < h_range.first || h >= h_range.last;
        const TapRange taps = gone ? TapRange{width, width} : range;
        outside(taps.first);
        for (int32_t v = taps.first; v < taps.last; ++v, w += args.channels) {
          const float* at = x + (d * d_step + h * h_step + v * tap_step);
          unroll<vectors>([&](auto j) HEED_INLINE_LAMBDA {
            tile.sum[j] = fma(read<whole>(at, j, left), read<whole>(w, j, left), tile.sum[j]);
          });
        }
        outside(width - taps.last);
      }
    }
    epilogue.store(tile, position, channel);
  }

  template <bool whole>
  HEED_INLINE static F read(const float* p, int vector, int left) {
    if constexpr (whole) return load(p + vector * W);
    return load_first(p + vector * W, left - vector * W);
  }
};

template <int vectors, bool whole>
void depthwise_channels(const Depthwise& line, const Inside& inside, int32_t channel) {
  int32_t o = line.args.line.first;
  for (; o < inside.first; ++o) line.edge<vectors, whole>(o, channel);
  for (; o + depthwise_rows <= inside.last; o += depthwise_rows)
    line.inside<depthwise_rows, vectors, whole>(o, channel);
  for (; o + 2 <= inside.last; o += 2) line.inside<2, vectors, whole>(o, channel);
  for (; o < inside.last; ++o) line.inside<1, vectors, whole>(o, channel);
  for (; o < line.args.line.last; ++o) line.edge<vectors, whole>(o, channel);
}

void depthwise(const ConvArgs& args) {
  const Inside inside(args);
  const Depthwise line(args);
  int32_t channel = 0;
  if constexpr (panel_vectors > 1)
    for (; channel + 16 <= args.channels; channel += 16) depthwise_channels<panel_vectors, true>(line, inside, channel);
  for (; channel + W <= args.channels; channel += W) depthwise_channels<1, true>(line, inside, channel);
  if (channel < args.channels) depthwise_channels<1, false>(line, inside, channel);
}

}  // namespace

void conv(const ConvArgs& args) {
  args.params.depthwise ? depthwise(args) : dense(args);
}

}  // namespace heed::HEED_ISA

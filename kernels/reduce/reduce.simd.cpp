#include "kernels/reduce/reduce.h"
#include "kernels/axes.h"
#include "kernels/simd.h"

#include "kernels/reduce/joins.h"

namespace heed::HEED_ISA {
namespace {

/// The views of x by its outer and its reduced axes.
struct Views {
  Axes<1> outer, reduced;
  int64_t n;

  explicit Views(const ReduceArgs& args)
      : outer(axes_of({args.x_shape}, 0, args.x_shape->rank - args.params.axes)),
        reduced(axes_of({args.x_shape}, args.x_shape->rank - args.params.axes, args.x_shape->rank)),
        n(reduced.count()) {}

  bool along_outputs() const { return outer.step(0) == 1; }
  bool along_reduced() const { return reduced.rank == 0 || (reduced.rank == 1 && reduced.step(0) == 1); }
};

/// Neighbouring outputs whose inputs are neighbours: a vector of outputs has 16 vectors of accumulators. `read` and
/// `write` are whole or partial loads and stores.
template <class R, class T, class Read, class Write>
HEED_INLINE void outputs_together(const Views& views, const T* x, T* y, float scale, Read read, Write write) {
  using V = decltype(splat(T{}));
  V lanes[16];
  unroll<16>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = splat(R::start(T{})); });
  // The reduced axes as runs of one stride; `phase` is the accumulator of the next element.
  int phase = 0;
  views.reduced.for_each_run(0, views.n, [&](const int64_t(&offset)[1], int64_t length) HEED_INLINE_LAMBDA {
    const int64_t stride = views.reduced.step(0);
    const T* p = x + offset[0];
    int64_t i = 0;
    if (phase == 0)
      for (; i + 16 <= length; i += 16, p += 16 * stride)
        unroll<16>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = R::element(lanes[j], read(p + j * stride)); });
    for (; i < length; ++i, p += stride) {
      const V a = read(p);
      unroll<16>([&](auto j) HEED_INLINE_LAMBDA {
        if (phase == j) lanes[j] = R::element(lanes[j], a);
      });
      phase = (phase + 1) & 15;
    }
  });
  unroll<8>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = R::join(lanes[j], lanes[j + 8]); });
  unroll<4>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = R::join(lanes[j], lanes[j + 4]); });
  unroll<2>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = R::join(lanes[j], lanes[j + 2]); });
  V result = R::join(lanes[0], lanes[1]);
  if constexpr (std::is_same_v<T, float>) {
    if (scale != 1.0f) result = result * splat(scale);
  }
  write(y, result);
}

/// One output; `read(i, n)` gives the vector of elements i, i + 1, ..., of which the first n count.
template <class R, class T, class Read>
HEED_INLINE T one_output(int64_t n, Read read) {
  using V = decltype(splat(T{}));
  V lanes[16 / W];
  unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = splat(R::start(T{})); });
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA { lanes[j] = R::element(lanes[j], read(i + j * W, W)); });
  if (i < n)
    unroll<16 / W>([&](auto j) HEED_INLINE_LAMBDA {
      const int left = static_cast<int>(n - i) - j * W;
      lanes[j] = select(first_lanes(left), R::element(lanes[j], read(i + j * W, left)), lanes[j]);
    });
  return fold16(lanes, [](V a, V b) HEED_INLINE_LAMBDA { return R::join(a, b); });
}

template <class R, class T>
void reduce_with(const ReduceArgs& args) {
  const Views views(args);
  const float scale = factor(args, views.n);
  const auto* whole = reinterpret_cast<const T*>(args.x);
  auto* y = reinterpret_cast<T*>(args.y) + args.first;
  views.outer.for_each_run(args.first, args.last, [&](const int64_t(&offset)[1], int64_t length) {
    const T* x = whole + offset[0];
    if (views.along_outputs() && !(views.along_reduced() && views.n > length)) {
      int64_t o = 0;
      for (; o + W <= length; o += W)
        outputs_together<R>(
            views, x + o, y + o, scale, [](const T* p) HEED_INLINE_LAMBDA { return load(p); },
            [](T* p, auto a) HEED_INLINE_LAMBDA { store(p, a); });
      if (const int left = static_cast<int>(length - o); left > 0)
        outputs_together<R>(
            views, x + o, y + o, scale, [&](const T* p) HEED_INLINE_LAMBDA { return load_first(p, left); },
            [&](T* p, auto a) HEED_INLINE_LAMBDA { store_first(p, a, left); });
    } else {
      for (int64_t o = 0; o < length; ++o, x += views.outer.step(0)) {
        T result;
        if (views.along_reduced()) {
          result = one_output<R, T>(views.n, [&](int64_t i, int n) HEED_INLINE_LAMBDA {
            return n >= W ? load(x + i) : load_first(x + i, n);
          });
        } else {
          // Elements that lie apart are collected vector by vector.
          result = one_output<R, T>(views.n, [&](int64_t i, int n) {
            T gathered[W] = {};
            int at = 0;
            if (n > 0)
              views.reduced.for_each_run(i, i + (n < W ? n : W), [&](const int64_t(&part)[1], int64_t count) {
                for (int64_t k = 0; k < count; ++k) gathered[at++] = x[part[0] + k * views.reduced.step(0)];
              });
            return load(gathered);
          });
        }
        if constexpr (std::is_same_v<T, float>) result = scale != 1.0f ? result * scale : result;
        y[o] = result;
      }
    }
    y += length;
  });
}

/// The extreme so far in each lane, and where it is. No element has the key INT32_MIN.
struct Best {
  I key = splat(INT32_MIN), index = splat(0);

  HEED_INLINE void look(I new_key, I new_index, bool last, M counts) {
    const M better = both(counts, last ? less_equal(key, new_key) : less(key, new_key));
    key = select(better, new_key, key);
    index = select(better, new_index, index);
  }

  /// Over all lanes; of equal ones the first or the last index.
  int32_t over_lanes(bool last) const {
    int32_t keys[W], indices[W];
    store(keys, key);
    store(indices, index);
    int32_t best = keys[0], found = indices[0];
    for (int i = 1; i < W; ++i) {
      const bool nearer = last ? indices[i] > found : indices[i] < found;
      const bool better = (keys[i] > best) | ((keys[i] == best) & nearer);
      best = better ? keys[i] : best;
      found = better ? indices[i] : found;
    }
    return found;
  }
};

/// Vectors over outputs that are neighbours, or along the reduced axis.
void arg_extreme(const ReduceArgs& args) {
  const Views views(args);
  const bool largest = args.params.kind == Reduction::arg_max, last = args.params.last_index;
  const int64_t step = views.outer.step(0), stride = views.reduced.step(0);
  const int32_t n = static_cast<int32_t>(views.n);
  const auto* whole = reinterpret_cast<const float*>(args.x);
  auto* y = reinterpret_cast<int32_t*>(args.y) + args.first;

  views.outer.for_each_run(args.first, args.last, [&](const int64_t(&offset)[1], int64_t length) {
    const float* x = whole + offset[0];
    if (step == 1 && stride != 1) {
      for (int64_t o = 0; o < length; o += W) {
        const int count = length - o < W ? static_cast<int>(length - o) : W;
        Best best;
        for (int32_t i = 0; i < n; ++i)
          best.look(arg_key(load_first(x + o + i * stride, count), largest), splat(i), last, first_lanes(W));
        store_first(y + o, best.index, count);
      }
    } else {
      for (int64_t o = 0; o < length; ++o) {
        const float* row = x + o * step;
        Best best;
        for (int32_t i = 0; i < n; i += W) {
          const int left = n - i;
          float apart[W] = {};
          if (stride != 1)
            for (int k = 0; k < W && k < left; ++k) apart[k] = row[(i + k) * stride];
          const F values = stride != 1 ? load(apart) : load_first(row + i, left);
          best.look(arg_key(values, largest), add(iota(), splat(i)), last, first_lanes(left));
        }
        y[o] = best.over_lanes(last);
      }
    }
    y += length;
  });
}

}  // namespace

void reduce(const ReduceArgs& args) {
  if (args.params.kind >= Reduction::arg_max) return arg_extreme(args);
  with_reduction(args, [&](auto reduction, auto t) { reduce_with<decltype(reduction), decltype(t)>(args); });
}

}  // namespace heed::HEED_ISA

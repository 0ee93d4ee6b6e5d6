#include "kernels/pool/pool.h"

#include "kernels/simd.h"

namespace heed::HEED_ISA {
namespace {

struct Largest {
  static constexpr float start = -__builtin_inff();
  HEED_INLINE static F join(F all, F x) { return max(all, x); }
};
struct Sum {
  static constexpr float start = 0.0f;
  HEED_INLINE static F join(F all, F x) { return all + x; }
};

/// `vectors` vectors of one position's channels; `whole`: all of them exist, else the first `left` channels.
template <class Kind, int vectors, bool whole>
HEED_INLINE void channels(const PoolTaps& taps, const float* x, float* y, int left) {
  F all[vectors];
  unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA { all[v] = splat(Kind::start); });
  taps.for_each([&](int64_t at) HEED_INLINE_LAMBDA {
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      all[v] = Kind::join(all[v], whole ? load(x + at + v * W) : load_first(x + at, left));
    });
  });
  unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
    const F result = all[v] * splat(taps.factor);  // 1 but for the mean
    whole ? store(y + v * W, result) : store_first(y, result, left);
  });
}

template <class Kind>
void line(const PoolArgs& args) {
  for (int32_t o = args.line.first; o < args.line.last; ++o) {
    const PoolTaps taps(args, o);
    const float* x = args.line.x;
    float* y = args.y + o * args.y_step;
    int32_t c = 0;
    for (; c + 4 * W <= args.channels; c += 4 * W) channels<Kind, 4, true>(taps, x + c, y + c, 0);
    for (; c + W <= args.channels; c += W) channels<Kind, 1, true>(taps, x + c, y + c, 0);
    if (c < args.channels) channels<Kind, 1, false>(taps, x + c, y + c, args.channels - c);
  }
}

}  // namespace

void pool(const PoolArgs& args) {
  args.params.kind == Pooling::max ? line<Largest>(args) : line<Sum>(args);
}

}  // namespace heed::HEED_ISA

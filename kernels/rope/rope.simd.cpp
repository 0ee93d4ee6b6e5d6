#include "kernels/rope/rope.h"

#include "kernels/simd.h"

namespace heed::HEED_ISA {
namespace {

/// One token. cos and sin of a block of channels stay in registers while the block of each head goes by.
template <bool part>
HEED_INLINE F read(const float* p, int n) {
  return part ? load_first(p, n) : load(p);
}
template <bool part>
HEED_INLINE void write(float* p, F a, int n) {
  part ? store_first(p, a, n) : store(p, a);
}

struct Token {
  const float *x, *cos, *sin;
  float* y;
  int64_t heads, x_head, y_head;

  template <class Body>
  HEED_INLINE void for_each_head(Body body) const {
    for (int64_t head = 0; head < heads; ++head) body(x + head * x_head, y + head * y_head);
  }

  /// n channels of the first half from i on, and theirs of the second.
  template <bool part>
  HEED_INLINE void halves(int i, int half, int n) const {
    const F cos_a = read<part>(cos + i, n), sin_a = read<part>(sin + i, n);
    const F cos_b = read<part>(cos + half + i, n), sin_b = read<part>(sin + half + i, n);
    for_each_head([&](const float* from, float* to) HEED_INLINE_LAMBDA {
      const F a = read<part>(from + i, n), b = read<part>(from + half + i, n);
      write<part>(to + i, fma(a, cos_a, b * sin_a), n);
      write<part>(to + half + i, fma(b, cos_b, a * sin_b), n);
    });
  }

  /// n channels from i on, whose partners `swap` brings into their lanes.
  template <bool part, class Swap>
  HEED_INLINE void within(int i, int n, Swap swap) const {
    const F c = read<part>(cos + i, n), s = read<part>(sin + i, n);
    for_each_head([&](const float* from, float* to) HEED_INLINE_LAMBDA {
      const F a = read<part>(from + i, n);
      write<part>(to + i, fma(a, c, swap(a) * s), n);
    });
  }

  HEED_INLINE void copy(int first, int end) const {
    for_each_head([&](const float* from, float* to) HEED_INLINE_LAMBDA {
      int i = first;
      for (; i + W <= end; i += W) store(to + i, load(from + i));
      if (i < end) store_first(to + i, load_first(from + i, end - i), end - i);
    });
  }
};

}  // namespace

void rope(const RopeArgs& args) {
  const int rotated = args.rotated, half = rotated / 2;
  const bool copies = rotated < args.channels && args.y != args.x;
  for (int64_t i = 0; i < args.tokens; ++i) {
    const Token token{args.x + i * args.x_token,
                      args.cos + i * args.cos_token,
                      args.sin + i * args.sin_token,
                      args.y + i * args.y_token,
                      args.heads,
                      args.x_head,
                      args.y_head};
    int c = 0;
    if (args.pairing == Pairing::interleaved) {
      const auto swap = [](F a) HEED_INLINE_LAMBDA { return swap_pairs(a); };
      for (; c + W <= rotated; c += W) token.within<false>(c, W, swap);
      if (c < rotated) token.within<true>(c, rotated - c, swap);
    } else if (rotated == W) {  // both halves in one vector
      token.within<false>(0, W, [](F a) HEED_INLINE_LAMBDA { return down<W / 2>(a); });
    } else {
      for (; c + W <= half; c += W) token.halves<false>(c, half, W);
      if (c < half) token.halves<true>(c, half, half - c);
    }
    if (copies) token.copy(rotated, args.channels);
  }
}

}  // namespace heed::HEED_ISA

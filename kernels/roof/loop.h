#pragma once
/// The loop of roof.h over the vectors of simd.h or scalar.h, whichever was included before.
#include "kernels/roof/roof.h"

namespace heed::HEED_ISA {

void roof(const RoofArgs& args) {
  // Latency times pipes is 8 to 10 on every core known; with two operands 12 chains fit into the 16 registers of AVX2.
  constexpr int chains = 12;
  const F a = splat(args.seed), b = splat(args.seed * 0.5f);
  F sums[chains];
  unroll<chains>([&](auto i) HEED_INLINE_LAMBDA { sums[i] = splat(static_cast<float>(i) * args.seed); });
  for (uint32_t step = 0; step < args.steps; ++step) {
    unroll<chains>([&](auto i) HEED_INLINE_LAMBDA { sums[i] = fma(a, b, sums[i]); });
  }
  F sum = zero();
  unroll<chains>([&](auto i) HEED_INLINE_LAMBDA { sum = sum + sums[i]; });
  float lanes[W];
  store(lanes, sum);
  *args.result = lanes[0];
  *args.macs = uint64_t{args.steps} * chains * W;
}

}  // namespace heed::HEED_ISA

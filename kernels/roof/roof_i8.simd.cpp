#include "kernels/roof/roof.h"

#include "kernels/matmul_i8/tile_i8.h"

namespace heed::HEED_ISA {

void roof_i8(const RoofArgs& args) {
  // As roof's; beside an operand and a product they still fit into 16 registers.
  constexpr int chains = 12;
  I a = splat(static_cast<int32_t>(args.seed) + 0x01020304), sums[chains];
  unroll<chains>([&](auto i) HEED_INLINE_LAMBDA { sums[i] = splat(static_cast<int32_t>(i)); });
  int terms = 0;  // products in a lane of a step
  for (uint32_t step = 0; step < args.steps; ++step) {
    unroll<chains>([&](auto i) HEED_INLINE_LAMBDA {
      pin(a);  // or all chains share one product
#if defined(HEED_VNNI)
      sums[i] = dot(sums[i], a, a);
      terms = 4;
#elif defined(__AVX2__)
      sums[i] = sums[i] + I{_mm256_madd_epi16(a.v, a.v)};
      terms = 2;
#elif defined(__ARM_FEATURE_MATMUL_INT8)
      sums[i].v = vmmlaq_s32(sums[i].v, vreinterpretq_s8_s32(a.v), vreinterpretq_s8_s32(a.v));
      terms = 8;
#elif defined(__ARM_FEATURE_DOTPROD)
      sums[i].v = vdotq_s32(sums[i].v, vreinterpretq_s8_s32(a.v), vreinterpretq_s8_s32(a.v));
      terms = 4;
#else
      const int8x8_t x = vget_low_s8(vreinterpretq_s8_s32(a.v));
      sums[i].v = vpadalq_s16(sums[i].v, vmlal_s8(vmull_s8(x, x), x, x));
      terms = 4;
#endif
      pin(sums[i]);
    });
  }
  I sum = splat(0);
  unroll<chains>([&](auto i) HEED_INLINE_LAMBDA { sum = sum + sums[i]; });
  *args.result = static_cast<float>(first_lane(sum));
  *args.macs = uint64_t{args.steps} * chains * W * static_cast<uint64_t>(terms);
}

}  // namespace heed::HEED_ISA

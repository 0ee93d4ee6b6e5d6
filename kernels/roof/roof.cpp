#include "kernels/scalar.h"

#include "kernels/roof/loop.h"

namespace heed::portable {

void roof_i8(const RoofArgs& args) {
  constexpr int chains = 4;
  int32_t a = static_cast<int32_t>(args.seed) + 3, sums[chains] = {};
  for (uint32_t step = 0; step < args.steps; ++step) {
    asm volatile("" : "+r"(a));  // or the loop is one product
    for (int32_t& sum : sums) sum += a * a;
  }
  *args.result = static_cast<float>(sums[0] + sums[1] + sums[2] + sums[3]);
  *args.macs = uint64_t{args.steps} * chains;
}

}  // namespace heed::portable

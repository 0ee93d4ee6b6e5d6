#pragma once
/// The most float multiply-accumulates that a core can do: independent chains of fused multiply-adds in registers, no
/// memory. Not an operator; benchmarks measure it on the core they run on, and divide by it.
#include "kernels/variants.h"

namespace heed {

struct RoofArgs {
  uint32_t steps;  // rounds of the loop, one fused multiply-add of each chain
  float seed;      // any small number that the compiler does not know
  float* result;   // [1]: depends on every chain
  uint64_t* macs;  // [1]: multiply-accumulates done
};

HEED_DECLARE_VARIANTS(roof, RoofArgs)

}  // namespace heed

#pragma once
/// The most multiply-accumulates that a core can do: independent chains in registers, no memory; fused multiply-adds of
/// floats, and of int8 the instructions that the tile of the int8 products adds with (kernels/matmul_i8/tile_i8.h). Not
/// an operator; benchmarks measure it on the core they run on, and divide by it.
#include "kernels/variants.h"

namespace heed {

struct RoofArgs {
  uint32_t steps;  // rounds of the loop, one step of each chain
  float seed;      // any small number that the compiler does not know
  float* result;   // [1]: depends on every chain
  uint64_t* macs;  // [1]: multiply-accumulates done
};

HEED_DECLARE_VARIANTS(roof, RoofArgs)
HEED_DECLARE_I8_VARIANTS(roof_i8, RoofArgs)

}  // namespace heed

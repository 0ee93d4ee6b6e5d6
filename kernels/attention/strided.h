#pragma once
/// How the attention of every element type reads what is added to scores, for <op>.simd.cpp files.
#include <cstddef>

#include "kernels/simd.h"

namespace heed::HEED_ISA {
namespace {

/// The first n elements (those beyond are anything) of a strided row.
HEED_INLINE F load_strided(const float* p, ptrdiff_t stride, int n) {
  if (stride == 1) return load_first(p, n);
  alignas(64) float lanes[W] = {};
  for (int i = 0; i < (n < W ? n : W); ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

}  // namespace
}  // namespace heed::HEED_ISA

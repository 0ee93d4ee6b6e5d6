#pragma once
/// y[i] = x[i] over strided views of equal dimensions: transpose, slice, expand, tile, flip, concatenation (a copy into
/// a part of a buffer), padding (a constant of stride 0, then a copy into the middle), one after another.
///
/// inputs: 0 x, any type and strides. outputs: 0 y, same type and dimensions, any strides but 0 along an axis longer
/// than 1. scratch: none. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct CopyParams {
  uint8_t reserved[4];
};

/// Axes merged and ordered by the caller: the last one is the innermost of y.
struct CopyArgs {
  const std::byte* x;
  std::byte* y;
  int32_t rank;           // 1 ..= max_rank
  int32_t element_bytes;  // 1 or 4
  int64_t dims[max_rank];
  int64_t x_strides[max_rank];  // in elements
  int64_t y_strides[max_rank];
};

HEED_DECLARE_VARIANTS(copy, CopyArgs)

}  // namespace heed

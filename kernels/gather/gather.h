#pragma once
/// y[outer.., i.., inner..] = table[outer.., index[i..], inner..]
///
/// A negative index counts from the end; then the index is clamped to the axis, so that no data steers an address
/// outside. An index that comes straight from the caller is checked by the session before the run's first operator.
///
/// packed: the table lies in the layout of a matmul's b, of which entry i is column i (matmul.h): what embeds tokens
/// and what tells them from each other are one constant. Its last panel is filled up with `fill` columns of zeros,
/// which are no entries.
///
/// With scales the table holds rows of int8: y[i.., k] = float(table[index[i..], k]) * scale[index[i..]]
///
/// inputs: 0 table, any type, any strides, or packed f32 [N / 16][K][16], dense; 1 index i32, any strides; 2 scale f32
///         optional, dense, [N], or packed [N / 16][16]: then the table is i8 [N][K], or packed [N /
///         16][ceil(K/4)][16][4] as matmul_i8 has it, dense
/// outputs: 0 y, type of the table, with scales f32, rank(table) - 1 + rank(index), or packed index.., K; dense.
/// scratch: none. Not in place.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

struct GatherParams {
  uint8_t axis;        // of the table
  uint8_t packed = 0;  // then the axis is 0
  uint8_t fill = 0;    // of a packed table, below 16
  uint8_t reserved = 0;
};

struct GatherArgs {
  const Shape *table_shape, *index_shape;
  const std::byte* table;
  const float* scale;  // or null
  const int32_t* index;
  std::byte* y;
  int64_t k;  // elements of a row, with scales
  GatherParams params;
};

HEED_DECLARE_VARIANTS(gather, GatherArgs)

}  // namespace heed

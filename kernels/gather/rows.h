#pragma once
/// The loops of a gather around `copy(y, x, step, n)`: n elements of a run, `step` apart in the table.
#include "kernels/axes.h"
#include "kernels/gather/gather.h"

namespace heed::HEED_ISA {
namespace {

/// A negative index counts from the end; then it is clamped.
HEED_INLINE int64_t entry_of(int64_t index, int64_t entries) {
  index += index < 0 ? entries : 0;
  return index < 0 ? 0 : index < entries ? index : entries - 1;
}

template <class Copy>
void gather_columns(const GatherArgs& args, Copy copy) {
  constexpr int64_t lanes = 16;
  const Shape& index = *args.index_shape;
  const Axes<1> picks = axes_of({&index}, 0, index.rank);
  const int64_t k = args.table_shape->dims[1], entries = args.table_shape->dims[0] * lanes - args.params.fill;
  const auto* x = reinterpret_cast<const uint32_t*>(args.table);
  auto* y = reinterpret_cast<uint32_t*>(args.y);
  picks.for_each_run(0, picks.count(), [&](const int64_t(&pick)[1], int64_t length) {
    for (int64_t i = 0; i < length; ++i, y += k) {
      const int64_t entry = entry_of(args.index[pick[0] + i * picks.step(0)], entries);
      copy(y, x + entry / lanes * lanes * k + entry % lanes, lanes, k);
    }
  });
}

/// Rows of int8 with their scales.
inline void gather_scaled(const GatherArgs& args) {
  const int64_t k = args.k;
  const Shape& index = *args.index_shape;
  const Axes<1> picks = axes_of({&index}, 0, index.rank);
  const int64_t packed = args.params.packed, groups = (k + 3) / 4,
                entries = packed != 0 ? args.table_shape->dims[0] * 16 - args.params.fill : args.table_shape->dims[0];
  const auto* table = reinterpret_cast<const int8_t*>(args.table);
  auto* y = reinterpret_cast<float*>(args.y);
  picks.for_each_run(0, picks.count(), [&](const int64_t(&pick)[1], int64_t length) {
    for (int64_t i = 0; i < length; ++i, y += k) {
      const int64_t entry = entry_of(args.index[pick[0] + i * picks.step(0)], entries);
      const float scale = args.scale[entry];
      const int8_t* x = table + (packed != 0 ? entry / 16 * groups * 64 + entry % 16 * 4 : entry * k);
      const int64_t step = packed != 0 ? 64 : 4;  // from four elements to the next
      for (int64_t c = 0; c < k / 4 * 4; c += 4, x += step)
        for (int j = 0; j < 4; ++j) y[c + j] = static_cast<float>(x[j]) * scale;
      for (int64_t c = k / 4 * 4; c < k; ++c) y[c] = static_cast<float>(x[c % 4]) * scale;
    }
  });
}

template <class T, class Copy>
void gather_rows(const GatherArgs& args, Copy copy) {
  const Shape &table = *args.table_shape, &index = *args.index_shape;
  const int axis = args.params.axis;
  const Axes<1> outer = axes_of({&table}, 0, axis), picks = axes_of({&index}, 0, index.rank),
                inner = axes_of({&table}, axis + 1, table.rank);
  const int64_t entries = table.dims[axis], stride = table.strides[axis];
  const int64_t pick_count = picks.count(), inner_count = inner.count();
  const auto* x = reinterpret_cast<const T*>(args.table);
  auto* y = reinterpret_cast<T*>(args.y);
  outer.for_each_run(0, outer.count(), [&](const int64_t(&block)[1], int64_t blocks) {
    for (int64_t b = 0; b < blocks; ++b) {
      const T* part = x + block[0] + b * outer.step(0);
      picks.for_each_run(0, pick_count, [&](const int64_t(&pick)[1], int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
          const int64_t entry = entry_of(args.index[pick[0] + i * picks.step(0)], entries);
          inner.for_each_run(0, inner_count, [&](const int64_t(&run)[1], int64_t n) {
            copy(y, part + entry * stride + run[0], inner.step(0), n);
            y += n;
          });
        }
      });
    }
  });
}

}  // namespace
}  // namespace heed::HEED_ISA

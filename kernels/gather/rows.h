#pragma once
/// The loops of a gather around `copy(y, x, step, n)`: n elements of a run, `step` apart in the table.
#include "kernels/axes.h"
#include "kernels/gather/gather.h"

namespace heed::HEED_ISA {
namespace {

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
          int64_t entry = args.index[pick[0] + i * picks.step(0)];
          entry += entry < 0 ? entries : 0;
          entry = entry < 0 ? 0 : entry < entries ? entry : entries - 1;
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

#include "kernels/gather/gather.h"

#include <string.h>

#include "kernels/gather/rows.h"

namespace heed::HEED_ISA {

void gather(const GatherArgs& args) {
  const auto copy = [](auto* y, const auto* x, int64_t step, int64_t n) {
    if (step == 1) {
      memcpy(y, x, static_cast<size_t>(n) * sizeof *y);
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i * step];
    }
  };
  if (args.scale != nullptr)
    gather_scaled(args);
  else if (args.params.packed)
    gather_columns(args, copy);
  else if (size_of(args.table_shape->type) == 4)
    gather_rows<uint32_t>(args, copy);
  else
    gather_rows<uint8_t>(args, copy);
}

}  // namespace heed::HEED_ISA

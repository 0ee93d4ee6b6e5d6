#include "kernels/quantize/quantize.h"

#include "kernels/simd.h"

#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {

void quantize(const QuantizeArgs& args) {
  for (int row = 0; row < args.rows; ++row)
    quantize_groups(args.x + row * args.x_row, args.n, args.groups, args.q + row * args.q_row,
                    args.scale + row * args.scale_row);
}

}  // namespace heed::HEED_ISA

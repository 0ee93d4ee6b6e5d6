#include "kernels/quantize/quantize.h"

#include "kernels/simd.h"

#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {

void quantize(const QuantizeArgs& args) {
  const int n = args.n / args.groups;
  for (int row = 0; row < args.rows; ++row)
    for (int group = 0; group < args.groups; ++group)
      args.scale[row * args.scale_row + group] = quantize_group(args.x + row * args.x_row + ptrdiff_t{group} * n, n,
                                                                args.q + row * args.q_row + ptrdiff_t{group} * n);
}

}  // namespace heed::HEED_ISA

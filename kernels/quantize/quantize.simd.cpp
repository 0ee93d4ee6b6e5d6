#include "kernels/quantize/quantize.h"

#include "kernels/simd.h"

#include "kernels/quantize/group.h"

namespace heed::HEED_ISA {

void quantize(const QuantizeArgs& args) {
  if (args.given == nullptr) return quantize_rows(args.x, args.x_row, args.rows, args.n, args.to);
  for (int row = 0; row < args.rows; ++row)
    quantize_given(args.x + row * args.x_row, args.n, args.given, args.to.q + row * args.to.q_row);
}

}  // namespace heed::HEED_ISA

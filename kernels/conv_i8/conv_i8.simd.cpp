#include "kernels/conv_i8/conv_i8.h"

#include "kernels/simd.h"

#include "kernels/conv_i8/windows.h"

namespace heed::HEED_ISA {

void conv_i8(const ConvI8Args& args) {
  convolve(args);
}

}  // namespace heed::HEED_ISA

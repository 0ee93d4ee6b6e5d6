#include "kernels/recurrent_i8/recurrent_i8.h"

#include "kernels/simd.h"

#include "kernels/recurrent_i8/products.h"

namespace heed::HEED_ISA {

void recurrent_i8(const RecurrentI8Args& args) {
  Layer(args, ProductsI8(args), nullptr).run();
}

}  // namespace heed::HEED_ISA

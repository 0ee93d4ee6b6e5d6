#include "kernels/simd.h"

#include "kernels/roof/loop.h"

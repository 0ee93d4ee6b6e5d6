#include "kernels/roof/loop.h"
#include "kernels/simd.h"

#include "kernels/roof/loop.h"
#include "kernels/scalar.h"

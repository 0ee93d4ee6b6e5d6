#include "kernels/scalar.h"

#include "kernels/roof/loop.h"

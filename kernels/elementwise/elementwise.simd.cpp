#include "kernels/elementwise/elementwise.h"

#include "kernels/simd.h"

#include "kernels/math.h"

#include "kernels/elementwise/interpreter.h"

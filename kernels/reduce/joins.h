#pragma once
/// What each reduction does with an accumulator, over the vectors of simd.h or scalar.h, whichever was included before.
#include "kernels/reduce/reduce.h"

namespace heed::HEED_ISA {
namespace {

/// `start` of an accumulator, the next `element` into it, and two accumulators joined.
struct Sum {
  static constexpr float start(float) { return 0.0f; }
  static constexpr int32_t start(int32_t) { return 0; }
  HEED_INLINE static F element(F lane, F x) { return lane + x; }
  HEED_INLINE static I element(I lane, I x) { return add(lane, x); }
  HEED_INLINE static F join(F a, F b) { return a + b; }
  HEED_INLINE static I join(I a, I b) { return add(a, b); }
};

struct SumSquare {
  static constexpr float start(float) { return 0.0f; }
  HEED_INLINE static F element(F lane, F x) { return fma(x, x, lane); }
  HEED_INLINE static F join(F a, F b) { return a + b; }
};

struct Product {
  static constexpr float start(float) { return 1.0f; }
  static constexpr int32_t start(int32_t) { return 1; }
  HEED_INLINE static F element(F lane, F x) { return lane * x; }
  HEED_INLINE static I element(I lane, I x) { return mul(lane, x); }
  HEED_INLINE static F join(F a, F b) { return a * b; }
  HEED_INLINE static I join(I a, I b) { return mul(a, b); }
};

struct Max {
  static constexpr float start(float) { return -__builtin_inff(); }
  static constexpr int32_t start(int32_t) { return INT32_MIN; }
  HEED_INLINE static F element(F lane, F x) { return max(lane, x); }
  HEED_INLINE static I element(I lane, I x) { return max(lane, x); }
  HEED_INLINE static F join(F a, F b) { return max(a, b); }
  HEED_INLINE static I join(I a, I b) { return max(a, b); }
};

struct Min {
  static constexpr float start(float) { return __builtin_inff(); }
  static constexpr int32_t start(int32_t) { return INT32_MAX; }
  HEED_INLINE static F element(F lane, F x) { return min(lane, x); }
  HEED_INLINE static I element(I lane, I x) { return min(lane, x); }
  HEED_INLINE static F join(F a, F b) { return min(a, b); }
  HEED_INLINE static I join(I a, I b) { return min(a, b); }
};

/// Calls body(reduction, an element of the type) for all but the arg-extremes.
template <class Body>
void with_reduction(const ReduceArgs& args, Body body) {
  const bool f32 = args.x_shape->type == Type::f32;
  switch (args.params.kind) {
    case Reduction::sum:
      return f32 ? body(Sum{}, 0.0f) : body(Sum{}, int32_t{0});
    case Reduction::mean:
      return body(Sum{}, 0.0f);
    case Reduction::sum_square:
      return body(SumSquare{}, 0.0f);
    case Reduction::product:
      return f32 ? body(Product{}, 0.0f) : body(Product{}, int32_t{0});
    case Reduction::max:
      return f32 ? body(Max{}, 0.0f) : body(Max{}, int32_t{0});
    case Reduction::min:
      return f32 ? body(Min{}, 0.0f) : body(Min{}, int32_t{0});
    case Reduction::arg_max:
    case Reduction::arg_min:
      return;
  }
}

/// What a sum of n elements is multiplied by: 1, or 1 / n rounded for the mean.
inline float factor(const ReduceArgs& args, int64_t n) {
  return args.params.kind == Reduction::mean ? 1.0f / static_cast<float>(n) : 1.0f;
}

/// An integer that orders as arg-max wants it: NaN above all, +0 and -0 (and subnormals) equal; for arg-min from above.
HEED_INLINE I arg_key(F x, bool largest) {
  const F a = (largest ? x : neg(x)) + splat(0.0f);
  const I bits = as_i(a);
  return select(is_nan(a), splat(INT32_MAX), bits ^ (shr<31>(bits) & splat(INT32_MAX)));
}

}  // namespace
}  // namespace heed::HEED_ISA

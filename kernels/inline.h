#pragma once
#include <utility>

/// Before a helper that per-instruction-set files use: it must vanish into its caller (see simd.h).
#define HEED_INLINE inline __attribute__((always_inline))
/// After the parameter list of a lambda, to the same end.
#define HEED_INLINE_LAMBDA __attribute__((always_inline))

namespace heed {
namespace {

/// body(integral_constant 0), ..., body(integral_constant N - 1), without a loop: g++ 12 keeps arrays of vectors in
/// registers where each index is a constant expression, and spills them where a loop had to be unrolled first.
template <int N, class Body>
HEED_INLINE constexpr void unroll(Body&& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) HEED_INLINE_LAMBDA {
    (body(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

}  // namespace
}  // namespace heed

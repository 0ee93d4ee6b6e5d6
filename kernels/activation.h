#pragma once
#include <cstdint>

namespace heed {

/// What the epilogue of a matrix product may apply to each element; the same bits as the `elementwise` step of that
/// name. gelu_i8 has no such step: it is gelu for results that become int8.
enum class Activation : uint8_t { none, relu, gelu, gelu_tanh, silu, sigmoid, tanh, gelu_i8 };
inline constexpr int activation_count = 8;

}  // namespace heed

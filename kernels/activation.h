#pragma once
#include <cstdint>

namespace heed {

/// What the epilogue of a matrix product may apply to each element; the same bits as the `elementwise` step of that
/// name.
enum class Activation : uint8_t { none, relu, gelu, gelu_tanh, silu, sigmoid, tanh };
inline constexpr int activation_count = 7;

}  // namespace heed

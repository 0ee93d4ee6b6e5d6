#pragma once
/// Constants as the kernels want them: weights in panels of 16 outputs, zeros where the outputs are no multiple.
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/recurrent/recurrent.h"

namespace heed::tools {

/// [K, N] row-major -> [ceil(N / 16)][K][16] (kernels/matmul/matmul.h).
std::vector<float> matmul_panels(std::span<const float> b, int64_t k, int64_t n);

/// The same of int8 -> [ceil(N / 16)][ceil(K / 4)][16][4] (kernels/matmul_i8/matmul_i8.h).
std::vector<int8_t> matmul_panels(std::span<const int8_t> b, int64_t k, int64_t n);

/// [K, M] row-major, M in groups -> [groups * ceil(M / groups / 16)][K][16] (kernels/conv/conv.h).
std::vector<float> conv_panels(std::span<const float> w, int64_t k, int64_t outputs, int64_t groups);

/// A recurrent layer's w or r: [D][gates * H][columns] in ONNX's order of gates -> [D][U / 16][gates][columns][16]
/// (kernels/recurrent/recurrent.h).
std::vector<float> recurrent_panels(std::span<const float> weights, Cell cell, int64_t directions, int64_t hidden,
                                    int64_t columns);

/// Its biases: [D][2 * gates * H], the input's and the recurrent one, or nothing -> [D][U / 16][gates][16], the two
/// summed. With `separate` (GRU with linear_before_reset) the last gate keeps the recurrent one apart, as one vector
/// more.
std::vector<float> recurrent_bias(std::span<const float> bias, Cell cell, int64_t directions, int64_t hidden,
                                  bool separate);

}  // namespace heed::tools

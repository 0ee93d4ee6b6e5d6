#pragma once
/// Constants as the kernels want them: weights in panels of 16 outputs, zeros where the outputs are no multiple.
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/recurrent/recurrent.h"

namespace heed::tools {

/// [K, N] row-major -> [ceil(N / 16)][K][16] (kernels/matmul/matmul.h).
std::vector<float> matmul_panels(std::span<const float> b, int64_t k, int64_t n);

/// Columns of int8 with k terms each, in panels (kernels/matmul_i8/matmul_i8.h). Term i of column c is w[i * k_step + c
/// * column_step]; `columns`: which one stands in each place, -1 for zeros, in whole panels.
struct PanelsI8 {
  std::vector<int8_t> weights;  // [panels][ceil(k / 4)][16][4]
  std::vector<float> scale;     // [panels][16]
  std::vector<int32_t> sum;
};
PanelsI8 panels_i8(std::span<const int8_t> w, std::span<const float> scale, int64_t k, int64_t k_step,
                   int64_t column_step, const std::vector<int64_t>& columns);

/// The places of `outputs` columns, in groups of which each begins a panel.
std::vector<int64_t> columns_of(int64_t outputs, int64_t groups);

/// [K, M] row-major, M in groups -> [groups * ceil(M / groups / 16)][K][16] (kernels/conv/conv.h).
std::vector<float> conv_panels(std::span<const float> w, int64_t k, int64_t outputs, int64_t groups);

/// Which row of ONNX's [D][gates * H] stands in each place of [D][U / 16][gates][16] (kernels/recurrent/recurrent.h),
/// -1 past H.
std::vector<int64_t> recurrent_columns(Cell cell, int64_t directions, int64_t hidden);

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

#include "tools/plan/pack.h"

namespace heed::tools {
namespace {

/// Where ONNX has each of the kernel's gates: lstm i, f, g, o out of iofc; gru z, r, n out of zrh.
std::vector<int64_t> gate_order(Cell cell) {
  switch (cell) {
    case Cell::lstm:
      return {0, 2, 3, 1};
    case Cell::gru:
      return {0, 1, 2};
    case Cell::rnn:
      return {0};
  }
  return {};
}

}  // namespace

std::vector<float> matmul_panels(std::span<const float> b, int64_t k, int64_t n) {
  return conv_panels(b, k, n, 1);
}

std::vector<float> conv_panels(std::span<const float> w, int64_t k, int64_t outputs, int64_t groups) {
  const int64_t own = outputs / groups, panels = (own + 15) / 16;
  std::vector<float> packed(static_cast<size_t>(groups * panels * 16 * k));
  for (int64_t row = 0; row < k; ++row)
    for (int64_t m = 0; m < outputs; ++m) {
      const int64_t panel = m / own * panels + m % own / 16;
      packed[static_cast<size_t>((panel * k + row) * 16 + m % own % 16)] = w[static_cast<size_t>(row * outputs + m)];
    }
  return packed;
}

std::vector<int8_t> matmul_panels(std::span<const int8_t> b, int64_t k, int64_t n) {
  const int64_t groups = (k + 3) / 4;
  std::vector<int8_t> packed(static_cast<size_t>((n + 15) / 16 * groups * 64));
  for (int64_t row = 0; row < k; ++row)
    for (int64_t column = 0; column < n; ++column)
      packed[static_cast<size_t>((column / 16 * groups + row / 4) * 64 + column % 16 * 4 + row % 4)] =
          b[static_cast<size_t>(row * n + column)];
  return packed;
}

std::vector<float> recurrent_panels(std::span<const float> weights, Cell cell, int64_t directions, int64_t hidden,
                                    int64_t columns) {
  const std::vector<int64_t> order = gate_order(cell);
  const auto gates = static_cast<int64_t>(order.size());
  const int64_t blocks = (hidden + 15) / 16;
  std::vector<float> packed(static_cast<size_t>(directions * blocks * gates * columns * 16));
  for (int64_t direction = 0; direction < directions; ++direction)
    for (int64_t gate = 0; gate < gates; ++gate)
      for (int64_t unit = 0; unit < hidden; ++unit)
        for (int64_t column = 0; column < columns; ++column) {
          const int64_t row = (direction * gates + order[static_cast<size_t>(gate)]) * hidden + unit;
          const int64_t place =
              ((((direction * blocks + unit / 16) * gates + gate) * columns + column) * 16) + unit % 16;
          packed[static_cast<size_t>(place)] = weights[static_cast<size_t>(row * columns + column)];
        }
  return packed;
}

std::vector<float> recurrent_bias(std::span<const float> bias, Cell cell, int64_t directions, int64_t hidden,
                                  bool separate) {
  const std::vector<int64_t> order = gate_order(cell);
  const auto gates = static_cast<int64_t>(order.size());
  const int64_t blocks = (hidden + 15) / 16, vectors = gates + (separate ? 1 : 0);
  std::vector<float> packed(static_cast<size_t>(directions * blocks * vectors * 16));
  if (bias.empty()) return packed;
  for (int64_t direction = 0; direction < directions; ++direction)
    for (int64_t gate = 0; gate < gates; ++gate)
      for (int64_t unit = 0; unit < hidden; ++unit) {
        const int64_t from = (direction * 2 * gates + order[static_cast<size_t>(gate)]) * hidden + unit;
        const float of_input = bias[static_cast<size_t>(from)];
        const float of_state = bias[static_cast<size_t>(from + gates * hidden)];
        const int64_t block = (direction * blocks + unit / 16) * vectors;
        const bool apart = separate && gate == gates - 1;
        packed[static_cast<size_t>((block + gate) * 16 + unit % 16)] = apart ? of_input : of_input + of_state;
        if (apart) packed[static_cast<size_t>((block + gates) * 16 + unit % 16)] = of_state;
      }
  return packed;
}

}  // namespace heed::tools

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

PanelsI8 panels_i8(std::span<const int8_t> w, std::span<const float> scale, int64_t k, int64_t k_step,
                   int64_t column_step, const std::vector<int64_t>& columns) {
  const size_t panel = static_cast<size_t>((k + 3) / 4) * 64;
  PanelsI8 packed{std::vector<int8_t>(columns.size() / 16 * panel), std::vector<float>(columns.size()),
                  std::vector<int32_t>(columns.size())};
  for (size_t at = 0; at < columns.size(); ++at) {
    if (columns[at] < 0) continue;
    packed.scale[at] = scale[static_cast<size_t>(columns[at])];
    for (int64_t i = 0; i < k; ++i) {
      const int8_t byte = w[static_cast<size_t>(i * k_step + columns[at] * column_step)];
      packed.weights[at / 16 * panel + static_cast<size_t>(i / 4 * 64 + i % 4) + at % 16 * 4] = byte;
      packed.sum[at] += byte;
    }
  }
  return packed;
}

std::vector<int64_t> columns_of(int64_t outputs, int64_t groups) {
  const int64_t own = outputs / groups, places = (own + 15) / 16 * 16;
  std::vector<int64_t> columns;
  for (int64_t i = 0; i < groups * places; ++i)
    columns.push_back(i % places < own ? i / places * own + i % places : -1);
  return columns;
}

std::vector<int64_t> recurrent_columns(Cell cell, int64_t directions, int64_t hidden) {
  const std::vector<int64_t> order = gate_order(cell);
  const auto gates = static_cast<int64_t>(order.size());
  std::vector<int64_t> columns;
  for (int64_t direction = 0; direction < directions; ++direction)
    for (int64_t first = 0; first < hidden; first += 16)
      for (const int64_t gate : order)
        for (int64_t unit = first; unit < first + 16; ++unit)
          columns.push_back(unit < hidden ? (direction * gates + gate) * hidden + unit : -1);
  return columns;
}

std::vector<float> recurrent_panels(std::span<const float> weights, Cell cell, int64_t directions, int64_t hidden,
                                    int64_t columns) {
  const std::vector<int64_t> rows = recurrent_columns(cell, directions, hidden);
  std::vector<float> packed(rows.size() * static_cast<size_t>(columns));
  for (size_t at = 0; at < rows.size(); ++at)
    for (int64_t i = 0; i < columns && rows[at] >= 0; ++i)
      packed[at / 16 * static_cast<size_t>(columns) * 16 + static_cast<size_t>(i) * 16 + at % 16] =
          weights[static_cast<size_t>(rows[at] * columns + i)];
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

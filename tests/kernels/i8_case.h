#pragma once
/// What tests of int8 layers share: weights in panels, and rows as `quantize` makes them, told in double precision.
#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {

inline std::vector<int8_t> random_bytes(size_t count, Random& random) {
  std::vector<int8_t> values(count);
  for (int8_t& value : values) value = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
  return values;
}

/// `panels` panels of 16 columns with k terms each: [panels][ceil(k / 4)][16][4], their scales and sums.
struct Panels {
  int k, groups;
  std::vector<int8_t> weights;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  /// Anything in [-127, 127], or `value` with the one or the other sign.
  Panels(int panels, int k, Random& random, int value = 0)
      : k(k),
        groups((k + 3) / 4),
        weights(static_cast<size_t>(panels) * groups * 64),
        scale(uniform(static_cast<size_t>(panels) * 16, random, 0.5f / (127.0f * std::sqrt(k + 1.0f)),
                      2.0f / (127.0f * std::sqrt(k + 1.0f)))),
        sum(static_cast<size_t>(panels) * 16) {
    for (int column = 0; column < panels * 16; ++column)
      for (int i = 0; i < k; ++i) {
        int8_t& w = weights[place(column, i)];
        w = value == 0 ? random_bytes(1, random)[0] : static_cast<int8_t>(random() % 2 == 0 ? value : -value);
        sum[static_cast<size_t>(column)] += w;
      }
  }

  size_t place(int column, int i) const {
    return (static_cast<size_t>(column / 16) * groups + i / 4) * 64 + column % 16 * 4 + i % 4;
  }
  /// A row times a column, with their scales.
  double times(const std::vector<int>& row, double row_scale, int column) const {
    double total = 0;
    for (int i = 0; i < k; ++i) total += row[static_cast<size_t>(i)] * weights[place(column, i)];
    return total * row_scale * double{scale[static_cast<size_t>(column)]};
  }
};

/// kernels/quantize/quantize.h.
struct QuantizedRow {
  std::vector<int> q;  // less the zero point
  double scale;

  explicit QuantizedRow(const std::vector<float>& row, bool asymmetric = false) : q(row.size()) {
    float high = 0, depth = 0;
    for (const float x : row) {
      high = std::max(high, asymmetric ? x : std::abs(x));
      if (asymmetric) depth = std::max(depth, -x);
    }
    const float width = high + depth, steps = asymmetric ? 253 : 127;
    scale = width / steps;
    const double inverse = width > 0 ? steps / width : 0,
                 zero = asymmetric ? std::nearbyint(depth * inverse - 126.25) : 0;
    for (size_t i = 0; i < row.size() && width > 0; ++i)
      q[i] = static_cast<int>(std::nearbyint(double{row[i]} * inverse + zero) - zero);
  }
};

}  // namespace heed::test

/// Smoothing of what int8 layers read (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438). A channel of x that is much
/// larger than the others decides the scale of its row, and the others lose their bits. So what is quantised is
///
///   x W = (x / s) (s W)      s[c] = (largest |x[.., c]| / largest |W[c, ..]|)^strength, for each channel c
///
/// with the strength at which rows seen and weights, both in int8, give the least squared error, relative to each row
/// of the product; 0 changes nothing. x / s costs nothing where x is normalised: scale and bias are constants. Where
/// others need x as it is (a residual), the normalisation is computed twice.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tools/calibrate.h"
#include "tools/passes/passes.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr float strengths[] = {0, 0.3f, 0.4f, 0.5f, 0.6f, 0.75f};
/// A channel that is hardly there is not made the size of the others.
constexpr float least_share = 1e-3f;
/// Rows and columns that are tried.
constexpr size_t most_rows = 96, most_columns = 96;
/// What smoothing must take off the squared error at least.
constexpr double least_gain = 1.25;

struct Matrix {
  size_t rows, columns;
  std::vector<float> values;
  float* row(size_t i) { return &values[i * columns]; }
};

/// To the levels of int8 that each row has (kernels/quantize/quantize.h), and back.
void round_rows(Matrix& m, bool asymmetric) {
  for (size_t i = 0; i < m.rows; ++i) {
    float high = 0, low = 0;
    for (size_t j = 0; j < m.columns; ++j) {
      const float x = m.row(i)[j];
      high = std::max(high, asymmetric ? x : std::abs(x));
      if (asymmetric) low = std::min(low, x);
    }
    const float scale = (high - low) / (asymmetric ? 253.0f : 127.0f);
    if (scale == 0) continue;
    for (size_t j = 0; j < m.columns; ++j) m.row(i)[j] = std::nearbyint(m.row(i)[j] / scale) * scale;
  }
}

/// x [m, k] times w [n, k].
Matrix product(Matrix& x, Matrix& w) {
  Matrix y{x.rows, w.rows, std::vector<float>(x.rows * w.rows)};
  for (size_t i = 0; i < x.rows; ++i)
    for (size_t j = 0; j < w.rows; ++j) {
      float sums[16] = {};  // so that it becomes vectors
      for (size_t c = 0; c < x.columns; ++c) sums[c % 16] += x.row(i)[c] * w.row(j)[c];
      for (const float sum : sums) y.row(i)[j] += sum;
    }
  return y;
}

class Smoothing {
 public:
  Smoothing(Graph& graph, const Calibration& calibration, Report& report)
      : graph_(graph), calibration_(calibration), report_(report) {}

  /// The layers in the place of these.
  std::vector<NodeId> run(std::vector<NodeId> layers) {
    std::map<ValueId, std::vector<NodeId*>> readers;
    for (NodeId& id : layers)
      if (std::holds_alternative<Matmul>(graph_.node(id).operation)) readers[graph_.node(id).inputs[0]].push_back(&id);
    for (const auto& [x, ids] : readers) {
      if (!is_normalized(x)) continue;
      const std::vector<float> scales = scales_of(ids);
      if (scales.empty()) continue;
      const ValueId smooth = divided(x, scales);
      for (NodeId* id : ids) *id = with_scales(*id, smooth, scales);
    }
    if (count_ > 0) report_.notes.push_back(std::to_string(count_) + " int8 layers read channels that are smoothed");
    return layers;
  }

 private:
  const Literal& weights(NodeId id) const { return *graph_.value(graph_.node(id).inputs[1]).constant; }

  bool is_normalized(ValueId x) const {
    if (const auto* normalize = made_by<Normalize>(graph_, x); normalize != nullptr) {
      const auto& inputs = producer(graph_, x)->inputs;
      return std::all_of(inputs.begin() + 1, inputs.end(),
                         [&](ValueId id) { return id == no_value || graph_.value(id).constant.has_value(); });
    }
    return made_by<Reshape>(graph_, x) != nullptr && keeps_rows(x) && is_normalized(producer(graph_, x)->inputs[0]);
  }
  bool keeps_rows(ValueId reshaped) const {
    const Dims &own = graph_.value(reshaped).dims, &before = graph_.value(producer(graph_, reshaped)->inputs[0]).dims;
    return !own.empty() && !before.empty() && own.back() == before.back();
  }

  /// Empty: nothing is gained.
  std::vector<float> scales_of(const std::vector<NodeId*>& readers) const {
    const Activations* seen = calibration_.find(graph_.node(*readers[0]).name);
    if (seen == nullptr) return {};
    const std::vector<float>& top = seen->top;
    const size_t k = top.size();
    std::vector<float> weight_top(k);
    Matrix w{0, k, {}};
    for (const NodeId* id : readers) {
      const std::span<const float> values = weights(*id).floats();
      const size_t n = values.size() / k;
      if (n * k != values.size()) return {};
      for (size_t i = 0; i < values.size(); ++i) weight_top[i / n] = std::max(weight_top[i / n], std::abs(values[i]));
      for (size_t column = 0; column < n; column += 1 + n / most_columns, ++w.rows)
        for (size_t c = 0; c < k; ++c) w.values.push_back(values[c * n + column]);
    }
    Matrix x{0, k, {}};
    const std::vector<float>& rows = seen->rows;
    for (size_t row = 0; row < rows.size() / k; row += 1 + rows.size() / k / most_rows, ++x.rows)
      x.values.insert(x.values.end(), rows.begin() + static_cast<ptrdiff_t>(row * k),
                      rows.begin() + static_cast<ptrdiff_t>((row + 1) * k));
    Matrix expected = product(x, w);
    std::vector<float> best;
    double least = 0;
    for (const float strength : strengths) {
      const std::vector<float> scales = scales_at(strength, top, weight_top);
      Matrix x8 = x, w8 = w;
      for (size_t i = 0; i < x.rows; ++i)
        for (size_t c = 0; c < k; ++c) x8.row(i)[c] /= scales[c];
      for (size_t i = 0; i < w.rows; ++i)
        for (size_t c = 0; c < k; ++c) w8.row(i)[c] *= scales[c];
      round_rows(x8, true);
      round_rows(w8, false);
      Matrix found = product(x8, w8);
      double error = 0;
      for (size_t i = 0; i < x.rows; ++i) {
        double difference = 0, signal = 0;
        for (size_t j = 0; j < w.rows; ++j) {
          const double d = found.row(i)[j] - expected.row(i)[j];
          difference += d * d;
          signal += double{expected.row(i)[j]} * expected.row(i)[j];
        }
        if (signal > 0) error += difference / signal;
      }
      if (strength == 0)
        least = error / least_gain;
      else if (error < least)
        least = error, best = scales;
    }
    return best;
  }

  /// Around 1.
  static std::vector<float> scales_at(float strength, const std::vector<float>& top,
                                      const std::vector<float>& weight_top) {
    const float least = least_share * *std::max_element(top.begin(), top.end()),
                least_weight = least_share * *std::max_element(weight_top.begin(), weight_top.end());
    std::vector<float> scales;
    double logs = 0;
    for (size_t c = 0; c < top.size(); ++c) {
      const float ratio = std::max(top[c], least) / std::max(weight_top[c], least_weight);
      scales.push_back(ratio > 0 && std::isfinite(ratio) ? std::pow(ratio, strength) : 1);
      logs += std::log(scales.back());
    }
    const auto mean = static_cast<float>(std::exp(logs / static_cast<double>(scales.size())));
    for (float& scale : scales) scale /= mean;
    return scales;
  }

  /// x / scales.
  ValueId divided(ValueId x, const std::vector<float>& scales) {
    const Node node = *producer(graph_, x);
    const std::string name = node.name + " smoothed";
    if (std::holds_alternative<Reshape>(node.operation))
      return graph_.add_value(node.operation, {divided(node.inputs[0], scales)}, name, node.absorbed);
    std::vector<ValueId> inputs = node.inputs;
    inputs.resize(std::max<size_t>(inputs.size(), 2), no_value);
    for (size_t i = 1; i < inputs.size(); ++i) {
      if (i == 2 && inputs[i] == no_value) continue;
      std::vector<float> values(scales.size(), 1);
      if (inputs[i] != no_value) {
        const std::span<const float> own = graph_.value(inputs[i]).constant->floats();
        values.assign(own.begin(), own.end());
      }
      for (size_t c = 0; c < values.size(); ++c) values[c] /= scales[c];
      inputs[i] = graph_.constant(name, Literal::of({static_cast<int64_t>(scales.size())}, std::move(values)));
    }
    return graph_.add_value(node.operation, inputs, name, node.absorbed);
  }

  NodeId with_scales(NodeId id, ValueId x, const std::vector<float>& scales) {
    const Node node = graph_.node(id);
    const Literal& own = weights(id);
    std::vector<float> values(own.floats().begin(), own.floats().end());
    const size_t n = values.size() / scales.size();
    for (size_t i = 0; i < values.size(); ++i) values[i] *= scales[i / n];
    std::vector<ValueId> inputs = node.inputs;
    inputs[0] = x;
    inputs[1] = graph_.constant(graph_.value(node.inputs[1]).name, Literal::of(own.dims, std::move(values)));
    const NodeId made = graph_.add(node.operation, inputs, node.name, node.absorbed);
    graph_.replace(node.outputs[0], graph_.node(made).outputs[0]);
    ++count_;
    return made;
  }

  Graph& graph_;
  const Calibration& calibration_;
  Report& report_;
  int count_ = 0;
};

}  // namespace

namespace {

/// The axis of what a reshape reads that is its axis `at`, the elements behind it being the same ones; -1: none is. Of
/// what is `last` to be looked through, the axis may also hold that one and others before it.
int axis_below(const Dims& after, const Dims& before, int at, bool last) {
  const auto size_behind = [](const Dims& dims, int axis) { return count(Dims(dims.begin() + axis + 1, dims.end())); };
  const Expression behind = size_behind(after, at);
  for (int axis = static_cast<int>(before.size()) - 1; axis >= 0; --axis)
    if (size_behind(before, axis) == behind &&
        (last || before[static_cast<size_t>(axis)] == after[static_cast<size_t>(at)]))
      return axis;
  return -1;
}

/// What makes keys [B, H, T, D] but for views, where its last axis is none of T's: a bias is the same for all keys
/// then. no_value where it is not, or somebody else reads it.
ValueId maker_of_keys(const Graph& graph, ValueId keys) {
  int axis = 2;
  const auto has_one_reader = [&](ValueId value) { return graph.readers(value).size() == 1; };
  while (axis >= 0 && has_one_reader(keys)) {
    if (const auto* transpose = made_by<Transpose>(graph, keys)) {
      axis = transpose->permutation[static_cast<size_t>(axis)];
    } else if (made_by<Reshape>(graph, keys) != nullptr) {
      const ValueId from = producer(graph, keys)->inputs[0];
      axis = axis_below(graph.value(keys).dims, graph.value(from).dims, axis, made_by<Matmul>(graph, from) != nullptr);
    } else {
      return axis + 1 < static_cast<int>(graph.value(keys).dims.size()) ? keys : no_value;
    }
    keys = producer(graph, keys)->inputs[0];
  }
  return no_value;
}

}  // namespace

/// The same row added to all keys of a head adds the same to all scores of a query, which softmax takes off again: so
/// the bias of a layer that makes keys is free. (Of SageAttention, Zhang et al. 2024, which takes off the mean while it
/// runs.) On data it becomes what centres the keys, else it goes.
void centre_keys(Graph& graph, const Calibration* calibration, Report& report) {
  int count = 0;
  for (const NodeId id : graph.order()) {
    const Node& attention = graph.node(id);
    if (!std::holds_alternative<Attention>(attention.operation)) continue;
    ValueId keys = attention.inputs[1];
    if (std::count(attention.inputs.begin(), attention.inputs.end(), keys) > 1) continue;
    keys = maker_of_keys(graph, keys);
    const auto* matmul = keys == no_value ? nullptr : made_by<Matmul>(graph, keys);
    if (matmul == nullptr || matmul->activation != Activation::none) continue;
    const Node layer = *producer(graph, keys);
    const auto& weights = graph.value(layer.inputs[1]).constant;
    if (layer.inputs.size() < 3 || layer.inputs[2] == no_value ||
        (layer.inputs.size() > 3 && layer.inputs[3] != no_value) || !weights || weights->type != Type::f32 ||
        !graph.value(layer.inputs[2]).constant)
      continue;
    const std::span<const float> w = weights->floats();
    const auto n = static_cast<size_t>(weights->dims.back());
    std::vector<double> mean(n);
    if (const Activations* seen = calibration != nullptr ? calibration->find(layer.name) : nullptr;
        seen != nullptr && !seen->rows.empty() && seen->top.size() * n == w.size()) {
      const size_t k = seen->top.size(), rows = seen->rows.size() / k;
      for (size_t c = 0; c < k; ++c) {
        double sum = 0;
        for (size_t row = 0; row < rows; ++row) sum += seen->rows[row * k + c];
        for (size_t i = 0; i < n; ++i) mean[i] += sum / static_cast<double>(rows) * w[c * n + i];
      }
    }
    std::vector<float> bias;
    for (const double each : mean) bias.push_back(std::isfinite(each) ? static_cast<float>(-each) : 0);
    std::vector<ValueId> inputs = layer.inputs;
    inputs[2] = graph.constant(graph.value(inputs[2]).name, Literal::of({static_cast<int64_t>(n)}, std::move(bias)));
    graph.replace(keys, graph.add_value(layer.operation, inputs, layer.name, layer.absorbed));
    ++count;
  }
  if (count > 0) report.notes.push_back(fmt::format("the keys of {} attentions are centred", count));
}

bool smooths(Graph& graph) {
  const std::vector<NodeId> order = graph.order();
  return std::any_of(order.begin(), order.end(),
                     [&](NodeId id) { return std::holds_alternative<Normalize>(graph.node(id).operation); });
}

std::vector<NodeId> smooth(Graph& graph, std::vector<NodeId> layers, const Calibration& calibration, Report& report) {
  return Smoothing(graph, calibration, report).run(std::move(layers));
}

}  // namespace heed::tools

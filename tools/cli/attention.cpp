#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/cli/data.h"
#include "tools/cli/loaded.h"
#include "tools/cli/verbs.h"
#include "tools/error.h"
#include "tools/io/canvas.h"

namespace heed::tools {
namespace {

/// The weights of one marked softmax, [heads][rows][columns]. Rows are the queries of one sample or, where there is but
/// one query, the samples that were computed together.
struct Layer {
  Mark mark;
  bool fused;  // inside an attention operator
  bool rows_are_samples;
  size_t heads, rows, columns;
  std::vector<float> weights;

  size_t place(size_t head, size_t row) const { return (head * rows + row) * columns; }
};

/// How the axes of a marked operator's weights are to be read, in the session's current dimensions.
struct Axes {
  size_t batch, heads, queries, keys;
};

/// The named dimension that leads every input, or -1: samples lie side by side along it.
int32_t batch_dimension(const Model& model) {
  int32_t found = -1;
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const TensorInfo tensor = model.tensor(model.input(i).tensor);
    if (tensor.rank == 0) return -1;
    const ExpressionNode lead = model.expression(tensor.dims[0]);
    if (lead.op != ExpressionNode::Op::dimension || (i > 0 && lead.a != found)) return -1;
    found = lead.a;
  }
  return found;
}

bool depends_on(const Model& model, uint32_t expression, int32_t dimension) {
  const ExpressionNode node = model.expression(expression);
  if (node.op == ExpressionNode::Op::constant || node.op == ExpressionNode::Op::position) return false;
  if (node.op == ExpressionNode::Op::dimension) return node.a == dimension;
  return depends_on(model, static_cast<uint32_t>(node.a), dimension) ||
         depends_on(model, static_cast<uint32_t>(node.b), dimension);
}

bool is_attention(OperatorKind kind) {
  return kind == OperatorKind::attention || kind == OperatorKind::attention_i8;
}

/// Attention has [B, H, Tq, Tk]. A softmax's result ends in the keys; before them are the queries, and what is left of
/// these leads: the batch where its size comes from the inputs' leading dimension, and heads.
Axes axes_of(const Model& model, const Session& session, const Mark& mark) {
  const OperatorInfo info = model.operator_info(mark.operator_index);
  const auto shape = [&](int32_t tensor) -> const Shape& {
    return *session.tensor(static_cast<uint32_t>(tensor)).shape;
  };
  if (is_attention(info.kind)) {
    const Shape &q = shape(info.inputs[0]), &k = shape(info.inputs[1]);
    return {static_cast<size_t>(q.dims[0]), static_cast<size_t>(q.dims[1]), static_cast<size_t>(q.dims[2]),
            static_cast<size_t>(k.dims[2])};
  }
  const auto tensor = static_cast<uint32_t>(info.outputs[0]);
  const Shape& y = shape(info.outputs[0]);
  const TensorInfo stated = model.tensor(tensor);
  Axes axes{1, 1, 1, y.rank > 0 ? static_cast<size_t>(y.dims[y.rank - 1]) : 1};
  int first = 0, last = y.rank - 1;  // the axes before the keys
  const int32_t batch = batch_dimension(model);
  // A leading axis that is as long as the keys whatever the dimensions are is one of queries.
  if (batch >= 0 && last > 0 && depends_on(model, stated.dims[0], batch) && stated.dims[0] != stated.dims[last]) {
    const int32_t size = session.dimension(model.dimension(static_cast<uint32_t>(batch)).name);
    if (size > 0 && y.dims[0] % size == 0) {
      axes.batch = static_cast<size_t>(size);
      axes.heads = static_cast<size_t>(y.dims[0] / size);
      first = 1;
    }
  }
  if (last > first) axes.queries = static_cast<size_t>(y.dims[--last]);
  for (int axis = first; axis < last; ++axis) axes.heads *= static_cast<size_t>(y.dims[axis]);
  return axes;
}

/// Gathers the weights of one run; of layers whose rows are queries, those of sample `chosen`.
class Collector {
 public:
  Collector(const LoadedModel& loaded, const std::vector<Axes>& axes, size_t chosen) : axes_(axes), chosen_(chosen) {
    const Model& model = loaded.model();
    for (uint32_t i = 0; i < model.mark_count(); ++i) {
      const auto& [batch, heads, queries, keys] = axes[i];
      const size_t rows = queries == 1 ? batch : queries;
      const bool fused = is_attention(model.operator_info(model.mark(i).operator_index).kind);
      layers_.push_back(
          {model.mark(i), fused, queries == 1, heads, rows, keys, std::vector<float>(heads * rows * keys)});
    }
    observer_.context = this;
    observer_.output = [](void* context, uint32_t index, uint32_t output, const Tensor& value) {
      if (output == 0) static_cast<Collector*>(context)->softmax(index, value);
    };
    observer_.weights = [](void* context, uint32_t index, int batch, int head, int query,
                           std::span<const float> weights) {
      static_cast<Collector*>(context)->attention(index, static_cast<size_t>(batch), static_cast<size_t>(head),
                                                  static_cast<size_t>(query), weights);
    };
  }
  const Observer* observer() const { return &observer_; }
  const std::vector<Layer>& layers() const { return layers_; }

 private:
  /// Where the weights of one query go; null where they are of a sample that nobody wants.
  float* row_of(Layer& layer, size_t batch, size_t head, size_t query) {
    if (!layer.rows_are_samples && batch != chosen_) return nullptr;
    return &layer.weights[layer.place(head, layer.rows_are_samples ? batch : query)];
  }

  void attention(uint32_t index, size_t batch, size_t head, size_t query, std::span<const float> weights) {
    for (Layer& layer : layers_)
      if (layer.mark.operator_index == index)
        if (float* row = row_of(layer, batch, head, query)) std::copy(weights.begin(), weights.end(), row);
  }

  void softmax(uint32_t index, const Tensor& value) {
    const Shape& shape = *value.shape;
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].mark.operator_index != index || layers_[i].fused) continue;
      const auto& [batch, heads, queries, keys] = axes_[i];
      const auto rows = static_cast<int64_t>(batch * heads * queries);
      for (int64_t row = 0; row < rows; ++row) {
        const auto flat = static_cast<size_t>(row);
        float* to = row_of(layers_[i], flat / queries / heads, flat / queries % heads, flat % queries);
        if (to == nullptr) continue;
        int64_t offset = 0, rest = row;
        for (int axis = shape.rank - 1; axis-- > 0; rest /= shape.dims[axis])
          offset += rest % shape.dims[axis] * shape.strides[axis];
        for (size_t key = 0; key < keys; ++key)
          to[key] = value.as<float>()[offset + static_cast<int64_t>(key) * shape.strides[shape.rank - 1]];
      }
    }
  }

  std::vector<Axes> axes_;
  std::vector<Layer> layers_;
  Observer observer_;
  size_t chosen_;
};

/// Runs the data up to sample `chosen`: samples are the entries of the files, and of each the entries of the batch.
std::vector<Layer> collect(const LoadedModel& loaded, Data& data, size_t chosen) {
  const Model& model = loaded.model();
  if (model.mark_count() == 0)
    throw Error(Fault::model,
                fmt::format("{}: has no attention: no softmax whose result weights a sum", loaded.path()));
  Runner runner(loaded, {});
  Session& session = runner.session();
  size_t first = 0;
  for (size_t sample = 0; sample < data.samples(); ++sample) {
    data.feed(sample, session);
    std::vector<Axes> axes;
    size_t batch = 1;
    for (uint32_t i = 0; i < model.mark_count(); ++i) {
      axes.push_back(axes_of(model, session, model.mark(i)));
      batch = std::max(batch, axes.back().batch);
    }
    if (chosen < first + batch) {
      Collector collector(loaded, axes, chosen - first);
      session.observe(collector.observer());
      session.reset();
      check(session.run(), loaded.path());
      Results results(loaded, data);
      results.take(sample, session);
      data.note_not_finite();
      results.note_not_finite();
      return collector.layers();
    }
    first += batch;
  }
  throw Error(Fault::command_line, fmt::format("--sample {}: the data has {} samples, the first is 0", chosen, first));
}

// --- The picture
// --------------------------------------------------------------------------------------------------------

constexpr int margin = 28, gap = 26;
constexpr Colour not_finite{160, 160, 160};  // no colour of the scale

/// Pixels of one map; cells may be larger than a pixel or, in large maps, several may share one.
struct Extent {
  int width, height;
};

/// Cells of up to 44 pixels, square where rows and columns are of one kind, and about 280 pixels for all of them.
Extent extent_of(const Layer& layer) {
  constexpr int side = 280, largest_cell = 44, most = 320;
  const auto cell = [&](size_t count) {
    return std::clamp(side / std::max(static_cast<int>(count), 1), 1, largest_cell);
  };
  int x = cell(layer.columns), y = cell(layer.rows);
  if (!layer.rows_are_samples) x = std::min(x, 4 * y), y = std::min(y, 4 * x);
  return {std::clamp(static_cast<int>(layer.columns) * x, 1, most),
          std::clamp(static_cast<int>(layer.rows) * y, 1, most)};
}

/// 1, 2 or 5 times a power of ten: the first at which `count` labels of `needed` pixels fit into `pixels`.
size_t tick_step(size_t count, int pixels, int needed) {
  for (size_t power = 1;; power *= 10)
    for (const size_t factor : {1, 2, 5})
      if (static_cast<double>(power * factor) * pixels >= static_cast<double>(count) * needed) return power * factor;
}

/// `text` shortened from the left to `width` pixels: the end of a node's name says the most.
std::string fitted(std::string text, int width, int scale) {
  if (Canvas::text_width(text, scale) <= width) return text;
  while (!text.empty() && Canvas::text_width(".." + text, scale) > width) text.erase(0, 1);
  return ".." + text;
}

std::string number(double value) {
  return fmt::format("{:.3g}", value);
}

/// What a pixel of a map shows: the weight of its cell, or the mean of the cells that it covers.
double pixel(const Layer& layer, size_t head, const Extent& extent, int x, int y) {
  const auto covered = [](int at, int pixels, size_t count) {
    const auto size = static_cast<int64_t>(count);
    const int64_t first = at * size / pixels;
    return std::pair(static_cast<size_t>(first), static_cast<size_t>(std::max(first + 1, (at + 1) * size / pixels)));
  };
  const auto [first_row, last_row] = covered(y, extent.height, layer.rows);
  const auto [first_column, last_column] = covered(x, extent.width, layer.columns);
  double sum = 0;
  for (size_t row = first_row; row < last_row; ++row)
    for (size_t column = first_column; column < last_column; ++column)
      sum += layer.weights[layer.place(head, row) + column];
  return sum / static_cast<double>((last_row - first_row) * (last_column - first_column));
}

template <class Visit>
void for_each_pixel(const Extent& extent, Visit&& visit) {
  for (int y = 0; y < extent.height; ++y)
    for (int x = 0; x < extent.width; ++x) visit(x, y);
}

/// The upper end of a layer's scale: what its brightest pixel shows.
double largest_of(const Layer& layer, const Extent& extent) {
  double largest = 0;
  if (!layer.weights.empty())
    for (size_t head = 0; head < layer.heads; ++head)
      for_each_pixel(extent, [&](int x, int y) {
        const double weight = pixel(layer, head, extent, x, y);
        if (std::isfinite(weight)) largest = std::max(largest, weight);
      });
  return largest > 0 ? largest : 1;
}

void draw_map(Canvas& canvas, int x, int y, const Layer& layer, size_t head, const Extent& extent, double largest) {
  const auto columns = static_cast<int>(layer.columns), rows = static_cast<int>(layer.rows);
  if (layer.weights.empty()) return;
  for_each_pixel(extent, [&](int px, int py) {
    const double weight = pixel(layer, head, extent, px, py);
    canvas.fill(x + px, y + py, 1, 1, std::isfinite(weight) ? colour_of(weight / largest) : not_finite);
  });
  const int cell_x = extent.width / columns, cell_y = extent.height / rows;
  if (cell_x >= 36 && cell_y >= 18)
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column) {
        const double weight = layer.weights[layer.place(head, static_cast<size_t>(row)) + static_cast<size_t>(column)];
        const std::string text = fmt::format("{:.2f}", weight);
        canvas.text(x + column * cell_x + (cell_x - Canvas::text_width(text, 1)) / 2,
                    y + row * cell_y + (cell_y - 7) / 2, text, weight > 0.58 * largest ? black : white, 1);
      }
}

void draw_axes(Canvas& canvas, int x, int y, const Layer& layer, const Extent& extent) {
  const auto along = [](size_t index, size_t count, int pixels) {
    return static_cast<int>((2 * index + 1) * static_cast<size_t>(pixels) / (2 * count));
  };
  for (size_t column = 0; column < layer.columns; column += tick_step(layer.columns, extent.width, 36)) {
    const std::string text = std::to_string(column);
    const int at = x + along(column, layer.columns, extent.width);
    canvas.fill(at, y + extent.height, 1, 4, faint);
    canvas.text(at - Canvas::text_width(text, 1) / 2, y + extent.height + 7, text, faint, 1);
  }
  for (size_t row = 0; row < layer.rows; row += tick_step(layer.rows, extent.height, 24)) {
    const std::string text = std::to_string(row);
    const int at = y + along(row, layer.rows, extent.height);
    canvas.fill(x - 4, at, 4, 1, faint);
    canvas.text(x - 7 - Canvas::text_width(text, 1), at - 4, text, faint, 1);
  }
}

void draw_scale(Canvas& canvas, int x, int y, int height, double largest) {
  constexpr int width = 14;
  for (int row = 0; row < height; ++row) canvas.fill(x, y + row, width, 1, colour_of(1 - (row + 0.5) / height));
  for (const double share : {0.0, 0.5, 1.0}) {
    const int at = y + static_cast<int>((1 - share) * (height - 1));
    canvas.fill(x + width, at, 4, 1, faint);
    canvas.text(x + width + 7, at - 4, number(share * largest), faint, 1);
  }
}

Canvas draw(const std::vector<Layer>& layers, const std::string& title) {
  constexpr int left = 46, below = 40, head_line = 18, scale_width = 70, most_width = 1500, title_height = 34,
                layer_title = 50;
  struct Place {
    Extent extent;
    int per_line, lines;
  };
  std::vector<Place> places;
  int width = 560, height = margin + title_height;
  for (const Layer& layer : layers) {
    const Extent extent = extent_of(layer);
    const int step = left + extent.width + gap;
    const auto heads = static_cast<int>(layer.heads);
    const int per_line = std::clamp((most_width - 2 * margin - scale_width) / step, 1, heads);
    const int lines = (heads + per_line - 1) / per_line;
    places.push_back({extent, per_line, lines});
    width = std::max(width, 2 * margin + per_line * step + scale_width);
    height += layer_title + lines * (head_line + extent.height + below) + gap;
  }
  Canvas canvas(width, height + margin - gap);
  canvas.text(margin, margin, fitted(title, width - 2 * margin, 2));
  int y = margin + title_height;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    const auto& [extent, per_line, lines] = places[i];
    canvas.fill(margin, y, width - 2 * margin, 1, Colour{222, 224, 228});
    canvas.text(margin, y + 10, fitted(std::string(layer.mark.name), width - 2 * margin, 2));
    std::string about;
    if (!layer.mark.queries.empty()) about += fmt::format("queries: {}   ", layer.mark.queries);
    if (!layer.mark.keys.empty()) about += fmt::format("keys: {}", layer.mark.keys);
    canvas.text(margin, y + 34, fitted(about, width - 2 * margin, 1), faint, 1);
    y += layer_title;
    const double largest = largest_of(layer, extent);
    for (size_t head = 0; head < layer.heads; ++head) {
      const int column = static_cast<int>(head) % per_line, line = static_cast<int>(head) / per_line;
      const int x = margin + left + column * (left + extent.width + gap);
      const int top = y + line * (head_line + extent.height + below) + head_line;
      if (layer.heads > 1) canvas.text(x, top - head_line + 4, fmt::format("head {}", head), ink, 1);
      draw_map(canvas, x, top, layer, head, extent, largest);
      draw_axes(canvas, x, top, layer, extent);
      canvas.text(x + (extent.width - Canvas::text_width("key", 1)) / 2, top + extent.height + 20, "key", ink, 1);
      const std::string rows = layer.rows_are_samples ? "sample" : "query";
      canvas.text_up(x - 40, top + (extent.height + Canvas::text_width(rows, 1)) / 2, rows, ink, 1);
    }
    const int scale_x = margin + per_line * (left + extent.width + gap);
    draw_scale(canvas, scale_x, y + head_line, extent.height, largest);
    y += lines * (head_line + extent.height + below) + gap;
  }
  return canvas;
}

}  // namespace

void attention(const AttentionCommand& command) {
  check_output("-o", command.output, files_of(command.model, command.inputs));
  if (command.output.extension() != ".png")
    throw Error(Fault::command_line, fmt::format("-o {}: the picture is a .png", command.output.string()));
  const LoadedModel loaded(command.model);
  Data data(loaded, command.inputs);
  const std::vector<Layer> layers = collect(loaded, data, command.sample);
  std::string title = command.model.filename().string();
  if (!std::all_of(layers.begin(), layers.end(), [](const Layer& layer) { return layer.rows_are_samples; }))
    title += fmt::format(", sample {}", command.sample);
  draw(layers, title).write_png(command.output);
}

}  // namespace heed::tools

/// A matrix product whose rows are windows of a sequence, gathered beforehand as torch's unfold is exported: a
/// convolution. What a row holds is read element by element, whatever views, padding and gathers brought it there.
#include <algorithm>
#include <map>
#include <numeric>

#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// What moves elements, or puts zeros between them.
bool moves(const Graph& graph, ValueId id) {
  if (const auto* pad = made_by<Pad>(graph, id)) return pad->value == 0;
  if (made_by<Gather>(graph, id)) return graph.value(producer(graph, id)->inputs[1]).constant.has_value();
  return is_view(graph, id);
}

// Where the elements of `id` come from: 1 + the place in x, 0 where it is padding.
Literal places(const Graph& graph, ValueId id, ValueId x, const std::vector<int64_t>& dims) {
  Literal all;
  all.dims = dims;
  std::vector<float> numbers(static_cast<size_t>(all.count()));
  std::iota(numbers.begin(), numbers.end(), 1.0f);
  std::map<ValueId, Literal> values{{x, Literal::of(dims, std::move(numbers))}};
  for (const NodeId node : region(graph, id, {x})) {
    std::vector<const Literal*> inputs;
    for (const ValueId input : graph.node(node).inputs)
      inputs.push_back(graph.value(input).constant ? &*graph.value(input).constant : &values.at(input));
    values[graph.node(node).outputs[0]] = evaluate(graph.node(node), inputs, {})[0];
  }
  return values.at(id);
}

// Column k of the rows is channel `channel` of the sequence, `shift` behind row * stride.
struct Column {
  int64_t channel, shift;
};

struct Windows {
  int64_t stride = 0;
  std::vector<Column> columns;
};

// x as a sequence along one of its axes: all the others are channels.
struct Sequence {
  int64_t length, channels, inner;  // inner: elements behind the axis

  int64_t position(int64_t place) const { return place / inner % length; }
  int64_t channel(int64_t place) const { return place / (inner * length) * inner + place % inner; }
};

std::optional<Windows> windows(const Literal& rows, const Sequence& x) {
  const int64_t width = rows.dims.back(), count = rows.count() / width;
  const auto place = [&](int64_t row, int64_t column) {
    return static_cast<int64_t>(rows.floats()[static_cast<size_t>(row * width + column)]) - 1;
  };
  Windows result;
  for (int64_t row = 1; row < count && result.stride == 0; ++row)  // from neighbours that are both inside
    for (int64_t column = 0; column < width && result.stride == 0; ++column)
      if (place(row - 1, column) >= 0 && place(row, column) >= 0)
        result.stride = x.position(place(row, column)) - x.position(place(row - 1, column));
  if (result.stride < 1) return std::nullopt;
  for (int64_t column = 0; column < width; ++column) {
    int64_t first = 0;
    while (first < count && place(first, column) < 0) ++first;
    if (first == count) return std::nullopt;
    const int64_t found = place(first, column);
    const Column own{x.channel(found), x.position(found) - first * result.stride};
    for (int64_t row = 0; row < count; ++row) {
      const int64_t at = row * result.stride + own.shift;
      const bool inside = at >= 0 && at < x.length, is_inside = place(row, column) >= 0;
      if (inside != is_inside) return std::nullopt;
      if (inside && (x.position(place(row, column)) != at || x.channel(place(row, column)) != own.channel))
        return std::nullopt;
    }
    result.columns.push_back(own);
  }
  return result;
}

}  // namespace

std::optional<Offer> fuse_windows(Graph& graph, ValueId root, std::optional<Miss>&) {
  constexpr int64_t most_places = int64_t{1} << 22;  // that floats number exactly, and quickly
  const auto* matmul = made_by<Matmul>(graph, root);
  if (matmul == nullptr || matmul->activation != Activation::none || producer(graph, root)->inputs.size() != 2)
    return std::nullopt;
  const ValueId rows = producer(graph, root)->inputs[0], weights = producer(graph, root)->inputs[1];
  const auto& w = graph.value(weights).constant;
  if (!w || w->dims.size() != 2) return std::nullopt;
  ValueId x = no_value;  // before the first gather or padding
  bool gathers = false;
  for (ValueId id = rows; moves(graph, id);) {
    const bool gather = made_by<Gather>(graph, id), pad = made_by<Pad>(graph, id);
    id = producer(graph, id)->inputs[0];
    gathers = gathers || gather;
    if (gather || pad) x = id;
  }
  if (!gathers) return std::nullopt;
  const auto dims = constant_dims(graph.value(x).dims), own = constant_dims(graph.value(rows).dims);
  if (!dims || !own || dims->empty()) return std::nullopt;
  const auto elements = [](const std::vector<int64_t>& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  };
  const int64_t most = std::max(elements(*dims), elements(*own)), least = std::min(elements(*dims), elements(*own));
  if (least < 1 || most > most_places) return std::nullopt;
  const Literal numbered = places(graph, rows, x, *dims);
  std::optional<Windows> found;
  Sequence sequence{};
  std::vector<int> order(dims->size());  // of x, the sequence's axis first
  for (size_t axis = dims->size(), inner = 1; axis-- > 0 && !found; inner *= static_cast<size_t>((*dims)[axis])) {
    sequence = {(*dims)[axis], elements(*dims) / (*dims)[axis], static_cast<int64_t>(inner)};
    found = windows(numbered, sequence);
    std::iota(order.begin(), order.end(), 0);
    std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(axis),
                order.begin() + static_cast<std::ptrdiff_t>(axis) + 1);
  }
  if (!found) return std::nullopt;

  const auto by_shift = [](const Column& a, const Column& b) { return a.shift < b.shift; };
  const int64_t nearest = std::min_element(found->columns.begin(), found->columns.end(), by_shift)->shift;
  int64_t dilation = 0, farthest = nearest;
  for (const Column& column : found->columns) {
    dilation = std::gcd(dilation, column.shift - nearest);
    farthest = std::max(farthest, column.shift);
  }
  WindowAxis axis;
  axis.dilation = std::max<int64_t>(dilation, 1);
  axis.kernel = (farthest - nearest) / axis.dilation + 1;
  axis.stride = found->stride;
  axis.before = -nearest;
  axis.after = (numbered.count() / numbered.dims.back() - 1) * axis.stride + farthest - (sequence.length - 1);
  if (axis.before < 0 || axis.after < 0 || axis.kernel < 2) return std::nullopt;

  const int64_t outputs = w->dims[1];
  std::vector<float> taps(static_cast<size_t>(axis.kernel * sequence.channels * outputs));
  for (size_t k = 0; k < found->columns.size(); ++k) {
    const int64_t tap = (found->columns[k].shift - nearest) / axis.dilation;
    for (int64_t m = 0; m < outputs; ++m)
      taps[static_cast<size_t>((tap * sequence.channels + found->columns[k].channel) * outputs + m)] +=
          w->floats()[k * static_cast<size_t>(outputs) + static_cast<size_t>(m)];
  }
  const Builder build(graph, root, {rows});
  const ValueId filter = graph.constant(graph.value(weights).name,
                                        Literal::of({axis.kernel, sequence.channels, outputs}, std::move(taps)));
  const ValueId rows_of_x =
      build.reshape(settled(graph, build.transpose(x, order)), {1, sequence.length, sequence.channels});
  return build.reshape(build.add(Conv{{axis}, 1, Activation::none}, {rows_of_x, filter}), build.dims(root));
}

}  // namespace heed::tools

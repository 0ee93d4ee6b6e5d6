/// Rotary positions, written out: every channel is a sum of two products, one of itself and one of its partner with
/// tables. So it is read channel by channel, through whatever slices, stacks and joins the channels went: the forms of
/// exporters (rotate_half, pairs side by side, chunks, some of the channels only) are one.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "tools/graph/channels.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr int64_t most_channels = 4096;  // of a head

/// One of the elements of `source` along its last axes, `tail` of them, counted row-major; maybe with a minus.
struct Place {
  ValueId source = no_value;
  int tail = 0;
  int64_t channel = 0;
  bool negative = false;

  bool same_source(const Place& other) const { return source == other.source && tail == other.tail; }
};
struct Product {
  Place a, b;
  bool negative;

  bool minus() const { return negative != (a.negative != b.negative); }
};
using Sum = std::vector<Product>;  // none: something else

Dims lead_of(const Dims& dims, int tail) {
  return {dims.begin(), dims.end() - tail};
}

std::optional<std::vector<int64_t>> tail_of(const Dims& dims, int tail) {
  return constant_dims({dims.end() - tail, dims.end()});
}

int64_t product(const std::vector<int64_t>& sizes) {
  int64_t all = 1;
  for (const int64_t size : sizes) all *= size;
  return all;
}

void negate(Place& place) {
  place.negative = !place.negative;
}
void negate(Sum& sum) {
  for (Product& each : sum) each.negative = !each.negative;
}

/// What the channels of a value are: the elements along its last axes, `tail` of them, whose sizes are numbers.
class Reader {
 public:
  explicit Reader(const Graph& graph) : graph_(graph) {}

  /// Channels as elements of other values, through views and minus signs.
  std::vector<Place> places(ValueId id, int tail) const {
    if (auto moved = through_view<Place>(id, tail, [&](ValueId x, int own) { return places(x, own); })) return *moved;
    if (const auto times = scaled(graph_, id); times && times->factor == -1) {
      std::vector<Place> all = places(times->x, tail);
      for (Place& each : all) negate(each);
      return all;
    }
    std::vector<Place> all(static_cast<size_t>(product(*tail_of(dims(id), tail))));
    for (size_t i = 0; i < all.size(); ++i) all[i] = {id, tail, static_cast<int64_t>(i), false};
    return all;
  }

  /// Channels as sums of `terms` products, 1 or 2.
  std::vector<Sum> sums(ValueId id, int tail, size_t terms) const {
    if (auto moved = through_view<Sum>(id, tail, [&](ValueId x, int own) { return sums(x, own, terms); }))
      return *moved;
    std::vector<Sum> all(static_cast<size_t>(product(*tail_of(dims(id), tail))));
    if (const auto times = scaled(graph_, id); times && times->factor == -1) {
      all = sums(times->x, tail, terms);
      for (Sum& each : all) negate(each);
    } else if (const auto* factors = operands_of(graph_, id, Step::f_mul); factors && terms == 1) {
      const auto a = repeated(places((*factors)[0], own_tail((*factors)[0], tail)), (*factors)[0], id, tail);
      const auto b = repeated(places((*factors)[1], own_tail((*factors)[1], tail)), (*factors)[1], id, tail);
      for (size_t i = 0; i < all.size(); ++i) all[i] = {Product{a[i], b[i], false}};
    } else if (terms == 2) {
      for (const Step step : {Step::f_add, Step::f_sub}) {
        const auto* operands = operands_of(graph_, id, step);
        if (operands == nullptr || !(dims((*operands)[0]) == dims((*operands)[1]))) continue;
        const std::vector<Sum> a = sums((*operands)[0], tail, 1);
        std::vector<Sum> b = sums((*operands)[1], tail, 1);
        for (size_t i = 0; i < all.size(); ++i) {
          if (a[i].size() != 1 || b[i].size() != 1) continue;
          if (step == Step::f_sub) negate(b[i]);
          all[i] = {a[i][0], b[i][0]};
        }
      }
    }
    return all;
  }

 private:
  const Dims& dims(ValueId id) const { return graph_.value(id).dims; }
  int own_tail(ValueId operand, int tail) const { return std::min(tail, static_cast<int>(dims(operand).size())); }

  /// What an operand of a map gives to each channel of the result.
  std::vector<Place> repeated(const std::vector<Place>& own, ValueId operand, ValueId result, int tail) const {
    const std::vector<int64_t> to = *tail_of(dims(result), tail),
                               from = *tail_of(dims(operand), own_tail(operand, tail));
    std::vector<Place> all(static_cast<size_t>(product(to)));
    for (size_t i = 0; i < all.size(); ++i) {
      int64_t rest = static_cast<int64_t>(i), at = 0, step = 1;
      for (size_t axis = 1; axis <= from.size(); ++axis) {
        const int64_t size = to[to.size() - axis];
        if (from[from.size() - axis] != 1) at += rest % size * step;
        step *= from[from.size() - axis];
        rest /= size;
      }
      all[i] = own[static_cast<size_t>(at)];
    }
    return all;
  }

  template <class T, class Read>
  std::optional<std::vector<T>> through_view(ValueId id, int tail, Read read) const {
    const Node* node = producer(graph_, id);
    if (node == nullptr || tail == 0) return std::nullopt;
    if (std::holds_alternative<Reshape>(node->operation)) {
      // Sizes in front stay as they are, so that the tail is another way to write the same channels.
      const Dims &from = dims(node->inputs[0]), lead = lead_of(dims(id), tail);
      const int own = static_cast<int>(from.size()) - static_cast<int>(lead.size());
      if (own < 1 || !std::equal(lead.begin(), lead.end(), from.begin()) || !tail_of(from, own)) return std::nullopt;
      return read(node->inputs[0], own);
    }
    const std::vector<int64_t> to = *tail_of(dims(id), tail);
    const auto front = dims(id).size() - static_cast<size_t>(tail);
    if (const auto* transpose = std::get_if<Transpose>(&node->operation)) {
      for (size_t axis = 0; axis < front; ++axis)
        if (transpose->permutation[axis] != static_cast<int>(axis)) return std::nullopt;
      return picked<T>(read(node->inputs[0], tail), node->inputs[0], to, [&](const std::vector<int64_t>& at) {
        std::vector<int64_t> own(at.size());
        for (size_t i = 0; i < at.size(); ++i)
          own[static_cast<size_t>(transpose->permutation[front + i]) - front] = at[i];
        return own;
      });
    }
    if (std::holds_alternative<Expand>(node->operation)) {
      const Dims& from = dims(node->inputs[0]);
      if (from.size() != dims(id).size() || !std::equal(from.begin(), from.end() - tail, dims(id).begin()))
        return std::nullopt;
      return picked<T>(read(node->inputs[0], tail), node->inputs[0], to, [&](std::vector<int64_t> at) {
        for (size_t i = 0; i < at.size(); ++i)
          if (from[front + i].is_constant(1)) at[i] = 0;
        return at;
      });
    }
    if (const auto* slice = std::get_if<Slice>(&node->operation)) {
      const Dims& from = dims(node->inputs[0]);
      for (size_t axis = 0; axis < from.size(); ++axis)
        if (axis < front ? !(from[axis] == slice->dims[axis]) || slice->steps[axis] != 1
                         : !from[axis].constant() || !slice->starts[axis].constant())
          return std::nullopt;
      return picked<T>(read(node->inputs[0], tail), node->inputs[0], to, [&](std::vector<int64_t> at) {
        for (size_t i = 0; i < at.size(); ++i)
          at[i] = *slice->starts[front + i].constant() + at[i] * slice->steps[front + i];
        return at;
      });
    }
    if (const auto* concat = std::get_if<Concat>(&node->operation); concat && concat->axis >= static_cast<int>(front)) {
      const size_t axis = static_cast<size_t>(concat->axis) - front;
      const int64_t inner = product({to.begin() + static_cast<std::ptrdiff_t>(axis) + 1, to.end()});
      const int64_t outer = product({to.begin(), to.begin() + static_cast<std::ptrdiff_t>(axis)});
      std::vector<std::vector<T>> parts;
      for (const ValueId input : node->inputs) {
        if (!tail_of(dims(input), tail)) return std::nullopt;
        parts.push_back(read(input, tail));
      }
      std::vector<T> all;
      for (int64_t o = 0; o < outer; ++o)
        for (size_t part = 0; part < parts.size(); ++part) {
          const int64_t run = *dims(node->inputs[part])[front + axis].constant() * inner;
          const auto begin = parts[part].begin() + o * run;
          all.insert(all.end(), begin, begin + run);
        }
      return all;
    }
    return std::nullopt;
  }

  /// The elements of `all`, the tail of `operand`, at where(index) for every index of a tail of sizes `to`.
  template <class T, class Where>
  std::vector<T> picked(const std::vector<T>& all, ValueId operand, const std::vector<int64_t>& to, Where where) const {
    const std::vector<int64_t> from = *tail_of(dims(operand), static_cast<int>(to.size()));
    std::vector<T> result(static_cast<size_t>(product(to)));
    for (size_t i = 0; i < result.size(); ++i) {
      std::vector<int64_t> at(to.size());
      int64_t rest = static_cast<int64_t>(i), flat = 0;
      for (size_t axis = to.size(); axis-- > 0;) at[axis] = rest % to[axis], rest /= to[axis];
      at = where(at);
      for (size_t axis = 0; axis < from.size(); ++axis) flat = flat * from[axis] + at[axis];
      result[i] = all[static_cast<size_t>(flat)];
    }
    return result;
  }

  const Graph& graph_;
};

/// Channels of a rotation: the channel of x, then the places and signs of cos and sin.
struct Rotation {
  Place x;  // of channel 0
  Pairing pairing = Pairing::half;
  std::vector<Place> cos, sin;
};

/// Whether sums are a rotation of the channels of `source`, and the channels after them its own.
std::optional<Rotation> rotation(const std::vector<Sum>& sums, const std::vector<Place>& rest, const Place& source) {
  int64_t rotated = 0;
  while (rotated < static_cast<int64_t>(sums.size()) && sums[static_cast<size_t>(rotated)].size() == 2) ++rotated;
  if (rotated < 2 || rotated % 2 != 0) return std::nullopt;
  // Each product as a channel of x and a place in a table.
  std::vector<std::array<std::pair<int64_t, Place>, 2>> terms(static_cast<size_t>(rotated));
  int64_t first = INT64_MAX;
  for (size_t i = 0; i < terms.size(); ++i)
    for (size_t k = 0; k < 2; ++k) {
      const Product& each = sums[i][k];
      if (each.a.same_source(source) == each.b.same_source(source)) return std::nullopt;
      const bool a_is_x = each.a.same_source(source);
      Place table = a_is_x ? each.b : each.a;
      table.negative = each.minus();
      terms[i][k] = {(a_is_x ? each.a : each.b).channel, table};
      first = std::min(first, terms[i][k].first);
    }
  Rotation found;
  found.x = source;
  found.x.channel = first;
  for (const Pairing pairing : {Pairing::half, Pairing::interleaved}) {
    found.pairing = pairing;
    found.cos.clear(), found.sin.clear();
    for (int64_t i = 0; i < rotated; ++i) {
      const int64_t half = rotated / 2;
      const int64_t partner = pairing == Pairing::interleaved ? i ^ 1 : i < half ? i + half : i - half;
      const auto& pair = terms[static_cast<size_t>(i)];
      const size_t own = pair[0].first == first + i ? 0 : 1;
      if (pair[own].first != first + i || pair[1 - own].first != first + partner) break;
      found.cos.push_back(pair[own].second);
      found.sin.push_back(pair[1 - own].second);
    }
    if (static_cast<int64_t>(found.cos.size()) < rotated) continue;
    for (size_t i = static_cast<size_t>(rotated); i < rest.size(); ++i)
      if (!rest[i].same_source(source) || rest[i].negative || rest[i].channel != first + static_cast<int64_t>(i))
        return std::nullopt;
    return found;
  }
  return std::nullopt;
}

/// A value with its tail as one axis.
ValueId flat(const Builder& build, ValueId id, int tail) {
  Dims dims = lead_of(build.dims(id), tail);
  dims.push_back(product(*tail_of(build.dims(id), tail)));
  return build.reshape(id, dims);
}

/// The channels of a table as one tensor; nothing where they come from several places.
std::optional<ValueId> table(const Builder& build, const std::vector<Place>& places) {
  std::vector<Channel> channels;
  for (const Place& place : places) {
    if (!place.same_source(places[0]) || place.tail == 0) return std::nullopt;
    channels.push_back({place.channel, place.negative});
  }
  const ValueId whole = flat(build, places[0].source, places[0].tail);
  return pick_channels(build.graph, whole, static_cast<int>(build.dims(whole).size()) - 1, channels);
}

/// Where sums of two products are no rotation of one tensor's channels, or have no tables.
Miss unlike_rotation(const Graph& graph, ValueId root, const std::vector<Sum>& sums) {
  const auto half = static_cast<int64_t>(sums.size()) / 2;
  Miss miss{root, "",
            fmt::format("a rotation of {} channels of one tensor, i with i + {} or 2 i with 2 i + 1, by cos and sin of "
                        "one table each",
                        sums.size(), half),
            "write it as x * cos + rotate_half(x) * sin, or as pairs of neighbours"};
  for (size_t i = 0; i < sums.size(); ++i) {
    if (sums[i].size() != 2) continue;
    for (const Place& own : {sums[i][0].a, sums[i][0].b})
      for (const Place& other : {sums[i][1].a, sums[i][1].b}) {
        if (!own.same_source(other) || graph.value(own.source).constant) continue;
        const int64_t apart = std::abs(own.channel - other.channel);
        if (apart == half || apart == 1) continue;
        miss.found = fmt::format("channel {} made of the channels {} and {} of '{}'", i, own.channel, other.channel,
                                 graph.value(own.source).name);
        return miss;
      }
  }
  miss.found = "channels that are sums of two products, but of several tensors or several tables";
  return miss;
}

std::optional<ValueId> fuse(Graph& graph, ValueId root, int tail, std::optional<Miss>& miss) {
  const Dims dims = graph.value(root).dims;
  if (graph.value(root).type != Type::f32 || static_cast<int>(dims.size()) < tail) return std::nullopt;
  const auto sizes = tail_of(dims, tail);
  if (!sizes || product(*sizes) < 2 || product(*sizes) > most_channels) return std::nullopt;
  const Reader reader(graph);
  const std::vector<Sum> sums = reader.sums(root, tail, 2);
  if (sums[0].size() != 2) return std::nullopt;
  const std::vector<Place> rest = reader.places(root, tail);
  const Dims lead = lead_of(dims, tail);
  for (const Place& source : {sums[0][0].a, sums[0][0].b}) {
    if (!(lead_of(graph.value(source.source).dims, source.tail) == lead)) continue;
    const auto found = rotation(sums, rest, source);
    if (!found) continue;
    const Builder build(graph, root);
    const auto cos = table(build, found->cos), sin = table(build, found->sin);
    if (!cos || !sin) continue;
    ValueId x = flat(build, source.source, source.tail);
    Dims own = lead;
    own.push_back(product(*sizes));
    Slice slice{std::vector<Expression>(own.size()), std::vector<int64_t>(own.size(), 1), own};
    slice.starts.back() = found->x.channel;
    x = build.add(slice, {x});
    return build.reshape(build.add(Rope{found->pairing}, {x, *cos, *sin}), dims);
  }
  // Sums in which only some channels have a minus are seldom anything else.
  const auto has_minus = [](const Sum& sum) { return sum.size() == 2 && sum[0].minus() != sum[1].minus(); };
  if (has_minus(sums.front()) != has_minus(sums.back())) miss = unlike_rotation(graph, root, sums);
  return std::nullopt;
}

}  // namespace

// Pairs are stacked along an axis of their own, or channels are joined or added along the last one.
std::optional<Offer> fuse_rope(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  const bool sum = operands_of(graph, root, Step::f_add) || operands_of(graph, root, Step::f_sub);
  const bool joined = made_by<Concat>(graph, root) != nullptr;
  if (!sum && !joined) return std::nullopt;
  if (joined)  // of pairs as an axis of their own; the last axis alone would be a rotation of two channels
    if (const auto found = fuse(graph, root, 2, miss)) return found;
  return fuse(graph, root, 1, miss);
}

}  // namespace heed::tools

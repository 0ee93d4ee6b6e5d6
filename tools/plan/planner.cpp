#include "tools/plan/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "tools/error.h"
#include "tools/plan/bounds.h"

namespace heed::tools {
namespace {

uint64_t end_of(std::span<const Lifetime> buffers, const std::vector<uint64_t>& offsets) {
  uint64_t end = 0;
  for (size_t i = 0; i < buffers.size(); ++i) end = std::max(end, offsets[i] + buffers[i].bytes);
  return end;
}

/// Places the buffers in the given order, each into the smallest gap that holds it.
std::vector<uint64_t> best_fit(std::span<const Lifetime> buffers, const std::vector<size_t>& order) {
  std::vector<uint64_t> offsets(buffers.size());
  std::vector<size_t> placed;  // by offset
  for (const size_t next : order) {
    const Lifetime& life = buffers[next];
    uint64_t end = 0, best = 0, best_gap = UINT64_MAX;
    for (const size_t other : placed) {
      if (buffers[other].last < life.first || life.last < buffers[other].first) continue;
      if (offsets[other] >= end + life.bytes && offsets[other] - end < best_gap) {
        best = end;
        best_gap = offsets[other] - end;
      }
      end = std::max(end, offsets[other] + buffers[other].bytes);
    }
    offsets[next] = best_gap == UINT64_MAX ? end : best;
    placed.insert(std::upper_bound(placed.begin(), placed.end(), next,
                                   [&](size_t a, size_t b) { return offsets[a] < offsets[b]; }),
                  next);
  }
  return offsets;
}

/// Storages that become one buffer.
class Union {
 public:
  explicit Union(size_t count) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0); }
  int find(int i) const {
    while (parent_[static_cast<size_t>(i)] != i) i = parent_[static_cast<size_t>(i)];
    return i;
  }
  void join(int from, int to) { parent_[static_cast<size_t>(from)] = to; }

 private:
  std::vector<int> parent_;
};

struct Life {
  int first = INT32_MAX, last = -1;
  void touch(int op) {
    first = std::min(first, op);
    last = std::max(last, op);
  }
};

class Aliasing {
 public:
  explicit Aliasing(const Lowered& lowered)
      : lowered_(lowered), lives_(lowered.storages.size()), one_(lowered.storages.size()) {
    const int count = static_cast<int>(lowered.operators.size());
    for (int i = 0; i < count; ++i) {
      const LoweredOperator& op = lowered.operators[static_cast<size_t>(i)];
      for (const auto* operands : {&op.inputs, &op.outputs})
        for (const int number : *operands)
          if (number != -1) lives_[storage_of(number)].touch(i);
    }
    for (const auto& input : lowered.inputs) lives_[storage_of(input.tensor)].touch(0);
    for (const auto& output : lowered.outputs) lives_[storage_of(output.tensor)].touch(count);
    for (const auto& state : lowered.states) {
      lives_[storage_of(state.tensor)].touch(0);
      lives_[storage_of(state.tensor)].touch(count);
    }
    // Few points are enough: equal views are equal as expressions.
    const Points points = points_of(lowered.dimensions, lowered.constraints);
    points_ = {points.all.front(), points.all.back()};
    const ShapeTable table(lowered);
    for (const Point& point : points_) shapes_.push_back(table.at(point));
    in_place_.assign(lowered.operators.size(), false);
    for (int i = 0; i < count; ++i) join(i);
  }

  int root(int storage) const { return one_.find(storage); }
  const Life& life(int storage) const { return lives_[static_cast<size_t>(storage)]; }
  const std::vector<bool>& in_place() const { return in_place_; }

 private:
  size_t storage_of(int tensor) const {
    return static_cast<size_t>(lowered_.tensors[static_cast<size_t>(tensor)].view.storage);
  }
  const View& view_of(int tensor) const { return lowered_.tensors[static_cast<size_t>(tensor)].view; }
  uint64_t capacity(size_t storage) const { return lowered_.storages[storage].capacity; }

  void join(int index) {
    const LoweredOperator& op = lowered_.operators[static_cast<size_t>(index)];
    for (size_t o = 0; o < op.outputs.size(); ++o) {
      if (op.outputs[o] == -1) continue;
      const int into = root(static_cast<int>(storage_of(op.outputs[o])));
      if (life(into).first != index) continue;
      for (size_t i = 0; i < op.inputs.size(); ++i)
        if (op.inputs[i] != -1 && joins(op, index, i, o, into)) {
          const int from = root(static_cast<int>(storage_of(op.inputs[i])));
          one_.join(into, from);
          lives_[static_cast<size_t>(from)].last = life(into).last;
          in_place_[static_cast<size_t>(index)] = true;
          break;
        }
    }
  }

  bool joins(const LoweredOperator& op, int index, size_t input, size_t output, int into) const {
    const size_t from_storage = storage_of(op.inputs[input]);
    if (lowered_.storages[from_storage].constant || lowered_.storages[static_cast<size_t>(into)].state) return false;
    const int from = root(static_cast<int>(from_storage));
    if (from == into || life(from).last != index) return false;
    if (capacity(from_storage) != capacity(static_cast<size_t>(into))) return false;
    View x = view_of(op.inputs[input]), y = view_of(op.outputs[output]);
    x.storage = y.storage = 0;
    x.type = y.type;  // of equal size: their views count the same elements
    if (size_of(view_of(op.inputs[input]).type) != size_of(y.type) || !same_elements(x, y)) return false;
    // Every operand in that memory has to be the same view and allowed to be overwritten; no other output may lie
    // there.
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      if (op.inputs[i] == -1 || root(static_cast<int>(storage_of(op.inputs[i]))) != from) continue;
      View other = view_of(op.inputs[i]);
      other.storage = 0;
      other.type = y.type;
      if (!same_elements(other, y) || !allowed(op, static_cast<int>(i), static_cast<int>(output))) return false;
    }
    for (size_t o = 0; o < op.outputs.size(); ++o)
      if (o != output && op.outputs[o] != -1 && root(static_cast<int>(storage_of(op.outputs[o]))) == from) return false;
    return true;
  }

  bool allowed(const LoweredOperator& op, int input, int output) const {
    for (size_t i = 0; i < points_.size(); ++i)
      if (!operator_of(op.kind).in_place(ContractAt(op, shapes_[i], points_[i]).contract(), input, output))
        return false;
    return true;
  }

  const Lowered& lowered_;
  std::vector<Life> lives_;
  Union one_;
  std::vector<Point> points_;
  std::vector<std::vector<Shape>> shapes_;  // at the points
  std::vector<bool> in_place_;
};

}  // namespace

uint64_t lower_bound(std::span<const Lifetime> buffers) {
  std::map<int, int64_t> changes;  // at an operator: bytes more alive than before it
  for (const Lifetime& life : buffers) {
    changes[life.first] += static_cast<int64_t>(life.bytes);
    changes[life.last + 1] -= static_cast<int64_t>(life.bytes);
  }
  int64_t alive = 0, most = 0;
  for (const auto& [index, change] : changes) most = std::max(most, alive += change);
  return static_cast<uint64_t>(most);
}

std::vector<uint64_t> place(std::span<const Lifetime> buffers) {
  const uint64_t bound = lower_bound(buffers);
  const auto length = [&](size_t i) { return static_cast<uint64_t>(buffers[i].last - buffers[i].first + 1); };
  std::vector<size_t> order(buffers.size()), best_order;
  std::vector<uint64_t> best;
  uint64_t best_end = UINT64_MAX;
  const auto attempt = [&](const std::vector<size_t>& candidate) {
    std::vector<uint64_t> offsets = best_fit(buffers, candidate);
    const uint64_t end = end_of(buffers, offsets);
    if (end > best_end) return;
    best_end = end;
    best = std::move(offsets);
    best_order = candidate;
  };
  const auto sorted = [&](auto key) {
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) > key(b); });
    attempt(order);
  };
  sorted([&](size_t i) { return std::pair(buffers[i].bytes, length(i)); });
  sorted([&](size_t i) { return std::pair(length(i), buffers[i].bytes); });
  sorted([&](size_t i) { return std::pair(buffers[i].bytes * length(i), buffers[i].bytes); });
  sorted([&](size_t i) { return std::pair(-buffers[i].first, static_cast<int64_t>(buffers[i].bytes)); });

  // The buffer that sticks out, or one that lives with it, moves ahead; what is no worse is kept. The same sequence of
  // moves on every machine.
  const size_t rounds = std::clamp<size_t>(20'000'000 / (buffers.size() * buffers.size() + 1), 20, 500);
  uint32_t random = 1;
  const auto below = [&](size_t limit) {
    random = random * 1664525 + 1013904223;
    return (random >> 8) % limit;
  };
  for (size_t round = 0; round < rounds && best_end > bound; ++round) {
    size_t highest = 0;
    for (size_t i = 0; i < buffers.size(); ++i)
      if (best[i] + buffers[i].bytes == best_end) highest = i;
    std::vector<size_t> together;  // places in the order
    for (size_t at = 0; at < best_order.size(); ++at) {
      const Lifetime& life = buffers[best_order[at]];
      if (life.last >= buffers[highest].first && buffers[highest].last >= life.first) together.push_back(at);
    }
    const size_t from = together[below(together.size())], to = below(from + 1);
    std::vector<size_t> candidate = best_order;
    const auto at = [&](size_t place) { return candidate.begin() + static_cast<std::ptrdiff_t>(place); };
    std::rotate(at(to), at(from), at(from) + 1);
    attempt(candidate);
  }
  return best;
}

Plan plan(const Lowered& lowered) {
  const Aliasing aliasing(lowered);
  Plan result;
  result.in_place = aliasing.in_place();
  const int count = static_cast<int>(lowered.operators.size());
  std::vector<int> number(lowered.storages.size(), -1);  // of roots
  for (size_t i = 0; i < lowered.storages.size(); ++i) {
    if (!lowered.storages[i].state) continue;
    number[i] = static_cast<int>(result.buffers.size());
    result.buffers.push_back({result.state, lowered.storages[i].capacity, 0, count});
    result.state += lowered.storages[i].capacity;
  }
  const auto states = static_cast<int>(result.buffers.size());
  std::vector<Lifetime> lives;
  for (size_t i = 0; i < lowered.storages.size(); ++i) {
    const int storage = static_cast<int>(i);
    if (lowered.storages[i].constant || lowered.storages[i].state || aliasing.root(storage) != storage ||
        aliasing.life(storage).last < 0)
      continue;
    number[i] = states + static_cast<int>(lives.size());
    lives.push_back({lowered.storages[i].capacity, aliasing.life(storage).first, aliasing.life(storage).last});
  }
  std::vector<int> scratch(lowered.operators.size(), -1);
  for (size_t i = 0; i < lowered.operators.size(); ++i) {
    if (lowered.operators[i].scratch == 0) continue;
    scratch[i] = states + static_cast<int>(lives.size());
    lives.push_back({lowered.operators[i].scratch, static_cast<int>(i), static_cast<int>(i)});
  }

  const std::vector<uint64_t> offsets = place(lives);
  result.workspace = end_of(lives, offsets);
  constexpr uint64_t largest = uint64_t{UINT32_MAX} * 64;  // the file counts in 64 bytes, with 32 bits
  if (result.workspace > largest) {
    std::string ranges;
    for (const auto& [name, dimension] : lowered.dimensions)
      ranges += fmt::format(" --dim {}={}..{}", name, dimension.lower, dimension.upper);
    throw Error(Fault::model,
                fmt::format("the workspace takes {} bytes, {} are possible: smaller bounds are needed than{}",
                            result.workspace, largest, ranges));
  }
  result.lower_bound = lower_bound(lives);
  std::vector<size_t> order(lives.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(lives[a].first, offsets[a]) < std::pair(lives[b].first, offsets[b]);
  });
  std::vector<int> place_of(result.buffers.size());
  std::iota(place_of.begin(), place_of.end(), 0);  // states come first
  place_of.resize(result.buffers.size() + lives.size());
  for (const size_t next : order) {
    place_of[static_cast<size_t>(states) + next] = static_cast<int>(result.buffers.size());
    const Lifetime& life = lives[next];
    result.buffers.push_back({result.state + offsets[next], life.bytes, life.first, life.last});
  }
  for (size_t i = 0; i < lowered.storages.size(); ++i) {
    const int root = aliasing.root(static_cast<int>(i));
    const int found = number[static_cast<size_t>(root)];
    result.buffer_of.push_back(found == -1 ? -1 : place_of[static_cast<size_t>(found)]);
  }
  for (const int found : scratch) result.scratch_of.push_back(found == -1 ? -1 : place_of[static_cast<size_t>(found)]);
  return result;
}

}  // namespace heed::tools

#include "tools/plan/bounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <functional>

#include "tools/error.h"

namespace heed::tools {
namespace {

constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <class T>
void store(std::vector<std::byte>& bytes, const T& value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace

ShapeTable::ShapeTable(const Lowered& lowered) {
  std::map<Expression, size_t> known;
  const auto index = [&](const Expression& size) {
    const auto [entry, is_new] = known.try_emplace(size, sizes_.size());
    if (is_new) sizes_.push_back(size);
    return entry->second;
  };
  for (const LoweredTensor& tensor : lowered.tensors) {
    Row row{};
    row.shape.type = tensor.view.type;
    row.shape.rank = static_cast<uint8_t>(tensor.view.dims.size());
    row.shape.constant = lowered.storages[static_cast<size_t>(tensor.view.storage)].constant;
    for (const Expression& size : tensor.view.dims) row.dims.push_back(index(size));
    for (const Expression& stride : tensor.view.strides) row.strides.push_back(index(stride));
    rows_.push_back(std::move(row));
  }
}

std::vector<Shape> ShapeTable::at(const Point& point) const {
  std::vector<int32_t> values;
  for (const Expression& size : sizes_) values.push_back(static_cast<int32_t>(size.evaluate(point)));
  std::vector<Shape> shapes;
  for (const Row& row : rows_) {
    shapes.push_back(row.shape);
    for (size_t axis = 0; axis < row.dims.size(); ++axis) {
      shapes.back().dims[axis] = values[row.dims[axis]];
      shapes.back().strides[axis] = values[row.strides[axis]];
    }
  }
  return shapes;
}

ContractAt::ContractAt(const LoweredOperator& op, const std::vector<Shape>& shapes, const Point& point) {
  const auto shape = [&](int number) { return number == -1 ? nullptr : &shapes[static_cast<size_t>(number)]; };
  for (const int number : op.inputs) inputs_.push_back(shape(number));
  for (const int number : op.outputs) outputs_.push_back(shape(number));
  std::visit(Overloaded{[&](const Elementwise& program) {
                          ElementwiseParams head{};
                          head.source_count = static_cast<uint8_t>(program.sources.size());
                          head.immediate_count = static_cast<uint8_t>(program.immediates.size());
                          head.instruction_count = static_cast<uint8_t>(program.instructions.size());
                          head.output_count = static_cast<uint8_t>(program.results.size());
                          std::copy(program.results.begin(), program.results.end(), head.results);
                          store(params_, head);
                          for (const auto& source : program.sources)
                            store(params_, Source{source.kind,
                                                  static_cast<uint8_t>(source.axis),
                                                  {},
                                                  static_cast<int32_t>(source.value.evaluate(point))});
                          for (const uint32_t immediate : program.immediates) store(params_, immediate);
                          for (const Instruction& instruction : program.instructions) store(params_, instruction);
                        },
                        [&]<std::derived_from<AttentionLowered> Lowered>(const Lowered& attention) {
                          AttentionParams params = attention.params;
                          params.offset = static_cast<int32_t>(attention.offset.evaluate(point));
                          store(params_, params);
                        },
                        [&](const auto& params) { store(params_, params); }},
             op.params);
  contract_ = {inputs_.data(), outputs_.data(), static_cast<int>(inputs_.size()), static_cast<int>(outputs_.size()),
               params_.data()};
}

Point start_point(const std::map<std::string, Dimension>& dimensions, const std::vector<Constraint>& constraints) {
  // Depth first, large values first: the first setting found is the one wanted. What the bounds of the rest already
  // rule out is not looked into.
  std::vector<std::string> names;
  for (const auto& [name, dimension] : dimensions) names.push_back(name);
  int64_t budget = 10'000'000;
  auto ranges = dimensions;
  const std::function<bool(size_t)> search = [&](size_t depth) {
    if (--budget < 0) return false;
    if (!std::all_of(constraints.begin(), constraints.end(), [&](const Constraint& c) { return possible(c, ranges); }))
      return false;
    if (depth == names.size()) return true;
    Dimension& range = ranges[names[depth]];
    const Dimension whole = dimensions.at(names[depth]);
    for (int64_t value = whole.upper; value >= whole.lower; --value) {
      range.lower = range.upper = value;
      if (search(depth + 1)) return true;
    }
    range = whole;
    return false;
  };
  if (!search(0)) throw Error(Fault::model, "no values of the dimensions satisfy the constraints of the model");
  Point result;
  for (const auto& [name, range] : ranges) result[name] = range.lower;
  return result;
}

Points points_of(const std::map<std::string, Dimension>& dimensions, const std::vector<Constraint>& constraints) {
  constexpr int64_t few = 1024;
  int64_t combinations = 1;
  for (const auto& [name, dimension] : dimensions)
    combinations = std::min(few + 1, combinations * std::min(few + 1, dimension.upper - dimension.lower + 1));
  Points points{{{}}, combinations <= few};
  for (const auto& [name, dimension] : dimensions) {
    std::vector<Point> next;
    const int64_t step = points.exhaustive ? 1 : std::max<int64_t>(1, dimension.upper - dimension.lower);
    for (const Point& point : points.all)
      for (int64_t value = dimension.lower; value <= dimension.upper && next.size() < few; value += step) {
        next.push_back(point);
        next.back()[name] = value;
      }
    points.all = std::move(next);
  }
  std::erase_if(points.all, [&](const Point& point) {
    return std::any_of(constraints.begin(), constraints.end(), [&](const Constraint& constraint) {
      const int64_t left = constraint.left.evaluate(point), right = constraint.right.evaluate(point);
      return constraint.relation == Constraint::Relation::equal ? left != right : left > right;
    });
  });
  if (!points.exhaustive || points.all.empty()) points.all.push_back(start_point(dimensions, constraints));
  return points;
}

// What a storage's size is limited to: the file's numbers have 32 bits.
constexpr int64_t largest_storage = int64_t{UINT32_MAX} / 64 * 64;

// `amount` is what a tensor takes of a `unit`, above `limit` at the largest sizes.
[[noreturn]] void refuse_size(const std::string& tensor, const Expression& amount, int64_t limit, const char* unit,
                              const std::map<std::string, Dimension>& dimensions) {
  std::string how = "no size of this model is variable";
  std::vector<std::string> names;
  amount.collect(names);
  for (const std::string& name : names) {  // the first one that can be made small enough
    auto ranges = dimensions;
    Dimension& range = ranges.at(name);
    int64_t fits = range.lower - 1, beyond = range.upper;  // the search halves what is between
    while (beyond - fits > 1) {
      range.upper = fits + (beyond - fits) / 2;
      (amount.range(ranges).upper <= limit ? fits : beyond) = range.upper;
    }
    how = fmt::format("'{}' is up to {}", name, dimensions.at(name).upper);
    if (fits < range.lower) continue;
    how += fmt::format(" and may be up to {}", fits);
    break;
  }
  throw Error(Fault::model, fmt::format("tensor '{}' takes up to {} {}, {} are possible: {}", tensor,
                                        amount.range(dimensions).upper, unit, limit, how));
}

// Bytes of its storage that lie before a tensor, which are needed even where the tensor is empty.
std::vector<std::vector<Expression>> starts_of(const Lowered& lowered) {
  std::vector<std::vector<Expression>> starts(lowered.storages.size());
  for (const LoweredTensor& tensor : lowered.tensors)
    starts[static_cast<size_t>(tensor.view.storage)].push_back(tensor.view.offset *
                                                               static_cast<int64_t>(size_of(tensor.view.type)));
  return starts;
}

void bound(Lowered& lowered) {
  const Points points = points_of(lowered.dimensions, lowered.constraints);
  const auto most_of = [&](const Expression& bytes) {
    if (!points.exhaustive) return bytes.range(lowered.dimensions).upper;
    int64_t most = 0;
    for (const Point& point : points.all) most = std::max(most, bytes.evaluate(point));
    return most;
  };
  const auto starts = starts_of(lowered);
  std::map<Expression, uint64_t> capacities;
  for (size_t i = 0; i < lowered.storages.size(); ++i) {
    Storage& storage = lowered.storages[i];
    if (storage.constant) continue;
    const auto [entry, is_new] = capacities.try_emplace(storage.bytes, 0);
    if (is_new) {
      const int64_t most = std::max<int64_t>(most_of(storage.bytes), 1);
      if (most > largest_storage)
        refuse_size(storage.name, storage.bytes, largest_storage, "bytes", lowered.dimensions);
      entry->second = round_up(static_cast<uint64_t>(most), 64);
    }
    storage.capacity = entry->second;
    if (storage.bytes.range(lowered.dimensions).lower == 0)
      for (const Expression& start : starts[i])
        storage.capacity = std::max(storage.capacity, round_up(static_cast<uint64_t>(most_of(start)), 64));
  }
  for (const LoweredTensor& tensor : lowered.tensors) {
    const Expression elements = count(tensor.view.dims);
    if (elements.range(lowered.dimensions).upper > max_elements && most_of(elements) > max_elements)
      refuse_size(tensor.name, elements, max_elements, "elements", lowered.dimensions);
  }
  // Scratch grows with every size: where not every point was tried, all upper bounds together are enough, allowed or
  // not.
  std::vector<Point> tried = points.all;
  if (!points.exhaustive) {
    tried.emplace_back();
    for (const auto& [name, dimension] : lowered.dimensions) tried.back()[name] = dimension.upper;
  }
  const ShapeTable table(lowered);
  for (const Point& point : tried) {
    const std::vector<Shape> shapes = table.at(point);
    for (LoweredOperator& op : lowered.operators) {
      const uint64_t bytes = operator_of(op.kind).scratch(ContractAt(op, shapes, point).contract());
      op.scratch = std::max(op.scratch, round_up(bytes, 64));
    }
  }
}

}  // namespace heed::tools

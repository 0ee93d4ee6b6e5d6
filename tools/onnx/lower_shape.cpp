// Operators that move elements without computing, make them from positions, or compute shapes.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tools/onnx/lowering.h"

namespace heed::tools {
namespace {

using onnx::DataType;

// A float Range is computed at conversion; a longer one belongs in no model.
constexpr double longest_range = 1 << 24;
// Slices write "to the end" as the largest integer.
constexpr int64_t beyond = INT32_MAX;

size_t at(int axis) {
  return static_cast<size_t>(axis);
}

/// The axes named by operand `i` or by attribute "axes", counted from the front; nothing where neither is there.
std::optional<std::vector<int>> axes_of(Lowering& l, size_t operand, int rank) {
  std::optional<std::vector<int64_t>> given;
  if (l.has_attribute("axes")) {
    given = l.integers("axes");
  } else if (l.has(operand)) {
    given = l.numbers(operand);
  }
  if (!given) return std::nullopt;
  if (given->size() > most_axes) refuse("{} axes", given->size());
  std::vector<int> axes;
  for (const int64_t a : *given) {
    const int axis = Lowering::axis(a, rank);
    if (std::find(axes.begin(), axes.end(), axis) != axes.end()) refuse("axis {} is named twice", a);
    axes.push_back(axis);
  }
  return axes;
}

// --- Shapes as data --------------------------------------------------------------------------------------

void shape(Lowering& l) {
  const Dims dims = l.dims(l.value(0));
  const auto rank = static_cast<int64_t>(dims.size());
  const auto bound = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + rank : i, 0, rank); };
  const int64_t start = bound(l.integer("start", 0)), end = std::max(start, bound(l.integer("end", rank)));
  l.result(0, l.sizes_constant(Dims(dims.begin() + start, dims.begin() + end)), DataType::i64);
}

void size(Lowering& l) {
  l.result(0, l.add(Size{count(l.dims(l.value(0)))}, {}), DataType::i64);
}

void constant(Lowering& l) {
  if (const onnx::Tensor* t = l.tensor("value")) {
    l.result(0, l.graph.constant(l.name, l.literal(*t)), t->type);
  } else if (l.has_attribute("value_float")) {
    l.result(0, l.real_constant(l.real("value_float")), DataType::f32);
  } else if (l.has_attribute("value_int")) {
    l.result(0, l.integer_constant(l.integer("value_int")), DataType::i64);
  } else if (auto reals = l.reals("value_floats")) {
    const auto n = static_cast<int64_t>(reals->size());
    l.result(0, l.graph.constant(l.name, Literal::of({n}, std::move(*reals))), DataType::f32);
  } else if (auto integers = l.integers("value_ints")) {
    const auto n = static_cast<int64_t>(integers->size());
    l.result(0, l.graph.constant(l.name, Literal::of({n}, std::move(*integers))), DataType::i64);
  }  // else: strings and sparse tensors, which remain as attributes that were not read
}

void constant_of_shape(Lowering& l) {
  const onnx::Tensor* t = l.tensor("value");
  Literal value = t == nullptr ? Literal::of({}, std::vector<float>{0}) : l.literal(*t);
  if (value.count() != 1) refuse("attribute 'value' has {} elements, not one", value.count());
  value.dims.clear();
  const ValueId scalar = l.graph.constant(l.name, std::move(value));
  l.result(0, l.expand(scalar, l.shape(0)), t == nullptr ? DataType::f32 : t->type);
}

// --- Views -----------------------------------------------------------------------------------------------

void reshape(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  Dims target = l.sizes(1);
  const bool zero_is_zero = l.integer("allowzero", 0) != 0;
  std::optional<size_t> open;
  Expression known = 1;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i].is_constant(-1)) {
      if (open) refuse("the new shape has more than one -1");
      open = i;
      continue;
    }
    if (target[i].is_constant(0) && !zero_is_zero) {
      if (i >= dims.size()) refuse("the new shape copies axis {} of a tensor of rank {}", i, dims.size());
      target[i] = dims[i];
    }
    l.expect_size(target[i]);
    known = known * target[i];
  }
  if (open) {
    if (known.is_constant(0)) refuse("the new shape has a 0 and a -1");
    const Expression total = count(dims);
    target[*open] = l.simplify(Expression::divide(total, known));
    l.unify(target[*open] * known, total);
  }
  l.result(0, l.reshape(x.id, target), x.type);
}

void squeeze(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const auto axes = axes_of(l, 1, l.rank(x.id));
  Dims left;
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool named = axes && std::find(axes->begin(), axes->end(), int(i)) != axes->end();
    if (named) l.unify(dims[i], 1);
    if (named || (!axes && dims[i].is_constant(1))) continue;
    left.push_back(dims[i]);
  }
  l.result(0, l.reshape(x.id, left), x.type);
}

void unsqueeze(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const size_t added = l.has(1) ? l.sizes(1).size() : l.integers("axes").value_or(std::vector<int64_t>{}).size();
  const auto axes = axes_of(l, 1, static_cast<int>(dims.size() + added));
  if (!axes) refuse("no axes are given");
  Dims wider(dims.size() + added, Expression(-1));
  for (const int axis : *axes) wider[at(axis)] = 1;
  for (size_t from = 0, to = 0; to < wider.size(); ++to) {
    if (wider[to].is_constant(-1)) wider[to] = dims[from++];
  }
  l.result(0, l.reshape(x.id, wider), x.type);
}

void flatten(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const auto middle = dims.begin() + Lowering::axis(l.integer("axis", 1), l.rank(x.id), true);
  l.result(0, l.reshape(x.id, {count(Dims(dims.begin(), middle)), count(Dims(middle, dims.end()))}), x.type);
}

void transpose(Lowering& l) {
  const Operand x = l.operand(0);
  const int rank = l.rank(x.id);
  std::vector<int> permutation(at(rank));
  std::iota(permutation.rbegin(), permutation.rend(), 0);
  if (const auto given = l.integers("perm")) {
    if (given->size() != permutation.size()) refuse("attribute 'perm' has {} axes, the tensor {}", given->size(), rank);
    std::vector<bool> seen(at(rank));
    for (size_t i = 0; i < given->size(); ++i) {
      permutation[i] = Lowering::axis((*given)[i], rank);
      if (seen[at(permutation[i])]) refuse("attribute 'perm' names axis {} twice", permutation[i]);
      seen[at(permutation[i])] = true;
    }
  }
  l.result(0, l.transpose(x.id, permutation), x.type);
}

/// Where numpy's rules put an index of a slice: negative ones count from the end, then it is clamped to [lowest,
/// highest].
Expression slice_bound(Lowering& l, const Expression& index, const Expression& size, const Expression& lowest,
                       const Expression& highest) {
  const auto [lower, upper] = l.range(index);
  if (lower >= beyond) return highest;
  if (upper <= -beyond) return lowest;
  if (lower < 0 && upper >= 0) refuse("the bound {} may be negative or not", index.text());
  const Expression counted = upper < 0 ? index + size : index;
  return l.simplify(Expression::minimum(Expression::maximum(counted, lowest), highest));
}

void slice(Lowering& l) {
  const Operand x = l.operand(0);
  Dims dims = l.dims(x.id);
  const int rank = l.rank(x.id);
  const std::vector<Expression> starts = l.sizes(1), ends = l.sizes(2);
  std::vector<int> axes(starts.size());
  std::iota(axes.begin(), axes.end(), 0);
  if (l.has(3)) axes = *axes_of(l, 3, rank);
  const std::vector<int64_t> steps = l.has(4) ? l.numbers(4) : std::vector<int64_t>(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) {
    refuse("{} starts, {} ends, {} axes, {} steps", starts.size(), ends.size(), axes.size(), steps.size());
  }
  Slice all{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), {}};
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = at(Lowering::axis(axes[i], rank));
    const Expression size = dims[axis];
    const int64_t step = steps[i];
    if (step == 0 || step < -beyond || step > beyond) refuse("the step of axis {} is {}", axis, step);
    const bool forward = step > 0;
    const Expression lowest = forward ? 0 : -1, highest = forward ? size : size - 1;
    const Expression start = slice_bound(l, starts[i], size, 0, highest);
    const Expression end = slice_bound(l, ends[i], size, lowest, highest);
    const Expression span = forward ? end - start : start - end;
    const int64_t stride = forward ? step : -step;
    dims[axis] = l.simplify(Expression::maximum(Expression::divide(span + (stride - 1), stride), 0));
    all.starts[axis] = dims[axis].is_constant(0) ? Expression(0) : start;
    all.steps[axis] = step;
  }
  all.dims = std::move(dims);
  l.result(0, l.add(all, {x.id}), x.type);
}

void split(Lowering& l) {
  const Operand x = l.operand(0);
  const int axis = Lowering::axis(l.integer("axis", 0), l.rank(x.id));
  const Expression size = l.dims(x.id)[at(axis)];
  const size_t parts = l.node.outputs.size();
  std::vector<Expression> lengths;
  if (l.has(1)) {
    lengths = l.sizes(1);
  } else if (const auto given = l.integers("split")) {
    lengths.assign(given->begin(), given->end());
  }
  if (lengths.empty()) {
    const int64_t wanted = l.integer("num_outputs", static_cast<int64_t>(parts));
    if (wanted != static_cast<int64_t>(parts)) refuse("attribute 'num_outputs' is {}, the node has {}", wanted, parts);
    const auto known = size.constant();
    const auto n = static_cast<int64_t>(parts);
    const Expression each = known ? Expression((*known + n - 1) / n) : l.simplify(Expression::divide(size, n));
    if (!known) l.unify(each * n, size);
    lengths.assign(parts, each);
    if (known) lengths.back() = *known - (n - 1) * *each.constant();  // the last part may be shorter
  }
  if (lengths.size() != parts) refuse("{} lengths for {} outputs", lengths.size(), parts);
  Expression start = 0;
  for (size_t i = 0; i < parts; ++i) {
    if (l.wants(i)) l.result(i, l.slice(x.id, axis, start, lengths[i]), x.type);
    start = start + lengths[i];
  }
  l.unify(start, size);
}

void concat(Lowering& l) {
  const Operand first = l.operand(0);
  const int axis = Lowering::axis(l.integer("axis"), l.rank(first.id));
  std::vector<ValueId> parts;
  for (size_t i = 0; i < l.count(); ++i) parts.push_back(l.value(i));
  l.result(0, l.add(Concat{axis}, parts), first.type);
}

void expand(Lowering& l) {
  const Operand x = l.operand(0);
  Dims dims = l.dims(x.id);
  Dims target = l.shape(1);
  const size_t rank = std::max(dims.size(), target.size());
  dims.insert(dims.begin(), rank - dims.size(), 1);
  target.insert(target.begin(), rank - target.size(), 1);
  for (size_t i = 0; i < rank; ++i) {
    if (target[i].is_constant(1)) target[i] = dims[i];
    if (!dims[i].is_constant(1)) {
      l.unify(dims[i], target[i]);
      target[i] = dims[i];
    }
  }
  l.result(0, l.expand(x.id, target), x.type);
}

void tile(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const Dims repeats = l.shape(1);
  if (repeats.size() != dims.size()) refuse("{} repeats for a tensor of rank {}", repeats.size(), dims.size());
  Dims split, wide, joined;  // each repeated axis gets one before it
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!repeats[i].is_constant(1)) {
      split.push_back(1);
      wide.push_back(repeats[i]);
    }
    split.push_back(dims[i]);
    wide.push_back(dims[i]);
    joined.push_back(dims[i] * repeats[i]);
  }
  l.result(0, l.reshape(l.expand(l.reshape(x.id, split), wide), joined), x.type);
}

/// Around x along an axis: its elements mirrored about the first and the last one, or these repeated.
ValueId extend(Lowering& l, ValueId x, int axis, const std::string& mode, const Expression& before,
               const Expression& after) {
  const Dims dims = l.dims(x);
  const Expression size = dims[at(axis)];
  const auto part = [&](const Expression& start, int64_t step, const Expression& count) {
    Slice slice{std::vector<Expression>(dims.size()), std::vector<int64_t>(dims.size(), 1), dims};
    slice.starts[at(axis)] = start;
    slice.steps[at(axis)] = step;
    slice.dims[at(axis)] = count;
    return l.add(std::move(slice), {x});
  };
  const auto side = [&](const Expression& count, const Expression& edge, const Expression& mirrored) {
    if (l.range(count).lower < 0) refuse("mode '{}' with the negative padding {}", mode, count.text());
    if (mode == "edge") {
      Dims repeated = dims;
      repeated[at(axis)] = count;
      return l.expand(part(edge, 1, 1), repeated);
    }
    // No element is mirrored twice.
    if (l.range(size - 1 - count).upper < 0)
      refuse("mode 'reflect' with the padding {} of an axis of size {}: at most {}", count.text(), size.text(),
             (size - 1).text());
    l.expect_size(size - 1 - count);
    return part(mirrored, -1, count);
  };
  std::vector<ValueId> parts{x};
  if (!before.is_constant(0)) parts.insert(parts.begin(), side(before, 0, before));
  if (!after.is_constant(0)) parts.push_back(side(after, size - 1, size - 2));
  return parts.size() == 1 ? x : l.add(Concat{axis}, parts);
}

void pad(Lowering& l) {
  const Operand x = l.operand(0);
  const int rank = l.rank(x.id);
  const std::string mode = l.text("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge")
    refuse("attribute 'mode' = '{}' is not supported, only 'constant', 'reflect' and 'edge'", mode);
  const std::vector<Expression> pads = l.sizes(1);
  std::vector<int> axes(at(rank));
  std::iota(axes.begin(), axes.end(), 0);
  if (l.has(3)) axes = *axes_of(l, 3, rank);
  if (pads.size() != 2 * axes.size()) refuse("{} pads for {} axes", pads.size(), axes.size());
  float value = 0;
  if (l.has(2)) {
    const Literal given = l.constant(2);
    if (given.count() != 1) refuse("the value to pad with has {} elements", given.count());
    value = given.type == Type::f32   ? given.floats()[0]
            : given.type == Type::i32 ? static_cast<float>(given.integers()[0])
                                      : static_cast<float>(given.booleans()[0]);
  }
  if (mode != "constant") {
    ValueId y = x.id;
    for (size_t i = 0; i < axes.size(); ++i) y = extend(l, y, axes[i], mode, pads[i], pads[i + axes.size()]);
    l.result(0, y, x.type);
    return;
  }
  // Negative pads crop.
  ValueId y = x.id;
  Pad wider{std::vector<Expression>(at(rank)), std::vector<Expression>(at(rank)), value};
  for (size_t i = 0; i < axes.size(); ++i) {
    Expression before = pads[i], after = pads[i + axes.size()];
    const auto crops = [&](const Expression& e) {
      const auto [lower, upper] = l.range(e);
      if (lower < 0 && upper > 0) refuse("the padding {} may be negative or not", e.text());
      return lower < 0;
    };
    const Expression cropped_before = crops(before) ? Expression(0) - before : 0;
    const Expression cropped_after = crops(after) ? Expression(0) - after : 0;
    const Expression size = l.dims(y)[at(axes[i])];
    y = l.slice(y, axes[i], cropped_before, size - cropped_before - cropped_after);
    wider.before[at(axes[i])] = before + cropped_before;
    wider.after[at(axes[i])] = after + cropped_after;
  }
  const bool logic = l.type(y) == Type::boolean;
  if (logic) y = l.map(Step::b_to_i, {y});
  y = l.add(wider, {y});
  if (logic) y = l.map(Step::i_to_b, {y});
  l.result(0, y, x.type);
}

/// [N, C, H, W] with blocks of channels turned into squares of pixels, and back.
void depth_to_space(Lowering& l) {
  const Operand x = l.operand(0);
  const int64_t block = l.integer("blocksize");
  const std::string mode = l.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") refuse("attribute 'mode' = '{}'", mode);
  const Dims d = l.dims(x.id);
  if (d.size() != 4 || block < 1 || block > beyond) refuse("rank {}, blocksize {}", d.size(), block);
  const Expression depth = l.simplify(Expression::divide(d[1], block * block));
  l.unify(depth * (block * block), d[1]);
  const bool depth_first = mode == "CRD";
  const ValueId blocks = l.reshape(
      x.id, depth_first ? Dims{d[0], depth, block, block, d[2], d[3]} : Dims{d[0], block, block, depth, d[2], d[3]});
  const ValueId moved =
      l.transpose(blocks, depth_first ? std::vector{0, 1, 4, 2, 5, 3} : std::vector{0, 3, 4, 1, 5, 2});
  l.result(0, l.reshape(moved, {d[0], depth, d[2] * block, d[3] * block}), x.type);
}

void space_to_depth(Lowering& l) {
  const Operand x = l.operand(0);
  const int64_t block = l.integer("blocksize");
  const Dims d = l.dims(x.id);
  if (d.size() != 4 || block < 1 || block > beyond) refuse("rank {}, blocksize {}", d.size(), block);
  const Expression height = l.simplify(Expression::divide(d[2], block)),
                   width = l.simplify(Expression::divide(d[3], block));
  l.unify(height * block, d[2]);
  l.unify(width * block, d[3]);
  const ValueId blocks = l.reshape(x.id, {d[0], d[1], height, block, width, block});
  const ValueId moved = l.transpose(blocks, {0, 3, 5, 1, 2, 4});
  l.result(0, l.reshape(moved, {d[0], d[1] * (block * block), height, width}), x.type);
}

// --- Indexing --------------------------------------------------------------------------------------------

void expect_inside(std::span<const int64_t> indices, int64_t size) {
  for (const int64_t index : indices)
    if (index < -size || index >= size) refuse("index {} of an axis of size {}", index, size);
}

void gather(Lowering& l) {
  const Operand table = l.operand(0);
  const int axis = Lowering::axis(l.integer("axis", 0), l.rank(table.id));
  const ValueId index = l.value(1);
  if (l.type(index) != Type::i32) refuse("the index is of type {}", heed::name(l.type(index)));
  const Value& known = l.graph.value(index);
  Dims dims = l.dims(table.id);
  const auto size = dims[at(axis)].constant();
  if (known.constant && size) expect_inside(known.constant->integers(), *size);
  if (known.constant && known.dims.empty()) {  // one row: a view
    const int64_t row = known.constant->integers()[0];
    const ValueId slice = l.slice(table.id, axis, row < 0 ? dims[at(axis)] + row : row, 1);
    dims.erase(dims.begin() + axis);
    l.result(0, l.reshape(slice, dims), table.type);
    return;
  }
  l.result(0, l.add(Gather{axis}, {table.id, index}), table.type);
}

/// Element i of the result is data[index[i, 0], index[i, 1], ...]: a gather from the indexed axes made one.
/// One element of the data for each of the index, at its own place along the other axes: a gather from the flat data.
void gather_elements(Lowering& l) {
  const Operand data = l.operand(0);
  const ValueId index = l.value(1);
  const Dims dims = l.dims(data.id), places = l.dims(index);
  if (dims.size() != places.size() || dims.empty())
    refuse("an index of shape {} does not fit data of shape {}", text(places), text(dims));
  const int along = Lowering::axis(l.integer("axis", 0), l.rank(data.id));
  const auto size = [&](size_t axis) { return l.add(Size{dims[axis]}, {}); };
  ValueId flat = no_value;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    ValueId own = index;
    if (static_cast<int>(axis) != along)
      own = l.iota(places, static_cast<int>(axis));
    else if (dims.size() > 1)  // with one axis the gather takes negative ones
      own =
          l.select(l.map(Step::i_less, {index, l.integer_constant(0)}), l.map(Step::i_add, {index, size(axis)}), index);
    flat = flat == no_value ? own : l.map(Step::i_add, {l.map(Step::i_mul, {flat, size(axis)}), own});
  }
  l.result(0, l.add(Gather{0}, {l.reshape(data.id, {tools::count(dims)}), flat}), data.type);
}

void gather_nd(Lowering& l) {
  const Operand data = l.operand(0);
  const ValueId index = l.value(1);
  if (l.type(index) != Type::i32) refuse("the index is of type {}", heed::name(l.type(index)));
  const Dims dims = l.dims(data.id), index_dims = l.dims(index);
  if (index_dims.empty()) refuse("the index has no axes");
  const auto width = index_dims.back().constant();
  if (!width) refuse("the index has {} numbers for each element; that has to be known", index_dims.back().text());
  const auto batch = l.integer("batch_dims", 0), axes = batch + *width;
  const auto last = static_cast<int64_t>(index_dims.size()) - 1;
  if (batch < 0 || batch > last || axes > l.rank(data.id) || axes < 1)
    refuse("an index of shape {} and batch_dims = {} do not fit data of shape {}", text(index_dims), batch, text(dims));

  const Dims places(index_dims.begin(), index_dims.end() - 1);
  const auto size = [&](int64_t axis) {
    const auto known = dims[at(axis)].constant();
    return known ? l.integer_constant(*known) : l.add(Size{dims[at(axis)]}, {});
  };
  const auto number = [&](int64_t axis) {  // of the element along an axis of the data, from 0
    if (axis < batch) {
      l.unify(places[at(axis)], dims[at(axis)]);
      return l.iota(places, static_cast<int>(axis));
    }
    const ValueId own = l.reshape(l.slice(index, static_cast<int>(last), axis - batch, 1), places);
    const auto& known = l.graph.value(own).constant;
    const auto rows = dims[at(axis)].constant();
    if (known && rows) expect_inside(known->integers(), *rows);
    if (axes == 1) return own;  // the gather takes negative ones
    return l.select(l.map(Step::i_less, {own, l.integer_constant(0)}), l.map(Step::i_add, {own, size(axis)}), own);
  };
  ValueId flat = number(0);
  Dims table = {dims[0]};
  for (int64_t axis = 1; axis < axes; ++axis) {
    flat = l.map(Step::i_add, {l.map(Step::i_mul, {flat, size(axis)}), number(axis)});
    table[0] = table[0] * dims[at(axis)];
  }
  table.insert(table.end(), dims.begin() + axes, dims.end());
  l.result(0, l.add(Gather{0}, {l.reshape(data.id, table), flat}), data.type);
}

/// data with the rows that constant indices [.., k] name in its first k axes replaced by updates' [.., rest]. Rows that
/// fill a box in order are an assignment to a slice: the parts around it and the updates are concatenated. Other rows
/// are appended and all are picked.
void scatter_nd(Lowering& l) {
  const Operand data = l.operand(0);
  const std::string reduction = l.text("reduction", "none");
  if (reduction != "none") refuse("attribute 'reduction' = '{}' is not supported, only 'none'", reduction);
  const Literal indices = l.constant(1);
  const Dims dims = l.dims(data.id);
  if (indices.type != Type::i32 || indices.dims.empty()) refuse("indices of shape {}", text(indices.dims));
  const auto depth = static_cast<size_t>(indices.dims.back());
  if (depth < 1 || depth > dims.size()) refuse("indices into {} axes of a tensor of rank {}", depth, dims.size());
  const Dims rest(dims.begin() + static_cast<std::ptrdiff_t>(depth), dims.end());
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < depth; ++i) {
    const auto size = dims[i].constant();
    if (!size) refuse("axis {} that is indexed is of size {}, which is not known", i, dims[i].text());
    sizes.push_back(*size);
  }
  const auto rows = static_cast<size_t>(indices.count()) / depth;
  if (rows == 0) {
    l.ignore_operand(2);
    l.result(0, data.id, data.type);
    return;
  }
  std::vector<int64_t> places(indices.integers().begin(), indices.integers().end());
  std::vector<int64_t> low(sizes), high(depth, 0);
  for (size_t i = 0; i < places.size(); ++i) {
    const int64_t size = sizes[i % depth];
    if (places[i] < -size || places[i] >= size) refuse("index {} of an axis of size {}", places[i], size);
    if (places[i] < 0) places[i] += size;
    low[i % depth] = std::min(low[i % depth], places[i]);
    high[i % depth] = std::max(high[i % depth], places[i] + 1);
  }
  std::vector<int64_t> box(depth);
  std::transform(high.begin(), high.end(), low.begin(), box.begin(), std::minus<>());
  const auto in_order = [&] {
    for (size_t row = 0; row < rows; ++row) {
      auto left = static_cast<int64_t>(row);
      for (size_t i = depth; i-- > 0; left /= box[i])
        if (places[row * depth + i] != low[i] + left % box[i]) return false;
      if (left != 0) return false;
    }
    return true;
  };
  const bool is_box =
      std::accumulate(box.begin(), box.end(), int64_t{1}, std::multiplies<>()) == static_cast<int64_t>(rows);
  const auto with_rest = [&](std::vector<int64_t> front) {
    Dims result(front.begin(), front.end());
    result.insert(result.end(), rest.begin(), rest.end());
    return result;
  };
  if (is_box && in_order()) {
    ValueId y = l.reshape(l.value(2), with_rest(box));
    for (size_t i = depth; i-- > 0;) {
      ValueId around = data.id;  // as wide as the box along the axes before this one
      for (size_t k = 0; k < i; ++k) around = l.slice(around, static_cast<int>(k), low[k], box[k]);
      const auto axis = static_cast<int>(i);
      std::vector<ValueId> parts;
      if (low[i] > 0) parts.push_back(l.slice(around, axis, 0, low[i]));
      parts.push_back(y);
      if (high[i] < sizes[i]) parts.push_back(l.slice(around, axis, high[i], sizes[i] - high[i]));
      y = l.add(Concat{axis}, parts);
    }
    l.result(0, y, data.type);
    return;
  }
  const int64_t all = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  std::vector<int64_t> picked(static_cast<size_t>(all));
  std::iota(picked.begin(), picked.end(), 0);
  for (size_t row = 0; row < rows; ++row) {
    int64_t place = 0;
    for (size_t i = 0; i < depth; ++i) place = place * sizes[i] + places[row * depth + i];
    picked[static_cast<size_t>(place)] = all + static_cast<int64_t>(row);
  }
  const ValueId both = l.add(Concat{0}, {l.reshape(data.id, with_rest({all})),
                                         l.reshape(l.value(2), with_rest({static_cast<int64_t>(rows)}))});
  const ValueId index = l.graph.constant(l.name, Literal::of({all}, std::move(picked)));
  l.result(0, l.reshape(l.add(Gather{0}, {both, index}), dims), data.type);
}

/// values = [off, on]; y = on where the index is the position along the new axis.
void one_hot(Lowering& l) {
  const Operand index = l.operand(0);
  const Operand values = l.operand(2);
  Expression depth;
  if (l.type(l.value(1)) == Type::f32) {
    const Literal given = l.constant(1);
    if (given.count() != 1) refuse("the depth has {} elements", given.count());
    depth = static_cast<int64_t>(given.floats()[0]);
  } else {
    depth = l.size(1);
  }
  l.expect_size(depth);
  const int rank = l.rank(index.id) + 1;
  const int axis = Lowering::axis(l.integer("axis", -1), rank);
  const ValueId whole = l.unsqueeze(l.cast(index.id, index.type, DataType::i64), axis);
  const ValueId from_end = l.map(Step::i_add, {whole, l.add(Size{depth}, {})});
  const ValueId counted = l.select(l.map(Step::i_less, {whole, l.integer_constant(0)}), from_end, whole);
  Dims line(at(rank), 1);
  line[at(axis)] = depth;
  const ValueId here = l.map(Step::i_equal, {counted, l.iota(line, axis)});
  l.result(0, l.select(here, l.element(values.id, 1), l.element(values.id, 0)), values.type);
}

// --- From positions --------------------------------------------------------------------------------------

double element_of(const Literal& x) {
  if (x.count() != 1 || x.type == Type::boolean) refuse("a bound of the range is no number");
  return x.type == Type::f32 ? static_cast<double>(x.floats()[0]) : static_cast<double>(x.integers()[0]);
}

/// The whole number that a float is, a constant or a size that was cast; nothing of others.
std::optional<Expression> whole_number(const Lowering& l, ValueId id) {
  for (;;) {
    const Value& value = l.graph.value(id);
    if (value.constant && value.type == Type::f32 && value.constant->count() == 1) {
      const double number = value.constant->floats()[0];
      if (number != std::floor(number) || std::abs(number) > static_cast<double>(beyond)) return std::nullopt;
      return static_cast<int64_t>(number);
    }
    if (value.symbols && value.symbols->size() == 1) return (*value.symbols)[0];
    if (value.producer < 0) return std::nullopt;
    const Node& node = l.graph.node(value.producer);
    const auto* map = std::get_if<Map>(&node.operation);
    if (!std::holds_alternative<Reshape>(node.operation) && (map == nullptr || map->step != Step::i_to_f))
      return std::nullopt;
    id = node.inputs[0];
  }
}

/// first, first + delta, ... up to before limit.
ValueId counted(Lowering& l, const Expression& first, const Expression& limit, int64_t delta) {
  if (delta == 0 || delta < -beyond || delta > beyond) refuse("a range by steps of {}", delta);
  const Expression span = delta > 0 ? limit - first : first - limit;
  const int64_t stride = delta > 0 ? delta : -delta;
  const Expression count = l.simplify(Expression::maximum(Expression::divide(span + (stride - 1), stride), 0));
  ValueId y = l.iota({count}, 0);
  if (delta != 1) y = l.map(Step::i_mul, {y, l.integer_constant(delta)});
  if (!first.is_constant(0)) y = l.map(Step::i_add, {y, l.add(Size{first}, {})});
  return y;
}

void range(Lowering& l) {
  const Operand start = l.operand(0);
  if (l.type(start.id) == Type::f32) {
    if (!l.graph.value(start.id).constant || !l.graph.value(l.value(1)).constant) {
      const auto from = whole_number(l, start.id), to = whole_number(l, l.value(1)), by = whole_number(l, l.value(2));
      if (from && to && by && by->constant()) {
        l.result(0, l.cast(counted(l, *from, *to, *by->constant()), DataType::i64, start.type), start.type);
        return;
      }
    }
    const double first = element_of(l.constant(0)), limit = element_of(l.constant(1)),
                 delta = element_of(l.constant(2));
    const double count = std::max(0.0, std::ceil((limit - first) / delta));
    if (!(count <= longest_range)) refuse("a range from {} to {} by {}", first, limit, delta);
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(first + static_cast<double>(i) * delta);
    const auto n = static_cast<int64_t>(values.size());
    l.result(0, l.graph.constant(l.name, Literal::of({n}, std::move(values))), start.type);
    return;
  }
  l.result(0, counted(l, l.size(0), l.size(1), l.number(2)), start.type);
}

void eye_like(Lowering& l) {
  const Operand x = l.operand(0);
  const auto type = static_cast<DataType>(l.integer("dtype", static_cast<int64_t>(x.type)));
  const Dims dims = l.dims(x.id);
  if (dims.size() != 2) refuse("rank {}, where a matrix is expected", dims.size());
  const ValueId shifted = l.map(Step::i_add, {l.iota({dims[0], 1}, 0), l.integer_constant(l.integer("k", 0))});
  const ValueId here = l.map(Step::i_equal, {shifted, l.iota({1, dims[1]}, 1)});
  l.result(0, l.cast(here, DataType::boolean, type), type);
}

/// Keeps the elements on one side of a diagonal, the others become 0.
void trilu(Lowering& l) {
  const Operand x = l.operand(0);
  const bool upper = l.integer("upper", 1) != 0;
  const Dims dims = l.dims(x.id);
  if (dims.size() < 2) refuse("rank {}, where matrices are expected", dims.size());
  ValueId row = l.iota({dims[dims.size() - 2], 1}, 0);
  if (l.has(1)) row = l.map(Step::i_add, {row, l.reshape(l.value(1), {})});
  const ValueId column = l.iota({1, dims.back()}, 1);
  const ValueId kept = upper ? l.map(Step::i_less_equal, {row, column}) : l.map(Step::i_less_equal, {column, row});
  const ValueId zero = l.cast(l.integer_constant(0), DataType::i64, x.type);
  l.result(0, l.select(kept, x.id, zero), x.type);
}

constexpr LoweringRow rows[] = {
    {"", "Concat", 4, concat},
    {"", "Constant", 1, constant},
    {"", "ConstantOfShape", 9, constant_of_shape},
    {"", "DepthToSpace", 1, depth_to_space},
    {"", "Expand", 8, expand},
    {"", "EyeLike", 9, eye_like},
    {"", "Flatten", 1, flatten},
    {"", "Gather", 1, gather},
    {"", "GatherElements", 11, gather_elements},
    {"", "GatherND", 11, gather_nd},
    {"", "OneHot", 9, one_hot},
    {"", "Pad", 11, pad},
    {"", "Range", 11, range},
    {"", "Reshape", 5, reshape},
    {"", "ScatterND", 11, scatter_nd},
    {"", "Shape", 1, shape},
    {"", "Size", 1, size},
    {"", "Slice", 10, slice},
    {"", "SpaceToDepth", 1, space_to_depth},
    {"", "Split", 2, split},
    {"", "Squeeze", 1, squeeze},
    {"", "Tile", 6, tile},
    {"", "Transpose", 1, transpose},
    {"", "Trilu", 14, trilu},
    {"", "Unsqueeze", 1, unsqueeze},
};

}  // namespace

std::span<const LoweringRow> shape_lowerings() {
  return rows;
}

}  // namespace heed::tools

// Operators that sum over axes: matrix products, reductions, softmax, normalisations.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tools/onnx/quantized.h"

namespace heed::tools {
namespace {

using onnx::DataType;

size_t at(int axis) {
  return static_cast<size_t>(axis);
}

std::vector<int> from_to(int first, int end) {
  std::vector<int> axes(at(std::max(end - first, 0)));
  std::iota(axes.begin(), axes.end(), first);
  return axes;
}

// --- Matrix products -------------------------------------------------------------------------------------

/// Of [.., M, K] and [.., K, N]. Of integers an element at a time: no kernel multiplies all of int32.
ValueId product(Lowering& l, ValueId a, ValueId b, bool of_bytes = false) {
  if (l.type(a) != Type::i32 || of_bytes) return l.add(Matmul{}, {a, b});
  const int rank = std::max(l.rank(a), l.rank(b));
  return l.reduce(Reduction::sum, l.map(Step::i_mul, {l.unsqueeze(a, l.rank(a)), l.unsqueeze(b, l.rank(b) - 2)}),
                  {rank - 1}, false);
}

void matmul(Lowering& l) {
  const Operand a = l.operand(0);
  l.result(0, matrix_product(l, a.id, l.value(1)), a.type);
}

void gemm(Lowering& l) {
  const Operand a = l.operand(0);
  const ValueId b = l.value(1);
  const float alpha = l.real("alpha", 1), beta = l.real("beta", 1);
  const bool a_turned = l.integer("transA", 0) != 0, b_turned = l.integer("transB", 0) != 0;
  if (l.rank(a.id) != 2 || l.rank(b) != 2)
    refuse("ranks {} and {}, where matrices are expected", l.rank(a.id), l.rank(b));
  Term y = l.term(product(l, a_turned ? l.swap_last(a.id) : a.id, b_turned ? l.swap_last(b) : b));
  if (alpha != 1) y = y * alpha;
  if (l.has(2) && beta != 0) {
    Term c = l.term(l.value(2));
    if (beta != 1) c = c * beta;
    y = y + c;
  } else {
    l.optional(2);
  }
  l.result(0, y.id(), a.type);
}

/// com.microsoft's product with transposes and a factor.
void fused_matmul(Lowering& l) {
  const Operand a = l.operand(0);
  const ValueId b = l.value(1);
  l.expect("transBatchA", 0);
  l.expect("transBatchB", 0);
  const bool a_turned = l.integer("transA", 0) != 0, b_turned = l.integer("transB", 0) != 0;
  const float alpha = l.real("alpha", 1);
  if (l.rank(a.id) < 2 || l.rank(b) < 2)
    refuse("ranks {} and {}, where matrices are expected", l.rank(a.id), l.rank(b));
  Term y = l.term(product(l, a_turned ? l.swap_last(a.id) : a.id, b_turned ? l.swap_last(b) : b));
  if (alpha != 1) y = y * alpha;
  l.result(0, y.id(), a.type);
}

// --- Einsum ----------------------------------------------------------------------------------------------

/// A tensor whose axes have labels: letters, or `dots + i` for the i-th axis from the right of what "..." stands for.
struct Labeled {
  ValueId id;
  std::vector<int> labels;

  bool has(int label) const { return std::find(labels.begin(), labels.end(), label) != labels.end(); }
  int axis(int label) const {
    return static_cast<int>(std::find(labels.begin(), labels.end(), label) - labels.begin());
  }
};
constexpr int dots = 256;

Labeled sum_out(Lowering& l, Labeled x, const std::set<int>& kept) {
  std::vector<int> axes, left;
  for (size_t i = 0; i < x.labels.size(); ++i) {
    if (kept.count(x.labels[i])) {
      left.push_back(x.labels[i]);
    } else {
      axes.push_back(static_cast<int>(i));
    }
  }
  return {l.reduce(Reduction::sum, x.id, axes, false), left};
}

/// The axes in this order; a label that x lacks becomes an axis of size 1.
ValueId arrange(Lowering& l, const Labeled& x, const std::vector<int>& order) {
  std::vector<int> permutation;
  for (const int label : order) {
    if (x.has(label)) permutation.push_back(x.axis(label));
  }
  ValueId y = l.transpose(x.id, permutation);
  for (size_t i = 0; i < order.size(); ++i) {
    if (!x.has(order[i])) y = l.unsqueeze(y, static_cast<int>(i));
  }
  return y;
}

Labeled contract(Lowering& l, Labeled a, Labeled b, const std::set<int>& kept) {
  std::set<int> for_a = kept, for_b = kept;
  for_a.insert(b.labels.begin(), b.labels.end());
  for_b.insert(a.labels.begin(), a.labels.end());
  a = sum_out(l, a, for_a);
  b = sum_out(l, b, for_b);

  std::vector<int> batch, inner, rows, columns;
  for (const int label : a.labels) (!b.has(label) ? rows : kept.count(label) ? batch : inner).push_back(label);
  for (const int label : b.labels) {
    if (!a.has(label)) columns.push_back(label);
  }
  const auto joined = [](std::initializer_list<std::vector<int>> lists) {
    std::vector<int> all;
    for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
    return all;
  };
  const std::vector<int> labels = joined({batch, rows, columns});
  if (inner.empty()) {
    const ValueId y = l.arithmetic(Step::f_mul, Step::i_mul, {arrange(l, a, labels), arrange(l, b, labels)});
    return {y, labels};
  }
  // Groups of axes of `x` from `first` on, each made one.
  const auto grouped = [&](ValueId x, size_t first, size_t second) {
    const Dims dims = l.dims(x);
    const auto begin = dims.begin() + static_cast<std::ptrdiff_t>(batch.size());
    const auto middle = begin + static_cast<std::ptrdiff_t>(first), end = middle + static_cast<std::ptrdiff_t>(second);
    Dims result(dims.begin(), begin);
    result.push_back(count(Dims(begin, middle)));
    result.push_back(count(Dims(middle, end)));
    return l.reshape(x, result);
  };
  const ValueId left = arrange(l, a, joined({batch, rows, inner})),
                right = arrange(l, b, joined({batch, inner, columns}));
  const ValueId y = product(l, grouped(left, rows.size(), inner.size()), grouped(right, inner.size(), columns.size()));
  Dims dims = l.dims(y);
  dims.resize(batch.size());
  for (size_t i = 0; i < rows.size(); ++i) dims.push_back(l.dims(left)[batch.size() + i]);
  for (size_t i = 0; i < columns.size(); ++i) dims.push_back(l.dims(right)[batch.size() + inner.size() + i]);
  return {l.reshape(y, dims), labels};
}

/// Labels of one term of the equation for a tensor of `rank` axes.
std::vector<int> labels_of(std::string_view term, int rank) {
  std::vector<int> labels;
  const size_t ellipsis = term.find("...");
  const int others = rank - static_cast<int>(term.size()) + 3;  // axes that "..." stands for
  for (size_t i = 0; i < term.size(); ++i) {
    if (i == ellipsis) {
      for (int k = others; k-- > 0;) labels.push_back(dots + k);
      i += 2;
    } else if (std::isalpha(static_cast<unsigned char>(term[i]))) {
      labels.push_back(term[i]);
    } else {
      refuse("the equation has a '{}'", term[i]);
    }
  }
  if (static_cast<int>(labels.size()) != rank) refuse("'{}' does not fit a tensor of rank {}", term, rank);
  std::vector<int> sorted = labels;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    refuse("'{}' takes a diagonal, which is not supported", term);
  }
  return labels;
}

void einsum(Lowering& l) {
  std::string equation = l.text("equation");
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  const size_t arrow = equation.find("->");
  std::vector<Labeled> terms;
  std::map<int, int> uses;
  size_t widest = 0;  // of what "..." stands for
  std::string_view left = std::string_view(equation).substr(0, arrow);
  for (size_t i = 0; i < l.count(); ++i) {
    const size_t comma = left.find(',');
    if ((comma == std::string_view::npos) != (i + 1 == l.count())) refuse("'{}' for {} operands", equation, l.count());
    const std::string_view term = left.substr(0, comma);
    terms.push_back({l.value(i), labels_of(term, l.rank(l.value(i)))});
    size_t others = 0;
    for (const int label : terms.back().labels) {
      ++uses[label];
      others += label >= dots;
    }
    widest = std::max(widest, others);
    left = comma == std::string_view::npos ? std::string_view() : left.substr(comma + 1);
  }
  std::vector<int> output;
  if (arrow == std::string::npos) {  // "..." first, then what occurs once, in the alphabet's order
    for (size_t k = widest; k-- > 0;) output.push_back(dots + static_cast<int>(k));
    for (const auto& [label, times] : uses) {
      if (label < dots && times == 1) output.push_back(label);
    }
  } else {
    const std::string_view right = std::string_view(equation).substr(arrow + 2);
    const bool has_dots = right.find("...") != std::string_view::npos;
    output = labels_of(right, static_cast<int>(right.size()) + (has_dots ? static_cast<int>(widest) - 3 : 0));
  }
  for (const int label : output) {
    if (!uses.count(label)) refuse("'{}' has a letter on the right that is not on the left", equation);
  }
  Labeled y = terms[0];
  for (size_t i = 1; i < terms.size(); ++i) {
    std::set<int> kept(output.begin(), output.end());
    for (size_t later = i + 1; later < terms.size(); ++later) {
      kept.insert(terms[later].labels.begin(), terms[later].labels.end());
    }
    y = contract(l, y, terms[i], kept);
  }
  y = sum_out(l, y, {output.begin(), output.end()});
  l.result(0, arrange(l, y, output), l.operand(0).type);
}

// --- Softmax ---------------------------------------------------------------------------------------------

template <bool Log>
void softmax(Lowering& l) {
  const Operand x = l.operand(0);
  const int rank = l.rank(x.id);
  const bool flattens = l.opset < 13;  // from `axis` on, all axes together
  if (rank == 0) {
    l.ignore("axis");
    l.result(0, l.add(Softmax{0, Log}, {l.reshape(x.id, {1})}), x.type);
    return;
  }
  const int axis = Lowering::axis(l.integer("axis", flattens ? 1 : -1), rank, flattens);
  if (!flattens || axis == rank - 1) {
    l.result(0, l.add(Softmax{axis, Log}, {x.id}), x.type);
    return;
  }
  const Dims dims = l.dims(x.id);
  const auto middle = dims.begin() + axis;
  const ValueId rows = l.reshape(x.id, {count(Dims(dims.begin(), middle)), count(Dims(middle, dims.end()))});
  l.result(0, l.reshape(l.add(Softmax{1, Log}, {rows}), dims), x.type);
}

// --- Reductions ------------------------------------------------------------------------------------------

enum class Reducer { sum, mean, max, min, product, l1, l2, sum_square, log_sum, log_sum_exp };

struct Axes {
  std::vector<int> axes;  // ascending
  bool keep;
};

Axes reduced_axes(Lowering& l, int rank) {
  std::vector<int64_t> given;
  if (l.has_attribute("axes")) {
    given = *l.integers("axes");
  } else if (l.has(1)) {
    given = l.numbers(1);
  }
  const bool none = l.integer("noop_with_empty_axes", 0) != 0;
  const bool keep = l.integer("keepdims", 1) != 0;
  std::set<int> axes;
  for (const int64_t axis : given) {
    if (!axes.insert(Lowering::axis(axis, rank)).second) refuse("axis {} is named twice", axis);
  }
  if (given.empty() && !none) return {from_to(0, rank), keep};
  return {{axes.begin(), axes.end()}, keep};
}

template <Reducer Kind>
void reduce(Lowering& l) {
  const Operand x = l.operand(0);
  const auto [axes, keep] = reduced_axes(l, l.rank(x.id));
  const auto over = [&, axes = axes, keep = keep](Reduction kind, ValueId v) {
    if (kind == Reduction::sum_square && axes.empty()) return l.map(Step::f_mul, {v, v});
    return l.reduce(kind, v, axes, keep);
  };
  const auto is_real = l.type(x.id) == Type::f32;
  ValueId y = x.id;
  if constexpr (Kind == Reducer::sum || Kind == Reducer::product) {
    y = over(Kind == Reducer::sum ? Reduction::sum : Reduction::product, y);
  } else if constexpr (Kind == Reducer::max || Kind == Reducer::min) {
    const bool logic = l.type(y) == Type::boolean;
    if (logic) y = l.map(Step::b_to_i, {y});
    y = over(Kind == Reducer::max ? Reduction::max : Reduction::min, y);
    if (logic) y = l.map(Step::i_to_b, {y});
  } else if constexpr (Kind == Reducer::mean) {
    if (is_real) {
      y = over(Reduction::mean, y);
    } else {
      Expression n = 1;
      for (const int axis : axes) n = n * l.dims(x.id)[at(axis)];
      y = l.map(Step::i_div, {over(Reduction::sum, y), l.add(Size{n}, {})});
    }
  } else if constexpr (Kind == Reducer::l1) {
    y = over(Reduction::sum, l.arithmetic(Step::f_abs, Step::i_abs, {y}));
  } else if constexpr (Kind == Reducer::sum_square) {
    y = is_real ? over(Reduction::sum_square, y) : over(Reduction::sum, l.map(Step::i_mul, {y, y}));
  } else if constexpr (Kind == Reducer::l2) {
    y = l.term(over(Reduction::sum_square, y)).apply(Step::f_sqrt).id();
  } else if constexpr (Kind == Reducer::log_sum) {
    y = l.term(over(Reduction::sum, y)).apply(Step::f_log).id();
  } else {
    // log of the sum of exp(x - m), plus m: m is the largest x, or 0 where that is infinite.
    const Term values = l.term(y);
    const Term largest = l.term(l.reduce(Reduction::max, y, axes, true));
    const Term shift = choose(largest.apply(Step::f_is_inf).id(), values.constant(0), largest);
    const Term sum = l.term(l.reduce(Reduction::sum, (values - shift).apply(Step::f_exp).id(), axes, true));
    y = (sum.apply(Step::f_log) + shift).id();
    Dims dims = l.dims(y);
    for (size_t i = axes.size(); i-- > 0 && !keep;) dims.erase(dims.begin() + axes[i]);
    y = l.reshape(y, dims);
  }
  l.result(0, y, x.type);
}

/// Each sum is taken on its own, which is enough for what models number and mask with it.
void cumulative_sum(Lowering& l) {
  const Operand x = l.operand(0);
  const int axis = Lowering::axis(l.number(1), l.rank(x.id));
  const bool exclusive = l.integer("exclusive", 0) != 0, reverse = l.integer("reverse", 0) != 0;
  const Dims dims = l.dims(x.id);
  Dims sums(dims.begin() + axis, dims.end()), terms = sums;
  std::fill(sums.begin() + 1, sums.end(), 1);
  std::fill(terms.begin() + 1, terms.end(), 1);
  sums.insert(sums.begin() + 1, 1);
  terms.insert(terms.begin(), 1);
  const ValueId sum = l.iota(sums, 0), term = l.iota(terms, 1);
  const Step order = exclusive ? Step::i_less : Step::i_less_equal;
  const ValueId counts = reverse ? l.map(order, {sum, term}) : l.map(order, {term, sum});
  const ValueId zero = l.type(x.id) == Type::f32 ? l.real_constant(0) : l.integer_constant(0);
  const ValueId all = l.select(counts, l.unsqueeze(x.id, axis), zero);
  l.result(0, l.wrap(l.reduce(Reduction::sum, all, {axis + 1}, false), x.type), x.type);
}

template <Reduction Kind>
void arg_extreme(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  const int axis = Lowering::axis(l.integer("axis", 0), l.rank(x.id));
  const bool keep = l.integer("keepdims", 1) != 0, last = l.integer("select_last_index", 0) != 0;
  if (l.type(x.id) == Type::f32) {
    l.result(0, l.add(Reduce{Kind, {axis}, keep, last}, {x.id}), DataType::i64);
    return;
  }
  // Integers: the first (last) position that holds the extreme.
  const Reduction extreme = Kind == Reduction::arg_max ? Reduction::max : Reduction::min;
  const ValueId found = l.map(Step::i_equal, {x.id, l.reduce(extreme, x.id, {axis}, true)});
  Dims line(dims.size(), 1);
  line[at(axis)] = dims[at(axis)];
  const ValueId none = l.add(Size{last ? Expression(-1) : dims[at(axis)]}, {});
  const ValueId positions = l.select(found, l.iota(line, axis), none);
  l.result(0, l.reduce(last ? Reduction::max : Reduction::min, positions, {axis}, keep), DataType::i64);
}

template <Reduction Kind>
void global_pool(Lowering& l) {
  const Operand x = l.operand(0);
  if (l.rank(x.id) < 2) refuse("a tensor of rank {}", l.rank(x.id));
  l.result(0, l.reduce(Kind, x.id, from_to(2, l.rank(x.id)), true), x.type);
}

// --- Normalisations --------------------------------------------------------------------------------------

/// x normalised over its axes from `axis` on, times scale, plus bias (either may be no_value).
ValueId normalize(Lowering& l, Normalization kind, ValueId x, int axis, ValueId scale, ValueId bias, float epsilon) {
  const Dims dims = l.dims(x);
  const Dims normalised(dims.begin() + axis, dims.end());
  Dims rows(dims.begin(), dims.begin() + axis);
  rows.push_back(count(normalised));
  // A parameter is a vector over the normalised axes, unless it varies over others too; the bias comes after the scale.
  const auto varies = [&](ValueId parameter) {
    return parameter != no_value && l.dims(parameter).size() > normalised.size();
  };
  const bool scale_after = varies(scale), bias_after = bias != no_value && (scale_after || varies(bias));
  const auto as_vector = [&](ValueId parameter, bool after) {
    if (parameter == no_value || after) return no_value;
    return l.reshape(l.expand(parameter, normalised), {count(normalised)});
  };
  std::vector<ValueId> operands = {l.reshape(x, rows), as_vector(scale, scale_after), as_vector(bias, bias_after)};
  while (operands.back() == no_value) operands.pop_back();
  ValueId y = l.reshape(l.add(Normalize{kind, epsilon}, operands), dims);
  if (scale_after) y = l.map(Step::f_mul, {y, scale});
  if (bias_after) y = l.map(Step::f_add, {y, bias});
  return y;
}

/// Outputs 1 and 2 of LayerNormalization: mean and 1 / standard deviation.
void result_statistics(Lowering& l, ValueId x, int axis, float epsilon, DataType type) {
  const std::vector<int> axes = from_to(axis, l.rank(x));
  const Term mean = l.term(l.reduce(Reduction::mean, x, axes, true));
  if (l.wants(1)) l.result(1, mean.id(), type);
  if (!l.wants(2)) return;
  const Term centred = l.term(x) - mean;
  const Term variance = l.term(l.reduce(Reduction::mean, (centred * centred).id(), axes, true));
  l.result(2, (variance + epsilon).apply(Step::f_sqrt).apply(Step::f_reciprocal).id(), type);
}

void layer_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const int axis = Lowering::axis(l.integer("axis", -1), l.rank(x.id));
  const float epsilon = l.real("epsilon", 1e-5f);
  const auto stash = static_cast<DataType>(l.integer("stash_type", 1));  // all is computed in float32
  l.result(0, normalize(l, Normalization::layer, x.id, axis, l.value(1), l.optional(2).id, epsilon), x.type);
  if (l.wants(1) || l.wants(2)) result_statistics(l, x.id, axis, epsilon, stash);
}

void rms_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const int axis = Lowering::axis(l.integer("axis", -1), l.rank(x.id));
  const float epsilon = l.real("epsilon", 1e-5f);
  l.ignore("stash_type");
  l.result(0, normalize(l, Normalization::rms, x.id, axis, l.value(1), no_value, epsilon), x.type);
}

/// com.microsoft: normalises x + skip (+ bias); output 3 is that sum.
template <Normalization Kind>
void skip_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const bool layer = Kind == Normalization::layer;
  const float epsilon = l.real("epsilon", 1e-5f);
  Term sum = l.term(x.id) + l.term(l.value(1));
  const ValueId scale = l.value(2), beta = layer ? l.optional(3).id : no_value;
  const Operand bias = l.optional(layer ? 4 : 3);
  if (bias.id != no_value) sum = sum + l.term(bias.id);
  const int axis = l.rank(sum.id()) - 1;
  l.result(0, normalize(l, Kind, sum.id(), axis, scale, beta, epsilon), x.type);
  if (layer && (l.wants(1) || l.wants(2))) result_statistics(l, sum.id(), axis, epsilon, DataType::f32);
  if (l.wants(3)) l.result(3, sum.id(), x.type);
}

/// A vector over the channels of [N, C, ...], as it broadcasts against it.
Term per_channel(Lowering& l, ValueId vector, int rank) {
  Dims dims = l.dims(vector);
  if (dims.size() != 1) refuse("a parameter of rank {}, where a vector over channels is expected", dims.size());
  dims.resize(at(rank - 1), 1);
  return l.term(l.reshape(vector, dims));
}

void batch_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const int rank = l.rank(x.id);
  if (rank < 2) refuse("a tensor of rank {}", rank);
  const float epsilon = l.real("epsilon", 1e-5f);
  l.ignore("momentum");
  l.expect("training_mode", 0);
  const Term scale = per_channel(l, l.value(1), rank), bias = per_channel(l, l.value(2), rank);
  const Term mean = per_channel(l, l.value(3), rank), variance = per_channel(l, l.value(4), rank);
  const Term factor = scale / (variance + epsilon).apply(Step::f_sqrt);
  l.result(0, (l.term(x.id) * factor + (bias - mean * factor)).id(), x.type);
}

void instance_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const int rank = l.rank(x.id);
  if (rank < 3) refuse("a tensor of rank {}", rank);
  const Term scale = per_channel(l, l.value(1), rank), bias = per_channel(l, l.value(2), rank);
  const Term y = l.term(normalize(l, Normalization::layer, x.id, 2, no_value, no_value, l.real("epsilon", 1e-5f)));
  l.result(0, (y * scale + bias).id(), x.type);
}

void group_normalization(Lowering& l) {
  const Operand x = l.operand(0);
  const Dims dims = l.dims(x.id);
  if (dims.size() < 2) refuse("a tensor of rank {}", dims.size());
  const int64_t groups = l.integer("num_groups");
  if (groups < 1 || groups > INT32_MAX) refuse("attribute 'num_groups' = {}", groups);
  const float epsilon = l.real("epsilon", 1e-5f);
  l.ignore("stash_type");
  const Expression channels = l.simplify(Expression::divide(dims[1], groups));
  l.unify(channels * groups, dims[1]);
  Dims grouped = {dims[0], groups, channels};
  grouped.insert(grouped.end(), dims.begin() + 2, dims.end());
  const ValueId y = normalize(l, Normalization::layer, l.reshape(x.id, grouped), 2, no_value, no_value, epsilon);
  // Up to operator set 20 scale and bias are by group, then by channel.
  const Dims shape = l.opset < 21 ? grouped : dims;
  const int rank = static_cast<int>(shape.size());
  const Term scale = per_channel(l, l.value(1), rank), bias = per_channel(l, l.value(2), rank);
  l.result(0, l.reshape((l.term(l.reshape(y, shape)) * scale + bias).id(), dims), x.type);
}

constexpr LoweringRow rows[] = {
    {"", "ArgMax", 1, arg_extreme<Reduction::arg_max>},
    {"", "ArgMin", 1, arg_extreme<Reduction::arg_min>},
    {"", "BatchNormalization", 7, batch_normalization},
    {"", "CumSum", 11, cumulative_sum},
    {"", "Einsum", 12, einsum},
    {"", "Gemm", 7, gemm},
    {"", "GlobalAveragePool", 1, global_pool<Reduction::mean>},
    {"", "GlobalMaxPool", 1, global_pool<Reduction::max>},
    {"", "GroupNormalization", 18, group_normalization},
    {"", "InstanceNormalization", 6, instance_normalization},
    {"", "LayerNormalization", 17, layer_normalization},
    {"", "LogSoftmax", 1, softmax<true>},
    {"", "MatMul", 1, matmul},
    {"", "RMSNormalization", 23, rms_normalization},
    {"", "ReduceL1", 1, reduce<Reducer::l1>},
    {"", "ReduceL2", 1, reduce<Reducer::l2>},
    {"", "ReduceLogSum", 1, reduce<Reducer::log_sum>},
    {"", "ReduceLogSumExp", 1, reduce<Reducer::log_sum_exp>},
    {"", "ReduceMax", 1, reduce<Reducer::max>},
    {"", "ReduceMean", 1, reduce<Reducer::mean>},
    {"", "ReduceMin", 1, reduce<Reducer::min>},
    {"", "ReduceProd", 1, reduce<Reducer::product>},
    {"", "ReduceSum", 1, reduce<Reducer::sum>},
    {"", "ReduceSumSquare", 1, reduce<Reducer::sum_square>},
    {"", "SimplifiedLayerNormalization", 1, rms_normalization},  // written by onnxruntime
    {"", "Softmax", 1, softmax<false>},
    {"com.microsoft", "FusedMatMul", 1, fused_matmul},
    {"com.microsoft", "SimplifiedLayerNormalization", 1, rms_normalization},
    {"com.microsoft", "SkipLayerNormalization", 1, skip_normalization<Normalization::layer>},
    {"com.microsoft", "SkipSimplifiedLayerNormalization", 1, skip_normalization<Normalization::rms>},
};

}  // namespace

ValueId matrix_product(Lowering& l, ValueId a, ValueId b, bool of_bytes) {
  const bool row = l.rank(a) == 1, column = l.rank(b) == 1;
  const ValueId y = product(l, row ? l.unsqueeze(a, 0) : a, column ? l.unsqueeze(b, 1) : b, of_bytes);
  Dims dims = l.dims(y);
  if (column) dims.pop_back();
  if (row) dims.erase(dims.end() - (column ? 1 : 2));
  return l.reshape(y, dims);
}

std::span<const LoweringRow> sum_lowerings() {
  return rows;
}

}  // namespace heed::tools

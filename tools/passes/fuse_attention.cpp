/// Scaled dot-product attention, written out: softmax(scale * q k' + biases, masks) v, read from its end.
///
/// A scale may stand on the scores, on q, on k, or in parts on several of them; keys may be turned through any
/// reshapes; masks may be selects, sums with 0 and -inf, or constants; heads may be repeated. What is read is brought
/// into the form of kernels/attention/attention.h: [batch, heads, time, channels].
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tools/error.h"
#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

constexpr double hides_for_good = -1e9;  // exp of a score so far below the others is 0 whatever the data
constexpr float hidden = -1e38f;         // added to any score it is itself, and a few of them are still finite

// A term of the scores, in the shape they have where it is added.
struct Bias {
  ValueId value;
  double factor;
  Dims scores;
};
struct Mask {
  ValueId value;
  bool keeps;   // what true means
  bool finite;  // hides by a large number instead of -inf: a row that sees nothing is a mean
  Dims scores;
};

struct Scores {
  ValueId q = no_value, k = no_value;  // operands of the product: k is [.., channels, keys]
  Dims product;                        // its shape
  double scale = 1;
  std::vector<Bias> biases;
  std::vector<Mask> masks;
  std::vector<Dims> shapes;  // in which the scores stood, the last one first
};

// The dims without the last two.
Dims batch_of(const Dims& dims) {
  return {dims.begin(), dims.end() - 2};
}

bool keeps_last(const Graph& graph, ValueId reshape) {
  const Dims &to = graph.value(reshape).dims, &from = graph.value(producer(graph, reshape)->inputs[0]).dims;
  return !to.empty() && !from.empty() && to.back() == from.back();
}

bool keeps_last_two(const Graph& graph, ValueId reshape) {
  const Dims &to = graph.value(reshape).dims, &from = graph.value(producer(graph, reshape)->inputs[0]).dims;
  return to.size() >= 2 && from.size() >= 2 && std::equal(to.end() - 2, to.end(), from.end() - 2);
}

// A reshape of a map, where every operand has its shape or is a number, as the map of reshapes: masks and scores are
// read from their end.
ValueId raised(const Builder& build, ValueId id) {
  if (!made_by<Reshape>(build.graph, id)) return id;
  const ValueId inner = producer(build.graph, id)->inputs[0];
  const Map* map = made_by<Map>(build.graph, inner);
  if (map == nullptr) return id;
  const Builder named(build.graph, inner);
  const Step step = map->step;
  const Dims dims = build.dims(id), from = build.dims(inner);
  std::vector<ValueId> operands = producer(build.graph, inner)->inputs;
  for (ValueId& operand : operands) {
    if (count(build.dims(operand)).is_constant(1)) {
      operand = build.reshape(operand, {});
    } else if (build.dims(operand) == from) {
      operand = build.reshape(operand, dims);
    } else {
      return id;
    }
  }
  return named.map(step, operands);
}

bool plain_product(const Graph& graph, ValueId id) {
  const auto* matmul = made_by<Matmul>(graph, id);
  return matmul != nullptr && matmul->activation == Activation::none && producer(graph, id)->inputs.size() == 2;
}

class Reader {
 public:
  Reader(Graph& graph, const Builder& build, std::optional<Miss>& miss) : graph_(graph), build_(build), miss_(miss) {}

  // From the softmax's operand down to the product of queries and keys.
  std::optional<Scores> read(ValueId id, double factor) {
    const Dims dims = graph_.value(id).dims;
    const auto with_shape = [&](std::optional<Scores> scores) {
      if (scores && std::find(scores->shapes.begin(), scores->shapes.end(), dims) == scores->shapes.end())
        scores->shapes.insert(scores->shapes.begin(), dims);
      return scores;
    };
    if (plain_product(graph_, id)) {
      const std::vector<ValueId> operands = producer(graph_, id)->inputs;
      return with_shape(Scores{operands[0], operands[1], dims, factor, {}, {}, {}});
    }
    if (turned_product(id)) {
      const std::vector<ValueId> operands = producer(graph_, producer(graph_, id)->inputs[0])->inputs;
      return with_shape(Scores{settled(graph_, build_.swap_last(operands[1])),
                               settled(graph_, build_.swap_last(operands[0])),
                               dims,
                               factor,
                               {},
                               {},
                               {}});
    }
    if (made_by<Reshape>(graph_, id)) {
      if (keeps_last_two(graph_, id)) return with_shape(read(producer(graph_, id)->inputs[0], factor));
      if (const ValueId map = raised(build_, id); map != id) return with_shape(read(map, factor));
    }
    if (const auto times = scaled(graph_, id)) return read(times->x, factor * times->factor);
    // A temperature for each head or query, or one known at run time only, is the queries' as well.
    for (const Step step : {Step::f_mul, Step::f_div})
      if (const auto* operands = operands_of(graph_, id, step)) {
        const std::vector<ValueId> parts = *operands;
        for (size_t i = 0; i < (step == Step::f_mul ? 2 : 1); ++i) {
          const Dims by = graph_.value(parts[1 - i]).dims;
          if (!(graph_.value(parts[i]).dims == dims) || (!by.empty() && !by.back().is_constant(1))) continue;
          auto scores = read(parts[i], factor);
          if (!scores) return std::nullopt;
          if (!scores->biases.empty() || !scores->masks.empty() || !(batch_of(scores->product) == batch_of(dims)))
            return refuse({id, in_words(graph_, id) + " by a value that is no constant, behind a mask or bias",
                           "a scale before masks and biases are added", "scale the queries instead"});
          scores->q = build_.map(step, {scores->q, parts[1 - i]});
          return with_shape(scores);
        }
      }
    for (const Step step : {Step::f_add, Step::f_sub})
      if (const auto* sum = operands_of(graph_, id, step)) {
        const std::vector<ValueId> parts = *sum;
        for (size_t i = 0; i < (step == Step::f_add ? 2 : 1); ++i) {
          if (!(graph_.value(parts[i]).dims == dims)) continue;
          auto scores = read(parts[i], factor);
          if (!scores) continue;
          scores->biases.push_back({parts[1 - i], step == Step::f_add ? factor : -factor, dims});
          return with_shape(scores);
        }
        return std::nullopt;
      }
    if (const auto* select = operands_of(graph_, id, Step::f_select)) {
      const std::vector<ValueId> parts = *select;
      for (size_t i = 1; i < 3; ++i) {
        const auto number = uniform(graph_, parts[3 - i]);
        if (!number || *number * factor > -1e4 || !(graph_.value(parts[i]).dims == dims)) continue;
        auto scores = read(parts[i], factor);
        if (!scores) continue;
        scores->masks.push_back({parts[0], i == 1, !std::isinf(*number), dims});
        return with_shape(scores);
      }
    }
    return refuse(unlike_scores(graph_, id));
  }

  // x and the number it is multiplied by, looking through views.
  Scaled without_scale(ValueId id) {
    if (const auto times = scaled(graph_, id)) {
      const Scaled inner = without_scale(times->x);
      return {inner.x, inner.factor * times->factor};
    }
    if (!is_view(graph_, id)) return {id, 1};
    const Operation operation = producer(graph_, id)->operation;
    const Scaled inner = without_scale(producer(graph_, id)->inputs[0]);
    if (inner.factor == 1) return {id, 1};
    return {build_.add(operation, {inner.x}), inner.factor};
  }

 private:
  // Of two terms of a sum, both refused, the one with a product of two tensors in it was to be the scores.
  std::nullopt_t refuse(Miss miss) {
    const bool better = !miss_ || (leads_to_product(miss.at) && !leads_to_product(miss_->at));
    if (better) miss_ = std::move(miss);
    return std::nullopt;
  }

  bool leads_to_product(ValueId id) const {
    std::vector<ValueId> stack{id};
    std::set<ValueId> seen;
    while (!stack.empty()) {
      const ValueId at = stack.back();
      stack.pop_back();
      if (!seen.insert(at).second) continue;
      if (plain_product(graph_, at) && !graph_.value(producer(graph_, at)->inputs[1]).constant) return true;
      if (made_by<Map>(graph_, at) || is_view(graph_, at) || made_by<Concat>(graph_, at))
        stack.insert(stack.end(), producer(graph_, at)->inputs.begin(), producer(graph_, at)->inputs.end());
    }
    return false;
  }

  // k q', its last two axes in the other order; a column of scores as a row is that too.
  bool turned_product(ValueId id) const {
    const bool view = made_by<Transpose>(graph_, id) || made_by<Reshape>(graph_, id);
    if (!view || !plain_product(graph_, producer(graph_, id)->inputs[0])) return false;
    const ValueId product = producer(graph_, id)->inputs[0];
    const Dims to = build_.dims(id);
    Dims from = build_.dims(product);
    if (from.size() != to.size() || graph_.value(producer(graph_, product)->inputs[1]).constant) return false;
    const bool column = from.back().is_constant(1) && !from[from.size() - 2].is_constant(1);
    std::swap(from.back(), from[from.size() - 2]);
    if (const auto* transpose = made_by<Transpose>(graph_, id)) {
      std::vector<int> swap(from.size());
      std::iota(swap.begin(), swap.end(), 0);
      std::swap(swap.back(), swap[swap.size() - 2]);
      return transpose->permutation == swap;
    }
    return column && from == to;
  }

  Graph& graph_;
  const Builder& build_;
  std::optional<Miss>& miss_;
};

// --- Masks that depend on positions only -----------------------------------------------------------------------------

// What a mask over positions is: the keys that query i sees are those from i + first to i + last.
struct Geometry {
  std::optional<Expression> first, last;  // absent: from the beginning, to the end
};

// `keep` tells what an element that is not hidden looks like; nothing where it is neither hidden nor kept.
std::optional<Geometry> geometry(const Graph& graph, ValueId id, const Dims& scores,
                                 const std::function<std::optional<bool>(const Literal&, size_t)>& keep) {
  const auto mask = by_distance(graph, id, scores);
  if (!mask) return std::nullopt;
  const std::vector<Expression>& at = mask->at;
  std::optional<size_t> first, last;  // of the kept stripe
  for (size_t i = 0; i <= at.size(); ++i) {
    const auto kept = keep(mask->values, i);
    if (!kept || (*kept && last && *last + 1 != i)) return std::nullopt;
    if (!*kept) continue;
    if (!first) first = i;
    last = i;
  }
  if (!first) return std::nullopt;
  Geometry result;
  if (*first > 0) result.first = at[*first - 1];
  if (*last < at.size()) result.last = at[*last] - 1;
  return result;
}

// --- The fusion ------------------------------------------------------------------------------------------------------

class Fuser {
 public:
  Fuser(Graph& graph, ValueId root, std::optional<Miss>& miss)
      : graph_(graph), root_(root), miss_(miss), build_(graph, root) {}

  std::optional<ValueId> run() {
    if (!plain_product(graph_, root_)) return std::nullopt;
    ValueId weights = producer(graph_, root_)->inputs[0];
    ValueId v = producer(graph_, root_)->inputs[1];
    const Dims weighting = build_.dims(weights);
    bool regrouped = false;  // rows were given other axes on the way: those of the sum hold
    for (;;) {               // from the weighted sum up to the softmax
      if (const auto* guard = operands_of(graph_, weights, Step::f_select)) {
        const auto* test = operands_of(graph_, (*guard)[0], Step::f_is_nan);
        if (test == nullptr || (*test)[0] != (*guard)[2] || uniform(graph_, (*guard)[1]) != 0) return std::nullopt;
        guarded_ = true;
        weights = (*guard)[2];
      } else if (made_by<Reshape>(graph_, weights) && keeps_last(graph_, weights)) {
        regrouped = regrouped || !keeps_last_two(graph_, weights);
        weights = producer(graph_, weights)->inputs[0];
      } else {
        break;
      }
    }
    const auto* softmax = made_by<Softmax>(graph_, weights);
    const auto rank = static_cast<int>(graph_.value(weights).dims.size());
    if (softmax == nullptr || softmax->log || softmax->axis != rank - 1) return std::nullopt;

    Reader reader(graph_, build_, miss_);
    const ValueId operand = producer(graph_, weights)->inputs[0];
    const auto scores = reader.read(regrouped ? build_.reshape(operand, weighting) : operand, 1);
    if (!scores) return std::nullopt;
    miss_.reset();
    if (graph_.value(scores->k).constant)
      return refuse({scores->q, "scores that are a layer with constant weights",
                     "a product of queries and keys that both depend on the input"});
    scores_ = *scores;

    const Scaled q = reader.without_scale(scores_.q), k = reader.without_scale(scores_.k);
    Attention attention;
    attention.scale = static_cast<float>(scores_.scale * q.factor * k.factor);
    if (!choose_batch({q.x, k.x, v}))
      return refuse({root_,
                     fmt::format("scores of shape {} for a sum of shape {}", text(scores_.shapes[0]),
                                 text(graph_.value(root_).dims)),
                     "the same batch and heads in front of both"});
    const auto heads = with_heads(q.x, settled(graph_, build_.swap_last(k.x)), settled(graph_, v));
    if (!heads)
      return refuse({root_,
                     fmt::format("queries {}, keys {} and values {}", text(build_.dims(q.x)), text(build_.dims(k.x)),
                                 text(build_.dims(v))),
                     "batch and heads in front that are equal, or 1, or heads that share keys in equal groups"});
    read_masks();
    set_positions(attention);

    if (finite_padding_) note_padding();
    ValueId y = build_.add(attention, operands(*heads));
    // The guard after softmax gives a row of zeros where every key is hidden, as the operation does for booleans and
    // positions; an additive bias of -inf alone is told here.
    if (guarded_ && guard_on_ != no_value) {
      const ValueId most = build_.add(Reduce{Reduction::max, {3}, true}, {guard_on_});
      const ValueId some = build_.map(Step::f_less, {build_.scalar(-INFINITY), most});
      y = settled(graph_, build_.map(Step::f_select, {some, y, build_.scalar(0)}));
    }
    return build_.reshape(y, build_.dims(root_));
  }

 private:
  struct Heads {
    ValueId q, k, v;
  };

  std::nullopt_t refuse(Miss miss) {
    miss_ = std::move(miss);
    return std::nullopt;
  }

  // Batch and heads that are one axis of size `whole`, as a reshape behind x split or merged them; heads are a
  // constant.
  std::optional<Dims> apart(ValueId x, const Expression& whole) const {
    for (; is_view(graph_, x); x = producer(graph_, x)->inputs[0]) {
      if (!made_by<Reshape>(graph_, x)) continue;
      const Dims from = build_.dims(producer(graph_, x)->inputs[0]), to = build_.dims(x);
      Expression before = 1;  // elements in front of the axis
      for (const Expression& size : to) {
        Expression leading = 1;
        size_t axis = 0;
        while (axis < from.size() && !(leading == before)) leading = leading * from[axis++];
        std::optional<Dims> found;
        Expression batch = 1;
        for (; size == whole && axis < from.size(); ++axis) {
          batch = batch * from[axis];
          const Expression heads = Expression::divide(whole, batch);
          if (heads.is_constant(1) || !heads.constant() || !(batch * heads == whole)) break;
          found = Dims{batch, heads};
        }
        if (found) return found;
        before = before * size;
      }
    }
    return std::nullopt;
  }

  // batch_ is [batch, heads]: from a shape of the scores that has just these two, from where the operands had both,
  // else of what there is.
  bool choose_batch(const std::vector<ValueId>& operands) {
    const Dims whole = batch_of(build_.dims(root_));
    for (const Dims& shape : scores_.shapes)
      if (!(count(batch_of(shape)) == count(whole))) return false;
    level_ = batch_of(scores_.shapes[0]);
    for (const Dims& shape : scores_.shapes)
      if (shape.size() == 4) level_ = batch_of(shape);
    for (size_t i = 0; level_.size() == 1 && i < operands.size(); ++i)
      if (const auto both = apart(operands[i], level_[0])) {
        batch_ = *both;
        return true;
      }
    if (level_.empty())
      batch_ = {1, 1};
    else if (level_.size() == 1)
      batch_ = {level_[0], 1};
    else
      batch_ = {count({level_.begin(), level_.end() - 1}), level_.back()};
    return true;
  }

  // x [.., T, D] as [batch, heads, T, D]; a single head stays one where `shared` heads are allowed.
  std::optional<ValueId> as_heads(ValueId x, bool shared) {
    const Dims dims = build_.dims(x);
    Dims own = batch_of(dims);
    Dims full = batch_;
    full.insert(full.end(), dims.end() - 2, dims.end());
    if (count(own) == count(batch_)) return build_.reshape(x, full);
    if (own.size() > level_.size()) return std::nullopt;
    own.insert(own.begin(), level_.size() - own.size(), Expression(1));
    for (size_t i = 0; i < own.size(); ++i)
      if (!own[i].is_constant(1) && !(own[i] == level_[i])) return std::nullopt;
    Dims aligned = own, expanded = level_;
    for (Dims* each : {&aligned, &expanded}) each->insert(each->end(), dims.end() - 2, dims.end());
    if (shared && level_.size() == 2 && own[1].is_constant(1)) {
      expanded[1] = 1;
      return build_.expand(build_.reshape(x, aligned), expanded);
    }
    return build_.reshape(build_.expand(build_.reshape(x, aligned), expanded), full);
  }

  // [.., H, 1, T, D] of [.., H, G, T, D] that was merged to [.., H * G, T, D]: heads repeated for their group.
  ValueId without_repeats(ValueId x) {
    if (!made_by<Reshape>(graph_, x)) return x;
    const ValueId wide = producer(graph_, x)->inputs[0];
    if (!made_by<Expand>(graph_, wide)) return x;
    const ValueId narrow = producer(graph_, wide)->inputs[0];
    const Dims to = build_.dims(x), from = build_.dims(wide), one = build_.dims(narrow);
    const size_t rank = from.size();
    if (to.size() + 1 != rank || one.size() != rank || rank < 4 || !one[rank - 3].is_constant(1)) return x;
    Dims merged = from, kept = one;
    merged[rank - 4] = from[rank - 4] * from[rank - 3];
    merged.erase(merged.end() - 3);
    kept[rank - 3] = from[rank - 3];
    if (!(merged == to) || !(kept == from)) return x;
    kept.erase(kept.end() - 3);
    return build_.reshape(narrow, kept);
  }

  std::optional<Heads> with_heads(ValueId q, ValueId k, ValueId v) {
    // Queries [B, H, G, T, D] of keys [B, H, 1, T, D]: groups are neighbours.
    const auto one_of_group = [&](ValueId x) { return build_.dims(x).size() == 5 && build_.dims(x)[2].is_constant(1); };
    if (level_.size() == 3 && one_of_group(k) && one_of_group(v) && !level_[2].is_constant(1)) {
      batch_ = {level_[0], level_[1] * level_[2]};
      const auto queries = as_heads(q, false);
      const auto without_group = [&](ValueId x) {
        Dims dims = build_.dims(x);
        dims.erase(dims.begin() + 2);
        return build_.reshape(x, dims);
      };
      const ValueId keys = without_group(k), values = without_group(v);
      for (const ValueId x : {keys, values})
        if (!(build_.dims(x)[0] == level_[0]) || !(build_.dims(x)[1] == level_[1])) return std::nullopt;
      if (!queries) return std::nullopt;
      return Heads{*queries, keys, values};
    }
    const auto queries = as_heads(q, false);
    if (!queries) return std::nullopt;
    const ValueId few_keys = without_repeats(k), few_values = without_repeats(v);
    if (few_keys != k && few_values != v && build_.dims(few_keys).size() == 4 && build_.dims(few_values).size() == 4 &&
        build_.dims(few_keys)[0] == batch_[0] && build_.dims(few_values)[0] == batch_[0] &&
        build_.dims(few_keys)[1] == build_.dims(few_values)[1])
      return Heads{*queries, few_keys, few_values};
    const auto single = [&](ValueId x) {
      const Dims dims = build_.dims(x);
      return dims.size() < 3 || dims[dims.size() - 3].is_constant(1);
    };
    const bool shared = level_.size() == 2 && single(k) && single(v);
    const auto keys = as_heads(k, shared), values = as_heads(v, shared);
    if (!keys || !values) return std::nullopt;
    return Heads{*queries, *keys, *values};
  }

  // A mask or bias as [batch or 1, heads or 1, queries or 1, keys or 1].
  ValueId as_scores(ValueId x, const Dims& scores) {
    Dims dims = build_.dims(x);
    dims.insert(dims.begin(), scores.size() - dims.size(), Expression(1));
    x = build_.reshape(x, dims);
    Dims batch = batch_of(dims);
    const Dims last(dims.end() - 2, dims.end());
    Dims result;
    if (std::all_of(batch.begin(), batch.end(), [](const Expression& size) { return size.is_constant(1); })) {
      result = {1, 1};
    } else if (batch_of(scores) == batch_) {
      result = batch;
    } else {
      Dims wide = batch_of(scores);
      wide.insert(wide.end(), last.begin(), last.end());
      x = build_.expand(x, wide);
      result = batch_;
    }
    result.insert(result.end(), last.begin(), last.end());
    x = build_.reshape(x, result);
    if (!made_by<Expand>(graph_, x)) return x;
    const ValueId narrow = producer(graph_, x)->inputs[0];  // sizes of 1 repeat by themselves
    return build_.dims(narrow).size() == result.size() ? narrow : x;
  }

  // Sorts what is added and hidden into positions, key padding, and one bias.
  void read_masks() {
    std::vector<Bias> biases;
    while (!scores_.biases.empty()) {
      Bias bias = scores_.biases.back();
      scores_.biases.pop_back();
      bias.value = raised(build_, bias.value);
      if (const auto* sum = operands_of(graph_, bias.value, Step::f_add)) {
        const std::vector<ValueId> parts = *sum;
        for (const ValueId part : parts) scores_.biases.push_back({part, bias.factor, bias.scores});
      } else if (const auto times = scaled(graph_, bias.value)) {
        scores_.biases.push_back({times->x, bias.factor * times->factor, bias.scores});
      } else if (made_by<Expand>(graph_, bias.value)) {
        scores_.biases.push_back({producer(graph_, bias.value)->inputs[0], bias.factor, bias.scores});
      } else {
        biases.push_back(std::move(bias));
      }
    }
    for (const Bias& bias : biases) read_bias(bias);
    while (!scores_.masks.empty()) {
      Mask mask = scores_.masks.back();
      scores_.masks.pop_back();
      mask.value = raised(build_, mask.value);
      const auto* both = operands_of(graph_, mask.value, mask.keeps ? Step::b_and : Step::b_or);
      if (both != nullptr) {
        const std::vector<ValueId> parts = *both;
        for (const ValueId part : parts) scores_.masks.push_back({part, mask.keeps, mask.finite, mask.scores});
      } else if (const auto* inverse = operands_of(graph_, mask.value, Step::b_not)) {
        scores_.masks.push_back({(*inverse)[0], !mask.keeps, mask.finite, mask.scores});
      } else if (made_by<Expand>(graph_, mask.value)) {
        scores_.masks.push_back({producer(graph_, mask.value)->inputs[0], mask.keeps, mask.finite, mask.scores});
      } else {
        read_mask(mask);
      }
    }
    guard_on_ = bias_;
    if (finite_mask_ != no_value) {
      const ValueId numbers = build_.map(Step::f_select, {finite_mask_, build_.scalar(0), build_.scalar(hidden)});
      bias_ = bias_ == no_value ? numbers : build_.map(Step::f_add, {bias_, numbers});
    }
    if (mask_ == no_value) return;
    if (bias_ == no_value)
      bias_ = mask_;
    else
      guard_on_ = bias_ = build_.map(Step::f_select, {mask_, bias_, build_.scalar(-INFINITY)});
  }

  void read_bias(const Bias& bias) {
    // 0 where a boolean tells to keep, else -inf or a number that hides for good.
    if (const auto* select = operands_of(graph_, bias.value, Step::f_select); select && bias.factor > 0) {
      const auto yes = uniform(graph_, (*select)[1]), no = uniform(graph_, (*select)[2]);
      if (yes && no && std::max(*yes, *no) == 0 && std::min(*yes, *no) * bias.factor <= hides_for_good) {
        scores_.masks.push_back({(*select)[0], *yes == 0, !std::isinf(std::min(*yes, *no)), bias.scores});
        return;
      }
    }
    bool finite = false;
    const auto keep = [&](const Literal& literal, size_t i) -> std::optional<bool> {
      const double value = literal.floats()[i] * bias.factor;
      finite = finite || (value != 0 && !std::isinf(value));
      if (value == 0) return true;
      return value <= hides_for_good ? std::optional(false) : std::nullopt;
    };
    if (const auto shape = geometry(graph_, bias.value, bias.scores, keep); shape && hide(*shape, finite, bias.scores))
      return;
    if (const auto& constant = graph_.value(bias.value).constant) {
      const auto values = constant->floats();
      const auto hides = [&](float value) { return value == 0 || (std::isinf(value) && value * bias.factor < 0); };
      if (std::all_of(values.begin(), values.end(), hides)) {
        std::vector<uint8_t> kept(values.size());
        std::transform(values.begin(), values.end(), kept.begin(), [](float value) { return value == 0; });
        const Literal mask = Literal::of_booleans(constant->dims, std::move(kept));
        scores_.masks.push_back({graph_.constant(graph_.value(bias.value).name, mask), true, false, bias.scores});
        return;
      }
    }
    ValueId value = bias.value;
    if (bias.factor != 1) value = build_.map(Step::f_mul, {value, build_.scalar(static_cast<float>(bias.factor))});
    value = as_scores(value, bias.scores);
    bias_ = bias_ == no_value ? value : build_.map(Step::f_add, {bias_, value});
  }

  void read_mask(const Mask& mask) {
    const auto keep = [&](const Literal& literal, size_t i) -> std::optional<bool> {
      return (literal.booleans()[i] != 0) == mask.keeps;
    };
    if (const auto shape = geometry(graph_, mask.value, mask.scores, keep);
        shape && hide(*shape, mask.finite, mask.scores))
      return;
    ValueId kept = mask.keeps ? mask.value : build_.map(Step::b_not, {mask.value});
    kept = as_scores(kept, mask.scores);
    const Dims dims = build_.dims(kept);
    const bool of_keys = dims[1].is_constant(1) && dims[2].is_constant(1) && dims[3] == mask.scores.back();
    // Of keys alone the finite mask is key padding too: only a sample that hides every key gives zeros, not a mean.
    ValueId& place = of_keys ? padding_ : mask.finite ? finite_mask_ : mask_;
    if (of_keys) kept = build_.reshape(kept, {dims[0], dims[3]});
    if (of_keys && mask.finite) finite_padding_ = true;
    place = place == no_value ? kept : build_.map(Step::b_and, {place, kept});
  }

  // A row that sees nothing by a finite mask is a mean, by positions zeros: then every row has to see something.
  bool hide(const Geometry& shape, bool finite, const Dims& scores) {
    Geometry both = seen_;
    for (auto bound : {&Geometry::first, &Geometry::last}) {  // of two the one that hides more, at all sizes
      if (!(shape.*bound)) continue;
      if (both.*bound) {
        const auto [lower, upper] = (*(shape.*bound) - *(both.*bound)).range(graph_.dimensions);
        const bool first = bound == &Geometry::first;
        if (lower < 0 && upper > 0) return false;
        if (first ? upper <= 0 : lower >= 0) continue;
      }
      both.*bound = shape.*bound;
    }
    const auto never_negative = [&](const Expression& e) { return e.range(graph_.dimensions).lower >= 0; };
    const Expression behind = scores.back() - scores[scores.size() - 2];  // keys that the last query is before
    if (both.first && both.last && !(*both.last - *both.first).constant()) return false;
    if (finite &&
        ((both.last && !never_negative(*both.last)) || (both.first && !never_negative(behind - *both.first)) ||
         (both.first && both.last && !never_negative(*both.last - *both.first))))
      return false;
    seen_ = both;
    return true;
  }

  void note_padding() const {
    const char* note =
        "attention: the padding that the graph adds as a large negative number is a vector of keys here; a row whose "
        "keys are all hidden gives zeros, where onnxruntime gives the mean of the values";
    if (std::find(graph_.notes.begin(), graph_.notes.end(), note) == graph_.notes.end())
      graph_.notes.emplace_back(note);
  }

  // What queries see by their positions, as the operation says it.
  void set_positions(Attention& attention) const {
    attention.causal = seen_.last.has_value();
    attention.window = seen_.first.has_value();
    if (seen_.first) attention.offset = *seen_.first;
    if (seen_.last) attention.offset = *seen_.last;
    if (!seen_.first) return;
    attention.window_left = *(attention.offset - *seen_.first).constant();
    attention.window_right = seen_.last ? 0 : INT32_MAX;
  }

  std::vector<ValueId> operands(const Heads& heads) const {
    std::vector<ValueId> all{heads.q, heads.k, heads.v};
    if (bias_ != no_value || padding_ != no_value) all.push_back(bias_);
    if (padding_ != no_value) all.push_back(padding_);
    return all;
  }

  Graph& graph_;
  const ValueId root_;
  std::optional<Miss>& miss_;
  const Builder build_;
  bool guarded_ = false;
  Scores scores_;
  Dims level_, batch_;
  bool finite_padding_ = false;
  ValueId bias_ = no_value, mask_ = no_value, finite_mask_ = no_value, padding_ = no_value;
  Geometry seen_;
  ValueId guard_on_ = no_value;  // the part of the bias that may be -inf for a whole row
};

}  // namespace

Miss unlike_scores(const Graph& graph, ValueId scores) {
  ValueId id = scores;
  for (;;) {
    const auto* sum = operands_of(graph, id, Step::f_add);
    if (is_view(graph, id))
      id = producer(graph, id)->inputs[0];
    else if (const auto times = scaled(graph, id))
      id = times->x;
    else if (sum != nullptr && depends_on_dimensions_only(graph, (*sum)[1]))
      id = (*sum)[0];
    else
      break;
  }
  Miss miss{id, in_words(graph, id), "the scores, a product of queries and keys; scale, masks and biases may follow"};
  if (made_by<Matmul>(graph, id)) {
    const Node& node = *producer(graph, id);
    const Value& weights = graph.value(node.inputs[1]);
    if (weights.constant && (weights.dims.back().is_constant(1) || made_by<Map>(graph, node.inputs[0])))
      miss.found = "additive attention: scores that are the output of a layer, of shape " + text(graph.value(id).dims),
      miss.advice = "nothing; it runs as softmax and matmul, and `heed attention` draws it as well";
    else if (weights.constant)
      miss.found = "a layer with constant weights, of shape " + text(graph.value(id).dims);
  } else if (made_by<Map>(graph, id)) {
    miss.advice =
        "leave the function out, if the model can do without it: the scores may only be scaled, masked, added to";
  }
  return miss;
}

std::optional<Offer> fuse_attention(Graph& graph, ValueId root, std::optional<Miss>& miss) {
  return Fuser(graph, root, miss).run();
}

}  // namespace heed::tools

/// Recurrent layers that were written out: cells of LSTM and GRU, as many in a row as share their weights.
#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

// Part of a product with constant weights: x has as many columns as there are rows.
struct Term {
  ValueId x = no_value, weights = no_value;
  int64_t row = 0, rows = 0, column = 0;
};

// What is added up for one gate.
struct Sum {
  std::vector<Term> terms;
  std::vector<float> bias;
  std::vector<ValueId> rest;  // no product with constant weights
};

// A cell at one step of time. No h0: it was zeros, and the product with them is gone.
struct Moment {
  Cell cell;
  bool linear_before_reset = false;
  ValueId h, c = no_value, h0 = no_value, c0 = no_value;
  std::vector<Term> r{};               // for each gate, in ONNX's order; without weights where there is no h0
  std::vector<std::vector<Term>> w{};  // for each gate and part of x
  std::vector<std::vector<float>> bias{};
  std::vector<float> state_bias{};  // of R h alone, under the reset
};

// Past a view that keeps rows as they are, or their columns from `column` on.
bool pass_view(const Graph& graph, ValueId& id, int64_t& column) {
  const auto* slice = made_by<Slice>(graph, id);
  if (slice == nullptr && made_by<Reshape>(graph, id) == nullptr) return false;
  const ValueId x = producer(graph, id)->inputs[0];
  const Dims &from = graph.value(x).dims, &to = graph.value(id).dims;
  if (from.empty() || to.empty()) return false;
  if (slice == nullptr) {
    if (!(from.back() == to.back())) return false;
  } else {
    const auto start = slice->starts.back().constant();
    const bool whole = std::equal(from.begin(), from.end() - 1, to.begin()) &&
                       std::all_of(slice->steps.begin(), slice->steps.end(), [](int64_t step) { return step == 1; });
    if (!whole || !start) return false;
    column += *start;
  }
  id = x;
  return true;
}

// Under reshapes that keep the columns.
ValueId bare(const Graph& graph, ValueId id) {
  int64_t column = 0;
  while (made_by<Reshape>(graph, id) && pass_view(graph, id, column)) continue;
  return id;
}

// The operands of a step that commutes, either first.
std::vector<std::array<ValueId, 2>> either(const Graph& graph, ValueId id, Step step) {
  const auto* operands = operands_of(graph, id, step);
  if (operands == nullptr) return {};
  const ValueId a = bare(graph, (*operands)[0]), b = bare(graph, (*operands)[1]);
  return {{a, b}, {b, a}};
}

// Adds columns [column, column + width) of a value to a sum, where width is the sum's.
bool read(const Graph& graph, ValueId id, int64_t column, Sum& sum) {
  while (pass_view(graph, id, column)) continue;
  const Value& value = graph.value(id);
  const auto width = static_cast<int64_t>(sum.bias.size());
  if (const auto number = uniform(graph, id)) {
    for (float& each : sum.bias) each += static_cast<float>(*number);
    return true;
  }
  const auto columns = value.dims.empty() ? std::nullopt : value.dims.back().constant();
  if (!columns || column + width > *columns) return false;
  if (value.constant) {
    if (value.constant->count() != *columns) return false;
    for (int64_t i = 0; i < width; ++i)
      sum.bias[static_cast<size_t>(i)] += value.constant->floats()[static_cast<size_t>(column + i)];
    return true;
  }
  if (const auto* sides = operands_of(graph, id, Step::f_add))
    return std::all_of(sides->begin(), sides->end(), [&](ValueId side) {
      const Value& each = graph.value(side);
      return (uniform(graph, side) || (!each.dims.empty() && each.dims.back() == value.dims.back())) &&
             read(graph, side, column, sum);
    });
  const auto* matmul = made_by<Matmul>(graph, id);
  if (matmul == nullptr) {
    sum.rest.push_back(id);
    return column == 0 && *columns == width;
  }
  const std::vector<ValueId>& inputs = producer(graph, id)->inputs;
  const auto& weights = graph.value(inputs[1]).constant;
  if (matmul->activation != Activation::none || !weights || weights->dims.size() != 2) return false;
  const ValueId x = bare(graph, inputs[0]);
  const auto* concat = made_by<Concat>(graph, x);
  const bool joined = concat != nullptr && concat->axis + 1 == static_cast<int>(graph.value(x).dims.size());
  int64_t row = 0;
  for (const ValueId part : joined ? producer(graph, x)->inputs : std::vector<ValueId>{x}) {
    const auto rows = graph.value(part).dims.back().constant();
    if (!rows) return false;
    sum.terms.push_back({bare(graph, part), inputs[1], row, *rows, column});
    row += *rows;
  }
  return std::all_of(inputs.begin() + 2, inputs.end(),
                     [&](ValueId other) { return other == no_value || read(graph, other, column, sum); });
}

// What goes into an activation.
std::optional<Sum> gate(const Graph& graph, ValueId id, Step activation, int64_t width) {
  int64_t column = 0;
  while (pass_view(graph, id, column)) continue;
  const auto* operand = operands_of(graph, id, activation);
  Sum sum;
  sum.bias.resize(static_cast<size_t>(width));
  if (operand == nullptr || !read(graph, (*operand)[0], column, sum)) return std::nullopt;
  return sum;
}

std::optional<Sum> products(std::optional<Sum> sum) {
  return sum && sum->rest.empty() ? sum : std::nullopt;
}

bool same(const Graph& graph, const Term& a, const Term& b) {
  if (a.row != b.row || a.rows != b.rows || a.column != b.column) return false;
  if (a.weights == b.weights) return true;
  const auto one = graph.value(a.weights).constant->floats(), other = graph.value(b.weights).constant->floats();
  return graph.value(a.weights).dims == graph.value(b.weights).dims &&
         std::memcmp(one.data(), other.data(), one.size_bytes()) == 0;
}

// Whether b is the cell of a at a later step.
bool same(const Graph& graph, const Moment& a, const Moment& b) {
  if (a.cell != b.cell || a.linear_before_reset != b.linear_before_reset || a.bias != b.bias ||
      a.state_bias != b.state_bias || a.w[0].size() != b.w[0].size())
    return false;
  for (size_t gate = 0; gate < b.r.size(); ++gate) {
    if (a.r[gate].weights != no_value && !same(graph, a.r[gate], b.r[gate])) return false;
    for (size_t part = 0; part < b.w[gate].size(); ++part)
      if (!same(graph, a.w[gate][part], b.w[gate][part])) return false;
  }
  return true;
}

// Zeros may be a value of any shape.
bool equal(const Graph& graph, ValueId a, ValueId b) {
  return a == b || (a != no_value && b != no_value && uniform(graph, a) == 0 && uniform(graph, b) == 0);
}

// Tells the terms of each gate's state from those of x, which every gate has to have alike. `states`: what R is
// multiplied with, for each gate.
bool sort_terms(const Graph& graph, const std::vector<Sum>& gates, const std::vector<ValueId>& states, Moment& moment) {
  moment.r.clear(), moment.w.clear(), moment.bias.clear();
  for (size_t i = 0; i < gates.size(); ++i) {
    const auto width = static_cast<int64_t>(gates[i].bias.size());
    Term r;
    std::vector<Term> parts;
    for (const Term& term : gates[i].terms) {
      if (equal(graph, term.x, states[i]) && term.rows == width && r.weights == no_value)
        r = term;
      else
        parts.push_back(term);
    }
    if (i > 0) {
      if (parts.size() != moment.w[0].size()) return false;
      for (size_t part = 0; part < parts.size(); ++part) {
        const auto found = std::find_if(parts.begin() + static_cast<std::ptrdiff_t>(part), parts.end(),
                                        [&](const Term& term) { return term.x == moment.w[0][part].x; });
        if (found == parts.end()) return false;
        std::swap(parts[part], *found);
      }
    }
    moment.r.push_back(r);
    moment.w.push_back(std::move(parts));
    moment.bias.push_back(gates[i].bias);
  }
  return !moment.w[0].empty();
}

// h0 among what a gate's products are of: what the cell before gave with c0, or what meets the weights that it meets in
// the step after this; else any of the size, and the last is usual.
ValueId state_of(const Graph& graph, const Sum& gate, ValueId c0, const Term* next) {
  ValueId found = no_value;
  for (const Term& term : gate.terms) {
    if (next != nullptr ? same(graph, term, *next) : term.rows == static_cast<int64_t>(gate.bias.size()))
      found = term.x;
    for (const auto& [tanh, out] : either(graph, term.x, Step::f_mul))
      if (const auto* c = operands_of(graph, tanh, Step::f_tanh); c && bare(graph, (*c)[0]) == c0) return term.x;
  }
  return found;
}

// h = out * tanh(c), c = forget * c0 + in * g.
std::optional<Moment> lstm(const Graph& graph, ValueId h, int64_t width, const Moment* next) {
  for (const auto& [squashed, o] : either(graph, h, Step::f_mul)) {
    const auto* operand = operands_of(graph, squashed, Step::f_tanh);
    const auto out = operand ? products(gate(graph, o, Step::f_sigmoid, width)) : std::nullopt;
    if (!out) continue;
    const ValueId c = bare(graph, (*operand)[0]);
    for (const auto& [kept, added] : either(graph, c, Step::f_add))
      for (const auto& [f, c0] : either(graph, kept, Step::f_mul))
        for (const auto& [i, g] : either(graph, added, Step::f_mul)) {
          const auto in = products(gate(graph, i, Step::f_sigmoid, width)),
                     forget = products(gate(graph, f, Step::f_sigmoid, width)),
                     fresh = products(gate(graph, g, Step::f_tanh, width));
          if (!in || !forget || !fresh) continue;
          Moment moment{Cell::lstm, false, h, c};
          moment.h0 = state_of(graph, *in, c0, next ? &next->r[0] : nullptr);
          moment.c0 = c0;
          if (sort_terms(graph, {*in, *out, *forget, *fresh}, std::vector<ValueId>(4, moment.h0), moment))
            return moment;
        }
  }
  return std::nullopt;
}

// h = (1 - z) * n + z * h0, n = tanh(.. + reset * (R h0 + br)) or tanh(.. + R (reset * h0)).
std::optional<Moment> gru(const Graph& graph, ValueId h, int64_t width) {
  struct Mixed {
    ValueId z, n, h0;
  };
  std::vector<Mixed> ways;
  const auto rest_of_one = [&](ValueId id) {  // z of 1 - z
    const auto* difference = operands_of(graph, id, Step::f_sub);
    return difference && uniform(graph, (*difference)[0]) == 1 ? bare(graph, (*difference)[1]) : no_value;
  };
  for (const auto& [a, b] : either(graph, h, Step::f_add)) {
    for (const auto& [left, n] : either(graph, a, Step::f_mul))
      for (const auto& [z, h0] : either(graph, b, Step::f_mul))
        if (rest_of_one(left) == z) ways.push_back({z, n, h0});
    for (const auto& [z, difference] : either(graph, a, Step::f_mul))
      if (const auto* sides = operands_of(graph, difference, Step::f_sub); sides && bare(graph, (*sides)[1]) == b)
        ways.push_back({z, b, bare(graph, (*sides)[0])});
  }
  for (const Mixed& way : ways) {
    const auto update = products(gate(graph, way.z, Step::f_sigmoid, width));
    auto fresh = gate(graph, way.n, Step::f_tanh, width);
    if (!update || !fresh || fresh->rest.size() > 1) continue;
    Moment moment{Cell::gru, !fresh->rest.empty(), h};
    moment.h0 = way.h0;
    const auto finish = [&](ValueId r, ValueId state) {
      const auto reset = products(gate(graph, r, Step::f_sigmoid, width));
      return reset && sort_terms(graph, {*update, *reset, *fresh}, {way.h0, way.h0, state}, moment);
    };
    if (moment.linear_before_reset) {
      const std::vector<Term> of_x = fresh->terms;
      for (const auto& [r, product] : either(graph, fresh->rest[0], Step::f_mul)) {
        Sum inner;
        inner.bias.resize(static_cast<size_t>(width));
        if (!read(graph, product, 0, inner) || !inner.rest.empty() || inner.terms.size() > 1) continue;
        if (!inner.terms.empty() && !equal(graph, inner.terms[0].x, way.h0)) continue;
        fresh->terms = inner.terms;  // in front, where the state's is looked for first
        fresh->terms.insert(fresh->terms.end(), of_x.begin(), of_x.end());
        moment.state_bias = inner.bias;
        if (finish(r, way.h0)) return moment;
      }
      continue;
    }
    for (const Term& term : fresh->terms)
      for (const auto& [r, state] : either(graph, term.x, Step::f_mul))
        if (equal(graph, state, way.h0) && finish(r, term.x)) return moment;
  }
  return std::nullopt;
}

std::optional<Moment> moment_at(const Graph& graph, ValueId h, const Moment* next) {
  const Dims& dims = graph.value(h).dims;
  const auto width = dims.empty() ? std::nullopt : dims.back().constant();
  if (!width || graph.value(h).type != Type::f32) return std::nullopt;
  const auto found = made_by<Map>(graph, h) == nullptr    ? std::nullopt
                     : operands_of(graph, h, Step::f_mul) ? lstm(graph, h, *width, next)
                                                          : gru(graph, h, *width);
  return found;
}

// Weights [1, gates * width, columns] of some terms side by side, as ONNX has them.
ValueId weights(Graph& graph, const std::vector<std::vector<Term>>& gates, int64_t width) {
  std::vector<float> values;
  for (const std::vector<Term>& parts : gates)
    for (int64_t unit = 0; unit < width; ++unit)
      for (const Term& term : parts) {
        const Literal& from = *graph.value(term.weights).constant;
        for (int64_t row = term.row; row < term.row + term.rows; ++row)
          values.push_back(from.floats()[static_cast<size_t>(row * from.dims[1] + term.column + unit)]);
      }
  const int64_t rows = static_cast<int64_t>(gates.size()) * width;
  const int64_t columns = static_cast<int64_t>(values.size()) / rows;
  return graph.constant(graph.value(gates[0][0].weights).name, Literal::of({1, rows, columns}, std::move(values)));
}

}  // namespace

std::optional<Offer> fuse_recurrent(Graph& graph, ValueId root, std::optional<Miss>&) {
  const auto last = moment_at(graph, root, nullptr);
  if (!last || std::any_of(last->r.begin(), last->r.end(), [](const Term& r) { return r.weights == no_value; }))
    return std::nullopt;
  const auto width = static_cast<int64_t>(last->bias[0].size());
  const std::vector<NodeId> nodes = region(graph, root, {});
  const std::set<NodeId> inside(nodes.begin(), nodes.end());
  const auto read_outside = [&](ValueId id) {
    const std::vector<NodeId> readers = graph.readers(id);
    return std::any_of(readers.begin(), readers.end(), [&](NodeId reader) { return inside.count(reader) == 0; });
  };

  const Builder build(graph, root);
  const Dims dims = build.dims(root);
  const Expression size = count(dims);
  if (last->c != no_value && !(count(build.dims(last->c)) == size)) return std::nullopt;
  std::vector<Moment> moments{*last};  // back in time
  for (;;) {
    const Moment& first = moments.back();
    if (producer(graph, first.h0) == nullptr) break;
    const auto before = moment_at(graph, first.h0, &first);
    if (!before || before->c != first.c0 || !same(graph, *before, first)) break;
    if (before->c != no_value && read_outside(before->c)) break;
    if (!(count(build.dims(before->h)) == size)) break;  // of a smaller batch
    moments.push_back(*before);
  }
  // What a step takes in may not depend on what an earlier one gives.
  const auto depends = [&](const Moment& moment) {
    const ValueId state = moments.back().c == no_value ? moments.back().h : moments.back().c;
    return std::any_of(moment.w[0].begin(), moment.w[0].end(), [&](const Term& term) {
      const std::vector<NodeId> before = region(graph, term.x, {});
      return std::find(before.begin(), before.end(), graph.value(state).producer) != before.end();
    });
  };
  while (std::any_of(moments.begin(), moments.end(), depends)) moments.pop_back();
  std::reverse(moments.begin(), moments.end());

  Expression batch = 1;
  for (size_t axis = 0; axis + 1 < dims.size(); ++axis) batch = batch * dims[axis];
  const auto rows = [&](ValueId id, int64_t columns) -> std::optional<ValueId> {  // as [1, batch, columns]
    const Expression own = count(build.dims(id));
    if (own == batch * columns) return build.reshape(id, {1, batch, columns});
    if (own.is_constant(columns)) return build.expand(build.reshape(id, {1, 1, columns}), {1, batch, columns});
    return std::nullopt;
  };
  std::vector<ValueId> steps;
  for (const Moment& moment : moments) {
    std::vector<ValueId> parts;
    for (const Term& term : moment.w[0]) {
      const auto part = rows(term.x, term.rows);
      if (!part) return std::nullopt;
      parts.push_back(*part);
    }
    steps.push_back(parts.size() == 1 ? parts[0] : build.add(Concat{2}, parts));
  }
  std::vector<std::vector<Term>> r;
  std::vector<float> bias;
  for (size_t i = 0; i < last->r.size(); ++i) {
    r.push_back({last->r[i]});
    bias.insert(bias.end(), last->bias[i].begin(), last->bias[i].end());
  }
  bias.resize(2 * bias.size());
  std::copy(last->state_bias.begin(), last->state_bias.end(), bias.end() - width);
  const auto bias_size = static_cast<int64_t>(bias.size());
  std::vector<ValueId> inputs{steps.size() == 1 ? steps[0] : build.add(Concat{0}, steps),
                              weights(graph, last->w, width), weights(graph, r, width),
                              graph.constant("bias", Literal::of({1, bias_size}, std::move(bias)))};
  for (const ValueId state : {moments[0].h0, moments[0].c0}) {
    const bool zero = state == no_value || uniform(graph, state) == 0;
    const auto first = zero ? no_value : rows(state, width);
    if (!first) return std::nullopt;
    inputs.push_back(*first);
  }
  if (last->cell == Cell::gru) inputs.pop_back();
  const NodeId node = graph.add(Recurrent{last->cell, Direction::forward, last->linear_before_reset, width}, inputs,
                                producer(graph, root)->name);
  const std::vector<ValueId> outputs = graph.node(node).outputs;  // y [T, 1, B, H], last h and c [1, B, H]

  const bool all =
      std::any_of(moments.begin(), moments.end() - 1, [&](const Moment& moment) { return read_outside(moment.h); });
  const auto step = [&](size_t t) {
    return build.add(Slice{{static_cast<int64_t>(t), 0, 0, 0}, {1, 1, 1, 1}, {1, 1, batch, width}}, {outputs[0]});
  };
  Offer offer{build.reshape(all ? step(moments.size() - 1) : outputs[1], dims)};
  if (last->c != no_value) offer.others.push_back({last->c, build.reshape(outputs[2], build.dims(last->c))});
  for (size_t t = 0; all && t + 1 < moments.size(); ++t)
    offer.others.push_back({moments[t].h, build.reshape(step(t), build.dims(moments[t].h))});
  return offer;
}

}  // namespace heed::tools

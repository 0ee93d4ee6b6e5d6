/// What follows a matrix product or convolution and fits its epilogue; weighted sums that are matrix products.
#include <algorithm>
#include <numeric>

#include "tools/passes/pattern.h"

namespace heed::tools {
namespace {

Activation activation_of(Step step) {
  switch (step) {
    case Step::f_relu:
      return Activation::relu;
    case Step::f_gelu:
      return Activation::gelu;
    case Step::f_gelu_tanh:
      return Activation::gelu_tanh;
    case Step::f_silu:
      return Activation::silu;
    case Step::f_sigmoid:
      return Activation::sigmoid;
    case Step::f_tanh:
      return Activation::tanh;
    default:
      return Activation::none;
  }
}

// a b (+ bias) (+ residual), read from the end of the sums.
struct Product {
  ValueId product = no_value, bias = no_value, residual = no_value;
};

std::optional<Product> read_sums(const Graph& graph, ValueId id) {
  if (is_product(graph, id)) {
    const std::vector<ValueId>& inputs = producer(graph, id)->inputs;
    if (activation_of(graph, id) != Activation::none) return std::nullopt;
    return Product{id, inputs.size() > 2 ? inputs[2] : no_value, inputs.size() > 3 ? inputs[3] : no_value};
  }
  const auto* sum = operands_of(graph, id, Step::f_add);
  if (sum == nullptr) return std::nullopt;
  const Dims& dims = graph.value(id).dims;
  for (size_t i = 0; i < 2; ++i) {
    const ValueId part = (*sum)[i], other = (*sum)[1 - i];
    if (!read_once(graph, part) || !(graph.value(part).dims == dims)) continue;
    auto found = read_sums(graph, part);
    if (!found) continue;
    const Value& value = graph.value(other);
    const bool row =
        value.constant && count(value.dims) == dims.back() && (value.dims.empty() || value.dims.back() == dims.back());
    if (row && found->bias == no_value) {
      found->bias = other;
      return found;
    }
    if (!value.constant && value.dims == dims && found->residual == no_value && other != part) {
      found->residual = other;
      return found;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<Offer> fuse_matmul(Graph& graph, ValueId root, std::optional<Miss>&) {
  const Map* map = made_by<Map>(graph, root);
  if (map == nullptr) return std::nullopt;
  const Activation activation = activation_of(map->step);
  ValueId sums = root;
  if (activation != Activation::none) {
    sums = producer(graph, root)->inputs[0];
    if (!read_once(graph, sums)) return std::nullopt;
  }
  const auto found = read_sums(graph, sums);
  if (!found) return std::nullopt;
  const Builder build(graph, root);
  const Operation product = with_activation(producer(graph, found->product)->operation, activation);
  std::vector<ValueId> inputs = producer(graph, found->product)->inputs;
  inputs.resize(2);
  if (found->bias != no_value)
    inputs.push_back(build.reshape(found->bias, {build.dims(root).back()}));
  else if (found->residual != no_value)
    inputs.push_back(no_value);
  if (found->residual != no_value) inputs.push_back(found->residual);
  return build.add(product, inputs);
}

// One-hot rows times a matrix with constant rows are those rows. An index that no column stands for has a row of zeros.
std::optional<Offer> fuse_one_hot(Graph& graph, ValueId root, std::optional<Miss>&) {
  const auto* matmul = made_by<Matmul>(graph, root);
  if (matmul == nullptr || matmul->activation != Activation::none || producer(graph, root)->inputs.size() != 2)
    return std::nullopt;
  const ValueId one_hot = producer(graph, root)->inputs[0], weights = producer(graph, root)->inputs[1];
  const auto& table = graph.value(weights).constant;
  if (!table || table->dims.size() != 2) return std::nullopt;
  const int64_t entries = table->dims[0], columns = table->dims[1];
  ValueId equal = no_value;
  if (const auto* cast = operands_of(graph, one_hot, Step::b_to_f)) equal = (*cast)[0];
  if (const auto* select = operands_of(graph, one_hot, Step::f_select);
      select && uniform(graph, (*select)[1]) == 1 && uniform(graph, (*select)[2]) == 0)
    equal = (*select)[0];
  const auto* sides = equal == no_value ? nullptr : operands_of(graph, equal, Step::i_equal);
  if (sides == nullptr) return std::nullopt;
  const ValueId index = (*sides)[0], numbers = (*sides)[1];
  const auto& counted = graph.value(numbers).constant;
  if (!counted || counted->count() != entries || counted->dims.empty() || counted->dims.back() != entries)
    return std::nullopt;
  for (int64_t i = 0; i < entries; ++i)
    if (counted->integers()[static_cast<size_t>(i)] != i) return std::nullopt;
  Dims dims = graph.value(root).dims;
  dims.pop_back();
  if (!graph.value(index).dims.back().is_constant(1) || !(count(graph.value(index).dims) == count(dims)))
    return std::nullopt;
  const Builder build(graph, root, {one_hot, equal});
  const auto whole = [&](int64_t value) {
    return graph.constant("bound", Literal::of({}, std::vector<int64_t>{value}));
  };
  const std::vector<float> zeros(static_cast<size_t>(columns));
  const ValueId zero = graph.constant("zeros", Literal::of({1, columns}, zeros));
  const ValueId bounded =
      build.map(Step::i_min, {build.map(Step::i_max, {build.reshape(index, dims), whole(-1)}), whole(entries)});
  return build.add(Gather{0},
                   {build.add(Concat{0}, {zero, weights, zero}), build.map(Step::i_add, {bounded, whole(1)})});
}

// sum over t of w[.., t, .., 1] * x[.., t, .., c] is w' x, t moved before the last axis.
std::optional<Offer> fuse_weighted_sum(Graph& graph, ValueId root, std::optional<Miss>&) {
  const auto* sum = made_by<Reduce>(graph, root);
  if (sum == nullptr || sum->kind != Reduction::sum || graph.value(root).type != Type::f32) return std::nullopt;
  const ValueId operand = producer(graph, root)->inputs[0];
  const auto* product = operands_of(graph, operand, Step::f_mul);
  if (product == nullptr) return std::nullopt;
  const auto rank = static_cast<int>(graph.value(operand).dims.size());
  if (rank < 2 || sum->axes.size() != 1 || sum->axes[0] == rank - 1) return std::nullopt;
  const int along = sum->axes[0];
  std::vector<int> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  std::rotate(order.begin() + along, order.begin() + along + 1, order.end() - 1);
  for (size_t i = 0; i < 2; ++i) {
    const ValueId weights = (*product)[i], x = (*product)[1 - i];
    const Dims w = graph.value(weights).dims, v = graph.value(x).dims;
    if (w.size() != order.size() || v.size() != order.size() || !w.back().is_constant(1) || v.back().is_constant(1))
      continue;
    const auto axis = static_cast<size_t>(along);
    if (!(w[axis] == v[axis]) || graph.value(weights).constant) continue;
    const Builder build(graph, root, {operand});
    const Dims dims = graph.value(root).dims;
    const ValueId row = settled(graph, build.swap_last(settled(graph, build.transpose(weights, order))));
    return build.reshape(build.add(Matmul{}, {row, settled(graph, build.transpose(x, order))}), dims);
  }
  return std::nullopt;
}

}  // namespace heed::tools

#pragma once
/// How rewrites and fusions look at a graph, and what a fusion is.
#include <optional>
#include <string>
#include <vector>

#include "tools/convert.h"
#include "tools/graph/graph.h"
#include "tools/passes/check.h"

namespace heed::tools {

// --- Looking ---------------------------------------------------------------------------------------------------------

/// The node that makes a value; null for inputs and constants.
const Node* producer(const Graph& graph, ValueId id);

/// The operation that makes a value, where it is of this kind.
template <class Op>
const Op* made_by(const Graph& graph, ValueId id) {
  const Node* node = producer(graph, id);
  return node == nullptr ? nullptr : std::get_if<Op>(&node->operation);
}

/// True of what reshapes, transposes, expands and slices make: elements of their operand, none computed.
bool is_view(const Graph& graph, ValueId id);

/// Whether a value is a sum of products with an epilogue, matmul or conv; operands: x, weights, bias?, residual?.
bool is_product(const Graph& graph, ValueId id);
/// The activation at its end.
Activation activation_of(const Graph& graph, ValueId product);
/// The same operation with another activation.
Operation with_activation(const Operation& product, Activation activation);

/// The operands of the step that makes a value; null where another one does.
const std::vector<ValueId>* operands_of(const Graph& graph, ValueId id, Step step);

/// "a multiplication", "tanh", "a gather": an operation as a report names it.
std::string in_words(const Operation& operation);
/// "tanh of shape [batch, 5]", "the input 'x' of shape [8]": a value as a report names it.
std::string in_words(const Graph& graph, ValueId id);

/// The number that every element of a value is, through reshapes, expands and slices of a constant.
std::optional<double> uniform(const Graph& graph, ValueId id);

/// x and c of x * c, x / (1/c) and -x with a uniform c that does not change the shape.
struct Scaled {
  ValueId x;
  double factor;
};
std::optional<Scaled> scaled(const Graph& graph, ValueId id);

/// a and b of a / b, also as a * reciprocal(b).
struct Ratio {
  ValueId above, below;
};
std::vector<Ratio> ratios(const Graph& graph, ValueId id);

/// Values that depend on no input of the graph: constants, positions, sizes.
bool depends_on_dimensions_only(const Graph& graph, ValueId id);

/// The elements of such a value for given dimensions.
Literal evaluate_at(const Graph& graph, ValueId id, const std::map<std::string, int64_t>& sizes);
/// Whether the constraints hold for given dimensions.
bool permits(const Graph& graph, const std::map<std::string, int64_t>& sizes);
/// A few settings of the dimensions: the bounds, and small sizes between them, alike and different.
std::vector<std::map<std::string, int64_t>> settings(const Graph& graph);
/// A value over queries and keys that depends on their distance only, key - query: it is values[n] from at[n - 1] on,
/// up to before at[n], at all sizes.
struct ByDistance {
  std::vector<Expression> at;
  Literal values;
};
std::optional<ByDistance> by_distance(const Graph& graph, ValueId id, const Dims& scores);
/// A gather by an index that counts, from constants, positions and sizes, as a slice.
std::optional<ValueId> counting_gathers(Graph& graph, ValueId out);

/// True where exactly one node (or output of the graph) reads the value.
bool read_once(const Graph& graph, ValueId id);

/// Nodes from some roots back to `leaves`, operands before readers.
std::vector<NodeId> region(const Graph& graph, const std::vector<ValueId>& roots, const std::vector<ValueId>& leaves);
inline std::vector<NodeId> region(const Graph& graph, ValueId root, const std::vector<ValueId>& leaves) {
  return region(graph, std::vector{root}, leaves);
}

/// The values that replacements, with the nodes from `first_new` on, are built on.
std::vector<ValueId> built_on(const Graph& graph, const Replacements& replacements, NodeId first_new);

// --- Building --------------------------------------------------------------------------------------------------------

/// Adds nodes in the name of those they replace; views that cancel out are never made.
class Builder {
 public:
  /// In the name of the node that makes `replaced`; those that make `also` are absorbed with it.
  Builder(Graph& graph, ValueId replaced, const std::vector<ValueId>& also = {});

  ValueId add(Operation operation, std::vector<ValueId> inputs) const {
    return graph.add_value(std::move(operation), std::move(inputs), name_, absorbed_);
  }
  ValueId map(Step step, std::vector<ValueId> operands) const { return add(Map{step}, std::move(operands)); }
  ValueId reshape(ValueId x, Dims dims) const;
  ValueId transpose(ValueId x, std::vector<int> permutation) const;
  ValueId swap_last(ValueId x) const;
  ValueId expand(ValueId x, Dims dims) const;
  ValueId scalar(float value) const { return graph.constant(name_, Literal::of({}, std::vector<float>{value})); }
  Dims dims(ValueId x) const { return graph.value(x).dims; }

  Graph& graph;

 private:
  std::string name_;
  std::vector<std::string> absorbed_;
};

// --- Fusions ---------------------------------------------------------------------------------------------------------

/// Why something that looks like a concept is not fused. Its group is what lies between `from` and the value that was
/// looked at.
struct Miss {
  ValueId at;                   // made by the first node that differs
  std::string found, expected;  // there, each a phrase
  std::string advice = "";      // what to change in the model or its export
  ValueId from = no_value;      // else `at`'s node is the group's first
};

/// What may take the place of the value that was looked at, and of others that the same operation gives.
struct Offer {
  Offer(ValueId value) : value(value) {}

  ValueId value;
  Replacements others;
};

/// One concept. `fuse` looks at a value and, where it is the end of the concept's region, builds the replacement beside
/// it. Nothing is installed there: apply() checks the offer and replaces the values.
struct Fusion {
  const char* concept_name;
  std::optional<Offer> (*fuse)(Graph& graph, ValueId root, std::optional<Miss>& miss);
};

std::optional<Offer> fuse_sigmoid(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_softplus(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_silu(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_gelu(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_gelu_tanh(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_relu(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_softmax(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_layer_norm(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_rms_norm(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_attention(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_rope(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_one_hot(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_windows(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_recurrent(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_weighted_sum(Graph& graph, ValueId root, std::optional<Miss>& miss);
std::optional<Offer> fuse_matmul(Graph& graph, ValueId root, std::optional<Miss>& miss);

/// Why the operand of a softmax that weights a sum is not the scores of a dot-product attention.
Miss unlike_scores(const Graph& graph, ValueId scores);

/// The rewrites of the canonical form at one value, for what a fusion has just built.
ValueId settled(Graph& graph, ValueId id);

/// Tries a fusion at every value. Public so that a test can pass one that is wrong.
void apply(Graph& graph, const Fusion& fusion, Report& report);
/// Reports where the fusion stopped at what is left: to be called when nothing is fused any more.
void explain(Graph& graph, const Fusion& fusion, Report& report);

/// Reports a miss that `root` shows.
void tell(const Graph& graph, const char* concept_name, ValueId root, const Miss& miss, Report& report);

}  // namespace heed::tools

#pragma once
/// The converter's graph: values in static single assignment, few operations, symbolic shapes.
///
/// The importer builds it, passes rewrite it, the plan is made from it. Goals: one place that infers shapes and one
/// that evaluates (folding, checking of fusions); passes change it only through add() and replace(). Non-goals: it is
/// not ONNX (names of nodes are kept for people only) and knows no memory.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "kernels/activation.h"
#include "kernels/conv/conv.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pool/pool.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/reduce/reduce.h"
#include "kernels/rope/rope.h"
#include "tools/graph/expression.h"

namespace heed::tools {

using Dims = std::vector<Expression>;

/// A value known at conversion. Integers are held in 64 bits whatever their type in the model, booleans as bytes.
struct Literal {
  Type type = Type::f32;  // f32, i32 (as int64_t here), boolean, i8
  std::vector<int64_t> dims;
  std::shared_ptr<const void> owner;  // keeps `data` alive: a vector of its own, or the mapped model file
  const std::byte* data = nullptr;
  /// Of dequantised floats: the scale of which each is a whole multiple, of at most 255. It broadcasts, and is kept by
  /// transposes, reshapes and factors.
  std::shared_ptr<const Literal> scale = nullptr;

  int64_t count() const;
  std::span<const float> floats() const;
  std::span<const int64_t> integers() const;
  std::span<const uint8_t> booleans() const;
  std::span<const int8_t> bytes() const;

  static Literal of(std::vector<int64_t> dims,
                    std::vector<float> values);  // each throws Error unless dims and values agree
  static Literal of(std::vector<int64_t> dims, std::vector<int64_t> values);
  static Literal of_booleans(std::vector<int64_t> dims, std::vector<uint8_t> values);
  static Literal of(std::vector<int64_t> dims, std::vector<int8_t> values);
};

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr ValueId no_value = -1;

struct Value {
  std::string name;
  Type type = Type::f32;
  Dims dims;
  NodeId producer = -1;  // -1: an input or a constant
  bool data = false;     // depends on an input's elements: not a constant, nor a function of dimensions alone
  std::optional<Literal> constant;
  /// Elements of a small integer tensor as expressions, row-major: shape arithmetic. Present for constants of up to 64
  /// integers too.
  std::optional<std::vector<Expression>> symbols;
};

// --- Operations and their attributes. Shapes: numpy broadcasting where several operands meet.
// ---------------------------

struct Map {
  Step step;
  bool narrow = false;  // an i32 result in [-128, 127], as i8
};                      // one elementwise step; operands f32, i32 (also as i8) or boolean as the step says
struct Iota {
  Dims dims;
  int axis;
};  // i32: the index along an axis
struct Size {
  Expression value;
};  // i32 scalar: the value of an expression over the dimensions
struct Reshape {
  Dims dims;
};  // also squeeze, unsqueeze, flatten
struct Transpose {
  std::vector<int> permutation;
};
struct Slice {
  std::vector<Expression> starts;
  std::vector<int64_t> steps;
  Dims dims;
};  // every axis; steps may be negative
struct Expand {
  Dims dims;
};  // broadcast to dims
struct Concat {
  int axis;
};
struct Pad {
  std::vector<Expression> before, after;
  float value;
};  // every axis
struct Gather {
  int axis;
};               // table, index; or table i8 [N, K], index, scale [N]: rows times their scales, f32
struct Matmul {  // a [.., M, K], b [.., K, N], bias [N]?, residual?: kernels/matmul/matmul.h; or a and b of i32, exact
                 // in 32 bits, which fuse_quantized() replaces
  Activation activation = Activation::none;
};
struct Softmax {
  int axis;
  bool log = false;
};
struct Reduce {
  Reduction kind;
  std::vector<int> axes;
  bool keep;
  bool last_index = false;
};                  // axes ascending
struct Attention {  // operands as in kernels/attention/attention.h, of rank 4 and 2 as there; bias may have sizes of 1
                    // to repeat
  float scale = 1;
  bool causal = false, window = false;
  Expression offset;
  int64_t window_left = 0, window_right = 0;
  bool int8 = false;  // q, k and v i8, their scales [.., 1] the operands 7 to 9: kernels/attention_i8/attention_i8.h
};
struct Normalize {  // x [.., N], scale?, bias?; y, and where groups > 0 q and q_scale [.., groups], and where
                    // asymmetric q_zero i32: kernels/normalize/normalize.h
  Normalization kind;
  float epsilon;
  int64_t groups = 0;
  bool asymmetric = false;
};
struct Recurrent {  // ONNX's operands x [T, B, I], w [D, G*H, I], r [D, G*H, H], b [D, 2*G*H]?, h0?, c0?; y [T, D, B,
                    // H], h, c
  Cell cell;
  Direction direction;
  bool linear_before_reset;
  int64_t hidden;
};
/// What a window does along one spatial axis: kernels/window.h. `before` and `after`: padding.
struct WindowAxis {
  int64_t kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
  int64_t reach() const { return (kernel - 1) * dilation + 1; }
};
struct Conv {  // x [N, spatial.., C], w [taps.., C / groups, M], bias [M]?, residual?: kernels/conv/conv.h; or x and w
               // of i32, as Matmul
  std::vector<WindowAxis> axes;
  int64_t groups = 1;
  Activation activation = Activation::none;
};
struct Pool {  // x [N, spatial.., C]: kernels/pool/pool.h
  Pooling kind;
  std::vector<WindowAxis> axes;
  bool counts_padding = false;  // of the mean
  bool ceil = false;            // a last window may reach past the padding, if it begins before its end
};
struct Rope {  // x [.., D], cos and sin [.., R], which broadcast against x: kernels/rope/rope.h
  Pairing pairing;
};
struct Quantize {  // x [.., N], given [2]?; q i8, and where none is given scale [.., groups], and where asymmetric
                   // zero i32: kernels/quantize/quantize.h
  int64_t groups = 1;
  bool asymmetric = false;
};
/// x f32, scale and zero i32, which broadcast: round(x / scale) + zero, brought into a range. expand_quantized()
/// replaces these two.
struct QuantizeLinear {
  int64_t lowest, highest;
  bool narrow = false;  // as i8, else i32
};
struct DequantizeLinear {};  // q i32 or i8, scale, zero i32: (q - zero) * scale
/// a i8 [.., M, K], a_scale [.., M, 1], b i8 [K, N], b_scale [N], bias [N]?, residual?, a_zero i32 [.., M, 1]?, b_zero
/// i32 [N]?, given [2]?; y, and where groups > 0 q and q_scale [.., M, groups], and where asymmetric q_zero i32, or q
/// alone where its scale and zero are given: kernels/matmul_i8/matmul_i8.h
struct MatmulI8 {
  Activation activation = Activation::none;
  int64_t groups = 0;
  bool asymmetric = false;
};
/// x f32, w i8 [taps.., C / groups, M], w_scale [M], bias [M]?, residual?: kernels/conv_i8/conv_i8.h
struct ConvI8 : Conv {};
/// x i8 [T, B, I], x_scale [T, B, 1], w i8 [D, G*H, I], w_scale [D, G*H], r i8 [D, G*H, H], r_scale [D, G*H], then and
/// the results as of Recurrent: kernels/recurrent_i8/recurrent_i8.h
struct RecurrentI8 : Recurrent {};
/// Several maps as one program (made by the last pass): sources that are tensors are the node's inputs, in order.
struct Elementwise {
  struct Source {
    SourceKind kind;
    int axis = 0;
    Expression value;
  };
  Dims dims;
  std::vector<Source> sources;
  std::vector<uint32_t> immediates;
  std::vector<Instruction> instructions;
  std::vector<uint8_t> results;
  std::vector<bool> narrow = {};  // of each result; none where it is empty
};

using Operation = std::variant<Map, Iota, Size, Reshape, Transpose, Slice, Expand, Concat, Pad, Gather, Matmul, Softmax,
                               Reduce, Attention, Normalize, Recurrent, Conv, Pool, Rope, Quantize, QuantizeLinear,
                               DequantizeLinear, MatmulI8, ConvI8, RecurrentI8, Elementwise>;

/// A softmax whose result weights a sum, fused or not: what `heed attention` draws. Set by the passes on Softmax and
/// Attention nodes.
struct Mark {
  std::string queries, keys;  // names of the tensors behind the two axes of the weights
  int key_axis = -1;          // of the softmax's result, from 0; of attention the last of [B, H, Tq, Tk]
};

/// std::visit with one lambda for each kind of operation.
template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

struct Node {
  Operation operation;
  std::string name;                   // of the ONNX node it stands for
  std::vector<std::string> absorbed;  // ONNX nodes that it computes, itself included
  std::vector<ValueId> inputs;        // no_value: absent
  std::vector<ValueId> outputs;       // no_value: nobody wants it
  std::optional<Mark> mark;
  bool dead = false;
};

struct Border {
  std::string name;
  ValueId value;
  uint8_t type;  // of the original model, numbered as in ONNX
};

/// Two sizes that had to agree and could not be shown to: becomes a check on the device.
struct Constraint {
  enum class Relation : uint8_t { equal, less_equal } relation;
  Expression left, right;
};

/// False where the bounds of the dimensions alone rule it out.
bool possible(const Constraint& constraint, const std::map<std::string, Dimension>& dimensions);

/// An output that is the input's next value, and hidden with it from whoever runs the model.
struct State {
  int input, output;             // of the graph's
  int axis;                      // that grows; -1: of one shape
  std::optional<Literal> first;  // else zeros
};

/// The dimension of the axes that grow, and what a run adds to it.
struct Position {
  std::string name;
  Expression step;
  int64_t capacity;  // the most that the axes come to
};

struct Inferred {
  Type type;
  Dims dims;
};

class Graph {
 public:
  std::vector<Border> inputs, outputs;
  std::map<std::string, heed::tools::Dimension> dimensions;
  std::vector<Constraint> constraints;
  std::vector<State> states;
  std::optional<Position> position;  // present where a state grows; its name is among the dimensions still
  std::vector<std::string> notes;    // for people: dimensions made one, constraints

  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  Value& value(ValueId id) { return values_[static_cast<size_t>(id)]; }
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  Node& node(NodeId id) { return nodes_[static_cast<size_t>(id)]; }

  ValueId input(std::string name, Type type, Dims dims);
  ValueId constant(std::string name, Literal literal);

  /// Adds a node: infers types and dims of its outputs (graph/infer.cpp), evaluates it at once where every operand is
  /// constant, and tracks the elements of small integer tensors as expressions. Where that, or an operation that
  /// changes nothing, makes the node needless, it is dead from the start and its outputs are the results. Throws Error
  /// naming the node where shapes disagree.
  NodeId add(Operation operation, std::vector<ValueId> inputs, std::string name,
             std::vector<std::string> absorbed = {});
  /// The same for operations of one output.
  ValueId add_value(Operation operation, std::vector<ValueId> inputs, std::string name,
                    std::vector<std::string> absorbed = {});

  /// Every reader of `old_value`, and the graph's outputs, take `new_value` from now on.
  void replace(ValueId old_value, ValueId new_value);

  /// Nodes that an output depends on, operands before readers; the others are dropped.
  std::vector<NodeId> order();
  /// Drops nodes that nobody reads, the last of the list first. With it a pass keeps the graph as order() leaves it,
  /// without going through all of it.
  void drop(std::span<const NodeId> operands_first);
  /// Readers of a value, in the graph's order; an output of the graph counts as a reader -1.
  std::vector<NodeId> readers(ValueId id) const;

  /// Two sizes made one: equal as expressions, or up to some size, which then bounds their dimension (reported), or one
  /// is a dimension and takes the other's place everywhere (reported), or a constraint is noted. Throws Error where
  /// they are different constants.
  void unify(const Expression& a, const Expression& b, const std::string& where);
  /// An expression from before some unify(), with the dimensions that still exist.
  Expression current(Expression expression) const;
  /// Dimensions that unify() replaced: what stands in their place.
  std::map<std::string, Expression> replaced() const;

  size_t value_count() const { return values_.size(); }
  size_t node_count() const { return nodes_.size(); }

 private:
  ValueId append(Value value);
  bool depends_on_data(const Node& node) const;
  /// Value::data of what reads these, and of what reads that.
  void renew_data(std::vector<ValueId> changed);
  void substitute(const std::string& name, const Expression& value);
  /// True where "tokens" and "min(512, tokens)" are the same up to some size.
  bool bound(const Expression& a, const Expression& b, const std::string& where);
  /// Every expression of the graph anew.
  void renew(const std::function<void(Expression&)>& renew);
  std::optional<ValueId> simplified(const Node& node, const std::vector<Inferred>& outputs);
  std::optional<ValueId> from_symbols(const Node& node, const Inferred& output, const std::vector<Expression>& symbols);

  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<std::vector<NodeId>> readers_;  // of each value, in any order; some may read it no more
  int64_t given_ = 0, folded_ = 0;            // elements of constants that came from outside, and that folding made
  std::vector<std::pair<std::string, Expression>> substitutions_;  // in the order they were made
};

/// Types and dims of a node's outputs: one per output.
std::vector<Inferred> infer(Graph& graph, const Node& node);

/// The reference on the host, for folding and for checking fusions: sums in double, results rounded to float.
/// `dimensions` gives the value of every dimension that the operation's attributes mention. Absent operands are null.
std::vector<Literal> evaluate(const Node& node, const std::vector<const Literal*>& inputs,
                              const std::map<std::string, int64_t>& dimensions);

/// Calls visit with every expression among the attributes.
void for_each_expression(Operation& operation, const std::function<void(Expression&)>& visit);

/// Numpy's broadcasting of two shapes, sizes that meet made one. Throws Error that begins with `where`.
Dims broadcast(Graph& graph, const Dims& a, const Dims& b, const std::string& where);

/// The elements of a result as expressions, where those of its operands are known (graph/symbols.cpp).
std::optional<std::vector<Expression>> infer_symbols(const Graph& graph, const Node& node, const Inferred& output);

const char* name(const Operation& operation);
std::string text(const Dims& dims);  // "[batch, 5, 64]"
std::string text(const std::vector<int64_t>& dims);

/// Number of elements; dims of a tensor whose sizes are all known.
Expression count(const Dims& dims);
std::optional<std::vector<int64_t>> constant_dims(const Dims& dims);
std::vector<int64_t> evaluate_dims(const Dims& dims, const std::map<std::string, int64_t>& dimensions);

/// What a step takes and gives; Type of an operand: select takes a boolean first.
struct StepInfo {
  const char* name;
  int operands;
  Type from, to;
};
const StepInfo& info(Step step);
Type operand_type(Step step, int operand);

}  // namespace heed::tools

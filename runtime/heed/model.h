#pragma once
/// A verified model: the only way from bytes to something that can be run.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "heed/status.h"
#include "kernels/operator.h"
#include "kernels/tensor.h"

namespace heed {

/// Bytes by region, the same on every target. Constants stay in the file.
struct Memory {
  uint64_t constants;    // weights, used in place
  uint64_t state;        // lives across runs
  uint64_t workspace;    // activations and scratch, planned by the converter
  uint64_t tables;       // the session's own decoded operators and shapes
  uint64_t lower_bound;  // of the workspace: the most that is alive at one operator
  uint64_t per_thread;   // each further thread adds this: the largest scratch

  /// What Session::create wants of an arena for `threads` threads.
  uint64_t total(uint32_t threads = 1) const {
    return state + workspace + tables + (threads > 0 ? threads - 1 : 0) * per_thread;
  }
};

/// A named size of the model, lower <= value <= upper.
struct Dimension {
  std::string_view name;
  int32_t lower, upper, start;
};

/// An input or output: its name, its type in the original model (numbered as in ONNX), its type here and its rank.
struct Port {
  std::string_view name;
  uint8_t border_type;
  Type type;
  uint8_t rank;
  uint32_t tensor;
};

// What follows describes a model to people (heed inspect, bench, attention); `expression` numbers are for
// write_expression() and Session::value().

/// A small integer expression over the dimensions and the position, as format/heed.fbs explains.
struct ExpressionNode {
  enum class Op : uint8_t {
    constant,
    dimension,
    add,
    subtract,
    multiply,
    divide,
    modulo,
    minimum,
    maximum,
    position
  } op;
  int32_t a, b;
};

struct Constraint {
  bool equal;  // left == right, else left <= right
  uint32_t left, right;
  std::string_view text;
};

struct BufferInfo {
  uint64_t offset;       // bytes from the state's start; the workspace follows it
  uint32_t capacity;     // bytes
  uint32_t first, last;  // operators
};

struct TensorInfo {
  std::string_view name;
  Type type;
  uint8_t rank;
  uint32_t dims[max_rank];                   // expressions
  int32_t buffer;                            // -1: a constant
  uint64_t constant_offset, constant_bytes;  // from the file's start
};

struct OperatorInfo {
  std::string_view name;
  OperatorKind kind;
  uint8_t input_count, output_count;
  int32_t inputs[max_inputs], outputs[max_outputs];  // tensors; -1: absent
  int32_t scratch;                                   // buffer, or -1
  uint32_t macs;                                     // expression
  uint32_t absorbed_count;                           // see Model::absorbed
};

/// A softmax whose result weights a sum, inside attention or on its own.
struct Mark {
  uint32_t operator_index;
  std::string_view name, queries, keys;
};

struct Fusion {
  std::string_view name;
  uint32_t count;
};

/// A table index that comes from the caller: `run` refuses values outside [-bound, bound).
struct IndexCheck {
  uint32_t input;
  uint32_t bound;  // expression
};

/// A value that lives across runs: the original model's input and the output that is its next value.
struct State {
  std::string_view name, output;
  uint32_t tensor;                           // the value as a run finds it
  uint64_t constant_offset, constant_bytes;  // the first value, from the file's start; no bytes: zeros
};

/// How far the states that grow have grown: `lower` at first, `step` more after each run; no run begins above `upper`.
struct Position {
  std::string_view name;  // the original model's dimension
  int32_t lower, upper;
  int32_t capacity;  // the most positions that the states hold
  uint32_t step;     // expression
};

class Model {
 public:
  /// Verifies `bytes`, a whole file, and borrows them: they stay valid and unchanged as long as the model and its
  /// sessions live. Everything that does not depend on the dimensions' values is checked here, in time linear in the
  /// file's tables; weights are not touched. The rest (extents, operators' contracts, overlap of live buffers) is
  /// checked by Session::create and resize.
  ///
  /// Errors: misaligned (bytes must begin at a multiple of 64), not_a_model, corrupt, too_large.
  static Result<Model> load(std::span<const std::byte> bytes);

  const Memory& memory() const { return memory_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  uint32_t input_count() const;
  uint32_t output_count() const;
  uint32_t dimension_count() const;
  uint32_t operator_count() const;
  uint32_t tensor_count() const;
  uint32_t buffer_count() const;
  uint32_t expression_count() const;
  uint32_t constraint_count() const;
  uint32_t index_check_count() const;
  uint32_t mark_count() const;
  uint32_t fusion_count() const;
  uint32_t state_count() const;

  // Indices are in range: they are counted by the functions above.
  Port input(uint32_t index) const;
  Port output(uint32_t index) const;
  Dimension dimension(uint32_t index) const;
  OperatorInfo operator_info(uint32_t index) const;
  TensorInfo tensor(uint32_t index) const;
  BufferInfo buffer(uint32_t index) const;
  ExpressionNode expression(uint32_t index) const;
  Constraint constraint(uint32_t index) const;
  IndexCheck index_check(uint32_t index) const;
  Mark mark(uint32_t index) const;
  Fusion fusion(uint32_t index) const;
  State state(uint32_t index) const;

  /// Nothing where no state grows.
  std::optional<Position> position() const;

  /// Name of a node of the original model that operator `index` computes; number < operator_info(index).absorbed_count.
  std::string_view absorbed(uint32_t index, uint32_t number) const;
  /// Who wrote the file; may be empty.
  std::string_view producer() const;
  /// The converter's options and their values, in turn: "--dim", "tokens=1..512", "--quantize", "int8".
  uint32_t made_with_count() const;
  std::string_view made_with(uint32_t index) const;
  /// SHA-256 of the file with these bytes as zeros; empty, or 32 bytes.
  std::span<const std::byte> content_hash() const;

  /// Writes an expression as people would ("5 * batch", "min(tokens, 64)") with a final zero into `text`, cut at
  /// `size`. Returns the length without the zero.
  size_t write_expression(uint32_t index, char* text, size_t size) const;

 private:
  friend class Session;
  template <class T>
  friend class Result;
  Model() = default;

  std::span<const std::byte> bytes_;
  Memory memory_{};
};

}  // namespace heed

#pragma once
/// What every operator offers, in one row of `operators.inc`:
///
///   params     a plain struct, `<Op>Params`, decoded from the file into the session's tables (format/heed.fbs holds
///   its table) check      the contract: which shapes and parameters are legal. Nothing is checked again in `run`
///   scratch    the least bytes of scratch for given shapes and parameters
///   in_place   may an output take the storage of an input?
///   run        makes the kernel's argument struct from the operands, splits the work, calls the variant for `isa`
///
/// Device code: no exceptions, no RTTI, no heap, no statics with constructors.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/isa.h"
#include "kernels/tensor.h"

namespace heed {

/// The first thing an operator's contract found wrong. `what` is null where the contract holds.
struct [[nodiscard]] Violation {
  const char* what = nullptr;  // a sentence without values: "inner dimensions of a and b differ"
  int operand = -1;            // inputs count from 0, outputs from `output_operand`
  int64_t found = 0, expected = 0;
  enum class Limit : uint8_t { exactly, at_most, at_least } limit = Limit::exactly;  // what `expected` is to `found`

  explicit operator bool() const { return what != nullptr; }
};
inline constexpr int output_operand = 100;

inline constexpr int max_inputs = 16;
inline constexpr int max_outputs = 4;

/// Shapes and parameters of one operator: what `check`, `scratch` and `in_place` judge by.
struct Contract {
  const Shape* const* inputs;  // null entries are absent optional operands
  const Shape* const* outputs;
  int input_count, output_count;
  const void* params;

  const Shape* input(int i) const { return i < input_count ? inputs[i] : nullptr; }
  const Shape* output(int i) const { return i < output_count ? outputs[i] : nullptr; }
};

/// Runs `task(context, index, thread)` for every index in [0, count); `thread` is in [0, threads) and two tasks that
/// run at the same time have different ones. `call` returns after the last task. Null `call`: the caller's thread does
/// everything.
struct Parallel {
  using Task = void (*)(void* context, uint32_t index, uint32_t thread);
  void (*call)(void* pool, uint32_t count, Task task, void* context) = nullptr;
  void* pool = nullptr;
  uint32_t threads = 1;
};

/// Hands out attention's weights row by row while they are computed (heed attention, compare); null in normal runs.
struct WeightTap {
  /// `weights`: [keys], normalised, valid during the call only. May be called from several threads.
  void (*row)(void* context, int batch, int head, int query, const float* weights, int keys);
  void* context;
};

/// One call of an operator.
struct Invocation {
  const Tensor* inputs;
  const Tensor* outputs;
  int input_count, output_count;
  const void* params;
  std::byte* scratch;  // 64-byte aligned; thread t > 0 has its own at thread_scratch + (t - 1) * thread_scratch_bytes
  std::byte* thread_scratch;
  size_t thread_scratch_bytes;
  Isa isa;
  const Parallel* parallel;
  const WeightTap* tap;

  Tensor input(int i) const { return i < input_count ? inputs[i] : Tensor{}; }
  Tensor output(int i) const { return i < output_count ? outputs[i] : Tensor{}; }
  std::byte* scratch_of(uint32_t thread) const {
    return thread == 0 ? scratch : thread_scratch + (thread - 1) * thread_scratch_bytes;
  }

  /// Calls body(index, scratch) for every index in [0, count), one after the other unless `split`. Tasks split outputs,
  /// never a sum, so results do not depend on the number of threads.
  template <class Body>
  void for_each(uint32_t count, Body&& body, bool split = true) const {
    if (!split || count <= 1 || parallel == nullptr || parallel->call == nullptr || parallel->threads <= 1) {
      for (uint32_t index = 0; index < count; ++index) body(index, scratch);
      return;
    }
    struct Context {
      const Invocation* self;
      std::remove_reference_t<Body>* body;
    } context{this, &body};
    parallel->call(
        parallel->pool, count,
        [](void* c, uint32_t index, uint32_t thread) {
          auto& [self, task] = *static_cast<Context*>(c);
          (*task)(index, self->scratch_of(thread));
        },
        &context);
  }
};

/// One row of the operator table.
struct Operator {
  const char* name;
  Violation (*check)(const Contract&);
  uint64_t (*scratch)(const Contract&);                      // bytes; 0 where none is needed
  bool (*in_place)(const Contract&, int input, int output);  // same dims, strides and offset are given
  void (*run)(const Invocation&);
  Isa (*variant)(Isa ceiling);  // the instruction set whose code `run` takes under a ceiling
};

/// Numbers of the operators, in the order of `operators.inc`; the schema's union Params has the same order from 1.
enum class OperatorKind : uint8_t {
#define HEED_OPERATOR(name, Name) name,
#include "kernels/operators.inc"
#undef HEED_OPERATOR
  count
};

/// The rows: kernels/<op>/<op>.cpp defines heed::<op>_operator.
#define HEED_OPERATOR(name, Name) extern const Operator name##_operator;
#include "kernels/operators.inc"
#undef HEED_OPERATOR

const Operator& operator_of(OperatorKind kind);

/// Whether its multiply-accumulates are of int8.
inline bool computes_in_int8(OperatorKind kind) {
  return kind == OperatorKind::matmul_i8 || kind == OperatorKind::attention_i8 || kind == OperatorKind::recurrent_i8 ||
         kind == OperatorKind::conv_i8;
}

}  // namespace heed

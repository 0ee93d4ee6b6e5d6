#pragma once
/// The session's tables, at the start of its arena: the file's operators and tensors decoded for the current
/// dimensions, as records of fixed width with offsets and numbers instead of pointers, so that they have one size on
/// every target.
///
///     Tables | operators | tensors | values | checks | outputs | dimensions | live | params      then state, workspace
///
/// model.cpp fills them from the file (the only place beside verify.cpp that knows the flatbuffer); session.cpp checks
/// the operators' contracts on them and runs.
#include <cstddef>
#include <cstdint>
#include <span>

#include "heed/model.h"
#include "heed/status.h"
#include "kernels/operator.h"

namespace heed {

/// Counts are capped, so that a hostile file costs no time.
namespace limits {
inline constexpr uint32_t dimensions = 256;
inline constexpr uint32_t expressions = 32768;
inline constexpr uint32_t constraints = 4096;
inline constexpr uint32_t buffers = 32768;
inline constexpr uint32_t live_buffers = 1024;  // alive at one operator: the overlap sweep walks them for each buffer
inline constexpr uint32_t tensors = 65535;      // 16-bit numbers in the operators' records
inline constexpr uint32_t operators = 16384;
inline constexpr uint32_t borders = 1024;  // inputs, and outputs
inline constexpr uint32_t index_checks = 1024;
inline constexpr uint32_t marks = 16384;
inline constexpr uint32_t fusions = 256;
inline constexpr uint32_t states = 1024;
// Positions times expressions, tensors and operators: create and resize check each at every position.
inline constexpr int64_t position_checks = 1 << 24;
}  // namespace limits

inline constexpr uint16_t absent = 0xffff;

/// One cache line: everything that `run` needs of an operator.
struct OperatorRecord {
  OperatorKind kind;
  Isa isa;  // whose code is run
  uint8_t input_count, output_count;
  uint16_t operands[max_inputs + max_outputs];  // tensors or `absent`; the outputs follow the inputs
  uint32_t params;                              // bytes from the start of the tables
  uint32_t scratch;                             // units of 64 bytes from the state's start
  uint32_t scratch_bytes;
  uint8_t stepped_shapes, stepped_params;  // whether they depend on the position
  uint8_t reserved[6];
};
static_assert(sizeof(OperatorRecord) == 64);

struct TensorRecord {
  Shape shape;
  int32_t buffer;  // -1: a constant
  int64_t offset;  // of index 0: bytes from the state's start, or from the file's for a constant
};
static_assert(sizeof(Shape) == 68 && sizeof(TensorRecord) == 80);

struct CheckRecord {
  uint32_t tensor;
  uint32_t bound;  // expression
  uint32_t input;
};
static_assert(sizeof(CheckRecord) == 12);

/// Head of the tables: where each part lies (bytes from here) and how many records it has.
struct Tables {
  struct Part {
    uint32_t offset, count;
  };
  Part operators;   // OperatorRecord
  Part tensors;     // TensorRecord
  Part values;      // int64_t for each expression
  Part checks;      // CheckRecord
  Part outputs;     // uint32_t: the tensor of each output of the model
  Part dimensions;  // int32_t, twice: the values, and those before a resize that may fail
  Part live;        // uint32_t for each buffer and one more: the list of live buffers while they are checked
  Part params;      // the operators' params, each at a multiple of 8; count is in bytes
  int64_t position;

  /// All of the tables.
  uint64_t bytes() const { return (uint64_t{params.offset} + params.count + 63) / 64 * 64; }

  template <class Record>
  std::span<Record> part(Part Tables::*member) {
    const Part& p = this->*member;
    return {reinterpret_cast<Record*>(reinterpret_cast<std::byte*>(this) + p.offset), p.count};
  }
  std::span<OperatorRecord> all_operators() { return part<OperatorRecord>(&Tables::operators); }
  std::span<TensorRecord> all_tensors() { return part<TensorRecord>(&Tables::tensors); }
  std::span<int64_t> all_values() { return part<int64_t>(&Tables::values); }
  std::span<CheckRecord> all_checks() { return part<CheckRecord>(&Tables::checks); }
  std::span<uint32_t> all_outputs() { return part<uint32_t>(&Tables::outputs); }
  std::span<int32_t> current_dimensions() { return part<int32_t>(&Tables::dimensions).first(dimensions.count / 2); }
  std::span<int32_t> previous_dimensions() { return part<int32_t>(&Tables::dimensions).last(dimensions.count / 2); }
  std::span<uint32_t> live_list() { return part<uint32_t>(&Tables::live); }
  std::byte* params_at(uint32_t offset) { return reinterpret_cast<std::byte*>(this) + offset; }
};
static_assert(sizeof(Tables) == 72);

/// Where the parts of a verified model's tables lie, and their bytes: what load counts and what create lays out.
Tables layout(std::span<const std::byte> file);

/// Fills in what no dimension changes: `tables` holds the layout.
void decode(std::span<const std::byte> file, Tables& tables);

/// Evaluates the expressions in the current dimensions and writes what depends on them alone: tensors and params.
///
/// Errors: corrupt (arithmetic, a size or an extent outside its storage), constraint_broken.
Status evaluate(std::span<const std::byte> file, Tables& tables);

/// The same for what depends on the position too. Once it was ok at every position, it is again until the dimensions
/// change.
///
/// Errors: as evaluate(), but state_full for a constraint.
Status evaluate_position(std::span<const std::byte> file, Tables& tables);

/// The shapes of the inputs at the position, for the caller to fill; outputs keep theirs of the run before. Nothing
/// changes where no run is possible there.
void evaluate_inputs(std::span<const std::byte> file, Tables& tables);

/// Everything of a file that does not depend on the dimensions' values; model.cpp may then read it without looking.
Status verify(std::span<const std::byte> file);

// --- Refusing
// -----------------------------------------------------------------------------------------------------------

inline Status refuse(Code code, const char* what) {
  return {.code = code, .what = what};
}
inline Status refuse(Code code, const char* what, int64_t found, int64_t expected, Limit limit = Limit::exactly) {
  return {.code = code, .what = what, .found = found, .expected = expected, .has_values = true, .limit = limit};
}

}  // namespace heed

/// Leaves the function with the status where it is not ok.
#define HEED_TRY(...)                                                          \
  do {                                                                         \
    if (::heed::Status status_ = (__VA_ARGS__); !status_.ok()) return status_; \
  } while (false)

/// Leaves the function with a refusal where the condition does not hold: HEED_ENSURE(condition, code, what [, found,
/// expected [, limit]]).
#define HEED_ENSURE(condition, ...)                       \
  do {                                                    \
    if (!(condition)) return ::heed::refuse(__VA_ARGS__); \
  } while (false)

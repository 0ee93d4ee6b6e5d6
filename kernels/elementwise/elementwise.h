#pragma once
/// A short program over the elements of broadcast operands, run block by block: every step is one loop over a block of
/// `elementwise_block` elements that stays in the first-level cache, so a whole chain of maps is one pass over memory.
///
/// Operands are typed views; registers hold one block of 32-bit lanes: f32, i32, or a boolean as all ones or all zeros.
/// A step reads registers, inputs (in place where they lie in order, else gathered into scratch once for each block)
/// and immediates.
///
/// inputs: as many as sources of kind `tensor`, in their order; any type, any strides (stride 0 broadcasts), dims equal
///   to the outputs'
/// outputs: 1 to 4, the same dims, dense, f32, i32, boolean, or i8 and u8, which take the low byte of an i32
/// scratch: a block for each register and each gathered input. in place: an input of the same element size whose view
///   is dense.
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed {

/// Steps by the type they work on: f_ float32, i_ int32 (wrapping; division by 0 gives 0, shifts are taken mod 32), b_
/// boolean. Errors of the elementary functions: kernels/math.h. f_fmod and f_mod are exact for quotients to 2^46. One
/// list for the kernels, the converter and the tests: HEED_STEP(name, operands, type of operands, type of result).
enum class Step : uint8_t {
#define HEED_STEP(name, operands, from, to) name,
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
  count
};

/// Where a step's operand comes from, in one byte.
namespace operand {
inline constexpr uint8_t registers = 0;    // 0 .. 15
inline constexpr uint8_t inputs = 16;      // 16 .. 31: sources
inline constexpr uint8_t immediates = 32;  // 32 .. 95
inline constexpr uint8_t none = 255;
}  // namespace operand
inline constexpr int elementwise_registers = 16;
inline constexpr int elementwise_sources = 16;
inline constexpr int elementwise_immediates = 64;
inline constexpr int elementwise_steps = 255;
inline constexpr int elementwise_block = 512;  // elements

struct Instruction {
  Step step;
  uint8_t result;       // register
  uint8_t operands[3];  // see `operand`; none where the step takes fewer
  uint8_t reserved[3];
};

enum class SourceKind : uint8_t { tensor, iota, dimension };

/// An input of the program. iota: the element's index along `axis`, as i32. dimension: `value`, a named expression's,
/// as i32.
struct Source {
  SourceKind kind;
  uint8_t axis;
  uint8_t reserved[2];
  int32_t value;
};

/// Followed in memory by the sources, the immediates (bits of an f32 or i32) and the instructions: see program_of().
struct ElementwiseParams {
  uint8_t source_count, immediate_count, instruction_count, output_count;
  uint8_t results[max_outputs];  // the operand (register or source) that each output stores
};

struct Program {
  const Source* sources;
  const uint32_t* immediates;
  const Instruction* instructions;
};

HEED_INLINE Program program_of(const ElementwiseParams& params) {
  auto* sources = reinterpret_cast<const Source*>(&params + 1);
  auto* immediates = reinterpret_cast<const uint32_t*>(sources + params.source_count);
  return {sources, immediates, reinterpret_cast<const Instruction*>(immediates + params.immediate_count)};
}

/// Bytes of the params with what follows them.
inline uint32_t bytes_of(const ElementwiseParams& params) {
  return static_cast<uint32_t>(sizeof(ElementwiseParams) + params.source_count * sizeof(Source) +
                               params.immediate_count * sizeof(uint32_t) +
                               params.instruction_count * sizeof(Instruction));
}

/// Outputs [first, last) of the row-major order, a multiple of the block but for the end.
struct ElementwiseArgs {
  const ElementwiseParams* params;
  const Tensor* inputs;  // of the sources of kind tensor
  const Tensor* outputs;
  int64_t first, last;
  std::byte* scratch;
};

HEED_DECLARE_VARIANTS(elementwise, ElementwiseArgs)

}  // namespace heed

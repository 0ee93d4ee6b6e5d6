#include "kernels/elementwise/elementwise.h"

#include "kernels/contract.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

#include "kernels/elementwise/interpreter.h"

namespace heed {
namespace {

/// Types in a program: 'f', 'i', 'b' as in steps.inc.

struct StepType {
  int operands;
  char from, to;
};
constexpr StepType step_types[] = {
#define HEED_STEP(name, operands, from, to) {operands, #from[0], #to[0]},
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
};

char lane_type(Type type) {
  return type == Type::f32 ? 'f' : type == Type::boolean ? 'b' : 'i';
}

/// Follows the types through the program.
class Typing {
 public:
  Typing(Check& check, const Contract& contract, const ElementwiseParams& params)
      : check_(check), params_(params), program_(program_of(params)) {
    for (int i = 0, tensor = 0; i < params.source_count; ++i)
      sources_[i] = program_.sources[i].kind == SourceKind::tensor ? lane_type(contract.input(tensor++)->type) : 'i';
  }

  /// The operand is there, has been written, and has the type.
  void operand(uint8_t from, char type, const char* mismatch) {
    using namespace heed::operand;
    if (from < inputs) {
      if (!check_.holds(registers_[from] != 0, "a register is read before it is written", -1, from, from)) return;
      check_.holds(registers_[from] == type, mismatch, -1, from, from);
    } else if (from < immediates) {
      if (!check_.holds(from - inputs < params_.source_count, "the program has not so many sources", -1, from - inputs,
                        params_.source_count)) {
        return;
      }
      check_.holds(sources_[from - inputs] == type, mismatch, -1, from, from);
    } else {
      const int i = from - immediates;
      if (!check_.holds(i < params_.immediate_count, "the program has not so many immediates", -1, i,
                        params_.immediate_count)) {
        return;
      }
      const uint32_t bits = program_.immediates[i];
      check_.holds(type != 'b' || bits == 0 || bits == ~0u, "a boolean immediate is neither all zeros nor all ones", -1,
                   i, i);
    }
  }

  void instruction(const Instruction& instruction) {
    const int step = static_cast<int>(instruction.step);
    if (!check_.holds(instruction.step < Step::count, "unknown step", -1, step, static_cast<int>(Step::count) - 1))
      return;
    const StepType& type = step_types[step];
    const bool selects = instruction.step == Step::f_select || instruction.step == Step::i_select;
    for (int i = 0; i < 3; ++i) {
      if (i < type.operands) {
        operand(instruction.operands[i], selects && i == 0 ? 'b' : type.from,
                "an operand has not the type of its step");
      } else {
        check_.holds(instruction.operands[i] == operand::none, "a step has too many operands", -1, i + 1,
                     type.operands);
      }
    }
    if (check_.holds(instruction.result < elementwise_registers, "unknown register", -1, instruction.result,
                     elementwise_registers - 1)) {
      registers_[instruction.result] = type.to;
    }
  }

 private:
  Check& check_;
  const ElementwiseParams& params_;
  const Program program_;
  char sources_[elementwise_sources];
  char registers_[elementwise_registers] = {};
};

const ElementwiseParams& params_of(const void* params) {
  return *static_cast<const ElementwiseParams*>(params);
}

Violation check(const Contract& contract) {
  const ElementwiseParams& params = params_of(contract.params);
  Check check(contract);
  check.in_range(params.source_count, 0, elementwise_sources, -1, "too many sources");
  check.in_range(params.immediate_count, 0, elementwise_immediates, -1, "too many immediates");
  check.in_range(params.output_count, 1, max_outputs, output_operand, "elementwise has one to four outputs");
  check.holds(contract.output_count == params.output_count, "the program has another number of outputs", output_operand,
              contract.output_count, params.output_count);
  if (!check.holds(contract.output(0) != nullptr, "an operand is missing", output_operand, 0, 1))
    return check.violation();
  const Shape& shape = *contract.output(0);

  const Program program = program_of(params);
  int tensors = 0;
  for (int i = 0; i < params.source_count && !check.violation(); ++i) {
    const Source& source = program.sources[i];
    check.holds(source.kind <= SourceKind::dimension, "unknown kind of source", -1, static_cast<int>(source.kind),
                static_cast<int>(SourceKind::dimension));
    if (source.kind == SourceKind::iota)
      check.holds(source.axis < shape.rank, "there are not so many axes to count along", -1, source.axis, shape.rank);
    if (source.kind == SourceKind::tensor) ++tensors;
  }
  check.holds(contract.input_count == tensors, "the program has another number of tensors", 0, contract.input_count,
              tensors);
  for (int i = 0; i < tensors && !check.violation(); ++i) {
    const Shape* input = contract.input(i);
    if (check.holds(input != nullptr, "an operand is missing", i, 0, 1)) check.dims_of(i, shape);
  }
  for (int k = 0; k < params.output_count && !check.violation(); ++k) {
    const Shape* output = contract.output(k);
    if (!check.holds(output != nullptr, "an operand is missing", output_operand + k, 0, 1)) break;
    check.dims_of(output_operand + k, shape);
    check.holds(is_dense(*output), "an output has gaps", output_operand + k, 0, 1);
  }
  if (check.violation()) return check.violation();

  Typing typing(check, contract, params);
  for (int s = 0; s < params.instruction_count && !check.violation(); ++s) typing.instruction(program.instructions[s]);
  for (int k = 0; k < params.output_count; ++k)
    typing.operand(params.results[k], lane_type(contract.output(k)->type), "a result has not the type of its output");
  return check.violation();
}

/// A slot for each register, and one for each source that may have to be gathered. Strides are judged as they are
/// written, whether or not an axis happens to have size 1, so that a larger dimension never needs less.
uint64_t scratch(const Contract& contract) {
  const ElementwiseParams& params = params_of(contract.params);
  const Program program = program_of(params);
  int slots = register_count(params);
  for (int i = 0, tensor = 0; i < params.source_count; ++i) {
    const Source& source = program.sources[i];
    if (source.kind == SourceKind::iota) ++slots;
    if (source.kind != SourceKind::tensor) continue;
    const Shape& input = *contract.input(tensor++);
    bool dense = size_of(input.type) == lane_bytes, scalar = dense;
    int64_t stride = 1;
    for (int axis = input.rank - 1; axis >= 0; --axis) {
      dense &= input.strides[axis] == stride;
      scalar &= input.strides[axis] == 0;
      stride *= input.dims[axis];
    }
    slots += !dense && !scalar;
  }
  return (Size(slots) * slot_bytes(element_count(*contract.output(0)))).value;
}

bool in_place(const Contract& contract, int input, int output) {
  const Shape *x = contract.input(input), *y = contract.output(output);
  return size_of(x->type) == size_of(y->type) && is_dense(*x);
}

void run(const Invocation& call) {
  const int64_t count = element_count(*call.output(0).shape);
  const auto kernel = elementwise_variants[call.isa];
  const ElementwiseParams& params = params_of(call.params);
  constexpr int64_t blocks_in_a_task = 16;
  split(call, (count + elementwise_block - 1) / elementwise_block, blocks_in_a_task,
        [&](int64_t first, int64_t last, std::byte* scratch) {
          const int64_t end = last * elementwise_block;
          kernel({&params, call.inputs, call.outputs, first * elementwise_block, end < count ? end : count, scratch});
        });
}

Isa variant(Isa ceiling) {
  return elementwise_variants.level(ceiling);
}

}  // namespace

constinit const Operator elementwise_operator{"elementwise", check, scratch, in_place, run, variant};

}  // namespace heed

#pragma once
/// Runs a program block by block, over the vectors of simd.h or scalar.h and math.h, which were included before.
///
/// A table gives each operand's place: registers lie in scratch; inputs that lie in order are read where they are;
/// others are gathered into scratch once for each block; scalars (immediates, inputs that do not move, dimensions) are
/// spread over a few vectors just before a step reads them. Each step is one indirect call for a block. Steps work on
/// whole vectors: what is left of the last block goes through small buffers in a second pass, so no byte outside the
/// operands is touched.
#include "kernels/axes.h"
#include "kernels/elementwise/program.h"
#include "kernels/elementwise/steps.h"

namespace heed::HEED_ISA {
namespace {

constexpr int vector_bytes = W * lane_bytes;
constexpr int unrolled = 4;  // vectors in a round of a step's loop

using StepFunction = void (*)(std::byte* y, const std::byte* a, const std::byte* b, const std::byte* c,
                              const ptrdiff_t (&rounds)[3], int vectors);

template <class V>
HEED_INLINE V read(const std::byte* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
HEED_INLINE I lanes_of(I a) {
  return a;
}
HEED_INLINE F lanes_of(F a) {
  return a;
}
HEED_INLINE I lanes_of(M a) {
  return bits_of(a);
}

/// y = step(a, b, c) over `vectors` vectors. An operand goes forward by its entry of `rounds` bytes in each round: a
/// scalar's is 0, and its value fills a round's vectors.
template <Step step, int operands, char from>
void run_step(std::byte* y, const std::byte* a, const std::byte* b, const std::byte* c, const ptrdiff_t (&rounds)[3],
              int vectors) {
  using V = std::conditional_t<from == 'f', F, I>;
  using First = std::conditional_t<step == Step::f_select, I, V>;
  const auto one = [&](auto i) HEED_INLINE_LAMBDA {
    constexpr int at = i * vector_bytes;
    const First x = read<First>(a + at);
    V second{}, third{};
    if constexpr (operands > 1) second = read<V>(b + at);
    if constexpr (operands > 2) third = read<V>(c + at);
    const auto result = lanes_of(compute<step>(x, second, third));
    __builtin_memcpy(y + at, &result, sizeof result);
  };
  for (; vectors >= unrolled; vectors -= unrolled) {
    unroll<unrolled>(one);
    y += unrolled * vector_bytes;
    a += rounds[0];
    if constexpr (operands > 1) b += rounds[1];
    if constexpr (operands > 2) c += rounds[2];
  }
  for (; vectors > 0; --vectors) {
    one(std::integral_constant<int, 0>{});
    y += vector_bytes;
    a += rounds[0] / unrolled;
    if constexpr (operands > 1) b += rounds[1] / unrolled;
    if constexpr (operands > 2) c += rounds[2] / unrolled;
  }
}

struct StepRow {
  StepFunction function;
  int operands;
};
constexpr StepRow step_rows[] = {
#define HEED_STEP(name, operands, from, to) {run_step<Step::name, operands, #from[0]>, operands},
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
};

/// An operand as it stands for the block at hand.
struct Place {
  const std::byte* data;
  bool scalar;
};

class Interpreter {
 public:
  explicit Interpreter(const ElementwiseArgs& args)
      : args_(args), params_(*args.params), program_(program_of(params_)) {
    const Shape& shape = *args.outputs[0].shape;
    slot_bytes_ = slot_bytes(element_count(shape));
    registers_ = register_count(params_);
    for (int i = 0; i < registers_; ++i) places_[i] = {args.scratch + i * slot_bytes_, false};
    std::byte* slot = args.scratch + registers_ * slot_bytes_;
    for (int i = 0, tensor = 0; i < params_.source_count; ++i) {
      const Source& source = program_.sources[i];
      Place& place = places_[operand::inputs + i];
      kinds_[i] = Kind::scalar;
      if (source.kind == SourceKind::dimension) {
        place = {reinterpret_cast<const std::byte*>(&source.value), true};
      } else if (source.kind == SourceKind::iota) {
        kinds_[i] = Kind::iota;
      } else {
        const Tensor& input = args.inputs[tensor++];
        inputs_[i] = &input;
        if (size_of(input.shape->type) == lane_bytes && is_dense(*input.shape)) {
          kinds_[i] = Kind::in_order;
        } else if (size_of(input.shape->type) == lane_bytes && is_scalar(*input.shape)) {
          place = {input.data, true};
        } else {
          kinds_[i] = Kind::gathered;
        }
      }
      if (kinds_[i] == Kind::iota || kinds_[i] == Kind::gathered) {
        slots_[i] = slot;
        slot += slot_bytes_;
      }
    }
    for (int i = 0; i < params_.immediate_count; ++i)
      places_[operand::immediates + i] = {reinterpret_cast<const std::byte*>(program_.immediates + i), true};
    for (int k = 0; k < params_.output_count; ++k) writers_[k] = direct_writer(k);
  }

  void run() {
    for (int64_t at = args_.first; at < args_.last; at += elementwise_block) {
      const int n = args_.last - at < elementwise_block ? static_cast<int>(args_.last - at) : elementwise_block;
      const int whole = n - n % W, rest = n - whole;
      for (int i = 0; i < params_.source_count; ++i) {
        if (kinds_[i] == Kind::iota) count_along_axis(i, at, n);
        if (kinds_[i] == Kind::gathered) gather(i, at, n);
      }
      if (whole > 0) {
        for (int i = 0; i < params_.source_count; ++i) {
          if (kinds_[i] == Kind::in_order) places_[operand::inputs + i] = {inputs_[i]->data + at * lane_bytes, false};
          if (slots_[i] != nullptr) places_[operand::inputs + i] = {slots_[i], false};
        }
        run_steps<true>(whole / W, at);
        for (int k = 0; k < params_.output_count; ++k)
          if (writers_[k] < 0) store_result(k, at, whole);
        for (int i = 0; i < registers_; ++i) places_[i].data = args_.scratch + i * slot_bytes_;
      }
      if (rest > 0) {
        alignas(64) std::byte tails[elementwise_sources][vector_bytes];
        for (int i = 0; i < params_.source_count; ++i) {
          if (kinds_[i] == Kind::in_order) {
            store(reinterpret_cast<int32_t*>(tails[i]),
                  load_first(reinterpret_cast<const int32_t*>(inputs_[i]->data) + at + whole, rest));
            places_[operand::inputs + i] = {tails[i], false};
          }
          if (slots_[i] != nullptr) places_[operand::inputs + i] = {slots_[i] + whole * lane_bytes, false};
        }
        run_steps<false>(1, at);
        for (int k = 0; k < params_.output_count; ++k) store_result(k, at + whole, rest);
      }
    }
  }

 private:
  enum class Kind : uint8_t { scalar, in_order, iota, gathered };

  /// The instruction that may write output k straight to memory: the last one into its register, if nothing after it
  /// reads an input that the output replaces. Else -1.
  int direct_writer(int k) const {
    const uint8_t result = params_.results[k];
    const Tensor& output = args_.outputs[k];
    if (result >= operand::inputs || size_of(output.shape->type) != lane_bytes) return -1;
    int writer = params_.instruction_count - 1;
    while (program_.instructions[writer].result != result) --writer;
    for (int i = 0; i < params_.source_count; ++i) {
      if (inputs_[i] == nullptr || inputs_[i]->data != output.data) continue;
      for (int later = writer + 1; later < params_.instruction_count; ++later)
        for (const uint8_t read : program_.instructions[later].operands)
          if (read == operand::inputs + i) return -1;
      for (int other = 0; other < params_.output_count; ++other)
        if (params_.results[other] == operand::inputs + i) return -1;
    }
    for (int other = 0; other < k; ++other)
      if (params_.results[other] == result) return -1;
    return writer;
  }

  template <bool direct>
  HEED_INLINE void run_steps(int vectors, int64_t at) {
    alignas(64) std::byte splats[3][unrolled * vector_bytes];
    for (int s = 0; s < params_.instruction_count; ++s) {
      const Instruction& instruction = program_.instructions[s];
      const StepRow& row = step_rows[static_cast<int>(instruction.step)];
      const std::byte* operands[3] = {};
      ptrdiff_t rounds[3] = {};
      for (int i = 0; i < row.operands; ++i) {
        const Place& place = places_[instruction.operands[i]];
        if (place.scalar) {
          const I value = splat(read<int32_t>(place.data));
          unroll<unrolled>(
              [&](auto j) HEED_INLINE_LAMBDA { __builtin_memcpy(splats[i] + j * vector_bytes, &value, sizeof value); });
          operands[i] = splats[i];
        } else {
          operands[i] = place.data;
          rounds[i] = unrolled * vector_bytes;
        }
      }
      std::byte* y = args_.scratch + instruction.result * slot_bytes_;
      if constexpr (direct) {
        for (int k = 0; k < params_.output_count; ++k)
          if (s == writers_[k]) y = args_.outputs[k].data + at * lane_bytes;
        places_[instruction.result].data = y;
      }
      row.function(y, operands[0], operands[1], operands[2], rounds, vectors);
    }
  }

  /// Elements [at, at + n) of output k from where they were computed.
  void store_result(int k, int64_t at, int n) {
    const Tensor& output = args_.outputs[k];
    const Place& place = places_[params_.results[k]];
    alignas(64) std::byte spread[vector_bytes];
    if (place.scalar) {
      const I value = splat(read<int32_t>(place.data));
      __builtin_memcpy(spread, &value, sizeof value);
    }
    const uint32_t size = size_of(output.shape->type);
    std::byte* y = output.data + at * size;
    for (int i = 0; i < n; i += W, y += W * size) {
      I lanes = read<I>(place.scalar ? spread : place.data + i * lane_bytes);
      if (output.shape->type == Type::boolean) lanes = lanes & splat(1);
      const int left = n - i;
      if (size == lane_bytes) {
        if (left >= W)
          store(reinterpret_cast<int32_t*>(y), lanes);
        else
          store_first(reinterpret_cast<int32_t*>(y), lanes, left);
      } else if (left >= W) {
        store_low(reinterpret_cast<uint8_t*>(y), lanes);
      } else {
        uint8_t bytes[W];
        store_low(bytes, lanes);
        for (int j = 0; j < left; ++j) y[j] = static_cast<std::byte>(bytes[j]);
      }
    }
  }

  /// Elements [at, at + n) of a strided or narrow input, widened to lanes.
  void gather(int i, int64_t at, int n) {
    const Shape& shape = *inputs_[i]->shape;
    const std::byte* x = inputs_[i]->data;
    auto* y = reinterpret_cast<int32_t*>(slots_[i]);
    switch (shape.type) {
      case Type::f32:
      case Type::i32:
        return gather_runs<false>(shape, reinterpret_cast<const int32_t*>(x), y, at, n);
      case Type::i8:
        return gather_runs<false>(shape, reinterpret_cast<const int8_t*>(x), y, at, n);
      case Type::u8:
        return gather_runs<false>(shape, reinterpret_cast<const uint8_t*>(x), y, at, n);
      case Type::boolean:
        return gather_runs<true>(shape, reinterpret_cast<const uint8_t*>(x), y, at, n);
    }
  }
  template <bool boolean, class T>
  static void gather_runs(const Shape& shape, const T* x, int32_t* y, int64_t at, int n) {
    const auto lanes = [](I a) HEED_INLINE_LAMBDA { return boolean ? bits_of(!equal(a, splat(0))) : a; };
    const auto lane = [](T a) HEED_INLINE_LAMBDA { return boolean ? -int32_t{a != 0} : int32_t{a}; };
    const Axes<1> axes = axes_of({&shape}, 0, shape.rank);
    const int64_t step = axes.step(0);
    axes.for_each_run(at, at + n, [&](const int64_t(&offset)[1], int64_t length) {
      const T* p = x + offset[0];
      int64_t i = 0;
      if (step == 1) {
        for (; i + W <= length; i += W) store(y + i, lanes(load(p + i)));
      } else if (step == 0) {
        for (const I value = splat(lane(*p)); i + W <= length; i += W) store(y + i, value);
      }
      for (; i < length; ++i) y[i] = lane(p[i * step]);
      y += length;
    });
  }

  /// The index along the source's axis of elements [at, at + n).
  void count_along_axis(int i, int64_t at, int n) {
    const Shape& shape = *args_.outputs[0].shape;
    const int axis = program_.sources[i].axis;
    int64_t inner = 1;
    for (int a = axis + 1; a < shape.rank; ++a) inner *= shape.dims[a];
    auto* y = reinterpret_cast<int32_t*>(slots_[i]);
    int64_t phase = at % inner;
    int32_t index = static_cast<int32_t>(at / inner % shape.dims[axis]);
    for (int j = 0; j < n; ++j) {
      y[j] = index;
      if (++phase == inner) {
        phase = 0;
        if (++index == shape.dims[axis]) index = 0;
      }
    }
  }

  const ElementwiseArgs& args_;
  const ElementwiseParams& params_;
  const Program program_;
  int64_t slot_bytes_;
  int registers_;
  Place places_[operand::immediates + elementwise_immediates];
  const Tensor* inputs_[elementwise_sources] = {};  // null where a source is no tensor
  std::byte* slots_[elementwise_sources] = {};      // null where nothing is gathered
  Kind kinds_[elementwise_sources];
  int writers_[max_outputs];
};

}  // namespace

void elementwise(const ElementwiseArgs& args) {
  Interpreter(args).run();
}

}  // namespace heed::HEED_ISA

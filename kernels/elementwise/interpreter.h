#pragma once
/// Runs a program block by block, over the vectors of simd.h or scalar.h and math.h, which were included before.
///
/// A table gives each operand's place: registers lie in scratch; inputs that lie in order are read where they are;
/// others are gathered into scratch once for each block; a scalar (an immediate, an input that does not move, a
/// dimension) fills a few vectors once for all. Each step is one indirect call for a block. Steps work on whole
/// vectors: what is left of the last block goes through small buffers in a second pass, so no byte outside the operands
/// is touched.
#include "kernels/axes.h"
#include "kernels/elementwise/program.h"
#include "kernels/elementwise/steps.h"

namespace heed::HEED_ISA {
namespace {

constexpr int vector_bytes = W * lane_bytes;
constexpr int unrolled = 4;  // vectors in a round of a step's loop

/// Where an operand's vectors are, and how many bytes a round of the loop goes forward: 0 for a scalar, which fills the
/// vectors of one round.
struct Place {
  const std::byte* data;
  ptrdiff_t round;
};
constexpr ptrdiff_t moving = unrolled * vector_bytes;

using StepFunction = void (*)(std::byte* y, const Place& a, const Place& b, const Place& c, int vectors);

template <class V>
HEED_INLINE V read(const std::byte* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
/// Not by memcpy, which g++ 12 does in halves, through memory, of vectors of integers.
template <class V>
HEED_INLINE V vector_at(const std::byte* p) {
  return load(reinterpret_cast<std::conditional_t<std::is_same_v<V, F>, const float*, const int32_t*>>(p));
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

/// y = step(a, b, c) over `vectors` vectors.
template <Step step, int operands, char from>
void run_step(std::byte* y, const Place& first, const Place& second, const Place& third, int vectors) {
  using V = std::conditional_t<from == 'f', F, I>;
  using First = std::conditional_t<step == Step::f_select, I, V>;
  const std::byte *a = first.data, *b = nullptr, *c = nullptr;
  if constexpr (operands > 1) b = second.data;
  if constexpr (operands > 2) c = third.data;
  const auto one = [&](auto i) HEED_INLINE_LAMBDA {
    constexpr int at = i * vector_bytes;
    V other[2]{};
    if constexpr (operands > 1) other[0] = vector_at<V>(b + at);
    if constexpr (operands > 2) other[1] = vector_at<V>(c + at);
    const auto result = lanes_of(compute<step>(vector_at<First>(a + at), other[0], other[1]));
    store(reinterpret_cast<std::conditional_t<std::is_same_v<decltype(result), const F>, float*, int32_t*>>(y + at),
          result);
  };
  for (; vectors >= unrolled; vectors -= unrolled) {
    unroll<unrolled>(one);
    y += moving;
    a += first.round;
    if constexpr (operands > 1) b += second.round;
    if constexpr (operands > 2) c += third.round;
  }
  for (; vectors > 0; --vectors) {
    one(std::integral_constant<int, 0>{});
    y += vector_bytes;
    a += first.round / unrolled;
    if constexpr (operands > 1) b += second.round / unrolled;
    if constexpr (operands > 2) c += third.round / unrolled;
  }
}

constexpr StepFunction step_functions[] = {
#define HEED_STEP(name, operands, from, to) run_step<Step::name, operands, #from[0]>,
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
};

class Interpreter {
 public:
  explicit Interpreter(const ElementwiseArgs& args)
      : args_(args), params_(*args.params), program_(program_of(params_)), free_(args.scratch) {
    slot_bytes_ = slot_bytes(element_count(*args.outputs[0].shape));
    const Tensor* tensor = args.inputs;
    for (int i = 0; i < params_.source_count; ++i) {
      const Source& source = program_.sources[i];
      inputs_[i] = source.kind == SourceKind::tensor ? tensor++ : nullptr;
      kinds_[i] = kind_of(i);
      if (kinds_[i] == Kind::scalar)
        fill(operand::inputs + i, inputs_[i] ? inputs_[i]->data : reinterpret_cast<const std::byte*>(&source.value));
      if (kinds_[i] == Kind::iota || kinds_[i] == Kind::gathered) {
        slots_[i] = free_;
        free_ += slot_bytes_;
      }
    }
    for (int i = 0; i < params_.immediate_count; ++i)
      fill(operand::immediates + i, reinterpret_cast<const std::byte*>(program_.immediates + i));
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
      if (whole > 0) run_whole(at, whole);
      if (rest > 0) run_rest(at, whole, rest);
    }
  }

 private:
  enum class Kind : uint8_t { scalar, in_order, iota, gathered };

  Kind kind_of(int i) const {
    const SourceKind kind = program_.sources[i].kind;
    if (kind == SourceKind::dimension) return Kind::scalar;
    if (kind == SourceKind::iota) return Kind::iota;
    const Shape& shape = *inputs_[i]->shape;
    if (size_of(shape.type) != lane_bytes) return Kind::gathered;
    return is_dense(shape) ? Kind::in_order : is_scalar(shape) ? Kind::scalar : Kind::gathered;
  }

  /// The operand is one value.
  void fill(int operand, const std::byte* value) {
    std::byte* to = scalars_[operand - operand::inputs];
    const I vector = splat(read<int32_t>(value));
    unroll<unrolled>([&](auto j)
                         HEED_INLINE_LAMBDA { __builtin_memcpy(to + j * vector_bytes, &vector, sizeof vector); });
    places_[operand] = {to, 0};
  }

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

  /// Elements [at, at + n), n a multiple of W.
  void run_whole(int64_t at, int n) {
    for (int i = 0; i < params_.source_count; ++i) {
      if (kinds_[i] == Kind::scalar) continue;
      const bool in_order = kinds_[i] == Kind::in_order;
      places_[operand::inputs + i] = {in_order ? inputs_[i]->data + at * lane_bytes : slots_[i], moving};
    }
    run_steps<true>(at, n / W);
    for (int k = 0; k < params_.output_count; ++k)
      if (writers_[k] < 0) store_result(k, at, n);
  }

  /// The last `rest` elements, fewer than W, of the block that starts at `at`.
  void run_rest(int64_t at, int whole, int rest) {
    alignas(64) std::byte buffers[elementwise_sources][vector_bytes];
    for (int i = 0; i < params_.source_count; ++i) {
      if (kinds_[i] == Kind::scalar) continue;
      places_[operand::inputs + i] = {buffers[i], moving};
      if (kinds_[i] == Kind::in_order) {
        const auto* x = reinterpret_cast<const int32_t*>(inputs_[i]->data) + at + whole;
        store(reinterpret_cast<int32_t*>(buffers[i]), load_first(x, rest));
      } else {
        places_[operand::inputs + i].data = slots_[i] + whole * lane_bytes;
      }
    }
    run_steps<false>(at, 1);
    for (int k = 0; k < params_.output_count; ++k) store_result(k, at + whole, rest);
  }

  template <bool direct>
  HEED_INLINE void run_steps(int64_t at, int vectors) {
    const Instruction* const program = program_.instructions;
    for (int s = 0; s < params_.instruction_count; ++s) {
      const auto& [step, result, from, reserved] = program[s];
      std::byte* y = free_ + result * slot_bytes_;
      if constexpr (direct) {
        for (int k = 0; k < params_.output_count; ++k)
          if (s == writers_[k]) y = args_.outputs[k].data + at * lane_bytes;
      }
      step_functions[static_cast<int>(step)](y, places_[from[0]], places_[from[1]], places_[from[2]], vectors);
      places_[result] = {y, moving};
    }
  }

  /// Elements [at, at + n) of output k from where they were computed.
  void store_result(int k, int64_t at, int n) {
    const Tensor& output = args_.outputs[k];
    const auto [from, round] = places_[params_.results[k]];
    const uint32_t size = size_of(output.shape->type);
    std::byte* y = output.data + at * size;
    for (int i = 0; i < n; i += W, y += W * size) {
      I lanes = vector_at<I>(from + i / W * (round / unrolled));
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
  std::byte* free_;  // scratch: the slots of sources, then those of registers
  int64_t slot_bytes_;
  int writers_[max_outputs];
  // By source:
  Kind kinds_[elementwise_sources];
  const Tensor* inputs_[elementwise_sources];  // null where it is no tensor
  std::byte* slots_[elementwise_sources];      // of iota and gathered inputs
  // By operand; of 256, so that `none` has a place too:
  Place places_[operand::none + 1];
  alignas(64) std::byte scalars_[elementwise_sources + elementwise_immediates][moving];
};

}  // namespace

void elementwise(const ElementwiseArgs& args) {
  Interpreter(args).run();
}

}  // namespace heed::HEED_ISA

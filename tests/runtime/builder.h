#pragma once
/// Makes .heed files by hand, so that the runtime is tested without the converter, under qemu too. Every field may be
/// set to nonsense before bytes() writes the file: that is how the refusals are tested.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/heed_generated.h"
#include "heed/model.h"
#include "kernels/attention/attention.h"
#include "kernels/attention_i8/attention_i8.h"
#include "kernels/conv/conv.h"
#include "kernels/conv_i8/conv_i8.h"
#include "kernels/copy/copy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gather/gather.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/reduce/reduce.h"
#include "kernels/rope/rope.h"
#include "kernels/softmax/softmax.h"

namespace heed::test {

/// Bytes that begin at a multiple of 64.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* memory, size_t) { ::operator delete (memory, std::align_val_t{64}); }
  bool operator==(const Aligned&) const { return true; }
};
using Bytes = std::vector<std::byte, Aligned<std::byte>>;

struct Builder {
  struct Constraint {
    format::Relation relation;
    uint32_t left, right;
    std::string text;
  };
  struct Dimension {
    std::string name;
    int32_t lower, upper, start;
  };
  struct Buffer {
    uint32_t offset, capacity, first, last;  // offset in units of 64
  };
  struct Tensor {
    std::string name;
    Type type;
    std::vector<uint32_t> dims, strides;
    uint32_t offset = 0;
    int32_t buffer = -1;
    uint32_t constant = 0;  // units of 64 from the start of `constants`
    uint32_t constant_bytes = 0;
  };
  struct Operator {
    std::string name;
    OperatorKind kind;
    std::vector<std::byte>
        params;  // the kernel's own struct; sizes that depend on dimensions hold an expression's number
    std::vector<int32_t> inputs, outputs;
    int32_t scratch = -1;
    uint32_t macs = 0;
    std::vector<uint32_t> absorbed{};
  };
  struct Border {
    uint32_t tensor;
    std::string name;
    uint8_t type = 1;
  };
  struct Check {
    uint32_t input, bound;
  };
  struct Mark {
    uint32_t operator_index;
    std::string name;
  };

  uint32_t version = static_cast<uint32_t>(format::Version::current);
  std::vector<Dimension> dimensions;
  std::vector<format::ExpressionNode> expressions;
  std::vector<Constraint> constraints;
  std::vector<Buffer> buffers;
  std::vector<Tensor> tensors;
  std::vector<Operator> operators;
  std::vector<Border> inputs, outputs;
  std::vector<Check> checks;
  std::vector<Mark> marks;
  std::vector<std::string> node_names;
  std::vector<uint8_t> hash;
  std::vector<std::byte> constants;  // follows the flatbuffer
  struct State {
    std::string name;
    uint32_t tensor, constant = 0, constant_bytes = 0;  // units of 64 from the start of `constants`
  };
  struct Position {
    int32_t lower, upper;
    uint32_t step, expressions, tensors;
  };
  uint64_t state = 0;  // bytes: the buffers before it
  std::vector<State> states;
  std::optional<Position> position;
  int64_t at_position = 0;  // of direct()
  std::optional<uint64_t> workspace, lower_bound, file_bytes;

  // --- Adding ---

  /// The number of a constant expression.
  uint32_t size(int32_t value) { return expression(format::Expression::constant, value, 0); }
  uint32_t expression(format::Expression op, int32_t a, int32_t b) {
    for (uint32_t i = 0; i < expressions.size(); ++i)
      if (expressions[i].op() == op && expressions[i].a() == a && expressions[i].b() == b) return i;
    expressions.emplace_back(op, a, b);
    return static_cast<uint32_t>(expressions.size() - 1);
  }
  /// The expression of a new dimension.
  uint32_t dimension(std::string name, int32_t lower, int32_t upper, int32_t start) {
    dimensions.push_back({std::move(name), lower, upper, start});
    return expression(format::Expression::dimension, static_cast<int32_t>(dimensions.size() - 1), 0);
  }

  /// Offsets are given by place().
  int32_t buffer(uint32_t bytes, uint32_t first, uint32_t last) {
    buffers.push_back({0, (bytes + 63) / 64 * 64, first, last});
    return static_cast<int32_t>(buffers.size() - 1);
  }

  int32_t tensor(std::string name, Type type, std::vector<uint32_t> dims, int32_t in_buffer) {
    if (expressions.empty()) size(0);
    tensors.push_back({std::move(name), type, std::move(dims), {}, size(0), in_buffer});
    return static_cast<int32_t>(tensors.size() - 1);
  }
  int32_t view(std::string name, int32_t of, std::vector<uint32_t> dims, std::vector<uint32_t> strides,
               uint32_t offset) {
    Tensor copy = tensors[static_cast<size_t>(of)];
    copy.name = std::move(name);
    copy.dims = std::move(dims);
    copy.strides = std::move(strides);
    copy.offset = offset;
    tensors.push_back(std::move(copy));
    return static_cast<int32_t>(tensors.size() - 1);
  }
  template <class T>
  int32_t constant(std::string name, Type type, std::vector<uint32_t> dims, const std::vector<T>& values) {
    const int32_t number = tensor(std::move(name), type, std::move(dims), -1);
    constants.resize((constants.size() + 63) / 64 * 64);
    tensors.back().constant = static_cast<uint32_t>(constants.size() / 64);
    tensors.back().constant_bytes = static_cast<uint32_t>(values.size() * sizeof(T));
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    constants.insert(constants.end(), bytes, bytes + values.size() * sizeof(T));
    return number;
  }

  void input(int32_t tensor) {
    inputs.push_back({static_cast<uint32_t>(tensor), tensors[static_cast<size_t>(tensor)].name});
  }
  void output(int32_t tensor) {
    outputs.push_back({static_cast<uint32_t>(tensor), tensors[static_cast<size_t>(tensor)].name});
  }

  template <class Params>
  static std::vector<std::byte> pack(const Params& params) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&params);
    return {bytes, bytes + sizeof params};
  }
  static std::vector<std::byte> program(const std::vector<Source>& sources, const std::vector<uint32_t>& immediates,
                                        const std::vector<Instruction>& instructions,
                                        const std::vector<uint8_t>& results) {
    ElementwiseParams head{static_cast<uint8_t>(sources.size()),
                           static_cast<uint8_t>(immediates.size()),
                           static_cast<uint8_t>(instructions.size()),
                           static_cast<uint8_t>(results.size()),
                           {}};
    for (size_t i = 0; i < results.size() && i < max_outputs; ++i) head.results[i] = results[i];
    std::vector<std::byte> bytes = pack(head);
    const auto append = [&](const auto& rows) {
      const auto* begin = reinterpret_cast<const std::byte*>(rows.data());
      bytes.insert(bytes.end(), begin, begin + rows.size() * sizeof(rows[0]));
    };
    append(sources);
    append(immediates);
    append(instructions);
    return bytes;
  }

  /// Adds an operator with, where wanted, a scratch buffer of its own (operators are added in order, buffers too).
  Operator& add(std::string name, OperatorKind kind, std::vector<std::byte> params, std::vector<int32_t> in,
                std::vector<int32_t> out, uint32_t scratch = 0) {
    const auto index = static_cast<uint32_t>(operators.size());
    operators.push_back({std::move(name), kind, std::move(params), std::move(in), std::move(out)});
    operators.back().macs = size(0);
    if (scratch != 0) operators.back().scratch = buffer(scratch, index, index);
    return operators.back();
  }

  /// Sorts the buffers and gives each the lowest place that is free while it lives.
  void place() {
    std::vector<int32_t> order(buffers.size()), where(buffers.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return buffers[static_cast<size_t>(a)].first < buffers[static_cast<size_t>(b)].first;
    });
    std::vector<Buffer> sorted;
    for (const int32_t old : order) {
      where[static_cast<size_t>(old)] = static_cast<int32_t>(sorted.size());
      Buffer next = buffers[static_cast<size_t>(old)];
      next.offset = 0;
      for (bool moved = true; moved;) {
        moved = false;
        for (const Buffer& other : sorted) {
          const bool together = other.last >= next.first && next.last >= other.first;
          const bool apart =
              next.offset + next.capacity / 64 <= other.offset || other.offset + other.capacity / 64 <= next.offset;
          if (together && !apart) {
            next.offset = other.offset + other.capacity / 64;
            moved = true;
          }
        }
      }
      sorted.push_back(next);
    }
    buffers = sorted;
    for (Tensor& row : tensors)
      if (row.buffer >= 0) row.buffer = where[static_cast<size_t>(row.buffer)];
    for (Operator& row : operators)
      if (row.scratch >= 0) row.scratch = where[static_cast<size_t>(row.scratch)];
  }

  /// Bytes of the largest sum of buffers alive at one operator.
  uint64_t alive() const {
    uint64_t most = 0;
    for (const Buffer& at : buffers) {
      uint64_t sum = 0;
      for (const Buffer& buffer : buffers)
        if (buffer.first <= at.first && at.first <= buffer.last && uint64_t{buffer.offset} * 64 >= state)
          sum += buffer.capacity;
      most = std::max(most, sum);
    }
    return most;
  }

  // --- Writing ---

  Bytes bytes() const {
    // All fields are written, so that the length does not depend on where the constants begin.
    const size_t head = flatbuffer(0, 0).size();
    const size_t start = (head + 63) / 64 * 64;
    const uint64_t total = constants.empty() ? head : start + constants.size();
    Bytes file(static_cast<size_t>(total));
    const std::vector<uint8_t> flat = flatbuffer(static_cast<uint32_t>(start / 64), total);
    std::memcpy(file.data(), flat.data(), flat.size());
    if (!constants.empty()) std::memcpy(file.data() + start, constants.data(), constants.size());
    return file;
  }

 private:
  static flatbuffers::Offset<void> params(flatbuffers::FlatBufferBuilder& fbb, const Operator& row) {
    const auto as = [&]<class Params>(Params params) {
      std::memcpy(&params, row.params.data(), sizeof params);
      return params;
    };
    switch (row.kind) {
      case OperatorKind::elementwise: {
        const auto& head = *reinterpret_cast<const ElementwiseParams*>(row.params.data());
        const Program program = program_of(head);
        std::vector<format::ElementwiseSource> sources;
        for (int i = 0; i < head.source_count; ++i) {
          const Source& source = program.sources[i];
          sources.emplace_back(static_cast<format::SourceKind>(source.kind), source.axis,
                               static_cast<uint32_t>(source.value));
        }
        const std::vector<uint32_t> immediates(program.immediates, program.immediates + head.immediate_count);
        std::vector<format::ElementwiseInstruction> instructions;
        for (int i = 0; i < head.instruction_count; ++i) {
          const Instruction& step = program.instructions[i];
          instructions.emplace_back(static_cast<uint8_t>(step.step), step.result, step.operands[0], step.operands[1],
                                    step.operands[2]);
        }
        const std::vector<uint8_t> results(head.results, head.results + std::min<int>(head.output_count, max_outputs));
        return format::CreateElementwise(fbb, fbb.CreateVectorOfStructs(sources), fbb.CreateVector(immediates),
                                         fbb.CreateVectorOfStructs(instructions), fbb.CreateVector(results))
            .Union();
      }
      case OperatorKind::copy:
        return format::CreateCopy(fbb).Union();
      case OperatorKind::gather: {
        const auto p = as(GatherParams{});
        return format::CreateGather(fbb, p.axis, p.packed, p.fill).Union();
      }
      case OperatorKind::matmul: {
        const auto p = as(MatmulParams{});
        return format::CreateMatmul(fbb, static_cast<format::Activation>(p.activation), p.packed).Union();
      }
      case OperatorKind::attention:
      case OperatorKind::attention_i8: {
        const auto p = as(AttentionParams{});
        const auto form = format::CreateAttention(fbb, p.scale, p.causal, p.window, p.block_rows,
                                                  static_cast<uint32_t>(p.offset), p.window_left, p.window_right);
        return row.kind == OperatorKind::attention ? form.Union() : format::CreateAttentionI8(fbb, form).Union();
      }
      case OperatorKind::normalize: {
        const auto p = as(NormalizeParams{});
        return format::CreateNormalize(fbb, static_cast<format::Normalization>(p.kind), p.epsilon).Union();
      }
      case OperatorKind::softmax:
        return format::CreateSoftmax(fbb, as(SoftmaxParams{}).log).Union();
      case OperatorKind::reduce: {
        const auto p = as(ReduceParams{});
        return format::CreateReduce(fbb, static_cast<format::Reduction>(p.kind), p.axes, p.last_index).Union();
      }
      case OperatorKind::recurrent:
      case OperatorKind::recurrent_i8: {
        const auto p = as(RecurrentParams{});
        const auto form =
            format::CreateRecurrent(fbb, static_cast<format::Cell>(p.cell), static_cast<format::Direction>(p.direction),
                                    p.linear_before_reset, p.hidden, p.chunk);
        return row.kind == OperatorKind::recurrent ? form.Union() : format::CreateRecurrentI8(fbb, form).Union();
      }
      case OperatorKind::conv: {
        const auto p = as(ConvParams{});
        const format::Window window(p.window.kernel, p.window.strides, p.window.dilations, p.window.before);
        return format::CreateConv(fbb, static_cast<format::Activation>(p.activation), p.depthwise, p.block, p.groups,
                                  &window)
            .Union();
      }
      case OperatorKind::pool: {
        const auto p = as(PoolParams{});
        const format::Window window(p.window.kernel, p.window.strides, p.window.dilations, p.window.before);
        const format::Counted counted(p.count_before, p.count_after);
        return format::CreatePool(fbb, static_cast<format::Pooling>(p.kind), &window, &counted).Union();
      }
      case OperatorKind::rope:
        return format::CreateRope(fbb, static_cast<format::Pairing>(as(RopeParams{}).pairing)).Union();
      case OperatorKind::quantize:
        return format::CreateQuantize(fbb).Union();
      case OperatorKind::matmul_i8: {
        const auto p = as(MatmulI8Params{});
        return format::CreateMatmulI8(fbb, static_cast<format::Activation>(p.activation), p.block_rows).Union();
      }
      case OperatorKind::conv_i8: {
        const auto p = as(ConvI8Params{});
        const format::Window window(p.window.kernel, p.window.strides, p.window.dilations, p.window.before);
        return format::CreateConvI8(fbb, static_cast<format::Activation>(p.activation), p.block_rows, p.groups, &window)
            .Union();
      }
      case OperatorKind::count:
        break;
    }
    return format::CreateCopy(fbb).Union();
  }

  std::vector<uint8_t> flatbuffer(uint32_t first_constant, uint64_t total) const {
    flatbuffers::FlatBufferBuilder fbb;
    fbb.ForceDefaults(true);
    const auto all = [&](const auto& rows, auto&& make) {
      std::vector<decltype(make(rows[0]))> offsets;
      for (const auto& row : rows) offsets.push_back(make(row));
      return fbb.CreateVector(offsets);
    };
    const auto dimension_rows = all(dimensions, [&](const Dimension& row) {
      return format::CreateDimension(fbb, fbb.CreateString(row.name), row.lower, row.upper, row.start);
    });
    const auto constraint_rows = all(constraints, [&](const Constraint& row) {
      return format::CreateConstraint(fbb, row.relation, row.left, row.right, fbb.CreateString(row.text));
    });
    std::vector<format::Buffer> buffer_rows;
    uint64_t end = 0;
    for (const Buffer& row : buffers) {
      buffer_rows.emplace_back(row.offset, row.capacity, row.first, row.last);
      end = std::max(end, uint64_t{row.offset} * 64 + row.capacity);
    }
    const auto tensor_rows = all(tensors, [&](const Tensor& row) {
      return format::CreateTensor(fbb, fbb.CreateString(row.name), static_cast<format::Type>(row.type),
                                  fbb.CreateVector(row.dims), fbb.CreateVector(row.strides), row.offset, row.buffer,
                                  row.buffer == -1 ? first_constant + row.constant : 0, row.constant_bytes);
    });
    const auto operator_rows = all(operators, [&](const Operator& row) {
      return format::CreateOperator(fbb, fbb.CreateString(row.name), fbb.CreateVector(row.absorbed),
                                    fbb.CreateVector(row.inputs), fbb.CreateVector(row.outputs),
                                    static_cast<format::Params>(static_cast<int>(row.kind) + 1), params(fbb, row),
                                    row.scratch, row.macs);
    });
    const auto border = [&](const Border& row) {
      return format::CreateBorder(fbb, row.tensor, fbb.CreateString(row.name),
                                  static_cast<format::BorderType>(row.type));
    };
    const auto input_rows = all(inputs, border), output_rows = all(outputs, border);
    const auto check_rows =
        all(checks, [&](const Check& row) { return format::CreateIndexCheck(fbb, row.input, row.bound); });
    const auto mark_rows = all(marks, [&](const Mark& row) {
      return format::CreateMark(fbb, row.operator_index, fbb.CreateString(row.name), fbb.CreateString("q"),
                                fbb.CreateString("k"));
    });
    const std::vector<flatbuffers::Offset<format::Fusion>> fusion_rows{
        format::CreateFusion(fbb, fbb.CreateString("attention"), 1)};
    const auto names = all(node_names, [&](const std::string& row) { return fbb.CreateString(row); });
    const auto state_rows = all(states, [&](const State& row) {
      return format::CreateState(fbb, fbb.CreateString(row.name), fbb.CreateString("next"), row.tensor,
                                 first_constant + row.constant, row.constant_bytes);
    });
    flatbuffers::Offset<format::Position> position_row;
    if (position)
      position_row =
          format::CreatePosition(fbb, fbb.CreateString("past"), position->lower, position->upper, position->upper + 1,
                                 position->step, position->expressions, position->tensors);
    const auto producer = fbb.CreateString("tests");
    format::FinishModelBuffer(
        fbb, format::CreateModel(fbb, version, producer, dimension_rows, fbb.CreateVectorOfStructs(expressions),
                                 constraint_rows, fbb.CreateVectorOfStructs(buffer_rows), tensor_rows, operator_rows,
                                 input_rows, output_rows, check_rows, mark_rows, fbb.CreateVector(fusion_rows), names,
                                 workspace.value_or(end - state), lower_bound.has_value() ? *lower_bound : alive(),
                                 file_bytes.value_or(total), fbb.CreateVector(hash), state, state_rows, position_row));
    return {fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize()};
  }
};

}  // namespace heed::test

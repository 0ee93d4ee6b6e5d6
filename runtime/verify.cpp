// What can be said of a file without the dimensions' values. Each check stands once, in the order of the schema; the
// time is linear in the file's tables, and no byte of a constant is read.
#include <bit>

#include "format/heed_generated.h"
#include "heed/model.h"
#include "kernels/elementwise/elementwise.h"
#include "tables.h"

namespace heed {
namespace {

using enum Code;
using enum Limit;

template <class Vector>
uint32_t size(const Vector* vector) {
  return vector == nullptr ? 0 : vector->size();
}

std::string_view text(const flatbuffers::String* string) {
  return string == nullptr ? "" : string->string_view();
}

/// The status with the name of what it concerns.
Status at(Status status, std::string_view where, int64_t operator_index = -1, int64_t tensor_index = -1) {
  status.where = where;
  status.operator_index = static_cast<int32_t>(operator_index);
  status.tensor_index = static_cast<int32_t>(tensor_index);
  return status;
}

class Verification {
 public:
  explicit Verification(std::span<const std::byte> file)
      : file_(file), model_(*format::GetModel(file.data())), budget_(file.size()) {}

  Status all() {
    HEED_ENSURE(model_.file_bytes() == file_.size(), corrupt, "the file's length is not the one it states",
                static_cast<int64_t>(file_.size()), static_cast<int64_t>(model_.file_bytes()));
    HEED_TRY(counts());
    HEED_TRY(dimensions());
    HEED_TRY(position());
    HEED_TRY(expressions());
    HEED_TRY(constraints());
    HEED_TRY(buffers());
    HEED_TRY(tensors());
    HEED_TRY(operators());
    HEED_TRY(borders());
    HEED_TRY(states());
    return notes();
  }

 private:
  Status counts() {
    struct {
      const char* what;
      uint32_t found, most;
    } const rows[] = {
        {"too many dimensions", size(model_.dimensions()), limits::dimensions},
        {"too many expressions", size(model_.expressions()), limits::expressions},
        {"too many constraints", size(model_.constraints()), limits::constraints},
        {"too many buffers", size(model_.buffers()), limits::buffers},
        {"too many tensors", size(model_.tensors()), limits::tensors},
        {"too many operators", size(model_.operators()), limits::operators},
        {"too many inputs", size(model_.inputs()), limits::borders},
        {"too many outputs", size(model_.outputs()), limits::borders},
        {"too many index checks", size(model_.index_checks()), limits::index_checks},
        {"too many marks", size(model_.marks()), limits::marks},
        {"too many fusions", size(model_.fusions()), limits::fusions},
        {"too many states", size(model_.states()), limits::states},
    };
    for (const auto& row : rows) HEED_ENSURE(row.found <= row.most, corrupt, row.what, row.found, row.most, at_most);
    return {};
  }

  /// Tables may share their vectors, so that a small file could ask for much work: all vectors together are at most the
  /// file.
  Status spend(uint64_t bytes) {
    HEED_ENSURE(bytes <= budget_, corrupt, "the tables are larger than the file");
    budget_ -= bytes;
    return {};
  }

  Status expression(uint32_t index) const {
    HEED_ENSURE(index < size(model_.expressions()), corrupt, "no such expression", index, size(model_.expressions()),
                below);
    return {};
  }

  Status dimensions() const {
    for (uint32_t i = 0; i < size(model_.dimensions()); ++i) {
      const auto& dimension = *model_.dimensions()->Get(i);
      const auto check = [&]() -> Status {
        HEED_ENSURE(dimension.lower() >= 0, corrupt, "a dimension's lower bound is negative", dimension.lower(), 0,
                    at_least);
        HEED_ENSURE(dimension.lower() <= dimension.start(), corrupt, "a dimension starts below its lower bound",
                    dimension.start(), dimension.lower(), at_least);
        HEED_ENSURE(dimension.start() <= dimension.upper(), corrupt, "a dimension starts above its upper bound",
                    dimension.start(), dimension.upper(), at_most);
        return {};
      };
      HEED_TRY(at(check(), text(dimension.name())));
    }
    return {};
  }

  Status position() const {
    if (model_.position() == nullptr) return {};
    const auto& row = *model_.position();
    const auto check = [&]() -> Status {
      HEED_ENSURE(row.lower() >= 0, corrupt, "the position's lower bound is negative", row.lower(), 0, at_least);
      HEED_ENSURE(row.lower() <= row.upper(), corrupt, "the position's bounds are crossed", row.lower(), row.upper(),
                  at_most);
      HEED_ENSURE(row.expressions() <= size(model_.expressions()), corrupt, "no such expression", row.expressions(),
                  size(model_.expressions()), at_most);
      HEED_ENSURE(row.tensors() <= size(model_.tensors()), corrupt, "no such tensor", row.tensors(),
                  size(model_.tensors()), at_most);
      HEED_ENSURE(row.step() < row.expressions(), corrupt, "what a run adds depends on the position", row.step(),
                  row.expressions(), below);
      const int64_t each = int64_t{size(model_.expressions())} - row.expressions() + size(model_.tensors()) -
                           row.tensors() + size(model_.operators());
      const int64_t positions = int64_t{row.upper()} - row.lower() + 1;
      HEED_ENSURE(each == 0 || positions <= limits::position_checks / each, corrupt, "there are too many positions",
                  positions, limits::position_checks / each, at_most);
      return {};
    };
    return at(check(), text(row.name()));
  }

  Status expressions() const {
    for (uint32_t i = 0; i < size(model_.expressions()); ++i) {
      const auto& node = *model_.expressions()->Get(i);
      switch (node.op()) {
        case format::Expression::constant:
          break;
        case format::Expression::dimension:
          HEED_ENSURE(static_cast<uint32_t>(node.a()) < size(model_.dimensions()), corrupt,
                      "an expression names no dimension", node.a(), size(model_.dimensions()), below);
          break;
        case format::Expression::position:
          HEED_ENSURE(model_.position() != nullptr, corrupt, "an expression names a position that there is not");
          HEED_ENSURE(i >= model_.position()->expressions(), corrupt,
                      "an expression of the position stands among the others", i, model_.position()->expressions(),
                      at_least);
          break;
        default:
          HEED_ENSURE(node.op() <= format::Expression::MAX, corrupt, "no such kind of expression",
                      static_cast<int64_t>(node.op()), static_cast<int64_t>(format::Expression::MAX), at_most);
          HEED_ENSURE(static_cast<uint32_t>(node.a()) < i, corrupt, "an expression refers forward", node.a(), i, below);
          HEED_ENSURE(static_cast<uint32_t>(node.b()) < i, corrupt, "an expression refers forward", node.b(), i, below);
      }
    }
    return {};
  }

  Status constraints() const {
    for (uint32_t i = 0; i < size(model_.constraints()); ++i) {
      const auto& constraint = *model_.constraints()->Get(i);
      const auto check = [&]() -> Status {
        HEED_ENSURE(constraint.relation() <= format::Relation::MAX, corrupt, "no such relation",
                    static_cast<int64_t>(constraint.relation()), static_cast<int64_t>(format::Relation::MAX), at_most);
        HEED_TRY(expression(constraint.left()));
        return expression(constraint.right());
      };
      HEED_TRY(at(check(), text(constraint.text())));
    }
    return {};
  }

  Status buffers() const {
    const uint64_t operators = size(model_.operators()), state = model_.state();
    HEED_ENSURE(state % 64 == 0, corrupt, "the state is no multiple of 64", static_cast<int64_t>(state % 64), 0);
    HEED_ENSURE(state <= uint64_t{UINT32_MAX} * 64, corrupt, "the state is too large", static_cast<int64_t>(state / 64),
                UINT32_MAX, at_most);
    uint64_t end = state;
    uint32_t previous = 0;
    for (uint32_t i = 0; i < size(model_.buffers()); ++i) {
      const format::Buffer& buffer = *model_.buffers()->Get(i);
      HEED_ENSURE(buffer.first() >= previous, corrupt, "buffers are not in the order of their first operators",
                  buffer.first(), previous, at_least);
      HEED_ENSURE(buffer.first() <= buffer.last(), corrupt, "a buffer's last operator is before its first",
                  buffer.last(), buffer.first(), at_least);
      HEED_ENSURE(buffer.last() <= operators, corrupt, "a buffer outlives the operators", buffer.last(),
                  static_cast<int64_t>(operators), at_most);
      HEED_ENSURE(buffer.capacity() % 64 == 0, corrupt, "a buffer's capacity is no multiple of 64",
                  buffer.capacity() % 64, 0);
      const uint64_t last_byte = uint64_t{buffer.offset()} * 64 + buffer.capacity();
      if (in_state(buffer)) {
        HEED_ENSURE(last_byte <= state, corrupt, "a buffer lies in both state and workspace",
                    static_cast<int64_t>(last_byte), static_cast<int64_t>(state), at_most);
        HEED_ENSURE(buffer.first() == 0, corrupt, "a state does not live from the start", buffer.first(), 0);
        HEED_ENSURE(buffer.last() == operators, corrupt, "a state does not live to the end", buffer.last(),
                    static_cast<int64_t>(operators));
      }
      end = last_byte > end ? last_byte : end;
      previous = buffer.first();
    }
    HEED_ENSURE(model_.workspace() == end - state, corrupt, "the workspace is not the largest end of a buffer",
                static_cast<int64_t>(model_.workspace()), static_cast<int64_t>(end - state));
    HEED_ENSURE(model_.lower_bound() <= model_.workspace(), corrupt, "the lower bound is above the workspace",
                static_cast<int64_t>(model_.lower_bound()), static_cast<int64_t>(model_.workspace()), at_most);
    return {};
  }

  bool in_state(const format::Buffer& buffer) const { return uint64_t{buffer.offset()} * 64 < model_.state(); }

  Status tensor(const format::Tensor& tensor) {
    HEED_ENSURE(tensor.type() <= format::Type::MAX, corrupt, "no such element type",
                static_cast<int64_t>(tensor.type()), static_cast<int64_t>(format::Type::MAX), at_most);
    const uint32_t rank = size(tensor.dims());
    HEED_ENSURE(rank <= max_rank, corrupt, "the rank is too high", rank, max_rank, at_most);
    for (uint32_t axis = 0; axis < rank; ++axis) HEED_TRY(expression(tensor.dims()->Get(axis)));
    const uint32_t strides = size(tensor.strides());
    HEED_ENSURE(strides == 0 || strides == rank, corrupt, "there are not as many strides as dimensions", strides, rank);
    for (uint32_t axis = 0; axis < strides; ++axis) HEED_TRY(expression(tensor.strides()->Get(axis)));
    HEED_TRY(expression(tensor.offset()));
    if (tensor.buffer() == -1) {
      const uint64_t end = uint64_t{tensor.constant()} * 64 + tensor.constant_bytes();
      HEED_ENSURE(end <= file_.size(), corrupt, "a constant ends behind the file", static_cast<int64_t>(end),
                  static_cast<int64_t>(file_.size()), at_most);
    } else {
      HEED_ENSURE(static_cast<uint32_t>(tensor.buffer()) < size(model_.buffers()), corrupt, "no such buffer",
                  tensor.buffer(), size(model_.buffers()), below);
    }
    return {};
  }

  Status independent(const format::Tensor& tensor) const {
    const uint32_t first = model_.position()->expressions();
    uint32_t last = tensor.offset();
    for (const auto* sizes : {tensor.dims(), tensor.strides()})
      for (uint32_t i = 0; i < size(sizes); ++i) last = sizes->Get(i) > last ? sizes->Get(i) : last;
    HEED_ENSURE(last < first, corrupt, "a tensor of the position stands among the others", last, first, below);
    return {};
  }

  Status tensors() {
    for (uint32_t i = 0; i < size(model_.tensors()); ++i) {
      const auto& row = *model_.tensors()->Get(i);
      HEED_TRY(at(tensor(row), text(row.name()), -1, i));
      if (model_.position() != nullptr && i < model_.position()->tensors())
        HEED_TRY(at(independent(row), text(row.name()), -1, i));
    }
    return {};
  }

  /// An operand is a tensor whose buffer is alive at operator `index`, or absent.
  Status operand(int32_t number, uint32_t index, bool output) const {
    if (number == -1) return {};
    HEED_ENSURE(static_cast<uint32_t>(number) < size(model_.tensors()), corrupt, "no such tensor", number,
                size(model_.tensors()), below);
    const auto check = [&]() -> Status {
      const int32_t storage = model_.tensors()->Get(static_cast<uint32_t>(number))->buffer();
      if (storage == -1) {
        HEED_ENSURE(!output, corrupt, "an operator writes a constant");
        return {};
      }
      const format::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(storage));
      HEED_ENSURE(buffer.first() <= index, corrupt, "an operand's buffer is not yet alive", index, buffer.first(),
                  at_least);
      HEED_ENSURE(index <= buffer.last(), corrupt, "an operand's buffer is no longer alive", index, buffer.last(),
                  at_most);
      return {};
    };
    Status status = check();
    status.tensor_index = number;
    return status;
  }

  Status one_operator(const format::Operator& row, uint32_t index) {
    HEED_TRY(spend(sizeof(int32_t) * (uint64_t{size(row.inputs())} + size(row.outputs()) + size(row.absorbed()))));
    HEED_ENSURE(size(row.inputs()) <= max_inputs, corrupt, "too many inputs", size(row.inputs()), max_inputs, at_most);
    HEED_ENSURE(size(row.outputs()) <= max_outputs, corrupt, "too many outputs", size(row.outputs()), max_outputs,
                at_most);
    for (uint32_t i = 0; i < size(row.inputs()); ++i) HEED_TRY(operand(row.inputs()->Get(i), index, false));
    bool writes = false;
    for (uint32_t i = 0; i < size(row.outputs()); ++i) {
      HEED_TRY(operand(row.outputs()->Get(i), index, true));
      writes = writes || row.outputs()->Get(i) != -1;
    }
    HEED_ENSURE(writes, corrupt, "an operator has no outputs");
    for (uint32_t i = 0; i < size(row.absorbed()); ++i)
      HEED_ENSURE(row.absorbed()->Get(i) < size(model_.node_names()), corrupt, "no such node name",
                  row.absorbed()->Get(i), size(model_.node_names()), below);
    HEED_TRY(scratch(row, index));
    HEED_TRY(expression(row.macs()));
    return params(row);
  }

  Status scratch(const format::Operator& row, uint32_t index) const {
    if (row.scratch() == -1) return {};
    HEED_ENSURE(static_cast<uint32_t>(row.scratch()) < size(model_.buffers()), corrupt, "no such buffer", row.scratch(),
                size(model_.buffers()), below);
    const format::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(row.scratch()));
    HEED_ENSURE(buffer.first() == index, corrupt, "scratch does not begin with its operator", buffer.first(), index);
    HEED_ENSURE(buffer.last() == index, corrupt, "scratch does not end with its operator", buffer.last(), index);
    const auto shared = [&](const flatbuffers::Vector<int32_t>* operands) {
      for (uint32_t i = 0; i < size(operands); ++i)
        if (const int32_t number = operands->Get(i); number != -1)
          if (model_.tensors()->Get(static_cast<uint32_t>(number))->buffer() == row.scratch()) return true;
      return false;
    };
    HEED_ENSURE(!shared(row.inputs()) && !shared(row.outputs()), corrupt, "an operand lies in its operator's scratch");
    return {};
  }

  /// What the tables need to hold the params; the rest is the operator's contract, checked once the shapes are known.
  Status params(const format::Operator& row) {
    using format::Params;
    HEED_ENSURE(row.params_type() != Params::NONE && row.params_type() <= Params::MAX, corrupt, "no such operator",
                static_cast<int64_t>(row.params_type()), static_cast<int64_t>(Params::MAX));
    if (row.params_type() == Params::Attention) return expression(row.params_as_Attention()->offset());
    if (row.params_type() == Params::AttentionI8) return expression(row.params_as_AttentionI8()->form()->offset());
    if (row.params_type() != Params::Elementwise) return {};

    const format::Elementwise& program = *row.params_as_Elementwise();
    const uint32_t sources = size(program.sources()), immediates = size(program.immediates());
    const uint32_t instructions = size(program.instructions()), results = size(program.results());
    HEED_ENSURE(sources <= elementwise_sources, corrupt, "a program has too many sources", sources, elementwise_sources,
                at_most);
    HEED_ENSURE(immediates <= elementwise_immediates, corrupt, "a program has too many immediates", immediates,
                elementwise_immediates, at_most);
    HEED_ENSURE(instructions <= elementwise_steps, corrupt, "a program has too many steps", instructions,
                elementwise_steps, at_most);
    HEED_ENSURE(results <= max_outputs, corrupt, "a program has too many results", results, max_outputs, at_most);
    HEED_TRY(spend(sources * sizeof(format::ElementwiseSource) + immediates * sizeof(uint32_t) +
                   instructions * sizeof(format::ElementwiseInstruction)));
    for (uint32_t i = 0; i < sources; ++i)
      if (program.sources()->Get(i)->kind() == format::SourceKind::dimension)
        HEED_TRY(expression(program.sources()->Get(i)->expression()));
    return {};
  }

  Status operators() {
    for (uint32_t i = 0; i < size(model_.operators()); ++i) {
      const auto& row = *model_.operators()->Get(i);
      Status status = one_operator(row, i);
      HEED_TRY(at(status, text(row.name()), i, status.tensor_index));
    }
    return {};
  }

  /// Inputs are alive from before the first operator, outputs to the end; both are dense, for the caller's spans.
  Status border(const format::Border& row, bool output) const {
    HEED_ENSURE(row.tensor() < size(model_.tensors()), corrupt, "no such tensor", row.tensor(), size(model_.tensors()),
                below);
    const auto& tensor = *model_.tensors()->Get(row.tensor());
    HEED_ENSURE(size(tensor.strides()) == 0, corrupt, "an input or output has strides");
    HEED_ENSURE(tensor.buffer() != -1, corrupt, "an input or output is a constant");
    const format::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(tensor.buffer()));
    if (output)
      HEED_ENSURE(buffer.last() == size(model_.operators()), corrupt, "an output does not live to the end",
                  buffer.last(), size(model_.operators()));
    else
      HEED_ENSURE(buffer.first() == 0, corrupt, "an input does not live from the start", buffer.first(), 0);
    HEED_ENSURE(row.type() <= format::BorderType::MAX, corrupt, "no such type of a model's input or output",
                static_cast<int64_t>(row.type()), static_cast<int64_t>(format::BorderType::MAX), at_most);
    return {};
  }

  Status borders() const {
    for (uint32_t i = 0; i < size(model_.inputs()); ++i) {
      const auto& row = *model_.inputs()->Get(i);
      HEED_TRY(at(border(row, false), text(row.name()), -1, row.tensor()));
    }
    for (uint32_t i = 0; i < size(model_.outputs()); ++i) {
      const auto& row = *model_.outputs()->Get(i);
      HEED_TRY(at(border(row, true), text(row.name()), -1, row.tensor()));
    }
    for (uint32_t i = 0; i < size(model_.index_checks()); ++i) {
      const auto& row = *model_.index_checks()->Get(i);
      HEED_ENSURE(row.input() < size(model_.inputs()), corrupt, "an index check is of no input", row.input(),
                  size(model_.inputs()), below);
      const auto& input = *model_.inputs()->Get(row.input());
      const auto type = model_.tensors()->Get(input.tensor())->type();
      if (type != format::Type::i32)
        return at(refuse(corrupt, "an index check is of an input that is not i32"), text(input.name()));
      HEED_TRY(expression(row.bound()));
    }
    return {};
  }

  Status state(const format::State& row) const {
    HEED_ENSURE(row.tensor() < size(model_.tensors()), corrupt, "no such tensor", row.tensor(), size(model_.tensors()),
                below);
    const auto& tensor = *model_.tensors()->Get(row.tensor());
    HEED_ENSURE(tensor.buffer() != -1, corrupt, "a state is a constant");
    const format::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(tensor.buffer()));
    HEED_ENSURE(in_state(buffer), corrupt, "a state lies in the workspace");
    const uint64_t end = uint64_t{row.constant()} * 64 + row.constant_bytes();
    HEED_ENSURE(end <= file_.size(), corrupt, "a constant ends behind the file", static_cast<int64_t>(end),
                static_cast<int64_t>(file_.size()), at_most);
    HEED_ENSURE(row.constant_bytes() <= buffer.capacity(), corrupt, "a state's first value is larger than the state",
                row.constant_bytes(), buffer.capacity(), at_most);
    return {};
  }

  Status states() const {
    for (uint32_t i = 0; i < size(model_.states()); ++i) {
      const auto& row = *model_.states()->Get(i);
      HEED_TRY(at(state(row), text(row.name()), -1, row.tensor()));
    }
    return {};
  }

  Status notes() const {
    for (uint32_t i = 0; i < size(model_.marks()); ++i) {
      const auto& mark = *model_.marks()->Get(i);
      HEED_ENSURE(mark.operator_index() < size(model_.operators()), corrupt, "a mark is of no operator",
                  mark.operator_index(), size(model_.operators()), below);
    }
    HEED_ENSURE(size(model_.content_hash()) == 0 || size(model_.content_hash()) == 32, corrupt,
                "the content hash has a wrong length", size(model_.content_hash()), 32);
    return {};
  }

  std::span<const std::byte> file_;
  const format::Model& model_;
  uint64_t budget_;
};

}  // namespace

Status verify(std::span<const std::byte> file) {
  static_assert(std::endian::native == std::endian::little, "files and constants are little-endian");
  const auto address = reinterpret_cast<uintptr_t>(file.data());
  HEED_ENSURE(address % 64 == 0, misaligned, "the file does not begin at a multiple of 64",
              static_cast<int64_t>(address % 64), 0);
  // A model without anything still has a root, a table and its vtable.
  HEED_ENSURE(file.size() >= 16 && format::ModelBufferHasIdentifier(file.data()), not_a_model,
              "the identifier HEED is missing");
  // flatbuffers takes less than 2 GiB; the constants, which it need not see, may end later. Each table takes 4 bytes at
  // least.
  const size_t window = file.size() < (size_t{1} << 30) ? file.size() : size_t{1} << 30;
  constexpr size_t most_tables = limits::tensors + 2 * limits::operators + 2 * limits::borders + limits::dimensions +
                                 limits::constraints + limits::index_checks + limits::marks + limits::fusions +
                                 limits::states + 2;
  const size_t tables = window / 4 < most_tables ? window / 4 : most_tables;
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(file.data()), window, 8,
                                 static_cast<flatbuffers::uoffset_t>(tables));
  // The version first: to read the rest, this build must know what it means.
  HEED_ENSURE(verifier.VerifyBuffer<format::Head>(format::ModelIdentifier()), corrupt,
              "the flatbuffer is not well-formed");
  const uint32_t version = flatbuffers::GetRoot<format::Head>(file.data())->version();
  constexpr auto current = static_cast<uint32_t>(format::Version::current);
  HEED_ENSURE(version == current, other_version, "the file is written for another version of heed", version, current);
  HEED_ENSURE(format::VerifyModelBuffer(verifier), corrupt, "the flatbuffer is not well-formed");
  return Verification(file).all();
}

}  // namespace heed

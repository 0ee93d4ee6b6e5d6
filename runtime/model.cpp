// A verified file read: accessors, and the session's tables made from it. Nothing is checked here that verify() has
// checked.
#include "heed/model.h"

#include <algorithm>
#include <cstring>

#include "format/heed_generated.h"
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
#include "kernels/recurrent_i8/recurrent_i8.h"
#include "kernels/reduce/reduce.h"
#include "kernels/rope/rope.h"
#include "kernels/softmax/softmax.h"
#include "tables.h"
#include "writer.h"

namespace heed {
namespace {

using enum Code;
using enum Limit;

// The schema's numbers are the kernels' own.
#define HEED_OPERATOR(name, Name) \
  static_assert(static_cast<int>(format::Params::Name) == static_cast<int>(OperatorKind::name) + 1);
#include "kernels/operators.inc"
#undef HEED_OPERATOR
static_assert(static_cast<int>(format::Type::MAX) == static_cast<int>(Type::u8));
static_assert(static_cast<int>(format::Expression::MAX) == static_cast<int>(ExpressionNode::Op::position));
static_assert(static_cast<int>(format::Activation::MAX) == activation_count - 1);
static_assert(static_cast<int>(format::Reduction::MAX) == static_cast<int>(Reduction::arg_min));
static_assert(static_cast<int>(format::Cell::MAX) == static_cast<int>(Cell::rnn));
static_assert(static_cast<int>(format::Direction::MAX) == static_cast<int>(Direction::both));
static_assert(static_cast<int>(format::Pooling::MAX) == static_cast<int>(Pooling::sum));
static_assert(static_cast<int>(format::Pairing::MAX) == static_cast<int>(Pairing::interleaved));
static_assert(sizeof(format::Window) == sizeof(Window));
static_assert(static_cast<int>(format::SourceKind::MAX) == static_cast<int>(SourceKind::dimension));

const format::Model& root(std::span<const std::byte> file) {
  return *format::GetModel(file.data());
}

template <class Vector>
uint32_t size(const Vector* vector) {
  return vector == nullptr ? 0 : vector->size();
}

std::string_view view(const flatbuffers::String* string) {
  // The characters are followed by a zero: a Status may point at them.
  return string == nullptr ? std::string_view("") : std::string_view(string->c_str(), string->size());
}

constexpr uint32_t round_up(uint32_t value, uint32_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// --- Params
// -------------------------------------------------------------------------------------------------------------

OperatorKind kind_of(const format::Operator& row) {
  return static_cast<OperatorKind>(static_cast<int>(row.params_type()) - 1);
}

ElementwiseParams head_of(const format::Elementwise& program) {
  ElementwiseParams head{};
  head.source_count = static_cast<uint8_t>(size(program.sources()));
  head.immediate_count = static_cast<uint8_t>(size(program.immediates()));
  head.instruction_count = static_cast<uint8_t>(size(program.instructions()));
  head.output_count = static_cast<uint8_t>(size(program.results()));
  for (uint32_t i = 0; i < size(program.results()); ++i) head.results[i] = program.results()->Get(i);
  return head;
}

/// The form of attention in float or int8; null of other operators.
const format::Attention* attention_of(const format::Operator& row) {
  const auto* i8 = row.params_as_AttentionI8();
  return i8 != nullptr ? i8->form() : row.params_as_Attention();
}

uint32_t params_bytes(const format::Operator& row) {
  static constexpr uint32_t fixed[] = {
#define HEED_OPERATOR(name, Name) sizeof(Name##Params),
#include "kernels/operators.inc"
#undef HEED_OPERATOR
  };
  const OperatorKind kind = kind_of(row);
  return kind == OperatorKind::elementwise ? bytes_of(head_of(*row.params_as_Elementwise()))
                                           : fixed[static_cast<size_t>(kind)];
}

template <class Params>
void store(const Params& params, std::byte* at) {
  std::memcpy(at, &params, sizeof params);
}

Window window_of(const format::Window& row) {
  Window window;
  for (uint16_t axis = 0; axis < 3; ++axis) {
    window.kernel[axis] = row.kernel()->Get(axis);
    window.strides[axis] = row.strides()->Get(axis);
    window.dilations[axis] = row.dilations()->Get(axis);
    window.before[axis] = row.before()->Get(axis);
  }
  return window;
}

/// Writes what no dimension changes; what dimensions change is 0 until evaluate().
void decode_params(const format::Operator& row, std::byte* at) {
  switch (kind_of(row)) {
    case OperatorKind::elementwise: {
      const auto& program = *row.params_as_Elementwise();
      const ElementwiseParams head = head_of(program);
      store(head, at);
      at += sizeof head;
      for (uint32_t i = 0; i < head.source_count; ++i, at += sizeof(Source)) {
        const auto& source = *program.sources()->Get(i);
        store(Source{static_cast<SourceKind>(source.kind()), source.axis(), {}, 0}, at);
      }
      for (uint32_t i = 0; i < head.immediate_count; ++i, at += sizeof(uint32_t))
        store(program.immediates()->Get(i), at);
      for (uint32_t i = 0; i < head.instruction_count; ++i, at += sizeof(Instruction)) {
        const auto& step = *program.instructions()->Get(i);
        store(Instruction{static_cast<Step>(step.step()), step.result(), {step.a(), step.b(), step.c()}, {}}, at);
      }
      break;
    }
    case OperatorKind::copy:
      store(CopyParams{}, at);
      break;
    case OperatorKind::gather:
      store(GatherParams{row.params_as_Gather()->axis(), row.params_as_Gather()->packed(),
                         row.params_as_Gather()->fill()},
            at);
      break;
    case OperatorKind::matmul: {
      const auto& matmul = *row.params_as_Matmul();
      store(MatmulParams{static_cast<Activation>(matmul.activation()), matmul.packed(), {}}, at);
      break;
    }
    case OperatorKind::attention:
    case OperatorKind::attention_i8: {
      const auto& attention = *attention_of(row);
      store(AttentionParams{attention.scale(), attention.causal(), attention.window(), attention.block_rows(), 0,
                            attention.window_left(), attention.window_right()},
            at);
      break;
    }
    case OperatorKind::normalize: {
      const auto& normalize = *row.params_as_Normalize();
      store(NormalizeParams{static_cast<Normalization>(normalize.kind()), {}, normalize.epsilon()}, at);
      break;
    }
    case OperatorKind::softmax:
      store(SoftmaxParams{row.params_as_Softmax()->log(), {}}, at);
      break;
    case OperatorKind::reduce: {
      const auto& reduce = *row.params_as_Reduce();
      store(ReduceParams{static_cast<Reduction>(reduce.kind()), reduce.axes(), reduce.last_index(), 0}, at);
      break;
    }
    case OperatorKind::recurrent:
    case OperatorKind::recurrent_i8: {
      const auto* i8 = row.params_as_RecurrentI8();
      const auto& recurrent = i8 != nullptr ? *i8->form() : *row.params_as_Recurrent();
      store(RecurrentParams{static_cast<Cell>(recurrent.cell()), static_cast<Direction>(recurrent.direction()),
                            recurrent.linear_before_reset(), 0, recurrent.hidden(), recurrent.chunk()},
            at);
      break;
    }
    case OperatorKind::conv: {
      const auto& conv = *row.params_as_Conv();
      store(ConvParams{static_cast<Activation>(conv.activation()), conv.depthwise(), conv.block(), 0, conv.groups(),
                       window_of(*conv.window())},
            at);
      break;
    }
    case OperatorKind::pool: {
      const auto& pool = *row.params_as_Pool();
      PoolParams params{static_cast<Pooling>(pool.kind()), {}, window_of(*pool.window()), {}, {}};
      for (uint16_t axis = 0; axis < 3; ++axis) {
        params.count_before[axis] = pool.counted()->before()->Get(axis);
        params.count_after[axis] = pool.counted()->after()->Get(axis);
      }
      store(params, at);
      break;
    }
    case OperatorKind::rope:
      store(RopeParams{static_cast<Pairing>(row.params_as_Rope()->pairing()), {}}, at);
      break;
    case OperatorKind::quantize:
      store(QuantizeParams{}, at);
      break;
    case OperatorKind::matmul_i8: {
      const auto& matmul = *row.params_as_MatmulI8();
      store(MatmulI8Params{static_cast<Activation>(matmul.activation()), matmul.block_rows(), {}}, at);
      break;
    }
    case OperatorKind::conv_i8: {
      const auto& conv = *row.params_as_ConvI8();
      store(ConvI8Params{static_cast<Activation>(conv.activation()), conv.block_rows(), {}, conv.groups(),
                         window_of(*conv.window())},
            at);
      break;
    }
    case OperatorKind::count:
      break;
  }
}

Status to_int32(int64_t value, int32_t& result) {
  HEED_ENSURE(value >= INT32_MIN, corrupt, "a value does not fit 32 bits", value, INT32_MIN, at_least);
  HEED_ENSURE(value <= INT32_MAX, corrupt, "a value does not fit 32 bits", value, INT32_MAX, at_most);
  result = static_cast<int32_t>(value);
  return {};
}

/// Writes what dimensions change.
Status evaluate_params(const format::Operator& row, std::span<const int64_t> values, std::byte* at) {
  switch (kind_of(row)) {
    case OperatorKind::elementwise: {
      const auto& program = *row.params_as_Elementwise();
      auto* sources = reinterpret_cast<Source*>(at + sizeof(ElementwiseParams));
      for (uint32_t i = 0; i < size(program.sources()); ++i)
        if (sources[i].kind == SourceKind::dimension)
          HEED_TRY(to_int32(values[program.sources()->Get(i)->expression()], sources[i].value));
      return {};
    }
    case OperatorKind::attention:
    case OperatorKind::attention_i8:
      return to_int32(values[attention_of(row)->offset()], reinterpret_cast<AttentionParams*>(at)->offset);
    default:
      return {};
  }
}

// --- Expressions
// --------------------------------------------------------------------------------------------------------

Status apply(format::Expression op, int64_t a, int64_t b, int64_t& result) {
  bool overflow = false;
  switch (op) {
    case format::Expression::add:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case format::Expression::subtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case format::Expression::multiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case format::Expression::divide:
    case format::Expression::modulo: {
      HEED_ENSURE(b > 0, corrupt, "an expression divides by a number below 1", b, 1, at_least);
      const int64_t rest = a % b < 0 ? a % b + b : a % b;
      result = op == format::Expression::modulo ? rest : (a < 0 && rest != 0 ? a / b - 1 : a / b);
      break;
    }
    case format::Expression::minimum:
      result = a < b ? a : b;
      break;
    case format::Expression::maximum:
      result = a > b ? a : b;
      break;
    default:
      break;
  }
  HEED_ENSURE(!overflow, corrupt, "an expression overflows 64 bits", a, b);
  return {};
}

Status evaluate_expressions(const format::Model& model, Tables& tables, uint32_t begin, uint32_t end) {
  const auto values = tables.all_values();
  const auto dimensions = tables.current_dimensions();
  for (uint32_t i = begin; i < end; ++i) {
    const auto& node = *model.expressions()->Get(i);
    switch (node.op()) {
      case format::Expression::constant:
        values[i] = node.a();
        break;
      case format::Expression::dimension:
        values[i] = dimensions[static_cast<uint32_t>(node.a())];
        break;
      case format::Expression::position:
        values[i] = tables.position;
        break;
      default:
        HEED_TRY(apply(node.op(), values[static_cast<uint32_t>(node.a())], values[static_cast<uint32_t>(node.b())],
                       values[i]));
    }
  }
  return {};
}

/// The first expression, and the first tensor, that may depend on the position.
uint32_t first_expression(const format::Model& model) {
  return model.position() == nullptr ? size(model.expressions()) : model.position()->expressions();
}
uint32_t first_tensor(const format::Model& model) {
  return model.position() == nullptr ? size(model.tensors()) : model.position()->tensors();
}

/// The constraints that depend on the position, or the others.
Status check_constraints(const format::Model& model, Tables& tables, bool stepped) {
  const auto values = tables.all_values();
  for (uint32_t i = 0; i < size(model.constraints()); ++i) {
    const auto& constraint = *model.constraints()->Get(i);
    if (stepped != (std::max(constraint.left(), constraint.right()) >= first_expression(model))) continue;
    const int64_t left = values[constraint.left()], right = values[constraint.right()];
    const bool holds = constraint.relation() == format::Relation::equal ? left == right : left <= right;
    if (holds) continue;
    Status status = stepped ? refuse(state_full, "the state has no room for another run", left, right)
                            : refuse(constraint_broken, "the dimensions break a constraint of the model", left, right);
    status.where = view(constraint.text());
    return status;
  }
  return {};
}

// --- Tensors
// ------------------------------------------------------------------------------------------------------------

Status evaluate_tensor(const format::Model& model, const format::Tensor& tensor, std::span<const int64_t> values,
                       TensorRecord& record) {
  Shape& shape = record.shape;
  shape = {};
  shape.type = static_cast<Type>(tensor.type());
  shape.rank = static_cast<uint8_t>(size(tensor.dims()));
  shape.constant = tensor.buffer() == -1;
  const int64_t element = size_of(shape.type);

  // Axes of size 0 count as 1, so that loops over the other axes are bounded too.
  int64_t count = 1;
  bool empty = false;
  for (int axis = 0; axis < shape.rank; ++axis)
    empty = empty || values[tensor.dims()->Get(static_cast<uint32_t>(axis))] == 0;
  const bool dense = empty || size(tensor.strides()) == 0;  // no stride of the file's where there is no element
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    const int64_t dim = values[tensor.dims()->Get(static_cast<uint32_t>(axis))];
    HEED_ENSURE(dim >= 0, corrupt, "a dimension is negative", dim, 0, at_least);
    HEED_ENSURE(dim <= max_elements, corrupt, "a dimension is too large", dim, max_elements, at_most);
    shape.dims[axis] = static_cast<int32_t>(dim);
    if (dense)
      shape.strides[axis] = static_cast<int32_t>(count);
    else
      HEED_TRY(to_int32(values[tensor.strides()->Get(static_cast<uint32_t>(axis))], shape.strides[axis]));
    count *= dim == 0 ? 1 : dim;
    HEED_ENSURE(count <= max_elements, corrupt, "a tensor has too many elements", count, max_elements, at_most);
  }

  const int64_t capacity = tensor.buffer() == -1
                               ? int64_t{tensor.constant_bytes()}
                               : int64_t{model.buffers()->Get(static_cast<uint32_t>(tensor.buffer()))->capacity()};
  const int64_t offset = values[tensor.offset()];
  HEED_ENSURE(offset >= 0, corrupt, "a tensor begins before its storage", offset, 0, at_least);
  HEED_ENSURE(offset <= capacity / element, corrupt, "a tensor begins behind its storage", offset, capacity / element,
              at_most);
  int64_t lowest = offset, highest = offset;
  for (int axis = 0; axis < shape.rank && !empty; ++axis) {
    const int64_t reach = int64_t{shape.dims[axis] - 1} * shape.strides[axis];
    (reach < 0 ? lowest : highest) += reach;
    HEED_ENSURE(lowest >= 0, corrupt, "a tensor reaches before its storage", lowest, 0, at_least);
    HEED_ENSURE(highest < capacity / element, corrupt, "a tensor is larger than its storage", highest + 1,
                capacity / element, at_most);
  }
  if (!empty)
    HEED_ENSURE(offset < capacity / element, corrupt, "a tensor is larger than its storage", offset + 1,
                capacity / element, at_most);

  record.buffer = tensor.buffer();
  const uint32_t start = tensor.buffer() == -1 ? tensor.constant()
                                               : model.buffers()->Get(static_cast<uint32_t>(tensor.buffer()))->offset();
  record.offset = int64_t{start} * 64 + offset * element;
  return {};
}

Status evaluate_bound(int64_t bound) {
  HEED_ENSURE(bound >= 0, corrupt, "the bound of an index check is negative", bound, 0, at_least);
  HEED_ENSURE(bound <= INT32_MAX, corrupt, "the bound of an index check does not fit 32 bits", bound, INT32_MAX,
              at_most);
  return {};
}

void write_expression(const format::Model& model, uint32_t index, int binding, int depth, Writer& out) {
  if (out.full()) return;
  const auto& node = *model.expressions()->Get(index);
  const auto child = [&](int32_t number, int needed) {
    write_expression(model, static_cast<uint32_t>(number), needed, depth + 1, out);
  };
  const auto infix = [&](const char* sign, int level, int right) {
    if (binding > level) out << "(";
    child(node.a(), level);
    out << sign;
    child(node.b(), right);
    if (binding > level) out << ")";
  };
  if (depth > 64) {
    out << "...";
    return;
  }
  switch (node.op()) {
    case format::Expression::constant:
      out << node.a();
      break;
    case format::Expression::dimension:
      out << view(model.dimensions()->Get(static_cast<uint32_t>(node.a()))->name());
      break;
    case format::Expression::add:
      infix(" + ", 1, 1);
      break;
    case format::Expression::subtract:
      infix(" - ", 1, 2);
      break;
    case format::Expression::multiply:
      infix("*", 2, 2);
      break;
    case format::Expression::divide:
      infix("/", 2, 3);
      break;
    case format::Expression::modulo:
      infix("%", 2, 3);
      break;
    case format::Expression::position:
      out << view(model.position()->name());
      break;
    case format::Expression::minimum:
    case format::Expression::maximum:
      out << (node.op() == format::Expression::minimum ? "min(" : "max(");
      child(node.a(), 0);
      out << ", ";
      child(node.b(), 0);
      out << ")";
      break;
  }
}

Status evaluate_tensors(const format::Model& model, Tables& tables, uint32_t begin, uint32_t end) {
  const auto tensors = tables.all_tensors();
  for (uint32_t i = begin; i < end; ++i) {
    const auto& row = *model.tensors()->Get(i);
    if (Status status = evaluate_tensor(model, row, tables.all_values(), tensors[i]); !status.ok()) {
      status.tensor_index = static_cast<int32_t>(i);
      status.where = view(row.name());
      return status;
    }
  }
  return {};
}

/// Of the index checks that depend on the position, or of the others.
Status evaluate_bounds(const format::Model& model, Tables& tables, bool stepped) {
  for (const CheckRecord& check : tables.all_checks()) {
    if (stepped != (check.bound >= first_expression(model))) continue;
    if (Status status = evaluate_bound(tables.all_values()[check.bound]); !status.ok()) {
      status.tensor_index = static_cast<int32_t>(check.tensor);
      status.where = view(model.inputs()->Get(check.input)->name());
      return status;
    }
  }
  return {};
}

/// Of the operators whose params depend on the position, or of the others.
Status evaluate_params(const format::Model& model, Tables& tables, bool stepped) {
  const auto operators = tables.all_operators();
  for (uint32_t i = 0; i < operators.size(); ++i) {
    if (stepped != (operators[i].stepped_params != 0)) continue;
    const auto& row = *model.operators()->Get(i);
    if (Status status = evaluate_params(row, tables.all_values(), tables.params_at(operators[i].params));
        !status.ok()) {
      status.operator_index = static_cast<int32_t>(i);
      status.where = view(row.name());
      return status;
    }
  }
  return {};
}

bool has_stepped_params(const format::Operator& row, uint32_t first) {
  if (const auto* attention = attention_of(row)) return attention->offset() >= first;
  if (const auto* program = row.params_as_Elementwise())
    for (uint32_t i = 0; i < size(program->sources()); ++i)
      if (const auto& source = *program->sources()->Get(i);
          source.kind() == format::SourceKind::dimension && source.expression() >= first)
        return true;
  return false;
}

Port port(const format::Model& model, const format::Border& row) {
  const auto& tensor = *model.tensors()->Get(row.tensor());
  return {view(row.name()), static_cast<uint8_t>(row.type()), static_cast<Type>(tensor.type()),
          static_cast<uint8_t>(size(tensor.dims())), row.tensor()};
}

}  // namespace

// --- Tables
// -------------------------------------------------------------------------------------------------------------

Tables layout(std::span<const std::byte> file) {
  const format::Model& model = root(file);
  Tables tables{};
  uint32_t end = sizeof(Tables);
  const auto place = [&](uint32_t count, uint32_t bytes) {
    const Tables::Part part{end, count};
    end = round_up(end + count * bytes, 8);
    return part;
  };
  tables.operators = place(size(model.operators()), sizeof(OperatorRecord));
  tables.tensors = place(size(model.tensors()), sizeof(TensorRecord));
  tables.values = place(size(model.expressions()), sizeof(int64_t));
  tables.checks = place(size(model.index_checks()), sizeof(CheckRecord));
  tables.outputs = place(size(model.outputs()), sizeof(uint32_t));
  tables.dimensions = place(2 * size(model.dimensions()), sizeof(int32_t));
  tables.live = place(size(model.buffers()) + 1, sizeof(uint32_t));
  uint32_t params = 0;
  for (uint32_t i = 0; i < size(model.operators()); ++i)
    params += round_up(params_bytes(*model.operators()->Get(i)), 8);
  tables.params = place(params, 1);
  return tables;
}

void decode(std::span<const std::byte> file, Tables& tables) {
  const format::Model& model = root(file);
  uint32_t params = tables.params.offset;
  const auto operators = tables.all_operators();
  for (uint32_t i = 0; i < operators.size(); ++i) {
    const auto& row = *model.operators()->Get(i);
    OperatorRecord& record = operators[i];
    record = {};
    record.kind = kind_of(row);
    record.input_count = static_cast<uint8_t>(size(row.inputs()));
    record.output_count = static_cast<uint8_t>(size(row.outputs()));
    uint16_t* operand = record.operands;
    const auto number = [](int32_t tensor) { return tensor == -1 ? absent : static_cast<uint16_t>(tensor); };
    for (uint32_t k = 0; k < record.input_count; ++k) *operand++ = number(row.inputs()->Get(k));
    for (uint32_t k = 0; k < record.output_count; ++k) *operand++ = number(row.outputs()->Get(k));
    for (const uint16_t* k = record.operands; k != operand; ++k)
      if (*k != absent && *k >= first_tensor(model)) record.stepped_shapes = 1;
    record.stepped_params = has_stepped_params(row, first_expression(model));
    if (row.scratch() != -1) {
      const auto& buffer = *model.buffers()->Get(static_cast<uint32_t>(row.scratch()));
      record.scratch = buffer.offset();
      record.scratch_bytes = buffer.capacity();
    }
    record.params = params;
    decode_params(row, tables.params_at(params));
    params += round_up(params_bytes(row), 8);
  }
  const auto checks = tables.all_checks();
  for (uint32_t i = 0; i < checks.size(); ++i) {
    const auto& row = *model.index_checks()->Get(i);
    checks[i] = {model.inputs()->Get(row.input())->tensor(), row.bound(), row.input()};
  }
  const auto outputs = tables.all_outputs();
  for (uint32_t i = 0; i < outputs.size(); ++i) outputs[i] = model.outputs()->Get(i)->tensor();
  const auto dimensions = tables.current_dimensions();
  for (uint32_t i = 0; i < dimensions.size(); ++i) dimensions[i] = model.dimensions()->Get(i)->start();
}

Status evaluate(std::span<const std::byte> file, Tables& tables) {
  const format::Model& model = root(file);
  HEED_TRY(evaluate_expressions(model, tables, 0, first_expression(model)));
  HEED_TRY(check_constraints(model, tables, false));
  if (model.position() != nullptr) {
    const int64_t step = tables.all_values()[model.position()->step()];
    HEED_ENSURE(step >= 0, corrupt, "a run takes positions away", step, 0, Limit::at_least);
    const int64_t most = INT32_MAX - model.position()->upper();
    HEED_ENSURE(step <= most, corrupt, "a run adds too many positions", step, most, Limit::at_most);
  }
  HEED_TRY(evaluate_tensors(model, tables, 0, first_tensor(model)));
  HEED_TRY(evaluate_bounds(model, tables, false));
  return evaluate_params(model, tables, false);
}

Status evaluate_position(std::span<const std::byte> file, Tables& tables) {
  const format::Model& model = root(file);
  HEED_TRY(evaluate_expressions(model, tables, first_expression(model), size(model.expressions())));
  HEED_TRY(check_constraints(model, tables, true));
  HEED_TRY(evaluate_tensors(model, tables, first_tensor(model), size(model.tensors())));
  HEED_TRY(evaluate_bounds(model, tables, true));
  return evaluate_params(model, tables, true);
}

void evaluate_inputs(std::span<const std::byte> file, Tables& tables) {
  const format::Model& model = root(file);
  if (model.position() == nullptr || tables.position > model.position()->upper()) return;
  (void)evaluate_expressions(model, tables, first_expression(model), size(model.expressions()));
  if (!check_constraints(model, tables, true).ok()) return;
  for (uint32_t i = 0; i < size(model.inputs()); ++i)
    if (const uint32_t tensor = model.inputs()->Get(i)->tensor(); tensor >= first_tensor(model))
      (void)evaluate_tensors(model, tables, tensor, tensor + 1);
}

// --- Model
// --------------------------------------------------------------------------------------------------------------

Result<Model> Model::load(std::span<const std::byte> bytes) {
  if (Status status = verify(bytes); !status.ok()) return status;
  const format::Model& model = root(bytes);
  Model result;
  result.bytes_ = bytes;
  Memory& memory = result.memory_;
  memory.state = model.state();
  memory.workspace = model.workspace();
  memory.lower_bound = model.lower_bound();
  memory.tables = layout(bytes).bytes();
  uint64_t first_constant = bytes.size();
  for (uint32_t i = 0; i < size(model.tensors()); ++i) {
    const auto& tensor = *model.tensors()->Get(i);
    if (tensor.buffer() == -1) first_constant = std::min(first_constant, uint64_t{tensor.constant()} * 64);
  }
  memory.constants = bytes.size() - first_constant;
  for (uint32_t i = 0; i < size(model.operators()); ++i)
    if (const int32_t scratch = model.operators()->Get(i)->scratch(); scratch != -1)
      memory.per_thread =
          std::max(memory.per_thread, uint64_t{model.buffers()->Get(static_cast<uint32_t>(scratch))->capacity()});
  if (memory.total() > SIZE_MAX / 2)
    return refuse(too_large, "the model needs more memory than this target has addresses for",
                  static_cast<int64_t>(memory.total()), static_cast<int64_t>(SIZE_MAX / 2));
  return result;
}

uint32_t Model::input_count() const {
  return size(root(bytes_).inputs());
}
uint32_t Model::output_count() const {
  return size(root(bytes_).outputs());
}
uint32_t Model::dimension_count() const {
  return size(root(bytes_).dimensions());
}
uint32_t Model::operator_count() const {
  return size(root(bytes_).operators());
}
uint32_t Model::tensor_count() const {
  return size(root(bytes_).tensors());
}
uint32_t Model::buffer_count() const {
  return size(root(bytes_).buffers());
}
uint32_t Model::expression_count() const {
  return size(root(bytes_).expressions());
}
uint32_t Model::constraint_count() const {
  return size(root(bytes_).constraints());
}
uint32_t Model::index_check_count() const {
  return size(root(bytes_).index_checks());
}
uint32_t Model::mark_count() const {
  return size(root(bytes_).marks());
}
uint32_t Model::fusion_count() const {
  return size(root(bytes_).fusions());
}
uint32_t Model::state_count() const {
  return size(root(bytes_).states());
}

Port Model::input(uint32_t index) const {
  return port(root(bytes_), *root(bytes_).inputs()->Get(index));
}
Port Model::output(uint32_t index) const {
  return port(root(bytes_), *root(bytes_).outputs()->Get(index));
}

Dimension Model::dimension(uint32_t index) const {
  const auto& row = *root(bytes_).dimensions()->Get(index);
  return {view(row.name()), row.lower(), row.upper(), row.start()};
}

OperatorInfo Model::operator_info(uint32_t index) const {
  const auto& row = *root(bytes_).operators()->Get(index);
  OperatorInfo info{};
  info.name = view(row.name());
  info.kind = kind_of(row);
  info.input_count = static_cast<uint8_t>(size(row.inputs()));
  info.output_count = static_cast<uint8_t>(size(row.outputs()));
  for (uint32_t i = 0; i < info.input_count; ++i) info.inputs[i] = row.inputs()->Get(i);
  for (uint32_t i = 0; i < info.output_count; ++i) info.outputs[i] = row.outputs()->Get(i);
  info.scratch = row.scratch();
  info.macs = row.macs();
  info.absorbed_count = size(row.absorbed());
  return info;
}

TensorInfo Model::tensor(uint32_t index) const {
  const auto& row = *root(bytes_).tensors()->Get(index);
  TensorInfo info{};
  info.name = view(row.name());
  info.type = static_cast<Type>(row.type());
  info.rank = static_cast<uint8_t>(size(row.dims()));
  for (uint32_t axis = 0; axis < info.rank; ++axis) info.dims[axis] = row.dims()->Get(axis);
  info.buffer = row.buffer();
  info.constant_offset = uint64_t{row.constant()} * 64;
  info.constant_bytes = row.constant_bytes();
  return info;
}

BufferInfo Model::buffer(uint32_t index) const {
  const auto& row = *root(bytes_).buffers()->Get(index);
  return {uint64_t{row.offset()} * 64, row.capacity(), row.first(), row.last()};
}

ExpressionNode Model::expression(uint32_t index) const {
  const auto& row = *root(bytes_).expressions()->Get(index);
  return {static_cast<ExpressionNode::Op>(row.op()), row.a(), row.b()};
}

Constraint Model::constraint(uint32_t index) const {
  const auto& row = *root(bytes_).constraints()->Get(index);
  return {row.relation() == format::Relation::equal, row.left(), row.right(), view(row.text())};
}

IndexCheck Model::index_check(uint32_t index) const {
  const auto& row = *root(bytes_).index_checks()->Get(index);
  return {row.input(), row.bound()};
}

Mark Model::mark(uint32_t index) const {
  const auto& row = *root(bytes_).marks()->Get(index);
  return {row.operator_index(), view(row.name()), view(row.queries()), view(row.keys())};
}

Fusion Model::fusion(uint32_t index) const {
  const auto& row = *root(bytes_).fusions()->Get(index);
  return {view(row.concept_()), row.count()};
}

State Model::state(uint32_t index) const {
  const auto& row = *root(bytes_).states()->Get(index);
  return {view(row.name()), view(row.output()), row.tensor(), uint64_t{row.constant()} * 64, row.constant_bytes()};
}

std::optional<Position> Model::position() const {
  const auto* row = root(bytes_).position();
  if (row == nullptr) return std::nullopt;
  return Position{view(row->name()), row->lower(), row->upper(), row->capacity(), row->step()};
}

std::string_view Model::absorbed(uint32_t index, uint32_t number) const {
  const format::Model& model = root(bytes_);
  return view(model.node_names()->Get(model.operators()->Get(index)->absorbed()->Get(number)));
}

std::string_view Model::producer() const {
  return view(root(bytes_).producer());
}

uint32_t Model::made_with_count() const {
  return size(root(bytes_).made_with());
}

std::string_view Model::made_with(uint32_t index) const {
  return view(root(bytes_).made_with()->Get(index));
}

std::span<const std::byte> Model::content_hash() const {
  const auto* hash = root(bytes_).content_hash();
  if (size(hash) == 0) return {};
  return {reinterpret_cast<const std::byte*>(hash->data()), hash->size()};
}

size_t Model::write_expression(uint32_t index, char* text, size_t size) const {
  Writer out(text, size);
  heed::write_expression(root(bytes_), index, 0, 0, out);
  return out.finish();
}

}  // namespace heed

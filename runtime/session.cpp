// Contracts and aliasing are checked here, on the tables, whenever the dimensions change; then run() only follows the
// records.
#include "heed/session.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "kernels/float_mode.h"
#include "tables.h"

namespace heed {
namespace {

using enum Code;
using enum Limit;

// --- Checks
// -------------------------------------------------------------------------------------------------------------

/// Buffers that are alive at one operator may not overlap. They come in the order of their first operators, so one
/// sweep with a list of the live ones does; the list lies in the tables: next[0] is its head, next[i + 1] follows
/// buffer i.
Status check_buffers(const Model& model, Tables& tables) {
  const auto next = tables.live_list();
  next[0] = 0;
  uint64_t alive = 0, most = 0;
  for (uint32_t i = 0; i < model.buffer_count(); ++i) {
    const BufferInfo buffer = model.buffer(i);
    uint32_t live = 1;
    for (uint32_t at = 0; next[at] != 0;) {
      const BufferInfo other = model.buffer(next[at] - 1);
      if (other.last < buffer.first) {  // no state: those live to the end
        alive -= other.capacity;
        next[at] = next[next[at]];
        continue;
      }
      const uint64_t begin = std::max(buffer.offset, other.offset);
      const uint64_t end = std::min(buffer.offset + buffer.capacity, other.offset + other.capacity);
      HEED_ENSURE(begin >= end, corrupt, "two buffers overlap while both are alive", i, int64_t{next[at]} - 1);
      HEED_ENSURE(++live <= limits::live_buffers, corrupt, "too many buffers are alive at once", live,
                  limits::live_buffers, at_most);
      at = next[at];
    }
    next[i + 1] = next[0];
    next[0] = i + 1;
    if (buffer.offset >= model.memory().state) alive += buffer.capacity;
    most = std::max(most, alive);
  }
  HEED_ENSURE(model.memory().lower_bound == most, corrupt,
              "the lower bound is not the most that is alive at one operator",
              static_cast<int64_t>(model.memory().lower_bound), static_cast<int64_t>(most));
  return {};
}

struct Range {
  int64_t begin, end;  // bytes in state and workspace
};

Range range_of(const TensorRecord& record) {
  const int64_t element = size_of(record.shape.type);
  Range range{record.offset, record.offset + element};
  for (int axis = 0; axis < record.shape.rank; ++axis) {
    if (record.shape.dims[axis] == 0) return {record.offset, record.offset};
    const int64_t reach = int64_t{record.shape.dims[axis] - 1} * record.shape.strides[axis] * element;
    (reach < 0 ? range.begin : range.end) += reach;
  }
  return range;
}

/// Both lie in state or workspace, where only views of one buffer can overlap.
bool overlap(const TensorRecord& a, const TensorRecord& b) {
  if (a.buffer == -1 || a.buffer != b.buffer) return false;
  const Range left = range_of(a), right = range_of(b);
  return std::max(left.begin, right.begin) < std::min(left.end, right.end);
}

bool same_view(const TensorRecord& a, const TensorRecord& b) {
  if (a.offset != b.offset || a.shape.rank != b.shape.rank || size_of(a.shape.type) != size_of(b.shape.type))
    return false;
  for (int axis = 0; axis < a.shape.rank; ++axis) {
    if (a.shape.dims[axis] != b.shape.dims[axis]) return false;
    if (a.shape.dims[axis] > 1 && a.shape.strides[axis] != b.shape.strides[axis]) return false;
  }
  return true;
}

/// True where no two indices reach the same element: what is written is then the same for any order and number of
/// threads.
bool injective(const Shape& shape) {
  int64_t reached = 0;  // by the axes of smaller strides
  uint32_t left = 0;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (shape.dims[axis] == 0) return true;
    if (shape.dims[axis] > 1) left |= 1u << axis;
  }
  while (left != 0) {
    int smallest = std::countr_zero(left);
    for (int axis = smallest + 1; axis < shape.rank; ++axis)
      if ((left >> axis & 1) != 0 && shape.strides[axis] < shape.strides[smallest]) smallest = axis;
    if (shape.strides[smallest] <= reached) return false;
    reached += int64_t{shape.dims[smallest] - 1} * shape.strides[smallest];
    left &= ~(1u << smallest);
  }
  return true;
}

/// The operator's own contract, its scratch, and what its outputs may share storage with.
Status check_operator(Tables& tables, const OperatorRecord& record) {
  const auto tensors = tables.all_tensors();
  const TensorRecord* records[max_inputs + max_outputs];
  const Shape* shapes[max_inputs + max_outputs];
  const int inputs = record.input_count, outputs = record.output_count;
  for (int i = 0; i < inputs + outputs; ++i) {
    records[i] = record.operands[i] == absent ? nullptr : &tensors[record.operands[i]];
    shapes[i] = records[i] == nullptr ? nullptr : &records[i]->shape;
  }
  const Contract contract{shapes, shapes + inputs, inputs, outputs, tables.params_at(record.params)};
  const auto concerning = [&](int operand, Status status) {
    if (operand >= 0 && operand < inputs + outputs && record.operands[operand] != absent)
      status.tensor_index = record.operands[operand];
    return status;
  };

  const Operator& kernel = operator_of(record.kind);
  if (const Violation violation = kernel.check(contract)) {
    Status status = refuse(Code::contract, violation.what, violation.found, violation.expected);
    status.has_values = violation.found != violation.expected;
    using enum Violation::Limit;
    status.limit = violation.limit == at_most    ? Limit::at_most
                   : violation.limit == at_least ? Limit::at_least
                                                 : Limit::exactly;
    const int output = violation.operand - output_operand;
    return concerning(output >= 0 ? inputs + output : violation.operand, status);
  }
  const uint64_t scratch = kernel.scratch(contract);
  HEED_ENSURE(scratch <= record.scratch_bytes, Code::contract, "the scratch is too small", record.scratch_bytes,
              static_cast<int64_t>(std::min(scratch, uint64_t{INT64_MAX})), at_least);

  for (int o = 0; o < outputs; ++o) {
    const TensorRecord* output = records[inputs + o];
    if (output == nullptr) continue;
    if (!injective(output->shape))
      return concerning(inputs + o, refuse(Code::contract, "two elements of an output share their storage"));
    for (int other = 0; other < o; ++other)
      if (records[inputs + other] != nullptr && overlap(*records[inputs + other], *output))
        return concerning(inputs + o, refuse(Code::contract, "two outputs overlap"));
    for (int i = 0; i < inputs; ++i) {
      if (records[i] == nullptr || !overlap(*records[i], *output)) continue;
      if (!same_view(*records[i], *output) || !kernel.in_place(contract, i, o))
        return concerning(i, refuse(Code::contract, "an output overlaps an input that it may not replace"));
    }
  }
  return {};
}

/// What is read has been written before, at least in part: no run hands out what the arena held. The numbers of the
/// buffers that were written lie in the list of check_buffers, which is done with it.
Status check_written(const Model& model, Tables& tables) {
  const auto tensors = tables.all_tensors();
  const auto written = tables.live_list();
  std::fill(written.begin(), written.end(), 0);
  const auto write = [&](uint32_t tensor) { written[static_cast<uint32_t>(tensors[tensor].buffer)] = 1; };
  const auto is_written = [&](uint32_t tensor) {
    const int32_t buffer = tensors[tensor].buffer;
    return buffer == -1 || written[static_cast<uint32_t>(buffer)] != 0;
  };
  const auto at = [](Status status, std::string_view where, uint32_t tensor) {
    status.where = where;
    status.tensor_index = static_cast<int32_t>(tensor);
    return status;
  };
  for (uint32_t i = 0; i < model.buffer_count(); ++i) written[i] = model.buffer(i).offset < model.memory().state;
  for (uint32_t i = 0; i < model.input_count(); ++i) write(model.input(i).tensor);
  const auto operators = tables.all_operators();
  for (uint32_t i = 0; i < operators.size(); ++i) {
    const OperatorRecord& record = operators[i];
    for (int k = 0; k < record.input_count; ++k) {
      const uint32_t tensor = record.operands[k];
      if (tensor == absent || is_written(tensor)) continue;
      Status status =
          at(refuse(corrupt, "an operand is read before it is written"), model.operator_info(i).name, tensor);
      status.operator_index = static_cast<int32_t>(i);
      return status;
    }
    for (int k = 0; k < record.output_count; ++k)
      if (const uint32_t tensor = record.operands[record.input_count + k]; tensor != absent) write(tensor);
  }
  for (uint32_t i = 0; i < model.output_count(); ++i)
    if (const Port output = model.output(i); !is_written(output.tensor))
      return at(refuse(corrupt, "an output is never written"), output.name, output.tensor);
  return {};
}

/// The contracts of the operators whose shapes or params depend on the position, or of the others.
Status check_operators(const Model& model, Tables& tables, bool stepped) {
  const auto operators = tables.all_operators();
  for (uint32_t i = 0; i < operators.size(); ++i) {
    if (stepped != (operators[i].stepped_shapes != 0 || operators[i].stepped_params != 0)) continue;
    Status status = check_operator(tables, operators[i]);
    if (status.ok()) continue;
    status.operator_index = static_cast<int32_t>(i);
    status.where = model.operator_info(i).name;
    return status;
  }
  return {};
}

/// Everything that depends on the dimensions' values, at every position that a run may begin with.
Status prepare(const Model& model, Tables& tables) {
  HEED_TRY(evaluate(model.bytes(), tables));
  HEED_TRY(check_operators(model, tables, false));
  const auto range = model.position();
  if (!range) return {};
  const int64_t current = tables.position;
  Status status;
  bool possible = false;
  for (tables.position = range->lower; status.ok() && tables.position <= range->upper; ++tables.position) {
    status = evaluate_position(model.bytes(), tables);
    if (status.code == state_full) {
      status = {};  // no run begins there
      continue;
    }
    possible = true;
    if (status.ok()) status = check_operators(model, tables, true);
  }
  tables.position = current;
  HEED_TRY(status);
  if (!possible) status = refuse(constraint_broken, "no position leaves room for a run");
  status.where = range->name;
  HEED_TRY(status);
  evaluate_inputs(model.bytes(), tables);
  return {};
}

// --- Running
// ------------------------------------------------------------------------------------------------------------

/// The caller's threads with the float mode of `run` in every task.
void flushing_call(void* pool, uint32_t count, Parallel::Task task, void* context) {
  struct Inner {
    Parallel::Task task;
    void* context;
  } inner{task, context};
  const auto& parallel = *static_cast<const Parallel*>(pool);
  parallel.call(
      parallel.pool, count,
      [](void* argument, uint32_t index, uint32_t thread) {
        const FlushToZero mode;
        const auto& [function, its_context] = *static_cast<const Inner*>(argument);
        function(its_context, index, thread);
      },
      &inner);
}

/// Instruction sets differ in the NaN that they make.
void canonicalise(const Tensor& tensor) {
  if (tensor.shape->type != Type::f32) return;
  auto* bits = tensor.as<uint32_t>();
  const int64_t count = element_count(*tensor.shape);
  for (int64_t i = 0; i < count; ++i) bits[i] = (bits[i] & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : bits[i];
}

struct Tap {
  const Observer* observer;
  uint32_t operator_index;

  static void row(void* context, int batch, int head, int query, const float* weights, int keys) {
    const auto& [observer, index] = *static_cast<const Tap*>(context);
    observer->weights(observer->context, index, batch, head, query, {weights, static_cast<size_t>(keys)});
  }
};

void notify(const Observer& observer, uint32_t index, const Invocation& call) {
  if (observer.output != nullptr)
    for (int i = 0; i < call.output_count; ++i)
      if (call.outputs[i]) observer.output(observer.context, index, static_cast<uint32_t>(i), call.outputs[i]);
  if (observer.after != nullptr) observer.after(observer.context, index);
}

Status check_indices(const Model& model, Tables& tables, const Session& session) {
  const auto values = tables.all_values();
  for (const CheckRecord& check : tables.all_checks()) {
    const Tensor tensor = session.tensor(check.tensor);
    const int64_t bound = values[check.bound], count = element_count(*tensor.shape);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = tensor.as<int32_t>()[i];
      if (index >= -bound && index < bound) continue;
      Status status = index < 0 ? refuse(index_out_of_range, "an index is outside its table", index, -bound, at_least)
                                : refuse(index_out_of_range, "an index is outside its table", index, bound, below);
      status.where = model.input(check.input).name;
      status.tensor_index = static_cast<int32_t>(check.tensor);
      return status;
    }
  }
  return {};
}

}  // namespace

Result<Session> Session::create(const Model& model, std::span<std::byte> arena, const Options& options) {
  if (!available(options.isa)) {
    Status status = refuse(isa_unavailable, "this processor or this build has no such instruction set");
    status.where = name(options.isa);
    return status;
  }
  HEED_ENSURE(options.parallel.threads > 0, invalid_argument, "there are no threads", 0, 1, at_least);
  const auto address = reinterpret_cast<uintptr_t>(arena.data());
  HEED_ENSURE(address % 64 == 0, misaligned, "the arena does not begin at a multiple of 64",
              static_cast<int64_t>(address % 64), 0);
  const uint64_t wanted = model.memory().total(options.parallel.threads);
  HEED_ENSURE(arena.size() >= wanted, arena_too_small, "the arena is too small", static_cast<int64_t>(arena.size()),
              static_cast<int64_t>(wanted), at_least);

  Session session;
  session.model_ = model;
  session.parallel_ = options.parallel;
  session.tables_ = new (arena.data()) Tables(layout(model.bytes()));
  Tables& tables = *session.tables_;
  decode(model.bytes(), tables);
  for (OperatorRecord& record : tables.all_operators()) record.isa = operator_of(record.kind).variant(options.isa);
  HEED_TRY(check_buffers(model, tables));
  if (const auto position = model.position()) tables.position = position->lower;
  HEED_TRY(prepare(model, tables));
  HEED_TRY(check_written(model, tables));
  session.reset();
  return session;
}

std::byte* Session::state() const {
  return reinterpret_cast<std::byte*>(tables_) + model_.memory().tables;
}

Tensor Session::tensor(uint32_t index) const {
  const TensorRecord& record = tables_->all_tensors()[index];
  // Constants are never written: no output is one.
  std::byte* base = record.buffer == -1 ? const_cast<std::byte*>(model_.bytes().data()) : state();
  return {base + record.offset, &record.shape};
}

Tensor Session::find(std::string_view name, bool input) const {
  const uint32_t count = input ? model_.input_count() : model_.output_count();
  for (uint32_t i = 0; i < count; ++i)
    if (const Port port = input ? model_.input(i) : model_.output(i); port.name == name) return tensor(port.tensor);
  return {};
}

int32_t Session::dimension(std::string_view name) const {
  for (uint32_t i = 0; i < model_.dimension_count(); ++i)
    if (model_.dimension(i).name == name) return tables_->current_dimensions()[i];
  return -1;
}

int32_t Session::position() const {
  return model_.position() ? static_cast<int32_t>(tables_->position) : -1;
}

void Session::reset() {
  std::memset(state(), 0, static_cast<size_t>(model_.memory().state));
  for (uint32_t i = 0; i < model_.state_count(); ++i) {
    const State row = model_.state(i);
    const auto buffer = static_cast<uint32_t>(tables_->all_tensors()[row.tensor].buffer);
    std::memcpy(state() + model_.buffer(buffer).offset, model_.bytes().data() + row.constant_offset,
                static_cast<size_t>(row.constant_bytes));
  }
  if (const auto position = model_.position()) {
    tables_->position = position->lower;
    evaluate_inputs(model_.bytes(), *tables_);
  }
}

int64_t Session::value(uint32_t expression) const {
  return tables_->all_values()[expression];
}

Isa Session::variant(uint32_t index) const {
  return tables_->all_operators()[index].isa;
}

Status Session::resize(std::span<const Setting> settings) {
  const auto current = tables_->current_dimensions(), previous = tables_->previous_dimensions();
  std::copy(current.begin(), current.end(), previous.begin());
  const auto set = [&]() -> Status {
    for (const Setting& setting : settings) {
      uint32_t index = 0;
      while (index < current.size() && model_.dimension(index).name != setting.dimension) ++index;
      const auto check = [&]() -> Status {
        HEED_ENSURE(index < current.size(), invalid_argument, "the model has no such dimension");
        const Dimension dimension = model_.dimension(index);
        HEED_ENSURE(setting.value >= dimension.lower, dimension_out_of_range, "the dimension is below its lower bound",
                    setting.value, dimension.lower, at_least);
        HEED_ENSURE(setting.value <= dimension.upper, dimension_out_of_range, "the dimension is above its upper bound",
                    setting.value, dimension.upper, at_most);
        return {};
      };
      Status status = check();
      status.where = index < current.size() ? model_.dimension(index).name : setting.dimension;
      HEED_TRY(status);
      current[index] = setting.value;
    }
    return prepare(model_, *tables_);
  };
  Status status = set();
  if (status.ok()) return status;
  // The old dimensions passed before, so that they pass again.
  std::copy(previous.begin(), previous.end(), current.begin());
  (void)prepare(model_, *tables_);
  return status;
}

Status Session::run() {
  const auto position = model_.position();
  if (position) {
    Status status;
    if (tables_->position > position->upper)
      status = refuse(state_full, "the state has no room for another run", tables_->position, position->upper,
                      Limit::at_most);
    status.where = position->name;
    HEED_TRY(status);
    HEED_TRY(evaluate_position(model_.bytes(), *tables_));
  }
  HEED_TRY(check_indices(model_, *tables_, *this));
  const FlushToZero mode;
  std::byte* const bases[] = {state(), const_cast<std::byte*>(model_.bytes().data())};
  const TensorRecord* const tensors = tables_->all_tensors().data();
  const Parallel flushing{parallel_.call == nullptr ? nullptr : flushing_call, &parallel_, parallel_.threads};
  Tap tap{&observer_, 0};
  const WeightTap weight_tap{Tap::row, &tap};

  Tensor operands[max_inputs + max_outputs];
  Invocation call{};
  call.inputs = operands;
  call.thread_scratch = bases[0] + model_.memory().state + model_.memory().workspace;
  call.thread_scratch_bytes = static_cast<size_t>(model_.memory().per_thread);
  call.parallel = &flushing;
  call.tap = observer_.weights != nullptr ? &weight_tap : nullptr;
  for (const OperatorRecord& record : tables_->all_operators()) {
    const int count = record.input_count + record.output_count;
    for (int i = 0; i < count; ++i) {
      if (record.operands[i] == absent) {
        operands[i] = {};
      } else {
        const TensorRecord& tensor = tensors[record.operands[i]];
        operands[i] = {bases[tensor.buffer == -1] + tensor.offset, &tensor.shape};
      }
    }
    call.outputs = operands + record.input_count;
    call.input_count = record.input_count;
    call.output_count = record.output_count;
    call.params = tables_->params_at(record.params);
    call.scratch = bases[0] + size_t{record.scratch} * 64;
    call.isa = record.isa;
    operator_of(record.kind).run(call);
    notify(observer_, tap.operator_index, call);
    ++tap.operator_index;
  }
  for (const uint32_t output : tables_->all_outputs()) canonicalise(tensor(output));
  if (position) {
    tables_->position += tables_->all_values()[position->step];
    evaluate_inputs(model_.bytes(), *tables_);
  }
  return {};
}

}  // namespace heed

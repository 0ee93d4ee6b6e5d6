#include <cstring>
#include <new>
#include <type_traits>

#include "heed/heed.h"
#include "heed/model.h"
#include "heed/session.h"
#include "heed/sha256.h"

namespace {

using heed::Model;
using heed::Session;

static_assert(sizeof(Model) <= HEED_MODEL_BYTES && alignof(Model) <= alignof(heed_model));
static_assert(sizeof(Session) <= HEED_SESSION_BYTES && alignof(Session) <= alignof(heed_session));
static_assert(sizeof(heed_model) == HEED_MODEL_BYTES && sizeof(heed_session) == HEED_SESSION_BYTES);
static_assert(std::is_trivially_copyable_v<Model> && std::is_trivially_copyable_v<Session>);  // memcpy moves a handle

// The two lists of numbers are one.
static_assert(static_cast<int>(heed::Code::state_full) == HEED_STATE_FULL);
static_assert(static_cast<int>(heed::Code::contract) == HEED_CONTRACT);
static_assert(static_cast<int>(heed::Code::too_large) == HEED_TOO_LARGE);
static_assert(static_cast<int>(heed::Type::u8) == HEED_U8);
static_assert(static_cast<int>(heed::Isa::i8mm) == HEED_ISA_I8MM && heed::isa_count == HEED_ISA_I8MM + 1);
static_assert(heed::max_rank == HEED_MAX_RANK);

const Model& of(const heed_model* model) {
  return *reinterpret_cast<const Model*>(model);
}
Session& of(heed_session* session) {
  return *reinterpret_cast<Session*>(session);
}
const Session& of(const heed_session* session) {
  return *reinterpret_cast<const Session*>(session);
}

heed_status to_c(const heed::Status& status) {
  return {static_cast<heed_code>(status.code),
          status.operator_index,
          status.tensor_index,
          status.has_values,
          status.found,
          status.expected,
          status.what,
          status.where};
}

heed_port to_c(const heed::Port& port) {
  return {port.name.data(), static_cast<heed_type>(port.type), port.border_type, port.rank};
}

heed_view to_c(const heed::Tensor& tensor) {
  heed_view view{};
  if (!tensor) return view;
  view.data = tensor.data;
  view.count = static_cast<size_t>(heed::element_count(*tensor.shape));
  view.type = static_cast<heed_type>(tensor.shape->type);
  view.rank = tensor.shape->rank;
  for (int axis = 0; axis < view.rank; ++axis) view.dims[axis] = tensor.shape->dims[axis];
  return view;
}

}  // namespace

extern "C" {

size_t heed_status_describe(const heed_status* status, char* text, size_t size) {
  return heed::Status{static_cast<heed::Code>(status->code),
                      status->what,
                      status->where,
                      status->operator_index,
                      status->tensor_index,
                      status->found,
                      status->expected,
                      status->has_values != 0}
      .describe(text, size);
}

heed_status heed_model_load(heed_model* model, const void* bytes, size_t size) {
  const auto result = Model::load({static_cast<const std::byte*>(bytes), size});
  if (result) new (model) Model(*result);
  return to_c(result.status());
}

heed_memory heed_model_memory(const heed_model* model) {
  const heed::Memory& memory = of(model).memory();
  return {memory.constants, memory.state, memory.workspace, memory.tables, memory.lower_bound, memory.per_thread};
}

uint64_t heed_model_arena_bytes(const heed_model* model, uint32_t threads) {
  return of(model).memory().total(threads);
}

uint32_t heed_model_input_count(const heed_model* model) {
  return of(model).input_count();
}
uint32_t heed_model_output_count(const heed_model* model) {
  return of(model).output_count();
}
uint32_t heed_model_dimension_count(const heed_model* model) {
  return of(model).dimension_count();
}

heed_port heed_model_input(const heed_model* model, uint32_t index) {
  return to_c(of(model).input(index));
}
heed_port heed_model_output(const heed_model* model, uint32_t index) {
  return to_c(of(model).output(index));
}

heed_dimension heed_model_dimension(const heed_model* model, uint32_t index) {
  const heed::Dimension dimension = of(model).dimension(index);
  return {dimension.name.data(), dimension.lower, dimension.upper, dimension.start};
}

heed_isa heed_best_isa(void) {
  return static_cast<heed_isa>(heed::best_isa());
}

heed_status heed_session_create(heed_session* session, const heed_model* model, void* arena, size_t arena_bytes,
                                const heed_options* options) {
  heed::Options chosen;
  if (options != nullptr)
    chosen = {static_cast<heed::Isa>(options->isa), {options->parallel_for, options->pool, options->threads}};
  const auto result = Session::create(of(model), {static_cast<std::byte*>(arena), arena_bytes}, chosen);
  if (result) new (session) Session(*result);
  return to_c(result.status());
}

heed_view heed_session_input(heed_session* session, const char* name) {
  return to_c(of(session).input(name));
}
heed_view heed_session_output(const heed_session* session, const char* name) {
  return to_c(of(session).output(name));
}
heed_view heed_session_input_at(heed_session* session, uint32_t index) {
  return to_c(of(session).input(index));
}
heed_view heed_session_output_at(const heed_session* session, uint32_t index) {
  return to_c(of(session).output(index));
}

heed_status heed_session_resize(heed_session* session, const heed_setting* settings, size_t count) {
  Session::Setting all[HEED_MAX_SETTINGS];
  if (count > HEED_MAX_SETTINGS)
    return to_c({heed::Code::invalid_argument, "too many settings at once", "", -1, -1, static_cast<int64_t>(count),
                 HEED_MAX_SETTINGS, true});
  for (size_t i = 0; i < count; ++i) all[i] = {settings[i].dimension, settings[i].value};
  return to_c(of(session).resize({all, count}));
}

int32_t heed_session_dimension(const heed_session* session, const char* name) {
  return of(session).dimension(name);
}

heed_status heed_session_run(heed_session* session) {
  return to_c(of(session).run());
}

void heed_session_reset(heed_session* session) {
  of(session).reset();
}

int32_t heed_session_position(const heed_session* session, int32_t* upper) {
  const auto position = of(session).model().position();
  if (upper != nullptr) *upper = position ? position->upper : -1;
  return of(session).position();
}

void heed_sha256(const void* bytes, size_t size, char hex[65]) {
  const auto digest = heed::sha256({static_cast<const std::byte*>(bytes), size}).hex();
  std::memcpy(hex, digest.text, sizeof digest.text);
}

}  // extern "C"

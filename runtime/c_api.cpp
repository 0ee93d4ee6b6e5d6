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

// The lists of numbers are one; C has "the best" before the instruction sets.
#define HEED_SAME(number, c_number) static_assert(static_cast<int>(heed::number) == c_number)
HEED_SAME(Code::ok, HEED_OK);
HEED_SAME(Code::invalid_argument, HEED_INVALID_ARGUMENT);
HEED_SAME(Code::misaligned, HEED_MISALIGNED);
HEED_SAME(Code::arena_too_small, HEED_ARENA_TOO_SMALL);
HEED_SAME(Code::index_out_of_range, HEED_INDEX_OUT_OF_RANGE);
HEED_SAME(Code::dimension_out_of_range, HEED_DIMENSION_OUT_OF_RANGE);
HEED_SAME(Code::constraint_broken, HEED_CONSTRAINT_BROKEN);
HEED_SAME(Code::state_full, HEED_STATE_FULL);
HEED_SAME(Code::not_a_model, HEED_NOT_A_MODEL);
HEED_SAME(Code::corrupt, HEED_CORRUPT);
HEED_SAME(Code::contract, HEED_CONTRACT);
HEED_SAME(Code::other_version, HEED_OTHER_VERSION);
HEED_SAME(Code::isa_unavailable, HEED_ISA_UNAVAILABLE);
HEED_SAME(Code::too_large, HEED_TOO_LARGE);
HEED_SAME(Type::f32, HEED_F32);
HEED_SAME(Type::i32, HEED_I32);
HEED_SAME(Type::boolean, HEED_BOOLEAN);
HEED_SAME(Type::i8, HEED_I8);
HEED_SAME(Type::u8, HEED_U8);
HEED_SAME(Limit::exactly, HEED_EXACTLY);
HEED_SAME(Limit::at_most, HEED_AT_MOST);
HEED_SAME(Limit::at_least, HEED_AT_LEAST);
HEED_SAME(Limit::below, HEED_BELOW);
HEED_SAME(Isa::portable, HEED_ISA_PORTABLE - 1);
HEED_SAME(Isa::avx2, HEED_ISA_AVX2 - 1);
HEED_SAME(Isa::avxvnni, HEED_ISA_AVXVNNI - 1);
HEED_SAME(Isa::avx512, HEED_ISA_AVX512 - 1);
HEED_SAME(Isa::avx512vnni, HEED_ISA_AVX512VNNI - 1);
HEED_SAME(Isa::neon, HEED_ISA_NEON - 1);
HEED_SAME(Isa::dotprod, HEED_ISA_DOTPROD - 1);
HEED_SAME(Isa::i8mm, HEED_ISA_I8MM - 1);
#undef HEED_SAME
static_assert(HEED_ISA_BEST == 0 && heed::isa_count == HEED_ISA_I8MM && sizeof(heed_isa) == sizeof(uint32_t));
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
          static_cast<heed_limit>(status.limit),
          status.what,
          status.where.data()};
}

heed::Status refuse(const char* what) {
  return {.code = heed::Code::invalid_argument, .what = what};
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
  for (int axis = 0; axis < view.rank; ++axis) {
    view.dims[axis] = tensor.shape->dims[axis];
    view.strides[axis] = tensor.shape->strides[axis];
  }
  return view;
}

/// A handle of zeros, or one whose load or create has failed.
bool empty(const Model& model) {
  return model.bytes().empty();
}
bool empty(const Session& session) {
  return empty(session.model());
}

// An observer in C, which is the context of one in C++.

const heed_observer& observer_of(void* context) {
  return *static_cast<const heed_observer*>(context);
}

void tell_output(void* context, uint32_t index, uint32_t output, const heed::Tensor& value) {
  const heed_observer& observer = observer_of(context);
  const heed_view view = to_c(value);
  observer.output(observer.context, index, output, &view);
}

void tell_weights(void* context, uint32_t index, int batch, int head, int query, std::span<const float> weights) {
  const heed_observer& observer = observer_of(context);
  observer.weights(observer.context, index, batch, head, query, weights.data(), weights.size());
}

void tell_after(void* context, uint32_t index) {
  const heed_observer& observer = observer_of(context);
  observer.after(observer.context, index);
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
                      status->has_values != 0,
                      static_cast<heed::Limit>(status->limit)}
      .describe(text, size);
}

heed_status heed_model_load(heed_model* model, const void* bytes, size_t size) {
  const auto result = Model::load({static_cast<const std::byte*>(bytes), bytes == nullptr ? 0 : size});
  new (model) Model(*result);  // an empty one where it failed
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
  return empty(of(model)) ? 0 : of(model).input_count();
}
uint32_t heed_model_output_count(const heed_model* model) {
  return empty(of(model)) ? 0 : of(model).output_count();
}
uint32_t heed_model_dimension_count(const heed_model* model) {
  return empty(of(model)) ? 0 : of(model).dimension_count();
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
  return static_cast<heed_isa>(static_cast<int>(heed::best_isa()) + 1);
}

heed_status heed_session_create(heed_session* session, const heed_model* model, void* arena, size_t arena_bytes,
                                const heed_options* options) {
  const auto create = [&]() -> heed::Result<Session> {
    if (empty(of(model))) return refuse("there is no model");
    const heed_options given = options == nullptr ? heed_options{} : *options;
    uint32_t isa;  // C may put any number in its enum, which C++ may then not look at
    std::memcpy(&isa, &given.isa, sizeof isa);
    if (isa > heed::isa_count) return refuse("there is no such instruction set");
    const heed::Options chosen{isa == HEED_ISA_BEST ? heed::best_isa() : static_cast<heed::Isa>(isa - 1),
                               {given.parallel_for, given.pool, given.threads == 0 ? 1 : given.threads}};
    return Session::create(of(model), {static_cast<std::byte*>(arena), arena == nullptr ? 0 : arena_bytes}, chosen);
  };
  const auto result = create();
  new (session) Session(*result);  // an empty one where it failed
  return to_c(result.status());
}

heed_view heed_session_input(heed_session* session, const char* name) {
  return empty(of(session)) || name == nullptr ? heed_view{} : to_c(of(session).input(name));
}
heed_view heed_session_output(const heed_session* session, const char* name) {
  return empty(of(session)) || name == nullptr ? heed_view{} : to_c(of(session).output(name));
}
heed_view heed_session_input_at(heed_session* session, uint32_t index) {
  const bool exists = !empty(of(session)) && index < of(session).model().input_count();
  return exists ? to_c(of(session).input(index)) : heed_view{};
}
heed_view heed_session_output_at(const heed_session* session, uint32_t index) {
  const bool exists = !empty(of(session)) && index < of(session).model().output_count();
  return exists ? to_c(of(session).output(index)) : heed_view{};
}

heed_status heed_session_resize(heed_session* session, const heed_setting* settings, size_t count) {
  if (empty(of(session))) return to_c(refuse("there is no session"));
  Session::Setting all[HEED_MAX_SETTINGS];
  if (count > HEED_MAX_SETTINGS)
    return to_c({heed::Code::invalid_argument, "too many settings at once", "", -1, -1, static_cast<int64_t>(count),
                 HEED_MAX_SETTINGS, true, heed::Limit::at_most});
  for (size_t i = 0; i < count; ++i) {
    if (settings[i].dimension == nullptr) return to_c(refuse("a setting names no dimension"));
    all[i] = {settings[i].dimension, settings[i].value};
  }
  return to_c(of(session).resize({all, count}));
}

int32_t heed_session_dimension(const heed_session* session, const char* name) {
  return empty(of(session)) || name == nullptr ? -1 : of(session).dimension(name);
}

heed_status heed_session_run(heed_session* session) {
  return empty(of(session)) ? to_c(refuse("there is no session")) : to_c(of(session).run());
}

void heed_session_reset(heed_session* session) {
  if (!empty(of(session))) of(session).reset();
}

int32_t heed_session_position(const heed_session* session, int32_t* upper) {
  const auto position = empty(of(session)) ? std::nullopt : of(session).model().position();
  if (upper != nullptr) *upper = position ? position->upper : -1;
  return position ? of(session).position() : -1;
}

void heed_session_observe(heed_session* session, const heed_observer* observer) {
  if (observer == nullptr) return of(session).observe(nullptr);
  heed::Observer told;
  told.context = const_cast<heed_observer*>(observer);
  if (observer->output != nullptr) told.output = tell_output;
  if (observer->weights != nullptr) told.weights = tell_weights;
  if (observer->after != nullptr) told.after = tell_after;
  of(session).observe(&told);
}

void heed_sha256(const void* bytes, size_t size, char hex[65]) {
  const auto digest = heed::sha256({static_cast<const std::byte*>(bytes), size}).hex();
  std::memcpy(hex, digest.text, sizeof digest.text);
}

}  // extern "C"

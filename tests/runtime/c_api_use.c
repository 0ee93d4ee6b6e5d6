/* Compiled as C99: the four steps, and what goes wrong. Returns the line of the first surprise, 0 where there is none.
 */
#include "heed/heed.h"

#include <string.h>

#define EXPECT(condition)              \
  do {                                 \
    if (!(condition)) return __LINE__; \
  } while (0)

static void serial_for(void* pool, uint32_t count, heed_task task, void* context) {
  uint32_t index;
  for (index = 0; index < count; ++index) task(context, index, index % 2);
  ++*(int*)pool;
}

/* What an observer has seen. */
struct seen {
  uint32_t outputs, after;
};

static void see_output(void* context, uint32_t operator_index, uint32_t output, const heed_view* value) {
  struct seen* seen = context;
  if (operator_index == 0 && output == seen->outputs && value->count == 3600 && value->strides[0] == 600)
    ++seen->outputs;
}

static void see_end(void* context, uint32_t operator_index) {
  struct seen* seen = context;
  if (operator_index == 0) ++seen->after;
}

/* What was never loaded or created is refused, and shows nothing. */
static int use_empty_handles(heed_model* model, heed_session* session, void* arena, size_t arena_bytes) {
  heed_setting setting = {"batch", 2};
  EXPECT(heed_model_input_count(model) == 0 && heed_model_output_count(model) == 0 &&
         heed_model_dimension_count(model) == 0 && heed_model_arena_bytes(model, 1) == 0);
  EXPECT(heed_session_create(session, model, arena, arena_bytes, NULL).code == HEED_INVALID_ARGUMENT);
  EXPECT(heed_session_input(session, "x").data == NULL && heed_session_output(session, "y").data == NULL);
  EXPECT(heed_session_input_at(session, 0).data == NULL && heed_session_output_at(session, 0).data == NULL);
  EXPECT(heed_session_run(session).code == HEED_INVALID_ARGUMENT);
  EXPECT(heed_session_resize(session, &setting, 1).code == HEED_INVALID_ARGUMENT);
  EXPECT(heed_session_dimension(session, "batch") == -1);
  heed_session_reset(session);
  heed_session_observe(session, NULL);
  return 0;
}

int use_heed_from_c(const void* bytes, size_t size, void* arena, size_t arena_bytes, float* first, float* second);
int use_heed_from_c(const void* bytes, size_t size, void* arena, size_t arena_bytes, float* first, float* second) {
  heed_model model;
  heed_session session, moved;
  heed_status status;
  heed_view x, y;
  heed_options options;
  heed_memory memory;
  heed_setting setting;
  char text[128];
  struct seen seen = {0, 0};
  heed_observer observer = {NULL, NULL, NULL, NULL};
  int calls = 0, line;
  size_t i;

  memset(&model, 0, sizeof model);
  memset(&session, 0xa5, sizeof session); /* create writes an empty one */
  if ((line = use_empty_handles(&model, &session, arena, arena_bytes)) != 0) return line;
  memset(&model, 0xa5, sizeof model);
  EXPECT(heed_model_load(&model, NULL, size).code == HEED_NOT_A_MODEL);
  if ((line = use_empty_handles(&model, &session, arena, arena_bytes)) != 0) return line;
  status = heed_model_load(&model, (const char*)bytes, size - 1);
  EXPECT(status.code == HEED_CORRUPT && status.has_values && status.found == (int64_t)size - 1);
  EXPECT(heed_status_describe(&status, text, sizeof text) == strlen(text) && strstr(text, "corrupt: ") == text);
  status = heed_model_load(&model, bytes, size);
  EXPECT(status.code == HEED_OK);
  EXPECT(heed_model_input_count(&model) == 1 && heed_model_output_count(&model) == 2 &&
         heed_model_dimension_count(&model) == 1);
  EXPECT(strcmp(heed_model_input(&model, 0).name, "x") == 0 && heed_model_input(&model, 0).type == HEED_F32);
  EXPECT(heed_model_output(&model, 1).type == HEED_BOOLEAN && heed_model_output(&model, 1).rank == 2);
  EXPECT(strcmp(heed_model_dimension(&model, 0).name, "batch") == 0 && heed_model_dimension(&model, 0).upper == 6);
  memory = heed_model_memory(&model);
  EXPECT(heed_model_arena_bytes(&model, 1) == memory.workspace + memory.tables + memory.state);
  EXPECT(heed_model_arena_bytes(&model, 2) == heed_model_arena_bytes(&model, 1) + memory.per_thread);

  status = heed_session_create(&session, &model, arena, 64, NULL);
  EXPECT(status.code == HEED_ARENA_TOO_SMALL && status.limit == HEED_AT_LEAST);
  heed_status_describe(&status, text, sizeof text);
  EXPECT(strstr(text, "found 64, expected at least ") != NULL);
  EXPECT(heed_session_create(&session, &model, NULL, arena_bytes, NULL).code == HEED_ARENA_TOO_SMALL);
  EXPECT(heed_session_run(&session).code == HEED_INVALID_ARGUMENT);
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, NULL).code == HEED_OK);
  x = heed_session_input(&session, "x");
  EXPECT(x.data != NULL && x.count == 3600 && x.type == HEED_F32 && x.rank == 2 && x.dims[0] == 6 && x.dims[1] == 600);
  EXPECT(heed_session_input(&session, "none").data == NULL && heed_session_output_at(&session, 1).type == HEED_BOOLEAN);
  EXPECT(heed_session_input(&session, NULL).data == NULL && heed_session_output(&session, NULL).data == NULL);
  EXPECT(heed_session_input_at(&session, 0).data == x.data && x.strides[0] == 600 && x.strides[1] == 1);
  EXPECT(heed_session_input_at(&session, 1).data == NULL && heed_session_output_at(&session, 2).data == NULL);
  for (i = 0; i < x.count; ++i) ((float*)x.data)[i] = (float)i / 100 - 18;
  observer.context = &seen;
  observer.output = see_output;
  observer.after = see_end;
  heed_session_observe(&session, &observer);
  memcpy(&moved, &session, sizeof moved);
  EXPECT(heed_session_run(&moved).code == HEED_OK);
  EXPECT(seen.outputs == 2 && seen.after == 1);
  heed_session_observe(&session, NULL);
  for (i = 0; i < x.count; ++i) ((float*)x.data)[i] = (float)i / 100 - 18;
  EXPECT(heed_session_run(&session).code == HEED_OK && seen.after == 1);
  y = heed_session_output(&session, "y");
  memcpy(first, y.data, y.count * sizeof(float));

  setting.dimension = "batch";
  setting.value = 7;
  status = heed_session_resize(&session, &setting, 1);
  EXPECT(status.code == HEED_DIMENSION_OUT_OF_RANGE && strcmp(status.where, "batch") == 0);
  setting.dimension = "height";
  status = heed_session_resize(&session, &setting, 1);
  EXPECT(status.code == HEED_INVALID_ARGUMENT && status.where == setting.dimension);
  setting.dimension = NULL;
  EXPECT(heed_session_resize(&session, &setting, 1).code == HEED_INVALID_ARGUMENT);
  EXPECT(heed_session_dimension(&session, NULL) == -1);
  setting.dimension = "batch";
  EXPECT(heed_session_resize(&session, &setting, HEED_MAX_SETTINGS + 1).code == HEED_INVALID_ARGUMENT);
  setting.value = 2;
  EXPECT(heed_session_resize(&session, &setting, 1).code == HEED_OK);
  EXPECT(heed_session_dimension(&session, "batch") == 2);

  memset(&options, 0, sizeof options); /* as NULL */
  EXPECT(options.isa == HEED_ISA_BEST && heed_best_isa() != HEED_ISA_BEST);
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_OK);
  options.isa = (heed_isa)256;
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_INVALID_ARGUMENT);
  options.isa = (heed_isa)(HEED_ISA_I8MM + 1);
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_INVALID_ARGUMENT);
  options.isa = heed_best_isa();
  options.parallel_for = serial_for;
  options.pool = &calls;
  options.threads = 2;
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_OK);
  memcpy(&moved, &session, sizeof moved);
  x = heed_session_input(&moved, "x");
  for (i = 0; i < x.count; ++i) ((float*)x.data)[i] = (float)i / 100 - 18;
  EXPECT(heed_session_run(&moved).code == HEED_OK);
  memcpy(second, heed_session_output(&moved, "y").data, y.count * sizeof(float));
  heed_session_reset(&moved);
  options.isa = options.isa >= HEED_ISA_NEON ? HEED_ISA_AVX2 : HEED_ISA_NEON;
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_ISA_UNAVAILABLE);
  return 0;
}

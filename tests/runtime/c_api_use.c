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
  int calls = 0;
  size_t i;

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

  EXPECT(heed_session_create(&session, &model, arena, 64, NULL).code == HEED_ARENA_TOO_SMALL);
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, NULL).code == HEED_OK);
  x = heed_session_input(&session, "x");
  EXPECT(x.data != NULL && x.count == 3600 && x.type == HEED_F32 && x.rank == 2 && x.dims[0] == 6 && x.dims[1] == 600);
  EXPECT(heed_session_input(&session, "none").data == NULL && heed_session_output_at(&session, 1).type == HEED_BOOLEAN);
  EXPECT(heed_session_input_at(&session, 0).data == x.data);
  for (i = 0; i < x.count; ++i) ((float*)x.data)[i] = (float)i / 100 - 18;
  EXPECT(heed_session_run(&session).code == HEED_OK);
  y = heed_session_output(&session, "y");
  memcpy(first, y.data, y.count * sizeof(float));

  setting.dimension = "batch";
  setting.value = 7;
  status = heed_session_resize(&session, &setting, 1);
  EXPECT(status.code == HEED_DIMENSION_OUT_OF_RANGE && strcmp(status.where, "batch") == 0);
  EXPECT(heed_session_resize(&session, &setting, HEED_MAX_SETTINGS + 1).code == HEED_INVALID_ARGUMENT);
  setting.value = 2;
  EXPECT(heed_session_resize(&session, &setting, 1).code == HEED_OK);
  EXPECT(heed_session_dimension(&session, "batch") == 2);

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
  options.isa = options.isa == HEED_ISA_NEON ? HEED_ISA_AVX2 : HEED_ISA_NEON;
  EXPECT(heed_session_create(&session, &model, arena, arena_bytes, &options).code == HEED_ISA_UNAVAILABLE);
  return 0;
}

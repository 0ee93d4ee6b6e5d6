#ifndef HEED_H
#define HEED_H
/* heed in C: four steps, no allocation, handles in the caller's memory.
 *
 *     static heed_model model;
 *     static heed_session session;
 *     heed_status status = heed_model_load(&model, bytes, size);
 *     if (status.code == HEED_OK) status = heed_session_create(&session, &model, arena, arena_size, NULL);
 *     if (status.code != HEED_OK) return report(&status);
 *     float* window = heed_session_input(&session, "window").data;
 *     window[0] = ...;
 *     status = heed_session_run(&session);
 *     const float* forecast = heed_session_output(&session, "forecast").data;
 *
 * Sessions use the model's bytes and the arena, but no longer the heed_model. Handles may be moved with memcpy.
 *
 * Where load or create fails, the handle is empty, as one of zeros is: it has no inputs, outputs or dimensions, and a
 * session of it is refused with HEED_INVALID_ARGUMENT, as are resize and run of an empty session. */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Equal on all targets. */
#define HEED_MODEL_BYTES 96
#define HEED_SESSION_BYTES 192
#define HEED_MAX_RANK 8
#define HEED_MAX_SETTINGS 16

typedef struct heed_model {
  uint64_t opaque[HEED_MODEL_BYTES / 8];
} heed_model;

typedef struct heed_session {
  uint64_t opaque[HEED_SESSION_BYTES / 8];
} heed_session;

/* --- Status
 * ------------------------------------------------------------------------------------------------------------ */

typedef enum heed_code {
  HEED_OK = 0,
  /* the caller's */
  HEED_INVALID_ARGUMENT = 10, /* a name, type or setting that the model does not have */
  HEED_MISALIGNED,            /* the bytes or the arena do not begin at a multiple of 64 */
  HEED_ARENA_TOO_SMALL,
  HEED_INDEX_OUT_OF_RANGE, /* a table index in an input */
  HEED_DIMENSION_OUT_OF_RANGE,
  HEED_CONSTRAINT_BROKEN,
  HEED_STATE_FULL, /* no room for what a run adds: heed_session_reset makes some */
  /* the model's */
  HEED_NOT_A_MODEL = 30, /* no flatbuffer with the identifier HEED */
  HEED_CORRUPT,          /* an index, size, offset or overlap that cannot be */
  HEED_CONTRACT,         /* an operator's shapes or parameters */
  HEED_OTHER_VERSION,    /* the file was written for another version of the format */
  /* the target's */
  HEED_ISA_UNAVAILABLE = 50,
  HEED_TOO_LARGE /* the model needs more than this target can address */
} heed_code;

/* What `expected` is to `found`. */
typedef enum heed_limit { HEED_EXACTLY, HEED_AT_MOST, HEED_AT_LEAST, HEED_BELOW } heed_limit;

typedef struct heed_status {
  heed_code code;
  int32_t operator_index; /* -1: none */
  int32_t tensor_index;   /* -1: none */
  int32_t has_values;     /* whether found and expected mean something */
  int64_t found, expected;
  heed_limit limit;
  const char* what;  /* a sentence without values */
  const char* where; /* name of the operator, input or dimension; may be empty */
} heed_status;

/* Writes a line for people with a final zero into `text`, cut at `size`. Returns its length without the zero. */
size_t heed_status_describe(const heed_status* status, char* text, size_t size);

/* --- Model
 * ------------------------------------------------------------------------------------------------------------- */

typedef enum heed_type { HEED_F32, HEED_I32, HEED_BOOLEAN, HEED_I8, HEED_U8 } heed_type;

/* Bytes by region; constants stay in the file. */
typedef struct heed_memory {
  uint64_t constants, state, workspace, tables, lower_bound, per_thread;
} heed_memory;

/* An input or output. */
typedef struct heed_port {
  const char* name;
  heed_type type;
  int32_t border_type; /* in the original model, numbered as in ONNX */
  int32_t rank;
} heed_port;

/* A named size, lower <= value <= upper. */
typedef struct heed_dimension {
  const char* name;
  int32_t lower, upper, start;
} heed_dimension;

/* Verifies a whole file, which begins at a multiple of 64; the bytes stay valid and unchanged while model and sessions
 * live. */
heed_status heed_model_load(heed_model* model, const void* bytes, size_t size);

heed_memory heed_model_memory(const heed_model* model);
/* What heed_session_create wants of an arena. */
uint64_t heed_model_arena_bytes(const heed_model* model, uint32_t threads);

uint32_t heed_model_input_count(const heed_model* model);
uint32_t heed_model_output_count(const heed_model* model);
uint32_t heed_model_dimension_count(const heed_model* model);
/* `index` is below the count. */
heed_port heed_model_input(const heed_model* model, uint32_t index);
heed_port heed_model_output(const heed_model* model, uint32_t index);
heed_dimension heed_model_dimension(const heed_model* model, uint32_t index);

/* --- Session
 * ----------------------------------------------------------------------------------------------------------- */

typedef enum heed_isa {
  HEED_ISA_BEST, /* the highest level that this processor and this build have */
  HEED_ISA_PORTABLE,
  HEED_ISA_AVX2,
  HEED_ISA_AVXVNNI,
  HEED_ISA_AVX512,
  HEED_ISA_AVX512VNNI,
  HEED_ISA_NEON,
  HEED_ISA_DOTPROD,
  HEED_ISA_I8MM
} heed_isa;
/* What HEED_ISA_BEST stands for. */
heed_isa heed_best_isa(void);

/* Runs task(context, index, thread) for every index in [0, count) and returns after the last one; `thread` is in [0,
 * threads), and two tasks that run at the same time have different ones. */
typedef void (*heed_task)(void* context, uint32_t index, uint32_t thread);
typedef void (*heed_parallel_for)(void* pool, uint32_t count, heed_task task, void* context);

/* All zeros is what NULL stands for: the best instruction set, the caller's thread alone. */
typedef struct heed_options {
  heed_isa isa;                   /* a ceiling: each operator takes its best variant at or below it */
  heed_parallel_for parallel_for; /* NULL: the caller's thread does everything */
  void* pool;
  uint32_t threads; /* the caller's counts; 0 is taken as 1 */
} heed_options;

/* Lays the model out in `arena`, which begins at a multiple of 64. `options` may be NULL. */
heed_status heed_session_create(heed_session* session, const heed_model* model, void* arena, size_t arena_bytes,
                                const heed_options* options);

/* The elements of an input or output, dense in the current dimensions, row-major. `data` is NULL where there is none of
 * this name or index. Booleans are bytes, non-zero is true. An input's elements are undefined after a run; an output's
 * stand until the next run, resize or reset. A view taken before a resize is stale after it. */
typedef struct heed_view {
  void* data;
  size_t count;
  heed_type type;
  int32_t rank;
  int32_t dims[HEED_MAX_RANK];
  int32_t strides[HEED_MAX_RANK]; /* in elements */
} heed_view;
heed_view heed_session_input(heed_session* session, const char* name);
heed_view heed_session_output(const heed_session* session, const char* name);
heed_view heed_session_input_at(heed_session* session, uint32_t index);
heed_view heed_session_output_at(const heed_session* session, uint32_t index);

/* Sets up to HEED_MAX_SETTINGS dimensions at once; all inputs must be written again. Nothing changes where the status
 * is not HEED_OK. */
typedef struct heed_setting {
  const char* dimension;
  int32_t value;
} heed_setting;
heed_status heed_session_resize(heed_session* session, const heed_setting* settings, size_t count);
/* The current value; -1 where there is no such dimension. */
int32_t heed_session_dimension(const heed_session* session, const char* name);

heed_status heed_session_run(heed_session* session);

/* The state's first values again. */
void heed_session_reset(heed_session* session);
/* How far the states that grow have grown; -1 where none does. Up to *upper (may be NULL) a run is possible. */
int32_t heed_session_position(const heed_session* session, int32_t* upper);

/* What an observer sees while a model runs; any function may be NULL. It is called in the float mode of the run
 * (subnormals are zero). */
typedef struct heed_observer {
  void* context;
  /* After each operator, for each of its outputs, which may be strided. */
  void (*output)(void* context, uint32_t operator_index, uint32_t output, const heed_view* value);
  /* Attention's weights, row by row: `weights` is [keys], normalised. With several threads it may be called from any of
   * them, from several at once. */
  void (*weights)(void* context, uint32_t operator_index, int32_t batch, int32_t head, int32_t query,
                  const float* weights, size_t keys);
  /* After each operator: for timing. */
  void (*after)(void* context, uint32_t operator_index);
} heed_observer;
/* From now on run tells `observer`, which stays valid and in its place meanwhile; NULL: nobody. */
void heed_session_observe(heed_session* session, const heed_observer* observer);

/* SHA-256 of `size` bytes as 64 lower-case hexadecimal digits and a final zero: the hash that `heed run` prints. */
void heed_sha256(const void* bytes, size_t size, char hex[65]);

#ifdef __cplusplus
}
#endif
#endif

#include <heed/heed.h>
#include <threads.h> /* C's own */

int refused_in_c(const void* bytes, size_t size);
int refused_in_c(const void* bytes, size_t size) {
  heed_model model;
  mtx_t mutex;
  if (mtx_init(&mutex, mtx_plain) != thrd_success) return 0;
  return heed_model_load(&model, bytes, size).code == HEED_NOT_A_MODEL;
}

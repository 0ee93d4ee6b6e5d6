#include <heed/heed.h>

int refused_in_c(const void* bytes, size_t size);
int refused_in_c(const void* bytes, size_t size) {
  heed_model model;
  return heed_model_load(&model, bytes, size).code == HEED_NOT_A_MODEL;
}

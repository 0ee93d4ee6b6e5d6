/* forecast.cpp in C: the same four steps through heed.h, the same output.
 *
 *     forecast_c MODEL.heed PRICES.csv [FORECASTS.csv] */
#include "heed/heed.h"
#include "prices.h"

static void require(heed_status status, const char* where) {
  char text[256];
  if (status.code == HEED_OK) return;
  heed_status_describe(&status, text, sizeof text);
  fail(text, where);
}

/* The elements of an input or output, which may be another model's. */
static float* expect(heed_view view, size_t count, const char* name) {
  if (view.data == NULL || view.type != HEED_F32 || view.count != count)
    fail("the model has none of this type and size", name);
  return view.data;
}

int main(int argc, char** argv) {
  if (argc < 3) return fprintf(stderr, "usage: forecast_c MODEL.heed PRICES.csv [FORECASTS.csv]\n"), 2;
  static struct prices prices;
  read_prices(argv[2], &prices);

  /* The model's bytes are used in place; the arena is all the memory it will ever use. */
  static heed_model model;
  static heed_session session;
  size_t size;
  void* bytes = read_whole(argv[1], &size);
  require(heed_model_load(&model, bytes, size), argv[1]);
  const size_t arena_bytes = (size_t)heed_model_arena_bytes(&model, 1);
  void* arena = allocate_aligned(arena_bytes);
  require(heed_session_create(&session, &model, arena, arena_bytes, NULL), argv[1]);

  const int first = first_test_day(&prices);
  for (int day = first; day < prices.count; day += largest_batch) {
    const int left = prices.count - day, batch = left < largest_batch ? left : largest_batch;
    const heed_setting setting = {"batch", batch};
    require(heed_session_resize(&session, &setting, 1), argv[1]);
    float* window = expect(heed_session_input(&session, "window"), batch * days, "window"); /* [batch, days] */
    for (int i = 0; i < batch; ++i) memcpy(window + i * days, prices.close + day + i - days, days * sizeof(float));
    require(heed_session_run(&session), argv[1]);
    const float* forecast = expect(heed_session_output(&session, "forecast"), batch, "forecast"); /* [batch, 1] */
    memcpy(prices.forecast + day, forecast, batch * sizeof(float));
  }

  print_forecasts(&prices);
  if (argc > 3) write_forecasts(argv[3], &prices);
  char hash[65];
  heed_sha256(prices.forecast + first, (size_t)(prices.count - first) * sizeof(float), hash);
  printf("arena: %zu bytes\nhash: %s\n", arena_bytes, hash);
  close_written(stdout, "standard output");
  return 0;
}

// Forecasts each day of the last fifth of the prices from the five days before it, 64 days at a time.
//
//     forecast MODEL.heed PRICES.csv [FORECASTS.csv [ISA]]
#include <algorithm>
#include <cstdio>
#include <span>
#include <string_view>

#include "heed/session.h"
#include "heed/sha256.h"
#include "prices.h"

namespace {

void require(const heed::Status& status, const char* where) {
  char text[256];
  if (!status.ok()) status.describe(text, sizeof text), fail(text, where);
}

heed::Isa isa_named(std::string_view name) {
  for (int i = 0; i < heed::isa_count; ++i)
    if (name == heed::name(heed::Isa(i))) return heed::Isa(i);
  fail("no such instruction set", name.data());
  return heed::Isa::portable;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: forecast MODEL.heed PRICES.csv [FORECASTS.csv [ISA]]\n"), 2;
  static prices prices;
  read_prices(argv[2], &prices);

  // The model's bytes are used in place; the arena is all the memory it will ever use.
  size_t size;
  auto* bytes = static_cast<std::byte*>(read_whole(argv[1], &size));
  auto model = heed::Model::load({bytes, size});
  require(model.status(), argv[1]);
  const size_t arena_bytes = model->memory().total();
  auto* arena = static_cast<std::byte*>(allocate_aligned(arena_bytes));
  const heed::Options options{.isa = argc > 4 ? isa_named(argv[4]) : heed::best_isa()};
  auto session = heed::Session::create(*model, {arena, arena_bytes}, options);
  require(session.status(), argv[1]);

  const int first = first_test_day(&prices);
  for (int day = first; day < prices.count; day += largest_batch) {
    const int batch = std::min<int>(largest_batch, prices.count - day);
    require(session->resize("batch", batch), argv[1]);
    auto window = session->input<float>("window");  // [batch, days]
    for (int i = 0; i < batch; ++i) std::copy_n(prices.close + day + i - days, days, window.data() + i * days);
    require(session->run(), argv[1]);
    std::ranges::copy(session->output<float>("forecast"), prices.forecast + day);  // [batch, 1]
  }

  print_forecasts(&prices);
  if (argc > 3) write_forecasts(argv[3], &prices);
  const std::span<const float> forecasts(prices.forecast + first, size_t(prices.count - first));
  std::printf("arena: %zu bytes\nhash: %s\n", arena_bytes, heed::sha256(std::as_bytes(forecasts)).hex().text);
}

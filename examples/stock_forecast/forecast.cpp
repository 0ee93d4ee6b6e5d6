// Forecasts each day of the last fifth of the prices from the five days before it, 64 days at a time.
//
//     forecast MODEL.heed PRICES.csv [FORECASTS.csv] [--isa ISA]
#include <algorithm>
#include <cstdio>
#include <span>

#include "examples/common/example.h"
#include "heed/sha256.h"
#include "prices.h"

using namespace example;

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, "forecast MODEL.heed PRICES.csv [FORECASTS.csv] [--isa ISA]", 2, 3, {"--isa"});
  static prices prices;
  read_prices(arguments.file(1), &prices);
  heed::Session session = open_session(arguments.file(0), arguments.isa());

  const int first = first_test_day(&prices);
  for (int day = first; day < prices.count; day += largest_batch) {
    const int batch = std::min<int>(largest_batch, prices.count - day);
    require(session.resize("batch", batch), arguments.file(0));
    const auto window = expect(session.input<float>("window"), size_t(batch) * days, "window");  // [batch, days]
    for (int i = 0; i < batch; ++i) std::copy_n(prices.close + day + i - days, days, window.data() + i * days);
    require(session.run(), arguments.file(0));
    const auto forecast = expect(session.output<float>("forecast"), size_t(batch), "forecast");  // [batch, 1]
    std::ranges::copy(forecast, prices.forecast + day);
  }

  print_forecasts(&prices);
  if (arguments.file(2) != nullptr) write_forecasts(arguments.file(2), &prices);
  const std::span<const float> forecasts(prices.forecast + first, size_t(prices.count - first));
  std::printf("arena: %zu bytes\nhash: %s\n", size_t(session.model().memory().total()),
              heed::sha256(std::as_bytes(forecasts)).hex().text);
  close_written(stdout, "standard output");
}

#include "tools/cli/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "tools/cli/data.h"
#include "tools/cli/loaded.h"
#include "tools/cli/terminal.h"

namespace heed::tools {
namespace {

/// How many of a value's elements lie in each part of its range.
struct Histogram {
  static constexpr size_t bins = 4096;
  Range whole{INFINITY, -INFINITY};
  std::vector<double> counts = std::vector<double>(bins);

  void widen(float x) {
    if (!std::isfinite(x)) return;
    whole.lowest = std::min(whole.lowest, x);
    whole.highest = std::max(whole.highest, x);
  }
  double width() const { return (double{whole.highest} - double{whole.lowest}) / bins; }
  double middle(size_t bin) const { return whole.lowest + (static_cast<double>(bin) + 0.5) * width(); }
  void count(float x) {
    if (!std::isfinite(x) || width() == 0) return;
    const double bin = (double{x} - double{whole.lowest}) / width();
    ++counts[std::min(static_cast<size_t>(bin), bins - 1)];
  }

  /// Half of `share` of the elements lie outside on each side.
  Range without(double share) const {
    double all = 0;
    for (const double each : counts) all += each;
    const auto end = [&](auto first, auto last) {
      double left = all * share / 2;
      auto bin = first;
      while (bin != last && (left -= *bin) >= 0) ++bin;
      return static_cast<double>(bin - first) * width();
    };
    return {static_cast<float>(whole.lowest + end(counts.begin(), counts.end())),
            static_cast<float>(whole.highest - end(counts.rbegin(), counts.rend()))};
  }

  /// The range, shrunk towards 0, that loses least where 255 steps fill it.
  Range of_least_error() const {
    Range best = whole;
    double least = INFINITY;
    for (int percent = 100; percent >= 20; percent -= 2) {
      const Range range{whole.lowest * static_cast<float>(percent) / 100,
                        whole.highest * static_cast<float>(percent) / 100};
      const double low = std::min(range.lowest, 0.0f), high = std::max(range.highest, 0.0f), step = (high - low) / 255;
      double error = 0;
      for (size_t i = 0; i < bins && step > 0; ++i) {
        const double x = middle(i), outside = x < low ? low - x : x > high ? x - high : 0;
        error += counts[i] * (outside > 0 ? outside * outside : step * step / 12);
      }
      if (error < least) least = error, best = range;
    }
    return best;
  }
};

}  // namespace

std::vector<Range> ranges_of(const std::vector<std::byte>& file, size_t count,
                             const std::vector<std::string>& arguments, RangeKind kind) {
  const LoadedModel loaded("--calibrate", file);
  Data data(loaded, arguments);
  Runner runner(loaded, {});
  Session& session = runner.session();
  std::vector<Histogram> found(count);
  const uint32_t first = loaded.model().output_count() - static_cast<uint32_t>(count);
  const auto visit = [&](const char* what, const std::function<void(Histogram&, float)>& take) {
    Progress progress;
    for (size_t sample = 0; sample < data.samples(); ++sample) {
      session.reset();
      data.feed(sample, session);
      check(session.run(), data.at("--calibrate " + arguments.front(), sample));
      for (size_t i = 0; i < count; ++i) {
        const Tensor values = session.output(first + static_cast<uint32_t>(i));
        for (int64_t k = 0; k < element_count(*values.shape); ++k) take(found[i], values.as<float>()[k]);
      }
      progress.show(fmt::format("{}: sample {} of {}", what, sample + 1, data.samples()),
                    static_cast<double>(sample + 1) / static_cast<double>(data.samples()));
    }
  };
  visit("ranges", [](Histogram& histogram, float x) { histogram.widen(x); });
  data.note_not_finite();
  if (kind != RangeKind::minmax) visit("distributions", [](Histogram& histogram, float x) { histogram.count(x); });
  std::vector<Range> ranges;
  for (const Histogram& each : found)
    ranges.push_back(kind == RangeKind::minmax       ? each.whole
                     : kind == RangeKind::percentile ? each.without(1e-4)
                                                     : each.of_least_error());
  return ranges;
}

}  // namespace heed::tools

#include "tools/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace heed::tools {
namespace {

std::string joined(const std::vector<std::string>& problems) {
  std::string text;
  for (const std::string& problem : problems) text += (text.empty() ? "" : "\n") + problem;
  return text;
}

// Letters to insert, to take away and to change that make one text the other.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t before = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = before + (a[i] != b[j]);
      before = row[j + 1];
      row[j + 1] = std::min({changed, before + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

Error::Error(Fault fault, std::vector<std::string> problems)
    : std::runtime_error(joined(problems)), fault_(fault), problems_(std::move(problems)) {}

std::string likest_first(std::string_view wrong, std::vector<std::string> names) {
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return distance(wrong, a) < distance(wrong, b); });
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace heed::tools

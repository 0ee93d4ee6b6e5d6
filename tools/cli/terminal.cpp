#include "tools/cli/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace heed::tools {
namespace {

/// Columns that UTF-8 text takes, as far as each character takes one.
size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string grouped(uint64_t number) {
  std::string text = std::to_string(number);
  for (size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string against_lower_bound(uint64_t workspace, uint64_t lower_bound) {
  const double over = lower_bound == 0 ? 0 : static_cast<double>(workspace) / static_cast<double>(lower_bound) - 1;
  return fmt::format("lower bound {}, {:+.1f} %", grouped(lower_bound), 100 * over);
}

std::string printable(const std::string& text) {
  std::string clean;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool c1 = c == 0xC2 && next >= 0x80 && next < 0xA0;  // U+0080 to U+009F
    clean += c < 32 || c == 127 || c1 ? '?' : text[i];
    i += c1;
  }
  return clean;
}

std::string bold(const std::string& text) {
  static const bool colours = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  return colours ? "\033[1m" + text + "\033[0m" : text;
}

Table::Table(std::vector<std::string> headings) : headings_(std::move(headings)) {
  for (std::string& heading : headings_) {
    right_.push_back(heading.starts_with('>'));
    if (right_.back()) heading.erase(0, 1);
  }
}

void Table::print() const {
  std::vector<size_t> widths;
  for (const std::string& heading : headings_) widths.push_back(width(heading));
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(printable(row[i])));
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = printable(cells[i]);
      const std::string space(widths[i] - width(cell), ' ');
      text += "  " + (right_[i] ? space + cell : cell + space);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  fmt::print("{}\n", bold(line(headings_)));
  for (const auto& row : rows_) fmt::print("{}\n", line(row));
}

Progress::Progress()
    : terminal_(::isatty(STDERR_FILENO) == 1), start_(std::chrono::steady_clock::now()), last_(start_) {}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void Progress::show(const std::string& stage, double share) {
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now - start_ < 200ms || now - last_ < 50ms) return;
  last_ = now;
  shown_ = true;
  constexpr int columns = 24;
  const int done = static_cast<int>(std::clamp(share, 0.0, 1.0) * columns);
  fmt::print(stderr, "\r\033[K[{:=<{}}{:{}}] {}", "", done, "", columns - done, printable(stage));
  std::fflush(stderr);
}

}  // namespace heed::tools

#pragma once
/// What people see: tables, numbers, emphasis and progress, each only where it is wanted.
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace heed::tools {

/// 1234567 as "1,234,567".
std::string grouped(uint64_t number);

/// "lower bound 4,096, +1.6 %"
std::string against_lower_bound(uint64_t workspace, uint64_t lower_bound);

/// Text from a file or a command line without the bytes that would steer a terminal.
std::string printable(const std::string& text);

/// `text` in bold where standard output is a terminal (and NO_COLOR is not set), else as it is.
std::string bold(const std::string& text);

/// Rows of columns under a heading, printed to standard output. Columns are as wide as their widest cell.
class Table {
 public:
  /// A heading that begins with '>' is of a column aligned to the right.
  explicit Table(std::vector<std::string> headings);
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  void print() const;

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

/// One line on standard error that says what is being done, where that is a terminal and the work is long; gone when
/// destroyed.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const std::string& stage, double share);

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace heed::tools

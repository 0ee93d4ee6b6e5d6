#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace heed::tools {

/// Whose fault it is, as the program's exit code.
enum class Fault { model = 1, command_line = 2, machine = 3 };

/// A refusal with every reason at once, each a line that names what and where.
class Error : public std::runtime_error {
 public:
  Error(Fault fault, std::vector<std::string> problems);
  Error(Fault fault, std::string problem) : Error(fault, std::vector<std::string>{std::move(problem)}) {}

  Fault fault() const { return fault_; }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  Fault fault_;
  std::vector<std::string> problems_;
};

/// Names that there are, those that are most like a wrong one first: "tokens, heads".
std::string likest_first(std::string_view wrong, std::vector<std::string> names);

}  // namespace heed::tools

#include "tools/error.h"

#include <utility>

namespace heed::tools {
namespace {

std::string joined(const std::vector<std::string>& problems) {
  std::string text;
  for (const std::string& problem : problems) text += (text.empty() ? "" : "\n") + problem;
  return text;
}

}  // namespace

Error::Error(Fault fault, std::vector<std::string> problems)
    : std::runtime_error(joined(problems)), fault_(fault), problems_(std::move(problems)) {}

}  // namespace heed::tools

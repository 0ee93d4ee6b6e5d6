#pragma once
/// Sizes of a model's inputs under `--dim`.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/onnx/model.h"

namespace heed::tools {

struct BoundInputs {
  std::vector<Dims> dims;                       // of each input, in order
  std::map<std::string, Dimension> dimensions;  // those that stay variable
  std::vector<Constraint> limits;
};

/// A size that an input with a text in its place is set to.
struct PinnedSize {
  std::string_view text;  // a name or an expression
  int64_t size;
  std::string option;
};

struct DimensionOptions {
  const std::vector<std::string>& dims;    // NAME=N, NAME=LO..HI, INPUT:AXIS=N, INPUT:AXIS=LO..HI
  const std::vector<std::string>& limits;  // two expressions over dimensions with <=, >=, <, > or == between them
  const std::vector<PinnedSize>& pinned;
  const std::string& command;  // what options that are missing are written behind
};

/// A dimension left unbound is 1 where it is the leading axis of an input and named like a batch (`notes` then says
/// so). Throws Error(command_line) with the problems there are and every option that is wrong, or else with all
/// dimensions that are still unbound and where they stand.
BoundInputs bind_dimensions(const std::vector<const onnx::ValueInfo*>& inputs, const DimensionOptions& options,
                            std::vector<std::string> problems, std::vector<std::string>& notes);

}  // namespace heed::tools

#pragma once
/// Sizes of a model's inputs under `--dim`.
#include <map>
#include <string>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/onnx/model.h"

namespace heed::tools {

struct BoundInputs {
  std::vector<Dims> dims;                       // of each input, in order
  std::map<std::string, Dimension> dimensions;  // those that stay variable
  std::vector<Constraint> limits;
};

/// `options` are `NAME=N`, `NAME=LO..HI`, `INPUT:AXIS=N` or `INPUT:AXIS=LO..HI`. A dimension left unbound is 1 where it
/// is the leading axis of an input and named like a batch (`notes` then says so). `limits` are two expressions over
/// dimensions with <=, >=, <, > or == between them. Throws Error(command_line) with every option that is wrong, or else
/// with all dimensions that are still unbound, as options behind `command`.
BoundInputs bind_dimensions(const std::vector<const onnx::ValueInfo*>& inputs, const std::vector<std::string>& options,
                            const std::vector<std::string>& limits, const std::string& command,
                            std::vector<std::string>& notes);

}  // namespace heed::tools

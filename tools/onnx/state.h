#pragma once
/// Which outputs are the next values of which inputs: the state that a session carries from run to run.
#include <string>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/onnx/model.h"

namespace heed::tools {

struct StatePair {
  std::string input, output;
  std::string option;  // that asked for it; empty: it was found by its names
};

/// `options` are `IN=OUT`, where a * on both sides stands for the same text, or `none`: then names alone make no pair.
/// `problems` gets every option that names no pair.
std::vector<StatePair> pair_states(const std::vector<onnx::ValueInfo>& inputs,
                                   const std::vector<onnx::ValueInfo>& outputs, const std::vector<std::string>& options,
                                   std::vector<std::string>& problems);

/// Declares the pairs as the graph's state, where types and shapes allow it. A pair's axis that grows makes its
/// dimension the position. Throws Error(command_line) with every pair that was asked for and does not fit; one that was
/// found by its names is left to the caller, and a note says so.
void declare_states(Graph& graph, const std::vector<StatePair>& pairs);

}  // namespace heed::tools

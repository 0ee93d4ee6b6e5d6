#pragma once
/// The proof of a fusion: both ways of computing its values, on the same random data.
#include <string>
#include <utility>
#include <vector>

#include "tools/graph/graph.h"

namespace heed::tools {

/// Both sides are computed in double and rounded to float after each operation, so that an honest replacement differs
/// by a few roundings of the largest value; the tanh form of GELU taken for the erf form differs by 1.4e-4 of it.
inline constexpr double fusion_tolerance = 2e-5;

using Replacements = std::vector<std::pair<ValueId, ValueId>>;  // before, after

struct Check {
  bool same = false;
  bool tried = true;    // false: no permitted sizes were found to compute anything at
  double error = 0;     // largest difference over largest magnitude
  std::string problem;  // what disagrees, with numbers
};

/// Evaluates what was before and what comes after from the values that the latter is built on (nodes from `first_new`
/// on are new): normal numbers, then rows of different magnitude and other sizes of the dimensions; masks that are
/// mostly true; what depends on dimensions only, and constants, as they are. A row that is NaN before (all of its keys
/// masked) may be anything after.
Check check_fusion(const Graph& graph, const Replacements& replacements, NodeId first_new);

}  // namespace heed::tools

#pragma once
/// Graph -> Graph: the canonical form, then the fusions (docs/converter.md lists both).
///
/// A rewrite (canonical.cpp) is exact algebra that makes many ways to write a thing one. A fusion (fuse_*.cpp) replaces
/// a region by one operation, and is checked when it is made: region and replacement are evaluated on random data, and
/// a mismatch undoes it.
#include <functional>
#include <string>

#include "tools/convert.h"
#include "tools/graph/graph.h"

namespace heed::tools {

using Progress = std::function<void(const std::string& stage, double share)>;

/// Fills `fused` and `missed` of the report. What no output needs is dead afterwards.
void optimise(Graph& graph, Report& report, const Progress& progress = {});

/// The canonical form alone: rewrites until none applies, equal nodes made one. Also called between fusions.
void canonicalise(Graph& graph);

/// Functions of positions alone, sines above all, become constants that are sliced. True where there were any.
bool tabulate(Graph& graph);

/// Marks every softmax whose result weights a sum, fused or not, and counts them.
void mark_weights(Graph& graph, Report& report);
/// Reports why a softmax whose result weights a sum is no attention, where the fusion did not get as far as it.
void explain_weights(Graph& graph, Report& report);

/// Layers with constant weights in int8, after optimise().
void quantize(Graph& graph, Report& report);

}  // namespace heed::tools

#pragma once
/// Graph -> Graph: the canonical form, then the fusions (docs/converter.md lists both).
///
/// A rewrite (canonical.cpp) is exact algebra that makes many ways to write a thing one. A fusion (fuse_*.cpp) replaces
/// a region by one operation, and is checked when it is made: region and replacement are evaluated on random data, and
/// a mismatch undoes it.
#include <functional>
#include <map>
#include <string>

#include "tools/convert.h"
#include "tools/graph/graph.h"

namespace heed::tools {

using Progress = std::function<void(const std::string& stage, double share)>;

/// What optimise() and fuse_quantized() may rely on in graphs that are quantised already; `relax` drops what is
/// quantised between the two products of an attention.
void settle_quantized(Graph& graph, bool relax, Report& report);

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

/// Quantised products in int8 with their own scales, after optimise().
void fuse_quantized(Graph& graph, Report& report);
/// All else that is quantised: by the products that make it, or in steps of programs.
void expand_quantized(Graph& graph);

/// Smooths what layers read that are to become int8; the layers, anew where they are others now.
bool smooths(Graph& graph);  // whether there may be any
std::vector<NodeId> smooth(Graph& graph, std::vector<NodeId> layers, const Calibration& calibration, Report& report);

/// Takes off keys what all of them have in common. To be done before the float model that int8 is compared with is made:
/// the layers that make keys compute something else then. `calibration` may be null.
void centre_keys(Graph& graph, const Calibration* calibration, Report& report);

/// What quantize() may quantise with ranges: operands of layers.
std::vector<ValueId> quantizable(const Graph& graph);
/// Layers with constant weights in int8, after optimise(). Operands that `ranges` knows have a scale and zero point
/// that are given, others scales found while they are made; expand_quantized() comes after.
void quantize(Graph& graph, Report& report, const Int8Options& options = {},
              const std::map<ValueId, Range>& ranges = {});

}  // namespace heed::tools

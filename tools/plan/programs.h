#pragma once
/// Graph -> Graph: the maps that no kernel has taken into its epilogue become `elementwise` programs.
///
/// Connected maps of equal dimensions go into one program, greedily in the graph's order, as long as the program stays
/// within the kernel's limits (sources, outputs, registers, immediates, steps) and no cycle arises. A producer of fewer
/// elements than its readers stays a program of its own, unless it is cheaper to compute it again inside them than to
/// call one more operator: a few additions, comparisons and the like before small readers.
///
/// Scalars become immediates, iota and sizes become sources without memory, equal steps are computed once. Afterwards
/// the graph holds no Map, Iota or Size.
#include "tools/graph/graph.h"

namespace heed::tools {

void make_programs(Graph& graph);

}  // namespace heed::tools

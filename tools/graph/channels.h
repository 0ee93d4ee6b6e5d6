#pragma once
/// Tensors with their channels in another order, repeated, or of the other sign.
#include "tools/graph/graph.h"

namespace heed::tools {

struct Channel {
  int64_t from;
  bool negative = false;
};

/// The tensor whose element i along `axis` is the element channels[i].from of x, with its sign changed where
/// `negative`. Below maps and views it is picked from their operands, down to constants if that may be: a
/// table that is gathered, sliced or computed from constants costs the device nothing more.
ValueId pick_channels(Graph& graph, ValueId x, int axis, const std::vector<Channel>& channels);

}  // namespace heed::tools

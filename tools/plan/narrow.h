#pragma once
/// Graph -> Graph: what is sliced away is not computed.
///
/// A slice that is the only reader of a value goes before the operation that makes the value, where that operation
/// computes each element of the slice from slices of its operands: maps, rows and columns of matrix products, rows of
/// normalisations, softmaxes and reductions. So the last layer of an encoder of which one token is read ends up
/// computing one row. The elements that are left are the same bits. A slice stops where it cuts nothing off (attention,
/// recurrent layers, inputs), and before a softmax whose weights people may want to see.
#include "tools/graph/graph.h"

namespace heed::tools {

void narrow(Graph& graph);

}  // namespace heed::tools

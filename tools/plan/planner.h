#pragma once
/// Lowered -> Planned: which storages share memory, and where each lies.
///
/// 1. Aliasing. Where an operator's contract lets an output take an input's memory (same elements, same size), the
/// input's
///    storage ends with this operator, the output's begins with it, and no other operand reads it in another way, the
///    two become one buffer.
/// 2. Lives. A buffer lives from the first operator that touches it to the last one; an input from before the first
///    operator, an output to after the last. Scratch is a buffer that lives for one operator.
/// 3. Offsets. Buffers are placed one after another, each into the smallest gap that holds it between those already
/// placed
///    that live at the same time. The order decides: by size, by length of life, by size times length, by first
///    operator; then a local search moves the buffer that ends highest, or one that lives with it, ahead in the order,
///    for a fixed number of rounds. The smallest plan is kept; it is proved best where it meets the lower bound.
///
/// States lie one after another in a region of their own.
///
/// Weak side: the order of operators is the graph's, not chosen for memory; the search is short, so that plans of many
/// buffers may stay some percent above the bound; a storage written in parts (concat) is held whole from its first
/// part.
#include <span>
#include <vector>

#include "tools/plan/lower.h"

namespace heed::tools {

struct Lifetime {
  uint64_t bytes;   // a multiple of 64
  int first, last;  // operators, both inclusive
};

/// The largest sum of what is alive at one operator: no placement is smaller.
uint64_t lower_bound(std::span<const Lifetime> buffers);

/// Offsets in bytes, multiples of 64, at which no two buffers that are alive together overlap.
std::vector<uint64_t> place(std::span<const Lifetime> buffers);

struct Buffer {
  uint64_t offset = 0;    // bytes, from the state's start
  uint64_t capacity = 0;  // bytes
  int first = 0, last = 0;
};

struct Plan {
  std::vector<Buffer> buffers;  // in the order of `first`
  std::vector<int> buffer_of;   // of storages; -1: a constant, or nobody uses it
  std::vector<int> scratch_of;  // of operators: a buffer, or -1
  std::vector<bool> in_place;   // of operators: an output lies where an input lay
  uint64_t state = 0;           // bytes
  uint64_t workspace = 0;       // bytes
  uint64_t lower_bound = 0;     // bytes
};

Plan plan(const Lowered& lowered);

}  // namespace heed::tools

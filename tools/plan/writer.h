#pragma once
/// Lowered and its plan -> the bytes of a .heed file, as format/heed.fbs describes it. The same model gives the same
/// bytes.
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tools/plan/planner.h"

namespace heed::tools {

/// `fusions`: how often each concept was fused. Throws Error(model) where a size or constant does not fit the file's 32
/// bits.
std::vector<std::byte> write(const Lowered& lowered, const Plan& plan, const std::map<std::string, int>& fusions);

/// What a new session's dimensions are: in their order, each the largest value that the constraints allow given those
/// before it and some permitted value of those after it. Throws Error(model) where no values are permitted.
std::map<std::string, int64_t> start_point(const std::map<std::string, Dimension>& dimensions,
                                           const std::vector<Constraint>& constraints);

}  // namespace heed::tools

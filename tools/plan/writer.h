#pragma once
/// Lowered and its plan -> the bytes of a .heed file, as format/heed.fbs describes it. The same model gives the same
/// bytes.
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tools/plan/planner.h"

namespace heed::tools {

/// `fusions`: how often each concept was fused; `made_with`: the converter's options and their values, in turn. Throws
/// Error(model) where a size or constant does not fit the file's 32 bits.
std::vector<std::byte> write(const Lowered& lowered, const Plan& plan, const std::map<std::string, int>& fusions,
                             const std::vector<std::string>& made_with = {});

}  // namespace heed::tools

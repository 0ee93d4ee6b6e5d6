#pragma once
/// Ranges of values on data: what int8-static goes by.
#include <string>
#include <vector>

#include "tools/convert.h"

namespace heed::tools {

/// How a range is found of values: all of them; without the outermost 0.01 percent; the one whose steps give the
/// smallest squared error.
enum class RangeKind { minmax, percentile, mse };

/// Runs a file over data, arguments as of Data, and finds the range of each of its last `count` outputs. Throws Error
/// as Data does.
std::vector<Range> ranges_of(const std::vector<std::byte>& file, size_t count, const std::vector<std::string>& data,
                             RangeKind kind);

}  // namespace heed::tools

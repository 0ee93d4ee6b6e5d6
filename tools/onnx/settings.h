#pragma once
/// `--set`: inputs of a model that are constants.
#include <map>
#include <string>
#include <vector>

#include "tools/graph/graph.h"
#include "tools/onnx/dimensions.h"
#include "tools/onnx/model.h"

namespace heed::tools {

class Settings {
 public:
  /// `options` are `NAME=VALUE` (a number or true or false, for every element) or `NAME=FILE.npy`. `problems` gets
  /// every option that names no input, or whose value or file does not fit it.
  Settings(const std::vector<onnx::ValueInfo>& inputs, const std::vector<std::string>& options,
           std::vector<std::string>& problems);

  bool has(std::string_view name) const { return values_.count(name) != 0; }
  /// A scalar, or an array of the input's rank.
  const Literal& value(std::string_view name) const { return values_.find(name)->second; }
  /// The model's inputs, those set from files with the files' sizes.
  const std::vector<onnx::ValueInfo>& inputs() const { return inputs_; }
  /// Sizes that files have where the model has a text.
  const std::vector<PinnedSize>& pinned() const { return pinned_; }

 private:
  std::vector<onnx::ValueInfo> inputs_;
  std::vector<PinnedSize> pinned_;
  std::map<std::string, Literal, std::less<>> values_;
};

}  // namespace heed::tools

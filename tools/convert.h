#pragma once
/// The converter's front door: an ONNX file in, the bytes of a .heed file and a report out.
///
///   model.onnx -> onnx::read -> import -> passes (canonical form, fusions, programs) -> plan -> write -> model.heed
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tools/error.h"

namespace heed::tools {

struct ConvertOptions {
  /// `--dim NAME=LO..HI` and `--dim INPUT:AXIS=LO..HI`, as written; `NAME=N` fixes a size.
  std::vector<std::string> dims = {};
  /// `--state IN=OUT`: pairs of inputs and outputs that a session carries, beside those known by their names (`none`:
  /// only these).
  std::vector<std::string> states = {};
  /// `--set NAME=VALUE` and `--set NAME=FILE.npy`: inputs that are constants.
  std::vector<std::string> sets = {};
  /// `--limit 'past + tokens <= 512'`: constraints on the dimensions.
  std::vector<std::string> limits = {};
  /// `--quantize`: float, or int8 with scales found while it runs.
  enum class Quantization { none, int8 } quantization = Quantization::none;
  /// What a message adds options to, ready to be copied.
  std::string command = "heed convert MODEL.onnx";
};

/// What a person wants to know after a conversion. Nodes are ONNX nodes, by name.
struct Report {
  struct Fused {
    std::string concept_name;           // "attention", "layer_norm", "gelu", ...
    std::string node;                   // that ends the region
    std::vector<std::string> absorbed;  // nodes of the region
    double largest_error;               // of the check against the region on random data
    int operator_index = -1;            // that computes it in the file; -1: a later fusion or folding took it
  };
  /// A group of nodes that looks like a concept and is not fused.
  struct Missed {
    std::string concept_name;
    std::string node;                // the first that differs
    std::string found, expected;     // there
    std::string advice;              // what to change in the model or its export; may be empty
    std::vector<std::string> nodes;  // of the group, operands before readers
  };
  std::vector<Fused> fused;
  std::vector<Missed> missed;
  int attentions = 0;                               // softmaxes whose result weights a sum, fused or not
  std::map<std::string, std::string> made_one;      // dimensions of the ONNX file that are another, or an expression
  std::vector<std::string> copied;                  // states that are copied at the end of a run
  std::vector<std::string> notes;                   // both in words, with constraints, and defaults taken
  std::map<std::string, int> onnx_operators;        // before: ONNX operator: count
  std::map<std::string, int> heed_operators;        // after
  std::vector<std::vector<std::string>> operators;  // nodes that each operator of the file computes
  uint64_t file_bytes = 0, constants = 0, state = 0, workspace = 0, lower_bound = 0, tables = 0, macs = 0;
};

struct Converted {
  std::vector<std::byte> bytes;  // the file
  Report report;
};

/// `progress` is told what is being done, as "fuse attention" and a share from 0 to 1; may be empty.
/// Throws Error with every problem found: unsupported operators (all of them), wrong dimensions, shapes that cannot be
/// inferred.
Converted convert(const std::filesystem::path& onnx, const ConvertOptions& options,
                  const std::function<void(const std::string& stage, double share)>& progress = {});

}  // namespace heed::tools

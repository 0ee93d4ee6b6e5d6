#pragma once
/// The converter's front door: an ONNX file in, the bytes of a .heed file and a report out.
///
///   model.onnx -> onnx::read -> import -> passes (canonical form, fusions, programs) -> plan -> write -> model.heed
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/error.h"
#include "tools/graph/graph.h"

namespace heed {
class Model;
}

namespace heed::tools {

struct Calibration;

/// Between which numbers a value's elements lie.
struct Range {
  float lowest, highest;
};

/// What `--quantize int8` leaves out.
struct Int8Options {
  /// `--keep-float GLOB`: layers that stay in float, by the operator's name or that of any ONNX node that it absorbs.
  std::vector<std::string> keep_float = {};
  /// What the float model's layers read on data (`--calibrate`); without it, on random inputs.
  std::shared_ptr<const Calibration> calibration = {};
  /// The data's file, for the record.
  std::string calibrated_on = {};
};

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
  /// `--quantize`: float, or int8 with scales found while it runs, or on data.
  enum class Quantization { none, int8, int8_static } quantization = Quantization::none;
  Int8Options int8 = {};
  /// `--qdq relax`: what is quantised between the two products of an attention is dropped, so that it is one operator.
  bool relax = true;
  /// What a message adds options to, ready to be copied.
  std::string command = "heed convert MODEL.onnx";
  /// Of int8_static: the ranges of the last `count` outputs of a file in float.
  std::function<std::vector<Range>(const std::vector<std::byte>& file, size_t count)> calibrate = {};
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
  std::vector<std::string> int8_layers;             // names of operators
  int attentions = 0;                               // softmaxes whose result weights a sum, fused or not
  std::map<std::string, std::string> made_one;      // dimensions of the ONNX file that are another, or an expression
  std::vector<std::string> copied;                  // states that are copied at the end of a run
  std::vector<std::string> notes;                   // both in words, with constraints, and defaults taken
  std::map<std::string, int> onnx_operators;        // before: ONNX operator: count
  std::map<std::string, int> heed_operators;        // after
  std::vector<std::vector<std::string>> operators;  // nodes that each operator of the file computes
  uint64_t file_bytes = 0, constants = 0, state = 0, workspace = 0, lower_bound = 0, tables = 0, macs = 0, int8_macs = 0;
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

// The same in two steps, for whoever writes several files of one model: in float and in int8, say.

/// A model as the passes left it, in float.
struct Prepared {
  Graph graph;
  Report report;
  std::shared_ptr<const Calibration> at_random = {};  // where int8 layers may be smoothed and no data is given
};
Prepared prepare(const std::filesystem::path& onnx, const ConvertOptions& options,
                 const std::function<void(const std::string& stage, double share)>& progress = {});
Converted finish(Prepared model, const ConvertOptions& options,
                 const std::function<void(const std::string& stage, double share)>& progress = {});

/// The options that a file was made with.
ConvertOptions made_with(const Model& model);

}  // namespace heed::tools

#pragma once
/// The verbs of the program: what the command line says, and the functions that do it. Each throws Error with every
/// problem found.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/isa.h"

namespace heed::tools {

struct ConvertCommand {
  std::filesystem::path onnx;
  std::optional<std::filesystem::path> output;  // else beside the ONNX file
  std::vector<std::string> dims, states, sets, limits;
  std::string quantize = "none", range = "minmax", qdq = "relax";
  std::vector<std::string> keep_float;
  std::optional<std::string> calibrate;         // data.npz
  std::optional<double> error_budget;           // relative error of the worst output
  std::optional<std::filesystem::path> report;  // as JSON
};
void convert(const ConvertCommand& command);

struct InspectCommand {
  std::filesystem::path model;
  bool json = false;
  bool tensors = false;
};
void inspect(const InspectCommand& command);

/// How a session runs.
struct RunOptions {
  Isa isa = best_isa();
  uint32_t threads = 1;
};

struct RunCommand {
  std::filesystem::path model;
  std::vector<std::string> inputs;  // data.npz or NAME=FILE.npy
  std::optional<std::filesystem::path> output;
  bool sequence = false;  // the state goes on from sample to sample
  RunOptions options;
};
void run(const RunCommand& command);

struct BenchCommand {
  std::filesystem::path model;
  std::vector<std::string> dims;  // NAME=N
  RunOptions options;
  bool json = false;
};
void bench(const BenchCommand& command);

struct CompareCommand {
  std::filesystem::path onnx, model;
  std::vector<std::string> inputs;
  std::optional<std::filesystem::path> output;  // a page
  uint32_t gains = UINT32_MAX;                  // layers whose gain is looked for
  bool sequence = false, json = false;
};
void compare(const CompareCommand& command);

struct AttentionCommand {
  std::filesystem::path model;
  std::vector<std::string> inputs;
  std::filesystem::path output;
  uint32_t sample = 0;
};
void attention(const AttentionCommand& command);

}  // namespace heed::tools

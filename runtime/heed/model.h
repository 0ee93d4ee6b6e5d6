#pragma once
/// A verified model: the only way from bytes to something that can be run.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "heed/status.h"
#include "kernels/tensor.h"

namespace heed {

/// Bytes by region, the same on every target. Constants stay in the file.
struct Memory {
  uint64_t constants;    // weights, used in place
  uint64_t state;        // lives across runs
  uint64_t workspace;    // activations and scratch, planned by the converter
  uint64_t tables;       // the session's own decoded operators and shapes
  uint64_t lower_bound;  // of the workspace: the most that is alive at one operator
  uint64_t per_thread;   // each further thread adds this: the largest scratch

  /// What Session::create wants of an arena for `threads` threads.
  uint64_t total(uint32_t threads = 1) const { return state + workspace + tables + (threads - 1) * per_thread; }
};

/// A named size of the model, lower <= value <= upper.
struct Dimension {
  std::string_view name;
  int32_t lower, upper, start;
};

/// An input or output: its name, its type in the original model (numbered as in ONNX), its type here and its rank.
struct Port {
  std::string_view name;
  uint8_t border_type;
  Type type;
  uint8_t rank;
  uint32_t tensor;
};

class Model {
 public:
  /// Verifies `bytes`, a whole file, and borrows them: they stay valid and unchanged as long as the model and its sessions live.
  /// Every index, size, alignment, offset and operator is checked, in time linear in the tables; weights are not touched.
  ///
  /// Errors: misaligned (bytes must begin at a multiple of 64), not_a_model, corrupt, contract, too_large.
  static Result<Model> load(std::span<const std::byte> bytes);

  const Memory& memory() const { return memory_; }
  uint32_t input_count() const;
  uint32_t output_count() const;
  uint32_t dimension_count() const;
  uint32_t operator_count() const;
  Port input(uint32_t index) const;
  Port output(uint32_t index) const;
  Dimension dimension(uint32_t index) const;
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  friend class Session;
  template <class T>
  friend class Result;
  Model() = default;

  std::span<const std::byte> bytes_;
  Memory memory_{};
};

}  // namespace heed

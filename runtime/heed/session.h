#pragma once
/// A model that runs in memory given up front.
///
///     auto model = heed::Model::load(bytes);                 // Result<Model>: verified; borrows the bytes
///     auto session = heed::Session::create(*model, arena);   // arena.size() >= model->memory().total()
///     session->input<float>("window")[0] = ...;
///     auto status = session->run();                          // no allocation
///     auto forecast = session->output<float>("forecast");
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "heed/model.h"
#include "heed/status.h"
#include "kernels/isa.h"
#include "kernels/operator.h"

namespace heed {

struct Options {
  Isa isa = best_isa();      // a ceiling: each operator takes its best variant at or below it
  Parallel parallel;         // heed_threads offers one; the default is the caller's thread alone
};

/// What an observer sees while a model runs. Costs no arena and nothing when absent.
struct Observer {
  void* context = nullptr;
  /// After each operator, for each of its outputs.
  void (*output)(void* context, uint32_t operator_index, uint32_t output, const Tensor& value) = nullptr;
  /// Attention's weights, row by row, of operator `operator_index`: `weights` is [keys], normalised.
  void (*weights)(void* context, uint32_t operator_index, int batch, int head, int query, std::span<const float> weights) = nullptr;
  /// After each operator: for timing.
  void (*after)(void* context, uint32_t operator_index) = nullptr;
};

class Session {
 public:
  /// Lays the model out in `arena` and sets the dimensions to their start values. The arena is borrowed; it begins at a
  /// multiple of 64 and has at least model.memory().total(options.parallel.threads) bytes.
  ///
  /// Errors: misaligned, arena_too_small, isa_unavailable, corrupt, contract.
  static Result<Session> create(const Model& model, std::span<std::byte> arena, const Options& options = {});

  /// The elements of an input or output, dense in the current dimensions, row-major; empty where the name or the type is not the
  /// model's. An input's elements are undefined after `run`; an output's stand until the next run, resize or reset.
  template <class T>
  std::span<T> input(std::string_view name) { return elements<T>(find(name, true)); }
  template <class T>
  std::span<const T> output(std::string_view name) const { return elements<const T>(find(name, false)); }
  Tensor input(uint32_t index) const;
  Tensor output(uint32_t index) const;

  /// Sets one dimension, or several at once; all inputs must be written again. Nothing changes where the status is not ok.
  ///
  /// Errors: invalid_argument (no such dimension), dimension_out_of_range, constraint_broken, corrupt, contract.
  struct Setting {
    std::string_view dimension;
    int32_t value;
  };
  Status resize(std::string_view dimension, int32_t value) { const Setting one{dimension, value}; return resize({&one, 1}); }
  Status resize(std::span<const Setting> settings);
  int32_t dimension(std::string_view name) const;  // -1 where there is none

  /// Computes the outputs. Sets the processor's float mode for the time of the call (round to nearest even, subnormals are zero).
  ///
  /// Errors: index_out_of_range; found before the first operator, the state stays as it was.
  Status run();

  /// The state's first values again.
  void reset();

  /// From now on `run` tells `observer` (borrowed; null: nobody).
  void observe(const Observer* observer) { observer_ = observer; }

  /// The instruction set whose code operator `index` takes.
  Isa variant(uint32_t index) const;
};

}  // namespace heed

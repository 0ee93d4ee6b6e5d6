#pragma once
/// A model that runs in memory given up front.
///
///     auto model = heed::Model::load(bytes);                 // Result<Model>: verified; borrows the bytes
///     auto session = heed::Session::create(*model, arena);   // arena.size() >= model->memory().total()
///     session->input<float>("window")[0] = ...;
///     auto status = session->run();                          // no allocation
///     auto forecast = session->output<float>("forecast");
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "heed/model.h"
#include "heed/status.h"
#include "kernels/isa.h"
#include "kernels/operator.h"

namespace heed {

struct Options {
  Isa isa = best_isa();  // a ceiling: each operator takes its best variant at or below it
  Parallel parallel{};   // heed_threads offers one; the default is the caller's thread alone
};

/// What an observer sees while a model runs. Costs no arena and nothing when absent. It is called in the float mode of
/// the run (subnormals are zero).
struct Observer {
  void* context = nullptr;
  /// After each operator, for each of its outputs.
  void (*output)(void* context, uint32_t operator_index, uint32_t output, const Tensor& value) = nullptr;
  /// Attention's weights, row by row, of operator `operator_index`: `weights` is [keys], normalised. With several
  /// threads it may be called from any of them, from several at once.
  void (*weights)(void* context, uint32_t operator_index, int batch, int head, int query,
                  std::span<const float> weights) = nullptr;
  /// After each operator: for timing.
  void (*after)(void* context, uint32_t operator_index) = nullptr;
};

struct Tables;

class Session {
 public:
  /// Lays the model out in `arena` and sets the dimensions to their start values. The arena is borrowed; it begins at a
  /// multiple of 64 and has at least model.memory().total(options.parallel.threads) bytes.
  ///
  /// Errors: misaligned, arena_too_small, isa_unavailable, invalid_argument (no threads), corrupt, contract,
  /// constraint_broken.
  static Result<Session> create(const Model& model, std::span<std::byte> arena, const Options& options = {});

  /// The elements of an input or output, dense in the current dimensions, row-major; empty where the name or the type
  /// is not the model's. T is float, int32_t, int8_t or uint8_t (booleans too: non-zero is true). An input's elements
  /// are undefined after `run`; an output's stand until the next run, resize or reset. Spans and tensors taken before a
  /// resize are stale after it.
  template <class T>
  std::span<T> input(std::string_view name) {
    return elements<T>(find(name, true));
  }
  template <class T>
  std::span<const T> output(std::string_view name) const {
    return elements<const T>(find(name, false));
  }
  /// The same without a static type; no shape where there is no such name. Indices are below the model's counts, here
  /// and below.
  Tensor input(std::string_view name) const { return find(name, true); }
  Tensor output(std::string_view name) const { return find(name, false); }
  Tensor input(uint32_t index) const { return tensor(model_.input(index).tensor); }
  Tensor output(uint32_t index) const { return tensor(model_.output(index).tensor); }

  /// Sets one dimension, or several at once; all inputs must be written again. The state stays. Nothing changes where
  /// the status is not ok.
  ///
  /// Errors: invalid_argument (no such dimension; the status points at the caller's name), dimension_out_of_range,
  /// constraint_broken, corrupt, contract.
  struct Setting {
    std::string_view dimension;
    int32_t value;
  };
  Status resize(std::string_view dimension, int32_t value) {
    const Setting one{dimension, value};
    return resize({&one, 1});
  }
  Status resize(std::span<const Setting> settings);
  int32_t dimension(std::string_view name) const;  // -1 where there is none

  /// Computes the outputs. Sets the processor's float mode for the time of the call (round to nearest even, subnormals
  /// are zero).
  ///
  /// Errors: index_out_of_range, state_full; found before the first operator, the state stays as it was.
  Status run();

  /// The state's first values again.
  void reset();
  /// How far the states that grow have grown; -1 where none does. See Model::position.
  int32_t position() const;

  /// From now on `run` tells `observer`, of which a copy is kept (null: nobody).
  void observe(const Observer* observer) { observer_ = observer == nullptr ? Observer{} : *observer; }

  const Model& model() const { return model_; }
  /// The instruction set whose code operator `index` takes.
  Isa variant(uint32_t index) const;
  /// Any tensor of the model in the current dimensions. Its data mean something only where an observer is called.
  Tensor tensor(uint32_t index) const;
  /// An expression's value in the current dimensions: value(model().operator_info(i).macs).
  int64_t value(uint32_t expression) const;

 private:
  template <class T>
  friend class Result;
  Session() = default;

  std::byte* state() const;  // the workspace follows it
  Tensor find(std::string_view name, bool input) const;

  template <class T>
  static constexpr bool holds(Type type) {
    using E = std::remove_const_t<T>;
    static_assert(
        std::same_as<E, float> || std::same_as<E, int32_t> || std::same_as<E, int8_t> || std::same_as<E, uint8_t>,
        "no tensor has elements of this type");
    switch (type) {
      case Type::f32:
        return std::same_as<E, float>;
      case Type::i32:
        return std::same_as<E, int32_t>;
      case Type::i8:
        return std::same_as<E, int8_t>;
      case Type::u8:
      case Type::boolean:
        return std::same_as<E, uint8_t>;
    }
    return false;
  }
  template <class T>
  static std::span<T> elements(const Tensor& tensor) {
    if (!tensor || !holds<T>(tensor.shape->type)) return {};
    return {reinterpret_cast<T*>(tensor.data), static_cast<size_t>(element_count(*tensor.shape))};
  }

  Model model_;
  Tables* tables_ = nullptr;  // at the arena's start; state and workspace follow
  Observer observer_;
  Parallel parallel_;
};

}  // namespace heed

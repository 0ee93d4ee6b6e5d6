#pragma once
/// Errors without exceptions.
///
///     heed::Result<heed::Model> model = heed::Model::load(bytes);
///     if (!model) return print(model.status());
///     use(*model);
///
/// A status says whose fault it is (the caller's, the model's, the target's), what is wrong, which operator and tensor
/// it concerns and the two values that disagree.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace heed {

enum class Code : uint8_t {
  ok = 0,
  // The caller's.
  invalid_argument = 10,  // a name, type or setting that the model does not have
  misaligned,             // the bytes or the arena do not begin at a multiple of 64
  arena_too_small,
  index_out_of_range,  // a table index in an input
  dimension_out_of_range,
  constraint_broken,
  state_full,  // no room for what a run adds: `reset` makes some
  // The model's.
  not_a_model = 30,  // no flatbuffer with the identifier HEED
  corrupt,           // an index, size, offset or overlap that cannot be
  contract,          // an operator's shapes or parameters
  other_version,     // the file was written for another version of the format
  // The target's.
  isa_unavailable = 50,
  too_large,  // the model needs more than this target can address
};

/// "ok", "invalid argument", ...
const char* name(Code code);

/// What `expected` is to `found`.
enum class Limit : uint8_t { exactly, at_most, at_least, below };

/// Plain data: all strings are literals, lie in the model's bytes, or are the caller's own.
struct [[nodiscard]] Status {
  Code code = Code::ok;
  const char* what = "";        // a sentence without values
  std::string_view where = "";  // name of the operator, input or dimension; may be empty
  int32_t operator_index = -1;  // -1: none
  int32_t tensor_index = -1;    // -1: none
  int64_t found = 0, expected = 0;
  bool has_values = false;  // whether found and expected mean something
  Limit limit = Limit::exactly;

  bool ok() const { return code == Code::ok; }

  /// Writes "contract: inner dimensions differ (operator 3 'dense', tensor 7): found 64, expected 32" and a final zero
  /// into `text`, cut at `size`. Returns the length without the zero.
  size_t describe(char* text, size_t size) const;
};

/// A value, or the status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : status_(status) {}     // NOLINT

  explicit operator bool() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& operator*() { return value_; }
  const T& operator*() const { return value_; }
  T* operator->() { return &value_; }
  const T* operator->() const { return &value_; }

 private:
  Status status_;
  T value_{};
};

}  // namespace heed

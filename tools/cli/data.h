#pragma once
/// Between arrays in files and a session's inputs and outputs: names, samples, sizes, element types.
///
/// An array is one sample, or, with one more leading axis, all samples of one shape; `name/0`, `name/1`, ... are
/// samples that may differ in length. Arrays have the element types of the original model; what they say of the named
/// dimensions is unified.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "heed/session.h"
#include "heed/sha256.h"
#include "tools/cli/loaded.h"
#include "tools/io/npy.h"

namespace heed::tools {

/// Numbers that are no numbers, among all samples of one input or output.
struct NotFinite {
  size_t count = 0;
  size_t sample = 0;  // of the first
  std::string index;  // of the first: "[3, 2]"
  float value = 0;
};

/// The files that are read for a model and `arguments`, as of Data.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& model,
                                            const std::vector<std::string>& arguments);

class Data {
 public:
  /// `arguments` as on the command line: data.npz, or NAME=FILE.npy; `sequence`: the state goes on from sample to
  /// sample. Throws Error with all that is missing, unknown, of another type or of another shape, and with
  /// values of states.
  Data(const LoadedModel& model, const std::vector<std::string>& arguments, bool sequence = false);

  size_t samples() const { return samples_.size(); }

  /// Sets the session's dimensions and writes the inputs. Throws Error where a number does not fit the device's type.
  void feed(size_t sample, Session& session);

  /// Notes on standard error which of the inputs fed so far hold numbers that are not finite, and where.
  void note_not_finite() const;
  /// "sample 3 of data", empty where there is but one.
  std::string sample_name(size_t sample) const;
  /// With the name of what a sample was given to in front, for errors.
  std::string at(const std::string& path, size_t sample) const;

 private:
  friend class Results;
  enum class Form { single, stacked, numbered };
  struct Piece {
    const Array* array;
    const std::byte* data;
    std::vector<int64_t> dims;
  };
  struct Sample {
    std::vector<Piece> inputs;
    std::map<std::string, int32_t, std::less<>> dimensions;
    int64_t position = 0;  // that the run begins with
  };

  void read(const std::vector<std::string>& arguments);
  void split();
  void unify(size_t sample, std::vector<std::string>& problems);

  const LoadedModel& loaded_;
  const bool sequence_;
  Form form_ = Form::single;
  struct Given {
    Array array;
    std::string file;
  };
  std::map<std::string, Given> given_;
  std::vector<Sample> samples_;
  std::vector<NotFinite> not_finite_;
};

/// The outputs of all samples: kept for a file, hashed as the device holds them.
class Results {
 public:
  Results(const LoadedModel& model, const Data& data);

  void take(size_t sample, Session& session);

  /// In the model's own types: as they are, stacked along a leading axis where they are samples of one shape, else
  /// `name/0`, ...
  NamedArrays arrays() const;
  Sha256::Digest hash() { return hash_.finish(); }
  /// The same of the outputs taken so far.
  void note_not_finite() const;

 private:
  const LoadedModel& loaded_;
  const Data& data_;
  std::vector<std::vector<Array>> outputs_;  // [output][sample]
  std::vector<NotFinite> not_finite_;
  Sha256 hash_;
};

std::string element_text(ArrayType type, const std::byte* element);

/// "[3, 2]" of an element by its place in row-major order.
std::string index_text(size_t flat, const Shape& shape);

}  // namespace heed::tools

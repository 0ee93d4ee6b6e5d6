#pragma once
/// How far a model is from its float form on data: what `compare` shows and `convert --error-budget` goes by.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tools/calibrate.h"
#include "tools/cli/data.h"
#include "tools/cli/loaded.h"
#include "tools/convert.h"

namespace heed::tools {

/// Of all elements of a value, over all samples.
struct Difference {
  double signal = 0, found = 0, product = 0, error = 0;  // sums of squares, of products, of squared differences
  double largest = 0;                                    // difference

  void add(double expected, double value);
  double relative() const { return error == 0 ? 0 : std::sqrt(error / signal); }  // root mean square, of the signal's
  double snr() const { return 10 * std::log10(signal / error); }  // dB; not finite where nothing differs
  double cosine() const { return error == 0 ? 1 : product / std::sqrt(signal * found); }
};

/// A model against the float one.
struct Accuracy {
  struct Layer {
    uint32_t index;  // of the operator
    Difference difference;
  };
  std::vector<Difference> outputs;  // of the model
  std::vector<Layer> layers;        // operators whose value the float model has, too

  /// The relative error of the worst output.
  double relative() const;
};

/// The float model's outputs on data.
class Reference {
 public:
  /// `inputs` as of Data. Runs the model over all samples.
  Reference(const LoadedModel& in_float, const std::vector<std::string>& inputs, bool sequence);

  /// Runs another form of the same model over the data; `layers`: the float one beside it, operator by operator.
  Accuracy measure(const LoadedModel& other, bool layers);
  size_t samples() const { return data_.samples(); }
  /// What the float model's layers read.
  const std::shared_ptr<const Calibration>& calibration() const { return calibration_; }

 private:
  const LoadedModel& loaded_;
  const bool sequence_;
  Data data_;
  std::vector<std::vector<std::vector<float>>> outputs_;  // [sample][output]
  std::shared_ptr<const Calibration> calibration_;
};

/// What a layer gains in float: the error of the model's worst output where the layer is the only one of `int8` in
/// int8. Errors of layers add up about as their squares do; the difference of two models that differ in one layer of
/// many would drown in their noise.
double gain_of(const std::string& layer, const std::vector<std::string>& int8, const Prepared& prepared,
               ConvertOptions options, Reference& reference);

}  // namespace heed::tools

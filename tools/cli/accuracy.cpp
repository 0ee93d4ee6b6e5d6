#include "tools/cli/accuracy.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "tools/error.h"

namespace heed::tools {
namespace {

/// Calls visit with the place of each element, row-major.
template <class Visit>
void for_each_element(const Shape& shape, Visit&& visit) {
  const int64_t count = element_count(shape);
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0, rest = i;
    for (int axis = shape.rank; axis-- > 0; rest /= shape.dims[axis])
      offset += rest % shape.dims[axis] * shape.strides[axis];
    visit(offset);
  }
}

std::vector<float> elements(const Tensor& tensor) {
  std::vector<float> values;
  for_each_element(*tensor.shape, [&](int64_t at) {
    switch (tensor.shape->type) {
      case Type::f32:
        return values.push_back(tensor.as<float>()[at]);
      case Type::i32:
        return values.push_back(static_cast<float>(tensor.as<int32_t>()[at]));
      case Type::i8:
        return values.push_back(tensor.as<int8_t>()[at]);
      default:
        return values.push_back(tensor.as<uint8_t>()[at]);
    }
  });
  return values;
}

/// Rows of int8 with scales and, where there are any, zero points of their groups, as floats.
std::vector<float> elements(const Tensor& rows, const Tensor& scales, const Tensor* zeros) {
  std::vector<float> values = elements(rows);
  const std::vector<float> scale = elements(scales),
                           zero = zeros != nullptr ? elements(*zeros) : std::vector<float>(scale.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t group = i / (values.size() / scale.size());
    values[i] = (values[i] - zero[group]) * scale[group];
  }
  return values;
}

/// Tells what operators compute: the first output, or what it is in int8.
class Values {
 public:
  using Take = std::function<void(uint32_t index, const std::vector<float>& values)>;
  Values(Session& session, Take take) : session_(session), take_(std::move(take)) {
    observer_.context = this;
    observer_.after = [](void* context, uint32_t index) { static_cast<Values*>(context)->after(index); };
    session.observe(&observer_);
  }
  ~Values() { session_.observe(nullptr); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

 private:
  void after(uint32_t index) {
    const OperatorInfo info = session_.model().operator_info(index);
    if (info.kind == OperatorKind::copy || info.kind == OperatorKind::quantize) return;  // compute nothing new
    const auto output = [&](int i) { return session_.tensor(static_cast<uint32_t>(info.outputs[i])); };
    if (info.outputs[0] >= 0)
      take_(index, elements(output(0)));
    else if (info.output_count >= 3 && info.outputs[1] >= 0 && info.outputs[2] >= 0) {
      const Tensor zeros = info.output_count > 3 ? output(3) : Tensor{};
      take_(index, elements(output(1), output(2), info.output_count > 3 ? &zeros : nullptr));
    }
  }

  Session& session_;
  Take take_;
  Observer observer_;
};

std::string borders(const Model& model) {
  std::string text;
  for (uint32_t i = 0; i < model.input_count(); ++i)
    text += fmt::format("{}{} {}", i == 0 ? "" : ", ", model.input(i).name,
                        shape_text(model, model.tensor(model.input(i).tensor)));
  for (uint32_t i = 0; i < model.output_count(); ++i)
    text += fmt::format("{}{} {}", i == 0 ? " -> " : ", ", model.output(i).name,
                        shape_text(model, model.tensor(model.output(i).tensor)));
  return text;
}

/// What is fed to one has to fit the other.
void check_borders(const LoadedModel& a, const LoadedModel& b) {
  if (borders(a.model()) != borders(b.model()))
    throw Error(Fault::model, fmt::format("{} is not made of the same model as {}: {}; {}", b.path(), a.path(),
                                          borders(b.model()), borders(a.model())));
}

}  // namespace

void Difference::add(double expected, double value) {
  if (std::isnan(expected) ? std::isnan(value) : expected == value && std::isinf(value)) return;
  signal += expected * expected;
  found += value * value;
  product += expected * value;
  error += (expected - value) * (expected - value);
  largest = std::max(largest, std::abs(expected - value));
}

double Accuracy::relative() const {
  double worst = 0;
  for (const Difference& output : outputs) worst = std::max(worst, output.relative());
  return worst;
}

Reference::Reference(const LoadedModel& in_float, const std::vector<std::string>& inputs, bool sequence)
    : loaded_(in_float), sequence_(sequence), data_(in_float, inputs, sequence) {
  Runner runner(in_float, {});
  Session& session = runner.session();
  Calibrator calibrator(session);
  bool any_finite = false;
  for (size_t sample = 0; sample < samples(); ++sample) {
    if (!sequence) session.reset();
    data_.feed(sample, session);
    check(session.run(), data_.at(in_float.path(), sample));
    auto& outputs = outputs_.emplace_back();
    for (uint32_t i = 0; i < in_float.model().output_count(); ++i) {
      const auto& output = outputs.emplace_back(elements(session.output(i)));
      any_finite |= std::any_of(output.begin(), output.end(), [](float each) { return std::isfinite(each); });
    }
  }
  data_.note_not_finite();
  if (!any_finite)
    throw Error(Fault::command_line,
                fmt::format("{}: no output of {} is finite on any of these samples: there is nothing to measure",
                            inputs.front(), in_float.path()));
  calibration_ = std::make_shared<const Calibration>(std::move(calibrator.seen));
}

Accuracy Reference::measure(const LoadedModel& other, bool layers) {
  const Model& model = other.model();
  check_borders(loaded_, other);
  Accuracy accuracy;
  accuracy.outputs.resize(model.output_count());
  Runner runner(other, {}), float_runner(loaded_, {});
  Session &session = runner.session(), &in_float = float_runner.session();

  std::map<std::string, std::vector<float>, std::less<>> expected;  // of one sample
  std::map<uint32_t, Difference> found;
  const auto add = [](Difference& difference, const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) difference.add(a[i], b[i]);
  };
  std::optional<Values> float_values, values;
  if (layers) {
    float_values.emplace(in_float, [&](uint32_t index, const std::vector<float>& each) {
      expected.try_emplace(std::string(loaded_.model().operator_info(index).name), each);
    });
    values.emplace(session, [&](uint32_t index, const std::vector<float>& each) {
      const auto same = expected.find(model.operator_info(index).name);
      if (same == expected.end() || same->second.size() != each.size()) return;
      add(found[index], same->second, each);
      expected.erase(same);
    });
  }
  for (size_t sample = 0; sample < samples(); ++sample) {
    if (!sequence_) in_float.reset(), session.reset();
    if (layers) {
      expected.clear();
      data_.feed(sample, in_float);
      check(in_float.run(), loaded_.path());
    }
    data_.feed(sample, session);
    check(session.run(), other.path());
    for (uint32_t i = 0; i < model.output_count(); ++i)
      add(accuracy.outputs[i], outputs_[sample][i], elements(session.output(i)));
  }
  for (const auto& [index, difference] : found) accuracy.layers.push_back({index, difference});
  return accuracy;
}

double gain_of(const std::string& layer, const std::vector<std::string>& int8, const Prepared& prepared,
               ConvertOptions options, Reference& reference) {
  for (const std::string& name : int8)
    if (name != layer) options.int8.keep_float.push_back(name);
  const LoadedModel model("the model with one layer in int8", finish(prepared, options).bytes);
  return reference.measure(model, false).relative();
}

}  // namespace heed::tools

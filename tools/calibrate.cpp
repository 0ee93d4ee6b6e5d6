#include "tools/calibrate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace heed::tools {
namespace {

constexpr size_t most_rows = 256;

}  // namespace

Calibrator::Calibrator(Session& session) : session_(session) {
  Observer observer;
  observer.context = this;
  observer.after = [](void* context, uint32_t index) { static_cast<Calibrator*>(context)->after(index); };
  session.observe(&observer);
}

void Calibrator::after(uint32_t index) {
  const OperatorInfo info = session_.model().operator_info(index);
  if (info.kind != OperatorKind::matmul) return;
  const Tensor x = session_.tensor(static_cast<uint32_t>(info.inputs[0]));
  const Shape& shape = *x.shape;
  if (shape.rank == 0 || element_count(shape) == 0) return;
  const auto channels = static_cast<size_t>(shape.dims[shape.rank - 1]);
  const std::string name(info.name);
  Activations& layer = seen.layers[name];
  Sampling& sampling = sampling_[name];
  layer.top.resize(channels);
  for (int64_t row = 0; row < element_count(shape) / shape.dims[shape.rank - 1]; ++row) {
    int64_t offset = 0, rest = row;
    for (int axis = shape.rank - 1; axis-- > 0; rest /= shape.dims[axis])
      offset += rest % shape.dims[axis] * shape.strides[axis];
    const float* from = x.as<float>() + offset;
    for (size_t i = 0; i < channels; ++i)
      if (std::isfinite(from[i])) layer.top[i] = std::max(layer.top[i], std::abs(from[i]));
    if (sampling.rows++ % sampling.every != 0) continue;
    layer.rows.insert(layer.rows.end(), from, from + channels);
    if (layer.rows.size() < most_rows * channels) continue;
    // Every second one stays, and from now on half as many come.
    for (size_t i = 1; i < most_rows / 2; ++i)
      std::copy_n(&layer.rows[2 * i * channels], channels, &layer.rows[i * channels]);
    layer.rows.resize(most_rows / 2 * channels);
    sampling.every *= 2;
  }
}

void fill_at_random(Session& session, uint32_t seed) {
  const Model& model = session.model();
  std::mt19937 generator(seed);
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const Tensor tensor = session.input(i);
    int64_t bound = 2;
    for (uint32_t k = 0; k < model.index_check_count(); ++k)
      if (model.index_check(k).input == i) bound = session.value(model.index_check(k).bound);
    const uint32_t size = size_of(tensor.shape->type);
    for (int64_t at = 0; at < element_count(*tensor.shape); ++at) {
      const uint32_t bits = generator();
      const float real = static_cast<float>(bits >> 8) * 0x1p-23f - 1;
      const auto whole = static_cast<int32_t>(bits % static_cast<uint32_t>(std::max<int64_t>(bound, 1)));
      std::memcpy(tensor.data + at * size, tensor.shape->type == Type::f32 ? static_cast<const void*>(&real) : &whole,
                  size);
    }
  }
}

}  // namespace heed::tools

#include "tools/onnx/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tools/error.h"
#include "tools/io/npy.h"

namespace heed::tools {
namespace {

template <class... Args>
Error wrong(const std::string& option, fmt::format_string<Args...> text, Args&&... args) {
  return Error(Fault::command_line,
               fmt::format("--set {}: {}", option, fmt::format(text, std::forward<Args>(args)...)));
}

template <class T>
bool read(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

Literal scalar(const std::string& option, const std::string& text, const onnx::ValueInfo& input) {
  const Type type = *onnx::device_type(input.type);
  float real = 0;
  int64_t integer = 0;
  if (type == Type::boolean) {
    if (text == "true" || text == "1") return Literal::of_booleans({}, {1});
    if (text == "false" || text == "0") return Literal::of_booleans({}, {0});
    throw wrong(option, "'{}' is boolean: write true or false, or a file's name that ends in .npy", input.name);
  }
  if (type == Type::f32 && read(text, real)) return Literal::of({}, std::vector{real});
  if (type == Type::i32 && read(text, integer)) return Literal::of({}, std::vector{integer});
  throw wrong(option, "'{}' is {}: '{}' is no {} and no file's name that ends in .npy", input.name,
              onnx::name(input.type), text, type == Type::f32 ? "number" : "integer");
}

onnx::DataType type_of(ArrayType type) {
  using onnx::DataType;
  static constexpr DataType types[] = {DataType::boolean, DataType::i8,  DataType::u8,  DataType::i16,
                                       DataType::u16,     DataType::i32, DataType::u32, DataType::i64,
                                       DataType::u64,     DataType::f16, DataType::f32, DataType::f64};
  return types[static_cast<size_t>(type)];
}

/// The file's array, and its sizes in the place of the input's.
Literal from_file(const std::string& option, const std::string& path, onnx::ValueInfo& input,
                  std::vector<PinnedSize>& pinned) {
  const Array array = read_npy(path);
  onnx::Tensor tensor;
  tensor.name = input.name;
  tensor.type = type_of(array.type);
  tensor.dims = array.dims;
  tensor.raw = std::span(array.data);
  const Literal inside = onnx::literal(tensor);
  if (inside.type != *onnx::device_type(input.type))
    throw wrong(option, "the file holds {}, the input '{}' is {}", name(array.type), input.name,
                onnx::name(input.type));
  std::vector<onnx::Axis>& axes = *input.axes;
  bool fits = axes.size() == array.dims.size();
  for (size_t i = 0; fits && i < axes.size(); ++i)
    fits = !axes[i].size || *axes[i].size < 0 || *axes[i].size == array.dims[i];
  if (!fits) {
    std::vector<std::string> sizes;
    for (const onnx::Axis& axis : axes)
      sizes.push_back(axis.size && *axis.size >= 0 ? std::to_string(*axis.size) : std::string(axis.text));
    throw wrong(option, "the file's shape is [{}], the input's [{}]", fmt::join(array.dims, ", "),
                fmt::join(sizes, ", "));
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    if (!axes[i].size && !axes[i].text.empty()) pinned.push_back({axes[i].text, array.dims[i], "--set " + option});
    axes[i] = {array.dims[i], {}};
  }
  switch (inside.type) {  // in memory of its own: the array ends here
    case Type::f32:
      return Literal::of(inside.dims, std::vector<float>(inside.floats().begin(), inside.floats().end()));
    case Type::boolean:
      return Literal::of_booleans(inside.dims,
                                  std::vector<uint8_t>(inside.booleans().begin(), inside.booleans().end()));
    default:
      return Literal::of(inside.dims, std::vector<int64_t>(inside.integers().begin(), inside.integers().end()));
  }
}

}  // namespace

Settings::Settings(const std::vector<onnx::ValueInfo>& inputs, const std::vector<std::string>& options,
                   std::vector<std::string>& problems)
    : inputs_(inputs) {
  for (const std::string& option : options) {
    try {
      // A name may hold a "=", a value does not.
      const size_t equals = option.rfind('=');
      if (equals == std::string::npos || equals == 0 || equals + 1 == option.size())
        throw wrong(option, "write NAME=VALUE or NAME=FILE.npy");
      const std::string name = option.substr(0, equals), value = option.substr(equals + 1);
      const auto input =
          std::find_if(inputs_.begin(), inputs_.end(), [&](const auto& each) { return each.name == name; });
      if (input == inputs_.end()) {
        std::vector<std::string> names;
        for (const onnx::ValueInfo& each : inputs_) names.emplace_back(each.name);
        throw wrong(option, "there is no input '{}'; this model has {}", name, likest_first(name, std::move(names)));
      }
      if (!onnx::device_type(input->type) || !input->axes)
        throw wrong(option, "the input '{}' is of type {}, which is not supported", name, onnx::name(input->type));
      if (has(name)) throw wrong(option, "'{}' is set twice", name);
      values_.emplace(
          name, value.ends_with(".npy") ? from_file(option, value, *input, pinned_) : scalar(option, value, *input));
    } catch (const Error& e) {
      problems.insert(problems.end(), e.problems().begin(), e.problems().end());
    }
  }
}

}  // namespace heed::tools

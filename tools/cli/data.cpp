#include "tools/cli/data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <set>
#include <span>
#include <type_traits>
#include <utility>

#include "tools/cli/terminal.h"
#include "tools/error.h"

namespace heed::tools {
namespace {

using Values = std::map<std::string, int32_t, std::less<>>;

std::string shape_text(const std::vector<int64_t>& dims) {
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

/// The type of an input's or output's arrays in files: numpy has no bfloat16, its values travel as float32.
std::string file_dtype(const Port& port) {
  const std::string own = border_dtype(port);
  return own == "bfloat16" ? "float32" : own;
}

ArrayType array_type(const Port& port) {
  const std::string own = file_dtype(port);
  for (int i = 0; i <= static_cast<int>(ArrayType::f64); ++i)
    if (own == name(static_cast<ArrayType>(i))) return static_cast<ArrayType>(i);
  return ArrayType::f32;
}

/// An expression's value where every dimension in it has one.
std::optional<int64_t> evaluate(const Model& model, uint32_t expression, const Values& values, int64_t at) {
  const ExpressionNode node = model.expression(expression);
  using enum ExpressionNode::Op;
  if (node.op == constant) return node.a;
  if (node.op == position) return at;
  if (node.op == dimension) {
    const auto found = values.find(model.dimension(static_cast<uint32_t>(node.a)).name);
    return found == values.end() ? std::nullopt : std::optional<int64_t>(found->second);
  }
  const auto left = evaluate(model, static_cast<uint32_t>(node.a), values, at);
  const auto right = evaluate(model, static_cast<uint32_t>(node.b), values, at);
  if (!left || !right) return std::nullopt;
  const int64_t a = *left, b = *right;
  const auto floor_divide = [&] { return a / b - (a % b != 0 && (a < 0) != (b < 0)); };
  switch (node.op) {
    case add:
      return a + b;
    case subtract:
      return a - b;
    case multiply:
      return a * b;
    case divide:
      return b == 0 ? std::nullopt : std::optional<int64_t>(floor_divide());
    case modulo:
      return b == 0 ? std::nullopt : std::optional<int64_t>(a - b * floor_divide());
    case minimum:
      return std::min(a, b);
    default:
      return std::max(a, b);
  }
}

void unbound(const Model& model, uint32_t expression, const Values& values, std::set<uint32_t>& dimensions) {
  const ExpressionNode node = model.expression(expression);
  if (node.op == ExpressionNode::Op::constant || node.op == ExpressionNode::Op::position) return;
  if (node.op == ExpressionNode::Op::dimension) {
    const auto index = static_cast<uint32_t>(node.a);
    if (!values.contains(model.dimension(index).name)) dimensions.insert(index);
    return;
  }
  unbound(model, static_cast<uint32_t>(node.a), values, dimensions);
  unbound(model, static_cast<uint32_t>(node.b), values, dimensions);
}

// --- Elements
// -----------------------------------------------------------------------------------------------------------

struct Half {
  uint16_t bits;
};

float to_float(Half half) {
  const uint32_t sign = uint32_t{half.bits & 0x8000u} << 16, exponent = half.bits >> 10 & 31,
                 fraction = half.bits & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f
                                        : std::bit_cast<float>((exponent + 112) << 23 | fraction << 13);
  return sign != 0 ? -magnitude : magnitude;
}

/// Rounded to nearest, ties to even.
Half to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // 65520 and up
  if (magnitude < 0x38800000) {                                                // below 2^-14: multiples of 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)))};
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23);
  return {static_cast<uint16_t>(sign | rounded >> 13)};
}

/// Calls visit with a value of the C++ type of an array's elements.
template <class Visit>
void with_type(ArrayType type, Visit&& visit) {
  switch (type) {
    case ArrayType::boolean:
      return visit(bool{});
    case ArrayType::i8:
      return visit(int8_t{});
    case ArrayType::u8:
      return visit(uint8_t{});
    case ArrayType::i16:
      return visit(int16_t{});
    case ArrayType::u16:
      return visit(uint16_t{});
    case ArrayType::i32:
      return visit(int32_t{});
    case ArrayType::u32:
      return visit(uint32_t{});
    case ArrayType::i64:
      return visit(int64_t{});
    case ArrayType::u64:
      return visit(uint64_t{});
    case ArrayType::f16:
      return visit(Half{});
    case ArrayType::f32:
      return visit(float{});
    case ArrayType::f64:
      return visit(double{});
  }
}

template <class Visit>
void with_type(Type type, Visit&& visit) {
  switch (type) {
    case Type::f32:
      return visit(float{});
    case Type::i32:
      return visit(int32_t{});
    case Type::boolean:
      return visit(bool{});
    case Type::i8:
      return visit(int8_t{});
    case Type::u8:
      return visit(uint8_t{});
  }
}

/// False where the value does not fit.
template <class From, class To>
bool convert(From from, To& to) {
  if constexpr (std::is_same_v<From, Half>) {
    return convert(to_float(from), to);
  } else if constexpr (std::is_same_v<To, Half>) {
    to = to_half(static_cast<float>(from));
    return true;
  } else if constexpr (std::is_same_v<From, bool> || std::is_same_v<To, bool> || std::is_floating_point_v<To>) {
    to = static_cast<To>(from);
    return true;
  } else if constexpr (std::is_floating_point_v<From>) {
    return false;  // a model's own type and its device type are both real or both whole
  } else {
    to = static_cast<To>(from);
    return std::in_range<To>(from);
  }
}

/// Elements of one type (an array's or a device's) to another; the place of the first that does not fit.
template <class FromType, class ToType>
std::optional<size_t> convert(FromType from_type, const std::byte* from, ToType to_type, std::byte* to, size_t count) {
  std::optional<size_t> misfit;
  with_type(from_type, [&]<class From>(From a) {
    with_type(to_type, [&]<class To>(To b) {
      for (size_t i = 0; i < count; ++i) {
        std::memcpy(&a, from + i * sizeof a, sizeof a);
        if (!convert(a, b) && !misfit) misfit = i;
        std::memcpy(to + i * sizeof b, &b, sizeof b);
      }
    });
  });
  return misfit;
}

void find_not_finite(const Tensor& tensor, size_t sample, NotFinite& found) {
  if (tensor.shape->type != Type::f32) return;
  const std::span<const float> values(tensor.as<float>(), static_cast<size_t>(element_count(*tensor.shape)));
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]) && found.count++ == 0) found = {1, sample, index_text(i, *tensor.shape), values[i]};
}

void note(const char* what, std::string_view name, const NotFinite& found, const std::string& sample) {
  if (found.count == 0) return;
  fmt::print(stderr, "heed: note: {} '{}' is not finite: {} at {}{}{}{}\n", what, printable(std::string(name)),
             found.value, found.index, sample.empty() ? "" : " of ", sample,
             found.count > 1 ? fmt::format(", and at {} more", grouped(found.count - 1)) : "");
}

/// The file behind `NAME=` of a single array.
std::string file_of(const std::string& argument) {
  const size_t equals = argument.ends_with(".npy") ? argument.find('=') : std::string::npos;
  return equals == std::string::npos ? argument : argument.substr(equals + 1);
}

}  // namespace

std::vector<std::filesystem::path> files_of(const std::filesystem::path& model,
                                            const std::vector<std::string>& arguments) {
  std::vector<std::filesystem::path> files{model};
  for (const std::string& argument : arguments) files.push_back(file_of(argument));
  return files;
}

std::string element_text(ArrayType type, const std::byte* element) {
  std::string text;
  with_type(type, [&]<class T>(T) {
    T value;
    std::memcpy(&value, element, sizeof value);
    if constexpr (std::is_same_v<T, Half>)
      text = fmt::format("{}", to_float(value));
    else
      text = fmt::format("{}", value);
  });
  return text;
}

std::string index_text(size_t flat, const Shape& shape) {
  std::vector<size_t> index(shape.rank);
  for (size_t axis = shape.rank; axis-- > 0;) {
    const auto size = static_cast<size_t>(shape.dims[axis]);
    index[axis] = flat % size;
    flat /= size;
  }
  return fmt::format("[{}]", fmt::join(index, ", "));
}

// --- Data
// ---------------------------------------------------------------------------------------------------------------

Data::Data(const LoadedModel& model, const std::vector<std::string>& arguments, bool sequence)
    : loaded_(model), sequence_(sequence), not_finite_(model.model().input_count()) {
  read(arguments);
  split();
  std::vector<std::string> problems;
  for (size_t sample = 0; sample < samples_.size(); ++sample) unify(sample, problems);
  if (!problems.empty()) throw Error(Fault::model, problems);
}

std::string Data::sample_name(size_t sample) const {
  return form_ == Form::single ? "" : fmt::format("sample {}", sample);
}

std::string Data::at(const std::string& path, size_t sample) const {
  const std::string name = sample_name(sample);
  return name.empty() ? path : path + ": " + name;
}

/// All arrays, by key.
void Data::read(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    NamedArrays arrays;
    const std::string file = file_of(argument);
    if (argument.ends_with(".npz")) {
      arrays = read_npz(argument);
    } else if (file != argument) {
      arrays.emplace_back(argument.substr(0, argument.find('=')), read_npy(file));
    } else {
      throw Error(Fault::command_line, fmt::format("--input {}: is neither FILE.npz nor NAME=FILE.npy", argument));
    }
    for (auto& [key, array] : arrays) {
      const auto [place, added] = given_.try_emplace(key, Given{std::move(array), file});
      if (!added)
        throw Error(Fault::command_line,
                    fmt::format("'{}' is given twice: by {} and by {}", key, place->second.file, file));
    }
  }
}

/// Which piece of which array is input i of sample s.
void Data::split() {
  const Model& model = loaded_.model();
  std::vector<std::string> problems, missing, names;
  std::set<std::string> used;
  struct Found {
    const Given* whole = nullptr;
    std::map<size_t, const Given*> numbered;
  };
  std::vector<Found> found(model.input_count());
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const std::string name(model.input(i).name);
    names.push_back("'" + name + "'");
    if (const auto whole = given_.find(name); whole != given_.end()) {
      found[i].whole = &whole->second;
      used.insert(name);
    }
    for (const auto& [key, given] : given_) {
      if (!key.starts_with(name + "/")) continue;
      const std::string digits = key.substr(name.size() + 1);
      size_t number = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
      if (error != std::errc{} || end != digits.data() + digits.size() || std::to_string(number) != digits) continue;
      found[i].numbered[number] = &given;
      used.insert(key);
    }
    if (found[i].whole == nullptr && found[i].numbered.empty()) missing.push_back(names.back());
    if (found[i].whole != nullptr && !found[i].numbered.empty())
      problems.push_back(fmt::format("input {} is given whole and as samples", names.back()));
    if (!found[i].numbered.empty() && found[i].numbered.rbegin()->first != found[i].numbered.size() - 1)
      problems.push_back(fmt::format("input {} has {} samples but goes up to {}/{}", names.back(),
                                     found[i].numbered.size(), name, found[i].numbered.rbegin()->first));
  }
  std::vector<std::string> unknown, states;
  for (const auto& [key, given] : given_) {
    if (used.contains(key)) continue;
    bool state = false;
    for (uint32_t i = 0; i < model.state_count(); ++i)
      state = state || key == model.state(i).name || key.starts_with(std::string(model.state(i).name) + "/");
    (state ? states : unknown).push_back("'" + key + "'");
  }
  const std::string there = names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
  if (!unknown.empty())
    problems.push_back(fmt::format("the model has no input {}; it has {}", fmt::join(unknown, ", "), there));
  if (!states.empty())
    problems.push_back(
        fmt::format("{} cannot be given: the model keeps its state itself, from its beginning (--sequence carries it "
                    "from sample to sample); its inputs are {}",
                    fmt::join(states, ", "), there));
  if (!missing.empty()) {
    std::vector<std::string> keys;
    for (const auto& [key, given] : given_) keys.push_back("'" + key + "'");
    problems.push_back(fmt::format("input{} {} {} missing; given: {}", missing.size() > 1 ? "s" : "",
                                   fmt::join(missing, ", "), missing.size() > 1 ? "are" : "is",
                                   keys.empty() ? "nothing" : fmt::format("{}", fmt::join(keys, ", "))));
  }

  // Types, and how many samples each input has.
  std::vector<std::pair<Form, size_t>> forms;
  std::vector<uint32_t> formed;
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const Port port = model.input(i);
    const std::string states = tools::shape_text(model, model.tensor(port.tensor));
    const auto check_type = [&](const Given& given, const std::string& key) {
      if (given.array.type != array_type(port))
        problems.push_back(fmt::format("input '{}' ({}) is {}, the model takes {}", key, given.file,
                                       tools::name(given.array.type), file_dtype(port)));
    };
    if (const Given* whole = found[i].whole) {
      check_type(*whole, std::string(port.name));
      const size_t rank = whole->array.dims.size();
      if (rank != port.rank && rank != size_t{port.rank} + 1) {
        problems.push_back(
            fmt::format("input '{}' ({}) has the shape {}, the model takes {}, or one more leading axis for samples",
                        port.name, whole->file, shape_text(whole->array.dims), states));
        continue;
      }
      const bool stacked = rank != port.rank;
      forms.emplace_back(stacked ? Form::stacked : Form::single,
                         stacked ? static_cast<size_t>(whole->array.dims[0]) : 1);
      formed.push_back(i);
    } else if (!found[i].numbered.empty()) {
      for (const auto& [number, given] : found[i].numbered) {
        const std::string key = fmt::format("{}/{}", port.name, number);
        check_type(*given, key);
        if (given->array.dims.size() != port.rank)
          problems.push_back(fmt::format("input '{}' ({}) has the shape {}, the model takes {}", key, given->file,
                                         shape_text(given->array.dims), states));
      }
      forms.emplace_back(Form::numbered, found[i].numbered.size());
      formed.push_back(i);
    }
  }
  const auto say = [](std::pair<Form, size_t> form) {
    return form.first == Form::single ? std::string("one sample without a leading axis for samples")
                                      : fmt::format("{} samples", form.second);
  };
  for (size_t i = 1; i < forms.size(); ++i)
    if (forms[i].second != forms[0].second || (forms[i].first == Form::single) != (forms[0].first == Form::single))
      problems.push_back(fmt::format("input '{}' has {}, input '{}' has {}", model.input(formed[0]).name, say(forms[0]),
                                     model.input(formed[i]).name, say(forms[i])));
  for (size_t i = 0; i < forms.size(); ++i)
    if (forms[i].second == 0) problems.push_back(fmt::format("input '{}' has no samples", model.input(formed[i]).name));
  if (!problems.empty()) throw Error(Fault::model, problems);

  samples_.resize(forms.empty() ? 1 : forms[0].second);
  for (const auto& [form, count] : forms) form_ = std::max(form_, form);
  for (size_t sample = 0; sample < samples_.size(); ++sample)
    for (const Found& input : found) {
      const Array& array = input.whole != nullptr ? input.whole->array : input.numbered.at(sample)->array;
      Piece piece{&array, array.data.data(), array.dims};
      if (input.whole != nullptr && form_ != Form::single) {
        piece.dims.erase(piece.dims.begin());
        piece.data += sample * (array.data.size() / samples_.size());
      }
      samples_[sample].inputs.push_back(std::move(piece));
    }
}

/// The named dimensions as the shapes of one sample say; sizes that do not fit are problems.
void Data::unify(size_t number, std::vector<std::string>& problems) {
  const Model& model = loaded_.model();
  Sample& sample = samples_[number];
  Values& values = sample.dimensions;
  if (const auto position = model.position()) {
    sample.position = position->lower;
    if (sequence_ && number > 0)
      sample.position = samples_[number - 1].position +
                        evaluate(model, position->step, samples_[number - 1].dimensions, 0).value_or(0);
  }
  std::map<std::string, std::string, std::less<>> said_by;
  const auto where = [&](uint32_t input) {
    const std::string name(model.input(input).name);
    return form_ == Form::single ? fmt::format("input '{}'", name)
                                 : fmt::format("input '{}', sample {},", name, number);
  };
  const auto misfit = [&](uint32_t input, uint32_t axis, const std::string& what) {
    problems.push_back(fmt::format("{} has the shape {}, the model takes {}: axis {} is {}, {}", where(input),
                                   shape_text(sample.inputs[input].dims),
                                   tools::shape_text(model, model.tensor(model.input(input).tensor)), axis,
                                   sample.inputs[input].dims[axis], what));
  };
  // Sizes that are one dimension give its value.
  for (uint32_t input = 0; input < model.input_count(); ++input) {
    const TensorInfo tensor = model.tensor(model.input(input).tensor);
    for (uint32_t axis = 0; axis < tensor.rank; ++axis) {
      const ExpressionNode node = model.expression(tensor.dims[axis]);
      if (node.op != ExpressionNode::Op::dimension) continue;
      const Dimension dimension = model.dimension(static_cast<uint32_t>(node.a));
      const std::string name(dimension.name);
      const int64_t size = sample.inputs[input].dims[axis];
      if (size < dimension.lower || size > dimension.upper) {
        misfit(input, axis, fmt::format("'{}' may be {} to {}", name, dimension.lower, dimension.upper));
        values.try_emplace(name, dimension.lower);
      } else if (const auto [place, added] = values.try_emplace(name, static_cast<int32_t>(size)); added) {
        said_by[name] = where(input);
      } else if (place->second != size) {
        misfit(input, axis, fmt::format("'{}' is {} by {}", name, place->second, said_by[name]));
      }
    }
  }
  // The others are solved for the one dimension that is still open, or compared.
  for (uint32_t input = 0; input < model.input_count(); ++input) {
    const TensorInfo tensor = model.tensor(model.input(input).tensor);
    for (uint32_t axis = 0; axis < tensor.rank; ++axis) {
      const int64_t size = sample.inputs[input].dims[axis];
      std::set<uint32_t> open;
      unbound(model, tensor.dims[axis], values, open);
      if (open.size() == 1) {
        const Dimension dimension = model.dimension(*open.begin());
        Values trial = values;
        int64_t candidate = dimension.lower;
        for (; candidate <= dimension.upper; ++candidate) {
          trial[std::string(dimension.name)] = static_cast<int32_t>(candidate);
          if (evaluate(model, tensor.dims[axis], trial, sample.position) == size) break;
        }
        if (candidate <= dimension.upper)
          values = std::move(trial);
        else
          misfit(input, axis,
                 fmt::format("which no '{}' from {} to {} gives", dimension.name, dimension.lower, dimension.upper));
      } else if (const auto value = evaluate(model, tensor.dims[axis], values, sample.position);
                 value && *value != size) {
        const std::string text = expression_text(model, tensor.dims[axis]);
        if (model.expression(tensor.dims[axis]).op == ExpressionNode::Op::constant)
          misfit(input, axis,
                 fmt::format("not {}{}", text,
                             form_ == Form::single && axis == 0 ? "; samples take one more leading axis" : ""));
        else if (model.expression(tensor.dims[axis]).op != ExpressionNode::Op::dimension)
          misfit(input, axis, fmt::format("not {} = {}", text, *value));
      }
    }
  }
}

void Data::feed(size_t number, Session& session) {
  const Model& model = loaded_.model();
  const Sample& sample = samples_[number];
  const std::string where =
      form_ == Form::single ? loaded_.path() : fmt::format("{}: sample {}", loaded_.path(), number);
  std::vector<Session::Setting> settings;
  for (const auto& [name, value] : sample.dimensions) settings.push_back({name, value});
  if (!settings.empty()) check(session.resize(settings), where);
  std::vector<std::string> problems;
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const Tensor tensor = session.input(i);
    const Piece& piece = sample.inputs[i];
    const auto count = static_cast<size_t>(element_count(*tensor.shape));
    if (const auto misfit = convert(piece.array->type, piece.data, tensor.shape->type, tensor.data, count))
      problems.push_back(fmt::format("input '{}'{}: {} at {} does not fit the device's {}", model.input(i).name,
                                     form_ == Form::single ? "" : fmt::format(", sample {}", number),
                                     element_text(piece.array->type, piece.data + *misfit * size_of(piece.array->type)),
                                     index_text(*misfit, *tensor.shape), dtype(tensor.shape->type)));
    find_not_finite(tensor, number, not_finite_[i]);
  }
  if (!problems.empty()) throw Error(Fault::model, problems);
}

void Data::note_not_finite() const {
  for (uint32_t i = 0; i < not_finite_.size(); ++i)
    note("input", loaded_.model().input(i).name, not_finite_[i], sample_name(not_finite_[i].sample));
}

// --- Results
// ------------------------------------------------------------------------------------------------------------

Results::Results(const LoadedModel& model, const Data& data)
    : loaded_(model), data_(data), outputs_(model.model().output_count()), not_finite_(model.model().output_count()) {}

void Results::take(size_t sample, Session& session) {
  for (uint32_t i = 0; i < outputs_.size(); ++i) {
    const Tensor tensor = session.output(i);
    const auto count = static_cast<size_t>(element_count(*tensor.shape));
    hash_.update({tensor.data, byte_count(tensor)});
    find_not_finite(tensor, sample, not_finite_[i]);
    Array array{array_type(loaded_.model().output(i)), {}, {}};
    array.dims.assign(tensor.shape->dims, tensor.shape->dims + tensor.shape->rank);
    array.data.resize(count * size_of(array.type));
    convert(tensor.shape->type, tensor.data, array.type, array.data.data(), count);
    outputs_[i].push_back(std::move(array));
  }
}

void Results::note_not_finite() const {
  for (uint32_t i = 0; i < not_finite_.size(); ++i)
    note("output", loaded_.model().output(i).name, not_finite_[i], data_.sample_name(not_finite_[i].sample));
}

NamedArrays Results::arrays() const {
  NamedArrays arrays;
  for (uint32_t i = 0; i < outputs_.size(); ++i) {
    const std::string name(loaded_.model().output(i).name);
    const std::vector<Array>& samples = outputs_[i];
    const bool one_shape =
        std::all_of(samples.begin(), samples.end(), [&](const Array& a) { return a.dims == samples[0].dims; });
    if (data_.form_ == Data::Form::single) {
      arrays.emplace_back(name, samples[0]);
    } else if (data_.form_ == Data::Form::stacked && one_shape) {
      Array all{samples[0].type, samples[0].dims, {}};
      all.dims.insert(all.dims.begin(), static_cast<int64_t>(samples.size()));
      for (const Array& sample : samples) all.data.insert(all.data.end(), sample.data.begin(), sample.data.end());
      arrays.emplace_back(name, std::move(all));
    } else {
      for (size_t s = 0; s < samples.size(); ++s) arrays.emplace_back(fmt::format("{}/{}", name, s), samples[s]);
    }
  }
  return arrays;
}

}  // namespace heed::tools

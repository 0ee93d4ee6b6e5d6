#include "tools/onnx/dimensions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>

#include "tools/error.h"

namespace heed::tools {
namespace {

// Sizes are 32-bit on the device.
constexpr int64_t largest_size = INT32_MAX;

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == ':';
}

/// Any text as a name that expressions can hold.
std::string as_name(std::string_view text) {
  std::string name(text);
  for (char& c : name) c = is_name_character(c) ? c : '_';
  if (!std::isalpha(static_cast<unsigned char>(name[0]))) name.insert(0, "_");
  return name;
}

/// "batch-size" is a name, "past - 1" and "past-1" are differences.
bool has_hyphen_in_name(std::string_view text) {
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == '-' && is_name_character(text[i - 1]) && std::isalpha(static_cast<unsigned char>(text[i + 1])))
      return true;
  }
  return false;
}

Expression expression_of(std::string_view text) {
  if (!has_hyphen_in_name(text)) {
    if (const auto parsed = Expression::parse(std::string(text))) return *parsed;
  }
  return Expression::dimension(as_name(text));
}

bool is_named_like_a_batch(std::string name) {
  if (name == "N" || name == "n" || name == "B" || name == "b" || name == "bs") return true;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name.find("batch") != std::string::npos;
}

std::optional<int64_t> integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Option {
  std::string target;  // NAME or INPUT:AXIS
  int64_t lower, upper;
};

template <class... Args>
Error wrong(fmt::format_string<Args...> text, Args&&... args) {
  return Error(Fault::command_line, fmt::format(text, std::forward<Args>(args)...));
}

Option read_option(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) {
    throw wrong("--dim {}: write NAME=N, NAME=LO..HI or INPUT:AXIS=LO..HI", text);
  }
  const std::string_view range = std::string_view(text).substr(equals + 1);
  const size_t dots = range.find("..");
  const auto lower = integer(range.substr(0, dots));
  const auto upper = dots == std::string_view::npos ? lower : integer(range.substr(dots + 2));
  if (!lower || !upper) throw wrong("--dim {}: '{}' is neither a number nor a range LO..HI", text, range);
  if (*lower < 0 || *upper > largest_size) throw wrong("--dim {}: sizes are from 0 to {}", text, largest_size);
  if (*lower > *upper) throw wrong("--dim {}: {} is larger than {}", text, *lower, *upper);
  return {text.substr(0, equals), *lower, *upper};
}

class Binder {
 public:
  Binder(const std::vector<const onnx::ValueInfo*>& inputs, const DimensionOptions& options,
         std::vector<std::string> problems, std::vector<std::string>& notes)
      : inputs_(inputs), options_(options), notes_(notes), problems_(std::move(problems)) {}

  BoundInputs run() {
    name_dimensions();
    for (const std::string& option : options_.dims) attempt([&] { apply(read_option(option), option); });
    for (const PinnedSize& pin : options_.pinned) attempt([&] { apply(pin); });
    if (!problems_.empty()) throw Error(Fault::command_line, problems_);
    settle_batches();
    ask_for_unbound();

    BoundInputs result;
    result.dims = dims_;
    for (const auto& [name, dimension] : bound_) {
      if (dimension.lower < dimension.upper) {
        result.dimensions[name] = dimension;
        continue;
      }
      for (Dims& dims : result.dims) {
        for (Expression& dim : dims) dim = dim.substitute(name, dimension.lower);
      }
    }
    for (size_t i = 0; i < inputs_.size(); ++i) check_positive(i, result);
    for (const std::string& limit : options_.limits) attempt([&] { add_limit(limit, result); });
    for (const PinnedSize& pin : options_.pinned) attempt([&] { check_pinned(pin, result); });
    if (!problems_.empty()) throw Error(Fault::command_line, problems_);
    return result;
  }

 private:
  template <class Stage>
  void attempt(const Stage& stage) {
    try {
      stage();
    } catch (const Error& e) {
      problems_.push_back(e.what());
    }
  }

  void name_dimensions() {
    for (const onnx::ValueInfo* input : inputs_) {
      Dims& dims = dims_.emplace_back();
      if (!input->axes) throw Error(Fault::model, fmt::format("input '{}' has no shape, not even a rank", input->name));
      for (size_t axis = 0; axis < input->axes->size(); ++axis) {
        const onnx::Axis& a = (*input->axes)[axis];
        if (a.size && *a.size > largest_size) {
          throw Error(Fault::model, fmt::format("input '{}': axis {} has size {}", input->name, axis, *a.size));
        }
        if (a.size && *a.size >= 0) {  // some exporters write -1 for "unknown"
          dims.push_back(*a.size);
          continue;
        }
        if (a.text.empty()) {
          dims.push_back(Expression::dimension(fmt::format("{}:{}", as_name(input->name), axis)));
        } else {
          dims.push_back(expression_of(a.text));
        }
        std::vector<std::string> names;
        dims.back().collect(names);
        for (std::string& name : names) {
          if (known_.insert(name).second) names_.push_back(std::move(name));
        }
      }
    }
  }

  void apply(const Option& option, const std::string& text) {
    const std::string name = find(option.target, text);
    const auto [entry, is_new] = bound_.try_emplace(name, Dimension{name, option.lower, option.upper});
    const std::string& first = given_.try_emplace(name, "--dim " + text).first->second;
    if (entry->second.lower != option.lower || entry->second.upper != option.upper)
      throw wrong("--dim {}: '{}' has other bounds by {}", text, name, first);
  }

  void apply(const PinnedSize& pin) {
    const auto name = name_of(expression_of(pin.text));
    if (!name) return;
    const auto [entry, is_new] = bound_.try_emplace(*name, Dimension{*name, pin.size, pin.size});
    const std::string& first = given_.try_emplace(*name, pin.option).first->second;
    if (pin.size < entry->second.lower || pin.size > entry->second.upper)
      throw wrong("{}: '{}' is {} in the file, and has other bounds by {}", pin.option, *name, pin.size, first);
    entry->second.lower = entry->second.upper = pin.size;
  }

  /// A size such as "past + 1".
  void check_pinned(const PinnedSize& pin, BoundInputs& result) const {
    Expression size = expression_of(pin.text);
    std::vector<std::string> names;
    size.collect(names);
    for (const std::string& name : names) {
      const auto found = bound_.find(name);
      if (found == bound_.end()) return;  // of no other input
      if (found->second.lower == found->second.upper) size = size.substitute(name, found->second.lower);
    }
    const auto [lower, upper] = size.range(result.dimensions);
    if (pin.size < lower || pin.size > upper)
      throw wrong("{}: a size is {} in the file, and '{}' runs from {} to {} under the given bounds", pin.option,
                  pin.size, pin.text, lower, upper);
    if (!size.constant()) result.limits.push_back({Constraint::Relation::equal, size, pin.size});
  }

  std::string find(const std::string& target, const std::string& text) const {
    const size_t colon = target.rfind(':');
    const auto axis = colon == std::string::npos ? std::nullopt : integer(std::string_view(target).substr(colon + 1));
    if (axis) {
      for (size_t i = 0; i < inputs_.size(); ++i) {
        if (inputs_[i]->name != std::string_view(target).substr(0, colon)) continue;
        if (*axis < 0 || *axis >= static_cast<int64_t>(dims_[i].size())) {
          throw wrong("--dim {}: input '{}' has axes 0 to {}", text, inputs_[i]->name, int(dims_[i].size()) - 1);
        }
        const Expression& dim = dims_[i][static_cast<size_t>(*axis)];
        if (const auto name = name_of(dim)) return *name;
        throw wrong("--dim {}: this axis is {}, no dimension of its own", text, dim.text());
      }
    }
    const std::string name = as_name(target);
    if (known_.count(name)) return name;
    for (const onnx::ValueInfo* input : inputs_)
      if (input->name == target)
        throw wrong("--dim {}: '{}' is an input: write {}:AXIS=N or {}:AXIS=LO..HI", text, target, target, target);
    if (names_.empty()) throw wrong("--dim {}: all sizes of this model are fixed", text);
    throw wrong("--dim {}: there is no dimension '{}'; this model has {}", text, target, likest_first(name, names_));
  }

  void settle_batches() {
    for (const Dims& dims : dims_) {
      const auto name = dims.empty() ? std::nullopt : name_of(dims[0]);
      if (!name || bound_.count(*name) || !is_named_like_a_batch(*name)) continue;
      if (name->find(':') != std::string::npos) continue;  // made from the input's name
      bound_[*name] = {*name, 1, 1};
      notes_.push_back(fmt::format("dimension '{}' is 1 (--dim {}=LO..HI makes it variable)", *name, *name));
    }
  }

  /// Where the size is one dimension and nothing else.
  static std::optional<std::string> name_of(const Expression& size) {
    std::vector<std::string> names;
    size.collect(names);
    if (names.size() == 1 && size == Expression::dimension(names[0])) return names[0];
    return std::nullopt;
  }

  void ask_for_unbound() const {
    std::string options, names;
    for (const std::string& name : names_) {
      if (bound_.count(name)) continue;
      options += fmt::format(" --dim {}=1..128", name);
      names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", name, axes_of(name));
    }
    if (options.empty()) return;
    throw wrong("bounds are needed for {}; with your own numbers: {}{}", names, options_.command, options);
  }

  /// "input_ids axis 1, attention_mask axis 1: past + tokens"
  std::string axes_of(const std::string& name) const {
    constexpr size_t most = 4;
    std::vector<std::string> axes;
    for (size_t i = 0; i < inputs_.size(); ++i)
      for (size_t axis = 0; axis < dims_[i].size(); ++axis) {
        std::vector<std::string> names;
        dims_[i][axis].collect(names);
        if (std::find(names.begin(), names.end(), name) == names.end()) continue;
        axes.push_back(fmt::format("{} axis {}", inputs_[i]->name, axis));
        if (!name_of(dims_[i][axis])) axes.back() += fmt::format(": {}", (*inputs_[i]->axes)[axis].text);
      }
    const size_t more = axes.size() - std::min(axes.size(), most);
    axes.resize(axes.size() - more);
    return fmt::format("{}{}", fmt::join(axes, ", "), more == 0 ? "" : fmt::format(" and {} more", more));
  }

  /// "past - 1" with past = 0..8 is no size.
  void check_positive(size_t i, const BoundInputs& result) const {
    for (size_t axis = 0; axis < result.dims[i].size(); ++axis) {
      const Expression& dim = result.dims[i][axis];
      const auto [lower, upper] = dim.range(result.dimensions);
      if (lower >= 0 && upper <= largest_size) continue;
      throw wrong("input '{}': axis {}, {}, runs from {} to {} under the given bounds", inputs_[i]->name, axis,
                  (*inputs_[i]->axes)[axis].text, lower, upper);
    }
  }

  void add_limit(const std::string& text, BoundInputs& result) const {
    constexpr std::string_view relations[] = {"<=", ">=", "==", "<", ">"};
    size_t place = std::string::npos;
    std::string_view relation;
    for (const std::string_view each : relations) {
      place = text.find(each);
      relation = each;
      if (place != std::string::npos) break;
    }
    if (place == std::string::npos) throw wrong("--limit {}: write a comparison, 'past + tokens <= 512'", text);
    const auto side = [&](const std::string& words) {
      auto parsed = Expression::parse(words);
      if (!parsed)
        throw wrong("--limit {}: '{}' is no expression of +, -, *, //, %, min and max over dimensions", text, words);
      std::vector<std::string> names;
      parsed->collect(names);
      for (const std::string& name : names) {
        if (!known_.count(name) && names_.empty()) throw wrong("--limit {}: all sizes of this model are fixed", text);
        if (!known_.count(name))
          throw wrong("--limit {}: there is no dimension '{}'; this model has {}", text, name,
                      likest_first(name, names_));
        const Dimension& dimension = bound_.at(name);
        if (dimension.lower == dimension.upper) parsed = parsed->substitute(name, dimension.lower);
      }
      return *parsed;
    };
    Expression left = side(text.substr(0, place)), right = side(text.substr(place + relation.size()));
    if (relation[0] == '>') std::swap(left, right);
    if (relation == "<" || relation == ">") left = left + 1;
    const auto [lower, upper] = (right - left).range(result.dimensions);
    const bool equal = relation == "==";
    if (upper < 0 || (equal && lower > 0)) throw wrong("--limit {}: no sizes under the given bounds satisfy it", text);
    result.limits.push_back({equal ? Constraint::Relation::equal : Constraint::Relation::less_equal, left, right});
  }

  const std::vector<const onnx::ValueInfo*>& inputs_;
  const DimensionOptions& options_;
  std::vector<std::string>& notes_;
  std::vector<Dims> dims_;
  std::vector<std::string> names_;  // in the order of the inputs; an axis without a text is INPUT:AXIS
  std::set<std::string> known_;     // the same
  std::map<std::string, Dimension> bound_;
  std::map<std::string, std::string> given_;  // the option that bound it
  std::vector<std::string> problems_;
};

}  // namespace

BoundInputs bind_dimensions(const std::vector<const onnx::ValueInfo*>& inputs, const DimensionOptions& options,
                            std::vector<std::string> problems, std::vector<std::string>& notes) {
  return Binder(inputs, options, std::move(problems), notes).run();
}

}  // namespace heed::tools

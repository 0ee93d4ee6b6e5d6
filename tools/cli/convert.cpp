#include "tools/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <numeric>

#include "tools/cli/accuracy.h"
#include "tools/cli/calibrate.h"
#include "tools/cli/json.h"
#include "tools/cli/loaded.h"
#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"
#include "tools/io/file.h"

namespace heed::tools {
namespace {

/// "12 MatMul, 3 Add": the most frequent first.
std::string counts(const std::map<std::string, int>& operators, int& total) {
  std::vector<std::pair<std::string, int>> rows(operators.begin(), operators.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> parts;
  total = 0;
  for (const auto& [name, count] : rows) {
    parts.push_back(fmt::format("{} {}", count, name));
    total += count;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

/// The first and the last of the nodes of a group, the last without the folders that both are in; the end of what is
/// long says most.
std::string span_of(const std::vector<std::string>& nodes) {
  constexpr size_t longest = 90;
  if (nodes.empty()) return "";
  std::string text = nodes.front();
  const std::string& last = nodes.back();
  if (nodes.size() > 1) {
    const auto apart = std::mismatch(text.begin(), text.end(), last.begin(), last.end()).second;
    const size_t slash = last.substr(0, static_cast<size_t>(apart - last.begin())).rfind('/');
    text += " .. " + (slash == last.npos ? last : last.substr(slash + 1));
  }
  return text.size() <= longest ? text : "..." + text.substr(text.size() - longest + 3);
}

/// One row for each concept; `--report` has each fusion.
void print_fused(const Report& report) {
  if (report.fused.empty()) return;
  std::vector<std::string> concepts;
  for (const Report::Fused& fused : report.fused)
    if (std::find(concepts.begin(), concepts.end(), fused.concept_name) == concepts.end())
      concepts.push_back(fused.concept_name);
  Table table({"fused", ">count", ">ONNX nodes", ">largest error", "for example"});
  for (const std::string& name : concepts) {
    size_t count = 0, nodes = 0;
    double error = 0;
    std::string example;
    for (const Report::Fused& fused : report.fused) {
      if (fused.concept_name != name) continue;
      ++count;
      nodes += fused.absorbed.size();
      error = std::max(error, fused.largest_error);
      example = span_of(fused.absorbed);  // the model's first: fusions are made from its end
    }
    const bool counted = name == "attention" && report.attentions > 0;
    table.add({name, counted ? fmt::format("{} of {}", count, report.attentions) : std::to_string(count),
               std::to_string(nodes), fmt::format("{:.1e}", error), example});
  }
  fmt::print("\n");
  table.print();
}

/// One paragraph for each way to differ, however many layers do; `--report` has each group.
void print_missed(const Report& report) {
  std::vector<std::pair<const Report::Missed*, int>> kinds;
  for (const Report::Missed& missed : report.missed) {
    const auto same = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) {
      return kind.first->concept_name == missed.concept_name && kind.first->found == missed.found &&
             kind.first->expected == missed.expected;
    });
    if (same == kinds.end())
      kinds.emplace_back(&missed, 1);
    else
      ++same->second;
  }
  for (const auto& [missed, count] : kinds) {
    const std::string times = count > 1 ? fmt::format(", {} times, first here", count) : "";
    fmt::print("\n{}  {}{}\n", bold("not fused: " + missed->concept_name), printable(span_of(missed->nodes)), times);
    fmt::print("  differs at  {}\n  found       {}\n  expected    {}\n", printable(missed->node),
               printable(missed->found), printable(missed->expected));
    if (!missed->advice.empty()) fmt::print("  advice      {}\n", missed->advice);
  }
}

/// What a conversion costs on this machine.
struct Cost {
  double seconds;
  uint64_t peak_memory;  // bytes, of the whole program
};

/// docs/converter.md explains the keys.
Json report_of(const ConvertCommand& command, const std::filesystem::path& output, const Report& report,
               const Cost& cost) {
  Json json;
  json["version"] = 1;
  json["source"] = command.onnx.string();
  json["model"] = output.string();
  json["options"] = {{"dim", command.dims},
                     {"state", command.states},
                     {"set", command.sets},
                     {"limit", command.limits},
                     {"quantize", command.quantize},
                     {"keep_float", command.keep_float},
                     {"calibrate", command.calibrate ? Json(*command.calibrate) : Json()},
                     {"range", command.range},
                     {"error_budget", command.error_budget ? Json(*command.error_budget) : Json()},
                     {"qdq", command.qdq}};
  json["seconds"] = cost.seconds;
  json["peak_memory"] = cost.peak_memory;
  json["onnx_operators"] = report.onnx_operators;
  json["heed_operators"] = report.heed_operators;
  json["attentions"] = report.attentions;
  json["fused"] = Json::array();
  for (const Report::Fused& fused : report.fused) {
    json["fused"].push_back({{"concept", fused.concept_name},
                             {"node", fused.node},
                             {"nodes", fused.absorbed},
                             {"operator", fused.operator_index < 0 ? Json() : Json(fused.operator_index)},
                             {"largest_error", fused.largest_error}});
  }
  json["missed"] = Json::array();
  for (const Report::Missed& missed : report.missed) {
    json["missed"].push_back({{"concept", missed.concept_name},
                              {"node", missed.node},
                              {"found", missed.found},
                              {"expected", missed.expected},
                              {"advice", missed.advice},
                              {"nodes", missed.nodes}});
  }
  json["made_one"] = report.made_one;
  json["notes"] = report.notes;
  const LoadedModel loaded(output);
  Runner runner(loaded, {});
  json.update(describe(loaded.model(), runner.session()));
  for (size_t i = 0; i < report.operators.size(); ++i) json["operators"][i]["nodes"] = report.operators[i];
  for (Json& state : json["states"])
    state["copied"] = std::find(report.copied.begin(), report.copied.end(), state["name"]) != report.copied.end();
  return json;
}

/// The most bytes that this program held. (getrusage begins with what the program that started it held.)
uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  return 0;
}

/// The command as it was given, to be copied; what a shell would read otherwise is quoted.
std::string command_line(const ConvertCommand& command) {
  const auto quoted = [](const std::string& text) {
    constexpr const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
    return !text.empty() && text.find_first_not_of(plain) == text.npos ? text : "'" + text + "'";
  };
  std::string line = "heed convert " + quoted(command.onnx.string());
  if (command.output) line += " -o " + quoted(command.output->string());
  const std::pair<const char*, const std::vector<std::string>&> options[] = {{"--dim", command.dims},
                                                                             {"--state", command.states},
                                                                             {"--set", command.sets},
                                                                             {"--limit", command.limits},
                                                                             {"--keep-float", command.keep_float}};
  if (command.quantize != "none") line += " --quantize " + command.quantize;
  if (command.range != "minmax") line += " --range " + command.range;
  if (command.qdq != "relax") line += " --qdq " + command.qdq;
  if (command.calibrate) line += " --calibrate " + quoted(*command.calibrate);
  if (command.error_budget) line += fmt::format(" --error-budget {}", *command.error_budget);
  for (const auto& [option, values] : options)
    for (const std::string& value : values) line += fmt::format(" {} {}", option, quoted(value));
  if (command.report) line += " --report " + quoted(command.report->string());
  return line;
}

ConvertOptions::Quantization quantization_of(const ConvertCommand& command) {
  using enum ConvertOptions::Quantization;
  const bool is_static = command.quantize == "int8-static";
  if (is_static && !command.calibrate)
    throw Error(
        Fault::command_line,
        "--quantize int8-static needs --calibrate data.npz, inputs that are like those to come; --quantize int8 "
        "needs none");
  if (is_static && command.error_budget) throw Error(Fault::command_line, "--error-budget is for --quantize int8");
  if (!is_static && command.range != "minmax")
    throw Error(Fault::command_line, "--range is for --quantize int8-static");
  return is_static ? int8_static : command.quantize == "int8" ? int8 : none;
}

RangeKind range_of(const std::string& name) {
  return name == "mse" ? RangeKind::mse : name == "percentile" ? RangeKind::percentile : RangeKind::minmax;
}

/// Of the worst output, relative.
double error(Reference& reference, const Converted& converted) {
  return reference.measure(LoadedModel("the model in int8", converted.bytes), false).relative();
}

/// Keeps layers in float, those with the largest gains first, until the error is within the budget.
Converted within(double budget, Converted converted, const Prepared& prepared, const ConvertOptions& options,
                 Reference& reference, Progress& progress) {
  const auto error_of = [&](const Converted& each) { return error(reference, each); };
  double error = error_of(converted);
  const std::string all =
      fmt::format("--error-budget {}: the worst output's relative error is {:.3g} in int8", budget, error);
  std::vector<std::pair<double, std::string>> layers;  // gain, name
  if (error > budget) {
    const std::vector<std::string> int8 = converted.report.int8_layers;
    for (const std::string& name : int8) {
      progress.show("alone in int8: " + name, static_cast<double>(layers.size()) / static_cast<double>(int8.size()));
      layers.emplace_back(gain_of(name, int8, prepared, options, reference), name);
    }
    std::stable_sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  }
  // As many as their squares say at first. Errors do not quite add up as squares, so then those that lower what is
  // measured, one at a time; and whatever is not needed in the end goes back to int8.
  std::vector<size_t> kept;
  for (double left = error * error; kept.size() < layers.size() && left > budget * budget; kept.push_back(kept.size()))
    left -= layers[kept.size()].first * layers[kept.size()].first;
  const auto accept = [&](const std::vector<size_t>& floats, double limit) {
    ConvertOptions some = options;
    for (const size_t i : floats) some.int8.keep_float.push_back(layers[i].second);
    progress.show(fmt::format("{} layers in float", floats.size()), 1);
    Converted tried = finish(prepared, some);
    const double found = error_of(tried);
    if (!(found <= limit)) return false;
    converted = std::move(tried), error = found, kept = floats;
    return true;
  };
  if (!kept.empty()) {
    const size_t first = kept.size();
    accept(kept, std::numeric_limits<double>::infinity());
    for (size_t i = first; error > budget && i < layers.size(); ++i) {
      std::vector<size_t> more = kept;
      more.push_back(i);
      accept(more, error);
    }
    if (error > budget) {  // errors that cancelled each other kept some layers in int8
      std::vector<size_t> all_layers(layers.size());
      std::iota(all_layers.begin(), all_layers.end(), size_t{0});
      accept(all_layers, error);
    }
    for (size_t i = kept.size(); error <= budget && i-- > 0 && kept.size() > 1;) {
      std::vector<size_t> fewer = kept;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(i));
      accept(fewer, budget);
    }
  }
  std::vector<std::string> reasons;
  for (const size_t i : kept) reasons.push_back(fmt::format("{} (gains {:.3g})", layers[i].second, layers[i].first));
  converted.report.notes.push_back(
      reasons.empty() ? all + ", nothing is kept in float"
                      : fmt::format("{}, {:.3g} with these in float: {}", all, error, fmt::join(reasons, ", ")));
  return converted;
}

/// A conversion that goes by data.
Converted calibrated(const ConvertCommand& command, ConvertOptions options, Progress& progress) {
  const auto show = [&](const std::string& stage, double share) { progress.show(stage, share); };
  const Prepared prepared = prepare(command.onnx, options, show);
  ConvertOptions in_float = options;
  in_float.quantization = ConvertOptions::Quantization::none;
  const LoadedModel loaded(command.onnx.string(), finish(prepared, in_float, show).bytes);
  progress.show("calibrate", 0);
  Reference reference(loaded, {*command.calibrate}, loaded.model().state_count() > 0);
  ConvertOptions fitted_options = options;
  fitted_options.int8.calibration = reference.calibration();
  fitted_options.int8.calibrated_on = *command.calibrate;
  Converted converted = finish(prepared, options, show), fitted = finish(prepared, fitted_options, show);
  const double before = error(reference, converted), after = error(reference, fitted);
  const bool fits = after < before;
  if (fits) {
    converted = std::move(fitted);
    options = fitted_options;
  }
  if (command.error_budget)
    converted = within(*command.error_budget, std::move(converted), prepared, options, reference, progress);
  converted.report.notes.push_back(
      fmt::format("--calibrate: the worst output's relative error is {:.3g} fitted to the data and {:.3g} without, "
                  "so the layers are {}fitted",
                  after, before, fits ? "" : "not "));
  return converted;
}

}  // namespace

void convert(const ConvertCommand& command) {
  std::filesystem::path output = command.onnx;
  output.replace_extension(".heed");
  if (command.output) output = *command.output;
  std::vector<std::filesystem::path> read{command.onnx};
  if (command.calibrate) read.push_back(*command.calibrate);
  for (const std::string& set : command.sets)
    if (const size_t equals = set.find('='); equals != set.npos) read.push_back(set.substr(equals + 1));
  check_output("-o", output, read);
  if (command.report) {
    check_output("--report", *command.report, read);
    if (command.report->lexically_normal() == output.lexically_normal())
      throw Error(Fault::command_line, fmt::format("--report {}: is where the model goes", command.report->string()));
  }
  const std::pair<const char*, bool> for_int8[] = {{"--keep-float", !command.keep_float.empty()},
                                                   {"--calibrate", command.calibrate.has_value()},
                                                   {"--error-budget", command.error_budget.has_value()}};
  for (const auto& [option, given] : for_int8)
    if (given && command.quantize == "none")
      throw Error(Fault::command_line, fmt::format("{}: everything is in float without --quantize int8", option));
  if (command.error_budget && !(*command.error_budget > 0 && *command.error_budget < 1))
    throw Error(Fault::command_line,
                fmt::format("--error-budget {}: is not a share of the output between 0 and 1", *command.error_budget));
  if (command.error_budget && !command.calibrate)
    throw Error(Fault::command_line, "--error-budget: the error is that on data: give them with --calibrate data.npz");

  const ConvertOptions::Quantization quantization = quantization_of(command);

  const auto start = std::chrono::steady_clock::now();
  Converted converted;
  {
    Progress progress;
    const auto show = [&](const std::string& stage, double share) { progress.show(stage, share); };
    ConvertOptions options{command.dims, command.states, command.sets, command.limits};
    options.quantization = quantization;
    options.int8.keep_float = command.keep_float;
    options.relax = command.qdq == "relax";
    options.command = command_line(command);
    const bool is_static = quantization == ConvertOptions::Quantization::int8_static;
    if (is_static)
      options.calibrate = [&](const std::vector<std::byte>& file, size_t count) {
        return ranges_of(file, count, {*command.calibrate}, range_of(command.range));
      };
    converted =
        command.calibrate && !is_static ? calibrated(command, options, progress) : convert(command.onnx, options, show);
  }
  write_file(output, converted.bytes);
  const Cost cost{std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), peak_memory()};
  if (command.report) {
    const std::string text = dump(report_of(command, output, converted.report, cost)) + "\n";
    write_file(*command.report, std::as_bytes(std::span(text)));
  }

  const Report& report = converted.report;
  int before = 0, after = 0;
  const std::string onnx_operators = counts(report.onnx_operators, before);
  const std::string heed_operators = counts(report.heed_operators, after);
  fmt::print("{}  {} bytes\n\n", bold(printable(output.string())), grouped(report.file_bytes));
  fmt::print("operators {} -> {}\n  ONNX  {}\n  heed  {}\n", before, after, printable(onnx_operators), heed_operators);
  print_fused(report);
  print_missed(report);
  if (!report.notes.empty()) {
    fmt::print("\n{}\n", bold("notes"));
    for (const std::string& note : report.notes) fmt::print("  {}\n", printable(note));
  }
  Table memory({"memory", ">bytes", ""});
  memory.add({"constants", grouped(report.constants), "in the file"});
  memory.add({"state", grouped(report.state), ""});
  memory.add({"workspace", grouped(report.workspace), against_lower_bound(report.workspace, report.lower_bound)});
  memory.add({"tables", grouped(report.tables), ""});
  memory.add({"total", grouped(report.state + report.workspace + report.tables), "one thread"});
  fmt::print("\n");
  memory.print();
  fmt::print("\n{} multiply-accumulates", grouped(report.macs));
  if (report.int8_macs > 0) fmt::print(", {} of them in int8", grouped(report.int8_macs));
  fmt::print("\n");
  fmt::print("converted in {:.2f} s with {} bytes of memory\n", cost.seconds, grouped(cost.peak_memory));
}

}  // namespace heed::tools

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tools/cli/accuracy.h"
#include "tools/cli/json.h"
#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"
#include "tools/convert.h"
#include "tools/error.h"
#include "tools/io/file.h"

namespace heed::tools {
namespace {

/// One operator, or one output of the model.
struct Row {
  std::string name, type;
  uint32_t index = 0;
  Difference difference;
  bool int8 = false;
  std::optional<double> gain = {};  // the worst output's relative error that it brings
};

struct Comparison {
  std::string onnx, model;
  size_t samples;
  double relative;                   // error of the worst output
  std::vector<Row> outputs, layers;  // the worst first
};

/// The worst first: largest relative error.
void sort(std::vector<Row>& rows) {
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.difference.relative() > b.difference.relative(); });
}

void find_gains(const Prepared& prepared, const ConvertOptions& options, const std::vector<std::string>& int8,
                uint32_t most, Reference& reference, std::vector<Row>& layers, Progress& progress) {
  std::vector<Row*> wanted;
  for (Row& row : layers)
    if (row.int8 && wanted.size() < most) wanted.push_back(&row);
  for (size_t i = 0; i < wanted.size(); ++i) {
    progress.show(fmt::format("layer {} of {} alone in int8: {}", i + 1, wanted.size(), wanted[i]->name),
                  static_cast<double>(i) / static_cast<double>(wanted.size()));
    wanted[i]->gain = gain_of(wanted[i]->name, int8, prepared, options, reference);
  }
}

Comparison compared(const CompareCommand& command) {
  const LoadedModel loaded(command.model);
  const Model& model = loaded.model();
  if (command.sequence && model.state_count() == 0)
    throw Error(Fault::command_line, "--sequence: the model has no state to carry from sample to sample");
  Progress progress;
  const auto show = [&](const std::string& stage, double share) { progress.show(stage, share); };
  ConvertOptions options = made_with(model), in_float = options;
  in_float.quantization = ConvertOptions::Quantization::none;
  const Prepared prepared = [&] {
    try {
      return prepare(command.onnx, options, show);
    } catch (const Error& error) {
      if (error.fault() != Fault::command_line) throw;
      std::vector<std::string> problems{fmt::format(
          "{}: was not made of {}, which does not take its options:", loaded.path(), command.onnx.string())};
      problems.insert(problems.end(), error.problems().begin(), error.problems().end());
      throw Error(Fault::command_line, problems);
    }
  }();
  const LoadedModel expected(command.onnx.string(), finish(prepared, in_float, show).bytes);
  progress.show("the float model on the data", 0);
  Reference reference(expected, command.inputs, command.sequence);
  progress.show("both models on the data", 0);
  const Accuracy accuracy = reference.measure(loaded, true);
  if (accuracy.layers.empty() && model.operator_count() > 1)
    throw Error(Fault::model, fmt::format("{} was not made of {}: no operator of one has a name of the other's",
                                          loaded.path(), command.onnx.string()));

  if (!options.int8.calibrated_on.empty()) options.int8.calibration = reference.calibration();
  std::vector<std::string> int8;
  if (options.quantization == ConvertOptions::Quantization::int8) int8 = finish(prepared, options).report.int8_layers;
  const std::set<std::string> in_int8(int8.begin(), int8.end());
  Comparison result{command.onnx.string(), loaded.path(), reference.samples(), accuracy.relative(), {}, {}};
  for (uint32_t i = 0; i < model.output_count(); ++i)
    result.outputs.push_back({std::string(model.output(i).name), "output", i, accuracy.outputs[i]});
  for (const auto& [index, difference] : accuracy.layers) {
    const OperatorInfo info = model.operator_info(index);
    const std::string name(info.name);
    result.layers.push_back({name, operator_of(info.kind).name, index, difference, in_int8.contains(name)});
  }
  sort(result.outputs);
  sort(result.layers);
  find_gains(prepared, options, int8, command.gains, reference, result.layers, progress);
  return result;
}

// --- Table, JSON and page
// --------------------------------------------------------------------------------------------------

std::string snr_text(const Difference& difference) {
  return difference.error == 0 ? "equal" : fmt::format("{:.1f}", difference.snr());
}
std::string percent(double share) {
  return fmt::format("{:.3g} %", 100 * share);
}

/// Some exporters' names list all that was fused: a line's worth of them.
std::string brief(const std::string& name) {
  constexpr size_t most = 72, side = 34;
  if (name.size() <= most) return name;
  const std::string first = name.substr(0, name.find(';'));
  if (first.size() < name.size() && first.size() + 2 <= most) return first + "; ...";
  return name.substr(0, side) + "..." + name.substr(name.size() - side);
}

void print_table(const Comparison& comparison) {
  fmt::print("{} against {} in float, {} sample{}\n\n", bold(printable(comparison.model)), printable(comparison.onnx),
             comparison.samples, comparison.samples == 1 ? "" : "s");
  Table outputs({"output", ">SNR dB", ">cosine", ">largest", ">error"});
  for (const auto& [name, type, index, difference, int8, gain] : comparison.outputs)
    outputs.add({name, snr_text(difference), fmt::format("{:.6f}", difference.cosine()),
                 fmt::format("{:.3g}", difference.largest), percent(difference.relative())});
  outputs.print();
  fmt::print("\n");
  Table layers({"layer", "operator", ">SNR dB", ">cosine", ">largest", ">error", ">gain"});
  for (const auto& [name, type, index, difference, int8, gain] : comparison.layers)
    layers.add({brief(name), type, snr_text(difference), fmt::format("{:.6f}", difference.cosine()),
                fmt::format("{:.3g}", difference.largest), percent(difference.relative()), gain ? percent(*gain) : ""});
  layers.print();
  fmt::print(
      "\nerror: root mean square of the difference, as a share of the float value's\n"
      "gain: what the layer in float (--keep-float) takes from the worst output's error; gains add up as squares do\n");
}

/// docs/converter.md explains the keys.
Json json_of(const Comparison& comparison) {
  const auto row_of = [](const Row& row) {
    const bool equal = row.difference.error == 0;
    return Json{{"name", row.name},
                {"type", row.type},
                {"index", row.index},
                {"snr_db", equal ? Json() : Json(row.difference.snr())},
                {"cosine", row.difference.cosine()},
                {"largest_difference", row.difference.largest},
                {"relative_error", row.difference.relative()}};
  };
  Json json;
  json["version"] = 1;
  json["source"] = comparison.onnx;
  json["model"] = comparison.model;
  json["samples"] = comparison.samples;
  json["relative_error"] = comparison.relative;
  json["outputs"] = json["layers"] = Json::array();
  for (const Row& row : comparison.outputs) json["outputs"].push_back(row_of(row));
  for (const Row& row : comparison.layers) {
    Json layer = row_of(row);
    layer["int8"] = row.int8;
    layer["gain"] = row.gain ? Json(*row.gain) : Json();
    json["layers"].push_back(layer);
  }
  return json;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : printable(text)) switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      default:
        safe += c;
    }
  return safe;
}

/// One file that needs nothing else.
std::string page_of(const Comparison& comparison) {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\n<style>\n"
      "body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222 }}\n"
      "table {{ border-collapse: collapse; width: 100% }}\n"
      "th, td {{ text-align: left; padding: 2px 12px 2px 0; white-space: nowrap; border-bottom: 1px solid #eee }}\n"
      ".n {{ text-align: right; font-variant-numeric: tabular-nums }}\n"
      ".bar {{ width: 25% }} .bar div {{ height: 12px; background: #c65d3b }} .bar .gain {{ background: #3b7ac6 }}\n"
      "p {{ color: #666; max-width: 60em }}\n</style>\n<h1>{0}</h1>\n<p>against {1} in float, {2} samples</p>\n",
      escaped(comparison.model), escaped(comparison.onnx), comparison.samples);
  double most_gain = 0;
  for (const Row& row : comparison.layers) most_gain = std::max(most_gain, row.gain.value_or(0));
  const auto bar = [](const char* kind, double share) {
    return std::isfinite(share) && share > 0
               ? fmt::format("<td class=\"bar\"><div class=\"{}\" style=\"width:{:.1f}%\"></div>", kind, 100 * share)
               : std::string("<td class=\"bar\">");
  };
  const auto table = [&](const char* heading, const std::vector<Row>& rows) {
    const double most_error = rows.empty() ? 0 : rows.front().difference.relative();
    page += fmt::format(
        "<table><tr><th>{}<th>operator<th class=\"n\">SNR dB<th class=\"n\">cosine<th class=\"n\">largest<th "
        "class=\"n\">error<th class=\"bar\"><th class=\"n\">gain<th class=\"bar\">\n",
        heading);
    for (const auto& [name, type, index, difference, int8, gain] : rows)
      page += fmt::format(
          "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{:.6f}<td class=\"n\">{:.3g}<td class=\"n\">{}{}<td "
          "class=\"n\">{}{}\n",
          escaped(name), type, snr_text(difference), difference.cosine(), difference.largest,
          percent(difference.relative()), bar("error", difference.relative() / most_error), gain ? percent(*gain) : "",
          bar("gain", gain.value_or(0) / most_gain));
    page += "</table>\n";
  };
  table("output", comparison.outputs);
  page += "<p>";
  table("layer", comparison.layers);
  page +=
      "<p>error: root mean square of the difference, as a share of the float value's. gain: what the layer in float "
      "(--keep-float) takes from the worst output's error; gains add up as squares do.</p>\n";
  return page;
}

}  // namespace

void compare(const CompareCommand& command) {
  if (command.output) {
    std::vector<std::filesystem::path> read = files_of(command.model, command.inputs);
    read.push_back(command.onnx);
    check_output("-o", *command.output, read);
    if (command.output->extension() != ".html")
      throw Error(Fault::command_line, fmt::format("-o {}: the page is a .html", command.output->string()));
  }
  const Comparison comparison = compared(command);
  if (command.output) {
    const std::string page = page_of(comparison);
    write_file(*command.output, std::as_bytes(std::span(page)));
  }
  if (command.json)
    fmt::print("{}\n", dump(json_of(comparison)));
  else
    print_table(comparison);
}

}  // namespace heed::tools

#include "tools/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

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

void print_fused(const Report& report) {
  if (report.fused.empty()) return;
  std::vector<std::string> concepts;
  for (const Report::Fused& fused : report.fused)
    if (std::find(concepts.begin(), concepts.end(), fused.concept_name) == concepts.end())
      concepts.push_back(fused.concept_name);
  Table table({"fused", ">count", ">ONNX nodes", ">largest error", "at"});
  for (const std::string& name : concepts) {
    size_t count = 0, nodes = 0;
    double error = 0;
    std::string at;
    for (const Report::Fused& fused : report.fused) {
      if (fused.concept_name != name) continue;
      ++count;
      nodes += fused.absorbed.size();
      error = std::max(error, fused.largest_error);
      if (count <= 2) at += (at.empty() ? "" : ", ") + fused.node;
      if (count == 3) at += ", ...";
    }
    const bool counted = name == "attention" && report.attentions > 0;
    table.add({name, counted ? fmt::format("{} of {}", count, report.attentions) : std::to_string(count),
               std::to_string(nodes), fmt::format("{:.1e}", error), at});
  }
  fmt::print("\n");
  table.print();
}

/// The command as it was given, to be copied; what a shell would read otherwise is quoted.
std::string command_line(const ConvertCommand& command) {
  const auto quoted = [](const std::string& text) {
    constexpr const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
    return !text.empty() && text.find_first_not_of(plain) == text.npos ? text : "'" + text + "'";
  };
  std::string line = "heed convert " + quoted(command.onnx.string());
  if (command.output) line += " -o " + quoted(command.output->string());
  const std::pair<const char*, const std::vector<std::string>&> options[] = {
      {"--dim", command.dims}, {"--state", command.states}, {"--set", command.sets}, {"--limit", command.limits}};
  for (const auto& [option, values] : options)
    for (const std::string& value : values) line += fmt::format(" {} {}", option, quoted(value));
  return line;
}

}  // namespace

void convert(const ConvertCommand& command) {
  std::filesystem::path output = command.onnx;
  output.replace_extension(".heed");
  if (command.output) output = *command.output;
  check_output("-o", output, {command.onnx});

  Converted converted;
  {
    Progress progress;
    converted = convert(
        command.onnx, ConvertOptions{command.dims, command.states, command.sets, command.limits, command_line(command)},
        [&](const std::string& stage, double share) { progress.show(stage, share); });
  }
  write_file(output, converted.bytes);

  const Report& report = converted.report;
  int before = 0, after = 0;
  const std::string onnx_operators = counts(report.onnx_operators, before);
  const std::string heed_operators = counts(report.heed_operators, after);
  fmt::print("{}  {} bytes\n\n", bold(printable(output.string())), grouped(report.file_bytes));
  fmt::print("operators {} -> {}\n  ONNX  {}\n  heed  {}\n", before, after, printable(onnx_operators), heed_operators);
  print_fused(report);
  if (!report.missed.empty()) {
    Table table({"not fused", "stopped at", "because"});
    for (const Report::Missed& missed : report.missed) table.add({missed.concept_name, missed.node, missed.reason});
    fmt::print("\n");
    table.print();
  }
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
  fmt::print("\n{} multiply-accumulates\n", grouped(report.macs));
}

}  // namespace heed::tools

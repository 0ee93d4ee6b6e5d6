#include "tools/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>

#include "heed/session.h"
#include "tools/onnx/import.h"
#include "tools/onnx/model.h"
#include "tools/passes/passes.h"
#include "tools/plan/narrow.h"
#include "tools/plan/planner.h"
#include "tools/plan/programs.h"
#include "tools/plan/writer.h"

namespace heed::tools {
namespace {

/// Memory at a multiple of 64.
class Aligned {
 public:
  explicit Aligned(size_t size)
      : size_(size), data_(static_cast<std::byte*>(::operator new (size, std::align_val_t{64}))) {}
  ~Aligned() { ::operator delete (data_, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::span<std::byte> span() const { return {data_, size_}; }

 private:
  size_t size_;
  std::byte* data_;
};

/// What was written must be what the runtime takes; anything else is this converter's mistake.
template <class T>
void accept(const Result<T>& result) {
  if (result) return;
  char text[512];
  result.status().describe(text, sizeof text);
  throw Error(Fault::model, fmt::format("internal error: the runtime refuses the converted file: {}", text));
}

void load(const std::vector<std::byte>& bytes, Report& report) {
  const Aligned file(bytes.size());
  std::memcpy(file.span().data(), bytes.data(), bytes.size());
  const Result<Model> model = Model::load(file.span());
  accept(model);
  const Memory& memory = model->memory();
  report.file_bytes = bytes.size();
  report.constants = memory.constants;
  report.state = memory.state;
  report.workspace = memory.workspace;
  report.lower_bound = memory.lower_bound;
  report.tables = memory.tables;
  const Aligned arena(memory.total());
  const Result<Session> session = Session::create(*model, arena.span());
  accept(session);
  for (uint32_t i = 0; i < model->operator_count(); ++i) {
    const OperatorInfo info = model->operator_info(i);
    report.macs += static_cast<uint64_t>(session->value(info.macs));
    ++report.heed_operators[operator_of(info.kind).name];
  }
}

/// The operator that computes what ends in a node: the one of its name, else the first that took it in.
std::map<std::string_view, int> computed_by(const Lowered& lowered) {
  std::map<std::string_view, int> found;
  const auto count = static_cast<int>(lowered.operators.size());
  for (int i = 0; i < count; ++i) found.try_emplace(lowered.operators[static_cast<size_t>(i)].name, i);
  for (int i = 0; i < count; ++i)
    for (const std::string& node : lowered.operators[static_cast<size_t>(i)].absorbed) found.try_emplace(node, i);
  return found;
}

/// The stages up to the file. What they held, the constants above all, is gone before load() copies the file.
std::vector<std::byte> compile(const std::filesystem::path& path, const ConvertOptions& options,
                               const Progress& progress, Report& report) {
  const auto tell = [&](const char* stage, double share) {
    if (progress) progress(stage, share);
  };
  tell("read", 0);
  std::optional<onnx::Model> model = onnx::read(path);
  report.onnx_operators = count_operators(*model);
  tell("import", 0);
  Graph graph = import(*model, options, report.notes);
  model->file->forget();  // most constants were copied: few lie at the address that their type wants
  model.reset();
  optimise(graph, report, progress);
  if (options.quantization == ConvertOptions::Quantization::int8) {
    tell("quantise", 0);
    quantize(graph, report);
  }
  for (const std::string& note : graph.notes)
    if (std::find(report.notes.begin(), report.notes.end(), note) == report.notes.end()) report.notes.push_back(note);
  for (const auto& [name, value] : graph.replaced()) report.made_one[name] = value.text();
  tell("narrow", 0);
  narrow(graph);
  tell("make programs", 0);
  make_programs(graph);
  tell("lower", 0);
  const Lowered lowered = lower(std::move(graph));  // unmaps the model
  for (const Lowered::State& state : lowered.states)
    if (state.copied) report.copied.push_back(state.name);
  for (const std::string& name : report.copied)
    report.notes.push_back(fmt::format("state '{}' is copied at the end of a run", name));
  const auto operators = computed_by(lowered);
  for (Report::Fused& fused : report.fused)
    if (const auto found = operators.find(fused.node); found != operators.end()) fused.operator_index = found->second;
  for (const LoweredOperator& op : lowered.operators) report.operators.push_back(op.absorbed);
  tell("plan memory", 0);
  const Plan memory = plan(lowered);
  tell("write", 0);
  std::map<std::string, int> fusions;
  for (const Report::Fused& fused : report.fused) ++fusions[fused.concept_name];
  return write(lowered, memory, fusions);
}

}  // namespace

Converted convert(const std::filesystem::path& path, const ConvertOptions& options, const Progress& progress) {
  Converted result;
  result.bytes = compile(path, options, progress, result.report);
  if (progress) progress("verify", 0);
  load(result.bytes, result.report);
  return result;
}

}  // namespace heed::tools

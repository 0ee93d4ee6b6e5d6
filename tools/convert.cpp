#include "tools/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>

#include "heed/session.h"
#include "tools/calibrate.h"
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
    const auto macs = static_cast<uint64_t>(session->value(info.macs));
    report.macs += macs;
    if (computes_in_int8(info.kind)) report.int8_macs += macs;
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

void tell(const Progress& progress, const char* stage) {
  if (progress) progress(stage, 0);
}

std::vector<std::string> record(const ConvertOptions& options) {
  std::vector<std::string> words;
  const auto add = [&](const char* option, const std::vector<std::string>& values) {
    for (const std::string& value : values) words.insert(words.end(), {option, value});
  };
  add("--dim", options.dims);
  add("--state", options.states);
  add("--set", options.sets);
  add("--limit", options.limits);
  if (options.quantization == ConvertOptions::Quantization::int8) add("--quantize", {"int8"});
  if (options.quantization == ConvertOptions::Quantization::int8_static) add("--quantize", {"int8-static"});
  add("--keep-float", options.int8.keep_float);
  if (!options.relax) add("--qdq", {"keep"});
  if (!options.int8.calibrated_on.empty()) add("--calibrate", {options.int8.calibrated_on});
  return words;
}

/// Of what layers read, from the model in float with these values as outputs: so many at a time.
std::map<ValueId, Range> ranges_of(const Graph& graph, const ConvertOptions& options) {
  constexpr size_t at_once = 512;
  const std::vector<ValueId> all = quantizable(graph);
  std::map<ValueId, Range> ranges;
  for (size_t first = 0; first < all.size(); first += at_once) {
    const std::span<const ValueId> watched = std::span(all).subspan(first, std::min(at_once, all.size() - first));
    Graph copy = graph;
    for (const ValueId id : watched) copy.outputs.push_back({fmt::format("operand {}", id), id, 1});
    expand_quantized(copy);
    narrow(copy);
    make_programs(copy);
    const Lowered lowered = lower(std::move(copy));
    const std::vector<Range> found = options.calibrate(write(lowered, plan(lowered), {}), watched.size());
    for (size_t i = 0; i < watched.size(); ++i) ranges[watched[i]] = found[i];
  }
  return ranges;
}

/// The stages after the passes, up to the file.
std::vector<std::byte> compile(Graph graph, const ConvertOptions& options, const Progress& progress, Report& report) {
  tell(progress, "narrow");
  narrow(graph);  // int8 layers are made of what is left
  if (options.quantization != ConvertOptions::Quantization::none) {
    tell(progress, "quantise");
    const bool is_static = options.quantization == ConvertOptions::Quantization::int8_static;
    quantize(graph, report, options.int8, is_static ? ranges_of(graph, options) : std::map<ValueId, Range>());
  }
  expand_quantized(graph);
  for (const std::string& note : graph.notes)
    if (std::find(report.notes.begin(), report.notes.end(), note) == report.notes.end()) report.notes.push_back(note);
  for (const auto& [name, value] : graph.replaced()) report.made_one[name] = value.text();
  tell(progress, "make programs");
  make_programs(graph);
  tell(progress, "lower");
  const Lowered lowered = lower(std::move(graph));  // unmaps the model
  for (const Lowered::State& state : lowered.states)
    if (state.copied) report.copied.push_back(state.name);
  for (const std::string& name : report.copied)
    report.notes.push_back(fmt::format("state '{}' is copied at the end of a run", name));
  const auto operators = computed_by(lowered);
  for (Report::Fused& fused : report.fused)
    if (const auto found = operators.find(fused.node); found != operators.end()) fused.operator_index = found->second;
  for (const LoweredOperator& op : lowered.operators) report.operators.push_back(op.absorbed);
  tell(progress, "plan memory");
  const Plan memory = plan(lowered);
  tell(progress, "write");
  std::map<std::string, int> fusions;
  for (const Report::Fused& fused : report.fused) ++fusions[fused.concept_name];
  return write(lowered, memory, fusions, record(options));
}

/// Of runs on random inputs, at sizes that take little time where the constraints allow it.
std::shared_ptr<const Calibration> calibrate_at_random(const Graph& graph) {
  constexpr int32_t largest = 32;
  constexpr uint32_t runs = 8;
  Report unused;
  const std::vector<std::byte> bytes = compile(graph, {}, {}, unused);
  const Aligned file(bytes.size());
  std::memcpy(file.span().data(), bytes.data(), bytes.size());
  const Result<Model> model = Model::load(file.span());
  accept(model);
  const Aligned arena(model->memory().total());
  Result<Session> session = Session::create(*model, arena.span());
  accept(session);
  std::vector<Session::Setting> settings;
  for (uint32_t i = 0; i < model->dimension_count(); ++i) {
    const auto [name, lower, upper, start] = model->dimension(i);
    settings.push_back({name, std::clamp(largest, lower, start)});
  }
  (void)session->resize(settings);  // else the start point
  Calibrator calibrator(*session);
  for (uint32_t run = 0; run < runs; ++run) {
    fill_at_random(*session, run);
    if (!session->run().ok()) break;  // a state is full
  }
  return std::make_shared<const Calibration>(std::move(calibrator.seen));
}

}  // namespace

Prepared prepare(const std::filesystem::path& path, const ConvertOptions& options, const Progress& progress) {
  Prepared result;
  tell(progress, "read");
  std::optional<onnx::Model> model = onnx::read(path);
  result.report.onnx_operators = count_operators(*model);
  tell(progress, "import");
  result.graph = import(*model, options, result.report.notes);
  model->file->forget();  // most constants were copied: few lie at the address that their type wants
  model.reset();
  settle_quantized(result.graph, options.relax, result.report);
  optimise(result.graph, result.report, progress);
  fuse_quantized(result.graph, result.report);
  if (options.quantization == ConvertOptions::Quantization::int8 && options.int8.calibrated_on.empty() &&
      smooths(result.graph)) {
    tell(progress, "run at random");
    result.at_random = calibrate_at_random(result.graph);
  }
  if (options.quantization != ConvertOptions::Quantization::none)
    centre_keys(result.graph, result.at_random.get(), result.report);
  return result;
}

/// What the stages held, the constants above all, is gone before load() copies the file.
Converted finish(Prepared model, const ConvertOptions& options, const Progress& progress) {
  Converted result;
  result.report = std::move(model.report);
  ConvertOptions fitted = options;
  if (!fitted.int8.calibration) fitted.int8.calibration = std::move(model.at_random);
  result.bytes = compile(std::move(model.graph), fitted, progress, result.report);
  tell(progress, "verify");
  load(result.bytes, result.report);
  Report& report = result.report;
  if (options.quantization != ConvertOptions::Quantization::none && 4 * report.int8_macs < report.macs)
    report.notes.push_back(fmt::format("{} of {} multiply-accumulates are in int8: hardly faster than in float",
                                       report.int8_macs, report.macs));
  return result;
}

Converted convert(const std::filesystem::path& path, const ConvertOptions& options, const Progress& progress) {
  return finish(prepare(path, options, progress), options, progress);
}

ConvertOptions made_with(const Model& model) {
  ConvertOptions options;
  const std::map<std::string_view, std::vector<std::string>*> lists{{"--dim", &options.dims},
                                                                    {"--state", &options.states},
                                                                    {"--set", &options.sets},
                                                                    {"--limit", &options.limits},
                                                                    {"--keep-float", &options.int8.keep_float}};
  for (uint32_t i = 0; i + 1 < model.made_with_count(); i += 2) {
    const std::string_view option = model.made_with(i);
    if (const auto list = lists.find(option); list != lists.end()) list->second->emplace_back(model.made_with(i + 1));
    if (option == "--calibrate") options.int8.calibrated_on = model.made_with(i + 1);
    if (option == "--quantize")
      options.quantization = model.made_with(i + 1) == "int8" ? ConvertOptions::Quantization::int8
                                                              : ConvertOptions::Quantization::int8_static;
    if (option == "--qdq") options.relax = model.made_with(i + 1) == "relax";
  }
  return options;
}

}  // namespace heed::tools

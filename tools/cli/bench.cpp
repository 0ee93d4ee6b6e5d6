#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "kernels/roof/roof.h"
#include "tools/calibrate.h"
#include "tools/cli/json.h"
#include "tools/cli/loaded.h"
#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"
#include "tools/error.h"

namespace heed::tools {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Multiply-accumulates in a second, in registers, on all threads at once.
double measure_roof(const Variants<RoofArgs>& variants, Isa isa, const Parallel& parallel) {
  struct Task {
    Variants<RoofArgs>::Kernel kernel;
    uint32_t steps;
    std::vector<uint64_t> macs;
    std::vector<float> results;
  } task{variants[isa], 1000, std::vector<uint64_t>(parallel.threads), std::vector<float>(parallel.threads)};
  const auto body = [](void* context, uint32_t index, uint32_t) {
    Task& self = *static_cast<Task*>(context);
    self.kernel({self.steps, 0.001f, &self.results[index], &self.macs[index]});
  };
  const auto once = [&] {
    const auto start = Clock::now();
    if (parallel.call != nullptr)
      parallel.call(parallel.pool, parallel.threads, body, &task);
    else
      body(&task, 0, 0);
    return seconds(Clock::now() - start);
  };
  while (once() < 2e-3) task.steps *= 2;  // warms up, too
  double best = once();
  for (int i = 0; i < 20; ++i) best = std::min(best, once());
  uint64_t macs = 0;
  for (uint64_t part : task.macs) macs += part;
  return static_cast<double>(macs) / best;
}

struct Timing {
  size_t runs = 0;
  double median = 0, least = 0;   // seconds
  std::vector<double> operators;  // medians, seconds
};

/// Runs until the medians stand still: for about a second, half of it without and half with an observer.
Timing measure(const LoadedModel& loaded, Session& session) {
  const Model& model = loaded.model();
  fill_at_random(session, 1);
  std::vector<std::vector<std::byte>> inputs;
  for (uint32_t i = 0; i < model.input_count(); ++i) {
    const std::byte* data = session.input(i).data;
    inputs.emplace_back(data, data + byte_count(session.input(i)));
  }
  const auto write = [&] {
    for (uint32_t i = 0; i < inputs.size(); ++i)
      if (!inputs[i].empty())
        std::memcpy(session.input(i).data, inputs[i].data(), std::min(inputs[i].size(), byte_count(session.input(i))));
  };
  // A state that is full begins again, so that all positions count.
  const auto run = [&] {
    Status status = session.run();
    if (status.code != Code::state_full) return status;
    session.reset();
    write();
    return session.run();
  };
  const auto once = [&] {
    write();
    const auto start = Clock::now();
    const Status status = run();
    const auto end = Clock::now();
    check(status, loaded.path());
    return seconds(end - start);
  };
  constexpr double budget = 0.6;
  constexpr size_t least_runs = 5, most_runs = 20000;
  Progress progress;
  double spent = once();
  for (int i = 0; i < 1000 && spent < 0.1; ++i) spent += once();  // caches, clock frequency

  Timing timing;
  std::vector<double> totals;
  for (spent = 0; totals.size() < least_runs || (spent < budget && totals.size() < most_runs);) {
    totals.push_back(once());
    spent += totals.back();
    progress.show("whole runs", spent / budget / 2);
  }
  timing.runs = totals.size();
  timing.median = median(totals);
  timing.least = *std::min_element(totals.begin(), totals.end());

  struct Stamps {
    std::vector<Clock::time_point> after;
  } stamps{std::vector<Clock::time_point>(model.operator_count())};
  Observer observer;
  observer.context = &stamps;
  observer.after = [](void* context, uint32_t index) { static_cast<Stamps*>(context)->after[index] = Clock::now(); };
  session.observe(&observer);
  // Reading the clock takes as long as a small operator does.
  double reading = 1;
  for (int i = 0; i < 1000; ++i) {
    const auto start = Clock::now();
    reading = std::min(reading, seconds(Clock::now() - start));
  }
  std::vector<std::vector<double>> times(model.operator_count());
  size_t rounds = 0;
  for (spent = 0; rounds < least_runs || (spent < budget && rounds < most_runs); ++rounds) {
    write();
    auto before = Clock::now();
    check(run(), loaded.path());
    for (uint32_t i = 0; i < model.operator_count(); ++i) {
      const double time = seconds(stamps.after[i] - before);
      spent += time;
      times[i].push_back(std::max(time - reading, 0.0));
      before = stamps.after[i];
    }
    progress.show("operator by operator", 0.5 + spent / budget / 2);
  }
  session.observe(nullptr);
  for (const auto& samples : times) timing.operators.push_back(median(samples));
  return timing;
}

/// What the operators of each element type could do at most.
struct Roofs {
  double floats, i8;
  double of(OperatorKind kind) const { return computes_in_int8(kind) ? i8 : floats; }
};

/// The share of the time that a model would take at its roofs.
double share_of_roof(const Model& model, const Session& session, const Roofs& roofs, double time) {
  double least = 0;
  for (uint32_t i = 0; i < model.operator_count(); ++i) {
    const OperatorInfo info = model.operator_info(i);
    least += static_cast<double>(session.value(info.macs)) / roofs.of(info.kind);
  }
  return least / time;
}

void set_dimensions(const std::vector<std::string>& dims, const LoadedModel& loaded, Session& session) {
  std::vector<std::string> problems;
  std::vector<Session::Setting> settings;
  for (const std::string& dim : dims) {
    const size_t equals = dim.find('=');
    int value = 0;
    size_t used = 0;
    try {
      if (equals != dim.npos) value = std::stoi(dim.substr(equals + 1), &used);
    } catch (const std::logic_error&) {
      used = 0;
    }
    if (equals == dim.npos || used == 0 || equals + 1 + used != dim.size()) {
      problems.push_back(fmt::format("--dim {}: is not NAME=N", dim));
      continue;
    }
    settings.push_back({std::string_view(dim).substr(0, equals), value});
    if (session.dimension(settings.back().dimension) >= 0) continue;
    std::string names;
    for (uint32_t i = 0; i < loaded.model().dimension_count(); ++i)
      names += fmt::format("{}'{}'", i == 0 ? "" : ", ", loaded.model().dimension(i).name);
    problems.push_back(fmt::format("--dim {}: the model has no dimension '{}'; it has {}", dim,
                                   settings.back().dimension, names.empty() ? "none" : names));
  }
  if (!problems.empty()) throw Error(Fault::command_line, problems);
  if (settings.empty()) return;
  if (const Status status = session.resize(settings); !status.ok()) {
    char text[512];
    status.describe(text, sizeof text);
    throw Error(Fault::command_line, fmt::format("--dim {}: {}", fmt::join(dims, " --dim "), text));
  }
}

void print_json(const Model& model, const Session& session, const RunOptions& options, const Timing& timing,
                const Roofs& roofs, int64_t macs) {
  Json json;
  json["isa"] = name(options.isa);
  json["threads"] = options.threads;
  json["dimensions"] = Json::object();
  for (uint32_t i = 0; i < model.dimension_count(); ++i)
    json["dimensions"][std::string(model.dimension(i).name)] = session.dimension(model.dimension(i).name);
  json["runs"] = timing.runs;
  json["median_us"] = timing.median * 1e6;
  json["min_us"] = timing.least * 1e6;
  json["macs"] = macs;
  json["gmacs_per_s"] = static_cast<double>(macs) / timing.median * 1e-9;
  json["roof_gmacs_per_s"] = roofs.floats * 1e-9;
  json["roof_i8_gmacs_per_s"] = roofs.i8 * 1e-9;
  json["of_roof"] = share_of_roof(model, session, roofs, timing.median);
  double sum = 0;
  for (double time : timing.operators) sum += time;
  json["operators"] = Json::array();
  for (uint32_t i = 0; i < model.operator_count(); ++i) {
    const OperatorInfo info = model.operator_info(i);
    json["operators"].push_back({{"index", i},
                                 {"name", info.name},
                                 {"type", operator_of(info.kind).name},
                                 {"variant", name(session.variant(i))},
                                 {"macs", session.value(info.macs)},
                                 {"median_us", timing.operators[i] * 1e6},
                                 {"share", sum > 0 ? timing.operators[i] / sum : 0}});
  }
  fmt::print("{}\n", dump(json));
}

void print_text(const LoadedModel& loaded, const Session& session, const RunOptions& options, const Timing& timing,
                const Roofs& roofs, int64_t macs) {
  const Model& model = loaded.model();
  fmt::print("{}  {}, {} thread{}", bold(printable(loaded.path())), name(options.isa), options.threads,
             options.threads > 1 ? "s" : "");
  for (uint32_t i = 0; i < model.dimension_count(); ++i)
    fmt::print(", {} = {}", printable(std::string(model.dimension(i).name)),
               session.dimension(model.dimension(i).name));
  fmt::print(
      "\nmedian {:.2f} us, least {:.2f} us of {} runs; {} MACs, {:.2f} GMAC/s, {:.1f} % of the roof: {:.1f} in float, "
      "{:.1f} in int8\n\n",
      timing.median * 1e6, timing.least * 1e6, timing.runs, grouped(static_cast<uint64_t>(macs)),
      static_cast<double>(macs) / timing.median * 1e-9, 100 * share_of_roof(model, session, roofs, timing.median),
      roofs.floats * 1e-9, roofs.i8 * 1e-9);
  double sum = 0;
  for (double time : timing.operators) sum += time;
  Table table({">#", "operator", "name", "variant", ">us", ">share", ">GMAC/s", ">of roof"});
  for (uint32_t i = 0; i < model.operator_count(); ++i) {
    const OperatorInfo info = model.operator_info(i);
    const double time = timing.operators[i];
    const double rate = time > 0 ? static_cast<double>(session.value(info.macs)) / time : 0;
    table.add({std::to_string(i), operator_of(info.kind).name, std::string(info.name), name(session.variant(i)),
               fmt::format("{:.2f}", time * 1e6), fmt::format("{:.1f} %", sum > 0 ? 100 * time / sum : 0.0),
               rate > 0 ? fmt::format("{:.2f}", rate * 1e-9) : "",
               rate > 0 ? fmt::format("{:.1f} %", 100 * rate / roofs.of(info.kind)) : ""});
  }
  table.add({"", "sum", "", "", fmt::format("{:.2f}", sum * 1e6), "", "", ""});
  table.print();
  fmt::print("  of {:.2f} us for a whole run\n", timing.median * 1e6);
}

}  // namespace

void bench(const BenchCommand& command) {
  const LoadedModel loaded(command.model);
  Runner runner(loaded, command.options);
  set_dimensions(command.dims, loaded, runner.session());
  const Model& model = loaded.model();
  int64_t macs = 0;
  for (uint32_t i = 0; i < model.operator_count(); ++i) macs += runner.session().value(model.operator_info(i).macs);
  const Roofs roofs{measure_roof(roof_variants, command.options.isa, runner.parallel()),
                    measure_roof(roof_i8_variants, command.options.isa, runner.parallel())};
  const Timing timing = measure(loaded, runner.session());
  if (command.json)
    print_json(model, runner.session(), command.options, timing, roofs, macs);
  else
    print_text(loaded, runner.session(), command.options, timing, roofs, macs);
}

}  // namespace heed::tools

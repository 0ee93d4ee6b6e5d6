/// The program `heed`: its command line, and the one place that prints errors.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"
#include "tools/error.h"

namespace heed::tools {
namespace {

int fail(Fault fault, const std::vector<std::string>& problems) {
  for (const std::string& problem : problems) fmt::print(stderr, "heed: {}\n", printable(problem));
  return static_cast<int>(fault);
}

/// Options that later versions honour; whoever gives one is told so.
struct Later {
  std::string selftest;
};

void refuse_later(const CLI::App& verb) {
  static const std::map<std::string, std::string> reasons = {
      {"--selftest", "this version stores no test data in the file; `heed run` prints the hash to compare"},
  };
  std::vector<std::string> problems;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->count() == 0 || option->get_lnames().empty()) continue;
    const std::string given = "--" + option->get_lnames().front();  // get_name() hides what --help hides
    if (const auto reason = reasons.find(given); reason != reasons.end())
      problems.push_back(fmt::format("{} is for a later version: {}", reason->first, reason->second));
  }
  if (!problems.empty()) throw Error(Fault::command_line, problems);
}

/// Checks the name and the machine.
CLI::Option* add_isa(CLI::App* verb, Isa& isa) {
  return verb
      ->add_option_function<std::string>(
          "--isa",
          [&isa](const std::string& text) {
            std::string names;
            for (int i = 0; i < isa_count; ++i) {
              const auto candidate = static_cast<Isa>(i);
              if (text == name(candidate) && available(candidate)) {
                isa = candidate;
                return;
              }
              if (text == name(candidate))
                throw Error(Fault::command_line,
                            fmt::format("--isa {}: this machine or this build lacks it; the best here is {}", text,
                                        name(best_isa())));
              names += (i > 0 ? ", " : "") + std::string(name(candidate));
            }
            throw Error(Fault::command_line,
                        fmt::format("--isa {}: there is no such instruction set; known are {}", text, names));
          },
          "the highest instruction set that may be used")
      ->type_name("NAME");
}

void add_threads(CLI::App* verb, uint32_t& threads) {
  verb->add_option("--threads", threads, "threads, the caller's included")->type_name("N")->check(CLI::Range(1, 256));
}

std::string verbs(const CLI::App& app) {
  std::string names;
  for (const CLI::App* verb : app.get_subcommands({}))
    if (!verb->get_group().empty()) names += (names.empty() ? "" : ", ") + verb->get_name();
  return names;
}

int main(int argc, char** argv) {
  CLI::App app("heed: attention models on edge CPUs", "heed");
  app.require_subcommand(1);
  app.set_version_flag("--version", "heed " HEED_VERSION);
  app.failure_message(CLI::FailureMessage::simple);
  Later later;

  ConvertCommand convert_command;
  CLI::App* verb = app.add_subcommand("convert", "make a .heed file of an ONNX file");
  verb->add_option("model", convert_command.onnx, "the ONNX file")->required()->type_name("model.onnx");
  verb->add_option("-o,--output", convert_command.output, "where to (default: beside the ONNX file)")
      ->type_name("model.heed");
  verb->add_option("--dim", convert_command.dims,
                   "a dimension's range or value: NAME=LO..HI, NAME=N, INPUT:AXIS=LO..HI")
      ->type_name("NAME=LO..HI")
      ->allow_extra_args(false);
  const auto texts = [&](const char* option, std::vector<std::string>& values, const char* what, const char* form) {
    verb->add_option(option, values, what)->type_name(form)->allow_extra_args(false);
  };
  texts("--state", convert_command.states,
        "an output that is an input's next value, 'past.*=present.*'; usual names are found; none: they are not",
        "IN=OUT");
  texts("--set", convert_command.sets, "an input that is a constant", "NAME=VALUE|FILE.npy");
  texts("--limit", convert_command.limits, "what the dimensions satisfy, 'past + tokens <= 512'", "EXPR<=EXPR");
  verb->add_option("--report", convert_command.report, "what was fused, what was not and why, and costs, for programs")
      ->type_name("report.json");
  verb->add_option("--quantize", convert_command.quantize,
                   "none (float), int8: weights and activations of matrix products and attention, or int8-static: "
                   "with activations' scales from data")
      ->check(CLI::IsMember({"none", "int8", "int8-static"}))
      ->type_name("PROFILE");
  verb->add_option("--range", convert_command.range,
                   "of activations: all that occurs, all but 0.01 percent, or that of the smallest squared error")
      ->check(CLI::IsMember({"minmax", "percentile", "mse"}))
      ->type_name("minmax|percentile|mse");
  texts("--keep-float", convert_command.keep_float,
        "a layer that stays in float, by its name or that of an ONNX node in it; * stands for any text", "GLOB");
  verb->add_option("--qdq", convert_command.qdq,
                   "of models quantised already: relax drops what is quantised inside attention, keep keeps it")
      ->check(CLI::IsMember({"relax", "keep"}))
      ->type_name("relax|keep");
  verb->add_option("--calibrate", convert_command.calibrate,
                   "inputs as of `heed run` to fit the int8 layers to; int8-static finds activations' ranges with them")
      ->type_name("data.npz");
  verb->add_option("--error-budget", convert_command.error_budget,
                   "keep layers in float, fewest first, until the worst output's relative error on the data of "
                   "--calibrate is within it")
      ->type_name("X");
  const auto text = [&](const char* option, std::string& value) {
    verb->add_option(option, value, "a later version's")->group("");
  };
  text("--selftest", later.selftest);
  verb->callback([&, verb] {
    refuse_later(*verb);
    convert(convert_command);
  });

  InspectCommand inspect_command;
  verb = app.add_subcommand("inspect", "show what a .heed file holds: memory, operators, fusions, the memory plan");
  verb->add_option("model", inspect_command.model)->required()->type_name("model.heed");
  verb->add_flag("--json", inspect_command.json, "for programs");
  verb->add_flag("--tensors", inspect_command.tensors, "every tensor, too");
  verb->callback([&] { inspect(inspect_command); });

  RunCommand run_command;
  verb = app.add_subcommand("run", "run a model on arrays and print the hash of its outputs");
  verb->add_option("model", run_command.model)->required()->type_name("model.heed");
  verb->add_option("--input", run_command.inputs, "arrays by input name: data.npz, or NAME=FILE.npy for one")
      ->type_name("data.npz")
      ->allow_extra_args(false);
  verb->add_option("--output", run_command.output, "where the outputs go (default: their first values are printed)")
      ->type_name("out.npz");
  add_isa(verb, run_command.options.isa);
  add_threads(verb, run_command.options.threads);
  verb->add_flag("--sequence", run_command.sequence, "carry the state from sample to sample");
  verb->callback([&] { run(run_command); });

  BenchCommand bench_command;
  verb = app.add_subcommand("bench", "time a model, operator by operator, against this machine's roof");
  verb->add_option("model", bench_command.model)->required()->type_name("model.heed");
  verb->add_option("--dim", bench_command.dims, "a dimension's value (default: the file's start point)")
      ->type_name("NAME=N")
      ->allow_extra_args(false);
  add_isa(verb, bench_command.options.isa);
  add_threads(verb, bench_command.options.threads);
  verb->add_flag("--json", bench_command.json, "for programs");
  verb->callback([&] { bench(bench_command); });

  AttentionCommand attention_command;
  verb = app.add_subcommand("attention", "draw the attention weights of each layer and head");
  verb->add_option("model", attention_command.model)->required()->type_name("model.heed");
  verb->add_option("--input", attention_command.inputs, "as of `heed run`")
      ->type_name("data.npz")
      ->allow_extra_args(false);
  verb->add_option("-o,--output", attention_command.output, "the picture")->required()->type_name("map.png");
  verb->add_option("--sample", attention_command.sample, "which sample to draw, from 0")
      ->type_name("N")
      ->check(CLI::Range(0u, UINT32_MAX));
  verb->callback([&] { attention(attention_command); });

  CompareCommand compare_command;
  verb =
      app.add_subcommand("compare", "show what int8 changes, layer by layer, and what each layer would gain in float");
  verb->add_option("onnx", compare_command.onnx, "the ONNX file that the model was made of")
      ->required()
      ->type_name("model.onnx");
  verb->add_option("model", compare_command.model)->required()->type_name("model.heed");
  verb->add_option("--input", compare_command.inputs, "as of `heed run`")
      ->type_name("data.npz")
      ->allow_extra_args(false);
  verb->add_flag("--sequence", compare_command.sequence, "carry the state from sample to sample");
  verb->add_option("--gains", compare_command.gains,
                   "layers to look for the gain of, the worst first; each takes a conversion and a run over the data "
                   "(default: all)")
      ->type_name("N");
  verb->add_flag("--json", compare_command.json, "for programs");
  verb->add_option("-o,--output", compare_command.output, "the same as a page")->type_name("page.html");
  verb->callback([&] { compare(compare_command); });

  verb = app.add_subcommand("selftest", "a later version's")->group("")->allow_extras();
  verb->prefix_command();
  verb->callback([] {
    throw Error(Fault::command_line,
                "selftest is for a later version; `heed run` prints the hash of the outputs, the same on every "
                "machine, and writes them to compare");
  });

  constexpr const char* unwritable = "standard output cannot be written to";
  try {
    const auto known =
        app.get_subcommands([&](const CLI::App* each) { return argc < 2 || each->get_name() == argv[1]; });
    if (argc > 1 && argv[1][0] != '-' && known.empty())
      throw Error(Fault::command_line, fmt::format("{}: there is no such verb; known are {}", argv[1], verbs(app)));
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    return fail(Fault::command_line, {error.what(), "`heed --help` and `heed VERB --help` say more"});
  } catch (const Error& error) {
    return fail(error.fault(), error.problems());
  } catch (const std::bad_alloc&) {
    return fail(Fault::machine, {"out of memory"});
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(Fault::machine, {error.what()});
  } catch (const std::system_error&) {  // of fmt::print
    return fail(Fault::machine, {unwritable});
  } catch (const std::exception& error) {
    return fail(Fault::machine, {fmt::format("unexpected: {}", error.what())});
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail(Fault::machine, {unwritable});
  return 0;
}

}  // namespace
}  // namespace heed::tools

int main(int argc, char** argv) {
  return heed::tools::main(argc, argv);
}

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "tools/cli/data.h"
#include "tools/cli/loaded.h"
#include "tools/cli/terminal.h"
#include "tools/cli/verbs.h"
#include "tools/error.h"
#include "tools/io/npy.h"

namespace heed::tools {
namespace {

/// The first rows of each array and the first values of each row, for a run that writes no file.
void print_outputs(const NamedArrays& arrays) {
  constexpr int64_t shown = 8;
  for (const auto& [name, array] : arrays) {
    fmt::print("{} {} [{}]\n", printable(name), tools::name(array.type), fmt::join(array.dims, ", "));
    const int64_t columns = array.dims.empty() ? 1 : array.dims.back();
    const int64_t rows = columns == 0 ? 0 : array.count() / columns;
    std::vector<std::string> values;
    size_t width = 0;
    for (int64_t i = 0; i < std::min(rows, shown) * columns; ++i) {
      if (i % columns >= shown) continue;
      values.push_back(element_text(array.type, array.data.data() + static_cast<size_t>(i) * size_of(array.type)));
      width = std::max(width, values.back().size());
    }
    const auto in_line = static_cast<size_t>(std::min(columns, shown));
    for (size_t i = 0; i < values.size(); ++i)
      fmt::print("  {:>{}}{}", values[i], width, (i + 1) % in_line ? "" : columns > shown ? "  ...\n" : "\n");
    if (rows > shown) fmt::print("  ... {} rows\n", rows);
  }
}

}  // namespace

void run(const RunCommand& command) {
  if (command.output) check_output("--output", *command.output, files_of(command.model, command.inputs));
  if (command.output && command.output->extension() != ".npz")
    throw Error(Fault::command_line, fmt::format("--output {}: outputs are written as .npz", command.output->string()));
  const LoadedModel loaded(command.model);
  if (command.sequence && loaded.model().state_count() == 0)
    throw Error(Fault::command_line, "--sequence: the model has no state to carry from sample to sample");
  Data data(loaded, command.inputs, command.sequence);
  Runner runner(loaded, command.options);
  Session& session = runner.session();
  Results results(loaded, data);
  {
    Progress progress;
    for (size_t sample = 0; sample < data.samples(); ++sample) {
      if (!command.sequence) session.reset();
      data.feed(sample, session);
      check(session.run(),
            data.at(loaded.path(), sample));
      results.take(sample, session);
      progress.show(fmt::format("sample {} of {}", sample + 1, data.samples()),
                    static_cast<double>(sample + 1) / static_cast<double>(data.samples()));
    }
  }
  data.note_not_finite();
  results.note_not_finite();
  if (command.output)
    write_npz(*command.output, results.arrays());
  else
    print_outputs(results.arrays());
  fmt::print("hash: {}\n", results.hash().hex().text);
}

}  // namespace heed::tools

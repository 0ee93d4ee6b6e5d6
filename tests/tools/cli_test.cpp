/// The program as people run it: exit codes, messages, files, and the JSON that is a contract.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "tests/process.h"
#include "tests/tools/onnx_builder.h"
#include "tools/io/npy.h"

namespace heed::tools {
namespace {

using namespace heed::test;
using nlohmann::json;
namespace fs = std::filesystem;

const fs::path stock = HEED_SOURCE_DIR "/examples/stock_forecast",
               by_hand = HEED_SOURCE_DIR "/examples/attention_by_hand";

/// Runs `heed`.
Outcome heed(const std::vector<std::string>& arguments) {
  const Outcome outcome = run(HEED_BINARY_DIR "/heed", arguments);
  CAPTURE(arguments);
  CAPTURE(outcome.err);
  // Quiet and plain when piped; an error is on standard error and nowhere else.
  CHECK(outcome.out.find('\033') == std::string::npos);
  CHECK(outcome.err.find('\033') == std::string::npos);
  CHECK(outcome.err.find('\r') == std::string::npos);
  CHECK(outcome.code >= 0);
  CHECK(outcome.code <= 3);
  if (outcome.code != 0) CHECK(outcome.err.starts_with("heed: "));
  std::istringstream lines(outcome.err);
  for (std::string line; std::getline(lines, line);) CHECK(line.starts_with("heed: "));
  return outcome;
}

/// A model converted once for all tests.
const std::string& converted(const char* name) {
  static const Folder folder;
  static std::map<std::string, std::string> models;
  std::string& model = models[name];
  if (model.empty()) {
    model = (folder.path / (fs::path(name).stem().string() + ".heed")).string();
    std::vector<std::string> arguments{"convert", HEED_SOURCE_DIR "/examples/" + std::string(name), "-o", model};
    if (has(name, "stock")) arguments.insert(arguments.end(), {"--dim", "batch=1..64"});
    const Outcome outcome = heed(arguments);
    CAPTURE(outcome.err);
    REQUIRE(outcome.code == 0);
  }
  return model;
}
const std::string& transformer() {
  return converted("stock_forecast/transformer.onnx");
}
const std::string& lstm_attention() {
  return converted("stock_forecast/lstm_attention.onnx");
}
const std::string& attention_by_hand() {
  return converted("attention_by_hand/attention_by_hand.onnx");
}
Array floats(std::vector<int64_t> dims, const std::vector<float>& values) {
  Array array{ArrayType::f32, std::move(dims), {}};
  const auto bytes = std::as_bytes(std::span(values));
  array.data.assign(bytes.begin(), bytes.end());
  return array;
}

const Array& find(const NamedArrays& arrays, const std::string& name) {
  for (const auto& [key, array] : arrays)
    if (key == name) return array;
  FAIL("no array " << name);
  return arrays[0].second;
}

/// The inputs of the stock models among what is expected of them.
const std::string& windows() {
  static const Folder folder;
  static std::string file;
  if (file.empty()) {
    file = folder / "windows.npz";
    write_npz(file, {{"window", find(read_npz(stock / "expected.npz"), "window")}});
  }
  return file;
}

template <class T>
std::vector<T> values(const Array& array) {
  std::vector<T> all(static_cast<size_t>(array.count()));
  REQUIRE(all.size() * sizeof(T) == array.data.size());
  std::memcpy(all.data(), array.data.data(), array.data.size());
  return all;
}

std::string hash_of(const Outcome& outcome) {
  const size_t place = outcome.out.rfind("hash: ");
  REQUIRE(place != std::string::npos);
  const std::string line = outcome.out.substr(place + 6);
  REQUIRE(line.size() == 65);
  CHECK(line.find_first_not_of("0123456789abcdef") == 64);
  return line.substr(0, 64);
}

TEST_CASE("the command line") {
  CHECK(heed({"--help"}).code == 0);
  CHECK(has(heed({"--help"}).out, "convert"));
  CHECK(has(heed({"--version"}).out, "heed 0."));
  for (const char* verb : {"convert", "inspect", "run", "bench", "attention", "compare"})
    CHECK(heed({verb, "--help"}).code == 0);
  CHECK(heed({}).code == 2);
  const Outcome no_verb = heed({"transmogrify"});
  CHECK(no_verb.code == 2);
  CHECK(has(no_verb.err,
            "transmogrify: there is no such verb; known are convert, inspect, run, bench, attention, compare\n"));
  CHECK(heed({"inspect"}).code == 2);
  CHECK(heed({"inspect", "--colour", transformer()}).code == 2);
  CHECK(has(heed({"run", transformer()}).err, "input 'window' is missing; given: nothing"));
  CHECK(heed({"run", transformer(), "--input", windows(), "--threads", "0"}).code == 2);
  CHECK(heed({"run", transformer(), "--input", windows(), "--threads", "many"}).code == 2);
  const Outcome later = heed({"selftest", transformer(), "--json"});
  CHECK(later.code == 2);
  CHECK(has(later.err, "later version"));
  const Outcome unknown = heed({"run", transformer(), "--input", windows(), "--isa", "mmx"});
  CHECK(unknown.code == 2);
  CHECK(has(unknown.err, "known are portable, avx2"));
#if defined(__x86_64__)
  const Outcome missing = heed({"bench", transformer(), "--isa", "neon"});
#else
  const Outcome missing = heed({"bench", transformer(), "--isa", "avx2"});
#endif
  CHECK(missing.code == 2);
  CHECK(has(missing.err, "lacks it"));
  const Outcome nowhere = heed({"inspect", "no/such/model.heed"});
  CHECK(nowhere.code == 2);
  CHECK(has(nowhere.err, "no/such/model.heed"));
}

TEST_CASE("no message holds what would steer a terminal") {
  const Outcome outcome = heed({"inspect",
                                "a\x1b[31m\xc2\x9b"
                                "31m\xc2\xb0.heed"});
  CHECK(outcome.code == 2);
  CHECK(has(outcome.err, "a?[31m?31m\xc2\xb0.heed"));  // a degree sign is text
}

TEST_CASE("standard output that cannot be written to is the machine's fault") {
  for (const char* verb : {"inspect", "bench"}) {
    const Folder folder;
    const std::string command = quoted(HEED_BINARY_DIR "/heed") + " " + verb + " " + quoted(transformer()) +
                                " >/dev/full 2>" + quoted(folder / "err");
    const int status = std::system(command.c_str());
    CHECK(WEXITSTATUS(status) == 3);
    CHECK(load(folder / "err") == "heed: standard output cannot be written to\n");
  }
}

TEST_CASE("no file that is read is written, nor one called -") {
  const Folder folder;
  fs::copy(stock / "transformer.onnx", folder / "m.onnx");
  fs::copy(windows(), folder / "d.npz");
  fs::copy(transformer(), folder / "m.heed");
  fs::create_symlink(folder / "m.heed", folder / "link.png");
  const std::string onnx = load(folder / "m.onnx"), data = load(folder / "d.npz"), model = load(folder / "m.heed");
  const std::string again = (folder.path / "." / "d.npz").string();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"convert", folder / "m.onnx", "-o", folder / "m.onnx"},
        {"convert", folder / "m.onnx", "-o", folder / "n.heed", "--quantize", "int8", "--calibrate", folder / "d.npz",
         "--report", again},
        {"convert", folder / "m.onnx", "-o", folder / "n.heed", "--set", "window=" + again, "--report",
         folder / "d.npz"},
        {"run", folder / "m.heed", "--input", folder / "d.npz", "--output", again},
        {"attention", folder / "m.heed", "--input", folder / "d.npz", "-o", folder / "link.png"}}) {
    const Outcome outcome = heed(arguments);
    CHECK(outcome.code == 2);
    CHECK(has(outcome.err, "which would be lost"));
  }
  const std::string same = folder / "same";
  CHECK(has(heed({"convert", folder / "m.onnx", "-o", same, "--report", same}).err, "is where the model goes"));
  CHECK(load(folder / "m.onnx") == onnx);
  CHECK(load(folder / "d.npz") == data);
  CHECK(load(folder / "m.heed") == model);
  CHECK(has(heed({"convert", folder / "m.onnx", "-o", "-"}).err, "-o -: is no file"));
  CHECK(heed({"run", folder / "m.heed", "--input", folder / "d.npz", "--output", "-"}).code == 2);
  CHECK(!fs::exists("-"));
  // A link to a file that is not there yet stays a link.
  fs::create_symlink("new.heed", folder / "later.heed");
  CHECK(heed({"convert", folder / "m.onnx", "-o", folder / "later.heed"}).code == 0);
  CHECK(fs::is_symlink(folder / "later.heed"));
  CHECK(fs::is_regular_file(folder / "new.heed"));
}

TEST_CASE("options of later versions are refused, each with what is possible now") {
  const std::string onnx = (stock / "transformer.onnx").string();
  const Folder folder;
  const std::vector<std::vector<std::string>> later = {{"--selftest", windows()}};
  for (const auto& option : later) {
    const Outcome outcome = heed({"convert", onnx, "-o", folder / "m.heed", option[0], option[1]});
    CHECK(outcome.code == 2);
    CHECK(has(outcome.err, option[0]));
    CHECK(has(outcome.err, "later version: "));
  }
  CHECK(heed({"convert", onnx, "-o", folder / "m.heed", "--quantize", "fp3"}).code == 2);
  CHECK(folder.files() == 0);
  CHECK(heed({"convert", onnx, "-o", folder / "m.heed", "--quantize", "none"}).code == 0);
  CHECK(folder.files() == 1);
  const Outcome small = heed({"convert", onnx, "-o", folder / "8.heed", "--quantize", "int8", "--dim", "batch=1..1"});
  CHECK(small.code == 0);
  CHECK(has(small.out, "0 of 252544 multiply-accumulates are in int8: hardly faster than in float"));
  const Outcome int8 = heed({"convert", onnx, "-o", folder / "8.heed", "--quantize", "int8", "--dim", "batch=1..64"});
  CHECK(int8.code == 0);
  CHECK(has(int8.out, "int8 matmul"));
  CHECK(has(int8.out, " of them in int8"));
  CHECK(!has(int8.out, "hardly faster"));
  CHECK(has(int8.out, "too small to gain from int8"));  // its attention, of five tokens
}

TEST_CASE("convert says what it did and writes beside the model") {
  const Folder folder;
  fs::copy(stock / "transformer.onnx", folder.path);
  const Outcome outcome = heed({"convert", folder / "transformer.onnx", "--dim", "batch=1..64"});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  for (const char* part :
       {"transformer.heed", "operators ", "fused", "attention", "workspace", "lower bound", "multiply-accumulates"})
    CHECK_MESSAGE(has(outcome.out, part), part);
  CHECK(folder.files() == 2);
  CHECK(load(folder / "transformer.heed") == load(transformer()));
}

TEST_CASE("int8-static finds ranges in data, and asks for data") {
  const std::string onnx = (stock / "transformer.onnx").string();
  const Folder folder;
  const std::string model = folder / "m.heed";
  const Outcome none = heed({"convert", onnx, "-o", model, "--quantize", "int8-static"});
  CHECK(none.code == 2);
  CHECK(has(none.err, "needs --calibrate"));
  const Outcome needless = heed({"convert", onnx, "-o", model, "--quantize", "int8", "--range", "mse"});
  CHECK(needless.code == 2);
  CHECK(has(needless.err, "--range is for --quantize int8-static"));
  const Outcome budget = heed(
      {"convert", onnx, "-o", model, "--quantize", "int8-static", "--calibrate", windows(), "--error-budget", "0.1"});
  CHECK(budget.code == 2);
  CHECK(has(budget.err, "--error-budget is for --quantize int8"));
  std::set<std::string> hashes;
  for (const char* range : {"minmax", "percentile", "mse"}) {
    const Outcome converted = heed({"convert", onnx, "-o", model, "--dim", "batch=1..64", "--quantize", "int8-static",
                                    "--calibrate", windows(), "--range", range});
    REQUIRE_MESSAGE(converted.code == 0, converted.err);
    const Outcome portable = heed({"run", model, "--input", windows(), "--isa", "portable"}),
                  best = heed({"run", model, "--input", windows()});
    CHECK(portable.out == best.out);
    hashes.insert(best.out.substr(best.out.find("hash: ")));
  }
  CHECK(hashes.size() == 3);
  CHECK(heed({"convert", onnx, "-o", model, "--quantize", "int8-static", "--calibrate", windows(), "--range", "most"})
            .code == 2);
}

TEST_CASE("the report is JSON with all that convert knows") {
  const Folder folder;
  const std::string onnx = (stock / "transformer.onnx").string(), model = folder / "m.heed", path = folder / "r.json";
  const Outcome outcome = heed({"convert", onnx, "-o", model, "--dim", "batch=1..64", "--report", path});
  REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
  CHECK(folder.files() == 2);
  const json report = json::parse(load(path)), inspected = json::parse(heed({"inspect", model, "--json"}).out);
  CHECK(report["version"] == 1);
  CHECK(report["source"] == onnx);
  CHECK(report["model"] == model);
  CHECK(report["options"] ==
        json::parse(
            R"({"dim": ["batch=1..64"], "state": [], "set": [], "limit": [], "quantize": "none", "keep_float": [],
                "calibrate": null, "range": "minmax", "error_budget": null, "qdq": "relax"})"));
  CHECK(report["seconds"] > 0);
  CHECK(report["peak_memory"] > fs::file_size(model));
  CHECK(report["memory"]["file"] == fs::file_size(model));
  CHECK(report["onnx_operators"]["LayerNormalization"] == 5);
  CHECK(report["heed_operators"]["normalize"] == 5);
  CHECK(report["attentions"] == 2);
  CHECK(report["missed"].empty());
  CHECK(report["made_one"].empty());
  CHECK(report["notes"].empty());
  // What the file knows is as `inspect` says it; operators name their ONNX nodes, too.
  for (const auto& item : inspected.items())
    if (item.key() != "operators") CHECK_MESSAGE(report[item.key()] == item.value(), item.key());
  std::map<std::string, int> kinds, concepts;
  for (size_t i = 0; i < report["operators"].size(); ++i) {
    json op = report["operators"][i];
    ++kinds[op["type"]];
    CHECK(op["nodes"].is_array());
    op.erase("nodes");
    CHECK(op == inspected["operators"][i]);
  }
  CHECK(report["operators"].size() == inspected["operators"].size());
  CHECK(report["heed_operators"] == json(kinds));
  for (const json& fused : report["fused"]) {
    ++concepts[fused["concept"]];
    CHECK(fused["nodes"].size() >= 1);
    CHECK(fused["largest_error"] < 2e-5);
    const json& op = report["operators"][fused["operator"].get<size_t>()];
    CHECK(std::find(op["nodes"].begin(), op["nodes"].end(), fused["node"]) != op["nodes"].end());
    if (fused["concept"] == "attention") CHECK(op["type"] == "attention");
    if (fused["concept"] == "matmul epilogue") CHECK(op["type"] == "matmul");
  }
  CHECK(report["fusions"] == json(concepts));
  // The report takes nobody's place, and is whole or not there.
  CHECK(heed({"convert", onnx, "-o", model, "--dim", "batch=1..64", "--report", onnx}).code == 2);
  CHECK(heed({"convert", onnx, "-o", model, "--dim", "batch=1..64", "--report", model}).code == 2);
  CHECK(heed({"convert", onnx, "-o", model, "--dim", "batch=1..64", "--report", folder / "no/r.json"}).code == 3);
  CHECK(json::parse(load(path)) == report);
  CHECK(folder.files() == 2);
}

TEST_CASE("the report names what differs, dimensions that were made one, states that are copied") {
  using test::DataType;
  const Folder folder;
  test::OnnxBuilder b;
  b.input("x", DataType::f32, {"tokens", 16}).input("y", DataType::f32, {"words", 16});
  b.input("h_in", DataType::f32, {16}).input("gain", DataType::f32, {1});
  b.initializer<float>("epsilon", {}, {1e-6f}).initializer<int64_t>("last", {1}, {-1});
  b.node("Add", {"x", "y"}, {"z"}, {}, "/residual/Add");
  b.node("ReduceMean", {"z", "last"}, {"mean"}, {}, "/norm/ReduceMean")
      .node("Sub", {"z", "mean"}, {"d"}, {}, "/norm/Sub");
  b.node("Mul", {"d", "d"}, {"square"}, {}, "/norm/Mul");
  b.node("ReduceMean", {"square", "last"}, {"variance"}, {}, "/norm/ReduceMean_1");
  b.node("Sqrt", {"variance"}, {"deviation"}, {}, "/norm/Sqrt");
  b.node("Add", {"deviation", "epsilon"}, {"below"}, {}, "/norm/Add");
  b.node("Div", {"d", "below"}, {"normal"}, {}, "/norm/Div");
  b.node("Mul", {"normal", "gain"}, {"louder"}).node("Add", {"louder", "h_in"}, {"out"}).output("out");
  // The next state is written before the old one is read for the last time.
  b.initializer<int64_t>("first", {1}, {0}).node("ReduceMean", {"out", "first"}, {"h_out"}, {{"keepdims", int64_t{0}}});
  b.node("Add", {"h_out", "h_in"}, {"both"}).output("h_out").output("both");
  std::ofstream(folder / "m.onnx", std::ios::binary) << b.bytes();
  const Outcome outcome = heed({"convert", folder / "m.onnx", "--dim", "tokens=1..8", "--dim", "words=2..16", "--set",
                                "gain=2", "--limit", "tokens<=6", "--report", folder / "r.json"});
  REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
  const json report = json::parse(load(folder / "r.json"));
  CHECK(report["options"]["set"] == json::parse(R"(["gain=2"])"));
  CHECK(report["made_one"].size() == 1);
  REQUIRE(report["dimensions"].size() == 1);
  const std::string kept = report["dimensions"][0]["name"], gone = kept == "tokens" ? "words" : "tokens";
  CHECK(report["made_one"][gone] == kept);
  CHECK(report["dimensions"][0]["lower"] == 2);
  CHECK(report["states"][0]["name"] == "h_in");
  CHECK(report["states"][0]["copied"] == true);
  REQUIRE(report["missed"].size() == 1);
  const json expected = {
      {"concept", "layer_norm"},
      {"node", "/norm/Add"},
      {"found", "an addition of shape [" + kept + ", 1], an epsilon behind the square root"},
      {"expected", "the epsilon under it: sqrt(variance + epsilon)"},
      {"advice", "use the framework's own normalisation layer"},
      {"nodes", {"/norm/ReduceMean", "/norm/Sub", "/norm/Mul", "/norm/ReduceMean_1", "/norm/Sqrt", "/norm/Add"}}};
  CHECK(report["missed"][0] == expected);
  for (const char* part : {"are one dimension, '", "state 'h_in' is copied at the end of a run",
                           "not fused: layer_norm  /norm/ReduceMean .. Add\n  differs at  /norm/Add\n"})
    CHECK_MESSAGE(has(outcome.out, part), outcome.out);
}

TEST_CASE("convert leaves what was there when it fails") {
  const Folder folder;
  std::ofstream(folder / "model.heed") << "precious";
  const std::string whole = load(stock / "transformer.onnx");
  for (const size_t size : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 1}) {
    std::ofstream(folder / "model.onnx", std::ios::binary) << whole.substr(0, size);
    const Outcome outcome = heed({"convert", folder / "model.onnx"});
    CHECK(outcome.code == 1);
    CHECK(has(outcome.err, "model.onnx"));
  }
  CHECK(load(folder / "model.heed") == "precious");
  CHECK(folder.files() == 2);
  CHECK(heed({"convert", folder / "none.onnx"}).code == 2);
  CHECK(heed({"convert", (stock / "transformer.onnx").string(), "-o", folder / "no/folder/m.heed"}).code == 3);
  CHECK(heed({"convert", (stock / "transformer.onnx").string(), "-o", folder.path.string()}).code == 3);
  const Outcome dim =
      heed({"convert", (stock / "transformer.onnx").string(), "-o", folder / "x.heed", "--dim", "tokens=1..4"});
  CHECK(dim.code != 0);
  CHECK(has(dim.err, "tokens"));
  CHECK(folder.files() == 2);
}

TEST_CASE("run computes what was expected, with one hash for every instruction set and number of threads") {
  const Folder folder;
  const NamedArrays expected = read_npz(stock / "expected.npz");
  for (const char* name : {"transformer", "lstm_attention"}) {
    const std::string model = converted(("stock_forecast/" + std::string(name) + ".onnx").c_str());
    const Outcome outcome = heed({"run", model, "--input", windows(), "--output", folder / "out.npz"});
    REQUIRE(outcome.code == 0);
    CHECK(outcome.out == "hash: " + hash_of(outcome) + "\n");
    const NamedArrays arrays = read_npz(folder / "out.npz");
    REQUIRE(arrays.size() == 1);
    CHECK(arrays[0].first == "forecast");
    CHECK(arrays[0].second.type == ArrayType::f32);
    CHECK(arrays[0].second.dims == std::vector<int64_t>{64, 1});
    const std::vector<float> got = values<float>(arrays[0].second);
    const std::vector<double> want = values<double>(find(expected, name));
    for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(got[i] - want[i]) < 1e-4 * std::abs(want[i]));
    for (const std::vector<std::string>& options :
         {std::vector<std::string>{"--isa", "portable"}, std::vector<std::string>{"--threads", "3"}}) {
      std::vector<std::string> arguments{"run", model, "--input", windows()};
      arguments.insert(arguments.end(), options.begin(), options.end());
      CHECK(hash_of(heed(arguments)) == hash_of(outcome));
    }
  }
}

TEST_CASE("samples: stacked, numbered, from .npy") {
  const Folder folder;
  const Array window = find(read_npz(windows()), "window");
  const std::string hash = hash_of(heed({"run", transformer(), "--input", windows()}));
  const std::string out = folder / "out.npz";

  write_npy(folder / "w.npy", window);
  CHECK(hash_of(heed({"run", transformer(), "--input", "window=" + (folder / "w.npy")})) == hash);

  // 64 samples of one window are the same bytes as one sample of 64 windows.
  Array stacked = window;
  stacked.dims = {64, 1, 5};
  write_npz(folder / "s.npz", {{"window", stacked}});
  CHECK(hash_of(heed({"run", transformer(), "--input", folder / "s.npz", "--output", out})) == hash);
  CHECK(find(read_npz(out), "forecast").dims == std::vector<int64_t>{64, 1, 1});

  NamedArrays numbered;
  const size_t row = 5 * sizeof(float);
  for (size_t i = 0, first = 0; first < 64; ++i) {
    const size_t count = std::min<size_t>(i + 1, 64 - first);
    Array piece{ArrayType::f32, {static_cast<int64_t>(count), 5}, {}};
    piece.data.assign(window.data.begin() + static_cast<ptrdiff_t>(first * row),
                      window.data.begin() + static_cast<ptrdiff_t>((first + count) * row));
    numbered.emplace_back("window/" + std::to_string(i), piece);
    first += count;
  }
  write_npz(folder / "n.npz", numbered);
  CHECK(hash_of(heed({"run", transformer(), "--input", folder / "n.npz", "--output", out})) == hash);
  const NamedArrays results = read_npz(out);
  CHECK(results.size() == numbered.size());
  CHECK(find(results, "forecast/2").dims == std::vector<int64_t>{3, 1});

  numbered.erase(numbered.begin() + 1);
  write_npz(folder / "n.npz", numbered);
  const Outcome gap = heed({"run", transformer(), "--input", folder / "n.npz"});
  CHECK(gap.code == 1);
  CHECK(has(gap.err, "goes up to window/"));
}

TEST_CASE("inputs that do not fit are refused with both values, all at once") {
  const Folder folder;
  const std::string data = folder / "d.npz";
  const auto refused = [&](const std::string& model, const NamedArrays& arrays) {
    write_npz(data, arrays);
    const Outcome outcome = heed({"run", model, "--input", data, "--output", folder / "out.npz"});
    CHECK(outcome.code == 1);
    CHECK(!fs::exists(folder / "out.npz"));
    return outcome.err;
  };
  const Array query = floats({5, 8}, std::vector<float>(40, 0.5f));
  std::string err = refused(attention_by_hand(), {{"quarry", query}});
  CHECK(has(err, "inputs 'query', 'key', 'value' are missing; given: 'quarry'"));
  err = refused(attention_by_hand(), {{"query", query}, {"key", query}, {"value", floats({4}, {1, 2, 3, 4})}});
  CHECK(has(err, "input 'value'"));
  CHECK(has(err, "the shape [4]"));
  CHECK(has(err, "[4, 8]"));
  err = refused(attention_by_hand(), {{"query", query}, {"key", query}, {"value", query}});
  CHECK(has(err, "input 'key' has the shape [5, 8], the model takes [4, 8]: axis 0 is 5, not 4"));
  CHECK(has(err, "input 'value'"));
  err = refused(transformer(), {{"window", floats({3, 6}, std::vector<float>(18))}});
  CHECK(has(err, "[3, 6], the model takes [batch, 5]: axis 1 is 6, not 5"));
  err = refused(transformer(), {{"window", floats({65, 5}, std::vector<float>(325))}});
  CHECK(has(err, "axis 0 is 65, 'batch' may be 1 to 64"));
  err = refused(transformer(), {{"window", floats({0, 1, 5}, {})}});
  CHECK(has(err, "no samples"));
  Array integers = floats({1, 5}, std::vector<float>(5));
  integers.type = ArrayType::i32;
  err = refused(transformer(), {{"window", integers}});
  CHECK(has(err, "is int32, the model takes float32"));

  write_npy(folder / "w.npy", floats({1, 5}, {1, 2, 3, 4, 5}));
  const Outcome unknown = heed({"run", transformer(), "--input", "windows=" + (folder / "w.npy")});
  CHECK(unknown.code == 1);
  CHECK(has(unknown.err, "the model has no input 'windows'; it has 'window'"));
  const Array window = floats({1, 5}, {1, 2, 3, 4, 5});
  err = refused(transformer(), {{"window", window}, {"widow", window}, {"y", window}});
  CHECK(has(err, "the model has no input 'widow', 'y'; it has 'window'"));
  const Outcome stateless = heed({"run", transformer(), "--input", windows(), "--sequence"});
  CHECK(stateless.code == 2);
  CHECK(has(stateless.err, "the model has no state"));
  CHECK(heed({"run", transformer(), "--input", folder / "w.npy"}).code == 2);
  CHECK(
      heed({"run", transformer(), "--input", "window=" + (folder / "w.npy"), "--input", "window=" + (folder / "w.npy")})
          .code == 2);
  CHECK(heed({"run", transformer(), "--input", folder / "none.npz"}).code == 2);
  CHECK(heed({"run", transformer(), "--input", windows(), "--output", folder / "out.txt"}).code == 2);
  CHECK(heed({"run", transformer(), "--input", windows(), "--output", folder / "no/out.npz"}).code == 3);
  std::ofstream(data) << "not an archive";
  CHECK(heed({"run", transformer(), "--input", data}).code == 1);
}

/// Looks ids up in a table of 7 rows, and hands inputs of other types through.
std::string types_model(const Folder& folder) {
  using test::DataType;
  std::vector<float> table(28);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i);
  const std::string bytes = test::OnnxBuilder()
                                .input("ids", DataType::i64, {"tokens"})
                                .input("half", DataType::f16, {"tokens", 2})
                                .input("wide", DataType::f64, {"tokens + 1"})
                                .input("keep", DataType::boolean, {"tokens"})
                                .initializer<float>("table", {7, 4}, table)
                                .node("Gather", {"table", "ids"}, {"rows"})
                                .node("Add", {"ids", "ids"}, {"twice"})
                                .node("Neg", {"half"}, {"minus"})
                                .node("Neg", {"wide"}, {"negated"})
                                .node("Not", {"keep"}, {"drop"})
                                .output("rows")
                                .output("twice", DataType::i64)
                                .output("minus", DataType::f16)
                                .output("negated", DataType::f64)
                                .output("drop", DataType::boolean)
                                .bytes();
  std::ofstream(folder / "types.onnx", std::ios::binary) << bytes;
  const Outcome outcome = heed({"convert", folder / "types.onnx", "--dim", "tokens=1..16"});
  CAPTURE(outcome.err);
  REQUIRE(outcome.code == 0);
  return folder / "types.heed";
}

template <class T>
Array array(ArrayType type, std::vector<int64_t> dims, const std::vector<T>& elements) {
  Array made{type, std::move(dims), {}};
  const auto bytes = std::as_bytes(std::span(elements));
  made.data.assign(bytes.begin(), bytes.end());
  return made;
}

TEST_CASE("arrays have the model's own types; sizes are unified; indices are checked") {
  const Folder folder;
  const std::string model = types_model(folder), data = folder / "d.npz", out = folder / "out.npz";
  NamedArrays arrays{
      {"ids", array<int64_t>(ArrayType::i64, {3}, {0, 6, -7})},
      // 1, -2, 65504, 2^-24, 2^-14, infinity
      {"half", array<uint16_t>(ArrayType::f16, {3, 2}, {0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x7c00})},
      {"wide", array<double>(ArrayType::f64, {4}, {0.5, -1, 1e10, 0})},
      {"keep", array<uint8_t>(ArrayType::boolean, {3}, {1, 0, 1})}};
  const auto attempt = [&] {
    write_npz(data, arrays);
    return heed({"run", model, "--input", data, "--output", out});
  };
  Outcome outcome = attempt();
  CAPTURE(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK(has(outcome.err, "input 'half' is not finite: inf at [2, 1]\n"));
  CHECK(has(outcome.err, "output 'minus' is not finite: -inf at [2, 1]\n"));
  const NamedArrays results = read_npz(out);
  CHECK(find(results, "rows").dims == std::vector<int64_t>{3, 4});
  CHECK(values<float>(find(results, "rows")) == std::vector<float>{0, 1, 2, 3, 24, 25, 26, 27, 0, 1, 2, 3});
  CHECK(find(results, "twice").type == ArrayType::i64);
  CHECK(values<int64_t>(find(results, "twice")) == std::vector<int64_t>{0, 12, -14});
  CHECK(find(results, "minus").type == ArrayType::f16);
  CHECK(values<uint16_t>(find(results, "minus")) ==
        std::vector<uint16_t>{0xbc00, 0x4000, 0xfbff, 0x8001, 0x8400, 0xfc00});
  CHECK(find(results, "negated").type == ArrayType::f64);
  CHECK(values<double>(find(results, "negated"))[2] == -1e10f);
  CHECK(values<uint8_t>(find(results, "drop")) == std::vector<uint8_t>{0, 1, 0});

  const json page = json::parse(heed({"inspect", model, "--json"}).out);
  CHECK(page["inputs"][0] ==
        json::parse(R"({"name": "ids", "dtype": "int64", "device_dtype": "int32", "shape": ["tokens"]})"));
  CHECK(page["inputs"][1]["dtype"] == "float16");
  CHECK(page["inputs"][1]["device_dtype"] == "float32");

  // A size that is an expression is solved for the dimension, compared where it is known.
  const Array wide = arrays[2].second;
  arrays[2].second = array<double>(ArrayType::f64, {3}, {1, 2, 3});
  outcome = attempt();
  CHECK(outcome.code == 1);
  CHECK(has(outcome.err,
            "input 'wide' has the shape [3], the model takes [tokens + 1]: axis 0 is 3, not tokens + 1 = 4"));
  arrays[2].second = wide;
  arrays[3].second = array<uint8_t>(ArrayType::boolean, {2}, {1, 0});
  outcome = attempt();
  CHECK(outcome.code == 1);
  CHECK(has(outcome.err, "axis 0 is 2, 'tokens' is 3 by input 'ids'"));
  arrays[3].second = array<uint8_t>(ArrayType::boolean, {3}, {1, 0, 1});

  arrays[0].second = array<int64_t>(ArrayType::i64, {3}, {0, 7, 0});
  outcome = attempt();
  CHECK(outcome.code == 1);
  CHECK(has(outcome.err, "index out of range"));
  CHECK(has(outcome.err, "7"));
  arrays[0].second = array<int64_t>(ArrayType::i64, {3}, {0, 3000000000, 0});
  outcome = attempt();
  CHECK(outcome.code == 1);
  CHECK(has(outcome.err, "input 'ids': 3000000000 at [1] does not fit the device's int32"));
  CHECK(heed({"bench", model, "--json"}).code == 0);  // random ids lie inside the table
}

TEST_CASE("every unsupported operator is named at once") {
  const Folder folder;
  std::ofstream(folder / "m.onnx", std::ios::binary) << test::OnnxBuilder()
                                                            .input("x", test::DataType::f32, {2, 3})
                                                            .node("Frobnicate", {"x"}, {"a"}, {}, "first")
                                                            .node("Transmogrify", {"a"}, {"y"}, {}, "second")
                                                            .output("y")
                                                            .bytes();
  const Outcome outcome = heed({"convert", folder / "m.onnx"});
  CHECK(outcome.code == 1);
  CHECK(has(outcome.err, "Frobnicate"));
  CHECK(has(outcome.err, "Transmogrify"));
  CHECK(folder.files() == 1);
}

TEST_CASE("messages of convert name what is wrong in the model's own words") {
  using test::DataType;
  const Folder folder;
  const auto told = [&](const std::string& bytes, std::vector<std::string> options = {}) {
    std::ofstream(folder / "m.onnx", std::ios::binary) << bytes;
    options.insert(options.begin(), {"convert", folder / "m.onnx"});
    const Outcome outcome = heed(options);
    return outcome.out + outcome.err;
  };
  CHECK(has(told("#!/usr/bin/env python3\nimport onnx\n"), "is damaged, or not an ONNX file"));
  CHECK(has(told(test::OnnxBuilder()
                     .input("x", DataType::f32, {2, 3})
                     .initializer<int64_t>("b", {3}, {1, 2, 3})
                     .node("Add", {"x", "b"}, {"y"}, {}, "add")
                     .output("y")
                     .bytes()),
            "operands of types float32 and int64"));
  CHECK(has(told(test::OnnxBuilder()
                     .input("x", DataType::f32, {"rows", 3})
                     .node("Relu", {"x"}, {"y"})
                     .output("y", DataType::f32, test::Axes{"rows", 4})
                     .bytes(),
                 {"--dim", "rows=1..4"}),
            "output 'y' is declared as [rows, 4], the graph computes [rows, 3]"));
  const std::string open =
      test::OnnxBuilder().input("x", DataType::f32, {"rows", "columns"}).node("Relu", {"x"}, {"y"}).output("y").bytes();
  CHECK(has(told(open, {"--dim", "rows=1..4"}),
            "with your own numbers: heed convert " + (folder / "m.onnx") + " --dim rows=1..4 --dim columns=1..128\n"));
  const std::string square = test::OnnxBuilder()
                                 .input("x", DataType::f32, {"rows", 1})
                                 .input("y", DataType::f32, {1, "columns"})
                                 .node("Less", {"x", "y"}, {"mask"}, {}, "less")
                                 .output("mask", DataType::boolean)
                                 .bytes();
  CHECK(
      has(told(square, {"--dim", "rows=1..40000", "--dim", "columns=1..40000"}),
          "takes up to 1600000000 elements, 1073741824 are possible: 'columns' is up to 40000 and may be up to 26843"));
  CHECK(told(open, {"--dim", "rows=0", "--dim", "columns=0..3"}).find("internal error") == std::string::npos);
}

TEST_CASE("a model without inputs runs") {
  const Folder folder;
  std::ofstream(folder / "m.onnx", std::ios::binary)
      << test::OnnxBuilder().initializer<float>("c", {2}, {1, 2}).node("Neg", {"c"}, {"y"}).output("y").bytes();
  REQUIRE(heed({"convert", folder / "m.onnx"}).code == 0);
  const Outcome outcome = heed({"run", folder / "m.heed"});
  CHECK(outcome.code == 0);
  CHECK(has(outcome.out, "-1"));
}

TEST_CASE("NaN and infinities are data, and are pointed at") {
  const Folder folder;
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  write_npz(folder / "d.npz", {{"window", floats({3, 5}, {1, 2, 3, 4, 5, 1, 2, nan, 4, inf, 5, 4, 3, 2, 1})}});
  const Outcome outcome = heed({"run", transformer(), "--input", folder / "d.npz", "--output", folder / "out.npz"});
  CHECK(outcome.code == 0);
  hash_of(outcome);
  CHECK(has(outcome.err, "input 'window' is not finite: nan at [1, 2], and at 1 more"));
  CHECK(has(outcome.err, "output 'forecast' is not finite: nan at [1, 0]"));
  const std::vector<float> forecast = values<float>(find(read_npz(folder / "out.npz"), "forecast"));
  CHECK(std::isfinite(forecast[0]));
  CHECK(std::isnan(forecast[1]));
  CHECK(std::isfinite(forecast[2]));
  const Outcome drawn = heed({"attention", transformer(), "--input", folder / "d.npz", "-o", folder / "map.png"});
  CHECK(drawn.code == 0);
  CHECK(drawn.err == outcome.err);
}

TEST_CASE("state goes on from sample to sample with --sequence, and inspect shows it") {
  const Folder folder;
  test::OnnxBuilder b;
  b.input("x", test::DataType::f32, {2}).input("h_in", test::DataType::f32, {2});
  b.input("past_x", test::DataType::f32, {"past", 2}).input("mask", test::DataType::f32, {"past + 1"});
  b.output("y").output("h_out").output("present_x").output("sum").initializer<int64_t>("first", {1}, {0});
  b.node("Add", {"x", "h_in"}, {"y"}).node("Identity", {"y"}, {"h_out"});
  b.node("Unsqueeze", {"x", "first"}, {"row"}).node("Unsqueeze", {"mask", "last"}, {"column"});
  b.initializer<int64_t>("last", {1}, {1}).node("Concat", {"past_x", "row"}, {"present_x"}, {{"axis", int64_t{0}}});
  b.node("Mul", {"present_x", "column"}, {"kept"}).node("ReduceSum", {"kept", "first"}, {"sum"});
  std::ofstream(folder / "m.onnx", std::ios::binary) << b.bytes();
  const std::string model = folder / "m.heed";
  const Outcome done = heed({"convert", folder / "m.onnx", "-o", model, "--dim", "past=0..2"});
  REQUIRE_MESSAGE(done.code == 0, done.err);
  CHECK(has(done.out, "'past' is the position, no dimension; there is room for 3"));

  const json page = json::parse(heed({"inspect", model, "--json"}).out);
  CHECK(page["memory"]["state"] == 128);
  CHECK(page["inputs"].size() == 2);
  CHECK(page["inputs"][1]["shape"] == json::parse(R"(["past + 1"])"));
  CHECK(page["states"][1] ==
        json::parse(R"({"name": "h_in", "dtype": "float32", "shape": [2], "output": "h_out", "bytes": 64})"));
  CHECK(page["states"][0]["shape"] == json::parse(R"(["past", 2])"));
  CHECK(page["position"] == json::parse(R"({"name": "past", "lower": 0, "upper": 2, "capacity": 3, "step": "1"})"));
  CHECK(has(heed({"inspect", model}).out, "'past' is the position: from 0, a run adds 1, room for 3"));
  CHECK(heed({"bench", model, "--json"}).code == 0);

  const auto floats = [](std::vector<int64_t> dims, const std::vector<float>& values) {
    Array array{ArrayType::f32, std::move(dims), std::vector<std::byte>(values.size() * 4)};
    std::memcpy(array.data.data(), values.data(), array.data.size());
    return array;
  };
  const auto output = [&](const std::string& name) {  // of all samples
    std::vector<float> all;
    for (const auto& [key, array] : read_npz(folder / "out.npz")) {
      const auto* values = reinterpret_cast<const float*>(array.data.data());
      if (key.starts_with(name + "/")) all.insert(all.end(), values, values + array.count());
    }
    return all;
  };
  NamedArrays samples{{"x", floats({3, 2}, {1, 2, 3, 4, 5, 6})}};
  for (int64_t i = 0; i < 3; ++i)
    samples.emplace_back("mask/" + std::to_string(i),
                         floats({i + 1}, std::vector<float>(static_cast<size_t>(i) + 1, 1)));
  samples[0] = {"x/0", floats({2}, {1, 2})};
  samples.emplace_back("x/1", floats({2}, {3, 4}));
  samples.emplace_back("x/2", floats({2}, {5, 6}));
  write_npz(folder / "data.npz", samples);
  const Outcome carried =
      heed({"run", model, "--input", folder / "data.npz", "--output", folder / "out.npz", "--sequence"});
  REQUIRE_MESSAGE(carried.code == 0, carried.err);
  CHECK(output("y") == std::vector<float>{1, 2, 4, 6, 9, 12});
  CHECK(output("sum") == std::vector<float>{1, 2, 4, 6, 9, 12});

  // Without --sequence each sample starts anew, and its mask is of one row.
  const Outcome apart = heed({"run", model, "--input", folder / "data.npz", "--output", folder / "out.npz"});
  CHECK(apart.code == 1);
  CHECK(has(apart.err,
            "input 'mask', sample 1, has the shape [2], the model takes [past + 1]: axis 0 is 2, not past + 1 = 1"));

  // A state is not given from outside.
  NamedArrays given = samples;
  given.emplace_back("h_in/0", floats({2}, {1, 1}));
  write_npz(folder / "data.npz", given);
  const Outcome outside = heed({"run", model, "--input", folder / "data.npz", "--sequence"});
  CHECK(outside.code == 1);
  CHECK(has(outside.err, "'h_in/0' cannot be given"));
  CHECK(has(outside.err, "its inputs are 'x', 'mask'"));

  // A fourth run finds the state full.
  samples.emplace_back("x/3", floats({2}, {7, 8}));
  samples.emplace_back("mask/3", floats({4}, {1, 1, 1, 1}));
  write_npz(folder / "data.npz", samples);
  const Outcome full = heed({"run", model, "--input", folder / "data.npz", "--sequence"});
  CHECK(full.code == 1);
  CHECK(has(full.err, "state full"));
}

TEST_CASE("inspect --json keeps its contract") {
  for (const std::string& model : {transformer(), lstm_attention(), attention_by_hand()}) {
    const Outcome outcome = heed({"inspect", model, "--json"});
    REQUIRE(outcome.code == 0);
    CHECK(outcome.err.empty());
    const json page = json::parse(outcome.out);
    const json& memory = page.at("memory");
    for (const char* key : {"constants", "state", "workspace", "tables", "total", "lower_bound", "per_thread"})
      CHECK(memory.at(key).is_number_unsigned());
    CHECK(memory["total"] ==
          memory["state"].get<uint64_t>() + memory["workspace"].get<uint64_t>() + memory["tables"].get<uint64_t>());
    CHECK(memory["lower_bound"] <= memory["workspace"]);
    CHECK(page.at("hash").get<std::string>().size() == 64);
    uint64_t macs = 0;
    for (size_t i = 0; i < page.at("operators").size(); ++i) {
      const json& op = page["operators"][i];
      CHECK(op.at("index") == i);
      for (const char* key : {"type", "name", "dtype"}) CHECK(op.at(key).is_string());
      macs += op.at("macs").get<uint64_t>();
    }
    CHECK(page.at("macs") == macs);
    CHECK(macs > 0);
    for (const auto& [concept_name, count] : page.at("fusions").items()) CHECK(count.is_number_unsigned());
    for (const char* side : {"inputs", "outputs"})
      for (const json& port : page.at(side))
        for (const char* key : {"name", "dtype", "device_dtype", "shape"}) CHECK(port.contains(key));
  }
  const json page = json::parse(heed({"inspect", transformer(), "--json"}).out);
  CHECK(page["inputs"] ==
        json::parse(R"([{"name": "window", "dtype": "float32", "device_dtype": "float32", "shape": ["batch", 5]}])"));
  CHECK(page["outputs"][0]["shape"] == json::parse(R"(["batch", 1])"));
  CHECK(page["fusions"]["attention"] == 2);
}

TEST_CASE("inspect shows memory, operators, fusions, tensors and the plan") {
  const Outcome outcome = heed({"inspect", transformer(), "--tensors"});
  CHECK(outcome.code == 0);
  for (const char* part : {"batch", "window", "[batch, 5]", "workspace", "lower bound", "in place of input",
                           "attention", "normalize", "buffer", "####"})
    CHECK_MESSAGE(has(outcome.out, part), part);
}

TEST_CASE("bench --json keeps its contract") {
  const Outcome outcome =
      heed({"bench", transformer(), "--dim", "batch=2", "--isa", "portable", "--threads", "2", "--json"});
  REQUIRE(outcome.code == 0);
  CHECK(outcome.err.empty());
  const json page = json::parse(outcome.out);
  CHECK(page.at("isa") == "portable");
  CHECK(page.at("threads") == 2);
  CHECK(page.at("dimensions").at("batch") == 2);
  for (const char* key : {"median_us", "min_us", "gmacs_per_s", "roof_gmacs_per_s", "roof_i8_gmacs_per_s", "of_roof"})
    CHECK(page.at(key).get<double>() > 0);
  CHECK(page["min_us"] <= page["median_us"]);
  double share = 0;
  for (size_t i = 0; i < page.at("operators").size(); ++i) {
    const json& op = page["operators"][i];
    CHECK(op.at("index") == i);
    CHECK(op.at("name").is_string());
    CHECK(op.at("type").is_string());
    CHECK(op.at("variant") == "portable");
    CHECK(op.at("median_us").get<double>() >= 0);
    share += op.at("share").get<double>();
  }
  CHECK(share == doctest::Approx(1));
  for (const char* dim : {"batch=65", "batch=0", "tokens=3", "batch", "batch=x", "batch=3x"}) {
    const Outcome refused = heed({"bench", transformer(), "--dim", dim});
    CHECK(refused.code == 2);
    CHECK(has(refused.err, "--dim " + std::string(dim)));
  }
}

TEST_CASE("attention draws a PNG") {
  const Folder folder;
  for (const std::string& model : {transformer(), lstm_attention()}) {
    const Outcome outcome = heed({"attention", model, "--input", windows(), "-o", folder / "map.png"});
    CHECK(outcome.code == 0);
    CHECK(outcome.out.empty());
    CHECK(load(folder / "map.png").starts_with("\x89PNG\r\n\x1a\n"));
    CHECK(fs::file_size(folder / "map.png") > 1000);
    fs::remove(folder / "map.png");
  }
  CHECK(heed({"attention", transformer(), "--input", windows(), "-o", folder / "map.html"}).code == 2);
  const Outcome beyond =
      heed({"attention", transformer(), "--input", windows(), "-o", folder / "map.png", "--sample", "64"});
  CHECK(beyond.code == 2);
  CHECK(has(beyond.err, "the data has 64 samples"));
  const Outcome before =
      heed({"attention", transformer(), "--input", windows(), "-o", folder / "map.png", "--sample", "-1"});
  CHECK(before.code == 2);
  CHECK(has(before.err, "not in range"));
  CHECK(heed({"attention", transformer(), "--input", windows(), "-o", folder / "no/map.png"}).code == 3);
  CHECK(folder.files() == 0);
}

TEST_CASE("attention draws every head of the chosen sample where batch and heads are one axis") {
  // nn.MultiheadAttention: [time, batch, 8] as [time, 4 * batch, 2]. The pictures of two samples that trade places do
  // too.
  using test::DataType;
  const Folder folder;
  test::OnnxBuilder builder;
  builder.input("x", DataType::f32, {3, "batch", 8})
      .initializer<int64_t>("split", {3}, {3, -1, 2})
      .initializer<int64_t>("merged", {3}, {3, -1, 8})
      .node("Reshape", {"x", "split"}, {"s"})
      .node("Transpose", {"s"}, {"q"}, {{"perm", std::vector<int64_t>{1, 0, 2}}})
      .node("Transpose", {"s"}, {"k"}, {{"perm", std::vector<int64_t>{1, 2, 0}}})
      .node("MatMul", {"q", "k"}, {"scores"})
      .node("Softmax", {"scores"}, {"weights"}, {{"axis", int64_t{-1}}})
      .node("MatMul", {"weights", "q"}, {"o"})
      .node("Transpose", {"o"}, {"t"}, {{"perm", std::vector<int64_t>{1, 0, 2}}})
      .node("Reshape", {"t", "merged"}, {"y"})
      .output("y");
  std::ofstream(folder / "m.onnx", std::ios::binary) << builder.bytes();
  REQUIRE(heed({"convert", folder / "m.onnx", "--dim", "batch=1..4"}).code == 0);
  std::vector<float> one(48), two(48);
  for (size_t i = 0; i < 48; ++i) {
    one[i] = std::sin(static_cast<float>(i * i));
    two[i / 16 * 16 + (i + 8) % 16] = one[i];
  }
  write_npz(folder / "one.npz", {{"x", floats({3, 2, 8}, one)}});
  write_npz(folder / "two.npz", {{"x", floats({3, 2, 8}, two)}});
  const auto drawn = [&](const char* data, const char* sample) {
    const Outcome outcome =
        heed({"attention", folder / "m.heed", "--input", folder / data, "-o", folder / "a.png", "--sample", sample});
    return outcome.code == 0 ? load(folder / "a.png") : outcome.err;
  };
  // The title names the sample, and is the same for the same number.
  CHECK(drawn("one.npz", "0") != drawn("two.npz", "0"));
  CHECK(drawn("one.npz", "1") != drawn("two.npz", "1"));
  CHECK(has(drawn("one.npz", "2"), "the data has 2 samples"));
}

TEST_CASE("compare shows what int8 changes, layer by layer") {
  const Folder folder;
  const std::string onnx = (stock / "transformer.onnx").string(), model = folder / "m.heed";
  const auto convert = [&](const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"convert", onnx, "-o", model, "--dim", "batch=1..64"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    REQUIRE(heed(arguments).code == 0);
  };
  const auto compare = [&](const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments{"compare", onnx, model, "--input", windows(), "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome outcome = heed(arguments);
    REQUIRE(outcome.code == 0);
    return json::parse(outcome.out);
  };
  convert({});
  for (const json same = compare(); const json& layer : same["layers"]) {
    CHECK(layer["relative_error"] == 0);
    CHECK(layer["snr_db"].is_null());
    CHECK(layer["int8"] == false);
    CHECK(layer["gain"].is_null());
  }

  convert({"--quantize", "int8"});
  const json all = compare();
  CHECK(all["version"] == 1);
  CHECK(all["samples"] == 1);
  REQUIRE(all["outputs"].size() == 1);
  CHECK(all["outputs"][0]["name"] == "forecast");
  CHECK(all["relative_error"] == all["outputs"][0]["relative_error"]);
  double before = INFINITY, squares = 0;
  std::string worst;
  for (const json& layer : all["layers"]) {
    CHECK(layer["relative_error"] <= before);
    before = layer["relative_error"];
    CHECK(layer["int8"] == (layer["type"] == "matmul_i8" || layer["type"] == "attention_i8"));
    CHECK(layer["gain"].is_null() != layer["int8"]);
    if (layer["int8"] == false) continue;
    CHECK(layer["cosine"] > 0.99);
    CHECK(layer["snr_db"] > 15);
    CHECK(layer["largest_difference"] > 0);
    squares += layer["gain"].get<double>() * layer["gain"].get<double>();
    if (worst.empty()) worst = layer["name"];
  }
  const double error = all["relative_error"];
  CHECK(error > 0);
  CHECK(std::sqrt(squares) == doctest::Approx(error).epsilon(1));  // about as squares do

  const json one = compare({"--gains", "1"});
  for (const json& layer : one["layers"]) CHECK(layer["gain"].is_null() == (layer["name"] != worst));
  for (const json none = compare({"--gains", "0"}); const json& layer : none["layers"]) CHECK(layer["gain"].is_null());

  convert({"--quantize", "int8", "--keep-float", worst});
  const json kept = compare({"--gains", "0", "-o", folder / "page.html"});
  for (const json& layer : kept["layers"])
    if (layer["name"] == worst) CHECK(layer["int8"] == false);
  std::ifstream stream(folder / "page.html");
  const std::string page{std::istreambuf_iterator<char>(stream), {}};
  CHECK(has(page, worst));
  CHECK(has(page, "class=\"error\" style=\"width:100.0%\""));
  CHECK(!has(page, "http"));

  const Outcome table = heed({"compare", onnx, model, "--input", windows()});
  CHECK(has(table.out, "in float, "));
  CHECK(has(table.out, worst));
  CHECK(heed({"compare", onnx, model, "--input", windows(), "-o", folder / "page.pdf"}).code == 2);
  CHECK(heed({"compare", onnx, model, "--input", windows(), "-o", model}).code == 2);
  CHECK(heed({"compare", onnx, model, "--input", windows(), "--sequence"}).code == 2);
  const Outcome other = heed({"compare", (by_hand / "attention_by_hand.onnx").string(), model, "--input", windows()});
  CHECK(other.code != 0);
}

TEST_CASE("convert goes by data: smoothing, and layers in float until the error is within a budget") {
  const Folder folder;
  const std::string onnx = (stock / "transformer.onnx").string(), model = folder / "m.heed";
  const auto convert = [&](const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"convert", onnx, "-o", model, "--dim", "batch=1..64"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return heed(arguments);
  };
  const auto compared = [&] {
    return json::parse(heed({"compare", onnx, model, "--input", windows(), "--json", "--gains", "0"}).out);
  };
  const auto in_int8 = [](const json& page) {
    return std::count_if(page["layers"].begin(), page["layers"].end(),
                         [](const json& row) { return row["int8"] == true; });
  };
  const auto macs = [&] { return json::parse(heed({"inspect", model, "--json"}).out)["macs"]; };
  REQUIRE(convert({}).code == 0);
  const json in_float = macs();
  const std::vector<std::string> data{"--quantize", "int8", "--calibrate", windows()};
  REQUIRE(convert(data).code == 0);
  CHECK(macs() == in_float);  // what nobody reads is not computed in int8 either
  const json all = compared();
  const double error = all["relative_error"];
  long before = in_int8(all);
  for (const double share : {2.0, 0.5, 1e-6}) {
    std::vector<std::string> options = data;
    options.insert(options.end(), {"--error-budget", std::to_string(error * share)});
    if (share < 0.1) options.back() = "1e-9";
    const Outcome outcome = convert(options);
    REQUIRE(outcome.code == 0);
    CHECK(has(outcome.out, "--error-budget"));
    const json page = compared();
    CHECK(page["relative_error"] <= error * share);
    CHECK((share > 1 ? in_int8(page) == before : in_int8(page) < before));
    before = in_int8(page);
  }
  CHECK(before == 0);
  CHECK(has(convert({"--quantize", "int8", "--error-budget", "0.1"}).err, "--calibrate"));
  CHECK(convert({"--calibrate", windows()}).code == 2);
  for (const char* budget : {"-1", "0", "nan", "inf", "x"})
    CHECK(convert({"--quantize", "int8", "--calibrate", windows(), "--error-budget", budget}).code == 2);
}

TEST_CASE("what tells nothing about int8 is refused: another model's file, and data that overflows") {
  const Folder folder;
  const auto write = [&](const char* name, const std::string& layer) {
    test::OnnxBuilder b;
    std::vector<float> weights(64 * 64);
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = std::sin(static_cast<float>(i));
    b.input("x", test::DataType::f32, {9, 64}).initializer("w", {64, 64}, weights).output("y");
    b.node("MatMul", {"x", "w"}, {"p"}, {}, layer).node("Softmax", {"p"}, {"q"}, {}, layer + " softmax");
    b.node("MatMul", {"q", "w"}, {"y"}, {}, layer + " again");
    std::ofstream(folder / name, std::ios::binary) << b.bytes();
  };
  write("one.onnx", "one");
  write("two.onnx", "two");
  const std::string model = folder / "one.heed", data = folder / "data.npz", large = folder / "large.npz";
  REQUIRE(heed({"convert", folder / "one.onnx", "-o", model, "--quantize", "int8"}).code == 0);
  write_npz(data, {{"x", floats({9, 64}, std::vector<float>(9 * 64, 0.5f))}});
  write_npz(large, {{"x", floats({9, 64}, std::vector<float>(9 * 64, 3e38f))}});
  CHECK(heed({"compare", folder / "one.onnx", model, "--input", data}).code == 0);
  const Outcome other = heed({"compare", folder / "two.onnx", model, "--input", data});
  CHECK(other.code == 1);
  CHECK(has(other.err, "was not made of " + (folder / "two.onnx")));
  const Outcome overflow =
      heed({"convert", folder / "one.onnx", "-o", folder / "l.heed", "--quantize", "int8", "--calibrate", large});
  CHECK(overflow.code == 2);
  CHECK(has(overflow.err, "is finite on any of these samples"));
  CHECK(!fs::exists(folder / "l.heed"));
}

TEST_CASE("compare carries the state, and takes samples of several sizes") {
  const Folder folder;
  const auto wave = [](size_t count, float step) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = std::sin(step * static_cast<float>(i + 1));
    return values;
  };
  test::OnnxBuilder b;
  b.input("x", test::DataType::f32, {"tokens", 64}).input("h_in", test::DataType::f32, {1, 64});
  b.output("y").output("h_out").initializer<float>("w", {64, 64}, wave(64 * 64, 0.7f));
  b.node("MatMul", {"x", "w"}, {"p"}).node("ReduceMean", {"p"}, {"mean"}, {{"axes", std::vector<int64_t>{0}}});
  b.node("Add", {"h_in", "mean"}, {"h_out"}).node("Add", {"p", "h_out"}, {"y"});
  std::ofstream(folder / "m.onnx", std::ios::binary) << b.bytes();
  const std::string model = folder / "m.heed", data = folder / "data.npz";
  const Outcome done = heed({"convert", folder / "m.onnx", "-o", model, "--dim", "tokens=1..8", "--quantize", "int8"});
  REQUIRE_MESSAGE(done.code == 0, done.err);
  write_npz(data, {{"x/0", floats({3, 64}, wave(192, 0.3f))}, {"x/1", floats({8, 64}, wave(512, 1.3f))}});
  const auto compare = [&](const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"compare", folder / "m.onnx", model, "--input", data, "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome outcome = heed(arguments);
    REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
    return json::parse(outcome.out);
  };
  const json apart = compare({}), carried = compare({"--sequence"});
  CHECK(apart["samples"] == 2);
  CHECK(apart["relative_error"] > 0);
  CHECK(apart["relative_error"] != carried["relative_error"]);
  for (const json& page : {apart, carried})
    for (const json& layer : page["layers"])
      if (layer["int8"] == true) CHECK(layer["gain"] == page["relative_error"]);  // it is the only one
}

TEST_CASE("what is no model is refused") {
  const Folder folder;
  const std::string whole = load(transformer());
  for (const std::string& bytes :
       {std::string(), std::string("hello"), whole.substr(0, 64), whole.substr(0, whole.size() - 64)}) {
    std::ofstream(folder / "m.heed", std::ios::binary) << bytes;
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"inspect", folder / "m.heed"}, std::vector<std::string>{"bench", folder / "m.heed"},
          std::vector<std::string>{"run", folder / "m.heed", "--input", windows()}}) {
      const Outcome outcome = heed(arguments);
      CHECK(outcome.code == 1);
      CHECK(has(outcome.err, "m.heed"));
    }
  }
  CHECK(has(heed({"inspect", (stock / "transformer.onnx").string()}).err, "heed convert"));
}

}  // namespace
}  // namespace heed::tools

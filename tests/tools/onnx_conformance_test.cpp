// ONNX's own operator tests: every case whose operators are lowered is imported, evaluated on the host and compared
// with the expected outputs. Skips where the cases are not at hand.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

#include "tests/tools/onnx_builder.h"
#include "tools/error.h"

namespace heed::tools::test {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A .pb file of one tensor, read as the only initializer of a model.
std::pair<std::string, onnx::Model> tensor_file(const fs::path& path) {
  OnnxBuilder builder;
  builder.part(5, bytes_of(path));
  onnx::Model model = parse_bytes(builder.bytes());
  return {std::string(model.graph.initializers.at(0).name), std::move(model)};
}

/// Equal, or as near as ONNX's own runner asks (1e-3 relative); float16 has three digits only.
bool is_close(const Literal& found, const Literal& expected, DataType type) {
  if (found.type != expected.type || found.dims != expected.dims) return false;
  if (found.type == Type::boolean) return std::ranges::equal(found.booleans(), expected.booleans());
  if (found.type == Type::i32) {  // 32- and 64-bit unsigned numbers are held by their bits
    const uint64_t mask = type == DataType::u32 ? UINT32_MAX : UINT64_MAX;
    for (size_t i = 0; i < found.integers().size(); ++i) {
      if (((static_cast<uint64_t>(found.integers()[i]) ^ static_cast<uint64_t>(expected.integers()[i])) & mask) != 0)
        return false;
    }
    return true;
  }
  const bool half = type == DataType::f16 || type == DataType::bf16;
  for (size_t i = 0; i < found.floats().size(); ++i) {
    const float a = found.floats()[i], b = expected.floats()[i];
    const float tolerance = half ? 1e-2f * std::abs(b) + 1e-2f : 1e-3f * std::abs(b) + 1e-5f;
    if (!(a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= tolerance)) return false;
  }
  return true;
}

/// Empty where every output is as expected.
std::string failure(const fs::path& folder, const std::set<std::string>& set_operands) {
  // Operands that are to be set become initializers.
  std::string bytes = bytes_of(folder / "model.onnx");
  const fs::path data = folder / "test_data_set_0";
  std::vector<onnx::Model> files;
  onnx::Model model = parse_bytes(bytes);
  std::vector<Literal> inputs;
  for (size_t i = 0; i < model.graph.inputs.size(); ++i) {
    auto [name, file] = tensor_file(data / ("input_" + std::to_string(i) + ".pb"));
    files.push_back(std::move(file));
    onnx::Tensor tensor = files.back().graph.initializers[0];
    const std::string input(model.graph.inputs[i].name);
    if (set_operands.count(input)) {
      tensor.name = model.graph.inputs[i].name;
      model.graph.initializers.push_back(std::move(tensor));
    } else {
      inputs.push_back(onnx::literal(tensor));
    }
  }
  std::vector<std::string> notes;
  Graph graph = import(model, {}, notes);
  const std::vector<Literal> outputs = run_graph(graph, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto [name, file] = tensor_file(data / ("output_" + std::to_string(i) + ".pb"));
    const onnx::Tensor& expected = file.graph.initializers[0];
    const auto type = static_cast<DataType>(graph.outputs[i].type);
    if (type != expected.type)
      return "output " + name + " is " + onnx::name(type) + ", not " + onnx::name(expected.type);
    if (!is_close(outputs[i], onnx::literal(expected), type)) {
      return "output " + name + " of shape " + text(outputs[i].dims) + " differs";
    }
  }
  return "";
}

TEST_CASE("ONNX's operator tests") {
  const fs::path folder = fs::path(HEED_SOURCE_DIR) / "../shared/conformance";
  if (!fs::exists(folder / "scope.tsv")) {
    MESSAGE("skipped: the cases are not at hand");
    return;
  }
  const fs::path cases = fs::path(HEED_BINARY_DIR) / "conformance";
  if (!fs::exists(cases / "node")) {
    fs::create_directories(cases);
    const std::string unpack =
        "tar -xJf '" + (folder / "onnx-node-tests-1.22.0.tar.xz").string() + "' -C '" + cases.string() + "'";
    REQUIRE(std::system(unpack.c_str()) == 0);
  }
  int passed = 0, refused = 0;
  std::map<std::string, int> reasons;
  std::ifstream scope(folder / "scope.tsv");
  for (std::string line; std::getline(scope, line);) {
    std::istringstream fields(line);
    std::string name, in, operands, operand;
    std::getline(fields, name, '\t');
    std::getline(fields, in, '\t');
    std::getline(fields, operands);
    if (in != "in") continue;
    std::set<std::string> set_operands;
    for (std::istringstream list(operands); list >> operand;) set_operands.insert(operand);
    // What models hold as constants, and heed takes only so.
    if (name.find("conv") != std::string::npos) set_operands.insert({"W", "weight", "w"});
    if (name.find("scatternd") != std::string::npos) set_operands.insert("indices");
    try {
      const std::string wrong = failure(cases / "node" / name, set_operands);
      passed += wrong.empty();
      if (!wrong.empty()) FAIL_CHECK(name << ": " << wrong);
    } catch (const Error& e) {
      ++refused;
      if (std::getenv("HEED_SHOW_REFUSED")) std::cout << name << ": " << e.what() << "\n";
    } catch (const std::exception& e) {
      FAIL_CHECK(name << ": " << e.what());
    }
  }
  MESSAGE(passed << " cases pass, " << refused << " are refused");
  CHECK(passed >= 1125);  // never fewer than there were
}

}  // namespace
}  // namespace heed::tools::test

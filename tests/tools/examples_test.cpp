// The examples' models from ONNX to outputs: the numbers, the bits, the fusions, the memory, and their files mutated.
#include "heed/sha256.h"
#include "heed/threads.h"
#include "tests/tools/device.h"
#include "tools/convert.h"
#include "tools/io/npy.h"

using namespace heed;
using namespace heed::test;

namespace {

const std::filesystem::path examples = std::filesystem::path(HEED_SOURCE_DIR) / "examples";

struct Example {
  const char* name;
  std::filesystem::path onnx, inputs, expected;
  const char* output;  // in `expected`
  int attention, layer_norm, gelu;
};
const Example all[] = {
    {"lstm_attention", examples / "stock_forecast/lstm_attention.onnx", examples / "stock_forecast/expected.npz",
     examples / "stock_forecast/expected.npz", "lstm_attention", 0, 0, 0},
    {"transformer", examples / "stock_forecast/transformer.onnx", examples / "stock_forecast/expected.npz",
     examples / "stock_forecast/expected.npz", "transformer", 2, 5, 2},
    {"attention_by_hand", examples / "attention_by_hand/attention_by_hand.onnx",
     examples / "attention_by_hand/attention_by_hand.npz", examples / "attention_by_hand/expected.npz", "output", 1, 0,
     0},
};

Converted convert(const Example& example) {
  const bool batched = std::string(example.name).find("by_hand") == std::string::npos;
  return tools::convert(example.onnx,
                        {.dims = batched ? std::vector<std::string>{"batch=1..64"} : std::vector<std::string>{}});
}

const Array& find(const NamedArrays& arrays, std::string_view name) {
  for (const auto& [key, array] : arrays)
    if (key == name) return array;
  FAIL("no array " << name);
  std::abort();
}

/// Rows [first, first + count) of the inputs, or all of a model without a batch.
void fill(Session& session, const NamedArrays& arrays, int64_t first) {
  for (uint32_t i = 0; i < session.model().input_count(); ++i) {
    const Array& array = find(arrays, session.model().input(i).name);
    REQUIRE(array.type == ArrayType::f32);
    const Tensor tensor = session.input(i);
    const int64_t count = element_count(*tensor.shape), width = array.count() / array.dims[0];
    REQUIRE((first * width + count) * 4 <= static_cast<int64_t>(array.data.size()));
    std::memcpy(tensor.data, array.data.data() + first * width * 4, static_cast<size_t>(count) * 4);
  }
}

/// The model forecasts in float what its training framework computes in double: a few roundings of the price.
struct ForecastError {
  static constexpr double relative = 1e-6, absolute = 1e-6;
};

}  // namespace

TEST_CASE("the examples' models give the numbers of their framework at every batch") {
  for (const Example& example : all) {
    CAPTURE(example.name);
    const Converted converted = convert(example);
    const Aligned file(converted.bytes);
    const auto model = Model::load(file.span());
    REQUIRE_MESSAGE(model, describe(model.status()));
    const Aligned arena(model->memory().total());
    auto session = Session::create(*model, arena.span());
    REQUIRE_MESSAGE(session, describe(session.status()));
    const NamedArrays inputs = read_npz(example.inputs), outputs = read_npz(example.expected);
    const Array& expected = find(outputs, example.output);
    REQUIRE(expected.type == ArrayType::f64);
    const auto* numbers = reinterpret_cast<const double*>(expected.data.data());
    for (const int32_t batch : {1, 3, 64}) {
      CAPTURE(batch);
      if (model->dimension_count() == 1) REQUIRE(session->resize("batch", batch).ok());
      for (int64_t first = 0; first + batch <= 64; first += batch) {
        fill(*session, inputs, model->dimension_count() == 1 ? first : 0);
        REQUIRE(session->run().ok());
        const Tensor output = session->output(0u);
        for (int64_t i = 0; i < element_count(*output.shape); ++i) {
          const double wanted = numbers[(model->dimension_count() == 1 ? first : 0) + i];
          const double error = std::abs(output.as<float>()[i] - wanted);
          REQUIRE(error <= ForecastError::absolute + ForecastError::relative * std::abs(wanted));
        }
      }
    }
  }
}

TEST_CASE("attention by hand: each step, as numpy computes it") {
  const Converted converted = tools::convert(examples / "attention_by_hand/attention_by_hand_steps.onnx", {});
  const Aligned file(converted.bytes);
  const auto model = Model::load(file.span());
  REQUIRE_MESSAGE(model, describe(model.status()));
  const Aligned arena(model->memory().total());
  auto session = Session::create(*model, arena.span());
  REQUIRE(session);
  fill(*session, read_npz(examples / "attention_by_hand/attention_by_hand.npz"), 0);
  REQUIRE(session->run().ok());
  const NamedArrays steps = read_npz(examples / "attention_by_hand/expected.npz");
  for (const char* step : {"similarity", "scaled", "weights", "output"}) {
    CAPTURE(step);
    const auto found = session->output<float>(step);
    const Array& expected = find(steps, step);
    REQUIRE(found.size() == static_cast<size_t>(expected.count()));
    for (size_t i = 0; i < found.size(); ++i)
      CHECK(found[i] == doctest::Approx(reinterpret_cast<const double*>(expected.data.data())[i]).epsilon(1e-6));
  }
}

TEST_CASE("the examples' models fuse whole and take little memory") {
  for (const Example& example : all) {
    CAPTURE(example.name);
    const Report report = convert(example).report;
    std::map<std::string, int> fused;
    for (const auto& fusion : report.fused) ++fused[fusion.concept_name];
    CHECK(report.heed_operators.count("attention") == (example.attention > 0));
    if (example.attention > 0) CHECK(report.heed_operators.at("attention") == example.attention);
    if (example.layer_norm > 0) CHECK(report.heed_operators.at("normalize") == example.layer_norm);
    for (const auto& missed : report.missed) MESSAGE(missed.concept_name, " at ", missed.node, ": ", missed.found);
    CHECK(report.heed_operators.count("copy") == 0);
    CHECK(static_cast<double>(report.workspace) <= 1.1 * static_cast<double>(report.lower_bound));
  }
}

TEST_CASE("the examples' models give the same bits on every instruction set and number of threads") {
  for (const Example& example : all) {
    CAPTURE(example.name);
    const Converted converted = convert(example);
    const Aligned file(converted.bytes);
    const auto model = Model::load(file.span());
    REQUIRE(model);
    const NamedArrays inputs = read_npz(example.inputs);
    std::string expected;
    for (uint32_t threads = 1; threads <= 3; ++threads) {
      Threads pool(threads);
      const Aligned arena(model->memory().total(threads));
      for (int i = 0; i < isa_count; ++i) {
        const Isa isa = static_cast<Isa>(i);
        if (!available(isa)) continue;
        CAPTURE(name(isa));
        CAPTURE(threads);
        auto session = Session::create(*model, arena.span(), {.isa = isa, .parallel = pool.parallel()});
        REQUIRE(session);
        fill(*session, inputs, 0);
        REQUIRE(session->run().ok());
        const Tensor output = session->output(0u);
        const std::string hash =
            sha256({output.data, static_cast<size_t>(element_count(*output.shape)) * 4}).hex().text;
        if (expected.empty()) expected = hash;
        CHECK(hash == expected);
      }
    }
  }
}

TEST_CASE("converted files truncated or mutated are refused or run within their bounds") {
  for (const Example& example : all) {
    CAPTURE(example.name);
    const Converted converted = convert(example);
    const int ran = run_mutated(converted);
    MESSAGE(std::string(example.name), ": ", ran, " of 1000 mutated files ran");
  }
}

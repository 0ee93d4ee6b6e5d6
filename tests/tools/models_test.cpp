// Real models from their exporters' files to outputs, skipped where ../shared is not: what is fused, the memory, the
// numbers of their framework, the same bits on every instruction set, no allocation, and their files mutated.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "heed/sha256.h"
#include "tests/runtime/allocations.h"
#include "tests/tools/device.h"
#include "tests/tools/onnx_builder.h"
#include "tools/convert.h"
#include "tools/error.h"
#include "tools/io/npy.h"

namespace heed::test {
namespace {

namespace fs = std::filesystem;
using namespace heed::tools::test;

const fs::path models = fs::path(HEED_SOURCE_DIR) / "../shared/models";

bool are_here() {
  if (fs::exists(models)) return true;
  MESSAGE("skipped: ", models.string(), " is not here");
  return false;
}

const Array& find(const NamedArrays& arrays, const std::string& name) {
  for (const auto& [key, array] : arrays)
    if (key == name) return array;
  FAIL("no array " << name);
  std::abort();
}

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// 16 bits, one channel, behind a header of 44 bytes: numbers in [-1, 1).
std::vector<float> read_wave(const fs::path& path) {
  const std::string bytes = read_bytes(path);
  std::vector<float> samples((bytes.size() - 44) / 2);
  for (size_t i = 0; i < samples.size(); ++i) {
    int16_t sample = 0;
    std::memcpy(&sample, bytes.data() + 44 + i * 2, 2);
    samples[i] = static_cast<float>(sample) / 32768;
  }
  return samples;
}

/// llama2.c's tokenizer: the longest piece's length, then a score, a length and the bytes of each.
std::vector<std::string> read_pieces(const fs::path& path) {
  const std::string bytes = read_bytes(path);
  std::vector<std::string> pieces;
  for (size_t at = 4; at + 8 <= bytes.size();) {
    int32_t length = 0;
    std::memcpy(&length, bytes.data() + at + 4, 4);
    pieces.push_back(bytes.substr(at + 8, static_cast<size_t>(length)));
    at += 8 + static_cast<size_t>(length);
  }
  return pieces;
}

/// What a run is given, and what it has to give, output by output; nothing: whatever it gives.
struct Sample {
  std::vector<Session::Setting> sizes;
  NamedArrays inputs;
  std::vector<Array> expected = {};
};

struct RealModel {
  std::string file;
  ConvertOptions options;
  int attentions;
  uint32_t states;
  std::vector<Sample> samples;  // of one session, one after the other
};

template <class T>
Array array_of(ArrayType type, std::vector<int64_t> dims, std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {type, std::move(dims), {bytes.begin(), bytes.end()}};
}

/// Row i of the first axis, which stays, as 1.
Array row(const Array& array, int64_t i) {
  Array one{array.type, array.dims, {}};
  one.dims[0] = 1;
  const auto size = static_cast<ptrdiff_t>(array.data.size()) / array.dims[0];
  one.data.assign(array.data.begin() + i * size, array.data.begin() + (i + 1) * size);
  return one;
}

/// One sample for each row of the input.
std::vector<Sample> rows(const NamedArrays& arrays, const std::string& input, const std::vector<std::string>& outputs) {
  std::vector<Sample> samples;
  for (int64_t i = 0; i < find(arrays, input).dims[0]; ++i) {
    samples.push_back({{}, {{input, row(find(arrays, input), i)}}});
    for (const std::string& output : outputs) samples.back().expected.push_back(row(find(arrays, output), i));
  }
  return samples;
}

/// Windows of a wave, as numbers that a model is given; of several lengths where a dimension is named.
std::vector<Sample> windows(std::span<const float> wave, const char* input, size_t length, size_t step, int count,
                            const char* dimension = nullptr) {
  std::vector<Sample> samples;
  for (int i = 0; i < count; ++i) {
    const size_t size = dimension == nullptr ? length : length - step * static_cast<size_t>(i);
    const auto part = wave.subspan(16000 + (dimension == nullptr ? step * static_cast<size_t>(i) : 0), size);
    samples.push_back({{}, {{input, array_of(ArrayType::f32, {1, static_cast<int64_t>(size)}, part)}}});
    if (dimension != nullptr) samples.back().sizes = {{dimension, static_cast<int32_t>(size)}};
  }
  return samples;
}

std::vector<RealModel> real_models() {
  std::vector<RealModel> all;
  const std::vector<float> speech = read_wave(models / "silero/speech_test.wav"),
                           mix = read_wave(models / "gtcrn/mix.wav");
  all.push_back({"silero/vad_lstm_16k.onnx",
                 {{"sequence=576"}, {}, {"sr=16000"}, {}},
                 0,
                 1,
                 windows(speech, "input", 576, 512, 40)});
  all.push_back({"silero/vad_attention_16k.onnx",
                 {{"samples=1536..16000"}, {}, {}, {}},
                 4,
                 0,
                 windows(speech, "input", 16000, 2892, 6, "samples")});
  all.push_back({"dtln/model_1.onnx", {}, 0, 1, windows(mix, "input_2", 257, 257, 40)});
  all.push_back({"dtln/model_2.onnx", {}, 0, 1, windows(mix, "input_4", 512, 128, 40)});
  all.push_back({"gtcrn/gtcrn.onnx", {}, 0, 3, windows(mix, "mix", 514, 256, 40)});
  const std::string file = read_bytes(models / "magika/standard_v3_3.onnx");
  const std::vector<int32_t> bytes(file.begin(), file.begin() + 2048);  // of a file, each from 0 to 255
  std::vector<int32_t> unsigned_bytes;
  for (const int32_t byte : bytes) unsigned_bytes.push_back(byte & 255);
  all.push_back({"magika/standard_v3_3.onnx",
                 {{"bytes:0=1"}, {}, {}, {}},
                 0,
                 0,
                 {{{}, {{"bytes", array_of<int32_t>(ArrayType::i32, {1, 2048}, unsigned_bytes)}}}}});
  all.push_back(
      {"kwt1/kwt1.onnx", {}, 12, 0, rows(tools::read_npz(models / "kwt1/expected.npz"), "input_1", {"logits"})});
  all.push_back({"limu_bert/limu_bert.onnx",
                 {},
                 4,
                 0,
                 rows(tools::read_npz(models / "limu_bert/expected.npz"), "window", {"features", "reconstruction"})});
  const NamedArrays items = tools::read_npz(models / "sasrec/expected.npz"),
                    story = tools::read_npz(models / "stories260k/expected.npz");
  all.push_back({"sasrec/sasrec.onnx", {{"length=1..200"}, {}, {}, {}}, 2, 0, {}});
  for (const char* i : {"0", "1", "2", "3"}) {
    const Array& sequence = find(items, std::string("items") + i);
    all.back().samples.push_back({{{"length", static_cast<int32_t>(sequence.dims[1])}},
                                  {{"items", sequence}},
                                  {find(items, std::string("scores") + i)}});
  }
  all.push_back({"stories260k/stories260k_prefill.onnx",
                 {{"tokens=1..256"}, {}, {}, {}},
                 5,
                 0,
                 {{{{"tokens", 33}}, {{"tokens", find(story, "tokens")}}, {find(story, "logits")}}}});
  return all;
}

void feed(Session& session, const Sample& sample) {
  if (!sample.sizes.empty()) REQUIRE(session.resize(sample.sizes).ok());
  for (const auto& [name, array] : sample.inputs) {
    const Tensor to = session.input(name);
    REQUIRE(to);
    REQUIRE(array.count() == element_count(*to.shape));
    if (array.type == ArrayType::i64)
      for (int64_t i = 0; i < array.count(); ++i)
        to.as<int32_t>()[i] = static_cast<int32_t>(reinterpret_cast<const int64_t*>(array.data.data())[i]);
    else
      std::copy(array.data.begin(), array.data.end(), to.data);
  }
}

/// The outputs of the first samples.
std::string hash_of(const Converted& converted, const std::vector<Sample>& samples, Isa isa) {
  Running running(converted.bytes, {.isa = isa});
  Sha256 hash;
  for (size_t i = 0; i < std::min<size_t>(samples.size(), running.model->state_count() > 0 ? 5 : 1); ++i) {
    feed(*running.session, samples[i]);
    REQUIRE(running.session->run().ok());
    for (uint32_t k = 0; k < running.model->output_count(); ++k) {
      const Tensor output = running.session->output(k);
      hash.update({output.data, static_cast<size_t>(element_count(*output.shape)) * size_of(output.shape->type)});
    }
  }
  return hash.finish().hex().text;
}

#ifdef HEED_SANITIZED
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

/// Logits and caches of two ways to compute in float.
struct StepError {
  static constexpr double absolute = 1e-4;
};

}  // namespace

TEST_CASE("real models convert whole and give the numbers of their framework, the same bits everywhere") {
  if (!are_here()) return;
  for (const RealModel& real : real_models()) {
    CAPTURE(real.file);
    const Converted converted = tools::convert(models / real.file, real.options);
    const Report& report = converted.report;
    CHECK(report.attentions == real.attentions);
    CHECK(std::ranges::count(report.fused, "attention", &Report::Fused::concept_name) == real.attentions);
    if (real.file == "dtln/model_2.onnx")
      CHECK(std::ranges::count(report.fused, "recurrent", &Report::Fused::concept_name) == 2);
    CHECK(static_cast<double>(report.workspace) <= 1.1 * static_cast<double>(report.lower_bound));

    Running running(converted.bytes);
    CHECK(running.model->state_count() == real.states);
    for (const Sample& sample : real.samples) {
      feed(*running.session, sample);
      const long before = allocations;
      const Status status = running.session->run();
      const long counted = allocations - before;
      REQUIRE_MESSAGE(status.ok(), describe(status));
      CHECK(counted == 0);
      if (sample.expected.empty()) continue;
      REQUIRE(sample.expected.size() == running.model->output_count());
      for (uint32_t i = 0; i < sample.expected.size(); ++i) {
        const auto* numbers = reinterpret_cast<const float*>(sample.expected[i].data.data());
        check_close(
            {read_elements(running.session->output(i))},
            {Literal::of(sample.expected[i].dims, std::vector<float>(numbers, numbers + sample.expected[i].count()))});
      }
    }
    if (sanitized) continue;  // portable would take minutes
    const std::string hash = hash_of(converted, real.samples, best_isa());
    for (int i = 0; i < isa_count; ++i) {
      const Isa isa = static_cast<Isa>(i);
      CAPTURE(name(isa));
      if (available(isa)) CHECK(hash_of(converted, real.samples, isa) == hash);
    }
  }
}

TEST_CASE("a story is told a token at a time") {
  const fs::path folder = models / "stories260k";
  if (!are_here()) return;
  const NamedArrays expected = tools::read_npz(folder / "expected.npz");
  const Array& ids = find(expected, "greedy_tokens");
  const auto* tokens = reinterpret_cast<const int64_t*>(ids.data.data());
  const Converted converted = convert(folder / "stories260k_step.onnx", {{"past=0..511"}, {}, {}, {}});
  CHECK(converted.report.state == 10 * 512 * 4 * 8 * 4);
  CHECK(converted.report.heed_operators.at("rope") == 10);
  CHECK(converted.report.heed_operators.at("elementwise") == 5);  // the gates of the feed-forward layers
  Running running(converted.bytes);
  Session& session = *running.session;
  const std::vector<std::string> pieces = read_pieces(folder / "tok512.bin");
  std::string text;
  int32_t token = 1;
  for (int32_t position = 0; position < 256; ++position) {
    session.input<int32_t>("token")[0] = token;
    session.input<int32_t>("position")[0] = position;
    REQUIRE(session.run().ok());
    CHECK(session.position() == position + 1);
    const auto logits = session.output<float>("logits");
    const auto next = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    REQUIRE(next == tokens[position + 1]);
    std::string piece = pieces.at(static_cast<size_t>(next));
    unsigned byte = 0;
    if (std::sscanf(piece.c_str(), "<0x%2X>", &byte) == 1) piece = std::string(1, static_cast<char>(byte));
    if (token == 1 && piece[0] == ' ') piece.erase(0, 1);
    text += piece;
    token = next;
  }
  const std::string page = read_bytes(folder / "readme.md");
  CHECK(text.size() > 500);
  CHECK(page.find(text) != std::string::npos);

  // One step with a cache that the caller holds.
  const Converted step = convert(folder / "stories260k_step.onnx", {{"past=0..511"}, {"none"}, {}, {}});
  Running handed(step.bytes);
  for (const int past : {1, 40}) {
    const std::string prefix = "step" + std::to_string(past);
    CAPTURE(prefix);
    REQUIRE(handed.session->resize("past", past).ok());
    for (uint32_t i = 0; i < handed.model->input_count(); ++i) {
      const Tensor to = handed.session->input(i);
      const Array& from = find(expected, prefix + ".in." + std::string(handed.model->input(i).name));
      REQUIRE(from.count() == element_count(*to.shape));
      if (to.shape->type == Type::i32)
        to.as<int32_t>()[0] = static_cast<int32_t>(*reinterpret_cast<const int64_t*>(from.data.data()));
      else
        std::copy(from.data.begin(), from.data.end(), to.data);
    }
    REQUIRE(handed.session->run().ok());
    for (uint32_t i = 0; i < handed.model->output_count(); ++i) {
      const Tensor found = handed.session->output(i);
      const Array& array = find(expected, prefix + ".out." + std::string(handed.model->output(i).name));
      const auto* wanted = reinterpret_cast<const float*>(array.data.data());
      double error = 0;
      for (int64_t k = 0; k < array.count(); ++k)
        error = std::max(error, std::abs(double(found.as<float>()[k]) - double(wanted[k])));
      CHECK(error <= StepError::absolute);
    }
  }
}

TEST_CASE("voice activity frame by frame, its state in the session") {
  const fs::path folder = models / "silero";
  if (!are_here()) return;
  const auto model = [&](const char* state) {
    return convert(folder / "vad_lstm_16k.onnx", {{"sequence=512"}, {state}, {"sr=16000"}, {}});
  };
  const Converted carried = model("state=stateN"), handed = model("none");
  CHECK(carried.report.state == 2 * 128 * 4);
  const Converted found = convert(folder / "vad_lstm_16k.onnx", {{"sequence=512"}, {}, {"sr=16000"}, {}});
  CHECK(found.report.state == carried.report.state);
  CHECK(found.report.workspace == carried.report.workspace);
  Running own(carried.bytes), callers(handed.bytes);
  const std::vector<float> wave = read_wave(folder / "speech_test.wav");
  std::vector<float> state(2 * 128, 0.0f);
  int speech = 0;
  constexpr int frames = 200, length = 512;
  REQUIRE(wave.size() >= frames * length);
  for (int frame = 0; frame < frames; ++frame) {
    for (Session* session : {&*own.session, &*callers.session}) {
      const auto input = session->input<float>("input");
      REQUIRE(input.size() == length);
      std::copy_n(wave.begin() + frame * length, length, input.begin());
    }
    std::ranges::copy(state, callers.session->input<float>("state").begin());
    REQUIRE(own.session->run().ok());
    REQUIRE(callers.session->run().ok());
    std::ranges::copy(callers.session->output<float>("stateN"), state.begin());
    CHECK(own.session->output<float>("output")[0] == callers.session->output<float>("output")[0]);
    speech += own.session->output<float>("output")[0] > 0.5f;
  }
  CHECK(speech > frames / 4);
}

TEST_CASE("mutated files of real models, and what they are converted to, end in an error or well") {
  if (!are_here()) return;
  const std::pair<const char*, ConvertOptions> all[] = {
      {"silero/vad_lstm_16k.onnx", {{"sequence=576"}, {}, {"sr=16000"}, {}}},
      {"stories260k/stories260k_step.onnx", {{"past=0..31"}, {}, {}, {}}},
  };
  const fs::path file = fs::temp_directory_path() / ("heed_models_test_" + std::to_string(std::random_device{}()));
  for (const auto& [name, options] : all) {
    const std::string original = read_bytes(models / name);
    // What steers the converter: all but the numbers of large tensors.
    std::vector<bool> is_weight(original.size());
    const onnx::Model model = onnx::parse(std::as_bytes(std::span(original)), nullptr, ".");
    for (const onnx::Tensor& tensor : model.graph.initializers)
      if (tensor.raw && tensor.raw->size() > 64)
        std::fill_n(is_weight.begin() + (reinterpret_cast<const char*>(tensor.raw->data()) - original.data()),
                    tensor.raw->size(), true);
    std::vector<size_t> places;
    for (size_t i = 0; i < original.size(); ++i)
      if (!is_weight[i]) places.push_back(i);
    std::mt19937 random(1);
    int converted = 0;
    for (int trial = 0; trial < 1000; ++trial) {
      std::ofstream(file, std::ios::binary) << mutated(original, places, random);
      try {
        converted += attempt(tools::convert(file, options).bytes);
      } catch (const Error&) {
      }
    }
    const int ran = run_mutated(tools::convert(models / name, options));
    MESSAGE(std::string(name), ": ", converted, " of 1000 mutated ONNX files and ", ran,
            " of 1000 mutated converted files ran");
    CHECK(converted > 0);
    CHECK(ran > 0);
  }
  fs::remove(file);
}

}  // namespace heed::test

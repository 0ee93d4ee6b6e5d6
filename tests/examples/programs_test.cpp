/// The examples' programs on the models of the build: what they print, and how they refuse.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <algorithm>
#include <cmath>
#include <sstream>

#include "tests/process.h"

namespace heed::test {
namespace {

namespace fs = std::filesystem;

const std::string build = HEED_BINARY_DIR "/", examples = HEED_SOURCE_DIR "/examples/";
const std::string prices = examples + "stock_forecast/sp500.csv", speech = examples + "voice_activity/speech_test.wav",
                  tokens = examples + "tiny_story/tok512.bin";

Outcome forecast(const std::vector<std::string>& arguments, const std::string& output = "") {
  return run(build + "forecast", arguments, "/dev/null", output);
}
Outcome voice_activity(const std::vector<std::string>& arguments, const std::string& output = "") {
  return run(build + "voice_activity", arguments, "/dev/null", output);
}
Outcome sentence_similarity(const std::vector<std::string>& arguments, const std::string& input = "/dev/null") {
  return run(build + "sentence_similarity", arguments, input);
}
Outcome tiny_story(std::vector<std::string> options, const std::string& output = "") {
  options.insert(options.begin(), {build + "tiny_story.heed", tokens});
  return run(build + "tiny_story", options, "/dev/null", output);
}

void save(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// What a refusal looks like: a line that says where and what, nothing else, and exit code 1.
void check_refusal(const Outcome& outcome, const std::string& text) {
  CAPTURE(text);
  CHECK(outcome.code == 1);
  CHECK(outcome.err == text + "\n");
}

/// Probabilities that two runtimes compute in float.
struct ProbabilityError {
  static constexpr double absolute = 1e-5;
};

}  // namespace

TEST_CASE("forecast: in C++ and in C") {
  for (const char* model : {"lstm_attention.heed", "transformer.heed"}) {
    const Outcome in_cpp = forecast({build + model, prices}), in_c = run(build + "forecast_c", {build + model, prices});
    CHECK(in_cpp.code == 0);
    CHECK(has(in_cpp.out, "hash: "));
    CHECK(in_cpp.out == in_c.out);
    CHECK(in_cpp.err == in_c.err);
  }
}

TEST_CASE("voice_activity finds the speech, with onnxruntime's probabilities") {
  const Folder folder;
  const Outcome outcome = voice_activity({build + "voice_activity.heed", speech, folder / "found.csv"});
  CHECK(outcome.code == 0);
  CHECK(outcome.out == load(examples + "voice_activity/expected.txt"));
  std::istringstream found(load(folder / "found.csv")), expected(load(examples + "voice_activity/expected.csv"));
  std::string line, wanted;
  std::getline(found, line), std::getline(expected, wanted);
  int frames = 0;
  for (; std::getline(found, line) && std::getline(expected, wanted); ++frames)
    CHECK(std::abs(std::stod(line.substr(line.find(',') + 1)) - std::stod(wanted)) <= ProbabilityError::absolute);
  CHECK(frames == 1875);
  CHECK(!std::getline(expected, wanted));
}

TEST_CASE("voice_activity refuses what is no recording of its kind, and reads others that are") {
  const Folder folder;
  const std::string wav = load(speech), path = folder / "a.wav", model = build + "voice_activity.heed";
  const auto with = [&](const std::string& bytes) {
    save(path, bytes);
    return voice_activity({model, path});
  };
  const auto changed = [&](size_t at, char byte) {
    std::string bytes = wav.substr(0, 20000);
    bytes[at] = byte;
    return bytes;
  };
  const std::string kind = path + ": has to be 16-bit PCM, one channel, 16 kHz";
  check_refusal(voice_activity({model, folder / "none.wav"}), folder / "none.wav: cannot be opened");
  check_refusal(voice_activity({model, folder.path.string()}), folder.path.string() + ": is empty, or no file");
  check_refusal(with(""), path + ": is empty, or no file");
  check_refusal(with("no recording at all"), path + ": is no wav file");
  check_refusal(with(changed(20, 3)), kind);     // float
  check_refusal(with(changed(22, 2)), kind);     // stereo
  check_refusal(with(changed(25, 0x1f)), kind);  // 8 kHz
  check_refusal(with(changed(34, 8)), kind);     // 8 bits
  check_refusal(with(wav.substr(0, 36)), path + ": has no samples");
  check_refusal(with(changed(36, 'D')), path + ": has no samples");
  for (size_t size = 1; size < 60; ++size) CHECK(with(wav.substr(0, size)).code == (size < 44 ? 1 : 0));
  // An odd chunk before the samples, and a stream's length.
  const Outcome plain = with(wav.substr(0, 20000));
  CHECK(plain.out == with(wav.substr(0, 36) + std::string("LIST\3\0\0\0abc\0", 12) + wav.substr(36, 20000 - 36)).out);
  CHECK(plain.out == with(wav.substr(0, 40) + "\xff\xff\xff\xff" + wav.substr(44, 20000 - 44)).out);
}

TEST_CASE("tiny_story tells the story of its model's page, letter by letter") {
  const std::string story = load(examples + "tiny_story/expected.txt");
  const Outcome outcome = tiny_story({});
  CHECK(outcome.code == 0);
  CHECK(outcome.out == story);
  CHECK(has(outcome.err, "256 tokens, "));
  // A prompt that the story begins with: the tokenizer makes the tokens that the model chose.
  for (const std::string end : {"Once", "time,", "Lily.", "ball.", "mom said", "can't find it."})
    CHECK(tiny_story({"--prompt", story.substr(0, story.find(end) + end.size())}).out == story);
  CHECK(story.starts_with(tiny_story({"--tokens", "20"}).out.substr(0, 40)));
}

TEST_CASE("tiny_story: characters without a token, chance, and the limits") {
  const std::string prompt = "Ada saw a \xe2\x98\x83, \xc3\xa9 \xff!";
  CHECK(tiny_story({"--prompt", prompt, "--tokens", "64"}).out.starts_with(prompt));
  const auto seeded = [](const char* seed) { return tiny_story({"--temperature", "1", "--seed", seed}).out; };
  CHECK(seeded("1") == seeded("1"));
  CHECK(seeded("1") != seeded("2"));
  CHECK(tiny_story({"--tokens", "512"}).code == 0);
  check_refusal(tiny_story({"--tokens", "513"}), "--tokens: is no number from 1 to 512");
  check_refusal(tiny_story({"--temperature", "hot"}), "--temperature: is no number from 0 to 100");
  check_refusal(tiny_story({"--prompt", "Once upon a time", "--tokens", "2"}),
                "--prompt: has more tokens than --tokens");
  CHECK(tiny_story({"--prompt"}).code == 2);
  CHECK(tiny_story({"--loud", "1"}).code == 2);
}

TEST_CASE("sentence_similarity: what is alike, and what is nearest") {
  const std::string model = build + "sentence_similarity.heed", vocabulary = build + "minilm/vocab.txt";
  if (!fs::exists(model) || !fs::exists(vocabulary)) {
    MESSAGE("skipped: `./dev demo sentence_similarity` makes the model");
    return;
  }
  const std::string sentences = examples + "sentence_similarity/sentences.txt";
  const Outcome outcome = sentence_similarity({model, vocabulary, sentences});
  CHECK(outcome.code == 0);
  CHECK(outcome.out == load(examples + "sentence_similarity/expected.txt"));
  CHECK(sentence_similarity({model, vocabulary}, sentences).out == outcome.out);
  const Outcome nearest = sentence_similarity({model, vocabulary, sentences, "--query", "stocks go down"});
  CHECK(has(nearest.out.substr(0, nearest.out.find('\n')), "The stock market fell sharply on Monday."));
  CHECK(std::ranges::count(nearest.out, '\n') == 5);
  const Folder folder;
  std::string line;
  for (int i = 0; i < 1000; ++i) line += "word ";  // is cut
  save(folder / "long.txt", line + "\n\n\r\n");
  const Outcome cut = sentence_similarity({model, vocabulary, folder / "long.txt"});
  CHECK(cut.code == 0);
  CHECK(has(cut.err, "256 tokens, "));
  check_refusal(sentence_similarity({model, vocabulary}), "standard input: has no sentence");
  check_refusal(sentence_similarity({model, tokens, sentences}), tokens + ": has no token [CLS]");
  check_refusal(sentence_similarity({model, folder / "none"}), folder / "none: cannot be opened");
  check_refusal(run(build + "sentence_similarity", {model, vocabulary, sentences}, "/dev/null", "/dev/full"),
                "standard output: cannot be written");
}

TEST_CASE("the programs refuse what is no model, or another's") {
  const Folder folder;
  const std::string path = folder / "a.heed", stock = build + "transformer.heed";
  save(path, load(stock).substr(0, 999));
  CHECK(voice_activity({path, speech}).code == 1);
  CHECK(has(voice_activity({prices, speech}).err, prices + ": not a model"));
  check_refusal(voice_activity({folder / "none", speech}), folder / "none: cannot be opened");
  check_refusal(voice_activity({stock, speech}), "input: the model has none of this type and size");
  for (const char* program : {"forecast", "forecast_c"}) {
    const Outcome outcome = run(build + program, {build + "voice_activity.heed", prices});
    CHECK(outcome.code == 1);
    CHECK(has(outcome.err, "batch"));
  }
  check_refusal(run(build + "tiny_story", {stock, tokens}), stock + ": has no cache that begins empty");
  check_refusal(sentence_similarity({stock, prices}), stock + ": has no dimension of two tokens and more");
  check_refusal(sentence_similarity({stock, prices, "--show", "all"}),
                "--show: is none of similarity, tokens, embeddings");
  const std::string story = build + "tiny_story.heed", tokenizer = folder / "b.bin";
  check_refusal(run(build + "tiny_story", {story, speech}), speech + ": is no tokenizer");
  for (const size_t size : {1, 8, 13, 700, 5074}) {
    save(tokenizer, load(tokens).substr(0, size));
    check_refusal(run(build + "tiny_story", {story, tokenizer}), tokenizer + ": is no tokenizer");
  }
  save(tokenizer, load(tokens) + std::string("\0\0\0\0\1\0\0\0x", 9));
  check_refusal(run(build + "tiny_story", {story, tokenizer}), "logits: the model has none of this type and size");
}

TEST_CASE("a full disk is noticed, on standard output too") {
  const std::string stock = build + "transformer.heed", voice = build + "voice_activity.heed";
  check_refusal(forecast({stock, prices, "/dev/full"}), "/dev/full: cannot be written");
  check_refusal(run(build + "forecast_c", {stock, prices, "/dev/full"}), "/dev/full: cannot be written");
  check_refusal(voice_activity({voice, speech, "/dev/full"}), "/dev/full: cannot be written");
  check_refusal(forecast({stock, prices}, "/dev/full"), "standard output: cannot be written");
  check_refusal(run(build + "forecast_c", {stock, prices}, "/dev/null", "/dev/full"),
                "standard output: cannot be written");
  check_refusal(voice_activity({voice, speech}, "/dev/full"), "standard output: cannot be written");
  check_refusal(tiny_story({}, "/dev/full"), "standard output: cannot be written");
}

}  // namespace heed::test

// Tells a story, a token at a time: the keys and values of all tokens so far are the session's state.
//
//     tiny_story MODEL.heed TOKENIZER.bin [--prompt TEXT] [--tokens 256] [--temperature 0] [--seed 1] [--isa ISA]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "examples/common/example.h"
#include "heed/sha256.h"

using namespace example;

namespace {

constexpr int32_t begin_of_text = 1, end_of_text = 2, first_byte = 3;  // tokens first_byte + b are the bytes b

/// Byte pair encoding. The file: the longest token's length, then of each token its score (float), its length and its
/// text, all little-endian.
class Tokenizer {
 public:
  explicit Tokenizer(const char* path) {
    size_t size;
    const std::unique_ptr<char, void (*)(void*)> file(static_cast<char*>(read_whole(path, &size)), std::free);
    const char* bytes = file.get();
    for (size_t at = 4; at != size;) {
      float score;
      int32_t length;
      if (size < at + 8) fail("is no tokenizer", path);
      std::memcpy(&score, bytes + at, 4), std::memcpy(&length, bytes + at + 4, 4);
      if (length < 0 || size - at - 8 < size_t(length)) fail("is no tokenizer", path);
      tokens_.push_back({score, {bytes + at + 8, size_t(length)}});
      if (tokens_.size() > size_t(first_byte) + 256) ids_.emplace(tokens_.back().text, int32_t(tokens_.size() - 1));
      at += 8 + size_t(length);
    }
    if (tokens_.size() < size_t(first_byte) + 256) fail("is no tokenizer", path);
  }

  size_t size() const { return tokens_.size(); }

  /// Characters, or bytes where no token is the character; then the two neighbours whose pair has the best score become
  /// one, until none has a token.
  std::vector<int32_t> encode(const std::string& text) const {
    std::vector<int32_t> ids{begin_of_text};
    const std::string spaced = text.empty() ? "" : " " + text;  // as in training, where every text began with a space
    for (size_t at = 0; at < spaced.size();) {
      size_t end = at + 1;
      while (end < spaced.size() && (uint8_t(spaced[end]) & 0xC0) == 0x80) ++end;  // bytes within a UTF-8 character
      if (const auto found = ids_.find(spaced.substr(at, end - at)); found != ids_.end())
        ids.push_back(found->second);
      else
        for (size_t i = at; i < end; ++i) ids.push_back(first_byte + uint8_t(spaced[i]));
      at = end;
    }
    for (;;) {
      float best = -std::numeric_limits<float>::infinity();
      size_t place = 0;
      int32_t pair = 0;
      for (size_t i = 1; i + 1 < ids.size(); ++i) {
        const auto found = ids_.find(tokens_[size_t(ids[i])].text + tokens_[size_t(ids[i + 1])].text);
        if (found == ids_.end() || tokens_[size_t(found->second)].score <= best) continue;
        best = tokens_[size_t(found->second)].score, place = i, pair = found->second;
      }
      if (place == 0) return ids;
      ids[place] = pair;
      ids.erase(ids.begin() + std::ptrdiff_t(place) + 1);
    }
  }

  std::string decode(int32_t before, int32_t id) const {
    if (first_byte <= id && id < first_byte + 256) return {char(id - first_byte)};
    const std::string& text = tokens_[size_t(id)].text;
    return before == begin_of_text && text.starts_with(' ') ? text.substr(1) : text;
  }

 private:
  struct Token {
    float score;
    std::string text;
  };
  std::vector<Token> tokens_;
  std::unordered_map<std::string, int32_t> ids_;
};

/// The likeliest token; above a temperature of 0 one by its probability, softmax(logits / temperature).
int32_t choose(std::span<const float> logits, float temperature, std::mt19937& random) {
  const auto largest = std::ranges::max_element(logits);
  if (temperature == 0) return int32_t(largest - logits.begin());
  std::vector<double> sums;  // of the probabilities so far, times a number
  double sum = 0;
  for (const float logit : logits) sums.push_back(sum += std::exp(double(logit - *largest) / double(temperature)));
  const double at = double(random()) * 0x1p-32 * sum;  // std's distributions differ between libraries
  return int32_t(std::ranges::upper_bound(sums, at) - sums.begin());
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv,
                            "tiny_story MODEL.heed TOKENIZER.bin [--prompt TEXT] [--tokens 256] [--temperature 0] "
                            "[--seed 1] [--isa ISA]",
                            2, 2, {"--prompt", "--tokens", "--temperature", "--seed", "--isa"});
  const char* path = arguments.file(0);
  heed::Session session = open_session(path, arguments.isa());
  const Tokenizer tokenizer(arguments.file(1));
  const auto cache = session.model().position();
  if (!cache || cache->lower != 0) fail("has no cache that begins empty", path);
  const int most = int(arguments.number("--tokens", 1, cache->capacity, std::min(256, cache->capacity)));
  const auto temperature = float(arguments.number("--temperature", 0, 100, 0));
  std::mt19937 random(uint32_t(arguments.number("--seed", 0, 4294967295, 1)));
  const char* prompt = arguments.option("--prompt");
  const std::vector<int32_t> given = tokenizer.encode(prompt == nullptr ? "" : prompt);
  if (given.size() > size_t(most)) fail("has more tokens than --tokens", "--prompt");

  heed::Sha256 hash;
  int32_t token = begin_of_text, position = 0;
  const auto start = std::chrono::steady_clock::now();
  for (; position < most; ++position) {
    expect(session.input<int32_t>("token"), 1, "token")[0] = token;           // [1, 1]
    expect(session.input<int32_t>("position"), 1, "position")[0] = position;  // [1, 1]
    require(session.run(), path);
    const auto logits = expect(session.output<float>("logits"), tokenizer.size(), "logits");  // [1, 1, tokens]
    hash.update(std::as_bytes(logits));
    const auto next = size_t(position) + 1;
    const int32_t chosen = next < given.size() ? given[next] : choose(logits, temperature, random);
    if (chosen == begin_of_text || chosen == end_of_text) break;
    const std::string text = tokenizer.decode(token, chosen);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) break;
    token = chosen;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::putchar('\n');
  close_written(stdout, "standard output");
  std::fprintf(stderr, "%d tokens, %.0f a second\narena: %zu bytes\nhash: %s\n", position, position / took.count(),
               size_t(session.model().memory().total()), hash.finish().hex().text);
}

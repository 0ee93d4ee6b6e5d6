// How alike are sentences? Each becomes 384 numbers, whose cosine says it.
//
//     sentence_similarity MODEL.heed VOCAB.txt [SENTENCES.txt] [--query TEXT] [--show similarity|tokens|embeddings]
//     [--isa ISA]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "examples/common/example.h"
#include "examples/sentence_similarity/wordpiece.h"
#include "heed/sha256.h"

using namespace example;

namespace {

/// A sentence a line; empty lines are none. Standard input where there is no path.
std::vector<std::string> read_sentences(const char* path) {
  std::ifstream file(path == nullptr ? "/dev/null" : path);
  if (!file) fail("cannot be opened", path);
  std::istream& stream = path == nullptr ? std::cin : file;
  std::vector<std::string> sentences;
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) sentences.push_back(line);
  }
  if (sentences.empty()) fail("has no sentence", path == nullptr ? "standard input" : path);
  return sentences;
}

using Embedding = std::vector<float>;  // of length 1

class Encoder {
 public:
  Encoder(const char* path, heed::Isa isa) : path_(path), session_(open_session(path, isa)) {
    for (uint32_t i = 0; i < session_.model().dimension_count(); ++i)
      if (const heed::Dimension tokens = session_.model().dimension(i); tokens.name == "tokens") most_ = tokens.upper;
    if (most_ < 2) fail("has no dimension of two tokens and more", path);
  }

  size_t most() const { return size_t(most_); }

  /// The mean over the tokens, one sentence at a time: so there is no padding that a mask would have to hide.
  Embedding operator()(std::span<const int32_t> tokens) {
    require(session_.resize("tokens", int32_t(tokens.size())), path_);
    std::ranges::copy(tokens, expect(session_.input<int32_t>("input_ids"), tokens.size(), "input_ids").begin());
    require(session_.run(), path_);
    const auto states = session_.output<float>("last_hidden_state");  // [1, tokens, size]
    if (states.empty() || states.size() % tokens.size() != 0)
      fail("the model has none of this type", "last_hidden_state");
    hash_.update(std::as_bytes(states));
    Embedding sum(states.size() / tokens.size());
    for (size_t i = 0; i < states.size(); ++i) sum[i % sum.size()] += states[i];
    const float length = std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0f));
    for (float& x : sum) x /= length;
    return sum;
  }

  void report(double seconds, size_t tokens) {
    std::fprintf(stderr, "%zu tokens, %.1f ms\narena: %zu bytes\nhash: %s\n", tokens, seconds * 1000,
                 size_t(session_.model().memory().total()), hash_.finish().hex().text);
  }

 private:
  const char* path_;
  heed::Session session_;
  heed::Sha256 hash_;
  int32_t most_ = 0;
};

float cosine(const Embedding& a, const Embedding& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0f);
}

void print_similarity(std::span<const std::string> sentences, std::span<const Embedding> embeddings) {
  for (size_t i = 0; i < sentences.size(); ++i) std::printf("%4zu  %s\n", i + 1, sentences[i].c_str());
  std::printf("\n    ");
  for (size_t i = 0; i < sentences.size(); ++i) std::printf("%6zu", i + 1);
  for (size_t i = 0; i < sentences.size(); ++i) {
    std::printf("\n%4zu", i + 1);
    for (size_t j = 0; j < sentences.size(); ++j) std::printf("%6.2f", double(cosine(embeddings[i], embeddings[j])));
  }
  std::printf("\n");
}

/// The five sentences that are most like the query.
void print_nearest(std::span<const std::string> sentences, std::span<const Embedding> embeddings,
                   const Embedding& query) {
  std::vector<std::pair<float, size_t>> nearest;
  for (size_t i = 0; i < sentences.size(); ++i) nearest.emplace_back(-cosine(embeddings[i], query), i);
  std::ranges::sort(nearest);
  nearest.resize(std::min<size_t>(nearest.size(), 5));
  for (const auto& [cosine, i] : nearest) std::printf("%6.3f  %s\n", double(-cosine), sentences[i].c_str());
}

template <class T>
void print_rows(std::span<const std::vector<T>> rows, const char* format) {
  for (const std::vector<T>& row : rows) {
    for (const T x : row) std::printf(format, x);
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv,
                            "sentence_similarity MODEL.heed VOCAB.txt [SENTENCES.txt] [--query TEXT] "
                            "[--show similarity|tokens|embeddings] [--isa ISA]",
                            2, 3, {"--query", "--show", "--isa"});
  const char *query = arguments.option("--query"), *shown = arguments.option("--show");
  const std::string_view show = shown == nullptr ? "similarity" : shown;
  if (show != "similarity" && show != "tokens" && show != "embeddings")
    fail("is none of similarity, tokens, embeddings", "--show");
  Encoder encoder(arguments.file(0), arguments.isa());
  const WordPiece word_piece(arguments.file(1));
  const std::vector<std::string> sentences = read_sentences(arguments.file(2));

  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& sentence : sentences) tokens.push_back(word_piece.encode(sentence, encoder.most()));
  if (show == "tokens") {
    print_rows<int32_t>(tokens, "%d ");
    close_written(stdout, "standard output");
    return 0;
  }
  const auto start = std::chrono::steady_clock::now();
  std::vector<Embedding> embeddings;
  size_t count = 0;
  for (const std::vector<int32_t>& row : tokens) embeddings.push_back(encoder(row)), count += row.size();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (show == "embeddings")
    print_rows<float>(embeddings, "%.9g ");
  else if (query != nullptr)
    print_nearest(sentences, embeddings, encoder(word_piece.encode(query, encoder.most())));
  else
    print_similarity(sentences, embeddings);
  close_written(stdout, "standard output");
  encoder.report(took.count(), count);
}

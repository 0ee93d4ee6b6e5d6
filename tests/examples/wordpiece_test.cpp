/// The tokenizer of the sentence example on a vocabulary of its own; check.py there compares it with the package
/// tokenizers.
#include "examples/sentence_similarity/wordpiece.h"

#include "tests/process.h"

namespace heed::test {

TEST_CASE("WordPiece tokens") {
  const Folder folder;
  const std::string path = folder / "vocab.txt";
  std::ofstream(path) << "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\nun\n##aff\n##able\n##a\ncafe\n!"
                         "\n\xe4\xb8\xad\n\xce\xb1\n\xe1\x84\x80\n##\xe1\x85\xa1\n";
  enum { unknown = 1, begin, end, un, aff, able, a, cafe, bang, middle, alpha, g, vowel_a };
  const WordPiece word_piece(path.c_str());
  const auto check = [&](const char* text, std::vector<int32_t> tokens, size_t most = 256) {
    CAPTURE(text);
    tokens.insert(tokens.begin(), begin), tokens.push_back(end);
    CHECK(word_piece.encode(text, most) == tokens);
  };
  check("", {});
  check(" \t\xc2\xa0", {});
  check("unaffable", {un, aff, able});
  check("unaffaa", {un, aff, a, a});
  check("unaffabl", {unknown});  // what is left of a word makes all of it unknown
  check("xyz cafe", {unknown, cafe});
  check("CAF\xc3\x89", {cafe});   // one character
  check("cafe\xcc\x81", {cafe});  // an accent of its own
  check(
      "ca\xe2\x80\x8b"
      "fe",
      {cafe});  // a space of no width
  check("cafe!cafe", {cafe, bang, cafe});
  check(
      "un\xe4\xb8\xad"
      "aff",
      {un, middle, unknown});
  check("\xe1\xbe\x8d", {alpha});       // with two accents and an iota below
  check("\xea\xb0\x80", {g, vowel_a});  // a Hangul syllable
  check(
      "\xff"
      "caf\xc3"
      "e\xe4\xb8",
      {cafe});                                  // no UTF-8
  check("[SEP]", {unknown, unknown, unknown});  // text, no token
  check("cafe ! un", {cafe}, 3);
  check("cafe", {}, 2);
  std::string longest = "un";
  while (longest.size() < 100) longest += 'a';
  CHECK(word_piece.encode(longest, 256).size() == 2 + 1 + 98);
  check((longest + "a").c_str(), {unknown});
}

}  // namespace heed::test

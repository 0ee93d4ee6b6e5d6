#pragma once
/// WordPiece tokens as BERT's uncased models want them, read from their vocab.txt: a token a line, its number that of
/// the line.
///
/// Text becomes small letters without accents; spaces part words, and each punctuation mark and ideograph is a word of
/// its own. A word is the longest token that it begins with, then the longest tokens, written with ## before them, that
/// go on.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "examples/common/files.h"
#include "examples/sentence_similarity/unicode.h"

class WordPiece {
 public:
  explicit WordPiece(const char* path) {
    std::ifstream file(path);
    if (!file) fail("cannot be opened", path);
    int32_t id = 0;
    for (std::string line; std::getline(file, line); ++id) {
      if (line.ends_with('\r')) line.pop_back();
      ids_.emplace(std::move(line), id);
    }
    for (const char* token : {"[CLS]", "[SEP]", "[UNK]"})
      if (!ids_.contains(token)) fail((std::string("has no token ") + token).c_str(), path);
    for (const unicode::Form& form : unicode::forms)
      for (const char32_t* c = form.characters; *c != 0; ++c) forms_[*c] = form.form;
  }

  /// [CLS], at most `most` - 2 tokens of the text, [SEP].
  std::vector<int32_t> encode(std::string_view text, size_t most) const {
    std::vector<int32_t> ids{ids_.at("[CLS]")};
    std::u32string word;
    const auto end_word = [&] {
      if (!word.empty()) add(word, ids);
      word.clear();
    };
    for (const char32_t c : normal(text)) {
      const bool alone = within(unicode::alone, c);
      if (alone || within(unicode::spaces, c)) end_word();
      if (within(unicode::spaces, c)) continue;
      word += c;
      if (alone) end_word();
    }
    end_word();
    ids.resize(std::min(ids.size(), most - 1));
    ids.push_back(ids_.at("[SEP]"));
    return ids;
  }

 private:
  static bool within(auto& ranges, char32_t c) {
    const auto after = std::ranges::upper_bound(ranges, c, {}, &unicode::Range::first);
    return after != std::ranges::begin(ranges) && c <= (after - 1)->last;
  }

  /// The characters of UTF-8 in their normal form. Bytes that are no UTF-8 are dropped.
  std::u32string normal(std::string_view text) const {
    std::u32string out;
    for (size_t at = 0; at < text.size();) {
      const auto lead = uint8_t(text[at++]);
      const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
      if (more < 0) continue;
      char32_t c = more == 0 ? lead : lead & (0x3F >> more);
      int read = 0;
      for (; read < more && at < text.size() && (uint8_t(text[at]) & 0xC0) == 0x80; ++read)
        c = c << 6 | (uint8_t(text[at++]) & 0x3F);
      if (read < more || within(unicode::gone, c)) continue;
      constexpr char32_t syllables = 0xAC00, leads = 0x1100, vowels = 0x1161, tails = 0x11A7;  // Hangul, by arithmetic
      if (const char32_t s = c - syllables; c >= syllables && s < 19 * 21 * 28) {
        out += {leads + s / (21 * 28), vowels + s / 28 % 21};
        if (s % 28 != 0) out += tails + s % 28;
      } else if (const auto form = forms_.find(c); form != forms_.end()) {
        out += form->second;
      } else {
        out += c;
      }
    }
    return out;
  }

  static void append(std::string& text, char32_t c) {
    const auto tail = [&](int shift) { text += char(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) return void(text += char(c));
    if (c < 0x800) return text += char(0xC0 | c >> 6), tail(0);
    if (c < 0x10000) return text += char(0xE0 | c >> 12), tail(6), tail(0);
    text += char(0xF0 | c >> 18), tail(12), tail(6), tail(0);
  }

  void add(std::u32string_view word, std::vector<int32_t>& ids) const {
    const size_t before = ids.size();
    constexpr size_t longest = 100;  // characters; BERT knows no longer words
    for (size_t begin = 0, end; begin < word.size(); begin = end) {
      std::string piece = begin > 0 ? "##" : "";
      int32_t id = -1;
      end = begin;
      for (size_t i = begin; i < word.size() && word.size() <= longest; ++i) {
        append(piece, word[i]);
        if (const auto found = ids_.find(piece); found != ids_.end()) id = found->second, end = i + 1;
      }
      if (id < 0) {
        ids.resize(before);
        return ids.push_back(ids_.at("[UNK]"));
      }
      ids.push_back(id);
    }
  }

  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<char32_t, const char32_t*> forms_;
};

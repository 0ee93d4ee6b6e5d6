#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heed {

/// Appends to a text of fixed size, cutting what does not fit.
class Writer {
 public:
  Writer(char* text, size_t size) : text_(text), size_(size) {}

  Writer& operator<<(std::string_view string) {
    // Names come from a file: control characters would reach a terminal. Those from 0x80 to 0x9f are bytes of their own
    // outside UTF-8, and 0xc2 followed by the byte inside it.
    while (!string.empty()) {
      const size_t length = character(string);
      for (const char c : length == 0 ? std::string_view("?") : std::string_view(string.data(), length)) put(c);
      string.remove_prefix(length == 0 ? 1 : length);
    }
    return *this;
  }
  Writer& operator<<(int64_t value) {
    char digits[20];
    int count = 0;
    uint64_t rest = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    do {
      digits[count++] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    if (value < 0) put('-');
    while (count > 0) put(digits[--count]);
    return *this;
  }

  bool full() const { return length_ + 1 >= size_; }
  /// Ends the text with a zero and returns its length without it.
  size_t finish() {
    if (size_ > 0) text_[length_] = 0;
    return length_;
  }

 private:
  /// The bytes of the printable UTF-8 character that `text` begins with; 0 where there is none.
  static size_t character(std::string_view text) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const unsigned first = byte(0);
    if (first < 0x80) return first >= 0x20 && first != 0x7f;
    const size_t length = first >= 0xc2 && first < 0xe0   ? 2
                          : first >= 0xe0 && first < 0xf0 ? 3
                          : first >= 0xf0 && first < 0xf5 ? 4
                                                          : 0;
    for (size_t i = 1; i < length; ++i)
      if ((byte(i) & 0xc0) != 0x80) return 0;
    return first == 0xc2 && byte(1) < 0xa0 ? 0 : length;
  }
  void put(char c) {
    if (!full()) text_[length_++] = c;
  }
  char* text_;
  size_t size_, length_ = 0;
};

}  // namespace heed

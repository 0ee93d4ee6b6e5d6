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
    // Names come from a file: control characters would reach a terminal.
    for (const char c : string) put(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c);
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
  void put(char c) {
    if (!full()) text_[length_++] = c;
  }
  char* text_;
  size_t size_, length_ = 0;
};

}  // namespace heed

#include "heed/status.h"

namespace heed {

const char* name(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid argument";
    case Code::misaligned:
      return "misaligned";
    case Code::arena_too_small:
      return "arena too small";
    case Code::index_out_of_range:
      return "index out of range";
    case Code::dimension_out_of_range:
      return "dimension out of range";
    case Code::constraint_broken:
      return "constraint broken";
    case Code::not_a_model:
      return "not a model";
    case Code::corrupt:
      return "corrupt";
    case Code::contract:
      return "contract";
    case Code::isa_unavailable:
      return "instruction set unavailable";
    case Code::too_large:
      return "too large";
  }
  return "unknown";
}

namespace {

/// Appends to a text of fixed size, cutting what does not fit.
class Writer {
 public:
  Writer(char* text, size_t size) : text_(text), size_(size) {}

  Writer& operator<<(const char* string) {
    // Names come from a file: control characters would reach a terminal.
    for (; *string != 0; ++string) put(static_cast<unsigned char>(*string) < 0x20 || *string == 0x7f ? '?' : *string);
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
  size_t finish() {
    if (size_ > 0) text_[length_] = 0;
    return length_;
  }

 private:
  void put(char c) {
    if (length_ + 1 < size_) text_[length_++] = c;
  }
  char* text_;
  size_t size_, length_ = 0;
};

}  // namespace

size_t Status::describe(char* text, size_t size) const {
  Writer out(text, size);
  out << name(code);
  if (what[0] != 0) out << ": " << what;
  if (operator_index >= 0 || tensor_index >= 0 || where[0] != 0) {
    const char* separator = " (";
    if (operator_index >= 0) {
      out << separator << "operator " << operator_index;
      separator = " ";
    }
    if (where[0] != 0) {
      out << separator << "'" << where << "'";
      separator = ", ";
    }
    if (tensor_index >= 0) out << (operator_index >= 0 ? ", " : separator) << "tensor " << tensor_index;
    out << ")";
  }
  if (has_values) out << ": found " << found << ", expected " << expected;
  return out.finish();
}

}  // namespace heed

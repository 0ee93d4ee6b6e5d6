#pragma once
/// What every example in C++ needs besides its own matter: a model's session, and the words of the command line.
#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "examples/common/files.h"
#include "heed/session.h"

namespace example {

inline void require(const heed::Status& status, const char* where) {
  char text[256];
  if (!status.ok()) status.describe(text, sizeof text), fail(text, where);
}

/// Files in their places, and options `--name value`. What a program does not take ends it, with its usage.
class Arguments {
 public:
  Arguments(int argc, char** argv, const char* usage, size_t least_files, size_t most_files,
            std::initializer_list<std::string_view> options) {
    bool right = true;
    for (int i = 1; i < argc && right; ++i) {
      const std::string_view word = argv[i];
      if (!word.starts_with("--"))
        files_.push_back(argv[i]);
      else if (right = std::ranges::find(options, word) != options.end() && i + 1 < argc; right)
        options_[word] = argv[++i];
    }
    if (right && least_files <= files_.size() && files_.size() <= most_files) return;
    std::fprintf(stderr, "usage: %s\n", usage);
    std::exit(2);
  }

  const char* file(size_t place) const { return place < files_.size() ? files_[place] : nullptr; }
  const char* option(std::string_view name) const {
    const auto found = options_.find(name);
    return found == options_.end() ? nullptr : found->second;
  }
  double number(const char* name, double low, double high, double otherwise) const {
    const char* text = option(name);
    if (text == nullptr) return otherwise;
    char *end, message[80];
    const double value = std::strtod(text, &end);
    std::snprintf(message, sizeof message, "is no number from %g to %g", low, high);
    if (end == text || *end != 0 || !(low <= value && value <= high)) fail(message, name);
    return value;
  }
  heed::Isa isa() const {
    const char* wanted = option("--isa");
    if (wanted == nullptr) return heed::best_isa();
    for (int i = 0; i < heed::isa_count; ++i)
      if (std::string_view(wanted) == heed::name(heed::Isa(i))) return heed::Isa(i);
    fail("no such instruction set", wanted);
  }

 private:
  std::vector<const char*> files_;
  std::map<std::string_view, const char*> options_;
};

/// The session of a model's file. The file's bytes are used in place; the arena is all the memory it will ever use.
/// Both stay until the program ends.
inline heed::Session open_session(const char* path, heed::Isa isa) {
  static std::byte *bytes, *arena;  // still pointed to when the program ends, for the leak sanitizer
  size_t size;
  bytes = static_cast<std::byte*>(read_whole(path, &size));
  const auto model = heed::Model::load({bytes, size});
  require(model.status(), path);
  const size_t arena_bytes = model->memory().total();
  arena = static_cast<std::byte*>(allocate_aligned(arena_bytes));
  auto session = heed::Session::create(*model, {arena, arena_bytes}, {.isa = isa});
  require(session.status(), path);
  return *session;
}

/// The elements of an input or output, of which a program that does not know its model expects `count`.
template <class T>
std::span<T> expect(std::span<T> elements, size_t count, const char* name) {
  if (elements.size() != count) fail("the model has none of this type and size", name);
  return elements;
}

}  // namespace example

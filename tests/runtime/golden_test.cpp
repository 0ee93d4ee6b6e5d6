// Files of earlier versions, tests/golden/<name>.heed, still load and give the same bits on every instruction set:
// <name>.hash holds the SHA-256 of their outputs for the inputs of fill_inputs(1), as 64 hexadecimal digits.
//
// Where the schema changes on purpose, HEED_WRITE_GOLDEN=1 heed_test_runtime -tc="golden files" writes the files of
// examples() and all hashes anew; a file that the converter made is first converted again.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "heed/sha256.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;
namespace fs = std::filesystem;

namespace {

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("golden files") {
  const fs::path folder = fs::path(HEED_SOURCE_DIR) / "tests" / "golden";
  const bool writing = std::getenv("HEED_WRITE_GOLDEN") != nullptr;
  if (writing)
    for (const Example& example : examples()) {
      const Bytes file = example.builder.bytes();
      std::ofstream(folder / (example.name + ".heed"), std::ios::binary)
          .write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
    }
  int found = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".heed") continue;
    ++found;
    CAPTURE(entry.path().filename().string());
    const std::string text = read(entry.path());
    Bytes file(text.size());
    std::memcpy(file.data(), text.data(), text.size());
    const auto model = Model::load(file);
    CAPTURE(describe(model.status()));
    REQUIRE(model);
    const fs::path beside = fs::path(entry.path()).replace_extension(".hash");
    for (int i = 0; i < isa_count; ++i) {
      if (!available(static_cast<Isa>(i))) continue;
      CAPTURE(name(static_cast<Isa>(i)));
      Bytes arena = arena_for(*model);
      auto session = Session::create(*model, arena, {.isa = static_cast<Isa>(i)});
      CAPTURE(describe(session.status()));
      REQUIRE(session);
      fill_inputs(*session, 1);
      REQUIRE(session->run().ok());
      Sha256 hash;
      hash.update(outputs_of(*session));
      const std::string digits = hash.finish().hex().text;
      if (writing && i == 0) std::ofstream(beside) << digits << "\n";
      CHECK(digits + "\n" == read(beside));
    }
  }
  CHECK(found >= 17);
}

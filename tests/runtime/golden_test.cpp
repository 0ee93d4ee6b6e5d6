// Files of earlier versions, tests/golden/<name>.heed, still load and give the same bits: <name>.hash holds the SHA-256
// of their outputs for the inputs of fill_inputs(1), as 64 hexadecimal digits.
#include <doctest/doctest.h>

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
  int found = 0;
  if (fs::exists(folder))
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
      std::string expected = read(fs::path(entry.path()).replace_extension(".hash"));
      expected.resize(std::min<size_t>(expected.size(), 64));
      for (int i = 0; i < isa_count; ++i) {
        if (!available(static_cast<Isa>(i))) continue;
        CAPTURE(name(static_cast<Isa>(i)));
        Bytes arena = arena_for(*model);
        auto session = Session::create(*model, arena, {.isa = static_cast<Isa>(i)});
        REQUIRE(session);
        fill_inputs(*session, 1);
        REQUIRE(session->run().ok());
        Sha256 hash;
        hash.update(outputs_of(*session));
        CHECK(std::string(hash.finish().hex().text) == expected);
      }
    }
  if (found == 0) MESSAGE("no golden files yet");
}

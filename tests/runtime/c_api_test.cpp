#include <doctest/doctest.h>

#include "heed/heed.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;

extern "C" int use_heed_from_c(const void* bytes, size_t size, void* arena, size_t arena_bytes, float* first,
                               float* second);

TEST_CASE("the C interface computes what the C++ interface does") {
  const Bytes file = elementwise_example().bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  Bytes arena(static_cast<size_t>(model->memory().total(2)));
  std::vector<float> first(3600), second(3600);
  CHECK(use_heed_from_c(file.data(), file.size(), arena.data(), arena.size(), first.data(), second.data()) == 0);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  const auto x = session->input<float>("x");
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) / 100 - 18;
  REQUIRE(session->run().ok());
  const auto y = session->output<float>("y");
  CHECK(std::equal(y.begin(), y.end(), first.begin()));
  CHECK(first == second);
}

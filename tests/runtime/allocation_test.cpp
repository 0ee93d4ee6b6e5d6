// No allocation between load and the hundredth run: every entry of the C library's allocator is counted.
#include <doctest/doctest.h>

#include "heed/threads.h"
#include "tests/runtime/allocations.h"
#include "tests/runtime/models.h"

#ifdef HEED_COUNTS_ALLOCATIONS

using namespace heed;
using namespace heed::test;

TEST_CASE("from load to the hundredth run nothing is allocated") {
  // The counter counts: new, aligned new and malloc end here.
  long before = allocations;
  const auto keep = [](const void* memory) {
    asm volatile("" : : "r"(memory) : "memory");
  };  // clang elides unused ones
  {
    const std::vector<int> some(3);
    keep(some.data());
  }
  {
    const Bytes some(3);
    keep(some.data());
  }
  CHECK(allocations - before == 4);

  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    Bytes arena(static_cast<size_t>(Model::load(file)->memory().total(2)));
    Threads pool(2);
    const std::string batch = "batch";
    before = allocations;
    const auto model = Model::load(file);
    auto session = Session::create(*model, arena, {.parallel = pool.parallel()});
    bool ok = session && session->resize(batch, 2).ok() && !session->resize(batch, 99).ok();
    for (int i = 0; i < 100 && ok; ++i) {
      for (uint32_t k = 0; k < model->input_count(); ++k) {
        const Tensor input = session->input(k);
        std::memset(input.data, 0, static_cast<size_t>(element_count(*input.shape)) * size_of(input.shape->type));
      }
      if (session->run().ok()) continue;
      session->reset();  // a state was full
      ok = session->run().ok();
    }
    session->reset();
    const long counted = allocations - before;
    CHECK(ok);
    CHECK(counted == 0);
  }
}

#endif

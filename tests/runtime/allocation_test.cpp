// No allocation between load and the hundredth run: every entry of the C library's allocator is counted.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>

#include "heed/threads.h"
#include "tests/runtime/models.h"

// The sanitizers bring an allocator of their own; glibc lets a program put its own in the place of the library's.
#if defined(__SANITIZE_ADDRESS__)
#define HEED_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEED_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(HEED_SANITIZED)

namespace {
std::atomic<long> calls{0};
}

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) {
  ++calls;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++calls;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  ++calls;
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++calls;
  return __libc_memalign(alignment, size);
}
void free(void* memory) {
  ++calls;
  __libc_free(memory);
}
}

using namespace heed;
using namespace heed::test;

TEST_CASE("from load to the hundredth run nothing is allocated") {
  // The counter counts: new, aligned new and malloc end here.
  long before = calls;
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
  CHECK(calls - before == 4);

  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    Bytes arena(static_cast<size_t>(Model::load(file)->memory().total(2)));
    Threads pool(2);
    const std::string batch = "batch";
    before = calls;
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
    const long counted = calls - before;
    CHECK(ok);
    CHECK(counted == 0);
  }
}

#endif

#include "heed/threads.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>

using namespace heed;

TEST_CASE("every task runs once, on a thread of its own at a time") {
  for (const uint32_t threads : {0u, 1u, 2u, 3u, 5u}) {
    CAPTURE(threads);
    Threads pool(threads);
    const Parallel parallel = pool.parallel();
    CHECK(parallel.threads == std::max(1u, threads));
    struct Seen {
      std::atomic<int> tasks[1000] = {};
      std::atomic<int> inside[8] = {};
      std::atomic<bool> alone{true};
    } seen;
    for (int round = 0; round < 200; ++round) {
      const uint32_t count = static_cast<uint32_t>(round * 7 % 1000);
      for (auto& task : seen.tasks) task = 0;
      parallel.call(
          parallel.pool, count,
          [](void* context, uint32_t index, uint32_t thread) {
            auto& all = *static_cast<Seen*>(context);
            if (all.inside[thread].fetch_add(1) != 0) all.alone = false;
            ++all.tasks[index];
            all.inside[thread].fetch_sub(1);
          },
          &seen);
      bool once = true;
      for (uint32_t i = 0; i < 1000; ++i) once = once && seen.tasks[i] == (i < count ? 1 : 0);
      CHECK(once);
    }
    CHECK(seen.alone);
  }
}

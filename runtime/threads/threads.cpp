#include "heed/threads.h"

#include <pthread.h>

#include <atomic>
#include <vector>

namespace heed {

// A run of tasks is published by counting `generation` up; workers look for it for a few microseconds, because the next
// operator mostly follows at once, and then sleep. Every worker takes part in every run (it may find no task left), and
// the caller returns when all have reported: so no worker can still look at an old run's tasks when the next one
// begins.
struct Threads::Pool {
  struct Worker {
    Pool* pool;
    uint32_t thread;
    pthread_t handle;
  };

  std::vector<Worker> workers;
  Parallel::Task task = nullptr;
  void* context = nullptr;
  uint32_t count = 0;
  bool stop = false;
  alignas(64) std::atomic<uint32_t> generation{0};
  alignas(64) std::atomic<uint32_t> next{0};
  alignas(64) std::atomic<uint32_t> busy{0};

  static constexpr int spins = 2000;

  /// Returns when `value` is no longer `old`.
  static void await_change(const std::atomic<uint32_t>& value, uint32_t old) {
    for (int i = 0; i < spins; ++i)
      if (value.load(std::memory_order_acquire) != old) return;
    value.wait(old, std::memory_order_acquire);
  }

  void work(uint32_t thread) {
    for (;;) {
      const uint32_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      task(context, index, thread);
    }
  }

  void call(uint32_t tasks, Parallel::Task function, void* argument) {
    task = function;
    context = argument;
    count = tasks;
    next.store(0, std::memory_order_relaxed);
    busy.store(static_cast<uint32_t>(workers.size()), std::memory_order_relaxed);
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
    work(0);
    for (uint32_t left; (left = busy.load(std::memory_order_acquire)) != 0;) await_change(busy, left);
  }

  static void* loop(void* argument) {
    auto& [pool, thread, handle] = *static_cast<Worker*>(argument);
    for (uint32_t seen = 0;; ++seen) {
      await_change(pool->generation, seen);
      if (pool->stop) return nullptr;
      pool->work(thread);
      if (pool->busy.fetch_sub(1, std::memory_order_acq_rel) == 1) pool->busy.notify_one();
    }
  }
};

Threads::Threads(uint32_t threads) : pool_(std::make_unique<Pool>()) {
  Pool& pool = *pool_;
  pool.workers.reserve(threads > 0 ? threads - 1 : 0);  // workers keep their addresses
  for (uint32_t thread = 1; thread < threads; ++thread) {
    pool.workers.push_back({&pool, thread, {}});
    if (pthread_create(&pool.workers.back().handle, nullptr, Pool::loop, &pool.workers.back()) != 0) {
      pool.workers.pop_back();
      break;
    }
  }
}

Threads::~Threads() {
  pool_->stop = true;
  pool_->generation.fetch_add(1, std::memory_order_release);
  pool_->generation.notify_all();
  for (Pool::Worker& worker : pool_->workers) pthread_join(worker.handle, nullptr);
}

Parallel Threads::parallel() {
  return {[](void* pool, uint32_t count, Parallel::Task task, void* context) {
            static_cast<Pool*>(pool)->call(count, task, context);
          },
          pool_.get(), static_cast<uint32_t>(pool_->workers.size()) + 1};
}

}  // namespace heed

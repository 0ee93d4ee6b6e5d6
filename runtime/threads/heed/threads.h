#pragma once
/// A pool of threads for Options::parallel. Host code: the pool is made up front, and nothing is allocated while a
/// model runs.
///
///     heed::Threads pool(4);
///     auto session = heed::Session::create(*model, arena, {.parallel = pool.parallel()});
#include <cstdint>
#include <memory>

#include "kernels/operator.h"

namespace heed {

class Threads {
 public:
  /// `threads` counts the caller's. Where the system refuses some, there are fewer: see parallel().threads.
  explicit Threads(uint32_t threads);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  /// Borrows the pool: it outlives the sessions, and one session at a time runs on it.
  Parallel parallel();

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace heed

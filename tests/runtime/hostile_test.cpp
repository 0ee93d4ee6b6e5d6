// Bytes that are no model, or nearly one: rejected, or run inside their bounds. The sanitizers' build watches.
#include <doctest/doctest.h>

#include <chrono>

#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;

namespace {

/// Loads, creates and runs as far as it goes; true where it ran.
bool attempt(std::span<const std::byte> file) {
  const auto model = Model::load(file);
  char text[256];
  CHECK(model.status().describe(text, sizeof text) > 0);
  if (!model || model->memory().total() > 1 << 24) return false;
  for (uint32_t i = 0; i < model->expression_count(); ++i) (void)model->write_expression(i, text, sizeof text);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  CHECK(session.status().describe(text, sizeof text) > 0);
  if (!session) return false;
  fill_inputs(*session, 1);
  const Status status = session->run();
  CHECK((status.ok() || status.code == Code::index_out_of_range || status.code == Code::state_full));
  for (int i = 0; i < 12 && session->run().ok(); ++i) fill_inputs(*session, 3);
  session->reset();
  for (uint32_t i = 0; i < model->dimension_count(); ++i) {
    const Dimension dimension = model->dimension(i);
    if (session->resize(dimension.name, dimension.lower).ok()) {
      fill_inputs(*session, 2);
      (void)session->run();
    }
  }
  return status.ok();
}

}  // namespace

TEST_CASE("a truncated file is rejected at every length") {
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    for (size_t size = 0; size < file.size(); size += 64) {
      Bytes part(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
      CHECK(!Model::load(part));
      // The same with a length that agrees.
      Builder shorter = example.builder;
      shorter.file_bytes = size;
      Bytes agreeing = shorter.bytes();
      agreeing.resize(size);
      CHECK(!Model::load(agreeing));
    }
  }
}

TEST_CASE("mutated files never leave their bounds") {
  uint32_t state = 12345;
  const auto random = [&](uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return static_cast<uint32_t>((uint64_t{state >> 4} * below) >> 28);
  };
  int ran = 0, refused = 0;
  const auto start = std::chrono::steady_clock::now();
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    const size_t tables =
        example.builder.constants.empty() ? file.size() : file.size() - example.builder.constants.size();
    for (int round = 0; round < 1000; ++round) {
      Bytes mutated = file;
      const uint32_t changes = 1 + random(4);
      for (uint32_t i = 0; i < changes; ++i) {
        const size_t at = random(static_cast<uint32_t>(tables));
        switch (random(3)) {
          case 0:
            mutated[at] = static_cast<std::byte>(random(256));
            break;
          case 1:
            mutated[at] ^= static_cast<std::byte>(1u << random(8));
            break;
          case 2: {
            // A whole number, small or at a limit.
            const uint32_t values[] = {
                0, 1, 2, 7, 64, 0x7fffffff, 0x80000000, 0xffffffff, static_cast<uint32_t>(file.size())};
            const uint32_t value = values[random(9)];
            if (at / 4 * 4 + 4 <= tables) std::memcpy(&mutated[at / 4 * 4], &value, 4);
            break;
          }
        }
      }
      (attempt(mutated) ? ran : refused) += 1;
    }
  }
  MESSAGE("mutations: ", ran, " ran, ", refused, " were refused");
  CHECK(refused > ran / 10);
  CHECK(ran > 0);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::minutes(5));
}

TEST_CASE("an arena that grows step by step is refused until it is large enough") {
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    const auto model = Model::load(file);
    REQUIRE(model);
    for (const uint32_t threads : {1u, 3u}) {
      const uint64_t total = model->memory().total(threads);
      CHECK(total % 64 == 0);
      Options options;
      options.parallel.threads = threads;
      for (uint64_t size = 0;; size += 64) {
        REQUIRE(size <= total);
        Bytes arena(static_cast<size_t>(size));  // of its own, so that the sanitizers see its end
        auto session = Session::create(*model, arena, options);
        CHECK(static_cast<bool>(session) == (size == total));
        if (session) {
          fill_inputs(*session, 1);
          CHECK(session->run().ok());
          break;
        }
        CHECK(session.status().code == Code::arena_too_small);
      }
    }
  }
}

TEST_CASE("nothing is written outside the arena") {
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Bytes file = example.builder.bytes();
    const auto model = Model::load(file);
    REQUIRE(model);
    const auto total = static_cast<size_t>(model->memory().total());
    Bytes guarded(total + 2 * 64, std::byte{0xa5});
    auto session = Session::create(*model, std::span(guarded).subspan(64, total));
    REQUIRE(session);
    fill_inputs(*session, 1);
    REQUIRE(session->run().ok());
    for (size_t i = 0; i < 64; ++i) {
      CHECK(guarded[i] == std::byte{0xa5});
      CHECK(guarded[64 + total + i] == std::byte{0xa5});
    }
  }
}

TEST_CASE("a file that asks for much work is refused quickly") {
  Builder b = chain_example(1);
  for (int i = 0; i < 16383; ++i) {
    b.operators.push_back(b.operators[0]);
    b.operators.back().scratch = -1;
  }
  b.buffers[0].last = 16384;
  for (uint32_t i = 0; i < 30000; ++i) b.buffers.push_back({10 + i, 64, i / 2, std::min(16384u, i / 2 + 600)});
  b.lower_bound = 0;
  const Bytes file = b.bytes();
  const auto start = std::chrono::steady_clock::now();
  const auto model = Model::load(file);
  CAPTURE(describe(model.status()));
  REQUIRE(model);
  Bytes arena = arena_for(*model);
  CHECK(!Session::create(*model, arena));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

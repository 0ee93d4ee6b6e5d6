// State: carried, full, reset, and every refusal of its tables.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "heed/heed.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;
using format::Expression;

namespace {

struct Running {
  Bytes file, arena;
  Result<Model> model;
  Result<Session> session;

  explicit Running(const Builder& builder)
      : file(builder.bytes()), model(Model::load(file)), session(Status{Code::invalid_argument}) {
    CAPTURE(describe(model.status()));
    REQUIRE(model);
    arena = Bytes(static_cast<size_t>(model->memory().total()), std::byte{0xff});
    session = Session::create(*model, arena);
    CAPTURE(describe(session.status()));
    REQUIRE(session);
  }
};

/// The outputs of the example's run at a position, when `h` and `rows` are what the runs before left.
struct Expected {
  std::vector<float> h, rows;

  void step(std::span<const float> x, int position) {
    for (size_t i = 0; i < h.size(); ++i) h[i] = std::fma(static_cast<float>(position), x[i], h[i]);
    rows.insert(rows.end(), h.begin(), h.begin() + 16);
  }
};

Status refusal(const Builder& builder) {
  const Bytes file = builder.bytes();
  const auto model = Model::load(file);
  if (!model) return model.status();
  Bytes arena = arena_for(*model);
  return Session::create(*model, arena).status();
}

void refused(Builder builder, const std::function<void(Builder&)>& change, Code code, const std::string& what,
             int64_t found = 0, int64_t expected = 0) {
  INFO(what);
  change(builder);
  const Status status = refusal(builder);
  CAPTURE(describe(status));
  CHECK(name(status.code) == std::string(name(code)));
  CHECK(status.what == what);
  CHECK(status.found == found);
  CHECK(status.expected == expected);
}

using B = Builder;

}  // namespace

TEST_CASE("a session carries its state until it is full") {
  Running running(state_example());
  Session& session = *running.session;
  CHECK(running.model->memory().state == 896);
  REQUIRE(running.model->state_count() == 2);
  CHECK(running.model->state(1).name == "rows");
  CHECK(running.model->input_count() == 1);
  const auto range = running.model->position();
  REQUIRE(range);
  CHECK((range->lower == 0 && range->upper == 7 && range->name == "past"));
  CHECK(session.dimension("past") == -1);
  CHECK(session.resize("past", 3).code == Code::invalid_argument);

  for (int round = 0; round < 2; ++round) {
    Expected expected;
    const auto* h0 = reinterpret_cast<const float*>(running.file.data() + running.model->state(0).constant_offset);
    expected.h.assign(h0, h0 + 6 * 16);
    for (int position = 0; position < 8; ++position) {
      CHECK(session.position() == position);
      fill_inputs(session, static_cast<uint32_t>(position));
      expected.step(session.input<float>("x"), position);
      REQUIRE(session.run().ok());
      CHECK(std::ranges::equal(session.output<float>("y"), expected.h));
      for (size_t i = 0; i < 16; ++i) {
        float sum = 0;
        for (size_t row = 0; row < expected.rows.size() / 16; ++row) sum += expected.rows[row * 16 + i];
        CHECK(session.output<float>("total")[i] == doctest::Approx(sum));
      }
    }
    // Full: refused before anything changes.
    const Bytes before = running.arena;
    const Status status = session.run();
    CHECK(status.code == Code::state_full);
    CHECK(status.where == std::string("past"));
    CHECK((status.found == 8 && status.expected == 7));
    CHECK(running.arena == before);
    CHECK(describe(status).find("state full") == 0);
    session.reset();
    CHECK(session.position() == 0);
  }
}

TEST_CASE("resize keeps the state, and a bad index leaves it") {
  Running running(state_example());
  Session& session = *running.session;
  fill_inputs(session, 1);
  REQUIRE(session.run().ok());
  const std::vector<float> before(session.output<float>("y").begin(), session.output<float>("y").end());
  REQUIRE(session.resize("batch", 2).ok());
  CHECK(session.position() == 1);
  std::ranges::fill(session.input<float>("x"), 0.0f);
  REQUIRE(session.run().ok());
  CHECK(std::equal(before.begin(), before.begin() + 32, session.output<float>("y").begin()));
  CHECK(session.resize("batch", 7).code == Code::dimension_out_of_range);
  CHECK(session.position() == 2);

  Builder b = state_example();
  b.input(b.tensor("index", Type::i32, {b.size(1)}, b.buffer(4, 0, 0)));
  b.checks.push_back({1, b.size(1)});
  plan(b);
  Running checked(b);
  fill_inputs(*checked.session, 1);
  checked.session->input<int32_t>("index")[0] = 5;
  CHECK(checked.session->run().code == Code::index_out_of_range);
  CHECK(checked.session->position() == 0);
}

TEST_CASE("a constraint of the position ends the runs") {
  Builder b = state_example();
  // Of the expressions only the last ones mention the position: past + 1 <= 3.
  b.constraints.push_back({format::Relation::less_equal, b.position->expressions + 1, b.size(1), "past + 1 <= 1"});
  Running running(b);
  fill_inputs(*running.session, 1);
  REQUIRE(running.session->run().ok());
  const Status status = running.session->run();
  CHECK(status.code == Code::state_full);
  CHECK(status.where == std::string("past + 1 <= 1"));
  CHECK(running.session->position() == 1);
  running.session->reset();
  CHECK(running.session->run().ok());

  b.constraints.back().right = b.size(0);
  CHECK(refusal(b).what == std::string("no position leaves room for a run"));
  CHECK(refusal(b).code == Code::constraint_broken);
}

TEST_CASE("an input may have the size of the position") {
  Builder b = state_example();
  const uint32_t past = b.position->expressions;
  b.buffers[static_cast<size_t>(b.tensors[b.inputs[0].tensor].buffer)].capacity = 1024;
  const int32_t mask = b.tensor("mask", Type::f32, {past + 1}, b.buffer(8 * 4, 0, 4));
  b.input(mask);
  plan(b);
  Running running(b);
  for (size_t position = 0; position < 8; ++position) {
    CHECK(running.session->input<float>("mask").size() == position + 1);
    REQUIRE(running.session->run().ok());
  }
  running.session->reset();
  CHECK(running.session->input<float>("mask").size() == 1);
}

TEST_CASE("tables of a state that are wrong") {
  const Builder good = state_example();
  REQUIRE(refusal(good).ok());
  const auto first = static_cast<int64_t>(good.position->expressions);
  const auto tensors = static_cast<int64_t>(good.position->tensors), count = static_cast<int64_t>(good.tensors.size());
  const auto expressions = static_cast<int64_t>(good.expressions.size());
  const Code corrupt = Code::corrupt;
  refused(
      good, [](B& b) { b.position->lower = -1; }, corrupt, "the position's lower bound is negative", -1, 0);
  refused(
      good, [](B& b) { b.position->lower = 8; }, corrupt, "the position's bounds are crossed", 8, 7);
  refused(
      good, [](B& b) { b.position->expressions = 1000; }, corrupt, "no such expression", 1000, expressions);
  refused(
      good, [](B& b) { b.position->tensors = 1000; }, corrupt, "no such tensor", 1000, count);
  refused(
      good, [&](B& b) { b.position->step = b.position->expressions; }, corrupt,
      "what a run adds depends on the position", first, first);
  refused(
      good, [](B& b) { b.position->upper = 1 << 24; }, corrupt, "there are too many positions", (1 << 24) + 1,
      (1 << 24) / (expressions - first + count - tensors + 4));
  refused(
      good, [](B& b) { b.position.reset(); }, corrupt, "an expression names a position that there is not");
  refused(
      good, [&](B& b) { b.position->expressions += 1; }, corrupt,
      "an expression of the position stands among the others", first, first + 1);
  refused(
      good, [](B& b) { b.position->tensors += 1; }, corrupt, "a tensor of the position stands among the others", first,
      first);
  refused(
      good, [](B& b) { b.state = 32; }, corrupt, "the state is no multiple of 64", 32, 0);
  refused(
      good, [](B& b) { b.state = 448; }, corrupt, "a buffer lies in both state and workspace", 896, 448);
  refused(
      good, [](B& b) { b.buffers[0].last = 3; }, corrupt, "a state does not live to the end", 3, 4);
  refused(
      good, [](B& b) { b.buffers[0].first = 1; }, corrupt, "a state does not live from the start", 1, 0);
  refused(
      good, [](B& b) { b.states[0].tensor = 1000; }, corrupt, "no such tensor", 1000, count);
  refused(
      good, [](B& b) { b.states[0].tensor = 0; }, corrupt, "a state lies in the workspace");
  refused(
      good, [](B& b) { b.states[0].constant_bytes = 512; }, corrupt, "a constant ends behind the file",
      static_cast<int64_t>(good.bytes().size()) + 128, static_cast<int64_t>(good.bytes().size()));
  refused(
      good,
      [](B& b) {
        b.states[0].constant_bytes = 448;
        b.constants.resize(512);
      },
      corrupt, "a state's first value is larger than the state", 448, 384);
  refused(
      good, [](B& b) { b.states.resize(1025, b.states[0]); }, corrupt, "too many states", 1025, 1024);
  refused(
      good, [](B& b) { b.workspace = 0; }, corrupt, "the workspace is not the largest end of a buffer", 0, 768);
  // Known only with values.
  refused(
      good, [](B& b) { b.expressions[b.position->step] = format::ExpressionNode(Expression::constant, -1, 0); },
      corrupt, "a run takes positions away", -1, 0);
  // A position past the storage is found before any run.
  refused(
      good, [](B& b) { b.position->upper = 8; }, corrupt, "a tensor is larger than its storage", 144, 128);
}

TEST_CASE("state through the C interface") {
  Running running(state_example());
  heed_model model;
  heed_session session;
  REQUIRE(heed_model_load(&model, running.file.data(), running.file.size()).code == HEED_OK);
  REQUIRE(heed_session_create(&session, &model, running.arena.data(), running.arena.size(), nullptr).code == HEED_OK);
  int32_t upper = 0;
  CHECK(heed_session_position(&session, &upper) == 0);
  CHECK(upper == 7);
  for (int i = 0; i < 8; ++i) CHECK(heed_session_run(&session).code == HEED_OK);
  CHECK(heed_session_run(&session).code == HEED_STATE_FULL);
  CHECK(heed_session_position(&session, nullptr) == 8);
  heed_session_reset(&session);
  CHECK(heed_session_position(&session, nullptr) == 0);
  heed_session empty{};
  heed_session_reset(&empty);
  CHECK(heed_session_position(&empty, &upper) == -1);
  CHECK(upper == -1);
}

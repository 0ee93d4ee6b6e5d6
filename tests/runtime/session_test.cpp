// Models run: the same bits as the kernels called directly, on every instruction set and number of threads.
#include "heed/session.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "heed/threads.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;

namespace {

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (int i = 0; i < isa_count; ++i)
    if (available(static_cast<Isa>(i))) all.push_back(static_cast<Isa>(i));
  return all;
}

std::vector<int32_t> dimensions_of(const Session& session) {
  std::vector<int32_t> values;
  for (uint32_t i = 0; i < session.model().dimension_count(); ++i)
    values.push_back(session.dimension(session.model().dimension(i).name));
  return values;
}

}  // namespace

TEST_CASE("outputs are those of the kernels") {
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Builder& builder = example.builder;
    const Bytes file = builder.bytes();
    const auto model = Model::load(file);
    CAPTURE(describe(model.status()));
    REQUIRE(model);
    std::vector<std::byte> portable;
    for (const Isa isa : isas()) {
      CAPTURE(name(isa));
      for (uint32_t threads = 1; threads <= 3; ++threads) {
        CAPTURE(threads);
        Threads pool(threads);
        Bytes arena = arena_for(*model, threads);
        auto session = Session::create(*model, arena, {isa, pool.parallel()});
        CAPTURE(describe(session.status()));
        REQUIRE(session);
        for (const int32_t batch : {6, 1, 3}) {
          CAPTURE(batch);
          REQUIRE(session->resize("batch", batch).ok());
          session->reset();
          fill_inputs(*session, 42);
          const std::vector<std::byte> expected = direct(builder, *session, dimensions_of(*session), isa);
          REQUIRE(session->run().ok());
          const std::vector<std::byte> found = outputs_of(*session);
          CHECK(found == expected);
          // The second run is as the first.
          session->reset();
          fill_inputs(*session, 42);
          REQUIRE(session->run().ok());
          CHECK(outputs_of(*session) == found);
          if (batch != 3) continue;
          if (portable.empty()) portable = found;
          CHECK(found == portable);
        }
      }
    }
  }
}

TEST_CASE("the ceiling chooses the variant") {
  const Bytes file = block_example().bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  for (const Isa isa : isas()) {
    const auto session = Session::create(*model, arena, {.isa = isa});
    REQUIRE(session);
    for (uint32_t i = 0; i < model->operator_count(); ++i)
      CHECK(session->variant(i) == operator_of(model->operator_info(i).kind).variant(isa));
  }
  const auto session = Session::create(*model, arena, {.isa = Isa::portable});
  for (uint32_t i = 0; i < model->operator_count(); ++i) CHECK(session->variant(i) == Isa::portable);
}

TEST_CASE("inputs and outputs by name and type") {
  const Bytes file = elementwise_example().bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  CHECK(session->input<float>("x").size() == 3600);
  CHECK(session->input<float>("y").empty());
  CHECK(session->input<int32_t>("x").empty());
  CHECK(session->output<float>("x").empty());
  CHECK(session->output<float>("y").size() == 3600);
  CHECK(session->output<uint8_t>("negative").size() == 3600);
  CHECK(session->output<int8_t>("negative").empty());
  CHECK(!session->input("z"));
  CHECK(session->input("x").data == session->input(0).data);
  CHECK(session->output("negative").shape == session->output(1).shape);
  CHECK(session->dimension("batch") == 6);
  CHECK(session->dimension("tokens") == -1);
  REQUIRE(session->resize("batch", 2).ok());
  CHECK(session->input<float>("x").size() == 1200);
  CHECK(session->dimension("batch") == 2);
}

TEST_CASE("a resize commits whole or not at all") {
  const Bytes file = block_example().bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  const auto result = [&] {
    fill_inputs(*session, 3);
    CHECK(session->run().ok());
    return outputs_of(*session);
  };
  const Session::Setting smaller[] = {{"batch", 2}, {"tokens", 5}};
  REQUIRE(session->resize(smaller).ok());
  const auto before = result();
  CHECK(before.size() == 2 * 5 * 16 * 4);
  CHECK(session->value(model->operator_info(1).macs) == 2 * 5 * 16 * 48);

  const Session::Setting half[] = {{"batch", 3}, {"tokens", 10}};
  const Session::Setting unknown[] = {{"batch", 3}, {"wide", 1}};
  CHECK(session->resize(half).code == Code::dimension_out_of_range);
  CHECK(session->resize(unknown).code == Code::invalid_argument);
  CHECK(session->dimension("batch") == 2);
  CHECK(session->dimension("tokens") == 5);
  CHECK(result() == before);
  CHECK(session->value(model->operator_info(1).macs) == 2 * 5 * 16 * 48);
}

TEST_CASE("a resize that breaks a constraint or a capacity leaves the session as it was") {
  Builder builder = block_example();
  builder.dimensions[1].upper = 1000;
  const Bytes file = builder.bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  fill_inputs(*session, 3);
  REQUIRE(session->run().ok());
  const auto before = outputs_of(*session);
  Status status = session->resize("tokens", 10);
  CHECK(status.code == Code::constraint_broken);
  CHECK(status.where == std::string("batch * tokens <= 54"));
  CHECK(status.found == 60);
  CHECK(status.expected == 54);
  fill_inputs(*session, 3);
  REQUIRE(session->run().ok());
  CHECK(outputs_of(*session) == before);

  // Without the constraint the buffers are what stops it.
  builder.constraints.clear();
  const Bytes lax = builder.bytes();
  const auto lax_model = Model::load(lax);
  Bytes lax_arena = arena_for(*lax_model);
  auto lax_session = Session::create(*lax_model, lax_arena);
  REQUIRE(lax_session);
  status = lax_session->resize("tokens", 1000);
  CHECK(status.code == Code::corrupt);
  CHECK(status.what == std::string("a tensor is larger than its storage"));
  CHECK(status.where == std::string("ids"));
  CHECK(lax_session->dimension("tokens") == 9);
  fill_inputs(*lax_session, 3);
  REQUIRE(lax_session->run().ok());
  CHECK(outputs_of(*lax_session) == before);
}

TEST_CASE("two sessions of one model do not disturb each other") {
  const Bytes file = block_example().bytes();
  const auto model = Model::load(file);
  Bytes first_arena = arena_for(*model), second_arena = arena_for(*model);
  auto first = Session::create(*model, first_arena), second = Session::create(*model, second_arena);
  REQUIRE(first);
  REQUIRE(second);
  REQUIRE(second->resize("batch", 1).ok());
  fill_inputs(*first, 1);
  fill_inputs(*second, 2);
  REQUIRE(first->run().ok());
  const auto expected = outputs_of(*first);
  REQUIRE(second->run().ok());
  CHECK(outputs_of(*first) == expected);
  // An arena can be used again.
  auto again = Session::create(*model, second_arena);
  REQUIRE(again);
  fill_inputs(*again, 1);
  REQUIRE(again->run().ok());
  CHECK(outputs_of(*again) == expected);
}

TEST_CASE("observers see every output, attention's weights and the end of each operator") {
  const Bytes file = block_example().bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  struct Seen {
    std::vector<uint32_t> outputs, after;
    int rows = 0;
    bool normalised = true;
    std::vector<std::byte> last;
  } seen;
  Observer observer;
  observer.context = &seen;
  observer.output = [](void* context, uint32_t index, uint32_t output, const Tensor& value) {
    auto& all = *static_cast<Seen*>(context);
    CHECK(output == 0);
    all.outputs.push_back(index);
    all.last.assign(value.data, value.data + element_count(*value.shape) * size_of(value.shape->type));
  };
  observer.after = [](void* context, uint32_t index) { static_cast<Seen*>(context)->after.push_back(index); };
  observer.weights = [](void* context, uint32_t index, int batch, int head, int query, std::span<const float> weights) {
    auto& all = *static_cast<Seen*>(context);
    CHECK(index == 2);
    CHECK((batch >= 0 && batch < 6 && head >= 0 && head < 2 && query >= 0 && query < 9));
    CHECK(weights.size() == 9);
    float sum = 0;
    for (const float weight : weights) sum += weight;
    all.normalised = all.normalised && std::abs(sum - 1) < 1e-5f;
    ++all.rows;
  };
  fill_inputs(*session, 5);
  REQUIRE(session->run().ok());
  const auto expected = outputs_of(*session);
  CHECK(seen.after.empty());
  session->observe(&observer);
  fill_inputs(*session, 5);
  REQUIRE(session->run().ok());
  CHECK(outputs_of(*session) == expected);
  const std::vector<uint32_t> all{0, 1, 2, 3, 4, 5};
  CHECK(seen.outputs == all);
  CHECK(seen.after == all);
  CHECK(seen.rows == 6 * 2 * 9);
  CHECK(seen.normalised);
  CHECK(seen.last == expected);
  session->observe(nullptr);
  fill_inputs(*session, 5);
  REQUIRE(session->run().ok());
  CHECK(seen.after == all);
}

TEST_CASE("NaNs are canonical at outputs, subnormals are zeros, the caller's float mode stays") {
  const Bytes file = chain_example(2).bytes();
  const auto model = Model::load(file);
  Bytes arena = arena_for(*model);
  const volatile float smallest = std::numeric_limits<float>::denorm_min();
  for (const Isa isa : isas()) {
    CAPTURE(name(isa));
    auto session = Session::create(*model, arena, {.isa = isa});
    REQUIRE(session);
    fill_inputs(*session, 1);
    const auto x = session->input<float>("x");
    const uint32_t nan = 0xffc12345u;
    std::memcpy(&x[3], &nan, sizeof nan);
    x[5] = -std::numeric_limits<float>::infinity();
    REQUIRE(session->run().ok());
    const auto y = session->output<float>("x");
    uint32_t bits;
    std::memcpy(&bits, &y[3], sizeof bits);
    CHECK(bits == 0x7fc00000u);
    CHECK(y[5] == -std::numeric_limits<float>::infinity());
    CHECK(smallest * 2 > 0);  // not flushed here
  }
}

TEST_CASE("where there is no element, strides mean nothing") {
  Builder b;
  const uint32_t batch = b.dimension("batch", 0, 1, 0), n = b.size(16), wild = b.size(INT32_MAX);
  const int32_t storage = b.buffer(64, 0, 0);
  const int32_t x = b.tensor("x", Type::f32, {batch, n}, storage);
  const int32_t view = b.view("x, wild", x, {batch, n}, {wild, wild}, b.size(0));
  const int32_t y = b.tensor("y", Type::f32, {batch, n}, b.buffer(64, 0, 1));
  b.add("copy", OperatorKind::copy, Builder::pack(CopyParams{}), {view}, {y});
  b.input(x);
  b.output(y);
  plan(b);
  const Bytes file = b.bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  CAPTURE(describe(session.status()));
  REQUIRE(session);
  CHECK(session->run().ok());
  CHECK(session->tensor(static_cast<uint32_t>(view)).shape->strides[0] == 16);
  CHECK(!session->resize("batch", 1).ok());
}

TEST_CASE("a model without operators gives its input back") {
  Builder b;
  b.dimension("batch", 0, 4, 3);
  const int32_t x = b.tensor("x", Type::i32, {0u}, b.buffer(64, 0, 0));
  b.tensors[0].dims = {b.expression(format::Expression::dimension, 0, 0)};
  b.input(x);
  b.output(x);
  plan(b);
  const Bytes file = b.bytes();
  const auto model = Model::load(file);
  CAPTURE(describe(model.status()));
  REQUIRE(model);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  CAPTURE(describe(session.status()));
  REQUIRE(session);
  session->input<int32_t>("x")[2] = 7;
  REQUIRE(session->run().ok());
  CHECK(session->output<int32_t>("x")[2] == 7);
  REQUIRE(session->resize("batch", 0).ok());
  CHECK(session->output<int32_t>("x").empty());
  CHECK(session->run().ok());
}

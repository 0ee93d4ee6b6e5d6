// What a model says of itself.
#include "heed/model.h"

#include <doctest/doctest.h>

#include "runtime/writer.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;
using format::Expression;

namespace {

std::string text_of(const Model& model, uint32_t expression) {
  char text[128];
  const size_t length = model.write_expression(expression, text, sizeof text);
  CHECK(length == std::string(text).size());
  return text;
}

}  // namespace

TEST_CASE("a model describes itself") {
  Builder builder = elementwise_example();
  builder.hash.assign(32, 0xab);
  const Bytes file = builder.bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  CHECK(model->producer() == "tests");
  CHECK(model->content_hash().size() == 32);
  CHECK(model->content_hash()[31] == std::byte{0xab});

  REQUIRE(model->dimension_count() == 1);
  CHECK(model->dimension(0).name == "batch");
  CHECK(model->dimension(0).lower == 1);
  CHECK(model->dimension(0).upper == 6);
  CHECK(model->dimension(0).start == 6);

  REQUIRE(model->input_count() == 1);
  CHECK(model->input(0).name == "x");
  CHECK(model->input(0).type == Type::f32);
  CHECK(model->input(0).border_type == 1);
  CHECK(model->input(0).rank == 2);
  REQUIRE(model->output_count() == 2);
  CHECK(model->output(1).name == "negative");
  CHECK(model->output(1).type == Type::boolean);

  REQUIRE(model->operator_count() == 1);
  const OperatorInfo program = model->operator_info(0);
  CHECK(program.name == "program");
  CHECK(program.kind == OperatorKind::elementwise);
  CHECK(program.input_count == 2);
  CHECK(program.output_count == 2);
  CHECK(program.outputs[0] == 3);
  REQUIRE(program.absorbed_count == 2);
  CHECK(model->absorbed(0, 0) == "/Add");
  CHECK(model->absorbed(0, 1) == "/Mul");

  const TensorInfo rows = model->tensor(2);
  CHECK(rows.name == "shift, every row");
  CHECK(rows.rank == 2);
  CHECK(text_of(*model, rows.dims[0]) == "batch");
  CHECK(text_of(*model, rows.dims[1]) == "600");
  CHECK(rows.buffer == -1);
  CHECK(rows.constant_offset % 64 == 0);
  CHECK(rows.constant_bytes == 2400);
  REQUIRE(model->buffer_count() >= 2);
  CHECK(model->buffer(0).capacity == 14400);
  CHECK(model->buffer(0).last == 1);

  REQUIRE(model->fusion_count() == 1);
  CHECK(model->fusion(0).name == "attention");
  CHECK(model->fusion(0).count == 1);
  CHECK(model->memory().constants == 2400);
  CHECK(model->memory().state == 0);
}

TEST_CASE("marks, constraints and index checks") {
  Builder builder = block_example();
  builder.marks.push_back({2, "attention"});
  const Bytes file = builder.bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  REQUIRE(model->mark_count() == 1);
  CHECK(model->mark(0).operator_index == 2);
  CHECK(model->mark(0).name == "attention");
  CHECK(model->mark(0).queries == "q");
  CHECK(model->mark(0).keys == "k");
  REQUIRE(model->constraint_count() == 1);
  CHECK(model->constraint(0).text == "batch * tokens <= 54");
  CHECK(!model->constraint(0).equal);
  CHECK(text_of(*model, model->constraint(0).left) == "batch*tokens");
  REQUIRE(model->index_check_count() == 1);
  CHECK(text_of(*model, model->index_check(0).bound) == "50");
}

TEST_CASE("expressions are written as people would") {
  Builder b;
  const auto tokens = static_cast<int32_t>(b.dimension("tokens", 1, 9, 9));
  const auto op = [&](Expression kind, int32_t x, int32_t y) { return static_cast<int32_t>(b.expression(kind, x, y)); };
  const auto number = [&](int32_t value) { return static_cast<int32_t>(b.size(value)); };
  const int32_t twice = op(Expression::multiply, number(2), tokens);
  const int32_t more = op(Expression::add, twice, number(1));
  const int32_t half = op(Expression::divide, more, number(2));
  const int32_t difference = op(Expression::subtract, tokens, more);
  const int32_t least = op(Expression::minimum, half, number(-3));
  const int32_t rest = op(Expression::modulo, twice, half);
  int32_t deep = tokens;
  for (int i = 0; i < 200; ++i) deep = op(Expression::add, deep, deep);
  const Bytes file = b.bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  const auto text = [&](int32_t index) { return text_of(*model, static_cast<uint32_t>(index)); };
  CHECK(text(more) == "2*tokens + 1");
  CHECK(text(half) == "(2*tokens + 1)/2");
  CHECK(text(difference) == "tokens - (2*tokens + 1)");
  CHECK(text(least) == "min((2*tokens + 1)/2, -3)");
  CHECK(text(rest) == "2*tokens%((2*tokens + 1)/2)");
  CHECK(text(deep).size() == 127);
  char small[5];
  CHECK(model->write_expression(static_cast<uint32_t>(more), small, sizeof small) == 4);
  CHECK(small == std::string("2*to"));
  CHECK(model->write_expression(static_cast<uint32_t>(more), nullptr, 0) == 0);
}

TEST_CASE("a status describes itself") {
  const Status status{Code::contract, "inner dimensions differ", "dense", 3, 7, 64, 32, true};
  CHECK(describe(status) == "contract: inner dimensions differ (operator 3 'dense', tensor 7): found 64, expected 32");
  CHECK(describe(Status{}) == "ok");
  CHECK(describe(Status{Code::corrupt, "a dimension is negative", "x", -1, 2, -1, 0, true}) ==
        "corrupt: a dimension is negative ('x', tensor 2): found -1, expected 0");
  CHECK(describe(Status{Code::corrupt, "w", "", 1, 2}) == "corrupt: w (operator 1, tensor 2)");
  CHECK(describe(Status{Code::corrupt, "w", "a\x1b[31m\nb", 1}) == "corrupt: w (operator 1 'a?[31m?b')");
  CHECK(describe(Status{Code::corrupt, "w", "", -1, -1, INT64_MIN, INT64_MAX, true}) ==
        "corrupt: w: found -9223372036854775808, expected 9223372036854775807");
  char text[12];
  CHECK(status.describe(text, sizeof text) == 11);
  CHECK(text == std::string("contract: i"));
  CHECK(status.describe(nullptr, 0) == 0);
  for (const Code code : {Code::invalid_argument, Code::misaligned, Code::arena_too_small, Code::index_out_of_range,
                          Code::dimension_out_of_range, Code::constraint_broken, Code::not_a_model, Code::corrupt,
                          Code::contract, Code::isa_unavailable, Code::too_large})
    CHECK(name(code) != std::string("unknown"));
}

TEST_CASE("statuses read right") {
  Status status{.code = Code::corrupt, .what = "what", .where = "where", .found = 5, .expected = 4, .has_values = true};
  CHECK(describe(status) == "corrupt: what ('where'): found 5, expected 4");
  status.limit = Limit::at_most;
  CHECK(describe(status) == "corrupt: what ('where'): found 5, expected at most 4");
  status.limit = Limit::at_least;
  CHECK(describe(status) == "corrupt: what ('where'): found 5, expected at least 4");
  status.limit = Limit::below;
  CHECK(describe(status) == "corrupt: what ('where'): found 5, expected below 4");
}

TEST_CASE("names from a file reach a terminal without control characters") {
  const auto written = [](std::string_view name) {
    char text[64];
    Writer out(text, sizeof text);
    out << name;
    return std::string(text, out.finish());
  };
  CHECK(written("plain/name_0") == "plain/name_0");
  CHECK(written("\x1b[2J\x7f\n") == "?[2J??");
  CHECK(written("\x9b"
                "2J \x80\x85") == "?2J ??");
  CHECK(written("\xc2\x9b"
                "2J") == "??2J");
  CHECK(written("\xc3\x84 \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0") ==
        "\xc3\x84 \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0");
  CHECK(written("\xe2\x82") == "??");
  CHECK(written("\xff\xc0\x9b") == "???");
}

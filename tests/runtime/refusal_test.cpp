// Every refusal: what, where, and both values.
#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;
using format::Expression;

namespace {

/// The first status that is not ok: of load, else of create at the start values.
Status refusal(std::span<const std::byte> bytes) {
  const auto model = Model::load(bytes);
  if (!model) return model.status();
  Bytes arena = arena_for(*model);
  return Session::create(*model, arena).status();
}

struct Expected {
  Code code;
  std::string what;
  int64_t found = 0, expected = 0;  // both 0: the refusal has no values
  std::string where = "";
  int32_t operator_index = -1, tensor_index = -1;
};

void check_refused(const Status& status, const Expected& expected) {
  CAPTURE(describe(status));
  CHECK(name(status.code) == std::string(name(expected.code)));
  CHECK(status.what == expected.what);
  CHECK(status.where == expected.where);
  CHECK(status.operator_index == expected.operator_index);
  CHECK(status.tensor_index == expected.tensor_index);
  CHECK(status.has_values == (expected.found != 0 || expected.expected != 0));
  if (status.has_values) {
    CHECK(status.found == expected.found);
    CHECK(status.expected == expected.expected);
  }
}

/// A model is refused after a change to it.
void refused(Builder builder, const std::function<void(Builder&)>& change, const Expected& expected) {
  INFO(expected.what);
  change(builder);
  check_refused(refusal(builder.bytes()), expected);
}

using B = Builder;
constexpr int64_t big = std::numeric_limits<int32_t>::max();

}  // namespace

TEST_CASE("what is no file of heed") {
  const Bytes good = elementwise_example().bytes();
  REQUIRE(refusal(good).ok());

  Bytes shifted(good.size() + 64);
  std::copy(good.begin(), good.end(), shifted.begin() + 8);
  check_refused(Model::load({shifted.data() + 8, good.size()}).status(),
                {Code::misaligned, "the file does not begin at a multiple of 64", 8, 0});

  check_refused(Model::load({}).status(), {Code::not_a_model, "the identifier HEED is missing"});
  Bytes other = good;
  other[5] = std::byte{'X'};
  check_refused(refusal(other), {Code::not_a_model, "the identifier HEED is missing"});
  Bytes broken = good;
  broken[3] = std::byte{0x7f};  // the root table lies far outside
  check_refused(refusal(broken), {Code::corrupt, "the flatbuffer is not well-formed"});

  Builder older = elementwise_example();
  const int64_t current = older.version;
  for (const uint32_t version : {0u, 2u + older.version, ~0u}) {
    older.version = version;
    check_refused(refusal(older.bytes()),
                  {Code::other_version, "the file is written for another version of heed", version, current});
  }
  // Nothing else of it is looked at.
  Bytes newer = older.bytes();
  newer.resize(newer.size() - 64);
  CHECK(refusal(newer).code == Code::other_version);

  const auto size = static_cast<int64_t>(good.size());
  check_refused(Model::load({good.data(), good.size() - 64}).status(),
                {Code::corrupt, "the file's length is not the one it states", size - 64, size});
}

TEST_CASE("dimensions, expressions and constraints") {
  const Builder good = block_example();
  refused(good, [](B& b) { b.dimensions.resize(257, b.dimensions[0]); },
          {Code::corrupt, "too many dimensions", 257, 256});
  refused(good, [](B& b) { b.dimensions[1].lower = -1; },
          {Code::corrupt, "a dimension's lower bound is negative", -1, 0, "tokens"});
  refused(good, [](B& b) { b.dimensions[1].start = 0; },
          {Code::corrupt, "a dimension starts below its lower bound", 0, 1, "tokens"});
  refused(good, [](B& b) { b.dimensions[0].start = 7; },
          {Code::corrupt, "a dimension starts above its upper bound", 7, 6, "batch"});
  const auto count = static_cast<int32_t>(good.expressions.size());
  refused(good, [](B& b) { b.expression(Expression::dimension, 2, 0); },
          {Code::corrupt, "an expression names no dimension", 2, 2});
  refused(good, [](B& b) { b.expression(Expression::dimension, -1, 0); },
          {Code::corrupt, "an expression names no dimension", -1, 2});
  refused(good, [](B& b) { b.expressions.emplace_back(static_cast<Expression>(10), 0, 0); },
          {Code::corrupt, "no such kind of expression", 10, 9});
  refused(good, [&](B& b) { b.expression(Expression::add, count, 0); },
          {Code::corrupt, "an expression refers forward", count, count});
  refused(good, [&](B& b) { b.expression(Expression::add, 0, -5); },
          {Code::corrupt, "an expression refers forward", -5, count});
  const std::string text = "batch * tokens <= 54";
  refused(good, [](B& b) { b.constraints[0].relation = static_cast<format::Relation>(2); },
          {Code::corrupt, "no such relation", 2, 1, text});
  refused(good, [&](B& b) { b.constraints[0].left = 1000; }, {Code::corrupt, "no such expression", 1000, count, text});
  refused(good, [&](B& b) { b.constraints[0].right = 1000; }, {Code::corrupt, "no such expression", 1000, count, text});

  // Known only with values.
  refused(good, [](B& b) { b.constraints[0].right = b.size(53); },
          {Code::constraint_broken, "the dimensions break a constraint of the model", 54, 53, text});
  refused(good,
          [](B& b) {
            b.constraints[0] = {format::Relation::equal, b.size(54), b.size(55), "54 == 55"};
          },
          {Code::constraint_broken, "the dimensions break a constraint of the model", 54, 55, "54 == 55"});
  const auto op = [](B& b, Expression kind, int32_t x, int32_t y) {
    return static_cast<int32_t>(b.expression(kind, x, y));
  };
  refused(good, [&](B& b) { op(b, Expression::divide, 0, static_cast<int32_t>(b.size(0))); },
          {Code::corrupt, "an expression divides by a number below 1", 0, 1});
  refused(good, [&](B& b) { op(b, Expression::modulo, 0, static_cast<int32_t>(b.size(-3))); },
          {Code::corrupt, "an expression divides by a number below 1", -3, 1});
  const int64_t square = big * big;
  refused(good,
          [&](B& b) {
            const auto large = static_cast<int32_t>(b.size(INT32_MAX));
            const int32_t twice = op(b, Expression::multiply, large, large);
            op(b, Expression::multiply, twice, twice);
          },
          {Code::corrupt, "an expression overflows 64 bits", square, square});
  refused(good,
          [&](B& b) {
            const auto large = static_cast<int32_t>(b.size(INT32_MAX));
            int32_t sum = op(b, Expression::multiply, large, large);
            sum = op(b, Expression::add, sum, sum);
            op(b, Expression::add, sum, sum);
          },
          {Code::corrupt, "an expression overflows 64 bits", 2 * square, 2 * square});
}

TEST_CASE("buffers") {
  const Builder good = block_example();
  const auto end = static_cast<int64_t>(good.operators.size());
  const auto last = good.buffers.size() - 1;
  refused(good, [](B& b) { b.buffers.resize(32769, b.buffers.back()), b.lower_bound = 0; },
          {Code::corrupt, "too many buffers", 32769, 32768});
  refused(good, [](B& b) { b.buffers[0].first = b.buffers[0].last = 1; },
          {Code::corrupt, "buffers are not in the order of their first operators", 0, 1});
  refused(good, [&](B& b) { b.buffers[last].last = b.buffers[last].first - 1; },
          {Code::corrupt, "a buffer's last operator is before its first", int64_t{good.buffers[last].first} - 1,
           good.buffers[last].first});
  refused(good, [&](B& b) { b.buffers[last].last = static_cast<uint32_t>(end + 1); },
          {Code::corrupt, "a buffer outlives the operators", end + 1, end});
  refused(good, [](B& b) { b.buffers[0].capacity += 4; },
          {Code::corrupt, "a buffer's capacity is no multiple of 64", 4, 0});
  refused(good, [](B& b) { b.workspace = 64; },
          {Code::corrupt, "the workspace is not the largest end of a buffer", 64, [&] {
             int64_t most = 0;
             for (const auto& row : good.buffers) most = std::max(most, int64_t{row.offset} * 64 + row.capacity);
             return most;
           }()});
  const Bytes file = good.bytes();
  const auto workspace = static_cast<int64_t>(Model::load(file)->memory().workspace);
  refused(good, [&](B& b) { b.lower_bound = static_cast<uint64_t>(workspace) + 64; },
          {Code::corrupt, "the lower bound is above the workspace", workspace + 64, workspace});
  const auto alive = static_cast<int64_t>(good.alive());
  refused(good, [&](B& b) { b.lower_bound = static_cast<uint64_t>(alive) - 64; },
          {Code::corrupt, "the lower bound is not the most that is alive at one operator", alive - 64, alive});

  // ids and embedded are both alive at operator 0.
  refused(good, [](B& b) { b.buffers[1].offset = b.buffers[0].offset; },
          {Code::corrupt, "two buffers overlap while both are alive", 1, 0});
  refused(good,
          [](B& b) {
            for (uint32_t i = 0; i < 1024; ++i) b.buffers.push_back({1000 + i, 64, 6, 6});
          },
          {Code::corrupt, "too many buffers are alive at once", 1025, 1024});
}

TEST_CASE("a model larger than the target's addresses") {
  Builder builder = chain_example(1);
  builder.buffers.push_back({1u << 26, 64, 0, 0});  // at 4 GiB
  const Bytes file = builder.bytes();
  const auto model = Model::load(file);
  if constexpr (sizeof(size_t) == 4) {
    CHECK(model.status().code == Code::too_large);
    CHECK(model.status().found > int64_t{1} << 32);
  } else {
    REQUIRE(model);
    Bytes arena(4096);
    const Status status = Session::create(*model, arena).status();
    CHECK(status.code == Code::arena_too_small);
    CHECK(status.expected > int64_t{1} << 32);
  }
}

TEST_CASE("tensors") {
  const Builder good = elementwise_example();  // 0 x, 1 shift, 2 its rows, 3 y, 4 negative
  const auto expressions = static_cast<int64_t>(good.expressions.size());
  const auto buffers = static_cast<int64_t>(good.buffers.size());
  refused(good, [](B& b) { b.tensors[0].type = static_cast<Type>(5); },
          {Code::corrupt, "no such element type", 5, 4, "x", -1, 0});
  refused(good, [](B& b) { b.tensors[0].dims.resize(9); }, {Code::corrupt, "the rank is too high", 9, 8, "x", -1, 0});
  refused(good, [](B& b) { b.tensors[2].strides.resize(1); },
          {Code::corrupt, "there are not as many strides as dimensions", 1, 2, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[0].dims[1] = 1000; },
          {Code::corrupt, "no such expression", 1000, expressions, "x", -1, 0});
  refused(good, [](B& b) { b.tensors[2].strides[1] = 1000; },
          {Code::corrupt, "no such expression", 1000, expressions, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[0].offset = 1000; },
          {Code::corrupt, "no such expression", 1000, expressions, "x", -1, 0});
  refused(good, [](B& b) { b.tensors[0].buffer = 9; }, {Code::corrupt, "no such buffer", 9, buffers, "x", -1, 0});
  refused(good, [](B& b) { b.tensors[0].buffer = -2; }, {Code::corrupt, "no such buffer", -2, buffers, "x", -1, 0});
  const auto size = static_cast<int64_t>(good.bytes().size());
  refused(good, [](B& b) { b.tensors[1].constant_bytes += 64; },
          {Code::corrupt, "a constant ends behind the file", size + 64, size, "shift", -1, 1});

  // Known only with values.
  refused(good, [](B& b) { b.tensors[4].dims[1] = b.size(-1); },
          {Code::corrupt, "a dimension is negative", -1, 0, "negative", -1, 4});
  refused(good,
          [](B& b) {
            const auto large = static_cast<int32_t>(b.size(INT32_MAX));
            b.tensors[4].dims[1] = b.expression(Expression::add, large, large);
          },
          {Code::corrupt, "a dimension is too large", 2 * big, 1 << 30, "negative", -1, 4});
  refused(good, [](B& b) { b.tensors[2].dims[1] = b.size(1 << 28); },
          {Code::corrupt, "a tensor has too many elements", int64_t{6} << 28, 1 << 30, "shift, every row", -1, 2});
  refused(good,
          [](B& b) {
            const auto large = static_cast<int32_t>(b.size(INT32_MAX));
            b.tensors[2].strides[0] = b.expression(Expression::add, large, large);
          },
          {Code::corrupt, "a value does not fit 32 bits", 2 * big, big, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[2].offset = b.size(-1); },
          {Code::corrupt, "a tensor begins before its storage", -1, 0, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[2].offset = b.size(601); },
          {Code::corrupt, "a tensor begins behind its storage", 601, 600, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[2].offset = b.size(1); },
          {Code::corrupt, "a tensor is larger than its storage", 601, 600, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[2].strides[1] = b.size(-1); },
          {Code::corrupt, "a tensor reaches before its storage", -599, 0, "shift, every row", -1, 2});
  refused(good, [](B& b) { b.tensors[1].constant_bytes -= 4; },
          {Code::corrupt, "a tensor is larger than its storage", 600, 599, "shift", -1, 1});
  refused(good, [](B& b) { b.tensors[4].dims[1] = b.size(700); },
          {Code::corrupt, "a tensor is larger than its storage", 4200, 3648, "negative", -1, 4});
  refused(good,
          [](B& b) {
            b.tensors.push_back({"scalar", Type::i32, {}, {}, b.size(912), b.tensors[4].buffer});
          },
          {Code::corrupt, "a tensor is larger than its storage", 913, 912, "scalar", -1, 5});
}

TEST_CASE("operators") {
  const Builder good = block_example();  // 0 embedding, 1 qkv, 2 attention, 3 output, 4 norm, 5 softmax
  const auto tensors = static_cast<int64_t>(good.tensors.size());
  const auto buffers = static_cast<int64_t>(good.buffers.size());
  const auto at = [](int32_t index, const char* where) {
    return [=](Code code, const char* what, int64_t found = 0, int64_t expected = 0, int32_t tensor = -1) {
      return Expected{code, what, found, expected, where, index, tensor};
    };
  };
  const auto norm = at(4, "norm"), attention = at(2, "attention");
  refused(
      good, [](B& b) { b.operators[4].inputs.resize(17, 0); }, norm(Code::corrupt, "too many inputs", 17, 16));
  refused(
      good, [](B& b) { b.operators[4].outputs.resize(5, 0); }, norm(Code::corrupt, "too many outputs", 5, 4));
  refused(
      good, [](B& b) { b.operators[4].outputs.clear(); }, norm(Code::corrupt, "an operator has no outputs"));
  refused(
      good,
      [](B& b) {
        b.operators[4].outputs = {-1, -1};
      },
      norm(Code::corrupt, "an operator has no outputs"));
  refused(
      good, [](B& b) { b.operators[4].inputs[0] = 999; }, norm(Code::corrupt, "no such tensor", 999, tensors));
  refused(
      good, [](B& b) { b.operators[4].outputs[0] = -2; }, norm(Code::corrupt, "no such tensor", -2, tensors));
  refused(
      good, [](B& b) { b.operators[4].outputs[0] = 0; }, norm(Code::corrupt, "an operator writes a constant", 0, 0, 0));
  const auto find = [&](const char* name) {
    for (size_t i = 0; i < good.tensors.size(); ++i)
      if (good.tensors[i].name == name) return static_cast<int32_t>(i);
    return -1;
  };
  const int32_t y = find("y"), qkv = find("qkv");
  refused(
      good, [&](B& b) { b.operators[4].outputs[0] = y; },
      norm(Code::corrupt, "an operand's buffer is not yet alive", 4, 5, y));
  refused(
      good, [&](B& b) { b.operators[4].inputs[0] = qkv; },
      norm(Code::corrupt, "an operand's buffer is no longer alive", 4, 2, qkv));
  refused(
      good, [](B& b) { b.operators[4].absorbed = {3}; }, norm(Code::corrupt, "no such node name", 3, 0));
  refused(
      good, [](B& b) { b.operators[4].macs = 5000; },
      norm(Code::corrupt, "no such expression", 5000, static_cast<int64_t>(good.expressions.size())));
  constexpr int64_t operators = static_cast<int64_t>(OperatorKind::count);
  refused(
      good, [](B& b) { b.operators[4].kind = OperatorKind::count; }, norm(Code::corrupt, "no such operator", operators + 1, operators));
  refused(
      good, [](B& b) { b.operators[4].kind = static_cast<OperatorKind>(255); },
      norm(Code::corrupt, "no such operator", 0, operators));

  const int32_t scratch = good.operators[2].scratch;
  REQUIRE(scratch >= 0);
  refused(
      good, [](B& b) { b.operators[4].scratch = 99; }, norm(Code::corrupt, "no such buffer", 99, buffers));
  refused(
      good, [](B& b) { b.operators[4].scratch = -2; }, norm(Code::corrupt, "no such buffer", -2, buffers));
  refused(
      good, [&](B& b) { b.operators[4].scratch = scratch; },
      norm(Code::corrupt, "scratch does not begin with its operator", 2, 4));
  refused(
      good, [&](B& b) { b.buffers[static_cast<size_t>(scratch)].last = 3; },
      attention(Code::corrupt, "scratch does not end with its operator", 3, 2));
  refused(
      good,
      [&](B& b) {
        b.tensors[static_cast<size_t>(find("mixed"))].buffer = scratch;
        b.tensors[static_cast<size_t>(find("mixed by heads"))].buffer = scratch;
      },
      attention(Code::corrupt, "an operand lies in its operator's scratch"));
  // The capacity is what plan() asked the kernel for, rounded up.
  Builder small = good;
  small.buffers[static_cast<size_t>(scratch)].capacity = 0;
  const int64_t needed = refusal(small.bytes()).expected;
  CHECK((needed + 63) / 64 * 64 == int64_t{good.buffers[static_cast<size_t>(scratch)].capacity});
  refused(
      small, [](B&) {}, attention(Code::contract, "the scratch is too small", 0, needed));

  const auto with = [](size_t index, auto params) {
    return [=](B& b) { b.operators[index].params = Builder::pack(params); };
  };
  refused(good, with(2, AttentionParams{1, 0, 0, 8, 5000, 0, 0}),
          attention(Code::corrupt, "no such expression", 5000, static_cast<int64_t>(good.expressions.size())));
  refused(
      good,
      [](B& b) {
        const auto large = static_cast<int32_t>(b.size(INT32_MAX));
        const auto sum = static_cast<int32_t>(b.expression(Expression::add, large, large));
        b.operators[2].params = Builder::pack(AttentionParams{1, 0, 0, 8, sum, 0, 0});
      },
      attention(Code::corrupt, "a value does not fit 32 bits", 2 * big, big));
}

TEST_CASE("params outside an operator's contract") {
  // The contracts' own words are tested beside the kernels.
  const auto broken = [](const std::string& title, auto params, const std::string& values = "") {
    CAPTURE(title);
    for (Example& example : examples()) {
      if (example.name != title) continue;
      Builder::Operator& first = example.builder.operators[0];
      first.params = Builder::pack(params);
      const auto bytes = example.builder.bytes();  // the status points into them
      const Status status = refusal(bytes);
      CAPTURE(describe(status));
      CHECK(status.code == Code::contract);
      CHECK(status.operator_index == 0);
      CHECK(status.where == first.name);
      CHECK(describe(status).ends_with(values));
      return;
    }
    FAIL("no such example");
  };
  broken("gather", GatherParams{2, {}});
  broken("gather", GatherParams{255, {}});
  broken("gather", GatherParams{0, 1});
  broken("matmul", MatmulParams{static_cast<Activation>(activation_count), 1, {}});
  broken("attention", AttentionParams{1, 0, 0, 0, 0, 0, 0});
  broken("attention", AttentionParams{1, 0, 1, 8, 0, -1, 0});
  broken("normalize", NormalizeParams{static_cast<Normalization>(2), {}, 0});
  broken("reduce", ReduceParams{static_cast<Reduction>(8), 2, 0, 0});
  broken("reduce", ReduceParams{Reduction::sum, 0, 0, 0});
  broken("reduce", ReduceParams{Reduction::sum, 9, 0, 0});
  broken("recurrent", RecurrentParams{static_cast<Cell>(3), Direction::forward, 0, 0, 20, 2});
  broken("recurrent", RecurrentParams{Cell::lstm, static_cast<Direction>(3), 0, 0, 20, 2});
  broken("recurrent", RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 0, 2});
  broken("recurrent", RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 1 << 30, 2},
         "found 1073741824, expected at most 16777216");
  broken("recurrent", RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 20, 0});
  broken("recurrent", RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 20, -1});
  const Window window{{1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}};
  const auto changed = [&](int32_t(Window::*list)[3], int axis, int32_t value) {
    Window other = window;
    (other.*list)[axis] = value;
    return other;
  };
  broken("conv", ConvParams{static_cast<Activation>(activation_count), 0, 5, 0, 2, window});
  broken("conv", ConvParams{Activation::relu, 1, 5, 0, 2, window});
  broken("conv", ConvParams{Activation::relu, 0, 0, 0, 2, window});
  broken("conv", ConvParams{Activation::relu, 0, 9, 0, 2, window});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 0, window});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 3, window});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 2, changed(&Window::kernel, 1, 4)});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 2, changed(&Window::kernel, 2, INT32_MAX)});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 2, changed(&Window::strides, 2, 0)},
         "found 0, expected at least 1");
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 2, changed(&Window::dilations, 0, INT32_MAX)});
  broken("conv", ConvParams{Activation::relu, 0, 5, 0, 2, changed(&Window::before, 2, -1)});
  broken("pool", PoolParams{static_cast<Pooling>(3), {}, window, {}, {}});
  broken("pool", PoolParams{Pooling::max, {}, changed(&Window::strides, 1, -1), {}, {}});
  broken("pool", PoolParams{Pooling::mean, {}, window, {0, -1, 0}, {}});
  broken("pool", PoolParams{Pooling::mean, {}, window, {}, {0, 0, INT32_MAX}});
  broken("rope", RopeParams{static_cast<Pairing>(2), {}});
}

TEST_CASE("elementwise programs") {
  const Builder good = elementwise_example();
  using S = std::vector<Source>&;
  using I = std::vector<uint32_t>&;
  using P = std::vector<Instruction>&;
  using R = std::vector<uint8_t>&;
  const auto edit = [](const std::function<void(S, I, P, R)>& change) {
    return [change](B& b) {
      const auto& head = *reinterpret_cast<const ElementwiseParams*>(b.operators[0].params.data());
      const Program program = program_of(head);
      std::vector<Source> sources(program.sources, program.sources + head.source_count);
      std::vector<uint32_t> immediates(program.immediates, program.immediates + head.immediate_count);
      std::vector<Instruction> steps(program.instructions, program.instructions + head.instruction_count);
      std::vector<uint8_t> results(head.results, head.results + head.output_count);
      change(sources, immediates, steps, results);
      b.operators[0].params = Builder::program(sources, immediates, steps, results);
    };
  };
  const auto is = [](const char* what, int64_t found, int64_t expected) {
    return Expected{Code::corrupt, what, found, expected, "program", 0, -1};
  };
  refused(good, edit([](S s, I, P, R) { s.resize(17, s[2]); }), is("a program has too many sources", 17, 16));
  refused(good, edit([](S, I i, P, R) { i.resize(65); }), is("a program has too many immediates", 65, 64));
  refused(good, edit([](S s, I, P, R) { s[3].value = 1000; }),
          is("no such expression", 1000, static_cast<int64_t>(good.expressions.size())));
  refused(
      good,
      [](B& b) {
        const auto large = static_cast<int32_t>(b.size(INT32_MAX));
        const auto sum = static_cast<int32_t>(b.expression(Expression::add, large, large));
        auto* sources = reinterpret_cast<Source*>(b.operators[0].params.data() + sizeof(ElementwiseParams));
        sources[3].value = sum;
      },
      is("a value does not fit 32 bits", 2 * big, big));

  const auto broken = [&](const std::function<void(B&)>& change) {
    Builder builder = good;
    change(builder);
    const Bytes bytes = builder.bytes();  // the status points into them
    const Status status = refusal(bytes);
    CAPTURE(describe(status));
    CHECK(status.code == Code::contract);
    CHECK(status.operator_index == 0);
    CHECK(status.where == std::string("program"));
  };
  broken(edit([](S, I, P, R r) { r.resize(1); }));
  broken([](B& b) { b.operators[0].outputs[1] = -1; });
  broken([](B& b) { b.operators[0].inputs[1] = -1; });
  broken(edit([](S s, I, P, R) { s[2].kind = SourceKind::tensor; }));
  broken(edit([](S s, I, P, R) { s[1].kind = SourceKind::iota; }));
  broken(edit([](S s, I, P, R) { s[2].axis = 2; }));
  broken(edit([](S s, I, P, R) { s[3].kind = static_cast<SourceKind>(3); }));
  broken(edit([](S, I, P p, R) { p[0].operands[0] = 9; }));
  broken(edit([](S, I, P p, R) { p[0].operands[0] = 20; }));
  broken(edit([](S, I, P p, R) { p[0].operands[1] = 34; }));
  broken(edit([](S, I, P p, R) { p[0].operands[0] = operand::none; }));
  broken(edit([](S, I, P p, R) { p[1].operands[1] = 0; }));
  broken(edit([](S, I, P p, R) { p[1].step = Step::count; }));
  broken(edit([](S, I, P p, R) { p[1].result = 16; }));
  broken(edit([](S, I, P p, R) { p[0].operands[0] = 18; }));
  broken(edit([](S, I, P p, R) { p[1] = {Step::b_not, 2, {32, operand::none, operand::none}, {}}; }));
  broken(edit([](S, I, P, R r) { r[0] = 2; }));
}

TEST_CASE("inputs, outputs and notes") {
  const Builder good = gather_example();  // tensors 0 table, 1 ids, 2 y
  refused(good, [](B& b) { b.inputs.resize(1025, b.inputs[0]); }, {Code::corrupt, "too many inputs", 1025, 1024});
  refused(good, [](B& b) { b.outputs[0].tensor = 3; }, {Code::corrupt, "no such tensor", 3, 3, "y", -1, 3});
  refused(good,
          [](B& b) {
            b.tensors[2].strides = {b.size(0), b.size(0), b.size(0)};
          },
          {Code::corrupt, "an input or output has strides", 0, 0, "y", -1, 2});
  refused(good, [](B& b) { b.outputs[0].tensor = 0; },
          {Code::corrupt, "an input or output is a constant", 0, 0, "y", -1, 0});
  refused(good, [](B& b) { b.outputs[0].tensor = 1; },
          {Code::corrupt, "an output does not live to the end", 0, 1, "y", -1, 1});
  refused(good, [](B& b) { b.inputs[0].type = 17; },
          {Code::corrupt, "no such type of a model's input or output", 17, 16, "ids", -1, 1});
  refused(good, [](B& b) { b.checks[0].input = 1; }, {Code::corrupt, "an index check is of no input", 1, 1});
  refused(good, [](B& b) { b.checks[0].bound = 100; },
          {Code::corrupt, "no such expression", 100, static_cast<int64_t>(good.expressions.size())});
  const auto bound = [](Expression op, int32_t a, int32_t c) {
    return [=](B& b) {
      const auto left = static_cast<int32_t>(b.size(a)), right = static_cast<int32_t>(b.size(c));
      b.checks[0].bound = b.expression(op, left, right);
    };
  };
  refused(good, bound(Expression::add, -1, 0),
          {Code::corrupt, "the bound of an index check is negative", -1, 0, "ids", -1, 1});
  refused(good, bound(Expression::multiply, INT32_MIN, INT32_MIN),
          {Code::corrupt, "the bound of an index check does not fit 32 bits", int64_t{1} << 62, big, "ids", -1, 1});
  refused(good, [](B& b) { b.tensors[1].type = Type::f32; },
          {Code::corrupt, "an index check is of an input that is not i32", 0, 0, "ids"});
  refused(good, [](B& b) { b.marks.push_back({1, "m"}); }, {Code::corrupt, "a mark is of no operator", 1, 1});
  refused(good, [](B& b) { b.hash.resize(31); }, {Code::corrupt, "the content hash has a wrong length", 31, 32});

  Builder late = block_example();
  for (size_t i = 0; i < late.tensors.size(); ++i)
    if (late.tensors[i].name == "qkv") late.inputs.push_back({static_cast<uint32_t>(i), "qkv"});
  check_refused(refusal(late.bytes()), {Code::corrupt, "an input does not live from the start", 1, 0, "qkv", -1,
                                        static_cast<int32_t>(late.inputs[1].tensor)});
}

TEST_CASE("what is read or given back has been written") {
  Builder good = block_example();
  const auto find = [&](const char* name) {
    for (size_t i = 0; i < good.tensors.size(); ++i)
      if (good.tensors[i].name == name) return static_cast<int32_t>(i);
    return -1;
  };
  const int32_t qkv = find("qkv"), y = find("y");
  // The projection writes elsewhere.
  const int32_t aside = good.buffer(54 * 48 * 4, 1, 1);
  good.tensors.push_back(good.tensors[static_cast<size_t>(qkv)]);
  good.tensors.back().buffer = aside;
  good.place();
  refused(good, [&](B& b) { b.operators[1].outputs[0] = static_cast<int32_t>(b.tensors.size()) - 1; },
          {Code::corrupt, "an operand is read before it is written", 0, 0, "attention", 2, find("q")});
  refused(good, [&](B& b) { b.operators[5].outputs[0] = b.operators[5].inputs[0]; },
          {Code::corrupt, "an output is never written", 0, 0, "y", -1, y});
  refused(good, [&](B& b) { b.inputs.clear(), b.checks.clear(); },
          {Code::corrupt, "an operand is read before it is written", 0, 0, "embedding", 0, find("ids")});
}

TEST_CASE("sharing of storage between the operands of one operator") {
  // Two rows of x in one buffer; y may replace x, or lie apart from it, but not overlap it.
  const auto model = [](int32_t y_offset, OperatorKind kind, std::vector<std::byte> params) {
    Builder b;
    b.dimension("batch", 1, 1, 1);
    const uint32_t n = b.size(16), one = b.size(1);
    const int32_t x = b.tensor("x", Type::f32, {one, n}, b.buffer(192, 0, 1));
    const int32_t y = b.view("y", x, {one, n}, {}, b.size(y_offset));
    b.add("rows", kind, std::move(params), {x}, {y});
    b.input(x);
    b.output(y);
    plan(b);
    return b.bytes();
  };
  const auto softmax = Builder::pack(SoftmaxParams{});
  CHECK(refusal(model(0, OperatorKind::softmax, softmax)).ok());
  CHECK(refusal(model(16, OperatorKind::softmax, softmax)).ok());
  const Expected overlap{Code::contract, "an output overlaps an input that it may not replace", 0, 0, "rows", 0, 0};
  check_refused(refusal(model(15, OperatorKind::softmax, softmax)), overlap);
  check_refused(refusal(model(1, OperatorKind::softmax, softmax)), overlap);
  check_refused(refusal(model(0, OperatorKind::copy, Builder::pack(CopyParams{}))), overlap);

  Builder two = elementwise_example();
  two.tensors[4].type = Type::f32;
  two.tensors[4].buffer = two.tensors[3].buffer;
  auto* head = reinterpret_cast<ElementwiseParams*>(two.operators[0].params.data());
  head->results[1] = 0;
  check_refused(refusal(two.bytes()), {Code::contract, "two outputs overlap", 0, 0, "program", 0, 4});
}

TEST_CASE("an operator without storage behind its sizes") {
  // An RNN of one unit over nothing, for a batch that takes no bytes: only its scratch would grow.
  const auto rnn = [](int32_t batch, int32_t chunk, bool has_y) {
    Builder b;
    const uint32_t zero = b.size(0), one = b.size(1), lanes = b.size(16), many = b.size(batch);
    const int32_t x = b.tensor("x", Type::f32, {zero, many, one}, b.buffer(64, 0, 1));
    const int32_t y = b.tensor("y", Type::f32, {zero, one, many, one}, b.buffer(64, 0, 1));
    const auto weights = [&](const char* name, std::vector<uint32_t> dims) {
      return b.constant(name, Type::f32, std::move(dims), std::vector<float>(16));
    };
    const int32_t w = weights("w", {one, one, one, one, lanes}), r = weights("r", {one, one, one, one, lanes});
    const int32_t bias = weights("b", {one, one, one, lanes});
    b.add("rnn", OperatorKind::recurrent, Builder::pack(RecurrentParams{Cell::rnn, Direction::forward, 0, 0, 1, chunk}),
          {x, w, r, bias}, {has_y ? y : -1});
    b.input(x);
    b.output(y);
    b.place();
    return b.bytes();
  };
  const auto status = [](const Bytes& file) { return std::string(refusal(file).what); };
  CHECK(status(rnn(1 << 27, 0x7ffffffe, false)) == "an operator has no outputs");
  CHECK(status(rnn(1 << 27, 0x7ffffffe, true)) == "a chunk has too many steps");
  CHECK(status(rnn(1 << 27, 1 << 24, true)) == "the scratch is too small");
  CHECK(status(rnn(1 << 30, 1 << 24, true)) == "the scratch is too small");
}

TEST_CASE("an output's elements lie apart") {
  Builder b;
  b.dimension("batch", 1, 1, 1);
  const uint32_t four = b.size(4), three = b.size(3), one = b.size(1);
  const int32_t x = b.tensor("x", Type::f32, {four, four}, b.buffer(64, 0, 0));
  const int32_t y = b.tensor("y", Type::f32, {four, four}, b.buffer(64, 0, 1));
  const int32_t dense = y;
  const int32_t written = b.view("y, overlapping", y, {four, four}, {three, one}, b.size(0));
  b.add("copy", OperatorKind::copy, Builder::pack(CopyParams{}), {x}, {written});
  b.input(x);
  b.output(dense);
  plan(b);
  check_refused(refusal(b.bytes()),
                {Code::contract, "two elements of an output share their storage", 0, 0, "copy", 0, written});
}

TEST_CASE("every operator's contract names operator, tensor and values") {
  for (const Example& example : examples()) {
    CAPTURE(example.name);
    const Builder& builder = example.builder;
    for (size_t index = 0; index < builder.operators.size(); ++index) {
      // A required operand goes missing, or one changes its type: no kernel may fall over it, whatever it says.
      for (size_t i = 0; i < builder.operators[index].inputs.size(); ++i) {
        Builder absent = builder;
        absent.operators[index].inputs[i] = -1;
        (void)refusal(absent.bytes());
        Builder fewer = builder;
        fewer.operators[index].inputs.resize(i);
        (void)refusal(fewer.bytes());
      }
      for (size_t i = 0; i < builder.operators[index].outputs.size(); ++i) {
        Builder absent = builder;
        absent.operators[index].outputs[i] = -1;
        (void)refusal(absent.bytes());
      }
    }
    Builder fewer = builder;
    fewer.operators[0].inputs.clear();
    const Bytes bytes = fewer.bytes();
    const Status status = refusal(bytes);
    CHECK(!status.ok());
    CHECK(status.operator_index == 0);
    CHECK(status.where == builder.operators[0].name);
  }
}

TEST_CASE("what create refuses of its caller") {
  const Bytes file = elementwise_example().bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  Bytes arena(static_cast<size_t>(model->memory().total(2)) + 64);
  const auto total = static_cast<int64_t>(model->memory().total());
  check_refused(Session::create(*model, std::span(arena).subspan(4)).status(),
                {Code::misaligned, "the arena does not begin at a multiple of 64", 4, 0});
  check_refused(Session::create(*model, {}).status(), {Code::arena_too_small, "the arena is too small", 0, total});
  check_refused(Session::create(*model, std::span(arena).first(static_cast<size_t>(total) - 1)).status(),
                {Code::arena_too_small, "the arena is too small", total - 1, total});
  check_refused(Session::create(*model, arena, {.parallel = {nullptr, nullptr, 0}}).status(),
                {Code::invalid_argument, "there are no threads", 0, 1});
  bool lacking = false;
  for (int i = 0; i < isa_count; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (available(isa)) continue;
    lacking = true;
    check_refused(Session::create(*model, arena, {.isa = isa}).status(),
                  {Code::isa_unavailable, "this processor or this build has no such instruction set", 0, 0, name(isa)});
  }
  CHECK(lacking);  // no machine has both avx2 and neon
}

TEST_CASE("what run and resize refuse") {
  const Bytes file = block_example().bytes();
  const auto model = Model::load(file);
  REQUIRE(model);
  Bytes arena = arena_for(*model);
  auto session = Session::create(*model, arena);
  REQUIRE(session);
  fill_inputs(*session, 1);
  const auto ids = session->input<int32_t>("ids");
  ids[7] = 50;
  check_refused(session->run(), {Code::index_out_of_range, "an index is outside its table", 50, 50, "ids", -1,
                                 static_cast<int32_t>(model->input(0).tensor)});
  ids[7] = -51;
  check_refused(session->run(), {Code::index_out_of_range, "an index is outside its table", -51, -50, "ids", -1,
                                 static_cast<int32_t>(model->input(0).tensor)});
  ids[7] = -50;
  CHECK(session->run().ok());

  check_refused(session->resize("width", 1),
                {Code::invalid_argument, "the model has no such dimension", 0, 0, "width"});
  check_refused(session->resize("tokens", 0),
                {Code::dimension_out_of_range, "the dimension is below its lower bound", 0, 1, "tokens"});
  check_refused(session->resize("tokens", 10),
                {Code::dimension_out_of_range, "the dimension is above its upper bound", 10, 9, "tokens"});
}

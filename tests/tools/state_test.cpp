// State from ONNX to the session: what a model with state computes, run by run, is what the same model computes whose
// caller hands the state on.
#include <algorithm>

#include "tests/tools/device.h"
#include "tests/tools/onnx_builder.h"
#include "tools/error.h"
#include "tools/io/npy.h"
#include "tools/passes/passes.h"

using namespace heed::tools::test;
using heed::test::Aligned;
using heed::test::File;
using Problems = std::vector<std::string>;

namespace heed::test {
namespace {

namespace fs = std::filesystem;

File converted(const std::string& bytes, const ConvertOptions& options) {
  Graph graph = import_with(bytes, options);
  Report report;
  optimise(graph, report);
  return File(std::move(graph));
}

using Setting = std::pair<const char*, int>;

/// Runs the model with its state in the session, and without: equal bits after every run.
void check_carried(const std::string& onnx, ConvertOptions options, int runs,
                   const std::vector<std::pair<std::string, std::string>>& pairs,
                   const std::vector<Setting>& sizes = {}, int64_t grows_by = 0) {
  const File stateful = converted(onnx, options);
  options.states = {"none"};
  const File stateless = converted(onnx, options);
  Running carried(stateful.bytes), handed(stateless.bytes);
  CHECK(carried.model->state_count() == pairs.size());
  CHECK(handed.model->state_count() == 0);
  CHECK(carried.model->input_count() + pairs.size() == handed.model->input_count());
  std::mt19937 random(7);
  for (const auto& [name, value] : sizes) {
    REQUIRE(carried.session->resize(name, value).ok());
    // One step at a time the two might break a limit.
    if (grows_by != 0) REQUIRE(handed.session->resize("past", 0).ok());
    REQUIRE(handed.session->resize(name, value).ok());
  }
  std::map<std::string, std::vector<std::byte>> state;
  for (int run = 0; run < runs; ++run) {
    CAPTURE(run);
    if (grows_by != 0) REQUIRE(handed.session->resize("past", static_cast<int32_t>(run * grows_by)).ok());
    for (uint32_t i = 0; i < handed.model->input_count(); ++i) {
      const std::string name(handed.model->input(i).name);
      const Tensor to = handed.session->input(i);
      const auto size = static_cast<size_t>(element_count(*to.shape)) * size_of(to.shape->type);
      if (const Tensor also = carried.session->input(name)) {
        const std::vector<int64_t> dims(to.shape->dims, to.shape->dims + to.shape->rank);
        write_elements(to, random_literal(to.shape->type, dims, random));
        REQUIRE(element_count(*also.shape) == element_count(*to.shape));
        std::memcpy(also.data, to.data, size);
      } else {
        std::vector<std::byte>& last = state[name];
        last.resize(size);
        std::copy(last.begin(), last.end(), to.data);  // an empty one has no address
      }
    }
    REQUIRE(carried.session->run().ok());
    REQUIRE(handed.session->run().ok());
    for (uint32_t i = 0; i < carried.model->output_count(); ++i) {
      const std::string name(carried.model->output(i).name);
      CAPTURE(name);
      const Tensor found = carried.session->output(name), expected = handed.session->output(name);
      REQUIRE(element_count(*found.shape) == element_count(*expected.shape));
      CHECK(std::memcmp(found.data, expected.data,
                        static_cast<size_t>(element_count(*found.shape)) * size_of(found.shape->type)) == 0);
    }
    for (const auto& [in, out] : pairs) {
      const Tensor next = handed.session->output(out);
      state[in].assign(next.data, next.data + element_count(*next.shape) * size_of(next.shape->type));
    }
  }
}

std::vector<bool> copied(const std::string& onnx, const ConvertOptions& options = {}) {
  std::vector<bool> result;
  for (const Lowered::State& state : converted(onnx, options).lowered.states) result.push_back(state.copied);
  return result;
}

std::vector<float> numbers(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = 0.1f * static_cast<float>(i % 13) - 0.5f;
  return values;
}

/// y = x + h, h' = y * 0.5: the old value is read before the new one is written.
std::string accumulator() {
  OnnxBuilder b;
  b.input("x", DataType::f32, {2, 3}).input("h_in", DataType::f32, {2, 3}).output("y").output("h_out");
  b.initializer<float>("half", {}, {0.5f});
  b.node("Add", {"x", "h_in"}, {"y"}).node("Mul", {"y", "half"}, {"h_out"});
  return b.bytes();
}

/// Keys grow by the tokens of a run, and a sum over them weights these.
std::string cache(bool behind) {
  OnnxBuilder b;
  b.input("x", DataType::f32, {1, 2, "tokens", 4}).input("past_key", DataType::f32, {1, 2, "past", 4});
  b.output("y").output("present_key");
  b.node("Concat", behind ? Names{"past_key", "x"} : Names{"x", "past_key"}, {"present_key"}, {{"axis", int64_t{2}}});
  b.node("Transpose", {"present_key"}, {"k"}, {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
  b.node("MatMul", {"x", "k"}, {"scores"}).node("Softmax", {"scores"}, {"weights"}, {{"axis", int64_t{-1}}});
  b.node("MatMul", {"weights", "present_key"}, {"y"});
  return b.bytes();
}

Problems problems_of(const std::string& bytes, const ConvertOptions& options) {
  try {
    import_with(bytes, options);
    return {};
  } catch (const Error& e) {
    return e.problems();
  }
}

}  // namespace

TEST_CASE("a state of a fixed shape is carried") {
  check_carried(accumulator(), {}, 4, {{"h_in", "h_out"}});
  CHECK(copied(accumulator()) == std::vector{false});

  // y reads h after its next value is there: it is copied at the end.
  OnnxBuilder late;
  late.input("x", DataType::f32, {4}).input("h_in", DataType::f32, {4}).output("y").output("h_out");
  late.node("Tanh", {"x"}, {"h_out"}).node("Exp", {"h_out"}, {"e"});
  late.node("Softmax", {"e"}, {"s"}).node("Sub", {"s", "h_in"}, {"y"});
  check_carried(late.bytes(), {}, 3, {{"h_in", "h_out"}});

  // Two states change places: each is the other's old value.
  OnnxBuilder swap;
  swap.input("x", DataType::f32, {4}).input("a_in", DataType::f32, {4}).input("b_in", DataType::f32, {4});
  swap.output("y").output("a_out").output("b_out");
  swap.node("Sub", {"a_in", "b_in"}, {"y"}).node("Identity", {"b_in"}, {"a_out"}).node("Add", {"x", "a_in"}, {"b_out"});
  const std::string swapped = swap.bytes();
  ConvertOptions options;
  options.states = {"*_in=*_out"};
  check_carried(swapped, options, 5, {{"a_in", "a_out"}, {"b_in", "b_out"}});

  // A window that slides: the oldest row goes.
  OnnxBuilder window;
  window.input("x", DataType::f32, {1, 3}).input("cache", DataType::f32, {4, 3}).output("y").output("cache_out");
  window.initializer<int64_t>("one", {1}, {1}).initializer<int64_t>("end", {1}, {1000});
  window.initializer<int64_t>("zero", {1}, {0});
  window.node("Concat", {"cache", "x"}, {"all"}, {{"axis", int64_t{0}}});
  window.node("Slice", {"all", "one", "end", "zero"}, {"cache_out"});
  window.node("ReduceSum", {"all", "zero"}, {"y"}, {{"keepdims", int64_t{0}}});
  check_carried(window.bytes(), {}, 6, {{"cache", "cache_out"}});
}

TEST_CASE("recurrent layers carry h and c") {
  OnnxBuilder b;
  b.input("x", DataType::f32, {3, 1, 2}).input("h0", DataType::f32, {1, 1, 5}).input("c0", DataType::f32, {1, 1, 5});
  b.initializer<float>("w", {1, 20, 2}, numbers(40)).initializer<float>("r", {1, 20, 5}, numbers(100));
  b.output("y").output("hn").output("cn");
  b.node("LSTM", {"x", "w", "r", "", "", "h0", "c0"}, {"y", "hn", "cn"}, {{"hidden_size", int64_t{5}}});
  check_carried(b.bytes(), {}, 4, {{"h0", "hn"}, {"c0", "cn"}});
}

TEST_CASE("an input's default is what its state starts from") {
  OnnxBuilder b;
  b.input("x", DataType::f32, {3}).input("h", DataType::f32, {3}).initializer<float>("h", {3}, {1, 2, 3});
  b.output("y").output("hn").node("Add", {"x", "h"}, {"y"}).node("Neg", {"y"}, {"hn"});
  Running running(converted(b.bytes(), {}).bytes);
  REQUIRE(running.model->state_count() == 1);
  for (int round = 0; round < 2; ++round) {
    std::ranges::fill(running.session->input<float>("x"), 1.0f);
    REQUIRE(running.session->run().ok());
    CHECK(running.session->output<float>("y")[2] == 4);
    std::ranges::fill(running.session->input<float>("x"), 1.0f);
    REQUIRE(running.session->run().ok());
    CHECK(running.session->output<float>("y")[2] == -3);
    running.session->reset();
  }
}

TEST_CASE("a cache grows by what a run adds") {
  ConvertOptions options;
  options.dims = {"past=0..6", "tokens=1..3"};
  options.limits = {"past + tokens <= 7"};
  for (const bool behind : {true, false}) {
    CAPTURE(behind);
    const File file = converted(cache(behind), options);
    REQUIRE(file.lowered.position);
    CHECK(file.lowered.position->capacity == 7);
    CHECK(file.plan.state == 256);  // 2 heads of 7 rows of 4
    CHECK(file.lowered.states[0].copied == !behind);
    // Nothing of an appended cache is moved: one copy writes what is new.
    if (behind) CHECK(file.count(OperatorKind::copy) == 1);
    CHECK(file.count(OperatorKind::attention) == 1);
    for (const int tokens : {1, 3})
      check_carried(cache(behind), options, 7 / tokens, {{"past_key", "present_key"}}, {{"tokens", tokens}}, tokens);

    Running running(file.bytes);
    CHECK(running.session->resize("past", 2).code == Code::invalid_argument);
    REQUIRE(running.session->resize("tokens", 3).ok());
    REQUIRE(running.session->run().ok());
    REQUIRE(running.session->run().ok());
    CHECK(running.session->position() == 6);
    CHECK(running.session->run().code == Code::state_full);
    REQUIRE(running.session->resize("tokens", 1).ok());
    CHECK(running.session->run().ok());
    CHECK(running.session->run().code == Code::state_full);
    running.session->reset();
    CHECK(running.session->position() == 0);
    CHECK(running.session->run().ok());
  }
}

TEST_CASE("usual names are found, and others are not") {
  const auto pairs = [](const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
    OnnxBuilder b;
    b.input("x", DataType::f32, {3}).output("y").node("Neg", {"x"}, {"y"});
    for (const std::string& input : inputs) b.input(input, DataType::f32, {3});
    for (size_t i = 0; i < outputs.size(); ++i) b.output(outputs[i]).node("Add", {"x", inputs[i]}, {outputs[i]});
    const Graph graph = import_bytes(b.bytes());
    std::string text;
    for (const auto& state : graph.states)
      text += graph.inputs[static_cast<size_t>(state.input)].name + "=" +
              graph.outputs[static_cast<size_t>(state.output)].name + " ";
    return text;
  };
  CHECK(pairs({"h", "c"}, {"hn", "cn"}) == "h=hn c=cn ");
  CHECK(pairs({"h0", "c0"}, {"hn", "cn"}) == "h0=hn c0=cn ");
  CHECK(pairs({"h_0"}, {"h_n"}) == "h_0=h_n ");
  CHECK(pairs({"state"}, {"stateN"}) == "state=stateN ");
  CHECK(pairs({"hidden_in"}, {"hidden_out"}) == "hidden_in=hidden_out ");
  CHECK(pairs({"lstm_h.in", "conv_cache"}, {"other", "conv_cache_out"}) == "conv_cache=conv_cache_out ");
  CHECK(pairs({"past_key_values.0.key"}, {"present.0.key"}) == "past_key_values.0.key=present.0.key ");
  CHECK(pairs({"past.3"}, {"present.3"}) == "past.3=present.3 ");
  CHECK(pairs({"input_3"}, {"tf_op_layer_stack_2"}) == "");  // x has this shape too
  CHECK(pairs({"image_in"}, {"image_out"}) == "");
  CHECK(pairs({"a"}, {"an"}) == "");
}

TEST_CASE("--state that does not fit says what would") {
  const auto check = [](const std::string& bytes, const std::string& option, const std::string& problem,
                        std::vector<std::string> dims = {}) {
    ConvertOptions options;
    options.states = {option};
    options.dims = std::move(dims);
    CHECK(problems_of(bytes, options) == Problems{problem});
  };
  check(accumulator(), "h_in", "--state h_in: write IN=OUT, with as many * on both sides, or none");
  check(accumulator(), "*=h_out", "--state *=h_out: the two sides have different numbers of *");
  check(accumulator(), "g=h_out", "--state g=h_out: there is no input 'g'; this model has x, h_in");
  check(accumulator(), "h_in=g", "--state h_in=g: there is no output 'g'; this model has y, h_out");
  check(accumulator(), "*=*s", "--state *=*s: there is no output 'xs' (nor 1 more); this model has y, h_out");
  OnnxBuilder b;
  b.input("x", DataType::f32, {2, 3}).input("h", DataType::f32, {4}).input("i", DataType::i32, {2, 3});
  b.input("past_a", DataType::f32, {1, "n"}).input("past_b", DataType::f32, {1, 5});
  b.output("y").output("z").output("grown_a").output("grown_b").output("twice");
  b.node("Neg", {"x"}, {"y"}).node("Exp", {"h"}, {"e"}).node("Concat", {"e", "e"}, {"z"}, {{"axis", int64_t{0}}});
  b.initializer<float>("one", {1, 1}, {1});
  b.node("Concat", {"past_a", "one"}, {"grown_a"}, {{"axis", int64_t{1}}});
  b.node("Concat", {"past_b", "one"}, {"grown_b"}, {{"axis", int64_t{1}}});
  b.node("Concat", {"past_a", "past_a"}, {"twice"}, {{"axis", int64_t{1}}});
  const std::vector<std::string> dims = {"n=1..8"};
  check(b.bytes(), "i=y", "--state i=y: 'i' is int32, 'y' is float32", dims);
  check(b.bytes(), "x=z", "--state x=z: the input's shape is [2, 3], the output's [8]", dims);
  check(
      b.bytes(), "h=z",
      "--state h=z: the input's shape is [4], the output's [8]: the axis that grows has the size 4, where a dimension "
      "of its own is wanted: give it a range, --dim NAME=LO..HI",
      dims);
  check(
      b.bytes(), "past_a=twice",
      "--state past_a=twice: the input's shape is [1, n], the output's [1, 2 * n]: what a run adds, n, depends on the "
      "size before it",
      dims);
  ConvertOptions twice;
  twice.dims = dims;
  twice.states = {"past_a=grown_a", "past_a=twice"};
  CHECK(problems_of(b.bytes(), twice) ==
        Problems{"--state past_a=twice: 'past_a' or 'twice' is in another pair already"});
}

TEST_CASE("--set makes an input a constant") {
  OnnxBuilder b;
  b.input("x", DataType::f32, {2}).input("scale", DataType::f32, {2}).input("flag", DataType::boolean, {});
  b.output("y").node("Mul", {"x", "scale"}, {"m"}).node("Where", {"flag", "m", "x"}, {"y"});
  ConvertOptions options;
  options.sets = {"scale=3", "flag=true"};
  Graph graph = import_with(b.bytes(), options);
  REQUIRE(graph.inputs.size() == 1);
  CHECK(run_graph(graph, {Literal::of({2}, std::vector<float>{1, 2})})[0].floats()[1] == 6);
  options.sets = {"flag=0", "scale=1"};
  Graph other = import_with(b.bytes(), options);
  CHECK(run_graph(other, {Literal::of({2}, std::vector<float>{1, 2})})[0].floats()[1] == 2);

  const fs::path file = fs::temp_directory_path() / "heed_state_test.npy";
  const auto array = [&](ArrayType type, std::vector<int64_t> dims, size_t bytes) {
    tools::write_npy(file, {type, std::move(dims), std::vector<std::byte>(bytes)});
    return "scale=" + file.string();
  };
  options.sets = {array(ArrayType::f32, {2}, 8), "flag=1"};
  Graph zeros = import_with(b.bytes(), options);
  CHECK(run_graph(zeros, {Literal::of({2}, std::vector<float>{1, 2})})[0].floats()[1] == 0);

  const auto problem = [&](const std::string& option) {
    options.sets = {option};
    const Problems problems = problems_of(b.bytes(), options);
    REQUIRE(problems.size() == 1);
    return problems[0].substr(("--set " + option + ": ").size());
  };
  CHECK(problem("scale") == "write NAME=VALUE or NAME=FILE.npy");
  CHECK(problem("y=3") == "there is no input 'y'; this model has x, flag, scale");
  CHECK(problem("scale=big") == "'scale' is float32: 'big' is no number and no file's name that ends in .npy");
  CHECK(problem("flag=2") == "'flag' is boolean: write true or false, or a file's name that ends in .npy");
  CHECK(problem(array(ArrayType::f32, {3}, 12)) == "the file's shape is [3], the input's [2]");
  CHECK(problem(array(ArrayType::i64, {2}, 16)) == "the file holds int64, the input 'scale' is float32");
  options.sets = {"flag=1", "flag=0"};
  CHECK(problems_of(b.bytes(), options) == Problems{"--set flag=0: 'flag' is set twice"});
  fs::remove(file);

  // A file gives the sizes that the model leaves open.
  OnnxBuilder open;
  open.input("x", DataType::f32, {"n"}).input("scale", DataType::f32, {"n"}).output("y");
  open.node("Mul", {"x", "scale"}, {"y"});
  ConvertOptions sized;
  sized.dims = {"n=1..9"};
  tools::write_npy(file, {ArrayType::f32, {2}, std::vector<std::byte>(8)});
  sized.sets = {"scale=" + file.string()};
  const Graph fixed = import_with(open.bytes(), sized);
  CHECK(text(fixed.value(fixed.inputs[0].value).dims) == "[2]");
  sized.dims = {};  // then nobody has to ask
  const Graph pinned = import_with(open.bytes(), sized);
  CHECK(text(pinned.value(pinned.inputs[0].value).dims) == "[2]");
  sized.dims = {"n=3..9"};
  CHECK(problems_of(open.bytes(), sized) ==
        Problems{"--set " + sized.sets[0] + ": 'n' is 2 in the file, and has other bounds by --dim n=3..9"});

  OnnxBuilder sums;  // an expression is one of sizes that others have
  sums.input("x", DataType::f32, {"n"}).input("scale", DataType::f32, {"n + 1"}).output("y").output("z");
  sums.node("Neg", {"x"}, {"y"}).node("Neg", {"scale"}, {"z"});
  sized.dims = {"n=1..9"};
  const Graph sum = import_with(sums.bytes(), sized);
  CHECK(text(sum.value(sum.inputs[0].value).dims) == "[1]");
  sized.dims = {"n=5..9"};
  CHECK(problems_of(sums.bytes(), sized) ==
        Problems{"--set " + sized.sets[0] +
                 ": a size is 2 in the file, and 'n + 1' runs from 6 to 10 under the given bounds"});
  fs::remove(file);
}

TEST_CASE("--limit adds a constraint") {
  ConvertOptions options;
  options.dims = {"past=0..6", "tokens=1..3"};
  options.states = {"none"};
  const auto limited = [&](const std::string& limit) {
    options.limits = {limit};
    const Graph graph = import_with(cache(true), options);
    std::string text;
    for (const auto& c : graph.constraints)
      text += c.left.text() + (c.relation == tools::Constraint::Relation::equal ? " == " : " <= ") + c.right.text();
    return text;
  };
  CHECK(limited("past + tokens <= 7") == "tokens + past <= 7");
  CHECK(limited("past < tokens") == "past + 1 <= tokens");
  CHECK(limited("past >= tokens") == "tokens <= past");
  CHECK(limited("2*past > tokens") == "tokens + 1 <= 2 * past");
  const auto problem = [&](const std::string& limit) {
    options.limits = {limit};
    const Problems problems = problems_of(cache(true), options);
    return problems.size() == 1 ? problems[0] : "";
  };
  CHECK(problem("past") == "--limit past: write a comparison, 'past + tokens <= 512'");
  CHECK(problem("batch <= 3") == "--limit batch <= 3: there is no dimension 'batch'; this model has past, tokens");
  CHECK(problem("past <= -1") == "--limit past <= -1: no sizes under the given bounds satisfy it");
  CHECK(problem("past ! <= 1") ==
        "--limit past ! <= 1: 'past ! ' is no expression of +, -, *, //, %, min and max over dimensions");
  ConvertOptions none;
  none.limits = {"n <= 3"};
  CHECK(problems_of(accumulator(), none) == Problems{"--limit n <= 3: all sizes of this model are fixed"});
}

// --- Branches
// ---------------------------------------------------------------------------------------------------------

namespace {

GraphBytes branch(const std::string& op, const Names& inputs, const Attributes& attributes = {}) {
  OnnxBuilder b;
  return b.output("result_" + op).node(op, inputs, {"result_" + op}, attributes).branch();
}

/// y = If(condition, Neg(x), Exp(x))
OnnxBuilder choice(const std::string& condition) {
  OnnxBuilder b;
  b.output("y");
  b.node("If", {condition}, {"y"}, {{"then_branch", branch("Neg", {"x"})}, {"else_branch", branch("Exp", {"x"})}},
         "if");
  return b;
}

std::string operations(const Graph& graph) {
  Graph copy = graph;
  std::string text;
  for (const NodeId id : copy.order()) text += std::string(name(copy.node(id).operation)) + " ";
  return text;
}

}  // namespace

TEST_CASE("an If with a condition that is known takes its branch") {
  OnnxBuilder constant = choice("yes");
  constant.initializer<bool>("yes", {}, {true}).input("x", DataType::f32, {2});
  CHECK(operations(import_bytes(constant.bytes())) == "f_neg ");

  OnnxBuilder set = choice("flag");
  set.input("x", DataType::f32, {2}).input("flag", DataType::boolean, {});
  ConvertOptions options;
  options.sets = {"flag=false"};
  CHECK(operations(import_with(set.bytes(), options)) == "f_exp ");
  CHECK(problems_of(set.bytes(), {}) ==
        Problems{"node 'if' (If): the condition 'flag' depends on data; it has to be known at conversion (--set "
                 "NAME=VALUE makes an input a constant)"});
}

TEST_CASE("an If on a shape is decided by the dimensions") {
  // if n < 4: Neg, else Exp
  const auto model = [](const std::string& bounds) {
    OnnxBuilder b;
    b.input("x", DataType::f32, {"n"}).initializer<int64_t>("four", {1}, {4}).output("y");
    b.node("Shape", {"x"}, {"n"}).node("Less", {"n", "four"}, {"few"});
    b.node("If", {"few"}, {"y"}, {{"then_branch", branch("Neg", {"x"})}, {"else_branch", branch("Exp", {"x"})}}, "if");
    ConvertOptions options;
    options.dims = {bounds};
    const Problems problems = problems_of(b.bytes(), options);
    return problems.empty() ? operations(import_with(b.bytes(), options)) : problems[0];
  };
  CHECK(model("n=1..3") == "f_neg ");
  CHECK(model("n=4..9") == "f_exp ");
  CHECK(model("n=1..9") ==
        "node 'if' (If): n < 4 for some of the sizes and not for others, and both of its branches are valid for all; "
        "--dim and --limit can decide it");
}

TEST_CASE("an If with one branch of valid shapes takes it, and constrains the dimensions") {
  // As exporters write torch's squeeze: if n == 1, the axis goes.
  OnnxBuilder b;
  b.input("x", DataType::f32, {2, "n"}).initializer<int64_t>("one", {1}, {1}).output("y");
  b.initializer<int64_t>("axis", {1}, {1});
  b.node("Shape", {"x"}, {"shape"}).node("Gather", {"shape", "axis"}, {"n"}).node("Equal", {"n", "one"}, {"single"});
  b.node("If", {"single"}, {"y"},
         {{"then_branch", branch("Squeeze", {"x", "axis"})}, {"else_branch", branch("Identity", {"x"})}}, "if");
  ConvertOptions options;
  options.dims = {"n=1..5"};
  const Graph graph = import_with(b.bytes(), options);
  CHECK(text(graph.value(graph.outputs[0].value).dims) == "[2, n]");
  REQUIRE(graph.constraints.size() == 1);
  CHECK(graph.constraints[0].left.text() == "2");
  CHECK(graph.constraints[0].right.text() == "n");
  CHECK(graph.notes.back() == "node 'if' (If): n != 1");
  options.dims = {"n=1"};
  const Graph single = import_with(b.bytes(), options);
  CHECK(text(single.value(single.outputs[0].value).dims) == "[2]");
  // 1 lies amid the sizes.
  options.dims = {"n=0..5"};
  CHECK(problems_of(b.bytes(), options) == Problems{"node 'if' (If): only one branch has valid shapes, where n != 1; "
                                                    "--dim and --limit can decide it"});
}

TEST_CASE("branches see the values around them, nest, and need not be supported where they are not taken") {
  OnnxBuilder inner = choice("no");
  OnnxBuilder outer;
  outer.initializer<bool>("yes", {}, {true}).initializer<bool>("no", {}, {false}).input("x0", DataType::f32, {2});
  outer.output("z").node("Abs", {"x0"}, {"x"});
  OnnxBuilder unknown;
  unknown.output("u").node("Quux", {"x"}, {"u"});
  outer.node("If", {"yes"}, {"z"}, {{"then_branch", inner.branch()}, {"else_branch", unknown.branch()}}, "outer");
  CHECK(operations(import_bytes(outer.bytes())) == "f_abs f_exp ");

  OnnxBuilder taken;
  taken.initializer<bool>("no", {}, {false}).input("x", DataType::f32, {2}).output("z");
  taken.node("If", {"no"}, {"z"}, {{"then_branch", inner.branch()}, {"else_branch", unknown.branch()}}, "outer");
  CHECK(problems_of(taken.bytes(), {}) == Problems{"operator Quux is not supported: 1 node: Quux_0"});
  OnnxBuilder bare;
  bare.initializer<bool>("no", {}, {false}).input("x", DataType::f32, {2}).output("z").node("If", {"no"}, {"z"});
  CHECK(problems_of(bare.bytes(), {}) ==
        Problems{"node 'If_0' (If): a condition, a then_branch and an else_branch are wanted"});
}

TEST_CASE("GatherND picks by several numbers") {
  const auto picked = [](const std::vector<int64_t>& dims, const std::vector<int64_t>& index, int64_t batch) {
    OnnxBuilder b;
    b.input("x", DataType::f32, {2, 3, 2}).input("i", DataType::i64, {AxisText(int(dims[0])), AxisText(int(dims[1]))});
    b.output("y").node("GatherND", {"x", "i"}, {"y"}, {{"batch_dims", batch}});
    Graph graph = import_bytes(b.bytes());
    std::vector<float> x(12);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
    const Literal y = run_graph(graph, {Literal::of({2, 3, 2}, x), Literal::of(dims, index)})[0];
    return std::vector<float>(y.floats().begin(), y.floats().end());
  };
  CHECK(picked({2, 1}, {1, 0}, 0) == std::vector<float>{6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5});
  CHECK(picked({2, 2}, {1, 2, 0, -1}, 0) == std::vector<float>{10, 11, 4, 5});
  CHECK(picked({2, 3}, {1, 2, 1, -2, 0, 0}, 0) == std::vector<float>{11, 0});
  CHECK(picked({2, 1}, {2, -3}, 1) == std::vector<float>{4, 5, 6, 7});
}

}  // namespace heed::test

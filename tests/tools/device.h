#pragma once
/// A graph computed twice: node by node on the host, in double, and as a file that a session runs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "heed/session.h"
#include "tools/convert.h"
#include "tools/graph/graph.h"
#include "tools/plan/bounds.h"
#include "tools/plan/narrow.h"
#include "tools/plan/planner.h"
#include "tools/plan/programs.h"
#include "tools/plan/writer.h"

namespace heed::test {

using namespace heed::tools;

/// Bytes at a multiple of 64.
class Aligned {
 public:
  explicit Aligned(size_t size) : size_(size), data_(new (std::align_val_t{64}) std::byte[size + 1]) {}
  explicit Aligned(std::span<const std::byte> bytes) : Aligned(bytes.size()) {
    std::memcpy(data_, bytes.data(), bytes.size());
  }
  ~Aligned() { operator delete[](data_, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::span<std::byte> span() const { return {data_, size_}; }

 private:
  size_t size_;
  std::byte* data_;
};

/// The host sums in double and rounds after each operation, the device in float: a chain of some hundred products errs
/// by some 1e-6 of the largest numbers met, which the largest of the results stands for.
struct FloatSums {
  static constexpr double tolerance = 2e-5;
  double largest = 1;

  bool holds(double found, double expected) const {
    if (std::isnan(expected)) return std::isnan(found);
    if (std::isinf(expected)) return found == expected;
    return std::abs(found - expected) <= tolerance * largest;
  }
};

inline std::string describe(const Status& status) {
  char text[512];
  status.describe(text, sizeof text);
  return text;
}

/// Numbers around 1, small integers, or booleans.
inline Literal random_literal(Type type, std::vector<int64_t> dims, std::mt19937& random, int64_t limit = 4) {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  const auto size = static_cast<size_t>(count);
  if (type == Type::f32) {
    std::vector<float> values(size);
    for (float& value : values) value = std::normal_distribution<float>()(random);
    return Literal::of(std::move(dims), std::move(values));
  }
  if (type == Type::i32) {
    std::vector<int64_t> values(size);
    for (int64_t& value : values) value = std::uniform_int_distribution<int64_t>(0, limit - 1)(random);
    return Literal::of(std::move(dims), std::move(values));
  }
  std::vector<uint8_t> values(size);
  for (uint8_t& value : values) value = random() % 2;
  return Literal::of_booleans(std::move(dims), std::move(values));
}

/// The graph's outputs, evaluated node by node.
inline std::vector<Literal> on_host(Graph graph, const std::vector<Literal>& inputs, const Point& point) {
  std::map<ValueId, Literal> known;
  for (size_t i = 0; i < inputs.size(); ++i) known[graph.inputs[i].value] = inputs[i];
  const auto literal = [&](ValueId id) -> const Literal* {
    if (id == no_value) return nullptr;
    const auto found = known.find(id);
    return found != known.end() ? &found->second : &*graph.value(id).constant;
  };
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::vector<const Literal*> operands;
    for (const ValueId input : node.inputs) operands.push_back(literal(input));
    std::vector<Literal> results = evaluate(node, operands, point);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] != no_value) known[node.outputs[i]] = results[i];
  }
  std::vector<Literal> outputs;
  for (const Border& border : graph.outputs) outputs.push_back(*literal(border.value));
  return outputs;
}

struct File {
  Lowered lowered;
  Plan plan;
  std::vector<std::byte> bytes;

  explicit File(Graph graph) {
    narrow(graph);
    make_programs(graph);
    lowered = lower(std::move(graph));
    plan = heed::tools::plan(lowered);
    bytes = write(lowered, plan, {});
  }
  int count(OperatorKind kind) const {
    return static_cast<int>(std::count_if(lowered.operators.begin(), lowered.operators.end(),
                                          [&](const LoweredOperator& op) { return op.kind == kind; }));
  }
};

inline void write_elements(const Tensor& tensor, const Literal& literal) {
  const int64_t count = element_count(*tensor.shape);
  REQUIRE(count == literal.count());
  if (literal.type == Type::f32) std::copy_n(literal.floats().data(), count, tensor.as<float>());
  if (literal.type == Type::i32) std::copy_n(literal.integers().data(), count, tensor.as<int32_t>());
  if (literal.type == Type::boolean) std::copy_n(literal.booleans().data(), count, tensor.as<uint8_t>());
}

inline Literal read_elements(const Tensor& tensor) {
  const int64_t count = element_count(*tensor.shape);
  const std::vector<int64_t> dims(tensor.shape->dims, tensor.shape->dims + tensor.shape->rank);
  if (tensor.shape->type == Type::f32) {
    const auto* values = tensor.as<float>();
    return Literal::of(dims, std::vector<float>(values, values + count));
  }
  if (tensor.shape->type == Type::i32) {
    const auto* values = tensor.as<int32_t>();
    return Literal::of(dims, std::vector<int64_t>(values, values + count));
  }
  const auto* values = tensor.as<uint8_t>();
  return Literal::of_booleans(dims, std::vector<uint8_t>(values, values + count));
}

/// A file with its arena and its session.
struct Running {
  Aligned bytes, arena;
  Result<Model> model;
  Result<Session> session;

  explicit Running(std::span<const std::byte> file, const Options& options = {})
      : bytes(file), arena(size(bytes)), model(Model::load(bytes.span())), session(Status{Code::invalid_argument}) {
    std::memset(arena.span().data(), 0xff, arena.span().size());
    session = Session::create(*model, arena.span(), options);
    REQUIRE_MESSAGE(session, describe(session.status()));
  }

 private:
  static size_t size(const Aligned& bytes) {
    const auto model = Model::load(bytes.span());
    REQUIRE_MESSAGE(model, describe(model.status()));
    return model->memory().total();
  }
};

/// Loads, creates and runs as far as it goes; true where it ran.
inline bool attempt(std::span<const std::byte> bytes) {
  const Aligned file(bytes);
  const auto model = Model::load(file.span());
  if (!model || model->memory().total() > 1 << 26) return false;
  const Aligned arena(model->memory().total());
  auto session = Session::create(*model, arena.span());
  if (!session) return false;
  const auto run = [&] {
    for (uint32_t i = 0; i < model->input_count(); ++i) {
      const Tensor tensor = session->input(i);
      std::memset(tensor.data, 0, static_cast<size_t>(element_count(*tensor.shape)) * size_of(tensor.shape->type));
    }
    return session->run().ok();
  };
  const bool ran = run();
  if (ran && model->state_count() > 0) run();
  return ran;
}

/// Converted files truncated or mutated are refused or run within their bounds: how many of 1000 ran.
inline int run_mutated(const Converted& converted) {
  for (size_t size = 0; size < converted.bytes.size(); size += 64)
    REQUIRE(!attempt(std::span(converted.bytes).first(size)));
  std::mt19937 random(1);
  const size_t tables = converted.bytes.size() - converted.report.constants;
  int ran = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::byte> mutated = converted.bytes;
    for (uint32_t change = 0; change <= random() % 3; ++change) {
      // Mostly in the tables, where it matters.
      const size_t at = random() % (random() % 8 == 0 ? mutated.size() : tables);
      mutated[at] = random() % 2 == 0 ? static_cast<std::byte>(random()) : mutated[at] ^ std::byte{1} << random() % 8;
    }
    ran += attempt(mutated);
  }
  return ran;
}

/// The file's outputs for these inputs and dimensions.
inline std::vector<Literal> on_device(std::span<const std::byte> file, const std::vector<Literal>& inputs,
                                      const Point& point) {
  const Aligned bytes(file);
  const auto model = Model::load(bytes.span());
  REQUIRE_MESSAGE(model, describe(model.status()));
  const Aligned arena(model->memory().total());
  std::memset(arena.span().data(), 0xff, arena.span().size());  // NaNs: what is read must have been written
  auto session = Session::create(*model, arena.span());
  REQUIRE_MESSAGE(session, describe(session.status()));
  std::vector<Session::Setting> settings;
  for (const auto& [name, value] : point) settings.push_back({name, static_cast<int32_t>(value)});
  const Status resized = session->resize(settings);
  REQUIRE_MESSAGE(resized.ok(), describe(resized));
  for (uint32_t i = 0; i < inputs.size(); ++i) write_elements(session->input(i), inputs[i]);
  const Status status = session->run();
  REQUIRE_MESSAGE(status.ok(), describe(status));
  std::vector<Literal> outputs;
  for (uint32_t i = 0; i < model->output_count(); ++i) outputs.push_back(read_elements(session->output(i)));
  return outputs;
}

inline void check_close(const std::vector<Literal>& found, const std::vector<Literal>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    REQUIRE(found[i].type == expected[i].type);
    REQUIRE(found[i].dims == expected[i].dims);
    FloatSums sums;
    if (expected[i].type == Type::f32)
      for (const float value : expected[i].floats())
        if (std::isfinite(value)) sums.largest = std::max<double>(sums.largest, std::abs(value));
    for (int64_t k = 0; k < expected[i].count(); ++k) {
      const auto at = static_cast<size_t>(k);
      CAPTURE(k);
      if (expected[i].type == Type::f32) {
        const float a = found[i].floats()[at], b = expected[i].floats()[at];
        REQUIRE_MESSAGE(sums.holds(a, b), a << " is not " << b);
      } else if (expected[i].type == Type::i32) {
        REQUIRE(found[i].integers()[at] == expected[i].integers()[at]);
      } else {
        REQUIRE(found[i].booleans()[at] == expected[i].booleans()[at]);
      }
    }
  }
}

/// Builds graphs in few words, and compares host and device.
struct Built {
  Graph graph;
  std::mt19937 random{1};
  int64_t index_limit = 4;  // integer inputs are below

  Expression dimension(const std::string& name, int64_t lower, int64_t upper) {
    graph.dimensions[name] = {name, lower, upper};
    return Expression::dimension(name);
  }
  ValueId input(Dims dims, Type type = Type::f32) {
    const std::string name = "input" + std::to_string(graph.inputs.size());
    const ValueId id = graph.input(name, type, std::move(dims));
    graph.inputs.push_back({name, id, static_cast<uint8_t>(type == Type::f32 ? 1 : type == Type::i32 ? 7 : 9)});
    return id;
  }
  ValueId constant(std::vector<int64_t> dims, Type type = Type::f32) {
    return graph.constant("constant", random_literal(type, std::move(dims), random));
  }
  /// Weights of a recurrent layer: larger ones make it chaotic, and roundings grow with time.
  ValueId weights(std::vector<int64_t> dims) {
    const Literal drawn = random_literal(Type::f32, dims, random);
    std::vector<float> values(drawn.floats().begin(), drawn.floats().end());
    for (float& value : values) value *= 0.2f;
    return graph.constant("weights", Literal::of(std::move(dims), std::move(values)));
  }
  ValueId scalar(float value) { return graph.constant("scalar", Literal::of({}, std::vector{value})); }
  ValueId add(Operation operation, std::vector<ValueId> inputs) {
    const std::string name = heed::tools::name(operation) + std::to_string(graph.node_count());
    return graph.add_value(std::move(operation), std::move(inputs), name);
  }
  ValueId map(Step step, std::vector<ValueId> inputs) { return add(Map{step}, std::move(inputs)); }
  void output(ValueId id) {
    const Type type = graph.value(id).type;
    graph.outputs.push_back({"output" + std::to_string(graph.outputs.size()), id,
                             static_cast<uint8_t>(type == Type::f32   ? 1
                                                  : type == Type::i32 ? 7
                                                                      : 9)});
  }

  /// Random inputs at each setting of the dimensions.
  File check(const std::vector<Point>& points = {{}}) {
    File file(graph);
    for (const Point& point : points) {
      std::string text;
      for (const auto& [name, value] : point) text += name + "=" + std::to_string(value) + " ";
      CAPTURE(text);
      std::vector<Literal> inputs;
      for (const Border& border : graph.inputs) {
        const Value& value = graph.value(border.value);
        inputs.push_back(random_literal(value.type, evaluate_dims(value.dims, point), random, index_limit));
      }
      check_close(on_device(file.bytes, inputs, point), on_host(graph, inputs, point));
    }
    CHECK(file.plan.workspace >= file.plan.lower_bound);
    return file;
  }
};

}  // namespace heed::test

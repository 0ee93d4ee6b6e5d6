#include <doctest/doctest.h>

#include "tools/error.h"
#include "tools/graph/graph.h"

using namespace heed;
using namespace heed::tools;

namespace {

struct Fixture {
  Graph graph;
  Expression batch = Expression::dimension("batch"), tokens = Expression::dimension("tokens");
  Fixture() {
    graph.dimensions["batch"] = {"batch", 1, 64};
    graph.dimensions["tokens"] = {"tokens", 1, 512};
  }
  ValueId input(Dims dims, Type type = Type::f32) { return graph.input("x", type, std::move(dims)); }
  Dims dims(Operation operation, std::vector<ValueId> inputs) {
    return graph.value(graph.add_value(std::move(operation), std::move(inputs), "n")).dims;
  }
  // The message of a refusal.
  std::string refusal(Operation operation, std::vector<ValueId> inputs) {
    try {
      graph.add(std::move(operation), std::move(inputs), "layer.3");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
};

bool names(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    if (message.find(part) == std::string::npos) return false;
  return true;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "shapes of results") {
  const ValueId x = input({batch, tokens, 64});
  CHECK(dims(Map{Step::f_add}, {x, input({64})}) == Dims{batch, tokens, 64});
  CHECK(dims(Map{Step::f_mul}, {input({tokens, 1}), input({1, tokens})}) == Dims{tokens, tokens});
  CHECK(dims(Reshape{{batch, tokens, 4, 16}}, {x}) == Dims{batch, tokens, 4, 16});
  CHECK(dims(Reshape{{batch * tokens, 64}}, {x}) == Dims{batch * tokens, 64});
  CHECK(dims(Transpose{{2, 0, 1}}, {x}) == Dims{64, batch, tokens});
  CHECK(dims(Concat{1}, {x, x, input({batch, 3, 64})}) == Dims{batch, 2 * tokens + 3, 64});
  CHECK(dims(Pad{{0, 1, 0}, {0, 2, 0}, 0}, {x}) == Dims{batch, tokens + 3, 64});
  CHECK(dims(Slice{{0, tokens - 1, 0}, {1, 1, 1}, {batch, 1, 64}}, {x}) == Dims{batch, 1, 64});
  CHECK(dims(Gather{0}, {input({1000, 64}), input({batch, tokens}, Type::i32)}) == Dims{batch, tokens, 64});
  CHECK(dims(Matmul{}, {x, input({64, 32})}) == Dims{batch, tokens, 32});
  CHECK(dims(Matmul{}, {input({batch, 1, tokens, 8}), input({4, 8, tokens})}) == Dims{batch, 4, tokens, tokens});
  CHECK(dims(Softmax{2}, {x}) == Dims{batch, tokens, 64});
  CHECK(dims(Reduce{Reduction::mean, {1}, false}, {x}) == Dims{batch, 64});
  CHECK(dims(Reduce{Reduction::max, {0, 2}, true}, {x}) == Dims{1, tokens, 1});
  const ValueId q = input({batch, 8, 5, 16}), k = input({batch, 2, tokens, 16}), v = input({batch, 2, tokens, 24});
  CHECK(dims(Attention{}, {q, k, v, input({1, 1, 5, tokens}), input({batch, tokens}, Type::boolean)}) ==
        Dims{batch, 8, 5, 24});
  CHECK(dims(Normalize{Normalization::layer, 1e-5f}, {x, input({64}), no_value}) == Dims{batch, tokens, 64});
  CHECK(dims(Rope{}, {q, input({5, 8}), input({1, 5, 8})}) == Dims{batch, 8, 5, 16});
  const NodeId lstm = graph.add(Recurrent{Cell::lstm, Direction::both, false, 32},
                                {input({tokens, batch, 8}), input({2, 128, 8}), input({2, 128, 32})}, "lstm");
  REQUIRE(graph.node(lstm).outputs.size() == 3);
  CHECK(graph.value(graph.node(lstm).outputs[0]).dims == Dims{tokens, 2, batch, 32});
  CHECK(graph.value(graph.node(lstm).outputs[2]).dims == Dims{2, batch, 32});
}

TEST_CASE_FIXTURE(Fixture, "every refusal names the node and both shapes") {
  const ValueId x = input({batch, 5, 64});
  CHECK(names(refusal(Matmul{}, {x, input({63, 8})}),
              {"'layer.3' (matmul)", "[batch, 5, 64]", "[63, 8]", "64 and 63 differ"}));
  CHECK(names(refusal(Map{Step::f_add}, {x, input({6, 64})}), {"layer.3", "[batch, 5, 64]", "[6, 64]"}));
  CHECK(names(refusal(Reshape{{batch, 5, 63}}, {x}), {"layer.3", "[batch, 5, 64]", "[batch, 5, 63]"}));
  CHECK(names(refusal(Concat{1}, {x, input({batch, 5, 60})}), {"layer.3", "[batch, 5, 64]", "[batch, 5, 60]"}));
  CHECK(names(refusal(Concat{3}, {x}), {"layer.3", "axis 3"}));
  CHECK(names(refusal(Transpose{{0, 1}}, {x}), {"layer.3", "[batch, 5, 64]"}));
  CHECK(names(refusal(Slice{{0, 4, 0}, {1, 1, 1}, {batch, 2, 64}}, {x}), {"layer.3", "4 to 5", "[batch, 5, 64]"}));
  CHECK(names(refusal(Softmax{3}, {x}), {"layer.3", "axis 3"}));
  CHECK(names(refusal(Map{Step::i_add}, {x, x}), {"layer.3", "float, not integer"}));
  CHECK(names(refusal(Map{Step::f_add}, {x}), {"layer.3", "1 operands"}));
  CHECK(names(refusal(Reduce{Reduction::mean, {0}, true}, {input({4}, Type::i32)}), {"layer.3", "integer"}));
  CHECK(names(refusal(Normalize{Normalization::rms, 0}, {x, input({5})}), {"layer.3", "[5]", "[64]"}));
  const ValueId q = input({1, 8, 5, 16});
  CHECK(
      names(refusal(Attention{}, {q, input({1, 3, 5, 16}), input({1, 3, 5, 16})}), {"layer.3", "3 heads", "8 heads"}));
  CHECK(names(refusal(Attention{}, {q, input({1, 8, 7, 16}), input({1, 8, 6, 16})}), {"layer.3", "7 and 6"}));
  CHECK(names(refusal(Rope{}, {q, input({5, 18}), input({5, 18})}), {"layer.3", "18 channels", "[1, 8, 5, 16]"}));
  CHECK(names(refusal(Rope{}, {q, input({5, 8}), input({2, 1, 5, 8})}), {"layer.3", "[2, 1, 5, 8]", "[1, 8, 5, 16]"}));
  CHECK(names(refusal(Recurrent{Cell::gru, Direction::forward, true, 32},
                      {input({5, 1, 8}), input({1, 128, 8}), input({1, 96, 32})}),
              {"layer.3", "[1, 128, 8]", "[1, 96, 8]"}));
}

#include "tools/plan/writer.h"

#include "heed/sha256.h"
#include "tests/tools/device.h"
#include "tools/error.h"

using namespace heed;
using namespace heed::test;

namespace {

Expression of(const std::string& text) {
  return *Expression::parse(text);
}

}  // namespace

TEST_CASE("the start point is the largest setting in the order of the dimensions") {
  using Relation = heed::tools::Constraint::Relation;
  const std::map<std::string, tools::Dimension> dimensions = {{"past", {"past", 0, 511}},
                                                              {"sequence", {"sequence", 1, 512}}};
  CHECK(start_point({}, {}).empty());
  CHECK(start_point(dimensions, {}) == Point{{"past", 511}, {"sequence", 512}});
  CHECK(start_point(dimensions, {{Relation::less_equal, of("past + sequence"), 512}}) ==
        Point{{"past", 511}, {"sequence", 1}});
  CHECK(start_point(dimensions, {{Relation::equal, of("past"), of("3 * sequence")}}) ==
        Point{{"past", 510}, {"sequence", 170}});
  CHECK_THROWS_AS(start_point(dimensions, {{Relation::less_equal, of("past + 2000"), of("sequence")}}), Error);
}

TEST_CASE("the file holds dimensions, constraints and expressions as the device evaluates them") {
  Built g;
  const Expression n = g.dimension("n", 1, 40);
  const ValueId x = g.input({n, 3});
  g.graph.constraints.push_back({tools::Constraint::Relation::equal, Expression::modulo(n, 2), 0});
  const Expression half = Expression::divide(n, 2);
  g.output(g.add(Slice{{half, 0}, {1, 1}, {n - half, 3}}, {x}));
  g.output(g.map(Step::i_add, {g.add(tools::Size{Expression::minimum(7 * n - 20, 100)}, {}),
                               g.add(tools::Size{Expression::maximum(n, 10)}, {})}));
  const File file = g.check({{{"n", 2}}, {{"n", 16}}, {{"n", 40}}});
  const Aligned bytes(file.bytes);
  const auto model = Model::load(bytes.span());
  REQUIRE(model);
  REQUIRE(model->dimension_count() == 1);
  CHECK(model->dimension(0).upper == 40);
  CHECK(model->dimension(0).start == 40);
  REQUIRE(model->constraint_count() == 1);
  CHECK(std::string(model->constraint(0).text) == "n % 2 == 0");
  const Aligned arena(model->memory().total());
  auto session = Session::create(*model, arena.span());
  REQUIRE(session);
  CHECK(session->resize("n", 5).code == Code::constraint_broken);
}

TEST_CASE("the content hash is that of the file with zeros in its place") {
  Built g;
  g.output(g.add(Matmul{}, {g.input({4, 8}), g.constant({8, 8})}));
  const File file = g.check();
  const Aligned bytes(file.bytes);
  const auto model = Model::load(bytes.span());
  REQUIRE(model);
  REQUIRE(model->content_hash().size() == 32);
  std::byte kept[32];
  std::memcpy(kept, model->content_hash().data(), 32);
  std::memset(bytes.span().data() + (model->content_hash().data() - bytes.span().data()), 0, 32);
  const Sha256::Digest digest = sha256(bytes.span());
  CHECK(std::memcmp(kept, digest.bytes, 32) == 0);
}

TEST_CASE("the same graph gives the same bytes") {
  const auto bytes = [] {
    Built g;
    const Expression batch = g.dimension("batch", 1, 8);
    const ValueId x = g.input({batch, 8});
    g.output(g.map(Step::f_tanh, {g.add(Matmul{}, {x, g.constant({8, 20})})}));
    g.output(g.add(Softmax{1}, {x}));
    return File(g.graph).bytes;
  };
  CHECK(bytes() == bytes());
}

TEST_CASE("counts beyond 32 bits are put together") {
  Built g;
  const Expression batch = g.dimension("batch", 1, 2);
  const ValueId x = g.input({batch, 2048, 64});
  ValueId y = g.add(Matmul{}, {x, g.constant({64, 20000})});
  g.output(g.add(Reduce{Reduction::sum, {2}, false}, {y}));
  const File file{g.graph};
  const Aligned bytes(file.bytes);
  const auto model = Model::load(bytes.span());
  REQUIRE(model);
  const Aligned arena(model->memory().total());
  auto session = Session::create(*model, arena.span());
  REQUIRE(session);
  CHECK(session->value(model->operator_info(0).macs) == int64_t{2} * 2048 * 64 * 20000);
}

// The bytes a model needs are the same on every target: the numbers stand here, and the test runs under qemu too.
#include <doctest/doctest.h>

#include "runtime/tables.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;

static_assert(sizeof(Tables) == 72);
static_assert(sizeof(OperatorRecord) == 64 && alignof(OperatorRecord) == 4);
static_assert(sizeof(TensorRecord) == 80 && sizeof(CheckRecord) == 12);
static_assert(sizeof(ElementwiseParams) == 8 && sizeof(Source) == 8 && sizeof(Instruction) == 8);
static_assert(sizeof(CopyParams) == 4 && sizeof(GatherParams) == 4 && sizeof(MatmulParams) == 4);
static_assert(sizeof(AttentionParams) == 20 && sizeof(NormalizeParams) == 8 && sizeof(SoftmaxParams) == 4);
static_assert(sizeof(ReduceParams) == 4 && sizeof(RecurrentParams) == 12);
static_assert(sizeof(Window) == 48 && sizeof(ConvParams) == 56 && sizeof(PoolParams) == 76);
static_assert(sizeof(RopeParams) == 4 && sizeof(MatmulI8Params) == 4 && sizeof(AttentionI8Params) == 20);
static_assert(sizeof(ConvI8Params) == 56);

TEST_CASE("memory has one size on every target") {
  struct Row {
    const char* name;
    uint64_t constants, workspace, tables, per_thread, state = 0;
  };
  const Row rows[] = {
      {"elementwise", 2400, 28288, 704, 10240},
      {"copy", 0, 2048, 768, 0},
      {"gather", 2000, 1088, 512, 0},
      {"matmul", 4768, 11328, 896, 2560},
      {"attention", 0, 11968, 768, 1216},
      {"normalize", 340, 1792, 576, 0},
      {"softmax", 0, 1792, 384, 0},
      {"reduce", 0, 2816, 640, 0},
      {"recurrent", 12288, 14080, 768, 10752},
      {"conv", 2672, 17920, 960, 384},
      {"pool", 0, 29824, 704, 0},
      {"rope", 456, 7936, 896, 0},
      {"block", 7296, 19136, 1792, 1600},
      {"state", 384, 768, 1280, 384, 896},
      {"int8", 3996, 10624, 2432, 6912},
      {"layers_i8", 13184, 3968, 2368, 3136},
  };
  const std::vector<Example> all = examples();
  REQUIRE(all.size() == std::size(rows));
  for (size_t i = 0; i < all.size(); ++i) {
    const Example& example = all[i];
    const Row& row = rows[i];
    CAPTURE(example.name);
    CHECK(example.name == row.name);
    const Bytes file = example.builder.bytes();
    const auto model = Model::load(file);
    REQUIRE(model);
    const Memory& memory = model->memory();
    CHECK(memory.constants == row.constants);
    CHECK(memory.workspace == row.workspace);
    CHECK(memory.tables == row.tables);
    CHECK(memory.per_thread == row.per_thread);
    CHECK(memory.state == row.state);
    CHECK(memory.total() == row.state + row.workspace + row.tables);
    CHECK(memory.total(3) == row.state + row.workspace + row.tables + 2 * row.per_thread);
  }
}

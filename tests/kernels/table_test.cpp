/// The table of operators against what stands beside it: an operator whose folder, schema or test is not there fails
/// here.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/conv/conv.h"
#include "kernels/conv_i8/conv_i8.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/normalize/normalize.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/recurrent_i8/recurrent_i8.h"
#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;
namespace fs = std::filesystem;

namespace {

constexpr struct {
  const char *name, *Name;
} rows[] = {
#define HEED_OPERATOR(name, Name) {#name, #Name},
#include "kernels/operators.inc"
#undef HEED_OPERATOR
};

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("operators: each row has its folder, its table in the schema and its test") {
  const fs::path root = HEED_SOURCE_DIR;
  if (!fs::exists(root / "kernels")) return std::puts("skipped: the sources are not on this machine"), void();
  const std::string schema = text_of(root / "format/heed.fbs");
  std::string names;
  for (const auto& row : rows) {
    const std::string name = row.name, stem = (root / "kernels" / name / name).string();
    for (const char* ending : {".h", ".cpp", ".simd.cpp"})
      CHECK_MESSAGE(fs::exists(stem + ending), stem << ending << " is missing");
    const fs::path test = root / "tests/kernels" / (name + "_test.cpp");
    CHECK_MESSAGE(fs::exists(test), test << " is missing");
    CHECK_MESSAGE(schema.find("\ntable " + std::string(row.Name) + " {") != std::string::npos,
                  "format/heed.fbs has no table " << row.Name);
    names += (names.empty() ? "" : ", ") + std::string(row.Name);
  }
  CHECK_MESSAGE(schema.find("union Params { " + names + " }") != std::string::npos,
                "the schema's union Params is not in the order of operators.inc: " << names);
}

TEST_CASE("operators: numbers, names and rows agree") {
  CHECK(std::size(rows) == static_cast<size_t>(OperatorKind::count));
  for (size_t i = 0; i < std::size(rows); ++i) {
    const Operator& row = operator_of(static_cast<OperatorKind>(i));
    CHECK(std::string(row.name) == rows[i].name);
    CHECK(bool(row.check));
    CHECK(bool(row.scratch));
    CHECK(bool(row.in_place));
    CHECK(bool(row.run));
    // A level without kernels of its own takes the one below.
    for (const Isa isa : isas()) {
      const bool is_i8 = std::string(row.name).ends_with("_i8");
      const bool i8_level = isa == Isa::avxvnni || isa == Isa::avx512vnni || isa == Isa::dotprod || isa == Isa::i8mm;
      Isa expected = isa;
      while (is_i8 ? expected == Isa::avx512 : i8_level && expected == isa) expected = below(expected);
      while (!is_i8 && (expected == Isa::dotprod)) expected = below(expected);
      CHECK(row.variant(isa) == expected);
    }
    CHECK(row.variant(Isa::portable) == Isa::portable);
  }
}

TEST_CASE("operators: scratch never wraps") {
  const int most = max_elements;
  // The largest and the smallest of what a contract lets pass, against the same in double precision.
  const auto check = [](const Call& call, double expected) {
    CHECK(!call.check());
    const auto found = call.scratch();
    CAPTURE(expected);
    if (expected >= 0x1p64)
      CHECK(found == UINT64_MAX);
    else
      CHECK(double(found) == doctest::Approx(expected).epsilon(1e-9));
  };
  for (int kind = 0; kind < static_cast<int>(OperatorKind::count); ++kind) {
    switch (static_cast<OperatorKind>(kind)) {
      case OperatorKind::elementwise: {
        struct {
          ElementwiseParams head{16, 0, 1, 1, {15}};
          Source sources[16];
          Instruction step{Step::f_neg, 15, {16, operand::none, operand::none}, {}};
        } params{};
        for (const int n : {1, 16, 513, most}) {
          const Shape x = shape_of(Type::f32, {n, 1}, {0, 2}), y = shape_of(Type::f32, {n, 1});
          Call call(elementwise_operator, &params);
          for (int i = 0; i < 16; ++i) call.input(x, nullptr);
          check(call.output(y, nullptr), (16.0 + 16) * 4 * std::min((n + 15) / 16 * 16, elementwise_block));
        }
        break;
      }
      case OperatorKind::matmul: {
        const MatmulParams params{};
        for (const int k : {0, 1, most}) {
          const Shape a = shape_of(Type::f32, {1, k}, {0, 0}), b = shape_of(Type::f32, {k, 1}, {0, 0}),
                      y = shape_of(Type::f32, {1, 1});
          check(Call(matmul_operator, &params).input(a, nullptr).input(b, nullptr).output(y, nullptr), 64.0 * k);
        }
        break;
      }
      case OperatorKind::matmul_i8:
        for (const int k : {1, 17, most_terms_i8(128)})
          for (const int n : {1, most}) {
            const bool b_zero = k == 17;
            const MatmulI8Params params{Activation::none, 255, {}};
            const Shape a = shape_of(Type::i8, {1, k}), a_scale = shape_of(Type::f32, {1, 1}),
                        b = shape_of(Type::i8, {(n + 15) / 16, (k + 3) / 4, 16, 4}),
                        b_scale = shape_of(Type::f32, {(n + 15) / 16, 16}),
                        b_sum = shape_of(Type::i32, {(n + 15) / 16, 16}), q = shape_of(Type::i8, {1, n}),
                        q_scale = shape_of(Type::f32, {1, 1});
            Call call(matmul_i8_operator, &params);
            call.input(a, nullptr)
                .input(a_scale, nullptr)
                .input(b, nullptr)
                .input(b_scale, nullptr)
                .input(b_sum, nullptr);
            if (b_zero) call.absent().absent().absent().input(b_sum, nullptr);
            check(call.absent_output().output(q, nullptr).output(q_scale, nullptr),
                  255.0 * ((k + 15) / 16 * 32 + (int64_t{n} + 15) / 16 * 64 + (b_zero ? 4 : 0)));
          }
        break;
      case OperatorKind::attention:
        for (const int tk : {1, 1 << 23})
          for (const int d : {1, most})
            for (const int dv : {1, 1024, most}) {
              const AttentionParams params{1, 0, 0, 65535, 0, 0, 0};
              const Shape q = shape_of(Type::f32, {1, 1, 1, d}, {0, 0, 0, 0}),
                          k = shape_of(Type::f32, {1, 1, tk, d}, {0, 0, 0, 0}),
                          v = shape_of(Type::f32, {1, 1, tk, dv}, {0, 0, 0, 0}), y = shape_of(Type::f32, {1, 1, 1, dv}),
                          padding = shape_of(Type::boolean, {1, tk}), bias = shape_of(Type::boolean, {1, 1, 1, tk});
              Call call(attention_operator, &params);
              call.input(q, nullptr).input(k, nullptr).input(v, nullptr).input(bias, nullptr).input(padding, nullptr);
              const double keys = (tk + 15) / 16 * 16, panels = (int64_t{dv} + 15) / 16 * 16;
              check(call.output(y, nullptr), 4 * (keys * d + panels * tk + keys * (2 + 65535.0)));
            }
        break;
      case OperatorKind::attention_i8:
        for (const int tk : {1, 66304})
          for (const int d : {1, 133144})
            for (const int dv : {1, 1024, most}) {
              const AttentionParams params{1, 0, 0, 65535, 0, 0, 0};
              const Shape q = shape_of(Type::i8, {1, 1, 1, d}, {0, 0, 0, 1}),
                          k = shape_of(Type::i8, {1, 1, tk, d}, {0, 0, 0, 1}),
                          v = shape_of(Type::i8, {1, 1, tk, dv}, {0, 0, 0, 1}), y = shape_of(Type::f32, {1, 1, 1, dv}),
                          bias = shape_of(Type::boolean, {1, 1, 1, tk}), one = shape_of(Type::f32, {1, 1, 1, 1}),
                          scales = shape_of(Type::f32, {1, 1, tk, 1});
              Call call(attention_i8_operator, &params);
              call.input(q, nullptr).input(k, nullptr).input(v, nullptr).input(bias, nullptr);
              for (int i = 0; i < 3; ++i) call.absent();
              call.input(one, nullptr).input(scales, nullptr).input(scales, nullptr);
              const double keys = (tk + 15) / 16 * 16, query = (d + 15) / 16 * 16;
              check(call.output(y, nullptr), keys * ((d + 3) / 4 * 4 + (int64_t{dv} + 15) / 16 * 16 + 20) +
                                                 query * 2 * 65535.0 + 4 * keys * (1 + 65536.0));
            }
        break;
      case OperatorKind::recurrent:
        for (const int hidden : {1, 1 << 14})
          for (const int chunk : {1, 1 << 24})
            for (const int batch : {1, 1 << 27, most}) {
              const RecurrentParams params{Cell::lstm, Direction::forward, 0, 0, hidden, chunk};
              const int panels = (hidden + 15) / 16;
              const Shape x = shape_of(Type::f32, {1, batch, 1}, {0, 0, 1}),
                          w = shape_of(Type::f32, {1, panels, 4, 1, 16}),
                          r = shape_of(Type::f32, {1, panels, 4, hidden, 16}),
                          b = shape_of(Type::f32, {1, panels, 4, 16}),
                          h = shape_of(Type::f32, {1, batch, hidden}, {0, 0, 1});
              Call call(recurrent_operator, &params);
              call.input(x, nullptr).input(w, nullptr).input(r, nullptr).input(b, nullptr);
              check(call.absent_output().output(h, nullptr), 64.0 * panels * batch * (4.0 * chunk + 4 + 2));
            }
        break;
      case OperatorKind::conv:
        for (const int kernel : {1, 1 << 14})
          for (const int stride : {1, 1 << 16}) {
            const ConvParams params{
                Activation::none, 0, 255, 0, 1, {{kernel, kernel, 1}, {1, 1, stride}, {1, 1, 1}, {0, 0, 0}}};
            const Shape x = shape_of(Type::f32, {1, 1, 1, 1, 4}), w = shape_of(Type::f32, {0, kernel * kernel * 4, 16}),
                        y = shape_of(Type::f32, {1, 1, 1, 1, 0});
            check(Call(conv_operator, &params).input(x, nullptr).input(w, nullptr).output(y, nullptr),
                  16.0 * kernel * kernel * (254.0 * stride + 1));
          }
        break;
      case OperatorKind::recurrent_i8:
        for (const int hidden : {1, 1 << 14})
          for (const int chunk : {1, 1 << 24})
            for (const int batch : {1, 1 << 27, most}) {
              const RecurrentI8Params params{Cell::lstm, Direction::forward, 0, 0, hidden, chunk};
              const int panels = (hidden + 15) / 16;
              const Shape x = shape_of(Type::i8, {1, batch, 1}, {0, 0, 1}),
                          x_scale = shape_of(Type::f32, {1, batch, 1}, {0, 0, 1}),
                          w = shape_of(Type::i8, {1, panels, 4, 1, 16, 4}),
                          r = shape_of(Type::i8, {1, panels, 4, (hidden + 3) / 4, 16, 4}),
                          scale = shape_of(Type::f32, {1, panels, 4, 16}),
                          sum = shape_of(Type::i32, {1, panels, 4, 16}),
                          h = shape_of(Type::f32, {1, batch, hidden}, {0, 0, 1});
              Call call(recurrent_i8_operator, &params);
              call.input(x, nullptr)
                  .input(x_scale, nullptr)
                  .input(w, nullptr)
                  .input(scale, nullptr)
                  .input(sum, nullptr);
              call.input(r, nullptr).input(scale, nullptr).input(sum, nullptr).input(scale, nullptr);
              const double rows = std::min(24.0, double{1} * chunk * batch);
              check(call.absent_output().output(h, nullptr),
                    64.0 * panels * batch * (4.0 * chunk + 4 + 2) + rows * panels * 32 + (panels * 16.0 + 4) * batch);
            }
        break;
      case OperatorKind::conv_i8:
        for (const int kernel : {1, 181}) {
          const ConvI8Params params{
              Activation::none, 255, {}, 1, {{1, kernel, kernel}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}}};
          const Shape x = shape_of(Type::f32, {1, 1, 1, 1, 2}),
                      w = shape_of(Type::i8, {0, (kernel * kernel * 2 + 3) / 4, 16, 4}),
                      scale = shape_of(Type::f32, {0, 16}), sum = shape_of(Type::i32, {0, 16}),
                      y = shape_of(Type::f32, {1, 1, 1, 1, 0});
          Call call(conv_i8_operator, &params);
          call.input(x, nullptr).input(w, nullptr).input(scale, nullptr).input(sum, nullptr);
          check(call.output(y, nullptr), 255.0 * ((kernel * kernel * 2 + 15) / 16 * 48.0 + 4 + 4));
        }
        break;
      case OperatorKind::normalize:
        for (const int n : {1, 17, most}) {
          const NormalizeParams params{};
          const Shape x = shape_of(Type::f32, {1, n}), q = shape_of(Type::i8, {1, n}),
                      scale = shape_of(Type::f32, {1, 1});
          Call call(normalize_operator, &params);
          check(call.input(x, nullptr).absent_output().output(q, nullptr).output(scale, nullptr), 8 * 4.0 * n);
        }
        break;
      default:  // the others have none
        CHECK(operator_of(static_cast<OperatorKind>(kind)).scratch({}) == 0);
        break;
    }
  }
}

TEST_CASE("operators: instruction sets below one another") {
  CHECK(below(Isa::avx512vnni) == Isa::avx512);
  CHECK(below(Isa::avx512) == Isa::avx2);
  CHECK(below(Isa::avxvnni) == Isa::avx2);
  CHECK(below(Isa::avx2) == Isa::portable);
  CHECK(below(Isa::i8mm) == Isa::dotprod);
  CHECK(below(Isa::dotprod) == Isa::neon);
  CHECK(below(Isa::neon) == Isa::portable);
  CHECK(below(Isa::portable) == Isa::portable);
  CHECK(available(Isa::portable));
  CHECK(available(best_isa()));
  CHECK(best_isa() == isas().back());
  for (int i = 0; i < isa_count; ++i) CHECK(std::string(name(static_cast<Isa>(i))) != "?");
  // A level without kernels of its own takes the one below.
  for (const auto& [isa, taken] :
       {std::pair{Isa::avx512vnni, Isa::avx512}, {Isa::avxvnni, Isa::avx2}, {Isa::i8mm, Isa::neon}})
    if (available(taken)) CHECK(softmax_operator.variant(isa) == taken);
}

TEST_CASE("tensors: names, sizes, density") {
  CHECK(std::string(name(Type::boolean)) == "bool");
  CHECK(is_dense(shape_of(Type::f32, {2, 3})));
  CHECK(is_dense(shape_of(Type::f32, {})));
  CHECK(is_dense(shape_of(Type::f32, {1, 3}, {77, 1})));
  CHECK(is_dense(shape_of(Type::f32, {0, 3}, {7, 7})));
  CHECK(!is_dense(shape_of(Type::f32, {2, 3}, {4, 1})));
  CHECK(!is_dense(shape_of(Type::f32, {2, 3}, {1, 2})));
}

TEST_CASE("float mode: subnormals are zero inside, and the caller's mode comes back") {
  volatile float tiny = 1e-40f, small = 1.2e-38f, half = 0.5f;
  CHECK(tiny * 2.0f != 0.0f);
  {
    const FlushToZero mode;
    CHECK(std::bit_cast<uint32_t>(tiny * 2.0f) == 0);
    CHECK(std::bit_cast<uint32_t>(small * half) == 0);
  }
  CHECK(tiny * 2.0f != 0.0f);
}

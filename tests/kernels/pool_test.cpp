#include "kernels/pool/pool.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// One pooling, run in every way.
struct Layer {
  int images, size[3], channels;
  Window window;
  int after[3];
  Pooling kind;
  bool counts_padding = false;
  int gap = 0;
  uint32_t threads = 1;

  int out(int axis) const {
    const int reach = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
    return (size[axis] + window.before[axis] + after[axis] - reach) / window.strides[axis] + 1;
  }

  void check(Random& random, bool provoke) const {
    const int d = out(0), h = out(1), w = out(2), step = channels + gap;
    const auto strided = [&](int d, int h, int w) {
      return shape_of(Type::f32, {images, d, h, w, channels}, {d * h * w * step, h * w * step, w * step, step, 1});
    };
    const Shape x_shape = strided(size[0], size[1], size[2]), y_shape = strided(d, h, w);
    const auto x_count = static_cast<size_t>(images * size[0] * size[1] * size[2] * step - gap),
               y_count = static_cast<size_t>(images * d * h * w * step - gap);
    const Guarded<float> x(provoke ? provoking_floats(x_count, random) : uniform(x_count, random));
    PoolParams params{kind, {}, window, {}, {}};
    for (int axis = 0; axis < 3 && counts_padding; ++axis)
      params.count_before[axis] = window.before[axis], params.count_after[axis] = after[axis];
    const auto run = [&](Isa isa, uint32_t count, float* y) {
      Call(pool_operator, &params).input(x_shape, x.data()).output(y_shape, y).run(isa, count);
    };
    const std::vector<float> before(y_count, 7.0f);
    std::vector<float> expected = before;
    run(Isa::portable, 1, expected.data());
    for (Isa isa : simd_isas()) {
      const Guarded<float> y{std::span<const float>(before)};
      run(isa, threads, y.data());
      check_same(expected, y, heed::name(isa));
    }
    if (provoke) return;
    for (int i = 0; i < images * d * h * w; ++i) {
      const int at[3] = {i / (h * w) % d, i / w % h, i % w};
      for (int c = 0; c < channels; ++c) {
        double sum = 0, largest = -INFINITY;
        int count = 0;
        for (int a = 0; a < window.kernel[0]; ++a) {
          for (int b = 0; b < window.kernel[1]; ++b) {
            for (int e = 0; e < window.kernel[2]; ++e) {
              const int tap[3] = {a, b, e};
              int place = i / (d * h * w);
              bool inside = true, counted = true;
              for (int axis = 0; axis < 3; ++axis) {
                const int k =
                    at[axis] * window.strides[axis] + tap[axis] * window.dilations[axis] - window.before[axis];
                inside = inside && k >= 0 && k < size[axis];
                counted = counted && k >= -params.count_before[axis] && k < size[axis] + params.count_after[axis];
                place = place * size[axis] + k;
              }
              count += counted;
              if (!inside) continue;
              const double value = x[static_cast<size_t>(place * step + c)];
              sum += value;
              largest = std::max(largest, value);
            }
          }
        }
        const double exact = kind == Pooling::max ? largest : kind == Pooling::mean ? sum / count : sum;
        const float found = expected[static_cast<size_t>(i * step + c)];
        if (count > 0) REQUIRE((found == exact || std::abs(found - exact) <= 1e-5));
      }
    }
  }
};

TEST_CASE("pool: every count of channels, window and padding") {
  Random random(1);
  uint32_t turn = 0;
  for (Pooling kind : {Pooling::max, Pooling::mean, Pooling::sum}) {
    for (int channels : {1, 3, 4, 8, 13, 16, 31, 33, 64, 70}) {
      for (int kernel : {1, 2, 3}) {
        for (int stride : {1, 2}) {
          for (int padding : {0, 1}) {
            ++turn;
            const int dilation = 1 + static_cast<int>(turn % 2), after = padding + static_cast<int>(turn % 3);
            Layer layer{1 + static_cast<int>(turn % 2),
                        {1, 5, 7},
                        channels,
                        {{1, kernel, kernel}, {1, stride, stride}, {1, dilation, dilation}, {0, padding, padding}},
                        {0, after, after},
                        kind,
                        turn % 5 < 2};
            layer.gap = turn % 4 == 0 ? 2 : 0;
            layer.check(random, turn % 3 == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("pool: three axes; threads change nothing") {
  Random random(2);
  Layer layer{2, {4, 5, 6}, 5, {{2, 3, 2}, {2, 1, 3}, {1, 1, 2}, {1, 0, 1}}, {1, 2, 0}, Pooling::mean, true};
  layer.check(random, false);
  Layer large{1, {1, 1, 900}, 40, {{1, 1, 5}, {1, 1, 1}, {1, 1, 1}, {0, 0, 2}}, {0, 0, 2}, Pooling::max};
  for (uint32_t threads : {2u, 3u, 7u}) {
    large.threads = threads;
    large.check(random, false);
  }
}

TEST_CASE("pool: the contract says what is wrong") {
  const Shape x = shape_of(Type::f32, {1, 1, 1, 9, 6}), y = shape_of(Type::f32, {1, 1, 1, 8, 6});
  const PoolParams good{Pooling::max, {}, {{1, 1, 2}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}}, {}, {}};
  const auto refused = [](PoolParams params, const Shape& x, const Shape& y, int operand, const char* what) {
    const Violation violation = Call(pool_operator, &params).input(x, nullptr).output(y, nullptr).check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(std::string(violation.what) == what);
    CHECK(violation.operand == operand);
  };
  CHECK_FALSE(Call(pool_operator, &good).input(x, nullptr).output(y, nullptr).check());
  PoolParams params = good;
  params.kind = static_cast<Pooling>(3);
  refused(params, x, y, output_operand, "unknown pooling");
  params = good;
  params.window.kernel[0] = 0;
  refused(params, x, y, 1, "a kernel's size is out of range");
  params = good;
  params.count_after[2] = -1;
  refused(params, x, y, 0, "a counted padding is out of range");
  refused(good, x, shape_of(Type::f32, {1, 1, 1, 8, 5}), output_operand, "x and y differ in channels");
  refused(good, x, shape_of(Type::i32, {1, 1, 1, 8, 6}), output_operand, "wrong element type");
  refused(good, shape_of(Type::f32, {1, 1, 1, 9, 6}, {54, 54, 54, 1, 9}), y, 0, "the last axis has gaps");
}

}  // namespace
}  // namespace heed::test

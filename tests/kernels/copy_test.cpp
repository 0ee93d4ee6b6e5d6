#include "kernels/copy/copy.h"

#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

struct View {
  std::vector<int> dims, x_strides, y_strides;
};

Shape shape_with(Type type, const std::vector<int>& dims, const std::vector<int>& strides) {
  Shape shape{};
  shape.type = type;
  shape.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), shape.dims);
  std::copy(strides.begin(), strides.end(), shape.strides);
  return shape;
}

/// Lowest and highest offset that a view reaches.
std::pair<int, int> reach(const std::vector<int>& dims, const std::vector<int>& strides) {
  int low = 0, high = 0;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const int far = (dims[axis] - 1) * strides[axis];
    (far < 0 ? low : high) += far;
  }
  return {low, high};
}

template <class T>
void check_view(const View& view, Type type, Isa isa, uint32_t threads) {
  const Shape x_shape = shape_with(type, view.dims, view.x_strides),
              y_shape = shape_with(type, view.dims, view.y_strides);
  const int64_t count = element_count(x_shape);
  const auto [x_low, x_high] = reach(view.dims, view.x_strides);
  const auto [y_low, y_high] = reach(view.dims, view.y_strides);
  const size_t x_size = count == 0 ? 0 : static_cast<size_t>(x_high - x_low + 1);
  const size_t y_size = count == 0 ? 0 : static_cast<size_t>(y_high - y_low + 1);
  std::vector<T> x(x_size), expected(y_size, T{99});
  for (size_t i = 0; i < x_size; ++i) x[i] = static_cast<T>(i * 7 + 1);
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, from = -x_low, to = 0;
    for (int axis = x_shape.rank - 1; axis >= 0; --axis) {
      from += rest % view.dims[static_cast<size_t>(axis)] * view.x_strides[static_cast<size_t>(axis)];
      to += rest % view.dims[static_cast<size_t>(axis)] * view.y_strides[static_cast<size_t>(axis)];
      rest /= view.dims[static_cast<size_t>(axis)];
    }
    expected[static_cast<size_t>(to)] = x[static_cast<size_t>(from)];
  }
  const Guarded<T> in(x), out(y_size);
  std::fill(out.span().begin(), out.span().end(), T{99});
  const CopyParams params{};
  Call(copy_operator, &params).input(x_shape, in.data() - x_low).output(y_shape, out.data()).run(isa, threads);
  check_same(expected, out, name(isa));
}

}  // namespace

TEST_CASE("copy: transpose, slice, flip, expand, concatenate") {
  std::vector<View> views = {
      {{}, {}, {}},
      {{5}, {1}, {1}},
      {{5}, {-1}, {1}},
      {{5}, {0}, {1}},
      {{5}, {2}, {3}},
      {{0, 3}, {3, 1}, {3, 1}},
      {{3, 4, 5}, {20, 5, 1}, {20, 5, 1}},
      {{3, 4, 5}, {1, 3, 12}, {20, 5, 1}},
      {{3, 4, 5}, {20, 5, 1}, {1, 3, 12}},
      {{3, 4, 5}, {-20, 5, -1}, {20, 5, 1}},
      {{2, 3, 4, 5}, {60, 5, 15, 1}, {60, 20, 5, 1}},       // heads: [B, T, H, D] to [B, H, T, D]
      {{2, 30, 40}, {1200, 1, 30}, {1200, 40, 1}},          // a batch of transposes
      {{2, 17, 9, 3}, {459, 1, 17, 153}, {459, 27, 3, 1}},  // channels first to channels last
      {{4, 6}, {6, 1}, {13, 1}},                            // into a part of a buffer
      {{7, 6, 5}, {0, 5, 1}, {30, 5, 1}},
      {{64, 300}, {1, 64}, {300, 1}},
  };
  for (const int n : {1, 3, 4, 7, 8, 9, 15, 16, 17, 24, 33})
    for (const int m : {1, 4, 8, 13, 16, 31}) views.push_back({{n, m}, {1, n + 2}, {m + 1, 1}});
  for (const View& view : views) {
    for (const Isa isa : isas()) {
      for (const uint32_t threads : {1u, 3u}) {
        check_view<float>(view, Type::f32, isa, threads);
        check_view<int32_t>(view, Type::i32, isa, threads);
        check_view<uint8_t>(view, Type::u8, isa, threads);
      }
    }
  }
}

TEST_CASE("copy: NaN and subnormals pass unchanged") {
  const float x[] = {std::bit_cast<float>(0x7fc12345u), 1e-40f, std::bit_cast<float>(0xff812345u), -0.0f};
  const CopyParams params{};
  const Shape across = shape_of(Type::f32, {2, 2}, {1, 2}), dense = shape_of(Type::f32, {2, 2});
  for (const Isa isa : isas()) {
    float y[4];
    Call(copy_operator, &params).input(across, x).output(dense, y).run(isa);
    for (const auto& [to, from] : {std::pair{0, 0}, {1, 2}, {2, 1}, {3, 3}})
      CHECK(std::bit_cast<uint32_t>(y[to]) == std::bit_cast<uint32_t>(x[from]));
  }
}

TEST_CASE("copy: the contract") {
  const CopyParams params{};
  const Shape x = shape_of(Type::f32, {2, 3}), other = shape_of(Type::f32, {3, 2}), bytes = shape_of(Type::u8, {2, 3}),
              flat = shape_of(Type::f32, {6}), over = shape_of(Type::f32, {2, 3}, {0, 1}),
              back = shape_of(Type::f32, {2, 3}, {3, -1});
  float data[32];
  const auto refused = [&](const Shape& a, const Shape& b) {
    return bool(Call(copy_operator, &params).input(a, data + 8).output(b, data + 8).check());
  };
  CHECK(!refused(x, x));
  CHECK(!refused(over, x));
  CHECK(!refused(back, x));
  CHECK(refused(x, other));
  CHECK(refused(x, bytes));
  CHECK(refused(x, flat));
  CHECK(refused(x, over));
  CHECK(refused(x, back));
  CHECK(bool(Call(copy_operator, &params).absent().output(x, data).check()));
  CHECK(bool(Call(copy_operator, &params).input(x, data).check()));
}

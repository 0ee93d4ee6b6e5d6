#include "kernels/reduce/reduce.h"

#include <algorithm>

#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

constexpr Reduction kinds[] = {Reduction::sum, Reduction::mean, Reduction::sum_square, Reduction::product,
                               Reduction::max, Reduction::min,  Reduction::arg_max,    Reduction::arg_min};

bool is_arg(Reduction kind) {
  return kind >= Reduction::arg_max;
}

/// A view to reduce: dims and strides of x, the last `axes` axes reduced.
struct View {
  std::vector<int> dims, strides;
  int axes;

  Shape x(Type type) const {
    Shape shape{};
    shape.type = type;
    shape.rank = static_cast<uint8_t>(dims.size());
    std::copy(dims.begin(), dims.end(), shape.dims);
    std::copy(strides.begin(), strides.end(), shape.strides);
    return shape;
  }
  Shape y(Type type) const {
    Shape shape = x(type);
    shape.rank = static_cast<uint8_t>(shape.rank - axes);
    int stride = 1;
    for (int axis = shape.rank - 1; axis >= 0; --axis) {
      shape.strides[axis] = stride;
      stride *= shape.dims[axis];
    }
    return shape;
  }
  size_t count() const {
    size_t last = 0;
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      if (dims[axis] == 0) return 0;
      last += static_cast<size_t>((dims[axis] - 1) * strides[axis]);
    }
    return last + 1;
  }
};

std::vector<View> views() {
  std::vector<View> list;
  for (const int n : sizes()) {
    list.push_back({{3, n}, {n, 1}, 1});               // along the reduced axis
    list.push_back({{2, 11, n}, {11 * n, 1, 11}, 1});  // along outputs
    list.push_back({{19, n}, {1, 19}, 1});
    list.push_back({{2, n}, {3 * n, 3}, 1});  // neither
  }
  list.push_back({{3, 5, 7}, {35, 7, 1}, 2});
  list.push_back({{7, 5, 3}, {1, 30, 7}, 2});  // two reduced axes that do not merge, along outputs
  list.push_back({{4, 6, 9}, {9, 36, 1}, 2});  // the same, one output at a time
  list.push_back({{2, 3, 4, 5}, {60, 20, 5, 1}, 4});
  list.push_back({{0, 4}, {4, 1}, 1});
  for (const int empty : {0, 1, 2})  // an axis of size 0 in each place, between axes that do not merge
    for (const int axes : {1, 2, 3}) {
      View view{{2, 3, 4}, {1, 100, 7}, axes};
      view.dims[static_cast<size_t>(empty)] = 0;
      list.push_back(view);
    }
  list.push_back({{5}, {1}, 1});
  return list;
}

template <class T>
void equal_on_every_isa(const View& view, const ReduceParams& params, const std::vector<T>& x, Type type) {
  const bool to_int = is_arg(params.kind) || type == Type::i32;
  const Shape x_shape = view.x(type), y_shape = view.y(to_int ? Type::i32 : Type::f32);
  const size_t outputs = static_cast<size_t>(element_count(y_shape));
  std::vector<float> expected(outputs);  // bits of either type
  const Guarded<T> given(x);
  Call(reduce_operator, &params).input(x_shape, given.data()).output(y_shape, expected.data()).run(Isa::portable);
  for (const Isa isa : simd_isas()) {
    const Guarded<T> in(x, params.last_index ? Edge::begin : Edge::end);
    const Guarded<float> out(outputs);
    Call(reduce_operator, &params).input(x_shape, in.data()).output(y_shape, out.data()).run(isa, outputs % 2 + 1);
    check_same(expected, out,
               name(isa) + std::string(" kind ") + std::to_string(static_cast<int>(params.kind)) + " of " +
                   std::to_string(x.size()));
  }
}

}  // namespace

TEST_CASE("reduce: every instruction set gives the reference's bits") {
  Random random(1);
  for (const View& view : views()) {
    for (const Reduction kind : kinds) {
      for (const uint8_t last_index : {0, 1}) {
        if (last_index && !is_arg(kind)) continue;
        if (is_arg(kind) && view.axes > 1) continue;
        const ReduceParams params{kind, static_cast<uint8_t>(view.axes), last_index, 0};
        auto x = uniform(view.count(), random, -1.5f, 1.5f);
        equal_on_every_isa(view, params, x, Type::f32);
        for (float& value : x)  // ties, zeros of both signs, NaN
          if (random() % 4 == 0) value = special_floats()[random() % special_floats().size()];
        equal_on_every_isa(view, params, x, Type::f32);
      }
      if (kind == Reduction::sum || kind == Reduction::product || kind == Reduction::max || kind == Reduction::min)
        equal_on_every_isa(view, {kind, static_cast<uint8_t>(view.axes), 0, 0}, provoking_ints(view.count(), random),
                           Type::i32);
    }
  }
}

TEST_CASE("reduce: the reference is close to double precision") {
  Random random(2);
  const int n = 1000;
  const auto x = uniform(2 * n, random, 0.99f, 1.02f);
  const Shape x_shape = shape_of(Type::f32, {2, n}), y_shape = shape_of(Type::f32, {2}),
              i_shape = shape_of(Type::i32, {2});
  double exact[8][2] = {};
  for (int row = 0; row < 2; ++row) {
    const float* in = x.data() + row * n;
    exact[3][row] = 1;
    for (int i = 0; i < n; ++i) {
      exact[0][row] += in[i];
      exact[1][row] += in[i] / double(n);
      exact[2][row] += double(in[i]) * in[i];
      exact[3][row] *= in[i];
    }
    exact[4][row] = *std::max_element(in, in + n);
    exact[5][row] = *std::min_element(in, in + n);
    exact[6][row] = double(std::max_element(in, in + n) - in);
    exact[7][row] = double(std::min_element(in, in + n) - in);
  }
  for (const Reduction kind : kinds) {
    const ReduceParams params{kind, 1, 0, 0};
    const int at = static_cast<int>(kind);
    if (is_arg(kind)) {
      int32_t y[2];
      Call(reduce_operator, &params).input(x_shape, x.data()).output(i_shape, y).run(Isa::portable);
      CHECK(y[0] == exact[at][0]);
      CHECK(y[1] == exact[at][1]);
    } else {
      float y[2];
      Call(reduce_operator, &params).input(x_shape, x.data()).output(y_shape, y).run(Isa::portable);
      check_close(y, exact[at], {1e-5, 0, "a thousand terms of one sign, each sum rounded"}, "reduce");
    }
  }
}

TEST_CASE("reduce: nothing to reduce, zeros, NaN and ties") {
  const float inf = INFINITY;
  for (const Isa isa : isas()) {
    const auto one = [&](Reduction kind, std::vector<float> x, uint8_t last = 0) {
      const ReduceParams params{kind, 1, last, 0};
      const Shape x_shape = shape_of(Type::f32, {static_cast<int>(x.size())}), y_shape = shape_of(Type::f32, {});
      float y;
      Call(reduce_operator, &params).input(x_shape, x.data()).output(y_shape, &y).run(isa);
      return y;
    };
    const auto index = [&](Reduction kind, std::vector<float> x, uint8_t last = 0) {
      const ReduceParams params{kind, 1, last, 0};
      const Shape x_shape = shape_of(Type::f32, {static_cast<int>(x.size())}), y_shape = shape_of(Type::i32, {});
      int32_t y;
      Call(reduce_operator, &params).input(x_shape, x.data()).output(y_shape, &y).run(isa);
      return y;
    };
    CHECK(same(one(Reduction::sum, {}), 0.0f));
    CHECK(same(one(Reduction::mean, {}), NAN));
    CHECK(same(one(Reduction::sum_square, {}), 0.0f));
    CHECK(same(one(Reduction::product, {}), 1.0f));
    CHECK(same(one(Reduction::max, {}), -inf));
    CHECK(same(one(Reduction::min, {}), inf));
    CHECK(index(Reduction::arg_max, {}) == 0);
    CHECK(index(Reduction::arg_min, {}) == 0);
    CHECK(same(one(Reduction::max, {-0.0f, 0.0f, -0.0f}), 0.0f));
    CHECK(same(one(Reduction::min, {0.0f, -0.0f, 0.0f}), -0.0f));
    CHECK(same(one(Reduction::max, {1, NAN, 2}), NAN));
    CHECK(same(one(Reduction::max, {-1, 1e-40f, -2}), 0.0f));
    CHECK(index(Reduction::arg_max, {1, 3, 3, 2}) == 1);
    CHECK(index(Reduction::arg_max, {1, 3, 3, 2}, 1) == 2);
    CHECK(index(Reduction::arg_min, {1, -3, -3, 2}) == 1);
    CHECK(index(Reduction::arg_min, {1, -3, -3, 2}, 1) == 2);
    CHECK(index(Reduction::arg_max, {1, NAN, inf, NAN}) == 1);
    CHECK(index(Reduction::arg_min, {1, NAN, -inf, NAN}, 1) == 3);
    CHECK(index(Reduction::arg_max, {-0.0f, 0.0f}) == 0);
    CHECK(index(Reduction::arg_max, {-inf, -inf}) == 0);
  }
}

TEST_CASE("reduce: the contract") {
  const Shape x = shape_of(Type::f32, {2, 3}), ints = shape_of(Type::i32, {2, 3}), y = shape_of(Type::f32, {2}),
              iy = shape_of(Type::i32, {2}), gaps = shape_of(Type::f32, {2}, {2}), longer = shape_of(Type::f32, {3}),
              scalar = shape_of(Type::f32, {}), index = shape_of(Type::i32, {});
  float data[32];
  const auto refused = [&](const Shape& a, const Shape& b, ReduceParams p) {
    return bool(Call(reduce_operator, &p).input(a, data).output(b, data).check());
  };
  CHECK(!refused(x, y, {Reduction::sum, 1, 0, 0}));
  CHECK(!refused(ints, iy, {Reduction::max, 1, 0, 0}));
  CHECK(!refused(x, iy, {Reduction::arg_max, 1, 1, 0}));
  CHECK(refused(x, y, {Reduction::arg_max, 1, 0, 0}));
  CHECK(refused(x, index, {Reduction::arg_max, 2, 0, 0}));
  CHECK(refused(ints, iy, {Reduction::mean, 1, 0, 0}));
  CHECK(refused(x, gaps, {Reduction::sum, 1, 0, 0}));
  CHECK(refused(x, longer, {Reduction::sum, 1, 0, 0}));
  CHECK(refused(x, scalar, {Reduction::sum, 1, 0, 0}));
  CHECK(!refused(x, scalar, {Reduction::sum, 2, 0, 0}));
  CHECK(refused(x, y, {Reduction::sum, 0, 0, 0}));
  CHECK(refused(x, y, {Reduction::sum, 3, 0, 0}));
  CHECK(refused(x, y, {static_cast<Reduction>(8), 1, 0, 0}));
  CHECK(refused(x, y, {Reduction::sum, 1, 2, 0}));
}

#include "kernels/conv_i8/conv_i8.h"

#include "kernels/matmul_i8/matmul_i8.h"
#include "tests/kernels/i8_case.h"

namespace heed::test {
namespace {

/// One convolution, run in every way. `size`, `out`: depth, height, width.
struct Layer {
  int images, size[3], out[3], inputs, outputs, groups;
  Window window;
  bool bias = false, residual = false;
  Activation activation = Activation::none;
  uint8_t block_rows = 24;
  int gap = 0;    // between the positions of x, residual and y
  int value = 0;  // of all weights and of x, but for their signs
  uint32_t threads = 1;

  std::string name() const {
    std::string text = std::to_string(images) + " images of";
    for (int axis = 0; axis < 3; ++axis)
      for (const int number : {size[axis], out[axis], window.kernel[axis], window.strides[axis], window.dilations[axis],
                               window.before[axis]})
        text += " " + std::to_string(number);
    return text + ", " + std::to_string(inputs) + " to " + std::to_string(outputs) + " in " + std::to_string(groups);
  }

  void check(Random& random, bool provoke = false) const {
    const int taps = window.kernel[0] * window.kernel[1] * window.kernel[2], in = inputs / groups,
              own = outputs / groups, panels = (own + 15) / 16;
    const auto strided = [&](const int(&axes)[3], int channels) {
      const int step = channels + gap;
      return shape_of(Type::f32, {images, axes[0], axes[1], axes[2], channels},
                      {axes[0] * axes[1] * axes[2] * step, axes[1] * axes[2] * step, axes[2] * step, step, 1});
    };
    const auto elements = [&](const int(&axes)[3], int channels) {
      return static_cast<size_t>(images * axes[0] * axes[1] * axes[2]) * (channels + gap);
    };
    const Panels w(groups * panels, taps * in, random, value);
    std::vector<float> values =
        provoke ? provoking_floats(elements(size, inputs), random) : uniform(elements(size, inputs), random);
    if (value != 0)
      for (float& x : values) x = x < 0 ? -1.0f : 1.0f;
    const Shape x_shape = strided(size, inputs), y_shape = strided(out, outputs),
                w_shape = shape_of(Type::i8, {groups * panels, w.groups, 16, 4}),
                scale_shape = shape_of(Type::f32, {groups * panels, 16}),
                sum_shape = shape_of(Type::i32, {groups * panels, 16}), bias_shape = shape_of(Type::f32, {outputs});
    const Guarded<float> x(values), biases(uniform(outputs, random)),
        residuals(uniform(elements(out, outputs), random));
    const ConvI8Params params{activation, block_rows, {}, groups, window};
    const auto run = [&](Isa isa, uint32_t count) {
      const Guarded<float> y(std::vector<float>(residuals.size(), 7.0f));
      Call call(conv_i8_operator, &params);
      call.input(x_shape, x.data()).input(w_shape, w.weights.data());
      call.input(scale_shape, w.scale.data()).input(sum_shape, w.sum.data());
      bias ? call.input(bias_shape, biases.data()) : call.absent();
      if (residual) call.input(y_shape, residuals.data());
      call.output(y_shape, y.data()).run(isa, count);
      return std::vector<float>(y.data(), y.data() + y.size());
    };
    const std::vector<float> expected = run(Isa::portable, 1);
    for (const Isa isa : simd_isas())
      check_same(std::span<const float>(expected), std::span<const float>(run(isa, threads)),
                 std::string(heed::name(isa)) + " " + name());
    if (provoke || activation != Activation::none) return;
    std::vector<float> found;
    std::vector<double> exact;
    for (int row = 0; row < images * out[0] * out[1] * out[2]; ++row) {
      const int at[3] = {row / (out[1] * out[2]) % out[0], row / out[2] % out[1], row % out[2]};
      for (int group = 0; group < groups; ++group) {
        std::vector<float> taken;
        for (int tap = 0; tap < taps; ++tap) {
          const int taps_at[3] = {tap / (window.kernel[1] * window.kernel[2]),
                                  tap / window.kernel[2] % window.kernel[1], tap % window.kernel[2]};
          int place = row / (out[0] * out[1] * out[2]);
          bool inside = true;
          for (int axis = 0; axis < 3; ++axis) {
            const int i =
                at[axis] * window.strides[axis] + taps_at[axis] * window.dilations[axis] - window.before[axis];
            inside = inside && i >= 0 && i < size[axis];
            place = place * size[axis] + i;
          }
          for (int c = 0; c < in; ++c)
            taken.push_back(inside ? x[static_cast<size_t>(place) * (inputs + gap) + group * in + c] : 0.0f);
        }
        const QuantizedRow quantized(taken, true);
        for (int m = group * own; m < (group + 1) * own; ++m) {
          const size_t place = static_cast<size_t>(row) * (outputs + gap) + m;
          double y = w.times(quantized.q, quantized.scale, (group * panels + m % own / 16) * 16 + m % own % 16);
          if (bias) y += biases[static_cast<size_t>(m)];
          if (residual) y += residuals[place];
          found.push_back(expected[place]);
          exact.push_back(y);
        }
      }
    }
    check_close(found, exact, {1e-5, 4e-6, "four roundings of terms that may cancel"}, name());
  }
};

/// Images that a window of one size, stride, dilation and padding on all of the axes > 1 goes over.
Layer layer(int images, std::array<int, 3> size, int inputs, int outputs, int kernel, int stride, int dilation,
            int before, int after, int groups = 1) {
  Layer made{images, {}, {}, inputs, outputs, groups, {}};
  for (int axis = 0; axis < 3; ++axis) {
    const bool one = size[axis] == 1 && axis < 2;
    made.size[axis] = size[axis];
    made.window.kernel[axis] = one ? 1 : kernel;
    made.window.strides[axis] = one ? 1 : stride;
    made.window.dilations[axis] = one ? 1 : dilation;
    made.window.before[axis] = one ? 0 : before;
    const int room = size[axis] + (one ? 0 : before + after - (kernel - 1) * dilation - 1);
    made.out[axis] = one ? 1 : room < 0 ? 0 : room / stride + 1;
  }
  return made;
}

TEST_CASE("conv_i8: lines of every length, kernel, stride, dilation and padding") {
  Random random(1);
  uint32_t turn = 0;
  for (int width : {1, 2, 7, 24, 30})
    for (int kernel : {1, 2, 3, 5, 16})
      for (int stride : {1, 2, 3})
        for (int dilation : {1, 2})
          for (const auto& [before, after] : {std::pair{0, 0}, {1, 1}, {0, 3}, {4, 0}, {7, 8}}) {
            ++turn;
            Layer one = layer(1 + static_cast<int>(turn % 2), {1, 1, width}, std::array{1, 2, 3, 4, 33}[turn % 5],
                              1 + static_cast<int>(turn % 37), kernel, stride, dilation, before, after);
            one.bias = turn % 3 == 0;
            one.residual = turn % 4 == 0;
            one.gap = turn % 7 == 0 ? 3 : 0;
            one.block_rows = static_cast<uint8_t>(1 + turn % 29);
            one.check(random, turn % 6 == 0);
          }
}

TEST_CASE("conv_i8: images, groups, activations, threads") {
  Random random(2);
  uint32_t turn = 0;
  for (const std::array<int, 3> size : {std::array{1, 1, 1}, {1, 3, 4}, {1, 5, 33}, {3, 4, 7}})
    for (int groups : {1, 2, 3})
      for (int kernel : {1, 2, 3})
        for (int stride : {1, 2})
          for (int padding : {0, 1, 2}) {
            ++turn;
            Layer one = layer(2, size, groups * (1 + static_cast<int>(turn % 6)),
                              groups * std::array{1, 5, 8, 16, 19}[turn % 5], kernel, stride,
                              1 + static_cast<int>(turn % 2), padding, padding, groups);
            one.bias = turn % 2 == 0;
            one.residual = turn % 3 == 0;
            one.gap = turn % 4 == 0 ? 1 : 0;
            one.activation = static_cast<Activation>(turn % 5 == 0 ? turn % activation_count : 0);
            one.threads = 1 + turn % 3;
            one.check(random, turn % 7 == 0);
          }
  Layer wide = layer(1, {1, 40, 90}, 16, 48, 3, 1, 1, 1, 1);
  wide.threads = 3;
  wide.check(random);
}

// Pairs of such products do not fit int16: instructions that add them there and saturate would show.
TEST_CASE("conv_i8: the extremes") {
  Random random(3);
  for (const int channels : {1, 3, 64, 200}) {
    Layer one = layer(1, {1, 1, 20}, channels, 40, 3, 1, 1, 1, 1);
    one.value = 127;
    one.check(random);
  }
}

TEST_CASE("conv_i8: the contract says what is wrong") {
  struct Shapes {
    ConvI8Params params{Activation::none, 4, {}, 2, {{1, 3, 5}, {1, 1, 1}, {1, 1, 1}, {0, 1, 2}}};
    Shape x = shape_of(Type::f32, {1, 1, 8, 9, 6}), w = shape_of(Type::i8, {4, 12, 16, 4});
    Shape scale = shape_of(Type::f32, {4, 16}), sum = shape_of(Type::i32, {4, 16}), bias = shape_of(Type::f32, {40});
    Shape y = shape_of(Type::f32, {1, 1, 8, 9, 40}), residual = y;
    Call call() const {
      Call call(conv_i8_operator, &params);
      call.input(x, nullptr).input(w, nullptr).input(scale, nullptr).input(sum, nullptr).input(bias, nullptr);
      return call.input(residual, nullptr).output(y, nullptr);
    }
  };
  CHECK_FALSE(Shapes{}.call().check());
  CHECK(Shapes{}.call().scratch() == 4 * (48 * 2 + 48 + 4 + 4));
  CHECK(Shapes{}.call().in_place(5, 0));
  CHECK_FALSE(Shapes{}.call().in_place(0, 0));
  const auto refused = [](auto change, int operand, const char* what) {
    Shapes shapes;
    change(shapes);
    const Violation violation = shapes.call().check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(violation.operand == operand);
    CHECK(std::string(violation.what) == what);
  };
  refused([](Shapes& s) { s.params.activation = static_cast<Activation>(activation_count); }, output_operand,
          "unknown activation");
  refused([](Shapes& s) { s.params.block_rows = 0; }, 0, "a block has no rows");
  refused([](Shapes& s) { s.params.groups = 0; }, 0, "there are no groups");
  refused([](Shapes& s) { s.params.groups = 4; }, 0, "the groups do not divide x's channels");
  refused([](Shapes& s) { s.params.window.kernel[0] = 0; }, 1, "a kernel's size is out of range");
  refused([](Shapes& s) { s.w.type = Type::f32; }, 1, "wrong element type");
  refused([](Shapes& s) { s.w.dims[0] = 3; }, 1, "w has not the panels for y's channels");
  refused([](Shapes& s) { s.w.dims[1] = 11; }, 1, "w has not the window's taps and channels");
  refused([](Shapes& s) { s.w.strides[1] = 65; }, 1, "w, its scales or its sums have gaps");
  refused([](Shapes& s) { s.scale.dims[0] = 3; }, 2, "w and the scales or sums of its channels differ in panels");
  refused([](Shapes& s) { s.sum.dims[1] = 8; }, 3, "a panel of w's scales or sums is not 16 wide");
  refused([](Shapes& s) { s.bias.dims[0] = 39; }, 4, "bias and y differ in channels");
  refused([](Shapes& s) { s.residual.dims[3] = 8; }, 5, "residual and y differ in an axis");
  refused([](Shapes& s) { s.y.strides[4] = 2; }, output_operand, "the last axis has gaps");
  refused([](Shapes& s) { s.params.window.kernel[1] = s.params.window.kernel[2] = 1 << 16; }, 1,
          "sums of so many terms do not fit int32");
}

}  // namespace
}  // namespace heed::test

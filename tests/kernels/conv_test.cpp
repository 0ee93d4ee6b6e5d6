#include "kernels/conv/conv.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

int reach_of(const Window& window, int axis) {
  return (window.kernel[axis] - 1) * window.dilations[axis] + 1;
}

/// One convolution, run in every way. `size`, `after`: depth, height, width.
struct Layer {
  int images, size[3], inputs, outputs, groups;
  Window window;
  int after[3];
  bool depthwise = false, bias = false, residual = false;
  Activation activation = Activation::none;
  int block = 5;
  int gap = 0;  // between the positions of x, residual and y
  uint32_t threads = 1;

  bool reaches_out() const {
    bool out = false;
    for (int axis = 0; axis < 3; ++axis) out = out || window.before[axis] > 0 || after[axis] > 0;
    return out;
  }
  int out(int axis) const {
    return (size[axis] + window.before[axis] + after[axis] - reach_of(window, axis)) / window.strides[axis] + 1;
  }
  std::string name() const {
    std::string text = std::to_string(images) + " images of";
    for (int axis = 0; axis < 3; ++axis) {
      const auto number = [&](int value) { return std::to_string(value) + " "; };
      text += " [" + number(size[axis]) + "k " + number(window.kernel[axis]) + "s " + number(window.strides[axis]) +
              "d " + number(window.dilations[axis]) + "pad " + number(window.before[axis]) + number(after[axis]) + "]";
    }
    return text + " " + std::to_string(inputs) + " to " + std::to_string(outputs) + " in " + std::to_string(groups) +
           (depthwise ? " depthwise" : "");
  }

  /// w [taps][inputs / groups][outputs] as the kernel wants it.
  std::vector<float> packed(const std::vector<float>& w, int taps) const {
    if (depthwise) return w;
    const int in = inputs / groups, own = outputs / groups, panels = (own + 15) / 16, k = taps * in;
    std::vector<float> result(static_cast<size_t>(groups * panels * k * 16));
    for (int i = 0; i < k; ++i)
      for (int m = 0; m < outputs; ++m)
        result[((m / own * panels + m % own / 16) * k + i) * 16 + m % own % 16] = w[i * outputs + m];
    return result;
  }

  void check(Random& random, bool provoke = false) const {
    CAPTURE(name());
    const int d = out(0), h = out(1), w = out(2), taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
    const int in = inputs / groups, own = outputs / groups;
    const auto data = [&](int count) {
      return provoke ? provoking_floats(static_cast<size_t>(count), random)
                     : uniform(static_cast<size_t>(count), random);
    };
    const auto strided = [&](int d, int h, int w, int c) {
      const int step = c + gap;
      Shape shape = shape_of(Type::f32, {images, d, h, w, c});
      shape.strides[3] = step, shape.strides[2] = w * step, shape.strides[1] = h * w * step;
      shape.strides[0] = d * h * w * step;
      return shape;
    };
    const Shape x_shape = strided(size[0], size[1], size[2], inputs), y_shape = strided(d, h, w, outputs);
    const int x_count = images * size[0] * size[1] * size[2] * (inputs + gap) - gap;
    const int y_count = images * d * h * w * (outputs + gap) - gap;
    const std::vector<float> plain = data(taps * in * outputs), panels = packed(plain, taps);
    const Guarded<float> x(data(x_count)), weights(panels), biases(data(outputs)), residuals(data(y_count));
    const Shape w_shape = depthwise ? shape_of(Type::f32, {taps, inputs})
                                    : shape_of(Type::f32, {groups * ((own + 15) / 16), taps * in, 16});
    const Shape bias_shape = shape_of(Type::f32, {outputs});
    const ConvParams params{activation, depthwise, static_cast<uint8_t>(reaches_out() ? block : 0), 0, groups, window};
    const auto run = [&](Isa isa, uint32_t count, float* y) {
      Call call(conv_operator, &params);
      call.input(x_shape, x.data()).input(w_shape, weights.data());
      if (bias || residual) bias ? call.input(bias_shape, biases.data()) : call.absent();
      if (residual) call.input(y_shape, residuals.data());
      call.output(y_shape, y).run(isa, count);
    };
    const std::vector<float> before(static_cast<size_t>(y_count), 7.0f);
    std::vector<float> expected = before;
    run(Isa::portable, 1, expected.data());
    for (Isa isa : simd_isas()) {
      const Guarded<float> y{std::span<const float>(before)};
      run(isa, threads, y.data());
      check_same(expected, y, heed::name(isa));
    }
    if (provoke || activation != Activation::none) return;
    for (int n = 0; n < images; ++n) {
      for (int o = 0; o < d * h * w; ++o) {
        const int at[3] = {o / (h * w), o / w % h, o % w};
        for (int m = 0; m < outputs; ++m) {
          double sum = bias ? biases[static_cast<size_t>(m)] : 0.0;
          for (int k = 0; k < taps; ++k) {
            const int tap[3] = {k / (window.kernel[1] * window.kernel[2]), k / window.kernel[2] % window.kernel[1],
                                k % window.kernel[2]};
            int place = n;
            bool inside = true;
            for (int axis = 0; axis < 3; ++axis) {
              const int i = at[axis] * window.strides[axis] + tap[axis] * window.dilations[axis] - window.before[axis];
              inside = inside && i >= 0 && i < size[axis];
              place = place * size[axis] + i;
            }
            for (int c = 0; c < in && inside; ++c)
              sum += double{x[static_cast<size_t>(place * (inputs + gap) + m / own * in + c)]} *
                     plain[static_cast<size_t>((k * in + c) * outputs + m)];
          }
          const auto place = static_cast<size_t>((n * d * h * w + o) * (outputs + gap) + m);
          if (residual) sum += residuals[place];
          REQUIRE(std::abs(expected[place] - sum) <= 4.0 * taps * in * taps * in * 6e-8 + 1e-6);
        }
      }
    }
  }
};

Layer line(int images, int width, int inputs, int outputs, int kernel, int stride, int dilation, int before, int after,
           int groups = 1) {
  return {images,       {1, 1, width}, inputs,
          outputs,      groups,        {{1, 1, kernel}, {1, 1, stride}, {1, 1, dilation}, {0, 0, before}},
          {0, 0, after}};
}

Layer image(int height, int width, int inputs, int outputs, int kernel, int stride, int dilation, int padding,
            int groups = 1) {
  return {2,
          {1, height, width},
          inputs,
          outputs,
          groups,
          {{1, kernel, kernel}, {1, stride, stride}, {1, dilation, dilation}, {0, padding, padding}},
          {0, padding, padding}};
}

TEST_CASE("conv: lines of every length, kernel, stride, dilation and padding") {
  Random random(1);
  uint32_t turn = 0;
  for (int width : {1, 2, 5, 6, 7, 13, 24, 30}) {
    for (int kernel : {1, 2, 3, 5}) {
      for (int stride : {1, 2, 3}) {
        for (int dilation : {1, 2}) {
          for (const auto& [before, after] : {std::pair{0, 0}, {1, 1}, {0, 3}, {4, 0}, {7, 8}}) {
            Layer layer =
                line(1 + turn % 2, width, 1 + turn % 4, 1 + turn % 37, kernel, stride, dilation, before, after);
            if (width + before + after < reach_of(layer.window, 2)) continue;
            ++turn;
            layer.bias = turn % 3 == 0;
            layer.residual = turn % 4 == 0;
            layer.gap = turn % 5 == 0 ? 3 : 0;
            layer.block = 1 + static_cast<int>(turn % 9);
            layer.check(random, turn % 6 == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("conv: images, groups") {
  Random random(2);
  uint32_t turn = 0;
  for (const auto& [height, width] : {std::pair{1, 1}, {3, 4}, {5, 33}, {9, 7}}) {
    for (int groups : {1, 2, 3}) {
      for (int kernel : {1, 2, 3}) {
        for (int stride : {1, 2}) {
          for (int padding : {0, 1, 2}) {
            const int dilation = 1 + static_cast<int>(turn++ % 2);
            Layer layer =
                image(height, width, groups * (1 + static_cast<int>(turn % 3)),
                      groups * std::array{1, 5, 8, 16, 19}[turn % 5], kernel, stride, dilation, padding, groups);
            if (std::min(height, width) + 2 * padding < reach_of(layer.window, 2)) continue;
            layer.bias = turn % 2 == 0;
            layer.residual = turn % 3 == 0;
            layer.gap = turn % 4 == 0 ? 1 : 0;
            layer.check(random, turn % 5 == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("conv: depthwise, every count of channels") {
  Random random(3);
  for (int channels : {1, 3, 4, 7, 8, 15, 16, 17, 24, 33, 48, 63}) {
    for (int kernel : {1, 3}) {
      for (int stride : {1, 2}) {
        for (int padding : {0, 1, 3}) {
          for (const auto& [height, width] : {std::pair{1, 14}, {4, 5}}) {
            const bool one = height == 1;
            Layer layer = image(height, width, channels, channels, kernel, stride, 1 + padding / 2, padding, channels);
            if (one) layer.window.kernel[1] = 1, layer.window.before[1] = layer.after[1] = 0;
            if (width + 2 * padding < reach_of(layer.window, 2)) continue;
            if (height + 2 * layer.after[1] < reach_of(layer.window, 1)) continue;
            layer.depthwise = true;
            layer.bias = channels % 2 == 0;
            layer.residual = channels % 3 == 0;
            layer.gap = channels % 5 == 0 ? 2 : 0;
            layer.check(random, padding == 1);
          }
        }
      }
    }
  }
}

TEST_CASE("conv: three axes, one after another") {
  Random random(4);
  Layer layer{2, {3, 4, 5}, 3, 10, 1, {{2, 3, 2}, {1, 2, 1}, {1, 1, 2}, {1, 0, 2}}, {0, 1, 1}};
  layer.check(random);
  layer = {1, {3, 4, 5}, 6, 6, 6, {{3, 2, 2}, {2, 1, 1}, {1, 2, 1}, {1, 1, 0}}, {2, 0, 1}, true};
  layer.check(random);
}

TEST_CASE("conv: activations, bias and residual") {
  Random random(5);
  for (int activation = 0; activation < activation_count; ++activation) {
    for (int which = 0; which < 8; ++which) {
      Layer layer = image(3, 9, 6, 6, 3, 1, 1, 1, which & 4 ? 6 : 1);
      layer.depthwise = which & 4;
      layer.bias = which & 1;
      layer.residual = which & 2;
      layer.activation = static_cast<Activation>(activation);
      layer.check(random);
    }
  }
}

TEST_CASE("conv: threads change nothing") {
  Random random(6);
  for (uint32_t threads : {2u, 3u, 7u}) {
    Layer layers[] = {line(1, 301, 16, 48, 3, 1, 1, 1, 1), image(40, 12, 16, 32, 3, 1, 1, 1),
                      image(40, 70, 24, 24, 3, 1, 1, 1, 24), line(1, 4, 3, 5, 3, 1, 1, 1, 1)};
    layers[2].depthwise = true;
    for (Layer& layer : layers) {
      layer.threads = threads;
      layer.bias = true;
      layer.check(random);
    }
  }
}

TEST_CASE("conv: nothing to compute") {
  Random random(7);
  Layer none = line(0, 9, 3, 5, 3, 1, 1, 1, 1);
  none.check(random);
  Layer empty = line(1, 0, 3, 5, 3, 1, 1, 2, 2);  // windows of padding alone
  empty.bias = true;
  empty.check(random);
}

TEST_CASE("conv: the residual's storage may be y's") {
  Random random(8);
  const std::vector<float> x = uniform(9 * 4, random), w = uniform(2 * 12 * 16, random), old = uniform(9 * 20, random);
  const Shape x_shape = shape_of(Type::f32, {1, 1, 1, 9, 4}), w_shape = shape_of(Type::f32, {2, 12, 16});
  const Shape y_shape = shape_of(Type::f32, {1, 1, 1, 9, 20});
  const ConvParams params{Activation::relu, 0, 4, 0, 1, {{1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}}};
  std::vector<float> expected(old.size());
  const auto call = [&](const float* residual, float* y) {
    return Call(conv_operator, &params)
        .input(x_shape, x.data())
        .input(w_shape, w.data())
        .absent()
        .input(y_shape, residual)
        .output(y_shape, y);
  };
  call(old.data(), expected.data()).run(Isa::portable);
  for (Isa isa : isas()) {
    const Guarded<float> y{std::span<const float>(old)};
    const Call in_place = call(y.data(), y.data());
    CHECK(in_place.in_place(3, 0));
    CHECK_FALSE(in_place.in_place(0, 0));
    in_place.run(isa);
    check_same(expected, y, heed::name(isa));
  }
}

TEST_CASE("conv: scratch holds the padded lines of a block") {
  const Shape x = shape_of(Type::f32, {1, 1, 5, 9, 4}), w = shape_of(Type::f32, {1, 24, 16});
  const Shape y = shape_of(Type::f32, {1, 1, 4, 5, 16});
  const auto scratch = [&](uint8_t block) {
    const ConvParams params{Activation::none, 0, block, 0, 1, {{1, 2, 3}, {1, 1, 2}, {1, 1, 1}, {0, 0, 1}}};
    return Call(conv_operator, &params).input(x, nullptr).input(w, nullptr).output(y, nullptr).scratch();
  };
  CHECK(scratch(0) == 0);
  CHECK(scratch(4) == 4 * 2 * (3 * 2 + 3) * 4);
}

TEST_CASE("conv: the contract says what is wrong") {
  const Shape x = shape_of(Type::f32, {2, 1, 1, 9, 6}), w = shape_of(Type::f32, {2, 18, 16}),
              y = shape_of(Type::f32, {2, 1, 1, 9, 20});
  const ConvParams good{Activation::none, 0, 4, 0, 1, {{1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}}};
  const auto refused = [](const ConvParams& params, const Shape& x, const Shape& w, const Shape& y, int operand,
                          const char* what) {
    const Violation violation =
        Call(conv_operator, &params).input(x, nullptr).input(w, nullptr).output(y, nullptr).check();
    REQUIRE_MESSAGE(violation, what);
    CHECK(std::string(violation.what) == what);
    CHECK(violation.operand == operand);
  };
  CHECK_FALSE(Call(conv_operator, &good).input(x, nullptr).input(w, nullptr).output(y, nullptr).check());
  const auto with = [&](auto change) {
    ConvParams params = good;
    change(params);
    return params;
  };
  const auto bad = [&](auto change, int operand, const char* what) { refused(with(change), x, w, y, operand, what); };
  bad([](auto& p) { p.activation = static_cast<Activation>(activation_count); }, output_operand, "unknown activation");
  bad([](auto& p) { p.depthwise = 2; }, 1, "depthwise is neither 0 nor 1");
  bad([](auto& p) { p.window.kernel[2] = 0; }, 1, "a kernel's size is out of range");
  bad([](auto& p) { p.window.strides[0] = 0; }, output_operand, "a stride is out of range");
  bad([](auto& p) { p.window.dilations[1] = 1 << 17; }, 1, "a dilation is out of range");
  bad([](auto& p) { p.window.before[2] = -1; }, 0, "a padding is out of range");
  bad([](auto& p) { p.groups = 0; }, 0, "there are no groups");
  bad([](auto& p) { p.groups = 4; }, 0, "the groups do not divide x's channels");
  bad([](auto& p) { p.groups = 3; }, output_operand, "the groups do not divide y's channels");
  bad([](auto& p) { p.window.kernel[2] = 2; }, 1, "w has not the window's taps and channels");
  bad([](auto& p) { p.block = 0; }, 0, "a window reaches before the image, without scratch");
  bad([](auto& p) { p.block = 0, p.window.before[2] = 0; }, output_operand,
      "a window reaches behind the image, without scratch");
  bad([](auto& p) { p.depthwise = 1; }, 1, "wrong rank");
  refused(good, shape_of(Type::f32, {2, 1, 9, 6}), w, y, 0, "wrong rank");
  refused(good, x, shape_of(Type::f32, {1, 18, 16}), y, 1, "w has not the panels for y's channels");
  refused(good, x, shape_of(Type::f32, {2, 18, 8}), y, 1, "a panel of w is not 16 wide");
  refused(good, x, w, shape_of(Type::f32, {1, 1, 1, 9, 20}), output_operand, "x and y differ in images");
  refused(good, shape_of(Type::f32, {2, 1, 1, 9, 6}, {54, 54, 54, 1, 9}), w, y, 0, "the last axis has gaps");
  const Shape taps = shape_of(Type::f32, {3, 6});
  const ConvParams depthwise = with([](auto& p) { p.depthwise = 1, p.groups = 6; });
  refused(depthwise, x, taps, shape_of(Type::f32, {2, 1, 1, 9, 12}), output_operand,
          "depthwise has a group for each channel of y");
  refused(depthwise, x, shape_of(Type::f32, {2, 6}), x, 1, "w has not the window's taps");
  CHECK_FALSE(Call(conv_operator, &depthwise).input(x, nullptr).input(taps, nullptr).output(x, nullptr).check());
}

}  // namespace
}  // namespace heed::test

/// heed_bench_kernels [google-benchmark's options]: the products in float and in int8, on each instruction set that
/// this processor has.
///
/// `share` is the kernel's multiply-accumulates for a second, divided by the roof: independent chains of multiply-adds
/// (of float, or the instructions for int8) in registers, measured on the same core before and after the kernel, since
/// clocks move. Only products count as work, so what the share lacks also holds exponentials, activations, packing and
/// quantisation.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention_i8/attention_i8.h"
#include "kernels/conv/conv.h"
#include "kernels/float_mode.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/roof/roof.h"

namespace {

using heed::Isa;
using heed::Type;

/// Time that this thread computed: a shared machine takes it off the core now and then.
double cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Multiply-accumulates for a second, best of 20 milliseconds.
double roof(const heed::Variants<heed::RoofArgs>& variants, Isa isa) {
  double best = 0;
  float result;
  uint64_t macs;
  for (const double start = cpu_seconds(); cpu_seconds() - start < 20e-3;) {
    const double before = cpu_seconds();
    variants[isa]({.steps = 200000, .seed = 1e-3f, .result = &result, .macs = &macs});
    best = std::max(best, static_cast<double>(macs) / (cpu_seconds() - before));
  }
  return best;
}

/// Runs `body`, and reports the best run (of 100 microseconds or more): the mean would measure what else the machine
/// does.
template <class Body>
void measure(benchmark::State& state, const heed::Variants<heed::RoofArgs>& roofs, Isa isa, double macs, Body body) {
  const heed::FlushToZero mode;
  int64_t batch = 1;
  for (double seconds = 0; seconds < 100e-6; batch *= 2) {
    const double before = cpu_seconds();
    for (int64_t i = 0; i < batch; ++i) body();
    seconds = cpu_seconds() - before;
  }
  const double before = roof(roofs, isa);
  double best = 1e9;
  while (state.KeepRunningBatch(batch)) {
    const double start = cpu_seconds();
    for (int64_t i = 0; i < batch; ++i) body();
    best = std::min(best, (cpu_seconds() - start) / static_cast<double>(batch));
  }
  state.counters["best_ns"] = best * 1e9;
  state.counters["GMAC/s"] = macs / best * 1e-9;
  state.counters["share"] = macs / best / std::max(before, roof(roofs, isa));
}

/// A call of an operator on random data around zero, at multiples of 64 bytes.
class Call {
 public:
  Call(const heed::Operator& row, const void* params, Isa isa) : row_(row), params_(params), isa_(isa) {}

  Call& input(std::initializer_list<int> dims, std::initializer_list<int> strides = {}, Type type = Type::f32) {
    inputs_.push_back(tensor(dims, strides, type));
    is_int8_ |= type == Type::i8;
    return *this;
  }
  Call& output(std::initializer_list<int> dims, std::initializer_list<int> strides = {}, Type type = Type::f32) {
    outputs_.push_back(tensor(dims, strides, type));
    return *this;
  }
  Call& no_inputs(int count) {
    inputs_.resize(inputs_.size() + static_cast<size_t>(count));
    return *this;
  }
  Call& no_output() {
    outputs_.emplace_back();
    return *this;
  }

  void measure(benchmark::State& state, double macs) {
    std::vector<const heed::Shape*> inputs, outputs;
    for (const heed::Tensor& tensor : inputs_) inputs.push_back(tensor.shape);
    for (const heed::Tensor& tensor : outputs_) outputs.push_back(tensor.shape);
    const heed::Contract contract{inputs.data(), outputs.data(), static_cast<int>(inputs.size()),
                                  static_cast<int>(outputs.size()), params_};
    if (const heed::Violation violation = row_.check(contract)) {
      state.SkipWithError(violation.what);
      return;
    }
    const heed::Invocation call{inputs_.data(),
                                outputs_.data(),
                                contract.input_count,
                                contract.output_count,
                                params_,
                                floats(row_.scratch(contract) / sizeof(float)),
                                nullptr,
                                0,
                                isa_,
                                nullptr,
                                nullptr};
    ::measure(state, is_int8_ ? heed::roof_i8_variants : heed::roof_variants, isa_, macs, [&] { row_.run(call); });
  }

 private:
  struct Free {
    void operator()(float* p) const { operator delete[](p, std::align_val_t{64}); }
  };

  std::byte* floats(size_t count) {
    static std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    data_.emplace_back(new (std::align_val_t{64}) float[count + 16]);
    std::generate_n(data_.back().get(), count, [&] { return normal(random); });
    return reinterpret_cast<std::byte*>(data_.back().get());
  }

  /// Of other types, what the bytes of the floats are.
  heed::Tensor tensor(std::initializer_list<int> dims, std::initializer_list<int> strides, Type type) {
    auto& shape = *shapes_.emplace_back(new heed::Shape{});
    shape.type = type;
    shape.rank = static_cast<uint8_t>(dims.size());
    std::copy(dims.begin(), dims.end(), shape.dims);
    int32_t stride = 1;
    for (int axis = shape.rank - 1; axis >= 0; --axis) {
      shape.strides[axis] = stride;
      stride *= shape.dims[axis];
    }
    std::copy(strides.begin(), strides.end(), shape.strides);
    return {floats(static_cast<size_t>(heed::element_count(shape))), &shape};
  }

  const heed::Operator& row_;
  const void* params_;
  Isa isa_;
  bool is_int8_ = false;
  std::vector<std::unique_ptr<float[], Free>> data_;
  std::vector<std::unique_ptr<heed::Shape>> shapes_;
  std::vector<heed::Tensor> inputs_, outputs_;
};

void add(const std::string& name, std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark(name.c_str(), [body](benchmark::State& state) { body(state); });
}

constexpr const char* activation_names[] = {"",      "/relu",    "/gelu", "/gelu_tanh",
                                            "/silu", "/sigmoid", "/tanh", "/gelu_i8"};

void add_matmul(Isa isa, int m, int k, int n, heed::Activation activation) {
  add(std::string(heed::name(isa)) + "/matmul/" + std::to_string(m) + "x" + std::to_string(k) + "x" +
          std::to_string(n) + activation_names[static_cast<int>(activation)],
      [=](benchmark::State& state) {
        const heed::MatmulParams params{activation, 1, {}};
        Call call(heed::matmul_operator, &params, isa);
        call.input({m, k}).input({(n + 15) / 16, k, 16}).input({n}).output({m, n});
        call.measure(state, static_cast<double>(m) * k * n);
      });
}

/// With scale and bias; the result in float, or `quantized`, as int8 for the next layer.
void add_matmul_i8(Isa isa, int m, int k, int n, heed::Activation activation, bool quantized) {
  add(std::string(heed::name(isa)) + "/matmul_i8/" + std::to_string(m) + "x" + std::to_string(k) + "x" +
          std::to_string(n) + activation_names[static_cast<int>(activation)] + (quantized ? "/to_i8" : ""),
      [=](benchmark::State& state) {
        const heed::MatmulI8Params params{activation, 24, {}};
        const int panels = (n + 15) / 16;
        Call call(heed::matmul_i8_operator, &params, isa);
        call.input({m, k}, {}, Type::i8).input({m, 1}).input({panels, (k + 3) / 4, 16, 4}, {}, Type::i8);
        call.input({panels, 16}).input({panels, 16}, {}, Type::i32).input({n});
        if (quantized)
          call.no_output().output({m, n}, {}, Type::i8).output({m, 1}).output({m, 1}, {}, Type::i32);
        else
          call.output({m, n});
        call.measure(state, static_cast<double>(m) * k * n);
      });
}

/// Heads as add_attention has them, query, key and value quantised by token and head.
void add_attention_i8(Isa isa, int heads, int tq, int tk, int d, int block_rows) {
  add(std::string(heed::name(isa)) + "/attention_i8/" + std::to_string(heads) + "x" + std::to_string(tq) + "x" +
          std::to_string(tk) + "x" + std::to_string(d) + "/rows:" + std::to_string(block_rows),
      [=](benchmark::State& state) {
        const heed::AttentionI8Params params{
            1.0f / std::sqrt(static_cast<float>(d)), 0, 0, static_cast<uint16_t>(block_rows), 0, 0, 0};
        Call call(heed::attention_i8_operator, &params, isa);
        const int row = heads * d;
        call.input({1, heads, tq, d}, {tq * row, d, row, 1}, Type::i8);
        for (int i = 0; i < 2; ++i) call.input({1, heads, tk, d}, {tk * row, d, row, 1}, Type::i8);
        call.no_inputs(4);  // bias, padding, slope, toeplitz
        for (const int t : {tq, tk, tk}) call.input({1, heads, t, 1}, {t * heads, 1, heads, 1});
        call.output({1, heads, tq, d}, {tq * row, d, row, 1});
        call.measure(state, 2.0 * heads * tq * tk * d);
      });
}

/// 12 heads of 64 channels lie side by side in rows, as projections write them; other counts of heads likewise.
void add_attention(Isa isa, int heads, int tq, int tk, int d, int causal, int block_rows) {
  add(std::string(heed::name(isa)) + "/attention/" + std::to_string(heads) + "x" + std::to_string(tq) + "x" +
          std::to_string(tk) + "x" + std::to_string(d) + (causal ? "/causal" : "") +
          "/rows:" + std::to_string(block_rows),
      [=](benchmark::State& state) {
        const heed::AttentionParams params{1.0f / std::sqrt(static_cast<float>(d)),
                                           static_cast<uint8_t>(causal),
                                           0,
                                           static_cast<uint16_t>(block_rows),
                                           0,
                                           0,
                                           0};
        Call call(heed::attention_operator, &params, isa);
        const int row = heads * d;
        call.input({1, heads, tq, d}, {tq * row, d, row, 1});
        for (int i = 0; i < 2; ++i) call.input({1, heads, tk, d}, {tk * row, d, row, 1});
        call.output({1, heads, tq, d}, {tq * row, d, row, 1});
        call.measure(state, 2.0 * heads * tq * tk * d / (causal ? 2 : 1));
      });
}

void add_recurrent(Isa isa, heed::Cell cell, int steps, int batch, int inputs, int hidden) {
  constexpr const char* names[] = {"lstm", "gru", "rnn"};
  add(std::string(heed::name(isa)) + "/" + names[static_cast<int>(cell)] + "/" + std::to_string(steps) + "x" +
          std::to_string(batch) + "x" + std::to_string(inputs) + "x" + std::to_string(hidden),
      [=](benchmark::State& state) {
        const heed::RecurrentParams params{cell, heed::Direction::forward, cell == heed::Cell::gru, 0, hidden, steps};
        const int gates = heed::gates_of(cell), panels = (hidden + 15) / 16;
        Call call(heed::recurrent_operator, &params, isa);
        call.input({steps, batch, inputs}).input({1, panels, gates, inputs, 16}).input({1, panels, gates, hidden, 16});
        call.input({1, panels, cell == heed::Cell::gru ? 4 : gates, 16}).output({steps, 1, batch, hidden});
        call.measure(state, static_cast<double>(steps) * batch * gates * hidden * (inputs + hidden));
      });
}

/// One image; `height` 1 is a line. Padding keeps the size where stride is 1.
void add_conv(Isa isa, int height, int width, int inputs, int outputs, int kernel, int stride, bool depthwise = false) {
  add(std::string(heed::name(isa)) + (depthwise ? "/depthwise/" : "/conv/") + std::to_string(height) + "x" +
          std::to_string(width) + "x" + std::to_string(inputs) + "/" + std::to_string(outputs) +
          "/kernel:" + std::to_string(kernel) + "/stride:" + std::to_string(stride),
      [=](benchmark::State& state) {
        const int tall = height == 1 ? 1 : kernel, padding = stride == 1 ? kernel / 2 : 0;
        const int rows = height == 1 ? 1 : (height + 2 * padding - kernel) / stride + 1;
        const int columns = (width + 2 * padding - kernel) / stride + 1, taps = tall * kernel;
        const heed::ConvParams params{heed::Activation::none,
                                      depthwise,
                                      static_cast<uint8_t>(padding == 0 || depthwise ? 0 : std::min(columns, 12)),
                                      0,
                                      depthwise ? inputs : 1,
                                      {{1, tall, kernel},
                                       {1, height == 1 ? 1 : stride, stride},
                                       {1, 1, 1},
                                       {0, height == 1 ? 0 : padding, padding}}};
        Call call(heed::conv_operator, &params, isa);
        call.input({1, 1, height, width, inputs});
        if (depthwise)
          call.input({taps, inputs});
        else
          call.input({(outputs + 15) / 16, taps * inputs, 16});
        call.output({1, 1, rows, columns, outputs});
        call.measure(state, static_cast<double>(rows) * columns * taps * inputs * (depthwise ? 1 : outputs));
      });
}

void add_all(Isa isa) {
  using heed::Activation;
  using heed::Cell;
  for (const auto& [k, n] : {std::pair{384, 384}, {384, 1536}, {1536, 384}})
    for (int m : {128, 16, 1}) add_matmul(isa, m, k, n, Activation::none);
  for (Activation activation : {Activation::relu, Activation::gelu, Activation::silu})
    add_matmul(isa, 128, 384, 1536, activation);
  for (int m : {1, 5, 20})
    for (int n : {1, 16, 64, 256}) add_matmul(isa, m, 64, n, Activation::none);
  add_matmul(isa, 5, 64, 64, Activation::relu);
  add_matmul(isa, 5, 64, 64, Activation::tanh);
  add_matmul(isa, 5, 1, 256, Activation::none);
  for (int keys : {128, 512, 1024})
    for (int rows : {6, 12, 24}) add_attention(isa, 12, keys, keys, 64, 0, rows);
  add_attention(isa, 12, 512, 512, 64, 1, 24);
  add_attention(isa, 12, 512, 512, 32, 0, 24);
  add_attention(isa, 4, 5, 5, 16, 0, 5);
  add_attention(isa, 12, 1, 512, 64, 0, 1);
  add_conv(isa, 1, 508, 512, 512, 5, 1);
  for (int inputs : {16, 64, 256}) add_conv(isa, 1, 128, inputs, 64, 3, 1);
  add_conv(isa, 1, 4000, 1, 322, 320, 160);  // short-time Fourier transform
  add_conv(isa, 1, 640, 1, 258, 256, 128);
  add_conv(isa, 1, 4, 129, 128, 3, 1);
  add_conv(isa, 32, 32, 64, 64, 3, 1);
  add_conv(isa, 64, 64, 3, 16, 3, 2);
  for (int channels : {16, 24, 161}) add_conv(isa, 1, 64, channels, channels, 5, 1, true);
  for (int channels : {16, 64}) add_conv(isa, 32, 32, channels, channels, 3, 1, true);
  for (const auto& [k, n] : {std::pair{384, 384}, {384, 1536}, {1536, 384}})
    for (int m : {128, 16, 4, 1}) add_matmul_i8(isa, m, k, n, Activation::none, false);
  for (Activation activation : {Activation::none, Activation::gelu, Activation::gelu_i8})
    for (int n : {384, 1536}) add_matmul_i8(isa, 128, 384, n, activation, true);
  for (int keys : {128, 512, 1024, 2048})
    for (int rows : {8, 16, 24}) add_attention_i8(isa, 12, keys, keys, 64, rows);
  add_attention_i8(isa, 12, 512, 512, 32, 24);
  add_attention_i8(isa, 12, 1, 512, 64, 1);
  for (Cell cell : {Cell::lstm, Cell::gru, Cell::rnn})
    for (int batch : {1, 16}) add_recurrent(isa, cell, 5, batch, 64, 64);
  add_recurrent(isa, Cell::lstm, 5, 1, 1, 64);
  add_recurrent(isa, Cell::lstm, 96, 1, 64, 64);
  add_recurrent(isa, Cell::lstm, 1, 1, 128, 128);
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < heed::isa_count; ++i)  // without portable
    if (const Isa isa = static_cast<Isa>(i); heed::available(isa)) add_all(isa);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}

/// heed_bench_kernels [google-benchmark's options]: the float products on each instruction set that this processor has.
///
/// Every kernel's multiply-accumulates for a second stand beside the roof of its instruction set: independent chains of
/// fused multiply-adds in registers, measured on the same core before the kernels and after each of them, since clocks
/// move.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/float_mode.h"
#include "kernels/matmul/matmul.h"
#include "kernels/roof/roof.h"

namespace {

using heed::Isa;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Multiply-accumulates for a second, best of 20 milliseconds.
double roof(Isa isa) {
  double best = 0;
  float result;
  uint64_t macs;
  for (const auto start = Clock::now(); seconds_since(start) < 20e-3;) {
    const auto before = Clock::now();
    heed::roof_variants[isa]({.steps = 20000, .seed = 1e-3f, .result = &result, .macs = &macs});
    best = std::max(best, static_cast<double>(macs) / seconds_since(before));
  }
  return best;
}

/// Runs `body`, and reports the best run (of 50 microseconds or more): on a shared machine the mean measures the
/// neighbours.
template <class Body>
void measure(benchmark::State& state, Isa isa, double macs, Body body) {
  const heed::FlushToZero mode;
  int64_t batch = 1;
  for (double seconds = 0; seconds < 50e-6; batch *= 2) {
    const auto before = Clock::now();
    for (int64_t i = 0; i < batch; ++i) body();
    seconds = seconds_since(before);
  }
  const double before = roof(isa);
  double best = 1e9;
  while (state.KeepRunningBatch(batch)) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < batch; ++i) body();
    best = std::min(best, seconds_since(start) / static_cast<double>(batch));
  }
  state.counters["best_ns"] = best * 1e9;
  state.counters["GMAC/s"] = macs / best * 1e-9;
  state.counters["share"] = macs / best / std::max(before, roof(isa));
}

/// Random numbers around zero at a multiple of 64 bytes.
class Data {
 public:
  explicit Data(size_t count) : count_(count), data_(new (std::align_val_t{64}) float[count]) {
    static std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::generate_n(data_.get(), count, [&] { return normal(random); });
  }
  operator float*() const { return data_.get(); }
  std::byte* bytes() const { return reinterpret_cast<std::byte*>(data_.get()); }

 private:
  struct Free {
    void operator()(float* p) const { operator delete[](p, std::align_val_t{64}); }
  };
  size_t count_;
  std::unique_ptr<float[], Free> data_;
};

void matmul(benchmark::State& state, Isa isa, int m, int k, int n, heed::Activation activation) {
  const int panels = (n + 15) / 16;
  const Data a(size_t(m) * k), b(size_t(panels) * 16 * k), bias(n), y(size_t(m) * n);
  const heed::MatmulArgs args{.a = a,
                              .b = b,
                              .bias = bias,
                              .residual = nullptr,
                              .y = y,
                              .rows = m,
                              .n = n,
                              .k = k,
                              .a_row = k,
                              .a_k = 1,
                              .b_k = 0,
                              .b_n = 0,
                              .residual_row = 0,
                              .y_row = n,
                              .packed = true,
                              .activation = activation,
                              .scratch = nullptr};
  const auto kernel = heed::matmul_variants[isa];
  measure(state, isa, double(m) * k * n, [&] { kernel(args); });
}

void add(const std::string& name, std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark(name.c_str(), [body](benchmark::State& state) { body(state); });
}

void add_all(Isa isa) {
  const std::string prefix = std::string(heed::name(isa)) + "/";
  using heed::Activation;
  const struct {
    int m, k, n;
    Activation activation;
  } products[] = {
      {128, 384, 384, Activation::none},  {128, 384, 1536, Activation::none}, {128, 384, 1536, Activation::gelu},
      {128, 1536, 384, Activation::none}, {16, 384, 384, Activation::none},   {1, 384, 384, Activation::none},
      {1, 384, 1536, Activation::none},   {5, 64, 256, Activation::none},     {5, 64, 64, Activation::relu},
      {5, 64, 16, Activation::none},      {1, 64, 256, Activation::none},     {1, 64, 1, Activation::none},
      {5, 1, 256, Activation::none}};
  for (const auto& p : products) {
    const char* activations[] = {"", "/relu", "/gelu", "/gelu_tanh", "/silu", "/sigmoid", "/tanh"};
    add(prefix + "matmul/" + std::to_string(p.m) + "x" + std::to_string(p.k) + "x" + std::to_string(p.n) +
            activations[int(p.activation)],
        [=](benchmark::State& state) { matmul(state, isa, p.m, p.k, p.n, p.activation); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& row : heed::matmul_variants.rows) {
    if (&row - heed::matmul_variants.rows < heed::matmul_variants.count && row.isa != Isa::portable &&
        heed::available(row.isa)) {
      add_all(row.isa);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}

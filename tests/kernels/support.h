#pragma once
/// What all tests of kernels share: guarded memory, data that provokes, one call of an operator, equality of bits.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/float_mode.h"
#include "kernels/operator.h"
#include "kernels/variants.h"

namespace heed::test {

/// The instruction sets of this build that this machine can run; the others are named once.
inline const std::vector<Isa>& isas() {
  static const std::vector<Isa> list = [] {
    std::vector<Isa> found;
#define HEED_TRY_ISA(isa)                            \
  if (available(Isa::isa)) {                         \
    found.push_back(Isa::isa);                       \
  } else {                                           \
    std::puts("skipped: this machine has no " #isa); \
  }
    HEED_FOR_EACH_ISA(HEED_TRY_ISA)
#undef HEED_TRY_ISA
    return found;
  }();
  return list;
}

/// Those above portable, which is the reference.
inline std::vector<Isa> simd_isas() {
  return {isas().begin() + 1, isas().end()};
}

/// Where a guarded array touches memory that may not be touched at all.
enum class Edge { end, begin };

/// An array of T between pages that fault when read or written, up against the one or the other; the bytes that are
/// left on the far side hold a pattern. An array against the end has no alignment but its element's.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count, Edge edge = Edge::end) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = count * sizeof(T);
    inner_ = (bytes / page + 1) * page;
    total_ = inner_ + 2 * page;
    base_ = static_cast<std::byte*>(mmap(nullptr, total_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base_ != MAP_FAILED);
    begin_ = base_ + page;
    REQUIRE(mprotect(begin_, inner_, PROT_READ | PROT_WRITE) == 0);
    std::memset(begin_, pattern, inner_);
    data_ = reinterpret_cast<T*>(edge == Edge::end ? begin_ + inner_ - bytes : begin_);
  }
  Guarded(std::span<const T> values, Edge edge = Edge::end) : Guarded(values.size(), edge) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size_bytes());
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    const auto* data = reinterpret_cast<const std::byte*>(data_);
    bool intact = true;
    for (const std::byte* p = begin_; p < data; ++p) intact &= *p == std::byte{pattern};
    for (const std::byte* p = data + count_ * sizeof(T); p < begin_ + inner_; ++p) intact &= *p == std::byte{pattern};
    CHECK_MESSAGE(intact, "bytes beside an array were written");
    munmap(base_, total_);
  }

  T* data() const { return data_; }
  size_t size() const { return count_; }
  std::span<T> span() const { return {data_, count_}; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr unsigned char pattern = 0xa5;
  size_t count_, inner_, total_;
  std::byte *base_, *begin_;
  T* data_;
};

using Random = std::mt19937;

/// n floats, evenly in [low, high].
inline std::vector<float> uniform(size_t n, Random& random, float low = -2.0f, float high = 2.0f) {
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(n);
  for (float& value : values) value = distribution(random);
  return values;
}

/// Signed zeros, infinities, NaN, the ends of the normal range, subnormals, the ends of int32, halves.
inline const std::vector<float>& special_floats() {
  constexpr float inf = INFINITY;
  static const std::vector<float> values = {0.0f,
                                            -0.0f,
                                            1.0f,
                                            -1.0f,
                                            0.5f,
                                            -0.5f,
                                            1.5f,
                                            2.5f,
                                            -2.5f,
                                            inf,
                                            -inf,
                                            NAN,
                                            -NAN,
                                            3.4028235e38f,
                                            -3.4028235e38f,
                                            1.17549435e-38f,
                                            -1.17549435e-38f,
                                            1e-40f,
                                            -1e-40f,
                                            1.4e-45f,
                                            8388607.5f,
                                            8388608.0f,
                                            -8388609.0f,
                                            2147483648.0f,
                                            -2147483648.0f,
                                            2147483520.0f,
                                            88.7228394f,
                                            88.7228317f,
                                            -44.3614197f,
                                            -44.3614235f,
                                            1e10f,
                                            -1e10f,
                                            32768.0f};
  return values;
}

/// n floats of every magnitude, special ones among them.
inline std::vector<float> provoking_floats(size_t n, Random& random) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    const uint32_t kind = random() % 8;
    if (kind == 0)
      values[i] = special_floats()[random() % special_floats().size()];
    else if (kind < 4)
      values[i] = std::bit_cast<float>(static_cast<uint32_t>(random()));
    else
      values[i] = std::uniform_real_distribution<float>(-20.0f, 20.0f)(random);
  }
  return values;
}

inline std::vector<int32_t> provoking_ints(size_t n, Random& random) {
  constexpr int32_t special[] = {0, 1, -1, 2, 31, 32, 33, INT32_MAX, INT32_MIN, INT32_MIN + 1, 255, 256};
  std::vector<int32_t> values(n);
  for (int32_t& value : values) {
    const uint32_t kind = random() % 4;
    value = kind == 0   ? special[random() % std::size(special)]
            : kind == 1 ? static_cast<int32_t>(random() % 41) - 20
                        : static_cast<int32_t>(random());
  }
  return values;
}

/// Sizes around powers of two and multiples of 16.
inline const std::vector<int>& sizes() {
  static const std::vector<int> list = {0,  1,   2,   3,   4,   5,   7,   8,   9,   15,  16,   17,
                                        23, 31,  32,  33,  47,  48,  49,  63,  64,  65,  95,   96,
                                        97, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000, 1025};
  return list;
}

inline Shape shape_of(Type type, std::initializer_list<int> dims) {
  Shape shape{};
  shape.type = type;
  shape.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), shape.dims);
  int64_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    shape.strides[axis] = static_cast<int32_t>(stride);
    stride *= shape.dims[axis];
  }
  return shape;
}

inline Shape shape_of(Type type, std::initializer_list<int> dims, std::initializer_list<int> strides) {
  Shape shape = shape_of(type, dims);
  std::copy(strides.begin(), strides.end(), shape.strides);
  return shape;
}

/// A pool that runs its tasks one after another, in turn for each of its threads: what it checks is the split.
inline Parallel in_turn(uint32_t threads) {
  static uint32_t count;
  count = threads;
  return {[](void*, uint32_t tasks, Parallel::Task task, void* context) {
            for (uint32_t i = tasks; i-- > 0;) task(context, i, i % count);
          },
          nullptr, threads};
}

/// One call of an operator: its contract must hold, its scratch is guarded and as small as the contract allows.
class Call {
 public:
  Call(const Operator& row, const void* params) : row_(row), params_(params) {}

  /// The shape must outlive the call.
  Call& input(const Shape& shape, const void* data) {
    inputs_.push_back({static_cast<std::byte*>(const_cast<void*>(data)), &shape});
    return *this;
  }
  Call& absent() {
    inputs_.push_back({});
    return *this;
  }
  Call& output(const Shape& shape, void* data) {
    outputs_.push_back({static_cast<std::byte*>(data), &shape});
    return *this;
  }
  Call& absent_output() {
    outputs_.push_back({});
    return *this;
  }

  Violation check() const {
    const Shapes shapes(*this);
    return row_.check(shapes.contract);
  }
  uint64_t scratch() const {
    const Shapes shapes(*this);
    return row_.scratch(shapes.contract);
  }
  bool in_place(int input, int output) const {
    const Shapes shapes(*this);
    return row_.in_place(shapes.contract, input, output);
  }

  void run(Isa isa, uint32_t threads = 1, const WeightTap* tap = nullptr) const {
    const Violation violation = check();
    INFO("operand " << violation.operand << ", found " << violation.found << ", expected " << violation.expected);
    REQUIRE_MESSAGE(!violation, (violation ? violation.what : ""));
    const size_t bytes = scratch(), padded = (bytes + 63) / 64 * 64;
    const Guarded<std::byte> first(padded), others(padded * (threads - 1));
    const Parallel parallel = in_turn(threads);
    const Invocation call{inputs_.data(),
                          outputs_.data(),
                          static_cast<int>(inputs_.size()),
                          static_cast<int>(outputs_.size()),
                          params_,
                          first.data(),
                          others.data(),
                          padded,
                          isa,
                          threads == 1 ? nullptr : &parallel,
                          tap};
    const FlushToZero mode;
    row_.run(call);
  }

 private:
  struct Shapes {
    std::vector<const Shape*> inputs, outputs;
    Contract contract;
    explicit Shapes(const Call& call) {
      for (const Tensor& tensor : call.inputs_) inputs.push_back(tensor.shape);
      for (const Tensor& tensor : call.outputs_) outputs.push_back(tensor.shape);
      contract = {inputs.data(), outputs.data(), static_cast<int>(inputs.size()), static_cast<int>(outputs.size()),
                  call.params_};
    }
  };

  const Operator& row_;
  const void* params_;
  std::vector<Tensor> inputs_, outputs_;
};

/// Bits are equal, or both are NaN.
inline bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}
template <class T>
bool same(T a, T b) {
  return a == b;
}

/// One assertion for a whole array; the first difference is named.
template <class T>
void check_same(std::span<const T> expected, std::span<const T> found, const std::string& what) {
  REQUIRE(expected.size() == found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    if (same(expected[i], found[i])) continue;
    FAIL_CHECK(what << ": element " << i << " of " << expected.size() << " is " << +found[i] << ", not "
                    << +expected[i]);
    return;
  }
  CHECK(true);
}
template <class T>
void check_same(const std::vector<T>& expected, const Guarded<T>& found, const std::string& what) {
  check_same(std::span<const T>(expected), std::span<const T>(found.data(), found.size()), what);
}

/// A difference from the exact value, and why it may be so large.
struct Tolerance {
  double relative, absolute;
  const char* why;
};

inline void check_close(std::span<const float> found, std::span<const double> exact, Tolerance tolerance,
                        const std::string& what) {
  REQUIRE(found.size() == exact.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(exact[i])) continue;
    if (found[i] == exact[i]) continue;  // infinities
    if (std::abs(found[i] - exact[i]) <= tolerance.relative * std::abs(exact[i]) + tolerance.absolute) continue;
    FAIL_CHECK(what << ": element " << i << " is " << found[i] << ", not " << exact[i] << " (" << tolerance.why << ")");
    return;
  }
  CHECK(true);
}

}  // namespace heed::test

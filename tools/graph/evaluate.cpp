/// Every operation as its shortest correct loop, in double precision: for folding, and to judge fusions by.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "tools/error.h"
#include "tools/graph/graph.h"

namespace heed::tools {
namespace {

using Sizes = std::vector<int64_t>;
constexpr double infinity = std::numeric_limits<double>::infinity();

int64_t product(const Sizes& dims) {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

Sizes dense_strides(const Sizes& dims) {
  Sizes strides(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strides;
}

// Strides that repeat a tensor of shape `dims` over `result`.
Sizes broadcast_strides(const Sizes& dims, const Sizes& result) {
  Sizes strides(result.size(), 0);
  const Sizes own = dense_strides(dims);
  const size_t ahead = result.size() - dims.size();
  for (size_t i = 0; i < dims.size(); ++i)
    if (dims[i] != 1) strides[ahead + i] = own[i];
  return strides;
}

// Calls body(number of the index, offset in each operand) for every index of `dims`, row-major.
template <size_t N, class Body>
void walk(const Sizes& dims, const std::array<Sizes, N>& strides, std::array<int64_t, N> offsets, Body&& body) {
  const int64_t count = product(dims);
  const size_t rank = dims.size();
  const int64_t inner = rank == 0 ? 1 : dims[rank - 1];
  std::array<int64_t, N> inner_strides{};
  for (size_t n = 0; n < N && rank > 0; ++n) inner_strides[n] = strides[n][rank - 1];
  Sizes index(rank, 0);
  for (int64_t done = 0; done < count;) {
    std::array<int64_t, N> at = offsets;
    for (int64_t i = 0; i < inner; ++i, ++done) {
      body(done, at);
      for (size_t n = 0; n < N; ++n) at[n] += inner_strides[n];
    }
    for (size_t axis = rank; axis-- > 1;) {
      for (size_t n = 0; n < N; ++n) offsets[n] += strides[n][axis - 1];
      if (++index[axis - 1] < dims[axis - 1]) break;
      index[axis - 1] = 0;
      for (size_t n = 0; n < N; ++n) offsets[n] -= dims[axis - 1] * strides[n][axis - 1];
    }
  }
}

template <class T>
const T* data(const Literal& literal) {
  return reinterpret_cast<const T*>(literal.data);
}

Literal made(Sizes dims, std::vector<float> values) {
  return Literal::of(std::move(dims), std::move(values));
}
Literal made(Sizes dims, std::vector<int64_t> values) {
  return Literal::of(std::move(dims), std::move(values));
}
Literal made(Sizes dims, std::vector<int8_t> values) {
  return Literal::of(std::move(dims), std::move(values));
}
Literal made(Sizes dims, std::vector<uint8_t> values) {
  return Literal::of_booleans(std::move(dims), std::move(values));
}

// Calls build(T{}) with the type that holds elements of `type`.
template <class Build>
Literal by_type(Type type, Build&& build) {
  if (type == Type::f32) return build(float{});
  if (type == Type::i32) return build(int64_t{});
  if (type == Type::i8) return build(int8_t{});
  return build(uint8_t{});
}

// The result whose elements lie at `start` and `strides` of x.
Literal view(const Literal& x, const Sizes& dims, const Sizes& strides, int64_t start = 0) {
  return by_type(x.type, [&](auto element) {
    using T = decltype(element);
    std::vector<T> values(static_cast<size_t>(product(dims)));
    const T* from = data<T>(x);
    walk<1>(dims, {strides}, {start}, [&](int64_t i, const auto& at) { values[static_cast<size_t>(i)] = from[at[0]]; });
    return made(dims, std::move(values));
  });
}

// --- Steps -----------------------------------------------------------------------------------------------------------

// One element: `f` of floats, `i` of integers and booleans.
struct Scalar {
  double f = 0;
  int64_t i = 0;
};

double largest(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? NAN : std::signbit(a) && a == b ? b : std::max(a, b);
}
double smallest(double a, double b) {
  return -largest(-a, -b);
}
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double gelu(double x) {
  return x * (1 + std::erf(x * M_SQRT1_2)) / 2;
}
/// The polynomial that defines it: kernels/math.h.
double gelu_i8(double x) {
  constexpr std::array coefficients{-9.44968992e-10, 8.22401276e-08, -3.11232088e-06, 6.78972865e-05,
                                    -0.000958072138, 0.00932710152,  -0.0655807257,   0.398497581};
  if (std::isnan(x)) return x;
  const double low = std::max(x, -4.16), c = std::min(low, 4.16);
  double p = 0;
  for (const double coefficient : coefficients) p = p * c * c + coefficient;
  return low * (c * p + 0.5);
}
double gelu_tanh(double x) {
  return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
}
double silu(double x) {
  return x * sigmoid(x);
}
double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}
double floor_mod(double a, double b) {
  return a - b * std::floor(a / b);
}
int64_t to_integer(double x) {
  constexpr double limit = 9223372036854775808.0;
  if (std::isnan(x)) return 0;
  if (x >= limit) return std::numeric_limits<int64_t>::max();
  return x < -limit ? std::numeric_limits<int64_t>::min() : static_cast<int64_t>(x);
}

// Integers wrap, as on the device.
int64_t wrap(uint64_t value) {
  return static_cast<int64_t>(value);
}
uint64_t bits(int64_t value) {
  return static_cast<uint64_t>(value);
}
int64_t quotient(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? wrap(-bits(a)) : a / b;
}
int64_t remainder(int64_t a, int64_t b) {
  return b == 0 || b == -1 ? 0 : a % b;
}
int64_t modulo(int64_t a, int64_t b) {
  const int64_t rest = remainder(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Scalar apply(Step step, Scalar a, Scalar b, Scalar c) {
  const auto f = [](double value) { return Scalar{static_cast<float>(value), 0}; };
  const auto i = [](int64_t value) { return Scalar{0, value}; };
  switch (step) {
    case Step::f_add:
      return f(a.f + b.f);
    case Step::f_sub:
      return f(a.f - b.f);
    case Step::f_mul:
      return f(a.f * b.f);
    case Step::f_div:
      return f(a.f / b.f);
    case Step::f_fma:
      return f(std::fma(static_cast<float>(a.f), static_cast<float>(b.f), static_cast<float>(c.f)));
    case Step::f_min:
      return f(smallest(a.f, b.f));
    case Step::f_max:
      return f(largest(a.f, b.f));
    case Step::f_pow:
      return f(std::pow(a.f, b.f));
    case Step::f_mod:
      return f(floor_mod(a.f, b.f));
    case Step::f_fmod:
      return f(std::fmod(a.f, b.f));
    case Step::f_neg:
      return f(-a.f);
    case Step::f_abs:
      return f(std::abs(a.f));
    case Step::f_sign:
      return f(a.f > 0 ? 1 : a.f < 0 ? -1 : a.f);
    case Step::f_sqrt:
      return f(std::sqrt(a.f));
    case Step::f_reciprocal:
      return f(1 / a.f);
    case Step::f_floor:
      return f(std::floor(a.f));
    case Step::f_ceil:
      return f(std::ceil(a.f));
    case Step::f_round:
      return f(std::nearbyint(a.f));
    case Step::f_exp:
      return f(std::exp(a.f));
    case Step::f_log:
      return f(std::log(a.f));
    case Step::f_sin:
      return f(std::sin(a.f));
    case Step::f_cos:
      return f(std::cos(a.f));
    case Step::f_tanh:
      return f(std::tanh(a.f));
    case Step::f_erf:
      return f(std::erf(a.f));
    case Step::f_sigmoid:
      return f(sigmoid(a.f));
    case Step::f_relu:
      return f(largest(a.f, 0));
    case Step::f_gelu:
      return f(gelu(a.f));
    case Step::f_gelu_tanh:
      return f(gelu_tanh(a.f));
    case Step::f_silu:
      return f(silu(a.f));
    case Step::f_softplus:
      return f(softplus(a.f));
    case Step::f_select:
    case Step::i_select:
    case Step::b_select:
      return a.i != 0 ? b : c;
    case Step::f_equal:
      return i(a.f == b.f);
    case Step::f_less:
      return i(a.f < b.f);
    case Step::f_less_equal:
      return i(a.f <= b.f);
    case Step::f_is_nan:
      return i(std::isnan(a.f));
    case Step::f_is_inf:
      return i(std::isinf(a.f));
    case Step::f_to_i:
      return i(to_integer(a.f));
    case Step::f_to_b:
      return i(a.f != 0);
    case Step::i_add:
      return i(wrap(bits(a.i) + bits(b.i)));
    case Step::i_sub:
      return i(wrap(bits(a.i) - bits(b.i)));
    case Step::i_mul:
      return i(wrap(bits(a.i) * bits(b.i)));
    case Step::i_div:
      return i(quotient(a.i, b.i));
    case Step::i_mod:
      return i(modulo(a.i, b.i));
    case Step::i_fmod:
      return i(remainder(a.i, b.i));
    case Step::i_min:
      return i(std::min(a.i, b.i));
    case Step::i_max:
      return i(std::max(a.i, b.i));
    case Step::i_neg:
      return i(wrap(-bits(a.i)));
    case Step::i_abs:
      return i(a.i < 0 ? wrap(-bits(a.i)) : a.i);
    case Step::i_sign:
      return i((a.i > 0) - (a.i < 0));
    case Step::i_equal:
      return i(a.i == b.i);
    case Step::i_less:
      return i(a.i < b.i);
    case Step::i_less_equal:
      return i(a.i <= b.i);
    case Step::i_and:
    case Step::b_and:
      return i(a.i & b.i);
    case Step::i_or:
    case Step::b_or:
      return i(a.i | b.i);
    case Step::i_xor:
    case Step::b_xor:
      return i(a.i ^ b.i);
    case Step::i_not:
      return i(~a.i);
    case Step::b_not:
      return i(a.i == 0);
    case Step::i_shift_left:
      return i(wrap(bits(a.i) << (b.i & 31)));
    case Step::i_shift_right:
      return i(a.i >> (b.i & 31));
    case Step::i_to_f:
    case Step::b_to_f:
      return f(static_cast<float>(a.i));
    case Step::i_to_b:
      return i(a.i != 0);
    case Step::b_to_i:
      return i(a.i);
    case Step::count:
      break;
  }
  throw Error(Fault::model, "there is no such step");
}

Scalar load(const Literal& literal, int64_t at) {
  if (literal.type == Type::f32) return {data<float>(literal)[at], 0};
  if (literal.type == Type::i32) return {0, data<int64_t>(literal)[at]};
  if (literal.type == Type::i8) return {0, data<int8_t>(literal)[at]};
  return {0, data<uint8_t>(literal)[at]};
}

// --- Operations ------------------------------------------------------------------------------------------------------

class Evaluation {
 public:
  Evaluation(const std::vector<const Literal*>& inputs, const std::map<std::string, int64_t>& dimensions)
      : inputs_(inputs), dimensions_(dimensions) {}

  std::vector<Literal> operator()(const Map& op) const {
    Sizes dims = x().dims;
    for (const Literal* operand : inputs_) dims = together(dims, operand->dims);
    std::array<Sizes, 3> strides;
    for (size_t i = 0; i < 3; ++i)
      strides[i] = i < inputs_.size() ? broadcast_strides(inputs_[i]->dims, dims) : Sizes(dims.size(), 0);
    const Literal *b = inputs_.size() > 1 ? inputs_[1] : nullptr, *c = inputs_.size() > 2 ? inputs_[2] : nullptr;
    return {by_type(op.narrow ? Type::i8 : info(op.step).to, [&](auto element) {
      using T = decltype(element);
      std::vector<T> values(static_cast<size_t>(product(dims)));
      walk<3>(dims, strides, {}, [&](int64_t i, const auto& at) {
        const Scalar value =
            apply(op.step, load(x(), at[0]), b ? load(*b, at[1]) : Scalar{}, c ? load(*c, at[2]) : Scalar{});
        values[static_cast<size_t>(i)] = std::is_same_v<T, float> ? static_cast<T>(value.f) : static_cast<T>(value.i);
      });
      return made(dims, std::move(values));
    })};
  }

  std::vector<Literal> operator()(const Iota& op) const {
    const Sizes dims = evaluate_dims(op.dims, dimensions_);
    Sizes strides(dims.size(), 0);
    strides[static_cast<size_t>(op.axis)] = 1;
    std::vector<int64_t> values(static_cast<size_t>(product(dims)));
    walk<1>(dims, {strides}, {}, [&](int64_t i, const auto& at) { values[static_cast<size_t>(i)] = at[0]; });
    return {made(dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Size& op) const {
    return {made({}, std::vector<int64_t>{op.value.evaluate(dimensions_)})};
  }

  std::vector<Literal> operator()(const Reshape& op) const {
    Literal result = x();
    result.dims = evaluate_dims(op.dims, dimensions_);
    if (result.count() != x().count())
      throw Error(Fault::model, fmt::format("{} cannot be reshaped to {}", text(x().dims), text(result.dims)));
    return {result};
  }

  std::vector<Literal> operator()(const Transpose& op) const {
    const Sizes own = dense_strides(x().dims);
    Sizes dims, strides;
    for (const int axis : op.permutation) {
      dims.push_back(x().dims[static_cast<size_t>(axis)]);
      strides.push_back(own[static_cast<size_t>(axis)]);
    }
    return {view(x(), dims, strides)};
  }

  std::vector<Literal> operator()(const Slice& op) const {
    const Sizes dims = evaluate_dims(op.dims, dimensions_), starts = evaluate_dims(op.starts, dimensions_);
    Sizes strides = dense_strides(x().dims);
    int64_t start = 0;
    for (size_t i = 0; i < dims.size(); ++i) {
      const int64_t last = starts[i] + (dims[i] - 1) * op.steps[i];
      if (dims[i] > 0 && (starts[i] < 0 || starts[i] >= x().dims[i] || last < 0 || last >= x().dims[i]))
        throw Error(Fault::model, fmt::format("elements {} to {} lie outside of {}", starts[i], last, text(x().dims)));
      start += starts[i] * strides[i];
      strides[i] *= op.steps[i];
    }
    return {view(x(), dims, strides, start)};
  }

  std::vector<Literal> operator()(const Expand& op) const {
    const Sizes dims = together(x().dims, evaluate_dims(op.dims, dimensions_));
    return {view(x(), dims, broadcast_strides(x().dims, dims))};
  }

  std::vector<Literal> operator()(const Concat& op) const {
    const auto axis = static_cast<size_t>(op.axis);
    Sizes dims = x().dims;
    dims[axis] = 0;
    for (const Literal* operand : inputs_) dims[axis] += operand->dims[axis];
    return {by_type(x().type, [&](auto element) {
      using T = decltype(element);
      std::vector<T> values(static_cast<size_t>(product(dims)));
      const int64_t row = std::accumulate(dims.begin() + op.axis, dims.end(), int64_t{1}, std::multiplies<>());
      int64_t ahead = 0;
      for (const Literal* operand : inputs_) {
        const auto& from = operand->dims;
        const int64_t own = std::accumulate(from.begin() + op.axis, from.end(), int64_t{1}, std::multiplies<>());
        for (int64_t i = 0; own > 0 && i < operand->count() / own; ++i)
          std::copy_n(data<T>(*operand) + i * own, own, values.data() + i * row + ahead);
        ahead += own;
      }
      return made(dims, std::move(values));
    })};
  }

  std::vector<Literal> operator()(const Pad& op) const {
    const Sizes before = evaluate_dims(op.before, dimensions_), after = evaluate_dims(op.after, dimensions_);
    Sizes dims = x().dims;
    for (size_t i = 0; i < dims.size(); ++i) dims[i] += before[i] + after[i];
    const Sizes strides = dense_strides(dims);
    const int64_t start = std::inner_product(before.begin(), before.end(), strides.begin(), int64_t{0});
    return {by_type(x().type, [&](auto element) {
      using T = decltype(element);
      std::vector<T> values(static_cast<size_t>(product(dims)), static_cast<T>(op.value));
      walk<1>(x().dims, {strides}, {start},
              [&](int64_t i, const auto& at) { values[static_cast<size_t>(at[0])] = data<T>(x())[i]; });
      return made(dims, std::move(values));
    })};
  }

  std::vector<Literal> operator()(const Gather& op) const {
    if (const Literal* scale = optional(2)) {
      const Literal table = dequantised(x(), *scale, false);
      return Evaluation({&table, inputs_[1]}, dimensions_)(op);
    }
    const Literal& index = *inputs_[1];
    const Sizes& table = x().dims;
    const int64_t outer = std::accumulate(table.begin(), table.begin() + op.axis, int64_t{1}, std::multiplies<>());
    const int64_t inner = std::accumulate(table.begin() + op.axis + 1, table.end(), int64_t{1}, std::multiplies<>());
    const int64_t size = table[static_cast<size_t>(op.axis)], picked = index.count();
    Sizes dims(table.begin(), table.begin() + op.axis);
    dims.insert(dims.end(), index.dims.begin(), index.dims.end());
    dims.insert(dims.end(), table.begin() + op.axis + 1, table.end());
    if (size == 0 && product(dims) > 0)
      throw Error(Fault::model, fmt::format("there is nothing to gather in {}", text(table)));
    return {by_type(x().type, [&](auto element) {
      using T = decltype(element);
      std::vector<T> values(static_cast<size_t>(product(dims)));
      for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < picked; ++i) {
          int64_t at = data<int64_t>(index)[i];
          if (at < 0) at += size;
          at = std::clamp<int64_t>(at, 0, std::max<int64_t>(size - 1, 0));
          std::copy_n(data<T>(x()) + (o * size + at) * inner, inner, values.data() + (o * picked + i) * inner);
        }
      return made(dims, std::move(values));
    })};
  }

  std::vector<Literal> operator()(const Matmul& op) const {
    return x().type == Type::i32 ? multiplied<int64_t>(op) : multiplied<float>(op);
  }

  /// Integers are exact in double too.
  template <class Element>
  std::vector<Literal> multiplied(const Matmul& op) const {
    const Literal &a = x(), &b = *inputs_[1];
    const auto batch_of = [](const Literal& literal) { return Sizes(literal.dims.begin(), literal.dims.end() - 2); };
    const Sizes batch = together(batch_of(a), batch_of(b));
    const int64_t m = a.dims[a.dims.size() - 2], k = a.dims.back(), n = b.dims.back();
    Sizes dims = batch;
    dims.push_back(m);
    dims.push_back(n);
    const auto blocks = [&](const Literal& literal, int64_t block) {
      Sizes strides = broadcast_strides(batch_of(literal), batch);
      for (int64_t& stride : strides) stride *= block;
      return strides;
    };
    std::vector<Element> values(static_cast<size_t>(product(dims)));
    std::vector<double> row(static_cast<size_t>(n));
    walk<2>(batch, {blocks(a, m * k), blocks(b, k * n)}, {}, [&](int64_t i, const auto& at) {
      for (int64_t r = 0; r < m; ++r) {
        std::fill(row.begin(), row.end(), 0.0);
        for (int64_t c = 0; c < k; ++c) {
          const auto left = static_cast<double>(data<Element>(a)[at[0] + r * k + c]);
          const Element* right = data<Element>(b) + at[1] + c * n;
          for (int64_t j = 0; j < n; ++j) row[static_cast<size_t>(j)] += left * static_cast<double>(right[j]);
        }
        for (int64_t j = 0; j < n; ++j) {
          const int64_t out = (i * m + r) * n + j;
          double value = row[static_cast<size_t>(j)];
          if (const Literal* bias = optional(2)) value += data<float>(*bias)[j];
          if (const Literal* residual = optional(3)) value += data<float>(*residual)[out];
          values[static_cast<size_t>(out)] = static_cast<Element>(activate(op.activation, value));
        }
      }
    });
    return {made(dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Softmax& op) const {
    std::vector<float> values(static_cast<size_t>(x().count()));
    along(op.axis, [&](int64_t start, int64_t stride, int64_t size) {
      const float* from = data<float>(x()) + start;
      double most = -infinity, sum = 0;
      for (int64_t i = 0; i < size; ++i) most = largest(most, from[i * stride]);
      for (int64_t i = 0; i < size; ++i) sum += std::exp(from[i * stride] - most);
      for (int64_t i = 0; i < size; ++i) {
        const double shifted = from[i * stride] - most;
        values[static_cast<size_t>(start + i * stride)] =
            static_cast<float>(op.log ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    });
    return {made(x().dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Reduce& op) const {
    const Sizes own = dense_strides(x().dims);
    Sizes kept, kept_strides, reduced, reduced_strides, dims;
    for (size_t i = 0; i < own.size(); ++i) {
      const bool gone = std::find(op.axes.begin(), op.axes.end(), static_cast<int>(i)) != op.axes.end();
      (gone ? reduced : kept).push_back(x().dims[i]);
      (gone ? reduced_strides : kept_strides).push_back(own[i]);
      if (!gone || op.keep) dims.push_back(gone ? 1 : x().dims[i]);
    }
    const int64_t size = product(reduced);
    const bool arg = op.kind == Reduction::arg_max || op.kind == Reduction::arg_min;
    return {by_type(arg ? Type::i32 : x().type, [&](auto element) {
      using T = decltype(element);
      std::vector<T> values(static_cast<size_t>(product(kept)));
      walk<1>(kept, {kept_strides}, {}, [&](int64_t out, const auto& start) {
        Scalar total = start_of(op.kind);
        double best = NAN;
        walk<1>(reduced, {reduced_strides}, {start[0]}, [&](int64_t i, const auto& at) {
          const Scalar value = load(x(), at[0]);
          if (arg) {
            const double own_value = op.kind == Reduction::arg_max ? value.f : -value.f;
            const bool better = own_value > best || (op.last_index && own_value == best) ||
                                (std::isnan(own_value) && !std::isnan(best));
            if (i == 0 || better) best = own_value, total.i = i;
          } else {
            total = accumulate(op.kind, total, value);
          }
        });
        if (op.kind == Reduction::mean) total.f /= static_cast<double>(size);
        values[static_cast<size_t>(out)] = std::is_same_v<T, float> ? static_cast<T>(total.f) : static_cast<T>(total.i);
      });
      return made(dims, std::move(values));
    })};
  }

  std::vector<Literal> operator()(const Attention& op) const {
    Literal rows[3];
    for (size_t i = 0; i < 3; ++i) rows[i] = op.int8 ? dequantised(*inputs_[i], *inputs_[7 + i], false) : *inputs_[i];
    const Literal &q = rows[0], &k = rows[1], &v = rows[2];
    const int64_t batch = q.dims[0], heads = q.dims[1], queries = q.dims[2], depth = q.dims[3];
    const int64_t shared = k.dims[1], keys = k.dims[2], width = v.dims[3], offset = op.offset.evaluate(dimensions_);
    const Literal *bias = optional(3), *padding = optional(4), *slope = optional(5), *toeplitz = optional(6);
    const Sizes bias_strides = bias ? broadcast_strides(bias->dims, {batch, heads, queries, keys}) : Sizes(4, 0);
    const Sizes padding_strides = padding ? broadcast_strides(padding->dims, {batch, keys}) : Sizes(2, 0);
    std::vector<float> values(static_cast<size_t>(batch * heads * queries * width));
    std::vector<double> scores(static_cast<size_t>(keys));
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < queries; ++i) {
          const int64_t group = b * shared + h / (heads / shared), row = (b * heads + h) * queries + i;
          double most = -infinity, sum = 0;
          std::vector<bool> masked(static_cast<size_t>(keys));
          for (int64_t j = 0; j < keys; ++j) {
            double score = 0;
            for (int64_t d = 0; d < depth; ++d)
              score += double{data<float>(q)[row * depth + d]} * data<float>(k)[(group * keys + j) * depth + d];
            // Rounded where the operation rounds: a large negative bias swallows the score.
            score = static_cast<float>(score * op.scale);
            bool hidden = (op.causal && j > i + offset) ||
                          (op.window && (j < i + offset - op.window_left || j > i + offset + op.window_right));
            if (slope) score = static_cast<float>(score + data<float>(*slope)[h] * static_cast<double>(j - i - offset));
            if (toeplitz)
              score =
                  static_cast<float>(score + data<float>(*toeplitz)[h * (queries + keys - 1) + j - i + queries - 1]);
            if (bias) {
              const Scalar value =
                  load(*bias, b * bias_strides[0] + h * bias_strides[1] + i * bias_strides[2] + j * bias_strides[3]);
              if (bias->type == Type::boolean)
                hidden = hidden || value.i == 0;
              else
                score = static_cast<float>(score + value.f);
            }
            if (padding) hidden = hidden || load(*padding, b * padding_strides[0] + j * padding_strides[1]).i == 0;
            masked[static_cast<size_t>(j)] = hidden;
            scores[static_cast<size_t>(j)] = score;
            if (!hidden) most = largest(most, score);
          }
          std::vector<double> mixed(static_cast<size_t>(width), 0.0);
          for (int64_t j = 0; j < keys; ++j) {
            if (masked[static_cast<size_t>(j)]) continue;
            const double weight = std::exp(scores[static_cast<size_t>(j)] - most);
            sum += weight;
            for (int64_t d = 0; d < width; ++d)
              mixed[static_cast<size_t>(d)] += weight * data<float>(v)[(group * keys + j) * width + d];
          }
          for (int64_t d = 0; d < width; ++d)
            values[static_cast<size_t>(row * width + d)] =
                sum == 0 ? 0 : static_cast<float>(mixed[static_cast<size_t>(d)] / sum);
        }
    return {made({batch, heads, queries, width}, std::move(values))};
  }

  std::vector<Literal> operator()(const Normalize& op) const {
    std::vector<float> values(static_cast<size_t>(x().count()));
    along(static_cast<int>(x().dims.size()) - 1, [&](int64_t start, int64_t, int64_t size) {
      const float* from = data<float>(x()) + start;
      double mean = 0, square = 0;
      const auto n = static_cast<double>(size);
      if (op.kind == Normalization::layer)
        for (int64_t i = 0; i < size; ++i) mean += from[i] / n;
      for (int64_t i = 0; i < size; ++i) square += (from[i] - mean) * (from[i] - mean) / n;
      for (int64_t i = 0; i < size; ++i) {
        double value = (from[i] - mean) / std::sqrt(square + op.epsilon);
        if (const Literal* scale = optional(1)) value *= data<float>(*scale)[i];
        if (const Literal* bias = optional(2)) value += data<float>(*bias)[i];
        values[static_cast<size_t>(start + i)] = static_cast<float>(value);
      }
    });
    return with_rows(made(x().dims, std::move(values)), op);
  }

  std::vector<Literal> operator()(const Recurrent& op) const { return layer(op, false); }

  std::vector<Literal> operator()(const RecurrentI8& op) const {
    const auto scaled = [&](size_t i) { return dequantised(*inputs_[i], *inputs_[i + 1], false); };
    const Literal x = scaled(0), w = scaled(2), r = scaled(4);
    return Evaluation({&x, &w, &r, optional(6), optional(7), optional(8)}, dimensions_).layer(op, true);
  }

  /// `int8`: rows that meet the recurrent weights are rounded as rows of int8 are.
  std::vector<Literal> layer(const Recurrent& op, bool int8) const {
    const int64_t steps = x().dims[0], batch = x().dims[1], hidden = op.hidden;
    const int64_t directions = op.direction == Direction::both ? 2 : 1;
    std::vector<float> y(static_cast<size_t>(steps * directions * batch * hidden)), last_h, last_c;
    for (int64_t d = 0; d < directions; ++d)
      for (int64_t n = 0; n < batch; ++n) {
        std::vector<double> h(static_cast<size_t>(hidden), 0.0), c = h;
        for (int64_t u = 0; u < hidden; ++u) {
          const int64_t at = (d * batch + n) * hidden + u;
          if (const Literal* h0 = optional(4)) h[static_cast<size_t>(u)] = data<float>(*h0)[at];
          if (const Literal* c0 = optional(5)) c[static_cast<size_t>(u)] = data<float>(*c0)[at];
        }
        const bool backwards = op.direction == Direction::reverse || d == 1;
        for (int64_t i = 0; i < steps; ++i) {
          const int64_t t = backwards ? steps - 1 - i : i;
          step(op, int8, d, data<float>(x()) + (t * batch + n) * x().dims[2], h, c);
          std::copy(h.begin(), h.end(), y.begin() + ((t * directions + d) * batch + n) * hidden);
        }
        last_h.insert(last_h.end(), h.begin(), h.end());
        last_c.insert(last_c.end(), c.begin(), c.end());
      }
    const Sizes state = {directions, batch, hidden};
    std::vector<Literal> results = {made({steps, directions, batch, hidden}, std::move(y)),
                                    made(state, std::move(last_h))};
    if (op.cell == Cell::lstm) results.push_back(made(state, std::move(last_c)));
    return results;
  }

  std::vector<Literal> operator()(const Conv& op) const {
    return x().type == Type::i32 ? convolution<int64_t>(op, false) : convolution<float>(op, false);
  }

  std::vector<Literal> operator()(const ConvI8& op) const {
    const Literal w = dequantised(*inputs_[1], *inputs_[2], true);
    return Evaluation({&x(), &w, optional(3), optional(4)}, dimensions_).convolution<float>(op, true);
  }

  /// `int8`: windows are rounded as rows of int8 are. Integers are exact in double too.
  template <class Element>
  std::vector<Literal> convolution(const Conv& op, bool int8) const {
    const Literal &w = *inputs_[1], *bias = optional(2), *residual = optional(3);
    Sizes dims = positions(op.axes, false);
    const int64_t channels = w.dims[w.dims.size() - 2], outputs = w.dims.back(), own = outputs / op.groups;
    dims.push_back(outputs);
    std::vector<Element> values(static_cast<size_t>(product(dims)));
    const int64_t terms = outputs == 0 ? 0 : w.count() / outputs;
    std::vector<double> sums(static_cast<size_t>(outputs));
    std::vector<std::vector<double>> rows(static_cast<size_t>(op.groups));
    for (int64_t position = 0; position < static_cast<int64_t>(values.size()) / outputs; ++position) {
      for (std::vector<double>& row : rows) row.assign(static_cast<size_t>(terms), 0.0);
      for_each_tap(op.axes, dims, position, [&](int64_t tap, int64_t at, bool inside) {
        for (int64_t i = 0; i < op.groups * channels && inside; ++i)
          rows[static_cast<size_t>(i / channels)][static_cast<size_t>(tap * channels + i % channels)] =
              static_cast<double>(data<Element>(x())[at + i]);
      });
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t group = 0; group < op.groups; ++group) {
        std::vector<double>& row = rows[static_cast<size_t>(group)];
        if (int8) round_row(row, true);
        for (int64_t i = 0; i < terms; ++i)
          for (int64_t m = group * own; m < (group + 1) * own; ++m)
            sums[static_cast<size_t>(m)] +=
                row[static_cast<size_t>(i)] * static_cast<double>(data<Element>(w)[i * outputs + m]);
      }
      for (int64_t m = 0; m < outputs; ++m) {
        double sum = sums[static_cast<size_t>(m)];
        if (bias) sum += data<float>(*bias)[m];
        if (residual) sum += data<float>(*residual)[position * outputs + m];
        values[static_cast<size_t>(position * outputs + m)] = static_cast<Element>(activate(op.activation, sum));
      }
    }
    return {made(dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Pool& op) const {
    Sizes dims = positions(op.axes, op.ceil);
    const int64_t channels = x().dims.back();
    dims.push_back(channels);
    std::vector<float> values(static_cast<size_t>(product(dims)));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto at_pixel = std::lldiv(static_cast<long long>(i), channels);
      double sum = 0, most = -infinity, count = 0;
      for_each_tap(op.axes, dims, at_pixel.quot, [&](int64_t, int64_t at, bool inside, bool in_padding) {
        count += inside || (op.counts_padding && in_padding);
        if (!inside) return;
        sum += data<float>(x())[at + at_pixel.rem];
        most = largest(most, data<float>(x())[at + at_pixel.rem]);
      });
      values[i] = static_cast<float>(op.kind == Pooling::max ? most : op.kind == Pooling::mean ? sum / count : sum);
    }
    return {made(dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Rope& op) const {
    const Literal &cos = *inputs_[1], &sin = *inputs_[2];
    const int64_t channels = x().dims.back(), rotated = cos.dims.back(), half = rotated / 2;
    const Sizes lead(x().dims.begin(), x().dims.end() - 1);
    const auto rows = [&](const Literal& table) {
      Sizes strides = broadcast_strides(Sizes(table.dims.begin(), table.dims.end() - 1), lead);
      for (int64_t& stride : strides) stride *= rotated;
      return strides;
    };
    std::vector<float> values(x().floats().begin(), x().floats().end());
    walk<2>(lead, {rows(cos), rows(sin)}, {}, [&](int64_t row, const auto& at) {
      const float* from = data<float>(x()) + row * channels;
      for (int64_t i = 0; i < rotated; ++i) {
        const int64_t partner = op.pairing == Pairing::interleaved ? i ^ 1 : i < half ? i + half : i - half;
        values[static_cast<size_t>(row * channels + i)] = static_cast<float>(
            double{from[i]} * data<float>(cos)[at[0] + i] + double{from[partner]} * data<float>(sin)[at[1] + i]);
      }
    });
    return {made(x().dims, std::move(values))};
  }

  std::vector<Literal> operator()(const Quantize& op) const {
    return optional(1) ? std::vector{quantised_as(x(), *optional(1))} : quantised(x(), op.groups, op.asymmetric);
  }
  /// With the scale and zero point that are given.
  Literal quantised_as(const Literal& x, const Literal& given) const {
    const Literal scale = made({}, std::vector<float>{given.floats()[0]}),
                  zero = made({}, std::vector<int64_t>{static_cast<int64_t>(given.floats()[1])});
    return Evaluation({&x, &scale, &zero}, dimensions_)(QuantizeLinear{-128, 127, true})[0];
  }

  std::vector<Literal> operator()(const QuantizeLinear& op) const {
    std::vector<int64_t> q(static_cast<size_t>(x().count()));
    walk<2>(x().dims, parameters(), {}, [&](int64_t i, const auto& at) {
      const auto zero = static_cast<double>(data<int64_t>(*inputs_[2])[at[1]]);
      const float steps = data<float>(x())[i] / data<float>(*inputs_[1])[at[0]];
      const double value = std::isnan(steps) ? zero : std::nearbyint(double{steps}) + zero;
      q[static_cast<size_t>(i)] =
          static_cast<int64_t>(std::clamp(value, static_cast<double>(op.lowest), static_cast<double>(op.highest)));
    });
    if (op.narrow) return {made(x().dims, std::vector<int8_t>(q.begin(), q.end()))};
    return {made(x().dims, std::move(q))};
  }

  std::vector<Literal> operator()(const DequantizeLinear&) const {
    std::vector<float> values(static_cast<size_t>(x().count()));
    walk<2>(x().dims, parameters(), {}, [&](int64_t i, const auto& at) {
      const int64_t steps = load(x(), i).i - data<int64_t>(*inputs_[2])[at[1]];
      values[static_cast<size_t>(i)] = static_cast<float>(steps) * data<float>(*inputs_[1])[at[0]];
    });
    return {made(x().dims, std::move(values))};
  }

  std::vector<Literal> operator()(const MatmulI8& op) const {
    const Literal &a = x(), &a_scale = *inputs_[1], &b = *inputs_[2], &b_scale = *inputs_[3];
    const int64_t k = b.dims[0], n = b.dims[1];
    Sizes dims = a.dims;
    dims.back() = n;
    std::vector<float> values(static_cast<size_t>(product(dims)));
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      const int64_t row = i / n, column = i % n;
      const Literal *a_zeros = optional(6), *b_zeros = optional(7);
      const int64_t a_zero = a_zeros ? load(*a_zeros, row).i : 0, b_zero = b_zeros ? load(*b_zeros, column).i : 0;
      int64_t sum = 0;
      for (int64_t p = 0; p < k; ++p)
        sum += (data<int8_t>(a)[row * k + p] - a_zero) * (data<int8_t>(b)[p * n + column] - b_zero);
      double y = static_cast<double>(sum) * data<float>(a_scale)[row] * data<float>(b_scale)[column];
      if (const Literal* bias = optional(4)) y += data<float>(*bias)[column];
      if (const Literal* residual = optional(5)) y += data<float>(*residual)[i];
      values[static_cast<size_t>(i)] = static_cast<float>(activate(op.activation, y));
    }
    std::vector<Literal> results = with_rows(made(dims, std::move(values)), op);
    if (const Literal* given = optional(8)) results.push_back(quantised_as(results.front(), *given));
    return results;
  }

  /// w times the scales of its last axis, or of its rows along that.
  static Literal dequantised(const Literal& w, const Literal& scale, bool last) {
    const int64_t n = w.dims.back();
    std::vector<float> values;
    for (const int8_t byte : w.bytes()) {
      const auto i = static_cast<int64_t>(values.size());
      values.push_back(static_cast<float>(byte) * scale.floats()[static_cast<size_t>(last ? i % n : i / n)]);
    }
    return made(w.dims, std::move(values));
  }

  /// The levels of a group of elements: kernels/quantize/quantize.h.
  struct Levels {
    double width, steps;
    double zero = 0;

    template <class Elements>
    Levels(const Elements& elements, bool asymmetric) : steps(asymmetric ? 253 : 127) {
      double high = 0, depth = 0;
      for (const double x : elements) {
        high = largest(high, asymmetric ? x : std::abs(x));
        if (asymmetric) depth = largest(depth, -x);
      }
      width = high + depth;
      if (usable() && asymmetric) zero = std::nearbyint(depth * steps / width - 126.25);
    }
    bool usable() const { return width >= 0x1p-100 && width < infinity; }
    double scale() const { return usable() ? width / steps : width * 0; }
    double level(double x) const { return usable() ? std::nearbyint(x * steps / width + zero) : 0; }
  };

  static void round_row(std::vector<double>& row, bool asymmetric) {
    const Levels levels(row, asymmetric);
    for (double& x : row) x = (levels.level(x) - levels.zero) * levels.scale();
  }

  /// A result, and where groups > 0 the same as int8 and what was found with it.
  template <class Op>
  static std::vector<Literal> with_rows(Literal y, const Op& op) {
    std::vector<Literal> results{std::move(y)};
    if (op.groups > 0)
      for (Literal& result : quantised(results.front(), op.groups, op.asymmetric)) results.push_back(std::move(result));
    return results;
  }

  static std::vector<Literal> quantised(const Literal& x, int64_t groups, bool asymmetric) {
    const int64_t columns = x.dims.back() / groups;
    Sizes dims = x.dims;
    dims.back() = groups;
    std::vector<int8_t> q;
    std::vector<float> scales;
    std::vector<int64_t> zeros;
    const int64_t count = product(dims);
    for (int64_t group = 0; group < count; ++group) {
      const std::span elements = x.floats().subspan(static_cast<size_t>(group * columns), static_cast<size_t>(columns));
      const Levels levels(elements, asymmetric);
      scales.push_back(static_cast<float>(levels.scale()));
      zeros.push_back(static_cast<int64_t>(levels.zero));
      for (const float element : elements) q.push_back(static_cast<int8_t>(levels.level(element)));
    }
    std::vector<Literal> results{made(x.dims, std::move(q)), made(dims, std::move(scales))};
    if (asymmetric) results.push_back(made(dims, std::move(zeros)));
    return results;
  }

  std::vector<Literal> operator()(const Elementwise& op) const {
    const Sizes dims = evaluate_dims(op.dims, dimensions_);
    const auto count = static_cast<size_t>(product(dims));
    // A program's lanes are few enough here to hold every register whole.
    std::vector<std::vector<Scalar>> sources, registers(elementwise_registers);
    std::vector<Type> source_types, register_types(elementwise_registers, Type::f32);
    size_t tensor = 0;
    for (const auto& source : op.sources) {
      std::vector<Scalar> lanes(count);
      Sizes strides(dims.size(), 0);
      source_types.push_back(Type::i32);
      if (source.kind == SourceKind::tensor) {
        const Literal& operand = *inputs_[tensor++];
        source_types.back() = operand.type;
        walk<1>(dims, {broadcast_strides(operand.dims, dims)}, {},
                [&](int64_t i, const auto& at) { lanes[static_cast<size_t>(i)] = load(operand, at[0]); });
      } else {
        const int64_t value = source.kind == SourceKind::dimension ? source.value.evaluate(dimensions_) : 0;
        if (source.kind == SourceKind::iota) strides[static_cast<size_t>(source.axis)] = 1;
        walk<1>(dims, {strides}, {}, [&](int64_t i, const auto& at) {
          lanes[static_cast<size_t>(i)] = {0, value + at[0]};
        });
      }
      sources.push_back(std::move(lanes));
    }
    const auto read = [&](uint8_t from, size_t lane, Type type) {
      if (from < operand::inputs) return registers[from][lane];
      if (from < operand::immediates) return sources[from - operand::inputs][lane];
      if (from == operand::none) return Scalar{};
      const uint32_t immediate = op.immediates[from - operand::immediates];
      if (type == Type::boolean) return Scalar{0, immediate != 0};  // all bits of a boolean are alike
      return Scalar{std::bit_cast<float>(immediate), std::bit_cast<int32_t>(immediate)};
    };
    for (const Instruction& instruction : op.instructions) {
      std::vector<Scalar> lanes(count);
      const auto operand = [&](int k, size_t lane) {
        return read(instruction.operands[k], lane, operand_type(instruction.step, k));
      };
      for (size_t i = 0; i < count; ++i)
        lanes[i] = apply(instruction.step, operand(0, i), operand(1, i), operand(2, i));
      registers[instruction.result] = std::move(lanes);
      register_types[instruction.result] = info(instruction.step).to;
    }
    std::vector<Literal> results;
    for (size_t r = 0; r < op.results.size(); ++r) {
      const uint8_t result = op.results[r];
      const Type type = result < operand::inputs ? register_types[result] : source_types[result - operand::inputs];
      results.push_back(by_type(r < op.narrow.size() && op.narrow[r] ? Type::i8 : type, [&](auto element) {
        using T = decltype(element);
        std::vector<T> values(count);
        for (size_t i = 0; i < count; ++i) {
          const Scalar value = read(result, i, type);
          values[i] = std::is_same_v<T, float> ? static_cast<T>(value.f) : static_cast<T>(value.i);
        }
        return made(dims, std::move(values));
      }));
    }
    return results;
  }

 private:
  const Literal& x() const { return *inputs_[0]; }
  /// Strides of a scale and a zero point over x.
  std::array<Sizes, 2> parameters() const {
    return {broadcast_strides(inputs_[1]->dims, x().dims), broadcast_strides(inputs_[2]->dims, x().dims)};
  }
  const Literal* optional(size_t i) const { return i < inputs_.size() ? inputs_[i] : nullptr; }

  // Images and positions of a window over x [N, spatial.., C].
  Sizes positions(const std::vector<WindowAxis>& axes, bool ceil) const {
    Sizes dims = {x().dims[0]};
    for (size_t i = 0; i < axes.size(); ++i) {
      const int64_t size = x().dims[i + 1] + axes[i].before, room = size + axes[i].after - axes[i].reach();
      int64_t count = (room + (ceil ? axes[i].stride - 1 : 0)) / axes[i].stride + 1;
      if (ceil) count = std::min(count, (size - 1) / axes[i].stride + 1);
      dims.push_back(count);
    }
    return dims;
  }

  // Calls body(tap, offset of its channel 0 in x, inside of x?, [inside of x with its padding?]) for the taps of a
  // position.
  template <class Body>
  void for_each_tap(const std::vector<WindowAxis>& axes, const Sizes& dims, int64_t position, Body&& body) const {
    Sizes begin(axes.size());
    int64_t taps = 1;
    for (size_t i = axes.size(); i-- > 0;) {
      begin[i] = position % dims[i + 1] * axes[i].stride - axes[i].before;
      position /= dims[i + 1];
      taps *= axes[i].kernel;
    }
    for (int64_t tap = 0; tap < taps; ++tap) {
      bool inside = true, in_padding = true;
      int64_t at = 0, rest = tap, step = x().dims.back();
      for (size_t i = axes.size(); i-- > 0;) {
        const int64_t place = begin[i] + rest % axes[i].kernel * axes[i].dilation, size = x().dims[i + 1];
        inside = inside && place >= 0 && place < size;
        in_padding = in_padding && place >= -axes[i].before && place < size + axes[i].after;
        at += place * step;
        step *= size;
        rest /= axes[i].kernel;
      }
      if constexpr (std::is_invocable_v<Body, int64_t, int64_t, bool, bool>)
        body(tap, at + position * step, inside, in_padding);
      else
        body(tap, at + position * step, inside);
    }
  }

  static Sizes together(const Sizes& a, const Sizes& b) {
    const Sizes &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
    Sizes result = longer;
    const size_t ahead = longer.size() - shorter.size();
    for (size_t i = 0; i < shorter.size(); ++i) {
      if (result[ahead + i] == 1)
        result[ahead + i] = shorter[i];
      else if (shorter[i] != 1 && shorter[i] != result[ahead + i])
        throw Error(Fault::model, fmt::format("the shapes {} and {} do not go together", text(a), text(b)));
    }
    return result;
  }

  // Calls body(start, stride, size) for every line of x along an axis.
  template <class Body>
  void along(int axis, Body&& body) const {
    const Sizes& dims = x().dims;
    const int64_t stride = std::accumulate(dims.begin() + axis + 1, dims.end(), int64_t{1}, std::multiplies<>());
    const int64_t size = dims[static_cast<size_t>(axis)];
    for (int64_t outer = 0; size > 0 && outer < x().count() / (size * stride); ++outer)
      for (int64_t inner = 0; inner < stride; ++inner) body(outer * size * stride + inner, stride, size);
  }

  static double activate(Activation activation, double value) {
    switch (activation) {
      case Activation::none:
        return value;
      case Activation::relu:
        return largest(value, 0);
      case Activation::gelu:
        return gelu(value);
      case Activation::gelu_i8:
        return gelu_i8(value);
      case Activation::gelu_tanh:
        return gelu_tanh(value);
      case Activation::silu:
        return silu(value);
      case Activation::sigmoid:
        return sigmoid(value);
      case Activation::tanh:
        return std::tanh(value);
    }
    return value;
  }

  static Scalar start_of(Reduction kind) {
    switch (kind) {
      case Reduction::product:
        return {1, 1};
      case Reduction::max:
        return {-infinity, std::numeric_limits<int64_t>::min()};
      case Reduction::min:
        return {infinity, std::numeric_limits<int64_t>::max()};
      default:
        return {};
    }
  }
  static Scalar accumulate(Reduction kind, Scalar a, Scalar b) {
    switch (kind) {
      case Reduction::sum_square:
        return {a.f + b.f * b.f, 0};
      case Reduction::product:
        return {a.f * b.f, wrap(bits(a.i) * bits(b.i))};
      case Reduction::max:
        return {largest(a.f, b.f), std::max(a.i, b.i)};
      case Reduction::min:
        return {smallest(a.f, b.f), std::min(a.i, b.i)};
      default:
        return {a.f + b.f, wrap(bits(a.i) + bits(b.i))};
    }
  }

  // One step of one direction and one batch element: h and c become the next state.
  void step(const Recurrent& op, bool int8, int64_t direction, const float* input, std::vector<double>& h,
            std::vector<double>& c) const {
    const int64_t hidden = op.hidden, gates = op.cell == Cell::lstm ? 4 : op.cell == Cell::gru ? 3 : 1;
    const Literal &w = *inputs_[1], &r = *inputs_[2];
    const Literal* b = optional(3);
    const int64_t width = w.dims[2];
    const std::vector<double> before = h;
    std::vector<double> state_row = h;
    if (int8) round_row(state_row, false);
    const auto row = [&](const Literal& weights, int64_t gate, int64_t unit, int64_t size, const auto* vector) {
      const float* from = data<float>(weights) + ((direction * gates + gate) * hidden + unit) * size;
      double sum = 0;
      for (int64_t i = 0; i < size; ++i) sum += from[i] * static_cast<double>(vector[i]);
      return sum;
    };
    const auto bias = [&](int64_t gate, int64_t unit) {
      return b ? double{data<float>(*b)[direction * 2 * gates * hidden + gate * hidden + unit]} : 0.0;
    };
    const auto from_input = [&](int64_t gate, int64_t u) { return row(w, gate, u, width, input) + bias(gate, u); };
    const auto from_state = [&](int64_t gate, int64_t u) {
      return row(r, gate, u, hidden, state_row.data()) + bias(gates + gate, u);
    };
    const auto sum = [&](int64_t gate, int64_t u) { return from_input(gate, u) + from_state(gate, u); };

    std::vector<double> reset(before.size());
    if (op.cell == Cell::gru && !op.linear_before_reset)
      for (int64_t u = 0; u < hidden; ++u)
        reset[static_cast<size_t>(u)] = sigmoid(sum(1, u)) * before[static_cast<size_t>(u)];
    if (int8) round_row(reset, false);
    for (int64_t u = 0; u < hidden; ++u) {
      double &next = h[static_cast<size_t>(u)], &cell = c[static_cast<size_t>(u)];
      if (op.cell == Cell::lstm) {  // gates i, o, f, c
        cell = sigmoid(sum(2, u)) * cell + sigmoid(sum(0, u)) * std::tanh(sum(3, u));
        next = sigmoid(sum(1, u)) * std::tanh(cell);
      } else if (op.cell == Cell::gru) {  // gates z, r, h
        const double z = sigmoid(sum(0, u));
        const double state = op.linear_before_reset ? sigmoid(sum(1, u)) * from_state(2, u)
                                                    : row(r, 2, u, hidden, reset.data()) + bias(gates + 2, u);
        next = (1 - z) * std::tanh(from_input(2, u) + state) + z * before[static_cast<size_t>(u)];
      } else {
        next = std::tanh(sum(0, u));
      }
    }
  }

  const std::vector<const Literal*>& inputs_;
  const std::map<std::string, int64_t>& dimensions_;
};

}  // namespace

std::vector<Literal> evaluate(const Node& node, const std::vector<const Literal*>& inputs,
                              const std::map<std::string, int64_t>& dimensions) {
  return std::visit(Evaluation(inputs, dimensions), node.operation);
}

}  // namespace heed::tools

#pragma once
/// One attention over random data, of every element type, against double precision and every instruction set.
#include "kernels/attention/attention.h"
#include "kernels/quantize/quantize.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace heed::test {
namespace {

/// Probabilities sum to 1, so an output is no larger than the largest value; scores are sums of D terms of at most 4.
inline const struct {
  const Operator& row;
  Tolerance tolerance;
} attentions[] = {
    {attention_operator, {1e-5, 2e-5, "rounding of scores up to 100, seen through the exponential"}},
    {attention_i8_operator, {0, 0.9, "int8 of scores up to 16, seen through the exponential"}},
};

enum class Bias { none, numbers, keep };

/// One attention over random data: what is present, and how operands lie.
struct Case {
  int batch = 1, heads = 1, shared_heads = 1, tq = 5, tk = 5, d = 16, dv = 16;
  int causal = 0, window = 0, left = 0, right = 0, offset = 0, block_rows = 12;
  Bias bias = Bias::none;
  bool padding = false, slope = false, toeplitz = false;
  bool heads_inside = false;  // q, k, v and y as [B, T, H * D]
  bool v_gaps = false;        // v's channels are not side by side
  bool broadcast = false;     // one bias for all batches and heads, and every second element of toeplitz
  bool bias_by_key = false;   // one for all queries too
  bool nan_in_masked = false, provoke = false;
  uint32_t threads = 1;

  std::string name() const {
    std::string s = std::to_string(batch) + "x" + std::to_string(heads) + "/" + std::to_string(shared_heads) + " " +
                    std::to_string(tq) + "x" + std::to_string(tk) + " d " + std::to_string(d) + "," +
                    std::to_string(dv) + " rows " + std::to_string(block_rows);
    if (causal) s += " causal " + std::to_string(offset);
    if (window) s += " window " + std::to_string(left) + "," + std::to_string(right) + " at " + std::to_string(offset);
    if (bias == Bias::numbers) s += " bias";
    if (bias == Bias::keep) s += " mask";
    if (padding) s += " padding";
    if (slope) s += " slope";
    if (toeplitz) s += " toeplitz";
    if (heads_inside) s += " heads inside";
    return s;
  }
};

/// What a tap saw.
struct Weights {
  int heads, tq, tk;
  std::vector<float> values;
  static void row(void* context, int batch, int head, int query, const float* weights, int keys) {
    auto& self = *static_cast<Weights*>(context);
    REQUIRE(keys == self.tk);
    std::copy_n(weights, keys,
                &self.values[((static_cast<size_t>(batch) * self.heads + head) * self.tq + query) * keys]);
  }
};

class Attention {
 public:
  Attention(const Case& c, Random& random) : c_(c), params_{} {
    params_ = {1.0f / std::sqrt(static_cast<float>(c.d)),
               static_cast<uint8_t>(c.causal),
               static_cast<uint8_t>(c.window),
               static_cast<uint16_t>(c.block_rows),
               c.offset,
               c.left,
               c.right};
    const auto heads_of = [&](int heads, int length, int width, bool gaps) {
      const int step = gaps ? 2 : 1;
      if (!c.heads_inside) {
        return shape_of(Type::f32, {c.batch, heads, length, width},
                        {heads * length * width * step, length * width * step, width * step, step});
      }
      const int row = heads * width * step;
      return shape_of(Type::f32, {c.batch, heads, length, width}, {length * row, width * step, row, step});
    };
    q_shape_ = heads_of(c.heads, c.tq, c.d, false);
    k_shape_ = heads_of(c.shared_heads, c.tk, c.d, false);
    v_shape_ = heads_of(c.shared_heads, c.tk, c.dv, c.v_gaps);
    y_shape_ = heads_of(c.heads, c.tq, c.dv, false);
    const auto numbers = [&](size_t n) { return c.provoke ? provoking_floats(n, random) : uniform(n, random); };
    q_ = numbers(static_cast<size_t>(c.batch) * c.heads * c.tq * c.d);
    k_ = numbers(static_cast<size_t>(c.batch) * c.shared_heads * c.tk * c.d);
    v_ = numbers(static_cast<size_t>(c.batch) * c.shared_heads * c.tk * c.dv * (c.v_gaps ? 2 : 1));
    const Type bias_type = c.bias == Bias::keep ? Type::boolean : Type::f32;
    bias_shape_ = shape_of(bias_type, {c.batch, c.heads, c.tq, c.tk});
    if (c.broadcast) bias_shape_ = shape_of(bias_type, {c.batch, c.heads, c.tq, c.tk}, {0, 0, c.tk, 1});
    if (c.bias_by_key) bias_shape_.strides[0] = bias_shape_.strides[1] = bias_shape_.strides[2] = 0;
    const size_t pairs = static_cast<size_t>(c.tq) * c.tk * (c.broadcast ? 1 : c.batch * c.heads);
    bias_ = numbers(c.bias == Bias::numbers ? pairs : 0);
    keep_.resize(c.bias == Bias::keep ? pairs : 0);
    for (uint8_t& keep : keep_) keep = random() % 3 != 0;
    padding_shape_ = shape_of(Type::boolean, {c.batch, c.tk});
    padding_.resize(c.padding ? static_cast<size_t>(c.batch) * c.tk : 0);
    for (uint8_t& keep : padding_) keep = random() % 4 != 0;
    slope_shape_ = shape_of(Type::f32, {c.heads});
    slope_ = numbers(c.heads);
    const int diagonals = c.tq + c.tk - 1, step = c.broadcast ? 2 : 1;
    toeplitz_shape_ = shape_of(Type::f32, {c.heads, diagonals}, {diagonals * step, step});
    toeplitz_ = numbers(static_cast<size_t>(c.heads) * diagonals * step);
    if (c.nan_in_masked) {
      // A key that no query of any head may see has NaN and infinities.
      for (int b = 0; b < c.batch; ++b) {
        for (int j = 0; j < c.tk; ++j) {
          for (int h = 0; h < c.shared_heads; ++h) {
            bool seen = false;
            for (int group = 0; group < c.heads / c.shared_heads; ++group)
              for (int i = 0; i < c.tq; ++i) seen |= !masked(b, h * (c.heads / c.shared_heads) + group, i, j);
            if (seen) continue;
            for (int n = 0; n < c.d; ++n) k_[at(k_shape_, b, h, j, n)] = n % 2 == 0 ? NAN : INFINITY;
            for (int n = 0; n < c.dv; ++n) v_[at(v_shape_, b, h, j, n)] = n % 3 == 0 ? NAN : -INFINITY;
          }
        }
      }
    }
  }

  /// Poisons key j of every head and batch.
  void poison(int j) {
    for (int b = 0; b < c_.batch; ++b) {
      for (int h = 0; h < c_.shared_heads; ++h) {
        for (int n = 0; n < c_.d; ++n) k_[at(k_shape_, b, h, j, n)] = NAN;
        for (int n = 0; n < c_.dv; ++n) v_[at(v_shape_, b, h, j, n)] = n % 2 == 0 ? INFINITY : NAN;
      }
    }
  }

  /// Makes the value of key j smaller or larger.
  void scale_value(int j, float factor) {
    for (int b = 0; b < c_.batch; ++b)
      for (int h = 0; h < c_.shared_heads; ++h)
        for (int n = 0; n < c_.dv; ++n) v_[at(v_shape_, b, h, j, n)] *= factor;
  }
  /// Every element of q, k and v.
  void set(float value) {
    for (auto* all : {&q_, &k_, &v_}) std::fill(all->begin(), all->end(), value);
  }

  size_t outputs() const { return static_cast<size_t>(c_.batch) * c_.heads * c_.tq * c_.dv; }

  void run(const Operator& row, Isa isa, float* y, uint32_t threads, Weights* weights, int block_rows) const {
    const Guarded<float> q(std::span<const float>{q_}), k(std::span<const float>{k_}), v(std::span<const float>{v_}),
        bias(std::span<const float>{bias_}), toeplitz(std::span<const float>{toeplitz_});
    const Guarded<uint8_t> keep(std::span<const uint8_t>{keep_}), padding(std::span<const uint8_t>{padding_});
    AttentionParams params = params_;
    params.block_rows = static_cast<uint16_t>(block_rows);
    Call call(row, &params);
    const bool int8 = &row == &attention_i8_operator;
    const Rows rows[] = {rows_of(int8, q_shape_, q_), rows_of(int8, k_shape_, k_), rows_of(int8, v_shape_, v_)};
    const Guarded<int8_t> q8(rows[0].bytes), k8(rows[1].bytes), v8(rows[2].bytes);
    if (int8)
      call.input(rows[0].shape, q8.data()).input(rows[1].shape, k8.data()).input(rows[2].shape, v8.data());
    else
      call.input(q_shape_, q.data()).input(k_shape_, k.data()).input(v_shape_, v.data());
    c_.bias == Bias::none ? call.absent()
                          : call.input(bias_shape_, c_.bias == Bias::keep ? static_cast<const void*>(keep.data())
                                                                          : static_cast<const void*>(bias.data()));
    c_.padding ? call.input(padding_shape_, padding.data()) : call.absent();
    c_.slope ? call.input(slope_shape_, slope_.data()) : call.absent();
    c_.toeplitz ? call.input(toeplitz_shape_, toeplitz.data()) : call.absent();
    for (const Rows& of : rows)
      if (int8) call.input(of.scale_shape, of.scales.data());
    const WeightTap tap{Weights::row, weights};
    call.output(y_shape_, y).run(isa, threads, weights == nullptr ? nullptr : &tap);
  }

  /// The formula in double precision.
  std::vector<double> exact(std::vector<double>* weights) const {
    std::vector<double> y(outputs());
    for (int b = 0; b < c_.batch; ++b) {
      for (int h = 0; h < c_.heads; ++h) {
        const int shared = h / (c_.heads / c_.shared_heads);
        for (int i = 0; i < c_.tq; ++i) {
          std::vector<double> p(c_.tk, 0.0);
          double top = -INFINITY, sum = 0;
          for (int j = 0; j < c_.tk; ++j) {
            double s = 0;
            for (int n = 0; n < c_.d; ++n)
              s += double{q_[at(q_shape_, b, h, i, n)]} * k_[at(k_shape_, b, shared, j, n)];
            s *= params_.scale;
            if (c_.slope) s += double{slope_[h]} * (j - i - c_.offset);
            if (c_.toeplitz) {
              s += toeplitz_[h * toeplitz_shape_.strides[0] + (j - i + c_.tq - 1) * toeplitz_shape_.strides[1]];
            }
            if (c_.bias == Bias::numbers) s += bias_[at(bias_shape_, b, h, i, j)];
            p[j] = masked(b, h, i, j) ? -INFINITY : s;
            top = std::max(top, p[j]);
          }
          for (double& value : p) sum += value = value == -INFINITY ? 0 : std::exp(value - top);
          for (int j = 0; j < c_.tk; ++j) {
            if (p[j] == 0) continue;
            p[j] /= sum;
            for (int n = 0; n < c_.dv; ++n) y[at(y_shape_, b, h, i, n)] += p[j] * v_[at(v_shape_, b, shared, j, n)];
          }
          if (weights != nullptr) weights->insert(weights->end(), p.begin(), p.end());
        }
      }
    }
    return y;
  }

 private:
  /// What attention_i8 takes: rows as int8, where the floats lie but without gaps.
  struct Rows {
    Shape shape, scale_shape;
    std::vector<int8_t> bytes;
    std::vector<float> scales;
  };
  Rows rows_of(bool wanted, const Shape& x, const std::vector<float>& values) const {
    if (!wanted) return {};
    const int32_t batch = x.dims[0], heads = x.dims[1], length = x.dims[2], width = x.dims[3];
    const auto lie = [&](Type type, int32_t n) {
      return c_.heads_inside ? shape_of(type, {batch, heads, length, n}, {length * heads * n, n, heads * n, 1})
                             : shape_of(type, {batch, heads, length, n});
    };
    Rows rows{lie(Type::i8, width), lie(Type::f32, 1), {}, {}};
    const auto count = static_cast<size_t>(batch) * heads * length;
    rows.bytes.resize(count * width);
    rows.scales.resize(count);
    std::vector<float> dense(rows.bytes.size());
    for (int b = 0; b < batch; ++b)
      for (int h = 0; h < heads; ++h)
        for (int i = 0; i < length; ++i)
          for (int n = 0; n < width; ++n) dense[at(rows.shape, b, h, i, n)] = values[at(x, b, h, i, n)];
    const Shape dense_shape = lie(Type::f32, width);
    const QuantizeParams params{};
    Call(quantize_operator, &params)
        .input(dense_shape, dense.data())
        .output(rows.shape, rows.bytes.data())
        .output(rows.scale_shape, rows.scales.data())
        .run(Isa::portable);
    return rows;
  }
  static size_t at(const Shape& shape, int b, int h, int i, int n) {
    return static_cast<size_t>(int64_t{b} * shape.strides[0] + int64_t{h} * shape.strides[1] +
                               int64_t{i} * shape.strides[2] + int64_t{n} * shape.strides[3]);
  }
  bool masked(int b, int h, int i, int j) const {
    const int64_t position = int64_t{i} + c_.offset;
    if (c_.causal && j > position) return true;
    if (c_.window && (j < position - c_.left || j > position + c_.right)) return true;
    if (c_.padding && padding_[static_cast<size_t>(b) * c_.tk + j] == 0) return true;
    return c_.bias == Bias::keep && keep_[at(bias_shape_, b, h, i, j)] == 0;
  }

  Case c_;
  AttentionParams params_;
  Shape q_shape_, k_shape_, v_shape_, y_shape_, bias_shape_, padding_shape_, slope_shape_, toeplitz_shape_;
  std::vector<float> q_, k_, v_, bias_, slope_, toeplitz_;
  std::vector<uint8_t> keep_, padding_;
};

/// The references are near double precision, and every instruction set has their bits, in y and in what a tap sees.
inline void check(const Case& c, const Attention& attention) {
  for (const auto& [row, tolerance] : attentions) {
    const std::string what = std::string(row.name) + " " + c.name();
    Weights expected_weights{c.heads, c.tq, c.tk,
                             std::vector<float>(static_cast<size_t>(c.batch) * c.heads * c.tq * c.tk)};
    std::vector<float> expected(attention.outputs());
    attention.run(row, Isa::portable, expected.data(), 1, &expected_weights, c.block_rows);
    if (!c.provoke) {
      std::vector<double> weights;
      const std::vector<double> exact = attention.exact(&weights);
      check_close(expected, exact, tolerance, what);
      check_close(expected_weights.values, weights, tolerance, what + " weights");
    }
    for (Isa isa : simd_isas()) {
      const std::string name = std::string(heed::name(isa)) + " " + what;
      const Guarded<float> y(attention.outputs());
      attention.run(row, isa, y.data(), c.threads, nullptr, c.block_rows);
      check_same(expected, y, name);
      Weights weights = expected_weights;
      std::fill(weights.values.begin(), weights.values.end(), -1.0f);
      attention.run(row, isa, y.data(), c.threads, &weights, c.block_rows + 1);
      check_same(expected, y, name + ", tapped");
      check_same<float>(expected_weights.values, weights.values, name + " weights");
    }
  }
}
inline void check(const Case& c, Random& random) {
  check(c, Attention(c, random));
}

}  // namespace
}  // namespace heed::test

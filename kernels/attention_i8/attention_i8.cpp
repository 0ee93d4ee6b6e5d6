#include "kernels/attention_i8/attention_i8.h"

#include "kernels/attention/run.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/scalar.h"

#include "kernels/attention_i8/pack.h"

namespace heed {
namespace portable {
namespace {

/// Padding is not: such a key takes part with a score and a value of nothing.
bool masked(const AttentionI8Args& args, int i, int j) {
  const KeyRange range = keys_of(args, i);
  if (j < range.first || j >= range.last) return true;
  return args.bias_is_boolean && static_cast<const uint8_t*>(args.bias)[i * args.bias_row + j * args.bias_key] == 0;
}

/// What is added to the logarithm of v'.
float terms(const AttentionI8Args& args, int i, int j) {
  float b = 0.0f;
  if (args.slope != nullptr) b = *args.slope * to_f(j - i - args.params.offset);
  if (args.toeplitz != nullptr) b += args.toeplitz[(j - i + args.tq - 1) * args.toeplitz_key];
  if (args.bias != nullptr && !args.bias_is_boolean)
    b += static_cast<const float*>(args.bias)[i * args.bias_row + j * args.bias_key];
  return one_nan(clamp(b * log2_e, -0x1p126f, 0x1p126f));
}

}  // namespace

void attention_i8(const AttentionI8Args& args) {
  const int keys = (args.tk + 15) / 16 * 16, groups = (args.d + 3) / 4;
  if (!args.packed) {
    pack_keys(args, keys);
    pack_values(args, keys, [](int i) { return i; });
  }
  const bool has_terms =
      args.slope != nullptr || args.toeplitz != nullptr || (args.bias != nullptr && !args.bias_is_boolean);
  float *u = args.scores, *weights = args.scores + keys;
  for (int i = args.first_row; i < args.last_row; ++i) {
    const int8_t* q = args.q + i * args.q_row;
    const float factor = factor_of(args, i);
    float top = hidden_log;
    for (int j = 0; j < args.tk; ++j) {
      if (masked(args, i, j)) continue;
      const int8_t* k = args.keys + ptrdiff_t{j / 16} * groups * 64 + j % 16 * 4;
      int32_t sum = 0;
      for (int d = 0; d < args.d; ++d) sum += q[d] * k[d / 4 * 64 + d % 4];
      const bool adds = has_terms && !(args.value_log[j] <= hidden_log);  // to padding nothing, whatever the terms are
      const float addend = adds ? args.value_log[j] + terms(args, i, j) : args.value_log[j];
      u[j] = fma(to_f(sum) * args.key_scale[j], factor, addend);
      top = max_fast(u[j], top);
    }
    Lanes16 lanes = Lanes16::zero();
    bool is_nan = false;
    for (int j = 0; j < args.tk; ++j) {
      weights[j] = 0.0f;
      if (masked(args, i, j)) continue;
      const float t = max_fast(splat(-100.0f), u[j] - top);
      is_nan |= t != t;
      const float e = exp2_255(t);
      lanes.v[j % 16] = fma(e, args.value_inverse[j], lanes.v[j % 16]);
      weights[j] = e * args.value_inverse[j];
      u[j] = to_f(as_i(e + exponential::round_magic) & 255);
    }
    float denominator = lanes.fold_sum();
    if (is_nan) denominator = __builtin_nanf("");
    const float inverse = denominator == 0.0f ? 0.0f : 1.0f / denominator;
    for (int d = 0; d < args.dv; ++d) {
      const int8_t* v = args.values + ptrdiff_t{d / 16} * 16 * keys + d % 16 * 4;
      int32_t sum = 0;
      for (int j = 0; j < args.tk; ++j)
        if (!masked(args, i, j)) sum += static_cast<int32_t>(u[j]) * v[j / 4 * 64 + j % 4];
      args.y[i * args.y_row + d] = fma(to_f(sum), inverse, 0.0f);
    }
    if (args.tap == nullptr) continue;
    for (int j = 0; j < args.tk; ++j) weights[j] = masked(args, i, j) || !is_key(args, j) ? 0.0f : weights[j] * inverse;
    args.tap->row(args.tap->context, args.batch, args.head, i, weights, args.tk);
  }
}

}  // namespace portable

namespace {

namespace attention_i8_input {
enum { q_scale = attention_input::count, k_scale, v_scale, count };
}

/// The parts of the scratch, in bytes from its begin; an absent part is empty.
struct Parts {
  Size values, key_scale, key_sum, value_log, value_inverse, addend, queries, keep, scores, total;
};
Parts parts_of(const Shape& q, const Shape& k, const Shape& v, const Shape* bias, const AttentionParams& params) {
  const auto whole = [](int64_t count, int64_t unit) { return Size((count + unit - 1) / unit * unit); };
  const int32_t d = q.dims[3], dv = v.dims[3];
  const Size keys = whole(k.dims[2], 16), of_keys = Size(4) * keys;
  const Size values = keys * whole(d, 4), key_scale = values + keys * whole(dv, 16), key_sum = key_scale + of_keys,
             value_log = key_sum + of_keys, value_inverse = value_log + of_keys, addend = value_inverse + of_keys,
             queries = addend + of_keys, keep = queries + Size(2) * params.block_rows * whole(d, 16),
             scores = keep + (bias != nullptr && bias->type == Type::boolean ? of_keys : Size(0));
  return {values, key_scale, key_sum, value_log, value_inverse,
          addend, queries,   keep,    scores,    scores + (Size(params.block_rows) + 1) * of_keys};
}

Violation check(const Contract& contract) {
  namespace in = attention_i8_input;
  using namespace attention_input;
  if (const Violation violation = check_attention(contract, Type::i8, in::count)) return violation;
  Check check(contract);
  const auto scales_of = [&](int scale, int operand) {
    if (!check.operand(scale, 4)) return;
    for (int axis = 0; axis < 3; ++axis)
      check.dim(scale, axis, contract.input(operand)->dims[axis], "rows and their scales differ in number");
    check.dim(scale, 3, 1, "a row has not one scale");
    check.last_stride(operand);
  };
  scales_of(in::q_scale, q);
  scales_of(in::k_scale, k);
  scales_of(in::v_scale, v);
  constexpr int32_t most_keys = INT32_MAX / (255 * 127) / 16 * 16;
  check.in_range(contract.input(q)->dims[3], 0, most_terms_i8(), q, "sums of so many terms do not fit int32");
  check.in_range(contract.input(k)->dims[2], 0, most_keys, k, "sums over so many keys do not fit int32");
  return check.violation();
}

uint64_t scratch(const Contract& contract) {
  using namespace attention_input;
  return parts_of(*contract.input(q), *contract.input(k), *contract.input(v), contract.input(bias),
                  attention_params(contract.params))
      .total.value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  using namespace attention_input;
  const Parts at = parts_of(*call.input(q).shape, *call.input(k).shape, *call.input(v).shape, call.input(bias).shape,
                            attention_params(call.params));
  const Tensor q_scale = call.input(attention_i8_input::q_scale), k_scale = call.input(attention_i8_input::k_scale),
               v_scale = call.input(attention_i8_input::v_scale);
  run_attention(call, attention_i8_variants[call.isa], [&](AttentionI8Args& args, int32_t shared, std::byte* scratch) {
    args.q_scale = head_of<const float>(q_scale, args.batch, args.head);
    args.k_scale = head_of<const float>(k_scale, args.batch, shared);
    args.v_scale = head_of<const float>(v_scale, args.batch, shared);
    args.q_scale_row = q_scale.shape->strides[2];
    args.k_scale_row = k_scale.shape->strides[2];
    args.v_scale_row = v_scale.shape->strides[2];
    const auto part = [&]<class T>(T*& pointer, Size offset) {
      pointer = reinterpret_cast<T*>(scratch + offset.value);
    };
    args.keys = reinterpret_cast<int8_t*>(scratch);
    part(args.values, at.values);
    part(args.key_scale, at.key_scale);
    part(args.key_sum, at.key_sum);
    part(args.value_log, at.value_log);
    part(args.value_inverse, at.value_inverse);
    part(args.addend, at.addend);
    part(args.queries, at.queries);
    if (args.bias_is_boolean) part(args.keep, at.keep);
    part(args.scores, at.scores);
  });
}

Isa variant(Isa ceiling) {
  return attention_i8_variants.level(ceiling);
}

}  // namespace

constinit const Operator attention_i8_operator{"attention_i8", check, scratch, in_place, run, variant};

}  // namespace heed

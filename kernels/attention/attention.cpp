#include "kernels/attention/attention.h"

#include "kernels/attention/run.h"
#include "kernels/scalar.h"

#include "kernels/math.h"

namespace heed {
namespace portable {
namespace {

bool masked(const AttentionArgs& args, int i, int j) {
  const KeyRange range = keys_of(args, i);
  if (j < range.first || j >= range.last) return true;
  if (args.key_padding != nullptr && args.key_padding[j * args.padding_key] == 0) return true;
  return args.bias_is_boolean && static_cast<const uint8_t*>(args.bias)[i * args.bias_row + j * args.bias_key] == 0;
}

float score(const AttentionArgs& args, int i, int j) {
  float s = 0.0f;
  for (int d = 0; d < args.d; ++d) {
    s = fma(args.q[i * args.q_row + d * args.q_d], args.k[j * args.k_row + d * args.k_d], s);
  }
  s *= args.params.scale;
  if (args.slope != nullptr) s += *args.slope * to_f(j - i - args.params.offset);
  if (args.toeplitz != nullptr) s += args.toeplitz[(j - i + args.tq - 1) * args.toeplitz_key];
  if (args.bias != nullptr && !args.bias_is_boolean) {
    s += static_cast<const float*>(args.bias)[i * args.bias_row + j * args.bias_key];
  }
  return s;
}

}  // namespace

void attention(const AttentionArgs& args) {
  float* p = args.scores;  // one row
  for (int i = args.first_row; i < args.last_row; ++i) {
    float top = -__builtin_inff();
    for (int j = 0; j < args.tk; ++j) {
      p[j] = score(args, i, j);
      if (!masked(args, i, j)) top = max(top, p[j]);
    }
    Lanes16 sum = Lanes16::zero();
    for (int j = 0; j < args.tk; ++j) {
      if (masked(args, i, j)) continue;
      p[j] = exp(p[j] - top);
      sum.v[j % 16] += p[j];
    }
    const float denominator = sum.fold_sum(), inverse = denominator == 0.0f ? 0.0f : 1.0f / denominator;
    for (int d = 0; d < args.dv; ++d) {
      float y = 0.0f;
      for (int j = 0; j < args.tk; ++j) {
        if (!masked(args, i, j)) y = fma(p[j], args.v[j * args.v_row + d * args.v_d], y);
      }
      args.y[i * args.y_row + d] = fma(y, inverse, 0.0f);
    }
    if (args.tap == nullptr) continue;
    for (int j = 0; j < args.tk; ++j) p[j] = masked(args, i, j) ? 0.0f : p[j] * inverse;
    args.tap->row(args.tap->context, args.batch, args.head, i, p, args.tk);
  }
}

}  // namespace portable

namespace {

/// The parts of the scratch, in floats from its begin; an absent part is empty.
struct Parts {
  Size values, padding, keep, scores, total;
  bool has_values;
};
Parts parts_of(const Shape& q, const Shape& k, const Shape& v, const Shape* bias, const Shape* padding,
               const AttentionParams& params) {
  const auto whole_panels = [](int64_t count) { return Size((count + 15) / 16 * 16); };
  const int32_t tk = k.dims[2], dv = v.dims[3];
  const Size keys = whole_panels(tk), none = 0;
  const bool has_values = dv < 16 || v.strides[3] != 1;
  const Size values = keys * q.dims[3];
  const Size padding_at = values + (has_values ? whole_panels(dv) * tk : none);
  const Size keep = padding_at + (padding != nullptr ? keys : none);
  const Size scores = keep + (bias != nullptr && bias->type == Type::boolean ? keys : none);
  return {values, padding_at, keep, scores, scores + params.block_rows * keys, has_values};
}

Violation check(const Contract& contract) {
  return check_attention(contract, Type::f32, attention_input::count);
}

uint64_t scratch(const Contract& contract) {
  namespace in = attention_input;
  const Parts at = parts_of(*contract.input(in::q), *contract.input(in::k), *contract.input(in::v),
                            contract.input(in::bias), contract.input(in::padding), attention_params(contract.params));
  return (sizeof(float) * at.total).value;
}

bool in_place(const Contract&, int, int) {
  return false;
}

void run(const Invocation& call) {
  namespace in = attention_input;
  const Tensor padding = call.input(in::padding);
  const Parts at = parts_of(*call.input(in::q).shape, *call.input(in::k).shape, *call.input(in::v).shape,
                            call.input(in::bias).shape, padding.shape, attention_params(call.params));
  run_attention(call, attention_variants[call.isa], [&](AttentionArgs& args, int32_t, std::byte* scratch) {
    auto* floats = reinterpret_cast<float*>(scratch);
    args.keys = floats;
    args.values = at.has_values ? floats + at.values.value : nullptr;
    args.padding = padding ? reinterpret_cast<int32_t*>(floats + at.padding.value) : nullptr;
    args.keep = args.bias_is_boolean ? reinterpret_cast<int32_t*>(floats + at.keep.value) : nullptr;
    args.scores = floats + at.scores.value;
  });
}

Isa variant(Isa ceiling) {
  return attention_variants.level(ceiling);
}

}  // namespace

const Operator attention_operator = {"attention", check, scratch, in_place, run, variant};

}  // namespace heed

// Operators that work element by element: each becomes one step, or a few.
#include "tools/onnx/lowering.h"

namespace heed::tools {
namespace {

using onnx::DataType;

constexpr Step none = Step::count;

// --- One step --------------------------------------------------------------------------------------------

template <Step Real, Step Whole>
void unary(Lowering& l) {
  const Operand x = l.operand(0);
  l.result(0, l.wrap(l.arithmetic(Real, Whole, {x.id}), x.type), x.type);
}

template <Step Real, Step Whole>
void binary(Lowering& l) {
  const Operand a = l.operand(0);
  l.result(0, l.wrap(l.arithmetic(Real, Whole, {a.id, l.value(1)}), a.type), a.type);
}

/// Min, Max and Sum take any number of operands.
template <Step Real, Step Whole>
ValueId fold(Lowering& l) {
  ValueId x = l.value(0);
  for (size_t i = 1; i < l.count(); ++i) x = l.arithmetic(Real, Whole, {x, l.value(i)});
  return x;
}

template <Step Real, Step Whole>
void variadic(Lowering& l) {
  l.result(0, fold<Real, Whole>(l), l.operand(0).type);
}

void mean(Lowering& l) {
  const Term sum = l.term(fold<Step::f_add, none>(l));
  l.result(0, (sum / static_cast<float>(l.count())).id(), l.operand(0).type);
}

template <Step Logic>
void logical(Lowering& l) {
  l.result(0, l.map(Logic, {l.value(0), l.value(1)}), DataType::boolean);
}

void logical_not(Lowering& l) {
  l.result(0, l.map(Step::b_not, {l.value(0)}), DataType::boolean);
}

void bitwise_not(Lowering& l) {
  const Operand x = l.operand(0);
  l.result(0, l.wrap(l.map(Step::i_not, {x.id}), x.type), x.type);
}

void bit_shift(Lowering& l) {
  const Operand x = l.operand(0);
  const std::string direction = l.text("direction");
  if (direction != "LEFT" && direction != "RIGHT") refuse("attribute 'direction' = '{}'", direction);
  // Shifts by less than nothing or more than a word: all bits are gone, or copies of the sign.
  const ValueId amount = l.value(1);
  const ValueId inside = l.map(Step::b_and, {l.map(Step::i_less, {l.integer_constant(-1), amount}),
                                             l.map(Step::i_less, {amount, l.integer_constant(32)})});
  ValueId y = no_value;
  if (direction == "LEFT") {
    y = l.select(inside, l.map(Step::i_shift_left, {x.id, amount}), l.integer_constant(0));
  } else {
    y = l.map(Step::i_shift_right, {x.id, l.select(inside, amount, l.integer_constant(31))});
  }
  l.result(0, l.wrap(y, x.type), x.type);
}

// --- Comparisons and choices -----------------------------------------------------------------------------

void equal(Lowering& l) {
  const ValueId a = l.value(0), b = l.value(1);
  const bool logic = l.type(a) == Type::boolean && l.type(b) == Type::boolean;
  const ValueId y =
      logic ? l.map(Step::b_not, {l.map(Step::b_xor, {a, b})}) : l.arithmetic(Step::f_equal, Step::i_equal, {a, b});
  l.result(0, y, DataType::boolean);
}

template <Step Real, Step Whole, bool Swapped>
void compare(Lowering& l) {
  const ValueId a = l.value(Swapped), b = l.value(!Swapped);
  l.result(0, l.arithmetic(Real, Whole, {a, b}), DataType::boolean);
}

void where(Lowering& l) {
  l.result(0, l.select(l.value(0), l.value(1), l.value(2)), l.operand(1).type);
}

void is_nan(Lowering& l) {
  l.result(0, l.term(l.value(0)).apply(Step::f_is_nan).id(), DataType::boolean);
}

void is_inf(Lowering& l) {
  const Term x = l.term(l.value(0));
  const bool negative = l.integer("detect_negative", 1) != 0, positive = l.integer("detect_positive", 1) != 0;
  ValueId y = x.apply(Step::f_is_inf).id();
  if (!positive) y = l.map(Step::b_and, {y, x.below(0)});
  if (!negative) y = l.map(Step::b_and, {y, x.above(0)});
  l.result(0, y, DataType::boolean);
}

void clip(Lowering& l) {
  const Operand x = l.operand(0);
  ValueId y = x.id;
  if (l.has(1)) y = l.arithmetic(Step::f_max, Step::i_max, {y, l.value(1)});
  if (l.has(2)) y = l.arithmetic(Step::f_min, Step::i_min, {y, l.value(2)});
  l.result(0, y, x.type);
}

// --- Types -----------------------------------------------------------------------------------------------

void cast(Lowering& l) {
  const auto to = static_cast<DataType>(l.integer("to"));
  l.ignore("saturate");    // of 8-bit floats, which are refused
  l.ignore("round_mode");  // likewise
  l.result(0, l.cast(l.value(0), l.operand(0).type, to), to);
}

void cast_like(Lowering& l) {
  l.ignore("saturate");
  l.ignore("round_mode");
  const DataType to = l.operand(1).type;
  l.result(0, l.cast(l.value(0), l.operand(0).type, to), to);
}

void identity(Lowering& l) {
  l.result(0, l.value(0), l.operand(0).type);
}

void dropout(Lowering& l) {
  l.ignore("seed");
  l.ignore("ratio");
  const Operand ratio = l.optional(1);
  if (l.has(2)) {
    const Literal training = l.constant(2);
    if (training.type != Type::boolean || training.count() != 1) refuse("operand 2 (training_mode) is no bool");
    bool drops = true;
    if (ratio.id != no_value && l.type(ratio.id) == Type::f32 && l.constant(1).count() == 1) {
      drops = l.constant(1).floats()[0] != 0;
    }
    if (training.booleans()[0] != 0 && drops) refuse("training_mode is true; only inference is supported");
  }
  const Operand x = l.operand(0);
  l.result(0, x.id, x.type);
  if (l.wants(1)) l.result(1, l.expand(l.boolean_constant(true), l.dims(x.id)), DataType::boolean);
}

// --- Arithmetic that depends on the type -----------------------------------------------------------------

void modulo(Lowering& l) {
  const bool c_like = l.integer("fmod", 0) != 0;
  const Operand a = l.operand(0);
  const ValueId b = l.value(1);
  l.result(
      0,
      c_like ? l.arithmetic(Step::f_fmod, Step::i_fmod, {a.id, b}) : l.arithmetic(Step::f_mod, Step::i_mod, {a.id, b}),
      a.type);
}

void power(Lowering& l) {
  const Operand base = l.operand(0), exponent = l.operand(1);
  const bool whole = l.type(exponent.id) == Type::i32;
  const Term x = l.term(l.cast(base.id, base.type, DataType::f32));
  Term y = x.apply(Step::f_pow, l.term(l.cast(exponent.id, exponent.type, DataType::f32)));
  if (whole && l.type(base.id) == Type::i32) y = y.apply(Step::f_round);
  l.result(0, l.cast(y.id(), DataType::f32, base.type), base.type);
}

// --- Activations -----------------------------------------------------------------------------------------

Term hard_sigmoid(const Term& x, float alpha, float beta) {
  return (x * alpha + beta).min(1).max(0);
}

/// A formula of one float operand; `f` is called with it.
template <class Formula>
void formula(Lowering& l, Formula f) {
  const Term x = l.term(l.value(0));
  l.result(0, f(x).id(), l.operand(0).type);
}

void hard_sigmoid_op(Lowering& l) {
  const float alpha = l.real("alpha", 0.2f), beta = l.real("beta", 0.5f);
  formula(l, [&](const Term& x) { return hard_sigmoid(x, alpha, beta); });
}

void hard_swish(Lowering& l) {
  formula(l, [](const Term& x) { return x * hard_sigmoid(x, 1.0f / 6, 0.5f); });
}

void relu(Lowering& l) {
  const Operand x = l.operand(0);
  const bool real = l.type(x.id) == Type::f32;
  l.result(0, real ? l.map(Step::f_relu, {x.id}) : l.arithmetic(none, Step::i_max, {x.id, l.integer_constant(0)}),
           x.type);
}

void leaky_relu(Lowering& l) {
  const float alpha = l.real("alpha", 0.01f);
  formula(l, [&](const Term& x) { return choose(x.below(0), x * alpha, x); });
}

void prelu(Lowering& l) {
  const Operand x = l.operand(0);
  const ValueId slope = l.value(1);
  const ValueId zero = l.type(x.id) == Type::f32 ? l.real_constant(0) : l.integer_constant(0);
  const ValueId negative = l.arithmetic(Step::f_less, Step::i_less, {x.id, zero});
  l.result(0, l.select(negative, l.arithmetic(Step::f_mul, Step::i_mul, {x.id, slope}), x.id), x.type);
}

void elu(Lowering& l) {
  const float alpha = l.real("alpha", 1);
  formula(l, [&](const Term& x) { return choose(x.below(0), (x.apply(Step::f_exp) - 1) * alpha, x); });
}

void selu(Lowering& l) {
  const float alpha = l.real("alpha", 1.67326319217681884765625f), gamma = l.real("gamma", 1.05070102214813232421875f);
  formula(l, [&](const Term& x) { return choose(x.below(0), (x.apply(Step::f_exp) - 1) * alpha, x) * gamma; });
}

void celu(Lowering& l) {
  const float alpha = l.real("alpha", 1);
  formula(l, [&](const Term& x) { return choose(x.below(0), ((x / alpha).apply(Step::f_exp) - 1) * alpha, x); });
}

void thresholded_relu(Lowering& l) {
  const float alpha = l.real("alpha", 1);
  formula(l, [&](const Term& x) { return choose(x.above(alpha), x, x.constant(0)); });
}

void shrink(Lowering& l) {
  const float lambda = l.real("lambd", 0.5f), bias = l.real("bias", 0);
  formula(l, [&](const Term& x) {
    return choose(x.below(-lambda), x + bias, choose(x.above(lambda), x - bias, x.constant(0)));
  });
}

void softsign(Lowering& l) {
  formula(l, [](const Term& x) { return x / (x.apply(Step::f_abs) + 1); });
}

void mish(Lowering& l) {
  formula(l, [](const Term& x) { return x * x.apply(Step::f_softplus).apply(Step::f_tanh); });
}

Term swish(const Term& x, float alpha) {
  return alpha == 1 ? x.apply(Step::f_silu) : x * (x * alpha).apply(Step::f_sigmoid);
}

void swish_op(Lowering& l) {
  const float alpha = l.real("alpha", 1);
  formula(l, [&](const Term& x) { return swish(x, alpha); });
}

void quick_gelu(Lowering& l) {
  const float alpha = l.real("alpha", 1.702f);
  formula(l, [&](const Term& x) { return swish(x, alpha); });
}

void gelu(Lowering& l) {
  const std::string approximate = l.text("approximate", "none");
  if (approximate != "none" && approximate != "tanh") refuse("attribute 'approximate' = '{}'", approximate);
  formula(l, [&](const Term& x) { return x.apply(approximate == "none" ? Step::f_gelu : Step::f_gelu_tanh); });
}

/// com.microsoft's GELUs with a bias.
template <Step Activation>
void bias_gelu(Lowering& l) {
  Term x = l.term(l.value(0));
  if (l.has(1)) x = x + l.term(l.value(1));
  l.result(0, x.apply(Activation).id(), l.operand(0).type);
}

void tangent(Lowering& l) {
  formula(l, [](const Term& x) { return x.apply(Step::f_sin) / x.apply(Step::f_cos); });
}

constexpr LoweringRow rows[] = {
    {"", "Abs", 6, unary<Step::f_abs, Step::i_abs>},
    {"", "Add", 7, binary<Step::f_add, Step::i_add>},
    {"", "And", 7, logical<Step::b_and>},
    {"", "BitShift", 11, bit_shift},
    {"", "BitwiseAnd", 18, binary<none, Step::i_and>},
    {"", "BitwiseNot", 18, bitwise_not},
    {"", "BitwiseOr", 18, binary<none, Step::i_or>},
    {"", "BitwiseXor", 18, binary<none, Step::i_xor>},
    {"", "Cast", 6, cast},
    {"", "CastLike", 15, cast_like},
    {"", "Ceil", 6, unary<Step::f_ceil, none>},
    {"", "Celu", 12, celu},
    {"", "Clip", 11, clip},
    {"", "Cos", 7, unary<Step::f_cos, none>},
    {"", "Div", 7, binary<Step::f_div, Step::i_div>},
    {"", "Dropout", 10, dropout},
    {"", "Elu", 6, elu},
    {"", "Equal", 7, equal},
    {"", "Erf", 9, unary<Step::f_erf, none>},
    {"", "Exp", 6, unary<Step::f_exp, none>},
    {"", "Floor", 6, unary<Step::f_floor, none>},
    {"", "Gelu", 20, gelu},
    {"", "Greater", 7, compare<Step::f_less, Step::i_less, true>},
    {"", "GreaterOrEqual", 12, compare<Step::f_less_equal, Step::i_less_equal, true>},
    {"", "HardSigmoid", 6, hard_sigmoid_op},
    {"", "HardSwish", 14, hard_swish},
    {"", "Identity", 1, identity},
    {"", "IsInf", 10, is_inf},
    {"", "IsNaN", 9, is_nan},
    {"", "LeakyRelu", 6, leaky_relu},
    {"", "Less", 7, compare<Step::f_less, Step::i_less, false>},
    {"", "LessOrEqual", 12, compare<Step::f_less_equal, Step::i_less_equal, false>},
    {"", "Log", 6, unary<Step::f_log, none>},
    {"", "Max", 8, variadic<Step::f_max, Step::i_max>},
    {"", "Mean", 8, mean},
    {"", "Min", 8, variadic<Step::f_min, Step::i_min>},
    {"", "Mish", 18, mish},
    {"", "Mod", 10, modulo},
    {"", "Mul", 7, binary<Step::f_mul, Step::i_mul>},
    {"", "Neg", 6, unary<Step::f_neg, Step::i_neg>},
    {"", "Not", 1, logical_not},
    {"", "Or", 7, logical<Step::b_or>},
    {"", "PRelu", 7, prelu},
    {"", "Pow", 7, power},
    {"", "Reciprocal", 6, unary<Step::f_reciprocal, none>},
    {"", "Relu", 6, relu},
    {"", "Round", 11, unary<Step::f_round, none>},
    {"", "Selu", 6, selu},
    {"", "Shrink", 9, shrink},
    {"", "Sigmoid", 6, unary<Step::f_sigmoid, none>},
    {"", "Sign", 9, unary<Step::f_sign, Step::i_sign>},
    {"", "Sin", 7, unary<Step::f_sin, none>},
    {"", "Softplus", 1, unary<Step::f_softplus, none>},
    {"", "Softsign", 1, softsign},
    {"", "Sqrt", 6, unary<Step::f_sqrt, none>},
    {"", "Sub", 7, binary<Step::f_sub, Step::i_sub>},
    {"", "Sum", 8, variadic<Step::f_add, none>},
    {"", "Swish", 24, swish_op},
    {"", "Tan", 7, tangent},
    {"", "Tanh", 6, unary<Step::f_tanh, none>},
    {"", "ThresholdedRelu", 10, thresholded_relu},
    {"", "Where", 9, where},
    {"", "Xor", 7, logical<Step::b_xor>},
    {"com.microsoft", "BiasGelu", 1, bias_gelu<Step::f_gelu>},
    {"com.microsoft", "FastGelu", 1, bias_gelu<Step::f_gelu_tanh>},
    {"com.microsoft", "Gelu", 1, unary<Step::f_gelu, none>},
    {"com.microsoft", "QuickGelu", 1, quick_gelu},
};

}  // namespace

std::span<const LoweringRow> map_lowerings() {
  return rows;
}

}  // namespace heed::tools

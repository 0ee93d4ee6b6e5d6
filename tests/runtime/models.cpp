#include "tests/runtime/models.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace heed::test {

using format::Expression;

std::vector<int64_t> values_of(const Builder& builder, std::span<const int32_t> dimensions) {
  std::vector<int64_t> values;
  for (const auto& node : builder.expressions) {
    const auto a = [&] { return values.at(static_cast<size_t>(node.a())); };
    const auto b = [&] { return values.at(static_cast<size_t>(node.b())); };
    switch (node.op()) {
      case Expression::constant:
        values.push_back(node.a());
        break;
      case Expression::dimension:
        values.push_back(dimensions[static_cast<size_t>(node.a())]);
        break;
      case Expression::add:
        values.push_back(a() + b());
        break;
      case Expression::subtract:
        values.push_back(a() - b());
        break;
      case Expression::multiply:
        values.push_back(a() * b());
        break;
      case Expression::divide:
        values.push_back(static_cast<int64_t>(std::floor(double(a()) / double(b()))));
        break;
      case Expression::modulo:
        values.push_back(a() - b() * static_cast<int64_t>(std::floor(double(a()) / double(b()))));
        break;
      case Expression::minimum:
        values.push_back(std::min(a(), b()));
        break;
      case Expression::maximum:
        values.push_back(std::max(a(), b()));
        break;
      case Expression::position:
        values.push_back(builder.at_position);
        break;
    }
  }
  return values;
}

Shape shape_of(const Builder&, const Builder::Tensor& tensor, std::span<const int64_t> values) {
  Shape shape{};
  shape.type = tensor.type;
  shape.rank = static_cast<uint8_t>(tensor.dims.size());
  shape.constant = tensor.buffer == -1;
  int32_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    shape.dims[axis] = static_cast<int32_t>(values[tensor.dims[static_cast<size_t>(axis)]]);
    shape.strides[axis] =
        tensor.strides.empty() ? stride : static_cast<int32_t>(values[tensor.strides[static_cast<size_t>(axis)]]);
    stride *= shape.dims[axis];
  }
  return shape;
}

namespace {

/// The params with the values of the expressions that they name.
std::vector<std::byte> resolve(const Builder::Operator& row, std::span<const int64_t> values) {
  std::vector<std::byte> params = row.params;
  if (row.kind == OperatorKind::elementwise) {
    const auto& head = *reinterpret_cast<const ElementwiseParams*>(params.data());
    auto* sources = reinterpret_cast<Source*>(params.data() + sizeof head);
    for (int i = 0; i < head.source_count; ++i)
      if (sources[i].kind == SourceKind::dimension)
        sources[i].value = static_cast<int32_t>(values[static_cast<size_t>(sources[i].value)]);
  }
  if (row.kind == OperatorKind::attention || row.kind == OperatorKind::attention_i8) {
    auto& attention = *reinterpret_cast<AttentionParams*>(params.data());
    attention.offset = static_cast<int32_t>(values[static_cast<size_t>(attention.offset)]);
  }
  return params;
}

struct Operands {
  std::vector<Shape> storage;
  std::vector<const Shape*> inputs, outputs;
  std::vector<std::byte> params;

  Operands(const Builder& builder, const Builder::Operator& row, std::span<const int64_t> values)
      : params(resolve(row, values)) {
    storage.reserve(row.inputs.size() + row.outputs.size());
    const auto add = [&](int32_t number) -> const Shape* {
      if (number == -1) return nullptr;
      storage.push_back(shape_of(builder, builder.tensors[static_cast<size_t>(number)], values));
      return &storage.back();
    };
    for (const int32_t number : row.inputs) inputs.push_back(add(number));
    for (const int32_t number : row.outputs) outputs.push_back(add(number));
  }
  Contract contract() const {
    return {inputs.data(), outputs.data(), static_cast<int>(inputs.size()), static_cast<int>(outputs.size()),
            params.data()};
  }
};

}  // namespace

void plan(Builder& builder) {
  std::vector<int32_t> lower, start, upper;
  for (const auto& dimension : builder.dimensions) {
    lower.push_back(dimension.lower);
    start.push_back(dimension.start);
    upper.push_back(dimension.upper);
  }
  for (size_t i = 0; i < builder.operators.size(); ++i) {
    uint64_t need = 0;
    for (const auto& dimensions : {lower, start, upper}) {
      const Operands operands(builder, builder.operators[i], values_of(builder, dimensions));
      need = std::max(need, operator_of(builder.operators[i].kind).scratch(operands.contract()));
    }
    if (need != 0 && builder.operators[i].scratch == -1)
      builder.operators[i].scratch =
          builder.buffer(static_cast<uint32_t>(need), static_cast<uint32_t>(i), static_cast<uint32_t>(i));
  }
  builder.place();
}

namespace {

std::vector<float> floats(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = (static_cast<float>(seed >> 8) / 16777216.0f - 0.5f) * 2;
  }
  return values;
}

uint32_t bits(float value) {
  uint32_t result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

/// The start of every example: a file with the dimension `batch`, its expression.
uint32_t with_batch(Builder& b) {
  return b.dimension("batch", 1, 6, 6);
}

Builder copy_example() {
  Builder b;
  const uint32_t batch = with_batch(b), five = b.size(5), eight = b.size(8), one = b.size(1), forty = b.size(40);
  const int32_t x = b.tensor("x", Type::f32, {batch, five, eight}, b.buffer(6 * 40 * 4, 0, 2));
  const int32_t y = b.tensor("transposed", Type::f32, {batch, eight, five}, b.buffer(6 * 40 * 4, 0, 2));
  const int32_t z = b.tensor("flipped", Type::f32, {batch, five}, b.buffer(6 * 5 * 4, 1, 2));
  const int32_t turned = b.view("x^T", x, {batch, eight, five}, {forty, one, eight}, b.size(0));
  const int32_t flipped = b.view("x[:, ::-1, 0]", x, {batch, five}, {forty, b.size(-8)}, b.size(32));
  b.add("transpose", OperatorKind::copy, Builder::pack(CopyParams{}), {turned}, {y});
  b.add("flip", OperatorKind::copy, Builder::pack(CopyParams{}), {flipped}, {z});
  b.input(x);
  b.output(y);
  b.output(z);
  plan(b);
  return b;
}

Builder matmul_example() {
  Builder b;
  const uint32_t batch = with_batch(b), one = b.size(1), k = b.size(24), n = b.size(40), panels = b.size(3),
                 lanes = b.size(16);
  const uint32_t rows =
      b.expression(Expression::multiply, static_cast<int32_t>(batch), static_cast<int32_t>(b.size(5)));
  const int32_t a = b.tensor("a", Type::f32, {one, rows, k}, b.buffer(30 * 24 * 4, 0, 0));
  const int32_t residual = b.tensor("residual", Type::f32, {one, rows, n}, b.buffer(30 * 40 * 4, 0, 2));
  const int32_t y = b.view("y", residual, {one, rows, n}, {}, b.size(0));
  std::vector<float> weights = floats(3 * 24 * 16, 1);
  for (size_t i = 2 * 24 * 16; i < weights.size(); ++i)
    if (i % 16 >= 8) weights[i] = 0;  // columns past 40
  const int32_t w = b.constant("w", Type::f32, {panels, k, lanes}, weights);
  const int32_t bias = b.constant("bias", Type::f32, {n}, floats(40, 2));
  // y in the place of the residual; then its product with its own transpose, a strided operand.
  b.add("dense", OperatorKind::matmul, Builder::pack(MatmulParams{Activation::gelu, 1, {}}), {a, w, bias, residual},
        {y});
  const int32_t gram = b.tensor("gram", Type::f32, {one, rows, rows}, b.buffer(30 * 30 * 4, 1, 2));
  const int32_t turned = b.view("y^T", y, {one, n, rows}, {one, one, n}, b.size(0));
  b.add("gram", OperatorKind::matmul, Builder::pack(MatmulParams{Activation::none, 0, {}}), {y, turned}, {gram});
  b.input(a);
  b.input(residual);
  b.output(y);
  b.output(gram);
  plan(b);
  return b;
}

Builder attention_example() {
  Builder b;
  const uint32_t batch = with_batch(b), heads = b.size(2), tokens = b.size(7), d = b.size(8), one = b.size(1);
  // q, k and v lie side by side in [batch, tokens, 3 * 16], as one projection writes them.
  const int32_t qkv = b.tensor("qkv", Type::f32, {batch, tokens, b.size(48)}, b.buffer(6 * 7 * 48 * 4, 0, 1));
  const auto part = [&](const char* name, int32_t offset) {
    return b.view(name, qkv, {batch, heads, tokens, d}, {b.size(7 * 48), d, b.size(48), one}, b.size(offset));
  };
  const int32_t q = part("q", 0), k = part("k", 16), v = part("v", 32);
  const int32_t y = b.tensor("y", Type::f32, {batch, tokens, b.size(16)}, b.buffer(6 * 7 * 16 * 4, 0, 1));
  const int32_t heads_of_y =
      b.view("y by heads", y, {batch, heads, tokens, d}, {b.size(7 * 16), d, b.size(16), one}, b.size(0));
  const AttentionParams params{0.35355338f, 1, 0, 4, static_cast<int32_t>(b.size(0)), 0, 0};
  b.add("attention", OperatorKind::attention, Builder::pack(params), {q, k, v}, {heads_of_y});
  b.marks.push_back({0, "attention"});
  b.input(qkv);
  b.output(y);
  plan(b);
  return b;
}

Builder rows_example(OperatorKind kind, std::vector<std::byte> params) {
  Builder b;
  const uint32_t batch = with_batch(b), n = b.size(37);
  const int32_t x = b.tensor("x", Type::f32, {batch, n}, b.buffer(6 * 37 * 4, 0, 1));
  const int32_t y = b.tensor("y", Type::f32, {batch, n}, b.buffer(6 * 37 * 4, 0, 1));
  std::vector<int32_t> inputs{x};
  if (kind == OperatorKind::normalize) {
    inputs.push_back(b.constant("scale", Type::f32, {n}, floats(37, 3)));
    inputs.push_back(b.constant("shift", Type::f32, {n}, floats(37, 4)));
  }
  b.add("rows", kind, std::move(params), inputs, {y});
  b.input(x);
  b.output(y);
  plan(b);
  return b;
}

Builder reduce_example() {
  Builder b;
  const uint32_t batch = with_batch(b), n = b.size(37);
  const int32_t x = b.tensor("x", Type::f32, {batch, n, b.size(3)}, b.buffer(6 * 37 * 3 * 4, 0, 1));
  const int32_t mean = b.tensor("mean", Type::f32, {batch}, b.buffer(6 * 4, 0, 2));
  const int32_t last = b.view("x[:, :, 0]", x, {batch, n}, {b.size(37 * 3), b.size(3)}, b.size(0));
  const int32_t best = b.tensor("best", Type::i32, {batch}, b.buffer(6 * 4, 1, 2));
  b.add("mean", OperatorKind::reduce, Builder::pack(ReduceParams{Reduction::mean, 2, 0, 0}), {x}, {mean});
  b.add("arg_max", OperatorKind::reduce, Builder::pack(ReduceParams{Reduction::arg_max, 1, 0, 0}), {last}, {best});
  b.input(x);
  b.output(mean);
  b.output(best);
  plan(b);
  return b;
}

Builder recurrent_example() {
  Builder b;
  const uint32_t batch = with_batch(b), steps = b.size(5), inputs = b.size(3), hidden = b.size(20), one = b.size(1);
  const int32_t x = b.tensor("x", Type::f32, {steps, batch, inputs}, b.buffer(5 * 6 * 3 * 4, 0, 0));
  const uint32_t gates = b.size(4), panels = b.size(2), lanes = b.size(16);
  // Units past 20 are zeros.
  const auto weights = [&](size_t rows, uint32_t seed) {
    std::vector<float> values = floats(2 * 4 * rows * 16, seed);
    for (size_t i = values.size() / 2; i < values.size(); ++i)
      if (i % 16 >= 4) values[i] = 0;
    return values;
  };
  const int32_t w = b.constant("w", Type::f32, {one, panels, gates, inputs, lanes}, weights(3, 5));
  const int32_t r = b.constant("r", Type::f32, {one, panels, gates, hidden, lanes}, weights(20, 6));
  const int32_t bias = b.constant("b", Type::f32, {one, panels, gates, lanes}, weights(1, 7));
  const int32_t y = b.tensor("y", Type::f32, {steps, one, batch, hidden}, b.buffer(5 * 6 * 20 * 4, 0, 1));
  const int32_t h = b.tensor("h", Type::f32, {one, batch, hidden}, b.buffer(6 * 20 * 4, 0, 1));
  b.add("lstm", OperatorKind::recurrent, Builder::pack(RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 20, 2}),
        {x, w, r, bias, -1, -1}, {y, h, -1});
  b.input(x);
  b.output(y);
  b.output(h);
  plan(b);
  return b;
}

Builder conv_example() {
  Builder b;
  const uint32_t batch = with_batch(b), one = b.size(1), height = b.size(3), width = b.size(7), channels = b.size(4),
                 outputs = b.size(20), half = b.size(4);
  const int32_t x = b.tensor("x", Type::f32, {batch, one, height, width, channels}, b.buffer(6 * 84 * 4, 0, 0));
  const int32_t wide = b.tensor("wide", Type::f32, {batch, one, height, width, outputs}, b.buffer(6 * 420 * 4, 0, 1));
  const int32_t y = b.tensor("y", Type::f32, {batch, one, height, half, outputs}, b.buffer(6 * 240 * 4, 1, 2));
  std::vector<float> panels = floats(2 * 18 * 16, 13);  // two groups of 10 outputs
  for (size_t i = 0; i < panels.size(); ++i)
    if (i % 16 >= 10) panels[i] = 0;
  const int32_t w = b.constant("w", Type::f32, {b.size(2), b.size(18), b.size(16)}, panels);
  const int32_t bias = b.constant("bias", Type::f32, {outputs}, floats(20, 14));
  b.add("wide", OperatorKind::conv,
        Builder::pack(ConvParams{Activation::relu, 0, 5, 0, 2, {{1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}}}),
        {x, w, bias}, {wide});
  const int32_t taps = b.constant("taps", Type::f32, {b.size(3), outputs}, floats(60, 15));
  b.add("deep", OperatorKind::conv,
        Builder::pack(ConvParams{Activation::none, 1, 0, 0, 20, {{1, 1, 3}, {1, 1, 2}, {1, 1, 2}, {0, 0, 2}}}),
        {wide, taps}, {y});
  b.input(x);
  b.output(y);
  plan(b);
  return b;
}

Builder pool_example() {
  Builder b;
  const uint32_t batch = with_batch(b), one = b.size(1), height = b.size(5), width = b.size(7), channels = b.size(21),
                 rows = b.size(3), columns = b.size(4);
  const int32_t x = b.tensor("x", Type::f32, {batch, one, height, width, channels}, b.buffer(6 * 735 * 4, 0, 1));
  const auto result = [&](const char* name, uint32_t first) {
    return b.tensor(name, Type::f32, {batch, one, rows, columns, channels}, b.buffer(6 * 252 * 4, first, 2));
  };
  const int32_t largest = result("largest", 0), mean = result("mean", 1);
  const Window window{{1, 3, 2}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}};
  b.add("max", OperatorKind::pool, Builder::pack(PoolParams{Pooling::max, {}, window, {}, {}}), {x}, {largest});
  b.add("mean", OperatorKind::pool, Builder::pack(PoolParams{Pooling::mean, {}, window, {0, 1, 1}, {0, 1, 0}}), {x},
        {mean});
  b.input(x);
  b.output(largest);
  b.output(mean);
  plan(b);
  return b;
}

Builder rope_example() {
  Builder b;
  const uint32_t batch = with_batch(b), tokens = b.size(3), heads = b.size(5), channels = b.size(11), zero = b.size(0),
                 one = b.size(1);
  const auto heads_of = [&](const char* name, uint32_t first, uint32_t last) {
    return b.tensor(name, Type::f32, {batch, tokens, heads, channels}, b.buffer(6 * 165 * 4, first, last));
  };
  const int32_t x = heads_of("x", 0, 0), half = heads_of("half", 0, 1), y = heads_of("y", 1, 2);
  const auto table = [&](const char* name, int32_t rotated, uint32_t seed) {
    const uint32_t width = b.size(rotated);
    const int32_t number =
        b.constant(name, Type::f32, {batch, tokens, heads, width}, floats(static_cast<size_t>(3 * rotated), seed));
    b.tensors.back().strides = {zero, width, zero, one};
    return number;
  };
  const int32_t cos = table("cos", 10, 16), sin = table("sin", 10, 17);
  b.add("half", OperatorKind::rope, Builder::pack(RopeParams{Pairing::half, {}}), {x, cos, sin}, {half});
  const int32_t few_cos = table("few cos", 6, 18), few_sin = table("few sin", 6, 19);
  b.add("pairs", OperatorKind::rope, Builder::pack(RopeParams{Pairing::interleaved, {}}), {half, few_cos, few_sin},
        {y});
  b.input(x);
  b.output(y);
  plan(b);
  return b;
}

}  // namespace

Builder elementwise_example() {
  Builder b;
  const uint32_t batch = with_batch(b), n = b.size(600);
  const int32_t x = b.tensor("x", Type::f32, {batch, n}, b.buffer(6 * 600 * 4, 0, 1));
  const int32_t shift = b.constant("shift", Type::f32, {n}, floats(600, 8));
  const int32_t rows = b.view("shift, every row", shift, {batch, n}, {b.size(0), b.size(1)}, b.size(0));
  const int32_t y = b.view("y", x, {batch, n}, {}, b.size(0));
  const int32_t negative = b.tensor("negative", Type::boolean, {batch, n}, b.buffer(6 * 600, 0, 1));
  // y = gelu(2 x + shift) + column / batch, in the place of x; negative = y < 0
  const std::vector<Source> sources{{SourceKind::tensor, 0, {}, 0},
                                    {SourceKind::tensor, 0, {}, 0},
                                    {SourceKind::iota, 1, {}, 0},
                                    {SourceKind::dimension, 0, {}, static_cast<int32_t>(batch)}};
  const uint8_t none = operand::none;
  const std::vector<Instruction> steps{{Step::f_fma, 0, {16, 32, 17}, {}},   {Step::f_gelu, 0, {0, none, none}, {}},
                                       {Step::i_div, 1, {18, 19, none}, {}}, {Step::i_to_f, 1, {1, none, none}, {}},
                                       {Step::f_add, 0, {0, 1, none}, {}},   {Step::f_less, 2, {0, 33, none}, {}}};
  b.add("program", OperatorKind::elementwise, Builder::program(sources, {bits(2), bits(0)}, steps, {0, 2}), {x, rows},
        {y, negative});
  b.node_names = {"/Mul", "/Add"};
  b.operators[0].absorbed = {1, 0};
  b.input(x);
  b.output(y);
  b.output(negative);
  plan(b);
  return b;
}

Builder gather_example() {
  Builder b;
  const uint32_t batch = with_batch(b), tokens = b.size(4), width = b.size(10);
  const int32_t table = b.constant("table", Type::f32, {b.size(50), width}, floats(500, 9));
  const int32_t ids = b.tensor("ids", Type::i32, {batch, tokens}, b.buffer(6 * 4 * 4, 0, 0));
  const int32_t y = b.tensor("y", Type::f32, {batch, tokens, width}, b.buffer(6 * 4 * 10 * 4, 0, 1));
  b.add("embedding", OperatorKind::gather, Builder::pack(GatherParams{0, {}}), {table, ids}, {y});
  b.input(ids);
  b.output(y);
  b.checks.push_back({0, b.size(50)});
  plan(b);
  return b;
}

Builder block_example() {
  Builder b;
  const uint32_t batch = with_batch(b), tokens = b.dimension("tokens", 1, 9, 9), one = b.size(1), width = b.size(16),
                 d = b.size(8);
  const auto times = [&](uint32_t a, uint32_t c) {
    return b.expression(Expression::multiply, static_cast<int32_t>(a), static_cast<int32_t>(c));
  };
  const uint32_t rows = times(batch, tokens);
  b.constraints.push_back({format::Relation::less_equal, rows, b.size(54), "batch * tokens <= 54"});
  const int32_t table = b.constant("table", Type::f32, {b.size(50), width}, floats(800, 10));
  const int32_t ids = b.tensor("ids", Type::i32, {batch, tokens}, b.buffer(54 * 4, 0, 0));
  const int32_t embedded = b.tensor("embedded", Type::f32, {batch, tokens, width}, b.buffer(54 * 64, 0, 5));
  b.add("embedding", OperatorKind::gather, Builder::pack(GatherParams{0, {}}), {table, ids}, {embedded});
  b.checks.push_back({0, b.size(50)});

  const int32_t flat = b.view("embedded, flat", embedded, {one, rows, width}, {}, b.size(0));
  const int32_t w = b.constant("w", Type::f32, {b.size(3), width, width}, floats(3 * 256, 11));
  const int32_t qkv = b.tensor("qkv", Type::f32, {one, rows, b.size(48)}, b.buffer(54 * 48 * 4, 1, 2));
  b.add("qkv", OperatorKind::matmul, Builder::pack(MatmulParams{Activation::none, 1, {}}), {flat, w}, {qkv}).macs =
      times(rows, b.size(16 * 48));

  const auto part = [&](const char* name, int32_t offset) {
    return b.view(name, qkv, {batch, b.size(2), tokens, d}, {times(tokens, b.size(48)), d, b.size(48), one},
                  b.size(offset));
  };
  const int32_t q = part("q", 0), k = part("k", 16), v = part("v", 32);
  const int32_t mixed = b.tensor("mixed", Type::f32, {one, rows, width}, b.buffer(54 * 64, 2, 3));
  const int32_t by_heads =
      b.view("mixed by heads", mixed, {batch, b.size(2), tokens, d}, {times(tokens, width), d, width, one}, b.size(0));
  b.add("attention", OperatorKind::attention,
        Builder::pack(AttentionParams{0.35355338f, 0, 0, 8, static_cast<int32_t>(b.size(0)), 0, 0}), {q, k, v},
        {by_heads});

  // The residual is replaced by the sum.
  const int32_t w2 = b.constant("w2", Type::f32, {one, width, width}, floats(256, 12));
  b.add("output", OperatorKind::matmul, Builder::pack(MatmulParams{Activation::none, 1, {}}), {mixed, w2, -1, flat},
        {flat});
  b.add("norm", OperatorKind::normalize, Builder::pack(NormalizeParams{Normalization::layer, {}, 1e-5f}), {flat},
        {flat});
  const int32_t y = b.tensor("y", Type::f32, {one, rows, width}, b.buffer(54 * 64, 5, 6));
  b.add("softmax", OperatorKind::softmax, Builder::pack(SoftmaxParams{0, {}}), {flat}, {y});
  b.input(ids);
  b.output(y);
  plan(b);
  return b;
}

Builder chain_example(int operators) {
  Builder b;
  const uint32_t batch = with_batch(b), n = b.size(16);
  const auto last = static_cast<uint32_t>(operators);
  const int32_t x = b.tensor("x", Type::f32, {batch, n}, b.buffer(6 * 64, 0, last));
  const std::vector<std::byte> program = Builder::program(
      {{SourceKind::tensor, 0, {}, 0}}, {}, {{Step::f_neg, 0, {16, operand::none, operand::none}, {}}}, {0});
  for (int i = 0; i < operators; ++i) b.add("neg", OperatorKind::elementwise, program, {x}, {x});
  b.input(x);
  b.output(x);
  plan(b);
  return b;
}

Builder state_example() {
  Builder b;
  const uint32_t batch = with_batch(b), n = b.size(16), one = b.size(1), zero = b.size(0);
  const int32_t sums = b.buffer(6 * 16 * 4, 0, 4), rows = b.buffer(8 * 16 * 4, 0, 4);
  b.state = 6 * 16 * 4 + 8 * 16 * 4;
  const int32_t x = b.tensor("x", Type::f32, {batch, n}, b.buffer(6 * 16 * 4, 0, 0));
  const int32_t h = b.tensor("h", Type::f32, {batch, n}, sums);
  const int32_t first = b.view("h[0]", h, {n}, {}, zero);
  const int32_t total = b.tensor("total", Type::f32, {n}, b.buffer(16 * 4, 2, 4));
  const int32_t y = b.tensor("y", Type::f32, {batch, n}, b.buffer(6 * 16 * 4, 3, 4));
  (void)b.constant("h0", Type::f32, {b.size(6), n}, floats(6 * 16, 17));
  b.states.push_back({"h", static_cast<uint32_t>(h), b.tensors.back().constant, 6 * 16 * 4});
  const auto first_expression = static_cast<uint32_t>(b.expressions.size());
  const uint32_t past = b.expression(format::Expression::position, 0, 0);
  const uint32_t grown = b.expression(format::Expression::add, static_cast<int32_t>(past), static_cast<int32_t>(one));
  const uint32_t slot = b.expression(format::Expression::multiply, static_cast<int32_t>(past), static_cast<int32_t>(n));
  b.position = Builder::Position{0, 7, one, first_expression, static_cast<uint32_t>(b.tensors.size())};
  const int32_t old = b.tensor("rows", Type::f32, {past, n}, rows);
  const int32_t next = b.view("rows[past]", old, {n}, {}, slot);
  const int32_t all = b.view("rows^T", old, {n, grown}, {one, n}, zero);
  b.states.push_back({"rows", static_cast<uint32_t>(old)});
  // h += past * x; its first row is kept, and the rows kept are summed.
  const uint8_t none = operand::none;
  const std::vector<Source> sources{{SourceKind::tensor, 0, {}, 0},
                                    {SourceKind::tensor, 0, {}, 0},
                                    {SourceKind::dimension, 0, {}, static_cast<int32_t>(past)}};
  const std::vector<Instruction> steps{{Step::i_to_f, 0, {18, none, none}, {}}, {Step::f_fma, 0, {0, 16, 17}, {}}};
  b.add("accumulate", OperatorKind::elementwise, Builder::program(sources, {}, steps, {0}), {x, h}, {h});
  b.add("append", OperatorKind::copy, Builder::pack(CopyParams{}), {first}, {next});
  b.add("total", OperatorKind::reduce, Builder::pack(ReduceParams{Reduction::sum, 1, 0, 0}), {all}, {total});
  b.add("y", OperatorKind::copy, Builder::pack(CopyParams{}), {h}, {y});
  b.input(x);
  b.output(total);
  b.output(y);
  plan(b);
  return b;
}

struct PanelsI8 {
  int32_t b, scale, sum;
};
/// n columns of k terms, in `panels`, the others zeros.
PanelsI8 panels_i8(Builder& b, const std::vector<int32_t>& panels, int32_t k, int32_t n, uint32_t seed) {
  const auto count = std::accumulate(panels.begin(), panels.end(), 1, std::multiplies<>()), groups = (k + 3) / 4;
  std::vector<int8_t> bytes(static_cast<size_t>(count * groups * 64));
  std::vector<int32_t> sums(static_cast<size_t>(count * 16));
  const std::vector<float> numbers = floats(bytes.size(), seed);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto column = static_cast<int32_t>(i) / (groups * 64) * 16 + static_cast<int32_t>(i % 64 / 4);
    const auto row = static_cast<int32_t>(i) / 64 % groups * 4 + static_cast<int32_t>(i % 4);
    if (column < n && row < k) bytes[i] = static_cast<int8_t>(std::clamp(numbers[i] * 60, -127.0f, 127.0f));
    sums[static_cast<size_t>(column)] += bytes[i];
  }
  std::vector<uint32_t> columns;
  for (const int32_t size : panels) columns.push_back(b.size(size));
  std::vector<uint32_t> all = columns;
  all.insert(all.end(), {b.size(groups), b.size(16), b.size(4)});
  columns.push_back(b.size(16));
  return {b.constant("w", Type::i8, all, bytes),
          b.constant("w scale", Type::f32, columns, std::vector<float>(sums.size(), 0.01f)),
          b.constant("w sum", Type::i32, columns, sums)};
}

/// A quantised row through two layers that hand over int8, the second by heads, and attention.
Builder int8_example() {
  Builder b;
  const uint32_t batch = with_batch(b), tokens = b.size(5), one = b.size(1);
  const auto rows = [&](const char* name, Type type, int32_t columns, uint32_t first, uint32_t last) {
    return b.tensor(name, type, {batch, tokens, b.size(columns)},
                    b.buffer(6 * 5 * static_cast<uint32_t>(columns) * size_of(type), first, last));
  };
  const int32_t x = rows("x", Type::f32, 22, 0, 0), q = rows("q", Type::i8, 22, 0, 1),
                q_scale = rows("q scale", Type::f32, 1, 0, 1), hidden = rows("hidden", Type::i8, 39, 1, 2),
                hidden_scale = rows("hidden scale", Type::f32, 1, 1, 2),
                hidden_zero = rows("hidden zero", Type::i32, 1, 1, 2), qkv = rows("qkv", Type::i8, 48, 2, 3),
                qkv_scale = rows("qkv scale", Type::f32, 6, 2, 3), y = rows("y", Type::f32, 16, 3, 4);
  const PanelsI8 up = panels_i8(b, {3}, 22, 39, 21), down = panels_i8(b, {3}, 39, 48, 22);
  const int32_t bias = b.constant("bias", Type::f32, {b.size(39)}, floats(39, 23));
  b.add("quantize", OperatorKind::quantize, Builder::pack(QuantizeParams{}), {x}, {q, q_scale});
  b.add("up", OperatorKind::matmul_i8, Builder::pack(MatmulI8Params{Activation::gelu, 4, {}}),
        {q, q_scale, up.b, up.scale, up.sum, bias}, {-1, hidden, hidden_scale, hidden_zero});
  b.add("qkv", OperatorKind::matmul_i8, Builder::pack(MatmulI8Params{Activation::none, 24, {}}),
        {hidden, hidden_scale, down.b, down.scale, down.sum, -1, -1, hidden_zero}, {-1, qkv, qkv_scale});
  // Of a tensor [batch, tokens, width] the columns of two heads, from the offset on.
  const auto heads = [&](const char* name, int32_t of, int32_t width, int32_t columns, int32_t offset) {
    const uint32_t each = b.size(columns);
    return b.view(name, of, {batch, b.size(2), tokens, each}, {b.size(5 * width), each, b.size(width), one},
                  b.size(offset));
  };
  b.add("attention", OperatorKind::attention_i8,
        Builder::pack(AttentionParams{0.35355338f, 1, 0, 3, static_cast<int32_t>(b.size(0)), 0, 0}),
        {heads("q", qkv, 48, 8, 0), heads("k", qkv, 48, 8, 16), heads("v", qkv, 48, 8, 32), -1, -1, -1, -1,
         heads("q scale", qkv_scale, 6, 1, 0), heads("k scale", qkv_scale, 6, 1, 2),
         heads("v scale", qkv_scale, 6, 1, 4)},
        {heads("y by heads", y, 16, 8, 0)});
  b.input(x);
  b.output(y);
  plan(b);
  return b;
}

/// Embeddings from panels, a convolution and an LSTM.
Builder layers_i8_example() {
  Builder b;
  const uint32_t batch = with_batch(b), one = b.size(1), k = b.size(22), n = b.size(32), h = b.size(17);
  const int32_t index = b.tensor("index", Type::i32, {batch}, b.buffer(6 * 4, 0, 0));
  b.checks.push_back({0, b.size(39)});
  const int32_t rows = b.tensor("rows", Type::f32, {batch, k}, b.buffer(6 * 22 * 4, 0, 1)),
                image = b.view("image", rows, {one, one, one, batch, k}, {}, b.size(0)),
                found = b.tensor("found", Type::f32, {one, one, one, batch, n}, b.buffer(6 * 32 * 4, 1, 2)),
                steps = b.view("steps", found, {batch, one, n}, {}, b.size(0)),
                q = b.tensor("q", Type::i8, {batch, one, n}, b.buffer(6 * 32, 2, 3)),
                q_scale = b.tensor("q scale", Type::f32, {batch, one, one}, b.buffer(6 * 4, 2, 3)),
                y = b.tensor("y", Type::f32, {batch, one, one, h}, b.buffer(6 * 17 * 4, 3, 4)),
                c = b.tensor("c", Type::f32, {one, one, h}, b.buffer(17 * 4, 3, 4));
  const PanelsI8 table = panels_i8(b, {3}, 22, 39, 31), taps = panels_i8(b, {2}, 66, 32, 32),
                 w = panels_i8(b, {1, 2, 4}, 32, 128, 33), r = panels_i8(b, {1, 2, 4}, 17, 128, 34);
  const int32_t bias = b.constant("bias", Type::f32, {one, b.size(2), b.size(4), b.size(16)}, floats(128, 35));
  b.add("gather", OperatorKind::gather, Builder::pack(GatherParams{0, 1, 9}), {table.b, index, table.scale}, {rows});
  b.add("conv", OperatorKind::conv_i8,
        Builder::pack(ConvI8Params{Activation::relu, 4, {}, 1, {{1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}}}),
        {image, taps.b, taps.scale, taps.sum}, {found});
  b.add("quantize", OperatorKind::quantize, Builder::pack(QuantizeParams{}), {steps}, {q, q_scale});
  b.add("lstm", OperatorKind::recurrent_i8, Builder::pack(RecurrentParams{Cell::lstm, Direction::forward, 0, 0, 17, 4}),
        {q, q_scale, w.b, w.scale, w.sum, r.b, r.scale, r.sum, bias}, {y, -1, c});
  b.input(index);
  b.output(y);
  b.output(c);
  plan(b);
  return b;
}

std::vector<Example> examples() {
  std::vector<Example> all;
  all.push_back({"elementwise", elementwise_example()});
  all.push_back({"copy", copy_example()});
  all.push_back({"gather", gather_example()});
  all.push_back({"matmul", matmul_example()});
  all.push_back({"attention", attention_example()});
  all.push_back({"normalize", rows_example(OperatorKind::normalize,
                                           Builder::pack(NormalizeParams{Normalization::layer, {}, 1e-5f}))});
  all.push_back({"softmax", rows_example(OperatorKind::softmax, Builder::pack(SoftmaxParams{0, {}}))});
  all.push_back({"reduce", reduce_example()});
  all.push_back({"recurrent", recurrent_example()});
  all.push_back({"conv", conv_example()});
  all.push_back({"pool", pool_example()});
  all.push_back({"rope", rope_example()});
  all.push_back({"block", block_example()});
  all.push_back({"state", state_example()});
  all.push_back({"int8", int8_example()});
  all.push_back({"layers_i8", layers_i8_example()});
  return all;
}

void fill_inputs(Session& session, uint32_t seed) {
  for (uint32_t i = 0; i < session.model().input_count(); ++i) {
    const Tensor tensor = session.input(i);
    const auto count = static_cast<size_t>(element_count(*tensor.shape));
    float bound = 40;  // of indices
    for (uint32_t k = 0; k < session.model().index_check_count(); ++k)
      if (session.model().index_check(k).input == i)
        bound = static_cast<float>(session.value(session.model().index_check(k).bound));
    const std::vector<float> values = floats(count, seed + i);
    for (size_t k = 0; k < count; ++k) {
      switch (tensor.shape->type) {
        case Type::f32:
          tensor.as<float>()[k] = values[k];
          break;
        case Type::i32:
          tensor.as<int32_t>()[k] = static_cast<int32_t>(values[k] * bound);
          break;
        default:
          tensor.as<uint8_t>()[k] = values[k] > 0;
          break;
      }
    }
  }
}

std::vector<std::byte> outputs_of(const Session& session) {
  std::vector<std::byte> bytes;
  for (uint32_t i = 0; i < session.model().output_count(); ++i) {
    const Tensor tensor = session.output(i);
    bytes.insert(bytes.end(), tensor.data, tensor.data + element_count(*tensor.shape) * size_of(tensor.shape->type));
  }
  return bytes;
}

std::vector<std::byte> direct(const Builder& builder, const Session& session, std::span<const int32_t> dimensions,
                              Isa isa) {
  const std::vector<int64_t> values = values_of(builder, dimensions);
  std::vector<Bytes> buffers;
  for (const auto& buffer : builder.buffers) buffers.emplace_back(buffer.capacity);
  Bytes constants(builder.constants.size());
  std::copy(builder.constants.begin(), builder.constants.end(), constants.begin());
  for (const auto& state : builder.states)
    std::copy_n(constants.begin() + state.constant * 64, state.constant_bytes,
                buffers[static_cast<size_t>(builder.tensors[state.tensor].buffer)].begin());
  const auto data = [&](int32_t number) {
    const auto& tensor = builder.tensors[static_cast<size_t>(number)];
    std::byte* base = tensor.buffer == -1 ? constants.data() + tensor.constant * 64
                                          : buffers[static_cast<size_t>(tensor.buffer)].data();
    return base + values[tensor.offset] * size_of(tensor.type);
  };
  for (uint32_t i = 0; i < builder.inputs.size(); ++i) {
    const Tensor tensor = session.input(i);
    std::copy(tensor.data, tensor.data + element_count(*tensor.shape) * size_of(tensor.shape->type),
              data(static_cast<int32_t>(builder.inputs[i].tensor)));
  }
  for (const auto& row : builder.operators) {
    const Operands operands(builder, row, values);
    std::vector<Tensor> inputs, outputs;
    for (size_t i = 0; i < row.inputs.size(); ++i)
      inputs.push_back(row.inputs[i] == -1 ? Tensor{} : Tensor{data(row.inputs[i]), operands.inputs[i]});
    for (size_t i = 0; i < row.outputs.size(); ++i)
      outputs.push_back(row.outputs[i] == -1 ? Tensor{} : Tensor{data(row.outputs[i]), operands.outputs[i]});
    const heed::Operator& kernel = operator_of(row.kind);
    Bytes scratch(kernel.scratch(operands.contract()) + 64);
    Invocation call{};
    call.inputs = inputs.data();
    call.outputs = outputs.data();
    call.input_count = static_cast<int>(inputs.size());
    call.output_count = static_cast<int>(outputs.size());
    call.params = operands.params.data();
    call.scratch = scratch.data();
    call.isa = kernel.variant(isa);
    kernel.run(call);
  }
  std::vector<std::byte> result;
  for (const auto& output : builder.outputs) {
    const auto number = static_cast<int32_t>(output.tensor);
    const Shape shape = shape_of(builder, builder.tensors[output.tensor], values);
    result.insert(result.end(), data(number), data(number) + element_count(shape) * size_of(shape.type));
  }
  return result;
}

std::string describe(const Status& status) {
  char text[256];
  status.describe(text, sizeof text);
  return text;
}

}  // namespace heed::test

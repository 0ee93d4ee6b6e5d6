// Models of one operator with random shapes (0 among them, and the largest), layouts, parameters and data: each gives
// the same bits on every instruction set and on threads that really run at once, or is refused.
#include <doctest/doctest.h>

#include "heed/threads.h"
#include "tests/kernels/support.h"
#include "tests/runtime/models.h"

using namespace heed;
using namespace heed::test;

namespace {

using Dims = std::vector<int32_t>;

/// What an operator asks of an input's layout.
enum class Layout { any, last_dense, dense };

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed), provoke_(one_in(2)) {
    const auto kind = static_cast<OperatorKind>(below(static_cast<int32_t>(OperatorKind::count)));
    switch (kind) {
      case OperatorKind::elementwise:
        elementwise();
        break;
      case OperatorKind::copy: {
        const Dims dims = shape(below(7));
        const Type type = one_in(2) ? Type::f32 : Type::u8;
        add(OperatorKind::copy, CopyParams{}, {input(type, dims)}, {output(type, dims)});
        break;
      }
      case OperatorKind::gather: {
        const Dims table = shape(1 + below(3)), index = shape(below(3));
        const auto axis = below(static_cast<int32_t>(table.size()));
        Dims y(table.begin(), table.begin() + axis);
        y.insert(y.end(), index.begin(), index.end());
        y.insert(y.end(), table.begin() + axis + 1, table.end());
        const Type type = one_in(2) ? Type::f32 : Type::i8;
        if (one_in(4)) {
          const int32_t blocks = 1 + below(4), k = size();
          Dims rows = index;
          rows.push_back(k);
          if (elements(rows) < 1 << 18)
            add(OperatorKind::gather, GatherParams{0, 1, static_cast<uint8_t>(below(16))},
                {input(Type::f32, {blocks, k, 16}, Layout::dense), input(Type::i32, index)}, {output(Type::f32, rows)});
        } else if (one_in(4)) {
          const int32_t entries = 1 + below(40), k = size();
          const bool packed = one_in(2);
          Dims rows = index;
          rows.push_back(k);
          const PanelsI8 panels = panels_i8({(entries + 15) / 16}, k);
          if (elements(rows) < 1 << 18)
            add(OperatorKind::gather, GatherParams{0, packed, static_cast<uint8_t>(packed ? below(16) : 0)},
                {packed ? panels.weights : quantised({entries, k}), input(Type::i32, index),
                 packed ? panels.scale : input(Type::f32, {entries}, Layout::dense)},
                {output(Type::f32, rows)});
        } else if (elements(y) < 1 << 18)
          add(OperatorKind::gather, GatherParams{static_cast<uint8_t>(axis), {}},
              {input(type, table), input(Type::i32, index)}, {output(type, y)});
        break;
      }
      case OperatorKind::matmul: {
        const Dims batch = shape(below(3));
        const int32_t m = 2 * size(), n = 3 * size(), k = size();
        const auto matrix = [&](int32_t rows, int32_t columns) {
          Dims dims = batch;
          dims.insert(dims.end(), {rows, columns});
          return dims;
        };
        const uint8_t packed = one_in(2);
        if (elements(matrix(m, n)) < 1 << 16)
          add(OperatorKind::matmul, MatmulParams{static_cast<Activation>(below(activation_count)), packed, {}},
              {input(Type::f32, matrix(m, k)),
               packed ? input(Type::f32, {(n + 15) / 16, k, 16}, Layout::dense) : input(Type::f32, matrix(k, n)),
               maybe(Type::f32, {n}, Layout::last_dense), maybe(Type::f32, matrix(m, n), Layout::last_dense)},
              {output(Type::f32, matrix(m, n))});
        break;
      }
      case OperatorKind::attention:
      case OperatorKind::attention_i8:
        attention(kind);
        break;
      case OperatorKind::normalize: {
        const Dims dims = shape(1 + below(4));
        const NormalizeParams params{static_cast<Normalization>(below(2)), {}, 1e-5f};
        add(OperatorKind::normalize, params,
            {input(Type::f32, dims, Layout::last_dense), maybe(Type::f32, {dims.back()}, Layout::last_dense),
             maybe(Type::f32, {dims.back()}, Layout::last_dense)},
            rows_or_both(dims));
        break;
      }
      case OperatorKind::softmax: {
        const Dims dims = shape(1 + below(4));
        add(OperatorKind::softmax, SoftmaxParams{one_in(2), {}}, {input(Type::f32, dims, Layout::last_dense)},
            {output(Type::f32, dims)});
        break;
      }
      case OperatorKind::reduce: {
        const Dims dims = shape(1 + below(5));
        const auto kind = static_cast<Reduction>(below(8));
        const bool index = kind >= Reduction::arg_max;
        const bool whole = !index && kind != Reduction::mean && kind != Reduction::sum_square && one_in(3);
        const int32_t axes = index ? 1 : 1 + below(static_cast<int32_t>(dims.size()));
        add(OperatorKind::reduce, ReduceParams{kind, static_cast<uint8_t>(axes), one_in(2), 0},
            {input(whole ? Type::i32 : Type::f32, dims)},
            {output(index || whole ? Type::i32 : Type::f32, {dims.begin(), dims.end() - axes})});
        break;
      }
      case OperatorKind::recurrent:
      case OperatorKind::recurrent_i8:
        recurrent(kind);
        break;
      case OperatorKind::conv:
      case OperatorKind::conv_i8:
        conv(kind);
        break;
      case OperatorKind::pool: {
        const Dims dims = image(size());
        const PoolParams params{static_cast<Pooling>(below(3)),
                                {},
                                window(),
                                {below(3), below(3), below(3)},
                                {below(3), below(3), below(3)}};
        add(OperatorKind::pool, params, {input(Type::f32, dims, Layout::last_dense)},
            {output(Type::f32, {dims[0], below(3), below(5), below(20), dims[4]})});
        break;
      }
      case OperatorKind::rope: {
        const Dims dims = shape(1 + below(4));
        Dims table = dims;
        if (dims.back() != max_elements) table.back() = 2 * below(dims.back() / 2 + 1);  // or it would be gigabytes
        add(OperatorKind::rope, RopeParams{static_cast<Pairing>(below(2)), {}},
            {input(Type::f32, dims, Layout::last_dense), input(Type::f32, table, Layout::last_dense),
             input(Type::f32, table, Layout::last_dense)},
            {output(Type::f32, dims)});
        break;
      }
      case OperatorKind::quantize: {
        const Dims dims = shape(1 + below(3));
        if (one_in(3)) {
          add(OperatorKind::quantize, QuantizeParams{},
              {input(Type::f32, dims, Layout::last_dense), input(Type::f32, {2}, Layout::dense)},
              {output(Type::i8, dims)});
          break;
        }
        Dims scale = dims;
        scale.back() = one_in(2) ? 1 : 1 + below(4);
        if (elements(scale) <= max_elements)  // an axis of 0 that becomes one of scales may leave too many
          add(OperatorKind::quantize, QuantizeParams{}, {input(Type::f32, dims, Layout::last_dense)},
              one_in(2)
                  ? std::vector<int32_t>{output(Type::i8, dims), output(Type::f32, scale)}
                  : std::vector<int32_t>{output(Type::i8, dims), output(Type::f32, scale), output(Type::i32, scale)});
        break;
      }
      case OperatorKind::matmul_i8:
        matmul_i8();
        break;
      case OperatorKind::count:
        break;
    }
    if (!builder_.operators.empty()) plan(builder_);
  }

  /// Without operators where what was drawn is too large to be run.
  const Builder& builder() const { return builder_; }

 private:
  int32_t below(int32_t bound) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(bound)); }
  bool one_in(int32_t n) { return below(n) == 0; }
  int32_t size() {
    constexpr int32_t sizes[] = {0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};
    return sizes[below(static_cast<int32_t>(std::size(sizes)))];
  }
  static int64_t elements(const Dims& dims) {
    int64_t count = 1;
    for (const int32_t dim : dims) count *= std::max(dim, 1);
    return count;
  }
  Dims shape(int32_t rank) {
    Dims dims(static_cast<size_t>(rank));
    do {
      for (int32_t& dim : dims) dim = size();
    } while (elements(dims) > 20000);
    if (rank >= 2 && one_in(20)) {  // as large as it gets, for no element at all
      std::fill(dims.begin(), dims.end(), 1);
      const int32_t at = below(rank);
      dims[static_cast<size_t>(at)] = max_elements;
      dims[static_cast<size_t>((at + 1) % rank)] = 0;
    }
    return dims;
  }

  std::vector<uint32_t> sizes_of(const std::vector<int32_t>& values) {
    std::vector<uint32_t> numbers;
    for (const int32_t value : values) numbers.push_back(builder_.size(value));
    return numbers;
  }

  /// A constant; where its layout is free its axes are in any order, with gaps, broadcast or flipped.
  int32_t input(Type type, const Dims& dims, Layout layout = Layout::any) {
    const auto rank = static_cast<int32_t>(dims.size());
    const bool last_dense = layout == Layout::last_dense && rank > 0;
    std::vector<int32_t> order(dims.size()), strides(dims.size());
    for (int32_t axis = 0; axis < rank; ++axis) order[static_cast<size_t>(axis)] = axis;
    const bool strided = layout != Layout::dense && !one_in(4);
    if (strided) std::shuffle(order.begin(), order.end() - last_dense, random_);
    int64_t extent = 1, offset = 0;
    for (int32_t i = rank - 1; i >= 0; --i) {
      const auto axis = static_cast<size_t>(order[static_cast<size_t>(i)]);
      const int32_t dim = std::max(dims[axis], 1);
      const bool may = strided && !(last_dense && i == rank - 1);
      const bool broadcast = dim == max_elements || (may && one_in(4)), flipped = may && one_in(4);
      if (may && one_in(4)) ++extent;
      strides[axis] = broadcast ? 0 : static_cast<int32_t>(flipped ? -extent : extent);
      if (broadcast) continue;
      if (flipped) offset += (dim - 1) * extent;
      extent *= dim;
    }
    const int32_t number = constant(type, static_cast<size_t>(extent), sizes_of(dims));
    builder_.tensors.back().strides = sizes_of(strides);
    builder_.tensors.back().offset = builder_.size(static_cast<int32_t>(offset));
    return number;
  }
  int32_t maybe(Type type, const Dims& dims, Layout layout = Layout::any) {
    return one_in(2) ? -1 : input(type, dims, layout);
  }
  int32_t constant(Type type, size_t count, std::vector<uint32_t> dims) {
    if (type == Type::f32)
      return builder_.constant("x", type, std::move(dims),
                               provoke_ ? provoking_floats(count, random_) : uniform(count, random_));
    const std::vector<int32_t> values = provoking_ints(count, random_);
    if (type == Type::i32) return builder_.constant("x", type, std::move(dims), values);
    std::vector<uint8_t> bytes;
    for (const int32_t value : values)
      bytes.push_back(static_cast<uint8_t>(type == Type::boolean ? value % 3 == 0 : value));
    return builder_.constant("x", type, std::move(dims), bytes);
  }
  int32_t output(Type type, const Dims& dims) {
    const int64_t bytes = elements(dims) * size_of(type);
    const int32_t number = builder_.tensor(
        "y", type, sizes_of(dims), builder_.buffer(static_cast<uint32_t>(std::min(bytes, int64_t{1} << 20)), 0, 1));
    builder_.output(number);
    return number;
  }
  template <class Params>
  void add(OperatorKind kind, const Params& params, std::vector<int32_t> inputs, std::vector<int32_t> outputs) {
    builder_.add("operator", kind, Builder::pack(params), std::move(inputs), std::move(outputs));
  }

  std::vector<int8_t> bytes(size_t count, int lowest) {
    std::vector<int8_t> values(count);
    for (int8_t& value : values) value = static_cast<int8_t>(below(128 - lowest) + lowest);
    return values;
  }
  /// From -127 on, as whatever finds its scale itself writes them.
  int32_t quantised(const Dims& dims, int lowest = -127) {
    return builder_.constant("q", Type::i8, sizes_of(dims), bytes(static_cast<size_t>(elements(dims)), lowest));
  }

  /// y, or q and its scales, or all three.
  std::vector<int32_t> rows_or_both(Dims dims) {
    const bool y = one_in(2), q = !y || one_in(2);
    std::vector<int32_t> outputs{y ? output(Type::f32, dims) : -1};
    if (!q) return outputs;
    outputs.push_back(output(Type::i8, dims));
    dims.back() = dims.back() % 3 == 0 && dims.back() > 0 && one_in(2) ? 3 : 1;
    outputs.push_back(output(Type::f32, dims));
    if (one_in(2)) outputs.push_back(output(Type::i32, dims));
    return outputs;
  }

  void attention(OperatorKind kind) {
    const int32_t batch = below(3), shared = 1 + below(2), heads = shared * (1 + below(2)), tq = size(),
                  tk = 2 * size(), d = size(), dv = 2 * size();
    AttentionParams params{0.3f,
                           one_in(2),
                           one_in(2),
                           static_cast<uint16_t>(1 + below(40)),
                           static_cast<int32_t>(builder_.size(below(30) - 12)),
                           below(9),
                           below(9)};
    if (one_in(20)) params.window_left = params.window_right = INT32_MAX;
    const bool int8 = kind == OperatorKind::attention_i8;
    const Dims q{batch, heads, tq, d}, k{batch, shared, tk, d}, v{batch, shared, tk, dv};
    std::vector<int32_t> inputs;
    for (const Dims& rows : {q, k, v}) inputs.push_back(int8 ? quantised(rows) : input(Type::f32, rows));
    inputs.insert(inputs.end(), {maybe(one_in(2) ? Type::f32 : Type::boolean, {batch, heads, tq, tk}),
                                 maybe(Type::boolean, {batch, tk}), maybe(Type::f32, {heads}),
                                 tq + tk > 0 ? maybe(Type::f32, {heads, tq + tk - 1}) : -1});
    for (const Dims& rows : {q, k, v})
      if (int8) inputs.push_back(input(Type::f32, {rows[0], rows[1], rows[2], 1}));
    add(kind, params, inputs, {output(Type::f32, {batch, heads, tq, dv})});
  }

  /// Panels of 16 columns with k terms each, their scales and sums.
  struct PanelsI8 {
    int32_t weights, scale, sum;
  };
  PanelsI8 panels_i8(const Dims& panels, int32_t k, int lowest = -127) {
    Dims columns = panels, all = panels;
    columns.push_back(16);
    all.insert(all.end(), {(k + 3) / 4, 16, 4});
    std::vector<int8_t> weights = bytes(static_cast<size_t>(elements(all)), lowest);
    for (size_t i = 0; i < weights.size() && k > 0; ++i)
      if (static_cast<int32_t>(i / 64) % ((k + 3) / 4) * 4 + static_cast<int32_t>(i % 4) >= k) weights[i] = 0;
    std::vector<int32_t> sums(static_cast<size_t>(elements(columns)));
    const size_t panel = static_cast<size_t>((k + 3) / 4) * 64;
    for (size_t i = 0; i < weights.size() && panel > 0; ++i) sums[i / panel * 16 + i % 64 / 4] += weights[i];
    return {builder_.constant("w", Type::i8, sizes_of(all), weights), input(Type::f32, columns, Layout::dense),
            builder_.constant("w sum", Type::i32, sizes_of(columns), sums)};
  }

  void matmul_i8() {
    const int32_t m = 2 * size(), n = 3 * size(), k = size(), panels = (n + 15) / 16;
    const Dims batch = shape(below(2));
    const auto rows = [&](int32_t columns) {
      Dims dims = batch;
      dims.insert(dims.end(), {m, columns});
      return dims;
    };
    if (elements(rows(n)) >= 1 << 16) return;
    const bool y = one_in(2), q = !y || one_in(2);
    const bool a_zero = one_in(3), b_zero = one_in(3), given = q && one_in(3);
    const auto zeros = [&](const char* name, const Dims& dims) {
      std::vector<int32_t> values(static_cast<size_t>(elements(dims)));
      for (int32_t& value : values) value = below(256) - 128;
      return builder_.constant(name, Type::i32, sizes_of(dims), values);
    };
    const PanelsI8 b = panels_i8({panels}, k, b_zero ? -128 : -127);
    const Dims groups = rows(n % 3 == 0 && n > 0 && one_in(2) ? 3 : 1);
    const bool found = q && !given, zero = found && one_in(2);
    add(OperatorKind::matmul_i8,
        MatmulI8Params{static_cast<Activation>(below(activation_count)), static_cast<uint8_t>(1 + below(30)), {}},
        {quantised(rows(k), -128), input(Type::f32, rows(1), Layout::last_dense), b.weights, b.scale, b.sum,
         maybe(Type::f32, {n}, Layout::last_dense), maybe(Type::f32, rows(n), Layout::last_dense),
         a_zero ? zeros("a_zero", rows(1)) : -1, b_zero ? zeros("b_zero", {panels, 16}) : -1,
         given ? builder_.constant("given", Type::f32, {2}, std::vector<float>{0.02f, 7}) : -1},
        {y ? output(Type::f32, rows(n)) : -1, q ? output(Type::i8, rows(n)) : -1,
         found ? output(Type::f32, groups) : -1, zero ? output(Type::i32, groups) : -1});
  }

  Dims image(int32_t channels) { return {below(3), 1 + below(2), below(5), below(30), channels}; }
  /// Where it ends is said by the output, wherever that is: what lies outside is padding.
  Window window() {
    Window window{};
    for (int axis = 0; axis < 3; ++axis) {
      window.kernel[axis] = 1 + below(axis + 2);
      window.strides[axis] = 1 + below(3);
      window.dilations[axis] = 1 + below(3);
      window.before[axis] = below(3) * below(3);
    }
    return window;
  }

  void conv(OperatorKind kind) {
    const bool depthwise = kind == OperatorKind::conv && one_in(3);
    const int32_t groups = depthwise ? 1 + below(40) : 1 + below(3), channels = depthwise ? groups : groups * below(4),
                  outputs = depthwise ? groups : groups * size();
    const Dims x = image(channels), y{x[0], below(3), below(4), below(20), outputs};
    const auto activation = static_cast<Activation>(below(activation_count));
    const auto block = static_cast<uint8_t>(1 + below(13));
    const ConvParams params{activation, depthwise, block, 0, groups, window()};
    const int32_t taps = params.window.kernel[0] * params.window.kernel[1] * params.window.kernel[2];
    if (kind == OperatorKind::conv_i8) {
      const PanelsI8 w = panels_i8({groups * ((outputs / groups + 15) / 16)}, taps * (channels / groups));
      add(kind, ConvI8Params{activation, block, {}, groups, params.window},
          {input(Type::f32, x, Layout::last_dense), w.weights, w.scale, w.sum,
           maybe(Type::f32, {outputs}, Layout::last_dense), maybe(Type::f32, y, Layout::last_dense)},
          {output(Type::f32, y)});
      return;
    }
    add(OperatorKind::conv, params,
        {input(Type::f32, x, Layout::last_dense),
         depthwise ? input(Type::f32, {taps, channels}, Layout::dense)
                   : input(Type::f32, {groups * ((outputs / groups + 15) / 16), taps * (channels / groups), 16},
                           Layout::dense),
         maybe(Type::f32, {outputs}, Layout::last_dense), maybe(Type::f32, y, Layout::last_dense)},
        {output(Type::f32, y)});
  }

  void recurrent(OperatorKind kind) {
    const RecurrentParams params{
        static_cast<Cell>(below(3)), static_cast<Direction>(below(3)), one_in(2), 0, 1 + below(40), 1 + below(5)};
    const int32_t steps = below(7), batch = below(9), inputs = below(20), hidden = params.hidden,
                  directions = params.direction == Direction::both ? 2 : 1, panels = (hidden + 15) / 16,
                  gates = gates_of(params.cell);
    const bool lstm = params.cell == Cell::lstm;
    const Dims state{directions, batch, hidden};
    const Dims x{steps, batch, inputs};
    std::vector<int32_t> operands;
    if (kind == OperatorKind::recurrent_i8) {
      const PanelsI8 w = panels_i8({directions, panels, gates}, inputs),
                     r = panels_i8({directions, panels, gates}, hidden);
      const Dims bias{directions, panels, gates, 16};
      operands = {quantised(x),
                  input(Type::f32, {steps, batch, 1}),
                  w.weights,
                  w.scale,
                  w.sum,
                  r.weights,
                  r.scale,
                  r.sum,
                  input(Type::f32, bias, Layout::dense),
                  maybe(Type::f32, bias, Layout::dense)};
    } else {
      operands = {
          input(Type::f32, x, Layout::last_dense),
          input(Type::f32, {directions, panels, gates, inputs, 16}, Layout::dense),
          input(Type::f32, {directions, panels, gates, hidden, 16}, Layout::dense),
          input(Type::f32, {directions, panels, gates + (params.cell == Cell::gru && params.linear_before_reset), 16},
                Layout::dense)};
    }
    operands.push_back(maybe(Type::f32, state, Layout::last_dense));
    operands.push_back(lstm ? maybe(Type::f32, state, Layout::last_dense) : -1);
    add(kind, params, operands,
        {output(Type::f32, {steps, directions, batch, hidden}), one_in(2) ? -1 : output(Type::f32, state),
         !lstm || one_in(2) ? -1 : output(Type::f32, state)});
  }

  /// A random program in which every step finds operands of its type.
  void elementwise() {
    static constexpr struct {
      int operands;
      char from, to;
    } types[] = {
#define HEED_STEP(name, operands, from, to) {operands, #from[0], #to[0]},
#include "kernels/elementwise/steps.inc"
#undef HEED_STEP
    };
    const auto lane = [](Type type) { return type == Type::f32 ? 'f' : type == Type::boolean ? 'b' : 'i'; };
    const Dims dims = shape(below(5));
    char known[operand::immediates + 4] = {};  // the type of each operand that may be read
    std::vector<Source> sources;
    std::vector<int32_t> tensors;
    for (int32_t i = 0, count = 1 + below(5); i < count; ++i) {
      if (!dims.empty() && one_in(6)) {
        sources.push_back({SourceKind::iota, static_cast<uint8_t>(below(static_cast<int32_t>(dims.size()))), {}, 0});
        known[operand::inputs + i] = 'i';
      } else {
        const auto type = static_cast<Type>(below(5));
        sources.push_back({SourceKind::tensor, 0, {}, 0});
        tensors.push_back(input(type, dims));
        known[operand::inputs + i] = lane(type);
      }
    }
    std::vector<uint32_t> immediates;
    for (const float value : provoke_ ? provoking_floats(4, random_) : uniform(4, random_))
      immediates.push_back(std::bit_cast<uint32_t>(value));
    const auto pick = [&](char type) {
      std::vector<uint8_t> fitting;
      for (size_t i = 0; i < std::size(known); ++i)
        if (known[i] == type || (i >= operand::immediates && type != 'b' && one_in(3)))
          fitting.push_back(static_cast<uint8_t>(i));
      return fitting.empty() ? operand::none
                             : fitting[static_cast<size_t>(below(static_cast<int32_t>(fitting.size())))];
    };
    std::vector<Instruction> steps;
    for (int32_t i = 0, count = 1 + below(40); i < count; ++i) {
      const auto step = static_cast<Step>(below(static_cast<int32_t>(Step::count)));
      const auto& type = types[static_cast<size_t>(step)];
      Instruction instruction{step, static_cast<uint8_t>(below(6)), {operand::none, operand::none, operand::none}, {}};
      bool found = true;
      for (int k = 0; k < type.operands; ++k) {
        const bool condition = k == 0 && (step == Step::f_select || step == Step::i_select);
        instruction.operands[k] = pick(condition ? 'b' : type.from);
        found = found && instruction.operands[k] != operand::none;
      }
      if (!found) continue;
      steps.push_back(instruction);
      known[instruction.result] = type.to;
    }
    std::vector<uint8_t> results;
    std::vector<int32_t> outputs;
    for (int32_t i = 0, count = 1 + below(max_outputs); i < count; ++i) {
      const auto type = static_cast<Type>(below(5));
      const uint8_t from = pick(lane(type));
      if (from == operand::none) continue;
      results.push_back(from);
      outputs.push_back(output(type, dims));
    }
    if (!outputs.empty())
      builder_.add("operator", OperatorKind::elementwise, Builder::program(sources, immediates, steps, results),
                   tensors, outputs);
  }

  Random random_;
  bool provoke_;
  Builder builder_;
};

}  // namespace

TEST_CASE("generated models give the same bits everywhere or are refused") {
  Threads pool(3);
  int ran[static_cast<size_t>(OperatorKind::count)] = {}, refused = 0;
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    CAPTURE(seed);
    const Builder builder = Generator(seed).builder();
    if (builder.operators.empty()) continue;
    const Bytes file = builder.bytes();
    const auto model = Model::load(file);
    CAPTURE(describe(model.status()));
    REQUIRE(model);
    std::vector<std::byte> expected;
    bool accepted = true;
    for (const Isa isa : isas()) {
      for (const uint32_t threads : {1u, 3u}) {
        if (!accepted || (isa == Isa::portable && threads > 1)) continue;
        Bytes arena(static_cast<size_t>(model->memory().total(threads)), std::byte{0x5a});
        auto session = Session::create(*model, arena, {isa, threads > 1 ? pool.parallel() : Parallel{}});
        CAPTURE(describe(session.status()));
        accepted = static_cast<bool>(session);
        if (!accepted) continue;
        REQUIRE(session->run().ok());
        const std::vector<std::byte> found = outputs_of(*session);
        if (isa == Isa::portable) expected = found;
        CAPTURE(name(isa));
        CAPTURE(threads);
        CAPTURE(std::string(operator_of(builder.operators[0].kind).name));
        CHECK(found == expected);
      }
    }
    (accepted ? ran[static_cast<size_t>(builder.operators[0].kind)] : refused) += 1;
  }
  for (const int count : ran) CHECK(count > 50);
  CHECK(refused < 150);
}

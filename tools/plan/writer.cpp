#include "tools/plan/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "format/heed_generated.h"
#include "heed/sha256.h"
#include "tools/error.h"
#include "tools/plan/bounds.h"

namespace heed::tools {
namespace {

constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// The file's table of expressions: every entry once, operands before what is made of them.
class ExpressionTable {
 public:
  /// `independent`: how many entries there will be that do not depend on the position; the others come after them.
  ExpressionTable(const std::map<std::string, Dimension>& dimensions, const std::optional<Position>& position,
                  uint32_t independent)
      : independent_(independent) {
    if (position) position_ = position->name;
    for (const auto& [name, dimension] : dimensions)
      if (name != position_) dimensions_.emplace(name, static_cast<int32_t>(dimensions_.size()));
  }

  uint32_t of(const Expression& expression) {
    // The constant term goes last, so that 2 * tokens + 1 reads like that.
    std::optional<uint32_t> sum;
    int64_t constant = 0;
    const auto& terms = expression.terms();
    for (size_t i = terms.size(); i-- > 0;) {
      if (terms[i].factors.empty()) {
        constant = terms[i].coefficient;
        continue;
      }
      const bool negative = sum && terms[i].coefficient < 0;
      const uint32_t term = product(terms[i], negative);
      sum = sum ? entry(negative ? format::Expression::subtract : format::Expression::add, *sum, term) : term;
    }
    if (!sum) return number(constant);
    if (constant == 0) return *sum;
    return constant < 0 ? entry(format::Expression::subtract, *sum, number(-constant))
                        : entry(format::Expression::add, *sum, number(constant));
  }

  std::vector<format::ExpressionNode> nodes() const {
    std::vector<format::ExpressionNode> all = nodes_;
    all.insert(all.end(), stepped_.begin(), stepped_.end());
    return all;
  }
  uint32_t independent() const { return static_cast<uint32_t>(nodes_.size()); }

 private:
  uint32_t product(const Expression::Term& term, bool negate) {
    const int64_t coefficient = negate ? -term.coefficient : term.coefficient;
    std::optional<uint32_t> result;
    if (coefficient != 1) result = number(coefficient);
    for (const auto& factor : term.factors) {
      const uint32_t next = atom(*factor);
      result = result ? entry(format::Expression::multiply, *result, next) : next;
    }
    return *result;
  }

  uint32_t atom(const Expression::Atom& atom) {
    using Kind = Expression::Atom::Kind;
    if (atom.kind == Kind::dimension && atom.name == position_) return entry(format::Expression::position, 0, 0);
    if (atom.kind == Kind::dimension)
      return entry(format::Expression::dimension, static_cast<uint32_t>(dimensions_.at(atom.name)), 0);
    const uint32_t a = of(atom.a), b = of(atom.b);
    switch (atom.kind) {
      case Kind::divide:
        return entry(format::Expression::divide, a, b);
      case Kind::modulo:
        return entry(format::Expression::modulo, a, b);
      case Kind::minimum:
        return entry(format::Expression::minimum, a, b);
      default:
        return entry(format::Expression::maximum, a, b);
    }
  }

  /// Constants have 32 bits in the file; larger ones are put together.
  uint32_t number(int64_t value) {
    if (value >= INT32_MIN && value <= INT32_MAX)
      return entry(format::Expression::constant, static_cast<uint32_t>(value), 0);
    constexpr int64_t base = int64_t{1} << 30;
    const uint32_t high = entry(format::Expression::multiply, number(value / base), number(base));
    return value % base == 0 ? high : entry(format::Expression::add, high, number(value % base));
  }

  uint32_t entry(format::Expression op, uint32_t a, uint32_t b) {
    using enum format::Expression;
    const bool leaf = op == constant || op == dimension;
    const bool steps = op == position || (!leaf && std::max(a, b) >= independent_);
    auto& nodes = steps ? stepped_ : nodes_;
    const uint32_t next = static_cast<uint32_t>(nodes.size()) + (steps ? independent_ : 0);
    const auto [known, is_new] = known_.try_emplace({op, a, b}, next);
    if (is_new) nodes.emplace_back(op, static_cast<int32_t>(a), static_cast<int32_t>(b));
    return known->second;
  }

  const uint32_t independent_;
  std::string position_;  // empty: there is none
  std::map<std::string, int32_t> dimensions_;
  std::vector<format::ExpressionNode> nodes_, stepped_;
  std::map<std::tuple<format::Expression, uint32_t, uint32_t>, uint32_t> known_;
};

uint32_t narrow(uint64_t value, const char* what) {
  if (value > UINT32_MAX) throw Error(Fault::model, fmt::format("{} of {} does not fit 32 bits", what, value));
  return static_cast<uint32_t>(value);
}

int32_t bound(const std::string& name, int64_t value) {
  if (value < 0 || value > INT32_MAX)
    throw Error(Fault::model,
                fmt::format("dimension '{}' has the bound {}, which is not in 0 to {}", name, value, INT32_MAX));
  return static_cast<int32_t>(value);
}

class Writer {
 public:
  Writer(const Lowered& lowered, const Plan& plan, const std::map<std::string, int>& fusions,
         const std::vector<std::string>& made_with)
      : lowered_(lowered), plan_(plan), fusions_(fusions), made_with_(made_with) {
    constants_.resize(lowered.storages.size());
    for (const LoweredTensor& tensor : lowered.tensors) {
      const auto storage = static_cast<size_t>(tensor.view.storage);
      if (lowered.storages[storage].constant) add_constant(storage);
    }
    for (const Lowered::State& state : lowered.states)
      if (state.first != -1) add_constant(static_cast<size_t>(state.first));
  }

  std::vector<std::byte> run() {
    // The tables' size does not depend on numbers, so that the third pass is right: the first says how many expressions
    // are independent of the position, the second where the constants begin.
    (void)tables(64, 64);
    const uint64_t first_constant = round_up(tables(64, 64).size(), 64);
    const std::vector<std::byte> head = tables(first_constant, first_constant + constants_end_);
    std::vector<std::byte> file(first_constant + constants_end_);
    std::copy(head.begin(), head.end(), file.begin());
    for (size_t i = 0; i < constants_.size(); ++i) {
      const auto& data = lowered_.storages[i].data;
      if (constants_[i])
        std::copy(data.begin(), data.end(),
                  file.begin() + static_cast<std::ptrdiff_t>(first_constant + *constants_[i]));
    }
    const Sha256::Digest digest = sha256(file);
    const auto place =
        format::GetModel(file.data())->content_hash()->data() - reinterpret_cast<const uint8_t*>(file.data());
    std::memcpy(file.data() + place, digest.bytes, sizeof digest.bytes);
    return file;
  }

 private:
  void add_constant(size_t storage) {
    if (constants_[storage]) return;
    constants_[storage] = constants_end_;
    constants_end_ = round_up(constants_end_ + lowered_.storages[storage].data.size(), 64);
  }

  template <class T>
  using Offsets = std::vector<flatbuffers::Offset<T>>;

  std::vector<std::byte> tables(uint64_t first_constant, uint64_t file_bytes) {
    flatbuffers::FlatBufferBuilder builder(4096);
    builder_ = &builder;
    ExpressionTable expressions(lowered_.dimensions, lowered_.position, independent_);
    expressions_ = &expressions;

    Offsets<format::Dimension> dimensions;
    auto ranges = lowered_.dimensions;
    if (lowered_.position) ranges.at(lowered_.position->name).upper = ranges.at(lowered_.position->name).lower;
    const auto start = start_point(ranges, lowered_.constraints);
    // Texts and expressions come to be one after another, not among a call's arguments: their order is part of the
    // bytes.
    for (const auto& [name, dimension] : lowered_.dimensions)
      if (!lowered_.position || name != lowered_.position->name)
        dimensions.push_back(format::CreateDimension(builder, text(name), bound(name, dimension.lower),
                                                     bound(name, dimension.upper), bound(name, start.at(name))));
    Offsets<format::Constraint> constraints;
    for (const Constraint& constraint : lowered_.constraints) {
      const bool equal = constraint.relation == Constraint::Relation::equal;
      const uint32_t left = expressions.of(constraint.left), right = expressions.of(constraint.right);
      const auto words =
          text(fmt::format("{} {} {}", constraint.left.text(), equal ? "==" : "<=", constraint.right.text()));
      constraints.push_back(format::CreateConstraint(
          builder, equal ? format::Relation::equal : format::Relation::less_equal, left, right, words));
    }
    std::vector<format::Buffer> buffers;
    for (const Buffer& buffer : plan_.buffers)
      buffers.emplace_back(narrow(buffer.offset / 64, "an offset"), narrow(buffer.capacity, "a buffer"),
                           static_cast<uint32_t>(buffer.first), static_cast<uint32_t>(buffer.last));
    Offsets<format::Tensor> tensors;
    for (const LoweredTensor& tensor : lowered_.tensors) tensors.push_back(this->tensor(tensor, first_constant));
    Offsets<format::Operator> operators;
    for (size_t i = 0; i < lowered_.operators.size(); ++i)
      operators.push_back(op(lowered_.operators[i], plan_.scratch_of[i]));
    const auto borders = [&](const std::vector<Lowered::Border>& all) {
      Offsets<format::Border> rows;
      for (const Lowered::Border& border : all)
        rows.push_back(format::CreateBorder(builder, static_cast<uint32_t>(border.tensor), text(border.name),
                                            static_cast<format::BorderType>(border.type)));
      return builder.CreateVector(rows);
    };
    const auto inputs = borders(lowered_.inputs), outputs = borders(lowered_.outputs);
    Offsets<format::IndexCheck> checks;
    for (const auto& check : lowered_.index_checks)
      checks.push_back(
          format::CreateIndexCheck(builder, static_cast<uint32_t>(check.input), expressions.of(check.bound)));
    Offsets<format::Mark> marks;
    for (const auto& mark : lowered_.marks) {
      const auto name = text(mark.name), queries = text(mark.queries), keys = text(mark.keys);
      marks.push_back(format::CreateMark(builder, static_cast<uint32_t>(mark.operator_index), name, queries, keys));
    }
    Offsets<format::Fusion> fusions;
    for (const auto& [name, count] : fusions_)
      fusions.push_back(format::CreateFusion(builder, text(name), static_cast<uint32_t>(count)));
    Offsets<format::State> states;
    for (const Lowered::State& state : lowered_.states) {
      const auto name = text(state.name), output = text(state.output);
      const auto first = static_cast<size_t>(std::max(state.first, 0));
      states.push_back(format::CreateState(
          builder, name, output, static_cast<uint32_t>(state.tensor),
          state.first == -1 ? 0 : narrow((first_constant + *constants_[first]) / 64, "a constant's place"),
          state.first == -1 ? 0 : narrow(lowered_.storages[first].data.size(), "a constant")));
    }
    flatbuffers::Offset<format::Position> position;
    if (lowered_.position) {
      const std::string& name = lowered_.position->name;
      const Dimension& range = lowered_.dimensions.at(name);
      const uint32_t step = expressions.of(lowered_.position->step);
      const auto independent = std::find_if(lowered_.tensors.begin(), lowered_.tensors.end(),
                                            [&](const auto& tensor) { return depends_on(tensor.view, name); });
      position = format::CreatePosition(builder, text(name), bound(name, range.lower), bound(name, range.upper),
                                        bound(name, lowered_.position->capacity), step, expressions.independent(),
                                        static_cast<uint32_t>(independent - lowered_.tensors.begin()));
      independent_ = expressions.independent();
    }
    Offsets<flatbuffers::String> node_names, options;
    for (const std::string& name : node_names_) node_names.push_back(text(name));
    for (const std::string& option : made_with_) options.push_back(text(option));

    const auto producer = text("heed");
    const auto dimension_table = builder.CreateVector(dimensions);
    const auto expression_table = builder.CreateVectorOfStructs(expressions.nodes());
    const auto constraint_table = builder.CreateVector(constraints);
    const auto buffer_table = builder.CreateVectorOfStructs(buffers);
    const auto tensor_table = builder.CreateVector(tensors);
    const auto operator_table = builder.CreateVector(operators);
    const auto check_table = builder.CreateVector(checks);
    const auto mark_table = builder.CreateVector(marks);
    const auto fusion_table = builder.CreateVector(fusions);
    const auto name_table = builder.CreateVector(node_names);
    const auto hash = builder.CreateVector(std::vector<uint8_t>(32, 0));
    const auto state_table = builder.CreateVector(states);
    const auto made_with = builder.CreateVector(options);
    builder.Finish(
        format::CreateModel(builder, static_cast<uint32_t>(format::Version::current), producer, dimension_table,
                            expression_table, constraint_table, buffer_table, tensor_table, operator_table, inputs,
                            outputs, check_table, mark_table, fusion_table, name_table, plan_.workspace,
                            plan_.lower_bound, file_bytes, hash, plan_.state, state_table, position, made_with),
        format::ModelIdentifier());
    const auto* bytes = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
    return {bytes, bytes + builder.GetSize()};
  }

  flatbuffers::Offset<flatbuffers::String> text(const std::string& string) {
    return builder_->CreateSharedString(string);
  }

  flatbuffers::Offset<format::Tensor> tensor(const LoweredTensor& tensor, uint64_t first_constant) {
    const View& view = tensor.view;
    const auto indices = [&](const std::vector<Expression>& all) {
      std::vector<uint32_t> result;
      for (const Expression& expression : all) result.push_back(expressions_->of(expression));
      return builder_->CreateVector(result);
    };
    const auto storage = static_cast<size_t>(view.storage);
    const auto dims = indices(view.dims);
    const auto strides = is_dense(view) ? 0 : indices(view.strides);
    const bool constant = lowered_.storages[storage].constant;
    const auto name = text(tensor.name);
    const uint32_t offset = expressions_->of(view.offset);
    return format::CreateTensor(
        *builder_, name, static_cast<format::Type>(view.type), dims, strides, offset,
        constant ? -1 : plan_.buffer_of[storage],
        constant ? narrow((first_constant + *constants_[storage]) / 64, "a constant's place") : 0,
        constant ? narrow(lowered_.storages[storage].data.size(), "a constant") : 0);
  }

  flatbuffers::Offset<format::Operator> op(const LoweredOperator& op, int scratch) {
    std::vector<uint32_t> absorbed;
    for (const std::string& name : op.absorbed) {
      const auto [known, is_new] = name_index_.try_emplace(name, static_cast<uint32_t>(node_names_.size()));
      if (is_new) node_names_.push_back(name);
      absorbed.push_back(known->second);
    }
    const auto name = text(op.name);
    const auto absorbed_row = builder_->CreateVector(absorbed);
    const auto inputs = builder_->CreateVector(op.inputs);
    const auto outputs = builder_->CreateVector(op.outputs);
    const auto params = std::visit([&](const auto& own) { return this->params(own); }, op.params);
    const uint32_t macs = expressions_->of(op.macs);
    // The schema's union has the order of OperatorKind, from 1.
    return format::CreateOperator(*builder_, name, absorbed_row, inputs, outputs,
                                  static_cast<format::Params>(static_cast<int>(op.kind) + 1), params, scratch, macs);
  }

  using ParamsOffset = flatbuffers::Offset<void>;

  ParamsOffset params(const Elementwise& program) {
    std::vector<format::ElementwiseSource> sources;
    for (const auto& source : program.sources)
      sources.emplace_back(static_cast<format::SourceKind>(source.kind), static_cast<uint8_t>(source.axis),
                           source.kind == SourceKind::dimension ? expressions_->of(source.value) : 0);
    std::vector<format::ElementwiseInstruction> instructions;
    for (const Instruction& step : program.instructions)
      instructions.emplace_back(static_cast<uint8_t>(step.step), step.result, step.operands[0], step.operands[1],
                                step.operands[2]);
    const auto source_row = builder_->CreateVectorOfStructs(sources);
    const auto immediates = builder_->CreateVector(program.immediates);
    const auto instruction_row = builder_->CreateVectorOfStructs(instructions);
    const auto results = builder_->CreateVector(program.results);
    return format::CreateElementwise(*builder_, source_row, immediates, instruction_row, results).Union();
  }
  ParamsOffset params(const CopyParams&) { return format::CreateCopy(*builder_).Union(); }
  ParamsOffset params(const GatherParams& p) {
    return format::CreateGather(*builder_, p.axis, p.packed != 0, p.fill).Union();
  }
  ParamsOffset params(const MatmulParams& p) {
    return format::CreateMatmul(*builder_, static_cast<format::Activation>(p.activation), p.packed != 0).Union();
  }
  ParamsOffset params(const AttentionLowered& a) { return form(a).Union(); }
  ParamsOffset params(const AttentionI8Lowered& a) { return format::CreateAttentionI8(*builder_, form(a)).Union(); }
  flatbuffers::Offset<format::Attention> form(const AttentionLowered& a) {
    const AttentionParams& p = a.params;
    return format::CreateAttention(*builder_, p.scale, p.causal != 0, p.window != 0, p.block_rows,
                                   expressions_->of(a.offset), p.window_left, p.window_right);
  }
  ParamsOffset params(const NormalizeParams& p) {
    return format::CreateNormalize(*builder_, static_cast<format::Normalization>(p.kind), p.epsilon).Union();
  }
  ParamsOffset params(const SoftmaxParams& p) { return format::CreateSoftmax(*builder_, p.log != 0).Union(); }
  ParamsOffset params(const ReduceParams& p) {
    return format::CreateReduce(*builder_, static_cast<format::Reduction>(p.kind), p.axes, p.last_index != 0).Union();
  }
  ParamsOffset params(const RecurrentParams& p) { return form(p).Union(); }
  ParamsOffset params(const RecurrentI8Lowered& p) { return format::CreateRecurrentI8(*builder_, form(p)).Union(); }
  flatbuffers::Offset<format::Recurrent> form(const RecurrentParams& p) {
    return format::CreateRecurrent(*builder_, static_cast<format::Cell>(p.cell),
                                   static_cast<format::Direction>(p.direction), p.linear_before_reset != 0, p.hidden,
                                   p.chunk);
  }
  static format::Window window(const Window& w) { return {w.kernel, w.strides, w.dilations, w.before}; }
  ParamsOffset params(const ConvParams& p) {
    const format::Window row = window(p.window);
    return format::CreateConv(*builder_, static_cast<format::Activation>(p.activation), p.depthwise != 0, p.block,
                              p.groups, &row)
        .Union();
  }
  ParamsOffset params(const ConvI8Params& p) {
    const format::Window row = window(p.window);
    return format::CreateConvI8(*builder_, static_cast<format::Activation>(p.activation), p.block_rows, p.groups, &row)
        .Union();
  }
  ParamsOffset params(const PoolParams& p) {
    const format::Window row = window(p.window);
    const format::Counted counted(p.count_before, p.count_after);
    return format::CreatePool(*builder_, static_cast<format::Pooling>(p.kind), &row, &counted).Union();
  }
  ParamsOffset params(const RopeParams& p) {
    return format::CreateRope(*builder_, static_cast<format::Pairing>(p.pairing)).Union();
  }
  ParamsOffset params(const QuantizeParams&) { return format::CreateQuantize(*builder_).Union(); }
  ParamsOffset params(const MatmulI8Params& p) {
    return format::CreateMatmulI8(*builder_, static_cast<format::Activation>(p.activation), p.block_rows).Union();
  }

  const Lowered& lowered_;
  const Plan& plan_;
  const std::map<std::string, int>& fusions_;
  const std::vector<std::string>& made_with_;
  std::vector<std::optional<uint64_t>> constants_;  // of storages: bytes from the first constant
  uint64_t constants_end_ = 0;
  uint32_t independent_ = uint32_t{1} << 30;  // expressions, more than there are until they are counted
  std::vector<std::string> node_names_;
  std::map<std::string, uint32_t> name_index_;
  flatbuffers::FlatBufferBuilder* builder_ = nullptr;
  ExpressionTable* expressions_ = nullptr;
};

}  // namespace

std::vector<std::byte> write(const Lowered& lowered, const Plan& plan, const std::map<std::string, int>& fusions,
                             const std::vector<std::string>& made_with) {
  return Writer(lowered, plan, fusions, made_with).run();
}

}  // namespace heed::tools

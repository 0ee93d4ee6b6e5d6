#pragma once
/// Graph -> Lowered: heed operators over tensors that are views of storages.
///
/// Nothing is moved that need not be. Reshape, transpose, slice and expand become views; concat and pad become parts of
/// one storage that their producers write; a value whose readers want another order of axes is written in that order
/// where its producer can. That is decided backwards, from readers to producers, before any operator is made; what
/// could not be arranged so becomes a `copy` when the operators are made, forwards. An operator never reads a storage
/// that it writes (what runs in place is the memory plan's matter).
///
/// A state has the strides of its bound, so that it stays where it is while it grows: what is appended is written
/// behind it. Any other next value takes the old one's storage where every operator that reads the old comes before the
/// first that writes the new; else it has a storage of its own and is copied at the end.
///
/// Constants get the layout that their reader wants (panels for matrix products and recurrent layers), each distinct
/// one once. Scratch is chosen here: rows in a block of attention, steps in a chunk of a recurrent layer.
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/conv/conv.h"
#include "kernels/conv_i8/conv_i8.h"
#include "kernels/copy/copy.h"
#include "kernels/gather/gather.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/operator.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"
#include "kernels/rope/rope.h"
#include "kernels/softmax/softmax.h"
#include "tools/graph/graph.h"
#include "tools/plan/view.h"

namespace heed::tools {

/// A piece of memory, before it has an address.
struct Storage {
  std::string name;
  Expression bytes;       // in the workspace
  uint64_t capacity = 0;  // `bytes`, at most, over the whole range of the dimensions; a multiple of 64
  bool state = false;     // lives across runs
  bool constant = false;
  std::vector<std::byte> data;  // of a constant, as the file holds it
};

struct LoweredTensor {
  std::string name;
  View view;
};

struct AttentionLowered {
  AttentionParams params;
  Expression offset;
};
struct AttentionI8Lowered : AttentionLowered {};
struct RecurrentI8Lowered : RecurrentParams {};

using LoweredParams =
    std::variant<Elementwise, CopyParams, GatherParams, MatmulParams, AttentionLowered, NormalizeParams, SoftmaxParams,
                 ReduceParams, RecurrentParams, ConvParams, PoolParams, RopeParams, QuantizeParams, MatmulI8Params,
                 AttentionI8Lowered, RecurrentI8Lowered, ConvI8Params>;

struct LoweredOperator {
  OperatorKind kind;
  std::string name;
  std::vector<std::string> absorbed;
  std::vector<int> inputs, outputs;  // tensors; -1: absent
  LoweredParams params;              // in the order of OperatorKind
  uint64_t scratch = 0;              // bytes, over the whole range of the dimensions; a multiple of 64
  Expression macs;
};

struct Lowered {
  struct Border {
    std::string name;
    int tensor;
    uint8_t type;  // of the original model
  };
  struct IndexCheck {
    int input;  // of `inputs`
    Expression bound;
  };
  struct Mark {
    int operator_index;
    std::string name, queries, keys;
  };

  /// A value that lives across runs, in a storage of its own.
  struct State {
    std::string name, output;
    int tensor;   // as a run finds it
    int first;    // storage of the first value; -1: zeros
    bool copied;  // at the end of a run, because the next value is written before the last is read
  };

  std::map<std::string, Dimension> dimensions;
  std::vector<Constraint> constraints;
  std::vector<State> states;
  std::optional<Position> position;  // its name is among the dimensions
  std::vector<Storage> storages;
  std::vector<LoweredTensor> tensors;  // those that depend on the position last
  std::vector<LoweredOperator> operators;
  std::vector<Border> inputs, outputs;
  std::vector<IndexCheck> index_checks;
  std::vector<Mark> marks;
};

/// Throws Error(model) for what no heed operator computes: weights of a recurrent layer or convolution that are not
/// constant, integers beyond 32 bits, operands over rank 8.
Lowered lower(Graph graph);

}  // namespace heed::tools

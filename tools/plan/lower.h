#pragma once
/// Graph -> Lowered: heed operators over tensors that are views of storages.
///
/// Nothing is moved that need not be. Reshape, transpose, slice and expand become views; concat and pad become parts of
/// one storage that their producers write; a value whose readers want another order of axes is written in that order
/// where its producer can. That is decided backwards, from readers to producers, before any operator is made; what
/// could not be arranged so becomes a `copy` when the operators are made, forwards. An operator never reads a storage
/// that it writes (what runs in place is the memory plan's matter).
///
/// Constants get the layout that their reader wants (panels for matrix products and recurrent layers), each distinct
/// one once. Scratch is chosen here: rows in a block of attention, steps in a chunk of a recurrent layer.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/conv/conv.h"
#include "kernels/copy/copy.h"
#include "kernels/gather/gather.h"
#include "kernels/matmul/matmul.h"
#include "kernels/operator.h"
#include "kernels/pool/pool.h"
#include "kernels/softmax/softmax.h"
#include "tools/graph/graph.h"
#include "tools/plan/view.h"

namespace heed::tools {

/// A piece of memory, before it has an address.
struct Storage {
  std::string name;
  Expression bytes;       // in the workspace
  uint64_t capacity = 0;  // `bytes`, at most, over the whole range of the dimensions; a multiple of 64
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

using LoweredParams =
    std::variant<Elementwise, CopyParams, GatherParams, MatmulParams, AttentionLowered, NormalizeParams, SoftmaxParams,
                 ReduceParams, RecurrentParams, ConvParams, PoolParams>;

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

  std::map<std::string, Dimension> dimensions;
  std::vector<Constraint> constraints;
  std::vector<Storage> storages;
  std::vector<LoweredTensor> tensors;
  std::vector<LoweredOperator> operators;
  std::vector<Border> inputs, outputs;
  std::vector<IndexCheck> index_checks;
  std::vector<Mark> marks;
};

/// Throws Error(model) for what no heed operator computes: weights of a recurrent layer or convolution that are not
/// constant, integers beyond 32 bits, operands over rank 8.
Lowered lower(Graph graph);

}  // namespace heed::tools

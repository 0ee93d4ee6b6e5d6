#pragma once
/// The models that the runtime's tests run: one for each operator and one of several, and the same computed by calling
/// the kernels directly, each tensor in memory of its own.
#include <string>
#include <vector>

#include "heed/session.h"
#include "tests/runtime/builder.h"

namespace heed::test {

struct Example {
  std::string name;
  Builder builder;
};

/// All with a dimension `batch` of 1 to 6, starting at 6.
std::vector<Example> examples();
Builder elementwise_example();
Builder gather_example();
Builder block_example();
/// Two states: one of a fixed shape with first values, one that grows by a row with each run, up to eight.
Builder state_example();

/// A chain of small operators over one row of 16: what an operator costs beside its kernel.
Builder chain_example(int operators);

/// The values of the builder's expressions.
std::vector<int64_t> values_of(const Builder& builder, std::span<const int32_t> dimensions);
Shape shape_of(const Builder& builder, const Builder::Tensor& tensor, std::span<const int64_t> values);

/// Gives each operator the scratch its kernel asks for at the start and at the bounds, then places all buffers.
void plan(Builder& builder);

/// Fills every input of a session with values that repeat for a seed: floats of both signs, small indices, booleans.
void fill_inputs(Session& session, uint32_t seed);

/// The outputs' bytes, one after another.
std::vector<std::byte> outputs_of(const Session& session);

/// The outputs of a first run, computed without a session from the inputs that the session holds now.
std::vector<std::byte> direct(const Builder& builder, const Session& session, std::span<const int32_t> dimensions,
                              Isa isa);

/// An arena of the size that the model states, or of another.
inline Bytes arena_for(const Model& model, uint32_t threads = 1) {
  return Bytes(static_cast<size_t>(model.memory().total(threads)));
}

/// "contract: ... (operator 0 'x', tensor 1): found 3, expected 4"
std::string describe(const Status& status);

}  // namespace heed::test

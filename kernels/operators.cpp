#include "kernels/operator.h"

namespace heed {

const Operator& operator_of(OperatorKind kind) {
  static constexpr const Operator* rows[] = {
#define HEED_OPERATOR(name, Name) &name##_operator,
#include "kernels/operators.inc"
#undef HEED_OPERATOR
  };
  return *rows[static_cast<int>(kind)];
}

}  // namespace heed

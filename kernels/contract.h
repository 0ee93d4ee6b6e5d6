#pragma once
/// What the contracts of all operators are written with.
#include <concepts>

#include "kernels/operator.h"

namespace heed {

/// A size of scratch, multiplied and added without wrapping: what does not fit 64 bits is the largest number, which no
/// file gives.
struct Size {
  uint64_t value;

  /// Of what a contract has found to be no less than 0.
  template <std::integral T>
  constexpr Size(T count) : value(static_cast<uint64_t>(count)) {}  // NOLINT: implicit on purpose

  friend constexpr Size operator+(Size a, Size b) {
    uint64_t sum = 0;
    return __builtin_add_overflow(a.value, b.value, &sum) ? UINT64_MAX : sum;
  }
  friend constexpr Size operator*(Size a, Size b) {
    uint64_t product = 0;
    return __builtin_mul_overflow(a.value, b.value, &product) ? UINT64_MAX : product;
  }
};

/// Helps an operator's contract to say what is wrong: the first violation stands, later findings are dropped.
class Check {
 public:
  explicit Check(const Contract& contract) : contract_(contract) {}

  /// The operand must be given, of this type and, unless `rank` is negative, of this rank. False where anything was
  /// found so far: what follows may not look at shapes then.
  bool operand(int i, int rank, Type type = Type::f32) {
    const Shape* shape = at(i);
    if (violation_) return false;
    if (shape == nullptr) return fail("an operand is missing", i, 0, 1);
    if (shape->type != type) {
      return fail("wrong element type", i, static_cast<int>(shape->type), static_cast<int>(type));
    }
    if (rank >= 0 && shape->rank != rank) return fail("wrong rank", i, shape->rank, rank);
    return true;
  }

  /// The same where the operand is given.
  bool optional(int i, int rank, Type type = Type::f32) {
    return at(i) == nullptr ? !violation_ : operand(i, rank, type);
  }

  /// Dimension `axis` (from the end where negative) of the operand must be `expected`. An absent operand passes.
  bool dim(int i, int axis, int64_t expected, const char* what) {
    const Shape* shape = at(i);
    if (violation_) return false;
    if (shape == nullptr) return true;
    return equal(shape->dims[axis < 0 ? shape->rank + axis : axis], expected, i, what);
  }

  /// The operand must be given with the type and the dimensions of operand `like`, which has been checked.
  bool same_dims(int i, int like) {
    const Shape* other = at(like);
    return !violation_ && operand(i, other->rank, other->type) && dims_of(i, *other);
  }
  /// The operand, which is given, must have the rank and the dimensions of `shape`.
  bool dims_of(int i, const Shape& shape) {
    if (!equal(at(i)->rank, shape.rank, i, "wrong rank")) return false;
    for (int axis = 0; axis < shape.rank; ++axis) dim(i, axis, shape.dims[axis], "dimensions differ");
    return !violation_;
  }

  /// The elements along the last axis must lie side by side. An absent operand passes.
  bool last_stride(int i) {
    const Shape* shape = at(i);
    if (violation_) return false;
    if (shape == nullptr || shape->rank == 0 || shape->dims[shape->rank - 1] <= 1) return true;
    return equal(shape->strides[shape->rank - 1], 1, i, "the last axis has gaps");
  }

  /// Operand `q` and the scales behind it, both or neither, are the rows of `x` as int8 (kernels/quantize/quantize.h);
  /// behind them their zero points may be.
  bool quantized(int q, const Shape& x) {
    const Shape *scale = at(q + 1), *zero = at(q + 2);
    const bool given = at(q) != nullptr;
    if (!equal(scale != nullptr, given, q + 1, "q and q_scale are not given together")) return false;
    if (zero != nullptr && !holds(given, "a zero point of no q", q + 2, 1, 0)) return false;
    if (!given) return true;
    if (!operand(q, x.rank, Type::i8) || !dims_of(q, x) || !operand(q + 1, x.rank)) return false;
    const int last = x.rank - 1;
    const int32_t groups = scale->dims[last];
    for (int axis = 0; axis < last; ++axis) dim(q + 1, axis, x.dims[axis], "q and q_scale differ in a leading axis");
    holds(groups > 0 && x.dims[last] % groups == 0, "the columns are no multiple of the groups", q + 1, x.dims[last],
          groups);
    if (zero != nullptr && (!operand(q + 2, x.rank, Type::i32) || !dims_of(q + 2, *scale) || !last_stride(q + 2)))
      return false;
    return last_stride(q) && last_stride(q + 1);
  }

  bool equal(int64_t found, int64_t expected, int operand, const char* what) {
    return holds(found == expected, what, operand, found, expected);
  }
  bool holds(bool condition, const char* what, int operand, int64_t found, int64_t expected) {
    if (violation_) return false;
    return condition || fail(what, operand, found, expected);
  }
  /// The message then tells the end of the range that was passed.
  bool in_range(int64_t found, int64_t least, int64_t most, int operand, const char* what) {
    if (violation_) return false;
    if (found < least) return fail(what, operand, found, least, Violation::Limit::at_least);
    return found <= most || fail(what, operand, found, most, Violation::Limit::at_most);
  }

  const Violation& violation() const { return violation_; }

 private:
  const Shape* at(int i) const {
    return i >= output_operand ? contract_.output(i - output_operand) : contract_.input(i);
  }
  bool fail(const char* what, int operand, int64_t found, int64_t expected,
            Violation::Limit limit = Violation::Limit::exactly) {
    violation_ = {what, operand, found, expected, limit};
    return false;
  }

  const Contract& contract_;
  Violation violation_;
};

}  // namespace heed

#pragma once
/// What holds over the whole range of the dimensions: capacities, scratch, contracts.
#include <map>
#include <string>
#include <vector>

#include "tools/plan/lower.h"

namespace heed::tools {

using Point = std::map<std::string, int64_t>;  // a value for every dimension

/// What a new session's dimensions are: in their order, each the largest value that the constraints allow given those
/// before it and some permitted value of those after it. Throws Error(model) where no values are permitted.
Point start_point(const std::map<std::string, Dimension>& dimensions, const std::vector<Constraint>& constraints);

/// Permitted values of the dimensions that bounds are judged at: all of them where they are few, else the start point
/// and every combination of lower and upper bounds.
struct Points {
  std::vector<Point> all;
  bool exhaustive;
};
Points points_of(const std::map<std::string, Dimension>& dimensions, const std::vector<Constraint>& constraints);

/// The shapes of all tensors at one point; made once for many points.
class ShapeTable {
 public:
  explicit ShapeTable(const Lowered& lowered);
  std::vector<Shape> at(const Point& point) const;

 private:
  struct Row {
    Shape shape;
    std::vector<size_t> dims, strides;  // of sizes_
  };
  std::vector<Row> rows_;
  std::vector<Expression> sizes_;
};

/// What an operator's contract judges by, at one point. `shapes` outlives it.
class ContractAt {
 public:
  ContractAt(const LoweredOperator& op, const std::vector<Shape>& shapes, const Point& point);
  const Contract& contract() const { return contract_; }

 private:
  std::vector<const Shape*> inputs_, outputs_;
  std::vector<std::byte> params_;
  Contract contract_;
};

/// Fills in the capacity of every storage and the scratch of every operator. Throws Error(model) where no setting
/// satisfies the constraints.
void bound(Lowered& lowered);

}  // namespace heed::tools

#pragma once
/// Strided views of storages: what reshapes, transposes, slices and expands become, so that they cost nothing at run
/// time.
#include <optional>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "tools/graph/graph.h"

namespace heed::tools {

using Strides = std::vector<Expression>;

/// Element i of the view is element offset + sum of i[axis] * strides[axis] of the storage.
struct View {
  int storage = -1;
  Type type = Type::f32;
  Dims dims;
  Strides strides;
  Expression offset;
};

Strides dense_strides(const Dims& dims);
View dense_view(int storage, Type type, const Dims& dims);

/// Row-major without gaps, whatever the values of the dimensions; axes of size 1 may have any stride.
bool is_dense(const View& view);

/// Whether neighbours along the last axis are neighbours in memory.
bool last_is_packed(const View& view);

bool same_elements(const View& a, const View& b);

/// The axes in an order in which the view is dense; nothing where there is none.
std::optional<std::vector<int>> dense_order(const View& view);

/// Nothing where the elements in row-major order do not lie at strides of the new dimensions.
std::optional<View> reshape(const View& view, const Dims& dims);
View transpose(const View& view, const std::vector<int>& permutation);
View slice(const View& view, const std::vector<Expression>& starts, const std::vector<int64_t>& steps,
           const Dims& dims);
/// numpy's broadcasting, with strides of 0.
View broadcast(const View& view, const Dims& dims);

/// Whether a size, stride or the offset mentions the dimension.
bool depends_on(const View& view, const std::string& dimension);

std::vector<int> inverse(const std::vector<int>& permutation);

/// Makes neighbouring axes in [first, last) one wherever all views (of one rank, and equal dims in that range) allow
/// it, and drops axes of size 1 there; one axis is left. `keep`: axes, counted in the views as they come, that stay as
/// they are; their new places are written back.
void merge_axes(std::vector<View*> views, size_t first, size_t last, std::vector<int*> keep = {});

}  // namespace heed::tools

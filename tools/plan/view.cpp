#include "tools/plan/view.h"

#include <algorithm>
#include <map>

namespace heed::tools {
namespace {

/// Sizes that tell expressions apart: each dimension is a prime of its own. They only say which of two products is to
/// be multiplied on next; whether two products are equal is asked of the expressions.
class Samples {
 public:
  Samples(const Dims& a, const Dims& b) {
    std::vector<std::string> names;
    for (const Dims* dims : {&a, &b})
      for (const Expression& size : *dims) size.collect(names);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    int64_t prime = 97;
    for (const std::string& name : names) {
      values_[name] = prime;
      for (bool found = false; !found;) {
        prime += 2;
        found = true;
        for (int64_t factor = 3; factor * factor <= prime; factor += 2) found = found && prime % factor != 0;
      }
    }
  }
  double of(const Expression& size) const { return static_cast<double>(size.evaluate(values_)); }

 private:
  std::map<std::string, int64_t> values_;
};

}  // namespace

Strides dense_strides(const Dims& dims) {
  Strides strides(dims.size());
  Expression stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride = stride * dims[axis];
  }
  return strides;
}

View dense_view(int storage, Type type, const Dims& dims) {
  return {storage, type, dims, dense_strides(dims), 0};
}

bool is_dense(const View& view) {
  Expression expected = 1;
  for (size_t axis = view.dims.size(); axis-- > 0;) {
    if (!view.dims[axis].is_constant(1) && !(view.strides[axis] == expected)) return false;
    expected = expected * view.dims[axis];
  }
  return true;
}

bool last_is_packed(const View& view) {
  return view.dims.empty() || view.dims.back().is_constant(1) || view.strides.back().is_constant(1);
}

bool same_elements(const View& a, const View& b) {
  if (a.storage != b.storage || a.type != b.type || a.dims.size() != b.dims.size() || !(a.offset == b.offset))
    return false;
  for (size_t axis = 0; axis < a.dims.size(); ++axis) {
    if (!(a.dims[axis] == b.dims[axis])) return false;
    if (!a.dims[axis].is_constant(1) && !(a.strides[axis] == b.strides[axis])) return false;
  }
  return true;
}

std::optional<std::vector<int>> dense_order(const View& view) {
  std::vector<int> order, rest;  // order: from the innermost axis outwards
  for (int axis = static_cast<int>(view.dims.size()) - 1; axis >= 0; --axis) rest.push_back(axis);
  Expression expected = 1;
  while (!rest.empty()) {
    const auto next = std::find_if(rest.begin(), rest.end(), [&](int axis) {
      const auto a = static_cast<size_t>(axis);
      return view.dims[a].is_constant(1) || view.strides[a] == expected;
    });
    if (next == rest.end()) return std::nullopt;
    expected = expected * view.dims[static_cast<size_t>(*next)];
    order.push_back(*next);
    rest.erase(next);
  }
  std::reverse(order.begin(), order.end());
  return order;
}

std::optional<View> reshape(const View& view, const Dims& dims) {
  if (is_dense(view)) {
    View result = dense_view(view.storage, view.type, dims);
    result.offset = view.offset;
    return result;
  }
  const Samples samples(view.dims, dims);
  View result{view.storage, view.type, dims, Strides(dims.size(), Expression(1)), view.offset};
  // Both lists fall apart into blocks of equal products; the old axes of a block have to be mergeable into one.
  size_t from = 0, to = 0;
  while (from < view.dims.size() || to < dims.size()) {
    const size_t first_from = from, first_to = to;
    Expression from_size = 1, to_size = 1;
    do {
      if (to == dims.size() || (from < view.dims.size() && samples.of(from_size) <= samples.of(to_size)))
        from_size = from_size * view.dims[from++];
      else
        to_size = to_size * dims[to++];
    } while (!(from_size == to_size) && (from < view.dims.size() || to < dims.size()));
    if (!(from_size == to_size)) return std::nullopt;

    std::optional<Expression> stride;  // of the merged axis
    Expression extent;                 // stride of the next axis outwards
    for (size_t axis = from; axis-- > first_from;) {
      if (view.dims[axis].is_constant(1)) continue;
      if (!stride)
        stride = view.strides[axis];
      else if (!(view.strides[axis] == extent))
        return std::nullopt;
      extent = view.strides[axis] * view.dims[axis];
    }
    Expression next = stride.value_or(1);
    for (size_t axis = to; axis-- > first_to;) {
      result.strides[axis] = next;
      next = next * dims[axis];
    }
  }
  return result;
}

View transpose(const View& view, const std::vector<int>& permutation) {
  View result = view;
  for (size_t axis = 0; axis < permutation.size(); ++axis) {
    result.dims[axis] = view.dims[static_cast<size_t>(permutation[axis])];
    result.strides[axis] = view.strides[static_cast<size_t>(permutation[axis])];
  }
  return result;
}

View slice(const View& view, const std::vector<Expression>& starts, const std::vector<int64_t>& steps,
           const Dims& dims) {
  View result = view;
  result.dims = dims;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    result.offset = result.offset + starts[axis] * view.strides[axis];
    result.strides[axis] = view.strides[axis] * steps[axis];
  }
  return result;
}

View broadcast(const View& view, const Dims& dims) {
  View result{view.storage, view.type, dims, Strides(dims.size(), Expression(0)), view.offset};
  const size_t missing = dims.size() - view.dims.size();
  for (size_t axis = 0; axis < view.dims.size(); ++axis)
    if (!view.dims[axis].is_constant(1) || dims[missing + axis].is_constant(1))
      result.strides[missing + axis] = view.strides[axis];
  return result;
}

bool depends_on(const View& view, const std::string& dimension) {
  std::vector<std::string> names;
  view.offset.collect(names);
  for (const auto* sizes : {&view.dims, &view.strides})
    for (const Expression& size : *sizes) size.collect(names);
  return std::find(names.begin(), names.end(), dimension) != names.end();
}

std::vector<int> inverse(const std::vector<int>& permutation) {
  std::vector<int> result(permutation.size());
  for (size_t axis = 0; axis < permutation.size(); ++axis)
    result[static_cast<size_t>(permutation[axis])] = static_cast<int>(axis);
  return result;
}

void merge_axes(std::vector<View*> views, size_t first, size_t last, std::vector<int*> keep) {
  const Dims dims = views.front()->dims;
  const auto kept = [&](size_t axis) {
    return std::any_of(keep.begin(), keep.end(), [&](const int* k) { return *k == static_cast<int>(axis); });
  };
  std::vector<size_t> place(dims.size() + 1);  // of each old axis among the new ones
  std::vector<Dims> new_dims(views.size());
  std::vector<Strides> new_strides(views.size());
  bool open = false;  // the last new axis may take one more
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const bool inside = axis >= first && axis < last;
    const size_t so_far = new_dims[0].size();
    place[axis] = so_far;
    const bool last_chance = inside && axis + 1 == last && so_far == first;
    if (inside && dims[axis].is_constant(1) && !kept(axis) && !last_chance) continue;
    bool merges = inside && open && !kept(axis);
    for (size_t v = 0; merges && v < views.size(); ++v)
      merges = new_strides[v].back() == views[v]->strides[axis] * views[v]->dims[axis];
    for (size_t v = 0; v < views.size(); ++v) {
      if (merges) {
        new_dims[v].back() = new_dims[v].back() * views[v]->dims[axis];
        new_strides[v].back() = views[v]->strides[axis];
      } else {
        new_dims[v].push_back(views[v]->dims[axis]);
        new_strides[v].push_back(views[v]->strides[axis]);
      }
    }
    open = inside && !kept(axis);
  }
  for (int* k : keep) *k = static_cast<int>(place[static_cast<size_t>(*k)]);
  for (size_t v = 0; v < views.size(); ++v) {
    views[v]->dims = new_dims[v];
    views[v]->strides = new_strides[v];
  }
}

}  // namespace heed::tools

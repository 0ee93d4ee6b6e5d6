#pragma once
/// The common walk over several strided views of the same dimensions. Internal linkage: see simd.h.
#include "kernels/operator.h"

namespace heed {
namespace {

/// Dimensions with one stride for each of N operands, in elements; axes of size 1 are gone, and axes that all operands
/// step through as one are one.
template <int N>
struct Axes {
  int rank = 0;
  int64_t dims[max_rank];
  int64_t strides[N][max_rank];

  /// Adds an axis inside those before it.
  void push(int64_t dim, const int64_t (&steps)[N]) {
    if (dim == 1) return;
    if (rank > 0) {
      bool joins = true;
      for (int n = 0; n < N; ++n) joins &= strides[n][rank - 1] == steps[n] * dim;
      if (joins) --rank, dim *= dims[rank];
    }
    dims[rank] = dim;
    for (int n = 0; n < N; ++n) strides[n][rank] = steps[n];
    ++rank;
  }

  /// The stride of operand n along the last axis.
  int64_t step(int n) const { return rank == 0 ? 0 : strides[n][rank - 1]; }

  int64_t count() const {
    int64_t count = 1;
    for (int axis = 0; axis < rank; ++axis) count *= dims[axis];
    return count;
  }

  /// Calls body(offsets, length) for the runs along the last axis that make up [first, last) of the row-major order;
  /// `offsets` are those of a run's first element.
  template <class Body>
  void for_each_run(int64_t first, int64_t last, Body&& body) const {
    if (first >= last) return;  // an axis may be empty
    int64_t offsets[N] = {}, index[max_rank];
    if (rank <= 1) {  // one run
      for (int n = 0; n < N; ++n) offsets[n] = first * step(n);
      body(offsets, last - first);
      return;
    }
    for (int64_t axis = rank - 1, rest = first; axis >= 0; --axis) {
      index[axis] = axis == 0 ? rest : rest % dims[axis];
      rest = axis == 0 ? 0 : rest / dims[axis];
      for (int n = 0; n < N; ++n) offsets[n] += index[axis] * strides[n][axis];
    }
    while (first < last) {
      int axis = rank - 1;
      const int64_t left = dims[axis] - index[axis], length = left < last - first ? left : last - first;
      body(offsets, length);
      first += length;
      // Back to the start of the last axis, and one step along the axes before it.
      for (int n = 0; n < N; ++n) offsets[n] -= index[axis] * strides[n][axis];
      index[axis--] = 0;
      for (; axis >= 0; --axis) {
        for (int n = 0; n < N; ++n) offsets[n] += strides[n][axis];
        if (++index[axis] < dims[axis]) break;
        for (int n = 0; n < N; ++n) offsets[n] -= index[axis] * strides[n][axis];
        index[axis] = 0;
      }
    }
  }
};

/// Axes [from, to) of N shapes with the same dimensions there.
template <int N>
Axes<N> axes_of(const Shape* const (&shapes)[N], int from, int to) {
  Axes<N> axes;
  for (int axis = from; axis < to; ++axis) {
    int64_t steps[N];
    for (int n = 0; n < N; ++n) steps[n] = shapes[n]->strides[axis];
    axes.push(shapes[0]->dims[axis], steps);
  }
  return axes;
}

/// Splits [0, count) into tasks of `grain` or more, a few for each thread: body(first, last, scratch).
template <class Body>
void split(const Invocation& call, int64_t count, int64_t grain, Body&& body) {
  if (count <= 0) return;
  if (call.parallel == nullptr || call.parallel->threads <= 1 || count <= grain) return body(0, count, call.scratch);
  const int64_t most = int64_t{8} * call.parallel->threads, even = (count + most - 1) / most;
  const int64_t each = even < grain ? grain : even;
  call.for_each(static_cast<uint32_t>((count + each - 1) / each), [&](uint32_t index, std::byte* scratch) {
    const int64_t first = index * each;
    body(first, first + each < count ? first + each : count, scratch);
  });
}

/// Elements in a task of an operator that is bound by arithmetic of a few operations each: some microseconds.
inline constexpr int64_t task_elements = 1 << 14;

}  // namespace
}  // namespace heed

#include "kernels/copy/copy.h"

#include <string.h>

#include "kernels/simd.h"

namespace heed::HEED_ISA {
namespace {

/// A square block that is turned over in registers: y[i][j] = x[j][i].
#if defined(__AVX2__)
constexpr int block = 8;
HEED_INLINE void turn(const float* x, int64_t x_row, float* y, int64_t y_row) {
  __m256 a[8], b[8];
  // Pairs of rows, then fours, then the halves of a register.
  unroll<8>([&](auto i) HEED_INLINE_LAMBDA { a[i] = _mm256_loadu_ps(x + i * x_row); });
  unroll<4>([&](auto i) HEED_INLINE_LAMBDA {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  });
  unroll<2>([&](auto half) HEED_INLINE_LAMBDA {
    constexpr int h = half * 4;
    a[h + 0] = _mm256_shuffle_ps(b[h + 0], b[h + 2], 0x44);
    a[h + 1] = _mm256_shuffle_ps(b[h + 0], b[h + 2], 0xee);
    a[h + 2] = _mm256_shuffle_ps(b[h + 1], b[h + 3], 0x44);
    a[h + 3] = _mm256_shuffle_ps(b[h + 1], b[h + 3], 0xee);
  });
  unroll<4>([&](auto i) HEED_INLINE_LAMBDA {
    _mm256_storeu_ps(y + i * y_row, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(y + (i + 4) * y_row, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  });
}
#else
constexpr int block = 4;
HEED_INLINE void turn(const float* x, int64_t x_row, float* y, int64_t y_row) {
  const float32x4x2_t a = vtrnq_f32(vld1q_f32(x), vld1q_f32(x + x_row));
  const float32x4x2_t b = vtrnq_f32(vld1q_f32(x + 2 * x_row), vld1q_f32(x + 3 * x_row));
  vst1q_f32(y, vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0])));
  vst1q_f32(y + y_row, vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1])));
  vst1q_f32(y + 2 * y_row, vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0])));
  vst1q_f32(y + 3 * y_row, vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1])));
}
#endif

/// y[i][j] = x[j][i] for rows x columns of y; neighbours in j are neighbours in y, neighbours in i are neighbours in x.
void transpose(const float* x, int64_t x_row, float* y, int64_t y_row, int64_t rows, int64_t columns) {
  // Two blocks of rows at a time use up the cache lines of x that a block of columns touches.
  constexpr int64_t strip = 2 * block;
  for (int64_t i = 0; i < rows; i += strip) {
    const int64_t end = i + strip < rows ? i + strip : rows;
    int64_t j = 0;
    for (; j + block <= columns; j += block) {
      int64_t r = i;
      for (; r + block <= end; r += block) turn(x + j * x_row + r, x_row, y + r * y_row + j, y_row);
      for (; r < end; ++r)
        for (int64_t c = j; c < j + block; ++c) y[r * y_row + c] = x[c * x_row + r];
    }
    for (int64_t r = i; r < end; ++r)
      for (int64_t c = j; c < columns; ++c) y[r * y_row + c] = x[c * x_row + r];
  }
}

template <class T>
HEED_INLINE void copy_run(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n) {
  if (x_step == 1 && y_step == 1) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (x_step == 0 && y_step == 1) {
    const T value = *x;
    for (int64_t i = 0; i < n; ++i) y[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * y_step] = x[i * x_step];
  }
}

/// Calls body(x, y) for every index of the axes before `inner` but `skipped`.
template <class T, class Body>
void for_each_outer(const CopyArgs& args, int inner, int skipped, Body body) {
  int64_t index[max_rank] = {};
  auto* x = reinterpret_cast<const T*>(args.x);
  auto* y = reinterpret_cast<T*>(args.y);
  for (;;) {
    body(x, y);
    int axis = inner - 1;
    for (; axis >= 0; --axis) {
      if (axis == skipped) continue;
      x += args.x_strides[axis];
      y += args.y_strides[axis];
      if (++index[axis] < args.dims[axis]) break;
      index[axis] = 0;
      x -= args.x_strides[axis] * args.dims[axis];
      y -= args.y_strides[axis] * args.dims[axis];
    }
    if (axis < 0) return;
  }
}

template <class T>
void copy_runs(const CopyArgs& args) {
  const int inner = args.rank - 1;
  for_each_outer<T>(args, inner, -1, [&](const T* x, T* y) {
    copy_run(x, args.x_strides[inner], y, args.y_strides[inner], args.dims[inner]);
  });
}

}  // namespace

void copy(const CopyArgs& args) {
  const int inner = args.rank - 1;
  if (args.element_bytes == 1) return copy_runs<uint8_t>(args);
  if (args.y_strides[inner] == 1 && args.x_strides[inner] != 1) {
    for (int axis = 0; axis < inner; ++axis) {
      if (args.x_strides[axis] != 1 || args.dims[axis] < block || args.dims[inner] < block) continue;
      return for_each_outer<float>(args, inner, axis, [&](const float* x, float* y) {
        transpose(x, args.x_strides[inner], y, args.y_strides[axis], args.dims[axis], args.dims[inner]);
      });
    }
  }
  copy_runs<uint32_t>(args);
}

}  // namespace heed::HEED_ISA

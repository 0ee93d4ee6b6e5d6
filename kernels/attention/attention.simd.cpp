#include "kernels/attention/attention.h"

#include "kernels/attention/strided.h"
#include "kernels/matmul/tile.h"

#include "kernels/math.h"

namespace heed::HEED_ISA {
namespace {

/// Stands for the exponential of a masked key; others are +0 or more. The key's value is made +0 when the two are
/// multiplied, and the sum of anything and -1 * +0 is that thing itself.
constexpr float masked = -1.0f;

/// Passes over the keys that a row has marked.
struct UnmaskedKeys {
  HEED_INLINE F line(F v, ptrdiff_t) const { return v; }
  HEED_INLINE F operator()(Scalar p, F v) const { return select(less(p.vector(), zero()), zero(), v); }
};

/// Passes over the keys whose padding is 0, the same for every row.
struct UnpaddedKeys {
  const int32_t* padding;

  HEED_INLINE F line(F v, ptrdiff_t i) const { return v & as_f(splat(padding[i])); }
  HEED_INLINE F operator()(Scalar, F v) const { return v; }
};

/// A block of query rows: [first_row, first_row + rows), with the keys [first, last) that any of them sees.
struct Block {
  const AttentionArgs& args;
  ptrdiff_t stride;  // of scores
  int first_row, first, last;
  float* inverses;  // 1 / denominator of each row, 0 where a row has no key

  float* scores(int row) const { return args.scores + (row - first_row) * stride; }
};

/// Scores of a block of query rows: scale * (q . k), [rows][T], whole panels of keys.
struct Scores {
  const Block& block;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int key) const {
    const AttentionArgs& args = block.args;
    const ptrdiff_t d = args.d, stride = block.stride;
    Tile<rows, vectors> tile;
    tile.add(args.q + row * args.q_row, args.q_row, args.q_d, args.keys + key / 16 * d * 16 + key % 16, 16, d * 16, d);
    const F scale = splat(args.params.scale);
    float* scores = block.scores(row) + key;
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      unroll<vectors>(
          [&](auto v) HEED_INLINE_LAMBDA { store(scores + r * stride + v * W, tile.sum[r * vectors + v] * scale); });
    });
  }
};

/// y = sums / denominator
void finish(const Block& block, const float* sums, int sums_row, int row, int rows, int column, int columns) {
  for (int r = row; r < row + rows; ++r, sums += sums_row) {
    const F inverse = splat(block.inverses[r - block.first_row]);
    float* y = block.args.y + r * block.args.y_row + column;
    int i = 0;
    for (; i + W <= columns; i += W) store(y + i, fma(load(sums + i), inverse, zero()));
    if (i < columns) store_first(y + i, fma(load(sums + i), inverse, zero()), columns - i);
  }
}

/// y = (exponentials . v) / denominator
struct Output {
  const Block& block;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    const AttentionArgs& args = block.args;
    ptrdiff_t v_row = args.v_row, v_panel = 16;
    const float* v = args.v;
    if (args.values != nullptr) {
      v_row = 16;
      v_panel = ptrdiff_t{args.tk} * 16;
      v = args.values + column / 16 * v_panel + column % 16;
    } else {
      v += column;
    }
    const float* p = block.scores(row);
    Tile<rows, vectors> tile;
    const auto add = [&](int from, int to, auto keys) HEED_INLINE_LAMBDA {
      tile.add(p + from, block.stride, 1, v + from * v_row, v_row, v_panel, to - from, keys);
    };
    // The keys that all rows see are in the middle; before and after, rows have marked those they do not see.
    int bounds[] = {0, 0, args.tk, args.tk}, part = 1, parts = 2;
    if (args.params.causal || args.params.window) {
      const KeyRange low = keys_of(args, row), high = keys_of(args, row + rows - 1);
      bounds[0] = low.first;
      bounds[1] = high.first;
      bounds[2] = low.last > high.first ? low.last : high.first;
      bounds[3] = high.last;
      part = 0;
      parts = 3;
    }
    for (; part < parts; ++part) {
      const int from = bounds[part], to = bounds[part + 1];
      if (part != 1 || args.keep != nullptr)
        add(from, to, UnmaskedKeys{});
      else if (args.padding != nullptr)
        add(from, to, UnpaddedKeys{args.padding + from});
      else
        add(from, to, AllTerms{});
    }
    alignas(64) float sums[rows * vectors * W];
    unroll<rows * vectors>([&](auto i) HEED_INLINE_LAMBDA { store(sums + i * W, tile.sum[i]); });
    const int left = args.dv - column;
    finish(block, sums, vectors * W, row, rows, column, left < vectors * W ? left : vectors * W);
  }
};

/// Turns a row of scores into exponentials, `masked` where the row does not see a key that others of its block see.
class Softmax {
 public:
  Softmax(const Block& block, int row)
      : block_(block), args_(block.args), row_(row), scores_(block.scores(row)), range_(keys_of(args_, row)) {
    keep_ = args_.padding;
    if (args_.keep != nullptr) {
      const auto* bias = static_cast<const uint8_t*>(args_.bias) + row * args_.bias_row;
      for (int j = 0; j < args_.tk; ++j) {
        const int32_t unpadded = args_.padding == nullptr ? -1 : args_.padding[j];
        args_.keep[j] = bias[j * args_.bias_key] != 0 ? unpadded : 0;
      }
      keep_ = args_.keep;
    }
    if (args_.bias != nullptr && args_.keep == nullptr) {
      bias_ = static_cast<const float*>(args_.bias) + row * args_.bias_row;
    }
    if (args_.toeplitz != nullptr) toeplitz_ = args_.toeplitz + (args_.tq - 1 - row) * args_.toeplitz_key;
  }

  /// 1 / the sum of the exponentials, 0 where the row sees no key.
  float run() {
    const bool terms = bias_ != nullptr || toeplitz_ != nullptr || args_.slope != nullptr;
    if (keep_ == nullptr) return terms ? run<true, false>() : run<false, false>();
    return terms ? run<true, true>() : run<false, true>();
  }

 private:
  template <bool terms, bool masks>
  float run() {
    const F none = splat(-__builtin_inff());
    Lanes16 max = Lanes16::splat(-__builtin_inff());
    for_each_vector([&](int j, int lane, M seen, auto all) HEED_INLINE_LAMBDA {
      F s = load(scores_ + j);
      if constexpr (terms) {
        s = add_terms(s, j);
        store(scores_ + j, s);
      }
      if constexpr (masks) s = select(kept(j), s, none);
      if constexpr (!all) s = select(seen, s, none);
      max.v[lane] = max_fast(s, max.v[lane]);
    });
    // A NaN may be lost in the maximum, but not in the sum, and it is all of the row's result in any case.
    const F top = splat(max.fold([](F a, F b) HEED_INLINE_LAMBDA { return max_fast(a, b); }));
    // Where padding alone hides keys, the values' product passes over them by itself.
    const bool marks = args_.keep != nullptr || args_.params.causal || args_.params.window;
    Lanes16 sum = Lanes16::zero();
    for_each_vector([&](int j, int lane, M seen, auto all) HEED_INLINE_LAMBDA {
      F e = exp_nonpositive(load(scores_ + j) - top), term = e;
      if constexpr (masks) {
        e = term = e & as_f(load(keep_ + j));
        if (marks) e = select(kept(j), e, splat(masked));
      }
      if constexpr (!all) {
        term = select(seen, term, zero());
        e = select(seen, e, splat(masked));
      }
      sum.v[lane] = sum.v[lane] + term;
      store(scores_ + j, e);
    });
    // The vectors beside the row's own.
    for (int j = block_.first; j < range_.first / 16 * 16; j += W) store(scores_ + j, splat(masked));
    for (int j = (range_.last + 15) / 16 * 16; j < block_.last; j += W) store(scores_ + j, splat(masked));
    const float denominator = sum.fold_sum();
    return denominator == 0.0f ? 0.0f : 1.0f / denominator;
  }

  /// Calls body(key, which vector of 16 keys, lanes that the row sees, true_type where it sees all).
  template <class Body>
  HEED_INLINE void for_each_vector(Body body) {
    const auto some = [&](int j) HEED_INLINE_LAMBDA {
      unroll<panel_vectors>([&](auto v) HEED_INLINE_LAMBDA {
        const I key = iota() + splat(j + v * W);
        body(j + v * W, v, sign_of(sub(splat(range_.first - 1), key) & sub(key, splat(range_.last))),
             std::false_type{});
      });
    };
    int j = range_.first / 16 * 16;
    if (j < range_.first) {
      some(j);
      j += 16;
    }
    for (; j + 16 <= range_.last; j += 16) {
      unroll<panel_vectors>([&](auto v) HEED_INLINE_LAMBDA { body(j + v * W, v, M{}, std::true_type{}); });
    }
    if (j < range_.last) some(j);
  }

  HEED_INLINE M kept(int j) const { return sign_of(load(keep_ + j)); }

  HEED_INLINE F add_terms(F s, int j) const {
    if (args_.slope != nullptr) {
      s = s + splat(*args_.slope) * to_f(iota() + splat(j - row_ - args_.params.offset));  // below 2^24: exact
    }
    if (toeplitz_ != nullptr)
      s = s + load_strided(toeplitz_ + j * args_.toeplitz_key, args_.toeplitz_key, args_.tk - j);
    if (bias_ != nullptr) s = s + load_strided(bias_ + j * args_.bias_key, args_.bias_key, args_.tk - j);
    return s;
  }

  const Block& block_;
  const AttentionArgs& args_;
  int row_;
  float* scores_;
  KeyRange range_;
  const int32_t* keep_ = nullptr;  // [T]: all bits where no mask hides the key
  const float *bias_ = nullptr, *toeplitz_ = nullptr;
};

/// Hands out a row's weights, in the place of its exponentials.
void tap(const Block& block, int row) {
  const AttentionArgs& args = block.args;
  float* p = block.scores(row);
  for (int j = 0; j < args.tk; ++j) {
    const bool seen =
        j >= block.first && j < block.last && !(p[j] < 0.0f) && (args.padding == nullptr || args.padding[j] != 0);
    p[j] = seen ? p[j] * block.inverses[row - block.first_row] : 0.0f;
  }
  args.tap->row(args.tap->context, args.batch, args.head, row, p, args.tk);
}

void pack(const AttentionArgs& args) {
  for (int j = 0; j < args.tk; j += 16) {
    const int count = args.tk - j < 16 ? args.tk - j : 16;
    pack_panel(args.k + j * args.k_row, args.k_d, args.k_row, args.d, count, args.keys + ptrdiff_t{j} * args.d);
  }
  if (args.values != nullptr) {
    for (int c = 0; c < args.dv; c += 16) {
      const int count = args.dv - c < 16 ? args.dv - c : 16;
      pack_panel(args.v + c * args.v_d, args.v_row, args.v_d, args.tk, count, args.values + ptrdiff_t{c} * args.tk);
    }
  }
  if (args.padding != nullptr) {
    for (int j = 0; j < args.tk; ++j) args.padding[j] = args.key_padding[j * args.padding_key] != 0 ? -1 : 0;
  }
}

}  // namespace

void attention(const AttentionArgs& args) {
  if (!args.packed) pack(args);
  const ptrdiff_t stride = (ptrdiff_t{args.tk} + 15) / 16 * 16;
  constexpr int most = 32;
  float inverses[most];
  const int rows_of_block = args.params.block_rows < most ? args.params.block_rows : most;
  for (int row = args.first_row; row < args.last_row; row += rows_of_block) {
    const int rows = args.last_row - row < rows_of_block ? args.last_row - row : rows_of_block;
    const Block block{args,    stride, row, keys_of(args, row).first / 16 * 16, keys_of(args, row + rows - 1).last,
                      inverses};
    if (block.first < block.last) Tiling<Scores>::run({block}, row, rows, block.first, block.last);
    for (int r = 0; r < rows; ++r) inverses[r] = Softmax(block, row + r).run();
    // Values in place end with the last channel: what is left of them is computed with some of those before.
    const int whole = args.values == nullptr ? args.dv / 16 * 16 : args.dv;
    Tiling<Output>::run({block}, row, rows, 0, whole);
    if (whole < args.dv) Tiling<Output>::run({block}, row, rows, args.dv - 16, args.dv);
    if (args.tap != nullptr)
      for (int r = 0; r < rows; ++r) tap(block, row + r);
  }
}

}  // namespace heed::HEED_ISA

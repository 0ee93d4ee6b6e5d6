#include "kernels/attention_i8/attention_i8.h"

#include "kernels/attention/strided.h"
#include "kernels/matmul_i8/tile_i8.h"

#include "kernels/attention_i8/pack.h"

namespace heed::HEED_ISA {
namespace {

/// The order in which `put` below lays down the probabilities of 16 keys: kernels/attention_i8/pack.h.
constexpr int place(int i) {
  return group_bytes == 8 ? i / 4 * 2 + i % 2 + i % 4 / 2 * 8 : i;
}

/// So many vectors of probabilities are written at once, where a row is that long: bytes that fill a vector.
inline constexpr int step_vectors = group_bytes == 8 ? panel_vectors : 4;

/// A number of 0 to 255 to the nearest integer, halves to even; a NaN to one whose lowest byte is 0, and no byte when
/// packed with saturation.
HEED_INLINE I round_byte(F x) {
#if defined(__AVX512F__)
  return {_mm512_cvtps_epi32(x.v)};
#elif defined(__AVX2__)
  return {_mm256_cvtps_epi32(x.v)};
#else
  return as_i(x + splat(exponential::round_magic)) & splat(255);
#endif
}

/// What unsigned queries add to the products.
void sum_keys([[maybe_unused]] const AttentionI8Args& args, [[maybe_unused]] int keys) {
#if defined(HEED_VNNI)
  const int groups = (args.d + 3) / 4;
  for (int j = 0; j < keys; j += W) {
    const int8_t* line = args.keys + ptrdiff_t{j / 16} * groups * 64 + j % 16 * 4;
    I sum = splat(0);
    for (int g = 0; g < groups; ++g)
      sum = dot(sum, splat(0x01010101), load(reinterpret_cast<const int32_t*>(line + ptrdiff_t{g} * 64)));
    store(args.key_sum + j, sum);
  }
#endif
}

/// A block of query rows: [first_row, first_row + rows), with the keys [first, last) that any of them sees, in whole
/// panels. The probabilities of a row, as a tile reads rows, take the place of its scores.
struct Block {
  const AttentionI8Args& args;
  int keys;  // T
  int first_row, first, last;
  bool has_terms;         // that differ from query to query
  const float* factors;   // [rows]
  const int8_t* queries;  // as a tile reads them
  ptrdiff_t queries_row;  // bytes
  float* inverses;        // 1 / denominator of each row, 0 where a row has no key
  float* tops;            // [rows][16]: the largest u of key j in lane j mod 16, over all of the block's keys
  int32_t* sums;          // of each row's probabilities

  float* scores(int row) const { return args.scores + (row - first_row) * ptrdiff_t{keys}; }
};

/// u of a block of rows; where there are terms to add, without factor and addend.
struct Scores {
  const Block& block;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int key) const {
    const AttentionI8Args& args = block.args;
    const ptrdiff_t panel = (ptrdiff_t{args.d} + 3) / 4 * 64;
    TileI8<rows, vectors> tile;
    tile.multiply(block.queries + (row - block.first_row) * block.queries_row, block.queries_row,
                  args.keys + key / 16 * panel + key % 16 * 4, panel, args.key_sum + key, args.d);
    if (block.has_terms)
      store<true>(tile, row, key);
    else
      store<false>(tile, row, key);
  }

 private:
  template <bool has_terms, int rows, int vectors>
  HEED_INLINE void store(const TileI8<rows, vectors>& tile, int row, int key) const {
    // What the stores below could change, for all that the compiler knows, is read before them.
    const ptrdiff_t stride = block.keys;
    float *scores = block.scores(row) + key, *tops = block.tops + (row - block.first_row) * 16;
    F factors[rows], scale[vectors], addend[vectors];
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA { factors[r] = splat(block.factors[row - block.first_row + r]); });
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      scale[v] = load(block.args.key_scale + key + v * W);
      addend[v] = load(block.args.addend + key + v * W);
    });
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      F u[vectors];
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        u[v] = to_f(tile.sum[r * vectors + v]) * scale[v];
        if constexpr (!has_terms) u[v] = fma(u[v], factors[r], addend[v]);
        HEED_ISA::store(scores + r * stride + v * W, u[v]);
      });
      if constexpr (!has_terms) {
        // Vectors of the same lanes follow each other in a register: memory would make each wait for the one before.
        constexpr int own = vectors < panel_vectors ? vectors : panel_vectors;
        unroll<own>([&](auto lane) HEED_INLINE_LAMBDA {
          float* at = tops + r * 16 + (key % 16 + lane * W) % 16;
          F top = load(at);
          unroll<vectors / own>([&](auto i) HEED_INLINE_LAMBDA { top = max_fast(u[i * own + lane], top); });
          HEED_ISA::store(at, top);
        });
      }
    });
  }
};

/// What is added to the scores of a query.
class Terms {
 public:
  Terms(const AttentionI8Args& args, int row) : args_(args), row_(row) {
    if (args.bias != nullptr && !args.bias_is_boolean)
      bias_ = static_cast<const float*>(args.bias) + row * args.bias_row;
    if (args.toeplitz != nullptr) toeplitz_ = args.toeplitz + (args.tq - 1 - row) * args.toeplitz_key;
  }

  bool any() const { return any_by_query() || bias_ != nullptr; }
  /// Whether queries differ.
  bool any_by_query() const {
    return args_.slope != nullptr || toeplitz_ != nullptr || (bias_ != nullptr && args_.bias_row != 0);
  }

  /// With the logarithms of W values from j on; of padding that alone, whatever the terms are.
  HEED_INLINE F addend(int j) const {
    F b = zero();
    if (args_.slope != nullptr)
      b = splat(*args_.slope) * to_f(iota() + splat(j - row_ - args_.params.offset));  // below 2^24: exact
    if (toeplitz_ != nullptr)
      b = b + load_strided(toeplitz_ + j * args_.toeplitz_key, args_.toeplitz_key, args_.tk - j);
    if (bias_ != nullptr) b = b + load_strided(bias_ + j * args_.bias_key, args_.bias_key, args_.tk - j);
    const F log = load(args_.value_log + j), all = log + one_nan(clamp(b * splat(log2_e), -0x1p126f, 0x1p126f));
    return select(less_equal(log, splat(hidden_log)), log, all);
  }

 private:
  const AttentionI8Args& args_;
  int row_;
  const float *bias_ = nullptr, *toeplitz_ = nullptr;
};

/// Turns a row of u into probabilities of eight bits.
class Softmax {
 public:
  Softmax(const Block& block, int row)
      : block_(block), args_(block.args), row_(row), scores_(block.scores(row)), range_(keys_of(args_, row)) {
    if (args_.keep != nullptr) {
      const auto* bias = static_cast<const uint8_t*>(args_.bias) + row * args_.bias_row;
      for (int j = 0; j < args_.tk; ++j) args_.keep[j] = bias[j * args_.bias_key] != 0 ? -1 : 0;
      for (int j = args_.tk; j < block.keys; ++j) args_.keep[j] = 0;
    }
  }

  void run() { args_.keep == nullptr ? run<false>() : run<true>(); }

 private:
  template <bool masks>
  void run() {
    Lanes16 max = Lanes16::splat(hidden_log);
    const bool sees_all =
        range_.first <= block_.first && range_.last >= (block_.last < args_.tk ? block_.last : args_.tk);
    if (!masks && !block_.has_terms && sees_all)
      unroll<panel_vectors>(
          [&](auto v) HEED_INLINE_LAMBDA { max.v[v] = load(block_.tops + (row_ - block_.first_row) * 16 + v * W); });
    else
      for_each_vector<masks>([&](int j, auto at, M seen, auto all, auto) HEED_INLINE_LAMBDA {
        F u = load(scores_ + j);
        if (block_.has_terms) {
          u = fma(u, splat(block_.factors[row_ - block_.first_row]), terms_.addend(j));
          store(scores_ + j, u);
        }
        if constexpr (!all) u = select(seen, u, splat(hidden_log));
        F& lane = max.v[at % panel_vectors];
        lane = max_fast(u, lane);
      });
    const F top = splat(max.fold([](F a, F b) HEED_INLINE_LAMBDA { return max_fast(a, b); }));
    if (args_.tap != nullptr) {
      for_each_vector<masks>([&](int j, auto, M, auto, auto) HEED_INLINE_LAMBDA {
        const F e = exp2_255(max_fast(splat(-100.0f), load(scores_ + j) - top));
        store(tap_row() + j, e * load(args_.value_inverse + j));
      });
    }
    Lanes16 denominator = Lanes16::zero();
    I sum = splat(0), q[step_vectors];
    auto* to = reinterpret_cast<int8_t*>(scores_) + ptrdiff_t{block_.first} / 4 * group_bytes;
    fill(to, range_.first / 16 * 16 - block_.first);
    for_each_vector<masks>([&, scores = scores_, inverses = args_.value_inverse](int j, auto at, M seen, auto all,
                                                                                auto count) HEED_INLINE_LAMBDA {
      // A NaN that the maximum lost makes its own term and the denominator NaN.
      F e = exp2_255(max_fast(splat(-100.0f), load(scores + j) - top));
      if constexpr (!all) e = select(seen, e, zero());
      F& lane = denominator.v[at % panel_vectors];
      lane = fma(e, load(inverses + j), lane);
      q[at] = round_byte(e);
      if constexpr (!mixed_signs) sum = sum + q[at];
      if constexpr (at == count - 1) {
        put<count>(q, to);
        to += count * (W / 4) * group_bytes;
      }
    });
    fill(to, block_.last - (range_.last + 15) / 16 * 16);
    const float total = denominator.fold_sum(), inverse = total == 0.0f ? 0.0f : 1.0f / total;
    block_.inverses[row_ - block_.first_row] = inverse;
    if constexpr (!mixed_signs) {
      alignas(64) int32_t lanes[W];
      store(lanes, sum);
      int32_t& all = block_.sums[row_ - block_.first_row];
      all = 0;
      for (const int32_t lane : lanes) all += lane;
    }
    if (args_.tap == nullptr) return;
    float* weights = tap_row();
    for (int j = 0; j < args_.tk; ++j) {
      const bool seen =
          j >= range_.first && j < range_.last && is_key(args_, j) && (args_.keep == nullptr || args_.keep[j] != 0);
      weights[j] = seen ? weights[j] * inverse : 0.0f;
    }
    args_.tap->row(args_.tap->context, args_.batch, args_.head, row_, weights, args_.tk);
  }

  float* tap_row() const { return args_.scores + args_.params.block_rows * ptrdiff_t{block_.keys}; }

  /// Probabilities of 0.
  static void fill(int8_t*& to, int count) {
    if (count <= 0) return;
    __builtin_memset(to, 0, static_cast<size_t>(count / 4 * group_bytes));
    to += count / 4 * group_bytes;
  }

  /// count * W probabilities, in the lowest bytes, as a tile reads rows.
  template <int count>
  HEED_INLINE static void put(const I (&q)[step_vectors], int8_t* to) {
    if constexpr (group_bytes == 8) {
#if defined(__AVX2__) && !defined(HEED_VNNI)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                          _mm256_blend_epi16(q[0].v, _mm256_slli_epi32(q[1].v, 16), 0xaa));
#endif
    } else if constexpr (count == 4) {
      store_bytes(to, q[0], q[1], q[2], q[3]);
    } else {
      unroll<count>([&](auto v) HEED_INLINE_LAMBDA { store_low(reinterpret_cast<uint8_t*>(to) + v * W, q[v]); });
    }
  }

  /// Calls body(key, which vector of how many that are written at once, lanes that the row sees, true_type where it sees
  /// all, how many).
  template <bool masks, class Body>
  HEED_INLINE void for_each_vector(Body body) const {
    const auto some = [&](int j) HEED_INLINE_LAMBDA {
      unroll<panel_vectors>([&](auto v) HEED_INLINE_LAMBDA {
        const I key = iota() + splat(j + v * W);
        M seen = sign_of(sub(splat(range_.first - 1), key) & sub(key, splat(range_.last)));
        if constexpr (masks) seen = both(seen, sign_of(load(args_.keep + j + v * W)));
        body(j + v * W, v, seen, std::false_type{}, std::integral_constant<int, panel_vectors>{});
      });
    };
    int j = range_.first / 16 * 16;
    if (j < range_.first) {
      some(j);
      j += 16;
    }
    const auto all = [&]<int count>(std::integral_constant<int, count> vectors) HEED_INLINE_LAMBDA {
      for (; j + count * W <= range_.last; j += count * W)
        unroll<count>(
            [&](auto v) HEED_INLINE_LAMBDA { body(j + v * W, v, M{}, std::true_type{}, vectors); });
    };
    if constexpr (masks) {
      for (; j + 16 <= range_.last; j += 16) some(j);
    } else {
      all(std::integral_constant<int, step_vectors>{});
      if constexpr (step_vectors != panel_vectors) all(std::integral_constant<int, panel_vectors>{});
    }
    if (j < range_.last) some(j);
  }

  const Block& block_;
  const AttentionI8Args& args_;
  int row_;
  float* scores_;
  KeyRange range_;
  Terms terms_{args_, row_};
};

/// y = (probabilities . v) / denominator
struct Output {
  const Block& block;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    const AttentionI8Args& args = block.args;
    const ptrdiff_t panel = ptrdiff_t{block.keys} * 16;
    const int at = row - block.first_row;
    TileI8<rows, vectors, true> tile;
    tile.multiply(reinterpret_cast<const int8_t*>(block.scores(row)) + ptrdiff_t{block.first} / 4 * group_bytes,
                  ptrdiff_t{block.keys} * ptrdiff_t{sizeof(float)},
                  args.values + column / 16 * panel + ptrdiff_t{block.first} * 16 + column % 16 * 4, panel,
                  block.sums + at, block.last - block.first);
    unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
      const F inverse = splat(block.inverses[at + r]);
      unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
        const F y = fma(to_f(tile.sum[r * vectors + v]), inverse, zero());
        store_first(args.y + (row + r) * args.y_row + column + v * W, y, args.dv - column - v * W);
      });
    });
  }
};

}  // namespace

void attention_i8(const AttentionI8Args& args) {
  const int keys = (args.tk + 15) / 16 * 16;
  if (!args.packed) {
    pack_keys(args, keys);
    sum_keys(args, keys);
    pack_values(args, keys, place);
  }
  constexpr int most = 32;
  float factors[most], inverses[most];
  alignas(64) float tops[most * 16];
  int32_t sums[most];
  const Terms terms(args, 0);
  const bool has_terms = terms.any_by_query();
  if (terms.any() && !has_terms)
    for (int j = 0; j < keys; j += W) store(args.addend + j, terms.addend(j));
  else
    __builtin_memcpy(args.addend, args.value_log, static_cast<size_t>(keys) * sizeof(float));
  const int rows_of_block = args.params.block_rows < most ? args.params.block_rows : most;
  for (int row = args.first_row; row < args.last_row; row += rows_of_block) {
    const int rows = args.last_row - row < rows_of_block ? args.last_row - row : rows_of_block;
    const int8_t* queries = args.q + row * args.q_row;
    ptrdiff_t queries_row = args.q_row;
    for (int r = 0; r < rows; ++r) factors[r] = factor_of(args, row + r);
    if constexpr (converts_rows) {
      auto* converted = reinterpret_cast<RowElement*>(args.queries);
      for (int r = 0; r < rows; ++r) convert_row(queries + r * queries_row, args.d, converted + r * row_elements(args.d));
      queries = reinterpret_cast<const int8_t*>(converted);
      queries_row = row_elements(args.d) * ptrdiff_t{sizeof(RowElement)};
    }
    const int first = keys_of(args, row).first / 16 * 16, end = keys_of(args, row + rows - 1).last;
    const Block block{args,      keys,    row,     first,       end <= first ? first : (end + 15) / 16 * 16,
                      has_terms, factors, queries, queries_row, inverses,
                      tops,      sums};
    for (int i = 0; i < rows * 16; i += W) store(tops + i, splat(hidden_log));
    if (block.first < block.last) Tiling<Scores, ShapesI8>::run({block}, row, rows, block.first, block.last);
    for (int r = 0; r < rows; ++r) Softmax(block, row + r).run();
    Tiling<Output, ShapesI8>::run({block}, row, rows, 0, args.dv);
  }
}

}  // namespace heed::HEED_ISA

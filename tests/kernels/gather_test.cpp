#include "kernels/gather/gather.h"

#include "tests/kernels/support.h"

using namespace heed;
using namespace heed::test;

namespace {

/// y by index arithmetic alone.
template <class T>
std::vector<T> expected(const Shape& table, const T* x, const Shape& index, const int32_t* picks, int axis,
                        const Shape& y) {
  std::vector<T> result(static_cast<size_t>(element_count(y)));
  for (size_t i = 0; i < result.size(); ++i) {
    int64_t at[max_rank], rest = static_cast<int64_t>(i), pick = 0, from = 0;
    for (int a = y.rank - 1; a >= 0; --a) at[a] = rest % y.dims[a], rest /= y.dims[a];
    for (int a = 0; a < index.rank; ++a) pick += at[axis + a] * index.strides[a];
    int64_t entry = picks[pick];
    if (entry < 0) entry += table.dims[axis];
    entry = std::max<int64_t>(0, std::min<int64_t>(entry, table.dims[axis] - 1));
    for (int a = 0; a < table.rank; ++a)
      from += (a < axis ? at[a] : a == axis ? entry : at[a - 1 + index.rank]) * table.strides[a];
    result[i] = x[from];
  }
  return result;
}

}  // namespace

TEST_CASE("gather: rows, columns, strided tables and indices out of range") {
  Random random(1);
  const Shape tables[] = {shape_of(Type::f32, {10, 33}),  shape_of(Type::f32, {10, 33}, {1, 10}),
                          shape_of(Type::f32, {4, 5, 6}), shape_of(Type::f32, {4, 5, 6}, {30, 1, 5}),
                          shape_of(Type::f32, {7}),       shape_of(Type::u8, {6, 9})};
  const Shape indices[] = {shape_of(Type::i32, {}), shape_of(Type::i32, {3}), shape_of(Type::i32, {2, 3}),
                           shape_of(Type::i32, {2, 3}, {1, 2}), shape_of(Type::i32, {0})};
  for (const Shape& table : tables) {
    for (const Shape& index : indices) {
      for (int axis = 0; axis < table.rank; ++axis) {
        Shape y = table;
        y.rank = 0;
        for (int a = 0; a < axis; ++a) y.dims[y.rank++] = table.dims[a];
        for (int a = 0; a < index.rank; ++a) y.dims[y.rank++] = index.dims[a];
        for (int a = axis + 1; a < table.rank; ++a) y.dims[y.rank++] = table.dims[a];
        for (int a = y.rank - 1, stride = 1; a >= 0; stride *= y.dims[a--]) y.strides[a] = stride;
        std::vector<int32_t> picks(6);
        for (int32_t& pick : picks) pick = static_cast<int32_t>(random() % 30) - 15;
        picks[1] = INT32_MIN;
        picks[2] = INT32_MAX;
        const Guarded<int32_t> pick(picks);
        const GatherParams params{static_cast<uint8_t>(axis), {}};
        for (const Isa isa : isas()) {
          if (table.type == Type::f32) {
            const Guarded<float> x(uniform(static_cast<size_t>(element_count(table)), random));
            const Guarded<float> out(static_cast<size_t>(element_count(y)));
            Call(gather_operator, &params)
                .input(table, x.data())
                .input(index, pick.data())
                .output(y, out.data())
                .run(isa);
            check_same(expected(table, x.data(), index, pick.data(), axis, y), out, name(isa));
          } else {
            std::vector<uint8_t> bytes(static_cast<size_t>(element_count(table)));
            for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
            const Guarded<uint8_t> x(bytes), out(static_cast<size_t>(element_count(y)));
            Call(gather_operator, &params)
                .input(table, x.data())
                .input(index, pick.data())
                .output(y, out.data())
                .run(isa);
            check_same(expected(table, x.data(), index, pick.data(), axis, y), out, name(isa));
          }
        }
      }
    }
  }
}

TEST_CASE("gather: columns of a matmul's panels") {
  Random random(2);
  for (const int entries : {1, 2, 15, 16, 17, 33, 64}) {
    for (const int k : {0, 1, 3, 16, 40}) {
      const int blocks = (entries + 15) / 16;
      const Shape table = shape_of(Type::f32, {blocks, k, 16}), index = shape_of(Type::i32, {2, 3}, {1, 2}),
                  y = shape_of(Type::f32, {2, 3, k}), plain = shape_of(Type::f32, {entries, k});
      std::vector<float> rows = uniform(static_cast<size_t>(entries * k), random),
                         packed(static_cast<size_t>(element_count(table)));
      for (int i = 0; i < entries; ++i)
        for (int c = 0; c < k; ++c)
          packed[static_cast<size_t>((i / 16 * k + c) * 16 + i % 16)] = rows[static_cast<size_t>(i * k + c)];
      const Guarded<float> x(packed);
      const Guarded<int32_t> pick(std::vector<int32_t>{0, -1, entries - 1, entries, INT32_MIN, INT32_MAX});
      const GatherParams params{0, 1, static_cast<uint8_t>(blocks * 16 - entries)};
      for (const Isa isa : isas()) {
        const Guarded<float> out(static_cast<size_t>(element_count(y)));
        Call(gather_operator, &params).input(table, x.data()).input(index, pick.data()).output(y, out.data()).run(isa);
        check_same(expected(plain, rows.data(), index, pick.data(), 0, y), out, name(isa));
      }
    }
  }
}

TEST_CASE("gather: rows of int8 with scales, plain and in panels") {
  Random random(3);
  for (const int entries : {1, 15, 16, 17, 64}) {
    for (const int k : {0, 1, 4, 7, 16, 41}) {
      const int blocks = (entries + 15) / 16, groups = (k + 3) / 4;
      const Shape index = shape_of(Type::i32, {2, 3}, {1, 2}), y = shape_of(Type::f32, {2, 3, k}),
                  plain = shape_of(Type::i8, {entries, k}), panels = shape_of(Type::i8, {blocks, groups, 16, 4}),
                  values = shape_of(Type::f32, {entries, k}), scale_shape = shape_of(Type::f32, {entries}),
                  panel_scales = shape_of(Type::f32, {blocks, 16});
      std::vector<int8_t> rows(static_cast<size_t>(entries * k)), packed(static_cast<size_t>(blocks * groups * 64));
      std::vector<float> scales = uniform(static_cast<size_t>(blocks * 16), random), products(rows.size());
      for (int i = 0; i < entries; ++i)
        for (int c = 0; c < k; ++c) {
          const auto at = static_cast<size_t>(i * k + c);
          rows[at] = static_cast<int8_t>(random());
          packed[static_cast<size_t>((i / 16 * groups + c / 4) * 64 + i % 16 * 4 + c % 4)] = rows[at];
          products[at] = static_cast<float>(rows[at]) * scales[static_cast<size_t>(i)];
        }
      const Guarded<int8_t> table{std::span<const int8_t>(rows)}, columns{std::span<const int8_t>(packed)};
      const Guarded<float> all_scales{std::span<const float>(scales)},
          own_scales(std::span<const float>(scales).first(static_cast<size_t>(entries)));
      const Guarded<int32_t> pick(std::vector<int32_t>{0, -1, entries - 1, entries, INT32_MIN, INT32_MAX});
      const GatherParams as_rows{0}, as_columns{0, 1, static_cast<uint8_t>(blocks * 16 - entries)};
      const std::vector<float> wanted = expected(values, products.data(), index, pick.data(), 0, y);
      for (const Isa isa : isas()) {
        const Guarded<float> of_rows(wanted.size()), of_columns(wanted.size());
        Call(gather_operator, &as_rows)
            .input(plain, table.data())
            .input(index, pick.data())
            .input(scale_shape, own_scales.data())
            .output(y, of_rows.data())
            .run(isa);
        Call(gather_operator, &as_columns)
            .input(panels, columns.data())
            .input(index, pick.data())
            .input(panel_scales, all_scales.data())
            .output(y, of_columns.data())
            .run(isa);
        check_same(wanted, of_rows, name(isa));
        check_same(wanted, of_columns, name(isa));
      }
    }
  }
}

TEST_CASE("gather: the contract") {
  const Shape table = shape_of(Type::f32, {4, 5}), index = shape_of(Type::i32, {3}), y = shape_of(Type::f32, {3, 5}),
              wrong = shape_of(Type::f32, {3, 4}), floats = shape_of(Type::f32, {3}),
              bytes = shape_of(Type::u8, {3, 5}), gaps = shape_of(Type::f32, {3, 5}, {6, 1}),
              empty = shape_of(Type::f32, {0, 5});
  float data[64];
  const auto refused = [&](const Shape& a, const Shape& b, const Shape& c, uint8_t axis) {
    const GatherParams params{axis, {}};
    return bool(Call(gather_operator, &params).input(a, data).input(b, data).output(c, data).check());
  };
  CHECK(!refused(table, index, y, 0));
  CHECK(refused(table, index, y, 1));
  CHECK(refused(table, index, y, 2));
  CHECK(refused(table, index, wrong, 0));
  CHECK(refused(table, floats, y, 0));
  CHECK(refused(table, index, bytes, 0));
  CHECK(refused(table, index, gaps, 0));
  CHECK(refused(empty, index, y, 0));
  const Shape panels = shape_of(Type::f32, {2, 5, 16});
  const auto refused_packed = [&](const Shape& a, const Shape& c, GatherParams params) {
    return bool(Call(gather_operator, &params).input(a, data).input(index, data).output(c, data).check());
  };
  CHECK(!refused_packed(panels, y, {0, 1, 15}));
  CHECK(refused_packed(panels, y, {0, 2, 15}));
  CHECK(refused_packed(panels, y, {1, 1, 15}));
  CHECK(refused_packed(panels, y, {0, 1, 16}));
  CHECK(refused_packed(panels, wrong, {0, 1, 0}));
  CHECK(refused_packed(shape_of(Type::f32, {0, 5, 16}), y, {0, 1, 0}));
  CHECK(refused_packed(shape_of(Type::f32, {2, 5, 8}), y, {0, 1, 0}));
  CHECK(refused_packed(shape_of(Type::f32, {2, 5, 16}, {80, 1, 5}), y, {0, 1, 0}));
  CHECK(refused_packed(table, y, {0, 1, 0}));
  const Shape rows = shape_of(Type::i8, {4, 5}), scale = shape_of(Type::f32, {4}),
              columns = shape_of(Type::i8, {2, 2, 16, 4}), scales = shape_of(Type::f32, {2, 16});
  const auto refused_scaled = [&](const Shape& a, const Shape& b, const Shape& c, GatherParams params) {
    return bool(
        Call(gather_operator, &params).input(a, data).input(index, data).input(b, data).output(c, data).check());
  };
  CHECK(!refused_scaled(rows, scale, y, {0}));
  CHECK(!refused_scaled(columns, scales, y, {0, 1, 15}));
  CHECK(refused_scaled(table, scale, y, {0}));
  CHECK(refused_scaled(rows, scale, y, {1}));
  CHECK(refused_scaled(rows, scale, wrong, {0}));
  CHECK(refused_scaled(rows, shape_of(Type::f32, {3}), y, {0}));
  CHECK(refused_scaled(rows, shape_of(Type::f32, {4}, {2}), y, {0}));
  CHECK(refused_scaled(rows, scales, y, {0}));
  CHECK(refused_scaled(columns, shape_of(Type::f32, {2, 8}), y, {0, 1, 15}));
  CHECK(refused_scaled(columns, scales, shape_of(Type::f32, {3, 9}), {0, 1, 15}));
  CHECK(refused_scaled(shape_of(Type::i8, {2, 2, 16, 5}), scales, y, {0, 1, 15}));
  CHECK(refused_scaled(shape_of(Type::i8, {0, 5}), shape_of(Type::f32, {0}), y, {0}));
}

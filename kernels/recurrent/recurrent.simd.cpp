#include "kernels/recurrent/recurrent.h"

#include "kernels/matmul/tile.h"
#include "kernels/recurrent/layer.h"

namespace heed::HEED_ISA {
namespace {

/// to[row][column] = a[row][..] . w[..][column] (+ bias). Panel p of the columns is panel first + p * step of w and of
/// `to`.
struct Product {
  const float* a;
  ptrdiff_t a_row, k;
  const float* w;
  const float* bias;  // or null
  float* to;
  ptrdiff_t to_row;
  int first, step, gates, biases;

  template <int rows, int vectors>
  HEED_INLINE void run(int row, int column) const {
    Tile<rows, vectors> tile;
    const int panel = first + column / 16 * step, lane = column % 16;
    tile.add(a + row * a_row, a_row, 1, w + panel * k * 16 + lane, 16, step * k * 16, k);
    unroll<vectors>([&](auto v) HEED_INLINE_LAMBDA {
      const int at = panel + v * W / 16 * step, in_panel = lane + v * W % 16;
      F b = zero();
      if (bias != nullptr) b = load(bias + (at / gates * biases + at % gates) * 16 + in_panel);
      unroll<rows>([&](auto r) HEED_INLINE_LAMBDA {
        F sum = tile.sum[r * vectors + v];
        if (bias != nullptr) sum = sum + b;
        store(to + (row + r) * to_row + at * 16 + in_panel, sum);
      });
    });
  }
};

struct Products {
  const RecurrentArgs& args;
  int units, gates, biases;

  explicit Products(const RecurrentArgs& args)
      : args(args),
        units(units_of(args.params)),
        gates(gates_of(args.params.cell)),
        biases(args.params.cell == Cell::gru && args.params.linear_before_reset ? 4 : gates) {}

  void input(int first, int steps) const {
    const int64_t x_step = args.reverse ? -args.x_step : args.x_step;
    const int columns = units * gates;
    Product product{args.x + args.time(first) * args.x_step,
                    static_cast<ptrdiff_t>(args.x_batch),
                    args.inputs,
                    args.w,
                    args.b,
                    args.product,
                    columns,
                    0,
                    1,
                    gates,
                    biases};
    if (args.batch == 1 || x_step == args.batch * args.x_batch) {  // rows of all steps at one stride
      if (args.batch == 1) product.a_row = static_cast<ptrdiff_t>(x_step);
      Tiling<Product>::run(product, 0, steps * args.batch, 0, columns);
      return;
    }
    for (int s = 0; s < steps; ++s, product.a += x_step, product.to += ptrdiff_t{args.batch} * columns) {
      Tiling<Product>::run(product, 0, args.batch, 0, columns);
    }
  }

  void state(int step, const float* h, int first, int each) const {
    const Product product{
        h, units, args.params.hidden, args.r, nullptr, args.sums, ptrdiff_t{units} * gates, first, each, gates, biases};
    // To and fro, so that what the first cache level holds of R is used twice.
    constexpr int piece = tile_vectors(1) * W;
    const int columns = units * gates / each, pieces = (columns + piece - 1) / piece;
    for (int i = 0; i < pieces; ++i) {
      const int column = (step % 2 == 0 ? i : pieces - 1 - i) * piece;
      const int end = columns - column < piece ? columns : column + piece;
      Tiling<Product>::run(product, 0, args.batch, column, end);
    }
  }
};

}  // namespace

void recurrent(const RecurrentArgs& args) {
  Layer(args, Products(args), args.b).run();
}

}  // namespace heed::HEED_ISA

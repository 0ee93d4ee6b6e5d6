#pragma once
/// The products of a recurrent layer in int8. After kernels/simd.h or kernels/scalar.h.
#include "kernels/matmul_i8/matmul_i8.h"
#include "kernels/quantize/group.h"
#include "kernels/recurrent/layer.h"
#include "kernels/recurrent_i8/recurrent_i8.h"

namespace heed::HEED_ISA {
namespace {

struct ProductsI8 {
  const RecurrentI8Args& args;
  int units, columns;

  explicit ProductsI8(const RecurrentI8Args& args)
      : args(args), units(units_of(args.params)), columns(units * gates_of(args.params.cell)) {}

  void input(int first, int steps) const {
    const int sign = args.reverse ? -1 : 1;
    MatmulI8Args product = of(args.w, args.inputs, args.product);
    product.a = args.x + args.time(first) * args.x_step;
    product.a_scale = args.x_scale + args.time(first) * args.scale_step;
    product.a_row = args.x_batch;
    product.a_scale_row = args.scale_batch;
    product.rows = args.batch;
    // Rows of all steps at one stride are one product.
    const bool whole = args.batch == 1 || (sign * args.x_step == args.batch * args.x_batch &&
                                           sign * args.scale_step == args.batch * args.scale_batch);
    if (args.batch == 1) {
      product.a_row = sign * args.x_step;
      product.a_scale_row = sign * args.scale_step;
    }
    if (whole) product.rows *= steps;
    for (int s = 0; s < (whole ? 1 : steps); ++s) {
      matmul_i8(product);
      product.a += sign * args.x_step;
      product.a_scale += sign * args.scale_step;
      product.y += args.batch * product.y_row;
    }
  }

  void state(int, const float* h, int first, int each) const {
    quantize_rows(h, units, args.batch, args.params.hidden, {args.h8, args.h_scale, nullptr, units, 1, 0, 1});
    MatmulI8Args product = of(args.r, args.params.hidden, args.sums);
    product.a = args.h8;
    product.a_scale = args.h_scale;
    product.a_row = units;
    product.a_scale_row = 1;
    product.rows = args.batch;
    product.n = each == 1 ? columns : 16;
    const int64_t panel = (int64_t{product.k} + 3) / 4 * 64;
    for (int column = first * 16; column < columns; column += each == 1 ? columns : each * 16) {
      MatmulI8Args gate = product;
      gate.b += column / 16 * panel;
      gate.b_scale += column;
      gate.b_sum += column;
      if (gate.bias != nullptr) gate.bias += column;
      gate.y += column;
      matmul_i8(gate);
    }
  }

 private:
  MatmulI8Args of(const PanelsI8& panels, int k, float* y) const {
    MatmulI8Args product{};
    product.b = panels.weights;
    product.b_scale = panels.scale;
    product.b_sum = panels.sum;
    product.bias = panels.bias;
    product.y = y;
    product.y_row = product.n = columns;
    product.k = k;
    product.block_rows = args.block_rows;
    product.converted = args.converted;
    return product;
  }
};

}  // namespace
}  // namespace heed::HEED_ISA

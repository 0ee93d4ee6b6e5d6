/// product_i8 ISA M K N TIMES: computes an int8 product with scales and bias so many times, for instructions to be
/// counted (arm.py).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/matmul_i8/matmul_i8.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const int m = std::atoi(argv[2]), k = std::atoi(argv[3]), n = std::atoi(argv[4]), rows = 24;
  const auto round = [](int count) { return static_cast<size_t>(count + 15) / 16 * 16; };
  const std::vector<int8_t> a(static_cast<size_t>(m * k), 3), b(round(n) * round(k), -5);
  const std::vector<float> scales(static_cast<size_t>(m) + round(n), 0.01f);
  const std::vector<int32_t> sums(round(n), -5 * k);
  std::vector<float> y(static_cast<size_t>(m * n));
  std::vector<int16_t> converted(rows * round(k));
  heed::MatmulI8Args args{};
  args.a = a.data();
  args.a_scale = args.b_scale = args.bias = scales.data();
  args.b = b.data();
  args.b_sum = sums.data();
  args.y = y.data();
  args.rows = m;
  args.n = n;
  args.k = k;
  args.block_rows = rows;
  args.a_row = k;
  args.a_scale_row = 1;
  args.y_row = n;
  args.converted = converted.data();
  for (int i = 1; i < heed::isa_count; ++i)
    if (const auto isa = static_cast<heed::Isa>(i);
        std::strcmp(heed::name(isa), argv[1]) == 0 && heed::available(isa)) {
      for (int time = 0; time < std::atoi(argv[5]); ++time) heed::matmul_i8_variants[isa](args);
      return 0;
    }
  std::fprintf(stderr, "%s is not there\n", argv[1]);
  return 1;
}

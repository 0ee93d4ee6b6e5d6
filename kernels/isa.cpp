#include "kernels/isa.h"

#include "kernels/variants.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace heed {
namespace {

#if defined(__x86_64__)

struct Registers {
  uint32_t a, b, c, d;
};

Registers identify(uint32_t leaf, uint32_t subleaf) {
  Registers r{};
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);  // all zeros where the processor has no such leaf
  return r;
}

/// The register files that the operating system saves: XCR0.
uint64_t saved_state() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

/// Can this processor and its operating system run what was compiled for `isa`?
bool runs(Isa isa) {
  constexpr uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28;  // leaf 1, c
  constexpr uint32_t avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, cd = 1u << 28, bw = 1u << 30,
                     vl = 1u << 31;                             // leaf 7, b
  constexpr uint32_t avx512vnni = 1u << 11, avxvnni = 1u << 4;  // leaf 7, c; its second part, a
  constexpr uint64_t ymm_state = 0x06, zmm_state = 0xe6;
  const auto has = [](uint64_t word, uint64_t bits) { return (word & bits) == bits; };

  if (isa == Isa::portable) return true;
  if (!has(identify(1, 0).c, fma | osxsave | avx)) return false;
  const Registers seven = identify(7, 0);
  const uint64_t state = saved_state();
  if (isa == Isa::avx2 || isa == Isa::avxvnni)
    return has(seven.b, avx2) && has(state, ymm_state) && (isa == Isa::avx2 || has(identify(7, 1).a, avxvnni));
  return has(seven.b, avx2 | f | dq | cd | bw | vl) && has(state, zmm_state) &&
         (isa == Isa::avx512 || has(seven.c, avx512vnni));
}

#elif defined(__aarch64__) && defined(__linux__)

/// Can this processor run what was compiled for `isa`? The kernel says so to every process.
bool runs(Isa isa) {
  constexpr unsigned long dotprod = 1ul << 20, i8mm = 1ul << 13;
  const bool has_dotprod = (getauxval(AT_HWCAP) & dotprod) != 0;
  if (isa == Isa::dotprod) return has_dotprod;
  if (isa == Isa::i8mm) return has_dotprod && (getauxval(AT_HWCAP2) & i8mm) != 0;
  return true;
}

#else

/// Without an operating system that could be asked, the build is for a target that has what it was compiled for, and
/// no more is known.
bool runs(Isa isa) {
#if !defined(__ARM_FEATURE_DOTPROD)
  if (isa == Isa::dotprod) return false;
#endif
#if !defined(__ARM_FEATURE_MATMUL_INT8)
  if (isa == Isa::i8mm) return false;
#endif
  return isa == Isa::portable || isa == Isa::neon || isa == Isa::dotprod || isa == Isa::i8mm;
}

#endif

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avxvnni:
      return "avxvnni";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512vnni:
      return "avx512vnni";
    case Isa::neon:
      return "neon";
    case Isa::dotprod:
      return "dotprod";
    case Isa::i8mm:
      return "i8mm";
  }
  return "?";
}

Isa below(Isa isa) {
  switch (isa) {
    case Isa::avxvnni:
    case Isa::avx512:
      return Isa::avx2;
    case Isa::avx512vnni:
      return Isa::avx512;
    case Isa::dotprod:
      return Isa::neon;
    case Isa::i8mm:
      return Isa::dotprod;
    default:
      return Isa::portable;
  }
}

bool available(Isa isa) {
#define HEED_BUILT(name) \
  if (isa == Isa::name) return runs(isa);
  HEED_FOR_EACH_ISA(HEED_BUILT)
#undef HEED_BUILT
  return false;
}

Isa best_isa() {
  Isa best = Isa::portable;
#define HEED_BUILT(name) \
  if (runs(Isa::name)) best = Isa::name;
  HEED_FOR_EACH_ISA(HEED_BUILT)
#undef HEED_BUILT
  return best;
}

}  // namespace heed

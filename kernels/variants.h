#pragma once
/// Which instruction sets this build holds kernels for, and how an operator declares and picks its variants.
///
/// A file kernels/<op>/<op>.simd.cpp is compiled once for each instruction set of the build, with HEED_ISA defined as
/// its name (avx2, avx512, neon), and defines `void heed::HEED_ISA::<op>(const <Op>Args&)`. `heed::portable::<op>` is
/// the reference in <op>.cpp. Float operators have no kernels of their own for the int8 levels: they take the one
/// below; the files of int8 operators, kernels/<op>_i8/<op>_i8.simd.cpp, are compiled for these too, and not for
/// avx512, which has nothing of its own for them.
#include "kernels/isa.h"

// X(isa, function, Args); of all, X(isa).
#if defined(__x86_64__)
#define HEED_FOR_EACH_FLOAT_ISA(X, function, Args) \
  X(portable, function, Args) X(avx2, function, Args) X(avx512, function, Args)
#define HEED_FOR_EACH_I8_ISA(X, function, Args) \
  X(portable, function, Args) X(avx2, function, Args) X(avxvnni, function, Args) X(avx512vnni, function, Args)
#define HEED_FOR_EACH_ISA(X) X(portable) X(avx2) X(avxvnni) X(avx512) X(avx512vnni)
#elif defined(__aarch64__)
#define HEED_FOR_EACH_FLOAT_ISA(X, function, Args) X(portable, function, Args) X(neon, function, Args)
#define HEED_FOR_EACH_I8_ISA(X, function, Args) \
  HEED_FOR_EACH_FLOAT_ISA(X, function, Args) X(dotprod, function, Args) X(i8mm, function, Args)
#define HEED_FOR_EACH_ISA(X) X(portable) X(neon) X(dotprod) X(i8mm)
#elif defined(__arm__) && defined(__ARM_NEON)
#define HEED_FOR_EACH_FLOAT_ISA(X, function, Args) X(portable, function, Args) X(neon, function, Args)
#define HEED_FOR_EACH_I8_ISA(X, function, Args) HEED_FOR_EACH_FLOAT_ISA(X, function, Args)
#define HEED_FOR_EACH_ISA(X) X(portable) X(neon)
#else
#define HEED_FOR_EACH_FLOAT_ISA(X, function, Args) X(portable, function, Args)
#define HEED_FOR_EACH_I8_ISA(X, function, Args) X(portable, function, Args)
#define HEED_FOR_EACH_ISA(X) X(portable)
#endif

/// Declares heed::<isa>::function(const Args&) for every instruction set that has it, and heed::function##_variants,
/// which picks one.
#define HEED_DECLARE_VARIANTS(function, Args) HEED_DECLARE_FOR(HEED_FOR_EACH_FLOAT_ISA, function, Args)
#define HEED_DECLARE_I8_VARIANTS(function, Args) HEED_DECLARE_FOR(HEED_FOR_EACH_I8_ISA, function, Args)
#define HEED_DECLARE_FOR(for_each, function, Args)                                                    \
  for_each(HEED_DECLARE_VARIANT, function, Args) inline constexpr Variants<Args> function##_variants{ \
      {for_each(HEED_VARIANT_ROW, function, Args)}};
#define HEED_DECLARE_VARIANT(isa, function, Args) \
  namespace isa {                                 \
  void function(const Args&);                     \
  }
#define HEED_VARIANT_ROW(isa, function, Args) {Isa::isa, isa::function},

namespace heed {

/// The variants of one kernel, ascending.
template <class Args>
struct Variants {
  using Kernel = void (*)(const Args&);
  struct Row {
    Isa isa;
    Kernel kernel;
  } rows[4];  // those left over have no kernel

  /// The instruction set of the best variant at or below `ceiling`.
  Isa level(Isa ceiling) const {
    for (;; ceiling = below(ceiling))
      for (const Row& row : rows)
        if (row.kernel != nullptr && row.isa == ceiling) return ceiling;
  }
  Kernel operator[](Isa ceiling) const {
    const Isa isa = level(ceiling);
    for (const Row& row : rows)
      if (row.isa == isa) return row.kernel;
    return rows[0].kernel;
  }
};

}  // namespace heed

#pragma once
/// Which instruction sets this build holds kernels for, and how an operator declares and picks its variants.
///
/// A file kernels/<op>/<op>.simd.cpp is compiled once for each instruction set of the build, with HEED_ISA defined as
/// its name (avx2, avx512, neon), and defines `void heed::HEED_ISA::<op>(const <Op>Args&)`. `heed::portable::<op>` is
/// the reference in <op>.cpp. The int8 levels have no kernels of their own for float operators: they take the one
/// below.
#include "kernels/isa.h"

#if defined(__x86_64__)
#define HEED_FOR_EACH_ISA(X) X(portable) X(avx2) X(avx512)
#elif defined(__aarch64__) || (defined(__arm__) && defined(__ARM_NEON))
#define HEED_FOR_EACH_ISA(X) X(portable) X(neon)
#else
#define HEED_FOR_EACH_ISA(X) X(portable)
#endif

/// Declares heed::<isa>::function(const Args&) for every instruction set of the build, and
/// heed::function##_variants, which picks one.
#if defined(__x86_64__)
#define HEED_DECLARE_VARIANTS(function, Args)          \
  namespace portable {                                 \
  void function(const Args&);                          \
  }                                                    \
  namespace avx2 {                                     \
  void function(const Args&);                          \
  }                                                    \
  namespace avx512 {                                   \
  void function(const Args&);                          \
  }                                                    \
  inline constexpr Variants<Args> function##_variants{ \
      {{Isa::portable, portable::function}, {Isa::avx2, avx2::function}, {Isa::avx512, avx512::function}}, 3};
#elif defined(__aarch64__) || (defined(__arm__) && defined(__ARM_NEON))
#define HEED_DECLARE_VARIANTS(function, Args)          \
  namespace portable {                                 \
  void function(const Args&);                          \
  }                                                    \
  namespace neon {                                     \
  void function(const Args&);                          \
  }                                                    \
  inline constexpr Variants<Args> function##_variants{ \
      {{Isa::portable, portable::function}, {Isa::neon, neon::function}}, 2};
#else
#define HEED_DECLARE_VARIANTS(function, Args) \
  namespace portable {                        \
  void function(const Args&);                 \
  }                                           \
  inline constexpr Variants<Args> function##_variants{{{Isa::portable, portable::function}}, 1};
#endif

namespace heed {

/// The variants of one kernel, ascending.
template <class Args>
struct Variants {
  using Kernel = void (*)(const Args&);
  struct Row {
    Isa isa;
    Kernel kernel;
  } rows[4];
  int count;

  /// The instruction set of the best variant at or below `ceiling`.
  Isa level(Isa ceiling) const {
    for (;; ceiling = below(ceiling))
      for (int i = 0; i < count; ++i)
        if (rows[i].isa == ceiling) return ceiling;
  }
  Kernel operator[](Isa ceiling) const {
    const Isa isa = level(ceiling);
    for (int i = 0; i < count; ++i)
      if (rows[i].isa == isa) return rows[i].kernel;
    return rows[0].kernel;
  }
};

}  // namespace heed

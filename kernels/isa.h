#pragma once
#include <cstdint>

namespace heed {

/// Instruction sets that kernels are written for. A name is a ceiling: every operator takes its best variant at or
/// below it (portable < avx2 < avxvnni; avx2 < avx512 < avx512vnni; portable < neon < dotprod < i8mm).
enum class Isa : uint8_t { portable, avx2, avxvnni, avx512, avx512vnni, neon, dotprod, i8mm };
inline constexpr int isa_count = 8;

/// "portable", "avx2", ...: the spelling of `--isa`.
const char* name(Isa isa);

/// The next level below `isa`; portable is below everything, itself included.
Isa below(Isa isa);

/// True where this build holds kernels for `isa` and this processor (and its operating system) can run them. The
/// detection reads the processor's identification at each call (no static state); on ARM a build for the target
/// decides.
bool available(Isa isa);

/// The highest available level.
Isa best_isa();

}  // namespace heed

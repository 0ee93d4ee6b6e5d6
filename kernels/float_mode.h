#pragma once
/// The floating-point mode that every kernel assumes: subnormals are zero as operands and as results, rounding to
/// nearest even, no traps.
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace heed {

/// Sets the mode for the calling thread and brings the caller's back at the end of the scope.
class FlushToZero {
 public:
  FlushToZero() : before_(read()) { write(kernel_mode(before_)); }
  ~FlushToZero() { write(before_); }
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;  // MXCSR: exceptions masked, round to nearest, FTZ (bit 15) and DAZ (bit 6)
  static Word read() {
    return _mm_getcsr();
  }
  static void write(Word mode) {
    _mm_setcsr(mode);
  }
  static Word kernel_mode(Word) {
    return 0x1f80 | 0x8040;
  }
#elif defined(__aarch64__)
  using Word = uint64_t;  // FPCR: FZ (bit 24); traps (8 to 15), rounding (22, 23), FIZ, AH, NEP (0 to 2) off
  static Word read() {
    Word mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(Word mode) {
    asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
  }
  static Word kernel_mode(Word) {
    return Word{1} << 24;
  }
#elif defined(__arm__) && defined(__ARM_FP)
  using Word = uint32_t;  // FPSCR: FZ (bit 24); the condition flags and counters stay
  static Word read() {
    Word mode;
    asm volatile("vmrs %0, fpscr" : "=r"(mode));
    return mode;
  }
  static void write(Word mode) {
    asm volatile("vmsr fpscr, %0" : : "r"(mode) : "memory");
  }
  static Word kernel_mode(Word before) {
    return (before & 0xf8000000u) | (1u << 24);
  }
#else
  using Word = uint32_t;
  static Word read() {
    return 0;
  }
  static void write(Word) {}
  static Word kernel_mode(Word) {
    return 0;
  }
#endif
  Word before_;
};

}  // namespace heed

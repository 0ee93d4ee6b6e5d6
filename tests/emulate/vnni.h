#pragma once
/// Four products of unsigned and signed bytes added to an int32, for processors without VNNI: the instruction as a
/// function, so that the kernels that are made of it can be tested there. Included before all else.
#include <immintrin.h>

// NOLINTBEGIN: these names are the compiler's, and the kernels'
#define __AVXVNNI__ 1
static inline __m256i emulated_dpbusd(__m256i sum, __m256i bytes, __m256i weights) {
  const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(bytes, 8);
  const __m256i even_weights = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8);
  const __m256i odd_weights = _mm256_srai_epi16(weights, 8);
  return _mm256_add_epi32(
      sum, _mm256_add_epi32(_mm256_madd_epi16(even, even_weights), _mm256_madd_epi16(odd, odd_weights)));
}
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd
// NOLINTEND

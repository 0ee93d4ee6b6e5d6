#pragma once
/// Counts every entry of the C library's allocator, in the one file of a program that includes this.
#include <atomic>
#include <cstdlib>

// The sanitizers bring an allocator of their own; glibc lets a program put its own in the place of the library's.
#if defined(__SANITIZE_ADDRESS__)
#define HEED_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEED_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(HEED_SANITIZED)
#define HEED_COUNTS_ALLOCATIONS 1
#endif

namespace heed::test {
inline std::atomic<long> allocations{0};  // stays 0 where they are not counted
}

#ifdef HEED_COUNTS_ALLOCATIONS

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) {
  ++heed::test::allocations;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++heed::test::allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  ++heed::test::allocations;
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++heed::test::allocations;
  return __libc_memalign(alignment, size);
}
void free(void* memory) {
  ++heed::test::allocations;
  __libc_free(memory);
}
}
#endif

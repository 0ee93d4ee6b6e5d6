/* What every example needs of files and memory, for C and C++. */
#ifndef FILES_H
#define FILES_H
#include <stdio.h>
#include <stdlib.h>

__attribute__((noreturn)) static inline void fail(const char* what, const char* where) {
  fprintf(stderr, "%s: %s\n", where, what);
  exit(1);
}

/* heed wants a model's bytes and its arena at a multiple of 64. */
static inline void* allocate_aligned(size_t size) {
  void* bytes = aligned_alloc(64, (size + 63) / 64 * 64);
  if (bytes == NULL) fail("no memory", "arena");
  return bytes;
}

static inline void* read_whole(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail("cannot be opened", path);
  if (fgetc(file) == EOF) fail("is empty, or no file", path); /* a directory can be opened, not read */
  if (fseek(file, 0, SEEK_END) != 0) fail("is no file", path);
  *size = (size_t)ftell(file);
  rewind(file);
  void* bytes = allocate_aligned(*size);
  if (fread(bytes, 1, *size, file) != *size) fail("cannot be read", path);
  fclose(file);
  return bytes;
}

/* Whoever writes a file, standard output too, finds a full disk here at the latest. */
static inline void close_written(FILE* file, const char* path) {
  const int failed = ferror(file);
  if (fclose(file) != 0 || failed) fail("cannot be written", path);
}

#endif

#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void mcc_fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(status);
}

void *mcc_allocate(size_t bytes) {
  return mcc_reallocate(NULL, bytes);
}

void *mcc_allocate_zeros(size_t count, size_t element) {
  void *result = calloc(count > 0 ? count : 1, element);
  if (result == NULL) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory for %zu elements of %zu bytes", count, element);
  return result;
}

void *mcc_reallocate(void *memory, size_t bytes) {
  void *result = realloc(memory, bytes > 0 ? bytes : 1);
  if (result == NULL) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory for %zu bytes", bytes);
  return result;
}

/* How a program ends when it cannot go on. */
#ifndef MCC_FAILURE_H
#define MCC_FAILURE_H

#include <stddef.h>

/* Exit statuses. */
enum {
  MCC_EXIT_USAGE = 64,       /* the command line */
  MCC_EXIT_INPUT = 65,       /* a file that is read, the program's own data included */
  MCC_EXIT_UNSUPPORTED = 69, /* this CPU */
  MCC_EXIT_INTERNAL = 70,    /* memory, threads, a defect */
  MCC_EXIT_CREATE = 73,      /* an output that cannot be created */
  MCC_EXIT_IO = 74,          /* an output that cannot be written to the end */
  MCC_EXIT_INTERRUPT = 130,  /* Ctrl-C */
};

/* Prints "error: " and the message (lower case, no full stop) to standard error and exits. */
_Noreturn void mcc_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Uninitialised memory; never NULL. */
void *mcc_allocate(size_t bytes);

/* Zero-initialised memory for an array; never NULL. */
void *mcc_allocate_zeros(size_t count, size_t element);

/* As realloc; never NULL. */
void *mcc_reallocate(void *memory, size_t bytes);

#endif

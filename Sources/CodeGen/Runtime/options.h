/* The command line: options as a table, which also makes the help. */
#ifndef MCC_OPTIONS_H
#define MCC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thread_pool.h"

/* Texts of an option that may be repeated; starts as {0}. */
typedef struct mcc_texts {
  const char **items;
  int count;
} mcc_texts;

typedef enum mcc_option_kind {
  MCC_OPTION_FLAG,    /* bool */
  MCC_OPTION_INTEGER, /* int64_t in lowest ... highest */
  MCC_OPTION_NUMBER,  /* double in lowest ... highest */
  MCC_OPTION_TEXT,    /* const char * */
  MCC_OPTION_TEXTS,   /* mcc_texts */
} mcc_option_kind;

typedef struct mcc_option {
  const char *name; /* "--threads" or "-n" */
  mcc_option_kind kind;
  void *value;              /* of the kind's type; left alone when the option is not given */
  const char *placeholder;  /* of the value, in the help */
  const char *help;
  int64_t lowest, highest;
} mcc_option;

/* The row of a command that reads given tokens. */
#define MCC_CHUNK_OPTION(chunk)                                                                                      \
  {"--chunk", MCC_OPTION_INTEGER, chunk, "N", "most tokens to read in a call (as many as the program takes)", 1, INT32_MAX}

/* The last two rows of every table. */
#define MCC_COMMON_OPTIONS(threads, help)                                                                            \
  {"--threads", MCC_OPTION_INTEGER, threads, "N", "threads to use (one per core, or fewer)", 1, MCC_MAX_THREADS},    \
      {"--help", MCC_OPTION_FLAG, help, NULL, "show this help", 0, 0}

/* Everything on the command line that is no option. */
typedef struct mcc_arguments {
  const char **items;
  int count;
} mcc_arguments;

/*
 * Reads argv[1 ..< argc]: `--name value`, `--name=value`, `-n value`, flags without a value; "--" ends the options and
 * "-" is an argument. Anything wrong ends the program with status 64 and a sentence; an unknown option is told the
 * nearest one.
 */
mcc_arguments mcc_options_parse(const mcc_option *options, int count, int argc, char **argv);

/* Prints one line for each option to standard output. */
void mcc_options_print(const mcc_option *options, int count);

/* The word of the list nearest to `word`, or NULL if none is near. */
const char *mcc_nearest(const char *word, const char *const *words, int count);

#endif

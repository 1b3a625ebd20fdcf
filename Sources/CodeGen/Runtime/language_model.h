/* A language model that tokens are fed to, one text at a time. */
#ifndef MCC_LANGUAGE_MODEL_H
#define MCC_LANGUAGE_MODEL_H

#include "generation_settings.h"
#include "program.h"
#include "tokenizer.h"

typedef struct mcc_language_model {
  mcc_session session;
  mcc_tokenizer *tokenizer; /* NULL: ids only */
  mcc_generation_settings settings;
  const mcc_function *decode, *prefill; /* prefill may be NULL */
  int64_t chunk;                        /* most tokens of one call */
  int64_t rows;                         /* most rows of logits of one call */
  int64_t position;                     /* tokens in the cache */
} mcc_language_model;

/* Maps the bundle and starts the threads (0: one per available core, fewer for a small model). */
mcc_language_model mcc_language_model_start(int64_t threads);
void mcc_language_model_end(mcc_language_model *model);

/* Begins a new text. */
void mcc_language_model_restart(mcc_language_model *model);

/*
 * Appends ids[0 ..< count] to the text, count > 0 and at most context - position. Returns the logits [rows, vocabulary]
 * of the last `rows` tokens, valid until the next call; or NULL if Ctrl-C came first. More than one row needs
 * count <= chunk and rows <= model->rows.
 */
const float *mcc_language_model_feed(mcc_language_model *model, const int32_t *ids, int64_t count, int64_t rows);

/* From now on Ctrl-C only sets a flag; a second one ends the program. */
void mcc_catch_interrupt(void);
bool mcc_interrupted(void);

/* The commands. argv[0] is the command's name; each returns an exit status. */
int mcc_command_generate(int argc, char **argv);
int mcc_command_perplexity(int argc, char **argv);
int mcc_command_tokens(int argc, char **argv);
int mcc_command_logits(int argc, char **argv);
int mcc_command_bench(int argc, char **argv);

/* Prints the help of the whole program. */
void mcc_print_generate_options(void);

#endif

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
  const mcc_function *score;            /* losses of tokens; NULL where logits must do */
  const mcc_function *cross;            /* encodes a source that the text answers; NULL for a decoder alone */
  int64_t source;                       /* rows of the encoded source */
  int64_t chunk;                        /* most tokens of one call */
  int64_t rows;                         /* most rows of logits of one call */
  int64_t position;                     /* tokens in the cache */
} mcc_language_model;

/* Maps the bundle and starts the threads (0: one per available core, fewer for a small model). */
mcc_language_model mcc_language_model_start(int64_t threads);
void mcc_language_model_end(mcc_language_model *model);

/* Lets calls take at most so many tokens; 0: as many as there may be. */
void mcc_language_model_limit(mcc_language_model *model, int64_t chunk);

/* Begins a new text. */
void mcc_language_model_restart(mcc_language_model *model);

/*
 * Appends ids[0 ..< count] to the text, count > 0 and at most context - position. Returns the logits [rows, vocabulary]
 * of the last `rows` tokens, valid until the next call; or NULL if Ctrl-C came first. More than one row needs
 * count <= chunk and rows <= model->rows.
 */
const float *mcc_language_model_feed(mcc_language_model *model, const int32_t *ids, int64_t count, int64_t rows);

/*
 * Appends ids[0 ..< count] to the text, 0 < count <= chunk, and returns -log p of targets[0 ..< rows], the tokens that come
 * behind each of the last `rows` ones; valid until the next call. Needs model->score.
 */
const float *mcc_language_model_score(mcc_language_model *model, const int32_t *ids, int64_t count,
                                      const int32_t *targets, int64_t rows);

/*
 * For a model with `cross`: encodes the source that the text answers, as token ids or as an array of features from a file.
 * Without, the source is one row of zeros.
 */
void mcc_language_model_read_ids(mcc_language_model *model, const int32_t *ids, int64_t count);
void mcc_language_model_read_features(mcc_language_model *model, const char *path);

/* Whether the source is an array of features, not token ids. */
bool mcc_language_model_takes_features(const mcc_language_model *model);

/* From now on Ctrl-C only sets a flag; a second one ends the program. */
void mcc_catch_interrupt(void);
bool mcc_interrupted(void);

/* The commands. argv[0] is the command's name; each returns an exit status. */
int mcc_command_generate(int argc, char **argv);
int mcc_command_perplexity(int argc, char **argv);
int mcc_command_tokens(int argc, char **argv);
int mcc_command_logits(int argc, char **argv);
int mcc_command_bench(int argc, char **argv);

#endif

/* An encoder of texts: token ids to the outputs of the function `encode`. */
#ifndef MCC_ENCODER_H
#define MCC_ENCODER_H

#include "program.h"
#include "tokenizer.h"

typedef struct mcc_encoder {
  mcc_session session;
  mcc_tokenizer *tokenizer; /* NULL: ids only */
  const mcc_function *encode;
  const mcc_tensor *tokens, *output, *embedding; /* embedding: NULL if there is none */
} mcc_encoder;

/* Finds the function, and opens the tokenizer of the bundle. */
mcc_encoder mcc_encoder_open(void);

/* Starts the threads (0: one per available core, fewer for a small model). */
void mcc_encoder_start(mcc_encoder *encoder, int64_t threads);
void mcc_encoder_end(mcc_encoder *encoder);

/* Computes the outputs for ids[0 ..< count], 1 <= count <= mcc_model.context; they stay until the next call. */
void mcc_encoder_run(mcc_encoder *encoder, const int32_t *ids, int64_t count);

/* The elements of an output of the last call, f32, and their number. */
const float *mcc_encoder_result(const mcc_encoder *encoder, const mcc_tensor *output, int64_t count, int64_t *size);

/* The commands. argv[0] is the command's name; each returns an exit status. */
int mcc_command_embed(int argc, char **argv);
int mcc_command_tokens(int argc, char **argv);
int mcc_command_encode_ids(int argc, char **argv);
int mcc_command_encode_bench(int argc, char **argv);

#endif

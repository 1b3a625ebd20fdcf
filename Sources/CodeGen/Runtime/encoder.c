#include "encoder.h"

#include <string.h>

#include "commands.h"
#include "failure.h"

mcc_encoder mcc_encoder_open(void) {
  mcc_encoder it = {.encode = mcc_find_function("encode")};
  if (it.encode == NULL) mcc_fail(MCC_EXIT_INTERNAL, "the model has no function 'encode'");
  it.tokens = mcc_find_tensor(it.encode->inputs, it.encode->input_count, "tokens");
  it.output = mcc_find_tensor(it.encode->outputs, it.encode->output_count, "output");
  it.embedding = mcc_find_tensor(it.encode->outputs, it.encode->output_count, "embedding");
  if (it.tokens == NULL || it.output == NULL || it.encode->symbol_count != 1) {
    mcc_fail(MCC_EXIT_INTERNAL, "the function 'encode' lacks tokens, an output or a length");
  }
  it.session.bundle = mcc_bundle_map();
  if (it.session.bundle.tokenizer.size > 0) {
    const char *problem;
    it.tokenizer = mcc_tokenizer_open(it.session.bundle.tokenizer, mcc_model.vocabulary, &problem);
    if (it.tokenizer == NULL) mcc_fail(MCC_EXIT_INPUT, "the tokenizer of this program is damaged: %s", problem);
  }
  return it;
}

void mcc_encoder_start(mcc_encoder *it, int64_t threads) {
  it->session = mcc_session_start(it->session.bundle, threads);
}

void mcc_encoder_end(mcc_encoder *it) {
  if (it->tokenizer != NULL) mcc_tokenizer_close(it->tokenizer);
  mcc_session_end(&it->session);
}

void mcc_encoder_run(mcc_encoder *it, const int32_t *ids, int64_t count) {
  int64_t symbols[MCC_MAX_SYMBOLS] = {count};
  memcpy(it->session.arena + it->tokens->offset, ids, (size_t)count * sizeof *ids);
  mcc_session_call(&it->session, it->encode, symbols);
}

const float *mcc_encoder_result(const mcc_encoder *it, const mcc_tensor *output, int64_t count, int64_t *size) {
  int64_t symbols[MCC_MAX_SYMBOLS] = {count};
  *size = mcc_tensor_count(output, symbols);
  return (const float *)(const void *)(it->session.arena + output->offset);
}

const mcc_command mcc_commands[] = {
    {"embed", "print the embeddings of texts (the default)", mcc_command_embed},
    {"tokens", "print the token ids of texts", mcc_command_tokens},
    {"logits", "write the outputs for given token ids", mcc_command_encode_ids},
    {"bench", "measure the speed", mcc_command_encode_bench},
};
const int mcc_command_count = sizeof mcc_commands / sizeof *mcc_commands;
const char *const mcc_default_arguments = "[options] TEXT...";

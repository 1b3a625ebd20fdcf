#define _GNU_SOURCE
#include "language_model.h"

#include <signal.h>
#include <string.h>

#include "commands.h"
#include "failure.h"
#include "tensor_file.h"

static volatile sig_atomic_t interrupted;

static void set_interrupted(int number) {
  (void)number;
  interrupted = 1;
}

void mcc_catch_interrupt(void) {
  struct sigaction action = {.sa_handler = set_interrupted, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGINT, &action, NULL);
}

bool mcc_interrupted(void) {
  return interrupted != 0;
}

static const mcc_symbol *symbol_named(const mcc_function *function, const char *name) {
  int index = mcc_find_symbol(function, name);
  if (index < 0) mcc_fail(MCC_EXIT_INTERNAL, "function '%s' has no symbol '%s'", function->role, name);
  return &function->symbols[index];
}

static void check_function(const mcc_function *function, const char *result) {
  bool complete = mcc_find_tensor(function->inputs, function->input_count, "tokens") != NULL &&
                  mcc_find_tensor(function->inputs, function->input_count, "position") != NULL &&
                  mcc_find_tensor(function->outputs, function->output_count, result) != NULL;
  if (!complete) mcc_fail(MCC_EXIT_INTERNAL, "function '%s' lacks tokens, position or %s", function->role, result);
}

mcc_language_model mcc_language_model_start(int64_t threads) {
  mcc_bundle bundle = mcc_bundle_map();
  mcc_language_model it = {.decode = mcc_find_function("decode"), .prefill = mcc_find_function("prefill"),
                           .score = mcc_find_function("score"), .cross = mcc_find_function("cross"), .source = 1};
  if (it.decode == NULL) mcc_fail(MCC_EXIT_INTERNAL, "the model has no function 'decode'");
  check_function(it.decode, "logits");
  it.chunk = it.rows = 1;
  if (it.prefill != NULL) {
    check_function(it.prefill, "logits");
    it.chunk = symbol_named(it.prefill, "T")->maximum;
    it.rows = symbol_named(it.prefill, "L")->maximum;
  }
  if (it.score != NULL) {
    check_function(it.score, "losses");
    bool fits = it.prefill != NULL && symbol_named(it.score, "T")->maximum == it.chunk &&
                symbol_named(it.score, "L")->maximum == it.chunk &&
                mcc_find_tensor(it.score->inputs, it.score->input_count, "targets") != NULL;
    if (!fits) mcc_fail(MCC_EXIT_INTERNAL, "function 'score' does not fit 'prefill'");
  }
  it.settings = mcc_generation_settings_read(bundle.settings, mcc_model.vocabulary);
  if (bundle.tokenizer.size > 0) {
    const char *problem;
    it.tokenizer = mcc_tokenizer_open(bundle.tokenizer, mcc_model.vocabulary, &problem);
    if (it.tokenizer == NULL) mcc_fail(MCC_EXIT_INPUT, "the tokenizer of this program is damaged: %s", problem);
    if (it.settings.bos < 0) it.settings.bos = mcc_tokenizer_bos(it.tokenizer);
    int32_t eos = mcc_tokenizer_eos(it.tokenizer);
    if (it.settings.eos_count == 0 && eos >= 0) it.settings.eos[it.settings.eos_count++] = eos;
  }
  it.session = mcc_session_start(bundle, threads);
  return it;
}

void mcc_language_model_limit(mcc_language_model *it, int64_t chunk) {
  if (chunk == 0) return;
  if (chunk < it->chunk) it->chunk = chunk;
  if (chunk < it->rows) it->rows = chunk;
}

void mcc_language_model_end(mcc_language_model *it) {
  if (it->tokenizer != NULL) mcc_tokenizer_close(it->tokenizer);
  mcc_session_end(&it->session);
}

void mcc_language_model_restart(mcc_language_model *it) {
  it->position = 0;
}

/* One call of a function that takes tokens; its result. */
static const float *call(mcc_language_model *it, const mcc_function *function, const int32_t *ids, int64_t count,
                         int64_t rows, const char *result) {
  int64_t symbols[MCC_MAX_SYMBOLS] = {0};
  if (function != it->decode) {
    symbols[mcc_find_symbol(function, "T")] = count;
    symbols[mcc_find_symbol(function, "L")] = rows;
  }
  int source = mcc_find_symbol(function, "S");
  if (source >= 0) symbols[source] = it->source;
  const mcc_tensor *tokens = mcc_find_tensor(function->inputs, function->input_count, "tokens");
  const mcc_tensor *position = mcc_find_tensor(function->inputs, function->input_count, "position");
  const mcc_tensor *output = mcc_find_tensor(function->outputs, function->output_count, result);
  int32_t start = (int32_t)it->position;
  memcpy(it->session.arena + tokens->offset, ids, (size_t)count * sizeof *ids);
  memcpy(it->session.arena + position->offset, &start, sizeof start);
  mcc_session_call(&it->session, function, symbols);
  it->position += count;
  return (const float *)(const void *)(it->session.arena + output->offset);
}

const float *mcc_language_model_feed(mcc_language_model *it, const int32_t *ids, int64_t count, int64_t rows) {
  const float *logits = NULL;
  while (count > 0) {
    if (interrupted) return NULL;
    int64_t part = count < it->chunk ? count : it->chunk;
    logits = call(it, part == 1 ? it->decode : it->prefill, ids, part, rows < part ? rows : part, "logits");
    ids += part;
    count -= part;
  }
  return logits;
}

const float *mcc_language_model_score(mcc_language_model *it, const int32_t *ids, int64_t count,
                                      const int32_t *targets, int64_t rows) {
  const mcc_tensor *input = mcc_find_tensor(it->score->inputs, it->score->input_count, "targets");
  memcpy(it->session.arena + input->offset, targets, (size_t)rows * sizeof *targets);
  return call(it, it->score, ids, count, rows, "losses");
}

static const mcc_tensor *source_input(const mcc_language_model *it, const char *name) {
  return it->cross == NULL ? NULL : mcc_find_tensor(it->cross->inputs, it->cross->input_count, name);
}

bool mcc_language_model_takes_features(const mcc_language_model *it) {
  return source_input(it, "features") != NULL;
}

void mcc_language_model_read_ids(mcc_language_model *it, const int32_t *ids, int64_t count) {
  const mcc_tensor *tokens = source_input(it, "tokens");
  if (tokens == NULL) mcc_fail(MCC_EXIT_USAGE, "this model takes no token ids as a source");
  int64_t symbols[MCC_MAX_SYMBOLS] = {0};
  int symbol = mcc_find_symbol(it->cross, "S");
  if (symbol >= 0) {
    int64_t most = it->cross->symbols[symbol].maximum;
    if (count > most) {
      mcc_fail(MCC_EXIT_INPUT, "the source has %lld tokens; the context holds %lld", (long long)count, (long long)most);
    }
    symbols[symbol] = count;
  }
  memcpy(it->session.arena + tokens->offset, ids, (size_t)count * sizeof *ids);
  mcc_session_call(&it->session, it->cross, symbols);
  it->source = count;
}

void mcc_language_model_read_features(mcc_language_model *it, const char *path) {
  const mcc_tensor *features = source_input(it, "features");
  if (features == NULL) mcc_fail(MCC_EXIT_USAGE, "this model takes no features as a source");
  int64_t symbols[MCC_MAX_SYMBOLS] = {0};
  mcc_array_file file = mcc_array_file_read(path);
  if (file.count != 1) mcc_fail(MCC_EXIT_INPUT, "'%s' holds %d arrays; one is expected", path, file.count);
  const mcc_array *array = &file.arrays[0];
  int32_t extra = array->rank - features->rank;
  bool fits = extra == 0 || (extra == 1 && array->dims[0] == 1);
  for (int32_t axis = 0; fits && axis < features->rank; axis++) {
    fits = array->dims[axis + extra] == mcc_dim_size(&features->dims[axis], symbols);
  }
  if (!fits) {
    mcc_fail(MCC_EXIT_INPUT, "the features in '%s' must have the shape [1, %lld, %lld]", path,
             (long long)mcc_dim_size(&features->dims[0], symbols), (long long)mcc_dim_size(&features->dims[1], symbols));
  }
  mcc_array_convert(array, features->dtype, it->session.arena + features->offset, "features");
  mcc_array_file_free(&file);
  mcc_session_call(&it->session, it->cross, symbols);
}

const mcc_command mcc_commands[] = {
    {"generate", "continue a prompt (the default)", mcc_command_generate},
    {"perplexity", "how well the model predicts a text", mcc_command_perplexity},
    {"tokens", "print the token ids of texts", mcc_command_tokens},
    {"logits", "write the logits of given token ids", mcc_command_logits},
    {"bench", "measure the speed", mcc_command_bench},
};
const int mcc_command_count = sizeof mcc_commands / sizeof *mcc_commands;
const char *const mcc_default_arguments = "[options] [PROMPT]";

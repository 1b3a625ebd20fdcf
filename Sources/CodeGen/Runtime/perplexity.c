#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "language_model.h"
#include "options.h"
#include "tensor_file.h"
#include "unicode.h"

static struct {
  int64_t window, score_from, chunk, threads;
  const char *bos;
  bool help;
} given;

static const mcc_option options[] = {
    {"--window", MCC_OPTION_INTEGER, &given.window, "N", "take the file as one stream, in windows of N tokens", 2,
     INT32_MAX},
    {"--score-from", MCC_OPTION_INTEGER, &given.score_from, "M", "count tokens M ... N - 1 of each window only (1)", 1,
     INT32_MAX},
    {"--bos", MCC_OPTION_TEXT, &given.bos, "ID", "first token of each document or window, or none (the model's)", 0, 0},
    MCC_CHUNK_OPTION(&given.chunk),
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

/* Sum of -log p over the tokens that were predicted. */
typedef struct text_score {
  double loss;
  int64_t count;
} text_score;

/* -log of the probability that the logits give to the token. */
static double token_loss(const float *logits, int64_t vocabulary, int32_t token) {
  float largest = -INFINITY;
  double sum = 0;
  for (int64_t i = 0; i < vocabulary; i++) largest = logits[i] > largest ? logits[i] : largest;
  for (int64_t i = 0; i < vocabulary; i++) sum += (double)expf(logits[i] - largest);
  return log(sum) + (double)largest - (double)logits[token];
}

/* Adds the losses of ids[first ..< count], each given all ids before it; first > 0. */
static void add_losses(mcc_language_model *model, const int32_t *ids, int64_t count, int64_t first, text_score *score) {
  int64_t most = model->score != NULL || model->chunk < model->rows ? model->chunk : model->rows;
  mcc_language_model_restart(model);
  for (int64_t start = 0; start + 1 < count;) {
    int64_t part = count - 1 - start < most ? count - 1 - start : most;
    int64_t end = start + part, scored = start > first - 1 ? start : first - 1;
    int64_t rows = scored < end ? end - scored : 0;
    if (rows > 0 && model->score != NULL) {
      const float *losses = mcc_language_model_score(model, ids + start, part, ids + scored + 1, rows);
      for (int64_t i = 0; i < rows; i++) score->loss += (double)losses[i];
    } else {
      const float *logits = mcc_language_model_feed(model, ids + start, part, rows > 0 ? rows : 1);
      for (int64_t i = 0; i < rows; i++) {
        score->loss += token_loss(logits + i * mcc_model.vocabulary, mcc_model.vocabulary, ids[scored + i + 1]);
      }
    }
    score->count += rows;
    start = end;
  }
}

/* The part of the text without white space at both ends. */
static mcc_bytes strip(const char *text, size_t size) {
  size_t first = 0, end = 0;
  for (size_t i = 0, length; i < size; i += length) {
    int32_t code;
    length = mcc_character(text + i, size - i, &code);
    if (!mcc_is_white_space(code)) {
      end = i + length;
    } else if (end == 0) {
      first = i + length;
    }
  }
  return end > 0 ? (mcc_bytes){(const uint8_t *)text + first, end - first} : (mcc_bytes){(const uint8_t *)text, 0};
}

static void score_documents(mcc_language_model *model, const char *text, size_t size, int32_t bos, text_score *score) {
  static const char separator[] = "<|endoftext|>";
  const char *end = text + size;
  mcc_ids ids = {0};
  while (text < end) {
    const char *stop = memmem(text, (size_t)(end - text), separator, sizeof separator - 1);
    size_t length = (size_t)((stop != NULL ? stop : end) - text);
    mcc_bytes document = strip(text, length);
    ids.count = 0;
    if (bos >= 0) mcc_ids_append(&ids, bos);
    mcc_tokenizer_encode(model->tokenizer, (const char *)document.data, document.size, false, &ids);
    int64_t count = ids.count < mcc_model.context ? ids.count : mcc_model.context;
    if (document.size > 0) add_losses(model, ids.data, count, 1, score);
    text += stop != NULL ? length + sizeof separator - 1 : length;
  }
  free(ids.data);
}

static void score_windows(mcc_language_model *model, const char *text, size_t size, int32_t bos, text_score *score) {
  mcc_ids ids = {0};
  mcc_tokenizer_encode(model->tokenizer, text, size, false, &ids);
  for (int64_t start = 0; start + given.window <= ids.count; start += given.window) {
    if (bos >= 0) ids.data[start] = bos;
    add_losses(model, ids.data + start, given.window, given.score_from, score);
  }
  free(ids.data);
}

static int32_t choose_bos(const mcc_language_model *model) {
  if (given.bos == NULL) return model->settings.bos;
  if (strcmp(given.bos, "none") == 0) return -1;
  char *end;
  long id = strtol(given.bos, &end, 10);
  if (end == given.bos || *end != 0 || id < 0 || id >= mcc_model.vocabulary) {
    mcc_fail(MCC_EXIT_USAGE, "option '--bos' takes a token id below %lld or none, not '%s'",
             (long long)mcc_model.vocabulary, given.bos);
  }
  return (int32_t)id;
}

static void check_window(void) {
  if (given.window == 0 && given.score_from > 0) mcc_fail(MCC_EXIT_USAGE, "option '--score-from' needs '--window'");
  if (given.score_from == 0) given.score_from = 1;
  if (given.window > mcc_model.context) {
    mcc_fail(MCC_EXIT_USAGE, "a window of %lld tokens is larger than the context of %lld", (long long)given.window,
             (long long)mcc_model.context);
  }
  if (given.window > 0 && given.score_from >= given.window) {
    mcc_fail(MCC_EXIT_USAGE, "option '--score-from' takes a number below the window, %lld", (long long)given.window);
  }
}

int mcc_command_perplexity(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s perplexity [options] FILE\n\n"
           "Prints the exponential of the mean loss per token of the text in FILE (-: standard input).\n"
           "Documents are separated by <|endoftext|>, stripped of white space, and cut at the context.\n\n",
           mcc_model.name);
    mcc_options_print(options, OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  if (arguments.count != 1) mcc_fail(MCC_EXIT_USAGE, "perplexity takes one FILE, not %d", arguments.count);
  check_window();
  mcc_language_model model = mcc_language_model_start(given.threads);
  mcc_language_model_limit(&model, given.chunk);
  if (model.cross != NULL) mcc_fail(MCC_EXIT_USAGE, "this model answers a source; a text alone has no perplexity");
  if (model.tokenizer == NULL) mcc_fail(MCC_EXIT_USAGE, "this model has no tokenizer, so it cannot read a text");
  int32_t bos = choose_bos(&model);
  size_t size;
  char *text = (char *)mcc_file_read(arguments.items[0], &size);
  if (size > 1 << 30) mcc_fail(MCC_EXIT_INPUT, "'%s' is larger than 1 GiB", arguments.items[0]);

  text_score score = {0};
  if (given.window > 0) {
    score_windows(&model, text, size, bos, &score);
  } else {
    score_documents(&model, text, size, bos, &score);
  }
  if (score.count == 0) {
    mcc_fail(MCC_EXIT_INPUT, "'%s' is too short: it holds no token to predict", arguments.items[0]);
  }
  printf("perplexity %.6f\n", exp(score.loss / (double)score.count));
  mcc_flush_output();
  mcc_language_model_end(&model);
  free(text);
  free(arguments.items);
  return 0;
}

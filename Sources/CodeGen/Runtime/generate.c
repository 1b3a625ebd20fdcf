#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "commands.h"
#include "failure.h"
#include "language_model.h"
#include "options.h"
#include "sampler.h"
#include "tensor_file.h"
#include "text_stream.h"
#include "token_ids.h"

/* The command line; negative numbers and NULL: not given. */
static struct {
  const char *prompt_file, *prompt_ids, *features;
  int64_t count, top_k, seed, threads;
  double temperature, top_p, repeat_penalty;
  mcc_texts stops;
  bool ignore_eos, print_ids, help;
} given = {.count = 256, .top_k = -1, .seed = -1, .temperature = -1, .top_p = -1, .repeat_penalty = -1};

static const mcc_option options[] = {
    {"-n", MCC_OPTION_INTEGER, &given.count, "N", "most tokens to generate (256)", 0, INT32_MAX},
    {"--temperature", MCC_OPTION_NUMBER, &given.temperature, "X", "0 takes the likeliest token each time *", 0, 1000},
    {"--top-p", MCC_OPTION_NUMBER, &given.top_p, "X", "sample from the likeliest with this total; 1: all *", 0, 1},
    {"--top-k", MCC_OPTION_INTEGER, &given.top_k, "N", "sample from the N likeliest tokens; 0: all *", 0, INT32_MAX},
    {"--repeat-penalty", MCC_OPTION_NUMBER, &given.repeat_penalty, "X", "makes tokens seen less likely; 1: off *",
     0, 1000},
    {"--seed", MCC_OPTION_INTEGER, &given.seed, "N", "of the random numbers (another one each run)", 0, INT64_MAX},
    {"--stop", MCC_OPTION_TEXTS, &given.stops, "TEXT", "end before this text; may be repeated", 0, 0},
    {"--ignore-eos", MCC_OPTION_FLAG, &given.ignore_eos, NULL, "go on after the end-of-text token", 0, 0},
    {"--prompt-file", MCC_OPTION_TEXT, &given.prompt_file, "FILE", "the prompt is in a file; -: standard input", 0, 0},
    {"--prompt-ids", MCC_OPTION_TEXT, &given.prompt_ids, "1,2,3", "token ids as the prompt, taken as they are", 0, 0},
    {"--features", MCC_OPTION_TEXT, &given.features, "FILE", "an array as the source, of models that take one", 0, 0},
    {"--print-ids", MCC_OPTION_FLAG, &given.print_ids, NULL, "print one line of token ids, prompt first", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

void mcc_print_default_options(void) {
  mcc_options_print(options, OPTION_COUNT);
  printf("  * default: the model's own generation settings\n");
}

/* The prompt's ids, and its text where it was given as text. */
static mcc_ids read_prompt(const mcc_language_model *model, mcc_arguments arguments, mcc_text *text) {
  mcc_ids ids = {0};
  int sources = (arguments.count > 0) + (given.prompt_file != NULL) + (given.prompt_ids != NULL);
  if (arguments.count > 1) {
    mcc_fail(MCC_EXIT_USAGE, "unexpected argument '%s'; a prompt of several words needs quotes", arguments.items[1]);
  }
  if (sources > 1) mcc_fail(MCC_EXIT_USAGE, "give one prompt: PROMPT, --prompt-file or --prompt-ids");
  if (given.prompt_ids != NULL) {
    mcc_ids_parse("--prompt-ids", given.prompt_ids, &ids);
  } else if (sources > 0) {
    if (model->tokenizer == NULL) mcc_fail(MCC_EXIT_USAGE, "this model has no tokenizer; use --prompt-ids");
    const char *argument = given.prompt_file != NULL ? given.prompt_file : arguments.items[0];
    if (given.prompt_file != NULL || strcmp(argument, "-") == 0) {
      size_t size;
      uint8_t *bytes = mcc_file_read(argument, &size);
      if (size > 1 << 30) mcc_fail(MCC_EXIT_INPUT, "the prompt is larger than 1 GiB");
      mcc_text_append(text, bytes, size);
      free(bytes);
    } else {
      mcc_text_append(text, argument, strlen(argument));
    }
    mcc_tokenizer_encode(model->tokenizer, text->data, text->count, true, &ids);
  }
  if (ids.count == 0 && model->settings.bos >= 0) mcc_ids_append(&ids, model->settings.bos);
  if (ids.count == 0) mcc_fail(MCC_EXIT_USAGE, "the prompt is empty, and the model has no token to begin with");
  if (ids.count > mcc_model.context) {
    mcc_fail(MCC_EXIT_INPUT, "the prompt has %lld tokens; the context holds %lld", (long long)ids.count,
             (long long)mcc_model.context);
  }
  return ids;
}

/* Encodes the source, which is the prompt unless it is an array; the text then begins with the model's first token. */
static void read_source(mcc_language_model *model, mcc_ids *ids, mcc_text *text) {
  bool takes_features = mcc_language_model_takes_features(model);
  if ((given.features != NULL) != takes_features) {
    mcc_fail(MCC_EXIT_USAGE, takes_features ? "option '--features' is missing" : "this model takes no features");
  }
  if (takes_features) {
    mcc_language_model_read_features(model, given.features);
  } else if (model->cross != NULL) {
    if (model->settings.bos < 0) mcc_fail(MCC_EXIT_UNSUPPORTED, "the model has no token to begin an answer with");
    mcc_language_model_read_ids(model, ids->data, ids->count);
    ids->count = 0;
    text->count = 0;
    mcc_ids_append(ids, model->settings.bos);
  }
}

static uint64_t choose_seed(void) {
  uint64_t seed = 0;
  if (given.seed >= 0) return (uint64_t)given.seed;
  if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = (uint64_t)(mcc_seconds() * 1e9);
  return seed;
}

static mcc_sampler *make_sampler(const mcc_generation_settings *settings) {
  mcc_sampler_options chosen = {
      .temperature = given.temperature >= 0 ? given.temperature : (double)settings->temperature,
      .top_p = given.top_p >= 0 ? given.top_p : (double)settings->top_p,
      .top_k = given.top_k >= 0 ? given.top_k : settings->top_k,
      .repeat_penalty = given.repeat_penalty >= 0 ? given.repeat_penalty : (double)settings->repeat_penalty,
      .seed = choose_seed(),
  };
  return mcc_sampler_create(chosen, mcc_model.vocabulary);
}

/* Where tokens go: text, or ids if asked for or all there is. */
typedef struct token_printer {
  mcc_decoder *decoder; /* NULL: ids */
  mcc_text_stream stream;
  bool after_first, stopped;
} token_printer;

/* Returns true once a stop text has appeared. */
static bool print_token(token_printer *it, int32_t id) {
  if (it->decoder == NULL) {
    char text[16];
    int length = snprintf(text, sizeof text, it->after_first ? " %d" : "%d", id);
    it->after_first = true;
    mcc_output(text, (size_t)length);
    return false;
  }
  mcc_text text = {0};
  mcc_decoder_add(it->decoder, id, &text);
  it->stopped = mcc_text_stream_add(&it->stream, text.data, text.count);
  free(text.data);
  return it->stopped;
}

/* The prompt as it was given, or what its ids stand for; stop texts are looked for only after it. */
static void print_prompt(token_printer *it, const mcc_ids *ids, const mcc_text *text) {
  if (it->decoder != NULL && text->count > 0) {
    mcc_output(text->data, text->count);
    /* What follows is decoded as what stands behind the prompt. */
    mcc_text decoded = {0};
    for (int64_t i = 0; i < ids->count; i++) mcc_decoder_add(it->decoder, ids->data[i], &decoded);
    mcc_decoder_flush(it->decoder, &decoded);
    free(decoded.data);
  } else {
    for (int64_t i = 0; i < ids->count; i++) print_token(it, ids->data[i]);
  }
  it->stream.stops = given.stops;
}

static bool ends_text(const mcc_generation_settings *settings, int32_t id) {
  for (int32_t i = 0; i < settings->eos_count && !given.ignore_eos; i++) {
    if (settings->eos[i] == id) return true;
  }
  return false;
}

/* Extends `ids` until something ends it. */
static void generate(mcc_language_model *model, mcc_sampler *sampler, mcc_ids *ids, token_printer *printer) {
  const float *logits = given.count > 0 ? mcc_language_model_feed(model, ids->data, ids->count, 1) : NULL;
  for (int64_t made = 0; made < given.count && logits != NULL; made++) {
    int32_t id = mcc_sampler_next(sampler, logits, ids->data, ids->count);
    mcc_ids_append(ids, id);
    bool stopped = print_token(printer, id);
    if (stopped || ends_text(&model->settings, id) || made + 1 == given.count) return;
    if (model->position == mcc_model.context) {
      fprintf(stderr, "note: the context of %lld tokens is full\n", (long long)mcc_model.context);
      return;
    }
    logits = mcc_language_model_feed(model, &id, 1, 1);
  }
}

/* Writes what the last tokens left open. */
static void finish_text(token_printer *it) {
  mcc_text text = {0};
  if (it->decoder != NULL) {
    mcc_decoder_finish(it->decoder, &text);
    if (it->stopped) text.count = 0;
    mcc_text_stream_add(&it->stream, text.data, text.count);
    free(text.data);
    mcc_decoder_close(it->decoder);
  }
  mcc_text_stream_finish(&it->stream);
}

static void check_stops(bool prints_text) {
  if (given.stops.count > 0 && !prints_text) mcc_fail(MCC_EXIT_USAGE, "option '--stop' needs text as output");
  for (int i = 0; i < given.stops.count; i++) {
    if (given.stops.items[i][0] == 0) mcc_fail(MCC_EXIT_USAGE, "option '--stop' takes a text that is not empty");
  }
}

int mcc_command_generate(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s [generate] [options] [PROMPT]\n\nContinues PROMPT; -: read it from standard input.\n\n",
           mcc_model.name);
    mcc_print_default_options();
    mcc_flush_output();
    return 0;
  }
  if (given.repeat_penalty == 0) mcc_fail(MCC_EXIT_USAGE, "option '--repeat-penalty' takes a number above 0");
  mcc_language_model model = mcc_language_model_start(given.threads);
  token_printer printer = {0};
  if (model.tokenizer != NULL && !given.print_ids) printer.decoder = mcc_decoder_open(model.tokenizer, true);
  check_stops(printer.decoder != NULL);
  mcc_text text = {0};
  mcc_ids ids = read_prompt(&model, arguments, &text);
  read_source(&model, &ids, &text);
  mcc_sampler *sampler = make_sampler(&model.settings);

  mcc_catch_interrupt();
  print_prompt(&printer, &ids, &text);
  generate(&model, sampler, &ids, &printer);
  finish_text(&printer);
  mcc_output("\n", 1);

  mcc_sampler_free(sampler);
  mcc_language_model_end(&model);
  free(ids.data);
  free(text.data);
  free(arguments.items);
  return mcc_interrupted() ? MCC_EXIT_INTERRUPT : 0;
}

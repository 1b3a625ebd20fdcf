#include <stdio.h>
#include <stdlib.h>

#include "failure.h"
#include "language_model.h"
#include "measure.h"
#include "options.h"

static struct {
  int64_t prefill, decode, context, repeat, threads;
  bool json, help;
} given = {.prefill = -1, .decode = -1, .repeat = 5};

static const mcc_option options[] = {
    {"--prefill", MCC_OPTION_INTEGER, &given.prefill, "N", "tokens of a prompt (128; 0 for none)", 0, INT32_MAX},
    {"--decode", MCC_OPTION_INTEGER, &given.decode, "N", "tokens to decode one by one (64; 0 for none)", 0, INT32_MAX},
    {"--context", MCC_OPTION_INTEGER, &given.context, "N", "tokens in the cache before either (0)", 0, INT32_MAX},
    {"--repeat", MCC_OPTION_INTEGER, &given.repeat, "N", "runs to take the median of (5)", 1, 1000000},
    {"--json", MCC_OPTION_FLAG, &given.json, NULL, "print JSON instead of a table", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

/* The default, or less where the context leaves less room; refuses what does not fit. */
static int64_t tokens_to_run(const char *name, int64_t asked, int64_t standard) {
  int64_t room = mcc_model.context - given.context;
  if (room < 1 || asked > room) {
    mcc_fail(MCC_EXIT_USAGE, "'--context' and '%s' together exceed the context of %lld tokens", name,
             (long long)mcc_model.context);
  }
  return asked >= 0 ? asked : standard < room ? standard : room;
}

/* Median tokens per second of appending ids[0 ..< count] to a cache of given.context tokens, `step` at a time. */
static double rate(mcc_language_model *model, const int32_t *ids, int64_t count, int64_t step) {
  if (count == 0) return 0;
  const mcc_function *function = step == 1 ? model->decode : model->prefill;
  size_t repeat = (size_t)given.repeat;
  double *times = mcc_allocate(repeat * sizeof *times);
  for (size_t run = 0; run <= repeat; run++) {
    model->position = given.context;
    double start = mcc_seconds();
    for (int64_t i = 0; i < count; i += step) mcc_language_model_feed(model, ids + i, step, 1);
    double seconds = mcc_seconds() - start;
    if (run > 0) times[run - 1] = seconds;
    if (run == 0 && function != NULL) mcc_profile_restart(model->session.profile, function); /* that warmed up */
  }
  double median = mcc_median(times, repeat);
  free(times);
  return (double)count / median;
}

int mcc_command_bench(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s bench [options]\n\nMeasures how fast the model reads a prompt and decodes.\n\n", mcc_model.name);
    mcc_options_print(options, OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  if (arguments.count > 0) mcc_fail(MCC_EXIT_USAGE, "unexpected argument '%s'", arguments.items[0]);
  int64_t prefill = tokens_to_run("--prefill", given.prefill, 128);
  int64_t decode = tokens_to_run("--decode", given.decode, 64);
  mcc_language_model model = mcc_language_model_start(given.threads);
  int64_t most = given.context + (prefill > decode ? prefill : decode);
  int32_t *ids = mcc_allocate((size_t)most * sizeof *ids);
  for (int64_t i = 0; i < most; i++) ids[i] = (int32_t)((i * 7919 + 13) % mcc_model.vocabulary);

  if (given.context > 0) mcc_language_model_feed(&model, ids, given.context, 1);
  double prefill_rate = rate(&model, ids, prefill, prefill);
  double decode_rate = rate(&model, ids, decode, 1);
  /* Weights, and the rows of the caches before the average token. */
  double positions = (double)given.context + (double)(decode > 0 ? decode - 1 : 0) / 2;
  double bytes = (double)mcc_model.bytes_per_token + positions * (double)mcc_model.cache_bytes_per_position;
  double gigabytes = bytes * decode_rate * 1e-9;
  int threads = mcc_pool_count(model.session.pool);

  if (given.json) {
    printf("{\"prefill_tokens_per_second\": %.6g, \"decode_tokens_per_second\": %.6g, \"bytes_per_token\": %.0f, "
           "\"gigabytes_per_second\": %.6g, \"prefill\": %lld, \"decode\": %lld, \"context\": %lld, \"repeat\": %lld, "
           "\"threads\": %d, \"planned_bytes\": %lld, \"resident_bytes\": %lld}\n",
           prefill_rate, decode_rate, bytes, gigabytes, (long long)prefill, (long long)decode, (long long)given.context,
           (long long)given.repeat, threads, (long long)mcc_planned_bytes(), (long long)mcc_resident_bytes());
  } else {
    printf("%-10s %8s %14s\n", "", "tokens", "tokens/second");
    printf("%-10s %8lld %14.1f\n", "prefill", (long long)prefill, prefill_rate);
    printf("%-10s %8lld %14.1f   %.1f MB per token, %.2f GB/s\n", "decode", (long long)decode, decode_rate,
           bytes * 1e-6, gigabytes);
    printf("after %lld tokens of context, %d thread%s, median of %lld\n", (long long)given.context, threads,
           threads == 1 ? "" : "s", (long long)given.repeat);
    printf("%.1f MB resident, %.1f MB planned\n", (double)mcc_resident_bytes() * 1e-6,
           (double)mcc_planned_bytes() * 1e-6);
  }
  mcc_flush_output();
  mcc_language_model_end(&model);
  free(ids);
  free(arguments.items);
  return 0;
}

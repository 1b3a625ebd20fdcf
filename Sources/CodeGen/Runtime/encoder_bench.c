#include <stdio.h>
#include <stdlib.h>

#include "encoder.h"
#include "failure.h"
#include "measure.h"
#include "options.h"
#include "tensor_file.h"
#include "token_ids.h"

static struct {
  const char *ids, *output;
  int64_t tokens, repeat, threads;
  bool json, help;
} given = {.repeat = 20};

static const mcc_option output_options[] = {
    {"--ids", MCC_OPTION_TEXT, &given.ids, "FILE", "token ids, whole numbers [1, T] or [T], as .npy", 0, 0},
    {"--output", MCC_OPTION_TEXT, &given.output, "FILE", "where to write the rows of all tokens, as .npz", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

static const mcc_option bench_options[] = {
    {"--tokens", MCC_OPTION_INTEGER, &given.tokens, "N", "tokens of a text (128)", 1, INT32_MAX},
    {"--repeat", MCC_OPTION_INTEGER, &given.repeat, "N", "runs to take the median of (20)", 1, 1000000},
    {"--json", MCC_OPTION_FLAG, &given.json, NULL, "print JSON instead of a table", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum {
  OUTPUT_OPTION_COUNT = sizeof output_options / sizeof *output_options,
  BENCH_OPTION_COUNT = sizeof bench_options / sizeof *bench_options,
};

static void refuse_arguments(mcc_arguments arguments) {
  if (arguments.count > 0) mcc_fail(MCC_EXIT_USAGE, "unexpected argument '%s'", arguments.items[0]);
  free(arguments.items);
}

int mcc_command_encode_ids(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(output_options, OUTPUT_OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s logits --ids FILE --output FILE\n\nWrites the result for each token, hidden state or logits, as "
           "the array 'output', and the embedding as 'embedding'.\n\n",
           mcc_model.name);
    mcc_options_print(output_options, OUTPUT_OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  refuse_arguments(arguments);
  if (given.ids == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--ids' is missing");
  if (given.output == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--output' is missing");
  mcc_ids ids = mcc_ids_read(given.ids, mcc_model.context);
  mcc_encoder encoder = mcc_encoder_open();
  mcc_encoder_start(&encoder, given.threads);
  mcc_array_writer *writer = mcc_array_writer_open(given.output);
  mcc_encoder_run(&encoder, ids.data, ids.count);
  int64_t size;
  const float *rows = mcc_encoder_result(&encoder, encoder.output, ids.count, &size);
  mcc_array_writer_begin(writer, "output", MCC_F32, 3, (int64_t[]){1, ids.count, size / ids.count});
  mcc_array_writer_append(writer, rows, size);
  mcc_array_writer_end(writer);
  if (encoder.embedding != NULL) {
    const float *embedding = mcc_encoder_result(&encoder, encoder.embedding, ids.count, &size);
    mcc_array_writer_begin(writer, "embedding", MCC_F32, 1, &size);
    mcc_array_writer_append(writer, embedding, size);
    mcc_array_writer_end(writer);
  }
  mcc_array_writer_close(writer);
  mcc_encoder_end(&encoder);
  free(ids.data);
  return 0;
}

int mcc_command_encode_bench(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(bench_options, BENCH_OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s bench [options]\n\nMeasures the time of one text.\n\n", mcc_model.name);
    mcc_options_print(bench_options, BENCH_OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  refuse_arguments(arguments);
  int64_t tokens = given.tokens > 0 ? given.tokens : mcc_model.context < 128 ? mcc_model.context : 128;
  if (tokens > mcc_model.context) {
    mcc_fail(MCC_EXIT_USAGE, "'--tokens' exceeds the context of %lld tokens", (long long)mcc_model.context);
  }
  mcc_encoder encoder = mcc_encoder_open();
  mcc_encoder_start(&encoder, given.threads);
  int32_t *ids = mcc_allocate((size_t)tokens * sizeof *ids);
  for (int64_t i = 0; i < tokens; i++) ids[i] = (int32_t)((i * 7919 + 13) % mcc_model.vocabulary);
  size_t repeat = (size_t)given.repeat;
  double *times = mcc_allocate(repeat * sizeof *times);
  mcc_encoder_run(&encoder, ids, tokens);
  for (size_t i = 0; i < repeat; i++) {
    double start = mcc_seconds();
    mcc_encoder_run(&encoder, ids, tokens);
    times[i] = (mcc_seconds() - start) * 1e3;
  }
  double median = mcc_median(times, repeat);
  int threads = mcc_pool_count(encoder.session.pool);
  if (given.json) {
    printf("{\"milliseconds\": {\"median\": %.6g, \"minimum\": %.6g}, \"tokens_per_second\": %.6g, \"tokens\": %lld, "
           "\"repeat\": %zu, \"threads\": %d}\n",
           median, times[0], (double)tokens / median * 1e3, (long long)tokens, repeat, threads);
  } else {
    printf("median  %.4g ms\nminimum %.4g ms\n%.1f tokens/second\n%lld tokens, %d thread%s, %zu runs\n", median,
           times[0], (double)tokens / median * 1e3, (long long)tokens, threads, threads == 1 ? "" : "s", repeat);
  }
  mcc_flush_output();
  free(times);
  free(ids);
  mcc_encoder_end(&encoder);
  return 0;
}

#include <stdio.h>
#include <stdlib.h>

#include "failure.h"
#include "language_model.h"
#include "options.h"
#include "tensor_file.h"

static struct {
  const char *ids, *output;
  int64_t threads;
  bool help;
} given;

static const mcc_option options[] = {
    {"--ids", MCC_OPTION_TEXT, &given.ids, "FILE", "token ids, whole numbers [1, T] or [T], as .npy", 0, 0},
    {"--output", MCC_OPTION_TEXT, &given.output, "FILE", "where to write the logits, f32[1, T, V], as .npz", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

/* The ids of the file, checked against vocabulary and context. */
static int32_t *read_ids(const char *path, int64_t *count) {
  mcc_array_file file = mcc_array_file_read(path);
  if (file.count != 1) mcc_fail(MCC_EXIT_INPUT, "'%s' holds %d arrays; one is expected", path, file.count);
  const mcc_array *array = &file.arrays[0];
  bool shaped = array->rank == 1 || (array->rank == 2 && array->dims[0] == 1);
  if (!shaped) mcc_fail(MCC_EXIT_INPUT, "the ids in '%s' must have the shape [1, T]", path);
  if (array->count < 1 || array->count > mcc_model.context) {
    mcc_fail(MCC_EXIT_INPUT, "'%s' holds %lld ids; 1 to %lld, the context, are expected", path, (long long)array->count,
             (long long)mcc_model.context);
  }
  int32_t *ids = mcc_allocate((size_t)array->count * sizeof *ids);
  mcc_array_convert(array, MCC_I32, ids, "ids");
  for (int64_t i = 0; i < array->count; i++) {
    if (ids[i] < 0 || ids[i] >= mcc_model.vocabulary) {
      mcc_fail(MCC_EXIT_INPUT, "the token id %d at index %lld lies outside the vocabulary of %lld tokens", ids[i],
               (long long)i, (long long)mcc_model.vocabulary);
    }
  }
  *count = array->count;
  mcc_array_file_free(&file);
  return ids;
}

int mcc_command_logits(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s logits --ids FILE --output FILE\n\n"
           "Writes the logits after each token as the array 'output'.\n\n",
           mcc_model.name);
    mcc_options_print(options, OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  if (arguments.count > 0) mcc_fail(MCC_EXIT_USAGE, "unexpected argument '%s'", arguments.items[0]);
  if (given.ids == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--ids' is missing");
  if (given.output == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--output' is missing");
  int64_t count, vocabulary = mcc_model.vocabulary;
  int32_t *ids = read_ids(given.ids, &count);
  mcc_language_model model = mcc_language_model_start(given.threads);
  mcc_array_writer *writer = mcc_array_writer_open(given.output);
  mcc_array_writer_begin(writer, "output", MCC_F32, 3, (int64_t[]){1, count, vocabulary});
  int64_t most = model.chunk < model.rows ? model.chunk : model.rows;
  for (int64_t start = 0; start < count; start += most) {
    int64_t part = count - start < most ? count - start : most;
    mcc_array_writer_append(writer, mcc_language_model_feed(&model, ids + start, part, part), part * vocabulary);
  }
  mcc_array_writer_end(writer);
  mcc_array_writer_close(writer);
  mcc_language_model_end(&model);
  free(ids);
  free(arguments.items);
  return 0;
}

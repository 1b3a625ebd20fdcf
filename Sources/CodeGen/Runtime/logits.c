#include <stdio.h>
#include <stdlib.h>

#include "failure.h"
#include "language_model.h"
#include "options.h"
#include "tensor_file.h"
#include "token_ids.h"

static struct {
  const char *ids, *decoder_ids, *features, *output;
  int64_t chunk, threads;
  bool help;
} given;

static const mcc_option options[] = {
    {"--ids", MCC_OPTION_TEXT, &given.ids, "FILE", "token ids, whole numbers [T] or [N, T], as .npy", 0, 0},
    {"--decoder-ids", MCC_OPTION_TEXT, &given.decoder_ids, "FILE", "ids of the answer, where --ids is a source", 0, 0},
    {"--features", MCC_OPTION_TEXT, &given.features, "FILE", "an array as the source instead of --ids, as .npy", 0, 0},
    {"--output", MCC_OPTION_TEXT, &given.output, "FILE", "where to write the logits, f32[N, T, V], as .npz", 0, 0},
    MCC_CHUNK_OPTION(&given.chunk),
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

/* The ids that logits are wanted for, of so many texts; those of a source are encoded first. */
static mcc_ids read_ids(mcc_language_model *model, int64_t *texts) {
  if (given.ids == NULL && !mcc_language_model_takes_features(model)) {
    mcc_fail(MCC_EXIT_USAGE, "option '--ids' is missing");
  }
  if (model->cross == NULL) {
    if (given.decoder_ids != NULL || given.features != NULL) {
      mcc_fail(MCC_EXIT_USAGE, "this model reads no source; give '--ids' alone");
    }
    return mcc_ids_read_texts(given.ids, mcc_model.context, texts);
  }
  *texts = 1;
  if (mcc_language_model_takes_features(model)) {
    const char *ids = given.decoder_ids != NULL ? given.decoder_ids : given.ids;
    if (given.features == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--features' is missing");
    mcc_ids answer = mcc_ids_read(ids, mcc_model.context);
    mcc_language_model_read_features(model, given.features);
    return answer;
  }
  if (given.features != NULL) mcc_fail(MCC_EXIT_USAGE, "this model takes no features as a source");
  if (given.decoder_ids == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--decoder-ids' is missing");
  mcc_ids source = mcc_ids_read(given.ids, mcc_model.context);
  mcc_ids answer = mcc_ids_read(given.decoder_ids, mcc_model.context);
  mcc_language_model_read_ids(model, source.data, source.count);
  free(source.data);
  return answer;
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
  if (given.ids == NULL && given.decoder_ids == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--ids' is missing");
  if (given.output == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--output' is missing");
  mcc_language_model model = mcc_language_model_start(given.threads);
  mcc_language_model_limit(&model, given.chunk);
  int64_t texts;
  mcc_ids ids = read_ids(&model, &texts);
  int64_t count = ids.count / texts, vocabulary = mcc_model.vocabulary;
  mcc_array_writer *writer = mcc_array_writer_open(given.output);
  mcc_array_writer_begin(writer, "output", MCC_F32, 3, (int64_t[]){texts, count, vocabulary});
  int64_t most = model.chunk < model.rows ? model.chunk : model.rows;
  for (int64_t text = 0; text < texts; text++) {
    if (text > 0) mcc_language_model_restart(&model);
    for (int64_t start = 0; start < count; start += most) {
      int64_t part = count - start < most ? count - start : most;
      const float *logits = mcc_language_model_feed(&model, ids.data + text * count + start, part, part);
      mcc_array_writer_append(writer, logits, part * vocabulary);
    }
  }
  mcc_array_writer_end(writer);
  mcc_array_writer_close(writer);
  mcc_language_model_end(&model);
  free(ids.data);
  free(arguments.items);
  return 0;
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "encoder.h"
#include "failure.h"
#include "options.h"
#include "tensor_file.h"
#include "token_ids.h"

static struct {
  const char *file, *ids, *output;
  int64_t threads;
  bool json, help;
} given;

static const mcc_option options[] = {
    {"--file", MCC_OPTION_TEXT, &given.file, "FILE", "texts, one on each line; -: standard input", 0, 0},
    {"--ids", MCC_OPTION_TEXT, &given.ids, "1,2,3", "token ids as the text, taken as they are", 0, 0},
    {"--output", MCC_OPTION_TEXT, &given.output, "FILE", "write one row per text, as .npy or .npz", 0, 0},
    {"--json", MCC_OPTION_FLAG, &given.json, NULL, "print JSON instead of lines of numbers", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum {
  OPTION_COUNT = sizeof options / sizeof *options,
};

void mcc_print_default_options(void) {
  mcc_options_print(options, OPTION_COUNT);
}

/* ---- texts ---- */

/* The ids of all texts, one after the other. */
typedef struct text_list {
  mcc_ids ids;
  mcc_ids counts; /* of each text */
} text_list;

static void add_text(const mcc_encoder *encoder, text_list *list, const char *text, size_t size) {
  int64_t before = list->ids.count;
  int64_t count = mcc_tokenizer_encode_at_most(encoder->tokenizer, text, size, mcc_model.context, &list->ids);
  if (count > mcc_model.context) {
    fprintf(stderr, "note: text %lld has %lld tokens and is cut off at %lld\n", (long long)list->counts.count + 1,
            (long long)count, (long long)mcc_model.context);
  }
  if (count == 0) mcc_fail(MCC_EXIT_INPUT, "text %lld has no tokens", (long long)list->counts.count + 1);
  mcc_ids_append(&list->counts, (int32_t)(list->ids.count - before));
}

/* Lines end with \n or \r\n; a last one without is a line too. */
static void add_lines(const mcc_encoder *encoder, text_list *list, const char *path) {
  size_t size;
  uint8_t *bytes = mcc_file_read(path, &size);
  const char *text = (const char *)bytes, *end = text + size;
  while (text < end) {
    const char *newline = memchr(text, '\n', (size_t)(end - text));
    size_t length = (size_t)((newline != NULL ? newline : end) - text), kept = length;
    if (newline != NULL && kept > 0 && text[kept - 1] == '\r') kept--;
    add_text(encoder, list, text, kept);
    text += length + (newline != NULL ? 1 : 0);
  }
  free(bytes);
}

static text_list read_texts(const mcc_encoder *encoder, mcc_arguments arguments) {
  text_list list = {0};
  int sources = (arguments.count > 0) + (given.file != NULL) + (given.ids != NULL);
  if (sources != 1) mcc_fail(MCC_EXIT_USAGE, "give texts, --file or --ids, one of them; --help says more");
  if (given.ids != NULL) {
    mcc_ids_parse("--ids", given.ids, &list.ids);
    if (list.ids.count == 0 || list.ids.count > mcc_model.context) {
      mcc_fail(MCC_EXIT_INPUT, "option '--ids' holds %lld ids; 1 to %lld, the context, are expected",
               (long long)list.ids.count, (long long)mcc_model.context);
    }
    mcc_ids_append(&list.counts, (int32_t)list.ids.count);
    return list;
  }
  if (encoder->tokenizer == NULL) mcc_fail(MCC_EXIT_USAGE, "this model has no tokenizer; use --ids");
  if (given.file != NULL) add_lines(encoder, &list, given.file);
  for (int i = 0; i < arguments.count; i++) {
    const char *text = arguments.items[i];
    if (strcmp(text, "-") == 0) {
      add_lines(encoder, &list, "-");
    } else {
      add_text(encoder, &list, text, strlen(text));
    }
  }
  return list;
}

static void free_texts(text_list *list) {
  free(list->ids.data);
  free(list->counts.data);
}

/* ---- embed ---- */

static void print_numbers(const float *numbers, int64_t count, const char *between) {
  for (int64_t i = 0; i < count; i++) printf("%s%.9g", i > 0 ? between : "", (double)numbers[i]);
}

static void print_embedding(const float *embedding, int64_t width, int64_t index, int64_t tokens) {
  if (given.json) {
    printf("%s{\"tokens\": %lld, \"embedding\": [", index == 0 ? "[" : ",\n ", (long long)tokens);
    print_numbers(embedding, width, ", ");
    printf("]}");
  } else {
    print_numbers(embedding, width, " ");
    printf("\n");
  }
}

static void embed_all(mcc_encoder *encoder, const text_list *list) {
  int64_t width, texts = list->counts.count;
  mcc_encoder_result(encoder, encoder->embedding, 1, &width);
  mcc_array_writer *writer = given.output != NULL ? mcc_array_writer_open(given.output) : NULL;
  if (writer != NULL) mcc_array_writer_begin(writer, "embedding", MCC_F32, 2, (int64_t[]){texts, width});
  const int32_t *ids = list->ids.data;
  for (int64_t i = 0; i < texts; i++) {
    int64_t count = list->counts.data[i];
    mcc_encoder_run(encoder, ids, count);
    const float *embedding = mcc_encoder_result(encoder, encoder->embedding, count, &width);
    if (writer != NULL) mcc_array_writer_append(writer, embedding, width);
    if (writer == NULL || given.json) print_embedding(embedding, width, i, count);
    ids += count;
  }
  if (given.json) printf(texts > 0 ? "]\n" : "[]\n");
  if (writer != NULL) {
    mcc_array_writer_end(writer);
    mcc_array_writer_close(writer);
  }
  mcc_flush_output();
}

int mcc_command_embed(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s [embed] [options] TEXT...\n\nPrints the embedding of each TEXT as one line of numbers; -: each "
           "line of standard input.\n\n",
           mcc_model.name);
    mcc_print_default_options();
    mcc_flush_output();
    return 0;
  }
  mcc_encoder encoder = mcc_encoder_open();
  if (encoder.embedding == NULL) mcc_fail(MCC_EXIT_USAGE, "this model gives no embeddings; use the command 'logits'");
  text_list list = read_texts(&encoder, arguments);
  mcc_encoder_start(&encoder, given.threads);
  embed_all(&encoder, &list);
  mcc_encoder_end(&encoder);
  free_texts(&list);
  free(arguments.items);
  return 0;
}

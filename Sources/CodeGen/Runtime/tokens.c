/* The command `tokens` of programs that read text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "options.h"
#include "program.h"
#include "tensor_file.h"
#include "token_ids.h"

static struct {
  const char *file;
  bool json, zero, plain, decode, special, help;
} given;

static const mcc_option options[] = {
    {"--file", MCC_OPTION_TEXT, &given.file, "FILE", "texts, one on each line; -: standard input", 0, 0},
    {"--zero", MCC_OPTION_FLAG, &given.zero, NULL, "texts of a file end with a zero byte, not with the line", 0, 0},
    {"--plain", MCC_OPTION_FLAG, &given.plain, NULL, "leave out the tokens before and behind a text", 0, 0},
    {"--decode", MCC_OPTION_FLAG, &given.decode, NULL, "print the text that ids such as 1,2,3 stand for", 0, 0},
    {"--special", MCC_OPTION_FLAG, &given.special, NULL, "with --decode, show tokens that stand for no text", 0, 0},
    {"--json", MCC_OPTION_FLAG, &given.json, NULL, "print JSON instead of lines of ids", 0, 0},
    {"--help", MCC_OPTION_FLAG, &given.help, NULL, "show this help", 0, 0},
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

typedef struct token_command {
  mcc_tokenizer *tokenizer;
  mcc_decoder *decoder; /* with --decode */
  int64_t limit;        /* an encoder reads no more tokens; 0: any number */
  int64_t count;        /* of texts */
  mcc_ids ids;          /* of a text */
  mcc_text output;
} token_command;

static void flush(token_command *it) {
  fwrite(it->output.data, 1, it->output.count, stdout);
  it->output.count = 0;
}

static void append_number(mcc_text *text, int32_t number) {
  char digits[12];
  mcc_text_append(text, digits, (size_t)snprintf(digits, sizeof digits, "%d", number));
}

static void encode_text(token_command *it, const char *text, size_t size) {
  it->ids.count = 0;
  if (it->limit > 0) {
    int64_t count = mcc_tokenizer_encode_at_most(it->tokenizer, text, size, it->limit, &it->ids);
    if (count > it->limit) {
      fprintf(stderr, "note: text %lld has %lld tokens and is cut off at %lld\n", (long long)it->count + 1,
              (long long)count, (long long)it->limit);
    }
  } else {
    mcc_tokenizer_encode(it->tokenizer, text, size, !given.plain, &it->ids);
  }
  if (given.json) mcc_text_append(&it->output, it->count == 0 ? "[[" : ",\n [", it->count == 0 ? 2 : 4);
  for (int64_t i = 0; i < it->ids.count; i++) {
    if (i > 0) mcc_text_append(&it->output, ", ", given.json ? 2 : 0);
    if (i > 0 && !given.json) mcc_text_append(&it->output, " ", 1);
    append_number(&it->output, it->ids.data[i]);
  }
  mcc_text_append(&it->output, given.json ? "]" : "\n", 1);
}

static void decode_text(token_command *it, const char *text, size_t size) {
  char *copy = mcc_allocate(size + 1);
  memcpy(copy, text, size);
  copy[size] = 0;
  it->ids.count = 0;
  mcc_ids_parse("--decode", copy, &it->ids);
  free(copy);
  for (int64_t i = 0; i < it->ids.count; i++) mcc_decoder_add(it->decoder, it->ids.data[i], &it->output);
  mcc_decoder_finish(it->decoder, &it->output);
  mcc_text_append(&it->output, given.zero ? "\0" : "\n", 1);
}

static void add_text(token_command *it, const char *text, size_t size) {
  if (it->decoder != NULL) {
    decode_text(it, text, size);
  } else {
    encode_text(it, text, size);
  }
  it->count++;
  if (it->output.count > 1 << 16) flush(it);
}

/* Lines end with \n or \r\n; a last one without is a line too. */
static void add_lines(token_command *it, const char *path) {
  size_t size;
  uint8_t *bytes = mcc_file_read(path, &size);
  const char *text = (const char *)bytes, *end = text + size;
  while (text < end) {
    const char *stop = memchr(text, given.zero ? 0 : '\n', (size_t)(end - text));
    size_t length = (size_t)((stop != NULL ? stop : end) - text), kept = length;
    if (!given.zero && stop != NULL && kept > 0 && text[kept - 1] == '\r') kept--;
    add_text(it, text, kept);
    text += length + (stop != NULL ? 1 : 0);
  }
  free(bytes);
}

int mcc_command_tokens(int argc, char **argv) {
  mcc_arguments arguments = mcc_options_parse(options, OPTION_COUNT, argc, argv);
  if (given.help) {
    printf("usage: %s tokens [options] TEXT...\n\nPrints the token ids of each TEXT on a line; -: of each line of "
           "standard input.\n\n",
           mcc_model.name);
    mcc_options_print(options, OPTION_COUNT);
    mcc_flush_output();
    return 0;
  }
  if ((arguments.count > 0) == (given.file != NULL)) {
    mcc_fail(MCC_EXIT_USAGE, "give texts or --file, one of them; --help says more");
  }
  mcc_bundle bundle = mcc_bundle_map();
  if (bundle.tokenizer.size == 0) mcc_fail(MCC_EXIT_USAGE, "this model has no tokenizer");
  token_command it = {.limit = mcc_find_function("encode") != NULL && !given.plain ? mcc_model.context : 0};
  const char *problem;
  it.tokenizer = mcc_tokenizer_open(bundle.tokenizer, mcc_model.vocabulary, &problem);
  if (it.tokenizer == NULL) mcc_fail(MCC_EXIT_INPUT, "the tokenizer of this program is damaged: %s", problem);
  if (given.decode) it.decoder = mcc_decoder_open(it.tokenizer, !given.special);
  if (given.file != NULL) add_lines(&it, given.file);
  for (int i = 0; i < arguments.count; i++) {
    const char *text = arguments.items[i];
    if (strcmp(text, "-") == 0) {
      add_lines(&it, "-");
    } else {
      add_text(&it, text, strlen(text));
    }
  }
  if (given.json && it.decoder == NULL) mcc_text_append(&it.output, it.count > 0 ? "]\n" : "[]\n", it.count > 0 ? 2 : 3);
  flush(&it);
  mcc_flush_output();
  if (it.decoder != NULL) mcc_decoder_close(it.decoder);
  mcc_tokenizer_close(it.tokenizer);
  free(it.ids.data);
  free(it.output.data);
  free(arguments.items);
  return 0;
}

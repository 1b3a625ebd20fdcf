#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

enum { MAX_WORD = 32 };

/* Levenshtein distance of two words of at most MAX_WORD bytes. */
static int edit_distance(const char *a, const char *b) {
  int m = (int)strlen(a), n = (int)strlen(b), row[MAX_WORD + 1];
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; i <= m; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      int replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      int edit = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      row[j] = replace < edit ? replace : edit;
    }
  }
  return row[n];
}

const char *mcc_nearest(const char *word, const char *const *words, int count) {
  const char *nearest = NULL;
  if (strlen(word) > MAX_WORD) return NULL;
  int best = (int)strlen(word) / 3 + 1;
  for (int i = 0; i < count; i++) {
    int distance = edit_distance(word, words[i]);
    if (distance <= best) {
      nearest = words[i];
      best = distance - 1;
    }
  }
  return nearest;
}

_Noreturn static void refuse_unknown(const mcc_option *options, int count, const char *name) {
  const char *names[64];
  for (int i = 0; i < count; i++) names[i] = options[i].name;
  const char *nearest = mcc_nearest(name, names, count);
  if (nearest != NULL) mcc_fail(MCC_EXIT_USAGE, "unknown option '%s'; did you mean '%s'?", name, nearest);
  mcc_fail(MCC_EXIT_USAGE, "unknown option '%s'; --help lists them", name);
}

static int64_t parse_integer(const mcc_option *option, const char *text) {
  char *end;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  bool in_range = errno == 0 && number >= option->lowest && number <= option->highest;
  if (end == text || *end != 0 || !in_range) {
    mcc_fail(MCC_EXIT_USAGE, "option '%s' takes a whole number from %lld to %lld, not '%s'", option->name,
             (long long)option->lowest, (long long)option->highest, text);
  }
  return number;
}

static double parse_number(const mcc_option *option, const char *text) {
  char *end;
  double number = strtod(text, &end);
  if (end == text || *end != 0 || !(number >= (double)option->lowest && number <= (double)option->highest)) {
    mcc_fail(MCC_EXIT_USAGE, "option '%s' takes a number from %lld to %lld, not '%s'", option->name,
             (long long)option->lowest, (long long)option->highest, text);
  }
  return number;
}

static void store(const mcc_option *option, const char *text) {
  switch (option->kind) {
    case MCC_OPTION_FLAG: *(bool *)option->value = true; break;
    case MCC_OPTION_INTEGER: *(int64_t *)option->value = parse_integer(option, text); break;
    case MCC_OPTION_NUMBER: *(double *)option->value = parse_number(option, text); break;
    case MCC_OPTION_TEXT: *(const char **)option->value = text; break;
    case MCC_OPTION_TEXTS: {
      mcc_texts *texts = option->value;
      texts->items = mcc_reallocate(texts->items, (size_t)(texts->count + 1) * sizeof *texts->items);
      texts->items[texts->count++] = text;
      break;
    }
  }
}

mcc_arguments mcc_options_parse(const mcc_option *options, int count, int argc, char **argv) {
  mcc_arguments arguments = {mcc_allocate((size_t)argc * sizeof(char *)), 0};
  static char help[] = "--help";
  bool only_arguments = false;
  for (int i = 1; i < argc; i++) {
    char *word = argv[i];
    if (only_arguments || word[0] != '-' || word[1] == 0) {
      arguments.items[arguments.count++] = word;
      continue;
    }
    if (strcmp(word, "--") == 0) {
      only_arguments = true;
      continue;
    }
    if (strcmp(word, "-h") == 0) word = help;
    char *value = word[1] == '-' ? strchr(word, '=') : NULL;
    if (value != NULL) *value++ = 0;
    int k = 0;
    while (k < count && strcmp(word, options[k].name) != 0) k++;
    if (k == count) refuse_unknown(options, count, word);
    bool is_flag = options[k].kind == MCC_OPTION_FLAG;
    if (is_flag && value != NULL) mcc_fail(MCC_EXIT_USAGE, "option '%s' takes no value", word);
    if (!is_flag && value == NULL) {
      if (++i == argc) mcc_fail(MCC_EXIT_USAGE, "option '%s' needs a value", word);
      value = argv[i];
    }
    store(&options[k], value);
  }
  return arguments;
}

void mcc_options_print(const mcc_option *options, int count) {
  for (int i = 0; i < count; i++) {
    char left[64];
    const char *placeholder = options[i].placeholder;
    snprintf(left, sizeof left, "%s%s%s", options[i].name, placeholder ? " " : "", placeholder ? placeholder : "");
    printf("  %-24s %s\n", left, options[i].help);
  }
}

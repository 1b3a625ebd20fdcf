#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "language_model.h"
#include "options.h"

static const struct {
  const char *name, *summary;
  int (*run)(int argc, char **argv);
} commands[] = {
    {"generate", "continue a prompt (the default)", mcc_command_generate},
    {"perplexity", "how well the model predicts a text", mcc_command_perplexity},
    {"tokens", "print the token ids of texts", mcc_command_tokens},
    {"logits", "write the logits of given token ids", mcc_command_logits},
    {"bench", "measure the speed", mcc_command_bench},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(void) {
  printf("usage: %s [generate] [options] [PROMPT]\n       %s COMMAND --help\n\ncommands:\n", mcc_model.name,
         mcc_model.name);
  for (int i = 0; i < COMMAND_COUNT; i++) printf("  %-24s %s\n", commands[i].name, commands[i].summary);
  printf("\noptions of generate:\n");
  mcc_print_generate_options();
  printf("\n  %-24s %s\n  %-24s %s\n", "--version", "what this program is", "--manifest", "how it was made, as JSON");
  mcc_flush_output();
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  const char *first = argc > 1 ? argv[1] : "";
  if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
    print_help();
    return 0;
  }
  if (strcmp(first, "--version") == 0) {
    mcc_print_version();
    return 0;
  }
  if (strcmp(first, "--manifest") == 0) {
    mcc_print_manifest(mcc_bundle_map().manifest);
    return 0;
  }
  mcc_require_cpu();
  for (int i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(first, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
  }
  return mcc_command_generate(argc, argv);
}

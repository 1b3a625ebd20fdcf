#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "program.h"

static void print_help(void) {
  printf("usage: %s [%s] %s\n       %s COMMAND --help\n\ncommands:\n", mcc_model.name, mcc_commands[0].name,
         mcc_default_arguments, mcc_model.name);
  for (int i = 0; i < mcc_command_count; i++) printf("  %-24s %s\n", mcc_commands[i].name, mcc_commands[i].summary);
  printf("  %-24s %s\n  %-24s %s\n", "--version", "what this program is", "--manifest", "how it was made, as JSON");
  printf("\noptions of %s:\n", mcc_commands[0].name);
  mcc_print_default_options();
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
  for (int i = 0; i < mcc_command_count; i++) {
    if (strcmp(first, mcc_commands[i].name) == 0) return mcc_commands[i].run(argc - 1, argv + 1);
  }
  return mcc_commands[0].run(argc, argv);
}

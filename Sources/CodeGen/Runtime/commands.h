/* What a program can be asked to do: the first word of its command line chooses. Every face defines what is below. */
#ifndef MCC_COMMANDS_H
#define MCC_COMMANDS_H

typedef struct mcc_command {
  const char *name, *summary;
  /* argv[0] is the command's name, or the program's if it was left out; gives the exit status. */
  int (*run)(int argc, char **argv);
} mcc_command;

/* The first one is what a command line without a command means. */
extern const mcc_command mcc_commands[];
extern const int mcc_command_count;

/* What follows the name of the first command in the help: "[options] [PROMPT]". */
extern const char *const mcc_default_arguments;

/* Prints the options of the first command, and what else belongs to the help of the program. */
void mcc_print_default_options(void);

#endif

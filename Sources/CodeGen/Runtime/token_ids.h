/* Token ids from the command line and from files. */
#ifndef MCC_TOKEN_IDS_H
#define MCC_TOKEN_IDS_H

#include "tokenizer.h"

/* Appends ids separated by commas or spaces, the value of `option`. What is no id of the vocabulary is refused. */
void mcc_ids_parse(const char *option, const char *text, mcc_ids *ids);

/* The ids of a file: one array [T] or [1, T] of 1 to `most` whole numbers inside of the vocabulary. */
mcc_ids mcc_ids_read(const char *path, int64_t most);

/* The same for texts of one length, [N, T]; `texts` receives N. */
mcc_ids mcc_ids_read_texts(const char *path, int64_t most, int64_t *texts);

#endif

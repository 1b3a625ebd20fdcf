/* Standard output of a language model: text as soon as it is known that no stop text begins in it. */
#ifndef MCC_TEXT_STREAM_H
#define MCC_TEXT_STREAM_H

#include "options.h"
#include "tokenizer.h"

typedef struct mcc_text_stream {
  mcc_text pending; /* not yet written: what a stop text may begin with */
  mcc_texts stops;
} mcc_text_stream;

/*
 * Adds text and writes what no stop text can begin in. Returns true once a stop text has appeared: the text ends before
 * it, and the rest is dropped.
 */
bool mcc_text_stream_add(mcc_text_stream *stream, const char *bytes, size_t count);

/* Writes all that is left. */
void mcc_text_stream_finish(mcc_text_stream *stream);

/* Writes to standard output at once. A closed pipe ends the program with status 0, another failure with 74. */
void mcc_output(const void *bytes, size_t count);

#endif

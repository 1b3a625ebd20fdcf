/* Standard output of a language model: whole characters, as soon as they are known. */
#ifndef MCC_TEXT_STREAM_H
#define MCC_TEXT_STREAM_H

#include "options.h"
#include "tokenizer.h"

typedef struct mcc_text_stream {
  mcc_text pending; /* not yet written: the beginning of a character or of a stop text */
  mcc_texts stops;
} mcc_text_stream;

/*
 * Adds bytes of text and writes what is complete; invalid UTF-8 becomes U+FFFD. Returns true once a stop text has
 * appeared: the text ends before it, and the rest is dropped.
 */
bool mcc_text_stream_add(mcc_text_stream *stream, const char *bytes, size_t count);

/* Writes all that is left. */
void mcc_text_stream_finish(mcc_text_stream *stream);

/* Writes to standard output at once. A closed pipe ends the program with status 0, another failure with 74. */
void mcc_output(const void *bytes, size_t count);

#endif

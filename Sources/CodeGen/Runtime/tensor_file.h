/* Arrays in files: .npy (versions 1 to 3, C order, little-endian) and .npz with stored members. */
#ifndef MCC_TENSOR_FILE_H
#define MCC_TENSOR_FILE_H

#include "mcc.h"

/* One array of a file that was read. */
typedef struct mcc_array {
  char *name; /* "" in a .npy */
  mcc_dtype dtype;
  int32_t rank;
  int64_t dims[MCC_MAX_RANK];
  int64_t count;       /* elements */
  const uint8_t *data; /* in the file's bytes, of any alignment */
} mcc_array;

typedef struct mcc_array_file {
  const char *path;
  uint8_t *bytes;
  mcc_array *arrays;
  int32_t count;
} mcc_array_file;

/* All bytes of a file ("-": of standard input), never NULL. A file that cannot be read ends the program, status 65. */
uint8_t *mcc_file_read(const char *path, size_t *size);

/* Reads and checks a .npy or .npz, told apart by content. Anything wrong ends the program with status 65. */
mcc_array_file mcc_array_file_read(const char *path);
void mcc_array_file_free(mcc_array_file *file);

/*
 * Writes the elements to `destination` as `dtype`. What may lose more than precision is refused with status 65: floats
 * become floats, whole numbers become whole numbers and must fit. `subject` names the input in the message.
 */
void mcc_array_convert(const mcc_array *array, mcc_dtype dtype, void *destination, const char *subject);

/* Writes arrays to a .npz, or one to a .npy, by the ending of the path. The file appears whole or not at all. */
typedef struct mcc_array_writer mcc_array_writer;

/* Status 64 for another ending, 73 if the file cannot be created. */
mcc_array_writer *mcc_array_writer_open(const char *path);

/* Starts an array; its elements follow in any number of pieces. bf16 is written as f32. */
void mcc_array_writer_begin(mcc_array_writer *writer, const char *name, mcc_dtype dtype, int32_t rank,
                            const int64_t *dims);
void mcc_array_writer_append(mcc_array_writer *writer, const void *elements, int64_t count);
void mcc_array_writer_end(mcc_array_writer *writer);

/* Completes the file under its name and frees the writer. */
void mcc_array_writer_close(mcc_array_writer *writer);

/* CRC-32 as zip uses it, of more bytes after those that gave `crc` (at first 0). */
uint32_t mcc_crc32(uint32_t crc, const void *data, size_t size);

/* Binary16 and bfloat16. */
float mcc_float_from_half(uint16_t bits);
uint16_t mcc_half_from_float(float number);

#endif

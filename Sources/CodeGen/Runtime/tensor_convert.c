#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "failure.h"
#include "program.h"
#include "tensor_file.h"

float mcc_float_from_half(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = fraction == 0 ? INFINITY : NAN;
  } else {
    magnitude = ldexpf((float)(exponent == 0 ? fraction : fraction + 1024), (exponent == 0 ? 1 : exponent) - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t mcc_half_from_float(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00);
  if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520 and above round to infinity */
  if (magnitude < 0x38800000) {                                  /* below 2^-14: a multiple of 2^-24 */
    float scaled = fabsf(number) * 0x1p24f;
    return (uint16_t)(sign | (uint32_t)nearbyintf(scaled));
  }
  uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
  return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
}

static uint16_t bfloat_from_float(float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  if (isnan(number)) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static bool is_float(mcc_dtype dtype) {
  return dtype == MCC_F64 || dtype == MCC_F32 || dtype == MCC_F16 || dtype == MCC_BF16;
}

/* Elements of any alignment. */
#define LOAD(type, from) \
  type number;           \
  memcpy(&number, from, sizeof number)

static double load_float(mcc_dtype dtype, const uint8_t *from) {
  if (dtype == MCC_F64) {
    LOAD(double, from);
    return number;
  }
  if (dtype == MCC_F32) {
    LOAD(float, from);
    return (double)number;
  }
  LOAD(uint16_t, from);
  return (double)mcc_float_from_half(number);
}

static void store_float(mcc_dtype dtype, uint8_t *to, double number) {
  float single = (float)number;
  uint16_t bits = dtype == MCC_F16 ? mcc_half_from_float(single) : bfloat_from_float(single);
  switch (dtype) {
    case MCC_F64: memcpy(to, &number, sizeof number); break;
    case MCC_F32: memcpy(to, &single, sizeof single); break;
    default: memcpy(to, &bits, sizeof bits); break;
  }
}

static int64_t load_integer(mcc_dtype dtype, const uint8_t *from) {
  switch (dtype) {
    case MCC_I64: { LOAD(int64_t, from); return number; }
    case MCC_I32: { LOAD(int32_t, from); return number; }
    case MCC_I16: { LOAD(int16_t, from); return number; }
    case MCC_I8: return (int8_t)*from;
    default: return *from;
  }
}

/* Whether the number fits. */
static bool store_integer(mcc_dtype dtype, uint8_t *to, int64_t number) {
  int32_t word = (int32_t)number;
  int16_t half = (int16_t)number;
  switch (dtype) {
    case MCC_I64: memcpy(to, &number, sizeof number); return true;
    case MCC_I32: memcpy(to, &word, sizeof word); return word == number;
    case MCC_I16: memcpy(to, &half, sizeof half); return half == number;
    case MCC_I8: *to = (uint8_t)number; return number >= INT8_MIN && number <= INT8_MAX;
    default: *to = (uint8_t)number; return number >= 0 && number <= UINT8_MAX;
  }
}

void mcc_array_convert(const mcc_array *array, mcc_dtype dtype, void *destination, const char *subject) {
  const uint8_t *from = array->data;
  uint8_t *to = destination;
  size_t count = (size_t)array->count, from_size = (size_t)mcc_dtype_size(array->dtype);
  size_t to_size = (size_t)mcc_dtype_size(dtype);
  if (array->dtype == MCC_BOOL && dtype == MCC_BOOL) {
    for (size_t i = 0; i < count; i++) to[i] = from[i] != 0;
  } else if (array->dtype == dtype) {
    if (count > 0) memcpy(to, from, count * to_size);
  } else if (is_float(array->dtype) && is_float(dtype)) {
    for (size_t i = 0; i < count; i++) {
      store_float(dtype, to + i * to_size, load_float(array->dtype, from + i * from_size));
    }
  } else if (!is_float(array->dtype) && !is_float(dtype) && array->dtype != MCC_BOOL && dtype != MCC_BOOL) {
    for (size_t i = 0; i < count; i++) {
      int64_t number = load_integer(array->dtype, from + i * from_size);
      if (!store_integer(dtype, to + i * to_size, number)) {
        mcc_fail(MCC_EXIT_INPUT, "input '%s': the number %" PRId64 " at index %zu does not fit %s", subject, number, i,
                 mcc_dtype_name(dtype));
      }
    }
  } else {
    mcc_fail(MCC_EXIT_INPUT, "input '%s' has elements of type %s where %s is expected", subject,
             mcc_dtype_name(array->dtype), mcc_dtype_name(dtype));
  }
}

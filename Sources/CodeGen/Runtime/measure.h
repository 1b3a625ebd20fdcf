/* Times of repeated runs. */
#ifndef MCC_MEASURE_H
#define MCC_MEASURE_H

#include <stdlib.h>

static inline int mcc_compare_times(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts the times and returns their median; count > 0. */
static inline double mcc_median(double *times, size_t count) {
  qsort(times, count, sizeof *times, mcc_compare_times);
  return (times[(count - 1) / 2] + times[count / 2]) / 2;
}

#endif

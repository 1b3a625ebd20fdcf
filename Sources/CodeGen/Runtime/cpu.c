#define _GNU_SOURCE
#include "cpu.h"

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static bool has_feature(const char *name) {
#if defined(__x86_64__)
  /* __builtin_cpu_supports takes literals only. */
#define CHECK(feature) \
  if (strcmp(name, feature) == 0) return __builtin_cpu_supports(feature) != 0
  CHECK("sse3");
  CHECK("ssse3");
  CHECK("sse4.1");
  CHECK("sse4.2");
  CHECK("popcnt");
  CHECK("avx");
  CHECK("avx2");
  CHECK("fma");
  CHECK("f16c");
  CHECK("bmi");
  CHECK("bmi2");
  CHECK("avx512f");
  CHECK("avx512bw");
  CHECK("avx512cd");
  CHECK("avx512dq");
  CHECK("avx512vl");
  CHECK("avx512vnni");
  CHECK("avx512vbmi");
  CHECK("avx512bf16");
  CHECK("avxvnni");
#undef CHECK
#elif defined(__aarch64__) && defined(__linux__)
  /* Bits of the kernel's AT_HWCAP and AT_HWCAP2. */
  static const struct {
    const char *name;
    unsigned long type, bit;
  } features[] = {
      {"asimd", AT_HWCAP, 1}, {"asimdhp", AT_HWCAP, 10}, {"asimddp", AT_HWCAP, 20},
      {"sve", AT_HWCAP, 22},  {"i8mm", AT_HWCAP2, 13},   {"bf16", AT_HWCAP2, 14},
  };
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    if (strcmp(name, features[i].name) == 0) return (getauxval(features[i].type) >> features[i].bit & 1) != 0;
  }
#endif
  (void)name;
  return false;
}

const char *mcc_cpu_missing_feature(const char *const *features) {
  while (*features != NULL && has_feature(*features)) features++;
  return *features;
}

int mcc_cpu_cores(void) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int)online : 1;
}

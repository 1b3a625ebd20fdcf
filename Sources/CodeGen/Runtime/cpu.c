#define _GNU_SOURCE
#include "cpu.h"

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
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

int mcc_cpu_quota(const char *text) {
  long long quota, period;
  if (sscanf(text, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
  long long cores = (quota + period - 1) / period;
  return cores < 1 << 20 ? (int)cores : 1 << 20;
}

/* The least quota of the control groups (version 2) that this process is in, in cores; 0 for none. */
static int group_quota(void) {
  char line[1024], path[1100], text[64];
  FILE *groups = fopen("/proc/self/cgroup", "r");
  if (groups == NULL) return 0;
  bool found = false;
  while (!found && fgets(line, sizeof line, groups) != NULL) found = strncmp(line, "0::/", 4) == 0;
  fclose(groups);
  if (!found) return 0;
  line[strcspn(line, "\n")] = 0;
  int least = 0;
  for (char *end = line + strlen(line); end != NULL; end = strrchr(line + 3, '/')) {
    *end = 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
    FILE *file = fopen(path, "r");
    if (file == NULL) continue;
    int cores = fgets(text, sizeof text, file) != NULL ? mcc_cpu_quota(text) : 0;
    fclose(file);
    if (cores > 0 && (least == 0 || cores < least)) least = cores;
  }
  return least;
}

int mcc_cpu_cores(void) {
  cpu_set_t allowed;
  long cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : sysconf(_SC_NPROCESSORS_ONLN);
  int quota = group_quota();
  if (quota > 0 && quota < cores) cores = quota;
  return cores > 0 ? (int)cores : 1;
}

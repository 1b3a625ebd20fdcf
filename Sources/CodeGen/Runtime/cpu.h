/* What the processor offers. */
#ifndef MCC_CPU_H
#define MCC_CPU_H

/* The first of the NULL-terminated names that this CPU lacks (or that is unknown here), or NULL. */
const char *mcc_cpu_missing_feature(const char *const *features);

/* Number of cores this process may run on. */
int mcc_cpu_cores(void);

#endif

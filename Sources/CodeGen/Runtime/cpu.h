/* What the processor offers. */
#ifndef MCC_CPU_H
#define MCC_CPU_H

/* The first of the NULL-terminated names that this CPU lacks (or that is unknown here), or NULL. */
const char *mcc_cpu_missing_feature(const char *const *features);

/* Number of cores this process may use: those it may run on, or as many as its control group lets it have time of. */
int mcc_cpu_cores(void);

/* The cores that the text of a file `cpu.max` grants, rounded up; 0 for all. */
int mcc_cpu_quota(const char *text);

#endif

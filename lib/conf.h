/*
 * conf: spool.json, the configuration of one spool. All defaults work without it; spool.json(5).
 */
#ifndef CONF_H
#define CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "sperr.h"

struct sp_conf {
	int workers;              /* default: number of CPUs online */
	bool durable;             /* "durability": "full" (default) or "none" */
	double settle_s;          /* 5: quiet time before a directory that grows in incoming/ is taken */
	double kill_grace_s;      /* 5: between TERM and KILL */
	int64_t log_max_bytes;    /* 256 MiB: of log and of each raw stream, per job unless it says */
	bool cgroup;              /* "cgroup": true (default): use a writable cgroup v2 where there is one */
	char *path;               /* PATH of stages; default "/usr/local/bin:/usr/bin:/bin" */
	char *path_own;           /* the allocated one, or NULL; for sp_conf_done */
	struct { double done_s, failed_s, canceled_s; } retention; /* purge that long after the end; negative: never (default) */
	struct sp_job_defaults defaults; /* "defaults": {timeout_s, stall_s, retry, limits, env} */
};

void sp_conf_init(struct sp_conf *c);
void sp_conf_done(struct sp_conf *c);
/*
 * Read SPOOL/spool.json (root_dfd: the spool). Missing: the defaults, 0. Not valid: -1 with err (file spool.json, line, column, member,
 * what would be right) and *c as sp_conf_init leaves it.
 */
int sp_conf_load(struct sp_conf *c, int root_dfd, struct sp_err *err);

/* The members each object may have, NULL-terminated; the schema names the same (a test compares them). */
extern const char *const sp_conf_members[], *const sp_conf_retention_members[], *const sp_conf_defaults_members[];

#endif

/*
 * job: job.json, parsed, checked and with its defaults. spool-job(5) describes the members; man/spool-job.schema.json
 * is the same as a schema. A typo is never ignored: unknown members are an error with file, line, column and member.
 */
#ifndef JOB_H
#define JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jx.h"
#include "sperr.h"

#define SP_JOB_BYTES_MAX (1024 * 1024) /* of job.json */
#define SP_JOB_STAGES_MAX 256
#define SP_JOB_NAME_MAX 200    /* bytes of a job's name and of its key */
#define SP_JOB_ENV_MAX 1024    /* variables in one env object */
#define SP_JOB_ENV_BYTES 131072 /* of one env object together, and of one argument: what execve takes in one string */

/* Which kinds of failure an automatic retry is for; a set of bits. */
enum sp_failure {
	FAILURE_EXIT = 1,      /* exit code that is not 0 and has no other meaning   "exit" */
	FAILURE_SIGNAL = 2,    /* killed by a signal not ours                         "signal" */
	FAILURE_TIMEOUT = 4,   /* timeout_s of stage or job                           "timeout" */
	FAILURE_STALL = 8,     /* stall_s: no output and no progress for that long    "stall" */
	FAILURE_OUTPUT = 16,   /* a declared output is missing, empty or not a file   "output" */
	FAILURE_CHECK = 32,    /* the check command said no                           "check" */
	FAILURE_START = 64,    /* the command could not be started                    "start" */
	FAILURE_SYSTEM = 128,  /* no space, I/O error, no memory, no descriptors      "system" */
	FAILURE_LOG = 256,     /* the log is the output and reached its limit         "log_limit" */
	FAILURE_ALL = 511
};

struct sp_retry {
	int max_attempts;     /* 1 = never again by itself (the default) */
	double backoff_s;     /* before attempt 2; doubles each time (default 5) */
	double max_backoff_s; /* cap (default 600) */
	double jitter;        /* 0..1: the wait is multiplied by 1 ± jitter·random (default 0.1) */
	unsigned on;          /* bits of enum sp_failure (default: all but start) */
};

struct sp_limits { /* -1: not set */
	int64_t cpu_s, memory_bytes, file_bytes, open_files, processes, core_bytes;
	int nice;             /* 0..19 (lower needs privilege); 0 not changed */
	int ionice_class;     /* 0 none, 1 realtime, 2 best-effort, 3 idle */
	int ionice_level;     /* 0..7 */
};

struct sp_output {
	char *path;           /* below work/ */
	char *media_type;     /* NULL if not declared */
	bool may_be_empty;
};

struct sp_env { char *name, *value; };

enum sp_stage_kind { STAGE_RUN, STAGE_SHELL, STAGE_PROVIDER };

struct sp_stage {
	char *name;
	enum sp_stage_kind kind;
	char **argv;          /* NULL-terminated: run; for shell {"/bin/sh","-c",TEXT,NULL} */
	char *provider;       /* STAGE_PROVIDER: its name; its params are checked by a later version */
	json_t *params;       /* of a provider stage, or NULL; part of the job's jx */
	char *cwd;            /* absolute: run there instead of in work/; NULL */
	size_t *needs; size_t n_needs; /* indices of earlier-needed stages ("needs", or the one before) */
	struct sp_output *outputs; size_t n_outputs;
	char **inputs; size_t n_inputs; /* files below work/ or ../input/ it consumes, when declared; NULL/0: all of input/ and every output of its needs */
	char **check;         /* argv or NULL */
	double timeout_s, stall_s, check_timeout_s; /* 0: none */
	bool optional;
	bool has_retry; struct sp_retry retry; /* without one of its own, and for members it leaves out: the job's */
	struct sp_env *env; size_t n_env; /* the spool's, below the job's, below its own; sorted by name */
	struct sp_limits limits; /* the spool's, below the job's, below its own */
	int exit_blocked[16]; size_t n_exit_blocked; /* default 77, 78 */
	int exit_later[16]; size_t n_exit_later;     /* default 75 */
	char *stdin_path;     /* below input/; NULL: /dev/null */
	char digest[65];      /* BLAKE2b of this stage's definition (canonical JSON of what affects its result: run/shell/provider, env, cwd, stdin, outputs, check, exit) */
};

struct sp_job {
	struct sp_jx jx;      /* the text it came from */
	char *name;           /* "" when not given */
	char *key;            /* NULL when not given */
	char *parent;         /* id of the job it was resubmitted from, or NULL */
	char *comment;        /* free text or NULL */
	int priority;
	double timeout_s, stall_s; /* of the whole job / default of its stages; 0: none */
	struct sp_retry retry;
	int64_t log_max_bytes; /* 0: the spool's */
	bool output_is_log;   /* "outputs": "log" */
	struct sp_output *outputs; size_t n_outputs;
	struct sp_stage *stages; size_t n_stages;
	struct sp_job_block *mem; /* all of the above but jx lives in it */
};

/* What spool.json gives as defaults to jobs that do not say; see conf.h. */
struct sp_job_defaults {
	double timeout_s, stall_s;
	struct sp_retry retry;
	struct sp_limits limits;
	struct sp_env *env; size_t n_env; /* below the job's own env */
};
/* The defaults when there is no spool.json. */
void sp_job_defaults_init(struct sp_job_defaults *d);
void sp_job_defaults_done(struct sp_job_defaults *d); /* frees env */

/*
 * Parse and check n bytes of a job file. file is the name for messages; d may be NULL. All members, the graph (graph.h), that every job
 * output is some stage's output, names and paths. 0 with *job filled (sp_job_done frees), or -1 with err: code EINVAL and the place
 * for bad input, ENOMEM otherwise.
 */
int sp_job_parse(struct sp_job *job, const char *file, const char *text, size_t n, const struct sp_job_defaults *d, struct sp_err *err);
/* The same from job.json in an open job directory. 0, or -1; code ENOENT if there is none. */
int sp_job_load(struct sp_job *job, int job_dfd, const struct sp_job_defaults *d, struct sp_err *err);
void sp_job_done(struct sp_job *job); /* of a zeroed or filled job */

/* Names of the failure classes as job files write them. */
const char *sp_failure_name(enum sp_failure f);
bool sp_failure_parse(const char *name, enum sp_failure *out);

/* Index of a stage by name, or -1. */
int sp_job_stage(const struct sp_job *job, const char *name);
/* Whether two stages of this job may ever run at the same time. */
bool sp_job_side_by_side(const struct sp_job *job);

/*
 * The digest of a request, for idempotency keys: BLAKE2b of the canonical text of job.json (sorted members, without "key" and "parent").
 */
int sp_job_request_digest(const struct sp_job *job, char hex_out[65], struct sp_err *err);

/* Whether a text may be a job's name: 1 to SP_JOB_NAME_MAX bytes of UTF-8 without control characters. */
bool sp_job_name_ok(const char *s);

/* The members each object may have, NULL-terminated; the schema names the same (a test compares them). */
extern const char *const sp_job_members[], *const sp_job_stage_members[], *const sp_job_output_members[];
extern const char *const sp_job_retry_members[], *const sp_job_limits_members[], *const sp_job_exit_members[];

#endif

/*
 * jobpart: the pieces of a job file that stand in more than one place: retry and limits (job, stage, spool.json),
 * env (the same three), lists of outputs (job and stage). Also the memory of a parsed job. For job.c, jobstage.c, conf.c.
 *
 * Each reader takes the parent and the member's name, leaves what is not said as it was, and returns 1 given, 0 absent,
 * -1 with err.
 */
#ifndef JOBPART_H
#define JOBPART_H

#include "job.h"
#include "member.h"

int sp_jobpart_retry(const struct sp_member *m, const char *key, struct sp_retry *r);
int sp_jobpart_limits(const struct sp_member *m, const char *key, struct sp_limits *l);

/* Check an env object; *obj_out belongs to the text it came from. Its names and values are strings of a checked form. */
int sp_jobpart_env(const struct sp_member *m, const char *key, json_t **obj_out);

/*
 * One element of a list of outputs: a path, or {"path", "media_type", "may_be_empty"}. The strings stay the text's. said
 * gets which of media_type (1) and may_be_empty (2) were given.
 */
struct sp_jobpart_output { const char *path, *media_type; bool may_be_empty; unsigned said; };
int sp_jobpart_output(const struct sp_member *m, const char *key, size_t i, struct sp_jobpart_output *out);

/* Zeroed memory that sp_job_done frees with the job, NULL when out of memory; and copies of strings in it. */
void *sp_jobpart_alloc(struct sp_job *job, size_t n);
char *sp_jobpart_copy(struct sp_job *job, const char *s);
void sp_jobpart_free(struct sp_job *job);

#endif

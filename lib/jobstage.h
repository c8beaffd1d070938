/*
 * jobstage: one stage of a job file. For job.c.
 */
#ifndef JOBSTAGE_H
#define JOBSTAGE_H

#include "job.h"
#include "member.h"

/* What a stage takes from its job. */
struct sp_jobstage_from {
	struct sp_env *env; size_t n_env; /* of the spool and the job, sorted by name; lives as long as the job */
	char env_digest[65]; /* of that; "" when there is none */
	struct sp_limits limits;
};

/* Fill from's environment: d's and, over it, the object's (NULL: none). Memory is the job's. 0, or -1 with err. */
int sp_jobstage_base_env(struct sp_job *job, const struct sp_job_defaults *d, json_t *obj, struct sp_jobstage_from *from,
	struct sp_err *err);

/*
 * Read and check the object m, whose members are known ones, into job->stages[i] (zeroed; job->n_stages, retry and
 * stall_s are set), with its digest. Names are checked alone and needs not at all: jobcheck does both for all stages
 * together. 0, or -1 with err.
 */
int sp_jobstage_parse(struct sp_job *job, size_t i, const struct sp_member *m, const struct sp_jobstage_from *from);

/* Read a list of outputs into memory of the job; nothing if the member is absent. 0, or -1 with err. */
int sp_jobstage_outputs(struct sp_job *job, const struct sp_member *m, struct sp_output **out, size_t *n_out);

/* Fill s->digest from all that affects the result; own_env: its own env object or NULL. In jobdigest.c. 0, or -1 with err. */
int sp_jobdigest_stage(struct sp_stage *s, json_t *own_env, const struct sp_jobstage_from *from, struct sp_err *err);

#endif

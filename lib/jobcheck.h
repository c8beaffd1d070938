/*
 * jobcheck: what must be true of the stages of a job together. For job.c, after each stage was read. Both return 0, or
 * -1 with err.
 */
#ifndef JOBCHECK_H
#define JOBCHECK_H

#include "job.h"
#include "member.h"

/* Names are unique, needs name stages (where absent: the one before) without a cycle; fills needs. m: the job's object. */
int sp_jobcheck_needs(struct sp_job *job, const struct sp_member *m);
/* No two stages make the same file; a stage that is not optional makes each output of the job. Fills the job's outputs. */
int sp_jobcheck_outputs(struct sp_job *job, const struct sp_member *m);

#endif

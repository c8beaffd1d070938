/*
 * job: job.json, read whole and checked whole, or refused with the place and what would be right.
 *
 * I1  A struct sp_job that was filled is valid in itself: names are unique, needs are indices without a cycle, every
 *     output of the job is made by a stage that must succeed, all numbers are in range. Nobody checks these again.
 * I2  It owns all it points to: the text and values in jx, everything else in mem.
 *
 * Its parts: jobstage (one stage), jobcheck (all stages together), jobpart (retry, limits, env, outputs), jobdigest.
 */
#include "job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "id.h"
#include "jobcheck.h"
#include "jobpart.h"
#include "jobstage.h"
#include "member.h"

#define COMMENT_MAX 4096 /* bytes */

const char *const sp_job_members[] = {
	"spool", "name", "comment", "key", "parent", "priority", "timeout_s", "stall_s", "retry", "env", "limits",
	"log_max_bytes", "stages", "outputs", NULL};

void sp_job_defaults_init(struct sp_job_defaults *d)
{
	*d = (struct sp_job_defaults){
		.retry = {1, 5, 600, 0.1, FAILURE_ALL & ~(unsigned)FAILURE_START},
		.limits = {-1, -1, -1, -1, -1, -1, 0, 0, 0},
	};
}

void sp_job_defaults_done(struct sp_job_defaults *d)
{
	size_t i;

	for (i = 0; i < d->n_env; i++) {
		free(d->env[i].name);
		free(d->env[i].value);
	}
	free(d->env);
	d->env = NULL;
	d->n_env = 0;
}

bool sp_job_name_ok(const char *s)
{
	size_t n = strlen(s);
	json_t *utf8;

	if (!n || n > SP_JOB_NAME_MAX || !sp_member_text_ok(s, n))
		return false;
	utf8 = json_stringn(s, n); /* NULL for what is not UTF-8 */
	json_decref(utf8);
	return utf8 != NULL;
}

static bool listed(const char *const list[], const char *name)
{
	while (*list && strcmp(*list, name))
		list++;
	return *list != NULL;
}

/* No member but the known ones. One that only stands in the wrong one of job and stage is told where it belongs. */
static int only_known(const struct sp_member *m, const char *const known[], const char *const others[], const char *where)
{
	char path[SP_MEMBER_PATH];

	if (!sp_jx_only(m->jx, m->obj, m->path, known, m->err))
		return 0;
	for (; *others; others++) {
		if (listed(known, *others) || !json_object_get(m->obj, *others))
			continue;
		(void)snprintf(path, sizeof path, "%s%s%s", m->path, *m->path ? "." : "", *others);
		return sp_jx_fail(m->jx, path, true, m->err, "%s", where);
	}
	return -1;
}

static int copy_text(struct sp_job *job, const struct sp_member *m, const char *key, size_t max, char **out)
{
	const char *s;
	int got = sp_member_text(m, key, max, &s);

	if (got <= 0)
		return got;
	*out = sp_jobpart_copy(job, s);
	return *out ? 1 : sp_err_mem(m->err);
}

/* name, comment, key, parent */
static int texts(struct sp_job *job, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "parent");
	const char *comment = NULL;

	if (copy_text(job, m, "name", SP_JOB_NAME_MAX, &job->name) < 0 ||
		copy_text(job, m, "key", SP_JOB_NAME_MAX, &job->key) < 0 ||
		sp_member_string(m, "comment", &comment) < 0)
		return -1;
	if (comment && strlen(comment) > COMMENT_MAX)
		return sp_member_fail(m, "comment", "expected at most %d bytes, found %zu; put a longer text into a file in input/",
			COMMENT_MAX, strlen(comment));
	if (v && (!json_is_string(v) || !sp_id_ok(json_string_value(v))))
		return sp_member_strange(m, "parent", SP_MEMBER_ALL, v,
			"the id of a job such as \"20261124T015200.123456Z-7k3q9x\"", "");
	if ((!job->name && !(job->name = sp_jobpart_copy(job, ""))) ||
		(comment && !(job->comment = sp_jobpart_copy(job, comment))) ||
		(v && !(job->parent = sp_jobpart_copy(job, json_string_value(v)))))
		return sp_err_mem(m->err);
	return 0;
}

/* What holds for the whole job and, as its default, for the stages. */
static int common(struct sp_job *job, const struct sp_member *m, const struct sp_job_defaults *d, struct sp_jobstage_from *from)
{
	int64_t priority = 0;
	json_t *env = NULL;

	job->timeout_s = d->timeout_s;
	job->stall_s = d->stall_s;
	job->retry = d->retry;
	from->limits = d->limits;
	if (sp_member_version(m, "spool") || texts(job, m) ||
		sp_member_int(m, "priority", -1000, 1000, &priority) < 0 ||
		sp_member_time(m, "timeout_s", &job->timeout_s) < 0 || sp_member_time(m, "stall_s", &job->stall_s) < 0 ||
		sp_jobpart_retry(m, "retry", &job->retry) < 0 || sp_jobpart_env(m, "env", &env) < 0 ||
		sp_jobpart_limits(m, "limits", &from->limits) < 0 ||
		sp_member_int(m, "log_max_bytes", 1, SP_MEMBER_INT_MAX, &job->log_max_bytes) < 0)
		return -1;
	job->priority = (int)priority;
	return sp_jobstage_base_env(job, d, env, from, m->err);
}

static int stages(struct sp_job *job, const struct sp_member *m, const struct sp_jobstage_from *from)
{
	json_t *v = json_object_get(m->obj, "stages");
	char path[SP_MEMBER_PATH];
	struct sp_member stage;
	size_t i;

	if (!v)
		return sp_member_fail(m, NULL,
			"\"stages\" is missing; a job has at least one, such as \"stages\": [{\"run\": [\"make\", \"all\"]}]");
	if (!json_is_array(v) || !json_array_size(v))
		return sp_member_wrong(m, "stages", v, "a list of stages such as [{\"run\": [\"make\", \"all\"]}]", "");
	if (json_array_size(v) > SP_JOB_STAGES_MAX)
		return sp_member_fail(m, "stages", "expected at most %d stages, found %zu; divide them among several jobs",
			SP_JOB_STAGES_MAX, json_array_size(v));
	job->n_stages = json_array_size(v);
	job->stages = sp_jobpart_alloc(job, job->n_stages * sizeof *job->stages);
	if (!job->stages)
		return sp_err_mem(m->err);
	for (i = 0; i < job->n_stages; i++) {
		(void)snprintf(path, sizeof path, "stages[%zu]", i);
		stage = (struct sp_member){m->jx, json_array_get(v, i), path, m->err};
		if (!json_is_object(stage.obj))
			return sp_member_wrong(&stage, NULL, stage.obj, "an object such as {\"run\": [\"make\", \"all\"]}", "");
		if (only_known(&stage, sp_job_stage_members, sp_job_members,
				"belongs to the whole job; write it beside \"stages\"") ||
			sp_jobstage_parse(job, i, &stage, from))
			return -1;
	}
	return 0;
}

/* job->jx holds a text; fill the rest from it. */
static int fill(struct sp_job *job, const struct sp_job_defaults *d, struct sp_err *err)
{
	const struct sp_member m = {&job->jx, job->jx.root, "", err};
	struct sp_jobstage_from from = {0};
	struct sp_job_defaults plain;

	sp_job_defaults_init(&plain);
	if (!json_is_object(m.obj))
		return sp_member_wrong(&m, NULL, m.obj, "an object with \"stages\" and \"outputs\"", "");
	if (only_known(&m, sp_job_members, sp_job_stage_members,
			"belongs to a stage; write it inside \"stages\": [{...}]") ||
		common(job, &m, d ? d : &plain, &from) || stages(job, &m, &from) || sp_jobcheck_needs(job, &m))
		return -1;
	return sp_jobcheck_outputs(job, &m);
}

int sp_job_parse(struct sp_job *job, const char *file, const char *text, size_t n, const struct sp_job_defaults *d,
	struct sp_err *err)
{
	memset(job, 0, sizeof *job);
	if (n > SP_JOB_BYTES_MAX) {
		(void)sp_err_set(err, EINVAL, "expected at most %d bytes, found %zu; put large data into files in input/",
			SP_JOB_BYTES_MAX, n);
		if (err)
			(void)snprintf(err->file, sizeof err->file, "%s", file);
		return -1;
	}
	if (sp_jx_parse(&job->jx, file, text, n, err))
		return -1;
	if (fill(job, d, err)) {
		sp_job_done(job);
		return -1;
	}
	return 0;
}

int sp_job_load(struct sp_job *job, int job_dfd, const struct sp_job_defaults *d, struct sp_err *err)
{
	memset(job, 0, sizeof *job);
	switch (sp_jx_load(&job->jx, job_dfd, "job.json", SP_JOB_BYTES_MAX, err)) {
	case 1:
		break;
	case 0:
		return sp_err_set(err, ENOENT, "there is no job.json");
	default:
		return -1;
	}
	if (fill(job, d, err)) {
		sp_job_done(job);
		return -1;
	}
	return 0;
}

void sp_job_done(struct sp_job *job)
{
	sp_jobpart_free(job);
	sp_jx_done(&job->jx);
	memset(job, 0, sizeof *job);
}

int sp_job_stage(const struct sp_job *job, const char *name)
{
	size_t i;

	for (i = 0; i < job->n_stages; i++)
		if (!strcmp(job->stages[i].name, name))
			return (int)i;
	return -1;
}

bool sp_job_side_by_side(const struct sp_job *job)
{
	struct sp_graph_node nodes[SP_JOB_STAGES_MAX];
	size_t i;

	for (i = 0; i < job->n_stages; i++)
		nodes[i] = (struct sp_graph_node){job->stages[i].needs, job->stages[i].n_needs};
	return job->n_stages > 1 && sp_graph_wide(nodes, job->n_stages);
}

/*
 * jobpart: see jobpart.h. Nothing here touches the disk.
 *
 * I1  Memory of a job comes in blocks that are freed together; nothing in it is freed alone.
 * I2  What is read into a struct that already holds inherited values changes only what the object names.
 */
#include "jobpart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "id.h"

/* failure classes, by bit number */
static const char *const failure_names[] = {
	"exit", "signal", "timeout", "stall", "output", "check", "start", "system", "log_limit"};
#define N_FAILURES (sizeof failure_names / sizeof failure_names[0])
_Static_assert((1 << N_FAILURES) - 1 == FAILURE_ALL, "every class of failure has its name");
#define FAILURE_LIST \
	"\"exit\", \"signal\", \"timeout\", \"stall\", \"output\", \"check\", \"start\", \"system\" and \"log_limit\""

const char *const sp_job_retry_members[] = {"max_attempts", "backoff_s", "max_backoff_s", "jitter", "on", NULL};
const char *const sp_job_limits_members[] = {
	"cpu_s", "memory_bytes", "file_bytes", "open_files", "processes", "core_bytes", "nice", "ionice", NULL};
const char *const sp_job_output_members[] = {"path", "media_type", "may_be_empty", NULL};

const char *sp_failure_name(enum sp_failure f)
{
	size_t i;

	for (i = 0; i < N_FAILURES; i++)
		if ((unsigned)f == 1u << i)
			return failure_names[i];
	return "unknown";
}

bool sp_failure_parse(const char *name, enum sp_failure *out)
{
	size_t i;

	for (i = 0; i < N_FAILURES; i++)
		if (!strcmp(name, failure_names[i])) {
			*out = (enum sp_failure)(1u << i);
			return true;
		}
	return false;
}

static int retry_on(const struct sp_member *m, struct sp_retry *r)
{
	const json_t *v = json_object_get(m->obj, "on"), *e;
	enum sp_failure f;
	unsigned on = 0;
	size_t i;

	if (!v)
		return 0;
	if (!json_is_array(v) || !json_array_size(v))
		return sp_member_wrong(m, "on", v, "a list of failure classes such as [\"exit\", \"timeout\"]",
			"; for no retry at all write \"max_attempts\": 1");
	for (i = 0; i < json_array_size(v); i++) {
		e = json_array_get(v, i);
		if (!json_is_string(e) || !sp_failure_parse(json_string_value(e), &f))
			return sp_member_strange(m, "on", i, e, "a failure class", "; the classes are " FAILURE_LIST);
		on |= (unsigned)f;
	}
	r->on = on;
	return 1;
}

int sp_jobpart_retry(const struct sp_member *m, const char *key, struct sp_retry *r)
{
	char path[SP_MEMBER_PATH];
	struct sp_member sub;
	int64_t attempts;
	int got, first, cap;

	got = sp_member_object(m, key, "an object such as {\"max_attempts\": 3, \"backoff_s\": 5}", sp_job_retry_members, &sub,
		path);
	if (got <= 0)
		return got;
	attempts = r->max_attempts;
	if (sp_member_int(&sub, "max_attempts", 1, 10000, &attempts) < 0)
		return -1;
	r->max_attempts = (int)attempts;
	if ((first = sp_member_time(&sub, "backoff_s", &r->backoff_s)) < 0 ||
		(cap = sp_member_time(&sub, "max_backoff_s", &r->max_backoff_s)) < 0)
		return -1;
	if (cap && first && r->max_backoff_s < r->backoff_s)
		return sp_member_fail(&sub, "max_backoff_s", "expected at least backoff_s (%.15g), found %.15g", r->backoff_s,
			r->max_backoff_s);
	/* Whichever of the two was said in this place decides; the other, inherited or a default, gives way. */
	if (cap && r->backoff_s > r->max_backoff_s)
		r->backoff_s = r->max_backoff_s;
	else if (r->max_backoff_s < r->backoff_s)
		r->max_backoff_s = r->backoff_s;
	if (sp_member_num(&sub, "jitter", 0, 1, &r->jitter) < 0 || retry_on(&sub, r) < 0)
		return -1;
	return 1;
}

static int limits_ionice(const struct sp_member *m, struct sp_limits *l)
{
	static const char *const classes[] = {[1] = "realtime:", [2] = "best-effort:"};
	const json_t *v = json_object_get(m->obj, "ionice");
	const char *s;
	size_t n;
	int c;

	if (!v)
		return 0;
	s = json_is_string(v) ? json_string_value(v) : "";
	if (!strcmp(s, "idle")) {
		l->ionice_class = 3;
		l->ionice_level = 0;
		return 1;
	}
	for (c = 1; c <= 2; c++) {
		n = strlen(classes[c]);
		if (!strncmp(s, classes[c], n) && s[n] >= '0' && s[n] <= '7' && !s[n + 1]) {
			l->ionice_class = c;
			l->ionice_level = s[n] - '0';
			return 1;
		}
	}
	return sp_member_strange(m, "ionice", SP_MEMBER_ALL, v,
		"\"idle\", or \"best-effort:N\" or \"realtime:N\" with N from 0 (first) to 7 (last)", "");
}

int sp_jobpart_limits(const struct sp_member *m, const char *key, struct sp_limits *l)
{
	/* open_files: 0 to 3 are taken before the command starts, and a dynamic loader needs some more */
	const struct { const char *name; int64_t min, *at; } numbers[] = {
		{"cpu_s", 1, &l->cpu_s}, {"memory_bytes", 1, &l->memory_bytes}, {"file_bytes", 0, &l->file_bytes},
		{"open_files", 8, &l->open_files}, {"processes", 1, &l->processes}, {"core_bytes", 0, &l->core_bytes},
	};
	char path[SP_MEMBER_PATH];
	struct sp_member sub;
	int64_t niceness = l->nice;
	size_t i;
	int got;

	got = sp_member_object(m, key, "an object such as {\"memory_bytes\": 2147483648, \"nice\": 10}",
		sp_job_limits_members, &sub, path);
	if (got <= 0)
		return got;
	for (i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (sp_member_int(&sub, numbers[i].name, numbers[i].min, SP_MEMBER_INT_MAX, numbers[i].at) < 0)
			return -1;
	if (sp_member_int(&sub, "nice", 0, 19, &niceness) < 0 || limits_ionice(&sub, l) < 0)
		return -1;
	l->nice = (int)niceness;
	return 1;
}

/* Whether a name can stand in a path of members as it is (jx reads dots and brackets there). */
static bool plain(const char *name)
{
	return *name && strlen(name) <= 64 && !strpbrk(name, ".[]");
}

static bool env_name_ok(const char *s)
{
	return *s && !(*s >= '0' && *s <= '9') &&
		s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static int env_fail(const struct sp_member *m, const char *name, bool at_name, const char *text)
{
	char path[SP_MEMBER_PATH], shown[SP_MEMBER_QUOTED];

	if (!plain(name))
		return sp_jx_fail(m->jx, m->path, false, m->err, "%s: %s", sp_member_quote(shown, name), text);
	(void)snprintf(path, sizeof path, "%.150s.%s", m->path, name);
	return sp_jx_fail(m->jx, path, at_name, m->err, "%s", text);
}

int sp_jobpart_env(const struct sp_member *m, const char *key, json_t **obj_out)
{
	char path[SP_MEMBER_PATH], text[160];
	struct sp_member sub;
	json_t *v;
	const char *name;
	size_t bytes = 0;
	void *it;
	int got;

	got = sp_member_object(m, key, "an object of strings such as {\"LANG\": \"C.UTF-8\"}", NULL, &sub, path);
	if (got <= 0)
		return got;
	for (it = json_object_iter(sub.obj); it; it = json_object_iter_next(sub.obj, it)) {
		name = json_object_iter_key(it);
		v = json_object_iter_value(it);
		if (!env_name_ok(name))
			return env_fail(&sub, name, true,
				"expected a name of letters, digits and _ that does not begin with a digit");
		if (!strncmp(name, "SPOOL_", 6))
			return env_fail(&sub, name, true,
				"names that begin with SPOOL_ are the spool's own; choose another name");
		if (!json_is_string(v)) { /* not shown: it may be a secret */
			(void)snprintf(text, sizeof text, "expected a string, found %s",
				json_is_number(v) ? "a number; put it in double quotes" : "something else; write \"NAME\": \"text\"");
			return env_fail(&sub, name, false, text);
		}
		bytes += strlen(name) + json_string_length(v) + 2;
	}
	if (json_object_size(sub.obj) > SP_JOB_ENV_MAX || bytes > SP_JOB_ENV_BYTES)
		return sp_member_fail(&sub, NULL,
			"expected at most %d variables of at most %d bytes together, found %zu of %zu bytes", SP_JOB_ENV_MAX, SP_JOB_ENV_BYTES, json_object_size(sub.obj), bytes);
	*obj_out = sub.obj;
	return 1;
}

/* type/subtype, then nothing or parameters of printable ASCII after a semicolon. */
static bool media_type_ok(const char *s)
{
	static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&^_.+-";
	size_t n = strspn(s, token), i;

	if (strlen(s) > 200 || !n || s[n] != '/')
		return false;
	s += n + 1;
	n = strspn(s, token);
	if (!n || (s[n] && s[n] != ';'))
		return false;
	for (i = n; s[i]; i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return true;
}

#define PATH_RULE \
	"a relative path such as \"final.mp4\" or \"parts/1.wav\": no \".\", \"..\" or empty component, none that begins with a dot"

int sp_jobpart_output(const struct sp_member *m, const char *key, size_t i, struct sp_jobpart_output *out)
{
	json_t *e = json_array_get(json_object_get(m->obj, key), i), *v;
	char path[SP_MEMBER_PATH];
	struct sp_member sub = {m->jx, e, path, m->err};

	*out = (struct sp_jobpart_output){NULL, NULL, false, 0};
	if (json_is_string(e)) {
		out->path = json_string_value(e);
		return sp_id_path_ok(out->path) ? 1 : sp_member_strange(m, key, i, e, PATH_RULE, "");
	}
	if (!json_is_object(e))
		return sp_member_wrong_item(m, key, i, e,
			"a path or an object such as {\"path\": \"final.mp4\", \"media_type\": \"video/mp4\"}", "");
	(void)snprintf(path, sizeof path, "%.150s%s%s[%zu]", m->path, *m->path ? "." : "", key, i);
	if (sp_jx_only(m->jx, e, path, sp_job_output_members, m->err))
		return -1;
	v = json_object_get(e, "path");
	if (!v)
		return sp_member_fail(&sub, NULL, "\"path\" is missing; write it, or the path alone as a string");
	if (!json_is_string(v) || !sp_id_path_ok(json_string_value(v)))
		return sp_member_strange(&sub, "path", SP_MEMBER_ALL, v, PATH_RULE, "");
	out->path = json_string_value(v);
	v = json_object_get(e, "media_type");
	if (v && (!json_is_string(v) || !media_type_ok(json_string_value(v))))
		return sp_member_strange(&sub, "media_type", SP_MEMBER_ALL, v, "a media type such as \"video/mp4\"", "");
	if (v) {
		out->media_type = json_string_value(v);
		out->said |= 1;
	}
	switch (sp_member_bool(&sub, "may_be_empty", &out->may_be_empty)) {
	case -1:
		return -1;
	case 1:
		out->said |= 2;
	}
	return 1;
}

struct sp_job_block {
	struct sp_job_block *next;
	size_t used, size;
	_Alignas(16) char bytes[];
};

void *sp_jobpart_alloc(struct sp_job *job, size_t n)
{
	struct sp_job_block *b = job->mem;
	size_t size;
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (!b || b->size - b->used < n) {
		size = b ? 2 * b->size : 2000;
		if (size > 65536)
			size = 65536;
		if (size < n)
			size = n;
		b = malloc(sizeof *b + size);
		if (!b)
			return NULL;
		*b = (struct sp_job_block){job->mem, 0, size};
		job->mem = b;
	}
	p = b->bytes + b->used;
	b->used += n;
	return memset(p, 0, n);
}

char *sp_jobpart_copy(struct sp_job *job, const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = sp_jobpart_alloc(job, n);

	return p ? memcpy(p, s, n) : NULL;
}

void sp_jobpart_free(struct sp_job *job)
{
	struct sp_job_block *next;

	for (; job->mem; job->mem = next) {
		next = job->mem->next;
		free(job->mem);
	}
}

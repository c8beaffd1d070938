/*
 * jobstage: one stage: its command, what it reads and makes, its limits, and the digest of all that affects its result.
 */
#include "jobstage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "id.h"
#include "jobpart.h"

const char *const sp_job_stage_members[] = {
	"name", "run", "shell", "provider", "params", "cwd", "stdin", "needs", "inputs", "outputs", "check", "check_timeout_s",
	"timeout_s", "stall_s", "optional", "retry", "env", "limits", "exit", NULL};
const char *const sp_job_exit_members[] = {"blocked", "later", NULL};

static char **new_argv(struct sp_job *job, size_t n)
{
	return sp_jobpart_alloc(job, (n + 1) * sizeof(char *));
}

static char **shell_argv(struct sp_job *job, const char *text)
{
	char **argv = new_argv(job, 3);

	if (!argv || !(argv[0] = sp_jobpart_copy(job, "/bin/sh")) || !(argv[1] = sp_jobpart_copy(job, "-c")) ||
		!(argv[2] = sp_jobpart_copy(job, text)))
		return NULL;
	return argv;
}

/* A command line for /bin/sh. */
static int shell(struct sp_job *job, const struct sp_member *m, const char *key, char ***argv_out)
{
	json_t *v = json_object_get(m->obj, key);

	if (!json_is_string(v) || !json_string_length(v))
		return sp_member_wrong(m, key, v, "a command line such as \"sort in.txt > out.txt\"",
			json_is_array(v) ? "; use \"run\" for an array" : "");
	if (json_string_length(v) >= SP_JOB_ENV_BYTES)
		return sp_member_fail(m, key,
			"expected less than %d bytes, found %zu; put a longer script into a file in input/", SP_JOB_ENV_BYTES, json_string_length(v));
	*argv_out = shell_argv(job, json_string_value(v));
	return *argv_out ? 0 : sp_err_mem(m->err);
}

static int run(struct sp_job *job, const struct sp_member *m, const char *key, const char *hint, char ***argv_out)
{
	json_t *v = json_object_get(m->obj, key), *e;
	size_t n = json_array_size(v), i;
	char **argv;

	if (!json_is_array(v) || !n)
		return sp_member_wrong(m, key, v, "an array of strings such as [\"ffmpeg\", \"-i\", \"in.wav\"]",
			json_is_array(v) ? "" : hint);
	argv = new_argv(job, n);
	if (!argv)
		return sp_err_mem(m->err);
	for (i = 0; i < n; i++) {
		e = json_array_get(v, i);
		if (!json_is_string(e) || (!i && !json_string_length(e)))
			return sp_member_wrong_item(m, key, i, e, i ? "a string" : "a program's name or path",
				json_is_number(e) ? "; put it in double quotes" : "");
		if (json_string_length(e) >= SP_JOB_ENV_BYTES)
			return sp_member_fail_item(m, key, i,
				"expected less than %d bytes, found %zu; put it into a file in input/", SP_JOB_ENV_BYTES, json_string_length(e));
		argv[i] = sp_jobpart_copy(job, json_string_value(e));
		if (!argv[i])
			return sp_err_mem(m->err);
	}
	*argv_out = argv;
	return 0;
}

static int provider(struct sp_job *job, struct sp_stage *s, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "provider");
	char path[SP_MEMBER_PATH];
	struct sp_member params = {0};

	if (!json_is_string(v) || !sp_id_name_ok(json_string_value(v)))
		return sp_member_strange(m, "provider", SP_MEMBER_ALL, v,
			"a provider's name: a letter or digit, then at most 63 letters, digits, dots, dashes or underscores", "");
	if (sp_member_object(m, "params", "an object of the provider's parameters", NULL, &params, path) < 0)
		return -1;
	s->provider = sp_jobpart_copy(job, json_string_value(v));
	s->params = params.obj;
	return s->provider ? 0 : sp_err_mem(m->err);
}

/* Exactly one of run, shell and provider. */
static int command(struct sp_job *job, struct sp_stage *s, const struct sp_member *m)
{
	static const char *const kinds[] = {[STAGE_RUN] = "run", [STAGE_SHELL] = "shell", [STAGE_PROVIDER] = "provider"};
	const char *first = NULL;
	size_t k;

	for (k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		if (!json_object_get(m->obj, kinds[k]))
			continue;
		if (first)
			return sp_member_fail(m, kinds[k], "\"%s\" is there already; leave one of the two", first);
		first = kinds[k];
		s->kind = (enum sp_stage_kind)k;
	}
	if (!first)
		return sp_member_fail(m, NULL,
			"there is nothing to do; add \"run\" (an array of strings), \"shell\" (a command line) or \"provider\" (a name)");
	if (s->kind != STAGE_PROVIDER && json_object_get(m->obj, "params"))
		return sp_member_fail(m, "params", "goes with \"provider\" only; take it out");
	switch (s->kind) {
	case STAGE_RUN:
		return run(job, m, "run", "; use \"shell\" for a command line", &s->argv);
	case STAGE_SHELL:
		return shell(job, m, "shell", &s->argv);
	case STAGE_PROVIDER:
		break;
	}
	return provider(job, s, m);
}

/* name, cwd, stdin, check: strings with a grammar of their own. */
static int strings(struct sp_job *job, struct sp_stage *s, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "name");

	if (!v && job->n_stages > 1)
		return sp_member_fail(m, NULL, "\"name\" is missing; in a job of several stages each has a name");
	if (v && (!json_is_string(v) || !sp_id_name_ok(json_string_value(v))))
		return sp_member_strange(m, "name", SP_MEMBER_ALL, v,
			"a name: a letter or digit, then at most 63 letters, digits, dots, dashes or underscores", "");
	if (!(s->name = sp_jobpart_copy(job, v ? json_string_value(v) : "main")))
		return sp_err_mem(m->err);
	v = json_object_get(m->obj, "cwd");
	if (v && (!json_is_string(v) || *json_string_value(v) != '/' || json_string_length(v) > 4095))
		return sp_member_strange(m, "cwd", SP_MEMBER_ALL, v, "an absolute path such as \"/srv/media\"",
			"; without \"cwd\" a stage runs in the job's work folder");
	if (v && !(s->cwd = sp_jobpart_copy(job, json_string_value(v))))
		return sp_err_mem(m->err);
	v = json_object_get(m->obj, "stdin");
	if (v && (!json_is_string(v) || !sp_id_path_ok(json_string_value(v))))
		return sp_member_strange(m, "stdin", SP_MEMBER_ALL, v, "a path below input/ such as \"script.txt\"", "");
	if (v && !(s->stdin_path = sp_jobpart_copy(job, json_string_value(v))))
		return sp_err_mem(m->err);
	v = json_object_get(m->obj, "check");
	if (!v)
		return 0;
	return json_is_string(v) ? shell(job, m, "check", &s->check) : run(job, m, "check", "", &s->check);
}

int sp_jobstage_outputs(struct sp_job *job, const struct sp_member *m, struct sp_output **out, size_t *n_out)
{
	json_t *v = json_object_get(m->obj, "outputs");
	size_t n = json_array_size(v), i;
	struct sp_jobpart_output o;
	struct sp_output *list;

	if (!v)
		return 0;
	if (!json_is_array(v))
		return sp_member_strange(m, "outputs", SP_MEMBER_ALL, v, "a list of paths such as [\"final.mp4\"]", "");
	if (!n)
		return 0;
	list = sp_jobpart_alloc(job, n * sizeof *list);
	if (!list)
		return sp_err_mem(m->err);
	for (i = 0; i < n; i++) {
		if (sp_jobpart_output(m, "outputs", i, &o) < 0)
			return -1;
		list[i].may_be_empty = o.may_be_empty;
		if (!(list[i].path = sp_jobpart_copy(job, o.path)) ||
			(o.media_type && !(list[i].media_type = sp_jobpart_copy(job, o.media_type))))
			return sp_err_mem(m->err);
	}
	*out = list;
	*n_out = n;
	return 0;
}

static int inputs(struct sp_job *job, struct sp_stage *s, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "inputs"), *e;
	size_t n = json_array_size(v), i;
	const char *p;

	if (!v)
		return 0;
	if (!json_is_array(v) || !n)
		return sp_member_wrong(m, "inputs", v, "a list of paths such as [\"voice.wav\", \"../input/script.txt\"]",
			json_is_array(v) ? "; without it a stage is taken to read all of input/ and what the stages it needs made" : "");
	s->inputs = new_argv(job, n);
	if (!s->inputs)
		return sp_err_mem(m->err);
	for (i = 0; i < n; i++) {
		e = json_array_get(v, i);
		p = json_is_string(e) ? json_string_value(e) : "";
		if (!sp_id_path_ok(strncmp(p, "../input/", 9) ? p : p + 9))
			return sp_member_strange(m, "inputs", i, e,
				"a path in the work folder such as \"voice.wav\", or one that begins with \"../input/\"", "");
		if (!(s->inputs[i] = sp_jobpart_copy(job, p)))
			return sp_err_mem(m->err);
	}
	s->n_inputs = n;
	return 0;
}

static bool has_code(const int *codes, size_t n, int64_t code)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (codes[i] == code)
			return true;
	return false;
}

/* One list of exit codes. 1 given, 0 absent, -1. taken: the other list, where it was given. */
static int exit_codes(const struct sp_member *m, const char *key, int codes[16], size_t *n_out, const int *taken,
	size_t n_taken)
{
	json_t *v = json_object_get(m->obj, key), *e;
	size_t n = json_array_size(v), i;
	int64_t c;
	double d;

	if (!v)
		return 0;
	if (!json_is_array(v) || n > 16)
		return sp_member_wrong(m, key, v, "a list of at most 16 exit codes such as [77, 78]",
			json_is_array(v) ? " of more than 16" : "");
	*n_out = 0;
	for (i = 0; i < n; i++) {
		e = json_array_get(v, i);
		d = json_number_value(e); /* 0 for what is no number */
		c = d >= 1 && d <= 255 ? (int64_t)d : 0;
		if (!c || (double)c != d)
			return sp_member_wrong_item(m, key, i, e, "an exit code from 1 to 255", "");
		if (has_code(codes, *n_out, c) || has_code(taken, n_taken, c))
			return sp_member_fail_item(m, key, i, "exit code %d is named twice; leave one", (int)c);
		codes[(*n_out)++] = (int)c;
	}
	return 1;
}

static void drop_codes(int codes[16], size_t *n, const int *others, size_t n_others)
{
	size_t i, kept = 0;

	for (i = 0; i < *n; i++)
		if (!has_code(others, n_others, codes[i]))
			codes[kept++] = codes[i];
	*n = kept;
}

static int exits(struct sp_stage *s, const struct sp_member *m)
{
	char path[SP_MEMBER_PATH];
	struct sp_member sub;
	int got, blocked, later;

	s->exit_blocked[0] = 77;
	s->exit_blocked[1] = 78;
	s->n_exit_blocked = 2;
	s->exit_later[0] = 75;
	s->n_exit_later = 1;
	got = sp_member_object(m, "exit", "an object such as {\"blocked\": [77, 78], \"later\": [75]}", sp_job_exit_members, &sub,
		path);
	if (got <= 0)
		return got;
	blocked = exit_codes(&sub, "blocked", s->exit_blocked, &s->n_exit_blocked, NULL, 0);
	if (blocked < 0)
		return -1;
	later = exit_codes(&sub, "later", s->exit_later, &s->n_exit_later, s->exit_blocked, blocked ? s->n_exit_blocked : 0);
	if (later < 0)
		return -1;
	/* a code that was given a meaning loses its default one */
	if (later && !blocked)
		drop_codes(s->exit_blocked, &s->n_exit_blocked, s->exit_later, s->n_exit_later);
	else if (blocked && !later)
		drop_codes(s->exit_later, &s->n_exit_later, s->exit_blocked, s->n_exit_blocked);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct sp_env *)a)->name, ((const struct sp_env *)b)->name);
}

/* The variables of obj over those of base, sorted by name. Two sorted lists are merged: linear but for sorting obj's own. */
static int merge_env(struct sp_job *job, const struct sp_env *base, size_t n_base, json_t *obj, struct sp_env **out,
	size_t *n_out)
{
	size_t n_own = json_object_size(obj), i = 0, b = 0, n = 0;
	struct sp_env *own = sp_jobpart_alloc(job, (n_own + 1) * sizeof *own);
	struct sp_env *all = sp_jobpart_alloc(job, (n_own + n_base + 1) * sizeof *all);
	void *it;
	int c;

	if (!own || !all)
		return -1;
	for (it = json_object_iter(obj); it; it = json_object_iter_next(obj, it), i++)
		if (!(own[i].name = sp_jobpart_copy(job, json_object_iter_key(it))) ||
			!(own[i].value = sp_jobpart_copy(job, json_string_value(json_object_iter_value(it)))))
			return -1;
	qsort(own, n_own, sizeof *own, by_name);
	for (i = 0; i < n_own || b < n_base;) {
		c = i == n_own ? 1 : b == n_base ? -1 : strcmp(own[i].name, base[b].name);
		all[n++] = c <= 0 ? own[i] : base[b];
		i += c <= 0;
		b += c >= 0;
	}
	*out = all;
	*n_out = n;
	return 0;
}

int sp_jobstage_base_env(struct sp_job *job, const struct sp_job_defaults *d, json_t *obj, struct sp_jobstage_from *from,
	struct sp_err *err)
{
	struct sp_env *spool = NULL, *all;
	struct sp_digest digest;
	size_t i, n = d ? d->n_env : 0;

	if (!n && !json_object_size(obj))
		return 0;
	/* copies: d may be gone (the configuration was read again) while the job lives */
	if (n && !(spool = sp_jobpart_alloc(job, n * sizeof *spool)))
		return sp_err_mem(err);
	for (i = 0; i < n; i++)
		if (!(spool[i].name = sp_jobpart_copy(job, d->env[i].name)) ||
			!(spool[i].value = sp_jobpart_copy(job, d->env[i].value)))
			return sp_err_mem(err);
	if (n)
		qsort(spool, n, sizeof *spool, by_name);
	if (merge_env(job, spool, n, obj, &all, &from->n_env))
		return sp_err_mem(err);
	from->env = all;
	sp_digest_init(&digest);
	for (i = 0; i < from->n_env; i++) {
		sp_digest_add(&digest, all[i].name, strlen(all[i].name) + 1);
		sp_digest_add(&digest, all[i].value, strlen(all[i].value) + 1);
	}
	sp_digest_final(&digest, from->env_digest);
	return 0;
}

static int numbers(struct sp_job *job, struct sp_stage *s, const struct sp_member *m, const struct sp_jobstage_from *from)
{
	json_t *own = NULL;

	s->stall_s = job->stall_s;
	s->retry = job->retry;
	s->limits = from->limits;
	s->env = from->env;
	s->n_env = from->n_env;
	if (sp_member_time(m, "timeout_s", &s->timeout_s) < 0 || sp_member_time(m, "stall_s", &s->stall_s) < 0 ||
		sp_member_time(m, "check_timeout_s", &s->check_timeout_s) < 0 ||
		sp_member_bool(m, "optional", &s->optional) < 0 || sp_jobpart_limits(m, "limits", &s->limits) < 0)
		return -1;
	switch (sp_jobpart_retry(m, "retry", &s->retry)) {
	case -1:
		return -1;
	case 1:
		s->has_retry = true;
	}
	if (!s->check && json_object_get(m->obj, "check_timeout_s"))
		return sp_member_fail(m, "check_timeout_s", "there is no \"check\" it could be for; add one or take it out");
	if (sp_jobpart_env(m, "env", &own) < 0)
		return -1;
	if (json_object_size(own) && merge_env(job, from->env, from->n_env, own, &s->env, &s->n_env))
		return sp_err_mem(m->err);
	return 0;
}

int sp_jobstage_parse(struct sp_job *job, size_t i, const struct sp_member *m, const struct sp_jobstage_from *from)
{
	struct sp_stage *s = &job->stages[i];

	if (strings(job, s, m) || command(job, s, m) || inputs(job, s, m) ||
		sp_jobstage_outputs(job, m, &s->outputs, &s->n_outputs) || exits(s, m) < 0 || numbers(job, s, m, from))
		return -1;
	return sp_jobdigest_stage(s, json_object_get(m->obj, "env"), from, m->err);
}

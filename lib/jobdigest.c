/*
 * jobdigest: what makes a stage the same stage, and a request the same request.
 *
 * I1  A stage's digest covers its command, environment, folder, standard input, outputs, check and the meaning of its
 *     exit codes. Name, needs, times, limits and retry are not in it: they decide whether and when the stage ends, not
 *     what it makes. Nor is a media type, which is only a label. What it reads is digested with its record, from the files.
 * I2  Members are sorted and defaults filled in: an unchanged stage has the same digest however it was written down.
 */
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "jobstage.h"

/* Digest of the canonical text of value, whose reference is taken over; NULL means that building it failed. */
static int digest_of(json_t *value, char hex_out[SP_DIGEST_HEX], struct sp_err *err)
{
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	json_decref(value);
	if (!text)
		return sp_err_mem(err);
	sp_digest_bytes(text, strlen(text), hex_out);
	free(text);
	return 0;
}

static json_t *texts(char *const *list)
{
	json_t *a = json_array();

	for (; a && *list; list++)
		if (json_array_append_new(a, json_string_nocheck(*list))) {
			json_decref(a);
			return NULL;
		}
	return a;
}

static json_t *codes(const int *list, size_t n)
{
	json_t *a = json_array();
	size_t i;

	for (i = 0; a && i < n; i++)
		if (json_array_append_new(a, json_integer(list[i]))) {
			json_decref(a);
			return NULL;
		}
	return a;
}

static json_t *outputs(const struct sp_output *list, size_t n)
{
	json_t *a = json_array();
	size_t i;

	/* [path] where it must have content, [path, true] where it may be empty */
	for (i = 0; a && i < n; i++)
		if (json_array_append_new(a,
				list[i].may_be_empty ? json_pack("[sb]", list[i].path, 1) : json_pack("[s]", list[i].path))) {
			json_decref(a);
			return NULL;
		}
	return a;
}

int sp_jobdigest_stage(struct sp_stage *s, json_t *own_env, const struct sp_jobstage_from *from, struct sp_err *err)
{
	json_t *o = json_object();
	int bad;

	/* the _new calls take NULL for a failed allocation and fail themselves */
	if (s->kind == STAGE_PROVIDER)
		bad = json_object_set_new(o, "provider", json_string(s->provider)) ||
			(s->params && json_object_set(o, "params", s->params));
	else
		bad = json_object_set_new(o, "run", texts(s->argv));
	bad = bad || (s->cwd && json_object_set_new(o, "cwd", json_string_nocheck(s->cwd))) ||
		(s->stdin_path && json_object_set_new(o, "stdin", json_string_nocheck(s->stdin_path))) ||
		(s->check && json_object_set_new(o, "check", texts(s->check))) ||
		(s->n_outputs && json_object_set_new(o, "outputs", outputs(s->outputs, s->n_outputs))) ||
		(*from->env_digest && json_object_set_new(o, "job_env", json_string(from->env_digest))) ||
		(json_object_size(own_env) && json_object_set(o, "env", own_env)) ||
		json_object_set_new(o, "blocked", codes(s->exit_blocked, s->n_exit_blocked)) ||
		json_object_set_new(o, "later", codes(s->exit_later, s->n_exit_later));
	if (bad) {
		json_decref(o);
		o = NULL;
	}
	return digest_of(o, s->digest, err);
}

int sp_job_request_digest(const struct sp_job *job, char hex_out[65], struct sp_err *err)
{
	json_t *o = json_copy(job->jx.root);

	/* a member that is not there is no failure */
	(void)json_object_del(o, "key");
	(void)json_object_del(o, "parent");
	return digest_of(o, hex_out, err);
}

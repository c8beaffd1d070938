/*
 * conf: spool.json, read whole and checked whole, or refused with the place and what would be right.
 *
 * I1  A struct sp_conf is always usable: sp_conf_init fills every default, and a file that is refused leaves just these.
 */
#include "conf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobpart.h"
#include "member.h"

#define CONF_BYTES_MAX (1024 * 1024)
#define WORKERS_MAX 1024
#define QUIET_MAX_S 3600 /* of settle_s and kill_grace_s */
#define PATH_BYTES_MAX 4096

const char *const sp_conf_members[] = {
	"spool", "comment", "workers", "durability", "settle_s", "kill_grace_s", "log_max_bytes", "cgroup", "path", "retention",
	"defaults", NULL};
const char *const sp_conf_retention_members[] = {"done_s", "failed_s", "canceled_s", NULL};
const char *const sp_conf_defaults_members[] = {"timeout_s", "stall_s", "retry", "limits", "env", NULL};

static char path_default[] = "/usr/local/bin:/usr/bin:/bin";

void sp_conf_init(struct sp_conf *c)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	*c = (struct sp_conf){
		.workers = cpus < 1 ? 1 : cpus > WORKERS_MAX ? WORKERS_MAX : (int)cpus,
		.durable = true,
		.settle_s = 5,
		.kill_grace_s = 5,
		.log_max_bytes = 256 * 1024 * 1024,
		.cgroup = true,
		.path = path_default,
		.retention = {-1, -1, -1},
	};
	sp_job_defaults_init(&c->defaults);
}

void sp_conf_done(struct sp_conf *c)
{
	free(c->path_own);
	c->path_own = NULL;
	c->path = path_default;
	sp_job_defaults_done(&c->defaults);
}

static int durability(struct sp_conf *c, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "durability");
	const char *s = json_is_string(v) ? json_string_value(v) : "";

	if (!v)
		return 0;
	if (strcmp(s, "full") && strcmp(s, "none"))
		return sp_member_strange(m, "durability", SP_MEMBER_ALL, v, "\"full\" or \"none\"", "");
	c->durable = !strcmp(s, "full");
	return 0;
}

/* Absolute folders with colons between them: an empty or relative one would mean whatever folder a stage happens to be in. */
static bool path_ok(const char *s)
{
	const char *p;

	if (strlen(s) > PATH_BYTES_MAX)
		return false;
	for (p = s; *p == '/'; p++) {
		p = strchrnul(p, ':');
		if (!*p)
			return true;
	}
	return false;
}

static int path(struct sp_conf *c, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "path");

	if (!v)
		return 0;
	if (!json_is_string(v) || !path_ok(json_string_value(v)))
		return sp_member_strange(m, "path", SP_MEMBER_ALL, v,
			"absolute folders with colons between them such as \"/usr/local/bin:/usr/bin:/bin\"", "");
	c->path_own = strdup(json_string_value(v));
	if (!c->path_own)
		return sp_err_mem(m->err);
	c->path = c->path_own;
	return 0;
}

static int keep(const struct sp_member *m, const char *key, double *out)
{
	json_t *v = json_object_get(m->obj, key);

	if (json_is_string(v) && !strcmp(json_string_value(v), "forever")) {
		*out = -1;
		return 1;
	}
	if (v && !json_is_number(v))
		return sp_member_strange(m, key, SP_MEMBER_ALL, v, "a number of seconds or \"forever\"", "");
	return sp_member_time(m, key, out);
}

static int retention(struct sp_conf *c, const struct sp_member *m)
{
	char where[SP_MEMBER_PATH];
	struct sp_member sub;
	int got;

	got = sp_member_object(m, "retention", "an object such as {\"done_s\": 604800}", sp_conf_retention_members, &sub, where);
	if (got <= 0)
		return got;
	if (keep(&sub, "done_s", &c->retention.done_s) < 0 || keep(&sub, "failed_s", &c->retention.failed_s) < 0 ||
		keep(&sub, "canceled_s", &c->retention.canceled_s) < 0)
		return -1;
	return 1;
}

static int env(struct sp_job_defaults *d, const struct sp_member *m)
{
	json_t *obj = NULL;
	struct sp_env *e;
	void *it;

	if (sp_jobpart_env(m, "env", &obj) < 0)
		return -1;
	if (!json_object_size(obj))
		return 0;
	d->env = calloc(json_object_size(obj), sizeof *d->env);
	if (!d->env)
		return sp_err_mem(m->err);
	for (it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
		e = &d->env[d->n_env++];
		e->name = strdup(json_object_iter_key(it));
		e->value = strdup(json_string_value(json_object_iter_value(it)));
		if (!e->name || !e->value)
			return sp_err_mem(m->err); /* sp_conf_done frees what there is, NULL too */
	}
	return 0;
}

static int defaults(struct sp_job_defaults *d, const struct sp_member *m)
{
	char where[SP_MEMBER_PATH];
	struct sp_member sub;
	int got;

	got = sp_member_object(m, "defaults", "an object such as {\"timeout_s\": 3600}", sp_conf_defaults_members, &sub, where);
	if (got <= 0)
		return got;
	if (sp_member_time(&sub, "timeout_s", &d->timeout_s) < 0 || sp_member_time(&sub, "stall_s", &d->stall_s) < 0 ||
		sp_jobpart_retry(&sub, "retry", &d->retry) < 0 || sp_jobpart_limits(&sub, "limits", &d->limits) < 0)
		return -1;
	return env(d, &sub);
}

static int fill(struct sp_conf *c, const struct sp_jx *jx, struct sp_err *err)
{
	const struct sp_member m = {jx, jx->root, "", err};
	int64_t workers = c->workers;
	const char *comment;

	if (!json_is_object(m.obj))
		return sp_member_wrong(&m, NULL, m.obj, "an object such as {\"workers\": 2}", "");
	if (sp_jx_only(jx, m.obj, "", sp_conf_members, err) || sp_member_version(&m, "spool") ||
		sp_member_string(&m, "comment", &comment) < 0 ||
		sp_member_int(&m, "workers", 1, WORKERS_MAX, &workers) < 0 || durability(c, &m) ||
		sp_member_seconds(&m, "settle_s", QUIET_MAX_S, &c->settle_s) < 0 ||
		sp_member_seconds(&m, "kill_grace_s", QUIET_MAX_S, &c->kill_grace_s) < 0 ||
		sp_member_int(&m, "log_max_bytes", 1, SP_MEMBER_INT_MAX, &c->log_max_bytes) < 0 ||
		sp_member_bool(&m, "cgroup", &c->cgroup) < 0 || path(c, &m) || retention(c, &m) < 0 ||
		defaults(&c->defaults, &m) < 0)
		return -1;
	c->workers = (int)workers;
	return 0;
}

int sp_conf_load(struct sp_conf *c, int root_dfd, struct sp_err *err)
{
	struct sp_jx jx = SP_JX_INIT;
	int r;

	sp_conf_init(c);
	r = sp_jx_load(&jx, root_dfd, "spool.json", CONF_BYTES_MAX, err);
	if (r <= 0)
		return r;
	r = fill(c, &jx, err);
	sp_jx_done(&jx);
	if (r) {
		sp_conf_done(c);
		sp_conf_init(c);
	}
	return r;
}

/*
 * jobcheck: names, needs and outputs of all stages together. Pure but for memory.
 *
 * Look-ups are binary searches in sorted lists, so a job file made to be slow (256 stages that need each other,
 * thousands of outputs) costs no more than n log n.
 */
#include "jobcheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "graph.h"
#include "jobpart.h"

struct entry {
	const char *name;
	size_t stage, index; /* of the stage, and of the output in it */
};

static struct sp_member stage_member(const struct sp_member *m, size_t i, char path[SP_MEMBER_PATH])
{
	(void)snprintf(path, SP_MEMBER_PATH, "stages[%zu]", i);
	return (struct sp_member){m->jx, json_array_get(json_object_get(m->obj, "stages"), i), path, m->err};
}

static int by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x->stage > y->stage) - (x->stage < y->stage);
}

static int name_is(const void *name, const void *b)
{
	return strcmp(name, ((const struct entry *)b)->name);
}

static int names(const struct sp_job *job, const struct sp_member *m, struct entry *sorted)
{
	char path[SP_MEMBER_PATH], shown[SP_MEMBER_QUOTED];
	struct sp_member stage;
	size_t i;

	for (i = 0; i < job->n_stages; i++)
		sorted[i] = (struct entry){job->stages[i].name, i, 0};
	qsort(sorted, job->n_stages, sizeof *sorted, by_name);
	for (i = 1; i < job->n_stages; i++) {
		if (strcmp(sorted[i - 1].name, sorted[i].name))
			continue;
		stage = stage_member(m, sorted[i].stage, path);
		return sp_member_fail(&stage, "name", "%s is the name of stages[%zu] already; give each stage a name of its own",
			sp_member_quote(shown, sorted[i].name), sorted[i - 1].stage);
	}
	return 0;
}

/* Letters to insert, delete, change or swap to make a out of b; a is at most 64 long, as names are. */
static size_t distance(const char *a, const char *b)
{
	size_t row[3][66], *before = row[0], *last = row[1], *now = row[2], *spare, n = strlen(b), i, j, best;

	if (n > 64)
		return n;
	for (j = 0; j <= n; j++)
		last[j] = j;
	for (i = 1; a[i - 1]; i++) {
		now[0] = i;
		for (j = 1; j <= n; j++) {
			best = last[j - 1] + (a[i - 1] != b[j - 1]);
			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			now[j] = best;
		}
		spare = before;
		before = last;
		last = now;
		now = spare;
	}
	return last[n];
}

/* The stages, for a message: at most six names, then how many more. */
static void list_names(const struct sp_job *job, struct sp_buf *b)
{
	char shown[SP_MEMBER_QUOTED];
	size_t i, n = job->n_stages < 6 ? job->n_stages : 6;

	for (i = 0; i < n; i++)
		sp_buf_addf(b, "%s%s", i ? ", " : "", sp_member_quote(shown, job->stages[i].name));
	if (n < job->n_stages)
		sp_buf_addf(b, " and %zu more", job->n_stages - n);
}

static int unknown_stage(const struct sp_job *job, const struct sp_member *stage, size_t k, const char *name)
{
	char shown[SP_MEMBER_QUOTED], near_shown[SP_MEMBER_QUOTED];
	struct sp_buf list = SP_BUF_INIT;
	size_t best = 3, i, d;
	const char *near_name = NULL;

	for (i = 0; i < job->n_stages; i++) {
		d = distance(job->stages[i].name, name);
		if (d < best && d < strlen(name)) {
			best = d;
			near_name = job->stages[i].name;
		}
	}
	(void)sp_member_quote(shown, name);
	if (near_name)
		return sp_member_fail_item(stage, "needs", k, "no stage is named %s; did you mean %s?", shown,
			sp_member_quote(near_shown, near_name));
	list_names(job, &list);
	(void)sp_member_fail_item(stage, "needs", k, "no stage is named %s; the stages are %s", shown, sp_buf_str(&list));
	sp_buf_done(&list);
	return -1;
}

/* needs of stage i as indices; seen has a mark of its own for each stage, so it is never cleared. */
static int stage_needs(struct sp_job *job, const struct sp_member *m, size_t i, const struct entry *sorted, size_t *seen)
{
	char path[SP_MEMBER_PATH], shown[SP_MEMBER_QUOTED];
	struct sp_member stage = stage_member(m, i, path);
	json_t *v = json_object_get(stage.obj, "needs"), *e;
	size_t n = v ? json_array_size(v) : i > 0, k;
	struct sp_stage *s = &job->stages[i];
	const struct entry *hit;

	if (v && !json_is_array(v))
		return sp_member_strange(&stage, "needs", SP_MEMBER_ALL, v,
			"a list of names of stages such as [\"voice\"]", "");
	if (!n)
		return 0;
	if (!(s->needs = sp_jobpart_alloc(job, n * sizeof *s->needs)))
		return sp_err_mem(m->err);
	s->n_needs = n;
	if (!v)
		s->needs[0] = i - 1;
	for (k = 0; v && k < n; k++) {
		e = json_array_get(v, k);
		if (!json_is_string(e))
			return sp_member_wrong_item(&stage, "needs", k, e, "the name of a stage", "");
		hit = bsearch(json_string_value(e), sorted, job->n_stages, sizeof *sorted, name_is);
		if (!hit)
			return unknown_stage(job, &stage, k, json_string_value(e));
		if (seen[hit->stage] == i + 1)
			return sp_member_fail_item(&stage, "needs", k, "%s is in this list already; leave one",
				sp_member_quote(shown, hit->name));
		seen[hit->stage] = i + 1;
		s->needs[k] = hit->stage;
	}
	return 0;
}

/*
 * "a needs b needs a", said of the first stage in it whose needs were written down. There is one: what is implied only
 * points back.
 */
static int cycle(const struct sp_job *job, const struct sp_member *m, const size_t *ring, size_t n)
{
	char path[SP_MEMBER_PATH];
	struct sp_member stage = {0};
	struct sp_buf text = SP_BUF_INIT;
	size_t i, implied = n, at = 0;

	for (i = n; i-- > 0;) {
		stage = stage_member(m, ring[i], path);
		if (json_object_get(stage.obj, "needs"))
			at = i;
		else
			implied = i;
	}
	for (i = 0; i <= n; i++)
		if (i == n || i < 7)
			sp_buf_addf(&text, "%s%s", i ? " needs " : "", job->stages[ring[(at + i) % n]].name);
		else if (i == 7)
			sp_buf_adds(&text, " needs ...");
	stage = stage_member(m, ring[at], path);
	if (implied < n)
		(void)sp_member_fail(&stage, "needs",
			"a cycle: %s; take one of these out, or give %s its own \"needs\" (without it needs the stage before it)",
			sp_buf_str(&text), job->stages[ring[implied]].name);
	else
		(void)sp_member_fail(&stage, "needs", "a cycle: %s; take one of these out", sp_buf_str(&text));
	sp_buf_done(&text);
	return -1;
}

int sp_jobcheck_needs(struct sp_job *job, const struct sp_member *m)
{
	struct entry sorted[SP_JOB_STAGES_MAX];
	struct sp_graph_node nodes[SP_JOB_STAGES_MAX];
	size_t seen[SP_JOB_STAGES_MAX] = {0}, order[SP_JOB_STAGES_MAX], ring[SP_JOB_STAGES_MAX], n_ring = 0, i;

	if (names(job, m, sorted))
		return -1;
	for (i = 0; i < job->n_stages; i++) {
		if (stage_needs(job, m, i, sorted, seen))
			return -1;
		nodes[i] = (struct sp_graph_node){job->stages[i].needs, job->stages[i].n_needs};
	}
	switch (sp_graph_order(nodes, job->n_stages, order, ring, &n_ring)) {
	case 0:
		return 0;
	case -1:
		return cycle(job, m, ring, n_ring);
	}
	return sp_err_mem(m->err);
}

/* By path, a slash before every other character: what lies below a path follows it at once. */
static int compare_paths(const char *a, const char *b)
{
	int x, y;

	for (; *a && *a == *b; a++, b++)
		;
	x = *a == '/' ? 1 : (unsigned char)*a;
	y = *b == '/' ? 1 : (unsigned char)*b;
	return x - y;
}

static int by_path(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = compare_paths(x->name, y->name);

	if (!c)
		c = (x->stage > y->stage) - (x->stage < y->stage);
	return c ? c : (x->index > y->index) - (x->index < y->index);
}

static int path_is(const void *name, const void *b)
{
	return compare_paths(name, ((const struct entry *)b)->name);
}

static bool later(const struct entry *a, const struct entry *b)
{
	return a->stage != b->stage ? a->stage > b->stage : a->index > b->index;
}

/* Two neighbours in the sorted list that exclude each other; the one that stands later in the file is complained about. */
static int clash(const struct sp_member *m, const struct entry *a, const struct entry *b)
{
	const struct entry *bad = later(a, b) ? a : b, *good = bad == a ? b : a;
	char path[SP_MEMBER_PATH], shown[SP_MEMBER_QUOTED], other[SP_MEMBER_QUOTED];
	struct sp_member stage = stage_member(m, bad->stage, path);

	(void)sp_member_quote(shown, bad->name);
	(void)sp_member_quote(other, good->name);
	if (!strcmp(bad->name, good->name))
		return sp_member_fail_item(&stage, "outputs", bad->index,
			"%s is stages[%zu].outputs[%zu] already; leave one, or make them two files", shown, good->stage,
			good->index);
	return sp_member_fail_item(&stage, "outputs", bad->index,
		"%s and %s (stages[%zu].outputs[%zu]) exclude each other: a file cannot be a folder too; rename one",
		shown, other, good->stage, good->index);
}

/* All stages' outputs, sorted; the caller frees *out. */
static int stage_outputs(const struct sp_job *job, const struct sp_member *m, struct entry **out, size_t *n_out)
{
	size_t i, k, n = 0, len;
	struct entry *all;

	for (i = 0; i < job->n_stages; i++)
		n += job->stages[i].n_outputs;
	all = malloc((n + 1) * sizeof *all);
	if (!all)
		return sp_err_mem(m->err);
	for (i = n = 0; i < job->n_stages; i++)
		for (k = 0; k < job->stages[i].n_outputs; k++)
			all[n++] = (struct entry){job->stages[i].outputs[k].path, i, k};
	qsort(all, n, sizeof *all, by_path);
	for (i = 1; i < n; i++) {
		len = strlen(all[i - 1].name);
		if (!strncmp(all[i].name, all[i - 1].name, len) && (all[i].name[len] == '\0' || all[i].name[len] == '/')) {
			(void)clash(m, &all[i - 1], &all[i]);
			free(all);
			return -1;
		}
	}
	*out = all;
	*n_out = n;
	return 0;
}

/* Element i of the job's outputs: some stage's, and not an optional one's. What it does not say is as the stage says. */
static int job_output(struct sp_job *job, const struct sp_member *m, size_t i, const struct entry *all, size_t n_all)
{
	char shown[SP_MEMBER_QUOTED];
	struct sp_jobpart_output o;
	const struct sp_output *made;
	const struct entry *hit;

	if (sp_jobpart_output(m, "outputs", i, &o) < 0)
		return -1;
	hit = bsearch(o.path, all, n_all, sizeof *all, path_is);
	(void)sp_member_quote(shown, o.path);
	if (!hit)
		return sp_member_fail_item(m, "outputs", i,
			"no stage makes %s; add it to the \"outputs\" of the stage that does", shown);
	if (job->stages[hit->stage].optional)
		return sp_member_fail_item(m, "outputs", i,
			"%s is made by stages[%zu], which is optional and may fail; take \"optional\" out there, or %s out here",
			shown, hit->stage, shown);
	made = &job->stages[hit->stage].outputs[hit->index];
	job->outputs[i] = *made;
	if (o.said & 2)
		job->outputs[i].may_be_empty = o.may_be_empty;
	if ((o.said & 1) && !(job->outputs[i].media_type = sp_jobpart_copy(job, o.media_type)))
		return sp_err_mem(m->err);
	return 0;
}

/* The job's own list names each output once. */
static int twice(const struct sp_job *job, const struct sp_member *m)
{
	struct entry *all = malloc((job->n_outputs + 1) * sizeof *all);
	char shown[SP_MEMBER_QUOTED];
	size_t i;
	int r = 0;

	if (!all)
		return sp_err_mem(m->err);
	for (i = 0; i < job->n_outputs; i++)
		all[i] = (struct entry){job->outputs[i].path, 0, i};
	qsort(all, job->n_outputs, sizeof *all, by_path);
	for (i = 1; i < job->n_outputs && !r; i++)
		if (!strcmp(all[i - 1].name, all[i].name))
			r = sp_member_fail_item(m, "outputs", all[i].index, "%s is in this list already; leave one",
				sp_member_quote(shown, all[i].name));
	free(all);
	return r;
}

int sp_jobcheck_outputs(struct sp_job *job, const struct sp_member *m)
{
	json_t *v = json_object_get(m->obj, "outputs");
	size_t n = json_array_size(v), n_all = 0, i;
	struct entry *all = NULL;
	int r = 0;

	if (!v)
		return sp_member_fail(m, NULL,
			"\"outputs\" is missing; write the list of files the job makes, or \"log\" if what it prints is the product");
	job->output_is_log = json_is_string(v) && !strcmp(json_string_value(v), "log");
	if (!job->output_is_log && (!json_is_array(v) || !n))
		return sp_member_strange(m, "outputs", SP_MEMBER_ALL, v,
			"a list of paths such as [\"final.mp4\"], or \"log\" if what it prints is the product", "");
	if (stage_outputs(job, m, &all, &n_all))
		return -1;
	if (n && !(job->outputs = sp_jobpart_alloc(job, n * sizeof *job->outputs)))
		r = sp_err_mem(m->err);
	for (i = 0; !r && i < n; i++)
		r = job_output(job, m, i, all, n_all);
	free(all);
	job->n_outputs = r ? 0 : n;
	return r || n < 2 ? r : twice(job, m);
}

/*
 * script: see script.h. Pure: text in, JSON out.
 *
 * I1  What is built is a valid job (sp_job_parse accepts it), so a mistake is told with its line in the script, not with a
 *     place in a job.json that nobody wrote.
 * I2  Every line that begins with "#SPOOL" and a blank, down to the first that is no comment, counts or is an error.
 */
#include "script.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "member.h"

#define HEAD_BYTES 65536
#define MEMBER_BYTES 128
#define BLANKS " \t\r\v\f"

enum where { IN_JOB, IN_STAGE, IN_BOTH, IS_SCRIPT /* what the script itself stands for */ };
/* How a value that could be read in two ways is read. */
enum kind { AS_JSON, AS_TEXT, AS_COMMAND /* text, or an array */, AS_LIST /* with commas, unless it is JSON */ };

static const struct rule { const char *name; enum where where; enum kind kind; } rules[] = {
	{"name", IN_JOB, AS_TEXT}, {"comment", IN_JOB, AS_TEXT}, {"key", IN_JOB, AS_TEXT}, {"parent", IN_JOB, AS_TEXT},
	{"spool", IN_JOB, AS_JSON}, {"priority", IN_JOB, AS_JSON}, {"retry", IN_JOB, AS_JSON}, {"log_max_bytes", IN_JOB, AS_JSON},
	{"outputs", IN_BOTH, AS_LIST}, {"inputs", IN_STAGE, AS_LIST}, {"check", IN_STAGE, AS_COMMAND},
	{"check_timeout_s", IN_STAGE, AS_JSON}, {"timeout_s", IN_STAGE, AS_JSON}, {"stall_s", IN_STAGE, AS_JSON},
	{"cwd", IN_STAGE, AS_TEXT}, {"stdin", IN_STAGE, AS_TEXT}, {"exit", IN_STAGE, AS_JSON}, {"limits", IN_STAGE, AS_JSON},
	{"env", IN_STAGE, AS_JSON}, {"stages", IS_SCRIPT, AS_JSON}, {"run", IS_SCRIPT, AS_JSON}, {"shell", IS_SCRIPT, AS_JSON},
	{"provider", IS_SCRIPT, AS_JSON}, {"params", IS_SCRIPT, AS_JSON}, {"needs", IS_SCRIPT, AS_JSON},
	{"optional", IS_SCRIPT, AS_JSON},
};
#define N_RULES (sizeof rules / sizeof rules[0])

/* One #SPOOL line, for finding it again. */
struct entry { char member[MEMBER_BYTES]; int line, column; };

struct script {
	const char *file;
	json_t *job, *stage;
	struct entry *entries;
	size_t n_entries, cap;
	struct sp_err *err;
};

/* Put a place on the error that was just set. Returns -1. */
static int at(const struct script *s, int line, int column, const char *member)
{
	if (s->err) {
		(void)snprintf(s->err->file, sizeof s->err->file, "%s", s->file);
		(void)snprintf(s->err->member, sizeof s->err->member, "%s", member);
		s->err->line = line;
		s->err->column = column;
	}
	return -1;
}

static const struct rule *rule(const char *name)
{
	size_t i;

	for (i = 0; i < N_RULES; i++)
		if (!strcmp(rules[i].name, name))
			return &rules[i];
	return NULL;
}

/* An unknown member, said as it is said of a job file. */
static int unknown(const struct script *s, const char *name, int line, int column)
{
	const char *known[N_RULES + 1];
	struct sp_jx jx = SP_JX_INIT;
	char text[MEMBER_BYTES + 8];
	size_t i, n = 0;
	int len;

	for (i = 0; i < N_RULES; i++)
		if (rules[i].where != IS_SCRIPT)
			known[n++] = rules[i].name;
	known[n] = NULL;
	len = snprintf(text, sizeof text, "{\"%s\":0}", name); /* it is letters, digits and _ only */
	if (sp_jx_parse(&jx, s->file, text, (size_t)len, s->err))
		return -1;
	(void)sp_jx_only(&jx, jx.root, "", known, s->err);
	sp_jx_done(&jx);
	return at(s, line, column, name);
}

static json_t *comma_list(const char *v, size_t n)
{
	json_t *a = json_array();
	const char *end = v + n, *comma;
	size_t len;

	for (; a && v <= end; v = comma + 1) {
		comma = memchr(v, ',', (size_t)(end - v));
		if (!comma)
			comma = end;
		len = (size_t)(comma - v);
		while (len && strchr(BLANKS, *v))
			v++, len--;
		while (len && strchr(BLANKS, v[len - 1]))
			len--;
		if (json_array_append_new(a, json_stringn_nocheck(v, len))) {
			json_decref(a);
			return NULL;
		}
	}
	return a;
}

/* The value as its member's kind has it. NULL with err set. */
static json_t *value(const struct script *s, const char *member, enum kind kind, const char *v, size_t n, int line, int column)
{
	json_t *utf8 = json_stringn(v, n), *j;
	json_error_t why;

	if (!utf8) {
		utf8 = json_stringn_nocheck(v, n);
		(void)(utf8 ? sp_err_set(s->err, EINVAL, "%s: expected UTF-8", member) : sp_err_mem(s->err));
		json_decref(utf8);
		(void)at(s, line, column, member);
		return NULL;
	}
	j = json_loadb(v, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
	if (j && (kind == AS_JSON || json_is_string(j) || (json_is_array(j) && kind != AS_TEXT))) {
		json_decref(utf8);
		return j;
	}
	json_decref(j);
	if ((kind == AS_JSON || kind == AS_LIST) && n && strchr("{[\"", *v)) {
		json_decref(utf8);
		(void)sp_err_set(s->err, EINVAL, "%s: expected JSON after {, [ or a double quote: %s", member, why.text);
		(void)at(s, line, column + (why.column > 0 ? why.column - 1 : 0), member);
		return NULL;
	}
	if (kind != AS_LIST || (n == 3 && !memcmp(v, "log", 3)))
		return utf8;
	json_decref(utf8);
	j = comma_list(v, n);
	if (!j)
		(void)sp_err_mem(s->err);
	return j;
}

/* Set the dotted member below obj to v, whose reference is taken over. */
static int set(const struct script *s, json_t *obj, const char *member, json_t *v, int line, int column)
{
	const char *full = member;
	char part[MEMBER_BYTES];
	const char *dot;
	json_t *next;

	for (; (dot = strchr(member, '.')); member = dot + 1, obj = next) {
		(void)snprintf(part, sizeof part, "%.*s", (int)(dot - member), member);
		next = json_object_get(obj, part);
		if (!next && !json_object_set_new(obj, part, json_object()))
			next = json_object_get(obj, part);
		if (!next) {
			json_decref(v);
			return sp_err_mem(s->err);
		}
		if (!json_is_object(next)) {
			json_decref(v);
			(void)sp_err_set(s->err, EINVAL, "%s: a line above sets all of \"%s\"; leave one of the two", full, part);
			return at(s, line, column, full);
		}
	}
	if (json_object_get(obj, member)) {
		json_decref(v);
		(void)sp_err_set(s->err, EINVAL, "%s: a line above sets it already; leave one of the two", full);
		return at(s, line, column, full);
	}
	return json_object_set_new(obj, member, v) ? sp_err_mem(s->err) : 0;
}

static int remember(struct script *s, const char *member, int line, int column)
{
	struct entry *more;
	size_t cap = s->cap ? 2 * s->cap : 8;

	if (s->n_entries == s->cap) {
		more = realloc(s->entries, cap * sizeof *more);
		if (!more)
			return sp_err_mem(s->err);
		s->entries = more;
		s->cap = cap;
	}
	(void)snprintf(s->entries[s->n_entries].member, MEMBER_BYTES, "%s", member);
	s->entries[s->n_entries].line = line;
	s->entries[s->n_entries++].column = column;
	return 0;
}

/* What follows "#SPOOL": one member=value. text is the whole line of n bytes. */
static int assignment(struct script *s, const char *text, size_t n, int line)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";
	char member[MEMBER_BYTES], top[MEMBER_BYTES];
	size_t from = 6, len = 0, v;
	const struct rule *r;
	enum kind kind;
	json_t *j;

	while (n && strchr(BLANKS, text[n - 1]))
		n--;
	while (from < n && strchr(BLANKS, text[from]))
		from++;
	while (from + len < n && strchr(allowed, text[from + len]))
		len++;
	for (v = from + len; v < n && strchr(BLANKS, text[v]); v++)
		;
	if (!len || len >= MEMBER_BYTES || v >= n || text[v] != '=' || text[from] == '.' || text[from + len - 1] == '.' ||
		memmem(text + from, len, "..", 2)) {
		(void)sp_err_set(s->err, EINVAL, "expected member=value after #SPOOL, such as #SPOOL timeout_s=600");
		return at(s, line, (int)from + 1, "");
	}
	for (v++; v < n && strchr(BLANKS, text[v]); v++)
		;
	(void)snprintf(member, sizeof member, "%.*s", (int)len, text + from);
	(void)snprintf(top, sizeof top, "%.*s", (int)strcspn(member, "."), member);
	r = rule(top);
	if (!r)
		return unknown(s, top, line, (int)from + 1);
	if (r->where == IS_SCRIPT) {
		(void)sp_err_set(s->err, EINVAL, "%s: the script is the job's only stage; take this line out, or write a job file", top);
		return at(s, line, (int)from + 1, top);
	}
	/* the variables of env are text, whatever they look like */
	kind = !strncmp(member, "env.", 4) ? AS_TEXT : strchr(member, '.') ? AS_JSON : r->kind;
	j = value(s, member, kind, text + v, n - v, line, (int)v + 1);
	if (!j)
		return -1;
	if (r->where == IN_BOTH && !json_is_string(j) && set(s, s->stage, member, json_incref(j), line, (int)from + 1)) {
		json_decref(j);
		return -1;
	}
	if (set(s, r->where == IN_STAGE ? s->stage : s->job, member, j, line, (int)from + 1))
		return -1;
	return remember(s, member, line, (int)v + 1);
}

/* All #SPOOL lines of the head. */
static int lines(struct script *s, const char *text, size_t n)
{
	const char *p = text, *end, *nl;
	size_t len, i;
	int line;

	if (memchr(text, '\0', n < HEAD_BYTES ? n : HEAD_BYTES))
		return 0; /* a program, not a text */
	if (n > HEAD_BYTES) /* whole lines only */
		for (n = HEAD_BYTES; n && text[n - 1] != '\n'; n--)
			;
	end = text + n;
	for (line = 1; p < end; p = nl + 1, line++) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl)
			nl = end;
		len = (size_t)(nl - p);
		for (i = 0; i < len && strchr(BLANKS, p[i]); i++)
			;
		if (line > 1 && i < len && *p != '#')
			return 0;
		if (len < 6 || memcmp(p, "#SPOOL", 6) || (len > 6 && !strchr(BLANKS, p[6])))
			continue;
		if (line == 1) {
			(void)sp_err_set(s->err, EINVAL, "the first line is for #! and the interpreter; write #SPOOL lines below it");
			return at(s, 1, 1, "");
		}
		if (assignment(s, p, len, line))
			return -1;
	}
	return 0;
}

/* Whether one member path is the other, or lies in it. */
static bool within(const char *inner, const char *outer)
{
	size_t n = strlen(outer);

	return n && !strncmp(inner, outer, n) && (!inner[n] || inner[n] == '.' || inner[n] == '[');
}

/* An error of the job file becomes one of the line that said so. */
static void place(const struct script *s)
{
	static const char stage[] = "stages[0].";
	const size_t n = sizeof stage - 1;
	const struct entry *e, *best = NULL;
	struct sp_err *err = s->err;
	size_t i;

	if (!err)
		return;
	if (!strncmp(err->member, stage, n))
		memmove(err->member, err->member + n, strlen(err->member + n) + 1);
	if (!strncmp(err->text, stage, n))
		memmove(err->text, err->text + n, strlen(err->text + n) + 1);
	for (i = 0; i < s->n_entries; i++) {
		e = &s->entries[i];
		if (within(err->member, e->member) && (!best || strlen(e->member) > strlen(best->member)))
			best = e;
		else if (!best && within(e->member, err->member))
			best = e;
	}
	err->line = best ? best->line : 0;
	err->column = best ? best->column : 0;
}

/* What runs: the file in input/, found from work/; from a folder of its own it takes the environment to find it. */
static json_t *command(const struct script *s, const char *input_name)
{
	if (json_object_get(s->stage, "cwd"))
		return json_pack("[ssss]", "/bin/sh", "-c", "exec \"$SPOOL_INPUT/$0\"", input_name);
	return json_pack("[o]", json_sprintf("../input/%s", input_name));
}

static int build(struct script *s, const char *input_name, const char *default_name)
{
	if (json_object_set_new(s->stage, "run", command(s, input_name)) ||
		(!json_object_get(s->job, "name") && sp_job_name_ok(default_name) &&
			json_object_set_new(s->job, "name", json_string(default_name))) ||
		json_object_set_new(s->job, "stages", json_pack("[O]", s->stage)) ||
		(!json_object_get(s->job, "outputs") && json_object_set_new(s->job, "outputs", json_string("log"))))
		return sp_err_mem(s->err);
	return 0;
}

/* I1 */
static int check(const struct script *s)
{
	char *text = sp_jx_line(s->job);
	struct sp_job job;
	int r;

	if (!text)
		return sp_err_mem(s->err);
	r = sp_job_parse(&job, s->file, text, strlen(text), NULL, s->err);
	free(text);
	if (!r)
		sp_job_done(&job);
	else if (s->err && s->err->code == EINVAL)
		place(s);
	return r;
}

int sp_script_job(const char *file, const char *text, size_t n, const char *input_name, const char *default_name,
	json_t **json_out, struct sp_err *err)
{
	struct script s = {file, json_object(), json_object(), NULL, 0, 0, err};
	int r;

	if (!s.job || !s.stage)
		r = sp_err_mem(err);
	else if ((r = lines(&s, text, n)) == 0 && (r = build(&s, input_name, default_name)) == 0)
		r = check(&s);
	if (!r)
		*json_out = json_incref(s.job);
	json_decref(s.job);
	json_decref(s.stage);
	free(s.entries);
	return r;
}

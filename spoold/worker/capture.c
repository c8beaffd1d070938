/*
 * capture: owns our ends of a stage's three pipes, and what lines on the result descriptor mean.
 *
 * I1  What was read is with the kernel (joblog) before the next read.
 * I2  Nothing here waits: reads are non-blocking and bounded per call.
 * I3  No byte of a stage can break anything: streams are copied, result lines are bounded and checked.
 * A crash leaves what joblog says.
 */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "jx.h"
#include "now.h"

#define SMALL_READ (16 * 1024)      /* on the stack: most stages never print more */
#define LARGE_READ (256 * 1024)
#define PIPE_BYTES (1024 * 1024)
#define BYTES_PER_CALL (1024 * 1024)
#define LINE_MAX_BYTES (64 * 1024)
#define ODD_SHOWN 80
#define WAIT_MAX_S (10.0 * 365 * 86400)

/* ---- one line of the result descriptor ---- */

/* Copy text of valid UTF-8 without control characters (C1 too: U+0080 to U+009F), cut between characters. */
static void clean(const char *text, char *out, size_t size)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t at = 0;

	while (*p) {
		size_t n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
		bool control = *p < ' ' || *p == 127 || (*p == 0xc2 && p[1] < 0xa0);

		if (at + n >= size)
			break;
		if (control) {
			out[at++] = ' ';
		} else {
			memcpy(out + at, p, n);
			at += n;
		}
		p += n;
	}
	out[at] = '\0';
}

static void set_number(double *to, double value, bool *changed)
{
	if (*to < value || *to > value) {
		*to = value;
		*changed = true;
	}
}

static void set_time(int64_t *to, int64_t value, bool *changed)
{
	if (*to != value) {
		*to = value;
		*changed = true;
	}
}

static void set_text(char *to, size_t size, const char *text, bool *changed)
{
	char cleaned[512];

	clean(text, cleaned, size < sizeof cleaned ? size : sizeof cleaned);
	if (strcmp(to, cleaned)) {
		memcpy(to, cleaned, strlen(cleaned) + 1);
		*changed = true;
	}
}

/* out_time and duration give the fraction. */
static void set_fraction(struct capture_result *r)
{
	double f;

	if (r->duration_s > 0 && r->out_time_us >= 0) {
		f = (double)r->out_time_us / 1e6 / r->duration_s;
		set_number(&r->progress, f > 1 ? 1 : f, &r->changed);
	}
}

/* A reason's code is a word that programs branch on: [a-z0-9_]; without a usable one it is "blocked". */
static bool code_ok(const char *code)
{
	size_t n = strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return n > 0 && n < sizeof((struct capture_result *)0)->code && code[n] == '\0';
}

static bool take_blocked(struct capture_result *r, const json_t *v)
{
	const char *name;
	json_t *member;
	const char *code = "blocked", *text = "", *help = "";
	bool odd = false;

	if (!json_is_object(v))
		return true;
	json_object_foreach((json_t *)(uintptr_t)v, name, member) {
		const char *s = json_string_value(member);

		if (!s)
			odd = true;
		else if (!strcmp(name, "code") && code_ok(s))
			code = s;
		else if (!strcmp(name, "text"))
			text = s;
		else if (!strcmp(name, "help"))
			help = s;
		else
			odd = true;
	}
	if (!r->blocked)
		r->blocked = r->changed = true;
	set_text(r->code, sizeof r->code, code, &r->changed);
	set_text(r->text, sizeof r->text, text, &r->changed);
	set_text(r->help, sizeof r->help, help, &r->changed);
	return odd;
}

static bool take_member(struct capture_result *r, const char *name, const json_t *v, int64_t now_us)
{
	double d = json_is_number(v) ? json_number_value(v) : -1;
	const char *s = json_string_value(v);
	int64_t us;

	if (!strcmp(name, "progress") && d >= 0 && d <= 1) {
		set_number(&r->progress, d, &r->changed);
	} else if (!strcmp(name, "message") && s) {
		set_text(r->message, sizeof r->message, s, &r->changed);
	} else if (!strcmp(name, "duration_s") && d > 0 && isfinite(d)) {
		set_number(&r->duration_s, d, &r->changed);
		set_fraction(r);
	} else if (!strcmp(name, "wait_s") && d >= 0 && d <= WAIT_MAX_S) {
		set_time(&r->wait_until_us, now_us + (int64_t)(d * 1e6), &r->changed);
	} else if (!strcmp(name, "wait_until") && s && sp_now_parse(s, &us) == 0 && us > 0) {
		set_time(&r->wait_until_us, us, &r->changed);
	} else if (!strcmp(name, "blocked")) {
		return take_blocked(r, v);
	} else {
		return true;
	}
	return false;
}

static bool take_json(struct capture_result *r, const char *line, size_t n, int64_t now_us)
{
	struct sp_jx jx = SP_JX_INIT;
	const char *name;
	json_t *member;
	bool odd = false;

	if (sp_jx_parse(&jx, "result descriptor", line, n, NULL) < 0)
		return true;
	if (json_is_object(jx.root)) {
		json_object_foreach(jx.root, name, member)
			odd |= take_member(r, name, member, now_us);
	} else {
		odd = true;
	}
	sp_jx_done(&jx);
	return odd;
}

/* HH:MM:SS.ffffff, or -HH:… which ffmpeg prints before the first frame: taken as 0. -1: not one (N/A, say). */
static int64_t clock_us(const char *text)
{
	double s;
	unsigned h, m;
	int used = 0;
	bool negative = *text == '-';

	if (sscanf(text + negative, "%6u:%2u:%n", &h, &m, &used) != 2 || used == 0 || m > 59)
		return -1;
	text += negative + used;
	if (*text < '0' || *text > '9')
		return -1;
	s = strtod(text, NULL);
	if (!(s >= 0 && s < 61))
		return -1;
	return negative ? 0 : ((int64_t)h * 3600 + (int64_t)m * 60) * 1000000 + (int64_t)(s * 1e6 + 0.5);
}

/* One key=value. ffmpeg pads values with blanks, and says N/A for what it does not know yet. */
static bool take_key(struct capture_result *r, const char *key, const char *value)
{
	int64_t us = -1;
	char *end;
	double d;

	value += strspn(value, " \t");
	if (!strcmp(key, "progress")) {
		d = strtod(value, &end);
		if (!strcmp(value, "continue"))
			return false;
		if (!strcmp(value, "end"))
			d = 1;
		else if (end == value || *end || !(d >= 0 && d <= 1))
			return true;
		set_number(&r->progress, d, &r->changed);
		return false;
	}
	if (!strcmp(key, "out_time_us") || !strcmp(key, "out_time_ms")) {
		errno = 0;
		us = strtoll(value, &end, 10);
		if (end == value || *end || errno)
			us = -1;
		else if (us < 0)
			us = 0;
	} else if (!strcmp(key, "out_time")) {
		us = clock_us(value);
	}
	if (us >= 0) {
		set_time(&r->out_time_us, us, &r->changed);
		set_fraction(r);
	}
	return false;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

void capture_line(struct capture_result *r, const char *line, size_t n, int64_t now_us, bool *odd_out)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	char copy[512];
	size_t key;

	while (n > 0 && blank(*line))
		line++, n--;
	while (n > 0 && blank(line[n - 1]))
		n--;
	*odd_out = false;
	if (n == 0)
		return;
	if (*line == '{') {
		*odd_out = take_json(r, line, n, now_us);
		return;
	}
	*odd_out = true;
	if (n >= sizeof copy || memchr(line, '\0', n))
		return;
	memcpy(copy, line, n);
	copy[n] = '\0';
	key = strspn(copy, letters);
	if (key == 0 || copy[key] != '=')
		return;
	copy[key] = '\0';
	*odd_out = take_key(r, copy, copy + key + 1);
}

/* ---- the pipes ---- */

int capture_open(struct capture *c, struct sp_joblog *log, const char *stage, int child_fd_out[3], struct sp_err *err)
{
	int i, p[2];

	*c = (struct capture)CAPTURE_INIT;
	c->log = log;
	c->heard_us = sp_mono_us();
	(void)snprintf(c->stage, sizeof c->stage, "%s", stage);
	for (i = 0; i < 3; i++)
		child_fd_out[i] = -1;
	if (sp_stream_init(&c->out, log, stage, 1, err) < 0 || sp_stream_init(&c->err, log, stage, 2, err) < 0)
		goto out;
	for (i = 0; i < 3; i++) {
		if (pipe2(p, O_CLOEXEC) < 0) {
			sp_err_sys(err, "make a pipe");
			goto out;
		}
		c->fd[i] = p[0];
		child_fd_out[i] = p[1];
		if (fcntl(p[0], F_SETFL, O_RDONLY | O_NONBLOCK) < 0) {
			sp_err_sys(err, "make a pipe");
			goto out;
		}
	}
	return 0;
out:
	for (i = 0; i < 3; i++) {
		if (child_fd_out[i] >= 0)
			(void)close(child_fd_out[i]);
		child_fd_out[i] = -1;
	}
	capture_close(c);
	return -1;
}

static void end_fd(struct capture *c, int i)
{
	if (c->fd[i] >= 0)
		(void)close(c->fd[i]);
	c->fd[i] = -1;
}

/* Say once that a line was odd. Anything in it is made printable. */
static int say_odd(struct capture *c, const char *line, size_t n, struct sp_err *err)
{
	char shown[ODD_SHOWN + 1];
	size_t i;

	if (c->odd_said)
		return 0;
	c->odd_said = true;
	for (i = 0; i < n && i < ODD_SHOWN; i++)
		shown[i] = line[i] >= ' ' && line[i] < 127 ? line[i] : '?';
	shown[i] = '\0';
	return sp_joblog_say(c->log, err, "%s: a line on the result descriptor was not understood: %s", c->stage, shown);
}

static int end_line(struct capture *c, struct sp_err *err)
{
	bool before = c->result.changed, odd = c->line_skip;
	int rc = 0;

	c->result.changed = false;
	if (!sp_buf_ok(&c->line))
		return sp_err_mem(err);
	if (!odd)
		capture_line(&c->result, sp_buf_str(&c->line), c->line.len, sp_now_us(), &odd);
	if (c->result.changed)
		c->heard_us = sp_mono_us();
	c->result.changed |= before;
	if (odd)
		rc = say_odd(c, sp_buf_str(&c->line), c->line.len, err);
	sp_buf_reset(&c->line);
	c->line_skip = false;
	return rc;
}

static int take_result(struct capture *c, const char *p, size_t n, struct sp_err *err)
{
	while (n > 0) {
		const char *end = memchr(p, '\n', n);
		size_t len = end ? (size_t)(end - p) : n;

		if (c->line.len + len > LINE_MAX_BYTES)
			c->line_skip = true; /* what was gathered is kept to be shown */
		else if (!c->line_skip)
			sp_buf_add(&c->line, p, len);
		if (!end)
			return 0;
		if (end_line(c, err) < 0)
			return -1;
		p += len + 1;
		n -= len + 1;
	}
	return 0;
}

/* The first full read says that much is coming: a large pipe (where allowed) and large reads from then on. */
static void grow(struct capture *c, int i)
{
	(void)fcntl(c->fd[i], F_SETPIPE_SZ, PIPE_BYTES);
	if (!c->buf)
		c->buf = malloc(LARGE_READ); /* without it, small reads do */
}

/* One read. 1 got some, 0 end of file, 2 nothing there now, -1. *got_out: bytes; *more_out: there may be more now. */
static int read_once(struct capture *c, int i, size_t most, size_t *got_out, bool *more_out, struct sp_err *err)
{
	char small[SMALL_READ];
	bool large = c->buf && i < 2;
	char *p = large ? c->buf : small;
	size_t size = large ? LARGE_READ : sizeof small;
	ssize_t n;

	if (size > most)
		size = most;
	do
		n = read(c->fd[i], p, size);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 2 : sp_err_sys(err, "read the %s of stage %s", i == 2 ? "result descriptor" : "output", c->stage);
	if (n == 0)
		return 0;
	*got_out = (size_t)n;
	*more_out = (size_t)n == size;
	if (i == 2)
		return take_result(c, p, (size_t)n, err) < 0 ? -1 : 1;
	if (p == small && (size_t)n == sizeof small)
		grow(c, i);
	c->heard_us = sp_mono_us();
	c->bytes += n;
	return sp_joblog_take(c->log, i == 0 ? &c->out : &c->err, p, (size_t)n, err) < 0 ? -1 : 1;
}

/* Read at most `most` bytes of fd[i]. As capture_read. */
static int read_up_to(struct capture *c, int i, size_t most, struct sp_err *err)
{
	size_t got = 0;
	bool more = true;

	while (most > 0 && more) {
		switch (read_once(c, i, most, &got, &more, err)) {
		case -1:
			return -1;
		case 0:
			end_fd(c, i);
			if (i == 2 && (c->line.len > 0 || c->line_skip) && end_line(c, err) < 0)
				return -1;
			return 0;
		case 2:
			return 1;
		default:
			most -= got;
		}
	}
	return 1;
}

int capture_read(struct capture *c, int i, struct sp_err *err)
{
	return c->fd[i] < 0 ? 0 : read_up_to(c, i, BYTES_PER_CALL, err);
}

int capture_drain(struct capture *c, struct sp_err *err)
{
	for (int i = 0; i < 3; i++) {
		int held = 0;

		/* What is there now: a writer that left the tree must not keep us. */
		if (c->fd[i] < 0)
			continue;
		if (ioctl(c->fd[i], FIONREAD, &held) < 0)
			return sp_err_sys(err, "read the output of stage %s", c->stage);
		if (held > 0 && read_up_to(c, i, (size_t)held, err) < 0)
			return -1;
		if (i == 2 && c->fd[i] >= 0 && (c->line.len > 0 || c->line_skip) && end_line(c, err) < 0)
			return -1;
	}
	return 0;
}

void capture_close(struct capture *c)
{
	for (int i = 0; i < 3; i++)
		end_fd(c, i);
	sp_stream_done(&c->out);
	sp_stream_done(&c->err);
	sp_buf_done(&c->line);
	free(c->buf);
	c->buf = NULL;
}

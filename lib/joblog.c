/*
 * joblog: owns the job's `log` and stages/NAME/stdout and stderr. The invariants are in joblog.h.
 *
 * An entry is built whole in the workspace and given to the kernel with its newline, so that a killed writer leaves
 * whole entries, except where the kernel itself took only a part (a power cut, a full disk): sp_joblog_open ends
 * such a torn tail with a newline, and it reads as an entry that was cut.
 */
#include "joblog.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsx.h"
#include "now.h"

#define STAMP 27           /* 2026-11-24T01:52:00.123456Z */
#define FLUSH (512 * 1024) /* the workspace is written when it would hold more: one write for a large read of usual lines */
#define MARK_ROOM 160      /* more than a stamp and the log's mark need */
#define TAIL_MAX (1024 * 1024)

static const char mark_log[] = "log truncated at its limit of %lld bytes, further output of stages is dropped";

static int failed(struct sp_joblog *l, struct sp_err *err)
{
	l->failed = true;
	return sp_err_sys(err, "write %s", SP_LOG_FILE);
}

static int failed_before(struct sp_err *err)
{
	return sp_err_set(err, EIO, "write %s: an earlier write failed", SP_LOG_FILE);
}

/* Whether one of the whole lines in p is the log's mark. A stage cannot forge it: its lines carry its own name. */
static bool has_mark(const char *p, size_t n)
{
	static const char text[] = "log truncated at its limit of ";
	struct sp_log_entry e;

	while (sp_log_next(p, n, &e)) {
		if (!e.plain && e.stream == 0 && e.text_len >= sizeof text - 1 && !memcmp(e.text, text, sizeof text - 1))
			return true;
		p += e.total;
		n -= e.total;
	}
	return false;
}

/* The mark begins at most MARK_ROOM below the limit, or beyond it; runtime lines may follow. */
static int look_for_mark(struct sp_joblog *l, struct sp_err *err)
{
	int64_t at = l->max_bytes - 2 * MARK_ROOM;
	size_t n;
	ssize_t got;
	char *p;
	const char *line;

	if (at < 0)
		at = 0;
	n = l->bytes - at > TAIL_MAX ? TAIL_MAX : (size_t)(l->bytes - at);
	sp_buf_reset(&l->line);
	p = sp_buf_space(&l->line, n);
	if (!p)
		return sp_err_mem(err);
	do
		got = pread(l->fd, p, n, (off_t)at);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return sp_err_sys(err, "read %s", SP_LOG_FILE);
	line = at == 0 ? p : memchr(p, '\n', (size_t)got); /* the first whole line */
	if (line)
		l->truncated = has_mark(line + (at > 0), (size_t)(p + got - line) - (at > 0));
	sp_buf_reset(&l->line);
	return 0;
}

int sp_joblog_open(struct sp_joblog *l, int job_dfd, int64_t max_bytes, struct sp_err *err)
{
	struct stat st;
	char last = '\n';

	*l = (struct sp_joblog)SP_JOBLOG_INIT;
	l->job_dfd = job_dfd;
	l->max_bytes = max_bytes > 0 ? max_bytes : INT64_MAX;
	l->fd = sp_fsx_open_existing(job_dfd, SP_LOG_FILE);
	if (l->fd < 0)
		return errno == ENOENT ? 0 : sp_err_sys(err, "open %s", SP_LOG_FILE);
	if (fstat(l->fd, &st) < 0 || (st.st_size > 0 && pread(l->fd, &last, 1, st.st_size - 1) != 1) ||
		(last != '\n' && sp_fsx_write(l->fd, "\n", 1) < 0)) {
		sp_err_sys(err, "read %s", SP_LOG_FILE);
		goto out;
	}
	l->bytes = st.st_size + (last != '\n');
	if (l->bytes > l->max_bytes - 2 * MARK_ROOM && look_for_mark(l, err) < 0)
		goto out;
	return 0;
out:
	sp_joblog_close(l);
	return -1;
}

void sp_joblog_close(struct sp_joblog *l)
{
	if (l->fd >= 0)
		(void)close(l->fd);
	sp_buf_done(&l->line);
	*l = (struct sp_joblog)SP_JOBLOG_INIT;
}

/* Give the workspace to the kernel. */
static int flush(struct sp_joblog *l, struct sp_err *err)
{
	if (!sp_buf_ok(&l->line)) {
		l->failed = true;
		return sp_err_mem(err);
	}
	if (l->line.len == 0)
		return 0;
	if (l->fd < 0) {
		l->fd = sp_fsx_open_append(l->job_dfd, SP_LOG_FILE, 0600);
		if (l->fd < 0)
			return failed(l, err);
	}
	if (sp_fsx_write(l->fd, l->line.p, l->line.len) < 0)
		return failed(l, err);
	l->bytes += (int64_t)l->line.len;
	sp_buf_reset(&l->line);
	return 0;
}

/* ---- the runtime's own lines ---- */

static void add_own(struct sp_joblog *l, const char *stamp, const char *text)
{
	size_t at;

	sp_buf_add(&l->line, stamp, STAMP);
	sp_buf_adds(&l->line, " spool: ");
	at = l->line.len;
	sp_buf_adds(&l->line, text);
	if (sp_buf_ok(&l->line)) {
		for (; at < l->line.len; at++) {
			if ((unsigned char)l->line.p[at] < ' ' || l->line.p[at] == 127)
				l->line.p[at] = ' ';
		}
	}
	sp_buf_addc(&l->line, '\n');
}

int sp_joblog_say_lines(struct sp_joblog *l, const char *const texts[], size_t n, struct sp_err *err)
{
	char stamp[SP_TIME_SIZE];

	if (l->failed)
		return failed_before(err);
	sp_now_format(sp_now_us(), stamp);
	sp_buf_reset(&l->line);
	for (size_t i = 0; i < n; i++)
		add_own(l, stamp, texts[i]);
	return flush(l, err);
}

int sp_joblog_say(struct sp_joblog *l, struct sp_err *err, const char *fmt, ...)
{
	char text[2048];
	const char *list[1] = {text};
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return sp_joblog_say_lines(l, list, 1, err);
}

/* ---- raw streams ---- */

int sp_stream_init(struct sp_stream *s, const struct sp_joblog *l, const char *stage, int stream, struct sp_err *err)
{
	struct stat st;

	*s = (struct sp_stream)SP_STREAM_INIT;
	(void)snprintf(s->tag, sizeof s->tag, "%s %s", stage, stream == 1 ? "out" : "err");
	(void)snprintf(s->path, sizeof s->path, "stages/%s/%s", stage, stream == 1 ? "stdout" : "stderr");
	s->fd = sp_fsx_open_existing(l->job_dfd, s->path);
	if (s->fd < 0)
		return errno == ENOENT ? 0 : sp_err_sys(err, "open %s", s->path);
	if (fstat(s->fd, &st) < 0) {
		sp_err_sys(err, "open %s", s->path);
		sp_stream_done(s);
		return -1;
	}
	s->bytes = st.st_size;
	s->truncated = s->bytes >= l->max_bytes;
	return 0;
}

void sp_stream_done(struct sp_stream *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	*s = (struct sp_stream)SP_STREAM_INIT;
}

/* Append to the raw file what fits. *full_out: this is the first time that something did not. */
static int take_raw(struct sp_joblog *l, struct sp_stream *s, const char *p, size_t n, bool *full_out, struct sp_err *err)
{
	int64_t room = l->max_bytes - s->bytes;

	if (s->truncated)
		return 0;
	if (room < (int64_t)n) {
		s->truncated = *full_out = true;
		n = room > 0 ? (size_t)room : 0;
	}
	if (n == 0)
		return 0;
	if (s->fd < 0 && (sp_fsx_ensure_parents(l->job_dfd, s->path, 0700) < 0 ||
		(s->fd = sp_fsx_open_append(l->job_dfd, s->path, 0600)) < 0))
		goto bad;
	if (sp_fsx_write(s->fd, p, n) < 0)
		goto bad;
	s->bytes += (int64_t)n;
	return 0;
bad:
	l->failed = true;
	return sp_err_sys(err, "write %s", s->path);
}

/* ---- what stages print ---- */

static size_t make_prefix(char *out, const char *stamp, const char *tag)
{
	size_t n = strlen(tag);

	memcpy(out, stamp, STAMP);
	out[STAMP] = ' ';
	memcpy(out + STAMP + 1, tag, n);
	memcpy(out + STAMP + 1 + n, ": ", 2);
	return STAMP + 1 + n + 2;
}

/* One entry into the workspace: prefix, text of n bytes, newline. open: '+' instead of ':'. */
static int add_entry(struct sp_joblog *l, const char *prefix, size_t prefix_len, const char *p, size_t n, bool open, struct sp_err *err)
{
	char *to;

	if (l->line.len + prefix_len + n + 1 > FLUSH && flush(l, err) < 0)
		return -1;
	to = sp_buf_space(&l->line, prefix_len + n + 1);
	if (!to) {
		l->failed = true;
		return sp_err_mem(err);
	}
	memcpy(to, prefix, prefix_len);
	if (open)
		to[prefix_len - 2] = '+';
	memcpy(to + prefix_len, p, n);
	to[prefix_len + n] = '\n';
	l->line.len += prefix_len + n + 1;
	return 0;
}

/* The bytes as entries, as far as the log has room; then its mark, once. */
static int take_log(struct sp_joblog *l, struct sp_stream *s, const char *p, size_t n, const char *stamp, struct sp_err *err)
{
	char prefix[STAMP + sizeof s->tag + 4], mark[MARK_ROOM];
	size_t prefix_len = make_prefix(prefix, stamp, s->tag);
	int64_t room = l->max_bytes - MARK_ROOM - l->bytes;

	while (n > 0) {
		const char *end = memchr(p, '\n', n);
		size_t len = end ? (size_t)(end - p) : n;
		int64_t need = (int64_t)(prefix_len + len + 1);

		if (need > room) { /* as much of it as fits, and no more of anything */
			if (room > (int64_t)prefix_len + 1 && add_entry(l, prefix, prefix_len, p, (size_t)room - prefix_len - 1, true, err) < 0)
				return -1;
			l->truncated = true;
			(void)snprintf(mark, sizeof mark, mark_log, (long long)l->max_bytes);
			add_own(l, stamp, mark);
			return 0;
		}
		if (add_entry(l, prefix, prefix_len, p, len, !end, err) < 0)
			return -1;
		room -= need;
		s->open_line = !end;
		len += !!end;
		p += len;
		n -= len;
	}
	return 0;
}

int sp_joblog_take(struct sp_joblog *l, struct sp_stream *s, const char *p, size_t n, struct sp_err *err)
{
	char stamp[SP_TIME_SIZE], text[256];
	bool full = false;

	if (l->failed)
		return failed_before(err);
	if (n == 0 || (s->truncated && l->truncated))
		return 0;
	if (take_raw(l, s, p, n, &full, err) < 0)
		return -1;
	sp_buf_reset(&l->line);
	sp_now_format(sp_now_us(), stamp);
	if (!l->truncated && take_log(l, s, p, n, stamp, err) < 0)
		return -1;
	if (full) {
		(void)snprintf(text, sizeof text, "%s truncated at its limit of %lld bytes, %s has no more of it", s->tag,
			(long long)l->max_bytes, s->path);
		add_own(l, stamp, text);
	}
	return flush(l, err);
}

/* ---- for readers ---- */

/* "STAGE out: " and the like at p: fills stage, stream and open; returns its length, 0 if it is not one. */
static size_t split_tag(const char *p, size_t n, struct sp_log_entry *e)
{
	const char *space = memchr(p, ' ', n < 66 ? n : 66);
	size_t len = space ? (size_t)(space - p) : 0;

	if (n >= 7 && !memcmp(p, "spool: ", 7)) {
		e->stage = "";
		e->stage_len = 0;
		e->stream = 0;
		return 7;
	}
	if (len == 0 || n < len + 6 || p[len + 5] != ' ' || (p[len + 4] != ':' && p[len + 4] != '+'))
		return 0;
	if (!memcmp(space + 1, "out", 3))
		e->stream = 1;
	else if (!memcmp(space + 1, "err", 3))
		e->stream = 2;
	else
		return 0;
	e->stage = p;
	e->stage_len = len;
	e->open = p[len + 4] == '+';
	return len + 6;
}

int sp_log_next(const char *p, size_t n, struct sp_log_entry *out)
{
	const char *end = n ? memchr(p, '\n', n) : NULL;
	char stamp[STAMP + 1];
	size_t len, tag = 0;

	if (!end)
		return 0;
	len = (size_t)(end - p);
	*out = (struct sp_log_entry){.stage = "", .total = len + 1};
	if (len > STAMP + 1 && p[STAMP - 1] == 'Z' && p[STAMP] == ' ') {
		memcpy(stamp, p, STAMP);
		stamp[STAMP] = '\0';
		if (sp_now_parse(stamp, &out->time_us) == 0)
			tag = split_tag(p + STAMP + 1, len - STAMP - 1, out);
	}
	if (tag == 0) {
		*out = (struct sp_log_entry){.stage = "", .total = len + 1, .plain = true, .text = p, .text_len = len};
		return 1;
	}
	out->text = p + STAMP + 1 + tag;
	out->text_len = len - STAMP - 1 - tag;
	return 1;
}

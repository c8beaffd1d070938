/*
 * joblog: the job's `log` and the raw streams beside it.
 *
 * log is one ordered, append-only, time-stamped file for people:
 *     2026-11-24T01:52:00.123456Z voice out: text      a line that stage voice wrote to its standard output
 *     2026-11-24T01:52:00.123456Z voice err+ text      a piece without newline so far; the rest follows in a later
 *                                                      entry of the same stage and stream
 *     2026-11-24T01:52:00.123456Z spool: text          the runtime's own words
 * stages/NAME/stdout and stderr hold the same bytes as they came, and exist once there was one.
 *
 * I1  Bytes are given to the kernel before the next read: a killed worker loses nothing it had read.
 * I2  One time stamp per read: every entry of one read carries the same time.
 * I3  What stages print makes no file grow past max_bytes: the log and each raw stream are filled up to it (the log
 *     leaves room for its mark), then one line of the log says so and the rest is read and dropped. The marks, with
 *     the limit in bytes:
 *         spool: log truncated at its limit of N bytes, further output of stages is dropped
 *         spool: voice out truncated at its limit of N bytes, stages/voice/stdout has no more of it
 *     The last entry before the log's mark may be a cut one (`+`). Only the runtime's own lines come after it, and
 *     only they may pass the limit. truncated is latched, also across reopening: the log's mark is looked for; a
 *     raw stream whose size is at the limit counts as truncated.
 * I4  Bytes of a stage are copied as they are (NUL and invalid UTF-8 too); only '\n' ends an entry. A reader that
 *     shows them on a terminal escapes them (spoolctl log).
 * The writer is whoever holds the job's lock.
 */
#ifndef JOBLOG_H
#define JOBLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "sperr.h"

struct sp_joblog {
	int job_dfd;      /* borrowed */
	int fd;           /* log, O_APPEND; -1 until the first line */
	int64_t bytes;    /* its size */
	int64_t max_bytes;
	bool truncated;
	bool failed;      /* a write failed: err was returned once; later writes do nothing and return -1 */
	struct sp_buf line; /* workspace, at most about 512 KiB; freed by sp_joblog_close */
};
#define SP_JOBLOG_INIT {.job_dfd = -1, .fd = -1}
#define SP_LOG_FILE "log"

/*
 * Open the log of the job at job_dfd, if it is there; it is made by its first line. A torn tail without newline gets
 * one. max_bytes 0: no limit. 0 or -1.
 */
int sp_joblog_open(struct sp_joblog *l, int job_dfd, int64_t max_bytes, struct sp_err *err);
void sp_joblog_close(struct sp_joblog *l);

/*
 * One line of the runtime's own: "spool: " + text. Always written, also when truncated; control characters in the
 * text (so newlines too) become spaces. 0 or -1 with err.
 */
int sp_joblog_say(struct sp_joblog *l, struct sp_err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Several such lines in one write (each text without newline). */
int sp_joblog_say_lines(struct sp_joblog *l, const char *const texts[], size_t n, struct sp_err *err);

/* One raw stream of one stage. */
struct sp_stream {
	char tag[72];     /* "voice out" */
	char path[96];    /* stages/voice/stdout */
	int fd;           /* raw file, -1 until the first byte */
	int64_t bytes;    /* of this raw file */
	bool truncated;
	bool open_line;   /* the last piece had no newline */
};
#define SP_STREAM_INIT {.fd = -1}
/* stream 1: out, 2: err. Does not create; what an earlier run left is added to. The limit is the log's. 0 or -1. */
int sp_stream_init(struct sp_stream *s, const struct sp_joblog *l, const char *stage, int stream, struct sp_err *err);
void sp_stream_done(struct sp_stream *s);

/*
 * Take n bytes that were read just now: append them to the raw file, then to the log with stamps. Fast: about one
 * write each, no per-line system call. 0, or -1 with err (ENOSPC, EIO …: the attempt must fail).
 */
int sp_joblog_take(struct sp_joblog *l, struct sp_stream *s, const char *p, size_t n, struct sp_err *err);

/*
 * For readers: walk one entry of a log. Given the n bytes at p, find the first whole line and split it. 1 and the parts, 0 if there is no whole line.
 */
struct sp_log_entry {
	int64_t time_us;
	const char *stage; size_t stage_len; /* "" for the runtime */
	int stream;            /* 0 runtime, 1 out, 2 err */
	bool open;             /* '+': no newline at its end */
	const char *text; size_t text_len;
	size_t total;          /* bytes of the line with its newline */
	bool plain;            /* not in the format: text is the whole line */
};
int sp_log_next(const char *p, size_t n, struct sp_log_entry *out);

#endif

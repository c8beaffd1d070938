/*
 * capture: what a running stage says. Its standard output and error go through joblog, its result descriptor (3) is
 * read as lines that set progress, message, wait-until and blocked reason.
 *
 * Lines on the result descriptor (spool-job(5)): a JSON object with any of
 *   {"progress": 0..1, "message": "…", "wait_until": "RFC 3339", "wait_s": 30, "blocked": {"code","text","help"}, "duration_s": 12.5}
 * or key=value as `ffmpeg -progress` writes them: progress=continue|end|0..1, out_time_us=N (out_time_ms is microseconds too, as ffmpeg has it), out_time=HH:MM:SS.ffffff,
 * which with duration_s known give the fraction; other keys are accepted and mean nothing here. A line is at most 64 KiB;
 * the last one needs no newline. What is neither, or has a member of the wrong type or out of its range, or is too long
 * or not UTF-8, is ignored, and said once in the log:
 *     spool: voice: a line on the result descriptor was not understood: TEXT     (its first 80 bytes, made printable)
 *
 * Order of calls: capture_open; start the command with the three ends, close them; poll fd[] and capture_read what is
 * ready until all three are -1 or the tree is gone; capture_drain; capture_close.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "joblog.h"
#include "sperr.h"

struct capture_result {
	double progress;       /* 0..1, -1 while not told */
	double duration_s;     /* 0 while not told */
	char message[256];     /* valid UTF-8, control characters removed; "" while not told */
	int64_t wait_until_us; /* 0 while not told */
	int64_t out_time_us;   /* as ffmpeg tells it, -1 while not told: a change of it is progress, with duration_s or without */
	bool blocked;
	char code[64], text[512], help[256]; /* of the blocked reason */
	bool changed;          /* set with each change; the reader clears it */
};
#define CAPTURE_RESULT_INIT {.progress = -1, .out_time_us = -1}

struct capture {
	struct sp_joblog *log; /* borrowed */
	struct sp_stream out, err;
	int fd[3];             /* our ends of stdout, stderr, result; -1 once at end of file */
	char stage[68];
	char *buf;             /* for large reads; NULL until the first one came */
	struct sp_buf line;    /* of the result descriptor, so far */
	bool line_skip;        /* the line was too long: skipped to its end */
	bool odd_said;
	struct capture_result result;
	int64_t heard_us;      /* monotonic time of the last byte on stdout or stderr, or change of result; for stall_s. At first: of capture_open */
	int64_t bytes;         /* read from stdout and stderr in all */
};
#define CAPTURE_INIT {.out = SP_STREAM_INIT, .err = SP_STREAM_INIT, .fd = {-1, -1, -1}, .result = CAPTURE_RESULT_INIT}

/*
 * Make the three pipes. child_fd_out[3] are the command's ends (close-on-exec; the caller closes them after the
 * start). Ours are non-blocking. 0 or -1 with err.
 */
int capture_open(struct capture *c, struct sp_joblog *log, const char *stage, int child_fd_out[3], struct sp_err *err);
/* Read what is there on fd[i], at most about 1 MiB a call so that others get their turn. 1 more may come, 0 end of file (fd[i] closed, -1), -1 with err. */
int capture_read(struct capture *c, int i, struct sp_err *err);
/* Read all that the pipes still hold without waiting for more (the tree is gone). 0 or -1 with err. */
int capture_drain(struct capture *c, struct sp_err *err);
/* Of one that was opened, or is CAPTURE_INIT. Keeps result, heard_us and bytes for the reader. */
void capture_close(struct capture *c);

/* For tests: take one line of the result descriptor, without its newline. Pure. *odd_out: it was not understood, or a part of it. */
void capture_line(struct capture_result *r, const char *line, size_t n, int64_t now_us, bool *odd_out);

#endif

/*
 * procs: processes as /proc tells of them.
 *
 * I1  A process is named by pid and start time together; a pid alone may have been given to another by the time a
 *     signal is sent. So sp_proc_signal pins it, looks again, and only then sends.
 * I2  A list is what there was at one moment, or at several near it. Whoever needs "all" looks again until nothing
 *     new turns up.
 */
#include "child_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsx.h"

#define PIDS_BYTES_MAX (64 * 1024 * 1024)
#define CGROUP_DEPTH_MAX 32 /* of what a stage made in its leaf; what is deeper gets KILL only */

void sp_procs_done(struct sp_procs *l)
{
	free(l->p);
	*l = (struct sp_procs)SP_PROCS_INIT;
}

int sp_procs_add(struct sp_procs *l, const struct sp_proc *p, struct sp_err *err)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct sp_proc *grown = realloc(l->p, cap * sizeof *grown);

		if (!grown)
			return sp_err_mem(err);
		l->p = grown;
		l->cap = cap;
	}
	l->p[l->n++] = *p;
	return 0;
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = ((const struct sp_proc *)a)->pid, y = ((const struct sp_proc *)b)->pid;

	return (x > y) - (x < y);
}

void sp_procs_sort(struct sp_procs *l)
{
	size_t kept = 0;

	if (l->n > 1)
		qsort(l->p, l->n, sizeof *l->p, by_pid);
	for (size_t i = 0; i < l->n; i++) {
		if (kept == 0 || l->p[kept - 1].pid != l->p[i].pid)
			l->p[kept++] = l->p[i];
	}
	l->n = kept;
}

const struct sp_proc *sp_procs_find(const struct sp_procs *l, pid_t pid)
{
	struct sp_proc key = {.pid = pid};

	return l->n ? bsearch(&key, l->p, l->n, sizeof *l->p, by_pid) : NULL;
}

int sp_proc_open(struct sp_err *err)
{
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? sp_err_sys(err, "open /proc") : fd;
}

/* ---- one process ---- */

/* "PID (COMM) S PPID PGRP SESSION …"; COMM may hold anything, so the last ')' ends it. */
static int parse_stat(const char *text, struct sp_proc *out)
{
	const char *p = strrchr(text, ')');
	char state;
	int ppid, sid;
	long threads;

	if (!p || sscanf(p + 1, " %c %d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu", &state, &ppid,
		&sid, &threads, &out->start) != 5)
		return -1;
	out->ppid = ppid;
	out->sid = sid;
	out->dead = (state == 'Z' || state == 'X') && threads <= 1;
	return 0;
}

int sp_proc_look(int proc_dfd, pid_t pid, struct sp_proc *out)
{
	char path[32], text[1024];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof path, "%d/stat", (int)pid);
	fd = openat(proc_dfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH || errno == EACCES || errno == EPERM ? 0 : -1; /* hidepid hides others' */
	do
		n = read(fd, text, sizeof text - 1);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == ESRCH)
		n = 0;
	(void)close(fd);
	if (n <= 0)
		return n == 0 ? 0 : -1;
	text[n] = '\0';
	out->pid = pid;
	if (parse_stat(text, out) < 0) {
		errno = EPROTO;
		return -1;
	}
	return 1;
}

int sp_proc_signal(int proc_dfd, const struct sp_proc *p, int sig, int *pidfd_out)
{
	struct sp_proc now;
	int fd = (int)syscall(SYS_pidfd_open, p->pid, 0U), rc = -1, code;

	if (fd < 0)
		return errno == ESRCH || errno == EINVAL ? 0 : -1;
	rc = sp_proc_look(proc_dfd, p->pid, &now);
	if (rc == 1 && (now.start != p->start || now.dead))
		rc = 0;
	if (rc == 1 && syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0U) < 0)
		rc = errno == ESRCH ? 0 : -1;
	if (rc == 1 && sig != SIGKILL && sig != SIGCONT)
		(void)syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0U);
	if (rc == 1 && pidfd_out) {
		*pidfd_out = fd;
		return 1;
	}
	code = errno;
	(void)close(fd);
	errno = code;
	return rc;
}

/* ---- all of them, and those below one ---- */

/* A name made of digits, as a pid; 0: it is not one. */
static pid_t as_pid(const char *name)
{
	char *end;
	long n;

	if (!isdigit((unsigned char)*name))
		return 0;
	n = strtol(name, &end, 10);
	return *end || n > INT32_MAX ? 0 : (pid_t)n;
}

int sp_procs_all(int proc_dfd, struct sp_procs *out, struct sp_err *err)
{
	int fd = openat(proc_dfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		sp_err_sys(err, "read /proc");
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	while (rc == 0 && (errno = 0, e = readdir(dir))) {
		struct sp_proc p;
		pid_t pid = as_pid(e->d_name);

		if (pid == 0)
			continue;
		rc = sp_proc_look(proc_dfd, pid, &p);
		if (rc < 0)
			sp_err_sys(err, "read /proc/%d/stat", (int)pid);
		else if (rc == 1)
			rc = sp_procs_add(out, &p, err);
	}
	if (rc == 0 && errno != 0)
		rc = sp_err_sys(err, "read /proc");
	(void)closedir(dir);
	sp_procs_sort(out);
	return rc < 0 ? -1 : 0;
}

static bool among(pid_t pid, const pid_t list[], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == pid)
			return true;
	}
	return false;
}

/* Keep those of all whose line of parents leads to top, and over none of skip. Each process is judged once. */
static int keep_below(const struct sp_procs *all, pid_t top, const pid_t skip[], size_t n, struct sp_procs *out, struct sp_err *err)
{
	enum { UNKNOWN, BELOW, NOT, ASKED };
	unsigned char *is = calloc(all->n ? all->n : 1, 1);
	int rc = 0;

	if (!is)
		return sp_err_mem(err);
	for (size_t i = 0; i < all->n && rc == 0; i++) {
		const struct sp_proc *p = &all->p[i];
		unsigned char verdict = UNKNOWN;

		while (verdict == UNKNOWN) { /* up to one that is known */
			size_t at = (size_t)(p - all->p);

			if (is[at] == BELOW || is[at] == NOT) {
				verdict = is[at];
			} else if (p->pid == top || is[at] == ASKED || among(p->pid, skip, n)) {
				verdict = is[at] = NOT; /* ASKED: a ring, of parents that changed while we looked */
			} else if (p->ppid == top) {
				verdict = is[at] = BELOW;
			} else {
				is[at] = ASKED;
				p = sp_procs_find(all, p->ppid);
				if (!p)
					verdict = NOT;
			}
		}
		for (p = &all->p[i]; p && is[p - all->p] == ASKED; p = sp_procs_find(all, p->ppid))
			is[p - all->p] = verdict;
		if (is[i] == BELOW && !all->p[i].dead)
			rc = sp_procs_add(out, &all->p[i], err);
	}
	free(is);
	return rc;
}

/* Add the pids in a file of numbers, each looked at. 1, 0 the file is not there, -1 with err. */
static int add_listed(int proc_dfd, int dfd, const char *path, struct sp_procs *out, struct sp_err *err)
{
	struct sp_buf b = SP_BUF_INIT;
	const char *p;
	char *end;
	int rc = 1;

	if (sp_fsx_read_file(dfd, path, PIDS_BYTES_MAX, &b) < 0) {
		rc = errno == ENOENT || errno == ESRCH || errno == ENODEV || errno == EOPNOTSUPP ? 0 : sp_err_sys(err, "read %s", path);
		sp_buf_done(&b);
		return rc;
	}
	for (p = sp_buf_str(&b); rc == 1; p = end) {
		long pid = strtol(p, &end, 10);
		struct sp_proc proc;
		int found;

		if (end == p)
			break;
		if (pid <= 0 || pid > INT32_MAX)
			continue; /* 0: a process of another pid namespace */
		found = sp_proc_look(proc_dfd, (pid_t)pid, &proc);
		if (found < 0)
			rc = sp_err_sys(err, "read /proc/%ld/stat", pid);
		else if (found == 1 && sp_procs_add(out, &proc, err) < 0)
			rc = -1;
	}
	sp_buf_done(&b);
	return rc;
}

/* The children of each thread of pid. 1, 0 the kernel has no such file (or pid is gone), -1 with err. */
static int add_children(int proc_dfd, pid_t pid, struct sp_procs *out, struct sp_err *err)
{
	char path[64];
	int fd, rc = 0;
	DIR *dir;
	struct dirent *e;

	(void)snprintf(path, sizeof path, "%d/task", (int)pid);
	fd = openat(proc_dfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : sp_err_sys(err, "read /proc/%s", path);
	dir = fdopendir(fd);
	if (!dir) {
		sp_err_sys(err, "read /proc/%s", path);
		(void)close(fd);
		return -1;
	}
	while (rc >= 0 && (e = readdir(dir))) {
		int got;

		if (as_pid(e->d_name) == 0)
			continue;
		(void)snprintf(path, sizeof path, "%.12s/children", e->d_name);
		got = add_listed(proc_dfd, dirfd(dir), path, out, err);
		rc = got < 0 ? -1 : rc | got;
	}
	(void)closedir(dir);
	return rc;
}

int sp_procs_below(int proc_dfd, pid_t top, const pid_t skip[], size_t n, struct sp_procs *out, struct sp_err *err)
{
	struct sp_procs all = SP_PROCS_INIT;
	int rc = add_children(proc_dfd, top, &all, err);

	if (rc == 0) { /* no such file in this kernel */
		rc = sp_procs_all(proc_dfd, &all, err);
		if (rc == 0)
			rc = keep_below(&all, top, skip, n, out, err);
		sp_procs_done(&all);
		return rc;
	}
	for (size_t i = 0; rc >= 0 && i < all.n; i++) { /* the list grows while it is walked */
		struct sp_proc p = all.p[i];

		if (among(p.pid, skip, n))
			continue;
		if (!p.dead && sp_procs_add(out, &p, err) < 0)
			rc = -1;
		else
			rc = add_children(proc_dfd, p.pid, &all, err);
	}
	sp_procs_done(&all);
	sp_procs_sort(out);
	return rc < 0 ? -1 : 0;
}

/* ---- those in a cgroup ---- */

/* A pid that was listed and looked at counts if it is listed still: what was looked at then was in the cgroup. */
static int add_members(int proc_dfd, int dfd, struct sp_procs *out, struct sp_err *err)
{
	struct sp_procs before = SP_PROCS_INIT, after = SP_PROCS_INIT;
	int rc = -1;

	if (add_listed(proc_dfd, dfd, "cgroup.procs", &before, err) < 0 ||
		(before.n > 0 && add_listed(proc_dfd, dfd, "cgroup.procs", &after, err) < 0))
		goto out;
	sp_procs_sort(&after);
	for (size_t i = 0; i < before.n; i++) {
		if (!before.p[i].dead && sp_procs_find(&after, before.p[i].pid) && sp_procs_add(out, &before.p[i], err) < 0)
			goto out;
	}
	rc = 0;
out:
	sp_procs_done(&before);
	sp_procs_done(&after);
	return rc;
}

static int in_cgroup(int proc_dfd, int dfd, int depth, struct sp_procs *out, struct sp_err *err)
{
	struct stat st;
	struct dirent *e;
	DIR *dir;
	int fd, rc = add_members(proc_dfd, dfd, out, err);

	if (rc < 0 || depth == CGROUP_DEPTH_MAX || (fstat(dfd, &st) == 0 && st.st_nlink <= 2))
		return rc;
	fd = openat(dfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		sp_err_sys(err, "read a cgroup");
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	while (rc == 0 && (e = readdir(dir))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		fd = sp_fsx_open_dir(dirfd(dir), e->d_name);
		if (fd >= 0) {
			rc = in_cgroup(proc_dfd, fd, depth + 1, out, err);
			(void)close(fd);
		} else if (errno != ENOENT) {
			rc = sp_err_sys(err, "read a cgroup");
		}
	}
	(void)closedir(dir);
	return rc;
}

int sp_procs_in_cgroup(int proc_dfd, int dfd, struct sp_procs *out, struct sp_err *err)
{
	int rc = in_cgroup(proc_dfd, dfd, 0, out, err);

	sp_procs_sort(out);
	return rc;
}

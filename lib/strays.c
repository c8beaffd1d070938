/*
 * strays: finding and ending what a dead worker left of a job.
 *
 * I1  Who is not shown to belong to the job is left alone: this process, its ancestors, sessions whose number was given
 *     to someone else, cgroups whose owner lives.
 * I2  Each round looks at all processes anew; the work is over when a round finds nobody. A round signals whom it
 *     found and waits for the first HELD of them, through pidfds: nothing polls.
 * A crash leaves the rest to the next call.
 */
#include "child_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fsx.h"
#include "now.h"

#define HELD 64
#define ENVIRON_BYTES_MAX (8 * 1024 * 1024)
#define DEATH_US (10 * 1000000) /* how long a killed process may take to die before we say that it would not */

struct hunt {
	char *mark_id, *mark_dir;  /* what its environment holds, with the NUL */
	size_t id_len, dir_len;
	const pid_t *sids;
	size_t n_sids;             /* 0 when they are of another boot */
	int proc_dfd;
	int cgroup_dfd, events_fd; /* -1: none */
	struct sp_procs kin;       /* this process and its ancestors, anew each round */
	struct sp_procs all, found;
	struct sp_procs told;      /* who was signalled in an earlier round */
	struct sp_buf env;
};

/* ---- who belongs to the job ---- */

/* Whether a NUL-ended string of the environment is exactly `want` (whose NUL counts in n). */
static bool holds(const struct sp_buf *env, const char *want, size_t n)
{
	const char *p = env->p, *end = p + env->len;

	while (p && (size_t)(end - p) >= n) {
		const char *hit = memmem(p, (size_t)(end - p), want, n);

		if (!hit)
			return false;
		if (hit == env->p || hit[-1] == '\0')
			return true;
		p = hit + 1;
	}
	return false;
}

static bool marked(struct hunt *h, const struct sp_proc *p)
{
	char path[32];

	(void)snprintf(path, sizeof path, "%d/environ", (int)p->pid);
	sp_buf_reset(&h->env);
	/* What may not be read is another user's; what is larger than the limit is no environment of ours. */
	return sp_fsx_read_file(h->proc_dfd, path, ENVIRON_BYTES_MAX, &h->env) == 0 && holds(&h->env, h->mark_id, h->id_len) &&
		holds(&h->env, h->mark_dir, h->dir_len);
}

static bool session_recorded(const struct hunt *h, pid_t sid)
{
	for (size_t i = 0; i < h->n_sids; i++) {
		if (h->sids[i] == sid && sid > 1)
			return true;
	}
	return false;
}

/*
 * A process without the mark, in a session whose number was recorded. The number is ours as long as the session lives;
 * after that it may be anyone's. If its leader lives, the mark tells; else orphans hang from init or an ancestor of ours.
 */
static bool in_session(struct hunt *h, const struct sp_proc *p)
{
	const struct sp_proc *leader, *up = p;

	if (!session_recorded(h, p->sid))
		return false;
	leader = sp_procs_find(&h->all, p->sid);
	if (leader && !leader->dead)
		return leader != p && marked(h, leader);
	for (size_t steps = 0; up && up->sid == p->sid && steps < h->all.n; steps++) {
		if (up->ppid == 1 || sp_procs_find(&h->kin, up->ppid))
			return true;
		up = sp_procs_find(&h->all, up->ppid);
	}
	return up && up->sid != p->sid && marked(h, up);
}

/* This process and its ancestors. */
static int find_kin(struct hunt *h, struct sp_err *err)
{
	const struct sp_proc *p = sp_procs_find(&h->all, getpid());

	h->kin.n = 0;
	for (; p; p = p->ppid == p->pid ? NULL : sp_procs_find(&h->all, p->ppid)) {
		if (sp_procs_add(&h->kin, p, err) < 0)
			return -1;
		if (h->kin.n > h->all.n)
			break; /* a ring, of parents that changed while we looked */
	}
	sp_procs_sort(&h->kin);
	return 0;
}

static int look(struct hunt *h, struct sp_err *err)
{
	h->all.n = h->found.n = 0;
	if (sp_procs_all(h->proc_dfd, &h->all, err) < 0 || find_kin(h, err) < 0 ||
		(h->cgroup_dfd >= 0 && sp_procs_in_cgroup(h->proc_dfd, h->cgroup_dfd, &h->found, err) < 0))
		return -1;
	for (size_t i = 0; i < h->all.n; i++) {
		const struct sp_proc *p = &h->all.p[i];

		if (p->dead || sp_procs_find(&h->kin, p->pid))
			continue;
		if ((marked(h, p) || in_session(h, p)) && sp_procs_add(&h->found, p, err) < 0)
			return -1;
	}
	sp_procs_sort(&h->found);
	return 0;
}

/* ---- their end ---- */

/* Wait until all held ones have ended, or until the time. */
static int await_ends(struct pollfd *held, size_t n, int64_t until_us, struct sp_err *err)
{
	size_t left = n;

	while (left > 0) {
		int64_t now = sp_mono_us();
		int64_t ms = (until_us - now + 999) / 1000;

		if (ms <= 0)
			return 0;
		if (poll(held, n, ms > INT_MAX ? INT_MAX : (int)ms) < 0 && errno != EINTR)
			return sp_err_sys(err, "wait for processes to end");
		for (size_t i = 0; i < n; i++) {
			if (held[i].fd >= 0 && (held[i].revents & POLLIN)) {
				(void)close(held[i].fd);
				held[i].fd = -1;
				left--;
			}
		}
	}
	return 0;
}

/* Signal all that were found, then wait for the first of them. */
static int round_of(struct hunt *h, int sig, int64_t until_us, int *count, struct sp_err *err)
{
	struct pollfd held[HELD];
	size_t n = 0;
	int rc = 0;

	for (size_t i = 0; i < h->found.n; i++) {
		int fd = -1, sent = sp_proc_signal(h->proc_dfd, &h->found.p[i], sig, &fd);

		if (sent < 0)
			rc = sp_err_sys(err, "signal process %d", (int)h->found.p[i].pid);
		if (sent != 1)
			continue;
		if (n < HELD)
			held[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
		else
			(void)close(fd);
		if (!sp_procs_find(&h->told, h->found.p[i].pid)) {
			(*count)++;
			if (sp_procs_add(&h->told, &h->found.p[i], err) < 0)
				rc = -1;
			sp_procs_sort(&h->told);
		}
	}
	if (rc == 0)
		rc = await_ends(held, n, until_us, err);
	for (size_t i = 0; i < n; i++) {
		if (held[i].fd >= 0)
			(void)close(held[i].fd);
	}
	return rc;
}

static int end_all(struct hunt *h, double grace_s, int *count, struct sp_err *err)
{
	int64_t grace_us = sp_mono_us() + (grace_s > 0 ? (int64_t)(grace_s * 1e6) : 0);
	int64_t last_us = grace_us + DEATH_US;

	for (;;) {
		int64_t now = sp_mono_us();
		bool killing = now >= grace_us;

		if (look(h, err) < 0)
			return -1;
		if (h->found.n == 0)
			return 0;
		if (now >= last_us)
			return sp_err_set(err, EBUSY, "process %d does not die, killed %d s ago", (int)h->found.p[0].pid, DEATH_US / 1000000);
		if (killing && h->cgroup_dfd >= 0)
			(void)sp_cgroup_kill(h->cgroup_dfd); /* what cannot be had so is had one by one */
		if (round_of(h, killing ? SIGKILL : SIGTERM, killing ? last_us : grace_us, count, err) < 0)
			return -1;
	}
}

/* ---- the cgroup of the dead worker ---- */

/* Whether this process is in the cgroup whose last component is name, or below it. */
static bool inside(const char *name)
{
	struct sp_buf b = SP_BUF_INIT;
	char want[300];
	size_t n;
	const char *p;
	bool found = false;

	n = (size_t)snprintf(want, sizeof want, "/%s", name);
	if (n >= sizeof want || sp_fsx_read_file(AT_FDCWD, "/proc/self/cgroup", 1024 * 1024, &b) < 0)
		found = true; /* not known: better not */
	for (p = b.p ? strstr(b.p, want) : NULL; p && !found; p = strstr(p + 1, want))
		found = p[n] == '/' || p[n] == '\n' || p[n] == '\0';
	sp_buf_done(&b);
	return found;
}

/* Open it if it is one that a dead worker left: cgroup_dfd and events_fd of h, else they stay -1. */
static void open_cgroup(struct hunt *h, const char *path)
{
	const char *name = path ? strrchr(path, '/') : NULL;
	struct statfs fs;

	if (!name || path[0] != '/' || strncmp(name, "/spool-", 7) || strstr(path, "/../") || inside(name + 1))
		return;
	h->cgroup_dfd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (h->cgroup_dfd < 0)
		return;
	if (fstatfs(h->cgroup_dfd, &fs) == 0 && (unsigned long)fs.f_type == CGROUP2_SUPER_MAGIC &&
		flock(h->cgroup_dfd, LOCK_EX | LOCK_NB) == 0)
		h->events_fd = openat(h->cgroup_dfd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (h->events_fd < 0) {
		(void)close(h->cgroup_dfd);
		h->cgroup_dfd = -1;
	}
}

/* All its processes have ended: wait until the kernel has noticed (it says so on cgroup.events), and remove it. */
static void remove_cgroup(struct hunt *h, const char *path)
{
	struct pollfd p = {.fd = h->events_fd, .events = POLLPRI};
	int64_t until_us = sp_mono_us() + 1000000;

	while (sp_cgroup_left(h->cgroup_dfd, h->events_fd) == 1 && sp_mono_us() < until_us)
		(void)poll(&p, 1, 1000);
	sp_cgroup_empty(h->cgroup_dfd);
	(void)rmdir(path);
}

int sp_child_end_strays(const char *id, const char *spool, const char *cgroup, const char *boot, const pid_t *sids,
	size_t n_sids, double grace_s, int *killed_out, struct sp_err *err)
{
	struct hunt h = {.proc_dfd = -1, .cgroup_dfd = -1, .events_fd = -1, .sids = sids};
	char this_boot[40];
	int count = 0, rc = -1;

	if (sp_child_boot_id(this_boot, err) < 0)
		return -1;
	h.n_sids = boot && sids && !strcmp(boot, this_boot) ? n_sids : 0;
	h.id_len = (size_t)asprintf(&h.mark_id, "SPOOL_JOB_ID=%s", id) + 1;
	h.dir_len = (size_t)asprintf(&h.mark_dir, "SPOOL_DIR=%s", spool) + 1;
	if (h.id_len == 0 || h.dir_len == 0) {
		sp_err_mem(err);
		goto out;
	}
	h.proc_dfd = sp_proc_open(err);
	if (h.proc_dfd < 0)
		goto out;
	open_cgroup(&h, cgroup);
	rc = end_all(&h, grace_s, &count, err);
	if (rc < 0)
		sp_err_wrap(err, "end what is left of job %s", id);
	else if (h.cgroup_dfd >= 0)
		remove_cgroup(&h, cgroup);
	if (killed_out)
		*killed_out = count;
out:
	if (h.id_len > 0)
		free(h.mark_id);
	if (h.dir_len > 0)
		free(h.mark_dir);
	for (int i = 0; i < 3; i++) {
		int fd = i == 0 ? h.proc_dfd : i == 1 ? h.cgroup_dfd : h.events_fd;

		if (fd >= 0)
			(void)close(fd);
	}
	sp_procs_done(&h.all);
	sp_procs_done(&h.found);
	sp_procs_done(&h.kin);
	sp_procs_done(&h.told);
	sp_buf_done(&h.env);
	return rc;
}

/*
 * child: which processes make up a tree, from its start until nothing of it is left.
 *
 * I1  The roots (unreaped commands and keepers) are all this process's children that are not left-overs. Every other
 *     child was orphaned by one of our trees and came to us as the subreaper: a stray.
 * I2  A stray in a cgroup leaf counts to that leaf. One that is in none counts to each tree that is held together by us
 *     (TREE_SELF, or a TREE_KEEPER whose keeper was killed), and if there is no such tree, to the last TREE_CGROUP that
 *     runs: a command may have moved itself out of its leaf.
 * I3  A tree is gone when its command was reaped and no process counts to it. Until then every end that could make it
 *     so is a SIGCHLD to this process.
 * I4  A tree that was sent KILL is sent it again whenever a reap finds something of it: what was forked between two
 *     looks became ours by the death of its parent, which is a SIGCHLD.
 */
#include "child_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fsx.h"

#define KILL_ROUNDS 64

/* ---- roots ---- */

static pid_t roots[SP_CHILDREN_MAX];
static size_t n_roots;

int sp_roots_add(pid_t pid, struct sp_err *err)
{
	if (n_roots == SP_CHILDREN_MAX)
		return sp_err_set(err, EAGAIN, "more than %d children at a time", SP_CHILDREN_MAX);
	roots[n_roots++] = pid;
	return 0;
}

void sp_roots_remove(pid_t pid)
{
	for (size_t i = 0; i < n_roots; i++) {
		if (roots[i] == pid) {
			roots[i] = roots[--n_roots];
			return;
		}
	}
}

void sp_roots_reset(void)
{
	n_roots = 0;
}

/* Living processes below us and below no root but mine. */
static int find_ours(int proc_dfd, pid_t mine, struct sp_procs *out, struct sp_err *err)
{
	pid_t skip[SP_CHILDREN_MAX];
	size_t n = 0;

	for (size_t i = 0; i < n_roots; i++) {
		if (roots[i] != mine)
			skip[n++] = roots[i];
	}
	return sp_procs_below(proc_dfd, getpid(), skip, n, out, err);
}

/* ---- start ---- */

int sp_child_init(struct sp_err *err)
{
	struct sigaction sa;
	sigset_t set;

	memset(&sa, 0, sizeof sa);
	sa.sa_handler = SIG_DFL;      /* an ignored SIGCHLD would reap for us */
	sa.sa_flags = SA_NOCLDSTOP;   /* who stops has not changed in a way that matters */
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL) < 0 || sigaction(SIGCHLD, &sa, NULL) < 0 ||
		sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return sp_err_sys(err, "become a subreaper");
	return 0;
}

static int started(struct sp_child *c, enum sp_tree_kind kind, pid_t pid)
{
	c->kind = kind;
	c->pid = c->sid = pid;
	return sp_roots_add(pid, NULL);
}

int sp_child_start_self(struct sp_child *c, const struct sp_child_spec *spec, struct sp_err *err)
{
	pid_t pid;

	*c = (struct sp_child)SP_CHILD_INIT;
	if (sp_launch(spec, -1, &pid, err) < 0)
		return -1;
	return started(c, TREE_SELF, pid);
}

/* 1 started, 0 the kernel does not let us, -1. */
static int start_in_leaf(struct sp_child *c, const struct sp_child_spec *spec, struct sp_cgroup *cg, struct sp_err *err)
{
	pid_t pid;
	int rc;

	*c = (struct sp_child)SP_CHILD_INIT;
	c->kind = TREE_CGROUP;
	if (sp_leaf_take(c, cg, err) < 0)
		return -1;
	rc = sp_launch(spec, c->leaf_fd, &pid, err);
	if (rc == 1) {
		(void)started(c, TREE_CGROUP, pid);
	} else {
		sp_leaf_release(c);
		*c = (struct sp_child)SP_CHILD_INIT;
	}
	return rc;
}

int sp_child_start(struct sp_child *c, const struct sp_child_spec *spec, struct sp_cgroup *cg, bool beside, struct sp_err *err)
{
	int rc = 0;

	*c = (struct sp_child)SP_CHILD_INIT;
	if (n_roots == SP_CHILDREN_MAX)
		return sp_err_set(err, EAGAIN, "more than %d children at a time", SP_CHILDREN_MAX);
	if (cg && cg->dfd >= 0)
		rc = start_in_leaf(c, spec, cg, err);
	if (rc != 0)
		return rc < 0 ? -1 : 0;
	return beside ? sp_keeper_start(c, spec, err) : sp_child_start_self(c, spec, err);
}

/* ---- reap ---- */

static struct sp_child *find_child(struct sp_child *children[], size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++) {
		if (children[i]->pid == pid && !children[i]->reaped)
			return children[i];
	}
	return NULL;
}

static void take_end(struct sp_child *c, int status)
{
	c->reaped = true;
	if (c->kind != TREE_KEEPER) {
		c->ended = true;
		c->status = status;
		return;
	}
	sp_keeper_read(c);
	c->gone = c->told_gone;
	if (c->gone)
		return;
	c->among_ours = true; /* the keeper was killed: what it held came to us */
	if (!c->ended) {
		c->ended = true;
		c->status = WIFSIGNALED(status) ? status : SIGKILL;
	}
}

/* Take all ends there are. *more_out: there are children still. */
static int reap_all(struct sp_child *children[], size_t n, bool *more_out, struct sp_err *err)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
		struct sp_child *c;

		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0 && errno != ECHILD)
			return sp_err_sys(err, "wait for children");
		*more_out = pid == 0;
		if (pid <= 0)
			return 0;
		sp_roots_remove(pid);
		c = find_child(children, n, pid);
		if (c)
			take_end(c, status);
	}
}

/* Whether anything is below us that no root and no leaf accounts for. 1, 0 or -1. */
static int strays_left(bool more, struct sp_err *err)
{
	struct sp_procs found = SP_PROCS_INIT;
	int proc_dfd, rc;

	if (!more)
		return 0;
	if (n_roots == 0)
		return 1; /* there are children, and none is a root */
	proc_dfd = sp_proc_open(err);
	if (proc_dfd < 0)
		return -1;
	rc = find_ours(proc_dfd, 0, &found, err);
	if (rc == 0)
		rc = found.n > 0;
	sp_procs_done(&found);
	(void)close(proc_dfd);
	return rc;
}

static bool last_one(struct sp_child *children[], size_t n, const struct sp_child *c)
{
	for (size_t i = 0; i < n; i++) {
		if (children[i] != c && children[i]->pid != 0 && !children[i]->gone)
			return false;
	}
	return true;
}

/* The command has ended: whether something of the tree is left. 1, 0 or -1. */
static int tree_left(struct sp_child *children[], size_t n, struct sp_child *c, bool more, struct sp_err *err)
{
	int rc;

	switch (c->kind) {
	case TREE_CGROUP:
		rc = sp_leaf_left(c, err);
		if (rc != 0 || !more || !last_one(children, n, c))
			return rc;
		rc = strays_left(more, err);
		c->among_ours = rc == 1;
		return rc;
	case TREE_KEEPER:
		return c->reaped ? strays_left(more, err) : 1;
	case TREE_SELF:
		break;
	}
	return strays_left(more, err);
}

int sp_child_reap(struct sp_child *children[], size_t n, struct sp_err *err)
{
	bool more = false;

	if (reap_all(children, n, &more, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct sp_child *c = children[i];
		int left;

		if (c->kind == TREE_KEEPER && c->pid != 0 && !c->reaped)
			sp_keeper_read(c);
		if (c->pid == 0 || !c->ended || c->gone)
			continue;
		left = tree_left(children, n, c, more, err);
		if (left < 0)
			return -1;
		c->gone = left == 0;
		if (left && c->killing && (c->kind != TREE_KEEPER || c->reaped) && sp_child_signal(c, SIGKILL, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- signal ---- */

/* Send sig to each of the list. 0 or -1. */
static int signal_all(int proc_dfd, const struct sp_procs *l, int sig, struct sp_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (sp_proc_signal(proc_dfd, &l->p[i], sig, NULL) < 0 && errno != EPERM)
			rc = sp_err_sys(err, "signal process %d", (int)l->p[i].pid);
	}
	return rc;
}

static bool all_known(const struct sp_procs *now, const struct sp_procs *before)
{
	for (size_t i = 0; i < now->n; i++) {
		const struct sp_proc *p = sp_procs_find(before, now->p[i].pid);

		if (!p || p->start != now->p[i].start)
			return false;
	}
	return true;
}

int sp_child_signal_ours(pid_t mine, int sig, struct sp_err *err)
{
	struct sp_procs before = SP_PROCS_INIT, now = SP_PROCS_INIT;
	int proc_dfd = sp_proc_open(err), rc = proc_dfd < 0 ? -1 : 0;
	bool done = false;

	for (int round = 0; rc == 0 && !done && round < KILL_ROUNDS; round++) {
		rc = find_ours(proc_dfd, mine, &now, err);
		if (rc < 0)
			break;
		done = sig != SIGKILL || all_known(&now, &before); /* no more rounds: I4 goes on */
		rc = signal_all(proc_dfd, &now, sig, err);
		sp_procs_done(&before);
		before = now;
		now = (struct sp_procs)SP_PROCS_INIT;
	}
	sp_procs_done(&before);
	sp_procs_done(&now);
	if (proc_dfd >= 0)
		(void)close(proc_dfd);
	return rc;
}

static int signal_leaf(struct sp_child *c, int sig, struct sp_err *err)
{
	struct sp_procs l = SP_PROCS_INIT;
	int proc_dfd, rc;

	if (sig == SIGKILL)
		return sp_cgroup_kill(c->leaf_fd) < 0 ? sp_err_sys(err, "kill %s/%s", c->cg->path, c->leaf) : 0;
	proc_dfd = sp_proc_open(err);
	if (proc_dfd < 0)
		return -1;
	rc = sp_procs_in_cgroup(proc_dfd, c->leaf_fd, &l, err);
	if (rc == 0)
		rc = signal_all(proc_dfd, &l, sig, err);
	sp_procs_done(&l);
	(void)close(proc_dfd);
	return rc;
}

int sp_child_signal(struct sp_child *c, int sig, struct sp_err *err)
{
	int rc = 0;

	if (c->pid == 0 || c->gone)
		return 0;
	if (sig == SIGKILL)
		c->killing = true;
	if (c->kind == TREE_KEEPER && !c->reaped)
		return sp_keeper_signal(c, sig, err);
	if (c->kind == TREE_CGROUP)
		rc = signal_leaf(c, sig, err);
	if (c->kind == TREE_SELF || c->among_ours) {
		if (sp_child_signal_ours(c->reaped ? 0 : c->pid, sig, err) < 0)
			rc = -1;
	}
	return rc;
}

void sp_child_done(struct sp_child *c)
{
	if (c->pid != 0 && !c->gone)
		(void)sp_child_signal(c, SIGKILL, NULL);
	if (c->kind == TREE_CGROUP)
		sp_leaf_release(c);
	if (c->keeper_fd >= 0)
		(void)close(c->keeper_fd);
	*c = (struct sp_child)SP_CHILD_INIT;
}

/* ---- words ---- */

char *sp_child_describe(int status, char *out, size_t size)
{
	const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;

	if (WIFEXITED(status))
		(void)snprintf(out, size, "exit %d", WEXITSTATUS(status));
	else if (name)
		(void)snprintf(out, size, "signal %d (%s)", WTERMSIG(status), name);
	else
		(void)snprintf(out, size, "signal %d", WTERMSIG(status));
	return out;
}

int sp_child_boot_id(char out[40], struct sp_err *err)
{
	struct sp_buf b = SP_BUF_INIT;
	int rc = 0;

	if (sp_fsx_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &b) < 0)
		rc = sp_err_sys(err, "read the boot's id");
	else if (b.len < 36)
		rc = sp_err_set(err, EPROTO, "read the boot's id: it is too short");
	else
		(void)snprintf(out, 40, "%.36s", sp_buf_str(&b));
	sp_buf_done(&b);
	return rc;
}

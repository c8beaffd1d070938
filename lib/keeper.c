/*
 * keeper: a process that holds one tree, for stages that run side by side without cgroups: the orphans of one worker's
 * stages could not be told apart, those of a keeper's are its own.
 *
 * I1  It is a copy of the worker without exec, so it first closes every descriptor but those it needs: it must hold no
 *     job's lock, and once the command runs, no end of its pipes.
 * I2  It lives as long as its tree: the end of its socket (the worker died, or gave the child up) makes it kill the
 *     tree; it never waits for anything but the socket and its children.
 * I3  The worker hears of every change by SIGCHLD: the keeper's own end, or one that the keeper sends.
 * Killed itself, the command goes with it (PR_SET_PDEATHSIG) and what else it held becomes the worker's.
 */
#include "child_priv.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum keeper_kind {
	KEEPER_STARTED, /* keeper: value is the command's pid */
	KEEPER_FAILED,  /* keeper: err says why it did not start */
	KEEPER_ENDED,   /* keeper: value is the command's status */
	KEEPER_GONE,    /* keeper: nothing is left */
	KEEPER_SIGNAL   /* worker: send value to the tree */
};

struct keeper_msg {
	int kind, value;
	struct sp_err err; /* sent with KEEPER_FAILED only */
};
#define SHORT_MSG offsetof(struct keeper_msg, err)

static int send_msg(int sock, enum keeper_kind kind, int value, const struct sp_err *why, int flags)
{
	struct keeper_msg m;
	ssize_t n;

	memset(&m, 0, sizeof m);
	m.kind = (int)kind;
	m.value = value;
	if (why)
		m.err = *why;
	do
		n = send(sock, &m, why ? sizeof m : SHORT_MSG, MSG_NOSIGNAL | flags);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

/* 1 got one, 0 the other side is gone, -1 and errno (EAGAIN: none there). */
static int receive_msg(int sock, struct keeper_msg *m, int flags)
{
	ssize_t n;

	memset(m, 0, sizeof *m);
	do
		n = recv(sock, m, sizeof *m, flags);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == ECONNRESET)
		return 0;
	if (n > 0 && (size_t)n < SHORT_MSG) {
		errno = EPROTO;
		return -1;
	}
	return n < 0 ? -1 : n > 0;
}

/* ---- the keeper ---- */

static int by_value(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Close all descriptors but the n in keep (negative ones are none). */
static void keep_only(int *keep, size_t n)
{
	unsigned from = 0;

	qsort(keep, n, sizeof *keep, by_value);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < 0 || (unsigned)keep[i] < from)
			continue;
		if ((unsigned)keep[i] > from)
			(void)syscall(SYS_close_range, from, (unsigned)keep[i] - 1, 0U);
		from = (unsigned)keep[i] + 1;
	}
	(void)syscall(SYS_close_range, from, ~0U, 0U);
}

/* Tell what is new. Returns whether the keeper's work is over. */
static bool tell(int sock, int worker_pidfd, const struct sp_child *c, bool *told_end)
{
	if (c->ended && !*told_end) {
		*told_end = true;
		(void)send_msg(sock, KEEPER_ENDED, c->status, NULL, 0);
		if (!c->gone)
			(void)syscall(SYS_pidfd_send_signal, worker_pidfd, SIGCHLD, NULL, 0U);
	}
	if (c->gone)
		(void)send_msg(sock, KEEPER_GONE, 0, NULL, 0);
	return c->gone;
}

static _Noreturn void keep(int sock, int worker_pidfd, struct sp_child *c)
{
	struct sp_child *list[1] = {c};
	struct signalfd_siginfo info;
	struct keeper_msg m;
	bool told_end = false;
	int got;
	sigset_t chld;
	struct pollfd p[2] = {{.fd = sock, .events = POLLIN}, {.events = POLLIN}};

	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	p[1].fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	while (p[1].fd >= 0) {
		if (sp_child_reap(list, 1, NULL) < 0)
			break;
		if (tell(sock, worker_pidfd, c, &told_end))
			_exit(0);
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		while (read(p[1].fd, &info, sizeof info) > 0)
			;
		if (p[0].fd < 0 || p[0].revents == 0)
			continue;
		got = receive_msg(sock, &m, MSG_DONTWAIT);
		if (got == 1) {
			(void)sp_child_signal(c, m.value, NULL);
		} else if (got == 0 || errno != EAGAIN) {
			p[0].fd = -1;
			(void)sp_child_signal(c, SIGKILL, NULL);
		}
	}
	(void)sp_child_signal(c, SIGKILL, NULL); /* nothing can be waited for any more: the worker finds what is left */
	_exit(1);
}

static _Noreturn void keeper_main(int sock, int worker_pidfd, const struct sp_child_spec *spec)
{
	struct sp_child c;
	struct sp_err err;
	sigset_t all;
	int need[] = {sock, worker_pidfd, spec->cwd_fd, spec->stdin_fd, spec->stdout_fd, spec->stderr_fd, spec->result_fd};
	int own[] = {sock, worker_pidfd};

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, NULL);
	keep_only(need, sizeof need / sizeof *need);
	(void)setsid();
	(void)prctl(PR_SET_NAME, "spoold-keeper");
	sp_roots_reset();
	if (sp_child_init(&err) < 0 || sp_child_start_self(&c, spec, &err) < 0) {
		(void)send_msg(sock, KEEPER_FAILED, 0, &err, 0);
		_exit(0);
	}
	keep_only(own, 2);
	(void)send_msg(sock, KEEPER_STARTED, c.pid, NULL, 0);
	keep(sock, worker_pidfd, &c);
}

/* ---- the worker's side ---- */

static void wait_for(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* The keeper was made: hear whether the command started. */
static int hear_start(struct sp_child *c, pid_t pid, int sock, struct sp_err *err)
{
	struct keeper_msg m;
	int rc = receive_msg(sock, &m, 0);

	if (rc == 1 && m.kind == KEEPER_STARTED && sp_roots_add(pid, err) == 0) {
		c->kind = TREE_KEEPER;
		c->pid = pid;
		c->sid = m.value;
		c->keeper_fd = sock;
		return 0;
	}
	(void)kill(pid, SIGKILL);
	wait_for(pid);
	if (rc == 1 && m.kind == KEEPER_FAILED) {
		if (err)
			*err = m.err;
		return -1;
	}
	(void)sp_child_signal_ours(0, SIGKILL, NULL); /* what a killed keeper may have begun */
	return sp_err_set(err, EIO, "start a keeper: it ended before it could start the command");
}

int sp_keeper_start(struct sp_child *c, const struct sp_child_spec *spec, struct sp_err *err)
{
	int pair[2] = {-1, -1}, self = (int)syscall(SYS_pidfd_open, getpid(), 0U);
	pid_t pid = -1;

	if (self < 0)
		return sp_err_sys(err, "start a keeper: pidfd_open");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		sp_err_sys(err, "start a keeper: socketpair");
		goto out;
	}
	pid = fork();
	if (pid == 0)
		keeper_main(pair[1], self, spec);
	if (pid < 0)
		sp_err_sys(err, "start a keeper: fork");
	(void)close(pair[1]);
	if (pid < 0 || hear_start(c, pid, pair[0], err) < 0) {
		(void)close(pair[0]);
		pid = -1;
	}
out:
	(void)close(self);
	return pid < 0 ? -1 : 0;
}

void sp_keeper_read(struct sp_child *c)
{
	struct keeper_msg m;

	while (c->keeper_fd >= 0 && receive_msg(c->keeper_fd, &m, MSG_DONTWAIT) == 1) {
		if (m.kind == KEEPER_ENDED) {
			c->ended = true;
			c->status = m.value;
		} else if (m.kind == KEEPER_GONE) {
			c->told_gone = true;
		}
	}
}

int sp_keeper_signal(struct sp_child *c, int sig, struct sp_err *err)
{
	if (send_msg(c->keeper_fd, KEEPER_SIGNAL, sig, NULL, MSG_DONTWAIT) < 0 && errno != EPIPE && errno != ECONNRESET)
		return sp_err_sys(err, "signal the tree of process %d", (int)c->pid);
	return 0;
}

/*
 * child_priv: what child.c, launch.c, keeper.c, cgroup.c, procs.c and strays.c share. For these files and their tests only.
 *
 *   child.c   init, start, reap, signal, done: which tree a process counts to
 *   launch.c  the system call that makes the process, and all that happens in it before exec
 *   keeper.c  the process that holds one tree where there are no cgroups
 *   cgroup.c  the worker's directory in cgroup2, and its leaves
 *   procs.c   processes as /proc tells of them, found below one and signalled safely
 *   strays.c  what a dead worker left
 */
#ifndef CHILD_PRIV_H
#define CHILD_PRIV_H

#include "child.h"

/* ---- launch ---- */

/*
 * Make the process and wait until exec has happened. leaf_fd: cgroup to start in, or -1. 1 started, 0 the kernel does
 * not let us start in leaf_fd (nothing happened), -1 with err and no process left.
 */
int sp_launch(const struct sp_child_spec *spec, int leaf_fd, pid_t *pid_out, struct sp_err *err);

/* For tests: make processes by plain fork, as on machines for which launch.c has no faster way. */
extern bool sp_launch_fork;

/* ---- child ---- */

/* The roots of trees: unreaped commands and keepers of this process. 0, or -1 EAGAIN when there are too many. */
int sp_roots_add(pid_t pid, struct sp_err *err);
void sp_roots_remove(pid_t pid);
void sp_roots_reset(void); /* in a new process: it has no children yet */

/* Start as TREE_SELF. */
int sp_child_start_self(struct sp_child *c, const struct sp_child_spec *spec, struct sp_err *err);

/* Signal all that is below this process and below no root but `mine`. KILL: until nothing new turns up. 0 or -1. */
int sp_child_signal_ours(pid_t mine, int sig, struct sp_err *err);

/* ---- keeper ---- */

int sp_keeper_start(struct sp_child *c, const struct sp_child_spec *spec, struct sp_err *err);
/* Take its messages that are there: sets ended, status, told_gone. */
void sp_keeper_read(struct sp_child *c);
/* Have it signal its tree. 0, also when it is dead already (sp_child_reap then finds what is left), or -1. */
int sp_keeper_signal(struct sp_child *c, int sig, struct sp_err *err);

/* ---- cgroup ---- */

struct sp_leaf {
	bool made, busy;
	int dfd, events_fd; /* valid while made */
};

/* A leaf that is empty and now ours: leaf_fd, leaf, leaf_no of c. 0 or -1. */
int sp_leaf_take(struct sp_child *c, struct sp_cgroup *cg, struct sp_err *err);
void sp_leaf_release(struct sp_child *c);
/* Whether a process is in the leaf or below it. 1, 0 or -1. */
int sp_leaf_left(const struct sp_child *c, struct sp_err *err);
/* cgroup.kill. 0 or -1 and errno. */
int sp_cgroup_kill(int dfd);
/* The same question for any cgroup directory, by its open cgroup.events. */
int sp_cgroup_left(int dfd, int events_fd);
/* Remove what is below the directory (empty cgroups), best effort. */
void sp_cgroup_empty(int dfd);

/* ---- procs ---- */

struct sp_proc {
	pid_t pid, ppid, sid;
	unsigned long long start; /* in ticks since boot: with pid, names a process for good */
	bool dead;                /* a zombie with no thread left */
};
struct sp_procs {
	struct sp_proc *p; /* sorted by pid */
	size_t n, cap;
};
#define SP_PROCS_INIT {NULL, 0, 0}

void sp_procs_done(struct sp_procs *l);
int sp_procs_add(struct sp_procs *l, const struct sp_proc *p, struct sp_err *err);
void sp_procs_sort(struct sp_procs *l);
const struct sp_proc *sp_procs_find(const struct sp_procs *l, pid_t pid); /* in a sorted list; NULL: not there */

/* /proc. -1 with err. */
int sp_proc_open(struct sp_err *err);
/* One process. 1, 0 not there, -1 and errno. */
int sp_proc_look(int proc_dfd, pid_t pid, struct sp_proc *out);
/* All processes there are. 0 or -1. */
int sp_procs_all(int proc_dfd, struct sp_procs *out, struct sp_err *err);
/*
 * All living descendants of top, but not the n processes in skip and what is below them. From /proc/PID/task/TID/children where
 * the kernel has it, else from one look at all processes. 0 or -1.
 */
int sp_procs_below(int proc_dfd, pid_t top, const pid_t skip[], size_t n, struct sp_procs *out, struct sp_err *err);
/* Add the processes in the cgroup at dfd and below it. 0 or -1. */
int sp_procs_in_cgroup(int proc_dfd, int dfd, struct sp_procs *out, struct sp_err *err);

/*
 * Pin the process with a pidfd, look whether it is still the one that was seen, send sig (and CONT after anything but
 * KILL). 1 sent, 0 it is gone, -1 and errno. pidfd_out (may be NULL): on 1 the pidfd, the caller closes it.
 */
int sp_proc_signal(int proc_dfd, const struct sp_proc *p, int sig, int *pidfd_out);

#endif

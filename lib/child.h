/*
 * child: programs and their whole trees. Starting a stage's command in its own session with a clean environment,
 * limits and no descriptor but 0, 1, 2 and the result one; signalling everything that came of it; knowing when
 * nothing of it is left; and, after a crash, finding and ending what a dead worker left.
 *
 * How a tree is contained (design section 5):
 *   TREE_CGROUP  a leaf of its own in a writable cgroup v2 (clone3 CLONE_INTO_CGROUP, cgroup.kill): nothing escapes.
 *   TREE_SELF    this process is the subreaper; whatever loses its parent becomes our child and is found there.
 *                Only for one stage at a time.
 *   TREE_KEEPER  for stages side by side without cgroups: a small process of its own (fork without exec: it closes
 *                every descriptor but its own two first, so that it holds no lock) is the subreaper, starts the
 *                command, tells the command's end through a socket (and by a SIGCHLD to us) and ends when nothing is
 *                left. When we die it kills its tree; when it is killed itself, what remains becomes ours and counts
 *                to its tree, and the command counts as ended by a signal.
 *
 * Order of calls: sp_child_init once in the process (subreaper, SIGCHLD blocked; the caller polls a signalfd for
 * SIGCHLD: the last process of a tree always has this process, or the keeper, as its parent, so SIGCHLD tells of
 * every change that matters, and nothing else needs to be polled); sp_child_start; on SIGCHLD sp_child_reap with all
 * children that were started and not yet done: a child that has `ended` and is not `gone` has left-overs, which
 * sp_child_signal TERM and, after the caller's grace time, KILL; once gone, sp_child_done. A tree that was sent KILL
 * needs no second call: sp_child_reap sends it again to whatever was forked meanwhile.
 * Signals go to pids that cannot have been reused: unreaped children of ours, or pinned with a pidfd and looked at again.
 * For one thread of a process: what children there are is a fact of the whole process.
 */
#ifndef CHILD_H
#define CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "job.h"
#include "sperr.h"

#define SP_CHILDREN_MAX 512 /* at a time, in one process */

/*
 * A writable cgroup v2 directory of this process's own, in which leaves are made. dfd -1: there is none. An flock on
 * the directory says that its owner lives. Leaves are kept and used again by later children once they are empty.
 */
struct sp_cgroup {
	int dfd;
	char path[512]; /* "" if none; else where it stands, as recorded in events.jsonl for recovery */
	struct sp_leaf *leaves; /* SP_CHILDREN_MAX of them; owned */
};
#define SP_CGROUP_INIT {.dfd = -1}

/*
 * Look for a writable cgroup v2 (from /proc/self/mountinfo and /proc/self/cgroup) and make a directory
 * `spool-NAME` (NAME must be unique among live processes and not reused: pid and start time do) there, with cgroup.kill. 1 made, 0 none to be had, -1 with err
 * (no memory, no descriptors), which never happens for want of privilege.
 */
int sp_cgroup_open(struct sp_cgroup *cg, const char *name, struct sp_err *err);
void sp_cgroup_close(struct sp_cgroup *cg); /* removes the directory too, best effort; no child may be left in it */

enum sp_tree_kind { TREE_CGROUP, TREE_SELF, TREE_KEEPER };

struct sp_child_spec {
	char *const *argv;    /* looked up in the PATH of envp when argv[0] has no '/' */
	char *const *envp;    /* the whole environment of the child */
	int cwd_fd;           /* directory to run in; a relative argv[0] or PATH element is taken from there */
	int stdin_fd, stdout_fd, stderr_fd, result_fd; /* become 0, 1, 2, 3; result_fd -1: closed */
	const struct sp_limits *limits; /* may be NULL; a limit that cannot be set is an error of the start */
};

struct sp_child {
	pid_t pid;            /* the command (TREE_KEEPER: the keeper); 0: none */
	pid_t sid;            /* session of the command, as recorded for recovery */
	enum sp_tree_kind kind;
	int leaf_fd;          /* TREE_CGROUP: its directory (borrowed from cg) */
	char leaf[32];        /* and its name below sp_cgroup */
	int keeper_fd;        /* TREE_KEEPER: end of its socket */
	bool ended;           /* the command has ended */
	int status;           /* then: as waitpid tells */
	bool gone;            /* and nothing of its tree is left */
	struct sp_cgroup *cg; /* must stay where it is until sp_child_done */
	/* child.c's own: */
	bool reaped;          /* pid is no process of ours any more */
	bool told_gone;       /* its keeper said so, and is about to end */
	bool killing;         /* KILL was sent: it is sent again to what turns up */
	bool among_ours;      /* what is left of the tree is (also) among this process's own descendants, outside of leaf and keeper */
	unsigned leaf_no;
};
#define SP_CHILD_INIT {.leaf_fd = -1, .keeper_fd = -1}

/* Become subreaper and block SIGCHLD for signalfd. 0 or -1. */
int sp_child_init(struct sp_err *err);

/*
 * Start. cg: where to make the leaf, or NULL / dfd -1 for none; beside: other children of this process run, or may be
 * started, while this one runs. Where the kernel refuses to start into the leaf, it is as if cg were NULL.
 * The command gets SIGKILL when this process dies (PR_SET_PDEATHSIG), default signal dispositions and mask, umask 022, its own session.
 * Returns once exec has happened: 0, or -1 with err (code: errno of the step that failed, e.g. ENOENT for a
 * command that does not exist; the sentence names the step and the command) and nothing left running.
 */
int sp_child_start(struct sp_child *c, const struct sp_child_spec *spec, struct sp_cgroup *cg, bool beside, struct sp_err *err);

/*
 * Reap what has ended, without waiting: updates ended, status, gone of the n children, which must be all that were
 * started and not done (strays that are nobody's are reaped too). Call it on each SIGCHLD. 0 or -1 with err.
 */
int sp_child_reap(struct sp_child *children[], size_t n, struct sp_err *err);

/*
 * Send sig to everything of the tree that there is now (TERM and KILL; KILL uses cgroup.kill where it can; anything
 * but KILL is followed by CONT, so that what is stopped hears it). 0, also when nothing is left, or -1 with err.
 */
int sp_child_signal(struct sp_child *c, int sig, struct sp_err *err);

/* Free what it holds (leaf, socket). The tree must be gone (what is not is killed). Resets to SP_CHILD_INIT; fine on that too. */
void sp_child_done(struct sp_child *c);

/* How an end reads: "exit 3", "signal 9 (KILL)". Returns out. */
char *sp_child_describe(int status, char *out, size_t size);

/*
 * After a crash: end everything a dead worker left of a job. It is found by
 *   cgroup  the path recorded with the attempt ("" or NULL if none). Only one that lies in a cgroup2 mount and has a
 *           last component beginning "spool-" is used, and only if its owner is dead (nobody holds its flock: a live
 *           worker's cgroup holds another job by now). It is removed afterwards.
 *   sids    the sessions recorded (n_sids may be 0), if boot (NULL: none) is this boot's. The number may have been
 *           given to someone else since: a session whose leader lives counts only if the leader has the mark, and a
 *           process of another only if the session hangs from init or from an ancestor of ours, where orphans go.
 *   mark    any process whose environment holds `SPOOL_JOB_ID=<id>` and `SPOOL_DIR=<spool>`.
 * TERM (and CONT), grace_s, KILL; waits until they are gone (pidfd poll, no polling loop). Never touches this process
 * or its ancestors. 0 (*killed_out how many were signalled; may be NULL), or -1 with err when something would not die.
 */
int sp_child_end_strays(const char *id, const char *spool, const char *cgroup, const char *boot, const pid_t *sids,
	size_t n_sids, double grace_s, int *killed_out, struct sp_err *err);

/* This boot's id (/proc/sys/kernel/random/boot_id), 36 characters. 0 or -1. */
int sp_child_boot_id(char out[40], struct sp_err *err);

#endif

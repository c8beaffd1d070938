/*
 * launch: makes the process of a command, and all that happens in it before exec.
 *
 * I1  The new process shares our memory, or is a copy of it, and runs only between the system call and exec, on a
 *     stack of its own, while we stand still (CLONE_VFORK) with all signals blocked. It makes only system calls.
 * I2  When sp_launch returns 1, exec has happened (or the process was killed before it could: it is a child like any
 *     other, that ended by a signal). When it returns -1 the process has been reaped.
 * I3  The command has no descriptor but 0 to 3, no memory of our signal settings, and dies when we die.
 *
 * A plain start shares our memory, so that it costs the same however large we are. To start into a cgroup takes
 * clone3, for which there is no C function: with memory shared the child must not return to the frame it was made in,
 * which takes the few instructions below, for machines this was tried on; on others it is a copy (0.1 ms more).
 */
#include "child_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES (64 * 1024)
#define FIRST_FREE_FD 4
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_CLASS_SHIFT 13

bool sp_launch_fork;

/* What the child tells when it could not come to exec. */
struct report {
	int code;         /* errno; 0: nothing to tell */
	const char *step; /* what it was doing: a literal, at the same address in a copy of us */
};

struct launch {
	const struct sp_child_spec *spec;
	const char *path;       /* what to exec */
	pid_t parent;
	struct report *report;
};

/* ---- in the child ---- */

static _Noreturn void give_up(const struct launch *l, const char *step)
{
	l->report->code = errno;
	l->report->step = step;
	_exit(127);
}

/*
 * stdin, stdout, stderr and the result descriptor become 0 to 3. First everything that stands below 4 in the wrong
 * place moves up, then nothing can be overwritten before it was copied.
 */
static void set_fds(const struct launch *l)
{
	int fd[FIRST_FREE_FD] = {l->spec->stdin_fd, l->spec->stdout_fd, l->spec->stderr_fd, l->spec->result_fd};
	int i;

	for (i = 0; i < FIRST_FREE_FD; i++) {
		if (fd[i] >= 0 && fd[i] < FIRST_FREE_FD && fd[i] != i && (fd[i] = fcntl(fd[i], F_DUPFD, FIRST_FREE_FD)) < 0)
			give_up(l, "set up its descriptors");
	}
	for (i = 0; i < FIRST_FREE_FD; i++) {
		if (fd[i] < 0)
			(void)close(i);
		else if (fd[i] == i ? fcntl(i, F_SETFD, 0) < 0 : dup2(fd[i], i) < 0)
			give_up(l, "set up its descriptors");
	}
	if (syscall(SYS_close_range, (unsigned)FIRST_FREE_FD, ~0U, 0U) < 0)
		give_up(l, "close other descriptors");
}

static void set_limit(const struct launch *l, int resource, int64_t value, const char *step)
{
	struct rlimit r = {(rlim_t)value, (rlim_t)value};

	if (value >= 0 && setrlimit((unsigned)resource, &r) < 0)
		give_up(l, step);
}

static void set_limits(const struct launch *l)
{
	const struct sp_limits *m = l->spec->limits;

	if (!m)
		return;
	set_limit(l, RLIMIT_CPU, m->cpu_s, "set limit cpu_s");
	set_limit(l, RLIMIT_FSIZE, m->file_bytes, "set limit file_bytes");
	set_limit(l, RLIMIT_NOFILE, m->open_files, "set limit open_files");
	set_limit(l, RLIMIT_NPROC, m->processes, "set limit processes");
	set_limit(l, RLIMIT_CORE, m->core_bytes, "set limit core_bytes");
	set_limit(l, RLIMIT_AS, m->memory_bytes, "set limit memory_bytes");
	if (m->nice != 0) {
		errno = 0;
		if (nice(m->nice) == -1 && errno != 0)
			give_up(l, "set nice");
	}
	if (m->ionice_class != 0 && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
		(m->ionice_class << IOPRIO_CLASS_SHIFT) | m->ionice_level) < 0)
		give_up(l, "set ionice");
}

static void set_signals(const struct launch *l)
{
	struct sigaction dfl;
	sigset_t none;
	int i;

	memset(&dfl, 0, sizeof dfl);
	dfl.sa_handler = SIG_DFL;
	for (i = 1; i <= SIGRTMAX; i++)
		(void)sigaction(i, &dfl, NULL); /* refused for KILL, STOP and those of the C library */
	(void)sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		give_up(l, "set its signal mask");
}

static int child_main(void *arg)
{
	const struct launch *l = arg;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		give_up(l, "tie it to its parent");
	if (getppid() != l->parent)
		_exit(127); /* the parent died before that: nobody is left to be told */
	if (setsid() < 0)
		give_up(l, "make its session");
	if (fchdir(l->spec->cwd_fd) < 0)
		give_up(l, "enter its folder");
	(void)umask(022);
	set_fds(l);
	set_limits(l);
	set_signals(l);
	(void)execve(l->path, l->spec->argv, l->spec->envp);
	give_up(l, NULL);
}

/* ---- which file to run ---- */

static const char *search_path(char *const *envp)
{
	for (; envp && *envp; envp++) {
		if (!strncmp(*envp, "PATH=", 5))
			return *envp + 5;
	}
	return DEFAULT_PATH;
}

/* Where exec finds name: 0 and out; -1 with err. Relative elements count from cwd_fd, where the command will stand. */
static int look_up(const struct sp_child_spec *spec, char *out, size_t size, struct sp_err *err)
{
	const char *name = spec->argv[0], *p = search_path(spec->envp), *end;
	int code = ENOENT;
	struct stat st;

	if (*name == '\0')
		return sp_err_set(err, ENOENT, "the name of the command is empty");
	if (strchr(name, '/')) {
		if (snprintf(out, size, "%s", name) >= (int)size)
			return sp_err_set(err, ENAMETOOLONG, "start %.100s…: %s", name, strerror(ENAMETOOLONG));
		return 0;
	}
	for (;; p = end + 1) {
		int len;

		end = strchrnul(p, ':');
		len = snprintf(out, size, "%.*s%s%s", (int)(end - p), p, end > p ? "/" : "./", name);
		if (len > 0 && len < (int)size && fstatat(spec->cwd_fd, out, &st, 0) == 0 && S_ISREG(st.st_mode)) {
			if (faccessat(spec->cwd_fd, out, X_OK, AT_EACCESS) == 0)
				return 0;
			code = EACCES;
		}
		if (*end == '\0')
			break;
	}
	if (code == EACCES)
		return sp_err_set(err, code, "start %.100s: found in PATH, but it is not executable", name);
	return sp_err_set(err, code, "start %.100s: no such command in PATH (%.400s)", name, search_path(spec->envp));
}

static int explain(const struct launch *l, struct sp_err *err)
{
	const struct report *r = l->report;
	const char *more = "";

	if (r->step)
		return sp_err_set(err, r->code, "start %.200s: %s: %s", l->path, r->step, strerror(r->code));
	if (r->code == ENOENT && faccessat(l->spec->cwd_fd, l->path, F_OK, 0) == 0)
		more = " (the interpreter it names in its first line, or as its loader, is missing)";
	else if (r->code == ENOEXEC)
		more = " (a script needs a first line such as #!/bin/sh)";
	return sp_err_set(err, r->code, "start %.200s: %s%s", l->path, strerror(r->code), more);
}

/* ---- the system call ---- */

#if defined __x86_64__ && !defined __ILP32__
#define HAVE_SHARED_CLONE3
/*
 * clone3 with memory shared: the child begins on the stack in args, with nothing of our frame, calls fn(arg), which
 * does not return.
 */
static pid_t shared_clone3(struct clone_args *args, int (*fn)(void *), void *arg)
{
	long rc;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %[arg], %%rdi\n\t"
			 "call *%[fn]\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(rc)
			 : "0"((long)SYS_clone3), "D"(args), "S"(sizeof *args), [fn] "r"(fn), [arg] "r"(arg)
			 : "rcx", "r11", "memory", "cc");
	if (rc < 0) {
		errno = (int)-rc;
		return -1;
	}
	return (pid_t)rc;
}
#endif

/* A copy of us that runs child_main while we wait. */
static pid_t copy_clone3(struct launch *l, struct clone_args *args)
{
	struct report *seen = l->report, *shared;
	long pid;

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return -1;
	*shared = *seen;
	l->report = shared;
	args->flags &= ~(unsigned long long)CLONE_VM;
	args->stack = args->stack_size = 0;
	pid = syscall(SYS_clone3, args, sizeof *args);
	if (pid == 0)
		_exit(child_main(l));
	*seen = *shared;
	l->report = seen;
	(void)munmap(shared, sizeof *shared);
	return (pid_t)pid;
}

static pid_t make_process(struct launch *l, int leaf_fd)
{
	_Alignas(64) char stack[STACK_BYTES];
	struct clone_args args = {.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD,
		.stack = (unsigned long long)(uintptr_t)stack, .stack_size = sizeof stack};

	if (leaf_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (unsigned long long)leaf_fd;
	}
	if (sp_launch_fork)
		return copy_clone3(l, &args);
#ifdef HAVE_SHARED_CLONE3
	if (leaf_fd >= 0)
		return shared_clone3(&args, child_main, l);
#else
	if (leaf_fd >= 0)
		return copy_clone3(l, &args);
#endif
	return clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, l);
}

int sp_launch(const struct sp_child_spec *spec, int leaf_fd, pid_t *pid_out, struct sp_err *err)
{
	struct report report = {0, NULL};
	struct launch l = {.spec = spec, .parent = getpid(), .report = &report};
	char path[4096];
	sigset_t all, before;
	pid_t pid;
	int code;

	if (!spec->argv || !spec->argv[0])
		return sp_err_set(err, EINVAL, "there is no command to start");
	if (look_up(spec, path, sizeof path, err) < 0)
		return -1;
	l.path = path;
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &before);
	pid = make_process(&l, leaf_fd);
	code = errno;
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0) {
		if (leaf_fd >= 0 && code != EAGAIN && code != ENOMEM)
			return 0;
		return sp_err_set(err, code, "start %.200s: make a process: %s", path, strerror(code));
	}
	if (report.code != 0) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return explain(&l, err);
	}
	*pid_out = pid;
	return 1;
}

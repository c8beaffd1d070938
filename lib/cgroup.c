/*
 * cgroup: owns the directory spool-NAME of this process in cgroup2, and the leaves in it, one for each running child.
 *
 * I1  A leaf is given out only while nothing is in it. It is looked at when it comes back; one that is not empty then
 *     is not given out again.
 * I2  The directory's flock is held by its owner alone, through dfd, which is close-on-exec: who gets it knows that
 *     the owner is dead.
 * I3  Making and removing a leaf costs more than a start (0.1 ms on this side, much more in the kernel's workers), so
 *     the first few are kept open.
 * A crash leaves the directory with its leaves; sp_child_end_strays empties and removes it.
 */
#include "child_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fsx.h"

#define LEAVES_KEPT 8
#define TABLE_BYTES_MAX (8 * 1024 * 1024)
#define DEPTH_MAX 32

/* ---- where we may make one ---- */

/* Fields of mountinfo have blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* "0::PATH" of /proc/self/cgroup, cut out of text; NULL: we are in no cgroup2. */
static char *own_path(char *text)
{
	char *line, *next;

	for (line = text; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!strncmp(line, "0::/", 4))
			return line + 3;
	}
	return NULL;
}

/* One line of mountinfo: if it mounts cgroup2 where `own` can be seen, its path there to out. 1 or 0. */
static int mounted_path(char *line, const char *own, char *out, size_t size)
{
	char *field[5], *save = NULL, *dash = strstr(line, " - ");
	const char *rest = own;
	size_t root;
	int i;

	if (!dash || strncmp(dash, " - cgroup2 ", 11))
		return 0;
	*dash = '\0';
	for (i = 0; i < 5; i++) { /* id, parent, device, root, mount point */
		field[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!field[i])
			return 0;
	}
	unescape(field[3]);
	unescape(field[4]);
	root = strlen(field[3]);
	if (strcmp(field[3], "/")) {
		if (strncmp(own, field[3], root) || (own[root] != '/' && own[root] != '\0'))
			return 0;
		rest = own + root;
	}
	if (strstr(rest, "/..")) /* outside of our cgroup namespace */
		return 0;
	i = snprintf(out, size, "%s%s", field[4], strcmp(rest, "/") ? rest : "");
	return i > 0 && i < (int)size;
}

/* The directory of our own cgroup. 1, 0 none, -1. */
static int own_directory(char *out, size_t size, struct sp_err *err)
{
	struct sp_buf cgroup = SP_BUF_INIT, mounts = SP_BUF_INIT;
	char *own, *line, *next;
	int rc = 0;

	if (sp_fsx_read_file(AT_FDCWD, "/proc/self/cgroup", TABLE_BYTES_MAX, &cgroup) < 0 ||
		sp_fsx_read_file(AT_FDCWD, "/proc/self/mountinfo", TABLE_BYTES_MAX, &mounts) < 0) {
		rc = errno == ENOENT || errno == EACCES ? 0 : sp_err_sys(err, "read /proc/self/cgroup and mountinfo");
		goto out;
	}
	own = cgroup.p ? own_path(cgroup.p) : NULL;
	for (line = own ? mounts.p : NULL; line && *line && rc == 0; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		rc = mounted_path(line, own, out, size);
	}
out:
	sp_buf_done(&cgroup);
	sp_buf_done(&mounts);
	return rc;
}

/* ---- ours ---- */

/* Whether this is an ordinary cgroup, with cgroup.kill, that nobody else holds. */
static bool usable(int dfd)
{
	struct sp_buf type = SP_BUF_INIT;
	struct statfs fs;
	bool good = fstatfs(dfd, &fs) == 0 && (unsigned long)fs.f_type == CGROUP2_SUPER_MAGIC &&
		faccessat(dfd, "cgroup.kill", W_OK, AT_EACCESS) == 0 && faccessat(dfd, "cgroup.procs", W_OK, AT_EACCESS) == 0 &&
		sp_fsx_read_file(dfd, "cgroup.type", 64, &type) == 0 && !strcmp(sp_buf_str(&type), "domain\n") &&
		flock(dfd, LOCK_EX | LOCK_NB) == 0;

	sp_buf_done(&type);
	return good;
}

int sp_cgroup_open(struct sp_cgroup *cg, const char *name, struct sp_err *err)
{
	char parent[sizeof cg->path - 96], procs[sizeof cg->path];
	int rc;

	*cg = (struct sp_cgroup)SP_CGROUP_INIT;
	rc = own_directory(parent, sizeof parent, err);
	if (rc <= 0)
		return rc;
	(void)snprintf(cg->path, sizeof cg->path, "%s/spool-%.80s", parent, name);
	(void)snprintf(procs, sizeof procs, "%s/cgroup.procs", parent);
	/* To start a process there needs write permission on cgroup.procs of what both places have in common: this one. */
	if (faccessat(AT_FDCWD, procs, W_OK, AT_EACCESS) < 0 || mkdir(cg->path, 0755) < 0) {
		*cg = (struct sp_cgroup)SP_CGROUP_INIT;
		return 0;
	}
	cg->dfd = open(cg->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (cg->dfd < 0) {
		rc = sp_err_sys(err, "open %s", cg->path);
		(void)rmdir(cg->path);
		*cg = (struct sp_cgroup)SP_CGROUP_INIT;
		return rc;
	}
	if (!usable(cg->dfd))
		goto none;
	cg->leaves = calloc(SP_CHILDREN_MAX, sizeof *cg->leaves);
	if (!cg->leaves) {
		sp_cgroup_close(cg);
		return sp_err_mem(err);
	}
	return 1;
none:
	(void)close(cg->dfd);
	(void)rmdir(cg->path);
	*cg = (struct sp_cgroup)SP_CGROUP_INIT;
	return 0;
}

static void leaf_name(unsigned i, char out[32])
{
	(void)snprintf(out, 32, "leaf-%u", i);
}

static void leaf_remove(struct sp_cgroup *cg, unsigned i)
{
	char name[32];

	leaf_name(i, name);
	(void)close(cg->leaves[i].events_fd);
	(void)close(cg->leaves[i].dfd);
	(void)unlinkat(cg->dfd, name, AT_REMOVEDIR);
	cg->leaves[i].made = false;
}

void sp_cgroup_close(struct sp_cgroup *cg)
{
	if (cg->dfd < 0)
		return;
	for (unsigned i = 0; cg->leaves && i < SP_CHILDREN_MAX; i++) {
		if (cg->leaves[i].made)
			leaf_remove(cg, i);
	}
	sp_cgroup_empty(cg->dfd);
	(void)rmdir(cg->path);
	(void)close(cg->dfd);
	free(cg->leaves);
	*cg = (struct sp_cgroup)SP_CGROUP_INIT;
}

/* ---- leaves ---- */

static int leaf_make(struct sp_cgroup *cg, unsigned i, struct sp_err *err)
{
	struct sp_leaf *leaf = &cg->leaves[i];
	char name[32];

	leaf_name(i, name);
	if (mkdirat(cg->dfd, name, 0755) < 0 && errno != EEXIST)
		return sp_err_sys(err, "make %s/%s", cg->path, name);
	leaf->dfd = sp_fsx_open_dir(cg->dfd, name);
	if (leaf->dfd < 0)
		return sp_err_sys(err, "open %s/%s", cg->path, name);
	leaf->events_fd = openat(leaf->dfd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (leaf->events_fd < 0) {
		sp_err_sys(err, "open %s/%s/cgroup.events", cg->path, name);
		(void)close(leaf->dfd);
		return -1;
	}
	leaf->made = true;
	return 0;
}

int sp_leaf_take(struct sp_child *c, struct sp_cgroup *cg, struct sp_err *err)
{
	unsigned i = 0;

	while (i < SP_CHILDREN_MAX && cg->leaves[i].busy)
		i++;
	if (i == SP_CHILDREN_MAX)
		return sp_err_set(err, EAGAIN, "more than %d children at a time", SP_CHILDREN_MAX);
	if (!cg->leaves[i].made && leaf_make(cg, i, err) < 0)
		return -1;
	cg->leaves[i].busy = true;
	c->cg = cg;
	c->leaf_no = i;
	c->leaf_fd = cg->leaves[i].dfd;
	leaf_name(i, c->leaf);
	return 0;
}

int sp_cgroup_left(int dfd, int events_fd)
{
	struct sp_buf b = SP_BUF_INIT;
	char text[128];
	struct stat st;
	ssize_t n;
	int rc;

	do
		n = pread(events_fd, text, sizeof text - 1, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ENODEV ? 0 : -1;
	text[n] = '\0';
	if (!strstr(text, "populated 1"))
		return 0;
	/*
	 * Kernels may count a process here for a moment after its parent has reaped it, when nothing more will be heard
	 * of it; the list of processes no longer has it then.
	 */
	if (fstat(dfd, &st) < 0 || st.st_nlink > 2)
		return 1;
	rc = sp_fsx_read_file(dfd, "cgroup.procs", TABLE_BYTES_MAX, &b) < 0 ? (errno == EFBIG || errno == EOPNOTSUPP ? 1 : -1) : b.len > 0;
	sp_buf_done(&b);
	return rc;
}

int sp_leaf_left(const struct sp_child *c, struct sp_err *err)
{
	const struct sp_leaf *leaf = &c->cg->leaves[c->leaf_no];
	int rc = sp_cgroup_left(leaf->dfd, leaf->events_fd);

	return rc < 0 ? sp_err_sys(err, "read %s/%s", c->cg->path, c->leaf) : rc;
}

void sp_leaf_release(struct sp_child *c)
{
	struct sp_cgroup *cg = c->cg;
	struct stat st;

	if (c->leaf_fd < 0 || !cg || cg->dfd < 0)
		return;
	if (sp_leaf_left(c, NULL) != 0) {
		(void)sp_cgroup_kill(c->leaf_fd); /* I1: busy for good */
	} else {
		if (fstat(c->leaf_fd, &st) < 0 || st.st_nlink > 2)
			sp_cgroup_empty(c->leaf_fd);
		if (c->leaf_no >= LEAVES_KEPT)
			leaf_remove(cg, c->leaf_no);
		cg->leaves[c->leaf_no].busy = false;
	}
	c->leaf_fd = -1;
}

/* ---- any ---- */

int sp_cgroup_kill(int dfd)
{
	int fd = openat(dfd, "cgroup.kill", O_WRONLY | O_CLOEXEC), rc, code;

	if (fd < 0)
		return -1;
	rc = write(fd, "1", 1) == 1 ? 0 : -1;
	code = errno;
	(void)close(fd);
	errno = code;
	return rc;
}

static void empty(int dfd, int depth)
{
	int fd = openat(dfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((e = readdir(dir))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.' || unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) == 0)
			continue;
		fd = depth < DEPTH_MAX ? sp_fsx_open_dir(dirfd(dir), e->d_name) : -1;
		if (fd < 0)
			continue;
		empty(fd, depth + 1);
		(void)close(fd);
		(void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
	}
	(void)closedir(dir);
}

void sp_cgroup_empty(int dfd)
{
	empty(dfd, 0);
}

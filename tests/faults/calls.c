/* Counts the system calls of a process that change what is below a directory, and interferes at the n-th of them: the
 * process is killed before it, in the middle of a write, or the call fails. The tests load it by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL = -1, TORN = -2 };
static char below[4096];
static long first, seen;
static int action, lasting;

/* Sets the directory, the number of the call (from 1), what happens there (an errno, or KILL, TORN, COUNT), and
 * whether all later calls that need space fail too. */
void calls_arm(const char *directory, long number, int what, int all) {
  strncpy(below, directory, sizeof below - 1);
  first = number, action = what, lasting = all, seen = 0;
}

long calls_seen(void) { return seen; }

static int is_below(const char *path) {
  return below[0] && path && !strncmp(path, below, strlen(below));
}

static int fd_below(int fd) {
  char link[64], path[4096];
  if (!below[0] || fd < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int at_below(int directory, const char *path) {
  return path && (path[0] == '/' || directory == AT_FDCWD ? is_below(path) : fd_below(directory));
}

/* Whether the call fails. `space`: whether it needs space on the disk. */
static int interferes(int space) {
  long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (action == COUNT || number < first || (number > first && !(lasting && space && action > 0))) return 0;
  if (action < 0 && number == first) kill(getpid(), SIGKILL);
  errno = action;
  return 1;
}

static int torn(void) { return action == TORN && __atomic_load_n(&seen, __ATOMIC_SEQ_CST) + 1 == first; }

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPEN(name) int name(const char *path, int flags, ...) { \
  va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
  REAL(int, name, const char *, int, ...); \
  if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && is_below(path) && interferes(flags & O_CREAT)) return -1; \
  return real(path, flags, mode); }
OPEN(open)
OPEN(open64)

#define OPENAT(name) int name(int directory, const char *path, int flags, ...) { \
  va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
  REAL(int, name, int, const char *, int, ...); \
  if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && at_below(directory, path) && interferes(flags & O_CREAT)) return -1; \
  return real(directory, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (fd_below(fd)) {
    if (torn()) real(fd, data, size / 2);
    if (interferes(1)) return -1;
  }
  return real(fd, data, size);
}

#define PWRITE(name, offset) ssize_t name(int fd, const void *data, size_t size, offset at) { \
  REAL(ssize_t, name, int, const void *, size_t, offset); \
  if (fd_below(fd)) { if (torn()) real(fd, data, size / 2, at); if (interferes(1)) return -1; } \
  return real(fd, data, size, at); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  return fd_below(fd) && interferes(1) ? -1 : real(fd, parts, count);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
  return fd_below(out) && interferes(1) ? -1 : real(in, from, out, to, size, flags);
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) {
  REAL(ssize_t, sendfile, int, int, off_t *, size_t);
  return fd_below(out) && interferes(1) ? -1 : real(out, in, at, size);
}

int fsync(int fd) { REAL(int, fsync, int); return fd_below(fd) && interferes(0) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, fdatasync, int); return fd_below(fd) && interferes(0) ? -1 : real(fd); }
int ftruncate(int fd, off_t n) { REAL(int, ftruncate, int, off_t); return fd_below(fd) && interferes(1) ? -1 : real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(int, ftruncate64, int, off64_t); return fd_below(fd) && interferes(1) ? -1 : real(fd, n); }

int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  return is_below(path) && interferes(1) ? -1 : real(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t);
  return at_below(directory, path) && interferes(1) ? -1 : real(directory, path, mode);
}

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  return is_below(to) && interferes(0) ? -1 : real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
  REAL(int, renameat, int, const char *, int, const char *);
  return at_below(b, to) && interferes(0) ? -1 : real(a, from, b, to);
}

int unlink(const char *path) { REAL(int, unlink, const char *); return is_below(path) && interferes(0) ? -1 : real(path); }
int rmdir(const char *path) { REAL(int, rmdir, const char *); return is_below(path) && interferes(0) ? -1 : real(path); }

int unlinkat(int directory, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  return at_below(directory, path) && interferes(0) ? -1 : real(directory, path, flags);
}

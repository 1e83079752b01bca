/* Preloaded: the process that arms it is killed, or told of an error, at its Nth call that changes a file, a folder or a lock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KILL = 1, TEAR, ONCE, ALWAYS, SLOW };
enum { CREATE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, FOLDER = 32, TRUNCATE = 64, LOCK = 128, MODE = 256 };

static atomic_long calls;
static long at = -1;
static int action, error, kinds;

void faults_arm(long number, int what, int with, int of) {
    calls = 0;
    at = number;
    action = what;
    error = with;
    kinds = of;
}

long faults_calls(void) { return calls; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this call is the one, or one after it where all of those fail; a killed process does not come back from here. */
static int hit(int kind) {
    if (at < 0 || !(kinds & kind)) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (action == SLOW && number >= at) usleep(1000 * error); /* of a slow disk `error` says how slow: milliseconds a call */
    if (action == SLOW || number < at || (number > at && action != ALWAYS)) return 0;
    if (action == KILL || (action == TEAR && kind != WRITE)) die();
    errno = error;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define WRAP(name, kind, parameters, arguments) int name parameters { REAL(name); return hit(kind) ? -1 : real arguments; }
#define OPENS(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        return (flags & O_CREAT) && hit(CREATE) ? -1 : real arguments; \
    }
#define WRITES(name, parameters, arguments, half) \
    ssize_t name parameters { \
        REAL(name); \
        if (!hit(WRITE)) return real arguments; \
        if (action != TEAR) return -1; \
        real half; \
        die(); \
        return -1; \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENS(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to), (fd, data, size / 2, to))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to), (fd, data, size / 2, to))
WRITES(sendfile64, (int to, int from, off64_t *where, size_t size), (to, from, where, size), (to, from, where, size / 2))
WRITES(copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags),
       (from, a, to, b, size, flags), (from, a, to, b, size / 2, flags))
WRAP(fsync, SYNC, (int fd), (fd))
WRAP(fdatasync, SYNC, (int fd), (fd))
WRAP(rename, RENAME, (const char *from, const char *to), (from, to))
WRAP(renameat, RENAME, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(unlink, REMOVE, (const char *path), (path))
WRAP(unlinkat, REMOVE, (int folder, const char *path, int flags), (folder, path, flags))
WRAP(rmdir, REMOVE, (const char *path), (path))
WRAP(mkdir, FOLDER, (const char *path, mode_t mode), (path, mode))
WRAP(mkdirat, FOLDER, (int folder, const char *path, mode_t mode), (folder, path, mode))
WRAP(ftruncate, TRUNCATE, (int fd, off_t size), (fd, size))
WRAP(ftruncate64, TRUNCATE, (int fd, off64_t size), (fd, size))
WRAP(flock, LOCK, (int fd, int how), (fd, how))
WRAP(fchmod, MODE, (int fd, mode_t mode), (fd, mode))
WRAP(chmod, MODE, (const char *path, mode_t mode), (path, mode))

/* What a power cut leaves: preloaded into a process, it copies a file to DURABLE/NAME whenever the process has synced it,
 * for files whose path begins with WATCHED. Whatever was written later is not in the copy. (The idea is LazyFS's.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void keep(int descriptor) {
    const char *watched = getenv("GFS_TESTS_WATCHED"), *durable = getenv("GFS_TESTS_DURABLE");
    char link[64], path[PATH_MAX], target[PATH_MAX], fresh[PATH_MAX], buffer[65536];
    if (!watched || !durable) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (strncmp(path, watched, strlen(watched)) != 0) return;
    const char *name = strrchr(path, '/') + 1;
    if (snprintf(target, sizeof target, "%s/%s", durable, name) >= (int)sizeof target) abort();
    if (snprintf(fresh, sizeof fresh, "%s/.%s.%ld", durable, name, syscall(SYS_gettid)) >= (int)sizeof fresh) abort();
    /* Not through the descriptor: closing another one of the file would drop SQLite's locks on it, so none is opened. */
    int out = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0) abort();
    for (off_t offset = 0; (length = pread(descriptor, buffer, sizeof buffer, offset)) > 0; offset += length)
        if (write(out, buffer, length) != length) abort();
    if (length < 0 || close(out) || rename(fresh, target)) abort();
}

static int synced(const char *name, int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(descriptor), error = errno;
    if (result == 0) keep(descriptor);
    errno = error;
    return result;
}

/* A name that is gone stays gone: SQLite ends its rollback journal, of before WAL mode, by removing it. */
int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    const char *watched = getenv("GFS_TESTS_WATCHED"), *durable = getenv("GFS_TESTS_DURABLE");
    int result = real(path), error = errno;
    if (result == 0 && watched && durable && strncmp(path, watched, strlen(watched)) == 0) {
        char target[PATH_MAX];
        if (snprintf(target, sizeof target, "%s/%s", durable, strrchr(path, '/') + 1) >= (int)sizeof target) abort();
        real(target);
    }
    errno = error;
    return result;
}

int fsync(int descriptor) { return synced("fsync", descriptor); }
int fdatasync(int descriptor) { return synced("fdatasync", descriptor); }

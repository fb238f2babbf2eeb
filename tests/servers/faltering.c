/* A file system that falters, to be preloaded: some calls for what lies below FALTERS_BELOW answer
 * EIO or ESTALE, drawn by the seed FALTERS_SEED at FALTERS_PERCENT. Of those that change a name half
 * are done all the same, as when a server's answer is lost. At the end the number of them goes to
 * the file FALTERS_TOLD. A sync never falters: what that says of lost bytes is no passing fault. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned long state, spoilt;
static const char *below;
static unsigned percent;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *seed = getenv("FALTERS_SEED"), *share = getenv("FALTERS_PERCENT");
    below = getenv("FALTERS_BELOW");
    state = seed ? strtoul(seed, NULL, 10) : 1;
    percent = share ? (unsigned)atoi(share) : 0;
}

__attribute__((destructor)) static void end(void) {
    const char *told = getenv("FALTERS_TOLD");
    FILE *file = told ? fopen(told, "w") : NULL;
    if (file) {
        fprintf(file, "%lu\n", spoilt);
        fclose(file);
    }
}

/* 0 where all is well, else the error. */
static int drawn(int directory, const char *path) {
    char link[64], place[PATH_MAX];
    ssize_t count = 0;
    if (!below || !percent) return 0;
    if (path == NULL || path[0] != '/') {
        if (directory == AT_FDCWD) return 0;
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        count = readlink(link, place, sizeof place - 1);
        if (count < 0) return 0;
        place[count] = 0;
        path = place;
    }
    if (strncmp(path, below, strlen(below)) != 0) return 0;
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    if ((state >> 33) % 100 >= percent) return 0;
    spoilt++;
    return (state >> 50) % 2 ? EIO : ESTALE;
}

static int is_done(void) { return (state >> 45) % 2; }

#define SPOIL(directory, path, value)            \
    do {                                         \
        int fault = drawn(directory, path);      \
        if (fault) { errno = fault; return value; } \
    } while (0)

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    SPOIL(AT_FDCWD, path, -1);
    return ((int (*)(const char *, int, mode_t))real("open64"))(path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    SPOIL(directory, path, -1);
    return ((int (*)(int, const char *, int, mode_t))real("openat64"))(directory, path, flags, mode);
}

int stat64(const char *path, struct stat64 *found) {
    SPOIL(AT_FDCWD, path, -1);
    return ((int (*)(const char *, struct stat64 *))real("stat64"))(path, found);
}

int lstat64(const char *path, struct stat64 *found) {
    SPOIL(AT_FDCWD, path, -1);
    return ((int (*)(const char *, struct stat64 *))real("lstat64"))(path, found);
}

int fstatat64(int directory, const char *path, struct stat64 *found, int flags) {
    SPOIL(directory, path, -1);
    return ((int (*)(int, const char *, struct stat64 *, int))real("fstatat64"))(
        directory, path, found, flags);
}

ssize_t read(int file, void *buffer, size_t count) {
    SPOIL(file, NULL, -1);
    return ((ssize_t (*)(int, void *, size_t))real("read"))(file, buffer, count);
}

ssize_t preadv64v2(int file, const struct iovec *into, int parts, off64_t offset, int flags) {
    SPOIL(file, NULL, -1);
    return ((ssize_t (*)(int, const struct iovec *, int, off64_t, int))real("preadv64v2"))(
        file, into, parts, offset, flags);
}

DIR *opendir(const char *path) {
    SPOIL(AT_FDCWD, path, NULL);
    return ((DIR * (*)(const char *)) real("opendir"))(path);
}

int mkdir(const char *path, mode_t mode) {
    int fault = drawn(AT_FDCWD, path);
    int made = fault && !is_done() ? -1 : ((int (*)(const char *, mode_t))real("mkdir"))(path, mode);
    if (fault) errno = fault;
    return fault ? -1 : made;
}

int unlink(const char *path) {
    int fault = drawn(AT_FDCWD, path);
    int gone = fault && !is_done() ? -1 : ((int (*)(const char *))real("unlink"))(path);
    if (fault) errno = fault;
    return fault ? -1 : gone;
}

int unlinkat(int directory, const char *path, int flags) {
    int fault = drawn(directory, path);
    int gone = fault && !is_done()
                   ? -1
                   : ((int (*)(int, const char *, int))real("unlinkat"))(directory, path, flags);
    if (fault) errno = fault;
    return fault ? -1 : gone;
}

int linkat(int from, const char *old, int to, const char *path, int flags) {
    int fault = drawn(to, path);
    int made = fault && !is_done() ? -1
                                   : ((int (*)(int, const char *, int, const char *, int))real(
                                         "linkat"))(from, old, to, path, flags);
    if (fault) errno = fault;
    return fault ? -1 : made;
}

int link(const char *old, const char *path) {
    return linkat(AT_FDCWD, old, AT_FDCWD, path, 0);
}

/* Whole directories. What sandboxes leave behind is hostile: modes that forbid, links that lead
   outside, paths longer than the system takes. So removing goes down and up by descriptors, never
   by a path, and follows no links. */
#include "sandboxd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int sd_make_parents(const char *path, mode_t mode)
{
    char *copy = sd_copy(path, strlen(path));
    char *slash = copy;
    int result = 0;
    while (result == 0 && (slash = strchr(slash + 1, '/')) != NULL) {
        *slash = 0;
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            result = -1;
        *slash = '/';
    }
    free(copy);
    return result;
}

int sd_make_directories(const char *path, mode_t mode)
{
    if (sd_make_parents(path, mode) < 0)
        return -1;
    return mkdir(path, mode) < 0 && errno != EEXIST ? -1 : 0;
}

int sd_write_file(const char *path, const char *text)
{
    size_t len = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    ssize_t n;
    if (fd < 0)
        return -1;
    n = write(fd, text, len);
    if (close(fd) < 0 || n < 0)
        return -1;
    if ((size_t)n < len) {
        errno = ENOSPC;
        return -1;
    }
    return 0;
}

/* Opens a directory for removing what is in it, whatever its mode is. */
static int open_inside(int parent, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
        fd = openat(parent, name, flags);
    if (fd >= 0)
        (void)fchmod(fd, 0700);
    return fd;
}

/* Removes what is in the directory but for directories that are not empty. Gives the name of one of
   those, or "" if the directory is empty now; -1 if neither works. */
static int empty(int fd, char name[256])
{
    int copy = dup(fd), result = 0;
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    name[0] = 0;
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    rewinddir(dir);
    while (!name[0] && result == 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) == 0 || unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0 ||
            errno == ENOENT)
            continue;
        if (errno == ENOTEMPTY || errno == EEXIST || errno == EACCES)
            snprintf(name, 256, "%s", entry->d_name);
        else
            result = -1;
    }
    closedir(dir);
    return result;
}

int sd_remove_tree(const char *path)
{
    char name[256];
    int top = open_inside(AT_FDCWD, path), at, inner;
    struct stat top_stat, at_stat;
    if (top < 0)
        return unlink(path) < 0 && errno != ENOENT ? -1 : 0;
    at = dup(top);
    while (at >= 0 && empty(at, name) == 0) {
        if (name[0]) {
            inner = open_inside(at, name);
        } else if (fstat(top, &top_stat) == 0 && fstat(at, &at_stat) == 0 &&
                   top_stat.st_ino == at_stat.st_ino && top_stat.st_dev == at_stat.st_dev) {
            break;
        } else {
            inner = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        close(at);
        at = inner;
    }
    if (at >= 0)
        close(at);
    close(top);
    return rmdir(path);
}

/* What outlives the control process: one small file for each resource.

   A file is written under a temporary name, flushed, given its name, and then the directory is
   flushed: whenever the process or the machine stops, either the old file is there or the new one,
   whole, and from the return of sd_store_put on the new one. */
#include "sandboxd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_ending[] = ".json", temporary_ending[] = ".new";

int sd_is_id(const char *name, const char *ending)
{
    static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i;
    for (i = 0; pattern[i]; i++)
        if (pattern[i] == '-' ? name[i] != '-' : !name[i] || !strchr("0123456789abcdef", name[i]))
            return 0;
    return strcmp(name + i, ending) == 0;
}

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int open_directory(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Writes the file in the directory. 0 or an errno. */
static int write_new(int directory, const char *name, const char *text, size_t len)
{
    int error = 0;
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    if (write_all(fd, text, len) < 0 || fsync(fd) < 0)
        error = errno;
    if (close(fd) < 0 && !error)
        error = errno;
    return error;
}

int sd_store_put(const char *directory, const char *id, const char *text, size_t len)
{
    char name[64], temporary[64];
    int error, parent = open_directory(directory);
    if (parent < 0)
        return errno;
    snprintf(name, sizeof(name), "%s%s", id, file_ending);
    snprintf(temporary, sizeof(temporary), "%s%s", id, temporary_ending);
    error = write_new(parent, temporary, text, len);
    if (!error && renameat(parent, temporary, parent, name) < 0)
        error = errno;
    if (error)
        (void)unlinkat(parent, temporary, 0);
    else if (fsync(parent) < 0)
        error = errno;
    close(parent);
    return error;
}

int sd_store_remove(const char *directory, const char *id)
{
    char name[64];
    int error = 0, parent = open_directory(directory);
    if (parent < 0)
        return errno;
    snprintf(name, sizeof(name), "%s%s", id, file_ending);
    if ((unlinkat(parent, name, 0) < 0 && errno != ENOENT) || fsync(parent) < 0)
        error = errno;
    close(parent);
    return error;
}

/* ---- reading ---- */

/* The document in the file; NULL: *problem says why. */
static sd_document *read_file(int directory, const char *name, const char **problem)
{
    /* What waits there may be a pipe: that would be waited for without the flag. */
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    sd_document *document = NULL;
    struct stat st;
    char *text;
    ssize_t n;
    if (fd < 0) {
        *problem = strerror(errno);
        return NULL;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        *problem = "it is no file";
    } else if (st.st_size > SD_MAX_JSON_BODY) {
        *problem = "it is too large";
    } else {
        text = (char *)sd_alloc((size_t)st.st_size);
        n = read(fd, text, (size_t)st.st_size);
        if (n == (ssize_t)st.st_size)
            document = sd_json_parse(text, (size_t)n, problem);
        else
            *problem = n < 0 ? strerror(errno) : "it is cut short";
        free(text);
    }
    close(fd);
    return document;
}

typedef struct reading {
    const char *path;
    char *(*take)(void *user, const char *id, const sd_json *document);
    void *user;
} reading;

static void load_file(const reading *r, int directory, const char *name)
{
    const char *problem = "it is not named like one of ours";
    sd_document *document = NULL;
    char *wrong = NULL, id[37];
    if (sd_is_id(name, file_ending) && (document = read_file(directory, name, &problem)) != NULL) {
        memcpy(id, name, 36);
        id[36] = 0;
        problem = wrong = r->take(r->user, id, sd_json_root(document));
    }
    if (problem)
        sd_log("%s/%s is ignored: %s", r->path, name, problem);
    free(wrong);
    sd_json_free(document);
}

int sd_store_load(const char *directory,
                  char *(*take)(void *user, const char *id, const sd_json *document), void *user)
{
    reading r = {directory, take, user};
    struct dirent **entries = NULL;
    struct stat st;
    int parent = open_directory(directory), error = 0, i;
    /* Sorted, so that of two files that exclude each other it is always the same that counts. */
    int count = parent < 0 ? -1 : scandir(directory, &entries, NULL, alphasort);
    if (count < 0)
        error = errno;
    for (i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (sd_is_id(name, temporary_ending))
            (void)unlinkat(parent, name, 0);
        else if (sd_is_id(name, file_ending) ||
                 fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            load_file(&r, parent, name);
        free(entries[i]);
    }
    free(entries);
    if (parent >= 0)
        close(parent);
    return error;
}

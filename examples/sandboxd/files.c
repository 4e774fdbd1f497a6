/* Data plane: files in and out, in constant memory.

   An upload goes to a temporary file beside its target and takes its place when it is complete, so
   that nobody ever sees half a file, and one that fails changes nothing. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file that the request names, or NULL when it was answered. */
static char *path_of(sd_conn *conn)
{
    sd_problems problems = {0};
    char *path = sd_query(conn, "path"), *full;
    if (path && *path == '/')
        return path;
    if (path && *path) {
        full = sd_text("%s/%s", sd_conn_agent(conn)->home, path);
        free(path);
        return full;
    }
    free(path);
    problems.where = "query";
    sd_problem_add(&problems, "path", NULL, "is required, as a path without NUL bytes");
    sd_reply_problems(conn, &problems);
    return NULL;
}

/* Answers a request that failed with errno; EINVAL stands for things that are no files. */
static void reply_errno(sd_conn *conn, const char *type, const char *path, int problem)
{
    int status = problem == EACCES || problem == EPERM || problem == EROFS ? 403 : 400;
    sd_error(conn, status, type, "%s: %s", path,
             problem == EINVAL ? "not a regular file" : strerror(problem));
}

/* ---- upload ---- */

typedef struct upload {
    char *path, *temporary;
    int fd;
    int problem; /* errno of the first failure */
    int in_file; /* in the part with the file */
    int files;   /* how many parts were that */
    int64_t written;
    mode_t mode;
    sbx_multipart parts;
    sbx_status status;
} upload;

static void end_upload(sd_conn *conn)
{
    upload *u = (upload *)conn->user;
    if (u->fd >= 0)
        close(u->fd);
    if (u->temporary)
        unlink(u->temporary);
    free(u->temporary);
    free(u->path);
    free(u);
}

/* Makes the temporary file. 0 or errno. */
static int begin_file(upload *u)
{
    struct stat st;
    char *resolved;
    u->mode = 0644;
    if (sd_make_parents(u->path, 0755) < 0)
        return errno;
    /* A link stays one: what it points at is replaced. */
    resolved = realpath(u->path, NULL);
    if (resolved) {
        free(u->path);
        u->path = resolved;
    }
    if (stat(u->path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return EISDIR;
        if (!S_ISREG(st.st_mode))
            return EINVAL;
        u->mode = st.st_mode & 0777;
    }
    if (u->path[strlen(u->path) - 1] == '/')
        return EISDIR;
    u->temporary =
        sd_text("%.*s.upload-XXXXXX", (int)(strrchr(u->path, '/') + 1 - u->path), u->path);
    u->fd = mkostemp(u->temporary, O_CLOEXEC);
    if (u->fd >= 0)
        return 0;
    free(u->temporary);
    u->temporary = NULL;
    return errno;
}

static void write_file(upload *u, const char *data, size_t len)
{
    while (len > 0 && !u->problem) {
        ssize_t n = write(u->fd, data, len);
        if (n < 0 && errno != EINTR) {
            u->problem = errno;
        } else if (n > 0) {
            u->written += n;
            data += n;
            len -= (size_t)n;
        }
    }
}

/* After a failure the rest is read all the same: few clients look for an answer before they have
   sent everything. */
static void on_upload(sd_conn *conn, const char *data, size_t len)
{
    upload *u = (upload *)conn->user;
    sbx_multipart_event event;
    size_t used;
    while (u->status == SBX_OK || u->status == SBX_AGAIN) {
        u->status = sbx_multipart_read(&u->parts, data, len, &used, &event);
        data += used;
        len -= used;
        if (u->status != SBX_OK)
            break;
        if (event.type == SBX_MULTIPART_PART) {
            u->in_file = event.name_len == 4 && memcmp(event.name, "file", 4) == 0;
            u->files += u->in_file;
        } else if (event.type == SBX_MULTIPART_DATA && u->in_file && u->files == 1) {
            write_file(u, event.data, event.len);
        }
    }
}

static void write_uploaded(sbx_json_writer *w, const void *arg)
{
    const upload *u = (const upload *)arg;
    char *path = sd_quotable(u->path);
    sbx_json_begin_object(w);
    sbx_json_key(w, "path");
    sbx_json_string(w, path, strlen(path));
    sbx_json_key(w, "size");
    sbx_json_integer(w, u->written);
    sbx_json_end_object(w);
    free(path);
}

static void on_upload_end(sd_conn *conn)
{
    upload *u = (upload *)conn->user;
    sd_problems problems = {0};
    if (!u->problem && u->status != SBX_END) {
        const char *problem = u->parts.problem ? u->parts.problem : "it is cut short";
        sd_error(conn, 400, "BadRequest", "the multipart body is wrong: %s", problem);
        return;
    }
    if (!u->problem && u->files != 1) {
        sd_problem_add(&problems, "file", NULL,
                       u->files ? "must be there only once" : "is required");
        sd_reply_problems(conn, &problems);
        return;
    }
    if (!u->problem && fchmod(u->fd, u->mode) < 0)
        u->problem = errno;
    if (u->fd >= 0 && close(u->fd) < 0 && !u->problem)
        u->problem = errno;
    u->fd = -1;
    if (!u->problem && rename(u->temporary, u->path) < 0)
        u->problem = errno;
    if (u->problem) {
        reply_errno(conn, "WriteError", u->path, u->problem);
        return;
    }
    free(u->temporary);
    u->temporary = NULL;
    sd_reply_json(conn, 200, write_uploaded, u);
}

void sd_handle_upload(sd_conn *conn)
{
    const char *type = conn->headers[SD_CONTENT_TYPE];
    char *path = path_of(conn);
    upload *u;
    if (!path)
        return;
    u = (upload *)sd_alloc(sizeof(*u));
    u->path = path;
    u->fd = -1;
    conn->user = u;
    conn->release = end_upload;
    if (!type || sbx_multipart_init(&u->parts, type, strlen(type)) != SBX_OK) {
        sd_error(conn, 400, "BadRequest", "an upload is multipart/form-data with a boundary");
        return;
    }
    u->problem = begin_file(u);
    conn->on_body = on_upload;
    conn->on_body_end = on_upload_end;
}

/* ---- download ---- */

typedef struct download {
    int fd;
    int64_t left; /* SBX_NONE: until the end of the file */
} download;

static void end_download(sd_conn *conn)
{
    download *d = (download *)conn->user;
    close(d->fd);
    free(d);
}

/* Sends as long as the client keeps up. A file that got shorter cannot be sent any more as
   promised: closing the connection is all that is left to say so. */
static void send_more(sd_conn *conn)
{
    static char buffer[4 * SD_CHUNK];
    download *d = (download *)conn->user;
    while (!sd_lost(conn) && sd_pending(conn) == 0) {
        size_t want = sizeof(buffer);
        ssize_t n = 0;
        if (d->left >= 0 && (uint64_t)d->left < want)
            want = (size_t)d->left;
        if (want > 0)
            n = read(d->fd, buffer, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            conn->on_drain = NULL;
            if (n < 0 || d->left > 0)
                sd_drop(conn);
            else
                sd_reply_end(conn);
            return;
        }
        if (d->left > 0)
            d->left -= n;
        sd_send_body(conn, buffer, (size_t)n);
    }
}

static void send_bytes(sd_conn *conn, int status, const char *headers, int64_t length)
{
    sd_reply_start(conn, status, "application/octet-stream", headers, length);
    if (conn->no_body) {
        sd_reply_end(conn);
    } else {
        conn->on_drain = send_more;
        send_more(conn);
    }
}

/* Files of /proc say that they are empty, although there is something to read. */
static int64_t size_of(int fd, const struct stat *st)
{
    char byte;
    return st->st_size == 0 && pread(fd, &byte, 1, 0) > 0 ? SBX_NONE : st->st_size;
}

/* Moves *at behind a number, which is as large as can be if it is larger. 0 if there is none. */
static int take_number(const char **at, int64_t *number)
{
    const char *start = *at;
    for (*number = 0; **at >= '0' && **at <= '9'; ++*at)
        *number = *number > INT64_MAX / 10 - 1 ? INT64_MAX / 10 : *number * 10 + (**at - '0');
    return *at > start;
}

/* The bytes that a Range header asks for: 1, and where they start and how many there are; -1: there
   are no such bytes; 0: all, also where it asks for several parts or cannot be understood. */
static int find_range(const char *header, int64_t size, int64_t *start, int64_t *count)
{
    const char *at = header + strlen("bytes=");
    int64_t last = size - 1;
    if (strncmp(header, "bytes=", strlen("bytes=")) != 0)
        return 0;
    if (*at == '-') { /* the last bytes */
        at++;
        if (!take_number(&at, count) || *at)
            return 0;
        if (*count > size)
            *count = size;
        *start = size - *count;
        return *count > 0 ? 1 : -1;
    }
    if (!take_number(&at, start) || *at++ != '-')
        return 0;
    if (*at && (!take_number(&at, &last) || *at || last < *start))
        return 0;
    *count = (last < size ? last + 1 : size) - *start;
    return *count > 0 ? 1 : -1;
}

/* Sends the file, or the part of it that the request wants. The tag tells a client whether it is
   still the same file with the same content. */
static void send_file(sd_conn *conn, download *d, const struct stat *st)
{
    const char *range = conn->headers[SD_RANGE], *if_range = conn->headers[SD_IF_RANGE],
               *known = conn->headers[SD_IF_NONE_MATCH];
    char tag[80], date[64], part[80] = "", headers[320];
    int64_t start = 0, count = 0;
    int status = 200, wanted = 0;
    struct tm tm;
    snprintf(tag, sizeof(tag), "\"%llx-%llx-%llx.%lx\"", (unsigned long long)st->st_ino,
             (unsigned long long)st->st_size, (unsigned long long)st->st_mtim.tv_sec,
             (unsigned long)st->st_mtim.tv_nsec);
    gmtime_r(&st->st_mtim.tv_sec, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (known && (strcmp(known, "*") == 0 || strstr(known, tag)))
        status = 304;
    else if (range && !conn->no_body && (!if_range || strcmp(if_range, tag) == 0))
        wanted = find_range(range, d->left, &start, &count);
    if (wanted > 0)
        snprintf(part, sizeof(part), "Content-Range: bytes %lld-%lld/%lld\r\n", (long long)start,
                 (long long)(start + count - 1), (long long)d->left);
    else if (wanted < 0)
        snprintf(part, sizeof(part), "Content-Range: bytes */%lld\r\n", (long long)d->left);
    snprintf(headers, sizeof(headers),
             "ETag: %s\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n%s", tag, date, part);
    if (status == 304) {
        sd_reply(conn, 304, NULL, headers, "", 0);
        return;
    }
    if (wanted < 0 || (wanted > 0 && lseek(d->fd, start, SEEK_SET) < 0)) {
        static const char text[] = "the range starts behind the end of the file\n";
        sd_reply(conn, 416, "text/plain", headers, text, sizeof(text) - 1);
        return;
    }
    if (wanted > 0) {
        status = 206;
        d->left = count;
    }
    send_bytes(conn, status, headers, d->left);
}

void sd_handle_download(sd_conn *conn)
{
    char *path = path_of(conn);
    struct stat st;
    download *d;
    int fd, problem = 0;
    if (!path)
        return;
    /* Non-blocking, because opening a FIFO would wait for its other end. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        problem = errno;
    else if (S_ISDIR(st.st_mode))
        problem = EISDIR;
    else if (!S_ISREG(st.st_mode))
        problem = EINVAL;
    if (problem) {
        if (problem == ENOENT || problem == ENOTDIR)
            sd_error(conn, 404, "FileNotFound", "File not found: %s", path);
        else
            reply_errno(conn, "ReadError", path, problem);
        if (fd >= 0)
            close(fd);
    } else {
        d = (download *)sd_alloc(sizeof(*d));
        d->fd = fd;
        d->left = size_of(fd, &st);
        conn->user = d;
        conn->release = end_download;
        if (d->left >= 0)
            send_file(conn, d, &st);
        else
            send_bytes(conn, 200, NULL, d->left);
    }
    free(path);
}

/* What a sandbox sees: a root directory of its own, which it may write to, with system directories
   of the host or of an image mounted read-only into it.

   Of the host that is /usr and what belongs to it, and a few files of /etc that programs need and
   that hold no secrets. Nothing is ever mounted through a symbolic link of an image: a link is made
   again in the sandbox, where it can only lead to what the sandbox has.

   Directories of ours, such as volumes, are mounted on top, to be written to. The way to such a
   mount point leads through no symbolic link either: a path that has one is refused. */
#include "sandboxd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct work {
    const char *root, *image, *seen;
    uid_t owner;
    sd_words *bwrap;
    int refused; /* a mount point cannot be where it shall be, however often that is tried */
} work;

void sd_words_add(sd_words *words, char *word)
{
    words->items = (char **)sd_grow(words->items, (words->count + 2) * sizeof(*words->items));
    words->items[words->count++] = word;
    words->items[words->count] = NULL;
}

void sd_words_free(sd_words *words)
{
    size_t i;
    for (i = 0; i < words->count; i++)
        free(words->items[i]);
    free(words->items);
}

static void bind_read_only(const work *w, const char *option, const char *base, const char *path)
{
    sd_words_add(w->bwrap, sd_text("%s", option));
    sd_words_add(w->bwrap, sd_text("%s/%s", base, path));
    sd_words_add(w->bwrap, sd_text("/%s", path));
}

/* ---- what is made ---- */

static int own(const work *w, const char *path)
{
    return w->owner == (uid_t)-1 ? 0 : lchown(path, w->owner, (gid_t)w->owner);
}

static int make_directory(const work *w, const char *name, mode_t mode)
{
    char *path = sd_text("%s/%s", w->root, name);
    int result = mkdir(path, mode);
    if (result == 0)
        result = chmod(path, mode); /* whatever the umask is */
    if (result == 0)
        result = own(w, path);
    free(path);
    return result;
}

static int make_file(const work *w, const char *name, const char *text)
{
    char *path = sd_text("%s/%s", w->root, name);
    int result = sd_write_file(path, text);
    if (result == 0)
        result = own(w, path);
    free(path);
    return result;
}

static int make_link(const work *w, const char *name, const char *target)
{
    char *path = sd_text("%s/%s", w->root, name);
    int result = symlink(target, path);
    if (result == 0)
        result = own(w, path);
    free(path);
    return result;
}

static int is_made_here(const char *name)
{
    static const char *const names[] = {
        "etc/passwd", "etc/group",  "etc/hosts",   "etc/hostname", "etc/resolv.conf",
        "etc/mtab",   "etc/shadow", "etc/gshadow", "var/tmp",      "var/run",
        "var/lock",   "proc",       "dev",         "sys",          "tmp",
        "run",        "home",       "root",        "boot",         "lost+found",
        ".dockerenv",
    };
    size_t i;
    for (i = 0; i < SD_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0)
            return 1;
    return 0;
}

/* The start of a file of the image, or "". To be freed. */
static char *image_file(const work *w, const char *name)
{
    char *path = sd_text("%s/%s", w->image ? w->image : "", name), *text;
    int fd = w->image ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    ssize_t n = 0;
    free(path);
    text = (char *)sd_alloc(65536);
    if (fd >= 0) {
        n = read(fd, text, 65535);
        close(fd);
    }
    text[n > 0 ? n : 0] = 0;
    return text;
}

static int make_accounts(const work *w)
{
    char *passwd = image_file(w, "etc/passwd"), *group = image_file(w, "etc/group");
    char *users = sd_text("user:x:1000:1000:user:/home/user:/bin/bash\n%s",
                          *passwd ? passwd
                                  : "root:x:0:0:root:/root:/usr/sbin/nologin\n"
                                    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
    char *groups = sd_text("user:x:1000:\n%s", *group ? group : "root:x:0:\nnogroup:x:65534:\n");
    int result = make_file(w, "etc/passwd", users);
    if (result == 0)
        result = make_file(w, "etc/group", groups);
    free(passwd);
    free(group);
    free(users);
    free(groups);
    return result;
}

static int make_own(const work *w)
{
    static const struct {
        const char *name;
        mode_t mode;
    } directories[] = {
        {"etc", 0755},
        {"home", 0755},
        {"home/user", 0755},
        {"home/user/.local", 0755},
        {"home/user/.local/bin", 0755},
        {"root", 0755},
        {"run", 0755},
        {"tmp", 01777},
        {"var", 0755},
        {"var/tmp", 01777},
        {"proc", 0755},
        {"dev", 0755},
    };
    size_t i;
    for (i = 0; i < SD_COUNT(directories); i++)
        if (make_directory(w, directories[i].name, directories[i].mode) < 0)
            return -1;
    if (make_accounts(w) < 0 || make_link(w, "var/run", "/run") < 0 ||
        make_file(w, "etc/hostname", "sandbox\n") < 0 ||
        make_file(w, "etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n") < 0 ||
        make_file(w, "etc/resolv.conf", "# There is no network.\n") < 0)
        return -1;
    return 0;
}

/* ---- what is mounted ---- */

static int mount_host(const work *w)
{
    static const char *const system[] = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"};
    static const char *const settings[] = {
        "etc/alternatives", "etc/ca-certificates", "etc/fonts",           "etc/ld.so.cache",
        "etc/ld.so.conf",   "etc/ld.so.conf.d",    "etc/localtime",       "etc/magic",
        "etc/mime.types",   "etc/pki/ca-trust",    "etc/pki/tls/certs",   "etc/protocols",
        "etc/services",     "etc/ssl/certs",       "etc/ssl/openssl.cnf", "etc/terminfo",
    };
    char target[1024];
    size_t i;
    for (i = 0; i < SD_COUNT(system); i++) {
        char *path = sd_text("/%s", system[i]);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        free(path);
        if (n > 0) {
            target[n] = 0;
            if (make_link(w, system[i], target) < 0)
                return -1;
        } else {
            bind_read_only(w, "--ro-bind-try", "", system[i]);
        }
    }
    for (i = 0; i < SD_COUNT(settings); i++)
        bind_read_only(w, "--ro-bind-try", "", settings[i]);
    /* Images for Python have "python"; hosts often only have this. */
    if (access("/usr/bin/python", F_OK) < 0 && access("/usr/bin/python3", X_OK) == 0)
        return make_link(w, "home/user/.local/bin/python", "/usr/bin/python3");
    return 0;
}

static int mount_image_directory(const work *w, const char *below);

static int mount_image_entry(const work *w, const char *name)
{
    char *path = sd_text("%s/%s", w->image, name), target[1024];
    struct stat st;
    ssize_t n;
    int result = lstat(path, &st);
    if (result < 0 || is_made_here(name)) {
        free(path);
        return result;
    }
    if (S_ISLNK(st.st_mode)) {
        n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        result = n > 0 ? make_link(w, name, target) : -1;
    } else if (strcmp(name, "etc") == 0 || strcmp(name, "var") == 0) {
        result = mount_image_directory(w, name);
    } else if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) {
        bind_read_only(w, "--ro-bind", w->seen, name);
    }
    free(path);
    return result;
}

/* Mounts what is in the image, or in one of its directories. */
static int mount_image_directory(const work *w, const char *below)
{
    char *path = sd_text("%s/%s", w->image, below);
    DIR *dir = opendir(path);
    struct dirent *entry;
    int result = dir ? 0 : -1;
    free(path);
    while (result == 0 && (entry = readdir(dir)) != NULL) {
        char *name = sd_text("%s%s%s", below, *below ? "/" : "", entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = mount_image_entry(w, name);
        free(name);
    }
    if (dir)
        closedir(dir);
    return result;
}

int sd_root_make(const char *root, const char *image, const char *seen, uid_t owner,
                 sd_words *bwrap)
{
    work w;
    w.root = root;
    w.image = image;
    w.seen = seen;
    w.owner = owner;
    w.bwrap = bwrap;
    w.refused = 0;
    if (mkdir(root, 0755) < 0 || chmod(root, 0755) < 0 || own(&w, root) < 0 || make_own(&w) < 0)
        return -1;
    return image ? mount_image_directory(&w, "") : mount_host(&w);
}

/* ---- directories of ours ---- */

/* Whether bwrap mounts something read-only at exactly this path. */
static int is_mounted(const sd_words *bwrap, const char *path)
{
    size_t i;
    for (i = 0; i + 2 < bwrap->count; i++)
        if (strncmp(bwrap->items[i], "--ro-bind", 9) == 0 && strcmp(bwrap->items[i + 2], path) == 0)
            return 1;
    return 0;
}

/* Makes one part of the way to a mount point, if it is not there. below is where to look: the
   sandbox's root, or, from where something is mounted on, what that is. NULL or the problem. */
static char *step(work *w, const char *part, const char **below)
{
    struct stat st;
    char *path, *problem = NULL;
    int error;
    if (*below == w->root && is_mounted(w->bwrap, part)) {
        path = sd_text("%s%s", w->image ? w->image : "", part);
        if (lstat(path, &st) == 0) /* else there is nothing to be mounted */
            *below = w->image ? w->image : "";
        free(path);
    }
    path = sd_text("%s%s", *below, part);
    error = lstat(path, &st) < 0 ? errno : 0;
    free(path);
    if (error == ENOENT && *below == w->root)
        return make_directory(w, part + 1, 0755) < 0 ? sd_text("%s: %s", part, strerror(errno))
                                                     : NULL;
    if (error == ENOENT)
        problem = sd_text("%s does not exist and cannot be made, what is there is read-only", part);
    else if (error)
        return sd_text("%s: %s", part, strerror(error));
    else if (S_ISLNK(st.st_mode))
        problem = sd_text("%s is a symbolic link", part);
    else if (!S_ISDIR(st.st_mode))
        problem = sd_text("%s is no directory", part);
    w->refused = problem != NULL;
    return problem;
}

static char *make_mount_point(work *w, const char *path)
{
    char *part = sd_copy(path, strlen(path)), *end = part, *problem = NULL;
    const char *below = w->root;
    do {
        end = strchr(end + 1, '/');
        if (end)
            *end = 0;
        problem = step(w, part, &below);
        if (end)
            *end = '/';
    } while (end && !problem);
    free(part);
    return problem;
}

char *sd_root_mount(const char *root, const char *image, uid_t owner, const sd_mount *mounts,
                    size_t count, char *const *seen, sd_words *bwrap, int *refused)
{
    work w = {root, image, NULL, owner, bwrap, 0};
    char *why = NULL, *problem = NULL;
    size_t i;
    for (i = 0; i < count && !why; i++) {
        why = make_mount_point(&w, mounts[i].path);
        if (!why && own(&w, mounts[i].directory) < 0)
            why = sd_text("%s: %s", mounts[i].directory, strerror(errno));
        if (why)
            problem = sd_text("nothing can be mounted at %s: %s", mounts[i].path, why);
        sd_words_add(bwrap, sd_text("--bind"));
        sd_words_add(bwrap, sd_text("%s", seen ? seen[i] : mounts[i].directory));
        sd_words_add(bwrap, sd_text("%s", mounts[i].path));
    }
    *refused = w.refused;
    free(why);
    return problem;
}

/* Control groups, of version 2 or 1, as far as we may use them.

   We make a group of our own below the one that we were started in, and in it one for each sandbox,
   for its commands alone: the agent and bubblewrap stay outside, so that a command that uses up what
   there is does not take the data plane with it. A command joins before it becomes one, by a
   descriptor that was opened here; what may be done by that is decided by who opened it.

   In version 2 controllers can be passed on to groups below only by a group that has no processes
   of its own. Where we are the only one in ours, we move into one below. Otherwise some group above
   may already pass them on, and let us make a group there.

   The name of our group tells whose it is: the process namespace, the process and when that was
   started. So groups of one that was killed are known, and removed at the next start. */
#include "sandboxd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    unsigned bit;
    const char *name;
    const char *files[2]; /* that set the limit, in version 1 and 2 */
} controllers[] = {
    {SD_GROUP_CPU, "cpu", {"cpu.cfs_quota_us", "cpu.max"}},
    {SD_GROUP_MEMORY, "memory", {"memory.limit_in_bytes", "memory.max"}},
    {SD_GROUP_PIDS, "pids", {"pids.max", "pids.max"}},
};

/* In version 2: where this process goes if it must not stay where it is. */
static const char our_leaf[] = "sandboxd";

/* ---- files ---- */

/* The start of a file; "" if it cannot be read. To be freed. */
static char *get(const char *directory, const char *file)
{
    enum { CAP = 65536 };
    char *path = sd_text("%s/%s", directory, file), *text = (char *)sd_alloc(CAP);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;
    free(path);
    while (fd >= 0 && len + 1 < CAP && (n = read(fd, text + len, CAP - 1 - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    text[len] = 0;
    return text;
}

static int put(const char *directory, const char *file, const char *text)
{
    char *path = sd_text("%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC), problem;
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));
    problem = errno;
    free(path);
    if (fd >= 0)
        close(fd);
    errno = problem;
    return n < 0 ? -1 : 0;
}

static int put_number(const char *directory, const char *file, unsigned long long number)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", number);
    return put(directory, file, text);
}

/* The controllers that a file names. */
static unsigned listed(const char *directory, const char *file)
{
    char *text = get(directory, file), *rest = text, *word;
    unsigned found = 0;
    size_t i;
    while ((word = strsep(&rest, " \n")) != NULL)
        for (i = 0; i < SD_COUNT(controllers); i++)
            if (strcmp(word, controllers[i].name) == 0)
                found |= controllers[i].bit;
    free(text);
    return found;
}

/* ---- names ---- */

/* When the process was started; 0: there is none. */
static unsigned long long start_time(int pid)
{
    char directory[32], *text, *after;
    unsigned long long time = 0;
    snprintf(directory, sizeof(directory), "/proc/%d", pid);
    text = get(directory, "stat");
    after = strrchr(text, ')'); /* the name before it may hold anything */
    if (!after || sscanf(after + 1,
                         " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                         "%*d %*d %llu",
                         &time) != 1)
        time = 0;
    free(text);
    return time;
}

static unsigned long long process_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) < 0 ? 0 : (unsigned long long)st.st_ino;
}

static char *our_name(void)
{
    return sd_text("sandboxd-%llu-%d-%llu", process_namespace(), (int)getpid(),
                   start_time((int)getpid()));
}

/* Whether a group is that of a sandboxd that is no more. */
static int is_stale(const char *name)
{
    unsigned long long space, started;
    int pid;
    return sscanf(name, "sandboxd-%llu-%d-%llu", &space, &pid, &started) == 3 &&
           space == process_namespace() && start_time(pid) != started;
}

/* ---- removing ---- */

static void kill_members(const char *directory)
{
    char *text, *rest, *line;
    if (put(directory, "cgroup.kill", "1") == 0)
        return;
    text = rest = get(directory, "cgroup.procs");
    while ((line = strsep(&rest, "\n")) != NULL) {
        int pid = atoi(line);
        if (pid > 0 && pid != getpid())
            kill(pid, SIGKILL);
    }
    free(text);
}

/* 1 when it is gone. */
static int remove_group(const char *directory)
{
    if (rmdir(directory) == 0 || errno == ENOENT)
        return 1;
    if (errno == EBUSY)
        kill_members(directory);
    return 0;
}

/* Removes a group with those in it; processes may need a moment to end. */
static void remove_stale(const char *directory)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int rounds;
    while (dir && (entry = readdir(dir)) != NULL) {
        char *path = sd_text("%s/%s", directory, entry->d_name);
        if (entry->d_name[0] != '.' && entry->d_type == DT_DIR) {
            /* Who is in the leaf is on its way out, or not ours. */
            if (strcmp(entry->d_name, our_leaf) == 0)
                (void)rmdir(path);
            else
                for (rounds = 0; rounds < 200 && !remove_group(path); rounds++)
                    usleep(10000);
        }
        free(path);
    }
    if (dir)
        closedir(dir);
    if (rmdir(directory) < 0 && errno != ENOENT)
        sd_log("the control group %s could not be removed: %s", directory, strerror(errno));
}

static void remove_all_stale(const char *base)
{
    DIR *dir = opendir(base);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        if (is_stale(entry->d_name)) {
            char *path = sd_text("%s/%s", base, entry->d_name);
            remove_stale(path);
            free(path);
        }
    if (dir)
        closedir(dir);
}

/* ---- one sandbox ---- */

static int set_cpu(const char *directory, int version, double cpus)
{
    /* The shortest time that the kernel takes is 1 ms, and the longest period 1 s. */
    const unsigned long long period = cpus < 0.01 ? 1000000 : 100000;
    const double quota = cpus * (double)period;
    char text[64];
    if (cpus <= 0 || cpus >= (double)sysconf(_SC_NPROCESSORS_ONLN))
        return 0;
    if (version == 2) {
        snprintf(text, sizeof(text), "%llu %llu", (unsigned long long)quota, period);
        return put(directory, "cpu.max", text);
    }
    if (put_number(directory, "cpu.cfs_period_us", period) < 0)
        return -1;
    /* More than a group above has is wrong, and needless: that one is in force anyway. */
    return put_number(directory, "cpu.cfs_quota_us", (unsigned long long)quota) < 0 &&
                   errno != EINVAL
               ? -1
               : 0;
}

static int set_memory(const char *directory, int version, double memory)
{
    const char *swap = version == 2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes";
    unsigned long long bytes;
    if (memory <= 0 || memory >= 4e18)
        return 0;
    bytes = (unsigned long long)memory;
    if (put_number(directory, version == 2 ? "memory.max" : "memory.limit_in_bytes", bytes) < 0)
        return -1;
    /* Not there where the kernel does not count swap. Version 1 sets the sum of both. */
    return put_number(directory, swap, version == 2 ? 0 : bytes) < 0 && errno != ENOENT ? -1 : 0;
}

static int set_limits(const char *directory, int version, unsigned bits, double cpus, double memory)
{
    if ((bits & SD_GROUP_CPU) && set_cpu(directory, version, cpus) < 0)
        return -1;
    if ((bits & SD_GROUP_MEMORY) && set_memory(directory, version, memory) < 0)
        return -1;
    return (bits & SD_GROUP_PIDS) ? put_number(directory, "pids.max", SD_MAX_PROCESSES) : 0;
}

static char *group_path(const sd_groups *groups, size_t i, const char *name)
{
    return sd_text("%s/%s", groups->at[i].directory, name);
}

char *sd_groups_make(const sd_groups *groups, const char *name, double cpus, double memory,
                     int fds[SD_MAX_GROUPS])
{
    char *problem = NULL, *path, *members;
    size_t i;
    for (i = 0; i < SD_MAX_GROUPS; i++)
        fds[i] = -1;
    for (i = 0; i < groups->count && !problem; i++) {
        path = group_path(groups, i, name);
        members = sd_text("%s/cgroup.procs", path);
        if (mkdir(path, 0755) < 0 ||
            set_limits(path, groups->version, groups->at[i].controllers, cpus, memory) < 0 ||
            (fds[i] = open(members, O_WRONLY | O_CLOEXEC)) < 0)
            problem = sd_text("its limits could not be set in %s: %s", path, strerror(errno));
        free(members);
        free(path);
    }
    if (problem) {
        sd_groups_close(fds);
        (void)sd_groups_remove(groups, name);
    }
    return problem;
}

void sd_groups_close(int fds[SD_MAX_GROUPS])
{
    size_t i;
    for (i = 0; i < SD_MAX_GROUPS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

int sd_groups_remove(const sd_groups *groups, const char *name)
{
    int gone = 1;
    size_t i;
    for (i = 0; i < groups->count; i++) {
        char *path = group_path(groups, i, name);
        gone &= remove_group(path);
        free(path);
    }
    return gone;
}

/* ---- where they are ---- */

/* The part of a line of /proc/self/cgroup, "number:controllers:path", that is the path of our
   group: for a controller, or, NULL, in version 2. To be freed; NULL: there is none. */
static char *own_path(const char *controller)
{
    char *text = get("/proc/self", "cgroup"), *rest = text, *line, *found = NULL;
    while (!found && (line = strsep(&rest, "\n")) != NULL) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL, *name;
        if (!path)
            continue;
        *names++ = 0;
        *path++ = 0;
        if (!controller && *names == 0 && strcmp(line, "0") == 0)
            found = sd_copy(path, strlen(path));
        while (controller && !found && (name = strsep(&names, ",")) != NULL)
            if (strcmp(name, controller) == 0)
                found = sd_copy(path, strlen(path));
    }
    free(text);
    return found;
}

static int has_option(char *options, const char *name)
{
    char *option;
    while ((option = strsep(&options, ",")) != NULL)
        if (strcmp(option, name) == 0)
            return 1;
    return 0;
}

/* A line of /proc/self/mountinfo: "id parent device root point options .. - type source options". If
   it is the hierarchy looked for, the path of our group in it, to be freed. */
static char *match_mount(char *line, const char *controller, const char *own, char **top)
{
    char *fields[5], *after = strstr(line, " - "), *type, *options;
    size_t i, len;
    for (i = 0; i < 5; i++)
        if ((fields[i] = strsep(&line, " ")) == NULL)
            return NULL;
    if (!after)
        return NULL;
    after += 3;
    type = strsep(&after, " ");
    (void)strsep(&after, " ");
    options = after;
    if (strcmp(type, controller ? "cgroup" : "cgroup2") != 0 || !options ||
        (controller && !has_option(options, controller)))
        return NULL;
    /* What is mounted may be a group itself, as some containers have it. */
    len = strcmp(fields[3], "/") == 0 ? 0 : strlen(fields[3]);
    if (strncmp(own, fields[3], len) != 0 || (own[len] != 0 && own[len] != '/'))
        return NULL;
    *top = sd_copy(fields[4], strlen(fields[4]));
    return sd_text("%s%s", fields[4], strcmp(own + len, "/") == 0 ? "" : own + len);
}

/* The directory of our group, and the top of its hierarchy. To be freed; NULL: none is mounted. */
static char *find_own(const char *controller, char **top)
{
    char *own = own_path(controller), *found = NULL, *line = NULL;
    FILE *mounts = own ? fopen("/proc/self/mountinfo", "re") : NULL;
    size_t cap = 0;
    *top = NULL;
    while (mounts && !found && getline(&line, &cap, mounts) > 0) {
        line[strcspn(line, "\n")] = 0;
        found = match_mount(line, controller, own, top);
    }
    if (mounts)
        fclose(mounts);
    free(line);
    free(own);
    return found;
}

/* ---- finding out what works ---- */

/* Whether a process such as a command, another user in other namespaces, can join by the
   descriptors. 0, or what is wrong. */
static int try_to_join(uid_t user, const int fds[SD_MAX_GROUPS])
{
    int status = 0, i;
    pid_t pid = fork();
    if (pid == 0) {
        if (user && (setresgid((gid_t)user, (gid_t)user, (gid_t)user) < 0 ||
                     setresuid(user, user, user) < 0))
            _exit(errno);
        (void)unshare(CLONE_NEWUSER | CLONE_NEWCGROUP);
        for (i = 0; i < SD_MAX_GROUPS; i++)
            if (fds[i] >= 0 && write(fds[i], "0", 1) < 0)
                _exit(errno);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return pid < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

/* Makes a group with limits, and a process in it, for a trial. 0 or -1; then why says more. */
static int try(sd_groups *groups, uid_t user, char why[256])
{
    int fds[SD_MAX_GROUPS], problem, rounds = 0;
    char *said = sd_groups_make(groups, "trial", 0.5, 64 << 20, fds);
    if (said) {
        snprintf(why, 256, "%s", said);
        free(said);
        return -1;
    }
    problem = try_to_join(user, fds);
    sd_groups_close(fds);
    while (!sd_groups_remove(groups, "trial") && rounds++ < 100)
        usleep(1000);
    if (problem)
        snprintf(why, 256, "%s cannot be joined: %s", groups->at[0].directory, strerror(problem));
    return problem ? -1 : 0;
}

/* Which of the controllers can limit anything in our group. */
static unsigned usable(const char *directory, int version, unsigned bits)
{
    char *trial = sd_text("%s/trial", directory);
    unsigned found = 0;
    size_t i;
    if (mkdir(trial, 0755) == 0) {
        for (i = 0; i < SD_COUNT(controllers); i++) {
            char *path = sd_text("%s/%s", trial, controllers[i].files[version - 1]);
            if ((bits & controllers[i].bit) && access(path, W_OK) == 0)
                found |= controllers[i].bit;
            free(path);
        }
        (void)rmdir(trial);
    }
    free(trial);
    return found;
}

/* Makes our group below base. */
static struct sd_hierarchy *add(sd_groups *groups, const char *base, char why[256])
{
    struct sd_hierarchy *h = &groups->at[groups->count];
    char *name = our_name();
    remove_all_stale(base);
    h->base = sd_copy(base, strlen(base));
    h->directory = sd_text("%s/%s", base, name);
    h->controllers = 0;
    free(name);
    if (mkdir(h->directory, 0755) == 0) {
        groups->count++;
        return h;
    }
    snprintf(why, 256, "%s: %s", base, strerror(errno));
    free(h->base);
    free(h->directory);
    return NULL;
}

static void drop_last(sd_groups *groups)
{
    struct sd_hierarchy *h = &groups->at[--groups->count];
    if (rmdir(h->directory) < 0)
        sd_log("the control group %s could not be removed: %s", h->directory, strerror(errno));
    free(h->base);
    free(h->directory);
    memset(h, 0, sizeof(*h));
}

static void pass_on(const char *directory, char sign, unsigned bits)
{
    char text[16];
    size_t i;
    for (i = 0; i < SD_COUNT(controllers); i++)
        if (bits & controllers[i].bit) {
            snprintf(text, sizeof(text), "%c%s", sign, controllers[i].name);
            (void)put(directory, "cgroup.subtree_control", text);
        }
}

void sd_groups_release(sd_groups *groups)
{
    while (groups->count > 0) {
        struct sd_hierarchy *h = &groups->at[groups->count - 1];
        if (groups->version == 2) {
            pass_on(h->directory, '-', h->controllers);
            pass_on(h->base, '-', h->enabled);
        }
        if (h->moved) {
            char *leaf = sd_text("%s/%s", h->directory, our_leaf);
            if (put(h->base, "cgroup.procs", "0") < 0 || rmdir(leaf) < 0)
                sd_log("the control group %s could not be left: %s", leaf, strerror(errno));
            free(leaf);
        }
        drop_last(groups);
    }
    memset(groups, 0, sizeof(*groups));
}

/* Version 2: lets base pass the controllers on; own: it is the group that we are in. */
static void open_base(struct sd_hierarchy *h, int own, unsigned offered)
{
    unsigned before = listed(h->base, "cgroup.subtree_control");
    char *leaf;
    if (own && (offered & ~before)) {
        pass_on(h->base, '+', offered & ~before);
        if ((offered & ~listed(h->base, "cgroup.subtree_control")) != 0) {
            leaf = sd_text("%s/%s", h->directory, our_leaf);
            if (mkdir(leaf, 0755) == 0) {
                h->moved = put(leaf, "cgroup.procs", "0") == 0;
                pass_on(h->base, '+', offered & ~before);
                if (!h->moved)
                    (void)rmdir(leaf);
            }
            free(leaf);
        }
    }
    h->controllers = listed(h->base, "cgroup.subtree_control") & offered;
    h->enabled = h->controllers & ~before;
}

/* Version 2 with at least the controllers that are needed. 0 or -1. */
static int find_2(sd_groups *groups, unsigned needed, uid_t user, char why[256])
{
    char *top, *own = find_own(NULL, &top), *base = own ? sd_copy(own, strlen(own)) : NULL;
    int found = -1;
    while (base && found < 0) {
        unsigned offered = listed(base, "cgroup.controllers"), passed;
        int is_own = strcmp(base, own) == 0;
        struct sd_hierarchy *h = NULL;
        passed = is_own ? offered : listed(base, "cgroup.subtree_control");
        if ((passed & needed) == needed && (h = add(groups, base, why)) != NULL) {
            groups->version = 2;
            open_base(h, is_own, offered);
            pass_on(h->directory, '+', h->controllers);
            h->controllers = usable(h->directory, 2, h->controllers);
            if ((h->controllers & needed) != needed)
                snprintf(why, 256, "%s cannot pass them on: other processes are in it", base);
            else
                found = try(groups, user, why);
            if (found < 0)
                sd_groups_release(groups);
        }
        if (strlen(base) <= strlen(top))
            break;
        *strrchr(base, '/') = 0;
    }
    free(base);
    free(own);
    free(top);
    return found;
}

/* Version 1: every controller may have a hierarchy of its own. 0 or -1. */
static int find_1(sd_groups *groups, uid_t user, char why[256])
{
    size_t i, at;
    groups->version = 1;
    for (i = 0; i < SD_COUNT(controllers); i++) {
        char *top, *base = find_own(controllers[i].name, &top);
        struct sd_hierarchy *h = NULL;
        for (at = 0; base && at < groups->count; at++)
            if (strcmp(groups->at[at].base, base) == 0)
                h = &groups->at[at];
        if (base && !h)
            h = add(groups, base, why);
        if (h)
            h->controllers |= usable(h->directory, 1, controllers[i].bit);
        if (h && !h->controllers)
            drop_last(groups);
        free(base);
        free(top);
    }
    if (groups->count > 0 && try(groups, user, why) == 0)
        return 0;
    sd_groups_release(groups);
    return -1;
}

int sd_groups_find(sd_groups *groups, uid_t user, char why[256])
{
    static const unsigned needed[] = {SD_GROUP_CPU | SD_GROUP_MEMORY, SD_GROUP_MEMORY,
                                      SD_GROUP_CPU};
    size_t i;
    int found;
    snprintf(why, 256, "there are none with the controllers cpu and memory");
    memset(groups, 0, sizeof(*groups));
    found = find_2(groups, needed[0], user, why);
    if (found < 0)
        found = find_1(groups, user, why);
    for (i = 1; i < SD_COUNT(needed) && found < 0; i++)
        found = find_2(groups, needed[i], user, why);
    for (i = 0; i < groups->count; i++)
        groups->controllers |= groups->at[i].controllers;
    return found;
}

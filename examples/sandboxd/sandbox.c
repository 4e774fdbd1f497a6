/* The process of one sandbox: this program once more, as the agent, started by bubblewrap in user,
   mount, process, network, IPC, host name and control group namespaces of its own, without any
   capability.

   It ends with us, however we end: its channel closes, on which it exits, and as process 1 of its
   namespace it takes all others along. Bubblewrap ends when it does. (Its option --die-with-parent
   would be no help: it may end bubblewrap amid its preparations and leave half of it waiting for the
   other half for ever.)

   As root, sandboxes run as a user that owns nothing else. To the kernel they would still be root
   otherwise, capabilities or not: they could write to /proc/sys of the host and read all files in
   view. That user could not reach the directories that are to be mounted when they lie below one
   that is root's alone, so the child, while still root, mounts them in a mount namespace of its own
   where they can be reached. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STOP_MS = 2000, GROUP_MS = 5, GROUP_ATTEMPTS = 1000 };

/* ---- the child ---- */

/* What the child needs to know; nothing may be allocated there. */
typedef struct plan {
    const sd_isolation *isolation;
    char *const *argv;
    char *root, *staged_root, *staged_self, *staged_image; /* the last is NULL without an image */
    const char *image;
    const sd_mount *mounts;
    size_t mount_count;
    char **staged_mounts; /* NULL where nothing is staged */
    int *mount_fds;
    /* stderr, listener, channel, groups; where they are before they are put in place */
    int fds[3 + SD_MAX_GROUPS];
} plan;

static void give_up(const char *what) __attribute__((noreturn));
static void give_up(const char *what)
{
    dprintf(2, "%s: %s\n", what, strerror(errno));
    _exit(126);
}

static void place_descriptors(const plan *p)
{
    int high[SD_COUNT(p->fds)], count = 0, end, i, null;
    while (count < (int)SD_COUNT(p->fds) && p->fds[count] >= 0) {
        high[count] = fcntl(p->fds[count], F_DUPFD, 10);
        if (high[count++] < 0)
            _exit(126);
    }
    null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(high[0], 1) < 0 || dup2(high[0], 2) < 0)
        _exit(126);
    for (i = 1; i < count; i++)
        if (dup2(high[i], SD_FD_LISTEN + i - 1) < 0)
            _exit(126);
    end = SD_FD_LISTEN + count - 1;
#ifdef SYS_close_range
    syscall(SYS_close_range, (unsigned)end, ~0u, 0u);
#endif
    for (i = end; i < 64; i++) /* for kernels without it: most are closed on exec */
        close(i);
}

static void bind_from(int fd, const char *to)
{
    char from[32];
    snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
        give_up(to);
    close(fd);
}

static void open_mounts(const plan *p)
{
    size_t i;
    for (i = 0; i < p->mount_count; i++) {
        p->mount_fds[i] =
            open(p->mounts[i].directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (p->mount_fds[i] < 0)
            give_up(p->mounts[i].directory);
    }
}

/* As root: puts all that is to be mounted where the other user can see it, and becomes that
   user. */
static void become_other(const plan *p)
{
    uid_t user = p->isolation->user;
    int root, self, image = -1, file;
    size_t i;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        give_up("a mount namespace");
    root = open(p->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    self = open(p->isolation->self, O_PATH | O_CLOEXEC);
    if (p->image)
        image = open(p->image, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || self < 0 || (p->image && image < 0))
        give_up("the sandbox's directories");
    open_mounts(p);
    if (mount("tmpfs", p->isolation->stage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
        give_up(p->isolation->stage);
    file = open(p->staged_self, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 || mkdir(p->staged_root, 0755) < 0)
        give_up(p->isolation->stage);
    close(file);
    bind_from(root, p->staged_root);
    bind_from(self, p->staged_self);
    if (p->image) {
        if (mkdir(p->staged_image, 0755) < 0)
            give_up(p->staged_image);
        bind_from(image, p->staged_image);
    }
    for (i = 0; i < p->mount_count; i++) {
        if (mkdir(p->staged_mounts[i], 0755) < 0)
            give_up(p->staged_mounts[i]);
        bind_from(p->mount_fds[i], p->staged_mounts[i]);
    }
    if (setgroups(0, NULL) < 0 || setresgid((gid_t)user, (gid_t)user, (gid_t)user) < 0 ||
        setresuid(user, user, user) < 0)
        give_up("another user");
}

static void become_sandbox(const plan *p) __attribute__((noreturn));
static void become_sandbox(const plan *p)
{
    static char path[] = "PATH=/usr/local/bin:/usr/bin:/bin";
    char *env[2] = {path, NULL};
    place_descriptors(p);
    setsid(); /* Ctrl-C is for the control process alone */
    sd_clean_signals();
    umask(022);
    setrlimit(RLIMIT_NOFILE, &p->isolation->files);
    syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL); /* not the operator's keys */
    if (p->isolation->user)
        become_other(p);
    execve(p->argv[0], p->argv, env);
    give_up(p->argv[0]);
}

/* ---- the command line ---- */

static void add_all(sd_words *words, const char *const *list, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        sd_words_add(words, sd_text("%s", list[i]));
}

/* Where the child puts what is to be mounted, for the user that it becomes. */
static void plan_stage(plan *p)
{
    const char *stage = p->isolation->stage;
    size_t i;
    p->staged_root = sd_text("%s/root", stage);
    p->staged_self = sd_text("%s/self", stage);
    p->staged_image = sd_text("%s/image", stage);
    if (p->mount_count == 0)
        return;
    p->mount_fds = (int *)sd_alloc(p->mount_count * sizeof(*p->mount_fds));
    p->staged_mounts = (char **)sd_alloc(p->mount_count * sizeof(*p->staged_mounts));
    for (i = 0; i < p->mount_count; i++)
        p->staged_mounts[i] = sd_text("%s/mount-%zu", stage, i);
}

/* Without isolation: no more than a directory to work in. NULL or the problem. */
static char *prepare_plain(sd_sandbox *s, const char *argument, plan *p, sd_words *words)
{
    sd_words ignored = {NULL, 0};
    char *problem = NULL;
    if (s->mount_count > 0) {
        s->refused = 1;
        return sd_text("nothing can be mounted at %s: sandboxd runs with --no-isolation",
                       s->mounts[0].path);
    }
    if (sd_root_make(p->root, NULL, NULL, (uid_t)-1, &ignored) < 0)
        problem = sd_text("its directory could not be made: %s", strerror(errno));
    sd_words_free(&ignored);
    sd_words_add(words, sd_text("%s", s->isolation->self));
    sd_words_add(words, sd_text("%s", argument));
    return problem;
}

/* Makes the root directory and the command line that runs this program with the argument in it.
   NULL or the problem, to be freed. */
static char *prepare(sd_sandbox *s, const char *argument, plan *p, sd_words *words)
{
    static const char *const namespaces[] = {
        "--unshare-user",       "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-cgroup-try", "--uid",         "1000",          "--gid",         "1000",
        "--hostname",           "sandbox",

        "--new-session",        "--as-pid-1",    "--cap-drop",    "ALL",           "--bind",
    };
    static const char *const mounts[] = {"--proc", "/proc", "--dev", "/dev", "--chdir", "/"};
    const sd_isolation *isolation = s->isolation;
    const uid_t owner = isolation->user ? isolation->user : (uid_t)-1;
    char *problem = NULL;
    p->isolation = isolation;
    p->image = s->image;
    p->mounts = s->mounts;
    p->mount_count = s->mount_count;
    p->root = sd_text("%s/root", s->directory);
    if (isolation->none)
        return prepare_plain(s, argument, p, words);
    if (isolation->user)
        plan_stage(p);
    sd_words_add(words, sd_text("%s", isolation->bwrap));
    if (isolation->disable_userns)
        sd_words_add(words, sd_text("--disable-userns"));
    add_all(words, namespaces, SD_COUNT(namespaces));
    sd_words_add(words, sd_text("%s", p->staged_root ? p->staged_root : p->root));
    sd_words_add(words, sd_text("/"));
    if (sd_root_make(p->root, s->image, p->staged_image ? p->staged_image : s->image, owner,
                     words) < 0)
        problem = sd_text("its root could not be made%s%s: %s", s->image ? " from " : "",
                          s->image ? s->image : "", strerror(errno));
    if (!problem)
        problem = sd_root_mount(p->root, s->image, owner, s->mounts, s->mount_count,
                                p->staged_mounts, words, &s->refused);
    add_all(words, mounts, SD_COUNT(mounts));
    sd_words_add(words, sd_text("--ro-bind"));
    sd_words_add(words, sd_text("%s", p->staged_self ? p->staged_self : isolation->self));
    sd_words_add(words, sd_text("/.sandboxd"));
    sd_words_add(words, sd_text("/.sandboxd"));
    sd_words_add(words, sd_text("%s", argument));
    return problem;
}

static pid_t launch(plan *p, const sd_words *words, int errors, int listener, int channel,
                    const int groups[SD_MAX_GROUPS])
{
    sigset_t all, before;
    pid_t pid;
    p->argv = words->items;
    p->fds[0] = errors;
    p->fds[1] = listener;
    p->fds[2] = channel;
    memcpy(p->fds + 3, groups, SD_MAX_GROUPS * sizeof(*groups));
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        become_sandbox(p);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void free_plan(plan *p, sd_words *words)
{
    size_t i;
    for (i = 0; p->staged_mounts && i < p->mount_count; i++)
        free(p->staged_mounts[i]);
    free(p->staged_mounts);
    free(p->mount_fds);
    free(p->root);
    free(p->staged_root);
    free(p->staged_self);
    free(p->staged_image);
    sd_words_free(words);
}

/* ---- finding out what works ---- */

/* The path of a program, or NULL. To be freed. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH");
    if (!path || !*path)
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t len = strcspn(path, ":");
        char *file = sd_text("%.*s/%s", (int)len, path, name);
        if (*file == '/' && access(file, X_OK) == 0)
            return file;
        free(file);
        path += len + (path[len] == ':');
    }
    return NULL;
}

/* Runs "sandboxd --version" in a sandbox. 1 if that works; else said is what went wrong. */
static int works(const sd_isolation *isolation, const char *directory, char *said, size_t cap)
{
    const int none[SD_MAX_GROUPS] = {-1, -1, -1};
    char *trial = sd_text("%s/trial", directory), *problem = NULL;
    sd_words words = {NULL, 0};
    sd_sandbox s = {0};
    int fds[2] = {-1, -1}, status = -1;
    size_t len = 0;
    ssize_t n;
    pid_t pid = -1;
    plan p = {0};
    s.isolation = isolation;
    s.directory = trial;
    (void)sd_remove_tree(trial);
    if (mkdir(trial, 0755) == 0 && pipe2(fds, O_CLOEXEC) == 0 &&
        (problem = prepare(&s, "--version", &p, &words)) == NULL)
        pid = launch(&p, &words, fds[1], fds[1], fds[1], none);
    snprintf(said, cap, "%s", problem ? problem : strerror(errno));
    free(problem);
    if (fds[1] >= 0)
        close(fds[1]);
    while (pid > 0 && len + 1 < cap && (n = read(fds[0], said + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    if (len > 0) {
        said[len] = 0;
        said[strcspn(said, "\n")] = 0;
    }
    if (fds[0] >= 0)
        close(fds[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    free_plan(&p, &words);
    (void)sd_remove_tree(trial);
    free(trial);
    return pid > 0 && status == 0;
}

/* A directory that every user may enter, and below which nothing that we mount lies. */
static const char *find_stage(void)
{
    static const char *const candidates[] = {"/mnt", "/media", "/srv", "/opt", "/tmp"};
    struct stat st;
    size_t i;
    for (i = 0; i < SD_COUNT(candidates); i++)
        if (lstat(candidates[i], &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & S_IXOTH))
            return candidates[i];
    return NULL;
}

/* A user that nobody is: out of the range that systems hand out, or, in a container that does not
   have such users, the one that is meant to own nothing. 0: there is neither. */
static uid_t find_user(void)
{
    static const unsigned candidates[] = {0x70000000u, 65534u};
    unsigned first, outside, count;
    uid_t found = 0;
    size_t i;
    for (i = 0; i < SD_COUNT(candidates) && !found; i++) {
        FILE *map = fopen("/proc/self/uid_map", "re");
        while (map && fscanf(map, "%u %u %u", &first, &outside, &count) == 3)
            if (candidates[i] >= first && candidates[i] - first < count)
                found = candidates[i];
        if (map)
            fclose(map);
    }
    return found;
}

int sd_isolation_find(sd_isolation *isolation, const char *directory)
{
    char self[4096], said[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0) {
        sd_log("cannot find this program by /proc/self/exe: %s", strerror(errno));
        return -1;
    }
    isolation->self = sd_copy(self, (size_t)n);
    if (isolation->none) {
        sd_log("warning: --no-isolation: commands run as %s, with all that this user may do",
               getuid() == 0 ? "root" : "you");
        return 0;
    }
    isolation->bwrap = find_program("bwrap");
    if (!isolation->bwrap) {
        sd_log(
            "bubblewrap is not installed. Install it (Debian, Ubuntu: apt-get install bubblewrap), "
            "or run without isolation: sandboxd --no-isolation");
        return -1;
    }
    isolation->stage = find_stage();
    isolation->user = geteuid() == 0 ? find_user() : 0;
    if (geteuid() == 0 && (!isolation->user || !isolation->stage)) {
        sd_log(
            "as root it needs a second user for the sandboxes, and here is none: run it as another "
            "user, or without isolation: sandboxd --no-isolation");
        return -1;
    }
    for (isolation->disable_userns = 1; isolation->disable_userns >= 0; isolation->disable_userns--)
        if (works(isolation, directory, said, sizeof(said)))
            return 0;
    sd_log("bubblewrap cannot make a sandbox here: %s", said);
    sd_log("It needs unprivileged user namespaces. Look at the sysctls user.max_user_namespaces, "
           "kernel.unprivileged_userns_clone (Debian) and "
           "kernel.apparmor_restrict_unprivileged_userns "
           "(Ubuntu, must be 0), or run without isolation: sandboxd --no-isolation");
    return -1;
}

/* ---- the life of a sandbox ---- */

static sd_sandbox *sandboxes;

static void on_closed(uv_handle_t *handle)
{
    sd_sandbox *s = (sd_sandbox *)handle->data;
    if (--s->handles == 0)
        s->on_exit(s);
}

/* Its name in messages, and that of its control groups. */
static const char *name_of(const sd_sandbox *s)
{
    return strrchr(s->directory, '/') + 1;
}

/* Takes what the agent, or bubblewrap, wrote to stderr. */
static void take_words(sd_sandbox *s, const char *data, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (data[i] != '\n' && s->line_len + 1 < sizeof(s->line)) {
            s->line[s->line_len++] = (unsigned char)data[i] < 0x20 ? '?' : data[i];
        } else if (data[i] == '\n' && s->line_len > 0) {
            s->line[s->line_len] = 0;
            s->line_len = 0;
            memcpy(s->last_words, s->line, sizeof(s->line));
            sd_log("%s: %s", name_of(s), s->line);
        }
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char data[4096];
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(data, sizeof(data));
}

static void on_errors(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    if (n > 0)
        take_words((sd_sandbox *)stream->data, buffer->base, (size_t)n);
    else if (n < 0)
        uv_read_stop(stream);
}

static void on_channel(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    sd_sandbox *s = (sd_sandbox *)stream->data;
    if (n < 0) {
        uv_read_stop(stream);
    } else if (n > 0 && buffer->base[n - 1] == '\n' && !s->ready && !s->stopping) {
        s->ready = 1;
        s->on_ready(s);
    }
}

static void on_stop_timer(uv_timer_t *timer)
{
    sd_sandbox *s = (sd_sandbox *)timer->data;
    /* The group is bubblewrap and what it has become so far; the agent leaves the group, but ends when
       bubblewrap does. */
    if (s->pid > 0 && kill(-s->pid, SIGKILL) < 0)
        kill(s->pid, SIGKILL); /* it has not come to lead its group yet */
}

void sd_sandbox_stop(sd_sandbox *s)
{
    uv_os_fd_t fd;
    if (s->stopping)
        return;
    s->stopping = 1;
    if (s->pid <= 0)
        return;
    sd_groups_lift(&s->isolation->limits.groups, name_of(s));
    if (uv_fileno((uv_handle_t *)&s->channel, &fd) == 0)
        shutdown(fd, SHUT_RDWR);
    /* Until it is ready, it may be bubblewrap that still works. */
    uv_timer_start(&s->timer, on_stop_timer, s->ready ? STOP_MS : 0, 0);
}

/* Removes the groups, or tries that again soon: when bubblewrap was killed, the last processes may be
   about to end. */
static void leave_groups(uv_timer_t *timer)
{
    sd_sandbox *s = (sd_sandbox *)timer->data;
    int gone = sd_groups_remove(&s->isolation->limits.groups, name_of(s));
    if (!gone && ++s->attempts < GROUP_ATTEMPTS) {
        uv_timer_start(timer, leave_groups, GROUP_MS, 0);
        return;
    }
    if (!gone)
        sd_log("%s: its control group could not be removed", name_of(s));
    uv_close((uv_handle_t *)timer, on_closed);
}

/* 1 if the process has ended. With it goes what is left of its group: when bubblewrap is killed amid
   its preparations, one half of it would wait for the other for ever. That happens before the
   process is reaped, as long as no other can have its number. */
static int reap(const sd_sandbox *s)
{
    siginfo_t ended;
    ended.si_pid = 0;
    if (waitid(P_PID, (id_t)s->pid, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        ended.si_pid != s->pid)
        return 0;
    kill(-s->pid, SIGKILL);
    return waitpid(s->pid, NULL, WNOHANG) == s->pid;
}

void sd_sandbox_reap(void)
{
    sd_sandbox **link = &sandboxes, *s;
    while ((s = *link) != NULL) {
        char data[4096];
        uv_os_fd_t fd;
        ssize_t n;
        if (!reap(s)) {
            link = &s->next;
            continue;
        }
        s->pid = 0;
        *link = s->next;
        if (uv_fileno((uv_handle_t *)&s->errors, &fd) == 0)
            while ((n = read(fd, data, sizeof(data))) > 0)
                take_words(s, data, (size_t)n);
        uv_close((uv_handle_t *)&s->errors, on_closed);
        uv_close((uv_handle_t *)&s->channel, on_closed);
        leave_groups(&s->timer);
    }
}

void sd_sandbox_reload_all(void)
{
    char word[] = "reload\n";
    uv_buf_t buffer = uv_buf_init(word, sizeof(word) - 1);
    sd_sandbox *s;
    /* When the channel is full, there is such a word in it that was not read yet. */
    for (s = sandboxes; s; s = s->next)
        if (!s->stopping)
            (void)uv_try_write((uv_stream_t *)&s->channel, &buffer, 1);
}

/* Tells the agent what it has to know. */
static int instruct(const sd_sandbox *s, int channel)
{
    char key[2 * sizeof(s->key->hash) + 1], *text, *limits;
    size_t len;
    ssize_t n;
    limits = sd_limits_settings(&s->isolation->limits, s->cpus, s->memory, !s->isolation->none);
    sd_hex(key, s->key->hash, sizeof(s->key->hash));
    text = sd_text("home %s%s/home/user\n%s%s%s%s%s%sstart\n",
                   s->isolation->none ? s->directory : "", s->isolation->none ? "/root" : "",
                   s->isolation->none ? "" : "isolated\n", s->key->required ? "key " : "",
                   s->key->required ? key : "", s->key->required ? "\n" : "", limits,
                   s->isolation->settings ? s->isolation->settings : "");
    free(limits);
    len = strlen(text);
    n = write(channel, text, len);
    free(text);
    return n == (ssize_t)len ? 0 : -1;
}

static void watch(sd_sandbox *s, int errors, int channel)
{
    uv_timer_init(s->loop, &s->timer);
    uv_pipe_init(s->loop, &s->errors, 0);
    uv_pipe_init(s->loop, &s->channel, 0);
    s->timer.data = s->errors.data = s->channel.data = s;
    s->handles = 3;
    uv_pipe_open(&s->errors, errors);
    uv_pipe_open(&s->channel, channel);
    uv_read_start((uv_stream_t *)&s->errors, on_alloc, on_errors);
    uv_read_start((uv_stream_t *)&s->channel, on_alloc, on_channel);
    s->next = sandboxes;
    sandboxes = s;
}

char *sd_sandbox_start(sd_sandbox *s)
{
    const sd_groups *groups = &s->isolation->limits.groups;
    int errors[2] = {-1, -1}, channel[2] = {-1, -1}, members[SD_MAX_GROUPS], listener = -1, i;
    sd_words words = {NULL, 0};
    plan p = {0};
    char *problem = sd_groups_make(groups, name_of(s), s->cpus, s->memory, members);
    int grouped = problem == NULL;
    if (!problem)
        problem = prepare(s, "--agent", &p, &words);
    if (!problem && ((listener = sd_listen(0, &s->port)) < 0 || pipe2(errors, O_CLOEXEC) < 0 ||
                     socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0 ||
                     instruct(s, channel[0]) < 0 ||
                     (s->pid = launch(&p, &words, errors[1], listener, channel[1], members)) < 0))
        problem = sd_text("its process could not be started: %s", strerror(errno));
    if (!problem) {
        watch(s, errors[0], channel[0]);
        errors[0] = channel[0] = -1;
    } else {
        s->port = 0;
        if (grouped)
            (void)sd_groups_remove(groups, name_of(s));
    }
    sd_groups_close(members);
    for (i = 0; i < 2; i++) {
        if (errors[i] >= 0)
            close(errors[i]);
        if (channel[i] >= 0)
            close(channel[i]);
    }
    if (listener >= 0)
        close(listener);
    free_plan(&p, &words);
    return problem;
}

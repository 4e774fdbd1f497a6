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

enum { STOP_MS = 2000 };

/* ---- the child ---- */

/* What the child needs to know; nothing may be allocated there. */
typedef struct plan {
    const sd_isolation *isolation;
    char *const *argv;
    char *root, *staged_root, *staged_self, *staged_image; /* the last is NULL without an image */
    const char *image;
    int fds[3]; /* stderr, listener, channel; where they are before they are put in place */
} plan;

static void give_up(const char *what) __attribute__((noreturn));
static void give_up(const char *what)
{
    dprintf(2, "%s: %s\n", what, strerror(errno));
    _exit(126);
}

static void place_descriptors(const plan *p)
{
    int high[3], i, null;
    for (i = 0; i < 3; i++) {
        high[i] = fcntl(p->fds[i], F_DUPFD, 10);
        if (high[i] < 0)
            _exit(126);
    }
    null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(high[0], 1) < 0 || dup2(high[0], 2) < 0 ||
        dup2(high[1], SD_FD_LISTEN) < 0 || dup2(high[2], SD_FD_CHANNEL) < 0)
        _exit(126);
#ifdef SYS_close_range
    syscall(SYS_close_range, (unsigned)SD_FD_CHANNEL + 1, ~0u, 0u);
#endif
    for (i = SD_FD_CHANNEL + 1; i < 64; i++) /* for kernels without it: most are closed on exec */
        close(i);
}

static void clean_signals(void)
{
    struct sigaction action;
    sigset_t none;
    int number;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    for (number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void bind_from(int fd, const char *to)
{
    char from[32];
    snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
        give_up(to);
    close(fd);
}

/* As root: puts all that is to be mounted where the other user can see it, and becomes that
   user. */
static void become_other(const plan *p)
{
    uid_t user = p->isolation->user;
    int root, self, image = -1, file;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        give_up("a mount namespace");
    root = open(p->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    self = open(p->isolation->self, O_PATH | O_CLOEXEC);
    if (p->image)
        image = open(p->image, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || self < 0 || (p->image && image < 0))
        give_up("the sandbox's directories");
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
    clean_signals();
    umask(022);
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

/* Makes the root directory and the command line that runs this program with the argument in it. */
static int prepare(const sd_isolation *isolation, const char *directory, const char *image,
                   const char *argument, plan *p, sd_words *words)
{
    static const char *const namespaces[] = {
        "--unshare-user",       "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-cgroup-try", "--uid",         "1000",          "--gid",         "1000",
        "--hostname",           "sandbox",

        "--new-session",        "--as-pid-1",    "--cap-drop",    "ALL",           "--bind",
    };
    static const char *const mounts[] = {"--proc", "/proc", "--dev", "/dev", "--chdir", "/"};
    int result;
    memset(p, 0, sizeof(*p));
    p->isolation = isolation;
    p->image = image;
    p->root = sd_text("%s/root", directory);
    if (isolation->user) {
        p->staged_root = sd_text("%s/root", isolation->stage);
        p->staged_self = sd_text("%s/self", isolation->stage);
        p->staged_image = sd_text("%s/image", isolation->stage);
    }
    if (isolation->none) {
        sd_words ignored = {NULL, 0};
        result = sd_root_make(p->root, NULL, NULL, (uid_t)-1, &ignored);
        sd_words_free(&ignored);
        sd_words_add(words, sd_text("%s", isolation->self));
        sd_words_add(words, sd_text("%s", argument));
        return result;
    }
    sd_words_add(words, sd_text("%s", isolation->bwrap));
    if (isolation->disable_userns)
        sd_words_add(words, sd_text("--disable-userns"));
    add_all(words, namespaces, SD_COUNT(namespaces));
    sd_words_add(words, sd_text("%s", p->staged_root ? p->staged_root : p->root));
    sd_words_add(words, sd_text("/"));
    result = sd_root_make(p->root, image, p->staged_image ? p->staged_image : image,
                          isolation->user ? isolation->user : (uid_t)-1, words);
    add_all(words, mounts, SD_COUNT(mounts));
    sd_words_add(words, sd_text("--ro-bind"));
    sd_words_add(words, sd_text("%s", p->staged_self ? p->staged_self : isolation->self));
    sd_words_add(words, sd_text("/.sandboxd"));
    sd_words_add(words, sd_text("/.sandboxd"));
    sd_words_add(words, sd_text("%s", argument));
    return result;
}

static pid_t launch(plan *p, const sd_words *words, int errors, int listener, int channel)
{
    sigset_t all, before;
    pid_t pid;
    p->argv = words->items;
    p->fds[0] = errors;
    p->fds[1] = listener;
    p->fds[2] = channel;
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
    char *trial = sd_text("%s/trial", directory);
    sd_words words = {NULL, 0};
    int fds[2] = {-1, -1}, status = -1;
    size_t len = 0;
    ssize_t n;
    pid_t pid = -1;
    plan p;
    (void)sd_remove_tree(trial);
    if (mkdir(trial, 0755) == 0 && pipe2(fds, O_CLOEXEC) == 0 &&
        prepare(isolation, trial, NULL, "--version", &p, &words) == 0)
        pid = launch(&p, &words, fds[1], fds[1], fds[1]);
    snprintf(said, cap, "%s", strerror(errno));
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
    if (fds[0] >= 0)
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
            sd_log("%s: %s", strrchr(s->directory, '/') + 1, s->line);
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
    if (s->pid > 0)
        kill(-s->pid, SIGKILL);
}

void sd_sandbox_stop(sd_sandbox *s)
{
    uv_os_fd_t fd;
    if (s->stopping)
        return;
    s->stopping = 1;
    if (s->pid <= 0)
        return;
    if (uv_fileno((uv_handle_t *)&s->channel, &fd) == 0)
        shutdown(fd, SHUT_RDWR);
    /* Until it is ready, it may be bubblewrap that still works. */
    uv_timer_start(&s->timer, on_stop_timer, s->ready ? STOP_MS : 0, 0);
}

void sd_sandbox_reap(void)
{
    sd_sandbox **link = &sandboxes, *s;
    while ((s = *link) != NULL) {
        char data[4096];
        uv_os_fd_t fd;
        ssize_t n;
        if (waitpid(s->pid, NULL, WNOHANG) != s->pid) {
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
        uv_close((uv_handle_t *)&s->timer, on_closed);
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
    char key[2 * sizeof(s->key->hash) + 1], *text;
    size_t len;
    ssize_t n;
    sd_hex(key, s->key->hash, sizeof(s->key->hash));
    text =
        sd_text("home %s%s/home/user\n%s%s%s%s%sstart\n", s->isolation->none ? s->directory : "",
                s->isolation->none ? "/root" : "", s->isolation->none ? "" : "isolated\n",
                s->key->required ? "key " : "", s->key->required ? key : "",
                s->key->required ? "\n" : "", s->isolation->settings ? s->isolation->settings : "");
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
    int errors[2] = {-1, -1}, channel[2] = {-1, -1}, listener = -1, i;
    sd_words words = {NULL, 0};
    char *problem = NULL;
    plan p;
    if (prepare(s->isolation, s->directory, s->image, "--agent", &p, &words) < 0) {
        problem = sd_text("its directory could not be made: %s", strerror(errno));
    } else if ((listener = sd_listen(0, &s->port)) < 0 || pipe2(errors, O_CLOEXEC) < 0 ||
               socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0 ||
               instruct(s, channel[0]) < 0 ||
               (s->pid = launch(&p, &words, errors[1], listener, channel[1])) < 0) {
        problem = sd_text("its process could not be started: %s", strerror(errno));
    } else {
        watch(s, errors[0], channel[0]);
        errors[0] = channel[0] = -1;
    }
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

/* Starting a process for a command: its own session and process group, clean signals, no descriptor
   but its three streams, an environment made from nothing, the limits of the sandbox. The streams are
   pipes, or all three are a pseudo-terminal, which then controls the session. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* How long the child may take to become the command. It is subject to the limits of the sandbox, so
   when the other commands take all the CPU time that there is, it may wait for long, but nobody
   else may. */
enum { PATIENCE_MS = 500 };

/* What a child that could not become the command tells its parent. */
typedef struct failure {
    enum { SHELL, DIRECTORY, LIMITS } what;
    int problem;
} failure;

/* ---- environment ---- */

typedef struct environment {
    char **items;
    size_t count;
} environment;

/* Sets a variable, in place of one of the same name. item is owned. */
static void put(environment *env, char *item)
{
    size_t i, name = strcspn(item, "=") + 1;
    for (i = 0; i < env->count; i++)
        if (strncmp(env->items[i], item, name) == 0) {
            free(env->items[i]);
            env->items[i] = item;
            return;
        }
    env->items = (char **)sd_grow(env->items, (env->count + 2) * sizeof(*env->items));
    env->items[env->count++] = item;
    env->items[env->count] = NULL;
}

static void make_environment(environment *env, const sd_spawn *spawn)
{
    const sd_json *member;
    memset(env, 0, sizeof(*env));
    put(env,
        sd_text("PATH=%s/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                spawn->home));
    put(env, sd_text("HOME=%s", spawn->home));
    put(env, sd_text("LANG=C.UTF-8"));
    if (spawn->pty)
        put(env, sd_text("TERM=xterm-256color"));
    for (member = spawn->env ? spawn->env->child : NULL; member; member = member->next)
        put(env, sd_text("%s=%s", member->name, member->text));
}

static void free_environment(environment *env)
{
    size_t i;
    for (i = 0; i < env->count; i++)
        free(env->items[i]);
    free(env->items);
}

/* ---- the child ---- */

/* What has to be known after fork, where nothing may be allocated. */
typedef struct plan {
    const sd_spawn *spawn;
    char *const *argv, *const *env;
    int streams[3], report;
    pid_t parent;
} plan;

static void become_command(const plan *p) __attribute__((noreturn));
static void become_command(const plan *p)
{
    failure f = {SHELL, 0};
    struct rlimit files;
    ssize_t written;
    int i;
    setsid();
    sd_clean_signals();
    if (p->spawn->die_with_us) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != p->parent)
            _exit(127);
    }
    if (sd_limits_apply(p->spawn->limits) < 0)
        f.what = LIMITS;
    f.problem = errno;
    if (p->spawn->pty)
        ioctl(p->streams[0], TIOCSCTTY, 0);
    for (i = 0; i < 3; i++)
        dup2(p->streams[i], i);
        /* They are all closed on exec anyway; this is for the one that somebody forgets some day. */
#ifdef SYS_close_range
    syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
#endif
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = (rlim_t)p->spawn->file_limit;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    umask(022);
    if (f.what != LIMITS) {
        if (chdir(p->spawn->cwd) < 0)
            f.what = DIRECTORY;
        else
            execvpe(p->argv[0], p->argv, p->env);
        f.problem = errno;
    }
    signal(SIGPIPE, SIG_IGN); /* the parent may have run out of patience */
    written = write(p->report, &f, sizeof(f));
    (void)written;
    _exit(127);
}

/* ---- the parent ---- */

static void close_all(int *fds, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void keep_non_blocking(int fd)
{
    if (fd >= 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* What the child says, if it says something: 1. Silence is its success, or lasts too long. */
static int hear(int fd, failure *f)
{
    struct pollfd ready = {fd, POLLIN, 0};
    uint64_t until = uv_hrtime() / 1000000 + PATIENCE_MS, now;
    ssize_t n = -1;
    int result;
    do {
        now = uv_hrtime() / 1000000;
        result = poll(&ready, 1, now < until ? (int)(until - now) : 0);
    } while (result < 0 && errno == EINTR);
    if (result > 0)
        n = read(fd, f, sizeof(*f));
    return n == (ssize_t)sizeof(*f);
}

/* Forks and waits until the child has become the command. NULL or the problem. */
static char *launch(sd_spawn *spawn, plan *p, int listen_fd)
{
    failure f = {SHELL, 0};
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    spawn->pid = fork();
    if (spawn->pid == 0)
        become_command(p);
    f.problem = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (spawn->pid < 0)
        return sd_text("the process could not be started: %s", strerror(f.problem));
    close(p->report);
    p->report = -1;
    if (!hear(listen_fd, &f))
        return NULL;
    while (waitpid(spawn->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (f.what == LIMITS)
        return sd_text("the limits of the sandbox could not be set: %s", strerror(f.problem));
    return sd_text("%s %s: %s", f.what == DIRECTORY ? "cannot use the directory" : "cannot run",
                   f.what == DIRECTORY ? spawn->cwd : spawn->shell, strerror(f.problem));
}

/* Opens a pseudo-terminal: its master, which is ours, and itself. The master comes a second time, for
   the input. 0 or -1 with errno. */
static int open_terminal(int fds[8], const sd_spawn *spawn)
{
    struct termios settings;
    struct winsize size;
    char path[64];
    memset(&size, 0, sizeof(size));
    size.ws_col = (unsigned short)spawn->columns;
    size.ws_row = (unsigned short)spawn->rows;
    fds[2] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fds[2] < 0 || grantpt(fds[2]) < 0 || unlockpt(fds[2]) < 0 ||
        ptsname_r(fds[2], path, sizeof(path)) != 0)
        return -1;
    fds[0] = fcntl(fds[2], F_DUPFD_CLOEXEC, 0);
    fds[1] = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fds[0] < 0 || fds[1] < 0 || tcgetattr(fds[1], &settings) < 0)
        return -1;
    settings.c_iflag |= IUTF8; /* so that erasing in a line takes whole characters */
    if (tcsetattr(fds[1], TCSANOW, &settings) < 0 || ioctl(fds[2], TIOCSWINSZ, &size) < 0)
        return -1;
    fds[3] = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
    fds[5] = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
    return fds[3] < 0 || fds[5] < 0 ? -1 : 0;
}

/* Opens three pipes, or /dev/null for the first. 0 or -1 with errno. */
static int open_pipes(int fds[8], int input)
{
    int i, swap;
    if (input) {
        if (pipe2(fds, O_CLOEXEC) < 0)
            return -1;
        swap = fds[0];
        fds[0] = fds[1];
        fds[1] = swap;
    } else if ((fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {
        return -1;
    }
    for (i = 2; i < 6; i += 2)
        if (pipe2(fds + i, O_CLOEXEC) < 0)
            return -1;
    return 0;
}

/* Opens what the streams and the report need: ours at 2 * i, the child's at 2 * i + 1. 0 or -1 with
   errno. */
static int open_streams(int fds[8], const sd_spawn *spawn)
{
    int i;
    for (i = 0; i < 8; i++)
        fds[i] = -1;
    if ((spawn->pty ? open_terminal(fds, spawn) : open_pipes(fds, spawn->input)) < 0)
        return -1;
    return pipe2(fds + 6, O_CLOEXEC);
}

char *sd_spawn_run(sd_spawn *spawn)
{
    char dash_c[] = "-c", *argv[4], *problem;
    environment env;
    plan p;
    int fds[8], i;
    if (open_streams(fds, spawn) < 0) {
        problem = sd_text("the process could not be started: %s", strerror(errno));
        close_all(fds, 8);
        return problem;
    }
    make_environment(&env, spawn);
    argv[0] = sd_copy(spawn->shell, strlen(spawn->shell));
    argv[1] = dash_c;
    argv[2] = sd_copy(spawn->command, strlen(spawn->command));
    argv[3] = NULL;
    p.spawn = spawn;
    p.argv = argv;
    p.env = env.items;
    for (i = 0; i < 3; i++)
        p.streams[i] = fds[2 * i + 1];
    p.report = fds[7];
    p.parent = getpid();
    problem = launch(spawn, &p, fds[6]);
    fds[7] = p.report;
    for (i = 0; i < 3; i++) {
        spawn->fds[i] = problem ? -1 : fds[2 * i];
        keep_non_blocking(spawn->fds[i]);
        if (!problem)
            fds[2 * i] = -1;
    }
    spawn->terminal = -1;
    if (spawn->pty && !problem) {
        spawn->terminal = fds[1];
        fds[1] = -1;
    }
    close_all(fds, 8);
    free(argv[0]);
    free(argv[2]);
    free_environment(&env);
    return problem;
}

/* The terminal of this process while a program inside a sandbox has it: every key goes there, Ctrl-C
   among them. However this process ends in good order, by a signal too, it is put back. */
#include "sbx.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct {
    struct termios before;
    int raw;
    int resized[2]; /* readable when the window's size has changed */
} terminal = {.resized = {-1, -1}};

static void on_resize(int number)
{
    int saved = errno;
    if (write(terminal.resized[1], "", 1) < 0)
        errno = saved; /* it is full: as good */
    (void)number;
}

void terminal_restore(void)
{
    if (!terminal.raw)
        return;
    signal(SIGWINCH, SIG_DFL);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.before);
    terminal.raw = 0;
}

void terminal_take(void)
{
    static int registered;
    struct sigaction action;
    struct termios raw;
    int i;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &terminal.before) != 0)
        return;
    if (terminal.resized[0] < 0 && pipe(terminal.resized) == 0)
        for (i = 0; i < 2; i++) {
            fcntl(terminal.resized[i], F_SETFD, FD_CLOEXEC);
            fcntl(terminal.resized[i], F_SETFL, O_NONBLOCK);
        }
    memset(&action, 0, sizeof(action));
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_resize;
    action.sa_flags = SA_RESTART;
    sigaction(SIGWINCH, &action, NULL);
    if (!registered)
        registered = atexit(terminal_restore) == 0;
    raw = terminal.before;
    cfmakeraw(&raw);
    terminal.raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

int terminal_is_taken(void)
{
    return terminal.raw;
}

int terminal_size(int *columns, int *rows)
{
    struct winsize size;
    char bytes[64];
    while (terminal.resized[0] >= 0 && read(terminal.resized[0], bytes, sizeof(bytes)) > 0)
        continue;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0)
        return -1;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return *columns > 0 && *rows > 0 ? 0 : -1;
}

int terminal_resized_fd(void)
{
    return terminal.resized[0];
}

/* The processes that this one can see. */
#include "sandboxd.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Reads what the kernel says of a process: "pid (name) state parent group session ..", and the name
   may hold anything. 0, or -1 if there is none. */
static int read_process(const char *pid, char *state, int *parent, int *session)
{
    char path[300], line[512], *after = NULL;
    FILE *file;
    int group, found = 0;
    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    file = fopen(path, "re");
    if (file && fgets(line, sizeof(line), file) && (after = strrchr(line, ')')) != NULL)
        found = sscanf(after + 1, " %c %d %d %d", state, parent, &group, session);
    if (file)
        fclose(file);
    return found == 4 ? 0 : -1;
}

size_t sd_kill_all(sd_kinship kinship, pid_t pid)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    size_t killed = 0;
    while (processes && (entry = readdir(processes)) != NULL) {
        int number = atoi(entry->d_name), parent = 0, session = 0;
        char state = 0;
        if (number <= 0 || read_process(entry->d_name, &state, &parent, &session) < 0)
            continue;
        if ((kinship == SD_CHILDREN ? parent : session) == pid && state != 'Z' && state != 'X' &&
            kill(number, SIGKILL) == 0)
            killed++;
    }
    if (processes)
        closedir(processes);
    return killed;
}

/* What limits the commands of a sandbox: their CPU time, their memory, their number. Never the agent,
   so that it answers whatever they do.

   Control groups do that for all commands together, and no command can undo it. What they cannot do
   here is done to each command before it starts, as well as that goes:

   - Memory: RLIMIT_DATA, which counts what a process can write to and nobody else sees, for each
     process by itself. RLIMIT_AS would not do: it counts address space that is only reserved, of
     which node, Java and Go take more at their start than a sandbox has memory. Memory that processes
     share is not counted.
   - CPU: the command may use as many processors as it takes, rounded up. It can undo that.
   - Number: RLIMIT_NPROC. Since Linux 5.14 the kernel counts for each sandbox by itself, before for
     all of its user together. Without isolation that is the operator, who has other processes, too:
     there it is left out. */
#include "sandboxd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- the control process ---- */

/* "cpu, memory" */
static void name_controllers(char out[64], unsigned bits)
{
    snprintf(out, 64, "%s%s%s%s%s", bits & SD_GROUP_CPU ? "cpu" : "",
             bits & SD_GROUP_CPU && bits & ~SD_GROUP_CPU ? ", " : "",
             bits & SD_GROUP_MEMORY ? "memory" : "",
             bits & SD_GROUP_PIDS && bits & ~SD_GROUP_PIDS ? ", " : "",
             bits & SD_GROUP_PIDS ? "pids" : "");
}

int sd_limits_find(sd_limits *limits, uid_t user)
{
    const unsigned both = SD_GROUP_CPU | SD_GROUP_MEMORY;
    sd_groups *groups = &limits->groups;
    char why[256] = "as asked for", names[64];
    if (limits->kind == SD_LIMITS_NONE) {
        sd_log("limits: none");
        return 0;
    }
    if (limits->kind != SD_LIMITS_RLIMIT)
        (void)sd_groups_find(groups, user, why);
    if (limits->kind == SD_LIMITS_CGROUP && (groups->controllers & both) != both) {
        sd_log("control groups cannot limit CPU and memory here: %s",
               groups->controllers ? "only one of them" : why);
        return -1;
    }
    name_controllers(names, groups->controllers);
    if (groups->count == 0)
        sd_log("limits: rlimits: memory per process, processors by affinity (%s%s)",
               limits->kind == SD_LIMITS_RLIMIT ? "" : "no control groups: ", why);
    else
        sd_log("limits: cgroup v%d (%s)%s%s", groups->version, names,
               groups->controllers & SD_GROUP_MEMORY ? "" : ", memory per process",
               groups->controllers & SD_GROUP_CPU ? "" : ", processors by affinity");
    return 0;
}

char *sd_limits_settings(const sd_limits *limits, double cpus, double memory, int isolated)
{
    unsigned by_group = limits->kind == SD_LIMITS_NONE ? ~0u : limits->groups.controllers;
    int limit_memory = !(by_group & SD_GROUP_MEMORY) && memory > 0 && memory < 9e18;
    int limit_cpu = !(by_group & SD_GROUP_CPU) && cpus > 0 && cpus < CPU_SETSIZE;
    return sd_text("groups %zu\nmemory %llu\nprocesses %d\nprocessors %d\n", limits->groups.count,
                   limit_memory ? (unsigned long long)memory : 0ull,
                   by_group & SD_GROUP_PIDS || !isolated ? 0 : SD_MAX_PROCESSES,
                   limit_cpu ? (int)cpus + ((double)(int)cpus < cpus) : 0);
}

/* ---- the agent ---- */

int sd_limits_take(sd_command_limits *limits, const char *line)
{
    const struct {
        const char *name;
        uint64_t *value;
    } lines[] = {{"groups ", &limits->groups},
                 {"memory ", &limits->memory},
                 {"processes ", &limits->processes},
                 {"processors ", &limits->processors}};
    size_t i, len;
    for (i = 0; i < SD_COUNT(lines); i++) {
        len = strlen(lines[i].name);
        if (strncmp(line, lines[i].name, len) == 0) {
            *lines[i].value = strtoull(line + len, NULL, 10);
            return limits->groups <= SD_MAX_GROUPS;
        }
    }
    return 0;
}

void sd_limits_choose(sd_command_limits *limits)
{
    cpu_set_t all;
    uint64_t left = limits->processors;
    unsigned start;
    int i;
    if (left == 0)
        return;
    if (sched_getaffinity(0, sizeof(all), &all) < 0 || left >= (uint64_t)CPU_COUNT(&all)) {
        limits->processors = 0;
        return;
    }
    CPU_ZERO(&limits->chosen);
    sd_random(&start, sizeof(start)); /* or all sandboxes would take the same ones */
    start %= CPU_SETSIZE;
    for (i = 0; i < CPU_SETSIZE && left > 0; i++) {
        size_t cpu = (start + (unsigned)i) % CPU_SETSIZE;
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &limits->chosen);
            left--;
        }
    }
}

static int limit(int resource, uint64_t most)
{
    struct rlimit now;
    if (most == 0)
        return 0;
    if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
        return -1;
    if (now.rlim_max > most)
        now.rlim_max = (rlim_t)most;
    if (now.rlim_cur > now.rlim_max)
        now.rlim_cur = now.rlim_max;
    return setrlimit((__rlimit_resource_t)resource, &now);
}

int sd_limits_apply(const sd_command_limits *limits)
{
    uint64_t i;
    for (i = 0; i < limits->groups; i++)
        if (write(SD_FD_GROUPS + (int)i, "0", 1) < 0)
            return -1;
    if (limit(RLIMIT_DATA, limits->memory) < 0 || limit(RLIMIT_NPROC, limits->processes) < 0)
        return -1;
    return limits->processors == 0 ? 0
                                   : sched_setaffinity(0, sizeof(limits->chosen), &limits->chosen);
}

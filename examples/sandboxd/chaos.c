/* What goes wrong on purpose, for tests of clients and demonstrations: connections that are cut or
   closed, upgrades that are refused, messages that come late or not at all. What is random is the
   same each time that a sandbox starts, connection by connection. */
#include "sandboxd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIFICATION_MAX = 1000 };
static const uint64_t most = UINT64_C(1) << 40; /* bytes */

/* ---- values ---- */

/* Reads a number from 1 to max at *at and moves on. 0 or -1. */
static int take_number(const char **at, uint64_t max, uint64_t *number)
{
    char *end;
    if (**at < '0' || **at > '9')
        return -1;
    errno = 0;
    *number = strtoull(*at, &end, 10);
    *at = end;
    return errno || *number < 1 || *number > max ? -1 : 0;
}

static int take_range(const char *text, sd_range *range)
{
    if (take_number(&text, most, &range->least) < 0)
        return -1;
    range->most = range->least;
    if (*text == '-') {
        text++;
        if (take_number(&text, most, &range->most) < 0 || range->most < range->least)
            return -1;
    }
    return *text ? -1 : 0;
}

/* A number with "ms" or "s". */
static int take_time(const char *text, uint64_t *ms)
{
    if (take_number(&text, 1000000, ms) < 0)
        return -1;
    if (strcmp(text, "s") == 0)
        *ms *= 1000;
    else if (strcmp(text, "ms") != 0)
        return -1;
    return 0;
}

/* ---- what there is ---- */

static int take_cut(sd_chaos *chaos, const char *value)
{
    return take_range(value, &chaos->cut);
}

static int take_fin(sd_chaos *chaos, const char *value)
{
    return take_range(value, &chaos->fin);
}

static int take_close(sd_chaos *chaos, const char *value)
{
    uint64_t code = 0;
    if (take_number(&value, 4999, &code) < 0 || code < 1000 || *value++ != ':')
        return -1;
    chaos->close_code = (int)code;
    return take_range(value, &chaos->close);
}

static int take_refuse(sd_chaos *chaos, const char *value)
{
    uint64_t status = 0;
    if (take_number(&value, 599, &status) < 0 || status < 400 || *value++ != ':')
        return -1;
    chaos->refusal = (int)status;
    chaos->refused = chaos->refused_ms = 0;
    if (strchr(value, 's'))
        return take_time(value, &chaos->refused_ms);
    return take_number(&value, most, &chaos->refused) < 0 || *value ? -1 : 0;
}

static int take_delay(sd_chaos *chaos, const char *value)
{
    return take_time(value, &chaos->delay_ms);
}

static int take_unstarted(sd_chaos *chaos, const char *value)
{
    chaos->unstarted = UINT64_MAX;
    return *value && (take_number(&value, most, &chaos->unstarted) < 0 || *value) ? -1 : 0;
}

static int take_seed(sd_chaos *chaos, const char *value)
{
    return take_number(&value, UINT32_MAX, &chaos->random) < 0 || *value ? -1 : 0;
}

static const struct {
    const char *name, *form, *help;
    int (*take)(sd_chaos *chaos, const char *value);
} kinds[] = {
    {"cut", "cut=N, cut=A-B", "reset connections (RST) after N bytes sent, or A to B, at random",
     take_cut},
    {"fin", "fin=N, fin=A-B", "the same, but end them (FIN), without a close frame", take_fin},
    {"close", "close=CODE:N, :A-B", "the same for WebSockets, by a close frame with this code",
     take_close},
    {"refuse", "refuse=STATUS:K", "answer the first K upgrades with this status", take_refuse},
    {"refuse", "refuse=STATUS:Ts, :Tms", "the same for a time from the start of a sandbox on",
     take_refuse},
    {"delay", "delay=Tms, delay=Ts", "keep back what is sent, for so long", take_delay},
    {"no-started", "no-started[=K]", "drop the (first K) \"started\" messages", take_unstarted},
    {"seed", "seed=N", "other random numbers; 1 by default", take_seed},
};

void sd_chaos_help(FILE *file)
{
    size_t i;
    fputs(
        "\nWhat --chaos can be, several separated by commas; connections are those of sandboxes:\n"
        "\n",
        file);
    for (i = 0; i < SD_COUNT(kinds); i++)
        fprintf(file, "  %-22s  %s\n", kinds[i].form, kinds[i].help);
}

static int take_one(sd_chaos *chaos, const char *item)
{
    const size_t len = strcspn(item, "=");
    size_t i;
    for (i = 0; i < SD_COUNT(kinds); i++)
        if (strlen(kinds[i].name) == len && strncmp(item, kinds[i].name, len) == 0) {
            if (kinds[i].take(chaos, item[len] ? item + len + 1 : "") == 0)
                return 0;
            sd_log("--chaos %s is wrong: it is %s", item, kinds[i].form);
            return -1;
        }
    sd_log("--chaos does not know %s", item);
    return -1;
}

int sd_chaos_parse(sd_chaos *chaos, const char *specification)
{
    char *copy, *rest, *item;
    int result = 0;
    if (strlen(specification) > SPECIFICATION_MAX || strchr(specification, '\n')) {
        sd_log("--chaos is a line of at most %d bytes", SPECIFICATION_MAX);
        return -1;
    }
    copy = rest = sd_copy(specification, strlen(specification));
    while (result == 0 && (item = strsep(&rest, ",")) != NULL)
        result = take_one(chaos, item);
    free(copy);
    return result;
}

/* ---- what happens ---- */

/* SplitMix64. */
static uint64_t random_number(sd_chaos *chaos)
{
    uint64_t x = chaos->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t pick(sd_chaos *chaos, const sd_range *range)
{
    return range->least + random_number(chaos) % (range->most - range->least + 1);
}

void sd_chaos_faults(sd_chaos *chaos, sd_faults *faults)
{
    const uint64_t cut = pick(chaos, &chaos->cut), fin = pick(chaos, &chaos->fin);
    faults->reset = cut > 0 && (fin == 0 || cut <= fin);
    faults->cut_after = faults->reset ? cut : fin;
    faults->close_after = pick(chaos, &chaos->close);
    faults->close_code = chaos->close_code;
    faults->delay_ms = chaos->delay_ms;
}

int sd_chaos_take(uint64_t *count)
{
    return *count > 0 && (*count)-- > 0;
}

int sd_chaos_refusal(sd_chaos *chaos, uint64_t now)
{
    return sd_chaos_take(&chaos->refused) || now < chaos->refused_ms ? chaos->refusal : 0;
}

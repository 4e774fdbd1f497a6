/* What the operator chooses about commands. The control process checks the options, and hands them
   on to the agents as they are. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

const sd_settings sd_default_settings = {
    .ring_bytes = SD_RING_SIZE,
    .stall_ms = 300000,
    .chaos = {.random = 1},
};

static int take_seconds(const char *name, const char *text, int64_t *ms)
{
    char *end;
    const double seconds = strtod(text, &end);
    if (end == text || *end || !(seconds >= 0 && seconds <= 1e6)) {
        sd_log("--%s is a number from 0 to 1000000, not %s", name, text);
        return -1;
    }
    *ms = (int64_t)(seconds * 1000);
    return 1;
}

int sd_settings_take(sd_settings *settings, const char *name, const char *value)
{
    long number = 0;
    int result = 0;
    if (strcmp(name, "ring-bytes") == 0) {
        result = sd_number(name, value, SD_RING_LEAST, SD_RING_MOST, &number) < 0 ? -1 : 1;
        settings->ring_bytes = (size_t)number;
    } else if (strcmp(name, "stall-seconds") == 0) {
        result = take_seconds(name, value, &settings->stall_ms);
    } else if (strcmp(name, "chaos") == 0) {
        result = sd_chaos_parse(&settings->chaos, value) < 0 ? -1 : 1;
    } else if (strcmp(name, "dialect") == 0) {
        settings->old_dialect = strcmp(value, "2026-03") == 0;
        result = settings->old_dialect || strcmp(value, "2026-08") == 0 ? 1 : -1;
        if (result < 0)
            sd_log("--dialect is 2026-03 or 2026-08, not %s", value);
    }
    return result;
}

/* Amounts of CPU and memory, as templates and volumes give them: a decimal number and a suffix. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

typedef struct suffix {
    sd_unit unit;
    const char *text;
    double factor;
} suffix;

static const suffix suffixes[] = {
    {SD_CPUS, "", 1},
    {SD_CPUS, "m", 0.001},
    {SD_BYTES, "", 1},
    {SD_BYTES, "k", 1e3},
    {SD_BYTES, "M", 1e6},
    {SD_BYTES, "G", 1e9},
    {SD_BYTES, "T", 1e12},
    {SD_BYTES, "Ki", 1024.0},
    {SD_BYTES, "Mi", 1048576.0},
    {SD_BYTES, "Gi", 1073741824.0},
    {SD_BYTES, "Ti", 1099511627776.0},
};

int sd_quantity(const char *text, sd_unit unit, double *value)
{
    size_t digits = strspn(text, "0123456789"), i;
    const char *end = text + digits;
    if (digits == 0 || digits > 15)
        return -1;
    if (*end == '.') {
        digits = strspn(end + 1, "0123456789");
        if (digits == 0 || digits > 15)
            return -1;
        end += 1 + digits;
    }
    for (i = 0; i < SD_COUNT(suffixes); i++)
        if (suffixes[i].unit == unit && strcmp(suffixes[i].text, end) == 0) {
            *value = strtod(text, NULL) * suffixes[i].factor;
            return *value >= (unit == SD_CPUS ? 0.001 : 1) ? 0 : -1;
        }
    return -1;
}

/* Runs a fuzz target once for each file named on the command line, and for each file in a
   directory named there, without libFuzzer. Every input ends at a page that cannot be read. The
   name of an input is printed before it runs, so that the last one is to blame when the target
   aborts. */
#include "../tests/guard.h"

#include <dirent.h>
#include <stdint.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static guard memory;
static unsigned long inputs;

static int fail(const char *path)
{
    perror(path);
    return 1;
}

static int replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    char *data = (char *)malloc(size + 1);
    size_t len;
    if (!file || !data)
        return fail(path);
    len = fread(data, 1, size, file);
    if (len != size || ferror(file))
        return fail(path);
    fclose(file);
    fprintf(stderr, "%s\n", path);
    (void)LLVMFuzzerTestOneInput(guard_put(&memory, data, len), len);
    free(data);
    inputs++;
    return 0;
}

static int replay(const char *path, int depth)
{
    char name[4096];
    struct dirent *entry;
    struct stat status;
    DIR *directory;
    int failed = 0;
    if (stat(path, &status) != 0)
        return fail(path);
    if (!S_ISDIR(status.st_mode))
        return replay_file(path, (size_t)status.st_size);
    if (depth > 0)
        return 0; /* corpora are flat */
    directory = opendir(path);
    if (!directory)
        return fail(path);
    while (!failed && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        failed = replay(name, depth + 1);
    }
    closedir(directory);
    return failed;
}

int main(int argc, char **argv)
{
    int i;
    for (i = 1; i < argc; i++) {
        if (replay(argv[i], 0))
            return 1;
    }
    guard_free(&memory);
    printf("%lu inputs\n", inputs);
    if (inputs == 0)
        fprintf(stderr, "usage: %s FILE|DIRECTORY..\n", argv[0]);
    return inputs == 0;
}

/* guard: bytes that end at a page which cannot be read, so that reading one byte too many is a
   fault and not an accident. One guard serves many pieces one after the other: putting the next
   one overwrites the last, so a pointer that was kept too long is seen too. */
#ifndef SBX_TESTS_GUARD_H
#define SBX_TESTS_GUARD_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guard {
    unsigned char *start;
    size_t size; /* before the page that cannot be read */
} guard;

static void guard_fail(const char *what)
{
    perror(what);
    abort();
}

static void guard_free(guard *g)
{
    if (g->start && munmap(g->start, g->size + (size_t)sysconf(_SC_PAGESIZE)) != 0)
        guard_fail("munmap");
    g->start = NULL;
    g->size = 0;
}

/* A writable copy of the bytes that ends at the page. Start with a guard of zeroes. */
static unsigned char *guard_put(guard *g, const void *bytes, size_t len)
{
    if (!g->start || len > g->size) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t size = (len / page + 1) * page;
        int zero = open("/dev/zero", O_RDWR); /* MAP_ANONYMOUS is not in plain POSIX */
        void *map;
        if (zero < 0)
            guard_fail("/dev/zero");
        guard_free(g);
        map = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
        close(zero);
        if (map == MAP_FAILED)
            guard_fail("mmap");
        g->start = (unsigned char *)map;
        g->size = size;
        if (mprotect(g->start + size, page, PROT_NONE) != 0)
            guard_fail("mprotect");
    }
    memset(g->start, 0x5a, g->size - len);
    if (len)
        memcpy(g->start + g->size - len, bytes, len);
    return g->start + g->size - len;
}

#endif

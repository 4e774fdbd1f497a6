/* What a command has written, made clean UTF-8, as long as there is room for it. */
#include "sandboxd.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int sd_ring_init(sd_ring *ring, size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *base = MAP_FAILED;
    int fd;
    memset(ring, 0, sizeof(*ring));
    size = (size + page - 1) / page * page;
    fd = memfd_create("output", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) == 0)
        base = (char *)mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base != MAP_FAILED) {
        const int access = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_FIXED;
        if (mmap(base, size, access, flags, fd, 0) != MAP_FAILED &&
            mmap(base + size, size, access, flags, fd, 0) != MAP_FAILED) {
            ring->base = base;
            ring->size = size;
        } else {
            munmap(base, 2 * size);
        }
    }
    close(fd);
    return ring->base ? 0 : -1;
}

void sd_ring_free(sd_ring *ring)
{
    if (ring->base)
        munmap(ring->base, 2 * ring->size);
    ring->base = NULL;
}

static char *at(const sd_ring *ring, uint64_t offset)
{
    return ring->base + offset % ring->size;
}

/* 1 if the byte there goes on with a character. */
static int inside(const sd_ring *ring, uint64_t offset)
{
    return ((unsigned char)*at(ring, offset) & 0xc0) == 0x80;
}

void sd_ring_write(sd_ring *ring, const char *text, size_t len)
{
    if (ring->end + len - ring->start > ring->size) {
        ring->start = ring->end + len - ring->size;
        while (ring->start < ring->end && inside(ring, ring->start))
            ring->start++;
    }
    memcpy(at(ring, ring->end), text, len);
    ring->end += len;
}

size_t sd_ring_read(const sd_ring *ring, uint64_t *offset, size_t max, const char **text)
{
    size_t len;
    if (*offset < ring->start)
        *offset = ring->start;
    if (*offset > ring->end)
        *offset = ring->end;
    while (*offset > ring->start && *offset < ring->end && inside(ring, *offset))
        (*offset)--;
    len = (size_t)(ring->end - *offset);
    *text = ring->base ? at(ring, *offset) : "";
    if (len > max) {
        len = max;
        while (inside(ring, *offset + len))
            len--;
    }
    return len;
}

/* How many bytes the character has that starts with this one; 0: none does. */
static size_t length_by_first(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* 1 if the byte can stand at this place of a character with this first byte (RFC 3629). */
static int fits(unsigned char first, size_t place, unsigned char byte)
{
    unsigned char least = 0x80, most = 0xbf;
    if (place == 1) {
        if (first == 0xe0)
            least = 0xa0;
        else if (first == 0xed)
            most = 0x9f;
        else if (first == 0xf0)
            least = 0x90;
        else if (first == 0xf4)
            most = 0x8f;
    }
    return byte >= least && byte <= most;
}

/* How many bytes at p belong together: a whole character (*good 1), or the longest beginning of
   one. */
static size_t sequence(const unsigned char *p, size_t len, int *good)
{
    size_t need = length_by_first(p[0]), have = 1;
    while (have < need && have < len && fits(p[0], have, p[have]))
        have++;
    *good = have == need;
    return have;
}

/* How many bytes at the end of valid but perhaps unfinished text belong to an unfinished
   character. */
static size_t unfinished(const char *text, size_t len)
{
    size_t n;
    for (n = 1; n <= 3 && n <= len; n++) {
        unsigned char byte = (unsigned char)text[len - n];
        if ((byte & 0xc0) != 0x80)
            return length_by_first(byte) > n ? n : 0;
    }
    return 0;
}

size_t sd_clean(char *out, const char *in, size_t len, int last, size_t *left)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t i = 0, n = 0, part;
    sbx_utf8 check = {0};
    int good;
    *left = 0;
    if (sbx_utf8_check(&check, in, len)) {
        *left = unfinished(in, len);
        if (!last || *left == 0) {
            memcpy(out, in, len - *left);
            return len - *left;
        }
        *left = 0;
    }
    while (i < len) {
        part = sequence(p + i, len - i, &good);
        if (good) {
            memcpy(out + n, in + i, part);
            n += part;
        } else if (!last && i + part == len && length_by_first(p[i]) > part) {
            *left = part;
            break;
        } else {
            memcpy(out + n, "\xef\xbf\xbd", 3);
            n += 3;
        }
        i += part;
    }
    return n;
}

char *sd_quotable(const char *text)
{
    size_t len = strlen(text), left;
    char *out = (char *)sd_alloc(3 * len + 1);
    sd_clean(out, text, len, 1, &left);
    return out;
}

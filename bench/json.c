/* Reads a stdout message, the way a command's output arrives, again and again:

       bench/json JOB SIZE COUNT

   parses the message of SIZE bytes {"type":"stdout","data":"..","offset":N} COUNT times and obtains
   the type, the unescaped data and the offset each time. Jobs: sbx; sbx-checked, which takes for
   granted that the bytes are UTF-8; and, where they were compiled in, yyjson, cjson, jansson. The
   difference of two counts under callgrind is the cost of a message. It prints the bytes of data it
   got and a sum over them, which are the same for every job.

       cc -O2 -DNDEBUG -I. bench/json.c                       add -DSBX_NO_SIMD for portable C
       -DBENCH_CJSON -lcjson  -DBENCH_JANSSON -ljansson  -DBENCH_YYJSON -lyyjson       the peers */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sample.h"

#include <stdlib.h>

#ifdef BENCH_CJSON
#include <cjson/cJSON.h>
#endif
#ifdef BENCH_JANSSON
#include <jansson.h>
#endif
#ifdef BENCH_YYJSON
#include <yyjson.h>
#endif

/* Room for a copy of a message and for what a peer makes of it. */
#define SCRATCH(size) (16 * (size) + 4096)

typedef struct message {
    char *json;
    size_t len;
    char *scratch; /* SCRATCH(len) bytes */
    uint64_t bytes, sum;
} message;

static void fail(const char *what)
{
    fprintf(stderr, "bench/json: %s\n", what);
    exit(1);
}

/* ---- the message ---- */

/* The log, escaped, and spaces where the next character does not fit. */
static void make_message(message *m, size_t size)
{
    static const char head[] = "{\"type\":\"stdout\",\"data\":\"", tail[] = "\",\"offset\":123456}";
    size_t at = sizeof(head) - 1, end = size - (sizeof(tail) - 1), from, n, written;
    char *log = (char *)malloc(size);
    m->len = size;
    m->json = (char *)malloc(size);
    m->scratch = (char *)malloc(SCRATCH(size));
    if (size < 48 || !log || !m->json || !m->scratch)
        fail("SIZE must be 48 or more, and fit in memory");
    bench_fill_log(log, size);
    memset(m->json, ' ', size);
    memcpy(m->json, head, at);
    for (from = 0; from < size; from += n) {
        char text[16];
        sbx_json_writer w;
        for (n = 1; from + n < size && ((unsigned char)log[from + n] & 0xc0) == 0x80;)
            n++;
        sbx_json_writer_init(&w, text, sizeof(text));
        sbx_json_string(&w, log + from, n);
        if (sbx_json_writer_finish(&w, &written) != SBX_OK)
            fail("the sample is not UTF-8");
        if (written - 2 > end - at)
            break;
        memcpy(m->json + at, text + 1, written - 2);
        at += written - 2;
    }
    memcpy(m->json + end, tail, sizeof(tail) - 1);
    free(log);
}

/* What every job does with what it found. */
static void take(message *m, const char *type, size_t type_len, const char *data, size_t len,
                 int64_t offset)
{
    if (type_len != 6 || memcmp(type, "stdout", 6) != 0 || !data)
        fail("the message was not understood");
    m->bytes += len;
    m->sum += (unsigned char)data[0] + (unsigned char)data[len / 2] * 3u +
              (unsigned char)data[len - 1] * 7u + (uint64_t)offset;
}

/* ---- the jobs ---- */

enum { NONE, TYPE, DATA, OFFSET };

static int key_of(const sbx_json_event *e)
{
    if (e->len == 4)
        return memcmp(e->text, "type", 4) == 0   ? TYPE
               : memcmp(e->text, "data", 4) == 0 ? DATA
                                                 : NONE;
    return e->len == 6 && memcmp(e->text, "offset", 6) == 0 ? OFFSET : NONE;
}

static void run_sbx(message *m, int checked)
{
    const char *at = m->json, *end = at + m->len, *type = NULL, *data = NULL;
    size_t used, type_len = 0, len = 0;
    int64_t offset = 0;
    int key = NONE;
    sbx_json j;
    sbx_json_event e;
    sbx_status status;
    sbx_json_init(&j, m->scratch, m->len);
    j.utf8_checked = checked;
    for (; (status = sbx_json_read(&j, at, (size_t)(end - at), &used, &e)) == SBX_OK; at += used) {
        if (e.type == SBX_JSON_KEY) {
            key = e.depth == 1 ? key_of(&e) : NONE;
        } else if (e.type == SBX_JSON_STRING) {
            if (key == TYPE) {
                type = e.text;
                type_len = e.len;
            } else if (key == DATA) {
                data = e.text;
                len = e.len;
            }
        } else if (e.type == SBX_JSON_INTEGER && key == OFFSET) {
            offset = e.integer;
        }
    }
    if (status != SBX_END)
        fail(j.problem ? j.problem : "cut short");
    take(m, type, type_len, data, len, offset);
}

static void job_sbx(message *m)
{
    run_sbx(m, 0);
}

static void job_sbx_checked(message *m)
{
    run_sbx(m, 1);
}

#ifdef BENCH_CJSON
static void job_cjson(message *m)
{
    cJSON *root = cJSON_ParseWithLength(m->json, m->len);
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "type"));
    const char *data = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "data"));
    const cJSON *offset = cJSON_GetObjectItemCaseSensitive(root, "offset");
    take(m, type, type ? strlen(type) : 0, data, data ? strlen(data) : 0,
         offset ? (int64_t)offset->valuedouble : 0);
    cJSON_Delete(root);
}
#endif

#ifdef BENCH_JANSSON
static void job_jansson(message *m)
{
    json_t *root = json_loadb(m->json, m->len, 0, NULL);
    json_t *type = json_object_get(root, "type"), *data = json_object_get(root, "data");
    take(m, json_string_value(type), json_string_length(type), json_string_value(data),
         json_string_length(data), json_integer_value(json_object_get(root, "offset")));
    json_decref(root);
}
#endif

#ifdef BENCH_YYJSON
/* In place, so that the message has to be copied first, and from a pool: its fastest way. */
static void job_yyjson(message *m)
{
    char *copy = m->scratch, *pool = m->scratch + m->len + 16;
    yyjson_alc allocator;
    yyjson_doc *doc;
    yyjson_val *root, *type, *data;
    memcpy(copy, m->json, m->len);
    yyjson_alc_pool_init(&allocator, pool, SCRATCH(m->len) - m->len - 16);
    doc = yyjson_read_opts(copy, m->len, YYJSON_READ_INSITU, &allocator, NULL);
    root = yyjson_doc_get_root(doc);
    type = yyjson_obj_get(root, "type");
    data = yyjson_obj_get(root, "data");
    take(m, yyjson_get_str(type), yyjson_get_len(type), yyjson_get_str(data), yyjson_get_len(data),
         yyjson_get_sint(yyjson_obj_get(root, "offset")));
    yyjson_doc_free(doc);
}
#endif

static const struct {
    const char *name;
    void (*run)(message *m);
} JOBS[] = {
    {"sbx", job_sbx},         {"sbx-checked", job_sbx_checked},
#ifdef BENCH_CJSON
    {"cjson", job_cjson},
#endif
#ifdef BENCH_JANSSON
    {"jansson", job_jansson},
#endif
#ifdef BENCH_YYJSON
    {"yyjson", job_yyjson},
#endif
};

int main(int argc, char **argv)
{
    message m = {NULL, 0, NULL, 0, 0};
    int job = 0;
    long count;
    if (argc != 4)
        fail("usage: bench/json JOB SIZE COUNT");
    while (job < SBXI_COUNT(JOBS) && strcmp(argv[1], JOBS[job].name) != 0)
        job++;
    if (job == SBXI_COUNT(JOBS))
        fail("there is no such JOB in this build");
    make_message(&m, (size_t)atol(argv[2]));
    for (count = atol(argv[3]); count > 0; count--)
        JOBS[job].run(&m);
    printf("%llu %llu\n", (unsigned long long)m.bytes, (unsigned long long)m.sum);
    free(m.json);
    free(m.scratch);
    return 0;
}

/* files: reading and writing files in a sandbox, from memory and through callbacks.

   Promises: constant memory where a source or a sink is used; a sink sees nothing but the file's
   own bytes, and all of them if the call succeeds. */
#include "internal.h"

#ifndef SBX_NO_FILES

/* A request for path on the data plane; before ends with "?path=". */
static sbx_status sbxi_file_new(const sbx_sandbox *sandbox, const char *method, const char *before,
                                const char *path, const sbx_file_options *options,
                                const char *operation, sbxi_request **out, sbx_error *err)
{
    sbx_status st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_check_name("path", path, err);
    if (st == SBX_OK)
        st = sbxi_request_new(sandbox->client, &sbxi_request_type, method, sandbox->dataplane_url,
                              before, path, "", options ? &options->call : NULL, out, err);
    if (st != SBX_OK)
        return st;
    (*out)->action = SBXI_INSIDE;
    (*out)->resource_type = "file";
    (*out)->operation = operation;
    (*out)->exchange.limit_ms = SBX_NONE;
    (*out)->exchange.idle_ms = 60000;
    if (options) {
        (*out)->exchange.progress = options->progress;
        (*out)->exchange.user = options->user;
    }
    return SBX_OK;
}

/* ---- writing ---- */

/* The multipart frame around the bytes. One block: content type, head and tail. */
static sbx_status sbxi_file_frame(sbxi_request *r, sbx_error *err)
{
    unsigned char random[16];
    char boundary[33];
    const size_t room = 256;
    sbx_status st = sbxi_random(r->op.client, random, sizeof(random), err);
    if (st != SBX_OK)
        return st;
    sbxi_hex(boundary, random, sizeof(random));
    r->body = (char *)sbxi_alloc(&r->op.client->memory, 3 * room);
    if (!r->body)
        return sbxi_fail_memory(err);
    r->body_size = 3 * room;
    (void)sbxi_format(r->body, room, "multipart/form-data; boundary=%s", boundary);
    (void)sbx_multipart_head(r->body + room, room, boundary, "file", "file");
    (void)sbx_multipart_tail(r->body + 2 * room, room, boundary);
    r->exchange.has_body = 1;
    r->exchange.content_type = r->body;
    r->exchange.before = r->body + room;
    r->exchange.after = r->body + 2 * room;
    return SBX_OK;
}

static sbx_status sbxi_write_new(const sbx_sandbox *sandbox, const char *path,
                                 const sbx_file_options *options, sbxi_request **out,
                                 sbx_error *err)
{
    sbx_status st =
        sbxi_file_new(sandbox, "POST", "/upload?path=", path, options, "write", out, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_file_frame(*out, err);
    if (st != SBX_OK)
        sbx_op_free(&(*out)->op);
    return st;
}

SBX_API sbx_status sbx_write_start(const sbx_sandbox *sandbox, const char *path, const void *data,
                                   size_t len, const sbx_file_options *options, sbx_op **op,
                                   sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!data && len)
        return sbxi_fail_argument(err, "data", "is NULL, but len is not 0");
    st = sbxi_write_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.data = (const char *)data;
    r->exchange.data_len = len;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_write(const sbx_sandbox *sandbox, const char *path, const void *data,
                             size_t len, const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_write_start(sandbox, path, data, len, options, &op, err), &op, err);
}

SBX_API sbx_status sbx_write_from_start(const sbx_sandbox *sandbox, const char *path,
                                        sbx_source_fn source, int64_t size,
                                        const sbx_file_options *options, sbx_op **op,
                                        sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!source)
        return sbxi_fail_argument(err, "source", "is required");
    if (size < SBX_NONE || size > INT64_MAX / 2)
        return sbxi_fail_argument(err, "size", "must be SBX_NONE or a number of bytes");
    st = sbxi_write_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.source = source;
    r->exchange.source_size = size;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_write_from(const sbx_sandbox *sandbox, const char *path,
                                  sbx_source_fn source, int64_t size,
                                  const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_write_from_start(sandbox, path, source, size, options, &op, err), &op,
                          err);
}

/* ---- reading ---- */

/* The bytes that were collected become the caller's, without a copy. */
static sbx_status sbxi_read_done(sbxi_request *r, void *out)
{
    sbxi_buffer *answer = &r->exchange.answer;
    sbx_bytes *bytes = (sbx_bytes *)sbxi_object(&r->op.client->memory, sizeof(*bytes));
    if (!bytes || sbxi_buffer_terminate(answer) != SBX_OK) {
        sbx_free(bytes);
        return sbxi_fail_memory(&r->op.error);
    }
    bytes->data = sbxi_buffer_data(answer);
    bytes->len = sbxi_buffer_len(answer);
    sbxi_object_attach(bytes, 0, answer->data, answer->cap);
    sbxi_buffer_init(answer, answer->memory, answer->ceiling);
    *(sbx_bytes **)out = bytes;
    return SBX_OK;
}

static sbx_status sbxi_read_new(const sbx_sandbox *sandbox, const char *path,
                                const sbx_file_options *options, sbxi_request **out, sbx_error *err)
{
    sbx_status st =
        sbxi_file_new(sandbox, "GET", "/download?path=", path, options, "read", out, err);
    if (st == SBX_OK)
        (*out)->exchange.flags |= SBXI_IDEMPOTENT;
    return st;
}

SBX_API sbx_status sbx_read_start(const sbx_sandbox *sandbox, const char *path,
                                  const sbx_file_options *options, sbx_bytes **out, sbx_op **op,
                                  sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, out, op, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_read_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->done = sbxi_read_done;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_read(const sbx_sandbox *sandbox, const char *path,
                            const sbx_file_options *options, sbx_bytes **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_read_start(sandbox, path, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_read_to_start(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                                     const sbx_file_options *options, sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!sink)
        return sbxi_fail_argument(err, "sink", "is required");
    st = sbxi_read_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.sink = sink;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_read_to(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                               const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_read_to_start(sandbox, path, sink, options, &op, err), &op, err);
}

#endif /* SBX_NO_FILES */

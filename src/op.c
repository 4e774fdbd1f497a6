/* op: the life that all operations share: start, step, wants, wait, cancel, free.

   Promises: an outcome is final; a deadline and a cancellation end any operation at the next step,
   whatever it waits for. The blocking loop here is the only one. */
#include "internal.h"

/* Flags that other threads and signal handlers set. Where the compiler has atomics they are used;
   elsewhere a volatile int has to do, as for any signal handler. */
static void sbxi_flag_set(volatile int *flag)
{
#if defined(__GNUC__)
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
#else
    *flag = 1;
#endif
}

static int sbxi_flag_get(volatile int *flag)
{
#if defined(__GNUC__)
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
#else
    return *flag;
#endif
}

#ifndef SBX_NO_WEBSOCKET
static void sbxi_flag_clear(volatile int *flag)
{
#if defined(__GNUC__)
    __atomic_store_n(flag, 0, __ATOMIC_RELEASE);
#else
    *flag = 0;
#endif
}
#endif

static void sbxi_wakeup(const sbx_client *client)
{
    if (client->transport->wakeup)
        client->transport->wakeup(client->state);
}

SBX_API void sbx_cancel_set(sbx_client *client, sbx_cancel *cancel)
{
    if (cancel)
        sbxi_flag_set(&cancel->set);
    if (client)
        sbxi_wakeup(client);
}

SBX_API void sbx_op_cancel(sbx_op *op)
{
    if (!op)
        return;
    sbxi_flag_set(&op->own_cancel.set);
    sbxi_wakeup(op->client);
}

/* A new operation of the type, all zero but for the common part. default_ms is the limit where the
   call names none. */
static sbx_status sbxi_op_new(sbx_client *client, const sbxi_op_type *type, const sbx_call *call,
                              int64_t default_ms, sbx_op **out, sbx_error *err)
{
    int64_t limit = call ? call->timeout_ms : 0;
    sbx_op *op;
    *out = NULL;
    if (limit < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be 0, SBX_NONE or positive");
    op = (sbx_op *)sbxi_alloc(&client->memory, type->size);
    if (!op)
        return sbxi_fail_memory(err);
    memset(op, 0, type->size);
    op->type = type;
    op->client = client;
    op->status = SBX_AGAIN;
    op->cancel = call ? call->cancel : NULL;
    op->limit_ms = limit ? limit : default_ms;
    op->deadline = sbxi_after(sbxi_now(client), op->limit_ms);
    sbxi_error_clear(&op->error);
    *out = op;
    return SBX_OK;
}

static sbx_status sbxi_op_timed_out(sbx_op *op)
{
    char last[256];
    int http_status = op->error.http_status;
    sbxi_copy(last, sizeof(last), op->error.message, strlen(op->error.message));
    (void)sbxi_fail(&op->error, SBX_E_TIMEOUT, "the call did not end within %l ms%s%s",
                    op->limit_ms, *last ? "; the last attempt failed: " : "", last);
    op->error.http_status = http_status;
    return SBX_E_TIMEOUT;
}

/* 1 if the caller has something to fetch. */
static int sbxi_op_pending(const sbx_op *op)
{
    return op->type->pending && op->type->pending(op);
}

static sbx_status sbxi_op_advance(sbx_op *op)
{
    sbx_status st;
    if (op->status != SBX_AGAIN)
        return op->status;
    if (sbxi_flag_get(&op->own_cancel.set) || (op->cancel && sbxi_flag_get(&op->cancel->set)))
        st = sbxi_fail(&op->error, SBX_E_CANCELLED, "the call was cancelled");
    else if (op->type->pending && !sbxi_op_pending(op) && sbxi_now(op->client) >= op->deadline)
        st = sbxi_op_timed_out(op); /* before the step, which may always have something to give */
    else
        st = op->type->step(op);
    if (st == SBX_AGAIN && !sbxi_op_pending(op) && sbxi_now(op->client) >= op->deadline)
        st = sbxi_op_timed_out(op);
    if (st < 0 && !op->error.attempts)
        op->error.attempts = op->attempts;
    if (st < 0)
        sbxi_error_redact(&op->error, op->client->api_key);
    op->status = st;
    if (st != SBX_AGAIN && op->type->over)
        op->type->over(op);
    return st;
}

SBX_API sbx_status sbx_op_step(sbx_op *op, sbx_error *err)
{
    sbx_status st;
    if (!op)
        return sbxi_fail_argument(err, "op", "is NULL");
    if (op->stepping)
        return sbxi_fail(err, SBX_E_ARGUMENT,
                         "an operation cannot be stepped from its own callback");
    op->stepping = 1;
    st = sbxi_op_advance(op);
    op->stepping = 0;
    if (err) {
        if (st < 0)
            *err = op->error;
        else
            sbxi_error_clear(err);
    }
    return st == SBX_AGAIN && sbxi_op_pending(op) ? SBX_OK : st;
}

SBX_API int sbx_op_wants(sbx_op *op, sbx_item *items, int cap, int64_t *timeout_ms)
{
    int64_t now, wake;
    int n = 0;
    *timeout_ms = 0;
    if (!op)
        return 0;
    now = sbxi_now(op->client);
    wake = op->deadline;
    if (op->status != SBX_AGAIN || sbxi_op_pending(op))
        wake = now;
    else
        n = op->type->wants(op, items, cap, &wake);
    *timeout_ms = wake == SBXI_FOREVER ? SBX_NONE : wake > now ? wake - now : 0;
    if (!op->client->transport->wakeup && (*timeout_ms < 0 || *timeout_ms > 100))
        *timeout_ms = 100; /* nothing else would make it see a cancellation */
    return n;
}

/* Steps all operations once. SBX_AGAIN, or what the first of those that are over says. */
static sbx_status sbxi_step_all(sbx_op *const *ops, int n, sbx_error *err)
{
    sbx_status first = SBX_AGAIN;
    int i;
    for (i = 0; i < n; i++) {
        sbx_status st = sbx_op_step(ops[i], first == SBX_AGAIN ? err : NULL);
        first = first == SBX_AGAIN ? st : first;
    }
    return first;
}

/* Steps n operations until one is over or the time is up. items has room for what all want. */
static sbx_status sbxi_wait_loop(sbx_op *const *ops, int n, sbx_item *items, int64_t timeout_ms,
                                 sbx_error *err)
{
    sbx_client *client = ops[0]->client;
    int64_t end = sbxi_after(sbxi_now(client), timeout_ms);
    for (;;) {
        int64_t sleep_ms, least;
        int i, count = 0;
        sbx_status st = sbxi_step_all(ops, n, err);
        if (st != SBX_AGAIN)
            return st;
        least = end == SBXI_FOREVER ? SBX_NONE : end - sbxi_now(client);
        if (end != SBXI_FOREVER && least <= 0)
            return SBX_AGAIN;
        for (i = 0; i < n; i++) {
            count += sbx_op_wants(ops[i], items + count, SBX_ITEMS, &sleep_ms);
            if (sleep_ms >= 0 && (least < 0 || sleep_ms < least))
                least = sleep_ms;
        }
        if (!client->transport->wait)
            return sbxi_fail(err, SBX_E_UNSUPPORTED,
                             "this transport cannot wait: drive the operation by sbx_op_step");
        st = client->transport->wait(client->state, items, count, least);
        if (st != SBX_OK && st != SBX_AGAIN)
            return sbxi_fail(err, st, "the transport ended the wait: %s", sbx_status_name(st));
    }
}

static sbx_status sbxi_wait_any(sbx_op *const *ops, int n, int64_t timeout_ms, sbx_error *err)
{
    const sbx_allocator *memory = &ops[0]->client->memory;
    sbx_item few[4 * SBX_ITEMS], *many;
    size_t size = (size_t)n * SBX_ITEMS * sizeof(*many);
    sbx_status st;
    if (size <= sizeof(few))
        return sbxi_wait_loop(ops, n, few, timeout_ms, err);
    many = (sbx_item *)sbxi_alloc(memory, size);
    if (!many)
        return sbxi_fail_memory(err);
    st = sbxi_wait_loop(ops, n, many, timeout_ms, err);
    sbxi_release(memory, many, size);
    return st;
}

SBX_API sbx_status sbx_op_wait(sbx_op *op, int64_t timeout_ms, sbx_error *err)
{
    if (!op)
        return sbxi_fail_argument(err, "op", "is NULL");
    if (timeout_ms < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be SBX_NONE, 0 or positive");
    return sbxi_wait_any(&op, 1, timeout_ms, err);
}

SBX_API sbx_status sbx_wait(sbx_op *const *ops, int n, int64_t timeout_ms, sbx_error *err)
{
    sbx_status st;
    int i;
    if (!ops || n < 1 || n > SBXI_MAX_WAIT)
        return sbxi_fail_argument(err, "ops", "must be 1 to 1,024 operations");
    if (timeout_ms < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be SBX_NONE, 0 or positive");
    for (i = 0; i < n; i++)
        if (!ops[i] || ops[i]->client != ops[0]->client)
            return sbxi_fail_argument(err, "ops", "must be operations of one client");
    st = sbxi_wait_any(ops, n, timeout_ms, err);
    for (i = 0; st != SBX_AGAIN && i < n; i++) {
        /* One of them is over, well or not: that is what was asked for. */
        if (ops[i]->status != SBX_AGAIN || sbxi_op_pending(ops[i])) {
            sbxi_error_clear(err);
            return SBX_OK;
        }
    }
    return st;
}

SBX_API void sbx_op_free(sbx_op *op)
{
    if (op && !op->stepping) {
        sbx_client *client = op->client;
        size_t size = op->type->size;
        op->type->dispose(op);
        sbxi_release(&client->memory, op, size);
    }
}

/* What a blocking call is: the outcome of starting *op, then waiting for it, then freeing it. */
static sbx_status sbxi_op_finish(sbx_status started, sbx_op **op, sbx_error *err)
{
    if (started != SBX_OK)
        return started;
    started = sbx_op_wait(*op, SBX_NONE, err);
    sbx_op_free(*op);
    return started;
}

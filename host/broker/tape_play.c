/*
 * Answering a VM from a tape.
 *
 * The VM computes and waits, one thing at a time, so it asks in the tape's order as long as it is
 * told what the tape says in the tape's order. Replies are therefore held back until the tape comes
 * to them, also those of the few calls that are made again: what their answers name lives in a
 * broker, and this is another one.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/internal.h"
#include "broker/tape.h"

#define NOWHERE SIZE_MAX

struct asked {
    uint64_t id;  /* in this VM; 0: not asked yet */
    size_t entry; /* where it stands on the tape, and where its answer does; or NOWHERE */
    size_t reply;
    bool again; /* made again, here and now */
    struct value fresh;
    bool has_fresh;
};

struct player {
    struct tape tape;
    bool replay;         /* nothing is done but reading; else what the tape does not hold is done */
    bool detached;       /* the tape is over: from here on all is done */
    struct asked *asked; /* by the tape's calls */
    size_t next;         /* call */
    size_t cursor;       /* entry that is told next */
    size_t clock;        /* entry that may answer the next look at the clock */
    struct value now;    /* the last answer to one */
};

/* ---- what counts ---- */

static bool was_cut_short(const struct value *reply)
{
    const struct value *error = value_get(reply, "error");
    const char *code = value_get_string(error, "code", "");

    return error && (strcmp(code, "cancelled") == 0 || strcmp(code, "timeout") == 0);
}

/*
 * Leaves on the tape what a stage that died can go on from: what it was told because it was dying
 * does not count. Nothing is left when it had begun to clean up, or had failed by itself: then it
 * has to begin again.
 */
static void keep_good(struct tape *tape)
{
    bool stopped = false, usable = true;
    size_t kept = 0;

    for (size_t i = 0; i < tape->count; i++) {
        struct tape_entry *entry = &tape->items[i];
        bool good = entry->kind == TAPE_REPLY && !was_cut_short(&entry->frame);
        if (stopped && entry->kind == TAPE_CALL)
            usable = false;
        if (!stopped && entry->kind == TAPE_DONE && value_get(&entry->frame, "error") &&
            !value_get_bool(&entry->frame, "by_host", false))
            usable = false;
        stopped = stopped || entry->kind == TAPE_STOP;
        if (good || (!stopped && (entry->kind == TAPE_CALL || entry->kind == TAPE_CLOCK)))
            tape->items[kept++] = *entry;
        else
            value_free(&entry->frame);
    }
    tape->count = kept;
    while (!usable && tape->count)
        value_free(&tape->items[--tape->count].frame);
}

static bool holds_handle(const struct value *v)
{
    if (v->kind == VALUE_HANDLE)
        return true;
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++) {
        if (holds_handle(&v->as.array.items[i]))
            return true;
    }
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++) {
        if (holds_handle(&v->as.map.pairs[i].value))
            return true;
    }
    return false;
}

/* Modules are read where they are now: an edited one is what a replay is often about. */
static bool is_made_again(const struct player *player, const struct value *call,
                          const struct value *reply)
{
    if (strcmp(value_get_string(call, "name", ""), "host.module") == 0)
        return true;
    return !player->replay && (holds_handle(reply) || value_get_bool(reply, "masked", false));
}

static void free_player(struct player *player)
{
    tape_free(&player->tape);
    free(player->asked);
    free(player);
}

static void index_calls(struct player *player)
{
    struct tape *tape = &player->tape;

    player->asked = mem_array(NULL, tape->calls + 1, sizeof *player->asked);
    for (size_t i = 0; i < tape->calls; i++)
        player->asked[i] = (struct asked){.entry = NOWHERE, .reply = NOWHERE};
    for (size_t i = 0; i < tape->count; i++) {
        const struct tape_entry *entry = &tape->items[i];
        struct asked *asked = &player->asked[entry->call];
        if (entry->kind == TAPE_CALL) {
            asked->entry = i;
        } else if (entry->kind == TAPE_REPLY) {
            asked->reply = i;
            asked->again = is_made_again(player, &tape->items[asked->entry].frame, &entry->frame);
        }
    }
}

int player_open(struct broker *broker, struct error *err)
{
    struct player *player = mem_alloc(sizeof *player);
    struct tape *tape = &player->tape;
    struct error none = {0};
    bool replay = broker->spec->replay;

    player->replay = replay;
    if (tape_load(broker->spec->play, broker->spec->blobs, tape, &none) < 0 ||
        tape_blobs_in(tape->blobs, &tape->head, &none) < 0) {
        free_player(player);
        if (replay)
            *err = none;
        return replay ? -1 : 0; /* a stage without a tape begins again */
    }
    if (!replay)
        keep_good(tape);
    if (tape->count == 0 && !replay) {
        free_player(player);
        return 0;
    }
    index_calls(player);
    broker->player = player;
    return 0;
}

const struct value *player_start(const struct broker *broker)
{
    return value_get(&broker->player->tape.head, "start");
}

/* ---- telling ---- */

static void tell_error(struct broker *broker, uint64_t id, const struct error *err)
{
    cleanup_value struct value frame = {0};

    value_set_map(&frame);
    error_into_value(err, value_put(&frame, "error"));
    broker_tell_locked(broker, id, &frame);
}

/* False: its time has not come. */
static bool tell_reply(struct broker *broker, const struct tape_entry *entry)
{
    struct player *player = broker->player;
    struct asked *asked = &player->asked[entry->call];
    cleanup_value struct value frame = {0};
    struct error err = {0};

    if (!asked->id || (asked->again && !asked->has_fresh))
        return false;
    if (asked->again) {
        value_move(&frame, &asked->fresh);
    } else {
        value_copy(&frame, &entry->frame);
        if (tape_blobs_in(player->tape.blobs, &frame, &err) < 0) {
            tell_error(broker, asked->id, &err);
            return true;
        }
    }
    broker_tell_locked(broker, asked->id, &frame);
    return true;
}

/* A stage that died in a call: its script is told so, at that place. */
static void tell_the_end(struct broker *broker)
{
    struct player *player = broker->player;
    struct error err = {0};

    error_set(&err, ERR_CONFLICT, "the tape ends in this call: it never had an answer");
    for (size_t i = 0; i < player->next; i++) {
        if (player->asked[i].reply == NOWHERE && player->asked[i].id) {
            tell_error(broker, player->asked[i].id, &err);
            player->asked[i].id = 0;
        }
    }
}

static void go_on(struct broker *broker)
{
    struct player *player = broker->player;

    for (; player->cursor < player->tape.count; player->cursor++) {
        const struct tape_entry *entry = &player->tape.items[player->cursor];
        if ((entry->kind == TAPE_CALL && !player->asked[entry->call].id) ||
            (entry->kind == TAPE_REPLY && !tell_reply(broker, entry)))
            return;
        if (entry->kind == TAPE_STOP)
            kill(broker->vm_pid, SIGUSR1);
    }
    if (player->replay)
        tell_the_end(broker);
}

/* From here on the tape is not for this script: whoever waits gets what the tape has for him. */
static void detach(struct broker *broker)
{
    struct player *player = broker->player;

    player->detached = true;
    for (size_t i = 0; i < player->next; i++) {
        size_t reply = player->asked[i].reply;
        if (reply != NOWHERE && reply >= player->cursor)
            (void)tell_reply(broker, &player->tape.items[reply]);
    }
}

bool player_holds(struct broker *broker, uint64_t id, struct value *frame)
{
    struct player *player = broker->player;

    for (size_t i = 0; !player->detached && i < player->next; i++) {
        struct asked *asked = &player->asked[i];
        if (asked->id != id || !asked->again || asked->has_fresh)
            continue;
        value_move(&asked->fresh, frame);
        asked->has_fresh = true;
        go_on(broker);
        return true;
    }
    return false;
}

bool player_is_quiet(struct broker *broker)
{
    struct player *player = broker->player;
    bool quiet = false;

    pthread_mutex_lock(&broker->vm_lock);
    for (size_t i = player->cursor; !player->replay && !player->detached && i < player->tape.count;
         i++)
        quiet = quiet || player->tape.items[i].kind == TAPE_REPLY;
    pthread_mutex_unlock(&broker->vm_lock);
    return quiet;
}

/* ---- asking ---- */

/* Handles are numbers in another broker: of the same type they are the same. */
static bool same(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind)
        return value_equal(a, b);
    switch (a->kind) {
    case VALUE_HANDLE:
        return strcmp(a->as.handle.type, b->as.handle.type) == 0;
    case VALUE_ARRAY:
        if (a->as.array.count != b->as.array.count)
            return false;
        for (size_t i = 0; i < a->as.array.count; i++) {
            if (!same(&a->as.array.items[i], &b->as.array.items[i]))
                return false;
        }
        return true;
    case VALUE_MAP:
        if (a->as.map.count != b->as.map.count)
            return false;
        for (size_t i = 0; i < a->as.map.count; i++) {
            const struct value *other = value_get(b, a->as.map.pairs[i].key);
            if (!other || !same(&a->as.map.pairs[i].value, other))
                return false;
        }
        return true;
    default:
        return value_equal(a, b);
    }
}

/* As the recorder wrote them: masked, large texts by their digest. */
static bool same_call(struct broker *broker, const struct value *taped, const struct value *frame)
{
    const struct value *args = value_get(frame, "args"), *held = value_get(taped, "args");
    cleanup_value struct value now = {0}, then = {0};
    struct error err = {0};

    if (strcmp(value_get_string(taped, "name", ""), value_get_string(frame, "name", "")) != 0)
        return false;
    value_set_map(&now);
    if (args) {
        value_free(&now);
        value_copy(&now, args);
    }
    mask_value(broker->masker, &now);
    if (held)
        value_copy(&then, held);
    else
        value_set_map(&then);
    return tape_blobs_in(broker->player->tape.blobs, &then, &err) == 0 && same(&now, &then);
}

static void put_side(struct value *out, const char *side, const struct value *call)
{
    const struct value *args = value_get(call, "args");
    struct value *to = value_put(out, side);

    value_set_map(to);
    value_put_string(to, "name", value_get_string(call, "name", ""));
    value_put_string(to, "at", value_get_string(call, "at", ""));
    if (args)
        value_copy(value_put(to, "args"), args);
}

/* A replay goes no further than its tape. Under the lock, which is given up. */
static _Noreturn void diverge(struct broker *broker, const struct value *frame,
                              const struct value *held)
{
    struct value event = {0};
    struct error err = {0};
    size_t call = broker->player->next + 1;

    pthread_mutex_unlock(&broker->vm_lock);
    value_set_map(&event);
    value_put_string(&event, "t", "replay_end");
    value_put_int(&event, "call", (int64_t)call);
    put_side(&event, "asked", frame);
    if (held)
        put_side(&event, "held", held);
    broker_event(broker, &event);
    if (held)
        error_set(&err, ERR_CONFLICT, "%s asks something else than the tape holds (call %zu)",
                  value_get_string(frame, "at", "the script"), call);
    else
        error_set(&err, ERR_CONFLICT, "the tape ends before this call of %s (call %zu, at %s)",
                  value_get_string(frame, "name", "?"), call, value_get_string(frame, "at", "?"));
    broker_fail(broker, &err);
}

/* Made at a breakpoint: no part of what the script does. */
static enum play debug_call(struct broker *broker, const struct value *frame)
{
    struct error err = {0};

    if (!broker->player->replay)
        return PLAY_MAKE;
    error_set(&err, ERR_DENIED, "a replay has no effects: only the tape answers calls");
    error_hint(&err, "mlhost run --debug opens a session that can make calls");
    tell_error(broker, (uint64_t)value_get_int(frame, "id", 0), &err);
    return PLAY_TOLD;
}

static enum play take_call(struct broker *broker, struct value *frame)
{
    struct player *player = broker->player;

    if (value_get_bool(frame, "debug", false))
        return debug_call(broker, frame);
    if (player->detached)
        return PLAY_MAKE;
    struct asked *asked = player->next < player->tape.calls ? &player->asked[player->next] : NULL;
    const struct value *held =
        asked && asked->entry != NOWHERE ? &player->tape.items[asked->entry].frame : NULL;
    if (!held || !same_call(broker, held, frame)) {
        if (player->replay)
            diverge(broker, frame, held);
        detach(broker);
        return PLAY_MAKE;
    }
    asked->id = (uint64_t)value_get_int(frame, "id", 0);
    player->next++;
    go_on(broker);
    return asked->again || (asked->reply == NOWHERE && !player->replay) ? PLAY_MAKE : PLAY_TOLD;
}

enum play player_call(struct broker *broker, struct value *frame)
{
    pthread_mutex_lock(&broker->vm_lock);
    enum play verdict = take_call(broker, frame);
    pthread_mutex_unlock(&broker->vm_lock);
    return verdict;
}

void player_report(struct broker *broker)
{
    struct value event = {0};

    if (!broker->player || !broker->player->replay)
        return;
    value_set_map(&event);
    value_put_string(&event, "t", "replay_told");
    value_put_int(&event, "calls", (int64_t)broker->player->next);
    broker_event(broker, &event);
}

/* The next look at the clock after the last call that was made. */
static const struct value *taped_clock(struct player *player)
{
    size_t from = player->next ? player->asked[player->next - 1].entry + 1 : 0;

    if (player->detached)
        return NULL;
    player->clock = player->clock < from ? from : player->clock;
    while (player->clock < player->tape.count &&
           player->tape.items[player->clock].kind != TAPE_CLOCK &&
           player->tape.items[player->clock].kind != TAPE_CALL)
        player->clock++;
    if (player->clock == player->tape.count || player->tape.items[player->clock].kind == TAPE_CALL)
        return NULL;
    return value_get(&player->tape.items[player->clock++].frame, "value");
}

void player_clock(struct broker *broker, const struct value *frame)
{
    struct player *player = broker->player;
    const struct value *real = value_path(frame, "args.now");
    cleanup_value struct value reply = {0};

    pthread_mutex_lock(&broker->vm_lock);
    const struct value *told = taped_clock(player);
    if (!told)
        told = player->replay && player->now.kind == real->kind ? &player->now : real;
    value_set_map(&reply);
    value_copy(value_put(&reply, "ok"), told);
    if (told != &player->now) {
        value_free(&player->now);
        value_copy(&player->now, told);
    }
    recorder_clock(broker, told);
    broker_tell_locked(broker, (uint64_t)value_get_int(frame, "id", 0), &reply);
    pthread_mutex_unlock(&broker->vm_lock);
}

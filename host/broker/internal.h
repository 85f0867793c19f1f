/* What the files of broker/ share: the broker's process. */
#ifndef MLHOST_BROKER_INTERNAL_H
#define MLHOST_BROKER_INTERNAL_H

#include <pthread.h>

#include "base/clock.h"
#include "broker/broker.h"
#include "broker/mask.h"
#include "broker/primitive.h"
#include "loop/loop.h"

/* The VM reports its own end a little later than the grace period's. */
#define BROKER_SLACK_NS (500 * NS_PER_MS)

struct handle_entry {
    uint64_t id;
    char type[16];
    void *object;
    size_t len; /* of a secret's bytes */
};

struct handles {
    pthread_mutex_t lock;
    struct vault *vault; /* of secrets */
    size_t secret_bytes;
    struct handle_entry *items;
    size_t count;
    uint64_t next_id;
};

struct broker {
    const struct broker_spec *spec;
    struct loop *loop;
    struct policy *policy;
    struct masker *masker;
    struct handles handles;
    struct http *http;
    pthread_mutex_t http_lock;

    /* towards the VM */
    int vm_fd;
    pid_t vm_pid;
    struct buf vm_in;
    pthread_mutex_t vm_lock; /* of writing */
    struct loop_watch *vm_watch, *vm_child;
    bool vm_ended;
    int vm_status;

    /* towards the supervisor */
    int event_fd;
    struct buf event_in;
    pthread_mutex_t event_lock; /* of writing, of the tails, and of `closed` */
    struct buf tails[2];
    bool closed; /* the result was sent: nothing may follow it */
    struct loop_watch *event_watch;

    /* time */
    int64_t deadline, hard_deadline;
    bool stopping; /* cancelled: calls get the grace period */
    struct cancel *cancel,
        *late_cancel; /* of calls before and after a stop; an interrupt puts a new one in place */
    struct loop_watch *timer;

    /* A stage in the debugger: its time stands still. */
    int64_t paused_at;            /* 0: it does not */
    struct cancel *typed_cancel;  /* of calls that are typed at the debugger */
    struct loop_watch *end_timer; /* ends the calls at the deadline, which they do not know */
    bool time_over;

    bool has_done;
    struct value done;
    char *script_folder; /* absolute */
    struct model *model; /* of a model server, once its script has loaded */
    bool model_stuck;
    bool out_dir_made;
    struct value reports; /* path of each reported file -> path of its copy */
    bool short_told;      /* of a secret that is too short to mask */
    pthread_mutex_t out_lock;
    struct recorder *recorder; /* of the tape, or NULL */
    struct player *player;     /* of an earlier one, or NULL */
};

/* ---- kubeconfig.c ---- */
/* Adds the operator's kubeconfigs to what no stage writes. */
void broker_protect_kubeconfigs(struct broker *broker);

/* ---- events.c ---- */
/* As broker_event, with a value that is not masked. Takes *event. */
void broker_secret_variable(struct broker *broker, struct value *event, const char *text,
                            size_t len);
void broker_event(struct broker *broker, struct value *event); /* masks, sends; takes *event */
void broker_output(struct broker *broker, int stream, const char *data, size_t len);
void broker_result(struct broker *broker, struct value *frame); /* the last event; takes *frame */
void error_into_value(const struct error *err, struct value *out);

/* ---- model.c: the worker of a model server ---- */
/* Descriptors 4 and 5 of every broker: the sockets that a model server listens on. */
#define BROKER_HOLD 6 /* spec->hold_fd */
#define BROKER_KEPT 7
void broker_model_keep(const struct broker_spec *spec);
void broker_model_loaded(struct broker *broker);                     /* starts the HTTP side */
void broker_model_reply(struct broker *broker, struct value *frame); /* may take from *frame */
void broker_model_drain(struct broker *broker); /* ends the worker when all is answered */
void broker_model_gone(struct broker *broker);  /* the VM has ended: answers what waits */

/* ---- reports.c ---- */
/* A `report` event that names a file, by a path that call_path allowed: makes a copy, which the
 * event names. */
void reports_add(struct broker *broker, struct value *event);
/* Once more, at the end of the stage. */
void reports_keep(struct broker *broker);

/* ---- asks.c ---- */
/* Puts a question { kind, ... } to the supervisor and waits for its answer, the call's deadline or
 * a cancel. Takes *question. */
int broker_ask(struct call *call, struct value *question, struct value *answer, struct error *err);
/* An `answer` frame of the supervisor. May take from *frame. */
void asks_answer(struct value *frame);

/* ---- calls.c ---- */
/* A call or say frame of the VM. Takes *frame. */
void calls_take(struct broker *broker, struct value *frame);
/* Sends { ok } or { error } as the reply to a call, and records it. Under vm_lock; may take from
 * *frame. */
void broker_tell_locked(struct broker *broker, uint64_t id, struct value *frame);

/* ---- broker.c ---- */
/* The end of the stage, with this error. */
_Noreturn void broker_fail(struct broker *broker, const struct error *err);

/* ---- tape_record.c; all but start under vm_lock, and all without effect where no tape is ---- */
void recorder_start(struct broker *broker, const struct value *start);
void recorder_call(struct broker *broker, const struct value *frame);
void recorder_reply(struct broker *broker, uint64_t id, struct value *frame); /* may take from it */
void recorder_clock(struct broker *broker, const struct value *now);
void recorder_stop(struct broker *broker);
/* by_host: the VM had no say in it. Closes the tape. */
void recorder_done(struct broker *broker, const struct value *frame, bool by_host);

/* ---- tape_play.c; where broker->player is ---- */
int player_open(struct broker *broker, struct error *err);
const struct value *player_start(const struct broker *broker); /* the recorded start frame */
enum play { PLAY_TOLD, PLAY_MAKE };
/* A call: PLAY_TOLD when the tape answers it (now or later), PLAY_MAKE when it is to be made. */
enum play player_call(struct broker *broker, struct value *frame);
/* A look at the clock, { args = { now } }. */
void player_clock(struct broker *broker, const struct value *frame);
/* Under vm_lock. True: the reply of a call that was made again waits for its turn; taken. */
bool player_holds(struct broker *broker, uint64_t id, struct value *frame);
/* The end of a replay: tells the supervisor how many calls were asked for. */
void player_report(struct broker *broker);
/* What the VM says now, it has said before. */
bool player_is_quiet(struct broker *broker);

/* ---- pause.c: a stage that is stopped in the debugger ---- */
int broker_pause_init(struct broker *broker, struct error *err);
/* `break` and `resumed` frames of the VM. Takes *frame. */
void broker_pause(struct broker *broker, struct value *frame);
void broker_resume(struct broker *broker, struct value *frame);
/* A frame of the supervisor for the VM. */
void broker_to_vm(struct broker *broker, const struct value *frame);
/* Lets the debugger go, if the script is in it: the stage is being ended. */
void broker_leave_debugger(struct broker *broker);
struct cancel *new_cancel(void);
/* Raises *cancel, and puts a new one in its place. The old one stays with the calls that look at
 * it. */
void cancel_renew(struct cancel **cancel);

/* ---- handles.c ---- */
/* Handles live as long as the broker. 0: there are too many. */
uint64_t handle_add(struct handles *handles, const char *type, void *object);
/* A secret's bytes, copied. */
uint64_t handle_add_secret(struct handles *handles, const char *bytes, size_t len);
/* NULL when there is no such handle, or one of another type. */
void *handle_get(struct handles *handles, uint64_t id, const char *type, size_t *len);

/* The type of the first handle at or below v, and where it is; NULL: there is none. */
const char *handle_within(const struct value *v, struct buf *path);

/* ---- start.c ---- */
/* Forks the VM, sealed. In the broker, before any thread exists. */
int broker_start_vm(struct broker *broker, struct error *err);

/* The folder of files that a script's path may resolve to: absolute, without links. Allocated. */
char *resolve_path(const char *workspace, const char *path, struct error *err);
/* Opens what resolve_path gave, and refuses links that appeared since. */
int open_resolved(const char *path, int flags, unsigned mode, struct error *err);

#endif

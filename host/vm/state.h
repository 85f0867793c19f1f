/*
 * What the files of vm/ share: the one state of a VM process.
 *
 * Rule of the folder: a function that takes a lua_State may end by a longjmp (memory, errors), so
 * it owns nothing that has to be freed. Whatever must outlive such a call stands in struct vm
 * (`frame`, `out`), which is cleaned at the next use.
 */
#ifndef MLHOST_VM_STATE_H
#define MLHOST_VM_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/value.h"
#include "vm/vm.h"

#define VM_EXIT_OVERRUN                                                                            \
    71 /* the deadline passed inside a C function; the broker reports the timeout */
#define VM_EXIT_PROTOCOL 72 /* the socket broke */

#define BUDGET_STEP  16u
#define BUDGET_SMALL 256u

struct budget {
    size_t used;              /* bytes of Lua's objects */
    size_t held, limit, peak; /* what is charged for them, chunks of small blocks as a whole */
    void *free[BUDGET_SMALL / BUDGET_STEP];
    char *at; /* what is left of the newest chunk */
    size_t left, chunk;
};
/* A lua_Alloc that refuses to go beyond the budget. */
void *budget_alloc(void *ctx, void *block, size_t old_size, size_t new_size);

/* One flow of execution that may wait: the script's main one, and each branch of a parallel(). */
struct task {
    struct task *next;
    lua_State *L;
    int anchor;          /* registry reference that keeps L */
    int arguments;       /* on L's stack, for the next resume */
    uint64_t waits_for;  /* request id; 0: none */
    struct task *joins;  /* waits for the end of this one */
    struct task *parent; /* who started it, and waits until it has ended */
    bool has_reply, started, done, failed;
    struct value reply;
    int64_t request; /* of a model server: the request that it answers; 0: none */
    int own;         /* and what keeps it, since nobody joins it */
};
#define WAITS_FOR_REQUESTS UINT64_MAX

/* How far the end of the time has come; see deadline.c. */
enum time_stage { TIME_LEFT, TIME_GRACE, TIME_OVER };

/* Whose clock a script sees: this process's own, which the broker may be told of; or the one of the
 * tape that is played. */
enum clock { CLOCK_OWN, CLOCK_TOLD, CLOCK_ASKED };
/* A coroutine of the script that runs, and who has resumed it; on the C stack of the resume. */
struct resumption {
    struct resumption *below;
    lua_State *from, *co;
    bool wrapped; /* its errors go on in `from` */
};

struct debug; /* of debug.c */

struct vm {
    lua_State *main;
    lua_State *volatile current; /* the thread that runs */
    struct task *tasks, *task;   /* all; the one that runs */
    struct resumption *resumed;  /* the innermost coroutine; NULL: the task itself runs */
    struct debug *debug;         /* NULL: the run has no debugger */
    int64_t calls, until_call;   /* made so far; the one to stop at */
    int fd;
    const struct signature *const *signatures;
    size_t signature_count;
    struct budget budget;
    struct buf in, out;
    struct value frame;  /* the last frame received */
    int handler;         /* of requests: a registry reference, or LUA_NOREF */
    struct value *stash; /* requests that came while something else was waited for */
    size_t stash_count, stash_room;
    struct value early; /* an array of frames that were read too early, in order */
    uint64_t next_id;
    int64_t grace_ms;
    uint64_t seed;
    enum clock clock;
    bool override;                   /* modules come from MLHOST_LUA_PATH, through the broker */
    volatile sig_atomic_t waiting;   /* inside a blocking read */
    volatile sig_atomic_t time;      /* enum time_stage */
    volatile sig_atomic_t stop;      /* cancelled or interrupted, not yet told to the script */
    volatile sig_atomic_t told;      /* the script has heard of a stop: its calls are clean-up */
    volatile sig_atomic_t cancelled; /* the time ran out because of a cancel */
};

/* The space that Lua gives each thread holds the VM's address, with a mark in its lowest bit where
 * the thread is a task's: only the scheduler may resume or close that one. A new thread has the
 * main thread's, without the mark. */
static inline struct vm *vm_of(lua_State *L)
{
    return (struct vm *)(*(uintptr_t *)lua_getextraspace(L) & ~(uintptr_t)1);
}

static inline bool vm_is_task(lua_State *L)
{
    return *(uintptr_t *)lua_getextraspace(L) & 1;
}

/* ---- vm.c ---- */
/* Makes all that a script has, from the start frame in vm->frame. Returns the boot function,
 * internals and start; the first wants the others as arguments. */
int vm_set_up(lua_State *L);

/* ---- codec.c ---- */
extern const char vm_array_key, vm_error_key; /* registry keys (addresses) of the metatables */
#define VM_HANDLE "mlhost.handle"
/* Never longjmps. ERR_INVALID names the path of what cannot cross ("stages[1].run: a function
 * ..."). */
int vm_to_value(lua_State *L, int index, struct value *out, struct error *err);
void vm_push_value(lua_State *L, const struct value *v);
/* json.c: the quick way of what is in order. False: nothing was pushed or written, take the other
 * way. Text ends with NUL. */
bool vm_json_read(lua_State *L, const char *text, size_t len);
bool vm_json_write(lua_State *L, int index, struct buf *out);
void vm_open_codec(
    lua_State *L); /* metatables, and the functions of json, yaml and handles in the table on top */

/* ---- report.c ---- */
/* Where the program's own Lua seems to lie: a name that no one gives a folder. */
#define VM_OWN_FOLDER "(mlhost)/"
/* Is it a part of the program, and no place that a user can look at? source as lua_Debug has it. */
bool vm_own_chunk(const char *source);
/* "file:line" of the innermost function that is not the host's own, or "". */
void vm_where(lua_State *L, char *out, size_t size);
/* Leaves an error object with service, code, message, hint ... file, line, traceback for the error
 * at index. */
void vm_push_error_object(lua_State *L, lua_State *from, int index);
/* Message handler: any error -> error object with the traceback of L. */
int vm_message_handler(lua_State *L);
void vm_push_error(lua_State *L, const struct error *err);  /* an error object without a place */
void vm_push_raised(lua_State *L, const struct error *err); /* one with the place of L */
_Noreturn int vm_raise(lua_State *L, const struct error *err);
/* Writes { t = "done", error } for the error object (or anything) on top of from's stack. */
void vm_error_to_value(lua_State *L, int index, struct value *out);

/* ---- host.c ---- */
void vm_send(struct vm *vm,
             const struct value *frame);           /* ends the process when the socket is broken */
void vm_receive(struct vm *vm, struct value *out); /* blocks for one frame */
/* Gives a reply to the task that waits for it. False: nobody does (it is the nested call's, or was
 * given up). */
bool vm_deliver(struct vm *vm, struct value *frame);
void vm_open_host(lua_State *L); /* call, say, spawn, join ... in the table on top */
/* A call that blocks the whole VM; pushes its result or raises. */
int vm_call_now(lua_State *L, const char *name, struct value *args);
void vm_ask_clock(lua_State *L); /* sends vm->frame, a look at the clock; pushes the answer */
/* Runs fn (with `arguments` values, all on top of L's stack) as a task, and with it all others,
 * until it has ended. True: its results are on the stack of *thread. False: the error object is. */
bool vm_run(struct vm *vm, lua_State *L, int arguments, lua_State **thread);

/* ---- coroutine.c, env.c, module.c ---- */
int vm_open_coroutine(lua_State *L);
void vm_open_environment(lua_State *L);
/* Lua's own functions, and what became of them. */
struct vm_function {
    const char *library; /* "" for globals */
    const char *names;   /* separated by spaces */
    enum vm_function_kind { VM_SAME, VM_OTHER, VM_ABSENT } kind;
    const char *why;     /* what differs, or why it is absent; Markdown */
    const char *instead; /* what to use then, or NULL */
};
extern const struct vm_function vm_functions[];
extern const size_t vm_function_count;
/* What to do about an error message that says that one of Lua's own, absent, functions is nil.
 * False: it says nothing of the kind. */
bool vm_absent_hint(const char *message, struct buf *out);
int vm_load_text(lua_State *L, const char *text, size_t len,
                 const char *chunk); /* text only; as lua_load */
void vm_open_modules(lua_State *L);  /* global require; the internals, on top, stay there */
int vm_require_own(lua_State *L);    /* require for the program's own modules */

/* ---- clock.c ---- */
void vm_seed(uint64_t seed); /* before lua_newstate: of the order of tables */
void vm_open_clock(lua_State *L);

/* ---- deadline.c ---- */
void vm_time_prepare(struct vm *vm);                /* handlers; before the seal */
void vm_time_start(struct vm *vm, int64_t left_ms); /* INT64_MAX: no deadline */
void vm_time_answered(struct vm *vm);               /* a call was answered with "timeout" */
void vm_time_renew(lua_State *L);                   /* L runs (again): pending stops reach it */
/* No time passes from here on; what was left is the argument of vm_time_resume. */
int64_t vm_time_pause(struct vm *vm);
void vm_time_resume(struct vm *vm, int64_t left_ns);

/* ---- debug.c ---- */
/* Reads `debug` of the start frame { enabled, until_file, until_line }; on L, once the environment
 * is there. */
void vm_debug_start(lua_State *L, const struct value *start);
void vm_open_debug(lua_State *L); /* breakpoint, catch, bounded in the table on top */
/* The message handler of a stage and its branches: vm_message_handler, which stops first where a
 * debugger is and nobody catches the error. */
int vm_catch(lua_State *L);
/* Enters the debugger now, in the frame that runs on L; returns when it is to go on. Nothing
 * happens without a debugger, in one, and while the stage is being ended. */
void vm_debug_break(lua_State *L, const char *reason);
/* A stop before that line of the file, or the first one after it with code; once. file: its path as
 * tracebacks have it, or the end of that from a '/' on. False: there are too many. */
bool vm_debug_until(struct vm *vm, const char *file, int line);
/* The error on top of L has ended the wrapped coroutine co. True: nobody will catch it; it has
 * stopped there, and the error is an error object now. */
bool vm_debug_failed(lua_State *L, lua_State *co);
/* A call of the script was answered with the error object on top of L. True: in the debugger it was
 * given the value that is on top now. */
bool vm_debug_answered(lua_State *L);
/* Message handler of a module's chunk: the error as it is, which may have been stopped at. */
int vm_debug_require_handler(lua_State *L);
bool vm_debug_stopped(const struct vm *vm); /* in a session */
/* A frame that came while something typed waits for its reply. */
void vm_debug_frame(struct vm *vm, const struct value *frame);
/* The hook after a Ctrl-C in a session: raises in what was typed, again and again, so that nothing
 * catches it. It is over when the prompt is back. */
void vm_debug_interrupt(lua_State *L, lua_Debug *ar);
bool vm_debug_interrupted(const struct vm *vm);
void vm_debug_hook(lua_State *L); /* sets or clears the hook for steps and breakpoints */
/* The text of a file that was loaded, for showing it. */
void vm_debug_keep(lua_State *L, const char *file, const char *text, size_t len);

#endif

/* What the files of the debugger in the VM share. */
#ifndef MLHOST_VM_DEBUG_H
#define MLHOST_VM_DEBUG_H

#include "vm/state.h"

#define POINTS_MAX   64
#define FRAMES_MAX   200
#define FILE_ROOM    256
#define LEVELS_INNER 1000 /* of a stack that are looked at one by one, from its top */
#define LEVELS_OUTER 100  /* ... and from its bottom */

enum pace { PACE_RUN, PACE_STEP, PACE_NEXT, PACE_FINISH };

struct frame {
    lua_State *L;
    int level;
    bool first; /* of its thread */
};

struct debug {
    bool off;     /* the user has left for good */
    bool stopped; /* in a session */
    bool interrupted;
    bool told_to_leave; /* while something typed was waited for */
    bool may_answer;    /* a call has failed that the session may give a result */
    bool answered;      /* it has; the result is in the registry */
    struct {
        char file[FILE_ROOM];
        int line;
        bool until; /* set by the start frame: it says so, and once only */
    } points[POINTS_MAX];
    int point_count;
    /* A step: where it began. */
    enum pace pace;
    lua_State *thread;
    struct task *task;
    int depth;
    struct frame frames[FRAMES_MAX];
    int frame_count;
    lua_CFunction pcall, xpcall;
    const void *last_error; /* stopped at already; the registry keeps it from being another's */
    int64_t bound;          /* until when the function of bounded() may run */
};

/* ---- debug_frames.c ---- */
/* Count of the levels on L's stack. */
int debug_depth(lua_State *L);
/* Notes the script's frames from the innermost one outwards: through the coroutines that have
 * resumed each other, and the branches that wait. dead: a coroutine that an error has ended, or
 * NULL. */
void debug_collect(struct vm *vm, lua_State *dead, lua_State *L);
extern const luaL_Reg debug_frame_functions[]; /* for the session */

/* ---- debug_steps.c ---- */
extern const luaL_Reg debug_step_functions[];
/* A file was loaded: breakpoints in it stand at lines with code from here on. */
void debug_settle_points(struct debug *debug, const char *file, const char *text, size_t len);

#endif

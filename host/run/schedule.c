/*
 * Which cell is next. Each stage knows how many of its needs are not over, and who needs it: the
 * end of a cell costs its dependents, not the pipeline. Cells start in the order of the script.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/engine.h"

/* Indices of slots, the lowest first. A slot is in one at most once. */
struct heap {
    size_t *items;
    size_t count;
};

struct standing {
    size_t unmet; /* needs with cells that are not over */
    size_t left;  /* own cells that are not over */
    size_t *dependents;
    size_t dependent_count;
};

/* Why idle cells end without a start; each is looked for once. */
enum { END_EXIT = 1, END_TIMEOUT = 2, END_SIGNAL = 4 };

struct schedule {
    struct standing *stages;
    size_t stage_count;
    struct heap ready;  /* may start */
    struct heap doomed; /* will not */
    size_t left;
    unsigned swept;
};

static void push(struct heap *heap, size_t item)
{
    size_t at = heap->count++;

    for (; at > 0 && heap->items[(at - 1) / 2] > item; at = (at - 1) / 2)
        heap->items[at] = heap->items[(at - 1) / 2];
    heap->items[at] = item;
}

static size_t pop(struct heap *heap)
{
    size_t first = heap->items[0];
    size_t last = heap->items[--heap->count];
    size_t at = 0;

    for (size_t child = 1; child < heap->count; child = 2 * at + 1) {
        if (child + 1 < heap->count && heap->items[child + 1] < heap->items[child])
            child++;
        if (heap->items[child] >= last)
            break;
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = last;
    return first;
}

void schedule_ready(struct slot *slot)
{
    push(&slot->run->schedule->ready, (size_t)(slot - slot->run->slots));
}

static void stage_ready(struct run *run, size_t index)
{
    const struct stage *stage = &run->opt->graph->stages[index];

    for (size_t i = 0; i < stage->cell_count; i++) {
        struct slot *slot = &run->slots[stage->first_cell + i];
        if (slot->state == SLOT_IDLE && !slot->blocked_by)
            schedule_ready(slot);
    }
}

static void link_stages(struct run *run)
{
    const struct graph *graph = run->opt->graph;
    struct schedule *schedule = run->schedule;

    for (size_t i = 0; i < graph->stage_count; i++) {
        for (size_t k = 0; k < graph->stages[i].need_count; k++)
            schedule->stages[graph->stages[i].needs[k]].dependent_count++;
    }
    for (size_t i = 0; i < graph->stage_count; i++) {
        struct standing *standing = &schedule->stages[i];
        standing->dependents =
            mem_array(NULL, standing->dependent_count + 1, sizeof *standing->dependents);
        standing->dependent_count = 0;
    }
    for (size_t i = 0; i < graph->stage_count; i++) {
        for (size_t k = 0; k < graph->stages[i].need_count; k++) {
            struct standing *need = &schedule->stages[graph->stages[i].needs[k]];
            need->dependents[need->dependent_count++] = i;
            schedule->stages[i].unmet += need->left > 0;
        }
    }
}

struct schedule *schedule_new(struct run *run)
{
    const struct graph *graph = run->opt->graph;
    struct schedule *schedule = mem_alloc(sizeof *schedule);

    run->schedule = schedule;
    schedule->stage_count = graph->stage_count;
    schedule->stages = mem_alloc((graph->stage_count + 1) * sizeof *schedule->stages);
    schedule->ready.items = mem_array(NULL, run->count + 1, sizeof(size_t));
    schedule->doomed.items = mem_array(NULL, run->count + 1, sizeof(size_t));
    for (size_t i = 0; i < run->count; i++) {
        bool left = run->slots[i].state != SLOT_DONE;
        schedule->left += left;
        schedule->stages[graph->cells[i].stage].left += left;
    }
    if (!run->opt->from) /* else what it needs comes from another run */
        link_stages(run);
    for (size_t i = 0; i < graph->stage_count; i++) {
        if (schedule->stages[i].unmet == 0)
            stage_ready(run, i);
    }
    return schedule;
}

void schedule_free(struct schedule *schedule)
{
    if (!schedule)
        return;
    for (size_t i = 0; i < schedule->stage_count; i++)
        free(schedule->stages[i].dependents);
    free(schedule->stages);
    free(schedule->ready.items);
    free(schedule->doomed.items);
    free(schedule);
}

size_t schedule_left(const struct run *run)
{
    return run->schedule->left;
}

static void doom_cells(struct run *run, size_t index, const char *by)
{
    const struct stage *stage = &run->opt->graph->stages[index];

    for (size_t i = 0; i < stage->cell_count; i++) {
        struct slot *slot = &run->slots[stage->first_cell + i];
        if (slot->state != SLOT_IDLE || slot->blocked_by || slot->attempt)
            continue;
        slot->blocked_by = by;
        push(&run->schedule->doomed, stage->first_cell + i);
    }
}

void schedule_ended(struct slot *slot, enum cell_status status)
{
    struct run *run = slot->run;
    struct schedule *schedule = run->schedule;
    struct standing *standing = &schedule->stages[slot_cell(slot)->stage];
    bool good = cell_status_good(status) || cell_allowed(slot, status);

    schedule->left--;
    standing->left--;
    for (size_t i = 0; i < standing->dependent_count; i++) {
        size_t dependent = standing->dependents[i];
        if (!good)
            doom_cells(run, dependent, slot_cell(slot)->name);
        if (standing->left == 0 && --schedule->stages[dependent].unmet == 0)
            stage_ready(run, dependent);
    }
}

/* Ends a cell that will never start; true when it did. */
static bool give_up(struct run *run, struct slot *slot)
{
    if (slot->over)
        return false; /* what it came to stays, and its `always` runs */
    if (run->signals) {
        cell_end(slot, CELL_CANCELLED, "the run was cancelled");
        return true;
    }
    cleanup_free char *reason =
        run->timed_out     ? mem_strdup("the pipeline timed out")
        : slot->blocked_by ? mem_printf("needs %s, which did not end well", slot->blocked_by)
        : run->exit && !run->opt->keep_going && slot->attempt == 0
            ? mem_printf("not started: %s did not end well (--keep-going goes on)", run->first_bad)
            : NULL;
    if (!reason)
        return false;
    cell_end(slot, CELL_BLOCKED, reason);
    return true;
}

/* When something has happened that ends idle cells everywhere: all of them, once. */
static void sweep(struct run *run)
{
    struct schedule *schedule = run->schedule;
    unsigned why = (run->signals ? END_SIGNAL : 0) | (run->timed_out ? END_TIMEOUT : 0) |
                   (run->exit && !run->opt->keep_going ? END_EXIT : 0);

    if ((why & ~schedule->swept) == 0)
        return;
    schedule->swept |= why;
    for (size_t i = 0; i < run->count && run->broken.code == ERR_NONE; i++) {
        if (run->slots[i].state == SLOT_IDLE)
            (void)give_up(run, &run->slots[i]);
    }
}

void run_schedule(struct run *run)
{
    struct schedule *schedule = run->schedule;

    while (run->broken.code == ERR_NONE) {
        sweep(run);
        if (schedule->doomed.count) {
            struct slot *slot = &run->slots[pop(&schedule->doomed)];
            if (slot->state == SLOT_IDLE)
                (void)give_up(run, slot);
        } else if (schedule->ready.count && run->running < run->opt->jobs) {
            struct slot *slot = &run->slots[pop(&schedule->ready)];
            if (slot->state == SLOT_IDLE && !give_up(run, slot))
                cell_start(slot);
        } else {
            return;
        }
    }
}

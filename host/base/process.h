/* The program's own processes. */
#ifndef MLHOST_BASE_PROCESS_H
#define MLHOST_BASE_PROCESS_H

/*
 * They hold credentials: no other process of the same user may read this one's memory, environment
 * or open files (ptrace(2), /proc/<pid>), and it leaves no core file. Forks inherit both; what is
 * executed gets the first one back. To be called first of all.
 */
void process_hide(void);

#endif

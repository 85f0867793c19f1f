/* What stays of a run for people and other programs: report.md and junit.xml in its folder. */
#ifndef MLHOST_RUN_REPORT_H
#define MLHOST_RUN_REPORT_H

#include "run/tally.h"

/* Markdown: state, stages with durations, what failed, links, issues, the summaries that stages
 * reported, outputs. */
void report_markdown(const struct tally *tally, struct buf *out);
/* JUnit XML: one suite for the stages, then the suites of every file that a stage reported as
 * JUnit. Files that cannot be read or are not well-formed JUnit are named in *skipped (an array of
 * strings). */
void report_junit(const struct tally *tally, struct value *skipped, struct buf *out);
/* The <testsuite> elements of a JUnit document, appended to out; ERR_INVALID with the line when it
 * is not well-formed, has a DOCTYPE, or another root than testsuite(s). */
int junit_suites(const char *text, size_t len, struct buf *out, struct error *err);

/* Writes both into dir, and to the two other paths unless NULL. */
int report_write(const struct tally *tally, const char *dir, const char *junit, const char *summary,
                 struct value *skipped, struct error *err);

#endif

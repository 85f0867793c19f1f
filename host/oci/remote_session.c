#include "oci/remote_session.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

#define SESSIONS_KEPT 32
#define TOKENS_KEPT   64
#define WARNINGS_KEPT 32
#define WAIT_SLICE_NS (50 * NS_PER_MS)

struct token {
    struct token *next;
    char *scope, *text;
    int64_t until; /* deadline */
};

struct remote_session {
    struct remote_session *next;
    char *key;
    size_t users;         /* the list's lock guards it */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ready;
    bool busy, basic, near;
    struct token *tokens; /* the newest first */
    char *refresh;
    struct challenge challenge;
    char *warnings[WARNINGS_KEPT];
    size_t warning_count;
};

static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;
static struct remote_session *sessions; /* the last used first */

static void token_free(struct token *token)
{
    free(token->scope);
    free(token->text);
    free(token);
}

static void session_free(struct remote_session *session)
{
    while (session->tokens) {
        struct token *next = session->tokens->next;
        token_free(session->tokens);
        session->tokens = next;
    }
    for (size_t i = 0; i < session->warning_count; i++)
        free(session->warnings[i]);
    challenge_free(&session->challenge);
    free(session->refresh);
    free(session->key);
    pthread_cond_destroy(&session->ready);
    pthread_mutex_destroy(&session->lock);
    free(session);
}

static struct remote_session *session_new(const char *key)
{
    struct remote_session *session = mem_alloc(sizeof *session);
    pthread_condattr_t clock;

    session->key = mem_strdup(key);
    pthread_mutex_init(&session->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&session->ready, &clock);
    pthread_condattr_destroy(&clock);
    return session;
}

struct remote_session *remote_session_get(const char *key)
{
    pthread_mutex_lock(&sessions_lock);
    struct remote_session **at = &sessions;
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    struct remote_session *session = *at;
    if (session)
        *at = session->next;
    else
        session = session_new(key);
    session->next = sessions;
    sessions = session;
    session->users++;
    size_t count = 0;
    for (at = &sessions; *at;) {
        struct remote_session *old = *at;
        if (++count <= SESSIONS_KEPT || old->users) {
            at = &old->next;
            continue;
        }
        *at = old->next;
        session_free(old);
    }
    pthread_mutex_unlock(&sessions_lock);
    return session;
}

void remote_session_put(struct remote_session *session)
{
    if (!session)
        return;
    pthread_mutex_lock(&sessions_lock);
    session->users--;
    pthread_mutex_unlock(&sessions_lock);
}

char *remote_session_token(struct remote_session *session, const char *scope)
{
    char *found = NULL;

    pthread_mutex_lock(&session->lock);
    for (struct token *token = session->tokens; token && !found; token = token->next)
        if (strcmp(token->scope, scope) == 0 && !deadline_passed(token->until))
            found = mem_strdup(token->text);
    pthread_mutex_unlock(&session->lock);
    return found;
}

void remote_session_keep(struct remote_session *session, const char *scope, const char *text,
                         int64_t until)
{
    struct token *token = mem_alloc(sizeof *token);
    size_t count = 0;

    token->scope = mem_strdup(scope);
    token->text = mem_strdup(text);
    token->until = until;
    pthread_mutex_lock(&session->lock);
    token->next = session->tokens;
    session->tokens = token;
    for (struct token **at = &session->tokens->next; *at;) {
        struct token *old = *at;
        if (++count < TOKENS_KEPT && !deadline_passed(old->until) &&
            strcmp(old->scope, scope) != 0) {
            at = &old->next;
            continue;
        }
        *at = old->next;
        token_free(old);
    }
    pthread_mutex_unlock(&session->lock);
}

void remote_session_drop(struct remote_session *session, const char *text)
{
    pthread_mutex_lock(&session->lock);
    for (struct token **at = &session->tokens; *at;) {
        struct token *token = *at;
        if (strcmp(token->text, text) != 0) {
            at = &token->next;
            continue;
        }
        *at = token->next;
        token_free(token);
    }
    pthread_mutex_unlock(&session->lock);
}

char *remote_session_refresh(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    char *copy = mem_strdup(session->refresh);
    pthread_mutex_unlock(&session->lock);
    return copy;
}

void remote_session_set_refresh(struct remote_session *session, const char *token)
{
    pthread_mutex_lock(&session->lock);
    free(session->refresh);
    session->refresh = mem_strdup(token);
    pthread_mutex_unlock(&session->lock);
}

bool remote_session_challenge(struct remote_session *session, struct challenge *out)
{
    pthread_mutex_lock(&session->lock);
    out->realm = mem_strdup(session->challenge.realm);
    out->service = mem_strdup(session->challenge.service);
    pthread_mutex_unlock(&session->lock);
    return out->realm != NULL;
}

void remote_session_set_challenge(struct remote_session *session, const struct challenge *challenge)
{
    pthread_mutex_lock(&session->lock);
    challenge_free(&session->challenge);
    session->challenge = (struct challenge){.realm = mem_strdup(challenge->realm),
                                            .service = mem_strdup(challenge->service)};
    pthread_mutex_unlock(&session->lock);
}

bool remote_session_basic(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    bool basic = session->basic;
    pthread_mutex_unlock(&session->lock);
    return basic;
}

void remote_session_set_basic(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    session->basic = true;
    pthread_mutex_unlock(&session->lock);
}

bool remote_session_near(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    bool near = session->near;
    pthread_mutex_unlock(&session->lock);
    return near;
}

void remote_session_set_near(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    session->near = true;
    pthread_mutex_unlock(&session->lock);
}

bool remote_session_warning(struct remote_session *session, const char *text)
{
    bool fresh = true;

    pthread_mutex_lock(&session->lock);
    for (size_t i = 0; i < session->warning_count && fresh; i++)
        fresh = strcmp(session->warnings[i], text) != 0;
    fresh = fresh && session->warning_count < WARNINGS_KEPT;
    if (fresh)
        session->warnings[session->warning_count++] = mem_strdup(text);
    pthread_mutex_unlock(&session->lock);
    return fresh;
}

int remote_session_begin(struct remote_session *session, int64_t deadline,
                         const struct cancel *cancel, struct error *err)
{
    int status = 0;

    pthread_mutex_lock(&session->lock);
    while (session->busy && status == 0) {
        /* a cancel is no signal of the condition, so the wait is in slices */
        int64_t until = deadline_min(deadline, clock_now() + WAIT_SLICE_NS);
        struct timespec at = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
        pthread_cond_timedwait(&session->ready, &session->lock, &at);
        if (cancelled(cancel))
            status = error_set(err, ERR_CANCELLED, "cancelled");
        else if (deadline_passed(deadline))
            status = error_set(err, ERR_TIMEOUT, "the time is over while a token is asked for");
    }
    if (status == 0)
        session->busy = true;
    pthread_mutex_unlock(&session->lock);
    return status;
}

void remote_session_end(struct remote_session *session)
{
    pthread_mutex_lock(&session->lock);
    session->busy = false;
    pthread_cond_broadcast(&session->ready);
    pthread_mutex_unlock(&session->lock);
}

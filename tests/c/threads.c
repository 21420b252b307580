// Many sessions on many threads over one model; one session on two threads; a cancel from another thread.
#define _POSIX_C_SOURCE 200809L
#include "harness.h"

#include <pthread.h>

enum { N_THREADS = 4, N_TOKENS = 24 };

// What a thread reports; the checks themselves belong to the main thread, whose counters are not shared.
typedef struct {
    const fixture *f;
    rf_session *shared;
    rf_token tokens[N_TOKENS];
    int failures;
    int busy;
} worker;

static void *generate(void *argument) {
    worker *w = argument;
    rf_session *session = NULL;
    const rf_token prompt[] = {BOS, 260, 261, 262};
    rf_generate_options options = RF_GENERATE_OPTIONS_INIT;
    options.flags = RF_GENERATE_IGNORE_END;
    w->failures += rf_session_create(w->f->model, NULL, &session, NULL) != RF_OK;
    w->failures += rf_session_decode(session, prompt, 4, NULL) != RF_OK;
    w->failures += rf_session_begin(session, &options, NULL) != RF_OK;
    for (int i = 0; i < N_TOKENS; i++) {
        rf_piece piece = RF_PIECE_INIT;
        w->failures += rf_session_next(session, &piece, NULL) != RF_OK;
        w->tokens[i] = piece.token;
    }
    rf_session_free(session);
    return NULL;
}

static void *intrude(void *argument) {
    worker *w = argument;
    const rf_token token = 260;
    for (int i = 0; i < 200; i++) {
        rf_status status = rf_session_decode(w->shared, &token, 1, NULL);
        w->busy += status == RF_E_BUSY;
        w->failures += status != RF_OK && status != RF_E_BUSY && status != RF_E_CONTEXT_FULL;
        rf_status rewound = rf_session_rewind(w->shared, 0, NULL);
        w->failures += rewound != RF_OK && rewound != RF_E_BUSY;
    }
    return NULL;
}

static void *cancel(void *token) {
    rf_cancel_token_cancel(token);
    return NULL;
}

static void run_all(void *(*work)(void *), worker *workers) {
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    for (int i = 0; i < N_THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < N_THREADS; i++) CHECK(workers[i].failures == 0);
}

// A generation that only the cancel token ends: it is raised by another thread, at a time of that thread's own.
static void test_cancel(const fixture *f) {
    rf_error *err = NULL;
    rf_cancel_token *token = NULL;
    rf_session *session = NULL;
    CHECK_OK(rf_cancel_token_create(&token, &err));
    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.cancel = token;
    CHECK_OK(rf_session_create(f->model, &options, &session, &err));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel, token) == 0);
    const rf_token id = BOS;
    rf_status status;
    size_t calls = 0;
    do {
        status = rf_session_decode(session, &id, 1, &err);
        if (status == RF_OK) status = rf_session_rewind(session, 0, &err);
    } while (status == RF_OK && ++calls < 10000000);
    CHECK(status == RF_CANCELLED && err == NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    rf_session_free(session);
    rf_cancel_token_free(token);
}

void test_threads(const fixture *f) {
    worker workers[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) workers[i] = (worker){.f = f};
    run_all(generate, workers);
    for (int i = 1; i < N_THREADS; i++) {
        CHECK(memcmp(workers[0].tokens, workers[i].tokens, sizeof workers[0].tokens) == 0);
    }
    rf_session *shared = prompted_session(f, 0);
    for (int i = 0; i < N_THREADS; i++) workers[i] = (worker){.f = f, .shared = shared};
    run_all(intrude, workers);
    rf_session_free(shared);
    test_cancel(f);
}

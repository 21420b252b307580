// rf_session_create, _decode, rf_sessions_decode, _logits, _rewind, _usage, _tokens, _get_stats; rf_cancel_token_*.
#include "harness.h"

#include <math.h>

static size_t used(const rf_session *session) {
    rf_error *err = NULL;
    size_t n = SIZE_MAX;
    CHECK_OK(rf_session_usage(session, &n, NULL, &err));
    return n;
}

static void test_create(const fixture *f) {
    rf_error *err = NULL;
    rf_session *session = NULL;
    size_t n_used = 9, capacity = 0;
    CHECK_OK(rf_session_create(f->model, NULL, &session, &err));
    CHECK_OK(rf_session_usage(session, &n_used, &capacity, &err));
    CHECK(n_used == 0 && capacity == CONTEXT);
    rf_session_free(session);

    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.context = UINT32_MAX;
    session = STALE;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_create(f->model, &options, &session, &err));
    CHECK(session == NULL);
    options.context = 16;
    options.batch = UINT32_MAX;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_create(f->model, &options, &session, &err));
    options.batch = 0;
    options.flags = 1u << 31;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_session_create(f->model, &options, &session, &err));
    options.flags = 0;
    options.struct_size = 2;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_create(f->model, &options, &session, &err));
}

// The logits of `n` tokens, decoded `step` at a time.
static void logits_of(const fixture *f, const rf_token *tokens, size_t n, size_t step, float *logits) {
    rf_error *err = NULL;
    rf_session *session = NULL;
    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.flags = RF_SESSION_REFERENCE;
    CHECK_OK(rf_session_create(f->model, &options, &session, &err));
    for (size_t i = 0; i < n; i += step) CHECK_OK(rf_session_decode(session, tokens + i, step, &err));
    const float *found = NULL;
    size_t n_vocab = 0;
    CHECK_OK(rf_session_logits(session, &found, &n_vocab, &err));
    CHECK(n_vocab == N_VOCAB);
    memcpy(logits, found, N_VOCAB * sizeof *logits);
    rf_session_free(session);
}

static void test_decode(const fixture *f) {
    enum { N = 40 }; // more than a page of 32 tokens
    rf_token tokens[N];
    float at_once[N_VOCAB], one_by_one[N_VOCAB];
    for (int i = 0; i < N; i++) tokens[i] = (rf_token)((i * 31 + 7) % N_VOCAB);
    logits_of(f, tokens, N, N, at_once);
    logits_of(f, tokens, N, 1, one_by_one);
    float worst = 0.0f, largest = 0.0f;
    for (int i = 0; i < N_VOCAB; i++) {
        CHECK(isfinite(at_once[i]));
        worst = fmaxf(worst, fabsf(at_once[i] - one_by_one[i]));
        largest = fmaxf(largest, fabsf(at_once[i]));
    }
    CHECK(largest > 0.1f); // they say something
    CHECK(worst < 1e-4f);
}

static void test_contents(const fixture *f) {
    rf_error *err = NULL;
    rf_session *session = prompted_session(f, 64);
    const rf_token more[] = {263, 264};
    CHECK_OK(rf_session_decode(session, more, 1, &err));
    const rf_token *tokens = NULL;
    size_t n = 0;
    CHECK_OK(rf_session_tokens(session, &tokens, &n, &err));
    const rf_token expected[] = {BOS, 260, 261, 262, 263};
    CHECK(n == 5 && memcmp(tokens, expected, sizeof expected) == 0);
    rf_session_stats stats = RF_SESSION_STATS_INIT;
    CHECK_OK(rf_session_get_stats(session, &stats, &err));
    CHECK(stats.prefill_tokens == 4 && stats.decode_tokens == 1 && stats.kv_bytes > 0);

    CHECK_OK(rf_session_rewind(session, 2, &err));
    CHECK(used(session) == 2);
    const float *logits = STALE;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_logits(session, &logits, &n, &err));
    CHECK(logits == NULL && n == 0);
    rf_token token = 9;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_sample(session, NULL, &token, &err));
    CHECK(token == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_session_rewind(session, 3, &err));
    CHECK(used(session) == 2);
    // What is decoded after a rewind is as if it had been decoded first.
    CHECK_OK(rf_session_decode(session, expected + 2, 2, &err));
    rf_session *fresh = prompted_session(f, 64);
    const float *again = NULL, *once = NULL;
    CHECK_OK(rf_session_logits(session, &again, &n, &err));
    CHECK_OK(rf_session_logits(fresh, &once, &n, &err));
    float worst = 0.0f;
    for (size_t i = 0; i < n; i++) worst = fmaxf(worst, fabsf(again[i] - once[i]));
    CHECK(worst < 1e-4f);
    rf_session_free(fresh);
    CHECK_OK(rf_session_rewind(session, 0, &err));
    CHECK(used(session) == 0);
    rf_session_free(session);
}

// All or nothing: a refused call leaves the session, its tokens and its logits as they were.
static void test_refusals(const fixture *f) {
    rf_error *err = NULL;
    rf_session *session = prompted_session(f, 8);
    const float *logits = NULL;
    size_t n = 0;
    CHECK_OK(rf_session_logits(session, &logits, &n, &err));
    float before = logits[17];
    rf_token tokens[5] = {260, 260, 260, 260, 260};
    CHECK_FAILS(RF_E_CONTEXT_FULL, rf_session_decode(session, tokens, 5, &err));
    CHECK_CONTAINS(rf_error_message(err), "4 of 8");
    rf_error_free(err);
    tokens[1] = N_VOCAB;
    CHECK_FAILS(RF_E_ARGUMENT, rf_session_decode(session, tokens, 2, &err));
    CHECK_CONTAINS(rf_error_message(err), "267");
    rf_error_free(err);
    CHECK_CALL(RF_E_ARGUMENT, rf_session_decode(session, tokens, 0, &err));
    CHECK(used(session) == 4);
    CHECK_OK(rf_session_logits(session, &logits, &n, &err));
    CHECK(logits[17] == before);
    tokens[1] = 260;
    CHECK_OK(rf_session_decode(session, tokens, 4, &err));
    CHECK(used(session) == 8);
    rf_session_free(session);
}

static void test_cancel(const fixture *f) {
    rf_error *err = NULL;
    rf_cancel_token *cancel = NULL;
    rf_session *session = NULL;
    CHECK_OK(rf_cancel_token_create(&cancel, &err));
    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.cancel = cancel;
    CHECK_OK(rf_session_create(f->model, &options, &session, &err));
    const rf_token tokens[] = {BOS, 260, 261};
    rf_cancel_token_cancel(cancel);
    CHECK_CALL(RF_CANCELLED, rf_session_decode(session, tokens, 3, &err));
    CHECK(used(session) == 0);
    rf_cancel_token_reset(cancel);
    CHECK_OK(rf_session_decode(session, tokens, 3, &err));
    rf_piece piece = RF_PIECE_INIT;
    CHECK_OK(rf_session_next(session, &piece, &err));
    rf_cancel_token_cancel(cancel);
    CHECK_CALL(RF_CANCELLED, rf_session_next(session, &piece, &err));
    CHECK(used(session) == 3); // the last committed token
    rf_cancel_token_reset(cancel);
    CHECK_CALL(RF_OK, rf_session_next(session, &piece, &err));
    rf_cancel_token_cancel(cancel);
    rf_cancel_token_free(cancel); // the session keeps what it needs of it
    CHECK_CALL(RF_CANCELLED, rf_session_decode(session, tokens, 3, &err));
    rf_session_free(session);
}

// A batch gives each session what a call of its own gives it, and refuses as a whole.
static void test_batch(const fixture *f) {
    enum { N = 3 };
    rf_error *err = NULL;
    rf_session *sessions[N], *alone = prompted_session(f, 0);
    for (int i = 0; i < N; i++) sessions[i] = prompted_session(f, i == 2 ? 6 : 0);
    const rf_token tokens[N] = {260, 261, 262}, wrong[N] = {260, N_VOCAB, 262};
    const float *logits = NULL, *single = NULL;
    size_t n = 0;
    CHECK_OK(rf_sessions_decode(sessions, tokens, N, &err));
    CHECK_OK(rf_session_decode(alone, tokens + 1, 1, &err));
    CHECK_OK(rf_session_logits(sessions[1], &logits, &n, &err));
    CHECK_OK(rf_session_logits(alone, &single, &n, &err));
    float worst = 0.0f;
    for (size_t i = 0; i < n; i++) worst = fmaxf(worst, fabsf(logits[i] - single[i]));
    CHECK(n == N_VOCAB && worst < 1e-4f);
    for (int i = 0; i < N; i++) CHECK(used(sessions[i]) == 5);

    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(sessions, wrong, N, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(sessions, tokens, 0, &err));
    rf_session *twice[2] = {sessions[0], sessions[0]};
    CHECK_CALL(RF_E_BUSY, rf_sessions_decode(twice, tokens, 2, &err));
    for (int i = 0; i < N; i++) CHECK(used(sessions[i]) == 5);

    // Generations go on together: each has returned a token that is due.
    rf_generate_options options = RF_GENERATE_OPTIONS_INIT;
    options.flags = RF_GENERATE_IGNORE_END;
    rf_piece piece = RF_PIECE_INIT;
    for (int i = 0; i < N; i++) {
        CHECK_OK(rf_session_begin(sessions[i], &options, &err));
        CHECK_OK(rf_session_next(sessions[i], &piece, &err));
        CHECK(used(sessions[i]) == 5);
    }
    CHECK_OK(rf_sessions_decode(sessions, NULL, N, &err));
    for (int i = 0; i < N; i++) CHECK(used(sessions[i]) == 6);
    CHECK_FAILS(RF_E_CONTEXT_FULL, rf_sessions_decode(sessions, tokens, N, &err)); // the third has room for six
    CHECK_CONTAINS(rf_error_message(err), "6 of 6");
    rf_error_free(err);
    err = NULL;
    for (int i = 0; i < N; i++) CHECK(used(sessions[i]) == 6);
    for (int i = 0; i < N; i++) rf_session_free(sessions[i]);
    rf_session_free(alone);
}

void test_session(const fixture *f) {
    test_create(f);
    test_decode(f);
    test_contents(f);
    test_refusals(f);
    test_batch(f);
    test_cancel(f);
}

// rf_session_begin, _next and _generate: both forms, and each way to end.
#include "harness.h"

#include <stdio.h>

typedef struct {
    char text[4096];
    rf_token tokens[CONTEXT];
    size_t n_tokens;
    rf_status status;
    int32_t finish;
} answer;

static void add_piece(answer *a, const rf_piece *piece) {
    CHECK(piece->text != NULL && strlen(piece->text) == piece->text_len);
    CHECK(strlen(a->text) + piece->text_len < sizeof a->text);
    strcat(a->text, piece->text);
    if (piece->has_token && a->n_tokens < CONTEXT) a->tokens[a->n_tokens++] = piece->token;
    a->finish = piece->finish;
}

static rf_generate_options greedy_options(const rf_sampler *greedy, uint32_t max_tokens) {
    rf_generate_options options = RF_GENERATE_OPTIONS_INIT;
    options.flags = RF_GENERATE_IGNORE_END;
    options.sampler = greedy;
    options.max_tokens = max_tokens;
    return options;
}

static answer pull(rf_session *session, const rf_generate_options *options) {
    rf_error *err = NULL;
    answer a = {.text = ""};
    CHECK_OK(rf_session_begin(session, options, &err));
    do {
        rf_piece piece = RF_PIECE_INIT;
        a.status = rf_session_next(session, &piece, &err);
        add_piece(&a, &piece);
    } while (a.status == RF_OK);
    CHECK((a.status < 0) == (err != NULL));
    rf_error_free(err);
    return a;
}

typedef struct {
    answer a;
    rf_session *session;
    size_t stop_after; // pieces; 0: never
} listener;

static int32_t on_piece(void *user_data, const rf_piece *piece) {
    listener *l = user_data;
    add_piece(&l->a, piece);
    // The session is at work: whoever calls it now is refused.
    rf_error *err = NULL;
    size_t n = 9;
    rf_piece inner = RF_PIECE_INIT;
    CHECK_CALL(RF_E_BUSY, rf_session_usage(l->session, &n, NULL, &err));
    CHECK_CALL(RF_E_BUSY, rf_session_next(l->session, &inner, &err));
    return l->stop_after != 0 && l->a.n_tokens == l->stop_after ? 1 : RF_CONTINUE;
}

static answer push(rf_session *session, rf_generate_options options, size_t stop_after) {
    rf_error *err = NULL;
    listener l = {.session = session, .stop_after = stop_after};
    options.on_piece = on_piece;
    options.piece_user_data = &l;
    l.a.status = rf_session_generate(session, &options, &err);
    CHECK((l.a.status < 0) == (err != NULL));
    rf_error_free(err);
    return l.a;
}

static void test_both_forms(const fixture *f, const rf_sampler *greedy) {
    rf_error *err = NULL;
    rf_session *session = prompted_session(f, 0);
    rf_generate_options options = greedy_options(greedy, 12);
    answer pulled = pull(session, &options);
    CHECK(pulled.status == RF_DONE && pulled.finish == RF_FINISH_MAX_TOKENS && pulled.n_tokens == 12);
    rf_piece piece = RF_PIECE_INIT;
    CHECK_CALL(RF_DONE, rf_session_next(session, &piece, &err)); // the end stays the end
    CHECK(!piece.has_token && piece.text_len == 0);

    CHECK_OK(rf_session_rewind(session, 3, &err));
    const rf_token last = 262;
    CHECK_OK(rf_session_decode(session, &last, 1, &err));
    answer pushed = push(session, options, 0);
    CHECK(pushed.status == RF_DONE && pushed.n_tokens == 12);
    CHECK(memcmp(pushed.tokens, pulled.tokens, 12 * sizeof *pulled.tokens) == 0);
    CHECK_TEXT(pushed.text, pulled.text);
    rf_session_free(session);

    // A callback that stops the generation, which then goes on in the pull form.
    session = prompted_session(f, 0);
    answer begun = push(session, options, 5);
    CHECK(begun.status == RF_CANCELLED && begun.n_tokens == 5);
    rf_status status;
    do {
        status = rf_session_next(session, &piece, &err);
        add_piece(&begun, &piece);
    } while (status == RF_OK);
    CHECK(status == RF_DONE && err == NULL);
    CHECK(begun.n_tokens == 12 && memcmp(begun.tokens, pulled.tokens, 12 * sizeof *pulled.tokens) == 0);
    rf_session_free(session);
}

static void test_stops(const fixture *f, const rf_sampler *greedy) {
    rf_session *session = prompted_session(f, 0);
    rf_generate_options options = greedy_options(greedy, 12);
    answer whole = pull(session, &options);
    rf_session_free(session);
    const rf_token stop_token = whole.tokens[4];
    size_t before = 0;
    while (whole.tokens[before] != stop_token) before++;
    options.stop_tokens = &stop_token;
    options.n_stop_tokens = 1;
    session = prompted_session(f, 0);
    answer stopped = pull(session, &options);
    CHECK(stopped.status == RF_DONE && stopped.finish == RF_FINISH_END_TOKEN && stopped.n_tokens == before + 1);
    rf_session_free(session);

    // A stop string of the text's own, across the boundaries of tokens.
    size_t length = strlen(whole.text);
    CHECK(length >= 6);
    char stop[5] = "";
    memcpy(stop, whole.text + length / 2, length >= 6 ? 3 : 0);
    const char *stops[] = {"never in the text", stop};
    options = greedy_options(greedy, 12);
    options.stop_strings = stops;
    options.n_stop_strings = 2;
    session = prompted_session(f, 0);
    stopped = pull(session, &options);
    CHECK(stopped.finish == RF_FINISH_STOP_STRING);
    size_t kept = (size_t)(strstr(whole.text, stop) - whole.text);
    CHECK(strlen(stopped.text) == kept && strncmp(stopped.text, whole.text, kept) == 0);
    rf_session_free(session);
}

static void test_full(const fixture *f, const rf_sampler *greedy) {
    rf_session *session = prompted_session(f, 8);
    rf_generate_options options = greedy_options(greedy, 0);
    answer a = pull(session, &options);
    CHECK(a.status == RF_E_CONTEXT_FULL && a.n_tokens == 5); // four in the context, and one that needs no room
    rf_session_free(session);
    session = prompted_session(f, 8);
    options.flags |= RF_GENERATE_STOP_WHEN_FULL;
    a = pull(session, &options);
    CHECK(a.status == RF_FULL && a.finish == RF_FINISH_FULL && a.n_tokens == 5);
    rf_session_free(session);
}

static void test_end_token(const fixture *f) {
    rf_error *err = NULL;
    rf_sampler *sampler = NULL;
    const rf_logit_bias bias = {EOS, 1000.0f};
    rf_sampler_options sampling = RF_SAMPLER_OPTIONS_INIT;
    sampling.logit_bias = &bias;
    sampling.n_logit_bias = 1;
    CHECK_OK(rf_sampler_create(&sampling, &sampler, &err));
    rf_session *session = prompted_session(f, 0);
    rf_generate_options options = RF_GENERATE_OPTIONS_INIT;
    options.sampler = sampler;
    answer a = pull(session, &options);
    CHECK(a.status == RF_DONE && a.finish == RF_FINISH_END_TOKEN && a.n_tokens == 1 && a.tokens[0] == EOS);
    CHECK_TEXT(a.text, "");
    options.flags = RF_GENERATE_IGNORE_END | RF_GENERATE_SPECIAL;
    options.max_tokens = 2;
    CHECK_OK(rf_session_begin(session, &options, &err));
    rf_sampler_free(sampler); // the generation keeps what it needs of it
    rf_piece piece = RF_PIECE_INIT;
    CHECK_CALL(RF_OK, rf_session_next(session, &piece, &err));
    CHECK_TEXT(piece.text, "</s>");
    rf_session_free(session);
}

static void test_refusals(const fixture *f) {
    rf_error *err = NULL;
    rf_session *session = NULL;
    CHECK_OK(rf_session_create(f->model, NULL, &session, &err));
    rf_piece piece = RF_PIECE_INIT;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_next(session, &piece, &err)); // nothing was decoded
    CHECK_TEXT(piece.text, "");
    rf_generate_options options = RF_GENERATE_OPTIONS_INIT;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_generate(session, &options, &err)); // no callback
    CHECK_CALL(RF_E_ARGUMENT, rf_session_generate(session, NULL, &err));
    const rf_token unknown = N_VOCAB;
    options.stop_tokens = &unknown;
    options.n_stop_tokens = 1;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_begin(session, &options, &err));
    options.stop_tokens = NULL;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_begin(session, &options, &err));
    options.n_stop_tokens = 0;
    const char *stops[] = {NULL};
    options.stop_strings = stops;
    options.n_stop_strings = 1;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_begin(session, &options, &err));
    stops[0] = "\xff";
    CHECK_CALL(RF_E_ARGUMENT, rf_session_begin(session, &options, &err));
    options.n_stop_strings = 0;
    options.flags = 1u << 31;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_session_begin(session, &options, &err));
    piece.struct_size = 0;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_next(session, &piece, &err));
    rf_session_free(session);
}

void test_generate(const fixture *f) {
    rf_error *err = NULL;
    rf_sampler *greedy = NULL;
    rf_sampler_options options = RF_SAMPLER_OPTIONS_INIT;
    options.flags = RF_SAMPLER_GREEDY;
    CHECK_OK(rf_sampler_create(&options, &greedy, &err));
    test_both_forms(f, greedy);
    test_stops(f, greedy);
    test_full(f, greedy);
    test_end_token(f);
    test_refusals(f);
    rf_sampler_free(greedy);
}

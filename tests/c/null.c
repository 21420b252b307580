// NULL for every pointer of every function: an error where the header asks for an object, nothing where it allows NULL,
// and outputs that are cleared before the call fails.
#include "harness.h"

static void test_free(void) {
    rf_engine_free(NULL);
    rf_model_free(NULL);
    rf_session_free(NULL);
    rf_sampler_free(NULL);
    rf_cancel_token_free(NULL);
    rf_error_free(NULL);
    rf_cancel_token_cancel(NULL);
    rf_cancel_token_reset(NULL);
    CHECK(rf_engine_threads(NULL) == 0);
    CHECK(rf_engine_isa(NULL) == 0);
    CHECK(rf_engine_device_count(NULL) == 0);
    CHECK(rf_model_metadata_count(NULL) == 0);
    CHECK(rf_model_is_end_token(NULL, EOS) == 0);
}

static void test_makers(const fixture *f) {
    rf_error *err = NULL;
    rf_model *model = STALE;
    rf_session *session = STALE;
    rf_reader reader = RF_READER_INIT;
    rf_device_info device = RF_DEVICE_INFO_INIT;
    rf_memory_estimate estimate = RF_MEMORY_ESTIMATE_INIT;
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_device_info(NULL, 0, &device, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_device_info(f->engine, 0, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_estimate(NULL, f->path, RF_STRLEN, 0, &estimate, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_estimate(f->engine, NULL, RF_STRLEN, 0, &estimate, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_estimate(f->engine, f->path, RF_STRLEN, 0, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_create(NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_sampler_create(NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_cancel_token_create(NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(NULL, f->path, RF_STRLEN, NULL, &model, &err));
    CHECK(model == NULL);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, NULL, RF_STRLEN, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, NULL, 0, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, RF_STRLEN, NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_memory(NULL, "x", 1, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_memory(f->engine, NULL, 1, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_memory(f->engine, "x", 1, NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_reader(NULL, &reader, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_reader(f->engine, NULL, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_reader(f->engine, &reader, NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_create(NULL, NULL, &session, &err));
    CHECK(session == NULL);
    CHECK_CALL(RF_E_ARGUMENT, rf_session_create(f->model, NULL, NULL, &err));
}

static void test_texts(const rf_model *m) {
    rf_error *err = NULL;
    char text[64];
    size_t n;
    rf_token token = EOS;
    rf_model_info info = RF_MODEL_INFO_INIT;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_get_info(NULL, &info, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_get_info(m, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_special_token(NULL, RF_TOKEN_BOS, &token, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_special_token(m, RF_TOKEN_BOS, NULL, &err));
    token = EOS;

// A call that writes a text: without its model it clears `n`; without a buffer and a length there is nothing to do.
#define CHECK_WRITER(call_of)                                                                                        \
    do {                                                                                                             \
        n = 9;                                                                                                       \
        CHECK_CALL(RF_E_ARGUMENT, call_of(NULL, text, sizeof text, &n));                                             \
        CHECK(n == 0);                                                                                               \
        CHECK_CALL(RF_E_ARGUMENT, call_of(m, NULL, 0, NULL));                                                        \
        CHECK_OK(call_of(m, NULL, 0, &n));                                                                           \
        CHECK(n > 0);                                                                                                \
    } while (0)
#define KEY(model, buffer, capacity, needed) rf_model_metadata_key(model, 0, buffer, capacity, needed, &err)
#define VALUE(model, buffer, capacity, needed) \
    rf_model_metadata_value(model, "general.name", RF_STRLEN, buffer, capacity, needed, &err)
#define DETOKENIZE(model, buffer, capacity, needed) \
    rf_model_detokenize(model, &token, 1, RF_TOKENIZE_SPECIAL, buffer, capacity, needed, &err)
#define TOKEN(model, buffer, capacity, needed) rf_model_token_text(model, EOS, buffer, capacity, needed, &err)
#define FORMAT(model, buffer, capacity, needed) \
    rf_model_format_chat(model, "[]", RF_STRLEN, NULL, buffer, capacity, needed, &err)
#define TEMPLATE(model, buffer, capacity, needed) rf_model_chat_template(model, buffer, capacity, needed, &err)
    CHECK_WRITER(KEY);
    CHECK_WRITER(VALUE);
    CHECK_WRITER(DETOKENIZE);
    CHECK_WRITER(TOKEN);
    CHECK_WRITER(FORMAT);
    CHECK_WRITER(TEMPLATE);

    n = 9;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_metadata_value(m, NULL, RF_STRLEN, text, sizeof text, &n, &err));
    CHECK(n == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_detokenize(m, NULL, 1, 0, text, sizeof text, &n, &err));
    CHECK_OK(rf_model_detokenize(m, NULL, 0, 0, text, sizeof text, &n, &err)); // no token, no text
    CHECK_TEXT(text, "");
    CHECK_CALL(RF_E_ARGUMENT, rf_model_format_chat(m, NULL, RF_STRLEN, NULL, text, sizeof text, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_tokenize(NULL, "a", 1, 0, &token, 1, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_tokenize(m, NULL, RF_STRLEN, 0, &token, 1, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_tokenize(m, NULL, 1, 0, &token, 1, &n, &err));
    CHECK_OK(rf_model_tokenize(m, NULL, 0, 0, &token, 1, &n, &err)); // an empty text
    CHECK(n == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_tokenize(m, "a", 1, 0, &token, 1, NULL, &err));
}

static void test_session_calls(const fixture *f) {
    rf_error *err = NULL;
    rf_session *s = prompted_session(f, 0);
    rf_token token = BOS;
    const rf_token *tokens = STALE;
    const float *logits = STALE;
    size_t n = 9, capacity = 9;
    rf_piece piece = RF_PIECE_INIT;
    rf_session_stats stats = RF_SESSION_STATS_INIT;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_decode(NULL, &token, 1, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_decode(s, NULL, 1, &err));
    rf_session *none = NULL;
    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(NULL, &token, 1, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(NULL, NULL, 1, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(&none, &token, 1, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_sessions_decode(NULL, NULL, 0, &err));
    CHECK_OK(rf_sessions_decode(&s, NULL, 1, &err)); // no token is due
    CHECK_CALL(RF_E_ARGUMENT, rf_session_logits(NULL, &logits, &n, &err));
    CHECK(logits == NULL && n == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_session_logits(s, NULL, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_logits(s, &logits, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_sample(NULL, NULL, &token, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_sample(s, NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_begin(NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_next(NULL, &piece, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_next(s, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_generate(NULL, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_rewind(NULL, 0, &err));
    n = 9;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_usage(NULL, &n, &capacity, &err));
    CHECK(n == 0 && capacity == 0);
    CHECK_OK(rf_session_usage(s, NULL, NULL, &err));
    n = 9;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_tokens(NULL, &tokens, &n, &err));
    CHECK(tokens == NULL && n == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_session_tokens(s, NULL, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_tokens(s, &tokens, NULL, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_get_stats(NULL, &stats, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_session_get_stats(s, NULL, &err));
    // None of it harmed the session.
    CHECK_OK(rf_session_usage(s, &n, NULL, &err));
    CHECK(n == 4);
    rf_session_free(s);
}

void test_null(const fixture *f) {
    test_free();
    test_makers(f);
    test_texts(f->model);
    test_session_calls(f);
}

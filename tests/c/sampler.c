// rf_sampler_*, rf_session_sample.
#include "harness.h"

#include <math.h>

// The first `n` tokens that a sampler draws from one and the same logits.
static void draw(rf_session *session, const rf_sampler *sampler, rf_token *tokens, size_t n) {
    rf_error *err = NULL;
    for (size_t i = 0; i < n; i++) CHECK_OK(rf_session_sample(session, sampler, &tokens[i], &err));
}

static rf_token likeliest(const rf_session *session) {
    rf_error *err = NULL;
    const float *logits = NULL;
    size_t n = 0;
    CHECK_OK(rf_session_logits(session, &logits, &n, &err));
    rf_token best = 0;
    for (size_t i = 1; i < n; i++) best = logits[i] > logits[best] ? (rf_token)i : best;
    return best;
}

static void test_greedy_and_bias(const fixture *f) {
    rf_error *err = NULL;
    rf_sampler *sampler = NULL;
    rf_session *session = prompted_session(f, 0);
    rf_token best = likeliest(session), token = 0;
    rf_sampler_options options = RF_SAMPLER_OPTIONS_INIT;
    options.flags = RF_SAMPLER_GREEDY;
    CHECK_OK(rf_sampler_create(&options, &sampler, &err));
    CHECK_OK(rf_session_sample(session, sampler, &token, &err));
    CHECK(token == best);
    rf_sampler_free(sampler);

    rf_logit_bias bias[] = {{best, -INFINITY}, {5, 1000.0f}};
    options.logit_bias = bias;
    options.n_logit_bias = 1;
    CHECK_OK(rf_sampler_create(&options, &sampler, &err));
    CHECK_OK(rf_session_sample(session, sampler, &token, &err));
    CHECK(token != best);
    rf_sampler_free(sampler);
    options.n_logit_bias = 2;
    CHECK_OK(rf_sampler_create(&options, &sampler, &err));
    bias[1].token = 6; // the list was copied
    CHECK_OK(rf_session_sample(session, sampler, &token, &err));
    CHECK(token == 5);
    rf_sampler_free(sampler);

    bias[1].token = N_VOCAB;
    CHECK_OK(rf_sampler_create(&options, &sampler, &err)); // it does not know a model yet
    token = 99;
    CHECK_CALL(RF_E_ARGUMENT, rf_session_sample(session, sampler, &token, &err));
    CHECK(token == 0);
    rf_sampler_free(sampler);
    rf_session_free(session);
}

static void test_seed(const fixture *f) {
    enum { N = 24 };
    rf_error *err = NULL;
    rf_sampler *sampler = NULL, *other = NULL;
    rf_sampler_options options = RF_SAMPLER_OPTIONS_INIT;
    options.temperature = 1.5f;
    options.top_k = -1;
    options.top_p = 1.0f;
    options.min_p = -1.0f;
    options.seed = 7;
    CHECK_OK(rf_sampler_create(&options, &sampler, &err));
    options.seed = 8;
    CHECK_OK(rf_sampler_create(&options, &other, &err));
    rf_session *a = prompted_session(f, 0), *b = prompted_session(f, 0);
    rf_token from_a[N], from_b[N], from_other[N];
    draw(a, sampler, from_a, N);
    draw(b, sampler, from_b, N);
    CHECK(memcmp(from_a, from_b, sizeof from_a) == 0); // each session has its own random state
    draw(b, other, from_other, N);
    CHECK(memcmp(from_a, from_other, sizeof from_a) != 0);
    draw(a, NULL, from_a, N); // the default sampler
    rf_session_free(a);
    rf_session_free(b);
    rf_sampler_free(sampler);
    rf_sampler_free(other);
}

static void test_ranges(void) {
#define CHECK_REFUSED(field, value)                                                                                  \
    do {                                                                                                             \
        rf_error *err = NULL;                                                                                        \
        rf_sampler *sampler = STALE;                                                                                 \
        rf_sampler_options options = RF_SAMPLER_OPTIONS_INIT;                                                        \
        options.field = value;                                                                                       \
        CHECK_FAILS(RF_E_ARGUMENT, rf_sampler_create(&options, &sampler, &err));                                     \
        CHECK_CONTAINS(rf_error_message(err), #field);                                                               \
        CHECK(sampler == NULL);                                                                                      \
        rf_error_free(err);                                                                                          \
    } while (0)
    CHECK_REFUSED(temperature, -0.5f);
    CHECK_REFUSED(temperature, NAN);
    CHECK_REFUSED(temperature, INFINITY);
    CHECK_REFUSED(top_p, 1.5f);
    CHECK_REFUSED(top_p, -0.5f);
    CHECK_REFUSED(min_p, 1.5f);
    CHECK_REFUSED(min_p, NAN);
    CHECK_REFUSED(typical_p, 2.0f);
    CHECK_REFUSED(repetition_penalty, -1.0f);
    CHECK_REFUSED(presence_penalty, 101.0f);
    CHECK_REFUSED(frequency_penalty, NAN);
#undef CHECK_REFUSED
    rf_error *err = NULL;
    rf_sampler *sampler = NULL;
    rf_sampler_options options = RF_SAMPLER_OPTIONS_INIT;
    options.n_logit_bias = 1; // of no list
    CHECK_CALL(RF_E_ARGUMENT, rf_sampler_create(&options, &sampler, &err));
    options.flags = 1u << 31;
    options.n_logit_bias = 0;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_sampler_create(&options, &sampler, &err));
}

void test_sampler(const fixture *f) {
    test_greedy_and_bias(f);
    test_seed(f);
    test_ranges();
}

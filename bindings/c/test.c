// The C face as an installed program meets it: test MODEL.gguf FOLDER, where FOLDER may be written to.
#define _POSIX_C_SOURCE 200809L
#include <rocmforge.h>

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) ((condition) ? (void)0 : fail(__LINE__, #condition, NULL))
#define CHECK_OK(call) check_ok(__LINE__, #call, (call), &err)

enum { ANSWER = 24 };
static const char MESSAGES[] = "[{\"role\": \"user\", \"content\": \"In which city is the Eiffel Tower?\"}]";

static void fail(int line, const char *what, const char *why) {
    fprintf(stderr, "test.c:%d: %s: %s\n", line, what, why ? why : "does not hold");
    exit(1);
}

static void check_ok(int line, const char *what, rf_status status, rf_error **err) {
    if (status != RF_OK) fail(line, what, *err ? rf_error_message(*err) : rf_status_name(status));
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static rf_engine *new_engine(void) {
    rf_error *err;
    rf_engine *engine;
    CHECK_OK(rf_engine_create(NULL, &engine, &err));
    return engine;
}

static rf_model *load(const rf_engine *engine, const char *path, uint32_t flags) {
    rf_error *err;
    rf_model *model;
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.flags = flags;
    CHECK_OK(rf_model_load(engine, path, RF_STRLEN, &options, &model, &err));
    return model;
}

// A session that holds the prompt, and is about to answer greedily, at most `max_tokens` long.
static rf_session *prompted(const rf_model *model, const rf_cancel_token *cancel, uint32_t max_tokens) {
    rf_error *err;
    rf_session *session;
    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.context = 2048;
    options.cancel = cancel;
    CHECK_OK(rf_session_create(model, &options, &session, &err));
    char prompt[4096];
    size_t length, n;
    CHECK_OK(rf_model_format_chat(model, MESSAGES, RF_STRLEN, NULL, prompt, sizeof prompt, &length, &err));
    rf_token tokens[512];
    const uint32_t flags = RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL;
    CHECK_OK(rf_model_tokenize(model, prompt, length, flags, tokens, 512, &n, &err));
    CHECK_OK(rf_session_decode(session, tokens, n, &err));

    rf_sampler *sampler;
    rf_sampler_options greedy = RF_SAMPLER_OPTIONS_INIT;
    greedy.flags = RF_SAMPLER_GREEDY;
    CHECK_OK(rf_sampler_create(&greedy, &sampler, &err));
    rf_generate_options generate = RF_GENERATE_OPTIONS_INIT;
    generate.sampler = sampler;
    generate.max_tokens = max_tokens;
    generate.flags = RF_GENERATE_IGNORE_END;
    CHECK_OK(rf_session_begin(session, &generate, &err));
    rf_sampler_free(sampler);
    return session;
}

// Streams the answer to `text`; the status that ended it.
static rf_status stream(rf_session *session, char *text, size_t capacity) {
    rf_piece piece = RF_PIECE_INIT;
    rf_status status;
    size_t length = strlen(text);
    do {
        rf_error *err;
        status = rf_session_next(session, &piece, &err);
        if (status < 0) fail(__LINE__, "rf_session_next", rf_error_message(err));
        if (status == RF_CANCELLED) break;
        CHECK(length + piece.text_len < capacity);
        memcpy(text + length, piece.text, piece.text_len + 1);
        length += piece.text_len;
    } while (status == RF_OK);
    return status;
}

static void test_damaged(const rf_engine *engine, const char *path, const char *folder) {
    char damaged[4096];
    static char bytes[1 << 20];
    snprintf(damaged, sizeof damaged, "%s/damaged.gguf", folder);
    FILE *in = fopen(path, "rb"), *out = fopen(damaged, "wb");
    CHECK(in && out && fread(bytes, 1, sizeof bytes, in) == sizeof bytes);
    CHECK(fwrite(bytes, 1, sizeof bytes, out) == sizeof bytes);
    fclose(in);
    CHECK(fclose(out) == 0);
    rf_error *err = NULL;
    rf_model *model = NULL;
    CHECK(rf_model_load(engine, damaged, RF_STRLEN, NULL, &model, &err) == RF_E_FORMAT);
    CHECK(model == NULL && rf_error_status(err) == RF_E_FORMAT && strstr(rf_error_message(err), "damaged.gguf"));
    printf("damaged file: %s\n", rf_error_message(err));
    rf_error_free(err);
}

typedef struct {
    rf_cancel_token *token;
    double raised;
} canceller;

static void *cancel_soon(void *argument) {
    canceller *c = argument;
    const struct timespec pause = {.tv_nsec = 150 * 1000 * 1000};
    nanosleep(&pause, NULL);
    c->raised = milliseconds();
    rf_cancel_token_cancel(c->token);
    return NULL;
}

// The generation that was cancelled goes on where it was: both parts together are what one run gives.
static void test_cancel(const rf_model *model) {
    enum { LONG = 1500, SIZE = 65536 };
    rf_error *err;
    canceller c;
    CHECK_OK(rf_cancel_token_create(&c.token, &err));
    rf_session *session = prompted(model, c.token, LONG);
    static char cancelled[SIZE], whole[SIZE];
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_soon, &c) == 0);
    CHECK(stream(session, cancelled, SIZE) == RF_CANCELLED);
    const double returned = milliseconds();
    CHECK(pthread_join(thread, NULL) == 0);
    printf("cancel: returned after %.2f ms, %zu bytes streamed\n", returned - c.raised, strlen(cancelled));
    CHECK(returned - c.raised < 100 && strlen(cancelled) > 0);
    rf_cancel_token_reset(c.token);
    rf_piece piece = RF_PIECE_INIT;
    for (int i = 0; i < ANSWER; i++) {
        CHECK_OK(rf_session_next(session, &piece, &err));
        strncat(cancelled, piece.text, SIZE - strlen(cancelled) - 1);
    }
    rf_session *other = prompted(model, NULL, LONG);
    while (strlen(whole) < strlen(cancelled)) {
        CHECK_OK(rf_session_next(other, &piece, &err));
        strncat(whole, piece.text, SIZE - strlen(whole) - 1);
    }
    CHECK(strcmp(whole, cancelled) == 0);
    rf_session_free(other);
    rf_session_free(session);
    rf_cancel_token_free(c.token);
}

typedef struct {
    const rf_model *model;
    char text[4096];
} worker;

static void *answer(void *argument) {
    worker *w = argument;
    rf_session *session = prompted(w->model, NULL, ANSWER);
    CHECK(stream(session, w->text, sizeof w->text) == RF_DONE);
    rf_session_free(session);
    return NULL;
}

static void test_threads(const rf_model *model) {
    worker workers[3] = {{.model = model}, {.model = model}, {.model = model}};
    answer(&workers[2]);
    CHECK(strstr(workers[2].text, "Paris"));
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, answer, &workers[i]) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 2; i++) CHECK(strcmp(workers[i].text, workers[2].text) == 0);
    printf("two threads on one model: the text of one alone\n");
}

// Without what malloc keeps for later, which comes and goes by some MiB.
static long resident_kib(void) {
    malloc_trim(0);
    long pages = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld %ld", &pages, &resident) == 2);
    fclose(statm);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

// Everything made and freed, in an order that is not the natural one.
static void test_cycles(const char *path) {
    long after_20 = 0;
    for (int i = 1; i <= 100; i++) {
        rf_engine *engine = new_engine();
        rf_model *model = load(engine, path, RF_LOAD_MMAP);
        rf_error *err;
        rf_session *session;
        CHECK_OK(rf_session_create(model, NULL, &session, &err));
        rf_engine_free(engine);
        rf_model_free(model);
        const rf_token tokens[] = {504, 3575};
        CHECK_OK(rf_session_decode(session, tokens, 2, &err));
        rf_piece piece = RF_PIECE_INIT;
        CHECK_OK(rf_session_next(session, &piece, &err));
        rf_session_free(session);
        if (i == 20) after_20 = resident_kib();
    }
    const long growth = resident_kib() - after_20;
    printf("100 cycles: %+ld KiB resident from the 20th to the 100th\n", growth);
    CHECK(growth < 2048);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    CHECK(rf_abi_compatible(RF_ABI_VERSION));
    test_cycles(argv[1]); // first, while the process holds nothing that it could give back meanwhile
    rf_engine *engine = new_engine();
    rf_model *model = load(engine, argv[1], 0);
    rf_session *session = prompted(model, NULL, ANSWER);
    char text[4096] = "";
    CHECK(stream(session, text, sizeof text) == RF_DONE && strstr(text, "Paris"));
    rf_session_free(session);
    test_damaged(engine, argv[1], argv[2]);
    test_cancel(model);
    test_threads(model);
    rf_model_free(model);
    rf_engine_free(engine);
    return 0;
}

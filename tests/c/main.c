// The C harness: every function of rocmforge.h as a C program calls it. `harness MODEL` returns 0 if all checks pass.
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>

static int n_checks, n_failed;

void check(int passed, const char *what, const char *file, int line) {
    n_checks++;
    if (passed) return;
    n_failed++;
    fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

void check_status(rf_status found, rf_status expected, rf_error **err, const char *what, const char *file, int line) {
    check(found == expected, what, file, line);
    if (found != expected) {
        fprintf(stderr, "    %s, expected %s: %s\n", rf_status_name(found), rf_status_name(expected),
                rf_error_message(*err));
    }
    check((found < 0) == (*err != NULL), "an error object, exactly if the status is negative", file, line);
    check(rf_error_status(*err) == (*err ? found : RF_OK), "the error's status is the call's", file, line);
    check((found < 0) == (rf_error_message(*err)[0] != '\0'), "a message, exactly if there is an error", file, line);
}

void check_text(const char *found, const char *expected, const char *what, const char *file, int line) {
    int same = strcmp(found, expected) == 0;
    check(same, what, file, line);
    if (!same) fprintf(stderr, "    \"%s\", expected \"%s\"\n", found, expected);
}

void check_contains(const char *text, const char *part, const char *what, const char *file, int line) {
    int there = strstr(text, part) != NULL;
    check(there, what, file, line);
    if (!there) fprintf(stderr, "    \"%s\" lacks \"%s\"\n", text, part);
}

rf_session *prompted_session(const fixture *f, uint32_t context) {
    rf_error *err = NULL;
    rf_session *session = NULL;
    rf_session_options options = RF_SESSION_OPTIONS_INIT;
    options.context = context;
    CHECK_OK(rf_session_create(f->model, &options, &session, &err));
    const rf_token prompt[] = {BOS, 260, 261, 262};
    CHECK_OK(rf_session_decode(session, prompt, 4, &err));
    return session;
}

char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) exit(2);
    *n = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*n);
    if (!bytes || fread(bytes, 1, *n, file) != *n) exit(2);
    fclose(file);
    return bytes;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL\n", argv[0]);
        return 2;
    }
    fixture f = {.path = argv[1]};
    rf_error *err = NULL;
    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    options.threads = 2;
    CHECK_OK(rf_engine_create(&options, &f.engine, &err));
    CHECK_OK(rf_model_load(f.engine, f.path, RF_STRLEN, NULL, &f.model, &err));
    if (!f.model) return 1;
    static void (*const tests[])(const fixture *) = {
        test_version, test_engine,  test_model,    test_metadata, test_tokenize, test_chat,
        test_sampler, test_session, test_generate, test_errors,   test_null,     test_threads,
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tests[i](&f);
    rf_model_free(f.model);
    rf_engine_free(f.engine);
    printf("%d checks, %d failed\n", n_checks, n_failed);
    return n_failed != 0;
}

// What every test file shares: the checks, and the fixture that main.c makes.
#ifndef HARNESS_H
#define HARNESS_H

#include <rocmforge.h>
#include <string.h>

// Counts a check; prints it, with what was found, if it fails. The rest of the test goes on.
void check(int passed, const char *what, const char *file, int line);
void check_status(rf_status found, rf_status expected, rf_error **err, const char *what, const char *file, int line);
void check_text(const char *found, const char *expected, const char *what, const char *file, int line);
void check_contains(const char *text, const char *part, const char *what, const char *file, int line);

#define CHECK(condition) check((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_TEXT(found, expected) check_text(found, expected, #found, __FILE__, __LINE__)
#define CHECK_CONTAINS(text, part) check_contains(text, part, #text, __FILE__, __LINE__)

// A call whose last argument is `&err`: its status is the expected one, an error is there exactly if that is negative,
// agrees with it and says something. CHECK_CALL frees it; CHECK_FAILS leaves it in `err` for a look at its message.
#define CHECK_FAILS(expected, call) check_status(call, expected, &err, #call, __FILE__, __LINE__)
#define CHECK_CALL(expected, call) (CHECK_FAILS(expected, call), rf_error_free(err), err = NULL)
#define CHECK_OK(call) CHECK_CALL(RF_OK, call)

// What an output holds before a call, so that a call that leaves it alone is seen.
#define STALE ((void *)(uintptr_t)0x5a5a5a58)

typedef struct {
    const char *path; // a tiny model of the llama architecture, with random weights (tests/common/tiny.rs)
    rf_engine *engine;
    rf_model *model;
} fixture;

// What is known of that model.
enum { N_VOCAB = 267, CONTEXT = 128, BOS = 1, EOS = 2 };

void test_version(const fixture *f);
void test_engine(const fixture *f);
void test_model(const fixture *f);
void test_metadata(const fixture *f);
void test_tokenize(const fixture *f);
void test_chat(const fixture *f);
void test_sampler(const fixture *f);
void test_session(const fixture *f);
void test_generate(const fixture *f);
void test_errors(const fixture *f);
void test_null(const fixture *f);
void test_threads(const fixture *f);

// A session on the fixture's model that holds a prompt of four tokens.
rf_session *prompted_session(const fixture *f, uint32_t context);

// The bytes of a file, in memory of the caller's.
char *read_file(const char *path, size_t *n);

#endif

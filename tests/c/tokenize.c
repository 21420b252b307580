// rf_model_tokenize, rf_model_detokenize, rf_model_token_text.
#include "harness.h"

static void test_there_and_back(const rf_model *model) {
    const char *texts[] = {"hello world", "", "the caf\xc3\xa9 \xf0\x9f\x8e\x89", "a\tb\n\nc", "<s> is no token here"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        rf_error *err = NULL;
        rf_token tokens[256];
        char back[256];
        size_t n, n_counted, length;
        CHECK_OK(rf_model_tokenize(model, texts[i], RF_STRLEN, 0, NULL, 0, &n_counted, &err));
        CHECK_OK(rf_model_tokenize(model, texts[i], strlen(texts[i]), 0, tokens, 256, &n, &err));
        CHECK(n == n_counted);
        CHECK_OK(rf_model_detokenize(model, tokens, n, 0, back, sizeof back, &length, &err));
        CHECK(length == strlen(back));
        // A SentencePiece vocabulary sets a space before a text's first word; it belongs to no one.
        CHECK_TEXT(back + (back[0] == ' '), texts[i]);
    }
}

static void test_flags(const rf_model *model) {
    rf_error *err = NULL;
    rf_token plain[32], tokens[32];
    size_t n_plain, n;
    CHECK_OK(rf_model_tokenize(model, "hello", RF_STRLEN, 0, plain, 32, &n_plain, &err));
    CHECK_OK(rf_model_tokenize(model, "hello", RF_STRLEN, RF_TOKENIZE_ADD_SPECIAL, tokens, 32, &n, &err));
    CHECK(n == n_plain + 1 && tokens[0] == BOS && tokens[1] == plain[0]);
    CHECK_OK(rf_model_tokenize(model, "</s>", RF_STRLEN, RF_TOKENIZE_SPECIAL, tokens, 32, &n, &err));
    CHECK(n == 1 && tokens[0] == EOS);
    // Without the flag a user's text cannot end a turn.
    CHECK_OK(rf_model_tokenize(model, "</s>", RF_STRLEN, 0, tokens, 32, &n, &err));
    for (size_t i = 0; i < n; i++) CHECK(tokens[i] != EOS);
    // A template that writes BOS itself gets no second one.
    uint32_t both = RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL;
    CHECK_OK(rf_model_tokenize(model, "<s>hello", RF_STRLEN, both, tokens, 32, &n, &err));
    CHECK(tokens[0] == BOS && tokens[1] != BOS);
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_tokenize(model, "a", 1, 1u << 31, tokens, 32, &n, &err));

    char text[32];
    const rf_token end[] = {EOS};
    CHECK_OK(rf_model_detokenize(model, end, 1, 0, text, sizeof text, NULL, &err));
    CHECK_TEXT(text, "");
    CHECK_OK(rf_model_detokenize(model, end, 1, RF_TOKENIZE_SPECIAL, text, sizeof text, NULL, &err));
    CHECK_TEXT(text, "</s>");
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_detokenize(model, end, 1, 1u << 31, text, sizeof text, NULL, &err));
}

static void test_refusals(const rf_model *model) {
    rf_error *err = NULL;
    rf_token tokens[4] = {77, 77, 77, 77};
    size_t n = 9;
    CHECK_CALL(RF_E_BUFFER, rf_model_tokenize(model, "hello world the a", RF_STRLEN, 0, tokens, 1, &n, &err));
    CHECK(n > 1 && tokens[0] == 77);
    CHECK_FAILS(RF_E_ARGUMENT, rf_model_tokenize(model, "ok\xff", RF_STRLEN, 0, tokens, 4, &n, &err));
    CHECK_CONTAINS(rf_error_message(err), "byte 2");
    rf_error_free(err);
    CHECK(n == 0);
    CHECK_OK(rf_model_tokenize(model, "a\0b", 3, 0, NULL, 0, &n, &err)); // a NUL is a character like any other
    CHECK(n >= 3);

    char text[8];
    const rf_token unknown[] = {N_VOCAB};
    CHECK_CALL(RF_E_ARGUMENT, rf_model_detokenize(model, unknown, 1, 0, text, sizeof text, &n, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_token_text(model, N_VOCAB, text, sizeof text, &n, &err));
    const rf_token half[] = {3 + 0xc3}; // the first byte of a two-byte character
    CHECK_OK(rf_model_detokenize(model, half, 1, 0, text, sizeof text, &n, &err));
    CHECK_TEXT(text, "\xef\xbf\xbd");
    CHECK_OK(rf_model_token_text(model, EOS, text, sizeof text, &n, &err));
    CHECK_TEXT(text, "</s>");
    CHECK(n == 4);
    CHECK_CALL(RF_E_BUFFER, rf_model_token_text(model, EOS, text, 4, &n, &err));
    CHECK(n == 4);
}

void test_tokenize(const fixture *f) {
    test_there_and_back(f->model);
    test_flags(f->model);
    test_refusals(f->model);
}

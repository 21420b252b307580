// rf_model_metadata_*, rf_model_special_token, rf_model_is_end_token.
#include "harness.h"

static void test_entries(const rf_model *model) {
    rf_error *err = NULL;
    char key[256], value[1024];
    size_t needed, count = rf_model_metadata_count(model);
    CHECK(count > 10);
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(rf_model_metadata_key(model, i, key, sizeof key, &needed, &err));
        CHECK(needed == strlen(key) && needed > 0);
        CHECK_OK(rf_model_metadata_value(model, key, needed, NULL, 0, &needed, &err));
    }
    CHECK_OK(rf_model_metadata_value(model, "general.architecture", RF_STRLEN, value, sizeof value, &needed, &err));
    CHECK_TEXT(value, "llama");
    CHECK(needed == 5);
    CHECK_OK(rf_model_metadata_value(model, "llama.block_count", RF_STRLEN, value, sizeof value, NULL, &err));
    CHECK_TEXT(value, "2");
    const char *boolean = "tokenizer.ggml.add_bos_token";
    CHECK_OK(rf_model_metadata_value(model, boolean, RF_STRLEN, value, sizeof value, NULL, &err));
    CHECK_TEXT(value, "true");
}

static void test_refusals(const rf_model *model) {
    rf_error *err = NULL;
    size_t needed = 0;
    char small[6] = "stale";
    const char *key = "general.architecture";
    CHECK_CALL(RF_E_BUFFER, rf_model_metadata_value(model, key, RF_STRLEN, small, 5, &needed, &err));
    CHECK(needed == 5);
    CHECK_TEXT(small, "stale");
    CHECK_OK(rf_model_metadata_value(model, key, RF_STRLEN, small, 6, &needed, &err));
    CHECK_TEXT(small, "llama");
    CHECK_CALL(RF_E_BUFFER, rf_model_metadata_value(model, key, RF_STRLEN, small, 0, &needed, &err));
    CHECK_CALL(RF_E_BUFFER, rf_model_metadata_key(model, 0, small, 2, &needed, &err));
    CHECK_FAILS(RF_E_ARGUMENT, rf_model_metadata_value(model, "no.such.key", RF_STRLEN, small, 6, &needed, &err));
    CHECK_CONTAINS(rf_error_message(err), "no.such.key");
    rf_error_free(err);
    CHECK(needed == 0);
    needed = 9;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_metadata_key(model, SIZE_MAX, small, 6, &needed, &err));
    CHECK(needed == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_metadata_value(model, "\xff", RF_STRLEN, small, 6, &needed, &err));
}

void test_metadata(const fixture *f) {
    test_entries(f->model);
    test_refusals(f->model);
    rf_error *err = NULL;
    rf_token token = 99;
    CHECK_OK(rf_model_special_token(f->model, RF_TOKEN_BOS, &token, &err));
    CHECK(token == BOS);
    CHECK_OK(rf_model_special_token(f->model, RF_TOKEN_EOS, &token, &err));
    CHECK(token == EOS);
    CHECK_OK(rf_model_special_token(f->model, RF_TOKEN_UNK, &token, &err));
    CHECK(token == 0);
    token = 99;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_special_token(f->model, RF_TOKEN_PAD, &token, &err));
    CHECK(token == 0);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_special_token(f->model, 99, &token, &err));
    CHECK(rf_model_is_end_token(f->model, EOS) == 1);
    CHECK(rf_model_is_end_token(f->model, BOS) == 0);
    CHECK(rf_model_is_end_token(f->model, UINT32_MAX) == 0);
}

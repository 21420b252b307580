// rf_error_*: an object of its own, wanted or not.
#include "harness.h"

void test_errors(const fixture *f) {
    CHECK(rf_error_status(NULL) == RF_OK);
    CHECK_TEXT(rf_error_message(NULL), "");
    rf_error_free(NULL);

    rf_model *model = NULL;
    CHECK(rf_model_load(f->engine, "/no/such/file", RF_STRLEN, NULL, &model, NULL) == RF_E_IO); // nobody wants to know

    // A call that succeeds clears what an earlier one left: the variable is overwritten, so free it before.
    rf_error *err = STALE;
    rf_token token = 0;
    CHECK(rf_model_special_token(f->model, RF_TOKEN_BOS, &token, &err) == RF_OK);
    CHECK(err == NULL);

    // Errors outlive what they speak of.
    rf_session *session = prompted_session(f, 8);
    CHECK(rf_session_rewind(session, 99, &err) == RF_E_ARGUMENT);
    rf_session_free(session);
    CHECK(rf_error_status(err) == RF_E_ARGUMENT);
    CHECK_CONTAINS(rf_error_message(err), "99");
    rf_error_free(err);
}

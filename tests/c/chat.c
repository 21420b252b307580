// rf_model_format_chat, rf_model_chat_template.
#include "harness.h"

static const char *const MESSAGES =
    "[{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"h\\u00e9llo\"}]";

static void test_format(const rf_model *model) {
    rf_error *err = NULL;
    char text[256];
    size_t needed = 0;
    const char *expected = "<system>Be brief.\n<user>h\xc3\xa9llo\n<assistant>";
    CHECK_OK(rf_model_format_chat(model, MESSAGES, RF_STRLEN, NULL, NULL, 0, &needed, &err));
    CHECK(needed == strlen(expected));
    CHECK_OK(rf_model_format_chat(model, MESSAGES, strlen(MESSAGES), NULL, text, sizeof text, &needed, &err));
    CHECK_TEXT(text, expected);
    CHECK_CALL(RF_E_BUFFER, rf_model_format_chat(model, MESSAGES, RF_STRLEN, NULL, text, needed, &needed, &err));
    CHECK(needed == strlen(expected));

    rf_chat_options options = RF_CHAT_OPTIONS_INIT;
    options.flags = RF_CHAT_NO_GENERATION_PROMPT;
    CHECK_OK(rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, text, sizeof text, NULL, &err));
    CHECK_TEXT(text, "<system>Be brief.\n<user>h\xc3\xa9llo\n");
    options.chat_template = "{{ messages | length }} {{ tools[0].name }} {{ mood }}, not this";
    options.chat_template_len = strlen(options.chat_template) - strlen(", not this");
    options.tools_json = "[{\"name\": \"search\"}]";
    options.extra_json = "{\"mood\": \"calm\"}";
    CHECK_OK(rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, text, sizeof text, NULL, &err));
    CHECK_TEXT(text, "2 search calm");

    CHECK_OK(rf_model_chat_template(model, text, sizeof text, &needed, &err));
    CHECK_CONTAINS(text, "add_generation_prompt");
    CHECK_CALL(RF_E_BUFFER, rf_model_chat_template(model, text, needed, &needed, &err));
}

// A template of a hostile or broken model file ends in an error, never in more.
static void test_templates(const rf_model *model) {
    const char *templates[] = {
        "{% for",
        "{{ raise_exception('only alternating roles') }}",
        "{% for a in range(10000000) %}{% for b in range(10000000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{{ nothing.at.all }}",
    };
    rf_chat_options options = RF_CHAT_OPTIONS_INIT;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        rf_error *err = NULL;
        size_t needed = 9;
        options.chat_template = templates[i];
        CHECK_FAILS(RF_E_TEMPLATE, rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, NULL, 0, &needed, &err));
        if (i == 1) CHECK_CONTAINS(rf_error_message(err), "only alternating roles");
        rf_error_free(err);
        CHECK(needed == 0);
    }
}

static void test_refusals(const rf_model *model) {
    rf_error *err = NULL;
    char text[64];
    const char *wrong[] = {"", "[", "{}", "[1]", "\xff", "[{\"role\": \"user\"}] x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_CALL(RF_E_ARGUMENT, rf_model_format_chat(model, wrong[i], RF_STRLEN, NULL, text, 64, NULL, &err));
    }
    rf_chat_options options = RF_CHAT_OPTIONS_INIT;
    options.tools_json = "{";
    CHECK_CALL(RF_E_ARGUMENT, rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, text, 64, NULL, &err));
    options.tools_json = NULL;
    options.extra_json = "[]";
    CHECK_CALL(RF_E_ARGUMENT, rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, text, 64, NULL, &err));
    options.extra_json = NULL;
    options.flags = 1u << 31;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_format_chat(model, MESSAGES, RF_STRLEN, &options, text, 64, NULL, &err));
}

void test_chat(const fixture *f) {
    test_format(f->model);
    test_templates(f->model);
    test_refusals(f->model);
}

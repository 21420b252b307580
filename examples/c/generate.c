// Streams a model's answer: generate MODEL.gguf [QUESTION]
#include <rocmforge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Ends the program with the library's own sentence if a call failed; passes normal outcomes on.
static rf_status check(rf_status status, rf_error **err) {
    if (status >= 0) return status;
    fprintf(stderr, "%s\n", rf_error_message(*err));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: %s MODEL.gguf [QUESTION]\n", argv[0]), 2;
    const char *question = argc > 2 ? argv[2] : "In which city is the Eiffel Tower?";
    rf_error *err;
    rf_engine *engine;
    rf_model *model;
    rf_session *session;
    check(rf_engine_create(NULL, &engine, &err), &err); // NULL options: the defaults
    check(rf_model_load(engine, argv[1], RF_STRLEN, NULL, &model, &err), &err);
    rf_session_options session_options = RF_SESSION_OPTIONS_INIT;
    session_options.context = 2048;
    check(rf_session_create(model, &session_options, &session, &err), &err);

    // The conversation as the model's own template writes it. JSON wants quotes and backslashes escaped.
    char messages[4096] = "[{\"role\": \"user\", \"content\": \"", prompt[8192];
    size_t at = strlen(messages), length, n;
    for (; *question && at < sizeof messages - 8; messages[at++] = *question++)
        if (*question == '"' || *question == '\\') messages[at++] = '\\';
    snprintf(messages + at, sizeof messages - at, "\"}]");
    check(rf_model_format_chat(model, messages, RF_STRLEN, NULL, prompt, sizeof prompt, &length, &err), &err);
    rf_token tokens[2048];
    const uint32_t flags = RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL;
    check(rf_model_tokenize(model, prompt, length, flags, tokens, 2048, &n, &err), &err);
    check(rf_session_decode(session, tokens, n, &err), &err);

    rf_generate_options generate_options = RF_GENERATE_OPTIONS_INIT;
    generate_options.max_tokens = 256;
    check(rf_session_begin(session, &generate_options, &err), &err);
    rf_piece piece = RF_PIECE_INIT;
    rf_status status;
    do {
        status = check(rf_session_next(session, &piece, &err), &err);
        fputs(piece.text, stdout); // always whole UTF-8
        fflush(stdout);
    } while (status == RF_OK); // RF_DONE: the model has ended its turn, or 256 tokens are out

    rf_session_stats stats = RF_SESSION_STATS_INIT;
    check(rf_session_get_stats(session, &stats, &err), &err);
    printf("\n\nprompt: %.1f tokens/s, answer: %.1f tokens/s\n",
           1e6 * (double)stats.prefill_tokens / (double)stats.prefill_us,
           1e6 * (double)stats.decode_tokens / (double)stats.decode_us);
    rf_session_free(session); // in any order
    rf_model_free(model);
    rf_engine_free(engine);
    return 0;
}

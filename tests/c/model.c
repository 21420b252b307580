// rf_model_load, _load_memory, _load_reader, _get_info, _free: each way in, and each way to fail.
#include "harness.h"

#include <stdlib.h>

typedef struct {
    const char *bytes;
    size_t n;
    int fail_after; // reads that succeed; negative: all
} memory_file;

static int32_t read_memory(void *user_data, uint64_t offset, void *buffer, size_t n) {
    memory_file *file = user_data;
    if (file->fail_after == 0 || offset > file->n || n > file->n - offset) return 7;
    file->fail_after--;
    memcpy(buffer, file->bytes + offset, n);
    return 0;
}

typedef struct {
    float last;
    int calls;
    int stop_at; // the call that asks to stop; 0: none
} progress;

static int32_t on_progress(void *user_data, float fraction) {
    progress *p = user_data;
    CHECK(fraction >= p->last && fraction <= 1.0f);
    p->last = fraction;
    return ++p->calls == p->stop_at ? 1 : RF_CONTINUE;
}

static void check_info(const rf_model *model) {
    rf_error *err = NULL;
    rf_model_info info = RF_MODEL_INFO_INIT;
    CHECK_OK(rf_model_get_info(model, &info, &err));
    CHECK(info.struct_size == sizeof info);
    CHECK(info.n_vocab == N_VOCAB);
    CHECK(info.context_length == CONTEXT);
    CHECK(info.embedding_length == 32);
    CHECK(info.block_count == 2);
    CHECK(info.has_chat_template == 1);
    CHECK(info.n_parameters > 2 * N_VOCAB * 32);
    CHECK(info.tensor_bytes == 4 * info.n_parameters);
    CHECK(info.kv_bytes_per_token == 2 * 2 * 16 * sizeof(uint16_t)); // layers, keys and values, elements
    // A program of an older header gets the fields that it knows, and no byte more.
    uint32_t older[4] = {2 * sizeof(uint32_t), 0, 0x5a5a5a5a, 0x5a5a5a5a};
    CHECK_OK(rf_model_get_info(model, (rf_model_info *)older, &err));
    CHECK(older[0] == 2 * sizeof(uint32_t) && older[1] == N_VOCAB && older[2] == 0x5a5a5a5a);
    info.struct_size = 1;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_get_info(model, &info, &err));
}

static void test_load(const fixture *f) {
    rf_error *err = NULL;
    rf_model *model = NULL;
    check_info(f->model);
    char padded[4096];
    size_t length = strlen(f->path);
    memcpy(padded, f->path, length);
    padded[length] = '!'; // not part of the path
    CHECK_OK(rf_model_load(f->engine, padded, length, NULL, &model, &err));
    rf_model_free(model);
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.flags = RF_LOAD_MMAP;
    CHECK_OK(rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    check_info(model);
    rf_model_free(model);

    model = STALE;
    CHECK_FAILS(RF_E_IO, rf_model_load(f->engine, "/no/such/model.gguf", RF_STRLEN, NULL, &model, &err));
    CHECK_CONTAINS(rf_error_message(err), "/no/such/model.gguf");
    CHECK(model == NULL);
    rf_error_free(err);
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, "", 0, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, "\xff\xfe", RF_STRLEN, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, SIZE_MAX / 2 + 1, NULL, &model, &err));
    options.flags = RF_LOAD_MMAP | RF_LOAD_PACKED_CACHE; // what is used where it is mapped is not packed
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    options.flags = RF_LOAD_PACKED_CACHE;
    options.packed_cache_dir = "/no/such/folder, nor asked for";
    options.packed_cache_dir_len = 15; // no cache can be written there: a warning, and a model
    CHECK_OK(rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    check_info(model);
    rf_model_free(model);
    options.packed_cache_dir = "\xff";
    options.packed_cache_dir_len = 0;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    options.packed_cache_dir = "/tmp";
    options.flags = 0;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    options.packed_cache_dir = NULL;
    options.flags = 1u << 31;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
}

static void test_options(const fixture *f) {
    rf_error *err = NULL;
    rf_model *model = NULL;
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.tokenizer_json = "{\"model\": 1}";
    CHECK_CALL(RF_E_FORMAT, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    options.tokenizer_json = NULL;
    options.chat_template = "\xff";
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    options.chat_template = "template, not all of it";
    options.chat_template_len = 8;
    CHECK_OK(rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    char text[64];
    size_t needed = 0;
    CHECK_OK(rf_model_chat_template(model, text, sizeof text, &needed, &err));
    CHECK_TEXT(text, "template");
    rf_model_free(model);
}

static void test_progress(const fixture *f) {
    rf_error *err = NULL;
    rf_model *model = NULL;
    progress seen = {0};
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.on_progress = on_progress;
    options.progress_user_data = &seen;
    CHECK_OK(rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
    CHECK(seen.calls >= 2 && seen.last == 1.0f);
    rf_model_free(model);
    for (int stop_at = 1; stop_at <= 2; stop_at++) {
        seen = (progress){.stop_at = stop_at};
        model = STALE;
        CHECK_CALL(RF_CANCELLED, rf_model_load(f->engine, f->path, RF_STRLEN, &options, &model, &err));
        CHECK(model == NULL && seen.calls == stop_at);
    }
}

static void test_memory(const fixture *f, const char *bytes, size_t n) {
    rf_error *err = NULL;
    rf_model *model = NULL;
    CHECK_OK(rf_model_load_memory(f->engine, bytes, n, NULL, &model, &err));
    check_info(model);
    rf_model_free(model);
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.flags = RF_LOAD_MMAP;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_load_memory(f->engine, bytes, n, &options, &model, &err));
    options.flags = RF_LOAD_PACKED_CACHE;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_load_memory(f->engine, bytes, n, &options, &model, &err));
    CHECK_CALL(RF_E_FORMAT, rf_model_load_memory(f->engine, "not a model", 11, NULL, &model, &err));
    CHECK_CALL(RF_E_FORMAT, rf_model_load_memory(f->engine, bytes, 0, NULL, &model, &err));
    CHECK_CALL(RF_E_FORMAT, rf_model_load_memory(f->engine, bytes, n / 2, NULL, &model, &err));
    CHECK_CALL(RF_E_FORMAT, rf_model_load_memory(f->engine, bytes, n - 4, NULL, &model, &err));
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_memory(f->engine, bytes, SIZE_MAX, NULL, &model, &err));
    CHECK(model == NULL);
}

static void test_reader(const fixture *f, const char *bytes, size_t n) {
    rf_error *err = NULL;
    rf_model *model = NULL;
    memory_file file = {bytes, n, -1};
    rf_reader reader = RF_READER_INIT;
    reader.length = n;
    reader.read = read_memory;
    reader.user_data = &file;
    CHECK_OK(rf_model_load_reader(f->engine, &reader, NULL, &model, &err));
    check_info(model);
    rf_model_free(model);
    for (int fail_after = 0; fail_after < 4; fail_after++) {
        file.fail_after = fail_after;
        CHECK_FAILS(RF_E_IO, rf_model_load_reader(f->engine, &reader, NULL, &model, &err));
        CHECK_CONTAINS(rf_error_message(err), "7"); // what the host's function returned
        rf_error_free(err);
        CHECK(model == NULL);
    }
    file.fail_after = -1;
    reader.length = n + 4096; // it promises more than it has
    CHECK_CALL(RF_E_IO, rf_model_load_reader(f->engine, &reader, NULL, &model, &err));
    reader.length = n;
    reader.flags = 1;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_load_reader(f->engine, &reader, NULL, &model, &err));
    reader.flags = 0;
    reader.read = NULL;
    CHECK_CALL(RF_E_ARGUMENT, rf_model_load_reader(f->engine, &reader, NULL, &model, &err));
    rf_model_options options = RF_MODEL_OPTIONS_INIT;
    options.flags = RF_LOAD_MMAP;
    reader.read = read_memory;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_model_load_reader(f->engine, &reader, &options, &model, &err));
}

void test_model(const fixture *f) {
    size_t n;
    char *bytes = read_file(f->path, &n);
    test_load(f);
    test_options(f);
    test_progress(f);
    test_memory(f, bytes, n);
    test_reader(f, bytes, n);
    free(bytes);
}

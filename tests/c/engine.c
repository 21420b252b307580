// rf_engine_*: options and their sizes, threads, the host's too, instruction set, the log.
#include "harness.h"

// Counts the messages and checks each one's form.
static void count_message(void *user_data, int32_t level, const char *message, size_t message_len) {
    CHECK(level >= RF_LOG_DEBUG && level <= RF_LOG_ERROR);
    CHECK(message != NULL && message_len > 0);
    ++*(int *)user_data;
}

static void test_log(const fixture *f) {
    rf_error *err = NULL;
    rf_engine *engine = NULL;
    rf_model *model = NULL;
    int messages = 0;
    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    options.threads = 1;
    options.on_log = count_message;
    options.log_user_data = &messages;
    CHECK_OK(rf_engine_create(&options, &engine, &err));
    CHECK_OK(rf_model_load(engine, f->path, RF_STRLEN, NULL, &model, &err));
    CHECK(messages > 0);
    // A model outlives its engine's handle.
    rf_engine_free(engine);
    rf_token token = 0;
    CHECK_OK(rf_model_special_token(model, RF_TOKEN_BOS, &token, &err));
    rf_model_free(model);
}

static void test_isa(void) {
    // In ascending order, which is not that of their numbers.
    const uint32_t caps[] = {RF_ISA_SCALAR, RF_ISA_AVX2, RF_ISA_AVX_VNNI, RF_ISA_AVX512_VNNI, RF_ISA_AMX};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        rf_error *err = NULL;
        rf_engine *engine = NULL;
        rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
        options.threads = 1;
        options.isa = caps[i];
        CHECK_OK(rf_engine_create(&options, &engine, &err));
        size_t used = 0;
        while (used < i && rf_engine_isa(engine) != caps[used]) used++;
        CHECK(rf_engine_isa(engine) == caps[used]); // a cap, not a demand
        rf_engine_free(engine);
    }
}

// A job system of one thread that runs tasks backwards, and counts.
static void run_backwards(void *user_data, size_t n, rf_task task, void *task_data) {
    *(size_t *)user_data += n;
    while (n-- > 0) task(task_data, n);
}

// One that leaves the first task out.
static void run_too_few(void *user_data, size_t n, rf_task task, void *task_data) {
    (void)user_data;
    while (n-- > 1) task(task_data, n);
}

// The logits after a prompt, on an engine with these options.
static rf_status prompt_logits(const fixture *f, const rf_engine_options *options, float *logits) {
    rf_error *err = NULL;
    rf_engine *engine = NULL;
    rf_model *model = NULL;
    rf_session *session = NULL;
    CHECK_OK(rf_engine_create(options, &engine, &err));
    rf_status status = rf_model_load(engine, f->path, RF_STRLEN, NULL, &model, NULL);
    if (status == RF_OK) {
        CHECK_OK(rf_session_create(model, NULL, &session, &err));
        const rf_token prompt[] = {BOS, 260, 261, 262, 263, 264, 265, 266, 4};
        const float *found = NULL;
        size_t n = 0;
        CHECK_OK(rf_session_decode(session, prompt, 9, &err));
        CHECK_OK(rf_session_logits(session, &found, &n, &err));
        memcpy(logits, found, n * sizeof *logits);
    }
    rf_session_free(session);
    rf_model_free(model);
    rf_engine_free(engine);
    return status;
}

static void test_threads_of_the_host(const fixture *f) {
    float own[N_VOCAB] = {0}, hosts[N_VOCAB] = {1}, pinned[N_VOCAB] = {2};
    size_t tasks = 0;
    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    options.threads = 2;
    CHECK(prompt_logits(f, &options, own) == RF_OK);
    options.flags = RF_ENGINE_PIN_THREADS;
    CHECK(prompt_logits(f, &options, pinned) == RF_OK);
    CHECK(memcmp(own, pinned, sizeof own) == 0);
    options.flags = 0;
    options.threads = 4;
    options.parallel_for = run_backwards;
    options.parallel_for_user_data = &tasks;
    CHECK(prompt_logits(f, &options, hosts) == RF_OK);
    CHECK(tasks > 0);
    CHECK(memcmp(own, hosts, sizeof own) == 0); // results do not depend on who computes them
    options.parallel_for = run_too_few;
    CHECK(prompt_logits(f, &options, hosts) == RF_E_INTERNAL);
}

// Programs of older and newer headers.
static void test_sizes(void) {
    rf_error *err = NULL;
    rf_engine *engine = NULL;
    struct {
        rf_engine_options options;
        uint64_t field_of_the_future;
    } newer = {RF_ENGINE_OPTIONS_INIT, 0};
    newer.options.struct_size = sizeof newer;
    newer.options.threads = 1;
    CHECK_OK(rf_engine_create(&newer.options, &engine, &err));
    rf_engine_free(engine);
    newer.field_of_the_future = 1;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_engine_create(&newer.options, &engine, &err));
    CHECK(engine == NULL);

    const uint32_t older[] = {2 * sizeof(uint32_t), 0}; // struct_size, flags
    CHECK_OK(rf_engine_create((const rf_engine_options *)older, &engine, &err));
    rf_engine_free(engine);

    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    options.struct_size = 0;
    engine = STALE;
    CHECK_FAILS(RF_E_ARGUMENT, rf_engine_create(&options, &engine, &err));
    CHECK_CONTAINS(rf_error_message(err), "RF_ENGINE_OPTIONS_INIT");
    CHECK(engine == NULL);
    rf_error_free(err);
    options.struct_size = UINT32_MAX;
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_create(&options, &engine, &err));
}

static void test_devices(const fixture *f) {
    rf_error *err = NULL;
    rf_engine *engine = NULL;
    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    options.gpus = "none";
    CHECK_OK(rf_engine_create(&options, &engine, &err));
    CHECK(rf_engine_device_count(engine) == 0);
    rf_device_info info = RF_DEVICE_INFO_INIT;
    CHECK_FAILS(RF_E_ARGUMENT, rf_engine_device_info(engine, 0, &info, &err));
    CHECK_CONTAINS(rf_error_message(err), "there is no GPU 0");
    rf_error_free(err);
    rf_memory_estimate estimate = RF_MEMORY_ESTIMATE_INIT;
    CHECK_OK(rf_engine_estimate(engine, f->path, RF_STRLEN, 0, &estimate, &err));
    CHECK(estimate.gpu_layers == 0 && estimate.device_bytes == 0);
    CHECK(estimate.host_bytes > 0 && estimate.kv_bytes_per_token > 0);
    CHECK_CALL(RF_E_IO, rf_engine_estimate(engine, "no-such-file.gguf", RF_STRLEN, 0, &estimate, &err));
    rf_engine_free(engine);

    options.gpus = "the first";
    CHECK_FAILS(RF_E_ARGUMENT, rf_engine_create(&options, &engine, &err));
    CHECK_CONTAINS(rf_error_message(err), "the first");
    rf_error_free(err);

    // Every GPU that is listed says what it is, and either that it can be used or why not.
    options.gpus = NULL;
    CHECK_OK(rf_engine_create(&options, &engine, &err));
    for (uint32_t i = 0; i < rf_engine_device_count(engine); i++) {
        CHECK_OK(rf_engine_device_info(engine, i, &info, &err));
        CHECK(info.name != NULL && info.architecture != NULL && info.reason != NULL);
        CHECK((info.usable == 1) == (info.reason[0] == 0));
    }
    rf_engine_free(engine);
}

void test_engine(const fixture *f) {
    rf_error *err = NULL;
    rf_engine *engine = NULL;
    CHECK_OK(rf_engine_create(NULL, &engine, &err));
    CHECK(rf_engine_threads(engine) >= 1);
    CHECK(rf_engine_isa(engine) >= RF_ISA_SCALAR && rf_engine_isa(engine) <= RF_ISA_AVX_VNNI);
    rf_engine_free(engine);

    rf_engine_options options = RF_ENGINE_OPTIONS_INIT;
    CHECK(options.struct_size == sizeof options && options.flags == 0 && options.on_log == NULL);
    options.threads = 3;
    CHECK_OK(rf_engine_create(&options, &engine, &err));
    CHECK(rf_engine_threads(engine) == 3);
    rf_engine_free(engine);

    options.threads = UINT32_MAX;
    CHECK_CALL(RF_E_ARGUMENT, rf_engine_create(&options, &engine, &err));
    options.threads = 1;
    options.isa = 99;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_engine_create(&options, &engine, &err));
    options.isa = RF_ISA_AUTO;
    options.flags = 1u << 31;
    CHECK_CALL(RF_E_UNSUPPORTED, rf_engine_create(&options, &engine, &err));
    CHECK(engine == NULL);
    test_isa();
    test_devices(f);
    test_sizes();
    test_log(f);
    test_threads_of_the_host(f);
}

// rocmforge.hpp against the installed library: test MODEL.gguf FOLDER, where FOLDER may be written to.
#include <rocmforge.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <malloc.h>
#include <thread>
#include <unistd.h>

#define CHECK(condition) ((condition) ? (void)0 : fail(__LINE__, #condition))

using namespace rocmforge;
using Clock = std::chrono::steady_clock;
using std::chrono::duration;

// Linked with --wrap=rf_session_next: the time inside the library, to tell the header's from it.
static duration<double> inside{0};
extern "C" rf_status __real_rf_session_next(rf_session *session, rf_piece *piece, rf_error **err);
extern "C" rf_status __wrap_rf_session_next(rf_session *session, rf_piece *piece, rf_error **err);
extern "C" rf_status __wrap_rf_session_next(rf_session *session, rf_piece *piece, rf_error **err) {
    const auto begin = Clock::now();
    const rf_status status = __real_rf_session_next(session, piece, err);
    static thread_local const bool main_thread = ::getpid() == ::gettid();
    if (main_thread) inside += Clock::now() - begin;
    return status;
}

static const std::vector<Message> QUESTION = {{"user", "In which city is the Eiffel Tower?"}};

[[noreturn]] static void fail(int line, const char *what) {
    std::fprintf(stderr, "test.cpp:%d: %s does not hold\n", line, what);
    std::exit(1);
}

template <class T>
constexpr bool moves_only = std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
                            !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<Engine> && moves_only<Model> && moves_only<Session> && moves_only<Sampler> &&
              moves_only<CancelToken>);

static Sampler greedy() {
    SamplerOptions options;
    options.flags = RF_SAMPLER_GREEDY;
    return Sampler(options);
}

static GenerateOptions answer_of(std::uint32_t max_tokens, const Sampler &sampler) {
    GenerateOptions options;
    options.sampler = sampler.get();
    options.max_tokens = max_tokens;
    options.flags = RF_GENERATE_IGNORE_END;
    return options;
}

static Session new_session(const Model &model, const CancelToken *cancel = nullptr) {
    SessionOptions options;
    options.context = 2048;
    options.cancel = cancel ? cancel->get() : nullptr;
    return model.session(options);
}

static std::string answer(const Model &model, std::uint32_t max_tokens = 24) {
    Session session = new_session(model);
    const Sampler sampler = greedy();
    std::string text;
    Pieces pieces = session.chat(QUESTION, answer_of(max_tokens, sampler));
    for (const Piece &piece : pieces) text += piece.text;
    CHECK(pieces.status() == RF_DONE);
    return text;
}

// A range, a callback that returns nothing, one that stops, and a second turn that computes only what is new.
static void test_stream(const Model &model) {
    const std::string text = answer(model);
    std::printf("range: %s\n", text.c_str());
    CHECK(text.find("Paris") != std::string::npos);
    Session session = new_session(model);
    const Sampler sampler = greedy();
    const GenerateOptions options = answer_of(24, sampler);
    std::string called;
    CHECK(*session.try_chat(QUESTION, [&](const Piece &piece) { called += piece.text; }, options) == RF_DONE);
    CHECK(called == text);
    int left = 3;
    CHECK(*session.try_chat(QUESTION, [&](const Piece &) { return --left > 0; }, options) == RF_CANCELLED && left == 0);

    std::vector<Message> turns = QUESTION;
    turns.push_back({"assistant", text});
    turns.push_back({"user", "And \"of\" Italy?\n\x01\\"});
    const std::vector<rf_token> before = session.tokens();
    const std::uint64_t computed = session.stats().prefill_tokens;
    CHECK(*session.try_prompt(to_json(turns)) == RF_OK);
    CHECK(session.tokens().size() > before.size());
    CHECK(session.stats().prefill_tokens - computed < session.tokens().size() - before.size() + 24);
    const std::string formatted = model.format_chat(turns);
    CHECK(formatted.find("And \"of\" Italy?\n\x01\\") != std::string::npos);
}

static void test_text(const Model &model) {
    const std::string long_text(10000, 'a');
    for (const std::string &text : {std::string(), std::string("The capital of France is"), long_text}) {
        CHECK(model.detokenize(model.tokenize(text)) == text);
    }
    CHECK(model.tokenize(std::string_view()).empty());
    CHECK(model.metadata("general.architecture") == "llama");
    CHECK(model.info().n_vocab == 49152);
}

static void test_damaged(const Engine &engine, const std::string &path, const std::string &folder) {
    const std::string damaged = folder + "/damaged.gguf";
    std::ifstream in(path, std::ios::binary);
    std::string bytes(1 << 20, '\0');
    CHECK(in.read(bytes.data(), static_cast<std::streamsize>(bytes.size())));
    std::ofstream(damaged, std::ios::binary) << bytes;
    Result<Model> loaded = engine.try_load(damaged);
    CHECK(!loaded && loaded.error().code() == RF_E_FORMAT);
    CHECK(loaded.error().name() == std::string_view("RF_E_FORMAT"));
    try {
        engine.load(damaged);
        fail(__LINE__, "an exception");
    } catch (const Error &error) {
        std::printf("damaged file: %s\n", error.what());
        CHECK(error.code() == RF_E_FORMAT);
        CHECK(std::string_view(error.what()).find("damaged.gguf") != std::string_view::npos);
        CHECK(std::string_view(error.what()) == loaded.error().what());
    }
    ModelOptions stop;
    stop.on_progress = [](void *, float) -> std::int32_t { return 1; };
    CHECK(engine.try_load(path, stop).error().code() == RF_CANCELLED);
    Session nothing(nullptr);
    CHECK(nothing.try_rewind(0).error().code() == RF_E_ARGUMENT);
}

// The generation that was cancelled goes on where it was, and the session answers as one that never was cancelled.
static void test_cancel(const Model &model, const std::string &whole) {
    const CancelToken token;
    Session session = new_session(model, &token);
    const Sampler sampler = greedy();
    std::string text;
    Clock::time_point raised;
    std::thread canceller;
    Pieces pieces = session.chat(QUESTION, answer_of(1500, sampler));
    for (const Piece &piece : pieces) {
        text += piece.text;
        if (!canceller.joinable()) {
            canceller = std::thread([&] {
                std::this_thread::sleep_for(std::chrono::milliseconds(100));
                raised = Clock::now();
                token.cancel();
            });
        }
    }
    const Clock::time_point returned = Clock::now();
    canceller.join();
    const duration<double, std::milli> took = returned - raised;
    std::printf("cancel: returned after %.2f ms\n", took.count());
    CHECK(pieces.status() == RF_CANCELLED && took.count() < 100);
    Pieces still = session.chat(QUESTION, answer_of(4, sampler));
    CHECK(still.begin() == still.end() && still.status() == RF_CANCELLED); // the token is still raised
    token.reset();
    Session other = new_session(model);
    std::string again;
    for (const Piece &piece : session.chat(QUESTION, answer_of(24, sampler))) again += piece.text;
    CHECK(again == whole);
    const std::size_t common = std::min(text.size(), whole.size());
    CHECK(common > 0 && text.compare(0, common, whole, 0, common) == 0);
}

static void test_threads(const Model &model, const std::string &whole) {
    std::string texts[2];
    std::thread threads[2];
    for (int i = 0; i < 2; i++) threads[i] = std::thread([&, i] { texts[i] = answer(model); });
    for (std::thread &thread : threads) thread.join();
    CHECK(texts[0] == whole && texts[1] == whole);
    std::printf("two threads on one model: the text of one alone\n");
}

static void test_overhead(const Model &model) {
    Session session = new_session(model);
    const Sampler sampler = greedy();
    CHECK(*session.try_prompt(to_json(QUESTION)) == RF_OK);
    session.begin(answer_of(64, sampler));
    std::size_t length = 0;
    inside = duration<double>(0);
    const auto begin = Clock::now();
    for (const Piece &piece : session.pieces()) length += piece.text.size();
    const duration<double> all = Clock::now() - begin;
    CHECK(length > 0);
    const double share = (all - inside) / inside;
    std::printf("overhead: %.4f %% of %.2f ms a token\n", 100 * share, 1e3 * inside.count() / 64);
    CHECK(share < 0.05);
}

// Without what malloc keeps for later, which comes and goes by some MiB.
static long resident_kib() {
    ::malloc_trim(0);
    long pages = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> pages >> resident;
    return resident * (::sysconf(_SC_PAGESIZE) / 1024);
}

// Everything made and destroyed, in an order that is not the natural one.
static void cycle(const std::string &path) {
    std::optional<Engine> engine(std::in_place);
    ModelOptions options;
    options.flags = RF_LOAD_MMAP;
    std::optional<Model> model(engine->load(path, options));
    CancelToken token;
    Session moved = new_session(*model, &token);
    Session session = std::move(moved);
    engine.reset();
    model.reset();
    CHECK(session.decode({504, 3575}) == RF_OK);
    CHECK(session.decode({session.sample(greedy())}) == RF_OK);
    CHECK(session.tokens().size() == 3);
    CHECK(!session.try_decode(nullptr, 1)); // errors are freed too
}

static void test_cycles(const std::string &path) {
    long after_20 = 0;
    for (int i = 1; i <= 100; i++) {
        cycle(path);
        if (i == 20) after_20 = resident_kib();
    }
    const long growth = resident_kib() - after_20;
    std::printf("100 cycles: %+ld KiB resident from the 20th to the 100th\n", growth);
    CHECK(growth < 2048);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    test_cycles(argv[1]); // first, while the process holds nothing that it could give back meanwhile
    const Engine engine;
    const Model model = engine.load(argv[1]);
    const std::string whole = answer(model);
    test_stream(model);
    test_text(model);
    test_damaged(engine, argv[1], argv[2]);
    test_cancel(model, whole);
    test_threads(model, whole);
    test_overhead(model);
    return 0;
}

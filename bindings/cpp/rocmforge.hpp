// rocmforge for C++17: the C interface as objects that free themselves, in one header and with no logic of its own.
//
// Each fallible call has two forms. `x()` throws `rocmforge::Error`; `try_x()` returns a `Result`, and throws nothing but
// what the standard library throws for lack of memory. Without exceptions (-fno-exceptions) use the second form: the first
// ends the program on an error.
//
// Handles can be moved, not copied, and may be destroyed in any order. `get()` gives the C handle, for what is not here.
// What the calls do, and which threads may make them, is written in rocmforge.h.
#ifndef ROCMFORGE_HPP
#define ROCMFORGE_HPP

#include <rocmforge.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace rocmforge {

// A failed call: its status, and the library's sentence about it.
class Error : public std::runtime_error {
public:
    Error(rf_status code, const std::string &message) : std::runtime_error(message), code_(code) {}
    // One of RF_E_..., or RF_CANCELLED where a load was stopped.
    rf_status code() const noexcept { return code_; }
    // Its name, such as "RF_E_FORMAT".
    const char *name() const noexcept { return rf_status_name(code_); }

private:
    rf_status code_;
};

// What a call gave, or why it failed.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : either_(std::move(value)) {}
    Result(Error error) : either_(std::move(error)) {}
    bool has_value() const noexcept { return either_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    // Only if there is one.
    T &operator*() noexcept { return *std::get_if<0>(&either_); }
    T *operator->() noexcept { return std::get_if<0>(&either_); }
    // Only if the call failed.
    const Error &error() const noexcept { return *std::get_if<1>(&either_); }
    // The value, moved out; throws the error.
    T value() {
        if (!has_value()) {
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
            throw error();
#else
            std::terminate();
#endif
        }
        return std::move(**this);
    }

private:
    std::variant<T, Error> either_;
};

// The C structs, made as their _INIT macros make them: set fields by the names that rocmforge.h gives them.
struct EngineOptions : rf_engine_options {
    EngineOptions() noexcept : rf_engine_options(RF_ENGINE_OPTIONS_INIT) {}
};
struct ModelOptions : rf_model_options {
    ModelOptions() noexcept : rf_model_options(RF_MODEL_OPTIONS_INIT) {}
};
struct Reader : rf_reader {
    Reader() noexcept : rf_reader(RF_READER_INIT) {}
};
struct ChatOptions : rf_chat_options {
    ChatOptions() noexcept : rf_chat_options(RF_CHAT_OPTIONS_INIT) {}
};
struct SamplerOptions : rf_sampler_options {
    SamplerOptions() noexcept : rf_sampler_options(RF_SAMPLER_OPTIONS_INIT) {}
};
struct SessionOptions : rf_session_options {
    SessionOptions() noexcept : rf_session_options(RF_SESSION_OPTIONS_INIT) {}
};
struct GenerateOptions : rf_generate_options {
    GenerateOptions() noexcept : rf_generate_options(RF_GENERATE_OPTIONS_INIT) {}
};

// One turn of a conversation.
struct Message {
    std::string role; // "system", "user", "assistant" ...
    std::string content;
};

// A generated token and its text.
struct Piece {
    std::string_view text; // whole UTF-8, often empty; the session's, until the next call on it
    std::optional<rf_token> token;
    std::int32_t finish = RF_FINISH_NONE; // why generation ended, on the last piece
};

namespace detail {

template <class T, void (*free)(T *)>
struct Free {
    void operator()(T *handle) const noexcept { free(handle); }
};
template <class T, void (*free)(T *)>
using Handle = std::unique_ptr<T, Free<T, free>>;

// The error that a call left behind, which is freed.
inline Error take(rf_status status, rf_error *err) {
    const Handle<rf_error, rf_error_free> owned(err);
    return Error(status, err ? rf_error_message(err) : rf_status_name(status));
}

// `call(err)` as a result: its status if that is no error.
template <class Call>
Result<rf_status> status(Call call) {
    rf_error *err = nullptr;
    const rf_status status = call(&err);
    if (status < 0) return take(status, err);
    return status;
}

// `call(&handle, err)` as a result: an Object of the handle. A call that was stopped has made none.
template <class Object, class Handle, class Call>
Result<Object> make(Call call) {
    rf_error *err = nullptr;
    Handle *handle = nullptr;
    const rf_status status = call(&handle, &err);
    if (status != RF_OK) return take(status, err);
    return Object(handle);
}

// `call(buffer, capacity, &needed, err)` until the buffer, which begins with `guess` elements, is large enough.
template <class Buffer, class Call>
Result<Buffer> fill(std::size_t guess, std::size_t terminator, Call call) {
    Buffer buffer(guess, 0);
    for (;;) {
        rf_error *err = nullptr;
        std::size_t needed = 0;
        const rf_status status = call(buffer.data(), buffer.size() + terminator, &needed, &err);
        if (status < 0 && status != RF_E_BUFFER) return take(status, err);
        rf_error_free(err);
        buffer.resize(needed);
        if (status != RF_E_BUFFER) return buffer;
    }
}

// A std::string has room for its NUL beyond its size.
template <class Call>
Result<std::string> text(Call call) {
    return fill<std::string>(1023, 1, call);
}

// The address of a text: an empty view may have none, and NULL is an error in C.
inline const char *at(std::string_view text) noexcept { return text.data() ? text.data() : ""; }

inline void quote(std::string &json, std::string_view text) {
    json += '"';
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) {
            (json += "\\u00") += "01"[byte >> 4];
            json += "0123456789abcdef"[byte & 15];
            continue;
        }
        if (c == '"' || c == '\\') json += '\\';
        json += c;
    }
    json += '"';
}

} // namespace detail

// The conversation as the JSON that `Model::format_chat` takes. Write your own for tool calls and the like.
inline std::string to_json(const std::vector<Message> &messages) {
    std::string json = "[";
    for (const Message &message : messages) {
        json += json.size() > 1 ? ",{\"role\":" : "{\"role\":";
        detail::quote(json, message.role);
        json += ",\"content\":";
        detail::quote(json, message.content);
        json += '}';
    }
    return json += ']';
}

// Stops the work of sessions that were given it (`SessionOptions::cancel = token.get()`), from any thread.
class CancelToken {
public:
    CancelToken() : CancelToken(try_create().value()) {}
    static Result<CancelToken> try_create() {
        return detail::make<CancelToken, rf_cancel_token>(rf_cancel_token_create);
    }
    explicit CancelToken(rf_cancel_token *owned) noexcept : handle_(owned) {}
    void cancel() const noexcept { rf_cancel_token_cancel(get()); }
    void reset() const noexcept { rf_cancel_token_reset(get()); }
    rf_cancel_token *get() const noexcept { return handle_.get(); }

private:
    detail::Handle<rf_cancel_token, rf_cancel_token_free> handle_;
};

// A way to choose tokens, for `GenerateOptions::sampler`.
class Sampler {
public:
    explicit Sampler(const SamplerOptions &options = {}) : Sampler(try_create(options).value()) {}
    static Result<Sampler> try_create(const SamplerOptions &options = {}) {
        return detail::make<Sampler, rf_sampler>(
            [&](auto **out, auto **err) { return rf_sampler_create(&options, out, err); });
    }
    explicit Sampler(rf_sampler *owned) noexcept : handle_(owned) {}
    rf_sampler *get() const noexcept { return handle_.get(); }

private:
    detail::Handle<rf_sampler, rf_sampler_free> handle_;
};

class Session;

// The pieces of a generation, to be gone through once: `for (const Piece &piece : session.chat(messages))`. Belongs to
// its session, which must stay where it is meanwhile.
class Pieces {
public:
    // Throws what fails.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Piece;
        using difference_type = std::ptrdiff_t;
        using pointer = const Piece *;
        using reference = const Piece &;
        iterator() = default;
        explicit iterator(Pieces *pieces) : pieces_(pieces) { ++*this; }
        reference operator*() const noexcept { return pieces_->piece_; }
        pointer operator->() const noexcept { return &pieces_->piece_; }
        iterator &operator++() {
            if (!pieces_->advance()) pieces_ = nullptr;
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.pieces_ == b.pieces_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return a.pieces_ != b.pieces_; }

    private:
        Pieces *pieces_ = nullptr;
    };
    explicit Pieces(Session &session, rf_status status = RF_OK) noexcept : session_(&session), status_(status) {}
    iterator begin() { return iterator(this); }
    iterator end() noexcept { return {}; }
    // How it ended: RF_DONE, RF_FULL or RF_CANCELLED; RF_OK before.
    rf_status status() const noexcept { return status_; }

private:
    inline bool advance();
    Session *session_;
    Piece piece_;
    rf_status status_;
};

// One sequence of tokens over a model, for one thread at a time.
class Session {
public:
    explicit Session(rf_session *owned) noexcept : handle_(owned) {}
    rf_session *get() const noexcept { return handle_.get(); }

    // Appends tokens: RF_OK, or RF_CANCELLED, after which the session is as it was.
    rf_status decode(const std::vector<rf_token> &tokens) { return try_decode(tokens.data(), tokens.size()).value(); }
    Result<rf_status> try_decode(const rf_token *tokens, std::size_t n) {
        return detail::status([&](auto **err) { return rf_session_decode(get(), tokens, n, err); });
    }

    // Brings the session to hold the conversation, computing only what is new of it: RF_OK or RF_CANCELLED.
    inline Result<rf_status> try_prompt(std::string_view messages_json, const ChatOptions &options = {});

    // Answers the conversation. When the range ends, `Pieces::status` says how.
    Pieces chat(const std::vector<Message> &messages, const GenerateOptions &options = {},
                const ChatOptions &chat = {}) {
        return this->chat(to_json(messages), options, chat);
    }
    Pieces chat(std::string_view messages_json, const GenerateOptions &options = {}, const ChatOptions &chat = {}) {
        const rf_status prompted = try_prompt(messages_json, chat).value();
        if (prompted == RF_OK) begin(options);
        return Pieces(*this, prompted);
    }

    // Answers the conversation, a piece at a time to `on_piece(const Piece &)`, which may return false to cancel, and may
    // throw. RF_DONE, RF_FULL or RF_CANCELLED.
    template <class OnPiece>
    Result<rf_status> try_chat(std::string_view messages_json, OnPiece on_piece, const GenerateOptions &options = {},
                               const ChatOptions &chat = {}) {
        Result<rf_status> outcome = try_prompt(messages_json, chat);
        if (!outcome || *outcome != RF_OK) return outcome;
        outcome = try_begin(options);
        return outcome ? try_generate(on_piece) : outcome;
    }
    template <class OnPiece>
    Result<rf_status> try_chat(const std::vector<Message> &messages, OnPiece on_piece,
                               const GenerateOptions &options = {}, const ChatOptions &chat = {}) {
        return try_chat(to_json(messages), on_piece, options, chat);
    }

    // Begins a generation from where the session stands; then `next`, `pieces` or `try_generate`.
    void begin(const GenerateOptions &options = {}) { try_begin(options).value(); }
    Result<rf_status> try_begin(const GenerateOptions &options = {}) {
        return detail::status([&](auto **err) { return rf_session_begin(get(), &options, err); });
    }
    Pieces pieces() noexcept { return Pieces(*this); }
    // The next piece: RF_OK, RF_DONE or RF_FULL with the last one, RF_CANCELLED with none.
    rf_status next(Piece &piece) { return try_next(piece).value(); }
    Result<rf_status> try_next(Piece &piece) {
        rf_piece raw = RF_PIECE_INIT;
        Result<rf_status> outcome = detail::status([&](auto **err) { return rf_session_next(get(), &raw, err); });
        piece.text = std::string_view(raw.text ? raw.text : "", raw.text_len);
        piece.token = raw.has_token ? std::optional<rf_token>(raw.token) : std::nullopt;
        piece.finish = raw.finish;
        return outcome;
    }
    template <class OnPiece>
    Result<rf_status> try_generate(OnPiece on_piece) {
        for (;;) {
            Piece piece;
            Result<rf_status> outcome = try_next(piece);
            if (!outcome || *outcome == RF_CANCELLED) return outcome;
            if constexpr (std::is_void_v<decltype(on_piece(piece))>) {
                on_piece(piece);
            } else if (!on_piece(piece)) {
                return rf_status{RF_CANCELLED};
            }
            if (*outcome != RF_OK) return outcome;
        }
    }

    // A token for the logits that the last decode left.
    rf_token sample(const Sampler &sampler) {
        rf_token token = 0;
        detail::status([&](auto **err) { return rf_session_sample(get(), sampler.get(), &token, err); }).value();
        return token;
    }
    // The logits, `n_vocab` of them: the session's, until the next call that changes it.
    std::pair<const float *, std::size_t> logits() const {
        std::pair<const float *, std::size_t> out{nullptr, 0};
        detail::status([&](auto **err) { return rf_session_logits(get(), &out.first, &out.second, err); }).value();
        return out;
    }
    // Shortens the session to its first tokens.
    void rewind(std::size_t n_tokens) { try_rewind(n_tokens).value(); }
    Result<rf_status> try_rewind(std::size_t n_tokens) {
        return detail::status([&](auto **err) { return rf_session_rewind(get(), n_tokens, err); });
    }
    // The tokens that it holds.
    std::vector<rf_token> tokens() const {
        const rf_token *tokens = nullptr;
        std::size_t n = 0;
        detail::status([&](auto **err) { return rf_session_tokens(get(), &tokens, &n, err); }).value();
        return std::vector<rf_token>(tokens, tokens + n);
    }
    rf_session_stats stats() const {
        rf_session_stats stats = RF_SESSION_STATS_INIT;
        detail::status([&](auto **err) { return rf_session_get_stats(get(), &stats, err); }).value();
        return stats;
    }

private:
    friend class Model;
    detail::Handle<rf_session, rf_session_free> handle_;
    std::shared_ptr<const rf_model> model_; // for its template and its tokenizer
};

inline bool Pieces::advance() {
    if (status_ != RF_OK) return false; // it has ended
    status_ = session_->next(piece_);
    return status_ != RF_CANCELLED;
}

// A loaded model, for any number of threads and sessions.
class Model {
public:
    explicit Model(rf_model *owned) : handle_(owned, rf_model_free) {}
    Model(Model &&) = default;
    Model &operator=(Model &&) = default;
    const rf_model *get() const noexcept { return handle_.get(); }

    Session session(const SessionOptions &options = {}) const { return try_session(options).value(); }
    Result<Session> try_session(const SessionOptions &options = {}) const {
        auto made = detail::make<Session, rf_session>(
            [&](auto **out, auto **err) { return rf_session_create(get(), &options, out, err); });
        if (made) made->model_ = handle_;
        return made;
    }

    rf_model_info info() const {
        rf_model_info info = RF_MODEL_INFO_INIT;
        detail::status([&](auto **err) { return rf_model_get_info(get(), &info, err); }).value();
        return info;
    }
    // A metadata entry of the file as text; an array as JSON.
    std::string metadata(std::string_view key) const { return try_metadata(key).value(); }
    Result<std::string> try_metadata(std::string_view key) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, rf_error **err) {
            return rf_model_metadata_value(get(), detail::at(key), key.size(), buffer, capacity, needed, err);
        });
    }

    // The tokens of a text; `flags` as RF_TOKENIZE_...
    std::vector<rf_token> tokenize(std::string_view text, std::uint32_t flags = RF_TOKENIZE_ADD_SPECIAL) const {
        return try_tokenize(text, flags).value();
    }
    Result<std::vector<rf_token>> try_tokenize(std::string_view text,
                                               std::uint32_t flags = RF_TOKENIZE_ADD_SPECIAL) const {
        return tokenize_with(get(), text, flags);
    }
    // The text of tokens.
    std::string detokenize(const std::vector<rf_token> &tokens, std::uint32_t flags = 0) const {
        return try_detokenize(tokens, flags).value();
    }
    Result<std::string> try_detokenize(const std::vector<rf_token> &tokens, std::uint32_t flags = 0) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, rf_error **err) {
            const rf_token none = 0;
            const rf_token *data = tokens.empty() ? &none : tokens.data();
            return rf_model_detokenize(get(), data, tokens.size(), flags, buffer, capacity, needed, err);
        });
    }
    bool is_end_token(rf_token token) const noexcept { return rf_model_is_end_token(get(), token) != 0; }
    // The conversation as the model's chat template writes it.
    std::string format_chat(const std::vector<Message> &messages, const ChatOptions &options = {}) const {
        return try_format_chat(to_json(messages), options).value();
    }
    Result<std::string> try_format_chat(std::string_view messages_json, const ChatOptions &options = {}) const {
        return format_chat_with(get(), messages_json, options);
    }

private:
    friend class Session;
    static Result<std::vector<rf_token>> tokenize_with(const rf_model *model, std::string_view text,
                                                       std::uint32_t flags) {
        return detail::fill<std::vector<rf_token>>(
            text.size() / 2 + 8, 0, [&](rf_token *tokens, std::size_t capacity, std::size_t *n, rf_error **err) {
                return rf_model_tokenize(model, detail::at(text), text.size(), flags, tokens, capacity, n, err);
            });
    }
    static Result<std::string> format_chat_with(const rf_model *model, std::string_view json,
                                                const ChatOptions &options) {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, rf_error **err) {
            return rf_model_format_chat(model, detail::at(json), json.size(), &options, buffer, capacity, needed, err);
        });
    }
    // Shared with the sessions, which can outlive this object.
    std::shared_ptr<rf_model> handle_;
};

inline Result<rf_status> Session::try_prompt(std::string_view messages_json, const ChatOptions &options) {
    Result<std::string> text = Model::format_chat_with(model_.get(), messages_json, options);
    if (!text) return text.error();
    auto tokens = Model::tokenize_with(model_.get(), *text, RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL);
    if (!tokens) return tokens.error();
    const rf_token *held = nullptr;
    std::size_t n_held = 0, common = 0;
    auto outcome = detail::status([&](auto **err) { return rf_session_tokens(get(), &held, &n_held, err); });
    if (!outcome) return outcome;
    // At least one token is decoded, so that there are logits.
    while (common < n_held && common + 1 < tokens->size() && held[common] == (*tokens)[common]) common++;
    outcome = try_rewind(common);
    return outcome ? try_decode(tokens->data() + common, tokens->size() - common) : outcome;
}

// Threads and devices, shared by the models that it loads.
class Engine {
public:
    explicit Engine(const EngineOptions &options = {}) : Engine(try_create(options).value()) {}
    static Result<Engine> try_create(const EngineOptions &options = {}) {
        return detail::make<Engine, rf_engine>(
            [&](auto **out, auto **err) { return rf_engine_create(&options, out, err); });
    }
    explicit Engine(rf_engine *owned) noexcept : handle_(owned) {}
    rf_engine *get() const noexcept { return handle_.get(); }
    std::uint32_t threads() const noexcept { return rf_engine_threads(get()); }

    // Loads a GGUF file; the error of a load that `ModelOptions::on_progress` stopped is RF_CANCELLED.
    Model load(std::string_view path, const ModelOptions &options = {}) const {
        return try_load(path, options).value();
    }
    Result<Model> try_load(std::string_view path, const ModelOptions &options = {}) const {
        return detail::make<Model, rf_model>([&](auto **out, auto **err) {
            return rf_model_load(get(), detail::at(path), path.size(), &options, out, err);
        });
    }
    // Loads the bytes of a GGUF file.
    Result<Model> try_load_memory(const void *bytes, std::size_t n, const ModelOptions &options = {}) const {
        return detail::make<Model, rf_model>(
            [&](auto **out, auto **err) { return rf_model_load_memory(get(), bytes, n, &options, out, err); });
    }
    // Loads through the host's own reader.
    Result<Model> try_load_reader(const Reader &reader, const ModelOptions &options = {}) const {
        return detail::make<Model, rf_model>(
            [&](auto **out, auto **err) { return rf_model_load_reader(get(), &reader, &options, out, err); });
    }

private:
    detail::Handle<rf_engine, rf_engine_free> handle_;
};

} // namespace rocmforge

#endif // ROCMFORGE_HPP

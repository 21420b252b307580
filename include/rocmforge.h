/*
 * rocmforge: runs GGUF language models behind a small, stable C interface.
 *
 * The way through it: make an engine, load a model, make a session, decode tokens, take pieces of text.
 *
 *     rf_engine_create -> rf_model_load -> rf_session_create
 *         -> rf_model_format_chat -> rf_model_tokenize -> rf_session_decode -> rf_session_next ...
 *
 * Rules that hold for every function:
 *   - Status: 0 is success, positive numbers are normal outcomes (RF_DONE, RF_CANCELLED ...), negative ones errors.
 *   - Errors: the last parameter of a fallible call, `rf_error **err`, may be NULL. Else it is set to NULL, or on error
 *     to an object that you free with rf_error_free. Outputs are set to NULL or 0 before anything can fail.
 *   - Handles: freed by their own rf_..._free, in any order; NULL is allowed there. Children keep what they need alive.
 *   - Options: begin with the type's _INIT macro. Zero means the default in every field; NULL means all defaults.
 *     struct_size lets old programs meet new libraries.
 *   - Text: UTF-8, as a pointer and a length in bytes; the length RF_STRLEN means that it ends at its first NUL.
 *   - Threads: engines, models and samplers are immutable and may be used by any number of threads at once. A session
 *     belongs to one thread at a time; a second one gets RF_E_BUSY.
 *   - The library never aborts, exits, prints, or touches the host's signals, environment or global state.
 *
 * Made by cbindgen from the Rust sources; do not edit (make header).
 */


#ifndef ROCMFORGE_H
#define ROCMFORGE_H



#include <stddef.h>
#include <stdint.h>

// As a text's length: the text ends at its first NUL.
#define RF_STRLEN SIZE_MAX

#ifndef RF_API
#  if defined(_WIN32)
#    define RF_API __declspec(dllimport)
#  else
#    define RF_API
#  endif
#endif




// What a callback returns to go on; anything else cancels.
#define RF_CONTINUE 0

// Version of this header.
#define RF_VERSION_MAJOR 0

// Version of this header.
#define RF_VERSION_MINOR 1

// Version of this header.
#define RF_VERSION_PATCH 0

// Number of the binary interface that this header describes. It grows when functions or fields are added.
#define RF_ABI_VERSION 1

// `rf_engine_options.isa`: the best that the processor has.
#define RF_ISA_AUTO 0

// `rf_engine_options.isa`: portable code only.
#define RF_ISA_SCALAR 1

// `rf_engine_options.isa`: at most AVX2, FMA and F16C.
#define RF_ISA_AVX2 2

// `rf_engine_options.isa`: at most AVX-512 with VNNI.
#define RF_ISA_AVX512_VNNI 3

// `rf_engine_options.isa`: at most AMX with bf16, beside AVX-512. An engine that may use AMX asks Linux to permit it to the
// process. From then on `sigaltstack` demands at least `sysconf(_SC_MINSIGSTKSZ)` bytes in every thread, about 11 KiB: a
// host that installs smaller alternate stacks caps the engine at `RF_ISA_AVX512_VNNI`.
#define RF_ISA_AMX 4

// `rf_engine_options.isa`: at most AVX2 with AVX-VNNI, which is more than `RF_ISA_AVX2` and less than `RF_ISA_AVX512_VNNI`.
#define RF_ISA_AVX_VNNI 5

// A log message for those who look into the engine.
#define RF_LOG_DEBUG 1

// A log message: what was loaded, and how.
#define RF_LOG_INFO 2

// A log message: something works less well than it could.
#define RF_LOG_WARNING 3

// A log message: something failed, and the call's error says the same.
#define RF_LOG_ERROR 4

// `rf_engine_options.flags`: keep each of the engine's threads on one of the processors that the process may use. The
// calling thread, which computes too, is not touched. For machines that run nothing else.
#define RF_ENGINE_PIN_THREADS 1

// `rf_device_info.vendor`: AMD, through HIP.
#define RF_VENDOR_AMD 1

// `rf_device_info.vendor`: NVIDIA, through CUDA's driver.
#define RF_VENDOR_NVIDIA 2

// `rf_model_options.flags`: use the weights where the file is mapped, without a copy. The model loads at once and
// shares memory with other processes, but on the CPU it computes several times more slowly than with the default (a token at a
// time up to ten times), which rearranges the weights in memory of its own. For quick loads and speed see
// `RF_LOAD_PACKED_CACHE`. The file must not be truncated while the model lives.
#define RF_LOAD_MMAP 1

// `rf_model_options.flags`: keep the rearranged weights in a file, `<model>.rfpack` beside the model or in
// `packed_cache_dir`. The first load writes it, as large as the model; later loads map it, check its hashes, and share
// its memory with other processes. A file that is damaged, or of another model or version, is written anew; where none
// can be written, the load goes on and the log has a warning. The file must not be truncated while the model lives,
// and who may write it decides what the model says. Not with `RF_LOAD_MMAP`, which rearranges nothing.
#define RF_LOAD_PACKED_CACHE 2

// `rf_model_special_token`: begin of sequence.
#define RF_TOKEN_BOS 1

// `rf_model_special_token`: end of sequence.
#define RF_TOKEN_EOS 2

// `rf_model_special_token`: end of turn.
#define RF_TOKEN_EOT 3

// `rf_model_special_token`: unknown.
#define RF_TOKEN_UNK 4

// `rf_model_special_token`: padding.
#define RF_TOKEN_PAD 5

// `rf_model_tokenize`: add what the model's metadata asks for (BOS before, EOS after). A text that begins with the
// BOS token already, as chat templates write it, gets no second one.
#define RF_TOKENIZE_ADD_SPECIAL 1

// `rf_model_tokenize`: read control tokens such as `<|im_start|>` in the text as tokens. Leave it off for text from
// users, so that they cannot forge a turn. `rf_model_detokenize`: write control tokens as text.
#define RF_TOKENIZE_SPECIAL 2

// `rf_chat_options.flags`: do not end with the beginning of the assistant's next turn.
#define RF_CHAT_NO_GENERATION_PROMPT 1

// `rf_sampler_options.flags`: always the likeliest token (the lowest id of equals). Penalties and biases still act;
// the other fields do not.
#define RF_SAMPLER_GREEDY 1

// `rf_session_options.flags`: reference mode. Activations are not quantised and the cache is float32: slower, and as
// near to the weights' own arithmetic as float32 is.
#define RF_SESSION_REFERENCE 1

// `rf_piece.finish`: generation goes on.
#define RF_FINISH_NONE 0

// `rf_piece.finish`: the model ended its turn, or a stop token came.
#define RF_FINISH_END_TOKEN 1

// `rf_piece.finish`: a stop string came.
#define RF_FINISH_STOP_STRING 2

// `rf_piece.finish`: `max_tokens` were generated.
#define RF_FINISH_MAX_TOKENS 3

// `rf_piece.finish`: the context is full.
#define RF_FINISH_FULL 4

// `rf_generate_options.flags`: go on after the model's end tokens.
#define RF_GENERATE_IGNORE_END 1

// `rf_generate_options.flags`: write control tokens as text.
#define RF_GENERATE_SPECIAL 2

// `rf_generate_options.flags`: when the context is full, end with `RF_FULL` and not with `RF_E_CONTEXT_FULL`.
#define RF_GENERATE_STOP_WHEN_FULL 4

// Stops work from any thread. It has a life of its own, so that a user interface may hold it past a session's end.
typedef struct rf_cancel_token rf_cancel_token;

// Threads and processor, shared by the models that it loads.
typedef struct rf_engine rf_engine;

// What went wrong, as an object of its own: it belongs to whoever received it, on whichever thread.
typedef struct rf_error rf_error;

// A loaded model: immutable, shared by its sessions, usable from any number of threads.
typedef struct rf_model rf_model;

// A way to choose tokens: immutable, shared by any number of sessions, each of which keeps its own random state.
typedef struct rf_sampler rf_sampler;

// One sequence of tokens over a model. Used by one thread at a time; a second thread gets `RF_E_BUSY`.
typedef struct rf_session rf_session;

// Outcome of a call: `RF_OK` (0), a positive normal outcome, or a negative error.
typedef int32_t rf_status;

// Receives log messages (`level` is one of `RF_LOG_…`; `message` is UTF-8, not NUL-terminated, and the library's).
// May be called from any thread that uses the engine, also from several at once. Must not unwind.
typedef void (*rf_log_callback)(void *user_data, int32_t level, const char *message, size_t message_len);

// One of the tasks that a host's `rf_parallel_for` runs.
typedef void (*rf_task)(void *task_data, size_t index);

// A host's job system: calls `task(task_data, i)` exactly once for each `i` from 0 to `n - 1`, on any threads, also on the
// calling one, several at once or one after the other, and returns when all those calls have returned. Tasks take 10 to
// 1000 microseconds, never block on each other, and never call back into the host. Called from the threads that use the
// engine's sessions and load its models, some hundred times a token, also by several at once. Must not unwind.
typedef void (*rf_parallel_for)(void *user_data, size_t n, rf_task task, void *task_data);

// How to make an engine. Begin with `RF_ENGINE_OPTIONS_INIT`; zero means the default in every field.
typedef struct {
    // `sizeof(rf_engine_options)`.
    uint32_t struct_size;
    // `RF_ENGINE_…`, or 0.
    uint32_t flags;
    // Threads in all, the caller's included. 0: as many as the process may use.
    uint32_t threads;
    // Caps the instruction set: one of `RF_ISA_…`.
    uint32_t isa;
    // Receives log messages. NULL: the library is silent.
    rf_log_callback on_log;
    // Given to `on_log`.
    void *log_user_data;
    // Which GPUs may be used: "auto" (all that are usable), "none", or their numbers, such as "0" or "0,1" (integrated
    // ones too). NULL: what the environment variable ROCMFORGE_GPU_DEVICE says, else "auto".
    const char *gpus;
    // Length of `gpus` in bytes. 0: it ends at its NUL.
    size_t gpus_len;
    // Bytes that may be taken on each GPU. 0: what is free.
    uint64_t gpu_memory;
    // Runs the engine's tasks on the host's threads; the engine then starts none, and `threads` says how many the host has.
    // NULL: the engine's own threads.
    rf_parallel_for parallel_for;
    // Given to `parallel_for`.
    void *parallel_for_user_data;
} rf_engine_options;

// What a GPU is. Begin with `RF_DEVICE_INFO_INIT`.
typedef struct {
    // `sizeof(rf_device_info)`.
    uint32_t struct_size;
    // `RF_VENDOR_…`.
    uint32_t vendor;
    // The maker's name for it. The engine's.
    const char *name;
    // Its architecture, such as "gfx1100". The engine's.
    const char *architecture;
    // Bytes of its memory.
    uint64_t memory;
    // 1 if models may be put on it.
    uint32_t usable;
    // 1 if it shares the host's memory; such a GPU is used only if it is asked for by its number.
    uint32_t integrated;
    // Why it is not usable: a sentence; empty if it is. The engine's.
    const char *reason;
    // Compute units.
    uint32_t multiprocessors;
    // Zero.
    uint32_t reserved;
} rf_device_info;

// What a model would take. Begin with `RF_MEMORY_ESTIMATE_INIT`.
typedef struct {
    // `sizeof(rf_memory_estimate)`.
    uint32_t struct_size;
    // Layers that would be on GPUs.
    uint32_t gpu_layers;
    // Bytes of weights in the host's memory.
    uint64_t host_bytes;
    // Bytes of weights on GPUs, all together.
    uint64_t device_bytes;
    // Bytes of the key-value cache of one token, in all places together.
    uint64_t kv_bytes_per_token;
} rf_memory_estimate;

// Receives the fraction that is loaded, from 0 to 1, on the calling thread. `RF_CONTINUE` goes on, anything else
// cancels the load. Must not unwind.
typedef int32_t (*rf_progress_callback)(void *user_data, float fraction);

// How to load a model. Begin with `RF_MODEL_OPTIONS_INIT`; zero means the default in every field.
typedef struct {
    // `sizeof(rf_model_options)`.
    uint32_t struct_size;
    // `RF_LOAD_…`, or 0.
    uint32_t flags;
    // Called while loading. NULL: not.
    rf_progress_callback on_progress;
    // Given to `on_progress`.
    void *progress_user_data;
    // Split text as this pre-tokenizer does (`tokenizer.ggml.pre`, such as "llama-bpe"), whatever the file says.
    // UTF-8. NULL: as the file says; one that the library does not know is refused by its name.
    const char *pre_tokenizer;
    // Length of `pre_tokenizer` in bytes. 0: it ends at its NUL.
    size_t pre_tokenizer_len;
    // A Hugging Face `tokenizer.json` (its text, not its path) to use instead of the file's tokenizer. NULL: none.
    const char *tokenizer_json;
    // Length of `tokenizer_json` in bytes. 0: it ends at its NUL.
    size_t tokenizer_json_len;
    // A Jinja chat template to use instead of the file's. NULL: the file's.
    const char *chat_template;
    // Length of `chat_template` in bytes. 0: it ends at its NUL.
    size_t chat_template_len;
    // Layers to put on GPUs, from the last one; the others stay on the CPU. 0: as many as fit; negative: none.
    int32_t gpu_layers;
    // Zero.
    uint32_t reserved;
    // The folder of the file of `RF_LOAD_PACKED_CACHE`, which must be there. UTF-8. Models of one name need folders of
    // their own. NULL: the model's.
    const char *packed_cache_dir;
    // Length of `packed_cache_dir` in bytes. 0: it ends at its NUL.
    size_t packed_cache_dir_len;
} rf_model_options;

// Fills `buffer` with the `n` bytes from `offset` of the file; 0 for success, anything else for failure. Called on
// the calling thread of `rf_model_load_reader`. Must not unwind.
typedef int32_t (*rf_read_callback)(void *user_data, uint64_t offset, void *buffer, size_t n);

// A host's own file, such as an entry of a game's asset pack. Begin with `RF_READER_INIT`.
typedef struct {
    // `sizeof(rf_reader)`.
    uint32_t struct_size;
    // None is defined yet.
    uint32_t flags;
    // Length of the file in bytes.
    uint64_t length;
    // Reads from it.
    rf_read_callback read;
    // Given to `read`.
    void *user_data;
} rf_reader;

// What a model is. Begin with `RF_MODEL_INFO_INIT`.
typedef struct {
    // `sizeof(rf_model_info)`.
    uint32_t struct_size;
    // Tokens of the vocabulary; logits have as many elements.
    uint32_t n_vocab;
    // Tokens that the network was trained for.
    uint32_t context_length;
    // Width of the residual stream.
    uint32_t embedding_length;
    // Layers.
    uint32_t block_count;
    // 1 if the model has a chat template.
    uint32_t has_chat_template;
    // Elements of all tensors.
    uint64_t n_parameters;
    // Bytes of all tensors in the file.
    uint64_t tensor_bytes;
    // Bytes of the key-value cache of one token.
    uint64_t kv_bytes_per_token;
    // Layers that are on GPUs.
    uint32_t gpu_layers;
    // Zero.
    uint32_t reserved;
} rf_model_info;

// A token's number in the vocabulary, from 0 to `rf_model_info.n_vocab - 1`.
typedef uint32_t rf_token;

// How to format a conversation. Begin with `RF_CHAT_OPTIONS_INIT`; zero means the default in every field.
typedef struct {
    // `sizeof(rf_chat_options)`.
    uint32_t struct_size;
    // `RF_CHAT_…`, or 0.
    uint32_t flags;
    // Tools that the model may call: a JSON array of function definitions, as OpenAI's API takes it. NULL: none.
    const char *tools_json;
    // Length of `tools_json` in bytes. 0: it ends at its NUL.
    size_t tools_json_len;
    // A JSON object of further variables for the template, such as {"enable_thinking": false}. NULL: none.
    const char *extra_json;
    // Length of `extra_json` in bytes. 0: it ends at its NUL.
    size_t extra_json_len;
    // A Jinja template to use this once instead of the model's. NULL: the model's.
    const char *chat_template;
    // Length of `chat_template` in bytes. 0: it ends at its NUL.
    size_t chat_template_len;
} rf_chat_options;

// A number to add to a token's logit.
typedef struct {
    // The token.
    rf_token token;
    // What to add; minus infinity forbids the token.
    float bias;
} rf_logit_bias;

// How to choose tokens. Begin with `RF_SAMPLER_OPTIONS_INIT`; zero means the default in every field.
//
// The chain, in this order: logit bias, penalties, top-k, typical-p, top-p, min-p, temperature, draw.
typedef struct {
    // `sizeof(rf_sampler_options)`.
    uint32_t struct_size;
    // `RF_SAMPLER_…`, or 0.
    uint32_t flags;
    // The same seed, session, library and machine give the same text, if the tokens before were computed in the same steps:
    // on processors that multiply bf16 or F16, many tokens at once are rounded otherwise than few.
    uint64_t seed;
    // Divides the logits; above 0. 0: 0.8.
    float temperature;
    // Keep the k likeliest tokens. 0: 40; negative: all.
    int32_t top_k;
    // Keep the likeliest tokens that together reach this probability, up to 1 (all). 0: 0.95.
    float top_p;
    // Keep tokens that are at least this fraction as likely as the likeliest, up to 1. 0: 0.05; negative: all.
    float min_p;
    // Keep the tokens nearest to the expected surprise that together reach this probability (Meister et al., 2022),
    // up to 1 (all). 0: 1.
    float typical_p;
    // Divides positive logits of tokens in the window and multiplies negative ones; above 0. 0: 1 (off).
    float repetition_penalty;
    // Subtracted from the logits of tokens in the window, -100 to 100. 0: off.
    float presence_penalty;
    // Subtracted for each occurrence in the window, -100 to 100. 0: off.
    float frequency_penalty;
    // The last tokens that penalties look at. 0: 64; negative: all of the session.
    int32_t penalty_window;
    // Numbers to add to logits; `n_logit_bias` of them. NULL: none. Copied.
    const rf_logit_bias *logit_bias;
    // How many.
    size_t n_logit_bias;
} rf_sampler_options;

// How to make a session. Begin with `RF_SESSION_OPTIONS_INIT`; zero means the default in every field.
typedef struct {
    // `sizeof(rf_session_options)`.
    uint32_t struct_size;
    // `RF_SESSION_…`, or 0.
    uint32_t flags;
    // Tokens that fit. 0: as many as the network was trained for. Memory is taken in pages of 32 tokens as it is used.
    uint32_t context;
    // Tokens of a prompt that are computed at a time: more is quicker and takes more memory. 0: what is best where the
    // model is (256 on the CPU, 512 on GPUs).
    uint32_t batch;
    // Stops the session's work when it is raised. NULL: none. The token may be freed before the session.
    const rf_cancel_token *cancel;
} rf_session_options;

// A generated token and its text. Begin with `RF_PIECE_INIT`.
typedef struct {
    // `sizeof(rf_piece)`.
    uint32_t struct_size;
    // 1 if `token` holds a token.
    uint32_t has_token;
    // The token.
    rf_token token;
    // `RF_FINISH_…`: why generation ended, on the last piece.
    int32_t finish;
    // Whole UTF-8, NUL-terminated, never NULL, often empty: bytes that may become a character and text that may become
    // a stop string are held back. The session's, until the next call on it.
    const char *text;
    // Its length in bytes, without the NUL.
    size_t text_len;
} rf_piece;

// Receives the pieces of `rf_session_generate` on the calling thread. `piece` is valid during the call. `RF_CONTINUE`
// goes on, anything else ends the generation with `RF_CANCELLED`. Must not unwind; calls on the same session get
// `RF_E_BUSY`.
typedef int32_t (*rf_piece_callback)(void *user_data, const rf_piece *piece);

// How to generate. Begin with `RF_GENERATE_OPTIONS_INIT`; zero means the default in every field.
typedef struct {
    // `sizeof(rf_generate_options)`.
    uint32_t struct_size;
    // `RF_GENERATE_…`, or 0.
    uint32_t flags;
    // Chooses the tokens. NULL: the default sampler. May be freed before the session.
    const rf_sampler *sampler;
    // Tokens at most. 0: no limit but the context.
    uint32_t max_tokens;
    // Number of `stop_tokens`.
    uint32_t n_stop_tokens;
    // Tokens that end the generation besides the model's own. NULL: none. Copied.
    const rf_token *stop_tokens;
    // NUL-terminated texts that end the generation and are not returned; `n_stop_strings` of them. NULL: none. Copied.
    const char *const *stop_strings;
    // How many.
    size_t n_stop_strings;
    // Receives the pieces; only `rf_session_generate` uses it.
    rf_piece_callback on_piece;
    // Given to `on_piece`.
    void *piece_user_data;
} rf_generate_options;

// What a session has done. Begin with `RF_SESSION_STATS_INIT`.
typedef struct {
    // `sizeof(rf_session_stats)`.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Tokens computed several at a time, as prompts are.
    uint64_t prefill_tokens;
    // Time that they took, in microseconds.
    uint64_t prefill_us;
    // Tokens computed one at a time.
    uint64_t decode_tokens;
    // Time that they took, in microseconds.
    uint64_t decode_us;
    // Bytes of the key-value cache now.
    uint64_t kv_bytes;
} rf_session_stats;

// Done as asked.
#define RF_OK 0

// Work is left: call again.
#define RF_PENDING 1

// Generation has ended; the piece says why.
#define RF_DONE 2

// Stopped by a cancel token or a callback; the object is as it was before the call.
#define RF_CANCELLED 3

// The context is full and the options asked to stop then.
#define RF_FULL 4

// An argument is outside what its function documents (NULL, a bad flag, an unknown token, invalid UTF-8 …).
#define RF_E_ARGUMENT (-1)

// The operating system or the host's reader refused: missing file, no permission, a failed read.
#define RF_E_IO (-2)

// The file's bytes contradict their format, or it is damaged or incomplete.
#define RF_E_FORMAT (-3)

// Valid, but not served by this version: an architecture, a tensor type, a tokenizer, a newer option.
#define RF_E_UNSUPPORTED (-4)

// Memory could not be had.
#define RF_E_OUT_OF_MEMORY (-5)

// The tokens do not fit into the session's context; nothing was consumed.
#define RF_E_CONTEXT_FULL (-6)

// The session is in use on another thread, or in one of its own callbacks.
#define RF_E_BUSY (-7)

// The chat template is missing, does not parse, or refused the messages.
#define RF_E_TEMPLATE (-8)

// The caller's buffer is too small; the size that is needed was written.
#define RF_E_BUFFER (-9)

// A GPU's driver refused a call; the message says which and why.
#define RF_E_DEVICE (-10)

// A GPU was lost (a fault, a reset, a removal): its models and sessions are of no use any more, the process and other
// devices go on.
#define RF_E_DEVICE_LOST (-11)

// A defect of the library. A session that met one refuses further work: free it.
#define RF_E_INTERNAL (-100)

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The status that the failed call returned.
//
// Ownership: `err` stays the caller's; NULL gives `RF_OK`.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API rf_status rf_error_status(const rf_error *err);

// A sentence that names the file, the place in it and the cause, in English, as NUL-terminated UTF-8.
//
// Ownership: the text belongs to `err` and lives as long; NULL gives "".
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API const char *rf_error_message(const rf_error *err);

// Frees an error.
//
// Ownership: takes `err`; NULL is allowed.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API void rf_error_free(rf_error *err);

// The library's version, such as "0.1.0".
//
// Ownership: static.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API const char *rf_version(void);

// The number of the binary interface that the library has.
//
// Ownership: none.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API uint32_t rf_abi_version(void);

// 1 if the library serves a program that was compiled against the header with this number (give `RF_ABI_VERSION`),
// else 0. Worth asking once after loading the library at run time.
//
// Ownership: none.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API
int32_t rf_abi_compatible(uint32_t abi_version);

// 1 if the library was built with a feature ("cpu"; "hip" is reserved), else 0.
//
// Ownership: `name` stays the caller's.
// Threads: any.
// Errors: none; NULL and unknown names give 0.
// Since: 0.1
RF_API int32_t rf_has_feature(const char *name);

// The name of a status, such as "RF_E_FORMAT"; "unknown status" for other numbers.
//
// Ownership: static.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API const char *rf_status_name(rf_status status);

// Makes an engine: its threads, and nothing global.
//
// Ownership: `*engine` is the caller's, to be freed by `rf_engine_free`; `opts` may be NULL and is not kept.
// Threads: any; the engine may be used by any number of threads at once.
// Errors: `RF_E_ARGUMENT`, `RF_E_UNSUPPORTED` (a newer option), `RF_E_IO` (threads could not be started).
// Since: 0.1
RF_API rf_status rf_engine_create(const rf_engine_options *opts, rf_engine **engine, rf_error **err);

// Threads that the engine uses, the caller's included; 0 for NULL.
//
// Ownership: `engine` stays the caller's.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API uint32_t rf_engine_threads(const rf_engine *engine);

// The instruction set that the engine uses: one of `RF_ISA_…` (not in ascending order); 0 for NULL.
//
// Ownership: `engine` stays the caller's.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API uint32_t rf_engine_isa(const rf_engine *engine);

// Frees an engine. Models that it loaded keep what they need of it until they are freed themselves.
//
// Ownership: takes `engine`; NULL is allowed.
// Threads: any, but no other call may use this handle at the same time.
// Errors: none.
// Since: 0.1
RF_API void rf_engine_free(rf_engine *engine);

// GPUs of this machine, usable or not; 0 for NULL, and where `rf_engine_options.gpus` is "none". The drivers are opened
// when this is first asked, or the first model is loaded.
//
// Ownership: `engine` stays the caller's.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API
uint32_t rf_engine_device_count(const rf_engine *engine);

// Writes what GPU `index` is to `*info`, and why it is not usable if it is not.
//
// Ownership: `info` stays the caller's; its `struct_size` must be set (`RF_DEVICE_INFO_INIT`). Its texts are the
//     engine's, until that is freed.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (there is no such device).
// Since: 0.1
RF_API
rf_status rf_engine_device_info(const rf_engine *engine,
                                uint32_t index,
                                rf_device_info *info,
                                rf_error **err);

// Writes to `*estimate` what the model at `path` would take if it were loaded now with `gpu_layers` (as in
// `rf_model_options`). Only the file's directory is read.
//
// Ownership: `path` and `estimate` stay the caller's; its `struct_size` must be set (`RF_MEMORY_ESTIMATE_INIT`).
// Threads: any.
// Errors: as `rf_model_load`.
// Since: 0.1
RF_API
rf_status rf_engine_estimate(const rf_engine *engine,
                             const char *path,
                             size_t path_len,
                             int32_t gpu_layers,
                             rf_memory_estimate *estimate,
                             rf_error **err);

// Loads a GGUF model from a file. If the file's name is that of a part (`NAME-00001-of-00003.gguf`), its fellows are
// loaded with it.
//
// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; `path` and `opts` (may be NULL) are not kept.
// Threads: any; the engine may load several models at once. `on_progress` runs on the calling thread.
// Errors: `RF_E_IO`, `RF_E_FORMAT`, `RF_E_UNSUPPORTED`, `RF_E_OUT_OF_MEMORY` (of a GPU too; the message says how much
//     is needed and free), `RF_E_DEVICE`, `RF_E_DEVICE_LOST`, `RF_E_ARGUMENT`; `RF_CANCELLED` if
//     `on_progress` asked for it. The message names the file, and the key or tensor.
// Since: 0.1
RF_API
rf_status rf_model_load(const rf_engine *engine,
                        const char *path,
                        size_t path_len,
                        const rf_model_options *opts,
                        rf_model **model,
                        rf_error **err);

// Loads a GGUF model from memory. The bytes are copied as far as they are needed.
//
// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; the bytes and `opts` (may be NULL) are not kept.
// Threads: any; `on_progress` runs on the calling thread.
// Errors: as `rf_model_load`; `RF_E_UNSUPPORTED` for `RF_LOAD_MMAP`, `RF_LOAD_PACKED_CACHE` and a part of a split model.
// Since: 0.1
RF_API
rf_status rf_model_load_memory(const rf_engine *engine,
                               const void *bytes,
                               size_t n_bytes,
                               const rf_model_options *opts,
                               rf_model **model,
                               rf_error **err);

// Loads a GGUF model through a reader of the host.
//
// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; `reader` and `opts` (may be NULL) are not kept.
// Threads: any; `reader->read` and `on_progress` run on the calling thread.
// Errors: as `rf_model_load`; `RF_E_IO` if the reader fails; `RF_E_UNSUPPORTED` for `RF_LOAD_MMAP`,
//     `RF_LOAD_PACKED_CACHE` and a part of a split model.
// Since: 0.1
RF_API
rf_status rf_model_load_reader(const rf_engine *engine,
                               const rf_reader *reader,
                               const rf_model_options *opts,
                               rf_model **model,
                               rf_error **err);

// Frees a model. Sessions that use it keep what they need of it until they are freed themselves.
//
// Ownership: takes `model`; NULL is allowed.
// Threads: any, but no other call may use this handle at the same time.
// Errors: none.
// Since: 0.1
RF_API void rf_model_free(rf_model *model);

// Writes what the model is to `*info`.
//
// Ownership: `info` stays the caller's; its `struct_size` must be set (`RF_MODEL_INFO_INIT`).
// Threads: any.
// Errors: `RF_E_ARGUMENT`.
// Since: 0.1
RF_API rf_status rf_model_get_info(const rf_model *model, rf_model_info *info, rf_error **err);

// The number of metadata entries of the model's file; 0 for NULL.
//
// Ownership: `model` stays the caller's.
// Threads: any.
// Errors: none.
// Since: 0.1
RF_API size_t rf_model_metadata_count(const rf_model *model);

// The key of metadata entry `index`, in the file's order, as NUL-terminated text in the caller's buffer.
//
// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that
//     is all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (no such entry), `RF_E_BUFFER` (nothing written but `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_metadata_key(const rf_model *model,
                                size_t index,
                                char *buffer,
                                size_t capacity,
                                size_t *needed,
                                rf_error **err);

// The value of metadata entry `key` as NUL-terminated text in the caller's buffer: a string as it is, a number in
// decimal, a boolean as "true" or "false", an array as JSON.
//
// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that
//     is all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (no such key; the vocabulary's arrays are not kept), `RF_E_BUFFER` (nothing written but
//     `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_metadata_value(const rf_model *model,
                                  const char *key,
                                  size_t key_len,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *needed,
                                  rf_error **err);

// Writes the id of a special token (`which` is one of `RF_TOKEN_…`) to `*token`.
//
// Ownership: `model` and `token` stay the caller's.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (unknown `which`), `RF_E_UNSUPPORTED` (the model has no such token).
// Since: 0.1
RF_API
rf_status rf_model_special_token(const rf_model *model,
                                 uint32_t which,
                                 rf_token *token,
                                 rf_error **err);

// 1 if `token` ends a generation (the model's end of sequence, end of turn, and their like), else 0.
//
// Ownership: `model` stays the caller's.
// Threads: any.
// Errors: none; NULL and unknown tokens give 0.
// Since: 0.1
RF_API int32_t rf_model_is_end_token(const rf_model *model, rf_token token);

// The tokens of a text.
//
// Ownership: `text` and `tokens` stay the caller's. `*n_tokens` becomes the number of tokens; with `tokens` NULL that
//     is all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (not UTF-8), `RF_E_UNSUPPORTED` (a newer flag), `RF_E_BUFFER` (more than `capacity` tokens;
//     nothing written but `*n_tokens`).
// Since: 0.1
RF_API
rf_status rf_model_tokenize(const rf_model *model,
                            const char *text,
                            size_t text_len,
                            uint32_t flags,
                            rf_token *tokens,
                            size_t capacity,
                            size_t *n_tokens,
                            rf_error **err);

// The text of tokens, as NUL-terminated whole UTF-8 in the caller's buffer. Bytes that form no character become
// U+FFFD. `flags` may be `RF_TOKENIZE_SPECIAL`.
//
// Ownership: `tokens` and the buffer stay the caller's. `*needed` becomes the length without the NUL; with `buffer`
//     NULL that is all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (an unknown token), `RF_E_UNSUPPORTED` (a newer flag), `RF_E_BUFFER` (nothing written but
//     `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_detokenize(const rf_model *model,
                              const rf_token *tokens,
                              size_t n_tokens,
                              uint32_t flags,
                              char *buffer,
                              size_t capacity,
                              size_t *needed,
                              rf_error **err);

// One token as the vocabulary writes it, NUL-terminated in the caller's buffer: for looking at, not for joining to a
// text (use `rf_model_detokenize`).
//
// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that is
//     all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (an unknown token), `RF_E_BUFFER` (nothing written but `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_token_text(const rf_model *model,
                              rf_token token,
                              char *buffer,
                              size_t capacity,
                              size_t *needed,
                              rf_error **err);

// The text of a conversation, as the model's chat template writes it, NUL-terminated in the caller's buffer. Tokenize
// it with `RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL`.
//
// `messages_json` is a JSON array such as
// [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}].
//
// Ownership: all texts and the buffer stay the caller's; `opts` may be NULL. `*needed` becomes the length without the
//     NUL; with `buffer` NULL that is all.
// Threads: any.
// Errors: `RF_E_ARGUMENT` (not the JSON that is asked for), `RF_E_TEMPLATE` (no template, or it refuses the messages),
//     `RF_E_BUFFER` (nothing written but `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_format_chat(const rf_model *model,
                               const char *messages_json,
                               size_t messages_json_len,
                               const rf_chat_options *opts,
                               char *buffer,
                               size_t capacity,
                               size_t *needed,
                               rf_error **err);

// The Jinja source of the model's chat template, NUL-terminated in the caller's buffer.
//
// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that is
//     all.
// Threads: any.
// Errors: `RF_E_TEMPLATE` (the model has none), `RF_E_BUFFER` (nothing written but `*needed`).
// Since: 0.1
RF_API
rf_status rf_model_chat_template(const rf_model *model,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *needed,
                                 rf_error **err);

// Makes a sampler.
//
// Ownership: `*sampler` is the caller's, to be freed by `rf_sampler_free`; `opts` may be NULL and is not kept.
// Threads: any; the sampler may be used by any number of sessions at once.
// Errors: `RF_E_ARGUMENT` (a field out of its range, named in the message), `RF_E_UNSUPPORTED` (a newer option).
// Since: 0.1
RF_API
rf_status rf_sampler_create(const rf_sampler_options *opts,
                            rf_sampler **sampler,
                            rf_error **err);

// Frees a sampler. Sessions that use it keep what they need of it.
//
// Ownership: takes `sampler`; NULL is allowed.
// Threads: any, but no other call may use this handle at the same time.
// Errors: none.
// Since: 0.1
RF_API void rf_sampler_free(rf_sampler *sampler);

// Makes a cancel token that is not raised. One token may serve any number of sessions and loads.
//
// Ownership: `*token` is the caller's, to be freed by `rf_cancel_token_free`.
// Threads: any.
// Errors: `RF_E_ARGUMENT`.
// Since: 0.1
RF_API rf_status rf_cancel_token_create(rf_cancel_token **token, rf_error **err);

// Raises the token: running and later calls that heed it return `RF_CANCELLED` until it is reset. A running call
// returns after the stage of the network that it is in, far less than the time of a token.
//
// Ownership: `token` stays the caller's; NULL is allowed and does nothing.
// Threads: any, at any time.
// Errors: none.
// Since: 0.1
RF_API
void rf_cancel_token_cancel(const rf_cancel_token *token);

// Lowers the token, so that work goes on.
//
// Ownership: `token` stays the caller's; NULL is allowed and does nothing.
// Threads: any, at any time.
// Errors: none.
// Since: 0.1
RF_API void rf_cancel_token_reset(const rf_cancel_token *token);

// Frees a token. Sessions that were given it keep what they need of it.
//
// Ownership: takes `token`; NULL is allowed.
// Threads: any, but no other call may use this handle at the same time.
// Errors: none.
// Since: 0.1
RF_API void rf_cancel_token_free(rf_cancel_token *token);

// Makes an empty session.
//
// Ownership: `*session` is the caller's, to be freed by `rf_session_free`; it keeps the model alive. `opts` may be NULL
//     and is not kept.
// Threads: any; sessions on one model are independent.
// Errors: `RF_E_ARGUMENT`, `RF_E_OUT_OF_MEMORY`, `RF_E_UNSUPPORTED` (a newer option).
// Since: 0.1
RF_API
rf_status rf_session_create(const rf_model *model,
                            const rf_session_options *opts,
                            rf_session **session,
                            rf_error **err);

// Frees a session.
//
// Ownership: takes `session`; NULL is allowed.
// Threads: any, but no other call may use this handle at the same time.
// Errors: none.
// Since: 0.1
RF_API void rf_session_free(rf_session *session);

// Appends tokens and computes the logits that follow the last of them. All or nothing: after any other outcome than
// `RF_OK` the session holds the tokens that it held before.
//
// Ownership: `tokens` stays the caller's.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT` (no token, or one outside the vocabulary), `RF_E_CONTEXT_FULL`, `RF_E_OUT_OF_MEMORY`,
//     `RF_E_FORMAT` (a damaged weight made the logits meaningless), `RF_E_BUSY`; `RF_CANCELLED`.
// Since: 0.1
RF_API
rf_status rf_session_decode(rf_session *session,
                            const rf_token *tokens,
                            size_t n_tokens,
                            rf_error **err);

// Appends one token to each of `n_sessions` sessions and computes the logits that follow, all in one step: weights are
// read once for all sessions, so that eight of them take little longer than one. `tokens[i]` goes to `sessions[i]`. With
// NULL for `tokens` each session appends the token that `rf_session_next` returned last, if it is not appended yet, so
// that the next `rf_session_next` only chooses; sessions to which no token is due stay as they are. All or nothing: after
// any other outcome than `RF_OK` each session holds the tokens that it held before, whichever session it was that failed.
//
// Ownership: `sessions` and `tokens` stay the caller's.
// Threads: one at a time on each of the sessions.
// Errors: `RF_E_ARGUMENT` (no session, sessions of several models, some in reference mode and some not, a token outside
//     the vocabulary), `RF_E_CONTEXT_FULL` (of one session), `RF_E_OUT_OF_MEMORY`, `RF_E_FORMAT`, `RF_E_BUSY` (also a
//     session that is named twice); `RF_CANCELLED` (by the cancel token of any of them).
// Since: 0.1
RF_API
rf_status rf_sessions_decode(rf_session *const *sessions,
                             const rf_token *tokens,
                             size_t n_sessions,
                             rf_error **err);

// The logits that follow the last token: `*n_vocab` numbers.
//
// Ownership: the numbers are the session's, until the next call that changes it.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT` (nothing was decoded since creation or rewinding), `RF_E_BUSY`.
// Since: 0.1
RF_API
rf_status rf_session_logits(const rf_session *session,
                            const float **logits,
                            size_t *n_vocab,
                            rf_error **err);

// Chooses a token from the logits. It is not appended: give it to `rf_session_decode`. Only the random state that this
// session keeps for `sampler` changes; it begins anew when another sampler is used.
//
// Ownership: `sampler` (NULL: the default sampler) and `token` stay the caller's.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT` (nothing was decoded since creation or rewinding), `RF_E_BUSY`.
// Since: 0.1
RF_API
rf_status rf_session_sample(rf_session *session,
                            const rf_sampler *sampler,
                            rf_token *token,
                            rf_error **err);

// Begins a generation for `rf_session_next`, from where the session stands. Without it, `rf_session_next` begins one
// with the defaults.
//
// Ownership: `opts` may be NULL and is not kept.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT`, `RF_E_UNSUPPORTED` (a newer option), `RF_E_BUSY`.
// Since: 0.1
RF_API
rf_status rf_session_begin(rf_session *session,
                           const rf_generate_options *opts,
                           rf_error **err);

// The next token and its text, in `*piece`: `RF_OK` while the generation goes on; `RF_DONE` (or `RF_FULL`) with the
// last piece, which may have text too, and from then on until `rf_session_begin`. The token is appended to the session
// by the next call that needs it there.
//
// Ownership: `piece` stays the caller's; its `struct_size` must be set (`RF_PIECE_INIT`). Its text is the session's,
//     until the next call on it.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT` (nothing was decoded yet), `RF_E_CONTEXT_FULL`, `RF_E_OUT_OF_MEMORY`, `RF_E_FORMAT`,
//     `RF_E_BUSY`; `RF_CANCELLED`, after which the generation can go on.
// Since: 0.1
RF_API
rf_status rf_session_next(rf_session *session,
                          rf_piece *piece,
                          rf_error **err);

// Generates until the end, a piece at a time to `opts->on_piece`. Returns `RF_DONE` (or `RF_FULL`) at the end, and
// `RF_CANCELLED` if the callback or a cancel token asked for it; the generation can then go on with `rf_session_next`.
//
// Ownership: `opts` is not kept; it must name a callback.
// Threads: one at a time; the callback runs on the calling thread.
// Errors: as `rf_session_begin` and `rf_session_next`.
// Since: 0.1
RF_API
rf_status rf_session_generate(rf_session *session,
                              const rf_generate_options *opts,
                              rf_error **err);

// Shortens the session to its first `n_tokens` tokens, at once. The logits are gone until the next decode; decode the
// last token again if you want them.
//
// Ownership: none.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT` (more than it holds), `RF_E_BUSY`.
// Since: 0.1
RF_API
rf_status rf_session_rewind(rf_session *session,
                            size_t n_tokens,
                            rf_error **err);

// Tokens that the session holds now, and tokens that fit. Either output may be NULL.
//
// Ownership: the outputs stay the caller's.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
// Since: 0.1
RF_API rf_status rf_session_usage(const rf_session *session, size_t *used, size_t *capacity, rf_error **err);

// The tokens that the session holds: `*n_tokens` of them.
//
// Ownership: the tokens are the session's, until the next call that changes it.
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
// Since: 0.1
RF_API
rf_status rf_session_tokens(const rf_session *session,
                            const rf_token **tokens,
                            size_t *n_tokens,
                            rf_error **err);

// Writes what the session has done to `*stats`.
//
// Ownership: `stats` stays the caller's; its `struct_size` must be set (`RF_SESSION_STATS_INIT`).
// Threads: one at a time.
// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
// Since: 0.1
RF_API rf_status rf_session_get_stats(const rf_session *session, rf_session_stats *stats, rf_error **err);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

// Initialisers: they set struct_size and zero the rest.
#ifdef __cplusplus
#  define RF_INIT_(type) [] { type zero{}; zero.struct_size = sizeof(type); return zero; }()
#else
#  define RF_INIT_(type) {.struct_size = sizeof(type)}
#endif
#define RF_ENGINE_OPTIONS_INIT RF_INIT_(rf_engine_options)
#define RF_DEVICE_INFO_INIT RF_INIT_(rf_device_info)
#define RF_MEMORY_ESTIMATE_INIT RF_INIT_(rf_memory_estimate)
#define RF_MODEL_OPTIONS_INIT RF_INIT_(rf_model_options)
#define RF_READER_INIT RF_INIT_(rf_reader)
#define RF_MODEL_INFO_INIT RF_INIT_(rf_model_info)
#define RF_CHAT_OPTIONS_INIT RF_INIT_(rf_chat_options)
#define RF_SAMPLER_OPTIONS_INIT RF_INIT_(rf_sampler_options)
#define RF_SESSION_OPTIONS_INIT RF_INIT_(rf_session_options)
#define RF_PIECE_INIT RF_INIT_(rf_piece)
#define RF_GENERATE_OPTIONS_INIT RF_INIT_(rf_generate_options)
#define RF_SESSION_STATS_INIT RF_INIT_(rf_session_stats)

#endif  /* ROCMFORGE_H */

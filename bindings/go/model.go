package rocmforge

// #include <rocmforge.h>
import "C"

import (
	"encoding/json"
	"runtime"
	"unsafe"
)

// ModelOptions says how to load a model. Zero means the default in every field.
type ModelOptions struct {
	// MMap uses the weights where the file is mapped: loads at once, shares memory with other processes, and computes
	// more slowly. The file must not be truncated while the model lives.
	MMap bool
	// PackedCache keeps the rearranged weights in a file beside the model, which the next load maps. See the header.
	PackedCache bool
	// PackedCacheDir is the folder of that file, where it is not the model's.
	PackedCacheDir string
	// PreTokenizer splits text in this way (such as "llama-bpe"), whatever the file says.
	PreTokenizer string
	// TokenizerJSON is a Hugging Face tokenizer.json (its text) to use instead of the file's tokenizer.
	TokenizerJSON string
	// ChatTemplate is a Jinja template to use instead of the file's.
	ChatTemplate string
	// GPULayers are the layers to put on GPUs, from the last one. 0: as many as fit; negative: none.
	GPULayers int32
}

func (o *ModelOptions) c(pins *pinner) C.rf_model_options {
	options := C.rf_model_options{struct_size: C.sizeof_rf_model_options, gpu_layers: C.int32_t(o.GPULayers)}
	if o.MMap {
		options.flags |= C.RF_LOAD_MMAP
	}
	if o.PackedCache {
		options.flags |= C.RF_LOAD_PACKED_CACHE
	}
	options.packed_cache_dir, options.packed_cache_dir_len = pins.text(o.PackedCacheDir)
	options.pre_tokenizer, options.pre_tokenizer_len = pins.text(o.PreTokenizer)
	options.tokenizer_json, options.tokenizer_json_len = pins.text(o.TokenizerJSON)
	options.chat_template, options.chat_template_len = pins.text(o.ChatTemplate)
	return options
}

// Model is a loaded model: immutable, shared by its sessions, usable by any number of goroutines.
type Model struct{ h handle[*C.rf_model] }

// Close frees the model, once its sessions are closed too.
func (m *Model) Close() error {
	runtime.SetFinalizer(m, nil)
	m.h.close()
	return nil
}

// ModelInfo says what a model is.
type ModelInfo struct {
	Vocabulary      int    // tokens of the vocabulary
	ContextLength   int    // tokens that the network was trained for
	EmbeddingLength int    // width of the residual stream
	Blocks          int    // layers
	GPULayers       int    // layers that are on GPUs
	HasChatTemplate bool   // whether Chat can be used without a template of your own
	Parameters      uint64 // elements of all tensors
	TensorBytes     uint64 // bytes of all tensors in the file
	KVBytesPerToken uint64 // bytes of the key-value cache of one token
}

// Info says what the model is.
func (m *Model) Info() (ModelInfo, error) {
	model, err := m.h.acquire()
	if err != nil {
		return ModelInfo{}, err
	}
	defer m.h.release()
	info := C.rf_model_info{struct_size: C.sizeof_rf_model_info}
	var object *C.rf_error
	if err := failure(C.rf_model_get_info(model, &info, &object), object); err != nil {
		return ModelInfo{}, err
	}
	return ModelInfo{
		Vocabulary:      int(info.n_vocab),
		ContextLength:   int(info.context_length),
		EmbeddingLength: int(info.embedding_length),
		Blocks:          int(info.block_count),
		GPULayers:       int(info.gpu_layers),
		HasChatTemplate: info.has_chat_template != 0,
		Parameters:      uint64(info.n_parameters),
		TensorBytes:     uint64(info.tensor_bytes),
		KVBytesPerToken: uint64(info.kv_bytes_per_token),
	}, nil
}

// Metadata returns an entry of the file's metadata, such as "general.name": numbers in decimal, arrays as JSON.
func (m *Model) Metadata(key string) (string, error) {
	model, err := m.h.acquire()
	if err != nil {
		return "", err
	}
	defer m.h.release()
	name, length := text(key)
	return fillText(256, func(buffer *C.char, capacity C.size_t, needed *C.size_t, err **C.rf_error) C.rf_status {
		return C.rf_model_metadata_value(model, name, length, buffer, capacity, needed, err)
	})
}

// Token is a token's number in the vocabulary.
type Token uint32

// TokenizeFlags say how text becomes tokens, and tokens text.
type TokenizeFlags uint32

const (
	// AddSpecial adds what the model's metadata asks for: the token that begins a sequence, and the one that ends it.
	AddSpecial TokenizeFlags = C.RF_TOKENIZE_ADD_SPECIAL
	// Special reads control tokens such as <|im_start|> in the text as tokens, and writes them as text. Leave it off for
	// text from users, so that they cannot forge a turn.
	Special TokenizeFlags = C.RF_TOKENIZE_SPECIAL
)

// Tokenize returns the tokens of a text.
func (m *Model) Tokenize(s string, flags TokenizeFlags) ([]Token, error) {
	model, err := m.h.acquire()
	if err != nil {
		return nil, err
	}
	defer m.h.release()
	return tokenize(model, s, flags)
}

func tokenize(model *C.rf_model, s string, flags TokenizeFlags) ([]Token, error) {
	data, length := text(s)
	return fill(len(s)/3+8, func(tokens *Token, capacity C.size_t, n *C.size_t, err **C.rf_error) C.rf_status {
		buffer := (*C.rf_token)(unsafe.Pointer(tokens))
		return C.rf_model_tokenize(model, data, length, C.uint32_t(flags), buffer, capacity, n, err)
	})
}

// Detokenize returns the text of tokens, always whole UTF-8.
func (m *Model) Detokenize(tokens []Token, flags TokenizeFlags) (string, error) {
	if len(tokens) == 0 {
		return "", nil
	}
	model, err := m.h.acquire()
	if err != nil {
		return "", err
	}
	defer m.h.release()
	data, n := cTokens(tokens)
	guess := 8 * len(tokens)
	return fillText(guess, func(buffer *C.char, capacity C.size_t, needed *C.size_t, err **C.rf_error) C.rf_status {
		return C.rf_model_detokenize(model, data, n, C.uint32_t(flags), buffer, capacity, needed, err)
	})
}

func cTokens(tokens []Token) (*C.rf_token, C.size_t) {
	return (*C.rf_token)(unsafe.Pointer(unsafe.SliceData(tokens))), C.size_t(len(tokens))
}

// Message is one message of a conversation.
type Message struct {
	// Role is "system", "user", "assistant", "tool", or what else the model's template knows.
	Role string `json:"role"`
	// Content is the text.
	Content string `json:"content"`
	// ToolCalls that an assistant's message made: a JSON array, as OpenAI's API gives it.
	ToolCalls json.RawMessage `json:"tool_calls,omitempty"`
	// ToolCallID of the call that a tool's message answers.
	ToolCallID string `json:"tool_call_id,omitempty"`
	// Name of the tool, or of the participant.
	Name string `json:"name,omitempty"`
}

// ChatOptions says how to write a conversation. Zero means the default in every field.
type ChatOptions struct {
	// Tools that the model may call: a JSON array of function definitions, as OpenAI's API takes it.
	Tools json.RawMessage
	// Extra is a JSON object of further variables for the template, such as {"enable_thinking": false}.
	Extra json.RawMessage
	// Template is a Jinja template to use instead of the model's.
	Template string
	// NoGenerationPrompt leaves out the beginning of the assistant's next turn.
	NoGenerationPrompt bool
}

// FormatChat returns the text of a conversation, as the model's template writes it; opts may be nil. Tokenize it with
// AddSpecial | Special.
func (m *Model) FormatChat(messages []Message, opts *ChatOptions) (string, error) {
	model, err := m.h.acquire()
	if err != nil {
		return "", err
	}
	defer m.h.release()
	return formatChat(model, messages, opts)
}

func formatChat(model *C.rf_model, messages []Message, opts *ChatOptions) (string, error) {
	conversation, err := json.Marshal(messages)
	if err != nil {
		return "", err
	}
	if opts == nil {
		opts = new(ChatOptions)
	}
	var pins pinner
	defer pins.Unpin()
	options := C.rf_chat_options{struct_size: C.sizeof_rf_chat_options}
	if opts.NoGenerationPrompt {
		options.flags = C.RF_CHAT_NO_GENERATION_PROMPT
	}
	options.tools_json, options.tools_json_len = pins.text(string(opts.Tools))
	options.extra_json, options.extra_json_len = pins.text(string(opts.Extra))
	options.chat_template, options.chat_template_len = pins.text(opts.Template)
	data, length := text(string(conversation))
	guess := 2*len(conversation) + 1024
	return fillText(guess, func(buffer *C.char, capacity C.size_t, needed *C.size_t, err **C.rf_error) C.rf_status {
		return C.rf_model_format_chat(model, data, length, &options, buffer, capacity, needed, err)
	})
}

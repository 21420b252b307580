package rocmforge

// #include <rocmforge.h>
import "C"

import (
	"context"
	"iter"
	"runtime"
	"strings"
	"time"
	"unsafe"
)

// SessionOptions says how to make a session. Zero means the default in every field.
type SessionOptions struct {
	// Context is the number of tokens that fit. 0: as many as the network was trained for.
	Context uint32
	// Batch is the number of tokens of a prompt that are computed at a time. 0: what is best where the model is.
	Batch uint32
	// Reference mode: slower, and as near to the weights' own arithmetic as float32 is.
	Reference bool
}

// session is what the library holds for a [Session], freed together. It keeps the model, for the conversations' sake.
type session struct {
	session *C.rf_session
	cancel  *C.rf_cancel_token
	model   *Model
}

// Session is one sequence of tokens over a model. It belongs to one goroutine at a time: a second one, and a call from
// within a loop over [Session.Chat] and its like, get an [Error] with [CodeBusy].
type Session struct {
	h      handle[*session]
	finish Finish
}

// NewSession makes an empty session; opts may be nil.
func (m *Model) NewSession(opts *SessionOptions) (*Session, error) {
	model, err := m.h.acquire() // until the session is freed
	if err != nil {
		return nil, err
	}
	if opts == nil {
		opts = new(SessionOptions)
	}
	s := &session{model: m}
	var object *C.rf_error
	if err := failure(C.rf_cancel_token_create(&s.cancel, &object), object); err != nil {
		s.free()
		return nil, err
	}
	options := C.rf_session_options{
		struct_size: C.sizeof_rf_session_options,
		context:     C.uint32_t(opts.Context),
		batch:       C.uint32_t(opts.Batch),
		cancel:      s.cancel,
	}
	if opts.Reference {
		options.flags = C.RF_SESSION_REFERENCE
	}
	if err := failure(C.rf_session_create(model, &options, &s.session, &object), object); err != nil {
		s.free()
		return nil, err
	}
	return closeWhenCollected(&Session{h: handle[*session]{object: s, free: (*session).free}}), nil
}

func (s *session) free() {
	C.rf_session_free(s.session)
	C.rf_cancel_token_free(s.cancel)
	s.model.h.release()
}

// Close frees the session. A call that runs meanwhile goes on; cancel its context to end it.
func (s *Session) Close() error {
	runtime.SetFinalizer(s, nil)
	s.h.close()
	return nil
}

// watch lets the end of ctx stop the session's work, until the function that it returns is called.
func (s *session) watch(ctx context.Context) (unwatch func()) {
	raised := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		C.rf_cancel_token_cancel(s.cancel)
		close(raised)
	})
	return func() {
		if !stop() { // it was or is being raised: wait, so that it is not raised again after it was lowered
			<-raised
			C.rf_cancel_token_reset(s.cancel)
		}
	}
}

// outcome is failure for calls that ctx may stop.
func outcome(ctx context.Context, status C.rf_status, object *C.rf_error) error {
	if status == C.RF_CANCELLED {
		return ctx.Err()
	}
	return failure(status, object)
}

// Decode appends tokens and computes what follows the last of them. All or nothing: if it fails, or ctx ends, the
// session holds what it held before.
func (s *Session) Decode(ctx context.Context, tokens []Token) error {
	h, err := s.h.acquireAlone()
	if err != nil {
		return err
	}
	defer s.h.release()
	defer h.watch(ctx)()
	return h.decode(ctx, tokens)
}

func (s *session) decode(ctx context.Context, tokens []Token) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data, n := cTokens(tokens)
	var object *C.rf_error
	return outcome(ctx, C.rf_session_decode(s.session, data, n, &object), object)
}

// Rewind shortens the session to its first n tokens, at once. Decode a token before you generate again.
func (s *Session) Rewind(n int) error {
	h, err := s.h.acquireAlone()
	if err != nil {
		return err
	}
	defer s.h.release()
	return h.rewind(n)
}

func (s *session) rewind(n int) error {
	var object *C.rf_error
	return failure(C.rf_session_rewind(s.session, C.size_t(n), &object), object)
}

// Tokens returns the tokens that the session holds.
func (s *Session) Tokens() ([]Token, error) {
	h, err := s.h.acquireAlone()
	if err != nil {
		return nil, err
	}
	defer s.h.release()
	held, err := h.tokens()
	return append([]Token(nil), held...), err
}

// tokens are the library's, until the next call that changes the session.
func (s *session) tokens() ([]Token, error) {
	var data *C.rf_token
	var n C.size_t
	var object *C.rf_error
	err := failure(C.rf_session_tokens(s.session, &data, &n, &object), object)
	return unsafe.Slice((*Token)(unsafe.Pointer(data)), n), err
}

// Stats says what a session has done.
type Stats struct {
	PrefillTokens uint64        // tokens computed several at a time, as prompts are
	PrefillTime   time.Duration // time that they took
	DecodeTokens  uint64        // tokens computed one at a time
	DecodeTime    time.Duration // time that they took
	KVBytes       uint64        // bytes of the key-value cache now
}

// Stats says what the session has done.
func (s *Session) Stats() (Stats, error) {
	h, err := s.h.acquireAlone()
	if err != nil {
		return Stats{}, err
	}
	defer s.h.release()
	stats := C.rf_session_stats{struct_size: C.sizeof_rf_session_stats}
	var object *C.rf_error
	if err := failure(C.rf_session_get_stats(h.session, &stats, &object), object); err != nil {
		return Stats{}, err
	}
	return Stats{
		PrefillTokens: uint64(stats.prefill_tokens),
		PrefillTime:   time.Duration(stats.prefill_us) * time.Microsecond,
		DecodeTokens:  uint64(stats.decode_tokens),
		DecodeTime:    time.Duration(stats.decode_us) * time.Microsecond,
		KVBytes:       uint64(stats.kv_bytes),
	}, nil
}

// Finish says why a generation ended.
type Finish int32

// The ends of a generation.
const (
	FinishNone       Finish = C.RF_FINISH_NONE        // it was stopped, or failed: Continue goes on with it
	FinishEndToken   Finish = C.RF_FINISH_END_TOKEN   // the model ended its turn, or a stop token came
	FinishStopString Finish = C.RF_FINISH_STOP_STRING // a stop string came
	FinishMaxTokens  Finish = C.RF_FINISH_MAX_TOKENS  // MaxTokens were generated
	FinishFull       Finish = C.RF_FINISH_FULL        // the context is full
)

// Finish says why the last generation ended; ask after the loop.
func (s *Session) Finish() Finish {
	if _, err := s.h.acquireAlone(); err != nil {
		return FinishNone
	}
	defer s.h.release()
	return s.finish
}

// GenerateOptions says how to generate. Zero means the default in every field.
type GenerateOptions struct {
	// Sampler chooses the tokens. nil: the default sampler.
	Sampler *Sampler
	// MaxTokens at most. 0: no limit but the context.
	MaxTokens uint32
	// StopTokens end the generation besides the model's own.
	StopTokens []Token
	// StopStrings end the generation and are not returned.
	StopStrings []string
	// IgnoreEnd goes on after the model's end tokens.
	IgnoreEnd bool
	// Special writes control tokens as text.
	Special bool
	// StopWhenFull ends with FinishFull when the context is full, and not with CodeContextFull.
	StopWhenFull bool
	// Chat says how Session.Chat writes the conversation; nothing else looks at it.
	Chat *ChatOptions
}

// Chat streams the answer to a conversation in pieces of whole UTF-8; opts may be nil. The conversation is the whole of
// it, from the first message on: what the session holds of it already is kept, and what else it holds is dropped.
//
// An error is the last that comes, with no text: an [Error], or ctx's own when that has ended. After that, and after a
// break, [Session.Continue] goes on where the answer stopped, and another Chat can begin.
func (s *Session) Chat(ctx context.Context, messages []Message, opts *GenerateOptions) iter.Seq2[string, error] {
	if opts == nil {
		opts = new(GenerateOptions)
	}
	return s.stream(ctx, func(h *session) error {
		if err := h.prompt(ctx, messages, opts.Chat); err != nil {
			return err
		}
		return h.begin(opts)
	})
}

// Generate streams what follows the tokens that were decoded; opts may be nil. Errors come as in [Session.Chat].
func (s *Session) Generate(ctx context.Context, opts *GenerateOptions) iter.Seq2[string, error] {
	if opts == nil {
		opts = new(GenerateOptions)
	}
	return s.stream(ctx, func(h *session) error { return h.begin(opts) })
}

// Continue goes on with a generation that was stopped. Errors come as in [Session.Chat].
func (s *Session) Continue(ctx context.Context) iter.Seq2[string, error] {
	return s.stream(ctx, func(*session) error { return nil })
}

// stream yields what a generation gives, which begin begins when the loop does.
func (s *Session) stream(ctx context.Context, begin func(*session) error) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		h, err := s.h.acquireAlone()
		if err != nil {
			yield("", err)
			return
		}
		defer s.h.release()
		defer h.watch(ctx)()
		s.finish = FinishNone
		if err = begin(h); err == nil {
			err = s.pieces(ctx, h, yield)
		}
		if err != nil {
			yield("", err)
		}
	}
}

func (s *Session) pieces(ctx context.Context, h *session, yield func(string, error) bool) error {
	piece := C.rf_piece{struct_size: C.sizeof_rf_piece}
	for {
		// The watch raises its token a moment later, on a goroutine of its own.
		if err := ctx.Err(); err != nil {
			return err
		}
		var object *C.rf_error
		status := C.rf_session_next(h.session, &piece, &object)
		if err := outcome(ctx, status, object); err != nil {
			return err
		}
		s.finish = Finish(piece.finish)
		text := C.GoStringN(piece.text, C.int(piece.text_len))
		if text != "" && !yield(text, nil) || status != C.RF_OK {
			return nil
		}
	}
}

// prompt makes the session hold the conversation, and no more, and computes what follows it.
func (s *session) prompt(ctx context.Context, messages []Message, opts *ChatOptions) error {
	model := s.model.h.object // not freed before the session is
	conversation, err := formatChat(model, messages, opts)
	if err != nil {
		return err
	}
	tokens, err := tokenize(model, conversation, AddSpecial|Special)
	if err != nil {
		return err
	}
	held, err := s.tokens()
	if err != nil {
		return err
	}
	same := 0
	for same < len(held) && same < len(tokens)-1 && held[same] == tokens[same] { // one token is left to decode
		same++
	}
	if err := s.rewind(same); err != nil {
		return err
	}
	return s.decode(ctx, tokens[same:])
}

func (o *GenerateOptions) flags() (flags C.uint32_t) {
	if o.IgnoreEnd {
		flags |= C.RF_GENERATE_IGNORE_END
	}
	if o.Special {
		flags |= C.RF_GENERATE_SPECIAL
	}
	if o.StopWhenFull {
		flags |= C.RF_GENERATE_STOP_WHEN_FULL
	}
	return flags
}

func (s *session) begin(opts *GenerateOptions) error {
	var pins pinner
	defer pins.Unpin()
	options := C.rf_generate_options{
		struct_size:    C.sizeof_rf_generate_options,
		flags:          opts.flags(),
		max_tokens:     C.uint32_t(opts.MaxTokens),
		n_stop_tokens:  C.uint32_t(len(opts.StopTokens)),
		n_stop_strings: C.size_t(len(opts.StopStrings)),
	}
	if opts.Sampler != nil {
		sampler, err := opts.Sampler.h.acquire()
		if err != nil {
			return err
		}
		defer opts.Sampler.h.release()
		options.sampler = sampler
	}
	if len(opts.StopTokens) > 0 {
		options.stop_tokens, _ = cTokens(opts.StopTokens)
		pins.Pin(options.stop_tokens)
	}
	if len(opts.StopStrings) > 0 {
		stops, err := pins.strings(opts.StopStrings)
		if err != nil {
			return err
		}
		options.stop_strings = stops
	}
	var object *C.rf_error
	return failure(C.rf_session_begin(s.session, &options, &object), object)
}

// strings returns the texts as C has them, each with its NUL.
func (p *pinner) strings(texts []string) (**C.char, error) {
	pointers := make([]*C.char, len(texts))
	for i, s := range texts {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, &Error{CodeArgument, "a stop string holds a NUL"}
		}
		pointers[i], _ = p.text(s + "\x00")
	}
	p.Pin(&pointers[0])
	return &pointers[0], nil
}

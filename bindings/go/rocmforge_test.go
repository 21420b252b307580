package rocmforge

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// modelPath is where test.sh put the SmolLM2 file.
func modelPath(t *testing.T) string {
	path := os.Getenv("ROCMFORGE_TEST_MODEL")
	if path == "" {
		t.Skip("SKIPPED: ROCMFORGE_TEST_MODEL names no model")
	}
	return path
}

var shared struct {
	once  sync.Once
	model *Model
	err   error
}

// sharedModel is loaded once for all tests.
func sharedModel(t *testing.T) *Model {
	path := modelPath(t)
	shared.once.Do(func() { shared.model, shared.err = Open(path, nil) })
	must(t, shared.err)
	return shared.model
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSession(t *testing.T) *Session {
	session, err := sharedModel(t).NewSession(&SessionOptions{Context: 2048})
	must(t, err)
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func greedy(t *testing.T) *Sampler {
	sampler, err := NewSampler(&SamplerOptions{Greedy: true})
	must(t, err)
	t.Cleanup(func() { _ = sampler.Close() })
	return sampler
}

func ask(question string) []Message { return []Message{{Role: "user", Content: question}} }

// join takes a stream to its end.
func join(stream iter.Seq2[string, error]) (text string, pieces int, err error) {
	for piece, err := range stream {
		if err != nil {
			return text, pieces, err
		}
		text += piece
		pieces++
	}
	return text, pieces, nil
}

func wantCode(t *testing.T, err error, code Code, words ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("%v (%T), want %v", err, err, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			t.Fatalf("%q does not name %q", e.Message, word)
		}
	}
}

func TestChatStreams(t *testing.T) {
	session := newSession(t)
	options := &GenerateOptions{Sampler: greedy(t), MaxTokens: 64}
	text, pieces, err := join(session.Chat(context.Background(), ask("In which city is the Eiffel Tower?"), options))
	must(t, err)
	if !strings.Contains(text, "Paris") || strings.Contains(text, "<|im_") || pieces < 3 {
		t.Fatalf("%d pieces: %q", pieces, text)
	}
	if session.Finish() != FinishEndToken {
		t.Fatalf("finish %d", session.Finish())
	}
	tokens, err := session.Tokens()
	must(t, err)
	held, err := sharedModel(t).Detokenize(tokens, Special)
	must(t, err)
	if !strings.HasSuffix(held, "<|im_start|>assistant\n"+text) {
		t.Fatalf("the session holds %q", held)
	}
}

// What the session holds of a conversation is not computed again, and nothing else stays in it.
func TestChatKeepsWhatTheSessionHolds(t *testing.T) {
	session := newSession(t)
	options := &GenerateOptions{Sampler: greedy(t), MaxTokens: 32}
	messages := ask("My name is Ada. I live in " + strings.Repeat("a small house by the sea, and in ", 20) + "Rome.")
	answer, _, err := join(session.Chat(context.Background(), messages, options))
	must(t, err)
	first, err := session.Stats()
	must(t, err)
	messages = append(messages, Message{Role: "assistant", Content: answer}, ask("What is my name?")[0])
	answer, _, err = join(session.Chat(context.Background(), messages, options))
	must(t, err)
	second, err := session.Stats()
	must(t, err)
	if computed := second.PrefillTokens - first.PrefillTokens; first.PrefillTokens < 150 || computed > 60 {
		t.Fatalf("%d tokens, then %d", first.PrefillTokens, computed)
	}
	prompt, err := sharedModel(t).FormatChat(messages, nil)
	must(t, err)
	tokens, err := session.Tokens()
	must(t, err)
	if held, _ := sharedModel(t).Detokenize(tokens, Special); !strings.HasPrefix(held, prompt+answer[:1]) {
		t.Fatalf("the session holds %q, was given %q", held, prompt)
	}
	// A conversation that the session holds whole already, and a quite different one.
	for _, messages := range [][]Message{messages[:1], messages[:1], ask("Hello")} {
		_, _, err = join(session.Chat(context.Background(), messages, options))
		must(t, err)
	}
	tokens, err = session.Tokens()
	must(t, err)
	if held, _ := sharedModel(t).Detokenize(tokens, 0); strings.Contains(held, "Ada") {
		t.Fatalf("the session still holds %q", held)
	}
}

// soonest fails unless one of three tries ended within 100 ms of its context: on a busy machine any single one may have
// to wait for a processor. What does not heed its context takes longer every time.
func soonest(t *testing.T, try func() time.Duration) {
	t.Helper()
	var took []time.Duration
	for range 3 {
		took = append(took, try())
		if took[len(took)-1] <= 100*time.Millisecond {
			t.Logf("ended after its context by %v", took)
			return
		}
	}
	t.Fatalf("ended after its context by %v", took)
}

// The loop ends soon after its context, and going on gives the text of a loop that was left alone.
func TestCancelMidway(t *testing.T) {
	options := &GenerateOptions{Sampler: greedy(t), MaxTokens: 120, IgnoreEnd: true}
	question := ask("Tell me a long story about a dragon.")
	whole, _, err := join(newSession(t).Chat(context.Background(), question, options))
	must(t, err)

	var session *Session
	var text string
	soonest(t, func() time.Duration {
		session = newSession(t)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var cancelled atomic.Int64
		text = ""
		for piece, err := range session.Chat(ctx, question, options) {
			if text += piece; len(text) > 40 && cancelled.Load() == 0 {
				cancelled.Store(time.Now().UnixMicro())
				go cancel()
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if session.Finish() != FinishNone || len(text) >= len(whole) {
			t.Fatalf("finish %d after %q", session.Finish(), text)
		}
		return time.Since(time.UnixMicro(cancelled.Load()))
	})
	rest, _, err := join(session.Continue(context.Background()))
	must(t, err)
	if text+rest != whole || session.Finish() != FinishMaxTokens {
		t.Fatalf("%q + %q, want %q", text, rest, whole)
	}
	options.IgnoreEnd = false
	answer, _, err := join(session.Chat(context.Background(), ask("In which city is the Eiffel Tower?"), options))
	must(t, err)
	if !strings.Contains(answer, "Paris") {
		t.Fatalf("%q", answer)
	}
}

// A context ends the work on a prompt too, which then has changed nothing.
func TestCancelPrompt(t *testing.T) {
	session := newSession(t)
	model := sharedModel(t)
	held, err := model.Tokenize("Once upon a time", 0)
	must(t, err)
	must(t, session.Decode(context.Background(), held))
	long, err := model.Tokenize(strings.Repeat("the house by the sea and ", 300), 0)
	must(t, err)

	soonest(t, func() time.Duration {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
		defer cancel()
		deadline, _ := ctx.Deadline()
		err := session.Decode(ctx, long)
		took := time.Since(deadline)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if tokens, err := session.Tokens(); err != nil || len(tokens) != len(held) {
			t.Fatalf("%d tokens (%v), had %d", len(tokens), err, len(held))
		}
		return took
	})
	ctx, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	if err := session.Decode(ctx, held); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, n, err := join(session.Chat(ctx, ask("Hello"), nil)); !errors.Is(err, context.DeadlineExceeded) || n != 0 {
		t.Fatal(n, err)
	}
	must(t, session.Decode(context.Background(), held))
}

// A loop that is left early can be gone on with as well.
func TestBreak(t *testing.T) {
	session := newSession(t)
	options := &GenerateOptions{Sampler: greedy(t), MaxTokens: 30}
	start, err := sharedModel(t).Tokenize("The capital of France is", 0)
	must(t, err)
	must(t, session.Decode(context.Background(), start))
	whole, _, err := join(session.Generate(context.Background(), options))
	must(t, err)
	must(t, session.Rewind(0))
	must(t, session.Decode(context.Background(), start))
	text := ""
	for piece, err := range session.Generate(context.Background(), options) {
		must(t, err)
		if text += piece; len(text) > 10 {
			break
		}
	}
	rest, _, err := join(session.Continue(context.Background()))
	must(t, err)
	if text+rest != whole || !strings.Contains(whole, "Paris") {
		t.Fatalf("%q + %q, want %q", text, rest, whole)
	}
}

func TestDamagedFile(t *testing.T) {
	bytes, err := os.ReadFile(modelPath(t))
	must(t, err)
	path := filepath.Join(t.TempDir(), "damaged.gguf")
	must(t, os.WriteFile(path, bytes[:len(bytes)/2], 0o600))
	_, err = Open(path, nil)
	wantCode(t, err, CodeFormat, path, "tensor")
	t.Log(err)
	must(t, os.WriteFile(path, []byte("not a model at all"), 0o600))
	_, err = Open(path, nil)
	wantCode(t, err, CodeFormat, path, "GGUF")
	_, err = Open("/no/such/model.gguf", nil)
	wantCode(t, err, CodeIO, "/no/such/model.gguf")
	_, err = Open("", nil)
	wantCode(t, err, CodeArgument, "path is empty")
	if CodeFormat.String() != "RF_E_FORMAT" {
		t.Fatal(CodeFormat)
	}
}

func TestGoroutinesOnOneModel(t *testing.T) {
	france := "In which city is the Eiffel Tower?"
	questions := []string{france, "Tell me a story about a dragon.", "What is two plus two?"}
	options := &GenerateOptions{Sampler: greedy(t), MaxTokens: 60}
	want := make([]string, len(questions))
	for i, question := range questions {
		var err error
		want[i], _, err = join(newSession(t).Chat(context.Background(), ask(question), options))
		must(t, err)
	}
	if !strings.Contains(want[0], "Paris") {
		t.Fatalf("%q", want[0])
	}
	var wait sync.WaitGroup
	for i, question := range questions {
		session := newSession(t)
		wait.Add(1)
		go func() {
			defer wait.Done()
			text, _, err := join(session.Chat(context.Background(), ask(question), options))
			if err != nil || text != want[i] {
				t.Errorf("%q (%v), want %q", text, err, want[i])
			}
		}()
	}
	wait.Wait()
}

func TestSessionIsBusy(t *testing.T) {
	session := newSession(t)
	options := &GenerateOptions{MaxTokens: 3}
	for _, err := range session.Chat(context.Background(), ask("Hello"), options) {
		must(t, err)
		_, err = session.Stats()
		wantCode(t, err, CodeBusy)
		_, _, err = join(session.Chat(context.Background(), ask("Hello"), options))
		wantCode(t, err, CodeBusy)
	}
	_, err := session.Stats()
	must(t, err)
}

func TestCloseInAnyOrder(t *testing.T) {
	engine, err := NewEngine(&EngineOptions{Threads: 1, GPUs: "none"})
	must(t, err)
	if engine.Threads() != 1 {
		t.Fatal(engine.Threads())
	}
	model, err := engine.Open(modelPath(t), &ModelOptions{MMap: true})
	must(t, err)
	must(t, engine.Close())
	session, err := model.NewSession(nil)
	must(t, err)
	must(t, model.Close())
	must(t, model.Close())
	_, err = model.Tokenize("x", 0)
	_, err2 := model.NewSession(nil)
	_, err3 := engine.Open("x", nil)
	if err != ErrClosed || err2 != ErrClosed || err3 != ErrClosed {
		t.Fatal(err, err2, err3)
	}
	sampler, err := NewSampler(&SamplerOptions{Greedy: true})
	must(t, err)
	text := ""
	options := &GenerateOptions{Sampler: sampler}
	for piece, err := range session.Chat(context.Background(), ask("In which city is the Eiffel Tower?"), options) {
		must(t, err)
		text += piece
		must(t, session.Close()) // freed after the loop
		must(t, sampler.Close())
	}
	if !strings.Contains(text, "Paris") {
		t.Fatalf("%q", text)
	}
	if session.h.object != nil || model.h.object != nil {
		t.Fatal("not freed")
	}
	if _, _, err := join(session.Continue(context.Background())); err != ErrClosed {
		t.Fatal(err)
	}
}

// What was forgotten is freed by the collector, and not while it is in use.
func TestFinalizers(t *testing.T) {
	model := sharedModel(t)
	const sessions = 10
	var freed atomic.Int32
	for range sessions {
		forgotten, err := model.NewSession(&SessionOptions{Context: 64})
		must(t, err)
		free := forgotten.h.free
		forgotten.h.free = func(s *session) { free(s); freed.Add(1) }
	}
	for deadline := time.Now().Add(10 * time.Second); freed.Load() < sessions && time.Now().Before(deadline); {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if freed.Load() != sessions {
		t.Fatalf("%d of %d sessions were freed", freed.Load(), sessions)
	}
	stream := func() iter.Seq2[string, error] {
		session, err := model.NewSession(&SessionOptions{Context: 256})
		must(t, err)
		options := &GenerateOptions{Sampler: greedy(t)}
		return session.Chat(context.Background(), ask("In which city is the Eiffel Tower?"), options)
	}()
	text := ""
	for piece, err := range stream {
		must(t, err)
		text += piece
		runtime.GC()
	}
	if !strings.Contains(text, "Paris") {
		t.Fatalf("%q", text)
	}
}

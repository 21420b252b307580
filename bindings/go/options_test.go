package rocmforge

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each option arrives at the library under its own name.
func TestSamplerOptions(t *testing.T) {
	nan := float32(math.NaN())
	for name, options := range map[string]SamplerOptions{
		"temperature":            {Temperature: -1},
		"top_p":                  {TopP: 2},
		"min_p":                  {MinP: 3},
		"typical_p":              {TypicalP: -4},
		"repetition_penalty":     {RepetitionPenalty: -5},
		"presence_penalty":       {PresencePenalty: 101},
		"frequency_penalty":      {FrequencyPenalty: -102},
		"logit_bias of token 17": {LogitBias: map[Token]float32{16: 1, 17: nan}},
	} {
		_, err := NewSampler(&options)
		wantCode(t, err, CodeArgument, name)
	}
}

func sampled(t *testing.T, options SamplerOptions) string {
	sampler, err := NewSampler(&options)
	must(t, err)
	defer sampler.Close()
	session := newSession(t)
	generate := &GenerateOptions{Sampler: sampler, MaxTokens: 16}
	text, _, err := join(session.Chat(context.Background(), ask("Write a poem."), generate))
	must(t, err)
	return text
}

func TestSamplersChoose(t *testing.T) {
	best := sampled(t, SamplerOptions{Greedy: true})
	if text := sampled(t, SamplerOptions{TopK: 1}); text != best {
		t.Errorf("top-k 1 gives %q, not %q", text, best)
	}
	hot := SamplerOptions{Temperature: 3, TopK: -1, TopP: 1, MinP: -1, Seed: 1}
	first, second := sampled(t, hot), sampled(t, hot)
	hot.Seed = 2
	if third := sampled(t, hot); first != second || first == third || first == best {
		t.Errorf("%q, %q, %q, best %q", first, second, third, best)
	}
	tokens, err := sharedModel(t).Tokenize(best, 0)
	must(t, err)
	forbidden := map[Token]float32{tokens[0]: float32(math.Inf(-1))}
	if text := sampled(t, SamplerOptions{Greedy: true, LogitBias: forbidden}); text == best {
		t.Errorf("token %d came although it was forbidden: %q", tokens[0], text)
	}
	if text := sampled(t, SamplerOptions{Greedy: true, RepetitionPenalty: 3, PenaltyWindow: -1}); text == best {
		t.Errorf("no penalty acts on %q", text)
	}
}

func TestGenerateOptions(t *testing.T) {
	model := sharedModel(t)
	session := newSession(t)
	chat := func(options GenerateOptions) (string, Finish) {
		options.Sampler = greedy(t)
		if options.MaxTokens == 0 {
			options.MaxTokens = 40
		}
		text, _, err := join(session.Chat(context.Background(), ask("In which city is the Eiffel Tower?"), &options))
		must(t, err)
		return text, session.Finish()
	}
	whole, _ := chat(GenerateOptions{})
	before, _, found := strings.Cut(whole, "Paris")
	if !found {
		t.Fatalf("%q", whole)
	}
	text, finish := chat(GenerateOptions{StopStrings: []string{"no such text", "Paris"}})
	if text != before || finish != FinishStopString {
		t.Errorf("stop string: %q, finish %d", text, finish)
	}
	paris, err := model.Tokenize(" Paris", 0)
	must(t, err)
	text, finish = chat(GenerateOptions{StopTokens: []Token{1, paris[0]}})
	if strings.Contains(text, "Paris") || finish != FinishEndToken {
		t.Errorf("stop token %d: %q, finish %d", paris[0], text, finish)
	}
	text, finish = chat(GenerateOptions{MaxTokens: 2})
	if !strings.HasPrefix(whole, text) || text == whole || finish != FinishMaxTokens {
		t.Errorf("two tokens: %q, finish %d", text, finish)
	}
	text, finish = chat(GenerateOptions{IgnoreEnd: true, Special: true})
	if !strings.Contains(text, "<|im_end|>") || finish != FinishMaxTokens {
		t.Errorf("ignored end: %q, finish %d", text, finish)
	}
	for stops, words := range map[string]string{"": "stop string 1", "a\x00b": "NUL"} {
		_, _, err = join(session.Generate(context.Background(), &GenerateOptions{StopStrings: []string{"x", stops}}))
		wantCode(t, err, CodeArgument, words)
	}
}

func TestFullContext(t *testing.T) {
	session, err := sharedModel(t).NewSession(&SessionOptions{Context: 48, Batch: 8, Reference: true})
	must(t, err)
	defer session.Close()
	options := &GenerateOptions{Sampler: greedy(t), StopWhenFull: true}
	_, _, err = join(session.Chat(context.Background(), ask("Tell me a long story."), options))
	must(t, err)
	if session.Finish() != FinishFull {
		t.Errorf("finish %d", session.Finish())
	}
	options.StopWhenFull = false
	_, _, err = join(session.Chat(context.Background(), ask("Tell me a long story."), options))
	wantCode(t, err, CodeContextFull)
}

func TestTokenize(t *testing.T) {
	model := sharedModel(t)
	for _, text := range []string{"", "Hello, world", "naïve 你好 🙂", strings.Repeat("!?", 500)} {
		tokens, err := model.Tokenize(text, 0)
		must(t, err)
		back, err := model.Detokenize(tokens, 0)
		if err != nil || back != text || text != "" && len(tokens) == 0 {
			t.Errorf("%q became %v and %q (%v)", text, tokens, back, err)
		}
	}
	plain, err := model.Tokenize("<|im_end|>", 0)
	must(t, err)
	special, err := model.Tokenize("<|im_end|>", Special)
	must(t, err)
	if len(plain) < 2 || len(special) != 1 {
		t.Errorf("%v, %v", plain, special)
	}
	_, err = model.Tokenize("\xff", 0)
	wantCode(t, err, CodeArgument)
	_, err = model.Detokenize([]Token{1 << 30}, 0)
	wantCode(t, err, CodeArgument, strconv.Itoa(1<<30))
}

func TestFormatChat(t *testing.T) {
	model := sharedModel(t)
	system := Message{Role: "system", Content: `Say "<b>" & \`}
	text, err := model.FormatChat([]Message{system, ask("Hi")[0]}, nil)
	must(t, err)
	want := "<|im_start|>system\nSay \"<b>\" & \\<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
	if text != want {
		t.Errorf("%q", text)
	}
	text, err = model.FormatChat(ask("Hi"), &ChatOptions{NoGenerationPrompt: true})
	if err != nil || !strings.HasSuffix(text, "<|im_start|>user\nHi<|im_end|>\n") {
		t.Errorf("%q, %v", text, err)
	}
	call := Message{Role: "assistant", ToolCalls: json.RawMessage(`[{"id": "7"}]`)}
	answer := Message{Role: "tool", Name: "clock", ToolCallID: "7", Content: strings.Repeat("x", 5000)}
	text, err = model.FormatChat([]Message{call, answer}, &ChatOptions{
		Tools: json.RawMessage(`[{"name": "clock"}]`),
		Extra: json.RawMessage(`{"mood": "good"}`),
		Template: `{{ tools[0].name }} {{ mood }} {{ messages[0].tool_calls[0].id }} {{ messages[1].name }} ` +
			`{{ messages[1].tool_call_id }} {% for _ in range(4) %}{{ messages[1].content }}{% endfor %}`,
	})
	if want := "clock good 7 clock 7 " + strings.Repeat("x", 20000); err != nil || text != want {
		t.Errorf("%q, %v", text, err)
	}
	_, err = model.FormatChat(ask("Hi"), &ChatOptions{Template: "{{ raise_exception('I will not') }}"})
	wantCode(t, err, CodeTemplate, "I will not")
	_, err = model.FormatChat(ask("Hi"), &ChatOptions{Extra: json.RawMessage(`]`)})
	wantCode(t, err, CodeArgument)
}

func TestEngineAndModelOptions(t *testing.T) {
	_, err := NewEngine(&EngineOptions{ISA: 99})
	wantCode(t, err, CodeUnsupported, "isa: 99")
	_, err = NewEngine(&EngineOptions{GPUs: "the green one"})
	wantCode(t, err, CodeArgument, "the green one")
	_, err = Open(modelPath(t), &ModelOptions{PreTokenizer: "no-such-way"})
	wantCode(t, err, CodeUnsupported, "no-such-way")
	_, err = Open(modelPath(t), &ModelOptions{TokenizerJSON: "{"})
	if err == nil {
		t.Error("a damaged tokenizer.json was taken")
	}
	options := &ModelOptions{ChatTemplate: "mine: {{ messages[0].content }}", MMap: true, GPULayers: -1}
	model, err := Open(modelPath(t), options)
	must(t, err)
	defer model.Close()
	if text, err := model.FormatChat(ask("Hi"), nil); err != nil || text != "mine: Hi" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestInfo(t *testing.T) {
	model := sharedModel(t)
	info, err := model.Info()
	must(t, err)
	if info.Vocabulary != 49152 || info.ContextLength < 2048 || info.EmbeddingLength != 576 || info.Blocks != 30 ||
		info.GPULayers != 0 || !info.HasChatTemplate || info.Parameters < 134e6 || info.Parameters > 180e6 ||
		info.TensorBytes < 80e6 || info.KVBytesPerToken == 0 {
		t.Errorf("%+v", info)
	}
	if value, err := model.Metadata("general.architecture"); err != nil || value != "llama" {
		t.Errorf("%q, %v", value, err)
	}
	_, err = model.Metadata("no.such.key")
	wantCode(t, err, CodeArgument, "no.such.key")
	if strings.Count(Version(), ".") != 2 {
		t.Error(Version())
	}
}

// What a step costs beside the library's work: here it has none to do, for the generation has ended.
func TestOverheadPerToken(t *testing.T) {
	session := newSession(t)
	options := &GenerateOptions{MaxTokens: 64, IgnoreEnd: true}
	_, _, err := join(session.Chat(context.Background(), ask("Tell me a story."), options))
	must(t, err)
	stats, err := session.Stats()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const rounds = 10000
	began := time.Now()
	for range rounds {
		if text, _, err := join(session.Continue(ctx)); text != "" || err != nil {
			t.Fatalf("%q, %v", text, err)
		}
	}
	cost := time.Since(began) / rounds
	step := stats.DecodeTime / time.Duration(stats.DecodeTokens)
	t.Logf("%v beside a decode step of %v: %.3f %%", cost, step, 100*float64(cost)/float64(step))
	if cost > step/20 {
		t.Errorf("a loop of one piece costs %v, more than 5 %% of a decode step of %v", cost, step)
	}
}

func residentKiB(t *testing.T) int {
	debug.FreeOSMemory() // Go's own garbage is not what is measured
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kib
}

// On one thread, as in C. A goroutine that roams would show glibc's caches as well: each arena, of which threads have
// several, keeps the memory of a model that was freed there for the next one.
func TestMemoryDoesNotGrow(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory grows")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := modelPath(t)
	cycle := func() {
		model, err := Open(path, nil)
		must(t, err)
		sampler, err := NewSampler(&SamplerOptions{LogitBias: map[Token]float32{1: 1}})
		must(t, err)
		session, err := model.NewSession(&SessionOptions{Context: 256})
		must(t, err)
		options := &GenerateOptions{Sampler: sampler, MaxTokens: 2, StopStrings: []string{"\n\n"}}
		_, _, err = join(session.Chat(context.Background(), ask("Hello"), options))
		must(t, err)
		_, err = model.Metadata("no.such.key")
		wantCode(t, err, CodeArgument)
		must(t, session.Close())
		must(t, sampler.Close())
		must(t, model.Close())
	}
	for range 20 {
		cycle()
	}
	// What is lost grows by as much in every 80 cycles. The runtime's heap, and pages that the system makes huge meanwhile,
	// may add some MiB once.
	before := residentKiB(t)
	for range 3 {
		for range 80 {
			cycle()
		}
		after := residentKiB(t)
		t.Logf("%d KiB, %d KiB 80 cycles later", before, after)
		if after <= before+2048 {
			return
		}
		before = after
	}
	t.Errorf("memory grows by more than 2 MiB in each 80 cycles")
}

// What the README's pieces of Go are put into.
const (
	readmeHead = `package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocmforge/rocmforge/bindings/go"
)

var _, _, _ = errors.As, fmt.Print, time.Second

func main() {}
`
	readmeParameters = `
func _(ctx context.Context, session *rocmforge.Session, messages []rocmforge.Message, question string) error {
`
)

// The README shows the example as it is, and its other pieces of Go compile.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	must(t, err)
	example, err := os.ReadFile("example/main.go")
	must(t, err)
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d blocks of Go", len(blocks))
	}
	var pieces strings.Builder
	pieces.WriteString(readmeHead)
	shown := false
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		if strings.Contains(code, "package main") {
			shown = shown || code == string(example)
			continue
		}
		pieces.WriteString(readmeParameters + code + "return nil\n}\n")
	}
	if !shown {
		t.Error("README.md shows another program than example/main.go")
	}
	folder, err := os.MkdirTemp(".", "readme") // within the module, so that the import is found
	must(t, err)
	defer os.RemoveAll(folder)
	must(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(pieces.String()), 0o600))
	if output, err := exec.Command("go", "vet", "./"+folder).CombinedOutput(); err != nil {
		t.Errorf("%s", output)
	}
}

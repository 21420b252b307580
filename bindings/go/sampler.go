package rocmforge

// #include <rocmforge.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// SamplerOptions says how to choose tokens. Zero means the default in every field.
//
// The chain, in this order: logit bias, penalties, top-k, typical-p, top-p, min-p, temperature, draw.
type SamplerOptions struct {
	// Greedy always takes the likeliest token. Penalties and biases still act; the other fields do not.
	Greedy bool
	// Seed: the same seed, session, library and machine give the same text.
	Seed uint64
	// Temperature divides the logits. 0: 0.8.
	Temperature float32
	// TopK keeps the likeliest tokens. 0: 40; negative: all.
	TopK int32
	// TopP keeps the likeliest tokens that together reach this probability. 0: 0.95.
	TopP float32
	// MinP keeps tokens that are at least this fraction as likely as the likeliest. 0: 0.05; negative: all.
	MinP float32
	// TypicalP keeps the tokens nearest to the expected surprise that together reach this probability. 0: 1, all.
	TypicalP float32
	// RepetitionPenalty divides positive logits of tokens in the window and multiplies negative ones. 0: 1, off.
	RepetitionPenalty float32
	// PresencePenalty is subtracted from the logits of tokens in the window. 0: off.
	PresencePenalty float32
	// FrequencyPenalty is subtracted for each occurrence in the window. 0: off.
	FrequencyPenalty float32
	// PenaltyWindow is how many of the last tokens penalties look at. 0: 64; negative: all.
	PenaltyWindow int32
	// LogitBias is added to tokens' logits; minus infinity forbids a token.
	LogitBias map[Token]float32
}

// Sampler chooses tokens: immutable, shared by any number of sessions, each of which keeps its own random state.
type Sampler struct{ h handle[*C.rf_sampler] }

// NewSampler makes a sampler; opts may be nil.
func NewSampler(opts *SamplerOptions) (*Sampler, error) {
	if opts == nil {
		opts = new(SamplerOptions)
	}
	var pins pinner
	defer pins.Unpin()
	options := C.rf_sampler_options{
		struct_size:        C.sizeof_rf_sampler_options,
		seed:               C.uint64_t(opts.Seed),
		temperature:        C.float(opts.Temperature),
		top_k:              C.int32_t(opts.TopK),
		top_p:              C.float(opts.TopP),
		min_p:              C.float(opts.MinP),
		typical_p:          C.float(opts.TypicalP),
		repetition_penalty: C.float(opts.RepetitionPenalty),
		presence_penalty:   C.float(opts.PresencePenalty),
		frequency_penalty:  C.float(opts.FrequencyPenalty),
		penalty_window:     C.int32_t(opts.PenaltyWindow),
		n_logit_bias:       C.size_t(len(opts.LogitBias)),
	}
	if opts.Greedy {
		options.flags = C.RF_SAMPLER_GREEDY
	}
	var biases []C.rf_logit_bias
	for token, bias := range opts.LogitBias {
		biases = append(biases, C.rf_logit_bias{token: C.rf_token(token), bias: C.float(bias)})
	}
	if len(biases) > 0 {
		options.logit_bias = unsafe.SliceData(biases)
		pins.Pin(options.logit_bias)
	}
	var sampler *C.rf_sampler
	var object *C.rf_error
	if err := failure(C.rf_sampler_create(&options, &sampler, &object), object); err != nil {
		return nil, err
	}
	free := func(sampler *C.rf_sampler) { C.rf_sampler_free(sampler) }
	return closeWhenCollected(&Sampler{handle[*C.rf_sampler]{object: sampler, free: free}}), nil
}

// Close frees the sampler; generations that began with it go on.
func (s *Sampler) Close() error {
	runtime.SetFinalizer(s, nil)
	s.h.close()
	return nil
}

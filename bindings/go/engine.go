package rocmforge

// #include <rocmforge.h>
import "C"

import "runtime"

// ISA caps the instruction set that an engine uses.
type ISA uint32

// The instruction sets.
const (
	ISAAuto       ISA = C.RF_ISA_AUTO        // the best that the processor has
	ISAScalar     ISA = C.RF_ISA_SCALAR      // portable code only
	ISAAVX2       ISA = C.RF_ISA_AVX2        // at most AVX2, FMA and F16C
	ISAAVXVNNI    ISA = C.RF_ISA_AVX_VNNI    // at most AVX2 with AVX-VNNI
	ISAAVX512VNNI ISA = C.RF_ISA_AVX512_VNNI // at most AVX-512 with VNNI
	ISAAMX        ISA = C.RF_ISA_AMX         // at most AMX with bf16, beside AVX-512
)

// EngineOptions says how to make an engine. Zero means the default in every field.
type EngineOptions struct {
	// Threads in all, the caller's included. 0: as many as the process may use.
	Threads uint32
	// ISA caps the instruction set.
	ISA ISA
	// GPUs that may be used: "auto" (all that are usable), "none", or their numbers, such as "0,1". "": what the
	// environment variable ROCMFORGE_GPU_DEVICE says, else "auto".
	GPUs string
	// GPUMemory is the number of bytes that may be taken on each GPU. 0: what is free.
	GPUMemory uint64
}

// Engine is a pool of threads and GPUs, shared by the models that it loads.
type Engine struct{ h handle[*C.rf_engine] }

// NewEngine makes an engine; opts may be nil.
func NewEngine(opts *EngineOptions) (*Engine, error) {
	if C.rf_abi_compatible(C.RF_ABI_VERSION) == 0 {
		return nil, &Error{CodeUnsupported, "librocmforge " + Version() + " is older than the header it was built with"}
	}
	if opts == nil {
		opts = new(EngineOptions)
	}
	var pins pinner
	defer pins.Unpin()
	options := C.rf_engine_options{
		struct_size: C.sizeof_rf_engine_options,
		threads:     C.uint32_t(opts.Threads),
		isa:         C.uint32_t(opts.ISA),
		gpu_memory:  C.uint64_t(opts.GPUMemory),
	}
	options.gpus, options.gpus_len = pins.text(opts.GPUs)
	var engine *C.rf_engine
	var object *C.rf_error
	if err := failure(C.rf_engine_create(&options, &engine, &object), object); err != nil {
		return nil, err
	}
	free := func(engine *C.rf_engine) { C.rf_engine_free(engine) }
	return closeWhenCollected(&Engine{handle[*C.rf_engine]{object: engine, free: free}}), nil
}

// Threads returns the number of threads that the engine uses, the caller's included; 0 after Close.
func (e *Engine) Threads() int {
	engine, err := e.h.acquire()
	if err != nil {
		return 0
	}
	defer e.h.release()
	return int(C.rf_engine_threads(engine))
}

// Close frees the engine; its models go on.
func (e *Engine) Close() error {
	runtime.SetFinalizer(e, nil)
	e.h.close()
	return nil
}

// Open loads a GGUF model from a file; opts may be nil. If the name is that of a part (NAME-00001-of-00003.gguf), the
// others are loaded with it.
func (e *Engine) Open(path string, opts *ModelOptions) (*Model, error) {
	engine, err := e.h.acquire()
	if err != nil {
		return nil, err
	}
	defer e.h.release()
	if opts == nil {
		opts = new(ModelOptions)
	}
	var pins pinner
	defer pins.Unpin()
	options := opts.c(&pins)
	name, length := text(path)
	var model *C.rf_model
	var object *C.rf_error
	if err := failure(C.rf_model_load(engine, name, length, &options, &model, &object), object); err != nil {
		return nil, err
	}
	free := func(model *C.rf_model) { C.rf_model_free(model) }
	return closeWhenCollected(&Model{handle[*C.rf_model]{object: model, free: free}}), nil
}

// Open loads a GGUF model from a file, on an engine of its own with all defaults; opts may be nil. Programs that load
// several models share an [Engine] among them.
func Open(path string, opts *ModelOptions) (*Model, error) {
	engine, err := NewEngine(nil)
	if err != nil {
		return nil, err
	}
	defer engine.Close() // the model keeps what it needs of it
	return engine.Open(path, opts)
}

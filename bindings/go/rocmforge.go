// Package rocmforge runs GGUF language models in this process, through librocmforge.
//
// [Open] loads a model, [Model.NewSession] begins a conversation on it, and [Session.Chat] streams an answer:
//
//	for piece, err := range session.Chat(ctx, messages, nil) {
//		if err != nil {
//			return err
//		}
//		fmt.Print(piece)
//	}
//
// Engines, models and samplers may be used by any number of goroutines at once. A session belongs to one goroutine at a
// time; a second one gets an [Error] with [CodeBusy]. Each of them holds memory that Go's collector does not see: Close
// it. What is forgotten is freed when it is collected, which may be late.
//
// Close may be called at any time and more than once, in any order: what is in use is freed when that use ends, and
// sessions keep the model that they need.
package rocmforge

/*
#cgo pkg-config: rocmforge
#include <rocmforge.h>
*/
import "C"

import (
	"errors"
	"runtime"
	"sync"
	"unsafe"
)

// ErrClosed is the error of every use after Close.
var ErrClosed = errors.New("rocmforge: used after Close")

// Error is an error of the library: find it with [errors.As].
type Error struct {
	// Code says what kind of error it is.
	Code Code
	// Message is the library's sentence: the file, the place in it, and the cause.
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Code is the library's number for a kind of error.
type Code int32

// The kinds of errors.
const (
	CodeArgument    Code = C.RF_E_ARGUMENT      // an argument is outside what is documented
	CodeIO          Code = C.RF_E_IO            // a file is missing, forbidden, or could not be read
	CodeFormat      Code = C.RF_E_FORMAT        // a file is damaged or incomplete
	CodeUnsupported Code = C.RF_E_UNSUPPORTED   // valid, but not served by this version
	CodeOutOfMemory Code = C.RF_E_OUT_OF_MEMORY // memory could not be had
	CodeContextFull Code = C.RF_E_CONTEXT_FULL  // the tokens do not fit; nothing was consumed
	CodeBusy        Code = C.RF_E_BUSY          // the session is in use on another goroutine
	CodeTemplate    Code = C.RF_E_TEMPLATE      // the chat template is missing or refused the messages
	CodeDevice      Code = C.RF_E_DEVICE        // a GPU's driver refused a call
	CodeDeviceLost  Code = C.RF_E_DEVICE_LOST   // a GPU was lost, with what was on it
	CodeInternal    Code = C.RF_E_INTERNAL      // a defect of the library
)

// String returns the code's name in C, such as "RF_E_FORMAT".
func (c Code) String() string { return C.GoString(C.rf_status_name(C.rf_status(c))) }

// Version returns the library's version, such as "0.1.0".
func Version() string { return C.GoString(C.rf_version()) }

// failure takes the error object of a call: nil for success and for normal outcomes.
func failure(status C.rf_status, object *C.rf_error) error {
	if status >= 0 {
		return nil
	}
	defer C.rf_error_free(object)
	return &Error{Code(status), C.GoString(C.rf_error_message(object))}
}

// handle counts the calls that use an object of the library, so that Close frees none that is in use.
type handle[P comparable] struct {
	mu     sync.Mutex
	object P // its zero after it was freed
	users  int
	closed bool
	free   func(P)
}

// acquire returns the object for a call; release must follow.
func (h *handle[P]) acquire() (P, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.take()
}

// acquireAlone is acquire for objects that serve one call at a time. The library would refuse a second call itself, but
// a stream is many calls, and the text of a piece is gone with the next one.
func (h *handle[P]) acquireAlone() (P, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users > 0 && !h.closed {
		var none P
		return none, &Error{CodeBusy, "the session is in use on another goroutine, or by the loop that this call is in"}
	}
	return h.take()
}

func (h *handle[P]) take() (P, error) {
	var none P
	if h.closed || h.object == none {
		return none, ErrClosed
	}
	h.users++
	return h.object, nil
}

func (h *handle[P]) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	h.freeUnused()
}

func (h *handle[P]) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.freeUnused()
}

func (h *handle[P]) freeUnused() {
	var none P
	if h.closed && h.users == 0 && h.object != none {
		h.free(h.object)
		h.object = none
	}
}

// closer is what Open and its like return.
type closer interface{ Close() error }

// closeWhenCollected is the safety net below a Close that was forgotten.
func closeWhenCollected[T closer](object T) T {
	runtime.SetFinalizer(object, func(object T) { _ = object.Close() })
	return object
}

// nul is what an empty text points to: NULL would mean that there is none.
var nul [1]C.char

// text returns a text's bytes for the time of a call.
func text(s string) (*C.char, C.size_t) {
	if s == "" {
		return &nul[0], 0
	}
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

// pinner holds what option structs point to, for the time of a call.
type pinner struct{ runtime.Pinner }

// text returns a text of an option struct; an empty one is NULL, the default.
func (p *pinner) text(s string) (*C.char, C.size_t) {
	if s == "" {
		return nil, 0
	}
	data := unsafe.StringData(s)
	p.Pin(data)
	return (*C.char)(unsafe.Pointer(data)), C.size_t(len(s))
}

// fill returns what a call writes to a buffer of its caller. guess spares most calls a second try.
func fill[T any](guess int, call func(*T, C.size_t, *C.size_t, **C.rf_error) C.rf_status) ([]T, error) {
	buffer := make([]T, guess+1)
	for {
		var needed C.size_t
		var object *C.rf_error
		status := call(&buffer[0], C.size_t(len(buffer)), &needed, &object)
		err := failure(status, object)
		if status == C.RF_E_BUFFER {
			buffer = make([]T, needed+1) // a text's length comes without its NUL
			continue
		}
		if err != nil {
			return nil, err
		}
		return buffer[:needed], nil
	}
}

// fillText is fill for text.
func fillText(guess int, call func(*C.char, C.size_t, *C.size_t, **C.rf_error) C.rf_status) (string, error) {
	buffer, err := fill(guess, call)
	if err != nil {
		return "", err
	}
	return C.GoStringN(unsafe.SliceData(buffer), C.int(len(buffer))), nil
}

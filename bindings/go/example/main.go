// Streams a model's answer: example MODEL.gguf [QUESTION]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/rocmforge/rocmforge/bindings/go"
)

func run(ctx context.Context, path, question string) error {
	model, err := rocmforge.Open(path, nil)
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(&rocmforge.SessionOptions{Context: 2048})
	if err != nil {
		return err
	}
	defer session.Close()

	messages := []rocmforge.Message{{Role: "user", Content: question}}
	for piece, err := range session.Chat(ctx, messages, &rocmforge.GenerateOptions{MaxTokens: 256}) {
		if err != nil {
			return err
		}
		fmt.Print(piece)
	}
	fmt.Println()
	return nil
}

func main() {
	if len(os.Args) < 2 {
		log.Fatalf("usage: %s MODEL.gguf [QUESTION]", os.Args[0])
	}
	question := "In which city is the Eiffel Tower?"
	if len(os.Args) > 2 {
		question = os.Args[2]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) // Ctrl-C ends the answer
	defer stop()
	if err := run(ctx, os.Args[1], question); err != nil {
		log.Fatal(err)
	}
}

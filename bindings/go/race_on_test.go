//go:build race

package rocmforge

const raceDetector = true // its own memory grows

//go:build !race

package rocmforge

const raceDetector = false

package main

import (
	"path/filepath"
	"testing"

	"packmill/spool"
)

// The figures of scripts/bench as go benchmarks, for work on the engine itself:
// go test -bench . ./cmd/internal/test/bench

func claimBenchmark(b *testing.B, items, count int, rate func(*spool.Tree, int, int) (float64, error)) {
	var sum float64
	for b.Loop() {
		b.StopTimer()
		t, err := queueOf(filepath.Join(b.TempDir(), "tree"), items)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		r, err := rate(t, claimers, count)
		if err != nil {
			b.Fatal(err)
		}
		sum += r
	}
	b.ReportMetric(sum/float64(b.N), "claims/s")
}

func BenchmarkClaim1000(b *testing.B)   { claimBenchmark(b, shortQueue, shortQueue, claimRate) }
func BenchmarkClaim20000(b *testing.B)  { claimBenchmark(b, 20_000, claims, claimRate) }
func BenchmarkClaim100000(b *testing.B) { claimBenchmark(b, longQueue, claims, claimRate) }

// The raw calls of the same work.
func BenchmarkBare1000(b *testing.B)   { claimBenchmark(b, shortQueue, shortQueue, bareRate) }
func BenchmarkBare20000(b *testing.B)  { claimBenchmark(b, 20_000, claims, bareRate) }
func BenchmarkBare100000(b *testing.B) { claimBenchmark(b, longQueue, claims, bareRate) }

package terminal

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// patience is how long something may take before the person is shown that it
// goes on.
const patience = 2 * time.Second

// Progress shows on standard error, if that is a terminal, that something goes
// on: how far it is, how fast and how long it may still take where that is
// known, and how long it has taken where it is not. What is done within
// patience shows nothing. It may be told of progress by several goroutines.
type Progress struct {
	what string
	out  io.Writer // nil: nobody looks

	mu    sync.Mutex
	shown bool
	bar   *progressbar.ProgressBar
	all   int64 // what the bar counts to; -1: not known
	end   chan struct{}
}

// Begin begins to show the progress of what. End it.
func Begin(what string) *Progress {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return begin(what, nil, 0)
	}
	return begin(what, os.Stderr, patience)
}

func begin(what string, out io.Writer, after time.Duration) *Progress {
	p := &Progress{what: what, out: out, all: -1, end: make(chan struct{})}
	if out != nil {
		go p.wait(after)
	}
	return p
}

// wait shows the line when it is time, and moves it while nothing is told.
func (p *Progress) wait(after time.Duration) {
	select {
	case <-p.end:
		return
	case <-time.After(after):
	}
	p.mu.Lock()
	p.shown = true
	p.mu.Unlock()
	for {
		p.mu.Lock()
		if p.bar == nil {
			p.bar = p.make(false)
		}
		if p.all < 0 {
			p.bar.Add(1) // a spinner turns
		}
		p.mu.Unlock()
		select {
		case <-p.end:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// make makes the bar: of bytes, or of things that are counted.
func (p *Progress) make(bytes bool) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(p.what),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionShowBytes(bytes), progressbar.OptionSetWidth(20),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetElapsedTime(true), progressbar.OptionSetPredictTime(p.all > 0), progressbar.OptionSpinnerType(9),
	}
	if p.all > 0 {
		options = append(options, progressbar.OptionShowCount())
	}
	return progressbar.NewOptions64(p.all, options...)
}

// Bytes tells how many bytes of how many are done.
func (p *Progress) Bytes(done, all int64) { p.tell(done, all, true) }

// Count tells how many things of how many are done.
func (p *Progress) Count(done, all int) { p.tell(int64(done), int64(all), false) }

func (p *Progress) tell(done, all int64, bytes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shown || all <= 0 {
		return
	}
	if p.bar == nil || p.all != all {
		p.all = all
		p.bar = p.make(bytes)
	}
	p.bar.Set64(min(done, all-1)) // the end is End's to say
}

// End takes the line away.
func (p *Progress) End() {
	if p.out == nil {
		return
	}
	close(p.end)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Clear()
	}
	p.out, p.shown = nil, false
}

package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// What a repository may cost. Debian's largest index has 60 MB and 10 compressed,
// and all of its suite's have 800,000 files.
const (
	maxIndex = 512 << 20 // bytes of an index, compressed
	maxText  = 1 << 30   // bytes of an index
	maxFiles = 2_000_000
	maxFile  = 64 << 30 // bytes of one file
)

// errMany ends the reading of a repository.
var errMany = fmt.Errorf("the repository has more than %d files; "+
	"take some of its components or architectures", maxFiles)

// add adds a file to an upload, if it and they all stay within bounds.
func (g *grouping) add(u *Upload, f File) error {
	if f.Size > maxFile {
		return fmt.Errorf("%s has %d bytes, and a file may have %d", f.Path, f.Size, int64(maxFile))
	}
	if g.files++; g.files > maxFiles {
		return errMany
	}
	u.Files = append(u.Files, f)
	return nil
}

// least is what must come within Patience, in bytes.
const least = 1 << 20

// errSlow says that a server let us wait.
var errSlow = errors.New("the server takes too long")

// watched is the body of an answer that must go on coming.
type watched struct {
	body     io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience time.Duration
	got      int
	url      string
}

// watch begins to wait for an answer: the context ends when it takes too long.
func (r *Repository) watch(ctx context.Context, url string) (context.Context, *watched) {
	w := &watched{patience: cmp.Or(r.src.Patience, time.Minute), url: url}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(w.patience, func() { w.cancel(errSlow) })
	return w.ctx, w
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if w.got += n; w.got >= least {
		w.got = 0
		w.timer.Reset(w.patience)
	}
	if err != nil && err != io.EOF {
		err = w.cause(err)
	}
	return n, err
}

// cause is the error of a request, or that it took too long.
func (w *watched) cause(err error) error {
	if errors.Is(context.Cause(w.ctx), errSlow) {
		return fmt.Errorf("get %s: %w: less than %d bytes in %v", w.url, errSlow, least, w.patience)
	}
	return err
}

func (w *watched) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func (w *watched) Close() error {
	w.stop()
	return w.body.Close()
}

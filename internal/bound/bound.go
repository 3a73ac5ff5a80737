// Package bound makes work that strangers cause end in time: readers that stop
// when their context does, whatever they are in the middle of.
package bound

import (
	"context"
	"io"
)

// Reader reads from r until ctx ends, and then says why it ended
// (context.Cause). A decompressor needs one on each side: it may take much in
// before anything comes out, and let much out before it takes more in.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

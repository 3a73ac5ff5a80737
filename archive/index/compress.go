package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"packmill/internal/compression"
)

// writer makes a published form of an index.
type writer struct {
	// pack fills the pieces with what it makes of the blocks: a gzip member, a
	// zstd frame, or an xz block with its padding.
	pack func(ctx context.Context, f Format, blocks []source, out []piece) error
	head []byte // what a file has before its blocks
	// tail returns what a file has after its blocks.
	tail func(blocks []piece) ([]byte, error)
}

var writers = map[compression.Kind]writer{
	compression.Plain: {tail: func([]piece) ([]byte, error) { return nil, nil }},
	compression.Zstd:  {pack: each(zstdFrame), tail: oneAtLeast(zstdFrame)},
	compression.Gzip:  {pack: each(gzipMember), tail: oneAtLeast(gzipMember)},
	compression.Xz:    {pack: compressXz, head: xzHeader, tail: xzTail},
}

// Forms are the compressions in which an index can be published, the cheapest
// to read first.
func Forms() []compression.Kind {
	return slices.DeleteFunc(compression.Kinds(), func(k compression.Kind) bool {
		_, ok := writers[k]
		return !ok
	})
}

// source is a block's plain text, read when it is needed.
type source func() ([]byte, error)

// each packs block by block.
func each(pack func(f Format, text []byte) ([]byte, error)) func(context.Context, Format, []source, []piece) error {
	return func(ctx context.Context, f Format, blocks []source, out []piece) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(2)
		for i := range blocks {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				text, err := blocks[i]()
				if err != nil {
					return err
				}
				data, err := pack(f, text)
				out[i] = newPiece(data, int64(len(text)), 0)
				return err
			})
		}
		return g.Wait()
	}
}

// oneAtLeast ends a file without blocks with an empty one: without it the file
// would be none of its compression.
func oneAtLeast(pack func(f Format, text []byte) ([]byte, error)) func([]piece) ([]byte, error) {
	return func(blocks []piece) ([]byte, error) {
		if len(blocks) > 0 {
			return nil, nil
		}
		return pack(Stanzas, nil)
	}
}

// gzipWriters are gzip's levels. Level 8 takes two thirds of level 9's time for
// 0.7 % more; for Contents level 6 takes a third of level 8's for 0.9 % more.
var gzipWriters = map[Format]*sync.Pool{Stanzas: gzipAt(8), Lines: gzipAt(6)}

func gzipAt(level int) *sync.Pool {
	return &sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(io.Discard, level) // the level is a constant
		return w
	}}
}

func gzipMember(f Format, text []byte) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(text) / 3)
	w := gzipWriters[f].Get().(*gzip.Writer)
	defer gzipWriters[f].Put(w)
	w.Reset(&b)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var zstdWriter = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(512<<10))
})

func zstdFrame(_ Format, text []byte) ([]byte, error) {
	w, err := zstdWriter()
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(text, make([]byte, 0, len(text)/3)), nil
}

// The xz container (The .xz File Format 1.2.1, xz-utils): a stream header,
// blocks, an index of all blocks' sizes, a footer. A block says nothing of its
// place, so blocks of one file can stand in another if the new index names
// them.
var xzHeader = []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46} // check: CRC64

// xzFilter is how xz packs. Text is not aligned (pb=0), and the byte before says
// much of the next (lc=4). Hash chains (hc4) take a quarter less time than binary
// trees and make 1.4 % more of Packages, 0.3 % of Sources. For Contents a fifth of
// the time makes 2 % more, and many of its blocks change at a time. No block is
// larger than dict.
func (f Format) xzFilter() string {
	if f == Lines {
		return "--lzma2=preset=2,dict=384KiB"
	}
	return "--lzma2=preset=6,dict=384KiB,mf=hc4,nice=32,lc=4,pb=0"
}

// xzPart bounds how much one run of xz reads, so that several run at once and
// none holds much.
const xzPart = 8 << 20

// compressXz fills out by running xz(1): liblzma is several times faster and
// denser than what there is in Go.
func compressXz(ctx context.Context, f Format, blocks []source, out []piece) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	half := max(8, min((len(blocks)+1)/2, xzPart/minBlock))
	for at := 0; at < len(blocks); at += half {
		end := min(at+half, len(blocks))
		g.Go(func() error { return runXz(ctx, f, blocks[at:end], out[at:end]) })
	}
	return g.Wait()
}

func runXz(ctx context.Context, f Format, blocks []source, out []piece) error {
	var text bytes.Buffer
	sizes := make([]string, len(blocks))
	for i, read := range blocks {
		t, err := read()
		if err != nil {
			return err
		}
		sizes[i] = strconv.Itoa(len(t))
		text.Write(t)
	}
	cmd := exec.CommandContext(ctx, "xz", "--stdout", "--threads=1", "--check=crc64", f.xzFilter(),
		"--block-list="+strings.Join(sizes, ","))
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin = &text
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	file, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("xz: %w: %s (install xz-utils, or take xz out of the suite's Compress)",
			err, strings.TrimSpace(stderr.String()))
	}
	found, err := xzBlocks(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return fmt.Errorf("xz: %w", err)
	}
	if len(found) != len(blocks) {
		return fmt.Errorf("xz: made %d blocks of %d", len(found), len(blocks))
	}
	for i, b := range found {
		if strconv.FormatInt(b.plain, 10) != sizes[i] {
			return fmt.Errorf("xz: block %d has %d bytes instead of %s", i, b.plain, sizes[i])
		}
		out[i] = newPiece(bytes.Clone(file[b.off:b.off+padded(b.unpadded)]), b.plain, b.unpadded)
	}
	return nil
}

// xzBlock is a block's place in a stream; unpadded is the size that the
// stream's index gives it.
type xzBlock struct{ off, unpadded, plain int64 }

func padded(n int64) int64 { return (n + 3) &^ 3 }

// xzBlocks reads the index of a stream of size bytes.
func xzBlocks(r io.ReaderAt, size int64) ([]xzBlock, error) {
	var footer [12]byte
	if size < 32 {
		return nil, fmt.Errorf("read xz index: only %d bytes", size)
	}
	if _, err := r.ReadAt(footer[:], size-12); err != nil {
		return nil, fmt.Errorf("read xz index: %w", err)
	}
	if footer[10] != 'Y' || footer[11] != 'Z' ||
		crc32.ChecksumIEEE(footer[4:10]) != binary.LittleEndian.Uint32(footer[:]) {
		return nil, fmt.Errorf("read xz index: no footer at the end")
	}
	n := (int64(binary.LittleEndian.Uint32(footer[4:])) + 1) * 4
	if n > size-24 {
		return nil, fmt.Errorf("read xz index: longer than the file")
	}
	idx := make([]byte, n)
	if _, err := r.ReadAt(idx, size-12-n); err != nil {
		return nil, fmt.Errorf("read xz index: %w", err)
	}
	body := idx[:n-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(idx[n-4:]) {
		return nil, fmt.Errorf("read xz index: checksum differs")
	}
	varint := func() int64 {
		v, k := binary.Uvarint(body)
		if k <= 0 || v > 1<<62 {
			body = nil
			return 0
		}
		body = body[k:]
		return int64(v)
	}
	body = body[1:]
	count := varint()
	if count > n {
		return nil, fmt.Errorf("read xz index: %d blocks cannot be", count)
	}
	out := make([]xzBlock, count)
	off := int64(len(xzHeader))
	for i := range out {
		out[i] = xzBlock{off: off, unpadded: varint(), plain: varint()}
		off += padded(out[i].unpadded)
	}
	if off+n+12 != size {
		return nil, fmt.Errorf("read xz index: blocks and file differ in size")
	}
	return out, nil
}

// xzTail is the index and footer of a stream of these blocks.
func xzTail(blocks []piece) ([]byte, error) {
	idx := []byte{0}
	idx = binary.AppendUvarint(idx, uint64(len(blocks)))
	for i := range blocks {
		idx = binary.AppendUvarint(idx, uint64(blocks[i].unpadded))
		idx = binary.AppendUvarint(idx, uint64(blocks[i].plain))
	}
	for len(idx)%4 != 0 {
		idx = append(idx, 0)
	}
	idx = binary.LittleEndian.AppendUint32(idx, crc32.ChecksumIEEE(idx))
	var foot [6]byte
	binary.LittleEndian.PutUint32(foot[:], uint32(len(idx)/4-1))
	foot[5] = 4
	idx = binary.LittleEndian.AppendUint32(idx, crc32.ChecksumIEEE(foot[:]))
	idx = append(idx, foot[:]...)
	return append(idx, 'Y', 'Z'), nil
}

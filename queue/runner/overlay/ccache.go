package overlay

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"packmill/internal/deb822"
	"packmill/queue/runner/cage"
)

// Ccache is the compiler cache of a build, ccache(1)'s. It comes as a tar file of
// an earlier build of the source, the last of the warden's files, and goes as one behind
// the results. Programs of the build's user pack and unpack it: what is in it was
// written by a build, and nobody else looks into it. Whatever is wrong with it, the
// build goes on.
type Ccache struct {
	Full bool  // there is such a file
	Most int64 // bytes that the build leaves at most
}

const (
	cacheDir = "/var/tmp/ccache"
	links    = "/usr/lib/ccache" // the compilers' names, as links to ccache
)

// pack leaves out the cache's settings, and what is no plain file: a named pipe would hold up the next build.
const pack = "cd " + cacheDir + " && find . -path ./tmp -prune -o -type f ! -path ./ccache.conf -print0 | " +
	"tar --null --no-recursion -T - -cf -"

// beginCache places the compiler cache, and has the build use it.
func (b *build) beginCache() {
	if b.Ccache == nil {
		return
	}
	defer cage.KillOthers()
	if err := b.placeCache(); err != nil {
		fmt.Printf("W: no compiler cache: %v\n", err)
		return
	}
	for _, e := range b.Env {
		if search, ok := strings.CutPrefix(e, "PATH="); ok {
			e = "PATH=" + links + ":" + search
		}
		b.cacheEnv = append(b.cacheEnv, e)
	}
	b.cacheEnv = append(b.cacheEnv, "CCACHE_DIR="+cacheDir, "CCACHE_NAMESPACE="+b.toolchain(),
		// The tar file is larger than what ccache counts by less than a tenth.
		fmt.Sprintf("CCACHE_MAXSIZE=%dKi", b.Ccache.Most*9/10>>10))
	if ok, err := b.asUser(nil, nil, "ccache", "--zero-stats"); err != nil || !ok {
		fmt.Printf("W: no compiler cache: %v\n", cmp.Or(err, errors.New("ccache does not like it")))
		b.cacheEnv = nil
	}
}

// placeCache makes the directory, with what an earlier build left.
func (b *build) placeCache() error {
	if !b.Ccache.Full {
		return b.emptyCache()
	}
	from := b.w.Sources[len(b.w.Sources)-1]
	defer from.Close()
	if err := b.emptyCache(); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	read := make(chan error)
	go func() {
		_, err := io.Copy(w, from)
		read <- errors.Join(err, w.Close())
	}()
	ok, err := b.asUser(r, nil, "tar", "-C", cacheDir, "-xf", "-")
	r.Close()
	if rerr := <-read; err == nil && ok && rerr == nil {
		return nil
	}
	fmt.Println("W: the compiler cache is damaged; this build begins with an empty one")
	return b.emptyCache()
}

func (b *build) emptyCache() error {
	dir, r := cacheDir[1:], b.w.Ranges[0]
	return errors.Join(b.root.RemoveAll(dir), b.root.Mkdir(dir, 0o700),
		b.root.Lchown(dir, r.UID+BuildUID, r.GID+BuildUID))
}

// asUser runs a program of the cache as the build's user.
func (b *build) asUser(in, out *os.File, argv ...string) (bool, error) {
	c := &cage.Command{Argv: argv, Env: b.env(), Dir: "/", In: in, Out: out,
		Attr: b.w.Ranges[0].Inside(BuildUID)}
	code, _, err := c.LimitTasks(b.w.Tasks).Run()
	return code == 0, err
}

// env is what programs of the build see.
func (b *build) env() []string {
	if b.cacheEnv != nil {
		return b.cacheEnv
	}
	return b.Env
}

// toolchain is the name of what compiles here. ccache looks at the compiler's own file
// alone; assembler and linker are part of it too.
func (b *build) toolchain() string {
	sum := sha256.New()
	if f, err := b.root.Open("var/lib/dpkg/status"); err == nil {
		defer f.Close()
		for s := deb822.NewScanner(f); s.Next(); {
			if name := string(s.Get("Package")); compiles(name) {
				fmt.Fprintf(sum, "%s %s\n", name, s.Get("Version"))
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// compiles tells by the name of a package whether it is part of a toolchain.
func compiles(name string) bool {
	for _, prefix := range []string{"gcc", "g++", "cpp", "gfortran", "gobjc", "binutils", "clang", "libclang", "llvm",
		"libllvm", "lld", "mold", "nvidia-cuda-toolkit"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// countCache asks how often the cache had what was compiled. The build could
// write anything there: the numbers are its word.
func (b *build) countCache() {
	if b.cacheEnv == nil {
		return
	}
	defer cage.KillOthers()
	b.root.RemoveAll(cacheDir[1:] + "/ccache.conf") // the build's own settings, or a named pipe
	var text bytes.Buffer
	if _, ok := b.pipe(&text, 1<<20, "ccache", "--print-stats"); !ok {
		return
	}
	for line := range strings.Lines(text.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "direct_cache_hit", "preprocessed_cache_hit":
			b.report.Hits += n
		case "cache_miss":
			b.report.Misses += n
		}
	}
}

// endCache hands the cache out, after the results.
func (b *build) endCache() {
	if b.cacheEnv == nil {
		return
	}
	defer cage.KillOthers()
	if ok, err := b.asUser(nil, nil, "ccache", "--cleanup"); err != nil || !ok {
		return
	}
	if n, ok := b.pipe(b.w.Out, b.Ccache.Most, "sh", "-c", pack); ok {
		b.report.Cache = n
	} else {
		fmt.Printf("W: the compiler cache is not kept: it cannot be packed, or %s has more than %d bytes\n",
			path.Base(cacheDir), b.Ccache.Most)
	}
}

// pipe runs a program as the build's user and copies what it says; false: it failed, or said more than that.
func (b *build) pipe(to io.Writer, most int64, argv ...string) (n int64, ok bool) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, false
	}
	said := make(chan error)
	go func() {
		var err error
		if n, err = io.Copy(to, io.LimitReader(r, most)); err == nil {
			if _, more := r.Read(make([]byte, 1)); !errors.Is(more, io.EOF) {
				err = errors.New("more")
			}
		}
		r.Close() // a program that has more to say ends
		said <- err
	}()
	ok, err = b.asUser(nil, w, argv...)
	w.Close()
	cerr := <-said
	return n, ok && err == nil && cerr == nil
}

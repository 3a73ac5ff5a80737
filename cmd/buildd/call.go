package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/openpgp"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
)

// caller is a builder on this machine whose master is another one.
type caller struct {
	*builder
	far     *remote.Builder
	archive string // where builds reach the master's archive
}

// call is buildd --master: it calls the master, builds what that hands out, and calls again.
func call(ctx context.Context) error {
	env, err := cli.Start("buildd")
	if err != nil {
		return err
	}
	c := &caller{builder: &builder{Env: env, name: cli.Builder, begun: time.Now()}}
	x, err := c.own()
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	c.far = &remote.Builder{Dir: cli.Work, Log: env.Log, Hello: c.hello, Ready: c.ready, Build: c.build}
	if x.Key != "" {
		c.far.Sign = c.sign
	}
	if err := c.far.Open(); err != nil {
		return err
	}
	defer c.far.Close()
	if err := c.serveArchive(ctx); err != nil {
		return err
	}
	for pause := time.Second; ctx.Err() == nil; {
		begun := time.Now()
		err := c.session(ctx)
		var no *remote.Refused
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &no) && no.Text == remote.Drained:
			env.Log.Info("drained: all that was built here is at the master")
			return nil
		case errors.As(err, &no) && env.Once:
			return daemon.Wrong{Err: err}
		case errors.As(err, &no):
			pause = 5 * time.Minute
		case time.Since(begun) > time.Minute:
			pause = time.Second
		}
		// Many builders whose master was away do not call at once.
		wait := pause/2 + rand.N(pause)
		env.Log.Warn("not connected", "err", err, "again", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		pause = min(2*pause, time.Minute)
	}
	return nil
}

// own is the stanza of control/builders of this machine.
func (c *caller) own() (*control.Builder, error) {
	for i, x := range c.Settings.Get().Builders {
		if (c.name == "" || x.Name == c.name) && !x.Elsewhere() {
			return &c.Settings.Get().Builders[i], nil
		}
	}
	return nil, fmt.Errorf("no builder is in this machine's own control/builders; add a stanza with Name, " +
		"Architectures and Runner")
}

// session is one call.
func (c *caller) session(ctx context.Context) error {
	c.Settings.Look()
	argv := append(strings.Fields(cli.SSH), "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o",
		"ServerAliveCountMax=3",
		cli.Master, "serve-builder")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = c.far.Serve(ctx, &remote.Pipe{Reader: out, Writer: in, Shut: func() error {
		return errors.Join(in.Close(),
			out.Close())
	}})
	cmd.Process.Kill()
	cmd.Wait()
	return err
}

// hello is what the master hears of this machine.
func (c *caller) hello() remote.Hello {
	h := remote.Hello{Version: daemon.Version("packmill")}
	h.Host, _ = os.Hostname()
	if x, err := c.own(); err == nil {
		h.Architectures, h.Jobs = x.Architectures, x.Jobs
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if v, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "sbuild").Output(); err == nil {
		h.Sbuild = string(v)
	}
	var st unix.Statfs_t
	if unix.Statfs(cli.Work, &st) == nil {
		h.Free = int64(st.Bavail) * st.Bsize
	}
	return h
}

func (c *caller) ready(arch string) error {
	x, err := c.own()
	if err != nil {
		return err
	}
	if err := c.Room(); err != nil {
		return err
	}
	r, err := x.NewRunner()
	if err != nil {
		return err
	}
	return r.Ready(arch)
}

// build builds the master's job as this machine's own settings say.
func (c *caller) build(ctx context.Context, _ *remote.Order, job *runner.Job) (*runner.Result, error) {
	x, err := c.own()
	if err != nil {
		return nil, err
	}
	r, err := x.NewRunner()
	if err != nil {
		return nil, err
	}
	for i := range job.Repos {
		if job.Repos[i].URI == "" {
			job.Repos[i].URI = c.archive
		}
	}
	repos := job.Repos
	x.Fit(job, func(on, dir string) (paths []string, err error) {
		for _, r := range repos {
			for _, component := range r.Components {
				path, err := index(ctx, fmt.Sprintf("dists/%s/%s/binary-%s/Packages", r.Suite, component, on), dir, c.far.Fetch)
				if err != nil {
					return nil, err
				}
				if path != "" {
					paths = append(paths, path)
				}
			}
		}
		return paths, nil
	})
	return r.Run(ctx, job)
}

// index fetches an index of the master's archive in a form that it has, or none.
func index(ctx context.Context, path, dir string, fetch func(context.Context, string, io.Writer) error) (string, error) {
	f, err := os.CreateTemp(dir, "index-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, form := range []string{".zst", ".xz", ".gz", ""} {
		if err := fetch(ctx, path+form, f); err == nil {
			return f.Name(), nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// sign signs a good build's .changes with this machine's key.
func (c *caller) sign(text []byte) ([]byte, error) {
	x, err := c.own()
	if err != nil || x.Key == "" {
		return nil, err
	}
	signer, err := openpgp.OpenSigner(c.Settings.Get().Path(x.Key))
	if err != nil {
		return nil, err
	}
	return signer.Clearsign(text, time.Now())
}

// serveArchive lets builds on this machine reach the master's archive through the session: they are clients of
// it as any.
func (c *caller) serveArchive(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.archive = "http://" + l.Addr().String()
	to := &url.URL{Scheme: "http", Host: "peer", Path: "/1/archive"}
	server := &http.Server{Handler: &httputil.ReverseProxy{Transport: c.far,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }},
		ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { server.Close() })
	go server.Serve(l)
	return nil
}

// notPlain is what need not stand in the name of a directory that builds mount.
var notPlain = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// defaultWork is where jobs of a master lie: each has a directory of its own.
func defaultWork(master string) string {
	home, err := os.UserHomeDir()
	if err != nil || home == "/" {
		home = "/var/lib/packmill-build"
	}
	return filepath.Join(home, "remote", "of-"+notPlain.ReplaceAllString(master, "_"))
}

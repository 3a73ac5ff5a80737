package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/trouble"
	"packmill/queue/runner"
	"packmill/queue/runner/remote"
	"packmill/spool"
)

// far is what a build daemon has that serves a builder on another machine.
type far struct {
	peer *remote.Peer
	end  context.CancelCauseFunc // of the session
}

// serve is buildd --serve: one session with the builder at the other end of standard input and output.
func serve(ctx context.Context) error {
	signal.Ignore(syscall.SIGPIPE) // of a session that is gone
	conn, err := stdio()
	if err != nil {
		return err
	}
	env, err := cli.Start("buildd")
	if err != nil {
		return err
	}
	b := &builder{Env: env, name: cli.Builder, begun: time.Now(), far: &far{}}
	if x, err := b.stanza(); err != nil || !x.Elsewhere() {
		return daemon.Wrong{Err: errors.Join(err, fmt.Errorf("%s is no builder with Runner: remote", cli.Builder))}
	}
	turn, err := takeOver(b.sessionFile())
	if err != nil {
		return err
	}
	var doubt error
	if err := b.session(ctx, conn); errors.Is(err, durable.ErrInDoubt) {
		doubt = err
	} else if err != nil {
		env.Log.Warn("session", "err", err)
	}
	turn.Close()
	left := 0
	if err := b.leases(func(spool.Found, *spool.Lease) error { left++; return nil }); err != nil || left == 0 {
		return errors.Join(doubt, err)
	}
	// sshd ends a session, and the builder's ssh with it, when its command has ended: another process waits.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "--tree", cli.Tree, "--builder", cli.Builder, "--linger")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return errors.Join(doubt, cmd.Start())
}

// linger is buildd --linger: the time for which a builder that is away keeps its jobs.
func linger(ctx context.Context) error {
	env, err := cli.Start("buildd")
	if err != nil {
		return err
	}
	b := &builder{Env: env, name: cli.Builder, begun: time.Now(), far: &far{}}
	return b.linger(ctx)
}

// stdio are standard input and output as a connection whose Close ends a read.
func stdio() (*remote.Pipe, error) {
	if err := errors.Join(unix.SetNonblock(0, true), unix.SetNonblock(1, true)); err != nil {
		return nil, err
	}
	in, out := os.NewFile(0, "stdin"), os.NewFile(1, "stdout")
	return &remote.Pipe{Reader: in, Writer: out, Shut: func() error { return errors.Join(in.Close(), out.Close()) }},
		nil
}

// sessionFile is locked by the process that serves the builder.
func (b *builder) sessionFile() string { return b.Tree.Path(spool.BuildersDir, b.name+".session") }

// takeOver takes the lock of a builder's session. A holder is the same builder's earlier session, whose line is dead
// and which sshd has not noticed: it is told to go. The lock is fcntl's, because the kernel says who holds that.
func takeOver(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o660)
	if err != nil {
		return nil, err
	}
	for try := 0; try < 300; try++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err == nil {
			return f, nil
		}
		holder := unix.Flock_t{Type: unix.F_WRLCK}
		if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &holder) == nil && holder.Type != unix.F_UNLCK && holder.Pid > 1 {
			how := unix.SIGTERM
			if try > 100 {
				how = unix.SIGKILL
			}
			unix.Kill(int(holder.Pid), how)
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.Close()
	return nil, fmt.Errorf("the builder's earlier session does not end: %w", err)
}

// session serves the builder until the connection ends.
func (b *builder) session(ctx context.Context, conn io.ReadWriteCloser) error {
	peer, err := remote.Accept(conn, b.Tree.Path("archive"), b.admit)
	if err != nil {
		return err
	}
	b.far.peer = peer
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.far.end = cancel
	defer context.AfterFunc(ctx, peer.Close)()
	go func() {
		<-peer.Gone()
		cancel(nil)
	}()
	h := &peer.Hello
	b.Log.Info("the builder is here", "host", h.Host, "version", h.Version, "kernel", h.Kernel, "sbuild", h.Sbuild,
		"free", h.Free, "jobs", h.Jobs, "has", len(h.Tokens), "skew", time.Since(h.Time).Round(time.Millisecond))
	b.enter()
	defer b.leave()
	err = b.resume(ctx)
	if err == nil {
		teller := mail.NewTeller(b.Env, b.places)
		teller.Also = b.tellAside
		err = teller.Serve(ctx, func(ctx context.Context) error { return b.Serve(ctx, b.loop()) })
	}
	if b.Once {
		b.wait.Wait()
	}
	peer.Close()
	b.wait.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, durable.ErrInDoubt) {
		return cause
	}
	return err
}

// admit judges a builder's hello.
func (b *builder) admit(h *remote.Hello) (*remote.Welcome, string) {
	x, err := b.stanza()
	if err != nil {
		return nil, err.Error()
	}
	if why := h.Skewed(time.Now()); why != "" {
		return nil, why
	}
	w := &remote.Welcome{Builder: x.Name, Drop: map[string]string{}}
	for _, token := range h.Tokens {
		w.Drop[token] = "it is not this builder's any more: its lease ended, or somebody moved or cancelled the job"
	}
	err = b.leases(func(_ spool.Found, l *spool.Lease) error {
		delete(w.Drop, l.Token)
		return nil
	})
	if err != nil {
		return nil, err.Error()
	}
	if x.Takes == "drain" && len(w.Drop) == len(h.Tokens) {
		return nil, remote.Drained
	}
	return w, ""
}

// leases calls do with each lease of this builder that holds.
func (b *builder) leases(do func(spool.Found, *spool.Lease) error) error {
	places, err := b.places(spool.Building)()
	if err != nil {
		return err
	}
	for _, p := range places {
		names, err := b.Tree.List(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil {
				continue
			}
			l := spool.Leased(b.Tree.Path(p.Dir(), name), time.Now())
			if l == nil || l.Builder != b.name {
				continue
			}
			if err := do(spool.Found{Place: p, Name: n}, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// resume goes on with the jobs that the builder has from earlier sessions.
func (b *builder) resume(ctx context.Context) error {
	return b.leases(func(f spool.Found, _ *spool.Lease) error {
		it, err := b.Tree.ClaimSoon(f.Place, f.Name.String())
		if errors.Is(err, spool.ErrBusy) || errors.Is(err, spool.ErrGone) {
			return nil
		}
		if err != nil {
			b.Log.Error("a job of an earlier session", "item", f.Name.String(), "err", err)
			return nil
		}
		l := spool.Leased(it.At(), time.Now())
		if l == nil || l.Builder != b.name {
			it.Release()
			return nil
		}
		b.running.Add(1)
		b.wait.Go(func() {
			defer b.running.Add(-1)
			defer it.Release()
			if err := b.goOn(ctx, it, l); err != nil {
				b.Log.Error("a job of an earlier session", "item", it.Name.String(), "err", err)
				if errors.Is(err, durable.ErrInDoubt) {
					b.far.end(err)
				}
			}
		})
		return nil
	})
}

// goOn is handle of a job that was begun in an earlier session, with the move.
func (b *builder) goOn(ctx context.Context, it *spool.Item, l *spool.Lease) error {
	a, v, err := b.attempt(it)
	if err != nil {
		return err
	}
	if a != nil {
		a.lease = l
		defer a.clearOut()
		res, rerr := a.run(ctx)
		if v, err = a.end(res, rerr, ""); err != nil {
			return err
		}
	}
	if v.To.State == spool.Unborn {
		return nil
	}
	from := it.Place
	if err := it.Move(spool.Buildd, b.who(), v); err != nil {
		return err
	}
	b.Log.Info("moved", "item", it.Name.String(), "from", from.Dir(), "to", it.Place.Dir(), "suite", it.Place.Suite,
		"arch", it.Arch(), "reason", v.Reason)
	return nil
}

// lingerLook is between two looks whether a builder's time is over.
const lingerLook = time.Second

// linger waits for the builder, or rather for the session that takes over, and gives its jobs back when its
// leases end.
func (b *builder) linger(ctx context.Context) error {
	var said trouble.Said
	for {
		left := 0
		if err := b.leases(func(spool.Found, *spool.Lease) error { left++; return nil }); err != nil {
			return err
		}
		switch _, err := b.giveBackLost(ctx); {
		case errors.Is(err, durable.ErrInDoubt):
			return err
		case err == nil:
			said.Over("give back")
		case said.Fresh("give back", err):
			b.Log.Error("give back", "err", err)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lingerLook):
		}
		if held(b.sessionFile()) {
			return nil
		}
	}
}

// held reports whether a process serves the builder.
func held(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// counts reports whether the builder's jobs outlive this process: a local builder has as many as the loop has workers.
func (b *builder) counts(x *control.Builder) bool { return b.far != nil || x.Clustered() }

// full says why the builder takes no more for now, as far as this session knows, or "".
func (b *builder) full(x *control.Builder) string {
	if n := b.jobs(x); int(b.running.Load()) >= n && b.counts(x) {
		return fmt.Sprintf("it has %d jobs already", n)
	}
	return ""
}

// jobs is how many builds there may be at a time: the builder's own word counts too.
func (b *builder) jobs(x *control.Builder) int {
	if b.far != nil && b.far.peer.Hello.Jobs > 0 {
		return min(x.Jobs, b.far.peer.Hello.Jobs)
	}
	return x.Jobs
}

// leaveIf ends a session whose builder is drained, or is none any more.
func (b *builder) leaveIf() {
	if b.far == nil {
		return
	}
	x, err := b.stanza()
	if err != nil || x.Takes == "drain" && b.running.Load() == 0 {
		b.Log.Info("the session ends", "reason", "the builder is drained or removed")
		b.far.peer.Close()
	}
}

// remote is the runner of an attempt whose builder is on another machine. The lease is on disk before the builder
// hears of the job.
func (a *attempt) remote(log *os.File) (*remote.Build, error) {
	if a.lease == nil {
		st, err := log.Stat()
		if err != nil {
			return nil, err
		}
		a.lease = spool.NewLease(a.x.Name, a.x.Lease)
		a.lease.LogStart = st.Size()
		if err := a.lease.Write(a.it.At()); err != nil {
			return nil, err
		}
	}
	held, dir, l := a.it.Lock(), a.it.Path(), a.lease
	return &remote.Build{Peer: a.far.peer, Token: l.Token, LogStart: l.LogStart, Begun: l.Begun, Since: a.t.Begun,
		Begin: func() error {
			l.Begun = true
			return l.Write(dir)
		},
		Heard: func() {
			if err := l.Renew(dir); err != nil && !movedAway(held, dir) {
				a.Log.Error("a lease cannot be renewed", "item", a.it.Name.String(), "err", err)
			}
		},
		Room:   a.RoomFor,
		Signed: func(text string) { a.signed = text },
	}, nil
}

// away is what becomes of a job whose builder's session ended: it stays the builder's until the lease ends, with what
// has come of it.
func (a *attempt) away() (spool.Verdict, error) {
	for _, name := range brought {
		err := durable.RemoveAll(a.it.At(name))
		if err == nil {
			err = durable.RenameUnsynced(a.path(name), a.it.At(name))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.Log.Warn("what came of a job is fetched again", "item", a.it.Name.String(), "err", err)
		}
	}
	reason := "the session with its builder ended, which keeps the job until " +
		time.Now().Add(a.lease.Span).UTC().Format(time.RFC3339)
	return spool.Stay(0, reason), a.it.Note(a.who(), reason)
}

// over takes the lease away, and lets the builder forget the job once it has had time to move.
func (a *attempt) over() error {
	if a.lease == nil {
		return nil
	}
	token := a.lease.Token
	if a.far == nil {
		if err := a.lease.End(a.it.Path()); err != nil {
			return err
		}
		c, _, err := a.cluster()
		if c != nil && err == nil {
			err = c.Forget(token)
		}
		if err != nil {
			a.Log.Warn("a job's directory in the cluster stays for now", "item", a.it.Name.String(), "err", err)
		}
		return nil
	}
	peer := a.far.peer
	time.AfterFunc(time.Second, func() { peer.Forget(token) })
	return a.lease.End(a.it.At())
}

// signedThere verifies a .changes that was signed with the builder's own key: it must say what was checked here.
func (a *attempt) signedThere(text []byte) ([]byte, error) {
	ring, missing, err := a.all.Keyring([]string{a.x.Fingerprint})
	if err != nil {
		return nil, err
	}
	if a.x.Fingerprint == "" || len(missing) > 0 {
		return nil, fmt.Errorf("the builder %s signs itself, and its public key (Fingerprint in control/builders, a file in "+
			"control/keys) is not here", a.x.Name)
	}
	said, _, err := ring.VerifyClear([]byte(a.signed), time.Now())
	if err != nil {
		return nil, err
	}
	if openpgp.CanonicalHash(said) != openpgp.CanonicalHash(text) {
		return nil, errors.New("the builder signed another .changes than it sent")
	}
	return []byte(a.signed), nil
}

// readyFor says what the machine that builds lacks for an architecture.
func (b *builder) readyFor(x *control.Builder, arch string) error {
	if b.far != nil {
		return b.far.peer.Ready(arch)
	}
	if c, _, err := b.cluster(); err != nil {
		return err
	} else if c != nil {
		return c.Ready(arch)
	}
	r, err := x.NewRunner()
	if err != nil {
		return err
	}
	return r.Ready(arch)
}

// runner is what builds the attempt.
func (a *attempt) runner(ctx context.Context, job *runner.Job) (runner.Runner, error) {
	if a.far != nil {
		return a.remote(job.Log)
	}
	if c, _, err := a.cluster(); err != nil {
		return nil, err
	} else if c != nil {
		return a.clustered(ctx, c, job)
	}
	return a.x.NewRunner()
}

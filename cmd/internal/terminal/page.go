package terminal

import (
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Page sends what is written to standard output from here on through a pager,
// as git does: PACKMILL_PAGER or PAGER, or less, which ends by itself if it all
// fits (LESS=FRX, unless LESS is set). Where standard output is no terminal, or
// a dumb one, and for a pager "cat" or "", nothing happens. The function that it returns waits
// for the person to leave the pager; it must be called before the process ends.
func Page() func() {
	pager := pagerOf(os.LookupEnv)
	if kind := os.Getenv("TERM"); kind == "" || kind == "dumb" || pager == "" || pager == "cat" ||
		!term.IsTerminal(int(os.Stdout.Fd())) {
		return func() {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	cmd := exec.Command("sh", "-c", pager)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	if _, ok := os.LookupEnv("LESS"); !ok {
		cmd.Env = append(cmd.Env, "LESS=FRX")
	}
	old, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = cmd.Start()
	}
	r.Close()
	if err == nil {
		// Everything that prints writes to descriptor 1.
		err = unix.Dup3(int(w.Fd()), 1, 0)
	}
	w.Close()
	if err != nil {
		Print(os.Stderr, "packmill: pager %s: %v\n", pager, err)
		return func() {}
	}
	return func() {
		unix.Dup3(old, 1, 0) // the last end of the pipe closes: the pager has all
		unix.Close(old)
		cmd.Wait()
	}
}

// pagerOf is the pager of an environment. Who sets one to nothing wants none.
func pagerOf(env func(string) (string, bool)) string {
	for _, name := range []string{"PACKMILL_PAGER", "PAGER"} {
		if v, ok := env(name); ok {
			return v
		}
	}
	for _, name := range []string{"less", "more"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return ""
}

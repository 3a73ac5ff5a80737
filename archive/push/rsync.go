package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/durable"
)

// Rsync pushes with the program of that name.
type Rsync struct {
	Dest string   // as rsync takes it: user@host:/srv/archive, rsync://host/module, or a directory
	Args []string // further arguments, such as "-e", "ssh -i /etc/packmill/push.key"

	// Manifest is the file in which this package keeps what the copy has; it
	// can be thrown away, and then rsync compares everything.
	Manifest string

	// Lock is the lock under which the push runs; may be nil. rsync has it too,
	// so one that outlives this program lets no other push begin beside it.
	Lock *os.File
}

// Push brings the copy in line with the archive. Two pushes with one Manifest
// must not run at a time.
func (r *Rsync) Push(ctx context.Context, src Source, opt Options, now time.Time) (*Report, error) {
	if strings.HasPrefix(r.Dest, "-") || r.Dest == "" {
		return nil, fmt.Errorf("rsync target %q: is empty or begins with a dash", r.Dest)
	}
	rep, err := run(ctx, &rsyncRun{r, src.Root, src.Frozen}, src, opt, now)
	if err != nil {
		return nil, fmt.Errorf("push to %s: %w", r.Dest, err)
	}
	return rep, nil
}

type rsyncRun struct {
	*Rsync
	root, frozen string
}

func (r *rsyncRun) flat() bool { return false }

// load reads the manifest. It is of this destination only: of another one it
// says nothing.
func (r *rsyncRun) load(context.Context) (*manifest, error) {
	empty := &manifest{entries: map[string]entry{}, owner: r.Dest}
	data, err := os.ReadFile(r.Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(data)
	if err != nil || m.owner != r.Dest {
		return empty, nil
	}
	return m, nil
}

func (r *rsyncRun) begin(_ context.Context, m *manifest) error {
	m.open = true
	return r.store(m)
}

func (r *rsyncRun) finish(_ context.Context, m *manifest) error {
	m.open = false
	return r.store(m)
}

func (r *rsyncRun) store(m *manifest) error {
	m.owner = r.Dest
	if err := os.MkdirAll(filepath.Dir(r.Manifest), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(r.Manifest, m.text(), 0o644)
}

func (r *rsyncRun) send(ctx context.Context, p phase, files []*file, _ *manifest, done func(*file)) error {
	from := r.frozen
	args := []string{"--times", "--links", "--perms", "--chmod=D755,F644"}
	switch p {
	case poolFiles:
		// rsync gives a file its name when it is whole, so what has the name
		// is right, and need not be looked at.
		from = r.root
		args = append(args, "--ignore-existing")
	case hashed:
		args = append(args, "--ignore-existing")
	default:
		// Two files of one second and one size may differ.
		args = append(args, "--checksum")
	}
	var list bytes.Buffer
	for _, f := range files {
		list.WriteString(f.path)
		list.WriteByte(0)
	}
	if err := r.rsync(ctx, list.Bytes(), from, args...); err != nil {
		return err
	}
	for _, f := range files {
		done(f)
	}
	return nil
}

// remove removes what the list names and the source lacks.
func (r *rsyncRun) remove(ctx context.Context, paths []string) error {
	empty, err := os.MkdirTemp("", "packmill-push-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	// The directories must be there, or rsync takes them for lost.
	for _, p := range paths {
		if err := os.MkdirAll(filepath.Join(empty, filepath.Dir(p)), 0o755); err != nil {
			return err
		}
	}
	return r.rsync(ctx, []byte(strings.Join(paths, "\x00")), empty, "--delete-missing-args")
}

func (r *rsyncRun) rsync(ctx context.Context, list []byte, from string, args ...string) error {
	args = append(append([]string{"--from0", "--files-from=-", "--mkpath"}, args...), r.Args...)
	cmd := exec.CommandContext(ctx, "rsync", append(args, "--", from+"/", strings.TrimRight(r.Dest, "/")+"/")...)
	cmd.Stdin = bytes.NewReader(list)
	if r.Lock != nil {
		cmd.ExtraFiles = []*os.File{r.Lock}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("there is no rsync here; install the package rsync")
		}
		text := strings.TrimSpace(out.String())
		if len(text) > 2000 {
			text = text[len(text)-2000:]
		}
		return fmt.Errorf("rsync: %w: %q", err, text)
	}
	return nil
}

package setup

import (
	"embed"
	"errors"
	"io/fs"
	"path/filepath"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/durable"
	"packmill/spool"
)

// Tree makes the tree at root, or what it lacks, with example settings, which it
// returns. left says what got no statement, in a tree from before there were any.
func Tree(root string) (made, left []string, err error) {
	if left, err = vouch(root); err != nil {
		return nil, left, err
	}
	t, err := spool.Init(root)
	if err != nil {
		return nil, left, err
	}
	made, err = writeExamples(t.Root(), control.Files)
	return made, left, err
}

// Users gives the tree to the daemons' accounts.
func Users(root string) error {
	t, err := spool.Open(root)
	if err == nil {
		err = t.SetRights()
	}
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return nil
}

// Archive makes at root what an archive alone needs, and returns the example
// settings that it wrote.
func Archive(root string) (made []string, err error) {
	for _, d := range []string{"archive", "attic"} {
		if err := durable.MkdirAll(filepath.Join(root, d), 0o775); err != nil {
			return nil, err
		}
	}
	return writeExamples(root, []string{control.SuitesFile})
}

//go:embed examples
var examples embed.FS

// writeExamples puts the example settings into control, where none are.
func writeExamples(root string, files []string) ([]string, error) {
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{{control.KeysDir, 0o775}, {"private", 0o750}} {
		if err := durable.MkdirAll(filepath.Join(root, "control", d.name), d.mode); err != nil {
			return nil, err
		}
	}
	var made []string
	for _, name := range files {
		data, err := examples.ReadFile(filepath.Join("examples", name))
		if err != nil {
			return nil, err
		}
		path := filepath.Join(root, "control", name)
		err = durable.CreateFile(path, data, 0o664)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		made = append(made, path)
	}
	return made, nil
}

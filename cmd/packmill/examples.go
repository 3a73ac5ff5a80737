package main

import (
	"embed"
	"errors"
	"io/fs"
	"path/filepath"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
)

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

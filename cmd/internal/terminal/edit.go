package terminal

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Edit lets the person write a text in their editor (VISUAL, EDITOR) that
// begins with what is given, and gives it without lines with # in front.
func Edit(template string) (string, error) {
	tmp, err := os.CreateTemp("", "packmill-*.txt")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(template)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "sensible-editor")
	// EDITOR may hold arguments; the name is no part of the command.
	cmd := exec.Command("sh", "-c", editor+` "$1"`, "sh", tmp.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", editor, err)
	}
	data, err := os.ReadFile(tmp.Name())
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
	}
	return strings.TrimSpace(out.String()), nil
}

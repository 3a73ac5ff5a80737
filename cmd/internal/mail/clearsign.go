package mail

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"packmill/internal/paper"
)

// ClearSign lets the person's gpg sign the .changes at path, with that key or with
// the one that gpg takes by itself.
func ClearSign(path, key string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	args := []string{"--clearsign", "--digest-algo", "SHA512", "--output", "-"}
	if key != "" {
		args = append(args, "--local-user", key)
	}
	cmd := exec.Command("gpg", args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(paper.Text(data)), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gpg does not sign %s: %w (another key: --key; signed elsewhere: --with)",
			filepath.Base(path), err)
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), []byte("\n")), nil
}

package openpgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// AgentPrefix begins the name of a key that gpg-agent holds: "gpg:FINGERPRINT".
const AgentPrefix = "gpg:"

// OpenSigner is ReadSigner for the file of that name, or for a key that
// gpg-agent holds (also one on a card) if the name is "gpg:FINGERPRINT". gpg is
// asked with the GNUPGHOME of this process, and never for a passphrase: the
// agent must have it.
func OpenSigner(name string) (*Signer, error) {
	id, ok := strings.CutPrefix(name, AgentPrefix)
	if !ok {
		return ReadSigner(name)
	}
	if !isFingerprint(id) {
		return nil, fmt.Errorf("signing key %q: write gpg: and the 40 hex digits of the fingerprint", name)
	}
	data, err := gpg(nil, "--export", id)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", name, err)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("signing key %s: gpg does not know it; look with gpg --list-secret-keys, and set GNUPGHOME",
			name)
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", name, err)
	}
	s := &Signer{entity: e, agent: id}
	if _, err := s.Detach([]byte("test"), time.Now()); err != nil {
		return nil, fmt.Errorf("signing key %s: %w", name, err)
	}
	return s, nil
}

func isFingerprint(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789ABCDEFabcdef") == ""
}

// byAgent lets gpg sign. The time is its own.
func (s *Signer) byAgent(data []byte, text bool) ([]byte, crypto.Hash, error) {
	args := []string{"--local-user", s.agent, "--digest-algo", "SHA512", "--no-armor", "--detach-sign", "--output", "-"}
	if text {
		args = append([]string{"--textmode"}, args...)
	}
	out, err := gpg(data, args...)
	if err != nil {
		if dead := (*Refusal)(nil); errors.As(s.check(time.Now()), &dead) {
			return nil, 0, dead
		}
		return nil, 0, fmt.Errorf("sign with gpg: %w", err)
	}
	sig, refusal := onlySignature(out)
	if refusal != nil {
		return nil, 0, fmt.Errorf("sign with gpg: %w", refusal)
	}
	return out, sig.Hash, nil
}

func gpg(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "error"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w; install gnupg", err)
		}
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}

package daemon

import (
	"errors"
	"fmt"
)

// ExitRefused is the exit status of a person's command that did not do what it
// was asked for: nothing fits, or the table of moves forbids it.
const ExitRefused = 1

// ErrRefused marks such an error. By itself it says that the reasons were
// printed.
var ErrRefused = errors.New("refused")

// Refuse makes an ErrRefused with a reason, as fmt.Errorf makes it.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

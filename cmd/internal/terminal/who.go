package terminal

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// Who is the person, as the system knows by the uid: never an option, and never
// what the environment says of a user, or a history could be made to lie. Only
// root, who may lie anyway, is taken for who called sudo.
func Who() string {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		if sudo := os.Getenv("SUDO_USER"); u.Uid == "0" && sudo != "" {
			return sudo + " (sudo)"
		}
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

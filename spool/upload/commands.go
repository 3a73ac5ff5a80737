package upload

import (
	"bytes"
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/pattern"
)

// Verb is what a command asks for.
type Verb string

// The verbs of debianqueued, which dcut writes.
const (
	Remove     Verb = "rm"         // take waiting files away
	Cancel     Verb = "cancel"     // take a deferred upload away
	Reschedule Verb = "reschedule" // move a deferred upload to another day
)

// Command is one line of a .commands file, for one name.
type Command struct {
	Verb    Verb
	Pattern string // a file name; with rm also a pattern (path.Match); never with a slash
	Delayed int    // with rm: the day of the DELAYED directory that was named; -1 if none was
	Search  bool   // with rm: look in all DELAYED directories too
	Days    int    // with reschedule: 0 to 15
}

// Matches reports whether the command speaks of a file of this name. No pattern
// reaches a name that begins with a dot or holds a slash.
func (c Command) Matches(name string) bool {
	if !commandFile().MatchString(name) {
		return false
	}
	if c.Verb != Remove {
		return c.Pattern == name
	}
	ok, err := path.Match(c.Pattern, name)
	return err == nil && ok
}

// Commands is a .commands file as dcut makes it (of dput-ng and of dput).
type Commands struct {
	Name      string
	Uploader  *Uploader          // whose uploads it may touch
	Signature *openpgp.Signature // nil if it came unsigned from a trusted account
	Hash      string             // of the signed text, for the ledger
	Archive   string             // the host it was meant for, as it says; "" if it does not
	List      []Command
}

var commandsName = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9+.~_@-]*\.(dak-)?commands$`)

// IsCommands reports whether a file's name is that of a .commands file. Such names
// are safe, but need not have the underscore that policy.CheckFile asks for:
// dput-ng makes alice-1763731234.commands, and .dak-commands for dcut dm.
func IsCommands(name string) bool {
	return len(name) <= 220 && strings.HasSuffix(name, "commands") && commandsName().MatchString(name)
}

// PeekCommands says whether a .commands file has come whole: nil, ErrUnfinished,
// or a *FileError of what is no such file and never will be.
func PeekCommands(dir, name string) error {
	data, err := slurp(dir, name)
	if err != nil {
		return err
	}
	if len(data) == 0 || data[len(data)-1] != '\n' ||
		openpgp.IsSigned(data) && !bytes.Contains(data, []byte("\n-----END PGP SIGNATURE-----")) {
		return ErrUnfinished
	}
	return nil
}

const maxCommands = 200

var (
	commandFile    = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9+.~_-]*$`)
	commandPattern = pattern.Lazy(`^[A-Za-z0-9*?\[][A-Za-z0-9+.~_*?\[\]^-]*$`)
	delayed        = pattern.Lazy(`^(?:DELAYED/)?([0-9]{1,2})-day/(.*)$`)
	inDays         = pattern.Lazy(`^([0-9]{1,2})-days?$`)
)

// ParseCommands reads and verifies the .commands file of this name in dir. It is
// signed by a registered uploader, or comes from an account that need not sign. The
// findings are as Read's; unless there is an error among them the commands may
// be carried out, on uploads of the same uploader. A signature over a day old is
// refused, for what it says was meant for files of that day.
func ParseCommands(dir, name string, ctx *Context) (*Commands, []Finding, error) {
	r := &commandsReader{Commands: &Commands{Name: name}}
	if !IsCommands(name) {
		r.say("commands-name", "a file of commands is named like alice-1763731234.commands; make it with dcut")
		return r.Commands, r.findings, nil
	}
	data, err := slurp(dir, name)
	var fileErr *FileError
	if errors.As(err, &fileErr) {
		return r.Commands, []Finding{{"signature", Error, fileErr.Text}}, nil
	}
	if err != nil {
		return r.Commands, nil, err
	}
	if text, ok := r.verify(data, ctx); ok {
		r.Hash = openpgp.CanonicalHash(text)
		if ctx.Seen != nil {
			if fate, ok := ctx.Seen(r.Hash); ok {
				r.say("replay", "these commands were here before (", fate, "); make them again with dcut")
			}
		}
		r.list(text)
	}
	return r.Commands, r.findings, nil
}

// commandsReader reads a .commands file and gathers what is wrong with it.
type commandsReader struct {
	*Commands
	findings []Finding
}

func (r *commandsReader) say(check string, text ...string) {
	r.findings = append(r.findings, Finding{check, Error, ascii(show(r.Name) + ": " + strings.Join(text, ""))})
}

// verify finds out whose the commands are. It returns their text, without a
// signature, unless they are nobody's.
func (r *commandsReader) verify(data []byte, ctx *Context) ([]byte, bool) {
	if account := ctx.byAccount(); !openpgp.IsSigned(data) && account != nil && account.Unsigned {
		r.Uploader = account
		return data, true
	}
	keyring := ctx.Keyring
	if keyring == nil {
		keyring = &openpgp.Keyring{}
	}
	text, signature, err := keyring.VerifyClear(data, ctx.Now)
	r.Signature = signature
	if err != nil {
		r.say("signature", err.Error())
		return nil, false
	}
	if r.Uploader = ctx.byKey(signature.Fingerprint); r.Uploader == nil {
		r.say("rights", "the key ", signature.Fingerprint,
			" is known, but belongs to no uploader; ask for it to be registered")
		return nil, false
	}
	if ctx.Now.Sub(signature.Created) > maxCommandAge {
		r.say("signature-age", "it was signed at ", when(signature.Created),
			", more than a day ago; make it again with dcut")
	}
	return text, true
}

// list reads the commands themselves.
func (r *commandsReader) list(text []byte) {
	if strings.HasSuffix(r.Name, ".dak-commands") {
		r.say("commands", "commands for dak are not carried out here; who may upload what is written in control/uploaders: "+
			"ask whoever runs the archive")
		return
	}
	st, err := deb822.ParseOne(show(r.Name), text, deb822.Hostile)
	if err != nil {
		r.findings = append(r.findings, Finding{"fields", Error, ascii(err.Error()) + "; make it again with dcut"})
		return
	}
	r.Archive = st.Get("Archive")
	if st.Get("Commands") == "" {
		r.say("fields", "it has no field Commands; make it with dcut")
		return
	}
	for line := range strings.SplitSeq(st.Get("Commands"), "\n") {
		words := deb822.Words(line)
		if len(words) == 0 {
			continue
		}
		list, why := parseCommand(words)
		if why != "" {
			r.say("commands", "the command ", quote(strings.Join(words, " ")), " ", why)
			continue
		}
		if r.List = append(r.List, list...); len(r.List) > maxCommands {
			r.say("commands", "it has more than ", strconv.Itoa(maxCommands), " commands; split it")
			break
		}
	}
	if len(r.List) == 0 && len(r.findings) == 0 {
		r.say("commands", "it has no commands; give some to dcut")
	}
}

const maxCommandAge = 24 * time.Hour

// parseCommand reads one line. why ends the sentence that begins "the command ...".
func parseCommand(words []string) (list []Command, why string) {
	verb, args := Verb(words[0]), words[1:]
	switch verb {
	case Remove:
		search := false
		for len(args) > 0 && strings.HasPrefix(args[0], "-") {
			if args[0] != "--searchdirs" {
				return nil, "has an option that is not known; --searchdirs is the only one"
			}
			search, args = true, args[1:]
		}
		for _, a := range args {
			cmd := Command{Verb: verb, Pattern: a, Delayed: -1, Search: search}
			if m := delayed().FindStringSubmatch(a); m != nil {
				cmd.Delayed, _ = strconv.Atoi(m[1]) // two digits
				cmd.Pattern = m[2]
			}
			if _, err := path.Match(cmd.Pattern, "x"); err != nil || !commandPattern().MatchString(cmd.Pattern) ||
				cmd.Delayed > 15 {
				return nil, "names a file that none here can be named; write the file's name alone, maybe with * and ?"
			}
			list = append(list, cmd)
		}
		if len(list) == 0 {
			return nil, "names no file; write rm and the file's name"
		}
	case Cancel:
		for _, a := range args {
			if !commandFile().MatchString(a) || !strings.HasSuffix(a, ".changes") {
				return nil, "does not name a .changes file; write cancel and the name of the upload's .changes"
			}
			list = append(list, Command{Verb: verb, Pattern: a, Delayed: -1})
		}
		if len(list) == 0 {
			return nil, "names no file; write cancel and the name of the upload's .changes"
		}
	case Reschedule:
		const form = "is not of the form: reschedule hello_2.10-3_source.changes 3-day"
		if len(args) != 2 || !commandFile().MatchString(args[0]) || !strings.HasSuffix(args[0], ".changes") {
			return nil, form
		}
		m := inDays().FindStringSubmatch(args[1])
		if m == nil {
			return nil, form
		}
		days, err := strconv.Atoi(m[1])
		if err != nil || days > 15 {
			return nil, "waits too long; 15 days are the most"
		}
		list = []Command{{Verb: verb, Pattern: args[0], Delayed: -1, Days: days}}
	default:
		return nil, "is not known; rm, cancel and reschedule are"
	}
	return list, ""
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
)

type reviewCmd struct {
	Ls     reviewLs     `cmd:"" default:"1" help:"List what waits for a reviewer."`
	Show   reviewShow   `cmd:"" help:"Show one upload: what is new in it, and what is known of it."`
	Accept reviewAccept `cmd:"" help:"Let uploads through to the build queues."`
	Reject reviewReject `cmd:"" help:"Refuse uploads."`
	Hold   reviewHold   `cmd:"" help:"Mark uploads as on hold; they go on waiting."`
	Ask    reviewAsk    `cmd:"" help:"Ask the uploader something, by mail."`
}

func (reviewCmd) Help() string {
	return `An upload lies in spool/review/SUITE until somebody decides. To accept is also: mv it to spool/accepted/SUITE.

Examples:
  packmill review                                what waits
  packmill review show hello                     what is new in hello
  packmill review accept hello world
  packmill review reject hello -m "debian/copyright does not name the licence of src/md5.c"`
}

// opinionsFile in an item has a line for each word of a reviewer that did not
// move it: time, person, verb and text, with tabs between. The rule of two
// persons is decided by it.
const opinionsFile = "opinions"

// opinion is one line of it.
type opinion struct {
	Time time.Time `json:"time"`
	Who  string    `json:"who"`
	Verb string    `json:"verb"` // accept, hold, release or ask
	Text string    `json:"text,omitempty"`
}

func readOpinions(dir string) []opinion {
	f, err := os.OpenFile(filepath.Join(dir, opinionsFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(f); err != nil {
		return nil
	}
	var out []opinion
	for line := range strings.Lines(data.String()) {
		w := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		if len(w) != 4 {
			continue
		}
		at, err := time.Parse(time.RFC3339, w[0])
		if err == nil {
			out = append(out, opinion{at, w[1], w[2], w[3]})
		}
	}
	return out
}

// say writes an opinion, and a line into the history.
func say(it *spool.Item, verb, text string) error {
	line := fmt.Sprintf("%s\t%s\t%s\t%s\n", time.Now().UTC().Format(time.RFC3339), spool.OneLine(who()), verb, spool.OneLine(text))
	if err := durable.Append(it.Path(opinionsFile), []byte(line), 0o664); err != nil {
		return err
	}
	if err := it.Note(who(), verb+": "+text); err != nil {
		return err
	}
	return durable.SyncTree(it.Path())
}

// held gives the hold that is in force, if there is one.
func held(opinions []opinion) (opinion, bool) {
	for _, o := range slices.Backward(opinions) {
		switch o.Verb {
		case "hold":
			return o, true
		case "release":
			return opinion{}, false
		}
	}
	return opinion{}, false
}

// waiting is an upload as the desk shows it.
type waiting struct {
	row
	Uploader string   `json:"uploader,omitempty"`
	New      bool     `json:"new"`               // the suite has no version of it
	Hold     string   `json:"hold,omitempty"`    // who put it on hold
	Accepts  []string `json:"accepts,omitempty"` // who accepted it, where two must
	Waits    []string `json:"waits,omitempty"`   // sources whose builds wait for its binaries
	Remarks  []string `json:"remarks,omitempty"` // what the checks remarked
	Maintain string   `json:"maintainer,omitempty"`
}

// desk is what several commands look at.
type desk struct {
	tree    *spool.Tree
	set     *control.Settings
	archive *archive.Archive
	waits   map[string][]string // binary package -> sources that wait for it
}

func (c *cli) desk() (*desk, error) {
	t, err := c.open()
	if err != nil {
		return nil, err
	}
	d := &desk{tree: t}
	if d.set, err = control.Load(t.Path("control")); err != nil {
		return nil, daemon.Wrong{Err: err}
	}
	if d.archive, err = archive.Open(t.Path("archive")); err != nil {
		return nil, err
	}
	return d, d.findWaits()
}

// findWaits reads which builds wait for which packages.
func (d *desk) findWaits() error {
	d.waits = map[string][]string{}
	found, err := d.tree.Find("", spool.DepWait, spool.BDUninstallable)
	if err != nil {
		return err
	}
	for _, f := range found {
		st, err := spool.ReadTicket(d.tree.Path(f.Dir()))
		if err != nil {
			continue
		}
		rel, err := policy.ParseRelations(st.Get("Dep-Wait"))
		if err != nil {
			continue
		}
		for _, or := range rel {
			for _, r := range or {
				if !slices.Contains(d.waits[r.Name], f.Name.Source) {
					d.waits[r.Name] = append(d.waits[r.Name], f.Name.Source)
				}
			}
		}
	}
	return nil
}

// published is the highest version of a source that a suite has, "" if none.
func (d *desk) published(suite, source string) (version, component string, err error) {
	versions, err := d.archive.Versions(context.Background(), source)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return "", "", err
	}
	for _, v := range versions {
		if v.Suite == suite && (version == "" || policy.CompareVersions(v.Version, version) > 0) {
			version, component = v.Version, v.Component
		}
	}
	return version, component, nil
}

func (d *desk) look(f spool.Found) (waiting, *queue.Ticket, error) {
	dir := d.tree.Path(f.Dir())
	w := waiting{row: rowOf(d.tree, f)}
	opinions := readOpinions(dir)
	if o, ok := held(opinions); ok {
		w.Hold = o.Who
	}
	for _, o := range opinions {
		if o.Verb == "accept" && !slices.Contains(w.Accepts, o.Who) {
			w.Accepts = append(w.Accepts, o.Who)
		}
	}
	old, _, err := d.published(f.Place.Suite, f.Name.Source)
	if err != nil {
		return w, nil, err
	}
	w.New = old == ""
	st, err := spool.ReadTicket(dir)
	if err != nil {
		return w, nil, err
	}
	tk, err := queue.ReadTicket(st)
	if err != nil {
		return w, nil, err
	}
	w.Uploader, w.Maintain = tk.Uploader, tk.Maintainer
	if tk.Remarks != "" {
		w.Remarks = strings.Split(tk.Remarks, "\n")
	}
	for _, b := range tk.Binary {
		for _, s := range d.waits[b] {
			if s != f.Name.Source && !slices.Contains(w.Waits, s) {
				w.Waits = append(w.Waits, s)
			}
		}
	}
	return w, tk, nil
}

type reviewLs struct{}

func (reviewLs) Run(c *cli) error {
	d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := d.tree.Find("", spool.Review)
	if err != nil {
		return err
	}
	w := table()
	if !c.JSON && len(found) > 0 {
		fmt.Fprintln(w, "AGE\tSOURCE\tVERSION\tSUITE\tWHO\tKIND\tWAITS FOR IT\tREMARKS")
	}
	for _, f := range found {
		x, _, err := d.look(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // decided meanwhile
		}
		if err != nil {
			return err
		}
		kind := "update"
		if x.New {
			kind = "new"
		}
		if x.Hold != "" {
			kind += ", on hold by " + x.Hold
		}
		if len(x.Accepts) > 0 {
			kind += ", accepted by " + strings.Join(x.Accepts, ", ")
		}
		n := ""
		if len(x.Remarks) > 0 {
			n = fmt.Sprint(len(x.Remarks))
		}
		c.print(w, x, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", age(f.Name.Time), x.Source, x.Version, x.Suite,
			spool.OneLine(x.Uploader), spool.OneLine(kind), strings.Join(x.Waits, " "), n))
	}
	if len(found) == 0 && !c.JSON {
		fmt.Fprintln(w, "nothing waits for review")
	}
	return w.Flush()
}

type reviewShow struct {
	Item      string `arg:"" help:"The upload."`
	NoDiff    bool   `help:"Leave the differences of the files out."`
	NoLintian bool   `help:"Do not run lintian."`
}

func (s *reviewShow) Run(c *cli) error {
	d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := d.tree.Find(s.Item, spool.Review)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return c.absent(d.tree, s.Item, "review")
	}
	for _, f := range found {
		r, err := d.report(f, !s.NoLintian)
		if err != nil {
			return err
		}
		if s.NoDiff {
			r.Diff = ""
		}
		if c.JSON {
			c.print(os.Stdout, r, "")
			continue
		}
		r.print(os.Stdout)
	}
	return nil
}

// remark is how a reviewer says why.
type remark struct {
	Message string `short:"m" help:"The remark; without it an editor opens (VISUAL, EDITOR)." placeholder:"TEXT"`
}

// text gives the remark for uploads on which verb is done: of -m, or from the
// editor, whose lines with # in front are left out.
func (r *remark) text(c *cli, verb string, items []string) (string, error) {
	if r.Message != "" || c.DryRun {
		return r.Message, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", daemon.Wrong{Err: fmt.Errorf("%s: say why with -m TEXT; there is no terminal for an editor", verb)}
	}
	d, err := c.desk()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Why? This goes to the uploader. Lines with # in front are left out; an empty text changes nothing.\n#\n")
	for _, i := range items {
		found, err := d.tree.Find(i, spool.Review)
		if err != nil {
			return "", err
		}
		for _, f := range found {
			x, _, err := d.look(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "# %s %s %s (%s), uploaded by %s\n", verb, x.Source, x.Version, x.Suite, clean(x.Uploader))
			for _, line := range x.Remarks {
				fmt.Fprintf(&b, "#   %s\n", clean(line))
			}
		}
	}
	tmp, err := os.CreateTemp("", "packmill-*.txt")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(b.String())
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "sensible-editor"
	}
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
	if strings.TrimSpace(out.String()) == "" {
		return "", fmt.Errorf("%w: the remark is empty", errRefused)
	}
	return strings.TrimSpace(out.String()), nil
}

type reviewAccept struct {
	Items   []string `arg:"" name:"item" help:"Uploads."`
	Message string   `short:"m" help:"A remark for the history and the uploader." default:"accepted"`
}

func (a *reviewAccept) Run(c *cli) error {
	d, err := c.desk()
	if err != nil {
		return err
	}
	return c.act(a.Items, only(spool.Review), "accept", func(t *spool.Tree, it *spool.Item) error {
		if d.set.General.TwoPersons && !seconded(readOpinions(it.Path())) {
			if err := say(it, "accept", a.Message); err != nil {
				return err
			}
			if !c.JSON {
				fmt.Printf("%s: noted; a second person must accept it too (Two-Persons in control/general)\n", it.Name)
			}
			return nil
		}
		return it.Move(spool.Person, who(), spool.Verdict{To: spool.In(spool.Accepted, it.Place.Suite), Reason: a.Message})
	})
}

// seconded reports whether somebody else has accepted the upload.
func seconded(opinions []opinion) bool {
	return slices.ContainsFunc(opinions, func(o opinion) bool { return o.Verb == "accept" && o.Who != spool.OneLine(who()) })
}

type reviewReject struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
	remark
}

func (r *reviewReject) Run(c *cli) error {
	text, err := r.text(c, "reject", r.Items)
	if err != nil {
		return err
	}
	return c.act(r.Items, only(spool.Review), "reject", func(t *spool.Tree, it *spool.Item) error {
		full := fmt.Sprintf("%s %s was refused by %s:\n\n%s\n", it.Name.Source, it.Name.Version, who(), text)
		if st, err := it.Ticket(); err == nil && st.Get("Remarks") != "" {
			full += "\nThe checks had remarked:\n" + st.Get("Remarks") + "\n"
		}
		return it.Move(spool.Person, who(), spool.Verdict{To: spool.In(spool.Rejected), Reason: text, Text: full})
	})
}

type reviewHold struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
	Off   bool     `help:"Take the hold off."`
	remark
}

func (h *reviewHold) Run(c *cli) error {
	verb, text := "release", h.Message
	if !h.Off {
		var err error
		verb = "hold"
		if text, err = h.text(c, verb, h.Items); err != nil {
			return err
		}
	}
	return c.act(h.Items, only(spool.Review), "hold", func(t *spool.Tree, it *spool.Item) error {
		if err := say(it, verb, text); err != nil {
			return err
		}
		if h.Off {
			return durable.Remove(it.Path(spool.ReasonFile))
		}
		return it.WriteFile(spool.ReasonFile, []byte("On hold by "+who()+":\n"+text+"\n"))
	})
}

type reviewAsk struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
	remark
}

func (a *reviewAsk) Run(c *cli) error {
	text, err := a.text(c, "ask", a.Items)
	if err != nil {
		return err
	}
	d, err := c.desk()
	if err != nil {
		return err
	}
	return c.act(a.Items, only(spool.Review), "ask", func(t *spool.Tree, it *spool.Item) error {
		st, err := it.Ticket()
		if err != nil {
			return err
		}
		m := &mail.Message{
			Event: "asked", Item: it.Name.String(), Key: time.Now().UTC().Format(time.RFC3339Nano), Date: time.Now(),
			Subject: fmt.Sprintf("%s %s for %s: a question", it.Name.Source, it.Name.Version, it.Place.Suite),
			Body:    fmt.Sprintf("%s asks about %s %s, which waits for review:\n\n%s\n", who(), it.Name.Source, it.Name.Version, text),
			People:  map[string]string{mail.Signer: st.Get("Email"), mail.Maintainer: st.Get("Maintainer")},
		}
		sent, err := mail.Send(context.Background(), d.askers(), m)
		if err != nil {
			return err
		}
		if sent == 0 {
			return fmt.Errorf("nobody to ask: its uploader has no Email in control/uploaders")
		}
		return say(it, "ask", text)
	})
}

// askers are the notices of questions: what control/notify says of asked, or
// the signer.
func (d *desk) askers() []control.Notice {
	signer := control.Notice{Event: "asked", To: []string{mail.Signer}, Via: "/usr/sbin/sendmail"}
	for _, n := range d.set.Notify {
		if n.Event == "asked" {
			return d.set.Notify
		}
		signer.Via, signer.From = n.Via, n.From
	}
	return append(slices.Clone(d.set.Notify), signer)
}

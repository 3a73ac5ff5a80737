package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/mirror"
	"packmill/archive/push"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/hand"
	"packmill/cmd/internal/keys"
	"packmill/cmd/internal/terminal"
	"packmill/internal/openpgp"
)

type archiveImport struct {
	Suite         string   `arg:"" help:"The suite of control/suites that gets the packages."`
	From          string   `arg:"" help:"Where the other repository lies: http://, https:// or a directory; what its dists lies in."`
	Dist          string   `arg:"" help:"Its suite: the directory below dists; ./ or DIR/ of a flat repository."`
	Components    []string `help:"Only these of its components." placeholder:"NAME"`
	Architectures []string `help:"Only these of its architectures." placeholder:"ARCH"`
	Packages      []string `help:"Only sources of this name, or with a package of this name; * and ? stand for others." placeholder:"NAME"`
	Keyring       []string `help:"Public keys, one of which must have signed it." type:"existingfile" placeholder:"FILE"`
	Unsigned      bool     `help:"Take it without a signature."`
	Expired       bool     `help:"Take it though its Valid-Until has passed."`
	Sourceless    bool     `help:"Take binaries whose source it does not have."`
	Link          bool     `help:"Make hard links to its files where that is possible: nobody may ever write to them."`
}

func (archiveImport) Help() string {
	return `The packages come with their sources, each checked as an upload is. One that was cut off goes on where it was when it is run again.

Examples:
  packmill archive import unstable http://old.example.org/debian sid --keyring old.asc
  packmill archive import unstable old sid --keyring old.asc --components main --dry-run
  packmill archive import unstable debs ./ --unsigned --sourceless       what dpkg-scanpackages listed`
}

func (x *archiveImport) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	repo, err := h.Repository(mirror.Source{URL: x.From, Suite: x.Dist, Components: x.Components,
		Architectures: x.Architectures, Unsigned: x.Unsigned, Expired: x.Expired, Link: x.Link}, x.Keyring)
	if err != nil {
		return err
	}
	progress := terminal.Begin("importing")
	h.Progress = progress.Count // of the feeds that come then
	rep, err := h.Import(h.Ctx, suite, repo, archive.ImportOptions{Sourceless: x.Sourceless, Packages: x.Packages,
		DryRun: c.DryRun, Progress: func(p archive.ImportProgress) { progress.Bytes(p.Bytes, p.AllBytes) }}, time.Now())
	progress.End()
	if err != nil {
		return err
	}
	warn(rep.Warnings)
	for _, odd := range rep.Odd {
		fmt.Fprintf(os.Stderr, "packmill: left out: %v\n", odd)
	}
	if c.DryRun {
		x.would(c, rep)
		return nil
	}
	var bad []archive.Result
	for _, r := range rep.Results {
		if r.Outcome == archive.Refused {
			bad = append(bad, r)
		}
	}
	c.print(os.Stdout, map[string]int{"imported": len(rep.Results) - len(bad), "refused": len(bad), "there": rep.There},
		fmt.Sprintf("%d imported, %d refused, %d there already", len(rep.Results)-len(bad), len(bad), rep.There))
	err = c.results(bad)
	if err == nil && len(rep.Odd) > 0 {
		err = daemon.ErrRefused
	}
	if slices.ContainsFunc(bad, func(r archive.Result) bool { return r.NoSource }) {
		err = daemon.Refuse("what has no source package there can be taken with --sourceless")
	}
	return err
}

// would says what would be imported.
func (x *archiveImport) would(c *cli, rep *archive.ImportReport) {
	for _, u := range rep.Uploads {
		text := fmt.Sprintf("would import %s %s (%d files", u.Source, u.Version, len(u.Files))
		if u.Component != "" {
			text += ", " + u.Component
		}
		c.print(os.Stdout, map[string]any{"source": u.Source, "version": u.Version, "component": u.Component,
			"bytes": u.Size()}, text+")")
	}
	c.print(os.Stdout, map[string]int{"would-import": len(rep.Uploads), "there": rep.There},
		fmt.Sprintf("%d would be imported, %d there already", len(rep.Uploads), rep.There))
}

type archiveExport struct {
	View string `arg:"" help:"A suite or snapshot."`
	Dir  string `arg:"" help:"Where to." type:"path"`
	Link bool   `help:"Make hard links where that is possible."`
}

func (archiveExport) Help() string {
	return `The directory gets the packages that the suite names, and no others, and the suite's public keys; it can be served, or carried away. opkg's feeds go only with push, which takes a directory, too.

Example:
  packmill archive export unstable stick`
}

func (x *archiveExport) Run(c *cli, h *hand.Hand) error {
	progress := terminal.Begin("exporting")
	t, err := h.Export(h.Ctx, x.View, x.Dir, archive.ExportOptions{Link: x.Link, Dry: c.DryRun, Progress: progress.Count})
	progress.End()
	if err != nil {
		return hand.Missing(err)
	}
	c.transferred(t, x.Dir)
	return nil
}

func (c *cli) transferred(t *archive.Transfer, to string) {
	would := ""
	if c.DryRun {
		would = "would be "
	}
	c.print(os.Stdout, map[string]any{"sent": t.Files, "there": t.There, "bytes": t.Bytes, "done": !c.DryRun},
		fmt.Sprintf("%d files (%d bytes) %swritten to %s, %d are there already", t.Files, t.Bytes, would, to, t.There))
}

type archivePush struct {
	View    string        `arg:"" help:"A suite or snapshot, or 'all': the whole archive."`
	Target  string        `arg:"" help:"What rsync understands (host:/srv/archive/), or s3://BUCKET/PREFIX."`
	Option  []string      `help:"An option for rsync, such as --option=--bwlimit=1000." placeholder:"OPTION"`
	S3URL   string        `name:"s3-url" help:"The address of the S3-compatible store." env:"AWS_ENDPOINT_URL_S3,AWS_ENDPOINT_URL" placeholder:"URL"`
	Region  string        `help:"Its region." env:"AWS_REGION,AWS_DEFAULT_REGION" default:"us-east-1"`
	TakeIt  bool          `name:"take-over" help:"Go on where another machine's push to the S3 target has begun and not ended."`
	Virtual bool          `name:"virtual-host" help:"Put the bucket's name in the host's, as Amazon wants it."`
	Stay    time.Duration `help:"How long a file stays at the target after it has left the archive." default:"72h"`
}

func (archivePush) Help() string {
	return `Packages go first, indexes then, InRelease last, so that the target can be used all the time. opkg feeds go along, and the public keys of the suites (keys/SUITE.asc, keys/SUITE.pub). Nothing is listed there: a manifest says what there is. With 'all', what has left the archive leaves the target too, after its stay; otherwise nothing is removed. For S3 the keys are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN).

Examples:
  packmill archive push unstable mirror
  packmill archive push all mirror.example.org:/srv/archive/
  packmill archive push all s3://packages/debian --s3-url https://s3.example.org`
}

func (x *archivePush) Run(c *cli, h *hand.Hand) error {
	to, err := hand.Destination(x.Target, x.Option, push.S3{Endpoint: x.S3URL, Region: x.Region, Virtual: x.Virtual})
	if err != nil {
		return err
	}
	view := x.View
	if view == "all" {
		view = ""
	}
	progress := terminal.Begin("pushing")
	rep, err := h.Push(h.Ctx, view, to, push.Options{DryRun: c.DryRun, TakeOver: x.TakeIt, Stay: x.Stay,
		Progress: func(p push.Progress) { progress.Bytes(p.Bytes, p.AllBytes) }}, time.Now())
	progress.End()
	if errors.Is(err, push.ErrFence) || errors.Is(err, archive.ErrPushing) {
		return fmt.Errorf("%w: %w", daemon.ErrRefused, err)
	}
	if err != nil {
		return hand.Missing(err)
	}
	c.transferred(&archive.Transfer{Files: len(rep.Sent), There: rep.There, Bytes: rep.Bytes}, x.Target)
	if len(rep.Removed) > 0 {
		would := ""
		if c.DryRun {
			would = "would be "
		}
		c.print(os.Stdout, map[string]any{"removed": rep.Removed, "done": !c.DryRun},
			fmt.Sprintf("%d files %sremoved from %s", len(rep.Removed), would, x.Target))
	}
	return nil
}

type archiveServe struct {
	Listen string `help:"The address." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
}

func (archiveServe) Help() string {
	return `Example:
  packmill archive serve --listen 127.0.0.1:8080`
}

func (x *archiveServe) Run(c *cli, h *hand.Hand) error {
	l, err := net.Listen("tcp", x.Listen)
	if err != nil {
		return err
	}
	c.print(os.Stdout, map[string]string{"url": "http://" + l.Addr().String() + "/"},
		fmt.Sprintf("serving %s at http://%s/ until interrupted", h.Root(), l.Addr()))
	return h.Serve(h.Ctx, l)
}

type archiveSources struct {
	Suite string `arg:"" help:"A suite of control/suites."`
	URL   string `arg:"" help:"Where clients find the archive." placeholder:"URL"`
}

func (archiveSources) Help() string {
	return `Example:
  packmill archive sources unstable http://archive.example.org/debian`
}

func (x *archiveSources) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	text, err := h.Sources(suite, x.URL)
	if err != nil {
		return hand.Missing(err)
	}
	c.print(os.Stdout, map[string]string{"suite": suite.Name, "sources": text}, strings.TrimSuffix(text, "\n"))
	return nil
}

type archiveOpkgConf struct {
	Suite  string `arg:"" help:"A suite of control/suites."`
	Arch   string `arg:"" help:"An architecture of it, by Debian's name."`
	URL    string `arg:"" help:"Where clients find the archive." placeholder:"URL"`
	Client string `enum:"yocto,openwrt,old," default:"" help:"Only for these: yocto (opkg 0.3 and later), openwrt, old (0.1 and 0.2)." placeholder:"FAMILY"`
}

func (archiveOpkgConf) Help() string {
	return `The addresses of the feeds, the architectures that the client is to see, and how it checks signatures: where which key goes, and under which name. All packages that a client shall install must be in its feeds: what Debian has, such as libc6, comes into a suite by packmill archive import.

Examples:
  packmill archive opkg-conf unstable amd64 http://archive.example.org
  packmill archive opkg-conf unstable amd64 http://archive.example.org --client yocto >unstable.conf`
}

func (x *archiveOpkgConf) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	clients, err := h.OpkgClients(suite, x.Arch, x.URL)
	if errors.Is(err, archive.ErrNoFeed) {
		return daemon.Wrong{Err: err}
	}
	if err != nil {
		return hand.Missing(err)
	}
	for _, f := range clients {
		if x.Client != "" && x.Client != f.Family {
			continue
		}
		text := strings.TrimSuffix(f.Text, "\n")
		if x.Client == "" {
			text = "### " + f.Family + ": " + f.File + "\n" + text + "\n"
		}
		c.print(os.Stdout, map[string]string{"client": f.Family, "file": f.File, "text": f.Text}, text)
	}
	return nil
}

type archiveKey struct {
	Export keyExport `cmd:"" help:"Print the public keys that sign a suite."`
	Rotate keyRotate `cmd:"" help:"Make a further key that signs a suite, or retire the oldest."`
}

type keyExport struct {
	Suite string `arg:"" help:"A suite of control/suites."`
}

func (keyExport) Help() string {
	return `Example:
  packmill archive key export unstable`
}

func (x *keyExport) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	for _, n := range suite.SignWith {
		k, err := openpgp.OpenSigner(n)
		if err != nil {
			return err
		}
		c.print(os.Stdout, map[string]string{"fingerprint": k.Fingerprint(), "file": n, "public": string(k.Public())},
			strings.TrimRight(string(k.Public()), "\n"))
	}
	return nil
}

type keyRotate struct {
	Suite  string `arg:"" help:"A suite of control/suites."`
	Retire bool   `help:"Take the oldest key out, when all clients have the new one; or those that have expired."`
	Email  string `help:"The address in the new key." placeholder:"ADDRESS"`
	terminal.Sure
}

func (keyRotate) Help() string {
	return `Makes a new key and adds it to Sign-With of the suite in control/suites: from then on everything bears both signatures. Hand out the new key (packmill archive sources, or key export); when all clients have it, run this again with --retire, which asks on a terminal: clients that have only the old key take nothing from the suite after it. A key that has expired or is revoked can sign nothing, and goes at once either way. archived sees the change by itself; without it, run packmill archive include SUITE.

Examples:
  packmill archive key rotate unstable --email archive@example.org
  packmill archive key rotate unstable --retire`
}

func (x *keyRotate) Run(c *cli) error {
	if err := hand.Alone(c.Tree); err != nil {
		return err
	}
	s, err := c.control() // whose files are not the archive's
	if err != nil {
		return err
	}
	set, ok := s.Suite(x.Suite)
	if !ok {
		return noSuite(s, x.Suite)
	}
	r := keys.Rotate(s, set)
	if x.Retire {
		if r, err = keys.Retire(s, set); err != nil {
			return err
		}
	}
	text := "would do: " + r.String()
	if !c.DryRun {
		if x.Retire && !r.Dead {
			question := fmt.Sprintf("Retire %s? Clients that have only this key take nothing from %s any more.",
				r.Out[0], set.Name)
			if err := x.Ask(context.Background(), question); err != nil {
				return err
			}
		}
		if err := r.Do(x.Email); err != nil {
			return err
		}
		text = r.String()
	}
	c.print(os.Stdout, map[string]any{"suite": set.Name, "sign-with": r.Keys, "done": !c.DryRun}, text)
	return nil
}

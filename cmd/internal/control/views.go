package control

import (
	"fmt"
	"strings"

	"packmill/archive"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/spool/upload"
)

// A suite of the settings is the suite. What a package below wants of it is a view,
// made here and nowhere else.

// Archive is a suite as package archive wants it. The file of overrides is read
// each time.
func (s *Settings) Archive(x *Suite) (archive.Suite, error) {
	out := archive.Suite{
		Name: x.Name, Codename: x.Codename, Aliases: x.Aliases,
		Origin: x.Origin, Label: x.Label, Description: x.Description,
		Components: x.Components, Architectures: x.Architectures,
		ValidFor: x.ValidFor, NotAutomatic: x.NotAutomatic, ButAutomaticUpgrades: x.ButAutomatic,
		Compress: x.Compress, Pdiffs: x.Pdiffs, Contents: x.Contents, Translations: x.Translations,
		Dbgsym: x.Dbgsym, Stay: x.IndexStay,
	}
	for _, k := range x.SignWith {
		out.SignWith = append(out.SignWith, s.Path(k))
	}
	if x.Opkg {
		out.Opkg = &archive.Opkg{Sources: x.OpkgSource, Layout: strings.Trim(x.OpkgLayout, "/")}
		for _, k := range x.OpkgKeys {
			out.Opkg.Keys = append(out.Opkg.Keys, s.Path(k))
		}
		out.Opkg.Arch, out.Opkg.Extension = x.OpkgArchs, x.OpkgExtension
	}
	if x.Override != "" {
		var err error
		if out.Overrides, err = archive.ReadOverrides(s.Path(x.Override)); err != nil {
			return out, fmt.Errorf("suite %s: Override: %w", x.Name, err)
		}
	}
	return out, nil
}

var binaries = map[string]upload.Binaries{
	"allow": upload.BinariesAllowed, "drop": upload.BinariesDropped, "refuse": upload.BinariesRefused,
}

// Upload is a suite as package upload wants it.
func (s *Suite) Upload() (*upload.Suite, error) {
	out := &upload.Suite{
		Name: s.Name, Aliases: append([]string{s.Codename}, s.Aliases...),
		Components: s.Components, Architectures: s.Architectures,
		Formats: s.Formats, Binaries: binaries[s.Binaries], Below: s.Below, Checks: map[string]upload.Level{},
		Limits: upload.Limits{Size: s.MaxUpload, FileSize: s.MaxUpload},
	}
	for check, word := range s.Checks {
		level, err := upload.ParseLevel(word)
		if err != nil {
			return nil, err
		}
		out.Checks[check] = level
	}
	return out, nil
}

// Upload is an uploader as package upload wants it.
func (u *Uploader) Upload() *upload.Uploader {
	return &upload.Uploader{
		Name: u.Name, Email: u.Email, Fingerprints: u.Fingerprints, Account: u.Account, Unsigned: u.Account != "",
		Allow: []upload.Right{{
			Suites: u.Allow.Suites, Components: u.Allow.Components, Packages: u.Allow.Packages,
			Source: u.Allow.Source, Binaries: stars(u.Allow.Binary), New: u.Allow.New,
		}},
	}
}

// stars writes "any" as the pattern that it is for the checks.
func stars(archs []string) []string {
	var out []string
	for _, a := range archs {
		if a == "any" {
			a = "*"
		}
		out = append(out, a)
	}
	return out
}

// Queue is a suite as package queue wants it, without what only master-buildd can
// tell: NotFor and Judge.
func (s *Suite) Queue() queue.Suite {
	return queue.Suite{Name: s.Name, Architectures: s.Architectures, SourceFirst: s.Publish == "source-first",
		Weights: s.Weights, Priority: s.PriorityOf}
}

// Lacking is a suite as package lacking wants it.
func (s *Suite) Lacking() lacking.Suite {
	return lacking.Suite{Name: s.Name, Architectures: s.Architectures, IndepOn: s.IndepOn,
		Profiles: func(source string) []string { return s.ProfilesOf(&queue.Ticket{Source: source}) }}
}

package control

import (
	"fmt"
	"strings"

	"packmill/archive"
	"packmill/queue"
	"packmill/queue/lacking"
)

// Archive is a suite as package archive wants it. The file of overrides is read
// each time.
func (s *Settings) Archive(x *Suite) (archive.Suite, error) {
	out := archive.Suite{
		Name: x.Name, Codename: x.Codename, Aliases: x.Aliases,
		Origin: x.Origin, Label: x.Label, Description: x.Description,
		Components: x.Components, Architectures: x.Architectures,
		ValidFor: x.ValidFor, NotAutomatic: x.NotAutomatic, ButAutomaticUpgrades: x.ButAutomatic,
		Compress: x.Compress, Contents: x.Contents, Translations: x.Translations,
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

// Lacking is a suite as package lacking wants it.
func (s *Suite) Lacking() lacking.Suite {
	return lacking.Suite{Name: s.Name, Architectures: s.Architectures, IndepOn: s.IndepOn,
		Profiles: func(source string) []string { return s.ProfilesOf(&queue.Ticket{Source: source}) }}
}

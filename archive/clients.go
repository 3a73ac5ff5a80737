package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"packmill/archive/opkg"
)

// An OpkgClient is what a client of a family needs to use a suite's feeds.
type OpkgClient struct {
	Family string // yocto, openwrt, old
	File   string // where the text goes
	Text   string // settings, and in comments what else is to be done
}

// ErrNoFeed says that a suite has no feed for opkg, or none of the architecture.
var ErrNoFeed = errors.New("no feed for opkg")

// OpkgClients says what opkg's clients need to use the suite at address on an
// architecture, by Debian's name.
func (a *Archive) OpkgClients(suite Suite, arch, address string) ([]OpkgClient, error) {
	if suite.Opkg == nil {
		return nil, fmt.Errorf("suite %s has %w; write Opkg: yes in control/suites", suite.Name, ErrNoFeed)
	}
	if !slices.Contains(suite.archs(), arch) {
		return nil, fmt.Errorf("suite %s has %w of %s, only of %s",
			suite.Name, ErrNoFeed, arch, strings.Join(suite.archs(), ", "))
	}
	keys, err := a.keys(&suite, time.Now())
	if err != nil {
		return nil, err
	}
	c := &clientText{suite: &suite, arch: arch, address: strings.TrimRight(address, "/"), keys: keys}
	if err := c.findFeeds(a); err != nil {
		return nil, err
	}
	return []OpkgClient{
		{"yocto", "/etc/opkg/" + suite.Name + ".conf", c.yocto()},
		{"openwrt", "/etc/opkg/customfeeds.conf", c.openwrt()},
		{"old", "/etc/opkg/" + suite.Name + ".conf", c.old()},
	}, nil
}

type clientText struct {
	suite   *Suite
	arch    string
	address string
	keys    signing
	feeds   [][2]string // name for the client, path below opkg
	b       strings.Builder
}

// findFeeds lists the feeds that the layout has for the architecture, or that of the
// whole suite.
func (c *clientText) findFeeds(a *Archive) error {
	o := c.suite.Opkg
	if o.Layout == "" {
		c.feeds = [][2]string{{c.suite.Name, c.suite.Name + "/" + o.Of(c.arch)}}
		if o.Sources {
			c.feeds = append(c.feeds, [2]string{c.suite.Name + "-src", c.suite.Name + "/" + opkg.Sources})
		}
		return nil
	}
	t := &transaction{a: a, suite: c.suite, now: time.Now()}
	p, err := a.read(context.Background(), c.suite.Name)
	if err != nil {
		return err
	}
	defer p.close()
	t.p = p
	archs := []string{c.arch, "all"}
	if o.Sources {
		archs = append(archs, "source")
	}
	for _, arch := range archs {
		parts, err := t.parts(p, arch, o.Of(arch))
		if err != nil {
			return err
		}
		for _, part := range parts {
			if at := o.at(c.suite.Name, o.Of(arch), &part); at != "" {
				c.feeds = append(c.feeds, [2]string{strings.ReplaceAll(at, "/", "_"), at})
			}
		}
	}
	return nil
}

func (c *clientText) say(format string, args ...any) { fmt.Fprintf(&c.b, format+"\n", args...) }

// lines writes what all clients need, and returns the text.
func (c *clientText) lines() string {
	for _, f := range c.feeds {
		c.say("src/gz %s %s/opkg/%s", f[0], c.address, f[1])
	}
	o := c.suite.Opkg
	seen := o.Seen(o.Of(c.arch))
	c.say("arch %s 1", seen[1])
	if seen[1] != "all" {
		c.say("arch all 1")
	}
	c.say("arch %s 10", seen[0])
	if o.Sources {
		c.say("arch source 5")
	}
	text := c.b.String()
	c.b.Reset()
	return text
}

// about begins a text.
func (c *clientText) about(family string) {
	c.say("# For %s. What is not in the suite %s must be in another feed: packages made for", family, c.suite.Name)
	c.say("# Debian depend on libc6 and the like (packmill archive import brings them into a suite).")
	c.say("# Once a file has an arch line only the architectures in such lines are seen.")
	if c.suite.ValidFor > 0 {
		c.say("# opkg knows no end of validity: the suite's Valid-For guards apt's clients only.")
	}
}

// yocto is for upstream's client: option names and their values are those of
// libopkg/opkg_conf.c.
func (c *clientText) yocto() string {
	c.about("opkg 0.3 and later (Yocto)")
	if len(c.keys.openpgp) == 0 {
		c.say("# The suite is not signed: everybody on the way can give you other packages.")
		return c.lines()
	}
	c.say("# Once, as root: fetch %s/keys/%s.asc, compare it, opkg-key add %s.asc", c.address, c.suite.Name, c.suite.Name)
	c.say("# (gpg --homedir /etc/opkg/gpg --import). The client must be built with gpgme.")
	c.next("OpenPGP", len(c.keys.openpgp))
	c.say("option check_signature 1")
	c.say("option signature_type gpg-asc")
	c.say("option gpg_trust_level TrustAny") // a key that is only imported is none that it trusts else
	return c.lines()
}

// openwrt is for opkg-lede, whose opkg-key looks for a key by its number.
func (c *clientText) openwrt() string {
	c.about("OpenWrt's opkg")
	if len(c.keys.usign) == 0 {
		c.say("# Without Opkg-Key in control/suites it has no signature that this client knows: option")
		c.say("# check_signature must not be set in /etc/opkg.conf.")
		return c.lines()
	}
	c.say("# Write %s/keys/%s.pub, these two lines, to /etc/opkg/keys/%s:",
		c.address, c.suite.Name, c.keys.usign[0].Fingerprint())
	for line := range strings.Lines(string(c.keys.usign[0].Public())) {
		c.say("#   %s", strings.TrimSuffix(line, "\n"))
	}
	c.next("usign", len(c.keys.usign))
	c.say("option check_signature 1")
	return c.lines()
}

// old is for 0.1 and 0.2, which know a binary OpenPGP signature as Packages.sig only.
func (c *clientText) old() string {
	c.about("opkg 0.1 and 0.2")
	c.say("# They cannot check our signatures: use https, or a network that you trust.")
	return c.lines()
}

func (c *clientText) next(kind string, keys int) {
	if keys > 1 {
		c.say("# A client that has only the newer of the suite's two %s keys writes /next behind the", kind)
		c.say("# addresses, until the older one is gone.")
	}
}

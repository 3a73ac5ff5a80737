// Package control reads the tree's control directory: deb822 files, one
// stanza a thing. A wrong file is refused with file, line and cure, and the
// last good settings stay in force.
//
// The files are read with the project's own deb822 reader and not with
// pault.ag/go/debian/control: that one takes the last of two equal fields and
// knows no line numbers, so it could not name the line to mend.
package control

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/queue"
)

// Settings is everything in control, read at one moment. It is never changed
// after it was read.
type Settings struct {
	Dir       string // the control directory
	Suites    []Suite
	Uploaders []Uploader
	Builders  []Builder
	Notify    []Notice
	General   General
	Stanzas   []Stanza // all of these, field by field
}

// Suite is one stanza of control/suites.
type Suite struct {
	Name          string
	Codename      string   // default: Name
	Aliases       []string // further names in Distribution and in dists
	Origin        string
	Label         string
	Description   string
	Architectures []string      // without all and source
	Components    []string      // default: main
	Base          []string      // apt lines for builds, one an entry
	Review        string        // always, new or never
	LogReview     string        // manual or auto
	Publish       string        // together or source-first
	Tries         int           // attempts that end without a verdict before a person is asked
	Weights       queue.Weights // nil: first in, first out
	Priority      []Words       // Build-Priority: points of some packages, for all their versions
	Profiles      []string      // build profiles
	Options       []string      // DEB_BUILD_OPTIONS
	PkgProfiles   []Words       // of some packages, in their stead
	PkgOptions    []Words
	IndepOn       string   // the architecture whose builders build all
	SignWith      []string // secret key files, absolute or below control, or gpg:FINGERPRINT
	ValidFor      time.Duration
	NotAutomatic  bool
	ButAutomatic  bool
	Compress      []string // gz, xz, zst, plain
	Pdiffs        bool
	Contents      bool
	Translations  bool
	Dbgsym        string        // component of automatic debug packages; "" leaves them in their own
	Override      string        // file of sections and priorities; "": none
	IndexStay     time.Duration // how long superseded indexes stay under their checksums
	Opkg          bool
	OpkgArchs     map[string]string // Debian's name -> opkg's
	OpkgSource    bool
	OpkgExtension string            // opk or ipk
	OpkgLayout    string            // where feeds lie, too: a path with SUITE, ARCH, COMPONENT, SECTION
	OpkgKeys      []string          // usign secret keys, files
	Formats       []string          // source formats that are taken
	Binaries      string            // allow, drop or refuse: binaries in uploads
	Checks        map[string]string // check's name -> error, warning or off
	Below         []string          // suites whose versions must not be higher
	BuildNetwork  bool
	Limits        []Limit       // of builds
	Incomplete    time.Duration // an upload that is not complete by then is refused
	MaxUpload     int64         // bytes of one upload
	KeepRejected  time.Duration
	Hidden        bool           // from who looks: statusd says nothing of it
	Stanza        *deb822.Stanza `json:"-"`
}

// Uploader is one stanza of control/uploaders: who may upload what.
type Uploader struct {
	Name         string
	Fingerprints []string // primary keys, upper-case hexadecimal
	Account      string   // the ssh account whose directory needs no signature
	Email        string
	Quota        int64 // bytes that are kept for the account; 0: General's
	Allow        Allow
}

// Allow is the right of an uploader. Empty lists allow everything.
type Allow struct {
	Suites     []string
	Components []string
	Packages   []string // patterns of source package names, as path.Match has them
	New        bool     // packages that the suite does not have yet
	Source     bool
	Binary     []string // architectures whose binaries may be uploaded
	Sign       []string // architectures whose build logs this person judges, and whose results they sign
}

// Builder is one stanza of control/builders.
type Builder struct {
	Name          string
	Architectures []string // all is one of them where it builds all
	Suites        []string // empty: every suite
	Components    []string
	Packages      Patterns // empty: every package
	NotPackages   Patterns
	Last          Patterns      // taken only when nothing else waits
	MinAge        time.Duration // since a job's package was accepted
	Quiet         []Hours       // when nothing is begun
	Nice          int
	Runner        string // sbuild, overlay, exec, slurm, or remote: on its own host, which calls
	Within        string // slurm: what builds on the nodes, as Runner
	Exec          string // exec's program
	CrossFrom     string // the architecture to build on for another; "": each on itself
	Mode          string // sbuild's chroot mode: unshare or schroot
	Fingerprint   string // of the key that signs its results
	Key           string // that key's secret part, a file, where the builder runs
	User          string // the account that builds, if the daemon is root
	Jobs          int
	Chroots       string        // directory of the chroots; default: the build user's
	ChrootAge     time.Duration // older ones are made anew before a build; 0: never
	Timeout       time.Duration
	Silence       time.Duration
	MaxLog        int64
	Memory        int64
	Tasks         int
	Disk          int64
	Limits        []Limit       // for some packages
	Layers        int64         // bytes of build-dependencies that the overlay runner keeps; 0: its own bound
	Ccache        int64         // bytes of compiler caches that the overlay runner keeps; 0: none
	Stop          string        // wait or give-back
	Lease         time.Duration // how long a remote builder that is away keeps its jobs
	Shared        string        // slurm: the directory that the nodes see
	Program       string        // slurm: buildd on the nodes; default: this program's path
	Archive       string        // slurm: where the nodes see the archive, a URL or a directory; default: the tree's
	Slurm         []SlurmLine   // what the cluster is told of jobs
	Ask           time.Duration // slurm: between two questions to the controller
	Takes         string        // yes, or no (packmill builder pause), or drain: what is built ends, and its daemon too
	Pause         time.Duration // after a build without a verdict
	Email         string        // of who looks after it
	Host          string
	Stanza        *deb822.Stanza `json:"-"`
}

// Events are the words for Event in control/notify.
var Events = []string{"received", "accepted", "rejected", "commands", "asked", "published", "superseded", "removed",
	"log", "failed", "rebuilt", "good", "old", "aside", "*"}

// People are the words for To in control/notify, beside addresses.
var People = []string{"signer", "maintainer", "builder", "build-signers"}

// Sendmail is the program that mails where the settings name none.
const Sendmail = "/usr/sbin/sendmail"

// Notice is one stanza of control/notify: who hears of what.
type Notice struct {
	Event string   // one of Events
	To    []string // addresses, or some of People
	Via   string   // sendmail's path
	From  string

	Hook   string // in place of To: an address of the web that is called
	Secret string // the file of what signs its calls
}

// General is the one stanza of control/general.
type General struct {
	ReserveBytes  int64 // free space below which nothing is begun
	ReserveInodes int64
	Attic         time.Duration // age at which the attic is swept
	Strays        time.Duration // age of a file in incoming that belongs to nothing
	Logs          time.Duration // age at which logs of builds are removed
	Remind        time.Duration // age in its state at which people are told of what waits
	TwoPersons    bool
	ShowAddresses bool          // statusd shows people's addresses
	MaxTime       time.Duration // that judging an upload may take, and so much more for each GiB; 0: upload.Limits's own
	Quota         int64         // bytes that are kept for each account, and for the shared drop directory; 0: any number
}

// Builder finds a stanza of control/builders, or nil.
func (s *Settings) Builder(name string) *Builder {
	for i := range s.Builders {
		if s.Builders[i].Name == name {
			return &s.Builders[i]
		}
	}
	return nil
}

// Suite finds a suite by its name, codename or alias.
func (s *Settings) Suite(name string) (*Suite, bool) {
	for i := range s.Suites {
		if x := &s.Suites[i]; x.Name == name {
			return x, true
		}
	}
	for i := range s.Suites {
		x := &s.Suites[i]
		if x.Codename == name || slices.Contains(x.Aliases, name) {
			return x, true
		}
	}
	return nil, false
}

// QuotaOf is how many bytes are kept for an account, "" being the shared drop
// directory; 0: any number.
func (s *Settings) QuotaOf(account string) int64 {
	for i := range s.Uploaders {
		if u := &s.Uploaders[i]; account != "" && u.Account == account && u.Quota > 0 {
			return u.Quota
		}
	}
	return s.General.Quota
}

// Path resolves a file name of the settings: relative ones lie in control. The
// name of a key that gpg-agent holds stays as it is.
func (s *Settings) Path(name string) string {
	if name == "" || strings.HasPrefix(name, openpgp.AgentPrefix) || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.Dir, name)
}

// The names of the files in control.
const (
	SuitesFile    = "suites"
	UploadersFile = "uploaders"
	BuildersFile  = "builders"
	NotifyFile    = "notify"
	GeneralFile   = "general"
)

// KeysDir holds the public keys of everybody whom the settings name by
// fingerprint, armored or binary, any number a file.
const KeysDir = "keys"

// Files are the names of the files in control.
var Files = []string{SuitesFile, UploadersFile, BuildersFile, NotifyFile, GeneralFile}

const day = 24 * time.Hour

// Load reads control. Its error joins everything that is wrong, a line each.
func Load(dir string) (*Settings, error) {
	s := &Settings{Dir: dir,
		General: General{ReserveBytes: 256 << 20, ReserveInodes: 1000, Attic: 30 * day, Strays: 7 * day, Logs: 180 * day,
			Remind: 14 * day}}
	var errs []error
	each := func(name string, take func(*reader)) {
		stanzas, err := read(filepath.Join(dir, name))
		if err != nil {
			errs = append(errs, err)
			return
		}
		for i := range stanzas {
			r := &reader{st: &stanzas[i], used: map[string]string{}}
			take(r)
			errs = append(errs, r.finish()...)
			s.Stanzas = append(s.Stanzas, r.stanza(name))
		}
	}
	each(SuitesFile, func(r *reader) { s.Suites = append(s.Suites, r.suite()) })
	each(UploadersFile, func(r *reader) { s.Uploaders = append(s.Uploaders, r.uploader()) })
	each(BuildersFile, func(r *reader) { s.Builders = append(s.Builders, r.builder()) })
	each(NotifyFile, func(r *reader) { s.Notify = append(s.Notify, r.notice()) })
	each(GeneralFile, func(r *reader) { s.General = r.general(s.General) })
	errs = append(errs, s.cross()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// read parses one file; a missing one has no stanzas.
func read(path string) ([]deb822.Stanza, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return deb822.Parse(path, data, deb822.Settings)
}

// cross checks what one stanza says of another.
func (s *Settings) cross() []error {
	var errs []error
	owner := map[string]int{}
	for i := range s.Suites {
		x := &s.Suites[i]
		for _, n := range append([]string{x.Name, x.Codename}, x.Aliases...) {
			switch o, ok := owner[n]; {
			case ok && o != i && s.Suites[o].Name == x.Name:
				errs = append(errs, x.Stanza.Errorf("Suite", "there is a second stanza for the suite %s; put them together",
					x.Name))
			case ok && o != i:
				errs = append(errs, x.Stanza.Errorf("Suite", "%q is a name of the suites %s and %s; a name can mean only one",
					n, s.Suites[o].Name, x.Name))
			}
			owner[n] = i
		}
		for _, b := range x.Below {
			if !slices.ContainsFunc(s.Suites, func(o Suite) bool { return o.Name == b }) {
				errs = append(errs, x.Stanza.Errorf("Below", "there is no suite %q", b))
			}
		}
	}
	return errs
}

// LeastKeep is the shortest time after which anything that was put away is
// removed for good.
func (s *Settings) LeastKeep() time.Duration {
	least := min(s.General.Attic, 30*24*time.Hour)
	for _, x := range s.Suites {
		least = min(least, x.KeepRejected)
	}
	return least
}

package upload

import (
	"errors"
	"fmt"
	"time"
)

// Limits are the table of bounds: what one upload may cost those who judge it. For
// each there is a test with the worst input that its line lets through. The zero
// value of a field is that of DefaultLimits.
type Limits struct {
	Files     int           // listed in the .changes, and in the .dsc
	FileSize  int64         // bytes, of one file
	Size      int64         // bytes, of all files together
	Words     int           // in a field that is a list: Architecture, Binary, Closes
	Age       time.Duration // of the signature, and of Date
	Entries   int           // in one tarball
	Name      int           // bytes of a member's name, and of a link's target
	Links     int64         // bytes of the names of a tarball's symbolic links together
	Unpacked  int64         // bytes, of one tarball
	Ratio     int64         // unpacked : packed, once 64 MB are unpacked
	Dict      int64         // bytes that a decompressor may keep
	Changelog int64         // bytes of debian/changelog that are looked at
	Time      time.Duration // of all that is done with it, and so much more for each GiB
}

// DefaultLimits are generous: the largest source packages of Debian fit ten times.
var DefaultLimits = Limits{
	Files: 500, FileSize: 16 << 30, Size: 32 << 30, Words: 20_000, Age: 365 * 24 * time.Hour,
	Entries: 2_000_000, Name: 4096, Links: 32 << 20, Unpacked: 64 << 30, Ratio: 300, Dict: 128 << 20, Changelog: 64 << 10,
	Time: 5 * time.Minute,
}

// MaxChanges is the most that is read of a .changes, a .dsc, a .buildinfo or a
// .commands, in bytes: before one of them is read nobody knows which suite's
// limits hold.
const MaxChanges = 8 << 20

// ErrCost is why the context of a judgement ends when its time is over. It is the
// uploader's fault, and the upload is refused with it.
var ErrCost = errors.New("it costs more time than an upload may")

// TimeFor is the time that the judgement of so many bytes may take, and the
// sentence for who sent more than can be done in it.
func (l Limits) TimeFor(bytes int64) (time.Duration, string) {
	d := l.withDefaults().Time
	d += time.Duration(float64(d) * float64(bytes) / (1 << 30))
	return d, fmt.Sprintf("to judge it takes longer than the %s that an upload of %d MiB may cost; split it, "+
		"or pack its tarballs another way (fewer members, gzip), and upload it again",
		d.Round(time.Second), bytes>>20)
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	set := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	count := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	span := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	count(&l.Files, d.Files)
	count(&l.Words, d.Words)
	count(&l.Entries, d.Entries)
	count(&l.Name, d.Name)
	span(&l.Age, d.Age)
	span(&l.Time, d.Time)
	set(&l.FileSize, d.FileSize)
	set(&l.Size, d.Size)
	set(&l.Links, d.Links)
	set(&l.Unpacked, d.Unpacked)
	set(&l.Ratio, d.Ratio)
	set(&l.Dict, d.Dict)
	set(&l.Changelog, d.Changelog)
	return l
}

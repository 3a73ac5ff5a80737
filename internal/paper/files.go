package paper

import (
	"fmt"
	"strconv"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// File is one file that a paper, or an entry of Sources, lists.
type File struct {
	Name     string
	Size     int64  // bytes
	MD5      string // lower hex; "" if not given
	SHA1     string
	SHA256   string
	Section  string // with the component: contrib/libs; only in a .changes
	Priority string
}

// Form is how many words a line of the field Files has.
type Form int

const (
	Short Form = 3 // checksum, size and name: of a .dsc, and in Sources
	Long  Form = 5 // with section and priority before the name: of a .changes
)

// maxFiles bounds what one paper lists.
const maxFiles = 10_000

// Fields that list files.
const (
	MD5    = "Files"
	SHA1   = "Checksums-Sha1"
	SHA256 = "Checksums-Sha256"
)

// lists are the fields that list files, and the length of their checksums in hex.
var lists = []struct {
	field string
	hex   int
	sum   func(*File) *string
}{
	{MD5, 32, func(f *File) *string { return &f.MD5 }},
	{SHA1, 40, func(f *File) *string { return &f.SHA1 }},
	{SHA256, 64, func(f *File) *string { return &f.SHA256 }},
}

// Wrong is a fault of a list of files.
type Wrong struct {
	Field string
	Text  string // a sentence with its cure
}

// Lists reads Files, Checksums-Sha1 and Checksums-Sha256 (Debian Policy 5.6.21
// and 5.6.24) and puts them together, in the order in which files are first
// named. Those fields that are there must name the same files with the same
// sizes, each once; wrong says where they do not. The names are not judged: see Files.
func Lists(st *deb822.Stanza, form Form) (files []File, wrong []Wrong) {
	l := &lister{index: map[string]int{}}
	var given []int
	for n, list := range lists {
		value := st.Get(list.field)
		if value == "" {
			continue
		}
		given = append(given, n)
		words := Short
		if n == 0 {
			words = form
		}
		if !l.read(n, value, words) {
			return l.files, l.wrong
		}
	}
	for _, n := range given {
		for i := range l.files {
			if *lists[n].sum(&l.files[i]) == "" {
				l.bad(n, "%s is not in %s, but in another list; build the upload again", show(l.files[i].Name), lists[n].field)
			}
		}
	}
	return l.files, l.wrong
}

// lister puts the lists together.
type lister struct {
	files []File
	index map[string]int // of a name, in files
	wrong []Wrong
}

// bad notes a fault of lists[n].
func (l *lister) bad(n int, format string, args ...any) {
	l.wrong = append(l.wrong, Wrong{lists[n].field, fmt.Sprintf(format, args...)})
}

// read reads lists[n]. It reports false if there are too many files to go on.
func (l *lister) read(n int, value string, form Form) bool {
	list := lists[n]
	seen := map[string]bool{}
	for line := range strings.SplitSeq(value, "\n") {
		w := deb822.Words(line)
		if len(w) == 0 {
			continue
		}
		f, ok := readLine(w, form)
		switch {
		case !ok:
			l.bad(n, "%s has the line %s, which is not of the form that dpkg writes; build the upload again",
				list.field, quote(line))
			continue
		case !isHex(w[0], list.hex):
			l.bad(n, "%s gives %s the checksum %s, which is not %d lower hex digits; build the upload again",
				list.field, show(f.Name), quote(w[0]), list.hex)
			continue
		case seen[f.Name]:
			l.bad(n, "%s lists %s twice; list each file once", list.field, show(f.Name))
			continue
		}
		seen[f.Name] = true
		i, known := l.index[f.Name]
		if !known {
			if len(l.files) >= maxFiles {
				l.bad(n, "%s lists more than %d files; split the upload", list.field, maxFiles)
				return false
			}
			i = len(l.files)
			l.index[f.Name] = i
			l.files = append(l.files, f)
		} else if l.files[i].Size != f.Size {
			l.bad(n, "%s is of %d bytes in %s, but of %d in another list; build the upload again",
				show(f.Name), f.Size, list.field, l.files[i].Size)
		}
		*list.sum(&l.files[i]) = w[0]
	}
	return true
}

// Files is Lists where the first thing that is wrong is enough, as an error
// with file and line. The fields of need are there, and policy.CheckFile lets each
// name pass.
func Files(st *deb822.Stanza, form Form, need ...string) ([]File, error) {
	files, wrong := Lists(st, form)
	if len(wrong) > 0 {
		return nil, st.Errorf(wrong[0].Field, "%s", wrong[0].Text)
	}
	for _, field := range need {
		if len(deb822.Words(st.Get(field))) == 0 {
			return nil, st.Errorf(field, "no field %s; build the package again with today's dpkg", field)
		}
	}
	for _, f := range files {
		if err := policy.CheckFile(f.Name); err != nil {
			field := SHA256
			if f.SHA256 == "" {
				field = MD5
			}
			return nil, st.Errorf(field, "%v", err)
		}
	}
	return files, nil
}

// readLine reads "checksum size name", or with section and priority before the name.
func readLine(w []string, form Form) (f File, ok bool) {
	if len(w) != int(form) {
		return f, false
	}
	size, err := strconv.ParseUint(w[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != w[1] {
		return f, false
	}
	f = File{Name: w[len(w)-1], Size: int64(size)}
	if form == Long {
		f.Section, f.Priority = w[2], w[3]
	}
	return f, true
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := 0; i < n; i++ {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// show prints a name as it is if it is a plain one, else quoted.
func show(name string) string {
	if policy.CheckFile(name) == nil {
		return name
	}
	return quote(name)
}

func quote(s string) string {
	if len(s) > 80 {
		return strconv.QuoteToASCII(s[:80]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

package usage

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"packmill/cmd/internal/daemon"
)

type leaf struct {
	Items []string `arg:"" optional:"" name:"item"`
	Shell string   `enum:"bash,zsh," default:""`
}

// grammar is one with a group, that lists if no command of it is said.
func grammar(t *testing.T) *kong.Kong {
	t.Helper()
	var words struct {
		Group struct {
			Ls     leaf     `cmd:"" default:"withargs"`
			Accept struct{} `cmd:""`
			Secret struct{} `cmd:"" hidden:""`
		} `cmd:""`
		Other struct {
			One  struct{} `cmd:""`
			Need struct {
				Message string `required:"" placeholder:"TEXT"`
			} `cmd:""`
		} `cmd:""`
	}
	parser, err := kong.New(&words, kong.Name("packmill"))
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

func TestOf(t *testing.T) {
	parser := grammar(t)
	for args, want := range map[string]string{
		"":                     "say what to do: one of group, other\nTry: packmill --help",
		"other":                "say what to do: one of one, need\nTry: packmill other --help",
		"other frob":           "there is no command frob\nTry: packmill other --help",
		"other one more":       "there is no place for the word more here\nTry: packmill other one --help",
		"other need":           "it needs --message=TEXT\nTry: packmill other need --help",
		"other one --frob":     "there is no option --frob\nTry: packmill other one --help",
		"group ls --shell":     "--shell wants a value\nTry: packmill group ls --help",
		"group ls --shell=csh": `--shell is one of "bash","zsh","", not "csh"` + "\nTry: packmill group ls --help",
	} {
		_, err := parser.Parse(strings.Fields(args))
		if err == nil {
			t.Errorf("%q is taken", args)
			continue
		}
		if got := Of(err).Error(); got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

// What a list refuses may be a command of its group, misspelt.
func TestMistyped(t *testing.T) {
	ctx, err := grammar(t).Parse([]string{"group", "acept"})
	if err != nil {
		t.Fatal(err)
	}
	refused, trouble := daemon.Refuse("nothing here is called acept"), errors.New("disk")
	var wrong daemon.Wrong
	got := Mistyped(ctx, []string{"acept"}, refused)
	if want := "there is no packmill group acept; did you mean accept?"; !errors.As(got, &wrong) || got.Error() != want {
		t.Errorf("got %v, want %q", got, want)
	}
	for _, c := range []struct {
		items []string
		err   error
	}{{[]string{"hello"}, refused}, {[]string{"secre"}, refused}, {nil, refused}, {[]string{"acept"}, trouble},
		{[]string{"acept"}, nil}} {
		if got := Mistyped(ctx, c.items, c.err); got != c.err {
			t.Errorf("%q: got %v, want %v", c.items, got, c.err)
		}
	}
}

func TestFields(t *testing.T) {
	type base struct {
		Name string `json:"name"`
	}
	type object struct {
		base
		Base  base           `json:"base"`
		When  *time.Time     `json:"when,omitempty"`
		Many  []base         `json:"many"`
		Done  bool           `json:"done"`
		Size  int64          `json:"size,omitempty"`
		Facts map[string]int `json:"facts"`
		Bare  []string
		None  string `json:"-"`
		own   int
	}
	_ = object{}.own
	// What JSON leaves out of an object has no line; of an unexported part neither.
	want := []string{"base {name text}", "when? time (RFC 3339)", "many list of {name text}", "done true or false",
		"size? number", "facts object", "Bare list of text"}
	if got := Fields(reflect.TypeFor[object]()); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	type Embedded struct {
		base
		Row base `json:"row"`
	}
	type outer struct {
		Embedded
		Did string `json:"did"`
	}
	if got := Fields(reflect.TypeFor[outer]()); !slices.Equal(got, []string{"row {name text}", "did text"}) {
		t.Errorf("embedded: got %q", got)
	}
}

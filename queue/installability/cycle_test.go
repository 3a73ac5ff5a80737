package installability

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"
)

func TestCycles(t *testing.T) {
	w := func(source string, makes, needs []string) Waiting { return Waiting{source, makes, needs} }
	s := func(names ...string) []string { return names }
	for _, c := range []struct {
		name string
		all  []Waiting
		want [][]string
	}{
		{"none", nil, nil},
		{"chain", []Waiting{w("a", s("a1"), s("b1")), w("b", s("b1", "b2"), s("c1")), w("c", s("c1"), s("nobody-makes"))},
			nil},
		{"ring", []Waiting{w("b", s("b1", "b2"), s("c1")), w("x", s("x1"), s("b2")), w("c", s("c1"), s("a1")),
			w("a", s("a1"), s("b1"))}, [][]string{{"a", "b", "c"}}},
		{"itself", []Waiting{w("gcc", s("gcc"), s("gcc"))}, [][]string{{"gcc"}}},
		{"two rings", []Waiting{w("d", s("d"), s("c")), w("c", s("c"), s("d", "a")), w("a", s("a"), s("b")),
			w("b", s("b"), s("a"))}, [][]string{{"a", "b"}, {"c", "d"}}},
		{"two makers", []Waiting{w("a", s("p"), s("q")), w("b", s("p"), nil), w("c", s("q"), s("p"))},
			[][]string{{"a", "c"}}},
	} {
		if got := Cycles(c.all); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// By definition: two are in one group if each reaches the other.
func TestCyclesByDefinition(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 300 {
		n := 1 + r.Intn(9)
		all := make([]Waiting, n)
		reach := make([][]bool, n)
		for i := range all {
			all[i].Source = fmt.Sprint(i)
			all[i].Makes = []string{fmt.Sprint("p", i)}
			reach[i] = make([]bool, n)
			for range r.Intn(3) {
				j := r.Intn(n)
				all[i].Needs = append(all[i].Needs, fmt.Sprint("p", j))
				reach[i][j] = true
			}
		}
		for k := range n {
			for i := range n {
				for j := range n {
					reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
				}
			}
		}
		var want [][]string
		for i := range n {
			var group []string
			for j := range n {
				if reach[i][j] && reach[j][i] {
					group = append(group, fmt.Sprint(j))
				}
			}
			if group != nil && group[0] == fmt.Sprint(i) {
				want = append(want, group)
			}
		}
		slices.SortFunc(want, slices.Compare[[]string])
		if got := Cycles(all); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v: got %v, want %v", all, got, want)
		}
	}
}

func TestCyclesLong(t *testing.T) {
	const n = 200_000
	all := make([]Waiting, n)
	for i := range all {
		all[i] = Waiting{fmt.Sprint(i), []string{fmt.Sprint("p", i)}, []string{fmt.Sprint("p", (i+1)%n)}}
	}
	if got := Cycles(all); len(got) != 1 || len(got[0]) != n {
		t.Errorf("%d groups", len(got))
	}
}

package installability

import "slices"

// Waiting is a source that cannot be built yet.
type Waiting struct {
	Source string
	Makes  []string // the packages that a build of it makes
	Needs  []string // the packages that it lacks: Answer.Missing
}

// Cycles returns the groups of sources that wait for each other in a ring: no
// builder can begin with any of them, so a person must (by a build profile, or
// with packages from elsewhere). Each group is sorted, and so are the groups.
// A source that lacks a package that only itself makes is a group of one.
func Cycles(all []Waiting) [][]string {
	makers := make(map[string][]int)
	for i := range all {
		for _, p := range all[i].Makes {
			makers[p] = append(makers[p], i)
		}
	}
	next := make([][]int, len(all))
	for i := range all {
		for _, p := range all[i].Needs {
			next[i] = append(next[i], makers[p]...)
		}
	}
	var cycles [][]string
	for _, group := range components(next) {
		if len(group) == 1 && !slices.Contains(next[group[0]], group[0]) {
			continue
		}
		var names []string
		for _, i := range group {
			names = append(names, all[i].Source)
		}
		slices.Sort(names)
		cycles = append(cycles, names)
	}
	slices.SortFunc(cycles, slices.Compare[[]string])
	return cycles
}

// components returns the strongly connected components of a graph (Tarjan,
// 1972), without recursion: a chain of dependencies may be long.
func components(next [][]int) (groups [][]int) {
	const unseen = -1
	type frame struct{ node, edge int }
	var (
		number = make([]int, len(next)) // order of discovery
		low    = make([]int, len(next)) // smallest number that is reached
		open   = make([]bool, len(next))
		stack  []int
		frames []frame
		count  int
	)
	for i := range number {
		number[i] = unseen
	}
	enter := func(v int) {
		number[v], low[v] = count, count
		count++
		open[v] = true
		stack = append(stack, v)
		frames = append(frames, frame{node: v})
	}
	for start := range next {
		if number[start] != unseen {
			continue
		}
		enter(start)
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			v := f.node
			if f.edge < len(next[v]) {
				w := next[v][f.edge]
				f.edge++
				if number[w] == unseen {
					enter(w)
				} else if open[w] {
					low[v] = min(low[v], number[w])
				}
				continue
			}
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				parent := frames[len(frames)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] == number[v] {
				i := len(stack) - 1
				for stack[i] != v {
					i--
				}
				for _, w := range stack[i:] {
					open[w] = false
				}
				groups = append(groups, slices.Clone(stack[i:]))
				stack = stack[:i]
			}
		}
	}
	return groups
}

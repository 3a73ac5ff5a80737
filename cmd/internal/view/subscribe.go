package view

import "packmill/spool"

// Touched says what a change was about. Empty fields say nothing.
type Touched struct {
	State    string
	Suite    string
	Arch     string
	Source   string
	Builders bool // one began, ended, or says something else of itself
}

func touchedBy(f spool.Found) Touched {
	return Touched{State: f.Place.State.Name, Suite: f.Place.Suite, Arch: f.Arch(), Source: f.Name.Source}
}

// maxTouched is how many changes are told one by one: of more it is said that there
// were many.
const maxTouched = 256

// Subscription hears of changes. One that does not listen for long hears later that
// there were some.
type Subscription struct {
	view  *View
	match func(Touched) bool
	wake  chan struct{}
}

// Subscribe begins to listen for changes that match is true of; nil: for all. Close
// ends it.
func (v *View) Subscribe(match func(Touched) bool) *Subscription {
	s := &Subscription{view: v, match: match, wake: make(chan struct{}, 1)}
	v.subs.Lock()
	v.listen[s] = true
	v.subs.Unlock()
	return s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.view.subs.Lock()
	delete(s.view.listen, s)
	s.view.subs.Unlock()
}

// Changed has a token when something changed since it was taken last.
func (s *Subscription) Changed() <-chan struct{} { return s.wake }

// tell tells those who listen. many says that there was more than touched has.
func (v *View) tell(touched []Touched, many bool) {
	if len(touched) == 0 && !many {
		return
	}
	v.subs.Lock()
	defer v.subs.Unlock()
	for s := range v.listen {
		hears := many || s.match == nil
		for i := 0; i < len(touched) && !hears; i++ {
			hears = s.match(touched[i])
		}
		if hears {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Listeners is how many subscriptions there are.
func (v *View) Listeners() int {
	v.subs.Lock()
	defer v.subs.Unlock()
	return len(v.listen)
}

package pages

import (
	"fmt"
	"time"

	"packmill/cmd/internal/view"
)

// plot is builds a day or a week as bars: built below, what failed above.
type plot struct {
	Bars []bar
	Most int
	Each string // what a bar is
	Text string // what it shows, for who does not see it
}

type bar struct {
	Date             string
	X, Width         int
	Built, Failed    int
	BuiltY, BuiltH   int
	FailedY, FailedH int
	Label            bool
}

// The plot's size in units of its own.
const (
	plotWidth  = 720
	plotHeight = 140
)

// period is a time that a plot shows: so many bars of so many days.
type period struct{ bars, days int }

func (p period) all() int { return p.bars * p.days }

// first is the day on which it begins, if it ends today.
func (p period) first(now time.Time) time.Time { return now.UTC().AddDate(0, 0, 1-p.all()) }

// month is what plots show, unless somebody asks for another period.
var month = period{30, 1}

// plotDays draws the last days.
func plotDays(days []view.Day, now time.Time, of period) (p plot) {
	built, failed := map[string]int{}, map[string]int{}
	for _, d := range days {
		built[d.Date] += d.Built
		failed[d.Date] += d.Failed
	}
	sum, step := [2]int{}, plotWidth/of.bars
	for i := range of.bars {
		begin := of.first(now).AddDate(0, 0, i*of.days)
		b := bar{Date: begin.Format(dayForm), X: i * step, Width: step - max(1, step/8), Label: i%(of.bars/4) == 0 &&
			i+of.bars/8 < of.bars}
		for k := range of.days {
			date := begin.AddDate(0, 0, k).Format(dayForm)
			b.Built, b.Failed = b.Built+built[date], b.Failed+failed[date]
		}
		p.Most = max(p.Most, b.Built+b.Failed)
		sum[0], sum[1] = sum[0]+b.Built, sum[1]+b.Failed
		p.Bars = append(p.Bars, b)
	}
	for i := range p.Bars {
		b := &p.Bars[i]
		if p.Most > 0 {
			b.BuiltH, b.FailedH = b.Built*plotHeight/p.Most, b.Failed*plotHeight/p.Most
		}
		b.BuiltY = plotHeight - b.BuiltH
		b.FailedY = b.BuiltY - b.FailedH
	}
	p.Each = "a day"
	if of.days > 1 {
		p.Each = "a week"
	}
	p.Text = fmt.Sprintf("Builds %s in the last %d days: %d built, %d failed, at most %d %[1]s", p.Each, of.all(), sum[0],
		sum[1], p.Most)
	return p
}

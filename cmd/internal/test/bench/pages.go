package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/view/viewtest"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Sizes of the measures of statusd.
const (
	pagePackages = 38_000
	pageBuilding = 40
	pageChanges  = 20 // in each measure
	pageWarm     = 500
	pageOpen     = 1000 // pages that are open
	logReaders   = 100
	logSize      = 100 << 20
	logMore      = 1 << 20 // that is written while they read
	pagesIdle    = 130 * time.Second
	wrkFor       = 5 * time.Second
)

// pageFigures measures statusd over a tree of a distribution's size: the real program, asked over
// loopback. What an item's files say is there of builds that run alone.
func pageFigures(b *bench) error {
	if err := install(b, map[string]string{"wrk": "wrk", "nginx": "nginx-light", "tail": "coreutils"}); err != nil {
		return err
	}
	bin, err := programs(b, "statusd")
	if err != nil {
		return err
	}
	b.progress("pages: a tree of %d packages on %d architectures", pagePackages, len(viewtest.Archs))
	tree, err := viewtest.Make(filepath.Join(b.dir, "tree"), viewtest.Size{Packages: pagePackages, Archs: viewtest.Archs,
		Building: pageBuilding, Bare: true})
	if err != nil {
		return err
	}
	begun := time.Now()
	s, err := startPages(bin, tree)
	if err != nil {
		return err
	}
	defer s.stop()
	b.figure(Figure{Name: "pages.ready", Value: time.Since(begun).Seconds(), Unit: "s"})
	for _, f := range []func(*bench, *pagesServer) error{startFigures, listenerFigures, logFigures, wrkFigures,
		idleFigure} {
		if err := f(b, s); err != nil {
			return err
		}
	}
	high, err := s.memory()
	b.figure(Figure{Name: "pages.memory", Value: float64(high) / 1e6, Unit: "MB", Goal: "<= 150 MB", Met: high <= 150e6})
	return err
}

// pagesServer is a statusd that runs.
type pagesServer struct {
	tree *spool.Tree
	cmd  *exec.Cmd
	at   string // its address
	item string // the one that is moved to and fro: where it lies
	out  string // and where it does not

	client *http.Client // that asks for pages: a web server before statusd keeps some connections, too
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startPages starts statusd, and waits for the first page.
func startPages(bin string, tree *spool.Tree) (*pagesServer, error) {
	found, err := tree.Find("", spool.NeedsBuild)
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("nothing waits for a builder: %v", err)
	}
	at, err := freePort()
	if err != nil {
		return nil, err
	}
	other := spool.In(spool.Built, viewtest.Suite, found[0].Arch())
	if err := tree.Ensure(other); err != nil {
		return nil, err
	}
	s := &pagesServer{tree: tree, at: "http://" + at, item: tree.Path(found[0].Dir()),
		out: tree.Path(other.Dir(), found[0].Name.String()), client: &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 50, MaxConnsPerHost: 50}}}
	s.cmd = exec.Command(filepath.Join(bin, "statusd"), "--tree", tree.Root(), "--listen", at)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, _, err = s.get("/"); err == nil {
			return s, nil
		}
		if time.Now().After(end) {
			s.stop()
			return nil, err
		}
	}
}

func (s *pagesServer) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// get asks, and keeps the connection.
func (s *pagesServer) get(path string) (body []byte, took time.Duration, err error) {
	r, err := http.NewRequest(http.MethodGet, s.at+path, nil)
	if err != nil {
		return nil, 0, err
	}
	begun := time.Now()
	w, err := s.client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer w.Body.Close()
	if body, err = io.ReadAll(w.Body); err == nil && w.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, w.Status)
	}
	return body, time.Since(begun), err
}

// change moves an item, which every open page hears of.
func (s *pagesServer) change() error {
	s.item, s.out = s.out, s.item
	return os.Rename(s.out, s.item)
}

// cpu is what the program has used of processors.
func (s *pagesServer) cpu() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|2), &ts) // CPUCLOCK_SCHED of a process
	return time.Duration(ts.Nano()), err
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// memory is the most that the program has had, in bytes.
func (s *pagesServer) memory() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	m := highWater.FindSubmatch(data)
	if m == nil {
		return 0, errors.New("the kernel does not tell the memory of statusd")
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10, err
}

// listen opens event streams, and calls heard for each change that one of them hears of. It returns
// when all are open; close ends them.
func (s *pagesServer) listen(n int, path string, heard func(data string)) (end func(), err error) {
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0, DisableCompression: true}}
	var open []io.Closer
	var readers sync.WaitGroup
	end = func() {
		for _, c := range open {
			c.Close()
		}
		readers.Wait()
	}
	for range n {
		w, err := client.Get(s.at + path)
		if err == nil && w.StatusCode != http.StatusOK {
			err = errors.New(w.Status)
		}
		if err != nil {
			end()
			return nil, err
		}
		open = append(open, w.Body)
		readers.Go(func() {
			lines := bufio.NewReaderSize(w.Body, 4<<10)
			name := ""
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if word, ok := strings.CutPrefix(line, "event: "); ok {
					name = strings.TrimSpace(word)
				}
				if data, ok := strings.CutPrefix(line, "data: "); ok && name != "now" {
					heard(data)
				}
			}
		})
	}
	return end, nil
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// startFigures measures the first page: cold, as who hears of a change first gets it, and warm, as the
// others do.
func startFigures(b *bench, s *pagesServer) error {
	b.progress("pages: the first page, after each of %d changes", pageChanges)
	told := make(chan string, 100)
	end, err := s.listen(1, "/events", func(data string) { told <- data })
	if err != nil {
		return err
	}
	defer end()
	var cold, warm []time.Duration
	for range pageChanges {
		if err := s.change(); err != nil {
			return err
		}
		<-told
		_, took, err := s.get("/")
		if err != nil {
			return err
		}
		cold = append(cold, took)
	}
	for range pageWarm {
		_, took, err := s.get("/")
		if err != nil {
			return err
		}
		warm = append(warm, took)
	}
	b.figure(Figure{Name: "pages.start.cold", Value: milliseconds(median(cold)), Unit: "ms", Goal: "<= 50 ms",
		Met: median(cold) <= 50*time.Millisecond})
	b.figure(Figure{Name: "pages.start.warm", Value: milliseconds(median(warm)), Unit: "ms", Goal: "<= 50 ms",
		Met: median(warm) <= 50*time.Millisecond})
	return nil
}

// changesCPU is what a change costs while so many listen, of which each asks for the page again or none.
func (s *pagesServer) changesCPU(listeners int, ask bool) (time.Duration, error) {
	var heard, wrong atomic.Int64
	end, err := s.listen(listeners, "/events?all=1", func(string) {
		if ask {
			if _, _, err := s.get("/"); err != nil {
				wrong.Add(1)
			}
		}
		heard.Add(1)
	})
	if err != nil {
		return 0, err
	}
	defer end()
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	for i := range int64(pageChanges) {
		if err := s.change(); err != nil {
			return 0, err
		}
		all := (i + 1) * int64(listeners)
		for deadline := time.Now().Add(2 * time.Minute); heard.Load() < all; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return 0, fmt.Errorf("of %d listeners %d heard of a change", listeners, heard.Load()-i*int64(listeners))
			}
		}
		time.Sleep(600 * time.Millisecond) // a stream is calm for a while after each
	}
	after, err := s.cpu()
	if wrong.Load() > 0 {
		err = fmt.Errorf("%d pages were refused", wrong.Load())
	}
	return (after - before) / pageChanges, err
}

// listenerFigures measures what a change costs while a thousand pages are open.
func listenerFigures(b *bench, s *pagesServer) error {
	b.progress("pages: %d listeners, %d changes", pageOpen, pageChanges)
	one, err := s.changesCPU(1, false)
	if err != nil {
		return err
	}
	for name, ask := range map[string]bool{"pages.listeners": false, "pages.listeners-ask": true} {
		many, err := s.changesCPU(pageOpen, ask)
		if err != nil {
			return err
		}
		b.figure(Figure{Name: name, Value: milliseconds(many), Unit: "ms CPU a change",
			Versus: fmt.Sprintf("one listener: %.1f ms", milliseconds(one)), Ratio: many.Seconds() / one.Seconds()})
	}
	return nil
}

// logFigures measures a long log: its page, and many who follow it while it grows, beside tail -f.
func logFigures(b *bench, s *pagesServer) error {
	b.progress("pages: a log of %d MB, %d readers", logSize>>20, logReaders)
	found, err := s.tree.Find("", spool.Building)
	if err != nil || len(found) == 0 {
		return fmt.Errorf("nothing builds: %v", err)
	}
	text := logText(10<<20, 1)
	log, err := os.Create(s.tree.Path(found[0].Dir(), buildlog.LogFile))
	if err != nil {
		return err
	}
	defer log.Close()
	for range logSize / len(text) {
		if _, err := log.Write(text); err != nil {
			return err
		}
	}
	page, _, err := s.get("/package/" + found[0].Name.Source)
	if err != nil {
		return err
	}
	at := buildAddress.FindSubmatch(page)
	if at == nil {
		return fmt.Errorf("the page of %s has no build", found[0].Name.Source)
	}
	_, took, err := s.get(string(at[1]))
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "pages.log", Value: milliseconds(took), Unit: "ms", Goal: "<= 500 ms",
		Met: took <= 500*time.Millisecond})
	return followFigures(b, s, log, string(at[1]), text[:logMore])
}

var buildAddress = regexp.MustCompile(`href="(/build/[^"]+)"`)

// followFigures measures what it costs that a log grows which many follow.
func followFigures(b *bench, s *pagesServer, log *os.File, at string, more []byte) error {
	var lines atomic.Int64
	end, err := s.listen(logReaders, at+"/events", func(data string) {
		lines.Add(int64(strings.Count(data, `","`) + 1))
	})
	if err != nil {
		return err
	}
	defer end()
	tails, err := tailsOf(log.Name())
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // each has found the end
	before, err := s.cpu()
	if err != nil {
		return err
	}
	// As a build writes: now some, then some.
	for some := range slices.Chunk(more, len(more)/50) {
		if _, err := log.Write(some); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	want := int64(bytes.Count(more, []byte("\n"))) * logReaders
	for deadline := time.Now().Add(time.Minute); lines.Load() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("of %d lines %d came", want, lines.Load())
		}
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	peer := tails()
	ours := after - before
	b.figure(Figure{Name: "pages.log.follow", Value: milliseconds(ours), Unit: "ms CPU a MB",
		Versus: fmt.Sprintf("%d processes of tail -f: %.0f ms", logReaders, milliseconds(peer)),
		Ratio:  ours.Seconds() / peer.Seconds()})
	return nil
}

// tailsOf follows a file with as many processes of tail; the function that it returns ends them, and
// says what they used.
func tailsOf(path string) (end func() time.Duration, err error) {
	var all []*exec.Cmd
	end = func() (sum time.Duration) {
		for _, c := range all {
			c.Process.Kill()
			c.Wait()
			sum += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		}
		return sum
	}
	for range logReaders {
		c := exec.Command("tail", "-n0", "-f", path)
		if err := c.Start(); err != nil {
			end()
			return nil, err
		}
		all = append(all, c)
	}
	return end, nil
}

var requestsASecond = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)

// wrk asks one address over and over, and gives the requests a second that were answered.
func wrk(at string) (float64, error) {
	out, err := exec.Command("wrk", "-t1", "-c50", fmt.Sprintf("-d%ds", int(wrkFor.Seconds())), at).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	m := requestsASecond.FindSubmatch(out)
	if m == nil || bytes.Contains(out, []byte("Non-2xx")) {
		return 0, fmt.Errorf("wrk: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// wrkFigures measures how often the first page can be asked for, beside nginx that sends a file of its size.
func wrkFigures(b *bench, s *pagesServer) error {
	b.progress("pages: wrk, and nginx beside it")
	w, err := http.Get(s.at + "/")
	if err != nil {
		return err
	}
	defer w.Body.Close()
	page, err := io.ReadAll(w.Body)
	if err != nil {
		return err
	}
	ours, err := wrk(s.at + "/")
	if err != nil {
		return err
	}
	at, stop, err := nginxWith(filepath.Join(b.dir, "nginx"), page)
	if err != nil {
		return err
	}
	defer stop()
	peer, err := wrk(at + "/page.html")
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "pages.wrk", Value: ours, Unit: "1/s", Ratio: ours / peer,
		Versus: fmt.Sprintf("nginx, a file of %d bytes: %.0f/s", len(page), peer)})
	return nil
}

// nginxWith starts nginx with one file.
func nginxWith(dir string, page []byte) (at string, stop func(), err error) {
	address, err := freePort()
	if err != nil {
		return "", nil, err
	}
	settings := fmt.Sprintf("daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/error;\n"+
		"events { worker_connections 1024; }\nhttp { access_log off; sendfile on; tcp_nopush on;\n"+
		"types { text/html html; }\nserver { listen %[2]s; root %[1]s/www; } }\n", dir, address)
	err = writeFiles(dir, map[string]string{"www/page.html": string(page), "conf": settings})
	if err == nil { // root's nginx answers as another account
		err = errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		return "", nil, err
	}
	c := exec.Command("nginx", "-c", filepath.Join(dir, "conf"))
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { c.Process.Signal(syscall.SIGTERM); c.Wait() }
	at = "http://" + address
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		w, err := http.Get(at + "/page.html")
		if err == nil {
			w.Body.Close()
			return at, stop, nil
		}
		if time.Now().After(end) {
			stop()
			return "", nil, err
		}
	}
}

// idleFigure measures what statusd needs while nothing happens: it looks at the whole tree now and again.
func idleFigure(b *bench, s *pagesServer) error {
	b.progress("pages: nothing for %v", pagesIdle)
	time.Sleep(2 * time.Second)
	before, err := s.cpu()
	if err != nil {
		return err
	}
	time.Sleep(pagesIdle)
	after, err := s.cpu()
	percent := 100 * (after - before).Seconds() / pagesIdle.Seconds()
	b.figure(Figure{Name: "pages.idle", Value: percent, Unit: "% of a core", Goal: "<= 0.1 %", Met: percent <= 0.1})
	return err
}

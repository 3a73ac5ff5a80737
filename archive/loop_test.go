package archive

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

// loop publishes n times while apt clients, over http and from files, update
// and fetch without a pause. None may ever fail, and what it fetches is what
// the indexes said.
func loop(t *testing.T, n int) {
	f := newFixture(t)
	f.suite.Contents, f.suite.Translations = true, true
	f.suite.Architectures = []string{"amd64"}
	filler := debtest.Corpus(60, "1")
	var batch []Inclusion
	for _, u := range filler {
		batch = append(batch, f.upload(u))
	}
	f.accepted(append(batch, f.upload(hello("1.0")))...)

	// Each request waits a little, so that a publication comes in between.
	handler := f.a.Handler()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(15 * time.Millisecond)
		handler.ServeHTTP(w, r)
	}))
	defer web.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var runs, news atomic.Int64
	clients := []*client{
		newClient(t, f.source(), f.key, "amd64"),
		// an alias
		newClient(t, strings.NewReplacer("file:"+f.a.Root(), web.URL, " unstable ", " rolling ").Replace(f.source()), f.key,
			"amd64"),
	}
	for i, c := range clients {
		wg.Go(func() {
			last := ""
			for ctx.Err() == nil {
				runs.Add(1)
				for _, args := range [][]string{{"apt-get", "update", "-o", "APT::Update::Error-Mode=any"},
					{"apt-get", "install", "-y", "--download-only", "hello", "hello-doc"},
					{"apt-get", "source", "--download-only", "hello"}} {
					if out, err := c.try(args...); err != nil {
						t.Errorf("client %d, run %d, %s: %v\n%s", i, runs.Load(), strings.Join(args[:2], " "), err, out)
						stop()
						return
					}
				}
				now, err := c.try("apt-cache", "policy", "hello")
				if err != nil {
					t.Errorf("client %d: apt-cache: %v\n%s", i, err, now)
				}
				if now != last {
					news.Add(1)
				}
				last = now
				if _, err := c.try("apt-get", "clean"); err != nil {
					t.Errorf("client %d: apt-get clean: %v", i, err)
				}
			}
		})
	}
	// At least n, and more until the clients have met some: they may be slower.
	published := 0
	for i := 0; ctx.Err() == nil && (i < n || news.Load() < 3 && i < 50*n); i++ {
		published++
		u := hello(fmt.Sprintf("1.%d", i+1))
		for j := range u.Debs {
			u.Debs[j].Fields = fmt.Sprintf("Description: says hello\n For the %dth time.\n", i)
		}
		f.accepted(f.upload(u))
		if i%10 == 9 {
			if _, err := f.a.Collect(context.Background(),
				CollectOptions{Attic: f.a.path("attic"), Stay: 24 * time.Hour, Now: time.Now()}); err != nil {
				t.Errorf("collect: %v", err)
			}
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d publications, %d runs of apt, %d saw something new", published, runs.Load(), news.Load())
	if runs.Load() < int64(n)/20 || news.Load() < 3 {
		t.Errorf("the clients hardly ran: %d runs, %d with news", runs.Load(), news.Load())
	}
	f.sound()
}

func TestClientsNeverFail(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	loop(t, 12)
}

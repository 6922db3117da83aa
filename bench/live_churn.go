package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/peers"
)

// left is what a server says of its clients.
type left struct {
	goroutines, conns, subs int
}

// churnRun lets many clients come and go, and looks at what is left of them. It is over
// when nothing is, or after a minute.
func churnRun(ctx context.Context, o *liveOptions) (err error) {
	p, done, err := o.serve(ctx, "churn")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	time.Sleep(o.warm) // what only the start needs has ended
	before, err := leftOf(p)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = live.Churn(ctx, strings.TrimPrefix(p.Base, "http://"), o.fanout, func(i int) string {
		return fmt.Sprintf(`{"op":"subscribe","id":"a","step":"1s","backfill":"10s","query":%q}`, liveQuery(i%o.queries))
	})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	at, err := leftOf(p)
	if err != nil {
		return err
	}
	after := at
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(time.Second) {
		if after, err = leftOf(p); err != nil {
			return err
		}
		if after.goroutines <= before.goroutines && after.conns+after.subs == 0 {
			break
		}
	}
	o.report(after.goroutines <= before.goroutines && after.conns+after.subs == 0,
		fmt.Sprintf("left of %d connects and disconnects", o.fanout), "no goroutine, no connection",
		"before %v; at the end %v; %v later %v; %.0f connects a second", before, at, time.Since(begin.Add(took)).Round(time.Second), after, float64(o.fanout)/took.Seconds())
	return nil
}

func (l left) String() string {
	return fmt.Sprintf("%d goroutines, %d connections, %d subscriptions", l.goroutines, l.conns, l.subs)
}

func leftOf(p *peers.Process) (l left, err error) {
	err = eachLine(p.Base+"/debug/pprof/goroutine?debug=1", func(line string) error {
		if !strings.HasPrefix(line, "goroutine profile: total ") {
			return nil
		}
		_, err := fmt.Sscanf(line, "goroutine profile: total %d", &l.goroutines)
		return err
	})
	if err != nil {
		return l, err
	}
	return l, eachLine(p.Base+"/metrics", func(line string) error {
		name, value, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		into := map[string]*int{"strandline_live_connections": &l.conns, "strandline_live_client_subscriptions": &l.subs}[name]
		if into == nil {
			return nil
		}
		var n int
		_, err := fmt.Sscan(value, &n)
		*into += n
		return err
	})
}

func eachLine(url string, fn func(string) error) error {
	res, err := http.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s: %s", live.ErrAnswer, url, res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if err := fn(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

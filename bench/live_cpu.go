package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/bench/workload"
)

// viewing is one of the three ways in which the viewers of cpuRun may see.
type viewing struct {
	name  string
	watch func(ctx context.Context, o *liveOptions, p *peers.Process, s *live.Stream) (note string, err error)
}

// cpuRun compares the server's CPU time under the same stream: with nobody looking, with viewers who
// are pushed to, and with viewers who poll. The first two are measured in as many rounds as wanted, one
// after the other, of which the means count: what a sample costs differs by a tenth from run to run.
func cpuRun(ctx context.Context, o *liveOptions) error {
	perMillion, perSecond := map[string]float64{}, map[string]float64{}
	notes := map[string]string{}
	measure := func(v viewing, of int) error {
		million, second, note, err := o.viewed(ctx, v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		perMillion[v.name] += million / float64(of)
		perSecond[v.name] += second / float64(of)
		notes[v.name] = note
		fmt.Printf("%s: %.3f CPU s a million samples, %.3f cores; %s\n", v.name, million, second, note)
		return nil
	}
	for range o.rounds {
		for _, v := range []viewing{{"none", nobody}, {"push", pushed}} {
			if err := measure(v, o.rounds); err != nil {
				return err
			}
		}
	}
	if err := measure(viewing{"poll", polling}, 1); err != nil {
		return err
	}
	ratio := perMillion["push"] / perMillion["none"]
	o.report(ratio <= 1.3, fmt.Sprintf("ingest CPU with %d subscribers on %d queries of %d series, against none", o.subscribers, o.queries, workload.SteadyGroup), "1.3",
		"%.2f (%.3f and %.3f CPU s a million samples, means of %d); %s", ratio, perMillion["push"], perMillion["none"], o.rounds, notes["push"])
	push, poll := perSecond["push"]-perSecond["none"], perSecond["poll"]-perSecond["none"]
	o.report(push <= 0.1*poll, "CPU of pushing to that of the same viewers polling query_range every second, ingest taken off", "0.1",
		"%.3f (%.3f and %.3f cores); with ingest %.3f (%.3f and %.3f); %s", push/poll, push, poll,
		perSecond["push"]/perSecond["poll"], perSecond["push"], perSecond["poll"], notes["poll"])
	return nil
}

// viewed runs one way of looking on a server of its own.
func (o *liveOptions) viewed(ctx context.Context, v viewing) (perMillion, perSecond float64, note string, err error) {
	p, done, err := o.serve(ctx, v.name)
	if err != nil {
		return 0, 0, "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	s, err := o.stream(p.Dir, o.length+2*o.warm)
	if err != nil {
		return 0, 0, "", err
	}
	defer s.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { _, err := s.Run(gctx, p.Base); return err })
	watching, stop := context.WithDeadline(gctx, s.End().Add(-500*time.Millisecond))
	defer stop()
	g.Go(func() (err error) { note, err = v.watch(watching, o, p, s); return err })
	g.Go(func() error {
		time.Sleep(time.Until(s.Start.Add(2 * o.warm)))
		before, err := p.CPU()
		begin := time.Now()
		if err != nil {
			return err
		}
		time.Sleep(time.Until(s.End().Add(-time.Second)))
		after, err := p.CPU()
		wall := time.Since(begin).Seconds()
		perSecond = (after - before).Seconds() / wall
		perMillion = perSecond / (float64(o.series) / s.Interval.Seconds() / 1e6)
		return err
	})
	return perMillion, perSecond, note, g.Wait()
}

func nobody(ctx context.Context, _ *liveOptions, _ *peers.Process, _ *live.Stream) (string, error) {
	<-ctx.Done()
	return "nobody looks", nil
}

// liveQuery is the kth of the distinct queries.
func liveQuery(k int) string {
	return fmt.Sprintf(`sum by (region) (rate(%s{group="g%d"}[10s]))`, workload.SteadyName(k%workload.SteadyNames), k/workload.SteadyNames)
}

// steps are what came of one query: the values of each step, the same for all who have it.
type steps struct {
	mu struct {
		sync.Mutex
		values map[int64]string // by time in milliseconds: revision and values
		labels map[int]string   // by series number: the label set, as keyOf has it
		frames int
	}
}

func (q *steps) take(f *live.Frame, prev *int64) error {
	switch string(f.Type) {
	case "data":
	case "series":
		return q.name(f)
	case "ack", "heartbeat":
		return nil
	default:
		return fmt.Errorf("%w: %s", live.ErrAnswer, f.Payload)
	}
	if f.Rev == 0 {
		if *prev != 0 && f.T != *prev+1000 {
			return fmt.Errorf("%w: step %d after %d", live.ErrAnswer, f.T, *prev)
		}
		*prev = f.T
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.frames++
	got := fmt.Sprintf("%06d %s", f.Rev, f.Values)
	was, ok := q.mu.values[f.T]
	if ok && was[:6] == got[:6] && was != got {
		return fmt.Errorf("%w: step %d is %s for one and %s for another", live.ErrAnswer, f.T, was, got)
	}
	if !ok || got > was {
		q.mu.values[f.T] = got
	}
	return nil
}

// nameSeries notes the label sets that a frame gives numbers, as keyOf has them.
func nameSeries(f *live.Frame, mu *sync.Mutex, labels map[int]string) error {
	defs, err := f.Series()
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	for n, ls := range defs {
		labels[n] = keyOf(ls)
	}
	return nil
}

func (q *steps) name(f *live.Frame) error { return nameSeries(f, &q.mu.Mutex, q.mu.labels) }

// pushed subscribes, checks that all steps come in order and alike, and compares some with
// what the query API says of them.
func pushed(ctx context.Context, o *liveOptions, p *peers.Process, s *live.Stream) (string, error) {
	all := make([]steps, o.queries)
	for k := range all {
		all[k].mu.values, all[k].mu.labels = map[int64]string{}, map[int]string{}
	}
	prev := make([]int64, o.subscribers)
	time.Sleep(time.Until(s.Start.Add(o.warm)))
	crowd, err := live.Gather(ctx, strings.TrimPrefix(p.Base, "http://"), o.subscribers, func(i int) string {
		return fmt.Sprintf(`{"op":"subscribe","id":"a","step":"1s","query":%q}`, liveQuery(i%o.queries))
	}, func(i int, f *live.Frame) error { return all[i%o.queries].take(f, &prev[i]) })
	if err != nil {
		return "", err
	}
	<-ctx.Done()
	if err := crowd.Leave(); err != nil {
		return "", err
	}
	last := s.End().Add(-3 * time.Second).UnixMilli()
	frames, compared := 0, 0
	for i := range prev {
		if prev[i] < last {
			return "", fmt.Errorf("%w: subscriber %d saw nothing after %d", live.ErrAnswer, i, prev[i])
		}
	}
	for k := range all {
		frames += all[k].mu.frames
		n, err := compare(p.Base, liveQuery(k), &all[k], k)
		if err != nil {
			return "", err
		}
		compared += n
	}
	return fmt.Sprintf("%d frames in order, %d steps compared with query", frames, compared), nil
}

// compare asks the query API for one of the steps.
func compare(base, query string, q *steps, salt int) (int, error) {
	var times []int64
	for t := range q.mu.values {
		times = append(times, t)
	}
	if len(times) == 0 {
		return 0, fmt.Errorf("%w: no step of %s", live.ErrAnswer, query)
	}
	t := times[salt%len(times)]
	got, err := decode(q.mu.values[t][7:], q.mu.labels)
	if err != nil {
		return 0, err
	}
	return 1, asQuery(http.DefaultClient, base, query, t, got, 1e-12)
}

// keyOf is a text for a label set.
func keyOf(ls map[string]string) string {
	b, _ := json.Marshal(ls) // of strings; in order of name
	return string(b)
}

// decode returns the values of a step by label set.
func decode(values string, labels map[int]string) (map[string]float64, error) {
	var raw [][2]json.RawMessage
	if err := json.Unmarshal([]byte(values), &raw); err != nil {
		return nil, err
	}
	out := make(map[string]float64, len(raw))
	for _, pair := range raw {
		n, err := strconv.Atoi(string(pair[0]))
		if err != nil {
			return nil, err
		}
		v, err := strconv.ParseFloat(strings.Trim(string(pair[1]), `"`), 64)
		if err != nil {
			return nil, err
		}
		out[labels[n]] = v
	}
	return out, nil
}

// asQuery fails if the query API says something else of a step than was pushed: more than the relative error.
func asQuery(client *http.Client, base, query string, t int64, got map[string]float64, within float64) error {
	res, err := client.Get(base + "/api/v1/query?" + url.Values{"query": {query}, "time": {fmt.Sprintf("%d.%03d", t/1000, t%1000)}}.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var a struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return err
	}
	for _, r := range a.Data.Result {
		want, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return err
		}
		key := keyOf(r.Metric)
		if v, ok := got[key]; !ok || math.Abs(v-want) > within*math.Abs(want) {
			return fmt.Errorf("%w: %s at %d: %s is %v, pushed %v", live.ErrAnswer, query, t, key, want, v)
		}
	}
	if len(a.Data.Result) != len(got) {
		return fmt.Errorf("%w: %s at %d: %d series, pushed %d", live.ErrAnswer, query, t, len(a.Data.Result), len(got))
	}
	return nil
}

// pollRange is what a poll asks for: what a small graph of the last minute shows.
const pollRange = time.Minute

// polling asks query_range for every viewer every second.
func polling(ctx context.Context, o *liveOptions, p *peers.Process, s *live.Stream) (string, error) {
	time.Sleep(time.Until(s.Start.Add(o.warm)))
	until, _ := ctx.Deadline()
	conns := min(o.subscribers, 100) // each stands for several viewers, so that the load generator stays small
	results := make([]int, conns)
	g, gctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for i := range conns {
		g.Go(func() (err error) {
			results[i], err = poll(gctx, o, p.Base, i, conns, begin, until)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	n := 0
	for _, r := range results {
		n += r
	}
	return fmt.Sprintf("%.0f polls a second of %d wanted", float64(n)/time.Since(begin).Seconds(), o.subscribers), nil
}

// poll plays viewers i, i+conns, ..., each a second after the last time, or later if
// the server is slow.
func poll(ctx context.Context, o *liveOptions, base string, i, conns int, begin, until time.Time) (n int, err error) {
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}}
	defer client.CloseIdleConnections()
	every := time.Second * time.Duration(conns) / time.Duration(o.subscribers)
	for viewer := i; time.Now().Before(until); viewer += conns {
		due := begin.Add(every*time.Duration(viewer/conns) + every*time.Duration(i)/time.Duration(conns))
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		end := time.Now().Truncate(time.Second)
		v := url.Values{"query": {liveQuery(viewer % o.subscribers % o.queries)}, "step": {"1"}, "start": {strconv.FormatInt(end.Add(-pollRange).Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query_range?"+v.Encode(), nil)
		if err != nil {
			return n, err
		}
		res, err := client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return n, nil
			}
			return n, err
		}
		if err := drain(res); err != nil && ctx.Err() == nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func drain(res *http.Response) error {
	defer res.Body.Close()
	var a struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || len(a.Data.Result) == 0 {
		return fmt.Errorf("%w: %s, %d series", live.ErrAnswer, res.Status, len(a.Data.Result))
	}
	return nil
}

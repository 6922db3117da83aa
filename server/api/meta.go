package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/strandline-db/strandline/shard/model"
)

// one more than the limit is asked for, so that cutting is noticed.
func hintLimit(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

// listing is what labels and label values have in common: the union over the
// selectors, sorted, limited.
func (a *API) listing(f *form, each func(storage.Querier, *storage.LabelHints, []*labels.Matcher) ([]string, error)) (*answer, error) {
	limit, err := f.limit()
	if err != nil {
		return nil, err
	}
	start, end, err := f.span()
	if err != nil {
		return nil, err
	}
	sets, err := f.matchers(a.q.Parser())
	if err != nil {
		return nil, badData(err)
	}
	q, err := a.q.Queryable().Querier(millis(start), millis(end))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	var list []string
	for _, ms := range sets {
		part, err := each(q, &storage.LabelHints{Limit: hintLimit(limit)}, ms)
		if err != nil {
			return nil, err
		}
		list = append(list, part...)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	ans := &answer{}
	if limit > 0 && len(list) > limit {
		list = list[:limit]
		ans.notes.Add(errTruncated)
	}
	ans.data = func(e *encoder) error { return e.strings(list) }
	return ans, nil
}

func (a *API) labelNames(ctx context.Context, f *form) (*answer, error) {
	return a.listing(f, func(q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
		names, _, err := q.LabelNames(ctx, h, ms...)
		return names, err
	})
}

func (a *API) labelValues(ctx context.Context, name string, f *form) (*answer, error) {
	if strings.HasPrefix(name, "U__") {
		name = prommodel.UnescapeName(name, prommodel.ValueEncodingEscaping)
	}
	if !prommodel.UTF8Validation.IsValidLabelName(name) {
		return nil, badData(fmt.Errorf("invalid label name: %q", name))
	}
	return a.listing(f, func(q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
		vals, _, err := q.LabelValues(ctx, name, h, ms...)
		return vals, err
	})
}

func (a *API) series(ctx context.Context, f *form) (*answer, error) {
	if len(f.all("match[]")) == 0 {
		return nil, badData(errors.New("no match[] parameter provided"))
	}
	limit, err := f.limit()
	if err != nil {
		return nil, err
	}
	start, end, err := f.span()
	if err != nil {
		return nil, err
	}
	sets, err := f.matchers(a.q.Parser())
	if err != nil {
		return nil, badParam(err, "match[]")
	}
	q, err := a.q.Queryable().Querier(millis(start), millis(end))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	hints := &storage.SelectHints{Start: millis(start), End: millis(end), Func: "series", Limit: hintLimit(limit)}
	var list []labels.Labels
	for _, ms := range sets {
		set := q.Select(ctx, true, hints, ms...)
		for set.Next() {
			list = append(list, set.At().Labels())
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
	}
	if len(sets) > 1 {
		slices.SortFunc(list, labels.Compare)
		list = slices.CompactFunc(list, labels.Equal)
	}
	var notes annotations.Annotations
	if limit > 0 && len(list) > limit {
		list = list[:limit]
		notes.Add(errTruncated)
	}
	return &answer{notes: notes, expr: f.get("query"), data: func(e *encoder) error { return e.labelSets(list) }}, nil
}

func (a *API) metadata(ctx context.Context, f *form) (*answer, error) {
	limit, err := number(f, "limit")
	if err != nil {
		return nil, err
	}
	perMetric, err := number(f, "limit_per_metric")
	if err != nil {
		return nil, err
	}
	list, err := a.r.Metadata(ctx, f.get("metric"))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(x, y model.Metadata) int { return strings.Compare(x.Metric, y.Metric) })
	list = slices.Compact(list)
	return &answer{data: func(e *encoder) error { return e.metadata(list, limit, perMetric) }}, nil
}

// number returns an integer parameter; -1 if it is not given.
func number(f *form, name string) (int, error) {
	s := f.get(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, badData(fmt.Errorf("%s must be a number", name))
	}
	return n, nil
}

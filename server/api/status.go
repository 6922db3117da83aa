package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/strandline-db/strandline/query"
)

// maxTSDBLimit is Prometheus' bound on the lists of status/tsdb.
const maxTSDBLimit = 10000

// reflected is an answer whose data is small and encoded by reflection.
func reflected(v any) *answer {
	return &answer{data: func(e *encoder) error { return e.reflect(v) }}
}

func (a *API) buildInfo(context.Context, *form) (*answer, error) {
	return reflected(a.opts.Version), nil
}

func (a *API) config(context.Context, *form) (*answer, error) {
	return reflected(map[string]string{"yaml": a.opts.Config()}), nil
}

func (a *API) flags(context.Context, *form) (*answer, error) {
	flags := a.opts.Flags()
	if flags == nil {
		flags = map[string]string{}
	}
	return reflected(flags), nil
}

func (a *API) runtimeInfo(context.Context, *form) (*answer, error) {
	info, err := a.opts.Runtime()
	if err != nil {
		return nil, &query.Error{Kind: query.Internal, Err: err}
	}
	return reflected(info), nil
}

func (a *API) tsdb(_ context.Context, f *form) (*answer, error) {
	limit := 10
	if s := f.get("limit"); s != "" {
		var err error
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return nil, badData(errors.New("limit must be a positive number"))
		}
		if limit > maxTSDBLimit {
			return nil, badData(fmt.Errorf("limit must not exceed %d", maxTSDBLimit))
		}
	}
	st, err := a.opts.TSDB(limit)
	if err != nil {
		return nil, &query.Error{Kind: query.Internal, Err: err}
	}
	for _, list := range []*[]TSDBStat{
		&st.SeriesCountByMetricName, &st.LabelValueCountByLabelName,
		&st.MemoryInBytesByLabelName, &st.SeriesCountByLabelValuePair,
	} {
		if *list == nil {
			*list = []TSDBStat{}
		}
	}
	return reflected(st), nil
}

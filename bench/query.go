package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

var errQuery = errors.New("query failed")

// queryNumber evaluates expr at ms and returns its only value, 0 when there is none.
func queryNumber(ctx context.Context, base, extra, expr string, ms int64) (float64, error) {
	u := fmt.Sprintf("%s/api/v1/query?query=%s&time=%.3f%s", base, url.QueryEscape(expr), float64(ms)/1000, extra)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var body struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return 0, err
	}
	if body.Status != "success" {
		return 0, fmt.Errorf("%w: %s: %s", errQuery, res.Status, body.Error)
	}
	if len(body.Data.Result) == 0 {
		return 0, nil
	}
	text, ok := body.Data.Result[0].Value[1].(string)
	if !ok {
		return 0, fmt.Errorf("%w: value %v", errQuery, body.Data.Result[0].Value)
	}
	return strconv.ParseFloat(text, 64)
}

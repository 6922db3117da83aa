// Package apifuzz fuzzes the query API's handlers. It stands apart from their other
// tests because those pull in all of upstream's web API, which takes minutes to
// instrument.
package apifuzz

import (
	"net/http"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/api"
)

// FuzzForm: no argument of a request makes a handler panic or answer 500.
func FuzzForm(f *testing.F) {
	f.Add("query", "query=up&time=1e300&timeout=-1", "limit=5")
	f.Add("query_range", "query=up&start=-1e18&end=1e18&step=1e-9", "")
	f.Add("series", "match[]={a=~\"(\"}&start=NaN", "match[]=up")
	f.Add("label/U__x_/values", "limit=99999999999999999999", "%zz")
	s := querytest.New()
	e, err := query.New(s, &query.Options{MaxSamples: 10_000})
	if err != nil {
		f.Fatal(err)
	}
	a := api.New(s, e, nil)
	f.Fuzz(func(t *testing.T, path, args, form string) {
		var rc fasthttp.RequestCtx
		var req fasthttp.Request
		req.SetRequestURI("/api/v1/" + path + "?" + args)
		if form != "" {
			req.Header.SetMethod("POST")
			req.Header.SetContentType("application/x-www-form-urlencoded")
			req.SetBodyString(form)
		}
		req.CopyTo(&rc.Request)
		if a.Handle(&rc) && rc.Response.StatusCode() == http.StatusInternalServerError {
			t.Errorf("%s", rc.Response.Body())
		}
	})
}

package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// answers serves one canned answer and notes the last request.
func answers(t *testing.T, status int, body string) (*httptest.Server, *http.Request) {
	last := &http.Request{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		*last = *r
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv, last
}

const matrix = `{"status":"success","data":{"resultType":"matrix","result":[
{"metric":{"__name__":"up","job":"a\"b"},"values":[[1000,"1"],[1015.5,"NaN"]]},
{"metric":{},"histograms":[[1000,{"count":"2","sum":"3"}]]}]}}`

func TestQueryFormats(t *testing.T) {
	for format, want := range map[string]string{
		"table": "SERIES          TIME                      VALUE\n" +
			"up{job=\"a\\\"b\"}  1970-01-01T00:16:40.000Z  1\n" +
			"up{job=\"a\\\"b\"}  1970-01-01T00:16:55.500Z  NaN\n" +
			"{}              1970-01-01T00:16:40.000Z  {\"count\":\"2\",\"sum\":\"3\"}\n",
		"csv": "series,time,value\n" +
			"\"up{job=\"\"a\\\"\"b\"\"}\",1970-01-01T00:16:40.000Z,1\n" +
			"\"up{job=\"\"a\\\"\"b\"\"}\",1970-01-01T00:16:55.500Z,NaN\n" +
			"{},1970-01-01T00:16:40.000Z,\"{\"\"count\"\":\"\"2\"\",\"\"sum\"\":\"\"3\"\"}\"\n",
	} {
		srv, last := answers(t, 200, matrix)
		var out bytes.Buffer
		f := &queryFlags{server: srv.URL + "/", format: format, at: "1970-01-01T00:20:00Z", over: "5m", step: "15s"}
		if err := runQuery(t.Context(), f, "up", &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, out.String(), want)
		}
		got := last.URL.Path + "?" + last.PostForm.Encode()
		if got != "/api/v1/query_range?end=1200.000&query=up&start=900.000&step=15" {
			t.Errorf("asked %s", got)
		}
	}
}

func TestQueryInstant(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("tok\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, last := answers(t, 200, `{"status":"success","data":{"resultType":"scalar","result":[7,"2"]}}`)
	var out bytes.Buffer
	f := &queryFlags{server: srv.URL, token: token, format: "csv", at: "7"}
	if err := runQuery(t.Context(), f, "2", &out); err != nil {
		t.Fatal(err)
	}
	if want := "series,time,value\nscalar,1970-01-01T00:00:07.000Z,2\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
	if last.URL.Path != "/api/v1/query" || last.PostForm.Get("time") != "7.000" || last.Header.Get("Authorization") != "Bearer tok" {
		t.Errorf("asked %s %v %v", last.URL, last.PostForm, last.Header)
	}
}

func TestQueryFaults(t *testing.T) {
	srv, _ := answers(t, 400, `{"status":"error","errorType":"bad_data","error":"no"}`)
	if err := runQuery(t.Context(), &queryFlags{server: srv.URL, format: "json"}, "(", &bytes.Buffer{}); !errors.Is(err, errAnswer) {
		t.Errorf("got %v", err)
	}
	if err := runQuery(t.Context(), &queryFlags{server: srv.URL, format: "xml"}, "1", &bytes.Buffer{}); !errors.Is(err, errFormat) {
		t.Errorf("got %v", err)
	}
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestMetadataUnheard: a node that does not hear the metadata's leader, which the third one
// does, refuses reads of metadata that must be fresh, and says when to ask again; it answers
// all others, and these again when it hears the leader.
func TestMetadataUnheard(t *testing.T) {
	c, m := behindProxies(t, 21)
	leader, deaf, third := -1, -1, -1
	link := func(stalled bool) {
		a, b := fmt.Sprintf("n%d", leader+1), fmt.Sprintf("n%d", deaf+1)
		m.set(func() {
			m.mu.rules[[2]string{a, b}] = linkRule{stall: [2]bool{stalled, stalled}}
			m.mu.rules[[2]string{b, a}] = linkRule{stall: [2]bool{stalled, stalled}}
		})
	}
	t.Cleanup(func() { link(false) })
	deafen := func() error { // again if another leads by now: leaders are spread at times
		now := slices.IndexFunc(c.nodes[:], func(s *strandline) bool { return leadsMetadata(t.Context(), s.base) })
		switch {
		case now < 0:
			return errors.New("none leads the metadata")
		case now == leader:
			return nil
		case leader >= 0:
			link(false)
		}
		leader, deaf, third = now, (now+1)%3, (now+2)%3
		link(true)
		return nil
	}
	for _, level := range []string{"leader", "linearizable"} {
		await(t, "a refusal at level "+level, func() error {
			if err := deafen(); err != nil {
				return err
			}
			return metadataAnswers(c.nodes[deaf].base, level, http.StatusServiceUnavailable)
		})
		await(t, "an answer of another node", func() error { return metadataAnswers(c.nodes[third].base, level, http.StatusOK) })
	}
	if err := metadataAnswers(c.nodes[deaf].base, "stale", http.StatusOK); err != nil {
		t.Error(err)
	}
	await(t, "samples there", func() error {
		return getJSON(t.Context(), c.nodes[deaf].base+"/api/v1/query?query=up&consistency=linearizable", &struct{}{})
	})
	link(false)
	await(t, "an answer when the leader is heard", func() error { return metadataAnswers(c.nodes[deaf].base, "linearizable", http.StatusOK) })
	for i := range c.nodes {
		c.nodes[i].terminate(t)
	}
}

// leadsMetadata tells whether a node leads the metadata, as far as it knows.
func leadsMetadata(ctx context.Context, base string) bool {
	var s struct {
		Groups []struct {
			Group string
			Leads bool
		}
	}
	err := getJSON(ctx, base+"/api/v1/cluster/status", &s)
	for _, g := range s.Groups {
		if err == nil && g.Group == "metadata" && g.Leads {
			return true
		}
	}
	return false
}

// metadataAnswers returns nil if a node answers a read of metadata with a status; with 503,
// if it says why, and when to ask again.
func metadataAnswers(base, level string, status int) error {
	res, err := http.Get(base + "/api/v1/metadata?consistency=" + level)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var a struct{ Status, ErrorType, Error string }
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return err
	}
	if res.StatusCode != status {
		return fmt.Errorf("%s: %+v", res.Status, a)
	}
	if status == http.StatusOK {
		return nil
	}
	if after := res.Header.Get("Retry-After"); after != "1" || a.ErrorType != "unavailable" || !strings.Contains(a.Error, "the leader of the metadata has not been heard of") {
		return fmt.Errorf("%s, Retry-After %q: %+v", res.Status, after, a)
	}
	return nil
}

package e2e

import (
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
	var leader, deaf, third int
	await(t, "a leader of the metadata", func() error {
		var s struct {
			Groups []struct{ Group, Leader string }
		}
		if err := getJSON(t.Context(), c.nodes[0].base+"/api/v1/cluster/status", &s); err != nil {
			return err
		}
		for _, g := range s.Groups {
			if name, _, _ := strings.Cut(g.Leader, "@"); g.Group == "metadata" && name != "" {
				leader = slices.Index([]string{"n1", "n2", "n3"}, name)
				deaf, third = (leader+1)%3, (leader+2)%3
				return nil
			}
		}
		return errors.New("none is known")
	})
	link := func(stalled bool) {
		a, b := fmt.Sprintf("n%d", leader+1), fmt.Sprintf("n%d", deaf+1)
		m.set(func() {
			m.mu.rules[[2]string{a, b}] = linkRule{stall: [2]bool{stalled, stalled}}
			m.mu.rules[[2]string{b, a}] = linkRule{stall: [2]bool{stalled, stalled}}
		})
	}
	t.Cleanup(func() { link(false) })
	link(true)
	for _, level := range []string{"leader", "linearizable"} {
		await(t, "a refusal at level "+level, func() error { return metadataAnswers(c.nodes[deaf].base, level, http.StatusServiceUnavailable) })
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

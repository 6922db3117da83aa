package cluster

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
)

// configured is a configuration of a group, encoded, and the entry that brought it.
type configured struct {
	index uint64
	data  []byte
}

func (c *configured) servers() []raft.Server { return raft.DecodeConfiguration(c.data).Servers }

// majority tells whether those voters are one that are.
func (c *configured) majority(are func(raft.ServerID) bool) bool {
	voters, n := 0, 0
	for _, s := range c.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if are(s.ID) {
			n++
		}
	}
	return n > voters/2
}

// newestConfigurations returns, of what a log holds, the newest configuration that is known to
// be committed, and the one behind it if there is one: a leader changes the members only
// when the last change is committed, so that all but the newest in any log are.
func newestConfigurations(at *engine.Mark, logged []configured, commit uint64) []configured {
	var out []configured
	if len(at.Configuration) > 0 {
		out = append(out, configured{at.ConfigurationIndex, at.Configuration})
	}
	for _, c := range logged {
		if c.index > at.Applied { // others the mark has, or they were overruled
			out = append(out, c)
		}
	}
	for len(out) > 1 && (len(out) > 2 || out[1].index <= commit) {
		out = out[1:]
	}
	return out
}

// members returns the newest configuration that the log here has of a group, and whether it is
// known to be committed. The future of Raft's own GetConfiguration has 0 for the index (as of
// v1.7.3), which a change of the members takes for any.
func (g *group) members() (c configured, committed bool) {
	at, _ := g.machine.mark()
	commit := max(g.raft.CommitIndex(), at.Applied)
	cs := newestConfigurations(&at, g.store.configurations.get(), commit)
	if len(cs) == 0 {
		return c, false
	}
	c = cs[len(cs)-1]
	return c, c.index <= commit
}

// loggedKept is how many configurations are remembered: one that may be overruled, and those
// that are the newest then.
const loggedKept = 4

// loggedConfigurations are the newest ones in a group's log, as Raft writes and reads it.
type loggedConfigurations struct {
	mu struct {
		sync.Mutex
		list []configured // ascending
	}
}

// note takes the configurations among entries that are in the log now.
func (l *loggedConfigurations) note(entries ...*raft.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			l.cutLocked(e.Index)
			l.mu.list = append(l.mu.list, configured{e.Index, slices.Clone(e.Data)})
			l.mu.list = l.mu.list[max(0, len(l.mu.list)-loggedKept):]
		}
	}
}

// cut drops those from an entry on.
func (l *loggedConfigurations) cut(first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutLocked(first)
}

func (l *loggedConfigurations) cutLocked(first uint64) {
	l.mu.list = slices.DeleteFunc(l.mu.list, func(c configured) bool { return c.index >= first })
}

func (l *loggedConfigurations) get() []configured {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.list)
}

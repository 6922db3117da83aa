package cluster

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLog passes Raft's messages to slog, quieter than Raft rates them: what is an
// error to each of many groups is one node that is away, of which status tells.
type raftLog struct {
	hclog.Logger // what Raft does not call
	to           *slog.Logger
}

func newRaftLog(to *slog.Logger) hclog.Logger { return &raftLog{hclog.NewNullLogger(), to} }

func (l *raftLog) log(level slog.Level, msg string, args []any) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
	}
	l.to.Log(context.Background(), level, "raft: "+msg, args...)
}

// Debug implements hclog.Logger.
func (l *raftLog) Debug(msg string, args ...any) { l.log(slog.LevelDebug-4, msg, args) }

// Info implements hclog.Logger.
func (l *raftLog) Info(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// Warn implements hclog.Logger.
func (l *raftLog) Warn(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// Error implements hclog.Logger.
func (l *raftLog) Error(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// With implements hclog.Logger.
func (l *raftLog) With(args ...any) hclog.Logger { return &raftLog{l.Logger, l.to.With(args...)} }

// Named implements hclog.Logger.
func (l *raftLog) Named(string) hclog.Logger { return l }

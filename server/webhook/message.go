package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// Store keeps small records durably; in a cluster, the same on every node. Its methods
// are called concurrently.
type Store interface {
	// ChangeRecords makes all changes or, if a guard does not hold, none: model.ErrConflict.
	ChangeRecords(context.Context, *model.RecordChange) error
	// Records returns those whose key has the prefix, sorted by key.
	Records(prefix string) []model.Record
}

// Target is where a subscription's messages go.
type Target struct {
	URL    string
	Secret string // empty: messages are not signed
}

// Targets finds the target of a subscription. Called concurrently.
type Targets interface {
	// Target reports false for a subscription that is no more: its messages go.
	Target(subscription string) (Target, bool)
}

// Prefix is before the key of each message: then follow the subscription's id, a slash
// and the sequence number as 16 hex digits, so that messages sort by age.
const Prefix = "webhook/out/"

// MaxBody is the largest body of a message, in bytes.
const MaxBody = 128 << 10

// Message is what is to be delivered.
type Message struct {
	Subscription string // without a slash
	Sequence     uint64 // from 1, one more for each message of the subscription
	Created      time.Time
	Body         []byte // JSON
}

// ID names the message; a receiver that has seen it need not look again.
func (m *Message) ID() string { return fmt.Sprintf("%s-%d", m.Subscription, m.Sequence) }

func (m *Message) key() string {
	return fmt.Sprintf("%s%s/%016x", Prefix, m.Subscription, m.Sequence)
}

// stored is the record's JSON.
type stored struct {
	Created time.Time       `json:"created"`
	Body    json.RawMessage `json:"body"`
}

// Put returns the change that queues the message, to be made together with what it
// tells of. Then the dispatcher is to be woken.
func (m *Message) Put() (model.Change, error) {
	if len(m.Body) > MaxBody {
		return model.Change{}, fmt.Errorf("%w: its body of %d bytes is larger than %d", ErrBadMessage, len(m.Body), MaxBody)
	}
	v, err := json.Marshal(stored{m.Created, m.Body})
	return model.Change{Key: m.key(), Value: v}, err
}

// Queued returns the records of a subscription's messages, the oldest first.
func Queued(s Store, subscription string) []model.Record {
	return s.Records(Prefix + subscription + "/")
}

// messageOf reads a record.
func messageOf(r *model.Record) (m Message, err error) {
	sub, seq, ok := strings.Cut(strings.TrimPrefix(r.Key, Prefix), "/")
	if !ok {
		return m, fmt.Errorf("%w: key %q", ErrBadMessage, r.Key)
	}
	if _, err := fmt.Sscanf(seq, "%016x", &m.Sequence); err != nil {
		return m, fmt.Errorf("%w: key %q", ErrBadMessage, r.Key)
	}
	var v stored
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return m, fmt.Errorf("%w: %w", ErrBadMessage, err)
	}
	m.Subscription, m.Created, m.Body = sub, v.Created, v.Body
	return m, nil
}

package cluster

import (
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// TestDamagedIdentity: whatever is wrong with the file, the error says what to do.
func TestDamagedIdentity(t *testing.T) {
	for _, raw := range []string{
		"", `{`, `{"version":1,"name":"n1","incarnation":"a"`, `{"version":3,"name":"n1","incarnation":"a"}`, `{"wersion":1,"name":"n1","incarnation":"a"}`,
		`{"version":1,"name":"n3","incarnation":"a"}`, `{"version":1,"oame":"n1","incarnation":"a"}`, `{"version":1,"name":"n1","incarnation":7}`,
		strings.Replace(string(vfs.Seal([]byte(`{"version":1,"name":"n1","incarnation":"a","groups":{"65536":"voter"}}`))), "65536", "75536", 1),
	} {
		o := &Options{Name: "n1", Dir: t.TempDir(), FS: vfs.OS{}}
		file := filepath.Join(o.Dir, identityName)
		if err := vfs.WriteFile(o.FS, file, []byte(raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(o); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "empty the whole folder") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// TestIdentityWhileWritten: who asks for the identity does not wait for the disk.
func TestIdentityWhileWritten(t *testing.T) {
	var slow atomic.Bool
	writing, disk := make(chan struct{}), make(chan struct{})
	o := &Options{Name: "n1", Dir: t.TempDir(), FS: vfs.NewFault(vfs.OS{}, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && slow.Load() {
			close(writing)
			<-disk
		}
		return nil
	})}
	id, err := loadIdentity(o)
	if err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	changed := make(chan error, 1)
	go func() { changed <- id.setGroup(1, voter) }()
	<-writing
	if s := id.get(); s.Groups[1] != "" {
		t.Errorf("what is not durable yet is told: %+v", s)
	}
	close(disk)
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	if s := id.get(); s.Groups[1] != voter {
		t.Errorf("%+v", s)
	}
}

// TestWelcomeTLS: a node without certificates says what one that has some may be about.
func TestWelcomeTLS(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		_ = tls.Client(there, &tls.Config{ServerName: "n1"}).Handshake()
	}()
	if _, err := (&identity{}).welcome(here); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "cluster-tls-cert") {
		t.Errorf("%v", err)
	}
}

package vfs

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

// TestSeal: a sealed object reads as before, and no byte of it can change unnoticed, but in the
// name of the seal.
func TestSeal(t *testing.T) {
	type object struct {
		A int               `json:"a"`
		B map[string]string `json:"b"`
	}
	want := object{7, map[string]string{"x": "}", "y": "\n"}}
	for _, indent := range []string{"", "  "} {
		b, err := json.MarshalIndent(&want, "", indent)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckSeal(b); err != nil {
			t.Errorf("without a seal: %v", err)
		}
		sealed := Seal(append(b, '\n'))
		read := func(b []byte) (got object, err error) {
			if err := CheckSeal(b); err != nil {
				return got, err
			}
			return got, json.Unmarshal(b, &got)
		}
		if got, err := read(sealed); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %+v, %v", sealed, got, err)
		}
		for i := range sealed {
			for bit := range 8 {
				x := append([]byte(nil), sealed...)
				x[i] ^= 1 << bit
				if got, err := read(x); err == nil && !reflect.DeepEqual(got, want) {
					t.Errorf("%s reads as %+v", x, got)
				}
			}
		}
		if err := CheckSeal(append(sealed, ' ')); !errors.Is(err, ErrSeal) {
			t.Errorf("with more behind it: %v", err)
		}
	}
}

package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Errors that Parse wraps; each message names the key and its line.
var (
	// ErrUnknownKey: the file has a key that no setting is called.
	ErrUnknownKey = errors.New("unknown key")
	// ErrBadValue: a value can't be read as its setting's kind, or a key is repeated.
	ErrBadValue = errors.New("bad value")
)

// Setting describes one setting: a flag and YAML key of the same name.
type Setting struct {
	Name, Default, Help string
	Reloadable          bool // takes effect on SIGHUP
	check               func(string) error
}

// Settings returns the table of all settings, in the order of documentation.
func Settings() []Setting {
	return []Setting{
		{"data", "./data", "folder of the data", false, notEmpty},
		{"listen", "127.0.0.1:9595", "host and port to listen on", false, hostPort},
		{"log-level", "info", "least level to log: debug, info, warn or error", true, level},
		{"retention", "9480h", "age at which samples are dropped (0: keep for ever)", true, duration},
		{"self-scrape-interval", "15s", "how often the server stores its own metrics (0: never)", false, duration},
	}
}

// Values maps the names of settings to what a file gives for them.
type Values map[string]string

// Parse reads a YAML mapping of setting names to scalars. It reports every
// fault at once, each with key and line, wrapping ErrUnknownKey or ErrBadValue.
func Parse(data []byte) (Values, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadValue, err)
	}
	vals := Values{}
	if len(doc.Content) == 0 {
		return vals, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %w: want a mapping of keys to values", root.Line, ErrBadValue)
	}
	table := map[string]Setting{}
	for _, s := range Settings() {
		table[s.Name] = s
	}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		s, known := table[k.Value]
		_, seen := vals[k.Value]
		switch {
		case !known:
			errs = append(errs, fmt.Errorf("line %d: %w %q", k.Line, ErrUnknownKey, k.Value))
		case seen:
			errs = append(errs, fmt.Errorf("line %d: %s: %w: key is repeated", k.Line, k.Value, ErrBadValue))
		case v.Kind != yaml.ScalarNode:
			errs = append(errs, fmt.Errorf("line %d: %s: %w: want a single value", v.Line, k.Value, ErrBadValue))
		default:
			vals[k.Value] = v.Value
			if err := s.check(v.Value); err != nil {
				errs = append(errs, fmt.Errorf("line %d: %s: %w: %w", v.Line, k.Value, ErrBadValue, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return vals, nil
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return err
}

func level(s string) error {
	switch s {
	case "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("%q is not debug, info, warn or error", s)
}

func duration(s string) error {
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = errors.New("must not be negative")
	}
	return err
}

package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strandline-db/strandline/server/auth"
)

// parse reads a YAML mapping into c and returns every fault with key and line.
func (c *Config) parse(data []byte) []error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return []error{fmt.Errorf("%w: %w", ErrBadValue, err)}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	table := map[string]func(*yaml.Node) []error{}
	for _, s := range Settings() {
		if !s.FileOnly {
			table[s.Name] = c.scalar(s)
		}
	}
	table["users"] = func(n *yaml.Node) []error {
		return list(n, "users", func(m map[string]string) {
			c.Users = append(c.Users, auth.User{Name: m["name"], Hash: m["password-hash"], Role: auth.Role(m["role"])})
		}, "name", "password-hash", "role")
	}
	table["tokens"] = func(n *yaml.Node) []error {
		return list(n, "tokens", func(m map[string]string) {
			c.Tokens = append(c.Tokens, auth.Token{Name: m["name"], Hash: m["sha256"], Role: auth.Role(m["role"])})
		}, "name", "sha256", "role")
	}
	table["slo"] = c.objectives
	return mapping(doc.Content[0], "", table)
}

// mapping hands each value of a YAML mapping to the function of its key.
func mapping(n *yaml.Node, where string, table map[string]func(*yaml.Node) []error) (errs []error) {
	if n.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("line %d: %s%w: want a mapping of keys to values", n.Line, where, ErrBadValue)}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		read, known := table[k.Value]
		switch {
		case !known:
			errs = append(errs, fmt.Errorf("line %d: %s%w %q", k.Line, where, ErrUnknownKey, k.Value))
		case seen[k.Value]:
			errs = append(errs, fmt.Errorf("line %d: %s%s: %w: key is repeated", k.Line, where, k.Value, ErrBadValue))
		default:
			seen[k.Value] = true
			errs = append(errs, read(v)...)
		}
	}
	return errs
}

func (c *Config) scalar(s Setting) func(*yaml.Node) []error {
	return func(n *yaml.Node) []error {
		value := n.Value
		if n.Tag == "!!null" { // as which a key without a value is read, and ~
			value = ""
		}
		if s.List && n.Kind == yaml.SequenceNode {
			var ok bool
			if value, ok = joined(n); !ok {
				return []error{fmt.Errorf("line %d: %s: %w: want a list of single values without commas", n.Line, s.Name, ErrBadValue)}
			}
		} else if n.Kind != yaml.ScalarNode {
			return []error{fmt.Errorf("line %d: %s: %w: want a single value", n.Line, s.Name, ErrBadValue)}
		}
		if err := c.set(&s, value); err != nil {
			return []error{fmt.Errorf("line %d: %s: %w", n.Line, s.Name, err)}
		}
		return nil
	}
}

// joined writes a YAML list as the flag has it.
func joined(n *yaml.Node) (string, bool) {
	var items []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Value == "" || strings.Contains(item.Value, ",") {
			return "", false
		}
		items = append(items, item.Value)
	}
	return strings.Join(items, ","), true
}

// list reads a YAML list of mappings that have exactly the given keys. Values
// stay out of the errors: they may be secret.
func list(n *yaml.Node, name string, add func(map[string]string), keys ...string) (errs []error) {
	if n.Kind != yaml.SequenceNode {
		return []error{fmt.Errorf("line %d: %s: %w: want a list", n.Line, name, ErrBadValue)}
	}
	for _, item := range n.Content {
		got := map[string]string{}
		table := map[string]func(*yaml.Node) []error{}
		for _, k := range keys {
			table[k] = func(v *yaml.Node) []error {
				if v.Kind != yaml.ScalarNode || v.Value == "" {
					return []error{fmt.Errorf("line %d: %s: %s: %w: want a single value", v.Line, name, k, ErrBadValue)}
				}
				got[k] = v.Value
				return nil
			}
		}
		faults := mapping(item, name+": ", table)
		for _, k := range keys {
			if len(faults) == 0 && got[k] == "" {
				faults = append(faults, fmt.Errorf("line %d: %s: %w: %s is missing", item.Line, name, ErrBadValue, k))
			}
		}
		if len(faults) == 0 {
			add(got)
		}
		errs = append(errs, faults...)
	}
	return errs
}

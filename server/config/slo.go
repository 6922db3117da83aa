package config

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/strandline-db/strandline/server/slo"
)

// objectives reads the list of objectives; each fault names its key and line.
func (c *Config) objectives(n *yaml.Node) (errs []error) {
	if n.Kind != yaml.SequenceNode {
		return []error{fmt.Errorf("line %d: slo: %w: want a list", n.Line, ErrBadValue)}
	}
	p := parser.NewParser(parser.Options{})
	names := map[string]bool{}
	for _, item := range n.Content {
		o, lines, faults := objective(item)
		errs = append(errs, faults...)
		if len(faults) > 0 {
			continue
		}
		all := o.Validate(p)
		if names[o.Name] {
			all = append(all, slo.Fault{Key: "name", Err: fmt.Errorf("%q is there already", o.Name)})
		}
		names[o.Name] = true
		for _, f := range all {
			line, ok := lines[f.Key]
			if !ok {
				line = item.Line
			}
			errs = append(errs, fmt.Errorf("line %d: slo: %s: %w: %w", line, f.Key, ErrBadValue, f.Err))
		}
		c.Objectives = append(c.Objectives, o)
	}
	return errs
}

// objective reads one objective and where its keys stand.
func objective(item *yaml.Node) (o slo.Objective, lines map[string]int, errs []error) {
	lines = map[string]int{}
	o.Labels = map[string]string{}
	key := func(name string, set func(string) error) func(*yaml.Node) []error {
		return func(v *yaml.Node) []error {
			lines[name] = v.Line
			err := ErrBadValue
			if v.Kind == yaml.ScalarNode {
				if err := set(v.Value); err == nil {
					return nil
				}
			}
			return []error{fmt.Errorf("line %d: slo: %s: %w: %q can't be read", v.Line, name, err, v.Value)}
		}
	}
	text := func(to *string) func(string) error { return func(s string) error { *to = s; return nil } }
	faults := mapping(item, "slo: ", map[string]func(*yaml.Node) []error{
		"name": key("name", text(&o.Name)), "good": key("good", text(&o.Good)), "total": key("total", text(&o.Total)),
		"error-ratio": key("error-ratio", text(&o.ErrorRatio)),
		"target": key("target", func(s string) (err error) {
			o.Target, err = strconv.ParseFloat(s, 64)
			return err
		}),
		"window": key("window", func(s string) error {
			d, err := model.ParseDuration(s)
			o.Window = time.Duration(d)
			return err
		}),
		"labels": func(v *yaml.Node) []error {
			lines["labels"] = v.Line
			if err := v.Decode(&o.Labels); err != nil {
				return []error{fmt.Errorf("line %d: slo: labels: %w: want a mapping of names to values", v.Line, ErrBadValue)}
			}
			return nil
		},
	})
	return o, lines, faults
}

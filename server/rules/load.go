package rules

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// Defaults are what a group has that names no interval or offset.
type Defaults struct {
	Interval, Offset time.Duration
}

// Load reads the rule files that match the patterns (filepath.Glob). A pattern
// without a wildcard must name a file. Every fault is reported, wrapping ErrBadRules
// and naming file and line.
func Load(patterns []string, p parser.Parser, d Defaults) ([]GroupSpec, error) {
	files, errs := expandPatterns(patterns)
	var groups []GroupSpec
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", ErrBadRules, err))
			continue
		}
		g, err := Parse(f, data, p, d)
		groups = append(groups, g...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return groups, nil
}

func expandPatterns(patterns []string) (files []string, errs []error) {
	for _, pat := range patterns {
		list, err := filepath.Glob(pat)
		if err == nil && len(list) == 0 && !wildcard.MatchString(pat) {
			_, err = os.Stat(pat)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %q: %w", ErrBadRules, pat, err))
		}
		files = append(files, list...)
	}
	slices.Sort(files)
	return slices.Compact(files), errs
}

var (
	wildcard = regexp.MustCompile(`[*?\[]`)
	// position is how rulefmt begins a message that knows its place; yaml says "line N".
	position = regexp.MustCompile(`^(\d+):(\d+): `)
	yamlLine = regexp.MustCompile(`line (\d+)`)
)

// Parse reads one rule file. Every fault is reported, wrapping ErrBadRules and
// naming file and line.
func Parse(file string, data []byte, p parser.Parser, d Defaults) ([]GroupSpec, error) {
	parsed, faults := rulefmt.Parse(data, false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		errs := make([]error, 0, len(faults))
		for _, err := range faults {
			errs = append(errs, located(file, data, err))
		}
		return nil, errors.Join(errs...)
	}
	return Specs(file, parsed, p, d)
}

// Specs reads groups that were parsed or made elsewhere; file names where they come
// from. The groups must be valid. Faults wrap ErrBadRules.
func Specs(file string, parsed *rulefmt.RuleGroups, p parser.Parser, d Defaults) ([]GroupSpec, error) {
	var groups []GroupSpec
	var errs []error
	for _, rg := range parsed.Groups {
		g := GroupSpec{Name: rg.Name, File: file, Interval: time.Duration(rg.Interval), Offset: d.Offset, Limit: rg.Limit}
		if g.Interval == 0 {
			g.Interval = d.Interval
		}
		if rg.QueryOffset != nil {
			g.Offset = time.Duration(*rg.QueryOffset)
		}
		for _, r := range rg.Rules {
			s, err := specOf(&rg, &r, p)
			if err != nil {
				errs = append(errs, fmt.Errorf("%w: %s: group %q: %w", ErrBadRules, file, rg.Name, err))
				continue
			}
			g.Rules = append(g.Rules, s)
		}
		groups = append(groups, g)
	}
	return groups, errors.Join(errs...)
}

func specOf(rg *rulefmt.RuleGroup, r *rulefmt.Rule, p parser.Parser) (Spec, error) {
	expr, err := p.ParseExpr(r.Expr)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Name: r.Record, Query: expr.String(), Labels: merge(rg.Labels, r.Labels)}
	if r.Alert != "" {
		s.Name, s.Alerting = r.Alert, true
		s.For, s.KeepFiringFor = time.Duration(r.For), time.Duration(r.KeepFiringFor)
		s.Annotations = labels.FromMap(r.Annotations)
	}
	return s, nil
}

// located adds the place to a fault of rulefmt, as "file:line: ", with as much as is known.
// rulefmt leaves it out where a label or a template is at fault: then it is that of the
// rule; and says 0:0 of a group whose name is missing or repeated.
func located(file string, data []byte, err error) error {
	text := err.Error()
	line := 0
	if rest, ok := strings.CutPrefix(text, "0:0: "); ok {
		text, line = rest, groupLine(data)
	} else if position.MatchString(text) {
		return fmt.Errorf("%w: %s:%w", ErrBadRules, file, err) // the message goes on with line:column
	} else if m := yamlLine.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%w: %s:%s: %w", ErrBadRules, file, m[1], err)
	} else if e, ok := errors.AsType[*rulefmt.Error](err); ok {
		line = ruleLine(data, e.Group, e.Rule)
	}
	if line == 0 {
		return fmt.Errorf("%w: %s: %s", ErrBadRules, file, text)
	}
	return fmt.Errorf("%w: %s:%d: %s", ErrBadRules, file, line, text)
}

// groupNode is a group as far as places need it.
type groupNode struct {
	Name  yaml.Node   `yaml:"name"`
	Rules []yaml.Node `yaml:"rules"`
}

func groupNodes(data []byte) []groupNode {
	var doc struct {
		Groups []groupNode `yaml:"groups"`
	}
	if yaml.Unmarshal(data, &doc) != nil {
		return nil
	}
	return doc.Groups
}

// groupLine finds the first group whose name is empty or was there before.
func groupLine(data []byte) int {
	seen := map[string]bool{"": true}
	for _, g := range groupNodes(data) {
		if seen[g.Name.Value] {
			return g.Name.Line
		}
		seen[g.Name.Value] = true
	}
	return 0
}

// ruleLine finds the nth rule, from 1, of a group.
func ruleLine(data []byte, group string, n int) int {
	for _, g := range groupNodes(data) {
		if g.Name.Value == group && n >= 1 && n <= len(g.Rules) {
			return g.Rules[n-1].Line
		}
	}
	return 0
}

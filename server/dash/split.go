package dash

import "strings"

// split cuts a list at its commas, except those inside braces or quotes, and trims
// spaces. Inside " and ' a backslash takes the next byte with it, as in PromQL. What
// is not closed runs to the end: its parser will say so.
func split(list string) []string {
	var out []string
	depth, quote, start := 0, byte(0), 0
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case quote != 0:
			if c == '\\' && quote != '`' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
	}
	return append(out, strings.TrimSpace(list[start:]))
}

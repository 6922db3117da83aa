// Package selector reads what may stand where an endpoint takes the name of a metric: the
// name, or a plain selector. In comes text; out goes a selector of PromQL, or an
// error that says what the text is not. The functions are safe for concurrent use.
package selector

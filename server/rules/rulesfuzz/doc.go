// Package rulesfuzz holds the fuzz target of rule files, apart from the other tests of
// package rules: those import upstream's rule manager, and building all of that for
// fuzzing takes minutes. It has no other code.
package rulesfuzz

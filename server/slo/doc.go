// Package slo turns service level objectives into Prometheus rules, and tells how they
// stand: recording rules of error ratios, burn rates and the budget left, and alerts
// on several windows and burn rates, as chapter 5 of Google's Site Reliability
// Workbook describes them. SLO.md describes configuration, rules and the answer of
// /api/v1/slo.
//
// In come objectives, which the config reads; out go rulefmt groups for whoever
// evaluates rules, and JSON. The state shown comes from the recorded series, so that
// every node of a cluster shows the same; where nothing has been recorded yet, from
// the rules' own expressions.
//
// An Objective is not changed once it was validated. An API is safe for concurrent
// use; Close joins what it computes.
package slo

// Package alertmanager tells alerts to Alertmanagers, over version 2 of their API.
//
// In come alerts, which are queued for each Alertmanager and posted in batches; an
// attempt that fails is repeated a few times with growing pauses. Nothing is kept
// across a restart: whoever sends tells an alert again as long as it fires, and
// its end time makes an Alertmanager that hears nothing take it as resolved.
//
// A Sender is safe for concurrent use. It follows no redirect, uses no proxy from the
// environment, and never logs a body or a password.
package alertmanager

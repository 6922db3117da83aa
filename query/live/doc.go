// Package live evaluates PromQL as it is subscribed to.
//
// In come requests and, through model.Feeder, samples as they are applied; out go
// events: steps, the label sets that they use, and what could not be delivered. A Hub
// has one evaluation for each distinct normalised query and step; a Subscription is a
// cursor into the ring of its events.
package live

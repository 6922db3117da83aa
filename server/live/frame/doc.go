// Package frame holds the JSON frames of live queries as Go values: what a client
// sends (Request) and what it gets (Frame). server/LIVE.md describes them. Requests
// are decoded strictly, since a misspelt field would be ignored in silence; frames
// leniently, so that older clients live with newer servers. Values own their memory.
package frame

// Command bench measures strandline beside its peers on the same remote-write bodies.
//
//	go run ./bench ingest [--quick] [--set FILE] [--save NAME]   CPU, memory, disk and rate of taking writes
//	go run ./bench replay [--samples N]                          readiness and memory after SIGKILL
//	go run ./bench cluster                                       three nodes: CPU, fsyncs, latency, failing over
//	go run ./bench live [--only realtime,...]                    pushing and polling under ingest
//	go run ./bench pair                                          disk that a pair of senders takes, before and after merges
//
// Results that are kept lie in bench/results, each with the command that made it.
package main

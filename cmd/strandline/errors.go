package main

import "errors"

// Errors that end a command with exit code 1.
var (
	// errStorage: the storage has stopped while serving, because a write or sync of it failed
	// or because another folder has taken its place in the cluster.
	errStorage = errors.New("stopped by itself")
	// errOpenCluster: what nodes tell each other would be open to everybody.
	errOpenCluster = errors.New("nodes beyond loopback need cluster-tls-cert, cluster-tls-key and cluster-tls-ca (`strandline cluster certs` makes some), or --insecure if the network is yours alone")
	// errClusterFolder: a single node must not write behind a cluster's back.
	errClusterFolder = errors.New("it belongs to a node of a cluster: give cluster-node and the rest of that node's settings; to make a single node of it, restore a backup of the cluster into another folder; to begin a new cluster with it after the others are lost for good, run `strandline cluster recover` first")
	// errForced: a second signal came while stopping.
	errForced = errors.New("told to stop a second time: left without a flush")
	// errStopping: a node that leaves should get no more traffic.
	errStopping = errors.New("stopping")
	// errDamaged: check found faults, which it has printed.
	errDamaged = errors.New("faults found")
	// errFormat: there is no such output format.
	errFormat = errors.New("unknown format: want table, json or csv")
	// errImportFormat: there is no such input format.
	errImportFormat = errors.New("unknown format")
	// errAnswer: the server refused a query or a write.
	errAnswer = errors.New("the server refused")
)

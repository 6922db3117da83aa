//go:build !invariants

package main

import "github.com/strandline-db/strandline/engine"

func armFailpoint(*engine.Options) {}

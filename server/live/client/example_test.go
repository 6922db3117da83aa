package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/strandline-db/strandline/server/live/client"
)

// A client follows the request rate of each region, over three nodes of a cluster.
func Example() {
	c, err := client.New([]string{"http://127.0.0.1:9595", "http://127.0.0.2:9595", "http://127.0.0.3:9595"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(client.Query{
		Expr: "sum by (region) (rate(http_requests_total[1m]))", Step: time.Second, Backfill: 15 * time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	for u, err := range sub.All(context.Background()) {
		switch {
		case err != nil:
			log.Fatal(err)
		case u.Dropped != nil:
			fmt.Println("missed", u.Dropped.Count, "steps")
		}
		for _, s := range u.Samples {
			fmt.Println(u.Time, s.Labels["region"], s.Value)
		}
	}
}

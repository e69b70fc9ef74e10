// r3labs/sse, used as its documentation shows:
//
//	r3labs URL
//
// prints one line of JSON for each event that the library dispatches: {"id", "event", "data"}.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	client := sse.NewClient(os.Args[1])
	out := json.NewEncoder(os.Stdout)
	// The library reconnects after an error. After an end in order it returns, and keeps the last id.
	for {
		err := client.SubscribeRaw(func(event *sse.Event) {
			name := string(event.Event)
			if name == "" {
				name = "message"
			}
			line := map[string]string{
				"id": string(event.ID), "event": name, "data": string(event.Data),
			}
			if out.Encode(line) != nil {
				os.Exit(1)
			}
		})
		fmt.Fprintln(os.Stderr, "ended:", err)
		time.Sleep(100 * time.Millisecond)
	}
}

// Command peer is what the tests of the cluster itself run in pods: `peer serve` answers HTTP on port 8080 with the
// name of its node, and `peer ask URL` prints the answer of another.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(answer)))
	case len(os.Args) == 3 && os.Args[1] == "ask":
		if err := ask(os.Args[2]); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatal("usage: peer serve | peer ask URL")
	}
}

func answer(to http.ResponseWriter, request *http.Request) {
	fmt.Fprintf(to, "%s to %s\n", os.Getenv("NODE_NAME"), request.RemoteAddr)
}

func ask(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

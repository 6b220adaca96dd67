// go-smtp as a peer of the comparison: takes every mail and discards it. `go-smtp ADDRESS`, ends by TERM.
package main

import (
	"io"
	"log"
	"os"

	"github.com/emersion/go-smtp"
)

type discard struct{}

func (discard) Login(*smtp.ConnectionState, string, string) (smtp.Session, error) {
	return nil, smtp.ErrAuthUnsupported
}
func (discard) AnonymousLogin(*smtp.ConnectionState) (smtp.Session, error) { return discard{}, nil }

func (discard) Reset()                              {}
func (discard) Logout() error                       { return nil }
func (discard) Mail(string, smtp.MailOptions) error { return nil }
func (discard) Rcpt(string) error                   { return nil }

func (discard) Data(content io.Reader) error {
	_, err := io.Copy(io.Discard, content)
	return err
}

func main() {
	server := smtp.NewServer(discard{})
	server.Addr = os.Args[1]
	server.Domain = "bench.example.net"
	server.AuthDisabled = true
	log.Fatal(server.ListenAndServe())
}

package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Of what lies where the socket is to be only a socket is removed.
func TestListenRemoves(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := listen([]string{"unix:" + file}); err == nil {
		t.Error("it listens in place of a file")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("the file: got %q, %v", text, err)
	}
	left := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := listen([]string{"unix:" + left})
	if err != nil {
		t.Fatal(err)
	}
	again[0].Close()
}

package main

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/man anew")

// sections turns the headings of help texts, which stand alone in capitals, into headings of a document.
func sections(c *cobra.Command, mark string) {
	var lines []string
	for line := range strings.SplitSeq(c.Long, "\n") {
		if line != "" && line == strings.ToUpper(line) && strings.Trim(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ") == "" && line[0] != ' ' {
			line = mark + " " + line
		}
		lines = append(lines, line)
	}
	c.Long = strings.Join(lines, "\n")
	for _, child := range c.Commands() {
		sections(child, mark)
	}
}

// manual makes all pages from the help texts: the manual page of each command, and one document of all.
func manual(t *testing.T) map[string][]byte {
	t.Helper()
	pages := map[string][]byte{}
	root := (&app{ui: newUI()}).root()
	root.InitDefaultHelpCmd()
	sections(root, "#")
	dir := t.TempDir()
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a page changes when its text does
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "varve", Manual: "varve", Date: &date}, dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if pages[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}

	var all bytes.Buffer
	all.WriteString("# Commands\n\nWhat `varve help COMMAND` says, of all commands. Made from the program; do not edit.\n\n")
	root = (&app{ui: newUI()}).root()
	sections(root, "###")
	var write func(c *cobra.Command)
	write = func(c *cobra.Command) {
		if err := doc.GenMarkdownCustom(c, &all, func(file string) string {
			return "#" + strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "_", "-")
		}); err != nil {
			t.Fatal(err)
		}
		for _, child := range c.Commands() {
			if child.IsAvailableCommand() {
				write(child)
			}
		}
	}
	write(root)
	pages["commands.md"] = all.Bytes()
	return pages
}

// TestManual compares docs/man with what the help texts say now. go test ./cmd/varve -run TestManual -update writes it.
func TestManual(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "man")
	pages := manual(t)
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, page := range pages {
			if err := os.WriteFile(filepath.Join(dir, name), page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, page := range pages {
		committed, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(committed, page) {
			t.Errorf("docs/man/%s is not what the help says: run go test ./cmd/varve -run TestManual -update", name)
		}
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && pages[e.Name()] == nil {
			t.Errorf("%s belongs to no command", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHelp asks of every command what a user looks for in its help.
func TestHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.HasParent() {
			for what, there := range map[string]bool{"a short text": c.Short != "", "an example": c.Example != "",
				"EXIT STATUS": strings.Contains(c.Long, "\n\nEXIT STATUS\n")} {
				if !there {
					t.Errorf("the help of %s has no %s", c.CommandPath(), what)
				}
			}
		}
		for line := range strings.SplitSeq(c.Long, "\n") {
			if len(line) > 120 {
				t.Errorf("a line of the help of %s is %d characters long: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit((&app{ui: newUI()}).root())
}

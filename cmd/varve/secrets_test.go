package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"varve/repo/storage"
)

// secret is what must not be found anywhere: no other text has it in it.
const secret = "Tr0ub4dor-uNiQuE-pa55"

// TestSecretsAreNotTold runs commands, good and bad ones, that get a password in every way there is: it is in nothing that
// they print, not in the arguments of the process, and in no file of repository or cache.
func TestSecretsAreNotTold(t *testing.T) {
	work := t.TempDir()
	place := filepath.Join(work, "repository")
	st, err := storage.OpenLocal(place, true)
	if err != nil {
		t.Fatal(err)
	}
	r := shelf(t, st, place, secret)
	var master []byte
	if master, err = json.Marshal([]any{r}); err != nil || string(master) != "[{}]" {
		t.Errorf("a repository as JSON is %s, %v", master, err)
	}
	write := func(name, text string) string {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file, disk := write("password", secret+"\n"), write("disk.img", string(randomBytes(300_000, 1)))
	seen := filepath.Join(work, "seen")
	// It notes how the program that runs it was called.
	program := write("command", "#!/bin/sh\ncat /proc/$PPID/cmdline >> "+seen+"\ncat "+file+"\n")
	wrong := write("wrong", secret+"-but-wrong")

	var told bytes.Buffer
	varve := func(environment []string, args ...string) {
		t.Helper()
		c := exec.Command("varve", args...)
		c.Env = append(os.Environ(), "VARVE_PASSWORD=")
		c.Env = append(c.Env, environment...)
		c.Stdout, c.Stderr = &told, &told
		_ = c.Run() // many of them are to fail
		for _, arg := range c.Args {
			if strings.Contains(arg, secret) {
				t.Errorf("the test itself tells: %q", arg)
			}
		}
	}
	for _, from := range []struct {
		environment []string
		flags       []string
	}{
		{flags: []string{"--password-file", file}},
		{flags: []string{"--password-command", program}},
		{environment: []string{"VARVE_PASSWORD=" + secret}},
		{environment: []string{"VARVE_PASSWORD_FILE=" + file}},
		{environment: []string{"VARVE_PASSWORD_COMMAND=" + program}},
	} {
		for _, args := range [][]string{{"backup", disk, "-v"}, {"restore", "nothing", "-t", disk}} {
			varve(from.environment, append(args, from.flags...)...)
		}
	}
	for _, args := range [][]string{
		{"snapshots", "--json"}, {"check", "--read-data", "-v"}, {"key", "list"}, {"backup", "/nowhere", "--json"}, {"cache"}, {"stats"},
		{"no-such-command"}, {"backup", "--no-such-flag"},
	} {
		varve([]string{"VARVE_PASSWORD=" + secret}, args...)
	}
	varve(nil, "snapshots", "--password-file", wrong, "-v")
	varve(nil, "snapshots", "--password-file", wrong, "--json")
	varve([]string{"VARVE_PASSWORD=" + secret + "-but-wrong"}, "backup", disk, "-v")
	varve(nil, "snapshots", "--password-command", "cat "+wrong)
	varve(nil, "snapshots", "--password-command", program+" 'an open quote")
	varve([]string{"VARVE_PASSWORD=" + secret}, "key", "add", "--new-password-command", program)
	varve([]string{"VARVE_PASSWORD=" + secret}, "key", "remove", "0123")
	if err := os.WriteFile(filepath.Join(place, "config"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	varve([]string{"VARVE_PASSWORD=" + secret}, "check", "-v")

	if !strings.Contains(told.String(), "snapshot") || !strings.Contains(told.String(), "wrong password") {
		t.Errorf("the commands did not run:\n%s", &told)
	}
	arguments, err := os.ReadFile(seen)
	if err != nil || !bytes.Contains(arguments, []byte("varve")) {
		t.Errorf("the arguments were not seen: %q, %v", arguments, err)
	}
	for what, text := range map[string][]byte{"what was printed": told.Bytes(), "the arguments of the process": arguments} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the password is in %s", what)
		}
	}
	for _, folder := range []string{place, os.Getenv("VARVE_CACHE_DIR")} {
		if out, err := exec.Command("grep", "-rl", secret, folder).Output(); err == nil {
			t.Errorf("the password is in\n%s", out)
		}
	}
}

// TestNoFlagTakesAPassword: the arguments of a process can be read by all who work on the machine.
func TestNoFlagTakesAPassword(t *testing.T) {
	var look func(c *cobra.Command)
	found := 0
	look = func(c *cobra.Command) {
		check := func(f *pflag.Flag) {
			if !strings.Contains(f.Name, "password") {
				return
			}
			found++
			if !strings.HasSuffix(f.Name, "-file") && !strings.HasSuffix(f.Name, "-command") && f.Value.Type() != "bool" {
				t.Errorf("%s --%s takes a password", c.CommandPath(), f.Name)
			}
		}
		c.Flags().VisitAll(check)
		c.PersistentFlags().VisitAll(check)
		for _, child := range c.Commands() {
			look(child)
		}
	}
	look((&app{ui: newUI()}).root())
	if found < 6 {
		t.Errorf("only %d flags have to do with passwords", found)
	}
}

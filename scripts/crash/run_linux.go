package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"varve/repo"
	"varve/repo/storage"
)

const password = "power"

// step is something that a user did, and where in the log of the device it began and ended.
type step struct {
	args       []string
	begin, end int
	makes      string   // the tag of the snapshot that it makes
	removes    []string // tags of those that it removes
	keys       bool     // it changes config or keys, which a check finds unfinished until it is done
}

func (s *step) String() string { return "varve " + strings.Join(s.args, " ") }

// days are the states of the disk that is backed up, by tag.
type days map[string][]byte

// newDays makes n days.
func newDays(n int, random *rand.Rand) (tags []string, all days) {
	all = days{}
	var disk []byte
	for i := range n {
		disk = nextDay(disk, random)
		tag := fmt.Sprintf("day%d", i+1)
		tags = append(tags, tag)
		all[tag] = disk
	}
	return tags, all
}

// nextDay returns a disk of little more than two megabytes, of which some parts are not as on the day before.
func nextDay(before []byte, random *rand.Rand) []byte {
	fill := func(data []byte) {
		for i := range data {
			data[i] = byte(random.Uint32())
		}
	}
	disk := bytes.Clone(before)
	if disk == nil {
		disk = make([]byte, 2<<20+12288)
		fill(disk)
		copy(disk[1<<20:], bytes.Repeat(disk[:4000], 60)) // something that compresses
	}
	for range 3 {
		at, length := random.IntN(len(disk)), 4096*(1+random.IntN(30))
		fill(disk[at:min(len(disk), at+length)])
	}
	return disk
}

// session is a run of commands on a filesystem that is recorded.
type session struct {
	varve  string // the program
	folder string // for files of its own
	mount  string
	device *device
	days   days
	steps  []step
}

// running is a command at work.
type running struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when what it says has been read to the end
	said bytes.Buffer
}

// start starts varve; done is called at once when it says what it has done: from then on it is done, not only when the
// program has ended.
func (s *session) start(args []string, done func()) (*running, error) {
	r := &running{cmd: exec.Command(s.varve, args...), done: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), "VARVE_REPOSITORY="+filepath.Join(s.mount, "repository"), "VARVE_PASSWORD="+password,
		"VARVE_CACHE_DIR="+filepath.Join(s.mount, "cache"))
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.cmd.Stderr = r.cmd.Stdout
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), `"message_type":"summary"`) {
				done()
			}
			fmt.Fprintln(&r.said, lines.Text())
		}
	}()
	return r, nil
}

// wait waits for the end.
func (r *running) wait() error {
	<-r.done
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("varve %s: %w\n%s", strings.Join(r.cmd.Args[1:], " "), err, r.said.Bytes())
	}
	return nil
}

// do runs varve and keeps the step.
func (s *session) do(st step) error {
	st.begin = s.device.position()
	r, err := s.start(st.args, func() { st.end = s.device.position() })
	if err == nil {
		err = r.wait()
	}
	if err != nil {
		return err
	}
	if st.end == 0 {
		st.end = s.device.position()
	}
	s.steps = append(s.steps, st)
	return nil
}

// backup stores a day.
func (s *session) backup(tag string) error {
	args, err := s.backupOf(tag)
	if err != nil {
		return err
	}
	return s.do(step{args: args, makes: tag})
}

// backupOf puts the disk of a day in its place and returns the command that stores it.
func (s *session) backupOf(tag string) ([]string, error) {
	disk := filepath.Join(s.folder, "disk.img")
	return []string{"backup", "--json", "--host", "host", "--tag", tag, disk}, os.WriteFile(disk, s.days[tag], 0o600)
}

// cheapKey replaces the key of the repository by one that takes little time to open: every state is opened.
func (s *session) cheapKey() error {
	at, err := storage.OpenLocal(filepath.Join(s.mount, "repository"), false)
	if err != nil {
		return err
	}
	r, err := repo.Open(context.Background(), at, repo.Options{Password: []byte(password)})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.ChangePassword(context.Background(), []byte(password), repo.KDF{Time: 1, Memory: 64, Threads: 1}, "")
	return err
}

// live is what the recorded user does: all commands that change a repository.
func (s *session) live(tags []string) error {
	run := func(st step) func() error { return func() error { return s.do(st) } }
	changeKey := func() error {
		begin := s.device.position()
		err := s.cheapKey()
		s.steps = append(s.steps, step{args: []string{"key passwd"}, begin: begin, end: s.device.position(), keys: true})
		return err
	}
	backup := func(i int) func() error { return func() error { return s.backup(tags[i]) } }
	for _, f := range []func() error{
		run(step{args: []string{"init", "-q"}, keys: true}), changeKey,
		backup(0), backup(1), backup(2),
		run(step{args: []string{"tag", "--json", "--add", "kept", "latest"}}),
		run(step{args: []string{"forget", "--json", "--keep-last", "2", "--prune", "--max-unused", "0"}, removes: tags[:1]}),
		backup(3), backup(4),
		run(step{args: []string{"forget", "--json", "--keep-last", "2"}, removes: tags[1:3]}),
		run(step{args: []string{"prune", "--json", "--max-unused", "0"}}),
		backup(5),
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
